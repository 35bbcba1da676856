package gateway_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"brewline/gateway"
	"brewline/internal/jitsitest"
	"brewline/internal/jitsitest/lb"
	"brewline/internal/siptest"
)

// dialWorld has a phone that can be called, over a trunk, by rules.
func dialWorld(t *testing.T, o worldOptions, rules string) (*world, *siptest.Phone) {
	t.Helper()
	return dialWorldTo(t, siptest.PhoneOptions{Codec: "pcma"}, o, rules)
}

// dialWorldTo is dialWorld with a phone of one's choice.
func dialWorldTo(t *testing.T, phone siptest.PhoneOptions, o worldOptions, rules string) (*world, *siptest.Phone) {
	t.Helper()
	p, err := siptest.NewPhone(phone)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	if o.options.Call.StatusStays == 0 {
		o.options.Call.StatusStays = 300 * time.Millisecond
	}
	o.brewery = true
	o.trunk = fmt.Sprintf("address = %q\n", address(p)) + o.trunk
	o.more = rules
	w := newWorld(t, o)
	w.callee = p
	w.await("every Jicofo sees a gateway", func() bool {
		for _, d := range w.deps {
			for _, sh := range d.Shards {
				if len(sh.XMPP.Occupants("jigasibrewery@internal.auth."+sh.Domain())) < 2 {
					return false
				}
			}
		}
		return true
	})
	return w, p
}

// address is a phone as a trunk has it.
func address(p *siptest.Phone) string {
	uri := p.URI("x")
	return "sip:" + uri[strings.IndexByte(uri, '@')+1:]
}

const anyNumber = "[[dial]]\nname = \"any\"\npattern = '\\+?\\d+'\ntrunks = [\"ipbx\"]\n"

// ask has a participant ask Jicofo to dial.
func (w *world) ask(b *jitsitest.Browser, sh *jitsitest.Shard, room, number string) string {
	w.t.Helper()
	return w.askWith(b, sh, room, number, "X-Ticket", "4711")
}

// askWith asks with a header.
func (w *world) askWith(b *jitsitest.Browser, sh *jitsitest.Shard, room, number, name, value string) string {
	w.t.Helper()
	dial := fmt.Sprintf("<dial xmlns='urn:xmpp:rayo:1' from='fromnumber' to='%s'><header xmlns='urn:xmpp:rayo:1' name='JvbRoomName' value='%s@%s'/>"+
		"<header xmlns='urn:xmpp:rayo:1' name='%s' value='%s'/></dial>", number, room, sh.MUC(), name, value)
	for {
		reply, err := b.Request(w.ctx, "set", room+"@"+sh.MUC()+"/focus", dial)
		if err != nil {
			w.t.Fatal(err)
		}
		if !contains(reply, "<forbidden") { // the first participant is made a moderator in a moment
			return reply
		}
	}
}

// rings awaits the call at the phone.
func (w *world) rings(p *siptest.Phone) *siptest.Incoming {
	w.t.Helper()
	in, err := p.Await(w.ctx)
	if err != nil {
		w.t.Fatal(err)
	}
	return in
}

// status awaits the gateway's presence status as a participant sees it.
func (w *world) status(b *jitsitest.Browser, word string) {
	w.t.Helper()
	w.await("the status "+word, func() bool {
		for _, nick := range b.Others() {
			if contains(b.PresenceOf(nick), "<status>"+word+"</status>") {
				return true
			}
		}
		return false
	})
}

func (w *world) alone(b *jitsitest.Browser) {
	w.t.Helper()
	w.await("the gateway left the room", func() bool { return len(b.Others()) == 0 })
	w.gone()
}

