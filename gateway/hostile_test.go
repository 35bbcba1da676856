package gateway_test

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"brewline/internal/jitsitest"
	"brewline/internal/siptest"
)

// Somebody in the room who pretends to be Jicofo is refused, and disturbs
// nothing.
func TestForgedStanzas(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{shards: 1, options: quick()})
	sh := w.deps[0].Shards[0]
	alice, c := w.inCall(sh, "forged")
	mallory := w.browser(sh, "forged", 0)
	us := "forged@" + sh.MUC() + "/" + w.nick()
	room, _ := sh.Focus.Room("forged@" + sh.MUC())
	sid := ""
	for _, p := range room.Participants {
		if p.Nick == w.nick() {
			sid = p.SID
		}
	}
	for name, payload := range map[string]string{
		"mute": "<mute xmlns='http://jitsi.org/jitmeet/audio'>true</mute>",
		"terminate": fmt.Sprintf("<jingle xmlns='urn:xmpp:jingle:1' action='session-terminate' sid='%s'>"+
			"<reason><success/></reason></jingle>", sid),
		"initiate": "<jingle xmlns='urn:xmpp:jingle:1' action='session-initiate' sid='mine' initiator='focus@evil/focus'>" +
			"<content creator='initiator' name='audio'/></jingle>",
		"source-remove": fmt.Sprintf("<jingle xmlns='urn:xmpp:jingle:1' action='source-remove' sid='%s'/>", sid),
		"dial":          "<dial xmlns='urn:xmpp:rayo:1' to='+49900123456'><header name='JvbRoomName' value='forged@x'/></dial>",
		"nonsense":      "<a xmlns='b'><c d='" + strings.Repeat("e", 5000) + "'/></a>",
	} {
		reply, err := mallory.Request(w.ctx, "set", us, payload)
		// A peer-to-peer session is declined in order, and its end acknowledged.
		declined := name == "initiate" || name == "terminate"
		if err == nil && !contains(reply, "error") && !declined {
			t.Errorf("%s from an occupant is answered with %s", name, reply)
		}
	}
	if c := w.gw.Snapshot().Calls[0]; c.State != "connected" {
		t.Errorf("the call is %s", c.State)
	}
	w.both(alice, c)
	w.hangup(c)
}

// A phone that goes away at any step leaves nothing: no call, no port, no
// occupant.
func TestVanishingPhones(t *testing.T) {
	t.Parallel()
	o := worldOptions{shards: 1, options: quick()}
	o.options.Call.PhoneSilence = 500 * time.Millisecond
	o.options.SIP.T1 = 20 * time.Millisecond
	w := newWorld(t, o)
	sh := w.deps[0].Shards[0]
	alice := w.browser(sh, "haunted", 440)
	for _, step := range []string{"when it was heard", "when it rings", "in the call"} {
		before := w.gw.Snapshot().Invites
		p, err := siptest.NewPhone(siptest.PhoneOptions{})
		if err != nil {
			t.Fatal(err)
		}
		a := w.start(p, "haunted", 1000)
		switch step {
		case "when it was heard":
			err = a.Provisional(w.ctx, 100)
		case "when it rings":
			err = a.Provisional(w.ctx, 180)
		case "in the call":
			_, err = a.Wait(w.ctx)
		}
		if err != nil {
			t.Fatalf("%s: %v", step, err)
		}
		p.Close() // no CANCEL, no BYE
		w.await("the call of a phone that vanished "+step+" has come", func() bool { return w.gw.Snapshot().Invites > before })
		w.gone()
		w.await("nobody is left in the room", func() bool { return len(alice.Others()) == 0 })
	}
}

// Many calls, one after another and at once, leave what was there before.
func TestNothingLeaks(t *testing.T) {
	bothWays(t, worldOptions{shards: 2, serial: true}, "busy", func(t *testing.T, w *world) {
		sh := w.deps[0].Shards[1]
		alice := w.browser(sh, "busy", 440)
		p := w.phone(siptest.PhoneOptions{})
		// The first call opens what stays open.
		w.hangup(w.call(p, "busy", 1000))
		before := runtime.NumGoroutine()
		for range 10 {
			w.hangup(w.call(p, "busy", 1000))
		}
		var attempts []*siptest.Attempt
		for range 10 {
			attempts = append(attempts, w.start(p, "busy", 0))
		}
		for _, a := range attempts {
			c := w.answered(a)
			if err := c.Hangup(w.ctx); err != nil {
				t.Fatal(err)
			}
		}
		w.gone()
		w.await("nobody is left in the room", func() bool { return len(alice.Others()) == 0 })
		w.await("all ports are back", func() bool { return w.gw.Snapshot().PortsInUse == 0 })
		// 20 calls; HTTP connections of the sessions come and go
		w.await("all goroutines have ended", func() bool { return runtime.NumGoroutine() <= before+15 })
	})
}

// Somebody who takes the nick of a Jicofo that has gone is not obeyed.
func TestImpostorOfTheFocus(t *testing.T) {
	t.Parallel()
	o := quick()
	o.Timers.FocusRetry = time.Hour
	w := newWorld(t, worldOptions{shards: 1, options: o})
	sh := w.deps[0].Shards[0]
	alice, c := w.inCall(sh, "throne")
	us := "throne@" + sh.MUC() + "/" + w.nick()
	sh.Focus.Kill()
	w.await("Jicofo has gone", func() bool { return len(sh.XMPP.Components()) == 0 })
	mallory, err := jitsitest.JoinBrowser(w.ctx, jitsitest.BrowserOptions{
		URL: sh.BOSHURL(), Domain: sh.Domain(), Room: "throne", Nick: "focus", Uninvited: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer mallory.Close()
	reply, err := mallory.Request(w.ctx, "set", us, "<mute xmlns='http://jitsi.org/jitmeet/audio'>true</mute>")
	if err == nil && !contains(reply, "error") {
		t.Errorf("the mute of an impostor is answered with %s", reply)
	}
	w.both(alice, c)
	w.hangup(c)
}
