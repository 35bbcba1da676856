package sip

import (
	"net/netip"
	"sync"
	"time"
)

// maxBuckets bounds the memory that sources can make a limiter take.
const maxBuckets = 8192

// limiter is a token bucket for each source network, and one for all of them
// together. Beyond maxBuckets busy networks all further ones share a bucket.
type limiter struct {
	rate  float64 // tokens a second
	burst float64
	sum   float64 // tokens a second of all together; 0: any number

	mu      sync.Mutex
	buckets map[netip.Prefix]*bucket
	others  bucket
	all     bucket
	swept   time.Time
}

type bucket struct {
	tokens float64
	at     time.Time
}

func newLimiter(rate float64, burst int, sum float64) *limiter {
	return &limiter{
		rate: rate, burst: float64(burst), sum: sum, buckets: map[netip.Prefix]*bucket{},
		others: bucket{tokens: float64(burst)}, all: bucket{tokens: sum},
	}
}

// allow takes a token for an address.
func (l *limiter) allow(a netip.Addr, now time.Time) bool { return l.take(a, now, 1) }

// take reports whether there is a token for an address, and takes n.
func (l *limiter) take(a netip.Addr, now time.Time, n float64) bool {
	key := network(a)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.sum > 0 {
		if l.all.fill(l.sum, l.sum, now); l.all.tokens < 1 {
			return false
		}
	}
	b := l.buckets[key]
	if b == nil {
		if len(l.buckets) >= maxBuckets && now.Sub(l.swept) > time.Second {
			l.sweep(now)
		}
		if len(l.buckets) >= maxBuckets {
			b = &l.others
		} else {
			b = &bucket{tokens: l.burst, at: now}
			l.buckets[key] = b
		}
	}
	if b.fill(l.rate, l.burst, now); b.tokens < 1 {
		return false
	}
	b.tokens -= n
	l.all.tokens -= n
	return true
}

func (b *bucket) fill(rate, burst float64, now time.Time) {
	b.tokens = min(burst, b.tokens+now.Sub(b.at).Seconds()*rate)
	b.at = now
}

// sweep forgets networks whose bucket has filled up again.
func (l *limiter) sweep(now time.Time) {
	l.swept = now
	for a, b := range l.buckets {
		if b.tokens+now.Sub(b.at).Seconds()*l.rate >= l.burst {
			delete(l.buckets, a)
		}
	}
}
