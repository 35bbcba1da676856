package tone

import (
	"math"
	"slices"
	"time"
)

// Sine returns d of a sine of freq Hz at rate samples per second. amp is the
// peak, 0..1 of full scale. The phase starts at zero.
func Sine(freq, rate int, d time.Duration, amp float64) []int16 {
	out := make([]int16, int(int64(d)*int64(rate)/int64(time.Second)))
	NewGenerator(freq, rate, amp).Read(out)
	return out
}

// A Generator makes a sine of continuous phase, frame by frame. It is not
// safe for concurrent use.
type Generator struct {
	step, phase, amp float64
}

// NewGenerator returns a generator of a freq Hz sine at rate samples per
// second with peak amp (0..1 of full scale). A freq of 0 is silence.
func NewGenerator(freq, rate int, amp float64) *Generator {
	return &Generator{step: 2 * math.Pi * float64(freq) / float64(rate), amp: amp * math.MaxInt16}
}

// Read fills pcm with the next samples.
func (g *Generator) Read(pcm []int16) {
	for i := range pcm {
		pcm[i] = int16(math.Round(g.amp * math.Sin(g.phase)))
		g.phase += g.step
		if g.phase >= 2*math.Pi {
			g.phase -= 2 * math.Pi
		}
	}
}

// Add mixes b into a (as far as both reach) with saturation and returns a.
func Add(a, b []int16) []int16 {
	for i := range min(len(a), len(b)) {
		a[i] = int16(max(math.MinInt16, min(math.MaxInt16, int32(a[i])+int32(b[i]))))
	}
	return a
}

// Resample converts pcm between sample rates by linear interpolation, after a
// moving average where the rate goes down. Good enough to be understood and
// measured, not to be admired.
func Resample(pcm []int16, from, to int) []int16 {
	if from == to || len(pcm) == 0 {
		return append([]int16(nil), pcm...)
	}
	src := pcm
	if w := from / to; w > 1 {
		src = make([]int16, len(pcm))
		sum := 0
		for i, v := range pcm {
			if sum += int(v); i >= w {
				sum -= int(pcm[i-w])
			}
			src[i] = int16(sum / w)
		}
	}
	out := make([]int16, len(pcm)*to/from)
	for i := range out {
		at := float64(i) * float64(from) / float64(to)
		k := int(at)
		next := src[min(k+1, len(src)-1)]
		out[i] = int16(float64(src[k]) + (at-float64(k))*(float64(next)-float64(src[k])))
	}
	return out
}

// Level returns the share (0..1) of pcm's energy that lies at freq Hz, by the
// Goertzel algorithm. A pure sine gives about 1, silence 0, white noise about
// 2/len(pcm). The window resolves about rate/len(pcm) Hz.
func Level(pcm []int16, rate, freq int) float64 {
	if len(pcm) == 0 {
		return 0
	}
	coeff := 2 * math.Cos(2*math.Pi*float64(freq)/float64(rate))
	var s1, s2, energy float64
	for _, v := range pcm {
		x := float64(v)
		energy += x * x
		s1, s2 = x+coeff*s1-s2, s1
	}
	if energy == 0 {
		return 0
	}
	power := s1*s1 + s2*s2 - coeff*s1*s2
	return min(1, 2*power/(energy*float64(len(pcm))))
}

// Share is Level taken piece by piece, each of 50 ms: a lost packet, where the
// tone goes on in another phase, costs its piece alone.
func Share(pcm []int16, rate, freq int) float64 {
	var at, all float64
	for piece := range slices.Chunk(pcm, max(1, rate/20)) {
		var energy float64
		for _, v := range piece {
			energy += float64(v) * float64(v)
		}
		at, all = at+energy*Level(piece, rate, freq), all+energy
	}
	if all == 0 {
		return 0
	}
	return at / all
}

// Silence is the value RMS gives for digital silence, in dBFS.
const Silence = -100.0

// RMS returns the loudness of pcm in dBFS, where a full-scale sine is -3 dB
// and digital silence is Silence.
func RMS(pcm []int16) float64 {
	var sum float64
	for _, v := range pcm {
		sum += float64(v) * float64(v)
	}
	if sum == 0 {
		return Silence
	}
	return max(Silence, 10*math.Log10(sum/float64(len(pcm)))-20*math.Log10(math.MaxInt16+1))
}

// Present reports whether pcm holds a tone of freq Hz: at least half of its
// energy there, and louder than -50 dBFS.
func Present(pcm []int16, rate, freq int) bool {
	return RMS(pcm) > -50 && Level(pcm, rate, freq) >= 0.5
}

// Together reports whether pcm holds tones of these frequencies, Hz, all about
// as loud, and nothing else: at least half of its share of the energy at each,
// and nine tenths at all of them.
func Together(pcm []int16, rate int, freqs ...int) bool {
	sum := 0.0
	for _, f := range freqs {
		share := Level(pcm, rate, f)
		if share < 0.5/float64(len(freqs)) {
			return false
		}
		sum += share
	}
	return sum > 0.9
}

// A Detector watches a stream for one tone over a running window.
// It is not safe for concurrent use.
type Detector struct {
	rate, freq int
	threshold  float64
	buf        []int16
	n          int
	filled     bool
}

// NewDetector looks for freq Hz in a stream of rate samples per second, over
// windows of the given length (0: 100 ms). The tone counts as present when
// its share of the energy reaches threshold (0: 0.5).
func NewDetector(freq, rate int, window time.Duration, threshold float64) *Detector {
	if window <= 0 {
		window = 100 * time.Millisecond
	}
	if threshold <= 0 {
		threshold = 0.5
	}
	return &Detector{rate: rate, freq: freq, threshold: threshold,
		buf: make([]int16, max(1, int(int64(window)*int64(rate)/int64(time.Second))))}
}

// Write takes the next samples.
func (d *Detector) Write(pcm []int16) {
	if len(pcm) > len(d.buf) {
		pcm = pcm[len(pcm)-len(d.buf):]
		d.filled = true
	}
	for len(pcm) > 0 {
		c := copy(d.buf[d.n:], pcm)
		pcm = pcm[c:]
		if d.n += c; d.n == len(d.buf) {
			d.n, d.filled = 0, true
		}
	}
}

// Level returns the tone's share of the energy in the window, 0 until the
// window has been filled once. The window's seam is rotated into order first,
// since a phase jump would blur the tone.
func (d *Detector) Level() float64 {
	if !d.filled {
		return 0
	}
	if d.n != 0 {
		d.buf = append(append(make([]int16, 0, len(d.buf)), d.buf[d.n:]...), d.buf[:d.n]...)
		d.n = 0
	}
	return Level(d.buf, d.rate, d.freq)
}

// RMS returns the loudness of the window in dBFS, Silence until it is filled.
func (d *Detector) RMS() float64 {
	if !d.filled {
		return Silence
	}
	return RMS(d.buf)
}

// Present reports whether the tone fills the window: share of energy at the
// threshold or above, and louder than -50 dBFS.
func (d *Detector) Present() bool {
	return d.RMS() > -50 && d.Level() >= d.threshold
}
