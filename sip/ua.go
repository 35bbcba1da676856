package sip

import (
	"context"
	"errors"
	"net"
)

// UA is a SIP user agent on its listeners. Make one with [Listen].
type UA struct{}

// Listen binds the listeners of o and serves them. Everything is bound when
// it returns; ctx bounds the binding and does not stop the user agent.
func Listen(ctx context.Context, o Options) (*UA, error) {
	return nil, errors.New("sip: not finished")
}

// Addrs returns the bound addresses in the order of Options.Listen.
func (u *UA) Addrs() []net.Addr { return nil }

// Close ends every dialog without a message, closes the listeners and returns
// when every goroutine of the user agent has ended. It is idempotent.
func (u *UA) Close() error { return nil }

// Options sends an OPTIONS request to a SIP URI, "sip:host:port;transport=tcp",
// and waits for the answer: nil for 2xx, a [*StatusError] for any other.
func (u *UA) Options(ctx context.Context, target string) error { return errors.New("sip: not finished") }
