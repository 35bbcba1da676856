package phone

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"brewline/sip"
)

// DialOptions describe a call to a phone.
type DialOptions struct {
	Options
	UA       *sip.UA
	URI      string         // whom, sip:number@host:port;transport=…
	Route    string         // outbound proxy as a SIP URI, "": none
	Trunk    string         // over which; its TLS settings and advertised address count
	Peer     netip.AddrPort // towards which the local address is chosen; zero: bind or advertise must tell
	From, To sip.Party
	Headers  []sip.Header
	Username string
	Password string
	// EarlyMedia lets the audio of a 183 be heard before the answer.
	EarlyMedia bool
	Timeout    time.Duration // of the ringing
	// Replaces and By are for a call that a transfer asked for: the header
	// fields Replaces and Referred-By.
	Replaces, By string
	// Handler is the dialog's. Reoffer, which is called instead of its own, must
	// not block either: it has the leg's Reoffer called.
	Handler  sip.DialogHandler
	Reoffer  func(*Leg, *sip.Reoffer)
	Progress func(code int) // each provisional response; must not block
}

// Dial calls a phone and returns when it has answered. Cancelling ctx cancels
// the call. Errors: *sip.StatusError for a refusal, sip.ErrUnreachable,
// sip.ErrNoCodec, ErrOffer, transport.ErrNoPorts.
func Dial(ctx context.Context, o DialOptions) (*Leg, error) {
	advertise := o.Advertise
	if !advertise.IsValid() {
		var err error
		if advertise, err = addressTowards(o.Peer, o.Bind); err != nil {
			return nil, fmt.Errorf("local address towards %s: %w", o.Peer, err)
		}
	}
	l := newLeg(o.Options, advertise)
	l.peer = o.Peer
	if err := l.open(); err != nil {
		return nil, err
	}
	offer, err := l.offer()
	if err != nil {
		l.Close()
		return nil, err
	}
	h := o.Handler
	h.Reoffer = func(r *sip.Reoffer) { o.Reoffer(l, r) }
	d, answer, err := o.UA.Invite(ctx, sip.InviteOptions{
		URI: o.URI, Route: o.Route, Trunk: o.Trunk, From: o.From, To: o.To, Headers: o.Headers, SDP: offer,
		Username: o.Username, Password: o.Password, Handler: h, Timeout: o.Timeout,
		Replaces: o.Replaces, By: o.By, Logger: o.Logger,
		Progress: func(code int, _ string, sdp []byte) {
			if o.EarlyMedia && len(sdp) > 0 {
				l.early(sdp)
			}
			o.Progress(code)
		},
	})
	if err != nil {
		l.Close()
		return nil, err
	}
	l.mu.Lock()
	l.d, l.live = d, true
	if l.reoffered { // before the answer: what was agreed then stands
		err = l.attach()
	} else {
		err = l.accepted(answer)
	}
	l.mu.Unlock()
	if err != nil {
		bye, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		d.Bye(bye, sip.Reason{Cause: 65, Text: "The answer's session description cannot be used"})
		l.Close()
		return nil, err
	}
	return l, nil
}

// Dialog is the dialog of the leg.
func (l *Leg) Dialog() *sip.Dialog {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.d
}

// early lets the phone's side be heard before it answers.
func (l *Leg) early(sdp []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.media != nil {
		return
	}
	l.live = true
	if err := l.accepted(sdp); err != nil {
		l.media, l.live = nil, false
		l.o.Logger.Info("early media not used", "err", err)
	}
}
