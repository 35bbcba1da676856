package media

import (
	"encoding/binary"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"brewline/internal/tone"
	"brewline/media/codec"
)

// A long press comes in segments where the clock is fast (RFC 4733 §2.5.1.3),
// and is one digit however much of it is lost.
func TestLongDigits(t *testing.T) {
	t.Parallel()
	for _, lose := range []string{"", "ends", "last of segment", "first of segment", "stall"} {
		var got []Digit
		c := newCall(t, "opus", 20*time.Millisecond)
		c.bridge.phoneLeg.EventRate, c.bridge.up.event.rate = 48000, 48000
		c.bridge.o.OnDigit = func(d Digit) { got = append(got, d) }
		k := newTalker(t, "opus", 96, 1, 20)
		for range 2 { // the same key twice
			start, elapsed := k.ts, uint32(0)
			for i := range 200 { // 4 s
				elapsed += 960
				first := false
				if elapsed > maxSegment {
					start, elapsed, first = start+maxSegment, elapsed-maxSegment, true
				}
				b := make([]byte, 40)
				h := putRTP(b, 101, i == 0, k.seq, start, k.ssrc)
				b[h] = 7
				binary.BigEndian.PutUint16(b[h+2:], uint16(elapsed))
				k.seq++
				k.ts += 960
				lost := lose == "first of segment" && first || lose == "last of segment" && elapsed > maxSegment-960 ||
					lose == "stall" && i > 100 && i < 120 // longer than the end is waited for
				if !lost {
					c.phone.ring.Push(b[:h+4], c.now, false)
				}
				if i == 199 && lose != "ends" {
					for range 3 {
						b := append([]byte(nil), b[:h+4]...)
						b[h+1] = 0x80
						binary.BigEndian.PutUint16(b[2:], k.seq)
						k.seq++
						c.phone.ring.Push(b, c.now, false)
					}
				}
				c.run(20 * time.Millisecond)
			}
			for range 20 {
				c.phone.ring.Push(k.packet(), c.now, false)
				c.run(20 * time.Millisecond)
			}
		}
		if len(got) != 2 || got[0].Key != '7' || got[1].Key != '7' {
			t.Errorf("%q lost: %v", lose, got)
			continue
		}
		for _, d := range got {
			if lose != "stall" && (d.Duration < 3900*time.Millisecond || d.Duration > 4100*time.Millisecond) {
				t.Errorf("%q lost: pressed for %v", lose, d.Duration)
			}
		}
	}
}

// Events that come as a stream of their own, beside the audio, are digits and
// leave the audio alone.
func TestDigitsOfAnotherStream(t *testing.T) {
	t.Parallel()
	got := ""
	c := newCall(t, "pcmu", 20*time.Millisecond)
	c.bridge.o.OnDigit = func(d Digit) { got += string(d.Key) }
	c.speaker(sine(440, 8000, 10*time.Second), 5*time.Millisecond)
	c.run(500 * time.Millisecond)
	seq := uint16(40000)
	for _, event := range []byte{1, 10, 1} {
		ts := uint32(seq) * 1000
		for i := range 8 {
			b := make([]byte, 40)
			h := putRTP(b, 101, i == 0, seq, ts, 99)
			b[h], b[h+1] = event, 10
			if i > 4 {
				b[h+1] |= 0x80
			}
			binary.BigEndian.PutUint16(b[h+2:], uint16(160*min(i+1, 5)))
			seq++
			c.phone.ring.Push(b[:h+4], c.now, false)
			c.run(20 * time.Millisecond)
		}
	}
	c.run(300 * time.Millisecond)
	s := c.bridge.Stats()
	if got != "1*1" || s.Phone.Concealed != 0 || s.Phone.Lost != 0 || s.Phone.Dropped != 0 {
		t.Errorf("%q, %+v", got, s.Phone)
	}
	hears(t, "the videobridge", listen(t, "opus", 8000, c.conf.rtp, 0).pcm, 8000, 440)
}

