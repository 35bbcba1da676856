package codec

/*
#cgo pkg-config: spandsp
#cgo noescape dtmf_rx
#cgo nocallback dtmf_rx
#cgo noescape dtmf_rx_get
#cgo nocallback dtmf_rx_get
#cgo noescape dtmf_rx_status
#cgo nocallback dtmf_rx_status
#include <stdint.h>
#include <spandsp.h>
*/
import "C"

import (
	"errors"
	"math"
	"time"
)

const (
	dtmfRate = 8000
	// minTone is how long a digit must have been heard: speech that happens to
	// sound like one is shorter, ITU-T Q.24 lets equipment ask for 40 ms.
	minTone = 45 * time.Millisecond
	// dtmfBlock is how much is looked at at once, samples: two blocks of the
	// detector's own 102 are never in it.
	dtmfBlock = 80
	// dtmfTaps is the length of the filter in front, in samples at 8 kHz.
	dtmfTaps = 12
)

// A DTMFDetector hears digits in audio (ITU-T Q.23, Q.24). It is told all of a
// stream in order; a digit is returned when its tones have ended. It allocates
// nothing after construction.
type DTMFDetector struct {
	s      *C.dtmf_rx_state_t
	factor int // of decimation
	fir    []float32
	line   []float32 // the last input samples, twice, so that it can be read in a row
	pos    int       // in line
	phase  int
	block  [dtmfBlock]int16
	n      int

	digit   byte // that sounds now
	samples int  // for how long
}

// NewDTMFDetector returns a detector for PCM of rate, a multiple of 8 kHz.
func NewDTMFDetector(rate int) (*DTMFDetector, error) {
	if rate < dtmfRate || rate%dtmfRate != 0 {
		return nil, errors.New("codec: DTMF is detected at multiples of 8 kHz")
	}
	s := C.dtmf_rx_init(nil, nil, nil)
	if s == nil {
		return nil, errors.New("codec: dtmf_rx_init failed")
	}
	d := &DTMFDetector{s: s, factor: rate / dtmfRate}
	if d.factor > 1 {
		d.fir = lowpass(dtmfTaps*d.factor, 2200/float64(rate))
		d.line = make([]float32, 2*len(d.fir))
	}
	return d, nil
}

// lowpass is a windowed sinc of n taps that passes up to cutoff, in parts of
// the sampling rate.
func lowpass(n int, cutoff float64) []float32 {
	taps, sum := make([]float32, n), 0.0
	for i := range taps {
		at := float64(i) - float64(n-1)/2
		v := 2 * cutoff
		if at != 0 {
			v = math.Sin(2*math.Pi*cutoff*at) / (math.Pi * at)
		}
		v *= 0.54 - 0.46*math.Cos(2*math.Pi*float64(i)/float64(n-1)) // Hamming
		taps[i] = float32(v)
		sum += v
	}
	for i := range taps {
		taps[i] /= float32(sum)
	}
	return taps
}

// Write takes the next samples. It returns a digit that has ended in them, 0
// if none has, and how long it sounded.
func (d *DTMFDetector) Write(pcm []int16) (digit byte, sounded time.Duration) {
	for _, v := range pcm {
		if d.factor > 1 {
			var ok bool
			if v, ok = d.decimate(v); !ok {
				continue
			}
		}
		d.block[d.n] = v
		if d.n++; d.n == dtmfBlock {
			d.n = 0
			if g, t := d.look(); g != 0 {
				digit, sounded = g, t
			}
		}
	}
	return digit, sounded
}

// decimate returns one sample for each factor.
func (d *DTMFDetector) decimate(v int16) (int16, bool) {
	n := len(d.fir)
	d.line[d.pos], d.line[d.pos+n] = float32(v), float32(v)
	d.pos = (d.pos + 1) % n
	if d.phase = (d.phase + 1) % d.factor; d.phase != 0 {
		return 0, false
	}
	sum := float32(0)
	for i, x := range d.line[d.pos : d.pos+n] {
		sum += x * d.fir[i]
	}
	return int16(min(max(sum, -32768), 32767)), true
}

// look has the detector look at a block.
func (d *DTMFDetector) look() (digit byte, sounded time.Duration) {
	if d.s == nil {
		return 0, 0
	}
	C.dtmf_rx(d.s, (*C.int16_t)(&d.block[0]), dtmfBlock)
	var found [4]C.char
	n := int(C.dtmf_rx_get(d.s, &found[0], C.int(len(found))))
	status := byte(C.dtmf_rx_status(d.s))
	if d.digit != 0 && (n > 0 || status != d.digit) {
		digit, sounded = d.ended()
	}
	if n > 0 {
		// It is found after two of the detector's blocks.
		d.digit, d.samples = byte(found[n-1]), 204
		if status != d.digit { // and gone already
			digit, sounded = d.ended()
		}
	} else if d.digit != 0 {
		d.samples += dtmfBlock
	}
	return digit, sounded
}

func (d *DTMFDetector) ended() (byte, time.Duration) {
	digit, t := d.digit, time.Duration(d.samples)*time.Second/dtmfRate
	d.digit, d.samples = 0, 0
	if t < minTone {
		return 0, 0
	}
	return digit, t
}

// Close frees what the detector holds outside the Go heap.
func (d *DTMFDetector) Close() {
	if d.s != nil {
		C.dtmf_rx_free(d.s)
		d.s = nil
	}
}
