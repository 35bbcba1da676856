package sip

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/emiago/sipgo/sip"
)

func TestBan(t *testing.T) {
	t.Parallel()
	now := time.Unix(1000, 0)
	r := newRecord(3, time.Minute)
	bad, neighbour := netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::ffff:1")
	check := func(step string, a netip.Addr, want bool) {
		t.Helper()
		if banned, _ := r.ask(a, now); banned != want {
			t.Errorf("%s: banned %v", step, banned)
		}
	}
	r.refuse(bad, now)
	r.refuse(neighbour, now)
	check("two refusals", bad, false)
	now = now.Add(time.Minute) // which count no more
	for range 2 {
		r.refuse(bad, now)
	}
	check("two more, later", bad, false)
	if !r.refuse(neighbour, now) {
		t.Error("the third does not ban")
	}
	check("three refusals", bad, true)
	check("of the same /64", neighbour, true)
	check("of another", netip.MustParseAddr("2001:db8:0:1::1"), false)
	if n := r.bans(now); n != 1 {
		t.Errorf("%d banned", n)
	}
	now = now.Add(time.Minute)
	check("a minute later", bad, false)
	for range 5 {
		r.refuse(bad, now)
	}
	check("banned again", bad, true)
	r.trust(bad, now)
	check("after it has proved itself", bad, false)
	for range 5 {
		r.refuse(bad, now)
	}
	check("whatever its neighbours do", bad, false)
	v4 := netip.MustParseAddr("192.0.2.1")
	for range 3 {
		r.refuse(v4, now)
	}
	check("IPv4", v4, true)
	check("IPv4 in IPv6", netip.MustParseAddr("::ffff:192.0.2.1"), true)
	check("the next", v4.Next(), false)

	off := newRecord(0, time.Minute)
	for range 100 {
		off.refuse(v4, now)
	}
	if banned, _ := off.ask(v4, now); banned || len(off.of) != 0 {
		t.Error("banned, though nobody is")
	}
}

// However many addresses there are, memory stays bounded, and bans and peers
// are what is kept.
func TestBanBound(t *testing.T) {
	t.Parallel()
	now := time.Unix(1000, 0)
	r := newRecord(2, time.Minute)
	addr := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}) }
	peer := netip.MustParseAddr("192.0.2.1")
	r.trust(peer, now)
	for i := range 100 {
		r.refuse(addr(i), now)
		r.refuse(addr(i), now)
	}
	for i := range 3 * maxStandings {
		r.refuse(addr(1000+i), now)
	}
	if len(r.of) > maxStandings {
		t.Errorf("%d addresses", len(r.of))
	}
	if n := r.bans(now); n < 95 {
		t.Errorf("of 100 bans %d are left", n)
	}
	if _, good := r.ask(peer, now); !good {
		t.Error("the peer is forgotten")
	}
	now = now.Add(2 * time.Minute)
	r.refuse(peer.Next(), now)
	if len(r.of) != 1 {
		t.Errorf("%d addresses after a quiet while", len(r.of))
	}
}

// Nonces take memory only when they were answered, not more than so much, and
// what is forgotten for that cannot be used again.
func TestNonceBound(t *testing.T) {
	t.Parallel()
	now := time.Now()
	n := newNonces(now)
	a := netip.MustParseAddr("192.0.2.1")
	var all []string
	for range maxNonces + 10 {
		all = append(all, n.make(a, now))
	}
	if len(n.used) != 0 {
		t.Errorf("%d nonces that nobody has used", len(n.used))
	}
	for i, nonce := range all {
		if ok := n.take(nonce, 1, a, now); ok != (i < maxNonces) {
			t.Fatalf("nonce %d: %v", i, ok)
		}
		if len(n.used) > maxNonces {
			t.Fatalf("%d nonces", len(n.used))
		}
	}
	for i, nonce := range all {
		if n.take(nonce, 2, a, now) {
			t.Fatalf("nonce %d counts, though it was forgotten", i)
		}
	}
	now = now.Add(time.Second)
	fresh := n.make(a, now)
	if !n.take(fresh, 1, a, now) || n.take(fresh, 1, a, now) {
		t.Error("nothing goes any more")
	}
	old := n.make(a, now)
	if now = now.Add(nonceLife + time.Second); n.take(old, 1, a, now) {
		t.Error("an old nonce counts")
	}
}

func FuzzAuthorization(f *testing.F) {
	f.Add(`Digest username="alice", realm="brewline", nonce="n", uri="sip:a@b", response="00", algorithm=MD5, qop=auth, cnonce="x", nc=00000001`)
	f.Add(`Digest username="a\"b", nonce=n, uri=sip:x, response=`)
	f.Add(`digest ,,=,"`)
	u := &UA{o: Options{Accounts: func() []Account { return []Account{{"t", "alice", "secret"}} }}, nonces: newNonces(time.Now())}
	a := netip.MustParseAddr("192.0.2.1")
	nonce := u.nonces.make(a, time.Now())
	f.Add(fmt.Sprintf(`Digest username="alice", realm="brewline", nonce="%s", uri="sip:a@b", response="00", qop=auth, nc=ffffffff`, nonce))
	f.Fuzz(func(t *testing.T, v string) {
		req := sip.NewRequest(sip.OPTIONS, sip.Uri{Scheme: "sip", User: "a", Host: "b"})
		appendHeader(req, Header{"Authorization", v})
		if _, verdict := u.verify(a, "", req); verdict == right || verdict == stale {
			t.Errorf("%q is right", v)
		}
		c, ok := parseAuthorization(v)
		if ok && (c.nonce == "" || c.uri == "" || c.hash == nil || (c.qop != "") != (c.nc != 0)) {
			t.Errorf("%q: %+v", v, c)
		}
		u.nonces.take(v, 1, a, time.Now())
	})
}
