package jicofo

import (
	"context"
	"strings"
	"testing"
	"time"

	"brewline/internal/jitsitest/jvb"
	"brewline/internal/jitsitest/xmppd"
	"brewline/internal/prosodytest"
)

// server is an XMPP server to attach to.
type server struct {
	c2s, component, secret, domain string
}

func simulated(t *testing.T) server {
	t.Helper()
	s, err := xmppd.Start(xmppd.Options{Domain: "meet.example"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return server{s.C2SAddr(), s.ComponentAddr(), s.Options().ComponentSecret, s.Domain()}
}

// prosody is a real one.
func prosody(t *testing.T) server {
	t.Helper()
	s := prosodytest.Start(t, prosodytest.Options{RestrictRooms: true, Admins: []string{"focus@focus.meet.test"}})
	return server{s.C2SAddr(), s.ComponentAddr(), s.ComponentSecret, s.Domain}
}

// onServers runs a test behind both servers.
func onServers(t *testing.T, test func(t *testing.T, s server)) {
	t.Parallel()
	t.Run("simulated", func(t *testing.T) { t.Parallel(); test(t, simulated(t)) })
	t.Run("prosody", func(t *testing.T) { t.Parallel(); test(t, prosody(t)) })
}

func (s server) start(t *testing.T, o Options) *Jicofo {
	t.Helper()
	o.ComponentAddr, o.Domain, o.Secret = s.component, s.domain, s.secret
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	j, err := Start(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = j.Close() })
	return j
}

func (s server) member(t *testing.T, features ...string) *member {
	return login(t, s.c2s, s.domain, features...)
}

func (s server) room(name string) string { return name + "@conference." + s.domain }
func (s server) focus() string           { return "focus." + s.domain }

func await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if ok() {
			return
		}
	}
	t.Fatalf("not within 10 s: %s", what)
}

func TestConference(t *testing.T) {
	onServers(t, func(t *testing.T, s server) {
		b := startBridge(t)
		j := s.start(t, Options{Bridges: []*jvb.Bridge{b}, SingleTimeout: 300 * time.Millisecond})
		room := s.room("standup")
		alice, bob := s.member(t, featureAudio), s.member(t, featureAudio, featureJSON)
		alice.request(s.focus(), room)
		alice.join(room, "aaaaaaaa")
		await(t, "alice's disco", func() bool {
			r, _ := j.Room("standup")
			return len(r.Participants) == 1 && len(r.Participants[0].Features) == 1
		})
		if alice.saw(func(e *element) bool { return isJingle(e, "session-initiate") }) {
			t.Error("alice was invited alone")
		}
		await(t, "alice to own the room", func() bool {
			r, _ := j.Room("standup")
			return r.Participants[0].Affiliation == "owner" && r.Participants[0].Role == "moderator"
		})

		bob.request(s.focus(), room)
		bob.join(room, "bbbbbbbb")
		sa := alice.jingle("session-initiate").attr("sid")
		alice.accept(sa, "1001")
		x := bob.jingle("session-initiate")
		bob.accept(x.attr("sid"), "2002")

		got, err := parseSources(alice.jingle("source-add"), "")
		if err != nil || len(got) != 1 || got[0].SSRC != 2002 {
			t.Errorf("alice was told %v, %v", got, err)
		}
		// Bob has alice's from the offer or from a source-add.
		if !strings.Contains(x.String(), "1001") {
			got, err := parseSources(bob.jingle("source-add"), "")
			if err != nil || len(got) != 1 || got[0].SSRC != 1001 {
				t.Errorf("bob was told %v, %v", got, err)
			}
		}
		r, ok := j.Room(room)
		if !ok || len(b.Endpoints(r.MeetingID)) != 2 {
			t.Fatalf("%v, %d endpoints", ok, len(b.Endpoints(r.MeetingID)))
		}
		if len(r.Problems) > 0 {
			t.Error(r.Problems)
		}

		bob.leave()
		e := alice.jingle("session-terminate")
		if e.child("", "reason").child("", "expired") == nil || e.child("", "reason").child("", "text").Text != "Idle session timeout" {
			t.Errorf("got %s", e)
		}
		if alice.saw(func(e *element) bool { return isJingle(e, "source-remove") }) {
			t.Error("source-remove for a member that left")
		}
		await(t, "the endpoints to be gone", func() bool { return len(b.Endpoints("")) == 0 })

		carol := s.member(t, featureAudio)
		carol.join(room, "cccccccc")
		if sid := alice.jingle("session-initiate").attr("sid"); sid == sa {
			t.Error("the same sid again")
		}
		carol.jingle("session-initiate")

		alice.leave()
		carol.leave()
		await(t, "the conference to end", func() bool { return len(j.Rooms()) == 0 })
		if n := len(b.Endpoints("")); n != 0 {
			t.Errorf("%d endpoints left", n)
		}
	})
}

