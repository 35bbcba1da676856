package media

import (
	"encoding/binary"
	"errors"
	"math"
	"strings"
	"time"
)

// Why a digit is not sent.
var (
	ErrNoPhone  = errors.New("media: no phone leg that listens")
	ErrNoEvents = errors.New("media: telephone-event was not agreed on")
	ErrDigits   = errors.New("media: too many digits wait")
)

// Digit is a key that was pressed: '0'..'9', '*', '#', 'A'..'D'.
type Digit struct {
	Key      byte
	Duration time.Duration
	Tone     bool // heard in the audio, not told by a telephone-event
}

const (
	// maxPresses bounds the digits that wait to be sent.
	maxPresses = 32
	// minPress and maxPress bound how long a digit is sent: RFC 4733 §3.2 wants
	// no less than 40 ms, receivers more.
	minPress = 100 * time.Millisecond
	maxPress = 5 * time.Second
	// pressGap is the least pause between two digits.
	pressGap = 80 * time.Millisecond
	// pressVolume is the power of a digit in telephone-events, -dBm0.
	pressVolume = 10
	// pressEnds is how often the end of an event is sent (RFC 4733 §2.5.1.4).
	pressEnds = 3
	// maxSegment is the longest duration a telephone-event can tell; a longer
	// event goes on in another segment (RFC 4733 §2.5.1.3).
	maxSegment = 0xffff
)

// keypad sends digits to the phone, one after another, in place of audio.
type keypad struct {
	waiting []press
	running bool
	now     press
	elapsed time.Duration
	gap     time.Duration
	ends    int
	ts      uint32 // of the segment
	before  uint32 // ticks in earlier segments
	low     float64
	high    float64 // phases of the tones
}

type press struct {
	event byte
	d     time.Duration
	tone  bool
}

// SendDigit sends a digit to the phone after those that wait: as a
// telephone-event (RFC 4733), or as tones in the audio. The digit lasts d, but
// at least 100 ms and at most 5 s. Errors: ErrNoPhone, also while the phone is
// not to be sent anything; ErrNoEvents; ErrDigits.
func (b *Bridge) SendDigit(digit byte, d time.Duration, tone bool) error {
	event := strings.IndexByte(digits, digit)
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case event < 0:
		return errors.New("media: no such digit")
	case b.phone.conn == nil || !b.phoneLeg.Send:
		return ErrNoPhone
	case !tone && b.phoneLeg.EventPT == 0:
		return ErrNoEvents
	case len(b.keypad.waiting) == maxPresses:
		return ErrDigits
	}
	b.keypad.waiting = append(b.keypad.waiting, press{byte(event), min(max(d, minPress), maxPress), tone})
	return nil
}

// press is one packet time of the keypad. It returns false if there is nothing
// to be pressed; tones are then in the frame, and a telephone-event has been
// sent where sent is true.
func (b *Bridge) press() (pressed, sent bool) {
	k := &b.keypad
	packet := time.Duration(b.down.period) * slotTime
	if !k.running {
		if k.gap > 0 {
			k.gap -= packet
			return false, false
		}
		if len(k.waiting) == 0 {
			return false, false
		}
		k.now = k.waiting[0]
		k.waiting = k.waiting[:copy(k.waiting, k.waiting[1:])]
		k.running, k.elapsed, k.ends, k.before, k.ts = true, 0, 0, 0, b.phone.ts
		k.low, k.high = 0, 0
		b.digitsSent++
	}
	if k.now.tone {
		b.pressTone()
		return true, false
	}
	b.pressEvent(packet)
	return true, true
}

// release ends the digit that is being sent.
func (k *keypad) release() { k.running, k.gap = false, pressGap }

// silence forgets all digits: nobody listens.
func (k *keypad) silence() { *k = keypad{waiting: k.waiting[:0]} }

// pressEvent sends a packet of a telephone-event (RFC 4733 §2.5.1).
func (b *Bridge) pressEvent(packet time.Duration) {
	k, l := &b.keypad, &b.phone
	marker := k.elapsed == 0
	if k.ends == 0 {
		k.elapsed += packet
	}
	ticks := uint32(int64(k.elapsed)*int64(b.phoneLeg.EventRate)/int64(time.Second)) - k.before
	flags := byte(pressVolume)
	long := ticks > maxSegment
	if long {
		ticks = maxSegment
	} else if k.elapsed >= k.now.d {
		flags |= 0x80
		k.ends++
	}
	h := putRTP(l.out[:], b.phoneLeg.EventPT, marker, l.seq, k.ts, l.ssrc)
	p := l.out[h:]
	p[0], p[1] = k.now.event, flags
	binary.BigEndian.PutUint16(p[2:], uint16(ticks))
	l.send(h+4, h)
	if long {
		k.before += maxSegment
		k.ts += maxSegment
	}
	l.pause = true // audio begins anew after it
	b.down.out.rest()
	if k.ends == pressEnds {
		k.release()
	}
}

// Frequencies of the rows and columns of the keypad, Hz (ITU-T Q.23).
var (
	rows    = [4]float64{697, 770, 852, 941}
	columns = [4]float64{1209, 1336, 1477, 1633}
	// places are row and column of each event.
	places = [16][2]byte{{3, 1}, {0, 0}, {0, 1}, {0, 2}, {1, 0}, {1, 1}, {1, 2}, {2, 0}, {2, 1}, {2, 2},
		{3, 0}, {3, 2}, {0, 3}, {1, 3}, {2, 3}, {3, 3}}
)

// toneAmplitude makes each of the two tones -9 dBm0, as telephones do about.
const toneAmplitude = 8000

// pressTone puts the digit's tones in place of the frame's audio, faded in and
// out over 5 ms so that nothing clicks.
func (b *Bridge) pressTone() {
	k, f := &b.keypad, &b.down.frame
	rate := float64(b.codec.Rate)
	place := places[k.now.event]
	low, high := 2*math.Pi*rows[place[0]]/rate, 2*math.Pi*columns[place[1]]/rate
	from := int(int64(k.elapsed) * int64(b.codec.Rate) / int64(time.Second))
	total := int(int64(k.now.d) * int64(b.codec.Rate) / int64(time.Second))
	ramp := b.codec.Rate / 200
	for i := range f.pcm {
		at := from + i
		gain := float64(min(at, total-at, ramp)) / float64(ramp)
		f.pcm[i] = int16(toneAmplitude * max(gain, 0) * (math.Sin(k.low) + math.Sin(k.high)))
		k.low, k.high = math.Mod(k.low+low, 2*math.Pi), math.Mod(k.high+high, 2*math.Pi)
	}
	f.opus = nil
	if k.elapsed += time.Duration(b.down.period) * slotTime; k.elapsed >= k.now.d {
		k.release()
	}
}
