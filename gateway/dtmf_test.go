package gateway_test

import (
	"context"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"brewline/internal/siptest"
	"brewline/internal/tone"
	"brewline/media/codec"
)

// Keys that a participant presses reach the phone as the trunk has it, on every
// codec.
func TestKeysOfTheMeeting(t *testing.T) {
	t.Parallel()
	const keys = "1590*#D11"
	for _, tt := range []struct {
		dtmf, codec string
		noEvents    bool
		how         string
	}{
		{"auto", "pcmu", false, "rtp"},
		{"auto", "opus", false, "rtp"},
		{"auto", "pcma", true, "inband"},
		{"auto", "opus", true, "inband"},
		{"rtp", "g722", false, "rtp"},
		{"info", "pcmu", false, "info"},
		{"inband", "g722", false, "inband"},
	} {
		t.Run(fmt.Sprintf("%s %s %s", tt.dtmf, tt.codec, tt.how), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, worldOptions{shards: 1, trunk: fmt.Sprintf("dtmf = %q", tt.dtmf), limit: 2 * time.Minute})
			sh := w.deps[0].Shards[0]
			alice := w.browser(sh, "ivr", 440)
			c := w.call(w.phone(siptest.PhoneOptions{Codec: tt.codec, NoEvents: tt.noEvents}), "ivr", 1000)
			w.both(alice, c)
			mark := 0
			got := func() map[string]string {
				info := ""
				for _, i := range c.Infos() {
					var key rune
					var took int // less where packets came late
					_, err := fmt.Sscanf(string(i.Body), "Signal=%c\r\nDuration=%d\r\n", &key, &took)
					if err != nil || i.ContentType != "application/dtmf-relay" || took < 40 || took > 120 {
						t.Errorf("INFO %s: %q", i.ContentType, i.Body)
						continue
					}
					info += string(key)
				}
				return map[string]string{"rtp": c.Digits(), "info": info, "inband": w.tonesIn(c.Heard()[mark:], c.Rate())}
			}
			// On a machine that stands still now and then a tone has gaps.
			parts := []string{keys}
			if tt.how == "inband" {
				parts = []string{"1", "5", "9", "0", "*", "#", "D", "11"}
			}
			for _, part := range parts {
				pressed := time.Time{}
				w.await(part+", as "+tt.how, func() bool {
					if pressed.IsZero() || tt.how == "inband" && time.Since(pressed) > 3*time.Second {
						mark, pressed = len(c.Heard()), time.Now()
						if err := alice.Press(part, 120*time.Millisecond); err != nil {
							t.Fatal(err)
						}
					}
					return got()[tt.how] == part
				})
			}
			for how, heard := range got() {
				if how != tt.how && heard != "" {
					t.Errorf("%q came as %s too", heard, how)
				}
			}
			w.both(alice, c)
			w.hangup(c)
		})
	}
}

// tonesIn are the digits in what was heard.
func (w *world) tonesIn(pcm []int16, rate int) (heard string) {
	w.t.Helper()
	d, err := codec.NewDTMFDetector(rate)
	if err != nil {
		w.t.Fatal(err)
	}
	defer d.Close()
	for ; len(pcm) >= rate/50; pcm = pcm[rate/50:] {
		if key, _ := d.Write(pcm[:rate/50]); key != 0 {
			heard += string(key)
		}
	}
	return heard
}

