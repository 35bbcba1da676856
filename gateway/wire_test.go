package gateway_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"brewline/internal/jitsitest"
	"brewline/internal/jitsitest/jicofo"
	"brewline/internal/jitsitest/jvb"
	"brewline/internal/jitsitest/xmppd"
	"brewline/internal/siptest"
)

// us is the gateway's only call as Jicofo sees it.
func (w *world) us(sh *jitsitest.Shard, room string) jicofo.Participant {
	w.t.Helper()
	r, ok := sh.Focus.Room(room + "@" + sh.MUC())
	if !ok {
		w.t.Fatalf("no room %s", room)
	}
	nick := w.nick()
	for _, p := range r.Participants {
		if p.Nick == nick {
			return p
		}
	}
	w.t.Fatalf("%s is not in %s", nick, room)
	panic("unreachable")
}

// What the videobridge sees of a call: the offered numbers, the audio level on
// every packet, no source that was not signalled, RTCP at its pace.
func TestOnTheWire(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name      string
		pt, level int
		profile   jvb.Profile
	}{{"usual numbers", 111, 1, jvb.ProfileGCM}, {"other numbers", 109, 7, jvb.ProfileCM}} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			o := worldOptions{shards: 1}
			o.dep.Shard.Jicofo.OpusPT, o.dep.Shard.Jicofo.AudioLevelID = tt.pt, tt.level
			o.dep.Shard.JVB.Profiles = []jvb.Profile{tt.profile}
			w := newWorld(t, o)
			sh := w.deps[0].Shards[0]
			alice, c := w.inCall(sh, "wire")
			if p := strings.ReplaceAll(alice.PresenceOf(w.nick()), "'", `"`); !contains(p, `name="JigasiCallDirection" value="in"`) {
				t.Errorf("not said to come in: %s", p)
			}
			end := w.us(sh, "wire").Endpoint
			// Silence, in which nothing but RTCP has to flow.
			c.Silence()
			reports := end.Stats().RTCPFrom
			w.await("reports while the caller is silent", func() bool { return end.Stats().RTCPFrom >= reports+3 })
			c.Say(1000)
			w.both(alice, c)
			s := end.Stats()
			if s.RTPFrom == 0 || s.LevelMissing != 0 || s.WrongPT != 0 || s.Unsignalled != 0 || s.AuthErrors != 0 || len(s.SSRCs) != 1 {
				t.Errorf("the bridge saw %+v", s)
			}
			// Every 1 to 3 s; the busy machine of a test run may add to that.
			if s.LargestRTCPGap > 5*time.Second || s.SmallestRTCPGap < 900*time.Millisecond {
				t.Errorf("RTCP came after %v to %v", s.SmallestRTCPGap, s.LargestRTCPGap)
			}
			if s.Profile != tt.profile {
				t.Errorf("SRTP is %s", s.Profile)
			}
			if s.RoleConflicts != 0 {
				t.Errorf("%d checks want to control", s.RoleConflicts)
			}
			w.hangup(c)
		})
	}
}

// Each packetisation a phone may ask for is what it gets, and sends.
func TestPacketisation(t *testing.T) {
	t.Parallel()
	const ms = time.Millisecond
	w := newWorld(t, worldOptions{shards: 1, trunk: "ptime = \"40ms\""})
	alice := w.browser(w.deps[0].Shards[0], "pieces", 440)
	for _, codec := range []string{"pcmu", "g722", "opus"} {
		for _, ptime := range []time.Duration{20 * ms, 40 * ms, 60 * ms} {
			w.pieces(alice, siptest.PhoneOptions{Codec: codec, Ptime: ptime}, ptime)
		}
	}
	// One that says nothing gets what is configured, unless that is too much.
	w.pieces(alice, siptest.PhoneOptions{Codec: "pcma", MaxPtime: -1}, 40*ms)
	w.pieces(alice, siptest.PhoneOptions{Codec: "pcma", MaxPtime: 20 * ms}, 20*ms)
}

// pieces has a phone call and get packets of this time.
func (w *world) pieces(alice *jitsitest.Browser, o siptest.PhoneOptions, ptime time.Duration) {
	w.t.Helper()
	c, err := w.phone(o).Call(w.ctx, siptest.CallOptions{
		URI: w.uri("x"), Headers: w.headers("pieces"), Tone: 1000,
	})
	if err != nil {
		w.t.Fatal(err)
	}
	w.both(alice, c)
	// A busy machine skips packets, so the length is that of some ten.
	packets, samples := c.RTP().Received, len(c.Heard())
	w.await(fmt.Sprintf("%s in packets of %v", o.Codec, ptime), func() bool {
		n, m := c.RTP().Received, len(c.Heard())
		if n < packets+10 {
			return false
		}
		each := time.Duration(m-samples) * time.Second / time.Duration(c.Rate()) / time.Duration(n-packets)
		packets, samples = n, m
		return each > ptime*9/10 && each < ptime*11/10
	})
	w.hangup(c)
}

