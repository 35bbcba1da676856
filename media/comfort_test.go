package media

import (
	"math"
	"testing"
	"time"

	"brewline/internal/tone"
)

// comfortPacket describes noise at a talker's place in its stream.
func (k *talker) comfortPacket(pt uint8, payload ...byte) []byte {
	b := make([]byte, 100)
	n := putRTP(b, pt, false, k.seq, k.ts, k.ssrc)
	n += copy(b[n:], payload)
	k.seq++
	return b[:n]
}

// A phone's comfort noise is heard at the level it tells, with an honest level
// on every packet, is no loss, and is not marked as voice.
func TestComfortNoiseIsHeard(t *testing.T) {
	t.Parallel()
	for _, v := range []struct {
		codec   string
		pt      uint8
		payload []byte
		level   float64
		ends    bool // too faint to be sent
	}{
		{"pcmu", 13, []byte{50}, -50, false},
		{"pcma", 13, []byte{40, 200, 60, 130}, -40, false},
		{"g722", 13, []byte{45}, -45, false},
		{"pcmu", 97, []byte{55}, -55, false},
		{"pcmu", 13, []byte{0x80 | 60}, -60, false}, // the upper bit means nothing
		{"pcmu", 13, []byte{80}, -80, true},
	} {
		c := newCall(t, v.codec, 20*time.Millisecond)
		c.bridge.phoneLeg.RecvCNPT = v.pt
		k := newTalker(t, v.codec, phonePT(v.codec), 1, 20)
		k.pcm = sine(440, k.rate, 400*time.Millisecond)
		for range 20 {
			c.phone.ring.Push(k.packet(), c.now, false)
			c.run(20 * time.Millisecond)
		}
		for i := range 200 {
			if i%50 == 0 {
				c.phone.ring.Push(k.comfortPacket(v.pt, v.payload...), c.now, false)
			}
			k.ts += uint32(k.clock / 50)
			c.run(20 * time.Millisecond)
		}
		s := c.bridge.Stats()
		if s.Phone.Concealed != 0 || s.Phone.Lost != 0 || s.Phone.Invalid != 0 || s.Phone.ComfortIn != 4 || !s.Comfort {
			t.Errorf("%s %v: %+v", v.codec, v.payload, s.Phone)
		}
		e := listen(t, "opus", k.rate, c.conf.rtp, testLevel)
		if v.ends {
			if n := len(e.packets); n > 20+hangover+silenceSent+5 {
				t.Errorf("%s %v: %d packets", v.codec, v.payload, n)
			}
			continue
		}
		if n := len(e.packets); n < 215 {
			t.Errorf("%s %v: only %d packets", v.codec, v.payload, n)
		}
		half := e.pcm[len(e.pcm)/2:]
		if db := tone.RMS(half); math.Abs(db-v.level) > 5 { // Opus takes some
			t.Errorf("%s %v: heard at %.1f dBFS", v.codec, v.payload, db)
		}
		for i, p := range e.packets[40:] {
			level := -float64(e.levels[40+i])
			if math.Abs(level-v.level) > 3 {
				t.Fatalf("%s %v: packet %d says %.0f dBov", v.codec, v.payload, i, level)
			}
			if voice := p.ext[1]&0x80 != 0; voice {
				t.Fatalf("%s %v: packet %d is marked as voice", v.codec, v.payload, i)
			}
		}
		// The beginning of speech ends it.
		k.pcm = sine(700, k.rate, time.Second)
		for range 45 {
			c.phone.ring.Push(k.packet(), c.now, false)
			c.run(20 * time.Millisecond)
		}
		hears(t, v.codec, listen(t, "opus", k.rate, c.conf.rtp, 0).pcm, k.rate, 700)
		if s := c.bridge.Stats(); s.Comfort || s.Phone.Concealed != 0 {
			t.Errorf("%s: comfort %v, %d concealed in speech", v.codec, s.Comfort, s.Phone.Concealed)
		}
	}
}

// Noise changes and begins without a step, whatever the coefficients are.
func TestComfortNoiseIsSmooth(t *testing.T) {
	t.Parallel()
	var n comfortNoise
	pcm := make([]int16, 160)
	for _, payload := range [][]byte{{30}, {60}, {35, 0, 255, 0, 255}, {10, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255}, {127}} {
		n.describe(payload, 8000)
		for range 50 {
			n.fill(pcm)
		}
		want := -float64(max(payload[0], loudestComfort))
		var all []int16
		for range 50 {
			n.fill(pcm)
			all = append(all, pcm...)
		}
		if db := tone.RMS(all); payload[0] < 90 && (db > want+6 || db < want-8) {
			t.Errorf("% d: %.0f dBFS", payload, db)
		}
	}
	n = comfortNoise{}
	n.describe([]byte{30}, 8000)
	n.fill(pcm)
	if db := tone.RMS(pcm[:8]); db > -42 {
		t.Errorf("begins with %.0f dBFS", db)
	}
	// It does not go on for ever.
	for range comfortMax * 50 {
		n.fill(pcm)
	}
	if n.on {
		t.Error("noise for ever")
	}
}