// From a meeting on each of three shards a number is called, all at once, from
// rooms of one name: the callee is in that meeting alone. The shards have equal
// names, brewery JIDs too, or differ in all, passwords too. One is killed while
// the other two dial.
func TestDialFromEveryShard(t *testing.T) {
	t.Parallel()
	for name, apart := range map[string]bool{"equal names": false, "different names": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, p := dialWorld(t, worldOptions{shards: 3, apart: apart, limit: 2 * time.Minute}, anyNumber)
			var shards []*jitsitest.Shard
			for _, d := range w.deps {
				shards = append(shards, d.Shards...)
			}
			const room = "standup"
			tones := []int{440, 620, 850, 1000, 1300, 1700}
			var browsers []*jitsitest.Browser
			for i, sh := range shards {
				browsers = append(browsers, w.browser(sh, room, tones[i]))
			}
			// dial dials from some of the shards at once and answers.
			dial := func(from []int, number string) map[int]*siptest.Call {
				var wg sync.WaitGroup
				replies := make([]string, len(shards))
				for _, i := range from {
					wg.Go(func() { replies[i] = w.ask(browsers[i], shards[i], room, fmt.Sprint(number, i)) })
				}
				calls := map[int]*siptest.Call{}
				for range from {
					in := w.rings(p)
					i := int(in.RequestUser[len(in.RequestUser)-1] - '0')
					if in.Header("X-Ticket") != "4711" || in.Header("JigasiCallDirection") != "out" || in.Header("Jitsi-Conference-Room") != room+"@"+shards[i].MUC() {
						t.Errorf("headers of the INVITE: %q %q %q", in.Header("X-Ticket"), in.Header("JigasiCallDirection"), in.Header("Jitsi-Conference-Room"))
					}
					c, err := in.Answer(w.ctx, siptest.AnswerOptions{Tone: tones[3+i]})
					if err != nil {
						t.Fatal(err)
					}
					calls[i] = c
				}
				wg.Wait()
				for _, i := range from {
					if !contains(replies[i], "xmpp:"+room+"@"+shards[i].MUC()+"/") {
						t.Errorf("%s: the dial is answered with %s", shards[i].Name, replies[i])
					}
					if calls[i] == nil {
						t.Fatalf("no call for shard %d: %v", i, calls)
					}
				}
				return calls
			}
			// talk listens to all, and for what is said elsewhere.
			talk := func(calls map[int]*siptest.Call) {
				for i, c := range calls {
					w.hear("the callee", c, tones[i])
					w.hear("the participant", browsers[i], tones[3+i])
					w.status(browsers[i], "Connected")
				}
				for i, c := range calls {
					for j := range shards {
						if j != i {
							w.never("the callee", c.Heard(), c.Rate(), tones[j])
							w.never("the callee", c.Heard(), c.Rate(), tones[3+j])
							w.never("the participant", browsers[i].Heard(), 48000, tones[j])
							w.never("the participant", browsers[i].Heard(), 48000, tones[3+j])
						}
					}
				}
			}
			calls := dial([]int{0, 1, 2}, "+49 30 100")
			talk(calls)
			for i, c := range calls {
				if err := c.Hangup(w.ctx); err != nil {
					t.Error(err)
				}
				w.await("the callee's occupant left", func() bool { return len(browsers[i].Others()) == 0 })
			}
			w.gone()

			killedName := map[bool]string{false: "shard-3", true: "d3-"}[apart]
			killed := make(chan struct{})
			go func() {
				defer close(killed)
				shards[2].Kill()
			}()
			calls = dial([]int{0, 1}, "+49 30 200")
			<-killed
			talk(calls)
			for _, s := range w.gw.Brewery().Status() {
				if !strings.Contains(s.Shard, killedName) && (s.State != "up" || s.Brewery != "joined" || s.Retries != 0) {
					t.Errorf("another shard noticed: %+v", s)
				}
			}
			for _, c := range calls {
				if err := c.Hangup(w.ctx); err != nil {
					t.Error(err)
				}
			}
			w.gone()
		})
	}
}

