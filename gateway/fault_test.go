package gateway_test

import (
	"fmt"
	"testing"
	"time"

	"brewline/brewery"
	"brewline/gateway"
	"brewline/gateway/call"
	"brewline/gateway/conference"
	"brewline/internal/jitsitest"
	"brewline/internal/jitsitest/jicofo"
	"brewline/internal/jitsitest/jvb"
	"brewline/internal/jitsitest/lb"
	"brewline/internal/jitsitest/xmppd"
	"brewline/internal/siptest"
)

// quick has every wait for something lost scaled down.
func quick() gateway.Options {
	return gateway.Options{
		Timers: conference.Timers{
			Moving: 300 * time.Millisecond, Disconnected: 300 * time.Millisecond, Invite: 2 * time.Second,
			Failed: 150 * time.Millisecond, Ping: 200 * time.Millisecond, PingTimeout: time.Second,
			FocusReply: 2 * time.Second, FocusRetry: 50 * time.Millisecond, JoinRetry: 50 * time.Millisecond,
		},
		Brewery: brewery.Options{Timers: brewery.Timers{
			Ping: 200 * time.Millisecond, PingTimeout: 2 * time.Second,
			RetryMin: 50 * time.Millisecond, RetryMax: 200 * time.Millisecond,
		}},
		Call: call.Timers{Hunt: 50 * time.Millisecond, HuntMax: 200 * time.Millisecond, RejoinRetry: 50 * time.Millisecond},
	}
}

// inCall has a participant and a phone who hear each other.
func (w *world) inCall(sh *jitsitest.Shard, room string) (*jitsitest.Browser, *siptest.Call) {
	w.t.Helper()
	alice := w.browser(sh, room, 440)
	c := w.call(w.phone(siptest.PhoneOptions{}), room, 1000)
	w.both(alice, c)
	return alice, c
}

func (w *world) both(b *jitsitest.Browser, c *siptest.Call) {
	w.t.Helper()
	w.hear("the phone", c, 440)
	w.hear("the participant", b, 1000)
}

func (w *world) hangup(c *siptest.Call) {
	w.t.Helper()
	if w.decoyed {
		w.never("the phone", c.Heard(), c.Rate(), decoyTone)
	}
	w.problems()
	if err := c.Hangup(w.ctx); err != nil {
		w.t.Fatal(err)
	}
	w.gone()
}

// gateway's own nick in its only call.
func (w *world) nick() string {
	w.t.Helper()
	calls := w.gw.Snapshot().Calls
	if len(calls) != 1 {
		w.t.Fatalf("%d calls", len(calls))
	}
	return calls[0].Nick
}

func TestBridgeMoved(t *testing.T) {
	t.Parallel()
	for name, method := range map[string]jicofo.ReinviteMethod{
		"terminate and initiate": jicofo.RestartJingle, "transport-replace": jicofo.ReplaceTransport,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := worldOptions{shards: 1, options: quick()}
			o.dep.Shard.Bridges = 2
			w := newWorld(t, o)
			w.moved = true
			sh := w.deps[0].Shards[0]
			alice, c := w.inCall(sh, "moving")
			if err := sh.Focus.MoveRoom("moving@"+sh.MUC(), method); err != nil {
				t.Fatal(err)
			}
			w.both(alice, c)
			w.hangup(c)
		})
	}
}

// "moving" is not always followed by anything.
func TestMovedNowhere(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{shards: 1, options: quick()})
	w.moved = true
	sh := w.deps[0].Shards[0]
	alice, c := w.inCall(sh, "nowhere")
	nick := w.nick()
	if err := sh.Focus.Terminate("nowhere@"+sh.MUC(), nick, "success", "moving"); err != nil {
		t.Fatal(err)
	}
	w.both(alice, c)
	w.hangup(c)
}

func TestBridgeDies(t *testing.T) {
	t.Parallel()
	o := worldOptions{shards: 1, options: quick()}
	o.dep.Shard.Bridges = 2
	o.options.Transport.DisconnectedTimeout = 500 * time.Millisecond
	o.options.Transport.KeepaliveInterval = 100 * time.Millisecond
	w := newWorld(t, o)
	w.moved = true
	sh := w.deps[0].Shards[0]
	_, c := w.inCall(sh, "crash")
	room, _ := sh.Focus.Room("crash@" + sh.MUC())
	for _, p := range room.Participants {
		if p.Nick == w.nick() {
			p.Endpoint.Bridge().Crash()
		}
	}
	bob := w.browser(sh, "crash", 700)
	w.hear("the phone", c, 700)
	w.hear("the new participant", bob, 1000)
	w.hangup(c)
}

