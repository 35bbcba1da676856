package jicofo

import (
	"strings"
	"testing"

	"brewline/internal/jitsitest/jvb"
)

// invited is a wired focus with a room of two, of whom "gw" has been sent
// session-initiate and has acknowledged it.
func invited(t *testing.T, o Options, features ...string) (*wired, *conference, *participant) {
	t.Helper()
	if o.Bridges == nil {
		o.Bridges = []*jvb.Bridge{startBridge(t)}
	}
	w := newWired(t, o)
	c := w.room()
	other := w.member(c, "other")
	other.discovered = false
	p := w.member(c, "gw", append(features, featureAudio)...)
	w.mu.Lock()
	w.inviteAll(c)
	w.mu.Unlock()
	w.ack()
	if p.session == nil || !p.session.acked {
		t.Fatal("not invited")
	}
	return w, c, p
}

// ack takes the next request of the focus and acknowledges it.
func (w *wired) ack() *element {
	w.t.Helper()
	e := w.sent()
	if k := e.attr("type"); k != "set" {
		w.t.Fatalf("got %s", e)
	}
	w.get(el("", "iq", "type", "result", "id", e.attr("id"), "from", e.attr("to"), "to", e.attr("from")))
	return e
}

// accept builds a session-accept.
func accept(sid, ssrc, msid string) *element {
	source := el(nsSSMA, "source", "ssrc", ssrc, "name", "gw-a0").add(parameter("msid", msid))
	return el(nsJingle, "jingle", "action", "session-accept", "sid", sid).add(
		el("", "content", "creator", "initiator", "name", "audio").add(
			el(nsRTP, "description", "media", "audio").add(source),
			el(nsICE, "transport", "ufrag", "abcd", "pwd", "p").add(
				el(nsDTLS, "fingerprint", "hash", "sha-256", "setup", "active").text("AA:BB")),
		))
}

// TestRecordedAccepts replays what real clients said.
func TestRecordedAccepts(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		stanzas []string
		want    Source
		remote  jvb.Remote
	}{
		{"a client over BOSH", []string{"sipleg-accept"},
			Source{SSRC: 5555555, Name: "8acd7d62-a0", MSID: "8acd7d62-audio-0-1 a0", Owner: "gw"},
			jvb.Remote{Ufrag: "uf8acd7d62xxxxxxxx", Pwd: "pwd8acd7d62aaaaaaaaaaaaaaaaaaaaaa"}},
		{"the real Jigasi, credentials first", []string{"jigasi-transport-info", "jigasi-accept"},
			Source{SSRC: 2720204773, Name: "gw-a0", MSID: "6d923c0b-c7c1-4fca-803d-3d26395c6703 audio394958993", Owner: "gw"},
			jvb.Remote{Ufrag: "17tbc1k81sajf8", Pwd: "666dgoe1u27thgo3f945fq05uk"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w, c, p := invited(t, Options{})
			for _, name := range tt.stanzas {
				iq := recorded(t, name)
				x := iq.Kids[0]
				for i := range x.Attrs {
					if x.Attrs[i].Name == "sid" {
						x.Attrs[i].Value = p.session.sid
					}
				}
				w.get(fromMember(c, "gw", "set", x))
				if r := w.sent(); r.attr("type") != "result" {
					t.Fatalf("%s: %s", name, r)
				}
			}
			if !p.session.accepted || len(p.sources) != 1 || p.sources[0] != tt.want {
				t.Errorf("accepted %v, sources %+v", p.session.accepted, p.sources)
			}
			if r := p.session.remote; r.Ufrag != tt.remote.Ufrag || r.Pwd != tt.remote.Pwd || r.Setup != "active" {
				t.Errorf("transport %+v", r)
			}
			if len(c.problems) > 0 {
				t.Error(c.problems)
			}
		})
	}
}

