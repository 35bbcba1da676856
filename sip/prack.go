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

// ErrNoPRACK says that a reliable provisional response was never confirmed.
var ErrNoPRACK = errors.New("sip: no PRACK for a reliable provisional response (RFC 3262 §3)")

// maxProvisional bounds the provisional responses that wait for the PRACK of
// the one before.
const maxProvisional = 8

// provisional is a reliable provisional response that waits for its PRACK.
type provisional struct {
	code int
	sdp  []byte

	rseq          uint32
	b             []byte
	interval      time.Duration
	resend, limit *time.Timer
	done          chan struct{} // closed when nothing is waited for any more
}

// OfferDue reports whether provisional responses have to carry an offer of
// ours: the INVITE had none, and requires reliable ones (RFC 3262 §5).
func (d *Dialog) OfferDue() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.offer == nil && d.state == early && !d.outgoing() && !d.described && d.mustRely()
}

func (d *Dialog) mustRely() bool { return requires(d.invite, "100rel") }

// reliably reports whether a provisional response goes reliably: whenever it
// may. Without an offer in either direction it may not. d.mu is held.
func (d *Dialog) reliably(sdp []byte) bool {
	return d.policy.Reliable != ReliableOff && supports(d.invite, "100rel") && (d.offer != nil || d.described || sdp != nil)
}

// progress sends a reliable provisional response, or keeps it until the one
// before was confirmed. d.mu is held.
func (d *Dialog) progress(code int, sdp []byte) error {
	p := &provisional{code: code, sdp: sdp}
	if d.pending != nil {
		if len(d.queued) >= maxProvisional {
			return ErrState
		}
		d.queued = append(d.queued, p)
		return nil
	}
	return d.sendProvisional(p)
}

func (d *Dialog) sendProvisional(p *provisional) error {
	if d.rseq == 0 {
		d.rseq = rand.Uint32N(1<<30) + 1
	} else {
		d.rseq++
	}
	if d.repeat != nil {
		d.repeat.Stop()
	}
	if d.described {
		p.sdp = nil // there is an answer, or an offer, already
	}
	p.rseq, p.interval, p.done = d.rseq, d.u.o.T1, make(chan struct{})
	p.b = d.response(d.f, d.invite, reply{code: p.code, body: p.sdp, headers: []Header{
		{"Require", "100rel"}, {"RSeq", strconv.FormatUint(uint64(p.rseq), 10)},
	}})
	d.pending = p
	d.awaitsPRACK = d.offer == nil && p.sdp != nil
	if p.sdp != nil {
		d.described, d.localSDP = true, p.sdp
	}
	p.resend = time.AfterFunc(p.interval, func() { d.provisionalAgain(p) })
	p.limit = time.AfterFunc(64*d.u.o.T1, func() { d.unconfirmed(p) })
	return d.tx.respond(p.code, p.b)
}

func (d *Dialog) provisionalAgain(p *provisional) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.pending != p || d.state != early {
		return
	}
	_ = d.tx.respond(p.code, p.b)
	p.interval *= 2
	p.resend.Reset(p.interval)
}

// unconfirmed ends a dialog whose reliable response was never confirmed.
func (d *Dialog) unconfirmed(p *provisional) {
	d.mu.Lock()
	if d.pending != p || d.state != early {
		d.mu.Unlock()
		return
	}
	d.confirmed(p)
	_ = d.tx.respond(504, d.response(d.f, d.invite, reply{code: 504, headers: Reason{Cause: 102, Text: "no PRACK"}.headers()}))
	d.mu.Unlock()
	d.lose(ErrNoPRACK)
}

// confirmed ends the waiting for a PRACK. d.mu is held.
func (d *Dialog) confirmed(p *provisional) {
	if p == nil || d.pending != p {
		return
	}
	d.pending = nil
	p.resend.Stop()
	p.limit.Stop()
	close(p.done)
}