// Prompts are heard on every codec.
func TestPromptOnEveryCodec(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{shards: 1, gateway: "alone_answer = \"0s\""})
	for _, codec := range []string{"pcmu", "pcma", "g722", "opus"} {
		c := w.call(w.phone(siptest.PhoneOptions{Codec: codec}), "echo", 0)
		w.speech(c)
		w.hangup(c)
	}
}

// Hold stops what the phone does not want, and what it sends meanwhile unless
// the trunk has its music be heard; resume brings it back.
func TestHold(t *testing.T) {
	t.Parallel()
	for _, music := range []bool{false, true} {
		t.Run(fmt.Sprintf("music %v", music), func(t *testing.T) {
			t.Parallel()
			hold(t, music)
		})
	}
}

func hold(t *testing.T, music bool) {
	w := newWorld(t, worldOptions{shards: 1, trunk: fmt.Sprintf("hold_music = %v", music)})
	alice, c := w.inCall(w.deps[0].Shards[0], "hold")
	for _, tt := range []struct {
		direction      string
		hears, isHeard bool
	}{{"sendonly", false, music}, {"inactive", false, false}, {"recvonly", true, false}} {
		if err := c.Reinvite(w.ctx, tt.direction); err != nil {
			t.Fatal(err)
		}
		c.Say(1000) // also while it is on hold: then it must not matter
		if tt.isHeard {
			w.hear("the participant, phone "+tt.direction+",", alice, 1000)
		} else {
			w.still("packets from a phone that is "+tt.direction, func() uint64 { n, _ := alice.Received(); return n })
		}
		if tt.hears {
			w.hear("the phone, "+tt.direction+",", c, 440)
		} else {
			w.still("packets to a phone that is "+tt.direction, func() uint64 { return c.RTP().Received })
		}
		if err := c.Resume(w.ctx); err != nil {
			t.Fatal(err)
		}
		w.both(alice, c)
	}
	if err := c.ReinviteLate(w.ctx); err != nil {
		t.Fatal(err)
	}
	w.both(alice, c)
	w.hangup(c)
}

// A session that we refresh by re-INVITE while the phone holds it stays held,
// and goes on afterwards.
func TestRefreshWhileHeld(t *testing.T) {
	t.Parallel()
	for _, direction := range []string{"sendonly", "inactive"} {
		t.Run(direction, func(t *testing.T) {
			t.Parallel()
			o := worldOptions{shards: 1}
			o.options.SIP.MinSE, o.options.SIP.T1 = time.Second, 100*time.Millisecond
			w := newWorld(t, o)
			alice := w.browser(w.deps[0].Shards[0], "hold", 440)
			c, err := w.phone(siptest.PhoneOptions{}).Call(w.ctx, siptest.CallOptions{
				URI: w.uri("x"), Tone: 1000,
				Headers: map[string]string{"X-Room-Name": "hold", "Supported": "timer", "Session-Expires": "9;refresher=uas"},
			})
			if err != nil {
				t.Fatal(err)
			}
			w.both(alice, c)
			if err := c.Reinvite(w.ctx, direction); err != nil {
				t.Fatal(err)
			}
			before := c.Reinvites()
			w.await("a refresh", func() bool { return c.Reinvites() > before })
			w.still("packets to a phone that is "+direction, func() uint64 { return c.RTP().Received })
			w.still("packets from a phone that is "+direction, func() uint64 { n, _ := alice.Received(); return n })
			w.await("the phone resumes", func() bool { // a refresh may cross it
				err := c.Resume(w.ctx)
				var busy *siptest.StatusError
				if err != nil && (!errors.As(err, &busy) || busy.Code != 491) {
					t.Fatal(err)
				}
				return err == nil
			})
			w.both(alice, c)
			w.hangup(c)
		})
	}
}

// still awaits that a counter stands still for a while.
func (w *world) still(what string, count func() uint64) {
	w.t.Helper()
	last, since := count(), time.Now()
	w.await(what+" stop", func() bool {
		if n := count(); n != last {
			last, since = n, time.Now()
		}
		return time.Since(since) > 300*time.Millisecond
	})
}

// A meeting that mutes those who come says so to the caller, and the presence
// says so to the others.
func TestStartMuted(t *testing.T) {
	t.Parallel()
	o := worldOptions{shards: 1}
	o.dep.Shard.Jicofo.StartMuted = true
	w := newWorld(t, o)
	sh := w.deps[0].Shards[0]
	alice := w.browser(sh, "hush", 0)
	c := w.call(w.phone(siptest.PhoneOptions{}), "hush", 1000)
	w.await("the mute is published", func() bool {
		return contains(alice.PresenceOf(w.nick()), "<audiomuted>true</audiomuted>")
	})
	w.speech(c)
	w.hangup(c)
	w.never("the participant", alice.Heard(), 48000, 1000)
}

