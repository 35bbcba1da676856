package sip

import (
	"net/netip"
	"testing"
	"time"

	"github.com/emiago/sipgo/sip"
)

func TestLimiter(t *testing.T) {
	now := time.Unix(1000, 0)
	l := newLimiter(10, 3, 0)
	a, b := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	for i, tt := range []struct {
		addr  netip.Addr
		after time.Duration
		want  bool
	}{
		{a, 0, true}, {a, 0, true}, {a, 0, true}, {a, 0, false}, // the burst
		{b, 0, true},                                                        // another's own
		{a, 50 * time.Millisecond, false}, {a, 50 * time.Millisecond, true}, // the rate
		{a, time.Hour, true}, {a, 0, true}, {a, 0, true}, {a, 0, false}, // filled up, and no further
	} {
		now = now.Add(tt.after)
		if got := l.allow(tt.addr, now); got != tt.want {
			t.Errorf("step %d: %v", i, got)
		}
	}
}

// However many addresses there are, memory stays bounded, and addresses that
// have been quiet make room.
func TestLimiterBound(t *testing.T) {
	now := time.Unix(1000, 0)
	l := newLimiter(1, 2, 0)
	flood := func(n int) (allowed int) {
		ip := [4]byte{10}
		for i := range n {
			ip[1], ip[2], ip[3] = byte(i>>16), byte(i>>8), byte(i)
			if l.allow(netip.AddrFrom4(ip), now) {
				allowed++
			}
		}
		return allowed
	}
	if n := flood(3 * maxBuckets); n != maxBuckets+2 || len(l.buckets) != maxBuckets {
		t.Errorf("%d allowed, %d buckets; want %d and %d", n, len(l.buckets), maxBuckets+2, maxBuckets)
	}
	now = now.Add(time.Minute)
	if !l.allow(netip.MustParseAddr("192.0.2.1"), now) || len(l.buckets) != 1 {
		t.Errorf("%d buckets after a quiet minute", len(l.buckets))
	}
}

// RFC 3261 §17.2.3: what makes two requests one transaction, with a branch of
// RFC 3261 and without.
func TestTransactionKey(t *testing.T) {
	req := func(via, from, to, cseq string) *sip.Request {
		m, err := sip.ParseMessage([]byte("INVITE sip:b@h SIP/2.0\r\nVia: SIP/2.0/UDP " + via + "\r\nFrom: <sip:a@h>;tag=" + from + "\r\nTo: <sip:b@h>" + to + "\r\nCall-ID: c\r\nCSeq: " + cseq + "\r\nContent-Length: 0\r\n\r\n"))
		if err != nil {
			t.Fatal(err)
		}
		return m.(*sip.Request)
	}
	key := func(r *sip.Request) string { return txKey(r, sip.INVITE) }
	base := key(req("h:5060;branch=z9hG4bKx", "1", "", "1 INVITE"))
	old := key(req("h:5060;branch=1", "1", "", "1 INVITE"))
	for name, tt := range map[string]struct {
		key, other string
		same       bool
	}{
		"ACK of a failure":       {base, key(req("H:5060;branch=z9hG4bKx", "1", ";tag=2", "1 ACK")), true},
		"other branch":           {base, key(req("h:5060;branch=z9hG4bKy", "1", "", "1 INVITE")), false},
		"other sender":           {base, key(req("i:5060;branch=z9hG4bKx", "1", "", "1 INVITE")), false},
		"old: ACK of a failure":  {old, key(req("h:5060;branch=1", "1", ";tag=2", "1 ACK")), true},
		"old: next request":      {old, key(req("h:5060;branch=1", "1", "", "2 INVITE")), false},
		"old: another's":         {old, key(req("h:5060;branch=1", "2", "", "1 INVITE")), false},
		"no branch":              {key(req("h:5060", "1", "", "1 INVITE")), key(req("h:5060", "1", ";tag=2", "1 ACK")), true},
		"no branch, other Via":   {key(req("h:5060", "1", "", "1 INVITE")), key(req("h:5061", "1", "", "1 INVITE")), false},
		"old is never a new one": {base, old, false},
	} {
		if (tt.key == tt.other) != tt.same {
			t.Errorf("%s: %q and %q", name, tt.key, tt.other)
		}
	}
}
