// Package dial opens the network connections of the transports and tells
// failed TLS handshakes from unreachable addresses.
package dial

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/url"
	"syscall"
	"time"
)

// TLSError is a failed handshake or a certificate that was not accepted.
type TLSError struct{ Err error }

func (e *TLSError) Error() string { return "tls: " + e.Err.Error() }
func (e *TLSError) Unwrap() error { return e.Err }

// WithoutURL is the reason inside an *url.Error, whose text has the whole
// address with parameters that may be secret.
func WithoutURL(err error) error {
	var e *url.Error
	if errors.As(err, &e) {
		return e.Err
	}
	return err
}

var dialer = net.Dialer{KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 30 * time.Second, Interval: 10 * time.Second, Count: 3}}

// TCP connects to addr (host:port).
func TCP(ctx context.Context, addr string) (net.Conn, error) {
	return dialer.DialContext(ctx, "tcp", addr)
}

// TLS connects to addr and completes a handshake. A nil cfg verifies against
// the system's roots; the server name defaults to addr's host.
func TLS(ctx context.Context, addr string, cfg *tls.Config, protos ...string) (net.Conn, error) {
	c, err := TCP(ctx, addr)
	if err != nil {
		return nil, err
	}
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		host = addr
	}
	t, err := Handshake(ctx, c, cfg, host, protos...)
	if err != nil {
		_ = c.Close()
		return nil, err
	}
	return t, nil
}

// Handshake makes a TLS client connection of c, which stays the caller's to
// close on error. name is the server name unless cfg has one.
func Handshake(ctx context.Context, c net.Conn, cfg *tls.Config, name string, protos ...string) (*tls.Conn, error) {
	if cfg == nil {
		cfg = &tls.Config{}
	} else {
		cfg = cfg.Clone()
	}
	if cfg.ServerName == "" {
		cfg.ServerName = name
	}
	cfg.NextProtos = protos
	t := tls.Client(c, cfg)
	if err := t.HandshakeContext(ctx); err != nil {
		if ctx.Err() != nil || errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) {
			return nil, err
		}
		return nil, &TLSError{err}
	}
	return t, nil
}