// Digits are heard in the audio where the phone has no other way, also while
// it is muted, and not where it holds.
func TestTonesOfThePhone(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"pcmu", "pcma", "g722", "opus"} {
		var got string
		c := newCall(t, name, 20*time.Millisecond)
		c.bridge.o.OnDigit = func(d Digit) {
			if !d.Tone {
				t.Errorf("%+v", d)
			}
			got += string(d.Key)
		}
		if err := c.bridge.AttachPhone(PhoneLeg{
			Conn: c.phone, Codec: name, SendPT: phonePT(name), RecvPT: phonePT(name), Send: true, Receive: true, Tones: true,
		}); err != nil {
			t.Fatal(err)
		}
		k := c.speaker(nil, 3*time.Millisecond)
		k.pcm = dialled(t, k.rate, "*6159")
		c.run(1500 * time.Millisecond)
		c.bridge.SetMuted(true)
		sent := 0
		c.run(300 * time.Millisecond)
		sent = c.conf.sent
		k.pcm = dialled(t, k.rate, "*6")
		c.run(time.Second)
		if got != "*6159*6" {
			t.Errorf("%s: %q is heard", name, got)
		}
		if c.conf.sent != sent {
			t.Errorf("%s: %d packets while muted", name, c.conf.sent-sent)
		}
		c.bridge.UpdatePhone(true, false)
		k.pcm = dialled(t, k.rate, "1")
		c.run(500 * time.Millisecond)
		if got != "*6159*6" {
			t.Errorf("%s: %q is heard with hold", name, got)
		}
	}
}

// dialled are digits as our own keypad makes them.
func dialled(t *testing.T, rate int, digits string) (pcm []int16) {
	t.Helper()
	name := map[int]string{8000: "pcmu", 16000: "g722", 48000: "opus"}[rate]
	c := newCall(t, name, 20*time.Millisecond)
	for i := range digits {
		if err := c.bridge.SendDigit(digits[i], 0, true); err != nil {
			t.Fatal(err)
		}
	}
	for range len(digits) * 10 {
		c.bridge.mu.Lock()
		f := &c.bridge.down.frame
		f.silence()
		c.bridge.press()
		pcm = append(pcm, f.pcm...)
		c.bridge.mu.Unlock()
	}
	return pcm
}

// Digits to the phone as telephone-events: begin, updates in every packet
// time, the end thrice, one after another, at every packet time.
func TestDigitsToThePhone(t *testing.T) {
	t.Parallel()
	for name, ptimes := range map[string][]int{"pcmu": {20, 60}, "g722": {10}, "opus": {20, 60}} {
		for _, ms := range ptimes {
			ptime := time.Duration(ms) * time.Millisecond
			c := newCall(t, name, ptime)
			rate := c.bridge.codec.Clock
			c.bridge.phoneLeg.EventRate = rate
			c.web(10, 1000, 0.3, 5*time.Millisecond)
			c.run(500 * time.Millisecond)
			want := map[byte]time.Duration{'*': 100 * time.Millisecond, '6': 240 * time.Millisecond, 'D': 2400 * time.Millisecond, '0': minPress}
			for _, d := range []byte("*6D0") {
				press := want[d]
				if d == '0' {
					press = time.Millisecond
				}
				if err := c.bridge.SendDigit(d, press, false); err != nil {
					t.Fatal(err)
				}
			}
			c.run(6 * time.Second)

			// What another receiver makes of it.
			var got []Digit
			rx := telephoneEvent{rate: rate}
			var events []rtpPacket
			for i, b := range c.phone.rtp {
				p, _ := parseRTP(b)
				if i > 0 {
					if was, _ := parseRTP(c.phone.rtp[i-1]); p.seq != was.seq+1 {
						t.Fatalf("%s/%v: sequence %d after %d", name, ptime, p.seq, was.seq)
					} else if was.pt == 101 && p.pt != 101 && !p.marker {
						t.Errorf("%s/%v: audio goes on without a mark", name, ptime)
					} else if was.pt == 101 && c.phone.at[i]-c.phone.at[i-1] > ptime+2*time.Millisecond {
						t.Errorf("%s/%v: %v between two packets", name, ptime, c.phone.at[i]-c.phone.at[i-1])
					}
				}
				if p.pt != 101 {
					continue
				}
				if len(p.payload) != 4 || p.payload[1]&0x3f != pressVolume {
					t.Fatalf("%s/%v: payload % x", name, ptime, p.payload)
				}
				events = append(events, p)
				if key, d := rx.packet(&p, c.phone.at[i]); key != 0 {
					got = append(got, Digit{Key: key, Duration: d})
				}
			}
			keys := ""
			for _, d := range got {
				keys += string(d.Key)
				if over := d.Duration - want[d.Key]; over < 0 || over >= ptime {
					t.Errorf("%s/%v: %c lasts %v", name, ptime, d.Key, d.Duration)
				}
			}
			if keys != "*6D0" {
				t.Fatalf("%s/%v: %q is heard", name, ptime, keys)
			}
			marks, ends := 0, 0
			for i, p := range events {
				if p.marker {
					marks++
					if d := binary.BigEndian.Uint16(p.payload[2:]); int(d) != int(ptime)*rate/int(time.Second) {
						t.Errorf("%s/%v: begins with duration %d", name, ptime, d)
					}
				} else if p.ts != events[i-1].ts && p.ts != events[i-1].ts+maxSegment {
					t.Errorf("%s/%v: timestamp %d after %d", name, ptime, p.ts, events[i-1].ts)
				}
				if p.payload[1]&0x80 != 0 {
					ends++
				}
			}
			if marks != 4 || ends != 12 {
				t.Errorf("%s/%v: %d marked, %d ends", name, ptime, marks, ends)
			}
			e := listen(t, name, 0, c.audio(), 0)
			hears(t, name+" afterwards", e.pcm, e.rate, 1000)
		}
	}
}

