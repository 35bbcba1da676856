package sip

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/emiago/sipgo/sip"
)

// ErrTimeout says that a request was not answered in 64·T1.
var ErrTimeout = errors.New("sip: request timed out")

// hop is where a request goes.
type hop struct {
	f    flow
	addr netip.AddrPort
}

// clientTx is a client transaction (RFC 3261 §17.1). The goroutine that wants
// the answer runs it; afterwards an INVITE's stays registered to acknowledge
// repeated final responses.
type clientTx struct {
	responses chan *sip.Response
	ack       []byte // set: the transaction is over but for repetitions of this
	to        hop    // where it goes: of a 2xx not where the INVITE went
}

// roundTrip sends req, which has everything but a Via, and returns the final
// response and the transaction's key. For a 2xx to an INVITE the caller owes
// the ACK: [UA.keepACK] with that key.
func (u *UA) roundTrip(ctx context.Context, h hop, req *sip.Request) (res *sip.Response, key string, err error) {
	return u.transact(ctx, h, req, nil)
}

// transact is roundTrip that tells provisional responses of an INVITE.
func (u *UA) transact(ctx context.Context, h hop, req *sip.Request, progress func(*sip.Response)) (res *sip.Response, key string, err error) {
	branch := sip.RFC3261BranchMagicCookie + token(16)
	u.addVia(h, req, branch)
	key = string(req.Method) + " " + branch
	tx := &clientTx{responses: make(chan *sip.Response, 8)}
	u.mu.Lock()
	if u.closed {
		u.mu.Unlock()
		return nil, key, ErrEnded
	}
	u.clients[key] = tx
	u.mu.Unlock()
	invite := req.Method == sip.INVITE
	keep := false
	defer func() {
		if !keep {
			u.forgetClient(key)
		}
	}()

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
	limit := time.NewTimer(64 * t1) // timers B, F
	defer limit.Stop()
	cancelled := ctx.Done()
	heard, cancelWanted := false, false
	for {
		select {
		case <-resend.C:
			if err := h.f.send(b, h.addr); err != nil {
				return nil, key, fmt.Errorf("send %s: %w", req.Method, err)
			}
			if interval *= 2; !invite {
				interval = min(interval, t2)
			}
			resend.Reset(interval)
		case <-limit.C:
			return nil, key, fmt.Errorf("%s to %s: %w", req.Method, h.addr, ErrTimeout)
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
				u.cancel(h, req, branch)
				limit.Reset(64 * t1)
			} else {
				cancelWanted = true
			}
		case res := <-tx.responses:
			if res.StatusCode < 200 {
				if !invite {
					interval = t2
					continue
				}
				heard = true
				resend.Stop()
				switch {
				case cancelWanted:
					cancelWanted = false
					u.cancel(h, req, branch)
					limit.Reset(64 * t1)
				case cancelled != nil:
					limit.Stop() // the answer takes as long as it takes
				}
				if progress != nil {
					progress(res)
				}
				continue
			}
			if invite && res.StatusCode >= 300 {
				ack := u.ackNon2xx(h, req, res)
				_ = h.f.send(ack, h.addr)
				keep = u.keepACK(key, ack, h)
			} else if invite {
				keep = true // the caller's keepACK follows
			}
			return res, key, nil
		}
	}
}

// keepACK leaves an INVITE's transaction registered for timers D and M, to
// answer repeated final responses with the ACK.
func (u *UA) keepACK(key string, ack []byte, to hop) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	tx := u.clients[key]
	if tx == nil || u.closed {
		return false
	}
	tx.ack, tx.to = ack, to
	time.AfterFunc(64*u.o.T1, func() { u.forgetClient(key) })
	return true
}

func (u *UA) forgetClient(key string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.clients, key)
}

// handleResponse hands a response to the transaction that waits for it.
func (u *UA) handleResponse(res *sip.Response) {
	via, cseq := res.Via(), res.CSeq()
	if via == nil || cseq == nil {
		u.stats.malformed.Add(1)
		return
	}
	u.mu.Lock()
	tx := u.clients[string(cseq.MethodName)+" "+param(via.Params, "branch")]
	var ack []byte
	var to hop
	if tx != nil {
		ack, to = tx.ack, tx.to
	}
	u.mu.Unlock()
	switch {
	case tx == nil: // late, or a stranger's guess
	case ack != nil:
		if res.StatusCode >= 200 {
			_ = to.f.send(ack, to.addr)
		}
	default:
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

// addVia puts our Via on top, asking for rport (RFC 3581).
func (u *UA) addVia(h hop, req *sip.Request, branch string) {
	host, port := h.f.ln.sentBy(h.addr.Addr())
	transport := "UDP"
	if h.f.reliable() {
		transport = "TCP"
	}
	via := &sip.ViaHeader{ProtocolName: "SIP", ProtocolVersion: "2.0", Transport: transport, Host: host, Port: port}
	via.Params.Add("branch", branch)
	via.Params.Add("rport", "")
	req.PrependHeader(via)
}

// ackNon2xx builds the ACK of RFC 3261 §17.1.1.3.
func (u *UA) ackNon2xx(h hop, req *sip.Request, res *sip.Response) []byte {
	ack := derive(req, sip.ACK)
	if to := res.To(); to != nil {
		ack.ReplaceHeader(sip.HeaderClone(to))
	}
	return []byte(ack.String())
}

// cancel sends a CANCEL for req and repeats it, without waiting.
func (u *UA) cancel(h hop, req *sip.Request, branch string) {
	c := derive(req, sip.CANCEL)
	// The CANCEL has the INVITE's Via, so its transaction is made by hand.
	key := "CANCEL " + branch
	tx := &clientTx{responses: make(chan *sip.Response, 8)}
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.closed {
		return
	}
	u.clients[key] = tx
	b := []byte(c.String())
	u.wg.Go(func() {
		defer u.forgetClient(key)
		_ = h.f.send(b, h.addr)
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
