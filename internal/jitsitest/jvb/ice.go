package jvb

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"strings"
	"time"

	"github.com/pion/stun/v3"
)

// The bridge is a full ICE agent (RFC 8445) with one host candidate. It is
// always controlling, nominates regularly (§8.1.1) the first pair that
// works, and keeps it.

const (
	maxPairs  = 16
	maxChecks = 7 // transmissions of one check
	// tieBreaker is the highest there is: the bridge never gives way.
	tieBreaker = ^uint64(0)
)

// pair is the bridge's candidate with one of the client's addresses.
type pair struct {
	addr  netip.AddrPort
	valid bool // a check was answered

	// the check under way
	id       [stun.TransactionIDSize]byte
	checking bool
	nominate bool
	sent     int
	again    time.Time

	// consent freshness of the selected pair (RFC 7675)
	consent  time.Time // when it was last given
	consents map[[stun.TransactionIDSize]byte]bool
	next     time.Time
}

// byUsername finds whom a binding request is for: USERNAME is
// "ours:theirs" (RFC 8445 §7.2.2).
func (b *Bridge) byUsername(p []byte) *Endpoint {
	m := &stun.Message{Raw: p}
	if m.Decode() != nil || m.Type != stun.BindingRequest {
		return nil
	}
	var u stun.Username
	if u.GetFrom(m) != nil {
		return nil
	}
	ours, _, _ := strings.Cut(u.String(), ":")
	return b.byUfrag[ours]
}

func (b *Bridge) handleSTUN(p []byte, from netip.AddrPort) {
	m := &stun.Message{Raw: append([]byte(nil), p...)}
	if m.Decode() != nil {
		return
	}
	switch m.Type {
	case stun.BindingRequest:
		if e := b.byUsername(m.Raw); e != nil {
			e.handleCheck(m, from)
		}
	case stun.BindingSuccess:
		if e := b.byAddr[from]; e != nil {
			e.handleAnswer(m, from)
		}
	}
}

// handleCheck answers a connectivity check of the client and triggers ours
// (RFC 8445 §7.3).
func (e *Endpoint) handleCheck(m *stun.Message, from netip.AddrPort) {
	b := e.b
	integrity := stun.NewShortTermIntegrity(e.Pwd)
	if integrity.Check(m) != nil {
		e.stats.AuthErrors++
		return
	}
	e.stats.Checks++
	if m.Contains(stun.AttrICEControlling) {
		e.stats.RoleConflicts++
		reply, err := stun.Build(stun.NewTransactionIDSetter(m.TransactionID), stun.BindingError,
			stun.CodeRoleConflict, integrity, stun.Fingerprint)
		if err == nil {
			b.send(e, kindSTUN, reply.Raw, from)
		}
		return
	}
	reply, err := stun.Build(stun.NewTransactionIDSetter(m.TransactionID), stun.BindingSuccess,
		&stun.XORMappedAddress{IP: from.Addr().AsSlice(), Port: int(from.Port())}, integrity, stun.Fingerprint)
	if err != nil {
		return
	}
	b.send(e, kindSTUN, reply.Raw, from)
	// Two endpoints on one client address cannot be told apart: the later
	// one gets it, as in the real bridge.
	b.byAddr[from] = e
	if !e.started {
		if len(e.known) < maxPairs {
			e.known = append(e.known, from)
		}
		return
	}
	e.check(from)
}

// startChecks begins with the addresses learned so far, and with the
// client's candidates.
func (e *Endpoint) startChecks(cands []Candidate) {
	for _, a := range e.known {
		e.check(a)
	}
	e.known = nil
	if e.b.o.IgnoreCandidates {
		return
	}
	for _, c := range cands {
		if c.Component > 1 || !strings.EqualFold(c.Protocol, "udp") {
			continue
		}
		if a, ok := addrOf(c.IP, c.Port); ok && a.Addr().Is4() == e.b.addr.Addr().Is4() {
			e.check(a)
		}
	}
}

// check starts a check towards an address unless one was made.
func (e *Endpoint) check(a netip.AddrPort) {
	for _, p := range e.pairs {
		if p.addr == a {
			if !p.checking && e.selected == nil {
				e.transmit(p, p.valid && !e.nominating())
			}
			return
		}
	}
	if len(e.pairs) >= maxPairs {
		return
	}
	p := &pair{addr: a}
	e.pairs = append(e.pairs, p)
	if e.b.byAddr[a] == nil {
		e.b.byAddr[a] = e // so that the answer finds us
	}
	e.transmit(p, false)
}