// audio is what the phone got besides events and comfort noise.
func (c *call) audio() (packets [][]byte) {
	for _, b := range c.phone.rtp {
		if p, _ := parseRTP(b); p.pt == phonePT(c.name) {
			packets = append(packets, b)
		}
	}
	return packets
}

// Tones in the audio, for phones that know no events; they do not click.
func TestTonesToThePhone(t *testing.T) {
	t.Parallel()
	for name, ptimes := range map[string][]int{"pcmu": {60}, "pcma": {10}, "g722": {20}, "opus": {20}} {
		for _, ms := range ptimes {
			ptime := time.Duration(ms) * time.Millisecond
			c := newCall(t, name, ptime)
			c.bridge.phoneLeg.CNPT = map[bool]uint8{true: 0, false: 13}[name == "opus"]
			c.run(time.Second)
			const all = "1234567890*#ABCD11"
			for _, d := range []byte(all) {
				if err := c.bridge.SendDigit(d, 120*time.Millisecond, true); err != nil {
					t.Fatal(err)
				}
			}
			c.run(5 * time.Second)
			for _, b := range c.phone.rtp {
				if p, _ := parseRTP(b); p.pt == 101 {
					t.Fatal("events are sent as well")
				}
			}
			e := listen(t, name, 0, c.audio(), 0)
			rx, err := codec.NewDTMFDetector(e.rate)
			if err != nil {
				t.Fatal(err)
			}
			heard := ""
			for pcm := e.pcm; len(pcm) >= e.rate/50; pcm = pcm[e.rate/50:] {
				if key, _ := rx.Write(pcm[:e.rate/50]); key != 0 {
					heard += string(key)
				}
			}
			rx.Close()
			if heard != all {
				t.Errorf("%s/%v: %q is heard", name, ptime, heard)
			}
		}
	}
}

