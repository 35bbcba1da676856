package gateway_test

import (
	"errors"
	"html"
	"net/url"
	"slices"
	"strings"
	"testing"

	"brewline/internal/jitsitest"
	"brewline/internal/siptest"
)

const extensions = "[[dial]]\nname = \"extensions\"\npattern = '2\\d\\d'\ntrunks = [\"ipbx\"]\n"

// transferWorld has a phone that talks in a room, and another that can be called.
func transferWorld(t *testing.T) (w *world, room *jitsitest.Browser, c *siptest.Call, b *siptest.Phone) {
	t.Helper()
	w, b = dialWorld(t, worldOptions{shards: 1, trunk: "transfer = true\n"}, extensions)
	room = w.browser(w.deps[0].Shards[0], "team", 620)
	c = w.call(w.phone(siptest.PhoneOptions{}), "team", 440)
	w.hear("the room", room, 440)
	return w, room, c, b
}

// notified awaits that the phone was told these first lines, among others.
func (w *world) notified(c *siptest.Call, status string) {
	w.t.Helper()
	w.await("NOTIFY "+status, func() bool {
		return slices.ContainsFunc(c.Notified(), func(s string) bool { return strings.HasPrefix(s, "SIP/2.0 "+status) })
	})
}

// takenOver awaits that a call has ended in favour of another, which talks in
// the room in the place of the first: the room sees the same occupant.
func (w *world) takenOver(room *jitsitest.Browser, before []string, old, c *siptest.Call, tone int) {
	w.t.Helper()
	select {
	case e := <-old.Ended():
		if !e.ByPeer || !strings.Contains(e.Reason, "completed elsewhere") {
			w.t.Errorf("the first phone's call ended with %+v", e)
		}
	case <-w.ctx.Done():
		w.t.Fatal("the first phone's call has not ended")
	}
	w.hear("the room", room, tone)
	w.hear("the other phone", c, 620)
	if now := room.Others(); !slices.Equal(before, now) {
		w.t.Errorf("in the room were %v, now %v", before, now)
	}
	if n := len(w.gw.Snapshot().Calls); n != 1 {
		w.t.Errorf("%d calls", n)
	}
	if err := c.Hangup(w.ctx); err != nil {
		w.t.Error(err)
	}
	w.alone(room)
}

func TestTransfer(t *testing.T) {
	t.Parallel()
	w, room, c, b := transferWorld(t)
	before := room.Others()
	var refused *siptest.StatusError
	for _, to := range []string{"<sip:900@pbx.example>", "<sip:pbx.example>", "<sip:201@pbx.example>;x, <sip:202@pbx.example;method=BYE>"} {
		if err := c.Refer(w.ctx, to); !errors.As(err, &refused) || refused.Code != 603 && refused.Code != 400 {
			t.Errorf("REFER to %s: %v", to, err)
		}
	}
	silent(t, b)
	if err := c.Refer(w.ctx, "<sip:201@pbx.example>"); err != nil {
		t.Fatal(err)
	}
	in := w.rings(b)
	w.notified(c, "100")
	if err := in.Ring(w.ctx); err != nil {
		t.Fatal(err)
	}
	w.notified(c, "180")
	if err := c.Refer(w.ctx, "<sip:202@pbx.example>"); !errors.As(err, &refused) || refused.Code != 603 {
		t.Errorf("a second REFER: %v", err)
	}
	w.hear("the phone that transfers", c, 620)
	if by := in.Header("Referred-By"); by == "" {
		t.Error("no Referred-By")
	}
	d, err := in.Answer(w.ctx, siptest.AnswerOptions{Tone: 1000})
	if err != nil {
		t.Fatal(err)
	}
	w.notified(c, "200")
	w.named(room, "201")
	w.takenOver(room, before, c, d, 1000)
}

// named awaits that the room sees a caller by that name.
func (w *world) named(room *jitsitest.Browser, name string) {
	w.t.Helper()
	w.await("the name "+name, func() bool {
		return slices.ContainsFunc(room.Others(), func(nick string) bool {
			return strings.Contains(html.UnescapeString(room.PresenceOf(nick)), ">"+name+"</nick>")
		})
	})
}

// The phone hangs up as soon as the transfer was accepted.
func TestTransferHangUp(t *testing.T) {
	t.Parallel()
	w, room, c, b := transferWorld(t)
	before := room.Others()
	if err := c.Refer(w.ctx, "<tel:+1;x=y>"); err == nil {
		t.Error("a number without a rule was dialled")
	}
	if err := c.Refer(w.ctx, `"Bob <B>, \"PBX\"" <sip:201@pbx.example>`); err != nil {
		t.Fatal(err)
	}
	in := w.rings(b)
	if err := c.Hangup(w.ctx); err != nil {
		t.Fatal(err)
	}
	if err := in.Ring(w.ctx); err != nil {
		t.Fatal(err)
	}
	w.notified(c, "180") // it is told all the same
	d, err := in.Answer(w.ctx, siptest.AnswerOptions{Tone: 1000})
	if err != nil {
		t.Fatal(err)
	}
	w.notified(c, "200")
	w.named(room, `Bob <B>, "PBX"`)
	w.hear("the room", room, 1000)
	if now := room.Others(); !slices.Equal(before, now) {
		t.Errorf("in the room were %v, now %v", before, now)
	}
	if err := d.Hangup(w.ctx); err != nil {
		t.Error(err)
	}
	w.alone(room)
}

