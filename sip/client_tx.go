package sip

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/emiago/sipgo/sip"
)

// ErrTimeout says that a request was not answered in 64·T1.
var ErrTimeout = errors.New("sip: request timed out")

// hop is where a request goes.
type hop struct {
	f    flow
	addr netip.AddrPort
	more bool // there is another server to try
}

// target is the hop as a server, for another connection to it.
func (h hop) target() target {
	t := target{network: h.f.ln.network, addr: h.addr}
	if h.f.conn != nil {
		t.name = h.f.conn.key.name
	}
	return t
}

// maxForks bounds how many final responses to one INVITE, each with a To tag
// of its own, are acknowledged.
const maxForks = 8

// clientTx is a client transaction (RFC 3261 §17.1). The goroutine that wants
// the answer runs it. An INVITE's stays registered for 64·T1 after that, to
// acknowledge what is repeated and what else comes of a call that was forked.
type clientTx struct {
	responses chan *sip.Response
	key       string       // in UA.clients
	invite    *sip.Request // as sent; nil: of another method
	hop       hop

	// accepted is told, where it is set, each 2xx to the INVITE with a To tag
	// that was not seen before, on the goroutine that read it. first: it is
	// the final response that the transaction returns.
	accepted func(res *sip.Response, first bool)
	// final is told, where it is set, the final response, on the goroutine that
	// read it: the peer's next request finds what it changed.
	final func(*sip.Response)

	answered bool           // a final response came, or none is waited for any more. UA.mu
	acks     map[string]ack // by To tag. UA.mu
}

// ack is what a final response gets; of a 2xx the owner makes it.
type ack struct {
	b  []byte
	to hop // of a 2xx not where the INVITE went
}

// roundTrip sends req, which has everything but a Via, and returns the final
// response and the transaction's key. For a 2xx to an INVITE the caller owes
// the ACK: [UA.keepACK] with that key.
func (u *UA) roundTrip(ctx context.Context, h hop, req *sip.Request) (res *sip.Response, key string, err error) {
	return u.transact(ctx, &clientTx{hop: h}, req, nil)
}

// transact is roundTrip that tells provisional responses of an INVITE.
func (u *UA) transact(ctx context.Context, tx *clientTx, req *sip.Request, progress func(*sip.Response)) (res *sip.Response, key string, err error) {
	if err := ctx.Err(); err != nil {
		return nil, "", err
	}
	branch := sip.RFC3261BranchMagicCookie + token(16)
	u.addVia(tx.hop, req, branch)
	if h, ok := u.enlarge(ctx, tx.hop, req); ok {
		tx.hop = h
		req.RemoveHeader("Via") // ours, which is the only one
		u.addVia(h, req, branch)
	}
	h, invite := tx.hop, req.Method == sip.INVITE
	key = string(req.Method) + " " + branch
	tx.key, tx.responses = key, make(chan *sip.Response, 8)
	if invite {
		tx.invite, tx.acks = req.Clone(), map[string]ack{}
	}
	u.mu.Lock()
	if u.closed {
		u.mu.Unlock()
		return nil, key, ErrEnded
	}
	u.clients[key] = tx
	u.called[h.addr.Addr()]++
	u.mu.Unlock()
	defer u.settleClient(tx)

	b := []byte(req.String())
	if err := h.f.send(b, h.addr); err != nil {
		return nil, key, fmt.Errorf("send %s: %w", req.Method, err)
	}
	t1, t2 := u.o.T1, u.o.T2
	interval := t1
	resend := time.NewTimer(interval) // timers A, E
	defer resend.Stop()
	if h.f.reliable() {
		resend.Stop()
	}
	patience := 64 * t1 // timers B, F
	if h.more {
		patience /= 4
	}
	limit := time.NewTimer(patience)
	defer limit.Stop()
	var broken <-chan struct{}
	heardBefore := int64(0)
	if h.f.conn != nil {
		broken, heardBefore = h.f.conn.done, h.f.conn.heard.Load()
	}
	cancelled := ctx.Done()
	heard, cancelWanted := false, false
	for {
		select {
		case <-resend.C:
			_ = h.f.send(b, h.addr) // the first may have arrived all the same
			if interval *= 2; !invite {
				interval = min(interval, t2)
			}
			resend.Reset(interval)
		case <-limit.C:
			if !u.giveUp(tx) {
				continue // the final response is on its way here
			}
			if c := h.f.conn; c != nil && c.heard.Load() == heardBefore {
				u.retire(c)
			}
			return nil, key, fmt.Errorf("%s to %s: %w", req.Method, h.addr, ErrTimeout)
		case <-broken:
			broken = nil
			// What is proceeding may still be answered, over another connection
			// (RFC 3261 §18.2.2).
			if heard || !u.giveUp(tx) {
				continue
			}
			return nil, key, fmt.Errorf("%s to %s: %w", req.Method, h.addr, h.f.conn.why())
		case <-u.ctx.Done():
			return nil, key, ErrEnded
		case <-cancelled:
			if !invite {
				return nil, key, ctx.Err()
			}
			// An INVITE is not simply forgotten: the peer may accept it. The
			// CANCEL waits for a sign of it (RFC 3261 §9.1).
			cancelled = nil
			if heard {
				u.cancel(h, req, branch, context.Cause(ctx))
				limit.Reset(64 * t1)
			} else {
				cancelWanted = true
			}
		case res := <-tx.responses:
			if res.StatusCode >= 200 {
				return res, key, nil
			}
			if !invite {
				interval = t2
				continue
			}
			heard = true
			resend.Stop()
			switch {
			case cancelWanted:
				cancelWanted = false
				u.cancel(h, req, branch, context.Cause(ctx))
				limit.Reset(64 * t1)
			case cancelled != nil:
				limit.Stop() // the answer takes as long as it takes
			}
			if progress != nil {
				progress(res)
			}
		}
	}
}