// The shard that asked dies under the call, and the meeting comes to life again
// on another than the balancer's choice at first: the callee is taken there.
func TestCalleeFollowsTheMeeting(t *testing.T) {
	t.Parallel()
	const room = "phoenix"
	dialBothWays(t, worldOptions{balancer: true, gateway: `empty_grace = "100ms"`, options: quick()}, anyNumber, room, func(t *testing.T, w *world) {
		d := w.deps[0]
		d.Balancer.Stick("", room, d.Shards[0].Name)
		alice := w.browser(d.Shards[0], room, 440)
		w.refNick(w.ask(alice, d.Shards[0], room, "112"))
		c, err := w.rings(w.callee).Answer(w.ctx, siptest.AnswerOptions{Tone: 1000})
		if err != nil {
			t.Fatal(err)
		}
		w.both(alice, c)
		d.Shards[0].Kill()
		d.Balancer.SetState(d.Shards[0].Name, lb.Down)
		d.Balancer.Stick("", room, d.Shards[1].Name)
		w.await("the callee is on the second shard", func() bool { return len(d.Shards[1].XMPP.Occupants(room+"@"+d.Shards[1].MUC())) == 2 })
		bob := w.browser(d.Shards[2], room, 700)
		w.hear("the callee", c, 700)
		w.hear("the participant", bob, 1000)
		w.await("the second room is left", func() bool { return len(d.Shards[1].XMPP.Occupants(room+"@"+d.Shards[1].MUC())) <= 1 })
		w.hangup(c)
	})
}

// What is going on is in every brewery: one process, one load.
func TestLoadInEveryBrewery(t *testing.T) {
	t.Parallel()
	dialBothWays(t, worldOptions{shards: 2, gateway: "max_calls = 10"}, anyNumber, "team", func(t *testing.T, w *world) {
		var shards []*jitsitest.Shard
		for _, d := range w.deps {
			shards = append(shards, d.Shards...)
		}
		b := w.browser(shards[0], "team", 0)
		told := func(conferences, participants, stress, draining string) {
			t.Helper()
			for _, sh := range shards {
				w.await(fmt.Sprintf("%s knows of %s conferences", sh.Name, conferences), func() bool {
					s := sh.Focus.Gateways()[0].Stats
					return s["conferences"] == conferences && s["participants"] == participants && s["stress_level"] == stress && s["graceful_shutdown"] == draining
				})
			}
		}
		told("0", "0", "0.0", "false")
		w.refNick(w.ask(b, shards[0], "team", "112"))
		in := w.rings(w.callee)
		told("1", "2", "0.1", "false") // the caller and a human: as the real Jigasi says

		ctx, cancel := context.WithCancel(w.ctx)
		defer cancel()
		go w.gw.Drain(ctx)
		told("1", "2", "0.1", "true")
		if err := in.Reject(486, "Busy Here"); err != nil {
			t.Fatal(err)
		}
		w.alone(b)
		told("0", "0", "0.0", "true")
	})
}

// A room with a password is joined with the one of the request.
func TestDialWithPassword(t *testing.T) {
	t.Parallel()
	w, p := dialWorld(t, worldOptions{shards: 1}, anyNumber)
	sh := w.deps[0].Shards[0]
	b := w.browser(sh, "team", 440)
	if err := sh.XMPP.SetPassword("team", "tulip"); err != nil {
		t.Fatal(err)
	}
	w.refNick(w.askWith(b, sh, "team", "112", "JvbRoomPassword", "tulip"))
	in := w.rings(p)
	if h := in.Header("JvbRoomPassword"); h != "" {
		t.Errorf("the phone is told the password %q", h)
	}
	c, err := in.Answer(w.ctx, siptest.AnswerOptions{})
	if err != nil {
		t.Fatal(err)
	}
	w.hear("the callee", c, 440)
	if err := c.Hangup(w.ctx); err != nil {
		t.Fatal(err)
	}
	w.alone(b)
}

func TestDialProgressAndRefusals(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		word string
		do   func(w *world, in *siptest.Incoming) error
	}{
		"busy":     {"Busy", func(_ *world, in *siptest.Incoming) error { return in.Reject(486, "Busy Here") }},
		"declined": {"Rejected", func(_ *world, in *siptest.Incoming) error { return in.Reject(603, "Decline") }},
		"ringing":  {"Ringing", func(w *world, in *siptest.Incoming) error { return in.Ring(w.ctx) }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, p := dialWorld(t, worldOptions{shards: 1}, anyNumber)
			sh := w.deps[0].Shards[0]
			b := w.browser(sh, "team", 440)
			w.ask(b, sh, "team", "112")
			in := w.rings(p)
			if err := tt.do(w, in); err != nil {
				t.Fatal(err)
			}
			w.status(b, tt.word)
			if name == "ringing" { // a kick cancels the phone
				if err := sh.XMPP.Kick("team", w.nick(), ""); err != nil {
					t.Fatal(err)
				}
				select {
				case <-in.Cancelled():
				case <-w.ctx.Done():
					t.Fatal("the phone goes on ringing")
				}
			}
			w.alone(b)
		})
	}
}