// The other phone is busy: the first one stays, and may try again.
func TestTransferFails(t *testing.T) {
	t.Parallel()
	w, room, c, b := transferWorld(t)
	if err := c.Refer(w.ctx, "<sip:201@pbx.example>"); err != nil {
		t.Fatal(err)
	}
	if err := w.rings(b).Reject(486, "Busy Here"); err != nil {
		t.Fatal(err)
	}
	w.notified(c, "486")
	c.Say(850)
	w.hear("the room", room, 850)
	w.hear("the phone", c, 620)
	// Once more; this time the phone has gone when it fails.
	w.await("a second REFER is taken", func() bool { return c.Refer(w.ctx, "<sip:202@pbx.example>") == nil })
	in := w.rings(b)
	if err := c.Hangup(w.ctx); err != nil {
		t.Fatal(err)
	}
	if err := in.Reject(486, "Busy Here"); err != nil {
		t.Fatal(err)
	}
	w.alone(room)
}

// After a consultation the reference names the dialog to take over.
func TestTransferAttended(t *testing.T) {
	t.Parallel()
	w, room, c, b := transferWorld(t)
	before := room.Others()
	const dialog = "consultation@pbx;to-tag=b;from-tag=a"
	if err := c.Refer(w.ctx, "<sip:201@pbx.example?Replaces="+url.QueryEscape(dialog)+">"); err != nil {
		t.Fatal(err)
	}
	in := w.rings(b)
	if got := in.Header("Replaces"); got != dialog {
		t.Errorf("Replaces: %s", got)
	}
	d, err := in.Answer(w.ctx, siptest.AnswerOptions{Tone: 1000})
	if err != nil {
		t.Fatal(err)
	}
	w.takenOver(room, before, c, d, 1000)
}

// Another phone calls to take the first one's place; nobody else's.
func TestReplaces(t *testing.T) {
	t.Parallel()
	w, room, c, _ := transferWorld(t)
	before := room.Others()
	p := w.phone(siptest.PhoneOptions{})
	for value, code := range map[string]int{
		"unknown;to-tag=1;from-tag=2": 481, c.Replaces() + ";early-only": 486, "no-tags": 400,
	} {
		var refused *siptest.StatusError
		_, err := p.Call(w.ctx, siptest.CallOptions{URI: w.uri("x"), Headers: map[string]string{"Replaces": value}})
		if !errors.As(err, &refused) || refused.Code != code {
			t.Errorf("Replaces: %s: %v, want %d", value, err, code)
		}
	}
	p = w.phone(siptest.PhoneOptions{Display: "Carol"})
	d, err := p.Call(w.ctx, siptest.CallOptions{URI: w.uri("x"), Tone: 1000, Headers: map[string]string{"Replaces": c.Replaces(), "Require": "replaces"}})
	if err != nil {
		t.Fatal(err)
	}
	w.named(room, "Carol")
	w.takenOver(room, before, c, d, 1000)
}

// A trunk that may not transfer: nothing changes.
func TestTransferNotAllowed(t *testing.T) {
	t.Parallel()
	w, b := dialWorld(t, worldOptions{shards: 1}, extensions)
	room := w.browser(w.deps[0].Shards[0], "team", 620)
	p := w.phone(siptest.PhoneOptions{})
	c := w.call(p, "team", 440)
	var refused *siptest.StatusError
	if err := c.Refer(w.ctx, "<sip:201@pbx.example>"); !errors.As(err, &refused) || refused.Code != 405 {
		t.Errorf("REFER: %v", err)
	}
	_, err := w.phone(siptest.PhoneOptions{}).Call(w.ctx, siptest.CallOptions{URI: w.uri("x"), Headers: map[string]string{"Replaces": c.Replaces()}})
	if !errors.As(err, &refused) || refused.Code != 603 {
		t.Errorf("Replaces: %v", err)
	}
	silent(t, b)
	w.hear("the room", room, 440)
	if err := c.Hangup(w.ctx); err != nil {
		t.Error(err)
	}
	w.alone(room)
}

// A call that the room made rings at one phone; another picks it up.
func TestPickUp(t *testing.T) {
	t.Parallel()
	w, b := dialWorld(t, worldOptions{shards: 1, trunk: "transfer = true\n"}, extensions)
	sh := w.deps[0].Shards[0]
	room := w.browser(sh, "team", 620)
	w.ask(room, sh, "team", "201")
	in := w.rings(b)
	if err := in.Ring(w.ctx); err != nil {
		t.Fatal(err)
	}
	w.status(room, "Ringing")
	c, err := w.phone(siptest.PhoneOptions{}).Call(w.ctx, siptest.CallOptions{
		URI: w.uri("x"), Tone: 1000, Headers: map[string]string{"Replaces": in.Replaces() + ";early-only"},
	})
	if err != nil {
		t.Fatal(err)
	}
	select {
	case <-in.Cancelled():
	case <-w.ctx.Done():
		t.Fatal("the first phone rings on")
	}
	w.hear("the room", room, 1000)
	w.hear("the phone", c, 620)
	if err := c.Hangup(w.ctx); err != nil {
		t.Error(err)
	}
	w.alone(room)
}
