package jitsitest

import (
	"math"
	"sync"
	"time"

	"gopkg.in/hraban/opus.v2"

	"brewline/internal/tone"
)

const (
	rate       = 48000
	frameTime  = 20 * time.Millisecond
	frameSize  = rate / 50
	toneVolume = 0.4 // of full scale
)

// frame is one encoded frame and its RFC 6464 level (0 loudest, 127 silence).
type frame struct {
	opus  []byte
	level byte
}

// sound is a loop of encoded frames. Encoding beforehand makes a talking browser
// nearly free.
type sound []frame

var (
	tonesMu sync.Mutex
	tones   = map[int]sound{}
)

// toneSound is one second of a tone, a whole number of its periods.
func toneSound(freq int) (sound, error) {
	tonesMu.Lock()
	defer tonesMu.Unlock()
	if s, ok := tones[freq]; ok {
		return s, nil
	}
	pcm := tone.Sine(freq, rate, 2*time.Second, toneVolume)
	s, err := encode(pcm)
	if err != nil {
		return nil, err
	}
	s = s[len(s)/2:] // the second time around the encoder is settled
	tones[freq] = s
	return s, nil
}

// encode makes a loop of 48 kHz mono audio, padded to whole frames.
func encode(pcm []int16) (sound, error) {
	enc, err := opus.NewEncoder(rate, 1, opus.AppVoIP)
	if err != nil {
		return nil, err
	}
	for _, err := range []error{enc.SetBitrate(32000), enc.SetComplexity(5), enc.SetInBandFEC(true), enc.SetPacketLossPerc(5)} {
		if err != nil {
			return nil, err
		}
	}
	var out sound
	buf := make([]byte, 1500)
	for len(pcm) > 0 {
		f := make([]int16, frameSize)
		pcm = pcm[copy(f, pcm):]
		n, err := enc.Encode(f, buf)
		if err != nil {
			return nil, err
		}
		out = append(out, frame{append([]byte(nil), buf[:n]...), level(f)})
	}
	return out, nil
}

// level is RFC 6464's: -dBov, where 0 dBov is a full-scale square wave.
func level(pcm []int16) byte {
	var sum float64
	for _, v := range pcm {
		sum += float64(v) * float64(v)
	}
	if sum == 0 {
		return 127
	}
	db := -20 * math.Log10(math.Sqrt(sum/float64(len(pcm)))/math.MaxInt16)
	return byte(max(0, min(127, math.Round(db))))
}

// metronome calls every registered sender once each 20 ms from one goroutine,
// which runs while there are any.
type metronome struct {
	mu      sync.Mutex
	senders map[*leg]struct{}
	done    chan struct{}
}

var beat = &metronome{senders: map[*leg]struct{}{}}

func (m *metronome) add(l *leg) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.senders[l] = struct{}{}
	if len(m.senders) == 1 {
		m.done = make(chan struct{})
		go m.run(m.done)
	}
}

// remove returns when the sender will not be called any more.
func (m *metronome) remove(l *leg) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.senders[l]; !ok {
		return
	}
	delete(m.senders, l)
	if len(m.senders) == 0 {
		close(m.done)
	}
}

func (m *metronome) run(done chan struct{}) {
	t := time.NewTicker(frameTime)
	defer t.Stop()
	start, sent := time.Now(), 0
	for {
		select {
		case <-done:
			return
		case <-t.C:
		}
		due := int(time.Since(start) / frameTime)
		if due-sent > 25 { // the machine stood still: do not send a flood
			sent = due - 1
		}
		for ; sent < due; sent++ {
			m.mu.Lock()
			for l := range m.senders {
				l.tick()
			}
			m.mu.Unlock()
		}
	}
}