// What no rule allows never reaches a trunk, and is no reason to ask another
// gateway.
func TestDialRefusedNumber(t *testing.T) {
	t.Parallel()
	w, p := dialWorld(t, worldOptions{shards: 1}, "[[dial]]\nname = \"premium\"\npattern = '\\+49900\\d+'\ndeny = true\n"+anyNumber)
	sh := w.deps[0].Shards[0]
	b := w.browser(sh, "team", 440)
	for _, number := range []string{"+49900123", "sip:evil@example.org", "not a number"} {
		if reply := w.ask(b, sh, "team", number); !contains(reply, "<ref") {
			t.Errorf("%s: %s", number, reply)
		}
		w.status(b, "Rejected")
		w.alone(b)
	}
	if n := p.Invites(); n != 0 {
		t.Errorf("the phone rang %d times", n)
	}
}

func TestDialHangups(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(w *world, sh *jitsitest.Shard, b *jitsitest.Browser) error{
		"rayo hangup": func(w *world, sh *jitsitest.Shard, b *jitsitest.Browser) error {
			_, err := b.Request(w.ctx, "set", "team@"+sh.MUC()+"/"+w.nick(), "<hangup xmlns='urn:xmpp:rayo:1'/>")
			return err
		},
		"kick": func(w *world, sh *jitsitest.Shard, _ *jitsitest.Browser) error {
			return sh.XMPP.Kick("team", w.nick(), "")
		},
		"destroy": func(w *world, sh *jitsitest.Shard, _ *jitsitest.Browser) error {
			return sh.XMPP.Destroy("team", "", "over")
		},
		"last human leaves": func(_ *world, _ *jitsitest.Shard, b *jitsitest.Browser) error { return b.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, p := dialWorld(t, worldOptions{shards: 1, gateway: `empty_grace = "100ms"`}, anyNumber)
			sh := w.deps[0].Shards[0]
			b := w.browser(sh, "team", 440)
			w.ask(b, sh, "team", "112")
			c, err := w.rings(p).Answer(w.ctx, siptest.AnswerOptions{Tone: 1000})
			if err != nil {
				t.Fatal(err)
			}
			w.hear("the callee", c, 440)
			w.hear("the participant", b, 1000)
			if err := end(w, sh, b); err != nil {
				t.Fatal(err)
			}
			select {
			case e := <-c.Ended():
				if !e.ByPeer {
					t.Errorf("ended by %+v", e)
				}
			case <-w.ctx.Done():
				t.Fatal("the callee is not hung up on")
			}
			w.gone()
		})
	}
}

// Jicofo never invites us: the phone must not ring.
func TestDialWithoutInvitation(t *testing.T) {
	t.Parallel()
	o := worldOptions{shards: 1}
	o.options.Call.Invited = 300 * time.Millisecond
	w, p := dialWorld(t, o, anyNumber)
	sh := w.deps[0].Shards[0]
	b := w.browser(sh, "team", 440)
	sh.Focus.SetSilent(true)
	w.ask(b, sh, "team", "112")
	w.status(b, "Disconnected")
	w.alone(b)
	if n := p.Invites(); n != 0 {
		t.Errorf("the phone rang %d times", n)
	}
}

// While draining another gateway is to be asked.
func TestDialWhileDraining(t *testing.T) {
	t.Parallel()
	w, p := dialWorld(t, worldOptions{shards: 1}, anyNumber)
	sh := w.deps[0].Shards[0]
	b := w.browser(sh, "team", 440)
	ctx, cancel := context.WithCancel(w.ctx)
	defer cancel()
	go w.gw.Drain(ctx)
	w.await("draining", w.gw.Draining)
	if reply := w.ask(b, sh, "team", "112"); !contains(reply, "error") {
		t.Errorf("answered with %s", reply)
	}
	if n := p.Invites(); n != 0 {
		t.Errorf("the phone rang %d times", n)
	}
}

