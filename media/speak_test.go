package media

import (
	"os"
	"testing"
	"time"

	"brewline/internal/tone"
)

// Every prompt is there at every rate, is speech, of one loudness, and small.
func TestPrompts(t *testing.T) {
	total := 0
	for p := Prompt(1); p < promptCount; p++ {
		info, err := os.Stat("prompts/" + p.String() + ".pkt")
		if err != nil {
			t.Fatal(err)
		}
		total += int(info.Size())
		for _, rate := range []int{8000, 16000, 48000} {
			pcm := promptPCM(p, rate)
			d := time.Duration(len(pcm)) * time.Second / time.Duration(rate)
			if d < 700*time.Millisecond || d > 8*time.Second {
				t.Errorf("%v at %d Hz lasts %v", p, rate, d)
			}
			if db := tone.RMS(pcm); db < -26 || db > -15 {
				t.Errorf("%v at %d Hz: %.1f dBFS", p, rate, db)
			}
			if s := tone.Speech(pcm, rate); s < 0.3 {
				t.Errorf("%v at %d Hz: %.2f of it is speech", p, rate, s)
			}
		}
	}
	if total > 500<<10 {
		t.Errorf("%d bytes in all", total)
	}
	for _, p := range []Prompt{0, promptCount, 255} {
		if promptPCM(p, 8000) != nil || p.String() != "none" {
			t.Errorf("prompt %d is %v", p, p)
		}
	}
}

// The tone of ringing is one, and lasts a second at every rate.
func TestRinging(t *testing.T) {
	for _, rate := range []int{8000, 16000, 48000} {
		pcm := promptPCM(PromptRinging, rate)
		if share := tone.Level(pcm, rate, 425); len(pcm) != rate || share < 0.95 {
			t.Errorf("at %d Hz: %d samples, %.2f of them 425 Hz", rate, len(pcm), share)
		}
		if db := tone.RMS(pcm); db < -17 || db > -13 {
			t.Errorf("at %d Hz: %.1f dBFS", rate, db)
		}
	}
	if s := PromptRinging.String(); s != "ringing" {
		t.Error(s)
	}
}

// A prompt is heard over every codec, the conference lowered meanwhile.
func TestPlayOnEveryCodec(t *testing.T) {
	for _, name := range []string{"pcmu", "pcma", "g722", "opus"} {
		c := newCall(t, name, 20*time.Millisecond)
		c.web(10, 1000, 0.1, 3*time.Millisecond)
		c.run(500 * time.Millisecond)
		before, rate := c.heardDown(200 * time.Millisecond)
		done := 0
		c.bridge.Play(PromptMuted, PlayOptions{Done: func() { done++; c.bridge.Stats() }})
		from := len(c.phone.rtp)
		length := time.Duration(len(promptPCM(PromptMuted, rate))) * time.Second / time.Duration(rate)
		c.run(length - 50*time.Millisecond)
		if done != 0 {
			t.Errorf("%s: done before the end", name)
		}
		c.run(150 * time.Millisecond)
		if done != 1 {
			t.Errorf("%s: done %d times", name, done)
		}
		during := listen(t, name, 0, c.phone.rtp[from:], 0).pcm
		during = during[:len(during)-rate/5]
		// What is not the tone is the prompt.
		speech := tone.RMS(during)
		if share := tone.Level(during, rate, 1000); share > 0.15 {
			t.Errorf("%s: the conference is %.2f of what is heard under the prompt (%.1f dBFS)", name, share, speech)
		}
		if share := tone.Level(before, rate, 1000); share < 0.9 {
			t.Errorf("%s: before it, %.2f", name, share)
		}
		c.run(300 * time.Millisecond)
		after, _ := c.heardDown(200 * time.Millisecond)
		hears(t, name+" after the prompt", after, rate, 1000)
	}
}

func TestPlayRepeatStopReplace(t *testing.T) {
	c := newCall(t, "pcmu", 20*time.Millisecond)
	length := time.Duration(len(promptPCM(PromptMuted, 8000))) * time.Second / 8000
	var done []string
	told := func(name string) PlayOptions {
		return PlayOptions{Done: func() { done = append(done, name) }}
	}
	loud := func() bool {
		pcm, _ := c.heardDown(200 * time.Millisecond)
		return tone.RMS(pcm) > -45
	}
	o := told("repeated")
	o.Repeat = time.Second
	c.bridge.Play(PromptMuted, o)
	for i := range 3 {
		c.run(length / 2)
		if !loud() {
			t.Errorf("turn %d: not heard", i)
		}
		c.run(length/2 + 500*time.Millisecond)
		if loud() {
			t.Errorf("turn %d: heard in the pause", i)
		}
		c.run(500 * time.Millisecond)
	}
	c.run(length / 2)
	if len(done) != 0 {
		t.Fatalf("done: %v", done)
	}
	c.bridge.Play(PromptEnded, told("replaced"))
	c.bridge.StopPrompt()
	c.bridge.StopPrompt()
	c.run(400 * time.Millisecond)
	if loud() {
		t.Error("heard after the stop")
	}
	// Without a phone it waits for one.
	c.bridge.DetachPhone()
	c.bridge.Play(PromptAlone, told("waited"))
	c.run(10 * time.Second)
	c.phone, c.name = newConn(&c.now), "opus"
	c.attachPhone(20 * time.Millisecond)
	c.run(time.Second)
	if !loud() {
		t.Error("not heard by the phone that came later")
	}
	// Held, it goes on unheard.
	c.bridge.UpdatePhone(false, false)
	c.run(8 * time.Second)
	c.bridge.Play(Prompt(200), told("none"))
	c.bridge.Play(PromptFull, told("closed"))
	c.bridge.Close()
	c.bridge.Play(PromptFull, told("late"))
	want := []string{"repeated", "replaced", "waited", "none", "closed", "late"}
	if len(done) != len(want) {
		t.Fatalf("done: %v", done)
	}
	for i := range want {
		if done[i] != want[i] {
			t.Fatalf("done: %v, want %v", done, want)
		}
	}
}

// With nobody there an Opus phone gets next to nothing, but steadily.
func TestOpusPhoneInSilence(t *testing.T) {
	c := newCall(t, "opus", 20*time.Millisecond)
	c.run(4 * time.Second)
	bytes := 0
	for _, p := range listen(t, "opus", 0, c.phone.rtp, 0).packets[20:] {
		bytes += len(p.payload)
	}
	if n := len(c.phone.rtp); n < 198 || n > 201 || bytes > 600 {
		t.Errorf("%d packets of %d bytes in all", n, bytes)
	}
	c.web(10, 1000, 0.3, 0)
	c.run(time.Second)
	pcm, rate := c.heardDown(500 * time.Millisecond)
	hears(t, "after the silence", pcm, rate, 1000)
}
