package media

import (
	"bytes"
	"testing"
	"time"

	"brewline/internal/tone"
)

// payloads are the payloads of RTP packets from the i-th on, as a set.
func payloads(packets [][]byte) map[string]bool {
	set := map[string]bool{}
	for _, b := range packets {
		if p, ok := parseRTP(b); ok && len(p.payload) > 3 {
			set[string(p.payload)] = true
		}
	}
	return set
}

// Between an Opus phone and one speaker packets are passed on as they are; a
// second voice, a prompt or a loss has frames encoded until the next pause.
func TestOpusIsPassedOn(t *testing.T) {
	c := newCall(t, "opus", 20*time.Millisecond)
	phone := newTalker(t, "opus", phonePT("opus"), 1, 20)
	web := newTalker(t, "opus", testOpusPT, 2, 20)
	web.levelID = testLevel
	phone.pcm, web.pcm = sine(440, phone.rate, 10*time.Second), sine(1000, web.rate, 3*time.Second)
	var fromPhone, fromWeb [][]byte
	lose := false
	c.run(500 * time.Millisecond)
	c.every(20*time.Millisecond, 3*time.Millisecond, func(now time.Duration) {
		a, b := phone.packet(), web.packet()
		if !lose {
			fromPhone, fromWeb = append(fromPhone, a), append(fromWeb, b)
			c.phone.ring.Push(a, now, false)
			c.conf.ring.Push(b, now, false)
		}
	})
	// share is how much of what was sent from the marks on came from outside.
	var up, down int
	mark := func() { up, down = len(c.conf.rtp), len(c.phone.rtp) }
	share := func() (float64, float64) {
		of := func(sent [][]byte, said map[string]bool) float64 {
			n := 0
			for _, b := range sent {
				if p, _ := parseRTP(b); said[string(p.payload)] {
					n++
				}
			}
			return float64(n) / float64(max(len(sent), 1))
		}
		return of(c.conf.rtp[up:], payloads(fromPhone)), of(c.phone.rtp[down:], payloads(fromWeb))
	}
	mark()
	c.run(time.Second)
	u, d := share()
	if s := c.bridge.Stats(); u < 0.9 || d < 0.9 || s.FramesPassed < 90 {
		t.Errorf("%.2f passed on to the videobridge, %.2f to the phone, %d in all", u, d, s.FramesPassed)
	}
	hears(t, "videobridge", listen(t, "opus", 48000, c.conf.rtp, 0).pcm, 48000, 440)
	hears(t, "phone", listen(t, "opus", 48000, c.phone.rtp, 0).pcm, 48000, 1000)
	for i, b := range c.conf.rtp[up:] {
		p, _ := parseRTP(b)
		if level, ok := p.audioLevel(testLevel); !ok || level > 20 || p.pt != testOpusPT || p.ssrc != 7777 {
			t.Fatalf("packet %d: level %d, payload type %d, SSRC %d", i, level, p.pt, p.ssrc)
		}
	}

	// A second voice is mixed in.
	other := c.web(3, 600, 0.3, 5*time.Millisecond)
	c.run(100 * time.Millisecond)
	mark()
	c.run(400 * time.Millisecond)
	if u, d = share(); u < 0.9 || d > 0 {
		t.Errorf("with two voices: %.2f passed on to the videobridge, %.2f to the phone", u, d)
	}
	pcm, rate := c.heardDown(300 * time.Millisecond)
	for _, f := range []int{600, 1000} {
		if l := tone.Level(pcm, rate, f); l < 0.4 {
			t.Errorf("with two voices: %d Hz is %.2f of what is heard", f, l)
		}
	}
	// It leaves, but the first goes on: no change in mid-speech.
	other.pcm, other.level = nil, levelSilent
	c.run(100 * time.Millisecond)
	mark()
	c.run(400 * time.Millisecond)
	if _, d = share(); d > 0 {
		t.Errorf("in mid-speech: %.2f passed on to the phone", d)
	}
	// After a pause packets are passed on again.
	web.pcm = append(make([]int16, web.rate/5), sine(1300, web.rate, 3*time.Second)...)
	c.run(400 * time.Millisecond)
	mark()
	c.run(400 * time.Millisecond)
	if _, d = share(); d < 0.9 {
		t.Errorf("after a pause: %.2f passed on to the phone", d)
	}
	pcm, rate = c.heardDown(300 * time.Millisecond)
	hears(t, "after a pause", pcm, rate, 1300)

	// A loss is concealed, and what follows encoded.
	lose = true
	c.run(20 * time.Millisecond)
	lose = false
	c.run(60 * time.Millisecond)
	mark()
	c.run(200 * time.Millisecond)
	if u, d = share(); u > 0 || d > 0 {
		t.Errorf("after a loss: %.2f passed on to the videobridge, %.2f to the phone", u, d)
	}
	pcm, rate = c.heardDown(150 * time.Millisecond)
	hears(t, "after a loss", pcm, rate, 1300)
	c.bridge.Play(PromptMuted, PlayOptions{})
	mark()
	c.run(300 * time.Millisecond)
	if _, d = share(); d > 0 {
		t.Errorf("under a prompt: %.2f passed on to the phone", d)
	}
}

// A packet that does not fit, or is not there, is encoded.
func TestOutlet(t *testing.T) {
	c := newCall(t, "opus", 20*time.Millisecond)
	o := &c.bridge.up.out
	f := &frame{pcm: make([]int16, 960), opus: bytes.Repeat([]byte{1}, 200)}
	dst := make([]byte, 1400)
	if n, err := o.put(dst, f); err != nil || n != 200 || dst[0] != 1 {
		t.Errorf("silence: %d bytes, %v", n, err)
	}
	f.pcm = sine(400, 48000, 20*time.Millisecond)
	if n, err := o.put(dst, f); err != nil || n != 200 {
		t.Errorf("passing: %d bytes, %v", n, err)
	}
	if n, err := o.put(dst[:150], f); err != nil || n == 200 {
		t.Errorf("too large: %d bytes, %v", n, err)
	}
	if n, err := o.put(dst, f); err != nil || n == 200 {
		t.Errorf("in mid-speech: %d bytes, %v", n, err)
	}
}