// The way to the bridge breaks while the bridge lives: a new session is asked
// for, in words that Jicofo reads.
func TestTransportLost(t *testing.T) {
	t.Parallel()
	o := worldOptions{shards: 1, options: quick()}
	o.options.Transport.DisconnectedTimeout = 500 * time.Millisecond
	o.options.Transport.KeepaliveInterval = 100 * time.Millisecond
	w := newWorld(t, o)
	sh := w.deps[0].Shards[0]
	alice, c := w.inCall(sh, "broken")
	room, _ := sh.Focus.Room("broken@" + sh.MUC())
	for _, p := range room.Participants {
		if p.Nick == w.nick() {
			nothing := jvb.Faults{Loss: 1, Everything: true}
			p.Endpoint.SetFaults(nothing, nothing)
		}
	}
	if err := alice.SetTone(700); err != nil {
		t.Fatal(err)
	}
	w.hear("the phone", c, 700)
	w.hear("a new participant", w.browser(sh, "broken", 0), 1000)
	w.hangup(c)
}

// Jicofo dies and nobody else asks for it: the gateway does.
func TestFocusVanishes(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{shards: 1, options: quick()})
	sh := w.deps[0].Shards[0]
	alice, c := w.inCall(sh, "headless")
	sh.Focus.Kill()
	w.both(alice, c) // media goes on
	if err := sh.Focus.Return(w.ctx); err != nil {
		t.Fatal(err)
	}
	w.await("Jicofo is asked for again", func() bool { return len(sh.Focus.Rooms()) == 1 })
	w.both(alice, c)
	w.hangup(c)
}

// A shard dies under a call: the phone stays up and is taken to where the room
// comes to life again.
func TestShardDies(t *testing.T) {
	t.Parallel()
	bothWays(t, worldOptions{balancer: true, options: quick()}, "phoenix", testShardDies)
}

func testShardDies(t *testing.T, w *world) {
	d := w.deps[0]
	d.Balancer.Stick("", "phoenix", d.Shards[0].Name)
	_, c := w.inCall(d.Shards[0], "phoenix")
	d.Shards[0].Kill()
	d.Balancer.SetState(d.Shards[0].Name, lb.Down)
	d.Balancer.Stick("", "phoenix", d.Shards[1].Name)
	bob := w.browser(d.Shards[1], "phoenix", 700)
	w.hear("the phone", c, 700)
	w.hear("the participant", bob, 1000)
	w.hangup(c)
}

// A caller who came first sits on one shard while the meeting starts on
// another: they are taken there.
func TestLonelyCallerMoves(t *testing.T) {
	t.Parallel()
	bothWays(t, worldOptions{gateway: `alone_answer = "0s"`, options: quick()}, "early", testLonelyCallerMoves)
}

func testLonelyCallerMoves(t *testing.T, w *world) {
	d := w.deps[0]
	c := w.call(w.phone(siptest.PhoneOptions{}), "early", 1000)
	first := d.ShardOf("early")
	other := d.Shards[0]
	if other == first {
		other = d.Shards[1]
	}
	alice := w.browser(other, "early", 440)
	w.both(alice, c)
	w.await("the first room is left", func() bool { return len(first.XMPP.Occupants("early@"+first.MUC())) <= 1 })
	if s := w.gw.Snapshot().Calls[0].Shard; s != w.shardName(other) {
		t.Errorf("the call is on %s", s)
	}
	w.hangup(c)
}

// Callers who have only each other sit on one shard while the meeting starts on
// another: all of them are taken there.
func TestLonelyCallersMove(t *testing.T) {
	t.Parallel()
	bothWays(t, worldOptions{gateway: `alone_answer = "0s"`, options: quick()}, "early", testLonelyCallersMove)
}

func testLonelyCallersMove(t *testing.T, w *world) {
	d := w.deps[0]
	p := w.phone(siptest.PhoneOptions{})
	c := w.call(p, "early", 1000)
	first := d.ShardOf("early")
	silent := w.call(p, "early", 0)
	w.await("both are in one room", func() bool { return len(first.XMPP.Occupants("early@"+first.MUC())) == 3 })
	other := d.Shards[0]
	if other == first {
		other = d.Shards[1]
	}
	alice := w.browser(other, "early", 440)
	w.both(alice, c)
	w.hear("the silent phone", silent, 440)
	w.await("the first room is left", func() bool { return len(first.XMPP.Occupants("early@"+first.MUC())) <= 1 })
	silent.Hangup(w.ctx)
	w.hangup(c)
}

