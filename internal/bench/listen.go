package main

import (
	"math"
	"math/cmplx"
)

// How alike two recordings sound is judged as ViSQOL does (Hines, Skoglund,
// Kokaram, Harte 2015): both become spectrograms of critical bands in dB; the
// reference is cut into patches of speech; each is laid where it fits best near
// where it belongs, since a listener forgives a shift in time; and the patches
// are compared by NSIM, the neurogram similarity index (Hines and Harte 2012):
// 1 is identical.

const (
	listenWindow = 256               // samples, 32 ms
	listenHop    = listenRate / 1000 // of the degraded recording, 1 ms
	patchHop     = 8                 // ms between the columns of a patch
	patchColumns = 30
	searchMS     = 90   // how far a patch may be shifted from the common delay
	searchStep   = 5    // at first, then each ms around the best
	listenFloor  = 45.0 // dB below the loudest that are heard
	speechLevel  = 30.0 // dB below the loudest: a column with less is a pause
)

// barkEdges are the critical bands of telephone speech, Hz (Zwicker 1961).
var barkEdges = []float64{100, 200, 300, 400, 510, 630, 770, 920, 1080, 1270, 1480, 1720, 2000, 2320, 2700, 3150, 3700}

// spectrogram is level by time and band, in dB.
type spectrogram [][]float64

// A listener knows the original.
type listener struct {
	ref     spectrogram // a column each ms
	loudest float64
}

func newListener(ref []int16) *listener {
	l := &listener{ref: spectrum(ref)}
	l.loudest = math.Inf(-1)
	for _, c := range l.ref {
		for _, v := range c {
			l.loudest = max(l.loudest, v)
		}
	}
	l.clip(l.ref)
	return l
}

// clip raises what is too faint to be heard, and puts 0 there.
func (l *listener) clip(s spectrogram) {
	for _, c := range s {
		for i, v := range c {
			c[i] = max(v-l.loudest+listenFloor, 0)
		}
	}
}

// score is how much degraded sounds like the original, from a time in ms on: 1
// is identical.
func (l *listener) score(degraded []int16, from int) float64 {
	deg := spectrum(degraded)
	l.clip(deg)
	delay := l.delay(deg)
	const length = patchHop * patchColumns
	sum, patches := 0.0, 0
	for at := from; at+length <= len(l.ref); at += length {
		if !l.speech(at) {
			continue
		}
		best, where := -1.0, 0
		try := func(shift int) {
			if i := at + shift; i >= 0 && i+length <= len(deg) {
				if v := nsim(l.ref[at:], deg[i:]); v > best {
					best, where = v, shift
				}
			}
		}
		for shift := -searchMS; shift <= searchMS; shift += searchStep {
			try(delay + shift)
		}
		for shift, around := 1-searchStep, where; shift < searchStep; shift++ {
			try(around + shift)
		}
		if best >= 0 {
			sum, patches = sum+best, patches+1
		}
	}
	return sum / float64(patches)
}

// speech tells whether most of a patch is above a pause's level.
func (l *listener) speech(at int) bool {
	n := 0
	for i := range patchColumns {
		for _, v := range l.ref[at+i*patchHop] {
			if v > listenFloor-speechLevel {
				n++
				break
			}
		}
	}
	return n > patchColumns/2
}

// delay is by how many ms deg is behind on the whole: the best correlation of
// the envelopes.
func (l *listener) delay(deg spectrogram) int {
	envelope := func(s spectrogram) []float64 {
		e, mean := make([]float64, len(s)), 0.0
		for i, c := range s {
			for _, v := range c {
				e[i] += v
			}
			mean += e[i] / float64(len(s))
		}
		for i := range e {
			e[i] -= mean
		}
		return e
	}
	a, b := envelope(l.ref), envelope(deg)
	best, at := math.Inf(-1), 0
	for d := -50; d <= 500; d++ {
		sum := 0.0
		for i := 0; i < len(a); i += 4 {
			if j := i + d; j >= 0 && j < len(b) {
				sum += a[i] * b[j]
			}
		}
		if sum > best {
			best, at = sum, d
		}
	}
	return at
}

// nsim compares two patches, the columns of both patchHop apart, in windows of
// three by three: luminance and structure, as SSIM without contrast.
func nsim(a, b spectrogram) float64 {
	const (
		c1 = (0.01 * listenFloor) * (0.01 * listenFloor)
		c2 = (0.03 * listenFloor) * (0.03 * listenFloor) / 2
	)
	// A Gaussian of σ = 0.5.
	weight := [3]float64{0.1065, 0.787, 0.1065}
	sum, n := 0.0, 0
	bands := len(a[0])
	for x := 1; x+1 < patchColumns; x++ {
		for y := 1; y+1 < bands; y++ {
			var ma, mb, aa, bb, ab float64
			for i := range 3 {
				ca, cb := a[(x+i-1)*patchHop], b[(x+i-1)*patchHop]
				for j := range 3 {
					w := weight[i] * weight[j]
					u, v := ca[y+j-1], cb[y+j-1]
					ma, mb = ma+w*u, mb+w*v
					aa, bb, ab = aa+w*u*u, bb+w*v*v, ab+w*u*v
				}
			}
			sa, sb := math.Sqrt(max(aa-ma*ma, 0)), math.Sqrt(max(bb-mb*mb, 0))
			sum += (2*ma*mb + c1) / (ma*ma + mb*mb + c1) * (ab - ma*mb + c2) / (sa*sb + c2)
			n++
		}
	}
	return sum / float64(n)
}

// spectrum is the level in each critical band, a column each ms.
func spectrum(pcm []int16) spectrogram {
	window := make([]float64, listenWindow)
	for i := range window {
		window[i] = 0.5 - 0.5*math.Cos(2*math.Pi*float64(i)/listenWindow)
	}
	var out spectrogram
	x := make([]complex128, listenWindow)
	for from := 0; from+listenWindow <= len(pcm); from += listenHop {
		for i := range x {
			x[i] = complex(float64(pcm[from+i])*window[i], 0)
		}
		fft(x)
		column := make([]float64, len(barkEdges)-1)
		for b := range column {
			power := 0.0
			for k := int(barkEdges[b] * listenWindow / listenRate); k < int(barkEdges[b+1]*listenWindow/listenRate); k++ {
				power += real(x[k])*real(x[k]) + imag(x[k])*imag(x[k])
			}
			column[b] = 10 * math.Log10(power+1)
		}
		out = append(out, column)
	}
	return out
}

// fft transforms x in place; its length is a power of two.
func fft(x []complex128) {
	n := len(x)
	for i, j := 1, 0; i < n; i++ {
		bit := n >> 1
		for ; j&bit != 0; bit >>= 1 {
			j ^= bit
		}
		if j ^= bit; i < j {
			x[i], x[j] = x[j], x[i]
		}
	}
	for size := 2; size <= n; size *= 2 {
		turn := cmplx.Rect(1, -2*math.Pi/float64(size))
		for from := 0; from < n; from += size {
			w := complex(1, 0)
			for k := from; k < from+size/2; k++ {
				a, b := x[k], x[k+size/2]*w
				x[k], x[k+size/2] = a+b, a-b
				w *= turn
			}
		}
	}
}
