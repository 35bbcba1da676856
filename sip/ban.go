package sip

import (
	"net/netip"
	"sync"
	"time"
)

// maxStandings bounds the memory that sources can make a record take.
const maxStandings = 8192

// record is what strangers have done lately, by address: who is refused again
// and again is not listened to for a while, who has proved to be a peer is.
type record struct {
	after int // refusals within span; 0: nobody is banned
	span  time.Duration

	mu    sync.Mutex
	of    map[netip.Prefix]*standing
	swept time.Time
}

type standing struct {
	since    time.Time // of the first refusal that counts
	refusals int
	banned   time.Time // until
	good     time.Time // until
}

func newRecord(after int, span time.Duration) *record {
	return &record{after: after, span: span, of: map[netip.Prefix]*standing{}}
}

// network is what limits and bans go by: an IPv4 address, or the /64 of an
// IPv6 address, all of which one host has.
func network(a netip.Addr) netip.Prefix {
	bits := 32
	if a = a.Unmap(); a.Is6() {
		bits = 64
	}
	p, err := a.WithZone("").Prefix(bits)
	if err != nil {
		return netip.Prefix{} // of no address at all
	}
	return p
}

// ask says how an address stands.
func (r *record) ask(a netip.Addr, now time.Time) (banned, good bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.of[network(a)]
	if s == nil {
		return false, false
	}
	good = now.Before(s.good)
	return !good && now.Before(s.banned), good
}

// refuse counts a refusal, and reports whether it was one too many.
func (r *record) refuse(a netip.Addr, now time.Time) bool {
	if r.after <= 0 {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.standing(a, now)
	if now.Sub(s.since) >= r.span {
		s.since, s.refusals = now, 0
	}
	if s.refusals++; s.refusals < r.after || now.Before(s.banned) {
		return false
	}
	s.refusals, s.banned = 0, now.Add(r.span)
	return true
}

// trust remembers that a peer has proved itself. Until that is forgotten, what
// its neighbours at the address do bans nobody.
func (r *record) trust(a netip.Addr, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	*r.standing(a, now) = standing{good: now.Add(r.span)}
}

// bans is the number of addresses that are banned now.
func (r *record) bans(now time.Time) (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range r.of {
		if now.Before(s.banned) && !now.Before(s.good) {
			n++
		}
	}
	return n
}

// standing returns that of an address, a new one if need be. r.mu is held.
func (r *record) standing(a netip.Addr, now time.Time) *standing {
	key := network(a)
	s := r.of[key]
	if s != nil {
		return s
	}
	if len(r.of) >= maxStandings {
		r.makeRoom(now)
	}
	s = &standing{since: now}
	r.of[key] = s
	return s
}

// makeRoom forgets what does not count any more, at most once a second, else
// one of those that count least.
func (r *record) makeRoom(now time.Time) {
	if now.Sub(r.swept) > time.Second {
		r.swept = now
		for k, s := range r.of {
			if now.Sub(s.since) >= r.span && !now.Before(s.banned) && !now.Before(s.good) {
				delete(r.of, k)
			}
		}
	}
	if len(r.of) < maxStandings {
		return
	}
	var least netip.Prefix
	lowest, seen := 0, 0
	for k, s := range r.of { // in an order that nobody can foresee
		worth := 1 + s.refusals
		if now.Before(s.banned) {
			worth += 1 << 16
		}
		if now.Before(s.good) {
			worth += 1 << 17
		}
		if seen == 0 || worth < lowest {
			least, lowest = k, worth
		}
		if seen++; seen == 8 {
			break
		}
	}
	delete(r.of, least)
}
