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

// Reoffer is a re-INVITE, an UPDATE or a PRACK with an offer that waits for
// our answer. It must be answered or rejected once, within 64·T1; after that,
// and a second time, it is ErrState.
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

// settled takes the offer off the dialog. d.mu is held.
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
	d.localSDP = sdp
	switch r.req.Method {
	case sip.INVITE:
		d.refreshTarget(r.req.Contact())
		d.accept(r.tx, r.req, sdp, r.SDP == nil, r.ACK)
	case sip.UPDATE:
		d.acceptUpdate(r.tx, r.req, sdp)
	default:
		_ = r.tx.respond(200, d.response(r.tx.f, r.req, reply{code: 200, body: sdp}))
	}
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
	if code == 0 {
		code, h = d.u.tooSmall(req)
	}
	hs := []Header{h}
	switch {
	case code != 0:
	case d.state == early || d.theirs != nil:
		code, hs = 500, []Header{{"Retry-After", strconv.Itoa(rand.IntN(11))}}
	case d.ours || d.awaitsAnswer():
		code, hs = 491, nil
	}
	if code != 0 {
		d.mu.Unlock()
		_ = tx.respond(code, d.response(tx.f, req, reply{code: code, headers: hs}))
		return
	}
	_ = tx.respond(100, d.response(tx.f, req, reply{code: 100}))
	d.reoffered(tx, req, sdp)
}

// reoffered hands an offer to the owner. d.mu is held and released.
func (d *Dialog) reoffered(tx *serverTx, req *sip.Request, sdp []byte) {
	r := &Reoffer{SDP: sdp, d: d, tx: tx, req: req}
	r.timer = time.AfterFunc(64*d.u.o.T1, func() { _ = r.Reject(500) })
	d.theirs = r
	d.mu.Unlock()
	if req.Method == sip.INVITE {
		tx.onCancel(d.id.local, func(Reason) { _ = r.Reject(487) })
	}
	d.post(false, func(h DialogHandler) {
		if h.Reoffer == nil {
			_ = r.Reject(488)
			return
		}
		h.Reoffer(r)
	})
}

// updated takes an UPDATE (RFC 3311 §5.2). d.mu is held and released.
func (d *Dialog) updated(tx *serverTx, req *sip.Request) {
	sdp, code, h := session(req)
	if code == 0 {
		code, h = d.u.tooSmall(req)
	}
	hs := []Header{h}
	switch {
	case code != 0 || sdp == nil:
	case d.theirs != nil || d.state == early && !d.outgoing() && d.offer != nil && !d.described:
		code, hs = 500, []Header{{"Retry-After", strconv.Itoa(rand.IntN(11))}}
	case d.ours || d.awaitsAnswer() || d.pending != nil && d.pending.sdp != nil || d.state == early && !d.outgoing() && !d.described:
		code, hs = 491, nil
	}
	switch {
	case code != 0:
		d.mu.Unlock()
		_ = tx.respond(code, d.response(tx.f, req, reply{code: code, headers: hs}))
	case sdp != nil:
		d.reoffered(tx, req, sdp)
	default:
		d.acceptUpdate(tx, req, nil)
		d.mu.Unlock()
	}
}