func TestJoinWithinSingleTimeout(t *testing.T) {
	onServers(t, func(t *testing.T, s server) {
		j := s.start(t, Options{Bridges: []*jvb.Bridge{startBridge(t)}})
		room := s.room("standup")
		alice, bob, carol := s.member(t, featureAudio), s.member(t, featureAudio), s.member(t, featureAudio)
		alice.request(s.focus(), room)
		alice.join(room, "aaaaaaaa")
		bob.join(room, "bbbbbbbb")
		alice.accept(alice.jingle("session-initiate").attr("sid"), "1")
		bob.leave()
		await(t, "bob to be gone", func() bool { r, _ := j.Room(room); return len(r.Participants) == 1 })
		carol.join(room, "cccccccc")
		carol.accept(carol.jingle("session-initiate").attr("sid"), "3")
		got, _ := parseSources(alice.jingle("source-add"), "")
		if len(got) != 1 || got[0].SSRC != 3 {
			t.Errorf("got %v", got)
		}
		if r, _ := j.Room(room); r.Participants[0].Invites != 1 {
			t.Errorf("alice was invited %d times", r.Participants[0].Invites)
		}
	})
}

// TestLockedRoom has a Prosody as it comes: new rooms are locked until they
// are configured, and hide real JIDs.
func TestLockedRoom(t *testing.T) {
	t.Parallel()
	p := prosodytest.Start(t, prosodytest.Options{Extra: "Component \"locked.meet.test\" \"muc\"\n\tmuc_room_locking = true\n"})
	s := server{p.C2SAddr(), p.ComponentAddr(), p.ComponentSecret, p.Domain}
	s.start(t, Options{MUC: "locked.meet.test", Bridges: []*jvb.Bridge{startBridge(t)}})
	alice, bob := s.member(t, featureAudio), s.member(t, featureAudio)
	room := "standup@locked.meet.test"
	alice.request(s.focus(), room)
	alice.join(room, "aaaaaaaa")
	bob.join(room, "bbbbbbbb")
	bob.jingle("session-initiate")
	alice.await("bob's real JID", func(e *element) bool {
		return e.attr("from") == room+"/bbbbbbbb" && e.child(nsMUCUser, "x").child("", "item").attr("jid") == bob.jid
	})
}

func TestDiscoTimeout(t *testing.T) {
	onServers(t, func(t *testing.T, s server) {
		s.start(t, Options{Bridges: []*jvb.Bridge{startBridge(t)}, DiscoTimeout: 200 * time.Millisecond})
		room := s.room("standup")
		alice, mute := s.member(t, featureAudio), s.member(t)
		mute.mu.Lock()
		mute.silent = true
		mute.mu.Unlock()
		alice.request(s.focus(), room)
		alice.join(room, "aaaaaaaa")
		mute.join(room, "bbbbbbbb")
		x := mute.jingle("session-initiate")
		if n := len(x.children("content")); n != 2 { // the default: audio and video
			t.Errorf("%d contents in %s", n, x)
		}
		if x := alice.jingle("session-initiate"); len(x.children("content")) != 1 {
			t.Errorf("alice got %s", x)
		}
	})
}

func TestInitialTimeout(t *testing.T) {
	onServers(t, func(t *testing.T, s server) {
		j := s.start(t, Options{InitialTimeout: 100 * time.Millisecond})
		alice := s.member(t, featureAudio)
		alice.request(s.focus(), s.room("standup"))
		await(t, "the focus to leave", func() bool { return len(j.Rooms()) == 0 })
		await(t, "the room to vanish", func() bool {
			e := alice.ask("get", s.room("standup"), el(nsDisco, "query"))
			return e.child("", "error").child(nsStanzas, "item-not-found") != nil
		})
	})
}

func TestDeathAndReturn(t *testing.T) {
	onServers(t, func(t *testing.T, s server) {
		b := startBridge(t)
		j := s.start(t, Options{Bridges: []*jvb.Bridge{b}})
		room := s.room("standup")
		alice, bob := s.member(t, featureAudio), s.member(t, featureAudio)
		alice.request(s.focus(), room)
		alice.join(room, "aaaaaaaa")
		bob.join(room, "bbbbbbbb")
		sid := alice.jingle("session-initiate").attr("sid")
		bob.jingle("session-initiate")
		j.Kill()
		alice.await("the focus to vanish", func(e *element) bool {
			return e.Name == "presence" && e.attr("type") == "unavailable" && e.attr("from") == room+"/focus"
		})
		if n := len(b.Endpoints("")); n != 2 {
			t.Errorf("%d endpoints: media does not go on", n)
		}
		r := alice.ask("set", s.focus(), el(nsFocus, "conference", "room", room))
		if r.attr("type") != "error" {
			t.Errorf("the dead focus answers %s", r)
		}
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := j.Return(ctx); err != nil {
			t.Fatal(err)
		}
		if len(j.Rooms()) != 0 {
			t.Error("back in the room unasked")
		}
		bob.request(s.focus(), room)
		if again := alice.jingle("session-initiate").attr("sid"); again == sid {
			t.Error("the same sid")
		}
		bob.jingle("session-initiate")
	})
}