// transmit sends a new check.
func (e *Endpoint) transmit(p *pair, nominate bool) {
	p.id = stun.NewTransactionID()
	p.checking, p.nominate, p.sent = true, nominate, 0
	e.retransmit(p, time.Now())
}

func (e *Endpoint) retransmit(p *pair, now time.Time) {
	e.sendCheck(p.id, p.addr, p.nominate)
	p.again = now.Add(e.b.o.CheckInterval << min(p.sent, 4))
	p.sent++
}

func (e *Endpoint) sendCheck(id [stun.TransactionIDSize]byte, to netip.AddrPort, nominate bool) {
	prio := binary.BigEndian.AppendUint32(nil, 110<<24|65535<<8|255) // as peer-reflexive
	tie := binary.BigEndian.AppendUint64(nil, tieBreaker)
	set := []stun.Setter{
		stun.NewTransactionIDSetter(id), stun.BindingRequest,
		stun.NewUsername(e.remote.Ufrag + ":" + e.Ufrag),
		stun.RawAttribute{Type: stun.AttrICEControlling, Value: tie},
		stun.RawAttribute{Type: stun.AttrPriority, Value: prio},
	}
	if nominate {
		set = append(set, stun.RawAttribute{Type: stun.AttrUseCandidate})
	}
	set = append(set, stun.NewShortTermIntegrity(e.remote.Pwd), stun.Fingerprint)
	if m, err := stun.Build(set...); err == nil {
		e.b.send(e, kindSTUN, m.Raw, to)
	}
}

// handleAnswer takes a success response to one of our checks.
func (e *Endpoint) handleAnswer(m *stun.Message, from netip.AddrPort) {
	for _, p := range e.pairs {
		// RFC 8445 §7.2.5.2.1: an answer from elsewhere does not count.
		if p.addr != from {
			continue
		}
		check := p.checking && p.id == m.TransactionID
		consent := p.consents[m.TransactionID]
		if !check && !consent {
			return
		}
		if stun.NewShortTermIntegrity(e.remote.Pwd).Check(m) != nil {
			e.stats.AuthErrors++
			return
		}
		now := time.Now()
		e.alive(now)
		p.consent = now
		clear(p.consents)
		if consent {
			return
		}
		p.checking, p.valid = false, true
		switch {
		case p.nominate && e.selected == nil:
			e.selectPair(p, now)
		case e.selected == nil && !e.nominating():
			e.transmit(p, true)
		}
		return
	}
}

func (e *Endpoint) nominating() bool {
	for _, p := range e.pairs {
		if p.checking && p.nominate {
			return true
		}
	}
	return false
}

func (e *Endpoint) selectPair(p *pair, now time.Time) {
	e.selected = p
	e.b.byAddr[p.addr] = e
	p.consents = map[[stun.TransactionIDSize]byte]bool{}
	p.next = now.Add(e.consentAfter())
	e.stats.ICEConnected = now
	close(e.ready)
	e.b.log.Info("ICE connected", "conference", e.Conference, "endpoint", e.ID, "remote", p.addr)
}

func (e *Endpoint) consentAfter() time.Duration {
	return time.Duration(float64(e.b.o.ConsentInterval) * (0.8 + 0.4*rand.Float64()))
}

// tickICE retransmits checks and keeps up consent. It says whether consent
// was lost.
func (e *Endpoint) tickICE(now time.Time) (lost bool) {
	for _, p := range e.pairs {
		if !p.checking || now.Before(p.again) {
			continue
		}
		if p.sent >= maxChecks {
			p.checking = false
			continue
		}
		if e.selected != nil {
			p.checking = false // concluded (RFC 8445 §8.1.2)
			continue
		}
		e.retransmit(p, now)
	}
	p := e.selected
	if p == nil {
		return false
	}
	if !now.Before(p.next) {
		id := stun.NewTransactionID()
		if len(p.consents) >= 16 {
			clear(p.consents)
		}
		p.consents[id] = true
		p.next = now.Add(e.consentAfter())
		e.sendCheck(id, p.addr, false)
	}
	return now.Sub(p.consent) > e.b.o.ConsentTimeout
}

// alive notes a sign of life that counts as activity: RTP, RTCP or an
// answered check.
func (e *Endpoint) alive(now time.Time) {
	e.active, e.heard = now, true
}