func TestAcceptIsValidated(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name      string
		change    func(x *element)
		condition string
		ends      bool
	}{
		{"good", func(*element) {}, "", false},
		{"SSRC of another", func(x *element) { *x = *accept(x.attr("sid"), "77", "gw x") }, "bad-request", true},
		{"SSRC 0", func(x *element) { *x = *accept(x.attr("sid"), "0", "gw x") }, "bad-request", true},
		{"SSRC too large", func(x *element) { *x = *accept(x.attr("sid"), "4294967296", "gw x") }, "bad-request", true},
		{"msid of another", func(x *element) { *x = *accept(x.attr("sid"), "78", "other a0") }, "bad-request", true},
		{"no ufrag", func(x *element) { x.child("", "content").child("", "transport").Attrs = nil }, "bad-request", true},
		{"no fingerprint", func(x *element) { x.child("", "content").child("", "transport").Kids = nil }, "bad-request", true},
		{"wrong sid", func(x *element) { *x = *accept("zzz", "78", "gw x") }, "item-not-found", false},
		{"too many sources", func(x *element) {
			d := x.child("", "content").child("", "description")
			for i := range 20 {
				d.add(el(nsSSMA, "source", "ssrc", strings.Repeat("9", 1+i%9)+"1"))
			}
		}, "bad-request", true},
		{"broken JSON sources", func(x *element) { x.add(el(nsJitmeet, "json-message").text(`{"sources":{"gw":[[{"s":"x"}]]}}`)) }, "bad-request", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w, c, p := invited(t, Options{})
			c.member("other").sources = []Source{{SSRC: 77, MSID: "other a0", Owner: "other"}}
			x := accept(p.session.sid, "78", "gw a0")
			tt.change(x)
			w.get(fromMember(c, "gw", "set", x))
			r := w.sent()
			if tt.condition == "" {
				if r.attr("type") != "result" || !p.session.accepted {
					t.Fatalf("got %s", r)
				}
				return
			}
			if r.attr("type") != "error" || r.child("", "error").child(nsStanzas, tt.condition) == nil {
				t.Fatalf("got %s", r)
			}
			if ended := p.session == nil; ended != tt.ends {
				t.Errorf("session ended: %v", ended)
			}
		})
	}
}

func TestGoneSession(t *testing.T) {
	t.Parallel()
	w, c, p := invited(t, Options{})
	old := p.session.sid
	w.mu.Lock()
	w.move(c, []*participant{p}, RestartJingle)
	w.mu.Unlock()
	if x := w.ack().Kids[0]; x.attr("action") != "session-terminate" || x.child("", "reason").child("", "text").Text != "moving" {
		t.Errorf("got %s", x)
	}
	if x := w.ack().Kids[0]; x.attr("action") != "session-initiate" || x.attr("sid") == old {
		t.Errorf("got %s", x)
	}
	w.get(fromMember(c, "gw", "set", accept(old, "78", "gw a0")))
	if r := w.sent(); r.child("", "error").child(nsStanzas, "gone") == nil {
		t.Errorf("got %s", r)
	}
}

func TestReplaceTransport(t *testing.T) {
	t.Parallel()
	w, c, p := invited(t, Options{})
	sid := p.session.sid
	w.get(fromMember(c, "gw", "set", accept(sid, "78", "gw a0")))
	w.sent()
	before := p.session.endpoint
	w.mu.Lock()
	w.move(c, []*participant{p}, ReplaceTransport)
	w.mu.Unlock()
	x := w.ack().Kids[0]
	if x.attr("action") != "transport-replace" || x.attr("sid") != sid {
		t.Fatalf("got %s", x)
	}
	if x.child("", "content").child("", "transport").attr("ufrag") == before.Ufrag {
		t.Error("the same transport")
	}
	repeated := accept(sid, "78", "gw a0")
	repeated.Attrs[0].Value = "transport-accept"
	bare := accept(sid, "78", "gw a0")
	bare.Attrs[0].Value = "transport-accept"
	bare.child("", "content").child("", "description").Kids = nil
	w.get(fromMember(c, "gw", "set", bare))
	if r := w.sent(); r.attr("type") != "result" || len(p.sources) != 1 {
		t.Errorf("got %s, sources %v", r, p.sources)
	}
	w.mu.Lock()
	w.move(c, []*participant{p}, ReplaceTransport)
	w.mu.Unlock()
	w.ack()
	w.get(fromMember(c, "gw", "set", repeated))
	if r := w.sent(); r.child("", "error").child(nsStanzas, "bad-request") == nil {
		t.Errorf("repeated sources: %s", r)
	}
}