// What cannot be sent is refused, and nothing is kept for later.
func TestDigitsNotSent(t *testing.T) {
	t.Parallel()
	c := newCall(t, "pcmu", 20*time.Millisecond)
	for range maxPresses {
		if err := c.bridge.SendDigit('1', time.Second, false); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.bridge.SendDigit('1', time.Second, true); !errors.Is(err, ErrDigits) {
		t.Error(err)
	}
	c.run(300 * time.Millisecond)
	c.bridge.UpdatePhone(false, true)
	if err := c.bridge.SendDigit('1', time.Second, false); !errors.Is(err, ErrNoPhone) {
		t.Error(err)
	}
	c.run(100 * time.Millisecond)
	c.bridge.UpdatePhone(true, true)
	n := len(c.phone.rtp)
	c.run(time.Second)
	for _, b := range c.phone.rtp[n:] {
		if p, _ := parseRTP(b); p.pt == 101 {
			t.Fatal("a digit from before the hold is sent")
		}
	}
	c.bridge.phoneLeg.EventPT = 0
	if err := c.bridge.SendDigit('1', time.Second, false); !errors.Is(err, ErrNoEvents) {
		t.Error(err)
	}
	if err := c.bridge.SendDigit('x', time.Second, true); err == nil {
		t.Error("x is a digit")
	}
	c.bridge.DetachPhone()
	if err := c.bridge.SendDigit('1', time.Second, true); !errors.Is(err, ErrNoPhone) {
		t.Error(err)
	}
}

// Participants press keys in place of their audio; nothing of that is loss,
// and ends that were lost do not hide a digit.
func TestKeysOfTheMeeting(t *testing.T) {
	t.Parallel()
	var got []Digit
	c := newCall(t, "pcmu", 20*time.Millisecond)
	c.bridge.o.OnKey = func(d Digit) {
		got = append(got, d)
		c.bridge.SendDigit(d.Key, d.Duration, false)
	}
	c.bridge.DetachConference()
	if err := c.bridge.AttachConference(ConferenceLeg{Conn: c.conf, OpusPT: testOpusPT, EventPT: 126, AudioLevelID: testLevel, SSRC: 7777}); err != nil {
		t.Fatal(err)
	}
	alice, bob := newTalker(t, "opus", testOpusPT, 10, 20), newTalker(t, "opus", testOpusPT, 11, 20)
	alice.levelID, bob.levelID = testLevel, testLevel
	alice.pcm = sine(1000, alice.rate, 20*time.Second)
	step := func(packets ...[]byte) {
		for _, p := range packets {
			c.conf.ring.Push(p, c.now, false)
		}
		c.run(20 * time.Millisecond)
	}
	press := func(k *talker, other *talker, event byte, n, ends int) {
		start := k.ts
		for i := range n {
			b := make([]byte, 40)
			h := putRTP(b, 126, i == 0, k.seq, start, k.ssrc)
			b[h], b[h+1] = event, 10
			binary.BigEndian.PutUint16(b[h+2:], uint16(160*(i+1)))
			k.seq++
			k.ts += 960
			step(b[:h+4], other.packet())
			for j := 0; i == n-1 && j < ends; j++ {
				b := append([]byte(nil), b[:h+4]...)
				b[h+1] |= 0x80
				binary.BigEndian.PutUint16(b[2:], k.seq)
				k.seq++
				c.conf.ring.Push(b, c.now, false)
			}
		}
	}
	for range 25 {
		step(alice.packet(), bob.packet())
	}
	press(bob, alice, 5, 10, 3)
	for range 10 {
		step(alice.packet(), bob.packet())
	}
	press(alice, bob, 11, 10, 3)
	press(bob, alice, 0, 10, 0)
	for range 40 {
		step(alice.packet())
	}
	want := []Digit{{Key: '5', Duration: 200 * time.Millisecond}, {Key: '#', Duration: 200 * time.Millisecond}, {Key: '0', Duration: 200 * time.Millisecond}}
	if !slices.Equal(got, want) {
		t.Errorf("pressed %v", got)
	}
	s := c.bridge.Stats()
	if s.Conference.Lost != 0 || s.Conference.Invalid != 0 || s.KeysHeard != 3 || s.DigitsSent != 3 || s.DigitsHeard != 0 {
		t.Errorf("%+v", s)
	}
	var sent strings.Builder
	rx := telephoneEvent{rate: 8000}
	for i, b := range c.phone.rtp {
		if p, _ := parseRTP(b); p.pt == 101 {
			if key, _ := rx.packet(&p, c.phone.at[i]); key != 0 {
				sent.WriteByte(key)
			}
		}
	}
	if sent.String() != "5#0" {
		t.Errorf("the phone gets %q", sent.String())
	}
	e := listen(t, "pcmu", 0, c.audio(), 0)
	if l := tone.Level(e.pcm[len(e.pcm)-e.rate/4:], e.rate, 1000); l < 0.9 {
		t.Errorf("the speaker is %.2f of what is heard afterwards", l)
	}
}