// Callers without a human on two shards come together on one of them.
func TestLonelyCallersMeet(t *testing.T) {
	t.Parallel()
	bothWays(t, worldOptions{gateway: `alone_answer = "0s"`, options: quick()}, "early", testLonelyCallersMeet)
}

func testLonelyCallersMeet(t *testing.T, w *world) {
	d := w.deps[0]
	p := w.phone(siptest.PhoneOptions{})
	var calls []*siptest.Call
	for i := range 4 {
		c, err := p.Call(w.ctx, siptest.CallOptions{
			URI: w.uri("x"), Headers: with(w.headers("early"), "X-Shard", w.shardName(d.Shards[1-i%2])), Tone: 700 + 400*i,
		})
		if err != nil {
			t.Fatal(err)
		}
		calls = append(calls, c)
	}
	w.hearAll("the first phone", calls[0], 1100, 1500, 1900)
	w.hearAll("the last phone", calls[3], 700, 1100, 1500)
	w.await("the second room is left", func() bool { return len(d.Shards[1].XMPP.Occupants("early@"+d.Shards[1].MUC())) <= 1 })
	for _, c := range calls[1:] {
		c.Hangup(w.ctx)
	}
	w.hangup(calls[0])
}

func TestBalancerDecides(t *testing.T) {
	t.Parallel()
	for name, header := range map[string]bool{"with its header": true, "without": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := worldOptions{balancer: true, gateway: `alone_answer = "0s"`, options: quick()}
			bothWays(t, o, "fresha", func(t *testing.T, w *world) { testBalancerDecides(t, w, header) })
		})
	}
}

func testBalancerDecides(t *testing.T, w *world, header bool) {
	d := w.deps[0]
	if !header {
		for _, sh := range d.Shards {
			sh.XMPP.Faults().Add(xmppd.Fault{Kind: xmppd.Shard})
		}
	}
	for i, sh := range d.Shards {
		room := "fresh" + string(rune('a'+i))
		d.Balancer.Stick("", room, sh.Name)
		c := w.call(w.phone(siptest.PhoneOptions{}), room, 1000)
		if at := d.ShardOf(room); at != sh {
			t.Errorf("%s was opened on %v, web users go to %s", room, at, sh.Name)
		}
		alice := w.browser(sh, room, 440)
		w.both(alice, c)
		w.await("the shard is known", func() bool { return w.gw.Snapshot().Calls[0].Shard == w.shardName(sh) })
		w.hangup(c)
	}
}

// BOSH answers that are lost, late or errors cost nothing but time.
func TestBOSHFaults(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{shards: 1, options: quick()})
	sh := w.deps[0].Shards[0]
	alice := w.browser(sh, "rough", 440)
	for _, f := range []xmppd.Fault{
		{Kind: xmppd.Status, Probability: 0.1},
		{Kind: xmppd.Drop, Probability: 0.1},
		{Kind: xmppd.Late, Probability: 0.3, Delay: 50 * time.Millisecond},
	} {
		sh.XMPP.Faults().Add(f)
		c := w.call(w.phone(siptest.PhoneOptions{}), "rough", 1000)
		w.both(alice, c)
		w.hangup(c)
		sh.XMPP.Faults().Clear()
	}
}

func TestThreeSpeakers(t *testing.T) {
	t.Parallel()
	o := worldOptions{shards: 1}
	o.dep.Shard.Jicofo.SourceDelay = 400 * time.Millisecond // RTP comes ahead of its source-add
	w := newWorld(t, o)
	sh := w.deps[0].Shards[0]
	alice, c := w.inCall(sh, "trio")
	bob := w.browser(sh, "trio", 700)
	w.hearAll("the phone", c, 440, 700)
	carol := w.browser(sh, "trio", 1900)
	w.hearAll("the phone", c, 440, 700, 1900)
	bob.Close() // leaves without a source-remove
	w.await("bob is gone", func() bool { return len(alice.Others()) == 2 })
	w.hearAll("the phone", c, 440, 1900)
	w.hear("carol", carol, 1000)
	w.hangup(c)
}

