package media

import (
	"slices"
	"testing"
	"time"

	"brewline/internal/tone"
)

// web adds a participant who says a tone from when on.
func (c *call) web(ssrc uint32, freq int, amp float64, offset time.Duration) *talker {
	k := newTalker(c.t, "opus", testOpusPT, ssrc, 20)
	k.levelID = testLevel
	k.pcm = tone.Sine(freq, k.rate, 20*time.Second, amp)
	c.says(k, c.conf, offset)
	return k
}

// heardDown is what the phone heard in the last d.
func (c *call) heardDown(d time.Duration) ([]int16, int) {
	e := listen(c.t, c.name, 0, c.phone.rtp, 0)
	n := min(int(d*time.Duration(e.rate)/time.Second), len(e.pcm))
	return e.pcm[len(e.pcm)-n:], e.rate
}

func (c *call) speakers() []string {
	s := c.bridge.Stats().Speakers
	slices.Sort(s)
	return s
}

func TestLoudestThree(t *testing.T) {
	c := newCall(t, "pcma", 20*time.Millisecond)
	c.bridge.SetOwner(10, "alice")
	c.web(10, 500, 0.1, 2*time.Millisecond)
	c.web(11, 800, 0.1, 5*time.Millisecond)
	c.web(12, 1300, 0.1, 9*time.Millisecond)
	quiet := c.web(13, 2100, 0.03, 13*time.Millisecond)
	c.run(time.Second)
	if got := c.speakers(); !slices.Equal(got, []string{"11", "12", "alice"}) {
		t.Fatalf("heard are %v", got)
	}
	pcm, rate := c.heardDown(500 * time.Millisecond)
	for _, f := range []int{500, 800, 1300} {
		if l := tone.Level(pcm, rate, f); l < 0.25 {
			t.Errorf("%d Hz is %.2f of what is heard", f, l)
		}
	}
	if l := tone.Level(pcm, rate, 2100); l > 0.01 {
		t.Errorf("the fourth, 2100 Hz, is %.2f of what is heard", l)
	}
	s := c.bridge.Stats()
	if s.Decoders != 3 || s.Sources != 4 || s.FramesDecoded > 153 {
		t.Errorf("%d decoders, %d sources, %d frames decoded in a second", s.Decoders, s.Sources, s.FramesDecoded)
	}

	// The fourth raises their voice, to be heard at once: from then on the
	// weakest of the others is not.
	rest := quiet.pcm
	quiet.pcm = tone.Sine(2100, 16000, time.Duration(len(rest))*time.Second/16000, 0.3)
	c.run(100 * time.Millisecond)
	if got := c.speakers(); !slices.Contains(got, "13") || len(got) != 3 {
		t.Fatalf("heard are %v", got)
	}
	// Whoever is heard stays for a while after falling silent.
	quiet.level, quiet.pcm = levelSilent, nil
	c.run(hysteresis / 2)
	if got := c.speakers(); !slices.Contains(got, "13") {
		t.Errorf("let go within the hysteresis: %v", got)
	}
	c.run(hysteresis)
	if got := c.speakers(); slices.Contains(got, "13") {
		t.Errorf("still heard: %v", got)
	}
	if s := c.bridge.Stats(); s.Decoders != 4 {
		t.Errorf("%d decoders, want those of recent speakers kept", s.Decoders)
	}
}

// A new speaker is decoded from what was kept, so that the first frame heard
// is whole.
func TestWarmStart(t *testing.T) {
	c := newCall(t, "pcmu", 20*time.Millisecond)
	for i := range 3 {
		c.web(uint32(10+i), 500, 0.02, time.Duration(3+i)*time.Millisecond)
	}
	late := c.web(20, 1000, 0.002, 7*time.Millisecond)
	c.run(500 * time.Millisecond)
	before := c.bridge.Stats()
	late.pcm = tone.Sine(1000, 16000, time.Second, 0.5)
	for c.bridge.Stats().Decoders == before.Decoders {
		c.run(10 * time.Millisecond)
	}
	s := c.bridge.speakers.bySSRC[20]
	if s == nil || s.player == nil || s.player.decoded != 3 && s.player.decoded != 0 {
		t.Fatalf("the decoder was not warmed up: %+v", s)
	}
	c.run(200 * time.Millisecond)
	if s.player.decoded < 10 {
		t.Errorf("%d frames decoded of the new speaker", s.player.decoded)
	}
	pcm, rate := c.heardDown(100 * time.Millisecond)
	if l := tone.Level(pcm, rate, 1000); l < 0.9 {
		t.Errorf("the new speaker is %.2f of what is heard", l)
	}
}

