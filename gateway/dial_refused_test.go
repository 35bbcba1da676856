package gateway_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"brewline/internal/jitsitest"
	"brewline/internal/jitsitest/jicofo"
	"brewline/internal/siptest"
)

// Whatever a dial is refused for, the phone does not ring.

// silent fails the test if the phone was ever called.
func silent(t *testing.T, p *siptest.Phone) {
	t.Helper()
	if n := p.Invites(); n != 0 {
		t.Errorf("the phone rang %d times", n)
	}
}

// refusedDial fails the test unless Jicofo, and every gateway it asked, said no.
func (w *world) refusedDial(reply string) {
	w.t.Helper()
	if contains(reply, "<ref") || !contains(reply, "<error") {
		w.t.Errorf("the dial is answered with %s", reply)
	}
}

// inject sends the gateway a dial request in somebody's name.
func (w *world) inject(sh *jitsitest.Shard, id, from, to, headers string) {
	w.t.Helper()
	us := w.gw.Brewery().Status()[0].JID.String()
	if err := sh.XMPP.Inject(us, fmt.Sprintf("<iq xmlns='jabber:client' type='set' id='%s' from='%s' to='%s'><dial xmlns='urn:xmpp:rayo:1' from='fromnumber' to='%s'>%s</dial></iq>",
		id, from, us, to, headers)); err != nil {
		w.t.Fatal(err)
	}
}

func inRoom(room string) string {
	return "<header xmlns='urn:xmpp:rayo:1' name='JvbRoomName' value='" + room + "'/>"
}

const breweryFocus = "jigasibrewery@internal.auth.meet.example/focus"

// Requests of strangers, and those that make no sense.
func TestDialForged(t *testing.T) {
	t.Parallel()
	w, p := dialWorld(t, worldOptions{shards: 1}, anyNumber)
	sh := w.deps[0].Shards[0]
	w.browser(sh, "team", 0)
	const team = "team@conference.meet.example"
	for i, from := range []string{
		"jigasibrewery@internal.auth.meet.example", "jigasibrewery@internal.auth.meet.example/Focus", "jigasibrewery@internal.auth.meet.example/gateway",
		team + "/focus", "focus@auth.meet.example/focus", "focus.meet.example", "evil@meet.example/x",
	} {
		w.inject(sh, fmt.Sprint("forged", i), from, "112", inRoom(team))
	}
	w.await("strangers are counted", func() bool { return w.gw.Brewery().Stats().DialsForbidden == 7 })
	for i, headers := range []string{"", inRoom("team"), inRoom("team@elsewhere.example"), inRoom(team + "/x"), inRoom(team) + inRoom("other@conference.meet.example")} {
		w.inject(sh, fmt.Sprint("bad", i), breweryFocus, "112", headers)
	}
	w.inject(sh, "nobody", breweryFocus, "", inRoom(team))
	w.inject(sh, "control", breweryFocus, "1&#10;2", inRoom(team))
	w.await("senseless ones are counted", func() bool { return w.gw.Brewery().Stats().DialsBad == 7 })
	w.inject(sh, "transcriber", breweryFocus, "jitsi_meet_transcribe", inRoom(team))
	w.gone()
	silent(t, p)

	// The same request twice, also after its answer, rings once.
	for range 2 {
		w.inject(sh, "twice", breweryFocus, "112", inRoom(team))
	}
	in := w.rings(p)
	w.inject(sh, "twice", breweryFocus, "112", inRoom(team))
	w.await("repetitions are counted", func() bool { return w.gw.Brewery().Stats().DialsTwice == 2 })
	if err := in.Reject(486, "Busy Here"); err != nil {
		t.Fatal(err)
	}
	w.gone()
	if n := p.Invites(); n != 1 || w.gw.Brewery().Stats().Dials != 1 {
		t.Errorf("the phone rang %d times; %+v", n, w.gw.Brewery().Stats())
	}
}