// acceptUpdate answers an UPDATE. d.mu is held.
func (d *Dialog) acceptUpdate(tx *serverTx, req *sip.Request, sdp []byte) {
	d.refreshTarget(req.Contact())
	var a agreement
	if d.state != early { // an early session has no timer yet
		a = d.agree(req)
		d.watch(a.interval, a.ours)
	}
	_ = tx.respond(200, d.response(tx.f, req, reply{code: 200, body: sdp, headers: a.headers}))
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

// Reinvite offers sdp anew and returns the answer. While another offer is
// under way, or the peer's crosses ours (491), it is tried again after the
// pause of RFC 3261 §14.1, and where the peer asks for it (500 with
// Retry-After) after that, until ctx ends.
func (d *Dialog) Reinvite(ctx context.Context, sdp []byte) ([]byte, error) {
	answer, err := d.again(ctx, sip.INVITE, sdp)
	if err != nil {
		err = d.failed(err)
	}
	return answer, err
}

// Update is Reinvite by UPDATE (RFC 3311), which needs no ACK and may be sent
// by who was not answered yet. ErrState: the peer does not allow it.
func (d *Dialog) Update(ctx context.Context, sdp []byte) ([]byte, error) {
	d.mu.Lock()
	ok := d.updates
	d.mu.Unlock()
	if !ok {
		return nil, ErrState
	}
	answer, err := d.again(ctx, sip.UPDATE, sdp)
	if err != nil {
		err = d.failed(err)
	}
	return answer, err
}

func (d *Dialog) again(ctx context.Context, m sip.RequestMethod, sdp []byte) ([]byte, error) {
	for {
		answer, err := d.modify(ctx, m, sdp)
		var se *StatusError
		wait := d.glarePause()
		switch {
		case errors.Is(err, errGlare):
		case !errors.As(err, &se):
			return answer, err
		case se.Code == 491:
		case se.Code == 500 && se.Header("Retry-After") != "":
			wait = max(wait, min(se.retryAfter(), 20*d.u.o.T1))
		default:
			return nil, err
		}
		t := time.NewTimer(wait)
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

// glarePause is that of RFC 3261 §14.1: who owns the Call-ID waits longer,
// 2.1 to 4 s, the other at most 2 s.
func (d *Dialog) glarePause() time.Duration {
	t1 := d.u.o.T1
	if d.outgoing() {
		return 21*t1/5 + rand.N(19*t1/5)
	}
	return rand.N(4 * t1)
}

var errGlare = errors.New("another offer is under way")

// modify sends one re-INVITE or UPDATE and takes what its answer says.
func (d *Dialog) modify(ctx context.Context, m sip.RequestMethod, sdp []byte) ([]byte, error) {
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
	req := d.newRequest(m)
	appendHeader(req, Header{"Contact", d.contact()})
	for _, h := range d.policy.headers() {
		appendHeader(req, h)
	}
	d.ask(req)
	d.mu.Unlock()
	over := false
	end := func() { // d.mu is held
		if !over {
			over, d.ours = true, false
		}
	}
	defer func() {
		d.mu.Lock()
		end()
		d.mu.Unlock()
	}()
	if sdp != nil {
		appendHeader(req, Header{"Content-Type", contentSDP})
	}
	req.SetBody(sdp)
	res, key, err := d.sendTold(ctx, req, func(res *sip.Response) {
		d.mu.Lock()
		defer d.mu.Unlock()
		switch code := res.StatusCode; {
		case over:
		case code < 300:
			if m != sip.INVITE {
				end()
			}
			d.refreshTarget(res.Contact())
			d.updates = d.updates || allows(res, "UPDATE")
			d.agreed(res)
			if sdp != nil {
				d.localSDP = sdp
			}
		case code == 401 || code == 407: // it may be sent again
		default:
			end()
			if code == 422 {
				d.timer.min = max(d.timer.min, min(minSE(res), 24*time.Hour))
			}
		}
	})
	if err != nil {
		return nil, err
	}
	if res.StatusCode >= 300 {
		return nil, statusError(res)
	}
	if m == sip.INVITE {
		d.mu.Lock()
		end() // the ACK lets the peer make an offer
		d.mu.Unlock()
		d.ack(req, key)
	}
	answer, _, _ := session(res)
	return answer, nil
}

// refreshTarget takes the peer's new Contact (RFC 3261 §12.2). d.mu is held.
func (d *Dialog) refreshTarget(c *sip.ContactHeader) {
	if c != nil && c.Address.Host != "" && !c.Address.Wildcard && strings.HasPrefix(c.Address.Scheme, "sip") {
		d.target = *c.Address.Clone()
	}
}
