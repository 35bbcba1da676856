package sip

import (
	"net/netip"
	"sync"
	"time"
)

// maxBuckets bounds the memory that sources can make a limiter take.
const maxBuckets = 8192

// limiter is a token bucket for each source address. Beyond maxBuckets busy
// addresses all further ones share a bucket.
type limiter struct {
	rate  float64 // tokens a second
	burst float64

	mu      sync.Mutex
	buckets map[netip.Addr]*bucket
	others  bucket
	swept   time.Time
}

type bucket struct {
	tokens float64
	at     time.Time
}

func newLimiter(rate float64, burst int) *limiter {
	return &limiter{rate: rate, burst: float64(burst), buckets: map[netip.Addr]*bucket{}, others: bucket{tokens: float64(burst)}}
}

func (l *limiter) allow(a netip.Addr, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := l.buckets[a]
	if b == nil {
		if len(l.buckets) >= maxBuckets && now.Sub(l.swept) > time.Second {
			l.sweep(now)
		}
		if len(l.buckets) >= maxBuckets {
			b = &l.others
		} else {
			b = &bucket{tokens: l.burst, at: now}
			l.buckets[a] = b
		}
	}
	b.tokens = min(l.burst, b.tokens+now.Sub(b.at).Seconds()*l.rate)
	b.at = now
	if b.tokens < 1 {
		return false
	}
	b.tokens--
	return true
}

// sweep forgets addresses whose bucket has filled up again.
func (l *limiter) sweep(now time.Time) {
	l.swept = now
	for a, b := range l.buckets {
		if b.tokens+now.Sub(b.at).Seconds()*l.rate >= l.burst {
			delete(l.buckets, a)
		}
	}
}