func TestErrorReplyEndsInvitations(t *testing.T) {
	t.Parallel()
	w, c, p := invited(t, Options{})
	w.mu.Lock()
	w.move(c, []*participant{p}, RestartJingle)
	w.mu.Unlock()
	w.ack()
	e := w.sent()
	w.get(el("", "iq", "type", "error", "id", e.attr("id"), "from", e.attr("to"), "to", e.attr("from")))
	x := w.ack().Kids[0]
	if x.attr("action") != "session-terminate" || x.child("", "reason").child("", "general-error") == nil {
		t.Errorf("got %s", x)
	}
	w.mu.Lock()
	w.inviteAll(c)
	w.mu.Unlock()
	if p.session != nil {
		t.Error("invited again")
	}
}

func TestRestart(t *testing.T) {
	t.Parallel()
	w, c, p := invited(t, Options{})
	ask := func(id string) *element {
		b := el(nsFocus, "bridge-session", "id", id, "restart", "true")
		w.get(fromMember(c, "gw", "set", el(nsJingle, "jingle", "action", "session-terminate", "sid", p.session.sid).add(
			el("", "reason").add(el("", "connectivity-error")), b)))
		return w.sent()
	}
	if r := ask("wrong"); r.child("", "error").child(nsStanzas, "item-not-found") == nil {
		t.Errorf("got %s", r)
	}
	sid := p.session.sid
	if r := ask(p.session.bridgeSession); r.attr("type") != "result" {
		t.Errorf("got %s", r)
	}
	if x := w.ack().Kids[0]; x.attr("action") != "session-initiate" || x.attr("sid") == sid {
		t.Errorf("got %s", x)
	}
	if r := ask(p.session.bridgeSession); r.child("", "error").child(nsStanzas, "resource-constraint") == nil {
		t.Errorf("second restart: %s", r)
	}
	if p.session != nil {
		t.Error("the session lives though its restart was refused")
	}
}

func TestSourcesAreFannedOut(t *testing.T) {
	t.Parallel()
	for _, features := range [][]string{nil, {featureJSON}} {
		w, c, p := invited(t, Options{}, features...)
		other := c.member("other")
		add := []Source{{SSRC: 9, Name: "other-a0", MSID: "other a0", Owner: "other"}}
		w.mu.Lock()
		other.sources = add
		w.announce(c, other, true, add) // before the accept: kept
		w.mu.Unlock()
		w.get(fromMember(c, "gw", "set", accept(p.session.sid, "78", "gw a0")))
		check := func(action string) {
			t.Helper()
			x := w.ack().Kids[0]
			got, err := parseSources(x, "other")
			if err != nil || x.attr("action") != action || len(got) != 1 || got[0] != add[0] {
				t.Errorf("%v: %v, %v in %s", features, got, err, x)
			}
		}
		check("source-add") // as recorded: before the reply to the accept
		if r := w.sent(); r.attr("type") != "result" {
			t.Errorf("got %s", r)
		}
		w.mu.Lock()
		w.announce(c, other, false, add)
		w.mu.Unlock()
		check("source-remove")
	}
}

func TestMoving(t *testing.T) {
	t.Parallel()
	a, b := startBridge(t), startBridge(t)
	w, c, p := invited(t, Options{Bridges: []*jvb.Bridge{a, b}})
	first := p.session.bridge
	if err := w.MoveRoom("room", RestartJingle); err != nil {
		t.Fatal(err)
	}
	w.ack()
	w.ack()
	if p.session.bridge == first {
		t.Error("moved to the same bridge")
	}
	if err := w.MoveRoom("room", TerminateOnly); err != nil {
		t.Fatal(err)
	}
	if x := w.ack().Kids[0]; x.attr("action") != "session-terminate" {
		t.Errorf("got %s", x)
	}
	w.mu.Lock()
	w.inviteAll(c)
	w.mu.Unlock()
	if p.session != nil {
		t.Error("something followed")
	}
}

