package sip

import (
	"net/netip"

	"github.com/emiago/sipgo/sip"
)

// source is what is known of where a message came from before it is read.
type source struct {
	trunk string
	known bool // an address of the trunk
	peer  bool // of no trunk, but we have a call or a request there, or somebody there has proved to be a peer
}

func (u *UA) source(a netip.AddrPort) (s source) {
	if s.trunk, s.known = u.o.Match(a); s.known {
		return s
	}
	_, good := u.record.ask(a.Addr(), u.now())
	s.peer = good || u.calls(a.Addr())
	return s
}

// admit decides whether a message is read at all: the allow-list, the bans and
// the limits act before anything is parsed.
func (u *UA) admit(s source, a netip.AddrPort, response bool) bool {
	now := u.now()
	if s.known || s.peer {
		if !u.trunkLimit.allow(a.Addr(), now) {
			u.stats.limited.Add(1)
			return false
		}
		return true
	}
	banned, _ := u.record.ask(a.Addr(), now)
	switch {
	case banned:
		u.stats.banned.Add(1)
		return false
	case !response && u.o.UnknownSource == "drop" && len(u.o.Accounts()) == 0,
		!u.strangerLimit.allow(a.Addr(), now):
		u.stats.dropped.Add(1)
		return false
	}
	return true
}

// take decides who serves a request that was read, or not quite: err says why.
func (u *UA) take(f flow, s source, req *sip.Request, err error) {
	if err == nil && s.known {
		s.trunk = u.trunkOf(f, s, req)
		f.trunk = s.trunk
	}
	if err == nil && s.known && !u.guarded(s.trunk) {
		u.handleRequest(f, req)
		return
	}
	code := codeOf(err)
	if err == nil {
		code, err = invalid(req)
	}
	switch {
	case err == nil:
		u.screen(f, s, req)
	case s.known:
		u.malformed(f, req, code, err)
	default:
		u.stats.malformed.Add(1)
		u.refuse(f, s, req)
	}
}

// trunkOf tells the trunks behind one address apart: what belongs to a dialog is
// of its trunk, what begins one of the trunk that is called.
func (u *UA) trunkOf(f flow, s source, req *sip.Request) string {
	if to := req.To(); to != nil && param(to.Params, "tag") != "" {
		if d := u.dialog(req); d != nil && d.f.near(f) {
			return d.f.trunk
		}
		return s.trunk
	}
	return u.o.Called(f.peer, s.trunk, unescapeUser(req.Recipient.User))
}

// screen serves a request if it belongs to what we have with the peer already,
// or if the peer proves who it is.
func (u *UA) screen(f flow, s source, req *sip.Request) {
	trunk, ours := u.belongs(f, s, req)
	switch {
	case ours:
		f.trunk = trunk
		u.handleRequest(f, req)
	case s.known && (req.Method == sip.OPTIONS || param(req.To().Params, "tag") != ""):
		u.handleRequest(f, req) // 200 or 503; 481
	case !s.known && len(u.o.Accounts()) == 0, req.Method == sip.ACK, req.Method == sip.CANCEL:
		u.refuse(f, s, req)
	default:
		u.authenticate(f, s, req)
	}
}

// belongs finds the trunk of a request that belongs to a dialog with the peer,
// or to a transaction of it: a retransmission, a CANCEL, an ACK.
func (u *UA) belongs(f flow, s source, req *sip.Request) (trunk string, ok bool) {
	near := func(of flow) bool { return of.near(flow{peer: f.peer, trunk: s.trunk}) }
	if d := u.dialog(req); d != nil && near(d.f) {
		return d.f.trunk, true
	}
	keys := []string{txKey(req, req.Method)}
	if req.Method == sip.ACK || req.Method == sip.CANCEL {
		keys = append(keys, txKey(req, sip.INVITE))
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, k := range keys {
		if tx := u.txs[k]; tx != nil && near(tx.f) {
			return tx.f.trunk, true
		}
	}
	return "", false
}

// offend counts what a stranger should not have sent.
func (u *UA) offend(a netip.Addr) {
	if u.record.refuse(a, u.now()) {
		u.note("address banned", "source", network(a), "for", u.o.BanTime)
	}
}

// calls reports whether we have a dialog or a request of ours under way with
// somebody at addr. What comes from there is limited as a trunk's, and is taken
// if it belongs to that.
func (u *UA) calls(addr netip.Addr) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.called[addr] > 0
}

// forgetCalled undoes one increment of u.called. u.mu is held.
func (u *UA) forgetCalled(addr netip.Addr) {
	if u.called[addr]--; u.called[addr] <= 0 {
		delete(u.called, addr)
	}
}