// giveUp has no final response count as the first any more, unless there is one.
func (u *UA) giveUp(tx *clientTx) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	if tx.answered {
		return false
	}
	tx.answered = true
	return true
}

// settleClient ends a transaction, that of an INVITE in 64·T1.
func (u *UA) settleClient(tx *clientTx) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.forgetCalled(tx.hop.addr.Addr())
	if tx.answered = true; tx.invite == nil || u.closed {
		delete(u.clients, tx.key)
		return
	}
	time.AfterFunc(64*u.o.T1, func() { u.forgetClient(tx.key) })
}

// keepACK sends the ACK of a 2xx, and again whenever that is repeated.
func (u *UA) keepACK(key, tag string, a ack) {
	u.mu.Lock()
	if tx := u.clients[key]; tx != nil && tx.acks != nil {
		tx.acks[tag] = a
	}
	u.mu.Unlock()
	u.resend(a.b, a.to)
}

// resend sends a message that no timer repeats. Where the connection of its
// transaction is gone, it takes another.
func (u *UA) resend(b []byte, h hop) {
	if err := h.f.send(b, h.addr); err == nil || !h.f.reliable() {
		return
	}
	u.spawn(func() {
		if c, err := u.dial(u.ctx, h.f.ln, h.target(), h.f.trunk); err == nil {
			_ = c.write(b)
		}
	})
}

func (u *UA) forgetClient(key string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.clients, key)
}

// handleResponse hands a response to the transaction that waits for it.
func (u *UA) handleResponse(res *sip.Response) {
	via, cseq := res.Via(), res.CSeq()
	if via == nil || cseq == nil || res.StatusCode < 100 || res.StatusCode > 699 {
		u.stats.malformed.Add(1)
		return
	}
	u.mu.Lock()
	tx := u.clients[string(cseq.MethodName)+" "+param(via.Params, "branch")]
	switch {
	case tx == nil || res.StatusCode < 200 && tx.answered: // late, or a stranger's guess
		u.mu.Unlock()
		return
	case tx.invite == nil || res.StatusCode < 200:
		first := !tx.answered && res.StatusCode >= 200
		tx.answered = tx.answered || first
		u.mu.Unlock()
		if first && tx.final != nil {
			tx.final(res)
		}
		tx.deliver(res)
		return
	}
	// A final response to an INVITE: the first, a repetition, or one of another
	// branch of a forked call (RFC 3261 §13.2.2.4, §16.7).
	tag := ""
	if to := res.To(); to != nil {
		tag = param(to.Params, "tag")
	}
	a, seen := tx.acks[tag]
	first, ok := !tx.answered, res.StatusCode < 300
	if !seen && (len(tx.acks) >= maxForks || u.closed) {
		u.mu.Unlock()
		return
	}
	if !seen && !ok {
		a = ack{ackNon2xx(tx.invite, res), tx.hop}
	}
	tx.acks[tag] = a
	tx.answered = true
	u.mu.Unlock()
	if a.b != nil {
		u.resend(a.b, a.to)
	}
	if seen {
		return
	}
	if ok && tx.accepted != nil {
		tx.accepted(res, first)
	}
	if first {
		if tx.final != nil {
			tx.final(res)
		}
		tx.deliver(res)
	}
}