// pracked takes a PRACK (RFC 3262 §3). d.mu is held and released.
func (d *Dialog) pracked(tx *serverTx, req *sip.Request) {
	refuse := func(code int, hs ...Header) {
		d.mu.Unlock()
		_ = tx.respond(code, d.response(tx.f, req, reply{code: code, headers: hs}))
	}
	p := d.pending
	rseq, cseq, ok := parseRAck(req)
	if !ok {
		refuse(400, d.u.warning(tx.f, "RAck"))
		return
	}
	if p == nil || rseq != p.rseq || cseq != d.invite.CSeq().SeqNo {
		refuse(481)
		return
	}
	sdp, code, h := session(req)
	if code != 0 {
		refuse(code, h)
		return
	}
	d.confirmed(p)
	if d.awaitsPRACK {
		d.awaitsPRACK, d.prackSDP, sdp = false, sdp, nil
	}
	if sdp == nil { // before whatever its coming sets off
		_ = tx.respond(200, d.response(tx.f, req, reply{code: 200}))
	}
	if d.state == early {
		if len(d.queued) > 0 {
			next := d.queued[0]
			d.queued = d.queued[1:]
			_ = d.sendProvisional(next)
		} else {
			// So that no proxy on the way gives up (RFC 3261 §13.3.1.1).
			d.repeat = time.AfterFunc(120*d.u.o.T1, func() {
				d.mu.Lock()
				defer d.mu.Unlock()
				if d.state == early && d.pending == nil {
					_ = d.progress(p.code, nil)
				}
			})
		}
	}
	if sdp != nil {
		d.reoffered(tx, req, sdp) // unlocks
		return
	}
	d.mu.Unlock()
}

// parseRAck reads RAck: response number, CSeq number, INVITE.
func parseRAck(m message) (rseq, cseq uint32, ok bool) {
	v := headerValues(m, "RAck")
	if len(v) != 1 {
		return 0, 0, false
	}
	f := strings.Fields(v[0])
	if len(f) != 3 || f[2] != string(sip.INVITE) {
		return 0, 0, false
	}
	r, err := strconv.ParseUint(f[0], 10, 32)
	c, err2 := strconv.ParseUint(f[1], 10, 32)
	return uint32(r), uint32(c), err == nil && err2 == nil
}

// settleProvisional waits until nothing of what was described reliably is
// unconfirmed: a 2xx must not overtake it (RFC 3262 §3). d.mu is held, and
// released meanwhile.
func (d *Dialog) settleProvisional(ctx context.Context) error {
	d.queued = nil
	for p := d.pending; p != nil && p.sdp != nil && d.state == early; p = d.pending {
		d.mu.Unlock()
		select {
		case <-p.done:
			d.mu.Lock()
		case <-ctx.Done():
			d.mu.Lock()
			return ctx.Err()
		}
	}
	return nil
}

// rseqOf returns the number of a reliable provisional response, 0 if it is none.
func rseqOf(res *sip.Response) uint32 {
	v := headerValues(res, "RSeq")
	if len(v) != 1 || !requires(res, "100rel") {
		return 0
	}
	n, err := strconv.ParseUint(strings.TrimSpace(v[0]), 10, 32)
	if err != nil {
		return 0
	}
	return uint32(n)
}

// prack confirms a reliable provisional response to our INVITE, without
// waiting.
func (d *Dialog) prack(rseq, cseq uint32) {
	d.mu.Lock()
	if d.state == ended {
		d.mu.Unlock()
		return
	}
	req := d.newRequest(sip.PRACK)
	d.mu.Unlock()
	appendHeader(req, Header{"RAck", strconv.FormatUint(uint64(rseq), 10) + " " + strconv.FormatUint(uint64(cseq), 10) + " INVITE"})
	d.u.spawn(func() { _, _, _ = d.send(d.u.ctx, req) }) // lost: the peer repeats its response, or gives up
}
