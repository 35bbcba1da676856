package tone

import "math"

// Speech returns the share (0..1) of 20 ms frames of pcm that look like
// speech: louder than -45 dBFS and with at least half of their energy in the
// voice band, 200 to 3400 Hz. It tells speech and tones in that band from
// silence, hum, hiss and clicks; it does not tell speech from a tone.
func Speech(pcm []int16, rate int) float64 {
	frame := rate / 50
	if frame == 0 || len(pcm) < frame {
		return 0
	}
	lo, hi := newBiquad(highPass, 200, rate), newBiquad(lowPass, min(3400, rate*45/100), rate)
	var frames, voiced int
	for ; len(pcm) >= frame; pcm = pcm[frame:] {
		var total, band float64
		for _, v := range pcm[:frame] {
			x := float64(v)
			y := hi.step(lo.step(x))
			total += x * x
			band += y * y
		}
		frames++
		if RMS(pcm[:frame]) > -45 && band >= total/2 {
			voiced++
		}
	}
	return float64(voiced) / float64(frames)
}

type passKind int

const (
	lowPass passKind = iota
	highPass
)

// biquad is a second-order Butterworth section, direct form II transposed.
type biquad struct{ b0, b1, b2, a1, a2, z1, z2 float64 }

func newBiquad(kind passKind, freq, rate int) *biquad {
	w := 2 * math.Pi * float64(freq) / float64(rate)
	alpha, cos := math.Sin(w)/math.Sqrt2, math.Cos(w)
	a0 := 1 + alpha
	f := &biquad{a1: -2 * cos / a0, a2: (1 - alpha) / a0}
	if kind == lowPass {
		f.b0, f.b1 = (1-cos)/2/a0, (1-cos)/a0
	} else {
		f.b0, f.b1 = (1+cos)/2/a0, -(1+cos)/a0
	}
	f.b2 = f.b0
	return f
}

func (f *biquad) step(x float64) float64 {
	y := f.b0*x + f.z1
	f.z1 = f.b1*x - f.a1*y + f.z2
	f.z2 = f.b2*x - f.a2*y
	return y
}