func TestJoinAndLeave(t *testing.T) {
	c := newCall(t, "g722", 20*time.Millisecond)
	c.web(10, 500, 0.2, 3*time.Millisecond)
	c.run(time.Second)
	// One joins unannounced in mid-call.
	c.web(11, 1300, 0.2, 12*time.Millisecond)
	c.run(time.Second)
	pcm, rate := c.heardDown(500 * time.Millisecond)
	for _, f := range []int{500, 1300} {
		if l := tone.Level(pcm, rate, f); l < 0.4 {
			t.Errorf("%d Hz is %.2f of what is heard", f, l)
		}
	}
	// The first leaves without a word.
	c.arrive = c.arrive[1:]
	c.run(time.Second)
	pcm, _ = c.heardDown(500 * time.Millisecond)
	hears(t, "after one left", pcm, rate, 1300)
	if s := c.bridge.Stats(); s.Conference.Concealed > 6 || !slices.Equal(s.Speakers, []string{"11"}) {
		t.Errorf("%d concealed, heard are %v", s.Conference.Concealed, s.Speakers)
	}
	// The second is taken away, and comes back.
	c.bridge.RemoveSource(11)
	if s := c.bridge.Stats(); len(s.Speakers) != 0 {
		t.Errorf("heard are %v", s.Speakers)
	}
	c.run(time.Second)
	pcm, _ = c.heardDown(500 * time.Millisecond)
	hears(t, "after it came back", pcm, rate, 1300)
	c.arrive = nil
	c.run(forgotten + 5*time.Second)
	if s := c.bridge.Stats(); s.Sources != 0 || s.Decoders != 0 {
		t.Errorf("%d sources and %d decoders after a minute of silence", s.Sources, s.Decoders)
	}
}

// Any number of SSRCs may come: memory is bounded and those who speak steadily
// are heard.
func TestManySSRCs(t *testing.T) {
	c := newCall(t, "pcmu", 20*time.Millisecond)
	c.web(1, 1000, 0.3, 3*time.Millisecond)
	stranger := newTalker(t, "opus", testOpusPT, 1000, 20)
	stranger.levelID, stranger.level = testLevel, 50
	c.every(time.Millisecond, 0, func(now time.Duration) {
		for range 3 {
			stranger.ssrc++
			c.conf.ring.Push(stranger.packet(), now, false)
		}
	})
	c.run(1500 * time.Millisecond)
	s := c.bridge.Stats()
	if s.Sources > maxSources || s.Decoders > maxDecoders {
		t.Errorf("%d sources, %d decoders", s.Sources, s.Decoders)
	}
	if k := c.bridge.speakers; len(k.bySSRC) != len(k.all) {
		t.Errorf("%d by SSRC, %d in all", len(k.bySSRC), len(k.all))
	}
	pcm, rate := c.heardDown(500 * time.Millisecond)
	hears(t, "among strangers", pcm, rate, 1000)
	c.bridge.DetachConference()
	if p := &c.bridge.pool; len(p.small) != p.made[0] || len(p.large) != p.made[1] {
		t.Errorf("%d of %d small buffers came back, %d of %d large", len(p.small), p.made[0], len(p.large), p.made[1])
	}
}

func TestNoLevelExtension(t *testing.T) {
	c := newCall(t, "pcmu", 20*time.Millisecond)
	for i, f := range []int{500, 800, 1300} {
		c.web(uint32(10+i), f, 0.2, 5*time.Millisecond).levelID = 0
	}
	c.run(time.Second)
	pcm, rate := c.heardDown(500 * time.Millisecond)
	for _, f := range []int{500, 800, 1300} {
		if l := tone.Level(pcm, rate, f); l < 0.25 {
			t.Errorf("%d Hz is %.2f of what is heard", f, l)
		}
	}
}
