package sip

import (
	"context"
	"errors"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"

	"github.com/emiago/sipgo/sip"
)

// unacked is a 2xx to an INVITE that waits for its ACK (RFC 3261 §13.3.1.4).
type unacked struct {
	d             *Dialog
	seq           uint32
	tx            *serverTx
	b             []byte
	late          bool // the ACK has the answer to our offer
	interval      time.Duration
	resend, limit *time.Timer
	onACK         func(sdp []byte)

	done chan struct{} // closed by settle; sdp and err are set then
	sdp  []byte
	err  error
}

// accept sends a 2xx and begins to repeat it, on whatever transport, first
// after T1 and then in doubling steps up to T2. d.mu is held.
func (d *Dialog) accept(tx *serverTx, req *sip.Request, sdp []byte, late bool, onACK func([]byte)) *unacked {
	o := d.u.o
	w := &unacked{d: d, seq: req.CSeq().SeqNo, tx: tx, late: late, onACK: onACK, interval: o.T1, done: make(chan struct{})}
	w.b = d.response(tx.f, req, reply{code: 200, body: sdp})
	d.unacked[w.seq] = w
	w.resend = time.AfterFunc(o.T1, w.again)
	w.limit = time.AfterFunc(64*o.T1, w.giveUp)
	_ = tx.respond(200, w.b) // a send that fails is made up for by the next
	return w
}

func (w *unacked) again() {
	w.d.mu.Lock()
	defer w.d.mu.Unlock()
	if w.d.unacked[w.seq] != w {
		return
	}
	w.tx.send(w.b)
	w.interval = min(2*w.interval, w.d.u.o.T2)
	w.resend.Reset(w.interval)
}

// settle ends the waiting. d.mu is held.
func (w *unacked) settle(sdp []byte, err error) {
	if w.d.unacked[w.seq] != w {
		return
	}
	delete(w.d.unacked, w.seq)
	w.resend.Stop()
	w.limit.Stop()
	w.sdp, w.err = sdp, err
	close(w.done)
}

// giveUp ends the dialog whose ACK never came.
func (w *unacked) giveUp() {
	d := w.d
	d.mu.Lock()
	if d.unacked[w.seq] != w {
		d.mu.Unlock()
		return
	}
	w.settle(nil, ErrNoACK)
	if !d.finish() {
		d.mu.Unlock()
		return
	}
	req := d.newRequest(sip.BYE)
	d.mu.Unlock()
	d.u.spawn(func() { _ = d.sendBye(req, Reason{Cause: 102, Text: "no ACK for the 200 OK"}) })
	d.post(true, func(h DialogHandler) {
		if h.Lost != nil {
			h.Lost(ErrNoACK)
		}
	})
}

// acked takes an ACK; one that nothing waits for is a repetition.
func (d *Dialog) acked(req *sip.Request) {
	sdp, _, _ := session(req)
	d.mu.Lock()
	w := d.unacked[req.CSeq().SeqNo]
	if w == nil {
		d.mu.Unlock()
		return
	}
	if !w.late {
		sdp = nil
	}
	w.settle(sdp, nil)
	if d.state == answered {
		d.state = confirmed
	}
	d.mu.Unlock()
	if w.onACK != nil {
		d.post(false, func(DialogHandler) { w.onACK(sdp) })
	}
}