// A crowd that comes at once, and goes, is counted, and breaks nothing.
func TestCrowd(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{shards: 1})
	sh := w.deps[0].Shards[0]
	alice, c := w.inCall(sh, "stadium")
	jid := w.us(sh, "stadium").JID
	if jid == "" || !strings.Contains(jid, "/") {
		t.Fatalf("our JID is %q", jid)
	}
	const crowd = 1500
	presence := func(typ string) {
		for i := range crowd {
			err := sh.XMPP.Inject(jid, fmt.Sprintf("<presence xmlns='jabber:client' from='stadium@%s/fan%d'%s>"+
				"<x xmlns='http://jabber.org/protocol/muc#user'><item affiliation='none' role='participant'/></x></presence>",
				sh.MUC(), i, typ))
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	others := func(n int) {
		w.await(fmt.Sprintf("%d others are counted", n), func() bool {
			calls := w.gw.Snapshot().Calls
			return len(calls) == 1 && calls[0].Participants == n
		})
	}
	presence("")
	others(crowd + 1)
	presence(" type='unavailable'")
	others(1)
	w.both(alice, c)
	w.hangup(c)
}

// A later answer from another shard: the session is at the wrong one, and the
// call goes on in a new one.
func TestShardHeaderChanges(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{shards: 1, options: quick()})
	sh := w.deps[0].Shards[0]
	alice, c := w.inCall(sh, "drift")
	before := w.nick()
	sid := ""
	for _, r := range sh.XMPP.Requests() {
		if contains(r.Body, "drift@"+sh.MUC()+"/"+before) {
			sid = r.SID
		}
	}
	sh.XMPP.Faults().Add(xmppd.Fault{Kind: xmppd.Shard, Value: "shard-9",
		Match: func(r xmppd.Request) bool { return r.SID == sid }})
	w.await("the call has another session", func() bool {
		calls := w.gw.Snapshot().Calls
		return len(calls) == 1 && calls[0].Nick != "" && calls[0].Nick != before && calls[0].State == "connected"
	})
	w.both(alice, c)
	w.hangup(c)
}

// The only shard goes away under a call and comes back: the phone waits for it.
func TestOnlyShardRestarts(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{shards: 1, options: quick()})
	sh := w.deps[0].Shards[0]
	_, c := w.inCall(sh, "solo")
	sh.Kill()
	w.await("the shard is known to be down", func() bool { return w.gw.Brewery().Up() == 0 })
	w.await("the call is looking for its room", func() bool { return w.gw.Snapshot().Calls[0].State == "locating" })
	if err := sh.Restart(); err != nil {
		t.Fatal(err)
	}
	bob := w.browser(sh, "solo", 700)
	w.hear("the phone", c, 700)
	w.hear("the participant", bob, 1000)
	w.hangup(c)
}

// Jicofo ends the session of whoever is alone for a while, and begins another
// when somebody comes: the phone stays up.
func TestSingleParticipant(t *testing.T) {
	t.Parallel()
	o := worldOptions{shards: 1, options: quick()}
	o.dep.Shard.Jicofo.SingleTimeout = 200 * time.Millisecond
	w := newWorld(t, o)
	sh := w.deps[0].Shards[0]
	alice, c := w.inCall(sh, "single")
	alice.Close()
	w.await("the session is over", func() bool { i := w.gw.Snapshot().Calls[0]; return !i.Media && i.State == "alone" })
	w.speech(c)
	bob := w.browser(sh, "single", 700)
	w.hear("the phone", c, 700)
	w.hear("the participant", bob, 1000)
	w.hangup(c)
}

// Packets that are lost, late, doubled and out of order are heard through.
func TestRoughNetwork(t *testing.T) {
	t.Parallel()
	o := worldOptions{shards: 1, options: quick()}
	rough := jvb.Faults{Loss: 0.03, Reorder: 0.05, Duplicate: 0.05, Jitter: 20 * time.Millisecond}
	o.dep.Shard.JVB.FromClients, o.dep.Shard.JVB.ToClients = rough, rough
	w := newWorld(t, o)
	alice := w.browser(w.deps[0].Shards[0], "rough", 440)
	c := w.call(w.phone(siptest.PhoneOptions{Loss: 0.03, Jitter: 20 * time.Millisecond}), "rough", 1000)
	w.both(alice, c)
	w.hangup(c)
}

// A phone that never acknowledges the answer is hung up on.
func TestNoACK(t *testing.T) {
	t.Parallel()
	o := worldOptions{shards: 1, options: quick()}
	o.options.SIP.T1 = 20 * time.Millisecond
	w := newWorld(t, o)
	alice := w.browser(w.deps[0].Shards[0], "deaf", 440)
	c, err := w.phone(siptest.PhoneOptions{}).Call(w.ctx, siptest.CallOptions{
		URI: w.uri("x"), Headers: w.headers("deaf"), NoACK: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	select {
	case e := <-c.Ended():
		if !e.ByPeer {
			t.Errorf("ended by %+v", e)
		}
	case <-w.ctx.Done():
		t.Fatal("no BYE")
	}
	w.gone()
	if n := w.gw.Snapshot().Ended["phone_lost"]; n != 1 {
		t.Errorf("ends are %v", w.gw.Snapshot().Ended)
	}
	w.await("nobody is left in the room", func() bool { return len(alice.Others()) == 0 })
}
