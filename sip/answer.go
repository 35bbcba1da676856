package sip

import (
	"context"
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
	a := d.agree(req)
	w.b = d.response(tx.f, req, reply{code: 200, body: sdp, headers: a.headers})
	d.watch(a.interval, a.ours)
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
	waited := d.unacked[w.seq] == w
	if waited {
		w.settle(nil, ErrNoACK)
	}
	d.mu.Unlock()
	if waited {
		d.abandon(ErrNoACK, Reason{Cause: 102, Text: "no ACK for the 200 OK"})
	}
}

// abandon ends the dialog with BYE for an error.
func (d *Dialog) abandon(err error, r Reason) {
	d.mu.Lock()
	if !d.finish() {
		d.mu.Unlock()
		return
	}
	req := d.newRequest(sip.BYE)
	d.mu.Unlock()
	d.u.spawn(func() { _ = d.sendBye(req, r) })
	d.post(true, func(h DialogHandler) {
		if h.Lost != nil {
			h.Lost(err)
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
//
// Where a reliable provisional response had a session description, the 200
// waits for its PRACK and goes without one; the answer to an offer of ours is
// then that of the PRACK.
func (d *Dialog) Answer(ctx context.Context, sdp []byte) (peerSDP []byte, err error) {
	d.mu.Lock()
	if err := d.must(early); err != nil {
		d.mu.Unlock()
		return nil, err
	}
	if err := d.settleProvisional(ctx); err != nil {
		d.mu.Unlock()
		return nil, err
	}
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
	if p := d.pending; p != nil { // its PRACK may still come
		p.resend.Stop()
		p.limit.Stop()
	}
	told := d.described
	if told {
		sdp = nil
	} else {
		d.described, d.localSDP = true, sdp
	}
	w := d.accept(d.tx, d.invite, sdp, d.offer == nil && !told, nil)
	d.mu.Unlock()
	select {
	case <-w.done:
		if told {
			return d.prackSDP, w.err
		}
		return w.sdp, w.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}