// Rooms into which the gateway does not get: an error, so that Jicofo may ask
// another one.
func TestDialIntoClosedRoom(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		world func(o *worldOptions)
		close func(w *world, sh *jitsitest.Shard) error
	}{
		"wrong password": {nil, func(_ *world, sh *jitsitest.Shard) error { return sh.XMPP.SetPassword("team", "tulip") }},
		"full":           {func(o *worldOptions) { o.dep.Shard.XMPP.MaxOccupants = 1 }, nil},
		"login refused":  {func(o *worldOptions) { o.login = `login = {kind = "account", username = "caller", password = "wrong"}` }, nil},
		"not authorised": {nil, func(_ *world, sh *jitsitest.Shard) error {
			sh.Focus.SetConferencePolicy(func(jicofo.ConferenceRequest) jicofo.Verdict { return jicofo.Verdict{Kind: jicofo.NotAuthorized} })
			return nil
		}},
		"too late": {func(o *worldOptions) { o.options.Brewery.Timers.Dial = time.Microsecond }, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := worldOptions{shards: 1}
			o.options.Brewery.Timers.Dial = 2 * time.Second
			if tt.world != nil {
				tt.world(&o)
			}
			w, p := dialWorld(t, o, anyNumber)
			sh := w.deps[0].Shards[0]
			b := w.browser(sh, "team", 0)
			if tt.close != nil {
				if err := tt.close(w, sh); err != nil {
					t.Fatal(err)
				}
			}
			w.refusedDial(w.askWith(b, sh, "team", "112", "JvbRoomPassword", "rose"))
			w.alone(b)
			silent(t, p)
		})
	}
}

// Limits: those of the rule are a refusal of the number, which no other gateway
// is asked for; those of the gateway and of the trunk are an error.
func TestDialLimits(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		world func(o *worldOptions)
		rule  string
		ref   bool
	}{
		"calls of the rule":       {nil, "max_calls = 1", true},
		"calls a minute":          {nil, "per_minute = 1", true},
		"calls of the gateway":    {func(o *worldOptions) { o.gateway = "max_calls = 1" }, "", false},
		"calls of the only trunk": {func(o *worldOptions) { o.trunk = "max_calls = 1" }, "", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := worldOptions{shards: 1}
			if tt.world != nil {
				tt.world(&o)
			}
			w, p := dialWorld(t, o, anyNumber+tt.rule+"\n")
			sh := w.deps[0].Shards[0]
			first, second := w.browser(sh, "one", 0), w.browser(sh, "two", 0)
			w.refNick(w.ask(first, sh, "one", "112"))
			in := w.rings(p)
			reply := w.ask(second, sh, "two", "113")
			if tt.ref {
				nick := w.refNick(reply)
				w.await("the occupant left", func() bool { return len(second.Others()) == 0 })
				w.statuses(second, nick, "Initializing Call", "Rejected")
			} else {
				w.refusedDial(reply)
			}
			if err := in.Reject(486, "Busy Here"); err != nil {
				t.Fatal(err)
			}
			w.alone(first)
			if name == "calls of the rule" { // the place is free again
				w.refNick(w.ask(second, sh, "two", "113"))
				if err := w.rings(p).Reject(486, "Busy Here"); err != nil {
					t.Fatal(err)
				}
				w.alone(second)
			} else if n := p.Invites(); n != 1 {
				t.Errorf("the phone rang %d times", n)
			}
		})
	}
}

// A trunk whose name cannot be resolved, and a shard that may dial nothing.
func TestDialWithoutTrunk(t *testing.T) {
	t.Parallel()
	dialBothWays(t, worldOptions{shards: 2}, "[[trunk]]\nname = \"gone\"\naddress = \"sip:nobody.invalid\"\nprobe = \"0s\"\n"+
		"[[dial]]\nname = \"any\"\npattern = '.*'\ntrunks = [\"gone\"]\nshards = [\"{first}shard-1\"]\n", "team", func(t *testing.T, w *world) {
		sh, other := w.deps[0].Shards[0], w.deps[0].Shards[1]
		w.refusedDial(w.ask(w.browser(sh, "team", 0), sh, "team", "112"))
		// Its Jicofo is told so, and asks nobody.
		w.refusedDial(w.ask(w.browser(other, "hall", 0), other, "hall", "112"))
		if n := w.gw.Brewery().Stats().Dials; n != 1 {
			t.Errorf("%d dial requests came", n)
		}
		w.gone()
		silent(t, w.callee)
	})
}

