package media

import "math"

const (
	levelSilent  = 127 // digital silence, RFC 6464 §3
	levelUnknown = 40  // taken for packets that do not tell
	levelQuiet   = 66  // fainter than this, -dBov, nothing is worth encoding
	levelPause   = 50  // fainter than this a frame can be left out unnoticed
)

// audioLevel is the loudness of pcm in -dBov, 0 to 127 (RFC 6464 §3).
func audioLevel(pcm []int16) uint8 {
	sum := int64(0)
	for _, s := range pcm {
		sum += int64(s) * int64(s)
	}
	if sum == 0 {
		return levelSilent
	}
	mean := float64(sum) / float64(len(pcm)) / (32768 * 32768)
	return uint8(min(max(math.Round(-10*math.Log10(mean)), 0), 126))
}

// Peaks above knee are bent rather than cut: the knee is 3 dB below full
// scale, three loud speakers together stay just within it.
const knee = 23200

// saturate writes a mix as 16-bit samples.
func saturate(dst []int16, mix []int32) {
	for i, s := range mix[:len(dst)] {
		if s > knee || s < -knee {
			s = bend(s)
		}
		dst[i] = int16(s)
	}
}

// bend maps what is beyond the knee into what is left below full scale:
// x ↦ x·room/(x+room), whose slope at the knee is 1.
func bend(s int32) int32 {
	const room = 32767 - knee
	if s < 0 {
		over := int64(-knee - s)
		return -knee - int32(over*room/(over+room))
	}
	over := int64(s - knee)
	return knee + int32(over*room/(over+room))
}