// The keypad is understood in each way, and one press is one digit in however
// many ways it comes: *6 unmutes and mutes.
func TestKeypadInEachWay(t *testing.T) {
	t.Parallel()
	events := func(ctx context.Context, c *siptest.Call) error { return c.DTMF(ctx, "*6") }
	infos := func(kind, format string) func(context.Context, *siptest.Call) error {
		return func(ctx context.Context, c *siptest.Call) error {
			for _, key := range "*6" {
				if err := c.Info(ctx, kind, fmt.Appendf(nil, format, string(key))); err != nil {
					return err
				}
			}
			return nil
		}
	}
	relay := infos("application/dtmf-relay", "Signal=%s\r\nDuration=160\r\n")
	// Long, so that a machine that stands still for a moment does not matter:
	// two stars and a six, or a star and two sixes, are the same.
	tones := func(_ context.Context, c *siptest.Call) error {
		var pcm []int16
		for _, f := range [][2]int{{941, 1209}, {770, 1477}} {
			pcm = append(pcm, tone.Add(tone.Sine(f[0], c.Rate(), 400*time.Millisecond, 0.2), tone.Sine(f[1], c.Rate(), 400*time.Millisecond, 0.2))...)
			pcm = append(pcm, make([]int16, c.Rate()/4)...)
		}
		c.SayPCM(pcm)
		return nil
	}
	for name, tt := range map[string]struct {
		dtmf  string
		phone siptest.PhoneOptions
		press []func(context.Context, *siptest.Call) error
	}{
		"events":           {"auto", siptest.PhoneOptions{}, []func(context.Context, *siptest.Call) error{events}},
		"events, opus":     {"auto", siptest.PhoneOptions{Codec: "opus"}, []func(context.Context, *siptest.Call) error{events}},
		"relay":            {"auto", siptest.PhoneOptions{}, []func(context.Context, *siptest.Call) error{relay}},
		"dtmf":             {"auto", siptest.PhoneOptions{}, []func(context.Context, *siptest.Call) error{infos("application/dtmf", "%s")}},
		"tones":            {"auto", siptest.PhoneOptions{NoEvents: true}, []func(context.Context, *siptest.Call) error{tones}},
		"tones, g722":      {"auto", siptest.PhoneOptions{Codec: "g722", NoEvents: true}, []func(context.Context, *siptest.Call) error{tones}},
		"tones, asked for": {"inband", siptest.PhoneOptions{}, []func(context.Context, *siptest.Call) error{tones}},
		"events and relay": {"auto", siptest.PhoneOptions{}, []func(context.Context, *siptest.Call) error{events, relay}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, worldOptions{shards: 1, trunk: fmt.Sprintf("dtmf = %q", tt.dtmf), limit: 2 * time.Minute})
			sh := w.deps[0].Shards[0]
			alice := w.browser(sh, "keys", 440)
			c := w.call(w.phone(tt.phone), "keys", 1000)
			w.both(alice, c)
			for _, muted := range []bool{true, false, true} {
				var pressed time.Time
				w.await(fmt.Sprintf("muted: %v", muted), func() bool {
					if pressed.IsZero() || strings.HasPrefix(name, "tones") && time.Since(pressed) > 10*time.Second {
						pressed = time.Now()
						for _, press := range tt.press {
							if err := press(w.ctx, c); err != nil {
								t.Fatal(err)
							}
						}
					}
					return contains(alice.PresenceOf(w.nick()), fmt.Sprintf("<audiomuted>%v</audiomuted>", muted))
				})
				if !muted {
					c.Say(1000)
					w.hear("the participant", alice, 1000)
				}
			}
			w.hangup(c)
		})
	}
}

// A phone that agreed on comfort noise is told to make it while nothing is
// said, and its own is heard in the meeting, faint as it is; one whose trunk
// has none gets coded silence.
func TestComfortNoise(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"pcmu", "g722"} {
		for _, agreed := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s %v", name, agreed), func(t *testing.T) {
				t.Parallel()
				w := newWorld(t, worldOptions{shards: 1, trunk: fmt.Sprintf("comfort_noise = %v", agreed)})
				alice := w.browser(w.deps[0].Shards[0], "hush", 440)
				c := w.call(w.phone(siptest.PhoneOptions{Codec: name, ComfortNoise: true}), "hush", 1000)
				w.both(alice, c)
				if err := alice.Mute(true); err != nil {
					t.Fatal(err)
				}
				if !agreed {
					before := c.RTP()
					w.await("coded silence", func() bool { return c.RTP().Received > before.Received+50 })
					if n := c.RTP().Comfort; n != 0 {
						t.Errorf("%d packets of comfort noise", n)
					}
					w.hangup(c)
					return
				}
				w.await("comfort noise", func() bool { return c.RTP().Comfort > 3 })
				w.still("audio to the phone", func() uint64 { return c.RTP().Received })
				c.Noise(45)
				w.await("the phone's noise is heard", func() bool {
					pcm := alice.Heard()
					last := pcm[max(0, len(pcm)-48000/2):]
					return tone.Level(last, 48000, 1000) < 0.1 && math.Abs(tone.RMS(last)+45) < 6
				})
				if err := alice.Mute(false); err != nil {
					t.Fatal(err)
				}
				c.Say(1000)
				w.both(alice, c)
				if n := c.RTP().Lost; n > 5 {
					t.Errorf("the phone misses %d packets", n)
				}
				w.hangup(c)
			})
		}
	}
}

// A phone that holds, or has its noise made here, is not dead; one of which
// nothing comes any more is.
func TestPhoneSilence(t *testing.T) {
	t.Parallel()
	o := worldOptions{shards: 1}
	o.options.Call.PhoneSilence = 4 * time.Second
	w := newWorld(t, o)
	alice := w.browser(w.deps[0].Shards[0], "quiet", 440)
	c := w.call(w.phone(siptest.PhoneOptions{ComfortNoise: true}), "quiet", 1000)
	w.both(alice, c)
	if err := c.Reinvite(w.ctx, "inactive"); err != nil {
		t.Fatal(err)
	}
	select {
	case e := <-c.Ended():
		t.Fatalf("the call ended while it was held: %+v", e)
	case <-time.After(5 * time.Second): // longer than a dead phone is waited for
	}
	if err := c.Resume(w.ctx); err != nil {
		t.Fatal(err)
	}
	c.Say(1000)
	w.both(alice, c)
	c.Vanish()
	w.await("the call is ended", func() bool { return w.gw.Snapshot().Ended["phone_silent"] == 1 })
	w.gone()
	w.await("the caller has left", func() bool { return len(alice.Others()) == 0 })
}