func TestBridgeLost(t *testing.T) {
	t.Parallel()
	b := startBridge(t)
	w, c, p := invited(t, Options{Bridges: []*jvb.Bridge{b}})
	b.Crash()
	w.RemoveBridge(b)
	w.ack()
	if !c.noBridge || p.session != nil || !strings.Contains(c.shown, "bridgeNotAvailable") {
		t.Errorf("no bridge: %v, %s", c.noBridge, c.shown)
	}
	w.AddBridge(startBridge(t))
	if x := w.ack().Kids[0]; x.attr("action") != "session-initiate" {
		t.Errorf("got %s", x)
	}
	if c.noBridge || strings.Contains(c.shown, "bridgeNotAvailable") {
		t.Errorf("still no bridge: %s", c.shown)
	}
}

func TestCrashedBridgeIsFoundOut(t *testing.T) {
	t.Parallel()
	a := startBridge(t)
	w, c, p := invited(t, Options{Bridges: []*jvb.Bridge{a}})
	w.AddBridge(startBridge(t))
	a.Crash()
	w.get(fromMember(c, "gw", "set", accept(p.session.sid, "78", "gw a0")))
	if r := w.sent(); r.attr("type") != "result" {
		t.Errorf("got %s", r)
	}
	w.ack()
	if x := w.ack().Kids[0]; x.attr("action") != "session-initiate" || p.session.bridge == a {
		t.Errorf("got %s", x)
	}
}

func TestMute(t *testing.T) {
	t.Parallel()
	w, c, p := invited(t, Options{})
	c.member("other").role = "moderator"
	mute := func(from, jid, value string) *element {
		w.get(fromMember(c, from, "set", el(nsAudioMute, "mute", "jid", c.occupant(jid)).text(value)))
		return w.sent()
	}
	if r := mute("gw", "other", "true"); r.child("", "error").child(nsStanzas, "not-allowed") == nil {
		t.Errorf("a participant mutes: %s", r)
	}
	if r := mute("other", "gw", "true"); r.attr("type") != "result" {
		t.Errorf("got %s", r)
	}
	if m := w.ack().child(nsAudioMute, "mute"); m.Text != "true" || m.attr("actor") != c.occupant("other") || !p.forceMuted {
		t.Errorf("got %s", m)
	}
	if r := mute("other", "gw", "false"); r.child("", "error").child(nsStanzas, "not-allowed") == nil {
		t.Errorf("a moderator unmutes: %s", r)
	}
	if r := mute("gw", "gw", "false"); r.attr("type") != "result" || p.forceMuted {
		t.Errorf("got %s", r)
	}
	w.get(el("", "message", "from", "avmoderation.meet.example", "to", c.focusJID()).add(el(nsJitmeet, "json-message").text(
		`{"type":"av_moderation","room":"room@conference.meet.example","enabled":true,"actor":"x","mediaType":"audio"}`)))
	if m := w.ack().child(nsAudioMute, "mute"); m.Text != "true" || m.attr("actor") != "" {
		t.Errorf("got %s", m)
	}
	if r := mute("gw", "gw", "false"); r.child("", "error").child(nsStanzas, "not-allowed") == nil {
		t.Errorf("unmuted under moderation: %s", r)
	}
	w.get(el("", "message", "from", "avmoderation.meet.example", "to", c.focusJID()).add(el(nsJitmeet, "json-message").text(
		`{"type":"av_moderation","mediaType":"audio","room":"room@conference.meet.example","whitelists":{"audio":["room@conference.meet.example/gw"]}}`)))
	if r := mute("gw", "gw", "false"); r.attr("type") != "result" {
		t.Errorf("approved: %s", r)
	}
	w.mu.Lock()
	x := w.offer(c, p, "session-initiate")
	w.mu.Unlock()
	if x.child(nsStartMuted, "startmuted") == nil {
		t.Error("late joiners are not start-muted")
	}
}