// Before Jicofo's session-initiate there is no INVITE, whatever ends the call.
func TestDialEndsBeforeInvitation(t *testing.T) {
	t.Parallel()
	w, p := dialWorld(t, worldOptions{shards: 1, gateway: `empty_grace = "100ms"`}, anyNumber)
	sh := w.deps[0].Shards[0]
	sh.Focus.SetSilent(true)
	for name, end := range dialEnds {
		b := w.browser(sh, "team", 0)
		nick := w.refNick(w.ask(b, sh, "team", "112"))
		w.await("joined", func() bool { return len(b.Others()) == 1 })
		if err := end(w, sh, b, nick); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		w.gone()
		_ = b.Close()
		w.await("the room is gone", func() bool { return len(sh.XMPP.Occupants("team@"+sh.MUC())) == 0 })
	}
	silent(t, p)
}

// While the phone rings they all send CANCEL.
func TestDialEndsWhileRinging(t *testing.T) {
	t.Parallel()
	w, p := dialWorld(t, worldOptions{shards: 1, gateway: `empty_grace = "100ms"`}, anyNumber)
	sh := w.deps[0].Shards[0]
	for name, end := range dialEnds {
		b := w.browser(sh, "team", 0)
		nick := w.refNick(w.ask(b, sh, "team", "112"))
		in := w.rings(p)
		if err := in.Ring(w.ctx); err != nil {
			t.Fatal(err)
		}
		w.status(b, "Ringing")
		if err := end(w, sh, b, nick); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		select {
		case <-in.Cancelled():
		case <-w.ctx.Done():
			t.Fatalf("%s: the phone goes on ringing; in the room: %v", name, sh.XMPP.Occupants("team@"+sh.MUC()))
		}
		w.gone()
		_ = b.Close()
		w.await("the room is gone", func() bool { return len(sh.XMPP.Occupants("team@"+sh.MUC())) == 0 })
	}
}

// dialEnds are the ways in which a meeting ends a call that it asked for.
var dialEnds = map[string]func(w *world, sh *jitsitest.Shard, b *jitsitest.Browser, nick string) error{
	"rayo hangup": func(w *world, sh *jitsitest.Shard, b *jitsitest.Browser, nick string) error {
		reply, err := b.Request(w.ctx, "set", "team@"+sh.MUC()+"/"+nick, "<hangup xmlns='urn:xmpp:rayo:1'/>")
		if contains(reply, "<error") {
			return fmt.Errorf("refused: %s", reply)
		}
		return err
	},
	"kick": func(_ *world, sh *jitsitest.Shard, _ *jitsitest.Browser, nick string) error {
		return sh.XMPP.Kick("team", nick, "")
	},
	"destroy": func(_ *world, sh *jitsitest.Shard, _ *jitsitest.Browser, _ string) error {
		return sh.XMPP.Destroy("team", "", "over")
	},
	"last human leaves": func(_ *world, _ *jitsitest.Shard, b *jitsitest.Browser, _ string) error { return b.Close() },
}

// In the lobby the dial is accepted, since from there it is the moderator's
// word that counts; the phone rings when the room is open.
func TestDialIntoLobby(t *testing.T) {
	t.Parallel()
	o := worldOptions{shards: 1}
	o.options.Call.Invited = 2 * time.Second
	w, p := dialWorld(t, o, anyNumber)
	sh := w.deps[0].Shards[0]
	b := w.browser(sh, "team", 440)
	if err := sh.XMPP.EnableLobby("team", true); err != nil {
		t.Fatal(err)
	}
	waiting := func() string {
		w.await("in the lobby", func() bool { return len(sh.XMPP.Occupants("team@lobby."+sh.Domain())) == 1 })
		return sh.XMPP.Occupants("team@lobby." + sh.Domain())[0].Nick
	}
	w.refNick(w.ask(b, sh, "team", "112"))
	if err := sh.XMPP.Deny("team", waiting()); err != nil {
		t.Fatal(err)
	}
	w.gone()
	silent(t, p)

	w.refNick(w.ask(b, sh, "team", "112"))
	if err := sh.XMPP.Admit("team", waiting()); err != nil {
		t.Fatal(err)
	}
	c, err := w.rings(p).Answer(w.ctx, siptest.AnswerOptions{Tone: 1000})
	if err != nil {
		t.Fatal(err)
	}
	w.hear("the callee", c, 440)
	if err := c.Hangup(w.ctx); err != nil {
		t.Fatal(err)
	}
	w.alone(b)
}