func TestConferenceVerdicts(t *testing.T) {
	t.Parallel()
	s := simulated(t)
	j := s.start(t, Options{})
	alice := s.member(t)
	room := s.room("standup")
	ask := func() *element {
		return alice.ask("set", s.focus(), el(nsFocus, "conference", "room", room, "machine-uid", "m", "token", "jwt").add(
			el("", "property", "name", "rtcstatsEnabled", "value", "false")))
	}
	for _, tt := range []struct {
		name string
		v    Verdict
		ok   func(r, err *element) bool
	}{
		{"not ready", Verdict{Kind: NotReady}, func(r, _ *element) bool { return r.child(nsFocus, "conference").attr("ready") == "false" }},
		{"not authorized", Verdict{Kind: NotAuthorized}, func(_, e *element) bool { return e.child(nsStanzas, "not-authorized") != nil }},
		{"not acceptable", Verdict{Kind: NotAcceptable}, func(_, e *element) bool {
			return e.child(nsStanzas, "not-acceptable") != nil && e.child(nsFocus, "session-invalid") == nil
		}},
		{"session invalid", Verdict{Kind: SessionInvalid}, func(_, e *element) bool { return e.child(nsFocus, "session-invalid") != nil }},
		{"reservation", Verdict{Kind: ReservationError, Code: 402, Text: "pay"}, func(_, e *element) bool {
			return e.child(nsFocus, "reservation-error").attr("error-code") == "402" && e.child(nsStanzas, "text").Text == "pay"
		}},
		{"unavailable", Verdict{Kind: ServiceUnavailable}, func(_, e *element) bool { return e.child(nsStanzas, "service-unavailable") != nil }},
		{"ready", Verdict{}, func(r, _ *element) bool {
			x := r.child(nsFocus, "conference")
			return x.attr("ready") == "true" && x.attr("focusjid") == "focus@focus.meet.example" && len(x.children("property")) == 3
		}},
	} {
		j.SetConferencePolicy(func(ConferenceRequest) Verdict { return tt.v })
		if r := ask(); !tt.ok(r, r.child("", "error")) {
			t.Errorf("%s: got %s", tt.name, r)
		}
	}
	rs := j.Requests()
	if last := rs[len(rs)-1]; last.Attempt != len(rs) || last.From != alice.jid || last.Room != room ||
		last.MachineUID != "m" || last.Token != "jwt" || last.Properties["rtcstatsEnabled"] != "false" {
		t.Errorf("recorded %+v", last)
	}
}

func TestSilence(t *testing.T) {
	t.Parallel()
	s := simulated(t)
	j := s.start(t, Options{Bridges: []*jvb.Bridge{startBridge(t)}})
	j.SetSilent(true)
	room := s.room("standup")
	alice, bob := s.member(t, featureAudio), s.member(t, featureAudio)
	alice.request(s.focus(), room)
	alice.join(room, "aaaaaaaa")
	bob.join(room, "bbbbbbbb")
	await(t, "both to be known", func() bool {
		r, _ := j.Room(room)
		return len(r.Participants) == 2 && len(r.Participants[1].Features) == 1
	})
	if r, _ := j.Room(room); r.Participants[0].Invites+r.Participants[1].Invites != 0 {
		t.Error("invited")
	}
	j.SetSilent(false)
	alice.jingle("session-initiate")
	bob.jingle("session-initiate")
}

func TestSourceDelay(t *testing.T) {
	t.Parallel()
	s := simulated(t)
	b := startBridge(t)
	s.start(t, Options{Bridges: []*jvb.Bridge{b}, SourceDelay: 300 * time.Millisecond})
	room := s.room("standup")
	alice, bob := s.member(t, featureAudio), s.member(t, featureAudio)
	alice.request(s.focus(), room)
	alice.join(room, "aaaaaaaa")
	bob.join(room, "bbbbbbbb")
	alice.accept(alice.jingle("session-initiate").attr("sid"), "1")
	begin := time.Now()
	bob.accept(bob.jingle("session-initiate").attr("sid"), "2")
	alice.jingle("source-add")
	if d := time.Since(begin); d < 250*time.Millisecond {
		t.Errorf("told after %s", d)
	}
}

func TestWrongSecret(t *testing.T) {
	onServers(t, func(t *testing.T, s server) {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		_, err := Start(ctx, Options{ComponentAddr: s.component, Domain: s.domain, Secret: "wrong"})
		if err == nil {
			t.Error("attached with a wrong secret")
		}
	})
}

func TestReconnects(t *testing.T) {
	t.Parallel()
	s := simulated(t)
	j := s.start(t, Options{ReconnectInterval: 10 * time.Millisecond})
	j.mu.Lock()
	old := j.comp
	j.mu.Unlock()
	_ = old.conn.Close()
	await(t, "a new connection", func() bool {
		j.mu.Lock()
		defer j.mu.Unlock()
		return j.comp != nil && j.comp != old
	})
	alice := s.member(t)
	alice.request(s.focus(), s.room("standup"))
}