// Whatever a packet says, the noise stays within bounds.
func FuzzComfortNoise(f *testing.F) {
	f.Add([]byte{50, 120, 130})
	f.Add([]byte{0, 0, 255, 0, 255, 0, 255, 0, 255, 0, 255, 0, 255, 0, 255})
	f.Fuzz(func(t *testing.T, b []byte) {
		var n comfortNoise
		pcm := make([]int16, 320)
		for len(b) > 0 {
			k := min(len(b), 1+int(b[0])%16)
			n.describe(b[:k], 16000)
			b = b[k:]
			n.fill(pcm)
			for _, v := range append(n.b[:], n.gain, n.target) {
				if math.IsNaN(v) || math.IsInf(v, 0) {
					t.Fatalf("%+v", n)
				}
			}
		}
	})
}

// While the meeting says nothing the phone is told to make noise itself, a few
// times a second, its time goes on, and what is said next is marked and whole.
func TestComfortNoiseToThePhone(t *testing.T) {
	t.Parallel()
	for codec, ptimes := range map[string][]int{"pcmu": {20, 60}, "pcma": {10}, "g722": {20, 30}, "opus": {20}} {
		for _, ptime := range ptimes {
			c := newCall(t, codec, time.Duration(ptime)*time.Millisecond)
			if codec != "opus" { // which ignores it
				c.bridge.phoneLeg.CNPT = 13
			} else {
				c.bridge.DetachPhone()
				c.attachPhone(time.Duration(ptime) * time.Millisecond)
			}
			c.web(10, 1000, 0.3, 5*time.Millisecond)
			c.run(time.Second)
			c.arrive = nil
			c.run(4 * time.Second)
			c.web(10, 1300, 0.3, 5*time.Millisecond)
			c.run(time.Second)
			var first rtpPacket
			var audio [][]byte
			comfort, marked := 0, 0
			quietSince := 0
			for i, b := range c.phone.rtp {
				p, _ := parseRTP(b)
				if i == 0 {
					first = p
				}
				if p.seq != first.seq+uint16(i) {
					t.Fatalf("%s/%d: sequence number %d after %d packets", codec, ptime, p.seq, i)
				}
				clock := c.bridge.codec.Clock
				want := uint32((c.phone.at[i] - c.phone.at[0]) * time.Duration(clock) / time.Second)
				if d := int32(p.ts - first.ts - want); d > int32(clock)/40 || d < -int32(clock)/40 {
					t.Fatalf("%s/%d: timestamp of packet %d is %d off", codec, ptime, i, d)
				}
				if p.pt == 13 {
					comfort++
					if p.marker || len(p.payload) != 1 || p.payload[0] != comfortLevel {
						t.Errorf("%s/%d: %+v", codec, ptime, p)
					}
					quietSince = i
					continue
				}
				if p.marker {
					marked++
					if i > 0 && quietSince != i-1 {
						t.Errorf("%s/%d: packet %d is marked", codec, ptime, i)
					}
				}
				audio = append(audio, b)
			}
			switch s := c.bridge.Stats(); {
			case codec == "opus":
				if comfort != 0 {
					t.Errorf("%d packets of comfort noise with Opus", comfort)
				}
			case comfort < 12 || comfort > 22 || s.Phone.ComfortOut != uint64(comfort):
				t.Errorf("%s/%d: %d packets of comfort noise in 4 s", codec, ptime, comfort)
			case marked < 2:
				t.Errorf("%s/%d: %d packets are marked", codec, ptime, marked)
			}
			// What the phone plays, silence where there is noise, has no click:
			// nothing louder than the tone, and no step before and after.
			e := listen(t, codec, 0, audio, 0)
			hears(t, codec, e.pcm, e.rate, 1300)
			quiet := e.pcm[e.rate*3/2 : e.rate*9/2]
			if db := tone.RMS(quiet); db > -60 {
				t.Errorf("%s/%d: %.0f dBFS while nothing is said", codec, ptime, db)
			}
		}
	}
}
