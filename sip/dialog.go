package sip

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
)

// Errors of a dialog's methods, for errors.Is.
var (
	ErrEnded = errors.New("sip: the dialog has ended") // cancelled, rejected, bye sent or received, lost
	ErrState = errors.New("sip: not in this state of the dialog")
	ErrNoACK = errors.New("sip: no ACK for the 200 (RFC 3261 §13.3.1.4)")
)

// StatusError is a final response other than 2xx.
type StatusError struct {
	Code   int
	Phrase string
	Reason Reason // of the response's Reason header, if any
}

// Error implements error.
func (e *StatusError) Error() string { return fmt.Sprintf("%d %s", e.Code, e.Phrase) }

// Header is a header field of a message.
type Header struct{ Name, Value string }

// Reason is a value of the Reason header field (RFC 3326).
type Reason struct {
	Protocol string // "Q.850" (also if empty) or "SIP"
	Cause    int
	Text     string
}

// Party is who a From or To header field names.
type Party struct {
	Display string // unquoted
	User    string // user part of the URI, percent-decoded
	Host    string
	URI     string // as it came
}

// DialogHandler receives what happens to a dialog. Callbacks come one after
// another, hold no lock, and must not block: they run where the message was
// read. A nil field ignores the event (a Reoffer is then rejected with 488).
// Of Cancelled, Bye and Lost at most one comes, and nothing after it.
type DialogHandler struct {
	Cancelled func()
	Bye       func(Reason)
	Info      func(contentType string, body []byte)
	Reoffer   func(*Reoffer)
	Lost      func(error) // the ACK never came, a request was not answered, the user agent closed
}

// Dialog is a call that came in. Its methods are safe for concurrent use.
type Dialog struct{}

// CallID returns the Call-ID.
func (d *Dialog) CallID() string { return "" }

// Trunk returns what Options.Match said of the source.
func (d *Dialog) Trunk() string { return "" }

// Source returns the address the INVITE came from.
func (d *Dialog) Source() netip.AddrPort { return netip.AddrPort{} }

// Local returns the address of ours that the peer sees: the listener's
// advertised one if that is an IP address, else the one that faces the peer.
func (d *Dialog) Local() netip.AddrPort { return netip.AddrPort{} }

// From returns the caller.
func (d *Dialog) From() Party { return Party{} }

// To returns the called party of the To header field.
func (d *Dialog) To() Party { return Party{} }

// RequestUser returns the user part of the Request-URI, percent-decoded.
func (d *Dialog) RequestUser() string { return "" }

// Header returns the first value of a header field of the INVITE, or "". The
// name's case does not matter; quotes around the whole value, escapes in it
// and control characters are taken off.
func (d *Dialog) Header(name string) string { return "" }

// Offer returns the session description of the INVITE, nil for a late offer.
func (d *Dialog) Offer() []byte { return nil }

// On sets the handler; an event that came before is delivered at once.
func (d *Dialog) On(h DialogHandler) {}

// Ringing sends 180 and repeats it every minute (RFC 3261 §13.3.1.1).
func (d *Dialog) Ringing() error { return errors.New("sip: not finished") }

// Progress sends a provisional response of the given code, with an answer in
// it if sdp is not nil.
func (d *Dialog) Progress(code int, sdp []byte) error { return errors.New("sip: not finished") }

// Answer sends 200 with sdp and repeats it until the ACK comes (RFC 3261
// §13.3.1.4). It returns the ACK's session description, nil unless the INVITE
// carried no offer. Without an ACK in 64·T1 the dialog is ended with BYE and
// ErrNoACK is returned. When ctx ends first the repeating goes on.
func (d *Dialog) Answer(ctx context.Context, sdp []byte) (ackSDP []byte, err error) {
	return nil, errors.New("sip: not finished")
}

// Reject sends a final response of code 300 to 699 with a Reason header field
// and, if r has a text, a Warning 399.
func (d *Dialog) Reject(code int, r Reason, extra ...Header) error {
	return errors.New("sip: not finished")
}

// Bye ends an answered dialog and waits for the answer. Before the ACK has
// come it waits for that first (RFC 3261 §15). When ctx ends first the BYE is
// still sent and repeated.
func (d *Dialog) Bye(ctx context.Context, r Reason) error { return errors.New("sip: not finished") }

// Info sends an INFO request and waits for the answer: nil for 2xx, a
// [*StatusError] for any other.
func (d *Dialog) Info(ctx context.Context, contentType string, body []byte) error {
	return errors.New("sip: not finished")
}

// Reinvite offers sdp anew and returns the answer. Glare (491) is retried
// after the pause of RFC 3261 §14.1.
func (d *Dialog) Reinvite(ctx context.Context, sdp []byte) ([]byte, error) {
	return nil, errors.New("sip: not finished")
}

// Done is closed when the dialog has ended, in whatever way.
func (d *Dialog) Done() <-chan struct{} { return nil }

// Reoffer is a re-INVITE that waits for our answer. It must be answered or
// rejected once; a second answer fails with ErrState.
type Reoffer struct {
	SDP []byte // nil: the peer has sent no offer, so the answer's sdp is ours
}

// Answer accepts with sdp. For a re-INVITE without an offer the peer's answer
// comes in the ACK and goes to onACK, if that is not nil.
func (r *Reoffer) Answer(sdp []byte) error { return errors.New("sip: not finished") }

// Reject refuses; the session stays as it was.
func (r *Reoffer) Reject(code int) error { return errors.New("sip: not finished") }