func TestFocusMutes(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{shards: 1})
	sh := w.deps[0].Shards[0]
	alice, c := w.inCall(sh, "hush")
	room := "hush@" + sh.MUC()
	if err := sh.Focus.Mute(room, w.nick(), room+"/"+alice.Nick(), true); err != nil {
		t.Fatal(err)
	}
	w.await("the mute is published", func() bool {
		return contains(alice.PresenceOf(w.nick()), "<audiomuted>true</audiomuted>")
	})
	w.speech(c)
	// The keypad asks for leave to speak.
	if err := c.DTMF(w.ctx, "*6"); err != nil {
		t.Fatal(err)
	}
	w.await("the unmute is published", func() bool {
		return contains(alice.PresenceOf(w.nick()), "<audiomuted>false</audiomuted>")
	})
	w.hear("the participant", alice, 1000)
	w.hangup(c)
}

func TestKickAndDestroy(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(sh *jitsitest.Shard, nick string) error{
		"kick": func(sh *jitsitest.Shard, nick string) error { return sh.XMPP.Kick("over", nick, "bye") },
		"destroy": func(sh *jitsitest.Shard, _ string) error {
			return sh.XMPP.Destroy("over", "", "The meeting has been terminated")
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, worldOptions{shards: 1})
			sh := w.deps[0].Shards[0]
			_, c := w.inCall(sh, "over")
			if err := end(sh, w.nick()); err != nil {
				t.Fatal(err)
			}
			select {
			case e := <-c.Ended():
				if !e.ByPeer || !contains(e.Reason, "Q.850;cause=16") {
					t.Errorf("ended by %+v", e)
				}
			case <-w.ctx.Done():
				t.Fatal("the phone is not hung up on")
			}
			w.gone()
		})
	}
}

func TestPhoneCodecs(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{shards: 1})
	alice := w.browser(w.deps[0].Shards[0], "codecs", 440)
	for _, codec := range []string{"pcmu", "pcma", "g722", "opus"} {
		for _, late := range []bool{false, true} {
			c, err := w.phone(siptest.PhoneOptions{Codec: codec}).Call(w.ctx, siptest.CallOptions{
				URI: w.uri("x"), Headers: map[string]string{"x-room-name": "codecs"}, LateOffer: late, Tone: 1000,
			})
			if err != nil {
				t.Fatalf("%s, late offer %v: %v", codec, late, err)
			}
			w.both(alice, c)
			w.hangup(c)
		}
	}
	c, err := w.phone(siptest.PhoneOptions{Transport: "tcp"}).Call(w.ctx, siptest.CallOptions{
		URI: "sip:x@" + w.gw.SIPAddrs()[1].String() + ";transport=tcp", Headers: map[string]string{"X-Room-Name": "codecs"}, Tone: 1000,
	})
	if err != nil {
		t.Fatal(err)
	}
	w.both(alice, c)
	w.hangup(c)
}

func TestCancelLeavesNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{shards: 1, options: quick()})
	sh := w.deps[0].Shards[0]
	w.browser(sh, "never", 440)
	sh.Focus.SetSilent(true)
	a := w.start(w.phone(siptest.PhoneOptions{}), "never", 1000)
	if err := a.Provisional(w.ctx, 180); err != nil {
		t.Fatal(err)
	}
	if err := a.Cancel(); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Wait(w.ctx); err == nil {
		t.Error("a cancelled call was answered")
	}
	w.gone()
	w.await("the room is left", func() bool { return len(sh.XMPP.Occupants("never@"+sh.MUC())) == 2 })
}

func TestNeverInvited(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{shards: 1, options: quick()})
	sh := w.deps[0].Shards[0]
	w.browser(sh, "silent", 440)
	sh.Focus.SetSilent(true)
	e := w.refused(w.phone(siptest.PhoneOptions{}), map[string]string{"X-Room-Name": "silent"})
	if e.Code != 480 || !contains(e.Headers["Reason"], "never invited") {
		t.Errorf("%d, Reason %q", e.Code, e.Headers["Reason"])
	}
	w.gone()
}

// A known dead shard costs the callers of the others nothing, and its own
// callers no wait.
func TestDeadShard(t *testing.T) {
	t.Parallel()
	bothWays(t, worldOptions{options: quick()}, "alive", testDeadShard)
}