// The shard is lost between its request and our answer.
func TestDialOfLostShard(t *testing.T) {
	t.Parallel()
	o := worldOptions{shards: 1}
	o.options.Brewery.Timers.Dial = 2 * time.Second
	w, p := dialWorld(t, o, anyNumber)
	sh := w.deps[0].Shards[0]
	b := w.browser(sh, "team", 0)
	asked := make(chan struct{})
	sh.Focus.SetConferencePolicy(func(jicofo.ConferenceRequest) jicofo.Verdict {
		select {
		case <-asked:
		default:
			close(asked)
		}
		return jicofo.Verdict{Kind: jicofo.NotAuthorized}
	})
	ctx, cancel := context.WithCancel(w.ctx)
	defer cancel()
	dial := "<dial xmlns='urn:xmpp:rayo:1' from='fromnumber' to='112'>" + strings.TrimSpace(inRoom("team@"+sh.MUC())) + "</dial>"
	go func() {
		for { // the first participant is made a moderator in a moment
			reply, err := b.Request(ctx, "set", "team@"+sh.MUC()+"/focus", dial)
			if err != nil || !contains(reply, "<forbidden") {
				return
			}
		}
	}()
	select {
	case <-asked:
	case <-w.ctx.Done():
		t.Fatal("never asked to dial")
	}
	sh.Kill()
	w.gone()
	silent(t, p)
}

// A gateway that does not keep up says so at once, and takes calls again later.
func TestTooManyDials(t *testing.T) {
	t.Parallel()
	o := worldOptions{shards: 1, gateway: "max_calls = 1000", limit: 2 * time.Minute}
	o.options.Brewery.Timers.Dial = 20 * time.Second // for all to come before the first is overdue
	w, p := dialWorld(t, o, anyNumber)
	sh := w.deps[0].Shards[0]
	b := w.browser(sh, "team", 0)
	sh.Focus.SetConferencePolicy(func(jicofo.ConferenceRequest) jicofo.Verdict { return jicofo.Verdict{Kind: jicofo.NotAuthorized} })
	for i := range 257 {
		w.inject(sh, fmt.Sprint("d", i), breweryFocus, "112", inRoom("team@"+sh.MUC()))
	}
	w.await("one too many", func() bool { s := w.gw.Brewery().Stats(); return s.Dials == 257 && s.DialsRefused == 1 })
	if n := w.gw.Brewery().Stats().DialsExpired; n != 0 {
		t.Errorf("%d expired before", n)
	}
	w.gone()
	w.await("the others are refused at their deadline", func() bool { s := w.gw.Brewery().Stats(); return s.DialsRefused+s.DialsExpired == 257 })
	silent(t, p)
	sh.Focus.SetConferencePolicy(nil)
	w.refNick(w.ask(b, sh, "team", "112"))
	if err := w.rings(p).Reject(486, "Busy Here"); err != nil {
		t.Fatal(err)
	}
	w.alone(b)
}

// All UDP ports rest after a call.
func TestDialWithoutPorts(t *testing.T) {
	t.Parallel()
	lo, hi := freePorts(t, 3)
	w, p := dialWorld(t, worldOptions{shards: 1, gateway: "max_calls = 1", media: fmt.Sprintf("ports = \"%d-%d\"", lo, hi)}, anyNumber)
	sh := w.deps[0].Shards[0]
	alice := w.browser(sh, "team", 440)
	c := w.call(w.phone(siptest.PhoneOptions{}), "team", 1000)
	w.both(alice, c)
	w.hangup(c)
	w.gone()
	if reply := w.ask(alice, sh, "team", "112"); contains(reply, "<ref") {
		// It is in the room, and tells there that it cannot call.
		w.gone()
	} else {
		w.refusedDial(reply)
	}
	silent(t, p)
}