func TestDialFailsOver(t *testing.T) {
	t.Parallel()
	dead, err := siptest.NewPhone(siptest.PhoneOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer dead.Close()
	w, p := dialWorld(t, worldOptions{shards: 1, options: gateway.Options{}}, fmt.Sprintf(
		"[[trunk]]\nname = \"first\"\nmatch = [\"192.0.2.1\"]\naddress = %q\n", address(dead))+
		"[[dial]]\nname = \"any\"\npattern = '\\d+'\ntrunks = [\"first\", \"ipbx\"]\nnumber = \"0$0\"\n")
	sh := w.deps[0].Shards[0]
	b := w.browser(sh, "team", 440)
	w.ask(b, sh, "team", "30")
	if err := w.rings(dead).Reject(503, "Service Unavailable"); err != nil {
		t.Fatal(err)
	}
	in := w.rings(p)
	if in.RequestUser != "030" {
		t.Errorf("dialled %q", in.RequestUser)
	}
	c, err := in.Answer(w.ctx, siptest.AnswerOptions{Tone: 1000})
	if err != nil {
		t.Fatal(err)
	}
	w.hear("the callee", c, 440)
	c.Hangup(w.ctx)
	w.alone(b)
}

// Two numbers are asked for at once in one room: both ring, both callees hear
// the meeting and each other, and who may not hang up ends neither.
func TestTwoDialsIntoOneRoom(t *testing.T) {
	t.Parallel()
	w, p := dialWorld(t, worldOptions{shards: 1}, anyNumber)
	sh := w.deps[0].Shards[0]
	alice := w.browser(sh, "team", 440)
	w.await("a moderator", func() bool {
		for _, o := range sh.XMPP.Occupants("team@" + sh.MUC()) {
			if o.Nick == alice.Nick() && o.Role == "moderator" {
				return true
			}
		}
		return false
	})
	var wg sync.WaitGroup
	replies := make([]string, 2)
	for i := range replies {
		wg.Go(func() { replies[i] = w.ask(alice, sh, "team", fmt.Sprint("11", i)) })
	}
	calls := make([]*siptest.Call, 2)
	for range calls {
		in := w.rings(p)
		i := int(in.RequestUser[2] - '0')
		c, err := in.Answer(w.ctx, siptest.AnswerOptions{Tone: 1000 + 500*i})
		if err != nil {
			t.Fatal(err)
		}
		calls[i] = c
	}
	wg.Wait()
	if calls[0] == nil || calls[1] == nil {
		t.Fatal("one number was called twice")
	}
	nicks := []string{w.refNick(replies[0]), w.refNick(replies[1])}
	w.hearAll("the first callee", calls[0], 440, 1500)
	w.hearAll("the second callee", calls[1], 440, 1000)

	bob := w.browser(sh, "team", 0)
	us := "team@" + sh.MUC() + "/" + nicks[0]
	const hangup = "<hangup xmlns='urn:xmpp:rayo:1'/>"
	if reply, err := bob.Request(w.ctx, "set", us, hangup); err != nil || !contains(reply, "<forbidden") {
		t.Errorf("a hangup of somebody who is no moderator is answered with %s, %v", reply, err)
	}
	if n := len(w.gw.Snapshot().Calls); n != 2 {
		t.Errorf("%d calls are left", n)
	}
	if reply, err := alice.Request(w.ctx, "set", us, hangup); err != nil || contains(reply, "<error") {
		t.Errorf("a moderator's hangup is answered with %s, %v", reply, err)
	}
	select {
	case <-calls[0].Ended():
	case <-w.ctx.Done():
		t.Fatal("the first callee is not hung up on")
	}
	w.hearAll("the second callee", calls[1], 440)
	if err := calls[1].Hangup(w.ctx); err != nil {
		t.Fatal(err)
	}
	w.gone()
	if n := p.Invites(); n != 2 {
		t.Errorf("the phone rang %d times", n)
	}
}
