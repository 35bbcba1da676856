package sip

import (
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/emiago/sipgo/sip"
)

type txState int

const (
	txTrying    txState = iota // nothing sent yet
	txProceed                  // a provisional response sent
	txAccepted                 // INVITE: 2xx sent (RFC 6026 §7.1)
	txCompleted                // final response sent, INVITE: not 2xx
	txConfirmed                // INVITE: ACK received
	txTerminated
)

// serverTx is a server transaction (RFC 3261 §17.2, RFC 6026). It keeps the
// bytes of the last response and nothing of the request.
type serverTx struct {
	u         *UA
	f         flow
	to        netip.AddrPort // where responses go over UDP, or when the connection is gone
	key, loop string         // keys in UA.txs and UA.loops
	invite    bool

	mu       sync.Mutex
	tag      string       // our tag, for the answer to a CANCEL
	cancel   func(Reason) // INVITE: whom a CANCEL reaches
	state    txState
	last     []byte
	interval time.Duration // timer G
	resend   *time.Timer   // timer G
	end      *time.Timer   // timers H, I, J, L
}

// newServerTx makes the transaction of req, or returns the one it repeats.
// The third result says that another request of the same call came along a
// different way (RFC 3261 §8.2.2.2). nil, nil: too many transactions.
func (u *UA) newServerTx(f flow, req *sip.Request) (tx, repeated *serverTx, merged bool) {
	tx = &serverTx{u: u, f: f, to: responseAddr(f, req), invite: req.Method == sip.INVITE}
	tx.key = txKey(req, req.Method)
	if param(req.To().Params, "tag") == "" && req.Method != sip.CANCEL {
		tx.loop = strings.Join([]string{string(req.Method), strconv.Itoa(int(req.CSeq().SeqNo)), param(req.From().Params, "tag"), req.CallID().Value()}, " ")
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if old := u.txs[tx.key]; old != nil {
		return nil, old, false
	}
	if len(u.txs) >= u.o.MaxTransactions || u.closed {
		return nil, nil, false
	}
	if tx.loop != "" {
		if _, merged = u.loops[tx.loop]; merged {
			tx.loop = ""
		} else {
			u.loops[tx.loop] = struct{}{}
		}
	}
	u.txs[tx.key] = tx
	return tx, nil, merged
}

// txKey is the key of RFC 3261 §17.2.3; m is INVITE for an ACK or a CANCEL
// that looks for the transaction it is about.
func txKey(req *sip.Request, m sip.RequestMethod) string {
	via := req.Via()
	branch := param(via.Params, "branch")
	if !legacy(req) {
		return strings.Join([]string{string(m), branch, strings.ToLower(via.Host), strconv.Itoa(via.Port)}, " ")
	}
	// RFC 2543: the whole top Via and what identifies the call. The To-tag is
	// left out, since an ACK has one that the INVITE had not.
	return strings.Join([]string{string(m), via.Value(), param(req.From().Params, "tag"), req.CallID().Value(), strconv.Itoa(int(req.CSeq().SeqNo))}, " ")
}

// legacy reports whether a request is of RFC 2543: its branch identifies nothing.
func legacy(req *sip.Request) bool {
	branch := param(req.Via().Params, "branch")
	return len(branch) <= len(sip.RFC3261BranchMagicCookie) || !strings.HasPrefix(branch, sip.RFC3261BranchMagicCookie)
}

// responseAddr is where responses go over UDP, or over another connection when
// that of the request is gone: RFC 3581 §4, RFC 3261 §18.2.2.
func responseAddr(f flow, req *sip.Request) netip.AddrPort {
	via := req.Via()
	if _, ok := paramOK(via.Params, "rport"); ok && !f.reliable() {
		return f.peer
	}
	port := via.Port
	if port <= 0 || port > 65535 {
		port = defaultPort(f.ln.network)
	}
	return netip.AddrPortFrom(f.peer.Addr(), uint16(port))
}

// repeated answers a retransmitted request as before.
func (tx *serverTx) repeated() {
	tx.mu.Lock()
	defer tx.mu.Unlock()
	// In Accepted the request is absorbed: the 2xx has a repetition of its own.
	if tx.last != nil && (tx.state == txProceed || tx.state == txCompleted) {
		_ = tx.f.send(tx.last, tx.to)
	}
}

// respond sends a response and moves the transaction on. It fails with
// ErrState after a final response.
func (tx *serverTx) respond(code int, b []byte) error {
	tx.mu.Lock()
	defer tx.mu.Unlock()
	if tx.state > txProceed {
		return ErrState
	}
	if code >= 200 {
		tx.cancel = nil // too late from now on
	}
	t1, reliable := tx.u.o.T1, tx.f.reliable()
	tx.last = b
	switch {
	case code < 200:
		tx.state = txProceed
	case tx.invite && code < 300:
		tx.state, tx.last = txAccepted, nil
		tx.endIn(64 * t1) // timer L
	case tx.invite:
		tx.state = txCompleted
		tx.endIn(64 * t1) // timer H
		if !reliable {
			tx.interval = t1
			tx.resend = time.AfterFunc(t1, tx.again)
		}
	default:
		tx.state = txCompleted
		if reliable {
			tx.endIn(0) // timer J
		} else {
			tx.endIn(64 * t1)
		}
	}
	if code >= 200 {
		tx.send(b)
		return nil
	}
	return tx.f.send(b, tx.to)
}

// send sends a response, over another connection where that of the request is
// gone (RFC 3261 §18.2.2).
func (tx *serverTx) send(b []byte) { tx.u.resend(b, hop{f: tx.f, addr: tx.to}) }

// onCancel says what a CANCEL of this INVITE does, and our tag in it.
func (tx *serverTx) onCancel(tag string, f func(Reason)) {
	tx.mu.Lock()
	defer tx.mu.Unlock()
	tx.tag, tx.cancel = tag, f
}

// again is timer G: the final response is repeated until the ACK comes.
func (tx *serverTx) again() {
	tx.mu.Lock()
	defer tx.mu.Unlock()
	if tx.state != txCompleted {
		return
	}
	_ = tx.f.send(tx.last, tx.to)
	tx.interval = min(2*tx.interval, tx.u.o.T2)
	tx.resend.Reset(tx.interval)
}

// acked takes the ACK of a final response other than 2xx, and reports whether
// the transaction was waiting for one.
func (tx *serverTx) acked() bool {
	tx.mu.Lock()
	defer tx.mu.Unlock()
	if tx.state == txCompleted && tx.invite {
		tx.state = txConfirmed
		if tx.resend != nil {
			tx.resend.Stop()
		}
		if tx.f.reliable() {
			tx.endIn(0) // timer I
		} else {
			tx.endIn(tx.u.o.T4)
		}
		return true
	}
	return tx.state == txConfirmed
}

func (tx *serverTx) endIn(d time.Duration) {
	if tx.end != nil {
		tx.end.Stop()
	}
	if d == 0 {
		tx.state = txTerminated
		tx.u.forget(tx)
		return
	}
	tx.end = time.AfterFunc(d, tx.terminate)
}

func (tx *serverTx) terminate() {
	tx.mu.Lock()
	tx.state, tx.last = txTerminated, nil
	if tx.resend != nil {
		tx.resend.Stop()
	}
	if tx.end != nil {
		tx.end.Stop()
	}
	tx.mu.Unlock()
	tx.u.forget(tx)
}

func (u *UA) forget(tx *serverTx) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.txs[tx.key] == tx {
		delete(u.txs, tx.key)
		delete(u.loops, tx.loop)
	}
}
