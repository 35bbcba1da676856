package brewery

import (
	"math/rand/v2"
	"time"
)

// backoff gives the pauses between attempts: doubling from min to max, each
// somewhere in the upper three quarters, so that what fell together does not
// come back together.
type backoff struct {
	min, max time.Duration
	next     time.Duration
}

func (b *backoff) pause() time.Duration {
	d := min(max(b.next, b.min), b.max)
	b.next = 2 * d
	return d/4 + rand.N(d-d/4+1)
}

func (b *backoff) reset() { b.next = 0 }
