package gateway_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"brewline/gateway"
	"brewline/gateway/call"
	"brewline/gateway/conference"
	"brewline/internal/jitsitest"
	"brewline/internal/jitsitest/jicofo"
	"brewline/internal/siptest"
)

// refused awaits a final response that is no 200.
func (w *world) refused(p *siptest.Phone, headers map[string]string) *siptest.StatusError {
	w.t.Helper()
	c, err := p.Call(w.ctx, siptest.CallOptions{URI: w.uri("conference"), Headers: headers})
	var status *siptest.StatusError
	if !errors.As(err, &status) {
		if c != nil {
			c.Hangup(w.ctx)
		}
		w.t.Fatalf("the call with %v was not refused: %v", headers, err)
	}
	if !contains(status.Headers["Reason"], "Q.850;cause=") || !contains(status.Headers["Warning"], "399 ") {
		w.t.Errorf("%d with Reason %q, Warning %q", status.Code, status.Headers["Reason"], status.Headers["Warning"])
	}
	return status
}

func (w *world) start(p *siptest.Phone, room string, tone int) *siptest.Attempt {
	w.t.Helper()
	a, err := p.Start(w.ctx, siptest.CallOptions{
		URI: w.uri("conference"), Headers: w.headers(room), Tone: tone,
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return a
}

func (w *world) answered(a *siptest.Attempt) *siptest.Call {
	w.t.Helper()
	c, err := a.Wait(w.ctx)
	if err != nil {
		w.t.Fatal(err)
	}
	return c
}

func TestPassword(t *testing.T) {
	t.Parallel()
	bothWays(t, worldOptions{}, "locked", func(t *testing.T, w *world) {
		sh := w.deps[0].Shards[0]
		alice := w.browser(sh, "locked", 440)
		if err := sh.XMPP.SetPassword("locked", "tulip"); err != nil {
			t.Fatal(err)
		}
		p := w.phone(siptest.PhoneOptions{})
		for _, pass := range []string{"", "rose"} {
			e := w.refused(p, with(w.headers("locked"), "X-Room-Pass", pass))
			if e.Code != 403 || !strings.Contains(e.Headers["Reason"], "password") {
				t.Errorf("password %q: %d, Reason %q", pass, e.Code, e.Headers["Reason"])
			}
		}
		c, err := p.Call(w.ctx, siptest.CallOptions{
			URI: w.uri("x"), Tone: 1000,
			Headers: map[string]string{"Jitsi-Conference-Room": "locked@conference." + sh.Domain(), "Jitsi-Conference-Room-Pass": "tulip"},
		})
		if err != nil {
			t.Fatal(err)
		}
		w.hear("the participant", alice, 1000)
		c.Hangup(w.ctx)
		w.gone()
	})
}

func TestLobby(t *testing.T) {
	t.Parallel()
	for _, admit := range []bool{true, false} {
		t.Run(map[bool]string{true: "admitted", false: "denied"}[admit], func(t *testing.T) {
			t.Parallel()
			bothWays(t, worldOptions{shards: 2}, "quiet", func(t *testing.T, w *world) {
				sh := w.deps[0].Shards[1]
				alice := w.browser(sh, "quiet", 440)
				if err := sh.XMPP.EnableLobby("quiet", true); err != nil {
					t.Fatal(err)
				}
				// Whoever waits in the lobby is answered, and told so.
				c := w.call(w.phone(siptest.PhoneOptions{}), "quiet", 1000)
				w.speech(c)
				w.await("the caller is in the lobby", func() bool { return len(sh.XMPP.Occupants("quiet@lobby."+sh.Domain())) > 0 })
				waiting := sh.XMPP.Occupants("quiet@lobby." + sh.Domain())
				if !admit {
					if err := sh.XMPP.Deny("quiet", waiting[0].Nick); err != nil {
						t.Fatal(err)
					}
					select {
					case e := <-c.Ended():
						if !e.ByPeer || !strings.Contains(e.Reason, "refused") {
							t.Errorf("ended by %+v", e)
						}
					case <-w.ctx.Done():
						t.Fatal("a caller who was refused is not hung up on")
					}
					w.gone()
					return
				}
				if err := sh.XMPP.Admit("quiet", waiting[0].Nick); err != nil {
					t.Fatal(err)
				}
				w.hear("the phone", c, 440)
				w.hear("the participant", alice, 1000)
				c.Hangup(w.ctx)
				w.gone()
			})
		})
	}
}

// speech awaits a spoken prompt: sound that is no test tone.
func (w *world) speech(c *siptest.Call) {
	w.t.Helper()
	w.await("a prompt is heard", func() bool {
		pcm := c.Heard()
		loud := 0
		for _, v := range pcm {
			if v > 1000 || v < -1000 {
				loud++
			}
		}
		return loud > c.Rate()/10
	})
}

func TestHostNotThereYet(t *testing.T) {
	t.Parallel()
	fast := gateway.Options{Timers: conference.Timers{HostWait: 2 * time.Second, HostRetry: 50 * time.Millisecond}}
	w := newWorld(t, worldOptions{shards: 1, options: fast})
	sh := w.deps[0].Shards[0]
	refuse := func(jicofo.ConferenceRequest) jicofo.Verdict { return jicofo.Verdict{Kind: jicofo.NotAuthorized} }
	sh.Focus.SetConferencePolicy(refuse)
	p := w.phone(siptest.PhoneOptions{})
	e := w.refused(p, map[string]string{"X-Room-Name": "early"})
	if e.Code != 480 || !strings.Contains(e.Headers["Reason"], "host") {
		t.Errorf("%d, Reason %q", e.Code, e.Headers["Reason"])
	}
	// The host comes while the caller waits.
	a := w.start(p, "early", 1000)
	if err := a.Provisional(w.ctx, 180); err != nil {
		t.Fatal(err)
	}
	w.await("the caller waits for the host", func() bool {
		c := w.gw.Snapshot().Calls
		return len(c) == 1 && c[0].State == "waiting for the host"
	})
	sh.Focus.SetConferencePolicy(nil)
	alice := w.browser(sh, "early", 440)
	c := w.answered(a)
	w.hear("the phone", c, 440)
	w.hear("the participant", alice, 1000)
	c.Hangup(w.ctx)
	w.gone()
}

// A caller who is alone is answered after a while and told so; the first to
// join is heard.
func TestAlone(t *testing.T) {
	t.Parallel()
	bothWays(t, worldOptions{shards: 2, gateway: `alone_answer = "200ms"`}, "lonely", testAlone)
}

func testAlone(t *testing.T, w *world) {
	c := w.call(w.phone(siptest.PhoneOptions{}), "lonely", 1000)
	w.speech(c)
	var sh *jitsitest.Shard
	w.await("the room is on a shard", func() bool { sh = w.deps[0].ShardOf("lonely"); return sh != nil })
	alice := w.browser(sh, "lonely", 440)
	w.hear("the phone", c, 440)
	w.hear("the participant", alice, 1000)
	// Alone again: the conference goes idle, the phone stays up.
	alice.Close()
	w.await("alone again", func() bool { return w.gw.Snapshot().Calls[0].State == "alone" })
	bob := w.browser(sh, "lonely", 700)
	w.hear("the phone", c, 700)
	w.hear("the second participant", bob, 1000)
	c.Hangup(w.ctx)
	w.gone()
}

func TestAloneTooLong(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{shards: 1, gateway: "alone_answer = \"0s\"\nalone_max = \"300ms\"",
		options: gateway.Options{Call: call.Timers{Farewell: 500 * time.Millisecond}}})
	c := w.call(w.phone(siptest.PhoneOptions{}), "lonely", 0)
	select {
	case e := <-c.Ended():
		if !e.ByPeer || !strings.Contains(e.Reason, "Nobody else joined") {
			t.Errorf("ended by %+v", e)
		}
	case <-w.ctx.Done():
		t.Fatal("the caller was left alone for ever")
	}
	w.gone()
}

// Two deployments have a room of the same name: those are two rooms.
func TestSameRoomInTwoDeployments(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{shards: 2, two: true})
	tones := []int{440, 700}
	var there []*jitsitest.Browser
	for i, d := range w.deps {
		there = append(there, w.browser(d.Shards[i], "standup", tones[i]))
	}
	p := w.phone(siptest.PhoneOptions{})
	for i, d := range w.deps {
		c, err := p.Call(w.ctx, siptest.CallOptions{
			URI: w.uri("x"), Tone: 1000 + 300*i,
			Headers: map[string]string{"X-Room-Name": "standup", "X-Domain-Base": d.Shards[0].Domain()},
		})
		if err != nil {
			t.Fatal(err)
		}
		w.hear("the phone", c, tones[i])
		w.hear("the participant", there[i], 1000+300*i)
		w.never("the phone", c.Heard(), c.Rate(), tones[1-i])
		w.never("the other participant", there[1-i].Heard(), 48000, 1000+300*i)
		c.Hangup(w.ctx)
	}
	e := w.refused(p, map[string]string{"X-Room-Name": "standup"})
	if e.Code != 404 || e.Headers["Reason"] == "" {
		t.Errorf("a room of two deployments: %d, Reason %q", e.Code, e.Headers["Reason"])
	}
	w.gone()
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	bothWays(t, worldOptions{shards: 2, trunk: "max_calls = 1"}, "busy", func(t *testing.T, w *world) {
		p := w.phone(siptest.PhoneOptions{})
		for _, tt := range []struct {
			name    string
			headers map[string]string
			code    int
			text    string
		}{
			{"no room", nil, 404, "room"},
			{"empty room", map[string]string{"X-Room-Name": " "}, 404, "room"},
			{"another domain", map[string]string{"X-Room-Name": "a@conference.elsewhere.example"}, 404, "elsewhere"},
			{"unknown shard", with(w.headers("a"), "X-Shard", "shard-9"), 404, "shard-9"},
		} {
			e := w.refused(p, tt.headers)
			if e.Code != tt.code || !strings.Contains(strings.ToLower(e.Headers["Reason"]), tt.text) {
				t.Errorf("%s: %d, Reason %q", tt.name, e.Code, e.Headers["Reason"])
			}
		}
		w.browser(w.deps[0].Shards[0], "busy", 440)
		c := w.call(p, "busy", 1000)
		if e := w.refused(p, w.headers("busy")); e.Code != 480 {
			t.Errorf("over the trunk's limit: %d", e.Code)
		}
		ctx, cancel := context.WithCancel(w.ctx)
		drained := make(chan struct{})
		go func() { w.gw.Drain(ctx); close(drained) }()
		w.await("draining", w.gw.Draining)
		if e := w.refused(p, w.headers("busy")); e.Code != 503 || e.Headers["Retry-After"] == "" {
			t.Errorf("while draining: %d, Retry-After %q", e.Code, e.Headers["Retry-After"])
		}
		w.hear("the phone, while draining,", c, 440)
		c.Hangup(w.ctx)
		<-drained
		cancel()
	})
}