// deliver hands a response over without waiting. Of too many the provisional
// ones get lost, a final one never.
func (tx *clientTx) deliver(res *sip.Response) {
	for range cap(tx.responses) + 1 {
		select {
		case tx.responses <- res:
			return
		default:
		}
		if res.StatusCode < 200 {
			return
		}
		select {
		case <-tx.responses:
		default:
		}
	}
}

// maxDatagram is how many bytes of a request go over UDP (RFC 3261 §18.1.1).
const maxDatagram = 1300

// enlarge finds the way over TCP for a request that is too large for UDP. Not
// ok: it is not, or the peer does not take it there.
func (u *UA) enlarge(ctx context.Context, h hop, req *sip.Request) (hop, bool) {
	if h.f.ln.network != "udp" || len(req.String()) <= maxDatagram {
		return h, false
	}
	t := target{network: "tcp", addr: h.addr}
	if u.failing.has(t, u.now()) {
		return h, false
	}
	ctx, cancel := context.WithTimeout(ctx, 4*u.o.T1)
	defer cancel()
	over, err := u.reach(ctx, flow{trunk: h.f.trunk}, t)
	if err != nil {
		u.failing.add(t, u.now().Add(10*u.o.DownTime))
		return h, false
	}
	over.more = h.more
	return over, true
}

// addVia puts our Via on top, asking for rport (RFC 3581).
func (u *UA) addVia(h hop, req *sip.Request, branch string) {
	host, port := h.f.sentBy()
	via := &sip.ViaHeader{ProtocolName: "SIP", ProtocolVersion: "2.0", Transport: strings.ToUpper(h.f.ln.network), Host: host, Port: port}
	via.Params.Add("branch", branch)
	via.Params.Add("rport", "")
	req.PrependHeader(via)
}

// ackNon2xx builds the ACK of RFC 3261 §17.1.1.3.
func ackNon2xx(invite *sip.Request, res *sip.Response) []byte {
	ack := derive(invite, sip.ACK)
	if to := res.To(); to != nil {
		ack.ReplaceHeader(sip.HeaderClone(to))
	}
	return []byte(ack.String())
}

// cancel sends a CANCEL for req and repeats it, without waiting.
func (u *UA) cancel(h hop, req *sip.Request, branch string, why error) {
	c := derive(req, sip.CANCEL)
	var cause *CancelCause
	if errors.As(why, &cause) {
		for _, h := range cause.headers() {
			appendHeader(c, h)
		}
	}
	// The CANCEL has the INVITE's Via, so its transaction is made by hand.
	key := "CANCEL " + branch
	tx := &clientTx{hop: h, responses: make(chan *sip.Response, 8)}
	b := []byte(c.String())
	u.mu.Lock()
	if u.closed {
		u.mu.Unlock()
		return
	}
	u.clients[key] = tx
	u.wg.Go(func() {
		defer u.forgetClient(key)
		u.resend(b, h)
		if h.f.reliable() {
			return
		}
		for interval, waited := u.o.T1, time.Duration(0); waited < 64*u.o.T1; interval = min(2*interval, u.o.T2) {
			t := time.NewTimer(interval)
			select {
			case <-t.C:
				waited += interval
				_ = h.f.send(b, h.addr)
			case <-tx.responses:
				t.Stop()
				return
			case <-u.ctx.Done():
				t.Stop()
				return
			}
		}
	})
	u.mu.Unlock()
}

// derive makes an ACK or CANCEL of the same transaction as req: same URI,
// top Via, Route, From, To, Call-ID and CSeq number.
func derive(req *sip.Request, m sip.RequestMethod) *sip.Request {
	d := sip.NewRequest(m, *req.Recipient.Clone())
	d.AppendHeader(req.Via().Clone())
	for _, name := range []string{"Route", "From", "To", "Call-ID"} {
		sip.CopyHeaders(name, req, d)
	}
	d.AppendHeader(&sip.CSeqHeader{SeqNo: req.CSeq().SeqNo, MethodName: m})
	mf := sip.MaxForwardsHeader(70)
	d.AppendHeader(&mf)
	d.SetBody(nil)
	return d
}
