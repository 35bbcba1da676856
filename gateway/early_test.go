package gateway_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"brewline/gateway"
	"brewline/gateway/call"
	"brewline/gateway/conference"
	"brewline/internal/jitsitest/jicofo"
	"brewline/internal/siptest"
	"brewline/internal/tone"
)

// A caller who waits hears ringing from the gateway before the answer, is not
// heard, and gets the prompts; with and without reliable responses.
func TestEarlyPrompts(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		reliable bool
		phone    siptest.PhoneOptions
	}{
		"unreliable": {false, siptest.PhoneOptions{}},
		"reliable":   {true, siptest.PhoneOptions{Codec: "opus"}},
		"encrypted":  {true, siptest.PhoneOptions{SRTP: "AES_CM_128_HMAC_SHA1_80"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fast := gateway.Options{Timers: conference.Timers{HostWait: time.Minute, HostRetry: 50 * time.Millisecond}}
			w := newWorld(t, worldOptions{shards: 1, options: fast, trunk: "early_prompts = true\nsrtp = \"optional\"\n"})
			sh := w.deps[0].Shards[0]
			sh.Focus.SetConferencePolicy(func(jicofo.ConferenceRequest) jicofo.Verdict { return jicofo.Verdict{Kind: jicofo.NotAuthorized} })
			p := w.phone(tt.phone)
			a, err := p.Start(w.ctx, siptest.CallOptions{URI: w.uri("x"), Headers: w.headers("early"), Tone: 1000, Reliable: tt.reliable})
			if err != nil {
				t.Fatal(err)
			}
			if err := a.Provisional(w.ctx, 183); err != nil {
				t.Fatal(err)
			}
			w.speech(a.Call()) // that the host is not there
			sh.Focus.SetConferencePolicy(nil)
			alice := w.browser(sh, "early", 440)
			c := w.answered(a)
			w.hear("the phone", c, 440)
			w.hear("the participant", alice, 1000)
			codes := c.Provisionals()
			for _, code := range codes {
				if code == 180 {
					t.Errorf("provisional responses %v", codes)
				}
			}
			w.hangup(c)
			w.problems()
		})
	}
}

// The ringing is heard until the answer, and an UPDATE before that followed.
func TestEarlyRinging(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{shards: 1, options: gateway.Options{Call: call.Timers{AloneAnswer: time.Hour}}, trunk: "early_prompts = true\n"})
	sh := w.deps[0].Shards[0]
	a, err := w.phone(siptest.PhoneOptions{}).Start(w.ctx, siptest.CallOptions{URI: w.uri("x"), Headers: w.headers("early"), Tone: 1000, Reliable: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Provisional(w.ctx, 183); err != nil {
		t.Fatal(err)
	}
	w.hear("the caller", a.Call(), 425)
	w.await("an UPDATE is taken", func() bool { // not before the PRACK
		err := a.Call().Update(w.ctx, "sendrecv")
		var refused *siptest.StatusError
		if err != nil && (!errors.As(err, &refused) || refused.Code != 491) {
			t.Fatal(err)
		}
		return err == nil
	})
	w.hear("the caller", a.Call(), 425)
	alice := w.browser(sh, "early", 440)
	c := w.answered(a)
	w.hear("the phone", c, 440)
	w.hear("the participant", alice, 1000)
	c.Silence()
	w.await("the ringing has ended", func() bool {
		pcm := c.Heard()
		last := pcm[max(0, len(pcm)-6*c.Rate()):]
		return tone.Level(last, c.Rate(), 425) < 0.01
	})
	w.hangup(c)
}

// Why a call fails is said before the final response; a CANCEL ends that.
func TestEarlyFailure(t *testing.T) {
	t.Parallel()
	fast := gateway.Options{Timers: conference.Timers{HostWait: time.Second, HostRetry: 20 * time.Millisecond}}
	w := newWorld(t, worldOptions{shards: 1, options: fast, trunk: "early_prompts = true\n"})
	sh := w.deps[0].Shards[0]
	sh.Focus.SetConferencePolicy(func(jicofo.ConferenceRequest) jicofo.Verdict { return jicofo.Verdict{Kind: jicofo.NotAuthorized} })
	p := w.phone(siptest.PhoneOptions{})
	for _, cancel := range []bool{false, true} {
		a := w.start(p, "early", 1000)
		if err := a.Provisional(w.ctx, 183); err != nil {
			t.Fatal(err)
		}
		w.await("the end is told", func() bool { c := w.gw.Snapshot().Calls; return len(c) == 1 && c[0].State == "ending" })
		if cancel {
			if err := a.Cancel(); err != nil {
				t.Fatal(err)
			}
		} else {
			w.speech(a.Call())
		}
		var refused *siptest.StatusError
		_, err := a.Wait(w.ctx)
		if want := map[bool]int{false: 480, true: 487}[cancel]; !errors.As(err, &refused) || refused.Code != want {
			t.Errorf("cancelled %v: %v", cancel, err)
		}
		w.gone()
	}
}

// Without an offer nothing can be heard before the answer: 180 as ever.
func TestEarlyLateOffer(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{shards: 1, trunk: "early_prompts = true\n"})
	alice := w.browser(w.deps[0].Shards[0], "early", 440)
	ctx, cancel := context.WithTimeout(w.ctx, 30*time.Second)
	defer cancel()
	c, err := w.phone(siptest.PhoneOptions{}).Call(ctx, siptest.CallOptions{URI: w.uri("x"), Headers: w.headers("early"), Tone: 1000, LateOffer: true})
	if err != nil {
		t.Fatal(err)
	}
	for _, code := range c.Provisionals() {
		if code == 183 {
			t.Errorf("provisional responses %v", c.Provisionals())
		}
	}
	w.both(alice, c)
	w.hangup(c)
}