// Answer sends 200 with sdp and repeats it until the ACK comes (RFC 3261
// §13.3.1.4). It returns the ACK's session description, nil unless the INVITE
// carried no offer. Without an ACK in 64·T1 the dialog is ended with BYE, and
// ErrNoACK is returned and given to Lost. When ctx ends first the repeating
// goes on.
func (d *Dialog) Answer(ctx context.Context, sdp []byte) (ackSDP []byte, err error) {
	d.mu.Lock()
	if err := d.must(early); err != nil {
		d.mu.Unlock()
		return nil, err
	}
	d.state = answered
	for _, t := range []*time.Timer{d.repeat, d.expires} {
		if t != nil {
			t.Stop()
		}
	}
	w := d.accept(d.tx, d.invite, sdp, d.offer == nil, nil)
	d.mu.Unlock()
	select {
	case <-w.done:
		return w.sdp, w.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Reoffer is a re-INVITE that waits for our answer. It must be answered or
// rejected once, within 64·T1; after that, and a second time, it is ErrState.
type Reoffer struct {
	// SDP is the offer. nil: there was none, so the answer's sdp is an offer
	// of ours, and the peer's answer goes to ACK.
	SDP []byte
	// ACK, if set before Answer, receives the session description of the ACK
	// (nil if it had none). It is called as the handler is.
	ACK func(sdp []byte)

	d     *Dialog
	tx    *serverTx
	req   *sip.Request
	timer *time.Timer
}

// settled takes the re-INVITE off the dialog. d.mu is held.
func (r *Reoffer) settled() {
	r.d.theirs = nil
	r.timer.Stop()
}

// Answer accepts with sdp.
func (r *Reoffer) Answer(sdp []byte) error {
	d := r.d
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.theirs != r {
		return ErrState
	}
	r.settled()
	d.refreshTarget(r.req.Contact())
	d.accept(r.tx, r.req, sdp, r.SDP == nil, r.ACK)
	return nil
}

// Reject refuses; the session stays as it was.
func (r *Reoffer) Reject(code int) error {
	d := r.d
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.theirs != r {
		return ErrState
	}
	r.settled()
	return r.tx.respond(code, d.response(r.tx.f, r.req, reply{code: code}))
}

// reinvited takes a re-INVITE (RFC 3261 §14.2). d.mu is held and released.
func (d *Dialog) reinvited(tx *serverTx, req *sip.Request) {
	sdp, code, h := session(req)
	hs := []Header{h}
	switch {
	case code != 0:
	case d.state == early || d.theirs != nil:
		code, hs = 500, []Header{{"Retry-After", strconv.Itoa(rand.IntN(11))}}
	case d.ours || d.awaitsAnswer():
		code = 491
	}
	if code != 0 {
		d.mu.Unlock()
		_ = tx.respond(code, d.response(tx.f, req, reply{code: code, headers: hs}))
		return
	}
	r := &Reoffer{SDP: sdp, d: d, tx: tx, req: req}
	r.timer = time.AfterFunc(64*d.u.o.T1, func() { _ = r.Reject(500) })
	d.theirs = r
	_ = tx.respond(100, d.response(tx.f, req, reply{code: 100}))
	d.mu.Unlock()
	tx.onCancel(d.id.local, func(Reason) { _ = r.Reject(487) })
	d.post(false, func(h DialogHandler) {
		if h.Reoffer == nil {
			_ = r.Reject(488)
			return
		}
		h.Reoffer(r)
	})
}

// awaitsAnswer reports whether an offer of ours in a 2xx is not answered yet.
func (d *Dialog) awaitsAnswer() bool {
	for _, w := range d.unacked {
		if w.late {
			return true
		}
	}
	return false
}

// Reinvite offers sdp anew and returns the answer. While another re-INVITE is
// under way, or the peer's crosses ours (491), it is tried again after the
// pause of RFC 3261 §14.1, up to 4·T1, until ctx ends.
func (d *Dialog) Reinvite(ctx context.Context, sdp []byte) ([]byte, error) {
	for {
		body, err := d.reinvite(ctx, sdp)
		var se *StatusError
		if !errors.Is(err, errGlare) && !(errors.As(err, &se) && se.Code == 491) {
			return body, err
		}
		t := time.NewTimer(rand.N(4 * d.u.o.T1))
		select {
		case <-t.C:
		case <-d.done:
			t.Stop()
			return nil, ErrEnded
		case <-ctx.Done():
			t.Stop()
			return nil, ctx.Err()
		}
	}
}

var errGlare = errors.New("another re-INVITE is under way")

func (d *Dialog) reinvite(ctx context.Context, sdp []byte) ([]byte, error) {
	d.mu.Lock()
	switch {
	case d.state == ended || d.byeing:
		d.mu.Unlock()
		return nil, ErrEnded
	case d.state == early:
		d.mu.Unlock()
		return nil, ErrState
	case d.ours || d.theirs != nil || len(d.unacked) > 0:
		d.mu.Unlock()
		return nil, errGlare
	}
	d.ours = true
	req := d.newRequest(sip.INVITE)
	d.mu.Unlock()
	defer func() {
		d.mu.Lock()
		d.ours = false
		d.mu.Unlock()
	}()
	appendHeader(req, Header{"Contact", d.contact()})
	appendHeader(req, Header{"Allow", allow})
	appendHeader(req, Header{"Content-Type", contentSDP})
	req.SetBody(sdp)
	res, key, err := d.send(ctx, req)
	if err != nil {
		return nil, d.failed(err)
	}
	if res.StatusCode >= 300 {
		return nil, d.failed(statusError(res))
	}
	d.mu.Lock()
	d.refreshTarget(res.Contact())
	d.mu.Unlock()
	d.ack(req, key)
	answer, _, _ := session(res)
	return answer, nil
}

// refreshTarget takes the peer's new Contact (RFC 3261 §12.2). d.mu is held.
func (d *Dialog) refreshTarget(c *sip.ContactHeader) {
	if c != nil && c.Address.Host != "" && !c.Address.Wildcard && strings.HasPrefix(c.Address.Scheme, "sip") {
		d.target = *c.Address.Clone()
	}
}
