package call

import (
	"time"

	"brewline/media"
)

// way is how a digit of the phone came.
type way uint8

const (
	byEvent way = 1 << iota // RFC 4733
	byTone                  // in the audio
	byInfo                  // SIP INFO
)

func wayOf(d media.Digit) way {
	if d.Tone {
		return byTone
	}
	return byEvent
}

const (
	// sameDigit is how far apart two reports of one press may lie: a
	// retransmitted INFO is seconds late. longestPress is how long one may last
	// that is told of at its beginning in one way and at its end in another.
	sameDigit    = 2 * time.Second
	longestPress = 15 * time.Second
	// maxRecent bounds the digits that are remembered.
	maxRecent = 32
)

// digits makes one digit of those that come in several ways at once: some
// phones send tones and events, or events and INFO. A digit is taken for the
// oldest one like it that has not come this way yet.
type digits struct{ recent []recentDigit }

type recentDigit struct {
	digit byte
	ways  way
	at    time.Time // when it was told of
}

// first notes a digit that was pressed for d up to now, and tells whether it is
// a new one.
func (k *digits) first(digit byte, w way, d time.Duration, now time.Time) bool {
	for len(k.recent) > 0 && (now.Sub(k.recent[0].at) > longestPress || len(k.recent) >= maxRecent) {
		k.recent = k.recent[:copy(k.recent, k.recent[1:])]
	}
	for i := range k.recent {
		if r := &k.recent[i]; r.digit == digit && r.ways&w == 0 && now.Sub(r.at)-d <= sameDigit {
			r.ways |= w
			return false
		}
	}
	k.recent = append(k.recent, recentDigit{digit, w, now})
	return true
}