func testDeadShard(t *testing.T, w *world) {
	d := w.deps[0]
	d.Shards[2].Kill()
	w.await("the dead shard is known", func() bool {
		for _, s := range w.gw.Brewery().Status() {
			if s.Shard == w.shardName(d.Shards[2]) && s.State == "down" {
				return true
			}
		}
		return false
	})
	alice, c := w.inCall(d.Shards[0], "alive")
	w.both(alice, c)
	w.hangup(c)
	e := w.refused(w.phone(siptest.PhoneOptions{}), with(w.headers("x"), "X-Shard", w.shardName(d.Shards[2])))
	if e.Code != 480 || !contains(e.Headers["Reason"], "shard-3") {
		t.Errorf("a call to the dead shard: %d, Reason %q", e.Code, e.Headers["Reason"])
	}
}

func TestReloadWhileCalling(t *testing.T) {
	t.Parallel()
	bothWays(t, worldOptions{shards: 2}, "keep", testReloadWhileCalling)
}

func testReloadWhileCalling(t *testing.T, w *world) {
	alice, c := w.inCall(w.deps[0].Shards[1], "keep")
	w.write(w.shardName(w.deps[0].Shards[1]))
	w.reload()
	w.both(alice, c)
	if e := w.refused(w.phone(siptest.PhoneOptions{}), with(w.headers("keep"), "X-Shard", w.shardName(w.deps[0].Shards[1]))); e.Code != 404 {
		t.Errorf("a call to a shard that was taken out: %d", e.Code)
	}
	w.hangup(c)
	w.write("")
	w.reload()
	w.await("the shard is back", func() bool { return w.gw.Brewery().Up() == len(w.gw.Brewery().Status()) })
	c = w.call(w.phone(siptest.PhoneOptions{}), "keep", 1000)
	w.both(alice, c)
	w.hangup(c)
}

func with(h map[string]string, name, value string) map[string]string {
	h[name] = value
	return h
}

// What Jicofo says in another order than usual costs nothing but time: about
// sessions that there are not, and the end of one before it was accepted.
func TestFocusOutOfOrder(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{shards: 1, options: quick()})
	w.moved = true
	sh := w.deps[0].Shards[0]
	room := "order@" + sh.MUC()
	alice := w.browser(sh, "order", 440)
	sh.Focus.SetSilent(true)
	a := w.start(w.phone(siptest.PhoneOptions{}), "order", 1000)
	var nick, us string
	w.await("in the room", func() bool {
		for _, c := range w.gw.Snapshot().Calls {
			nick = c.Nick
		}
		for _, o := range sh.XMPP.Occupants(room) {
			if o.Nick == nick {
				us = o.JID
			}
		}
		return us != ""
	})
	for i, jingle := range []string{
		"action='source-add' sid='x'><content creator='initiator' name='audio'><description xmlns='urn:xmpp:jingle:apps:rtp:1' media='audio'>" +
			"<source xmlns='urn:xmpp:jingle:apps:rtp:ssma:0' ssrc='7'/></description></content>",
		"action='source-add' sid='x'><json-message xmlns='http://jitsi.org/jitmeet'>{\"sources\":{\"a\":[[],[],[{\"s\":7}]]}}</json-message>",
		"action='source-remove' sid='x'><json-message xmlns='http://jitsi.org/jitmeet'>{\"sources\":null}</json-message>",
		"action='transport-info' sid='x'><content creator='initiator' name='audio'><transport xmlns='urn:xmpp:jingle:transports:ice-udp:1' ufrag='u' pwd='p'/></content>",
		"action='transport-replace' sid='x'>", "action='session-initiate' sid='x'>", "action='session-initiate'>", "action='session-info' sid=''>", "action=''>",
		"action='session-terminate' sid='x'><reason><success/><text>moving</text></reason>", "action='session-terminate'>",
	} {
		if err := sh.XMPP.Inject(us, fmt.Sprintf("<iq xmlns='jabber:client' type='set' id='o%d' from='%s/focus' to='%s'><jingle xmlns='urn:xmpp:jingle:1' %s</jingle></iq>", i, room, us, jingle)); err != nil {
			t.Fatal(err)
		}
	}
	sh.Focus.SetSilent(false)
	if err := sh.Focus.Invite(room, nick); err != nil {
		t.Fatal(err)
	}
	c := w.answered(a)
	w.both(alice, c)
	for range 3 {
		if err := sh.Focus.Terminate(room, nick, "success", "moving"); err != nil {
			t.Fatal(err)
		}
		if err := sh.Focus.Invite(room, nick); err != nil {
			t.Fatal(err)
		}
	}
	w.both(alice, c)
	if n := w.us(sh, "order"); n.Nick != nick {
		t.Errorf("left the room for that: %s, then %s", nick, n.Nick)
	}
	w.hangup(c)
}
