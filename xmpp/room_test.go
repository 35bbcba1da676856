package xmpp_test

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"brewline/xmpp"
)

// with changes the address a recorded stanza comes from.
func with(stanza, from, to string) string { return strings.ReplaceAll(stanza, from, to) }

func joinRefusal(typ, inner string) string {
	return `<presence xmlns='jabber:client' type='error' from='r@conference.meet.shard1.test/ab12cd34'><error type='` + typ + `'>` + inner + `</error></presence>`
}

func condition(name string) string {
	return "<" + name + " xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/>"
}

func text(s string) string {
	return "<text xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'>" + s + "</text>"
}

func TestJoinErrors(t *testing.T) {
	t.Parallel()
	recorded := func(file, nick string) string {
		for _, s := range stanzas(t, file) {
			if strings.Contains(s, `type="error"`) && strings.HasPrefix(s, "<presence") {
				return with(with(with(with(s, "pwroom73b5", "r"), "lobbyroom73b5@conference", "r@conference"), "nofocus", "r"), "/"+nick+`"`, `/ab12cd34"`)
			}
		}
		t.Fatalf("%s: no error", file)
		return ""
	}
	lobby := xmpp.MustParseJID("lobbyroom73b5@lobby.meet.shard1.test")
	for _, tc := range []struct {
		name, answer string
		want         xmpp.JoinError
	}{
		{"password, recorded", recorded("policy-password", "bcc356a5"), xmpp.JoinError{Kind: xmpp.JoinPassword, Condition: "not-authorized"}},
		{"lobby, recorded", recorded("policy-lobby", "f3f8eb43"), xmpp.JoinError{Kind: xmpp.JoinLobby, Condition: "registration-required", Lobby: lobby}},
		{"no room, recorded", recorded("guest-domain", "7MBrwGJs"), xmpp.JoinError{Kind: xmpp.JoinNoRoom, Condition: "not-allowed", Text: "Room creation is restricted"}},
		{"lobby, waiting for host", joinRefusal("auth", condition("registration-required")+"<lobbyroom xmlns='http://jitsi.org/jitmeet'>lobbyroom73b5@lobby.meet.shard1.test</lobbyroom><waiting-for-host xmlns='http://jitsi.org/jitmeet'/>"),
			xmpp.JoinError{Kind: xmpp.JoinLobby, Condition: "registration-required", Lobby: lobby, WaitingForHost: true}},
		{"lobby, only the child of presence", `<presence xmlns='jabber:client' type='error' from='r@conference.meet.shard1.test/ab12cd34'><error type='auth' code='407'>` + condition("registration-required") + `</error><lobbyroom>lobbyroom73b5@lobby.meet.shard1.test</lobbyroom></presence>`,
			xmpp.JoinError{Kind: xmpp.JoinLobby, Condition: "registration-required", Lobby: lobby}},
		{"members only", joinRefusal("auth", condition("registration-required")), xmpp.JoinError{Kind: xmpp.JoinNotAllowed, Condition: "registration-required"}},
		{"display name", joinRefusal("modify", condition("not-acceptable")+"<displayname-required xmlns='http://jitsi.org/jitmeet' lobby='true'/>"), xmpp.JoinError{Kind: xmpp.JoinDisplayName, Condition: "not-acceptable"}},
		{"not acceptable", joinRefusal("modify", condition("not-acceptable")), xmpp.JoinError{Kind: xmpp.JoinOther, Condition: "not-acceptable"}},
		{"full", joinRefusal("cancel", condition("service-unavailable")), xmpp.JoinError{Kind: xmpp.JoinFull, Condition: "service-unavailable"}},
		{"no room by child", joinRefusal("cancel", condition("not-allowed")+"<room-does-not-exist xmlns='http://jitsi.org/jitmeet'/>"), xmpp.JoinError{Kind: xmpp.JoinNoRoom, Condition: "not-allowed"}},
		{"no room by condition", joinRefusal("cancel", condition("item-not-found")), xmpp.JoinError{Kind: xmpp.JoinNoRoom, Condition: "item-not-found"}},
		{"authentication", joinRefusal("cancel", condition("not-allowed")+"<authentication-required xmlns='http://jitsi.org/jitmeet'/>"), xmpp.JoinError{Kind: xmpp.JoinAuthRequired, Condition: "not-allowed"}},
		{"nick", joinRefusal("cancel", condition("not-allowed")+text("Invalid resource")), xmpp.JoinError{Kind: xmpp.JoinBadNick, Condition: "not-allowed", Text: "Invalid resource"}},
		{"malformed nick", joinRefusal("modify", condition("jid-malformed")), xmpp.JoinError{Kind: xmpp.JoinBadNick, Condition: "jid-malformed"}},
		{"token of another room", joinRefusal("cancel", condition("not-allowed")+text("Room and token mismatched")), xmpp.JoinError{Kind: xmpp.JoinNotAllowed, Condition: "not-allowed", Text: "Room and token mismatched"}},
		{"banned", joinRefusal("auth", condition("forbidden")), xmpp.JoinError{Kind: xmpp.JoinBanned, Condition: "forbidden"}},
		{"conflict", joinRefusal("cancel", condition("conflict")), xmpp.JoinError{Kind: xmpp.JoinConflict, Condition: "conflict"}},
		{"from the bare room", `<presence xmlns='jabber:client' type='error' from='r@conference.meet.shard1.test'><error type='auth'>` + condition("forbidden") + `</error></presence>`,
			xmpp.JoinError{Kind: xmpp.JoinBanned, Condition: "forbidden"}},
		{"unknown", joinRefusal("wait", condition("remote-server-timeout")), xmpp.JoinError{Kind: xmpp.JoinOther, Condition: "remote-server-timeout"}},
		{"nothing inside", `<presence xmlns='jabber:client' type='error' from='r@conference.meet.shard1.test/ab12cd34'/>`, xmpp.JoinError{Kind: xmpp.JoinOther, Condition: "undefined-condition"}},
		{"kicked while joining", `<presence xmlns='jabber:client' type='unavailable' from='r@conference.meet.shard1.test/ab12cd34'><x xmlns='http://jabber.org/protocol/muc#user'><item role='none'><reason>no</reason></item><status code='110'/><status code='307'/></x></presence>`,
			xmpp.JoinError{Kind: xmpp.JoinNotAllowed, Text: "no"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			f := newFake(t)
			s := f.dial(f.options())
			_, err := f.join(s, xmpp.RoomOptions{Room: xmpp.MustParseJID("r@conference.meet.shard1.test"), Nick: "ab12cd34"},
				// None of our business, and no answer to our presence.
				`<presence xmlns='jabber:client' type='error' from='r@conference.meet.shard1.test/other'><error type='auth'>`+condition("not-authorized")+`</error></presence>`,
				`<presence xmlns='jabber:client' type='error' from='other@conference.meet.shard1.test/ab12cd34'><error type='auth'>`+condition("not-authorized")+`</error></presence>`,
				tc.answer)
			var got *xmpp.JoinError
			if !errors.As(err, &got) {
				t.Fatalf("Join: %v", err)
			}
			tc.want.Err = got.Err
			if *got != tc.want {
				t.Errorf("got %+v, want %+v", *got, tc.want)
			}
			if err.Error() == "" || got.Kind.String() == "" {
				t.Error("no text")
			}
			// The room can be tried again.
			if _, err := f.join(s, xmpp.RoomOptions{Room: xmpp.MustParseJID("r@conference.meet.shard1.test"), Nick: "ab12cd34", Password: "p"},
				selfPresence("r@conference.meet.shard1.test/ab12cd34")); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestJoinTimeout(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	s := f.dial(f.options())
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	_, err := s.Join(ctx, xmpp.RoomOptions{Room: xmpp.MustParseJID("r@conference.meet.shard1.test"), Nick: "ab12cd34"})
	var je *xmpp.JoinError
	if !errors.As(err, &je) || je.Kind != xmpp.JoinTimeout || !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("Join: %v", err)
	}
	f.expect("join")
	if leave := f.expect("leave"); leave != `<presence xmlns="jabber:client" type="unavailable" to="r@conference.meet.shard1.test/ab12cd34"></presence>` {
		t.Errorf("leave %s", leave)
	}
}

// children are the elements of a presence by name and content, without what
// differs from call to call.
func children(t *testing.T, presence string) map[string]string {
	t.Helper()
	var p struct {
		Children []struct {
			XMLName xml.Name
			Inner   string `xml:",innerxml"`
		} `xml:",any"`
	}
	if err := xml.Unmarshal([]byte(presence), &p); err != nil {
		t.Fatalf("%v: %s", err, presence)
	}
	out := map[string]string{}
	for _, c := range p.Children {
		inner := strings.Join(strings.Fields(c.Inner), " ")
		inner = strings.NewReplacer("> <", "><", "></feature>", "/>", "></header>", "/>").Replace(inner)
		out[c.XMLName.Space+" "+c.XMLName.Local] = inner
	}
	return out
}

func TestPresenceAsJigasi(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	s := f.dial(f.options())
	var recorded, update string
	for _, p := range stanzas(t, "real-jigasi-leg1") {
		if strings.Contains(p, `to="sipin2@conference.meet.shard1.test/6f60857b"`) && !strings.Contains(p, "unavailable") {
			if recorded == "" {
				recorded = p
			} else if update == "" {
				update = p
			}
		}
	}
	room := xmpp.MustParseJID("sipin2@conference.meet.shard1.test")
	done := make(chan *xmpp.Room, 1)
	ctx := within(t)
	go func() {
		r, err := s.Join(ctx, xmpp.RoomOptions{Room: room, Nick: "6f60857b", Presence: xmpp.OwnPresence{
			DisplayName: "caller", Version: "Jigasi 1.1.SNAPSHOT", Features: xmpp.PresenceFeatures, SourceName: "6f60857b-a0",
			Initiator: []xmpp.Header{{Name: "JigasiCallDirection", Value: "in"}}}})
		if err != nil {
			t.Error(err)
		}
		done <- r
	}()
	join := f.expect("join")
	check := func(got, want string) {
		t.Helper()
		g, w := children(t, got), children(t, want)
		if g["jabber:client SourceInfo"] == "" {
			t.Error("no SourceInfo")
		}
		delete(g, "jabber:client SourceInfo")
		if d := cmp.Diff(w, g); d != "" {
			t.Error(d)
		}
		if attribute(got, "to") != attribute(want, "to") {
			t.Errorf("to %s", attribute(got, "to"))
		}
	}
	check(join, with(recorded, "<presence ", "<presence xmlns='jabber:client' "))
	f.push(selfPresence("sipin2@conference.meet.shard1.test/6f60857b"))
	r := await(t, done, "join")
	if err := r.Update(func(p *xmpp.OwnPresence) { p.Status = "Initializing Call" }); err != nil {
		t.Fatal(err)
	}
	check(f.expect("update"), with(update, "<presence ", "<presence xmlns='jabber:client' "))
	if err := r.Update(func(p *xmpp.OwnPresence) {
		p.AudioMuted, p.Region, p.StatsID, p.RaisedHand = true, "eu-1", "gw", time.UnixMilli(1795359589894)
		p.Stats = map[string]string{"participants": "3", "conferences": "2"}
	}); err != nil {
		t.Fatal(err)
	}
	g := children(t, f.expect("update"))
	for name, want := range map[string]string{
		"jabber:client SourceInfo": `{&#34;6f60857b-a0&#34;:{&#34;muted&#34;:true}}`, "jabber:client audiomuted": "true", "jabber:client stats-id": "gw",
		"jabber:client jitsi_participant_region": "eu-1", "jabber:client jitsi_participant_raisedHand": "1795359589894",
		"http://jitsi.org/jitsi-meet region": "", "jabber:client status": "Initializing Call",
		"http://jitsi.org/protocol/colibri stats": `<stat name="conferences" value="2"></stat><stat name="participants" value="3"></stat>`,
	} {
		if got, ok := g[name]; !ok || got != want {
			t.Errorf("%s: %s", name, got)
		}
	}
	if err := r.Leave(); err != nil {
		t.Fatal(err)
	}
	if leave := f.expect("leave"); attribute(leave, "type") != "unavailable" {
		t.Errorf("leave %s", leave)
	}
	if r.Leave() != nil || len(f.said) != 0 {
		t.Error("left twice")
	}
}

func TestThrownOut(t *testing.T) {
	t.Parallel()
	presence := func(inner string) string {
		return `<presence xmlns='jabber:client' type='unavailable' from='r@conference.meet.shard1.test/ab12cd34'><x xmlns='http://jabber.org/protocol/muc#user'>` + inner + `<status code='110'/></x></presence>`
	}
	first := func(file string) string {
		for _, s := range stanzas(t, file) {
			if strings.HasPrefix(s, "<presence") {
				return strings.NewReplacer("lobbyroom73b5@conference", "r@conference", "/f3f8eb43\"", "/ab12cd34\"", "/406d9cf7\"", "/ab12cd34\"").Replace(s)
			}
		}
		t.Fatal(file)
		return ""
	}
	for _, tc := range []struct {
		name, stanza string
		kind         xmpp.RoomEventKind
		reason, alt  string
	}{
		{"kick, recorded", first("policy-kick"), xmpp.Kicked, "bye", ""},
		{"end, recorded", first("policy-end-conference"), xmpp.Destroyed, "The meeting has been terminated", ""},
		{"ban", presence(`<item affiliation='outcast' role='none'><reason>out</reason></item><status code='301'/>`), xmpp.Banned, "out", ""},
		{"destroyed for another", presence(`<item role='none'/><destroy jid='b@conference.meet.test'><reason>moved</reason></destroy>`), xmpp.Destroyed, "moved", "b@conference.meet.test"},
		{"shut down", presence(`<item role='none'/><status code='332'/>`), xmpp.SelfLeft, "", ""},
		{"technical problem", presence(`<item role='none'/><status code='333'/>`), xmpp.SelfLeft, "", ""},
		{"not in the room any more", joinRefusal("cancel", condition("not-acceptable")+text("You are not currently connected to this chat")), xmpp.SelfLeft, "cancel/not-acceptable: You are not currently connected to this chat", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			f := newFake(t)
			s := f.dial(f.options())
			seen := make(events, 10)
			r, err := f.join(s, xmpp.RoomOptions{Room: xmpp.MustParseJID("r@conference.meet.shard1.test"), Nick: "ab12cd34", On: seen.on},
				selfPresence("r@conference.meet.shard1.test/ab12cd34"))
			if err != nil {
				t.Fatal(err)
			}
			f.push(tc.stanza, tc.stanza)
			ev := seen.next(t, tc.kind)
			if ev.Reason != tc.reason || ev.Alternate.String() != tc.alt {
				t.Errorf("%+v", ev)
			}
			if err := r.Update(func(*xmpp.OwnPresence) {}); err == nil {
				t.Error("still updates")
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
			if len(seen) != 0 {
				t.Errorf("then %+v", <-seen)
			}
		})
	}
}

func TestRoomChanges(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	s := f.dial(f.options())
	seen := make(events, 100)
	room := "judgeroom095c@conference.meet.shard1.test"
	all := stanzas(t, "muc-presences-seen-by-alice")
	r, err := f.join(s, xmpp.RoomOptions{Room: xmpp.MustParseJID(room), Nick: "50707b25", On: seen.on}, all[:2]...)
	if err != nil {
		t.Fatal(err)
	}
	f.push(all[2:]...)
	f.push(`<message xmlns='jabber:client' type='groupchat' from='`+room+`'><x xmlns='http://jabber.org/protocol/muc#user'><status code='104'/></x></message>`,
		`<presence xmlns='jabber:client' from='`+room+`/focus'><bridgeNotAvailable xmlns='http://jitsi.org/protocol/focus'/></presence>`,
		`<presence xmlns='jabber:client' type='unavailable' from='`+room+`/focus'/>`,
		`<presence xmlns='jabber:client' type='unavailable' from='`+room+`/nobody'/>`)
	var kinds []string
	for {
		ev := await(t, seen, "event")
		kinds = append(kinds, ev.Kind.String())
		if ev.Kind == xmpp.FocusChanged && len(kinds) > 8 && !ev.Presence.BridgeNotAvailable {
			t.Error("bridge available")
		}
		if ev.Kind == xmpp.FocusLeft {
			break
		}
	}
	want := []string{"focus-joined", "self-changed", "occupant-joined", "focus-changed", "occupant-joined", "occupant-joined", "occupant-left", "config-changed", "focus-changed", "focus-left"}
	if !slices.Equal(kinds, want) {
		t.Errorf("events %v", kinds)
	}
	if r.Focus() || len(r.Occupants()) != 2 || r.Self().Affiliation != "owner" {
		t.Errorf("focus %t, %d occupants, self %+v", r.Focus(), len(r.Occupants()), r.Self())
	}
	if os := r.Occupants(); !os[1].Gateway || os[0].Gateway {
		t.Errorf("gateways: %+v", os)
	}
}

func TestLobby(t *testing.T) {
	t.Parallel()
	rec := stanzas(t, "policy-lobby")
	var self string
	for _, s := range rec {
		if strings.HasPrefix(s, "<presence") && strings.Contains(s, `from="lobbyroom73b5@lobby.meet.shard1.test/f3f8eb43"`) {
			self = s
			break
		}
	}
	disabled := stanzas(t, "policy-lobby-disabled")[1]
	denied := strings.ReplaceAll(stanzas(t, "policy-lobby-denied")[0], "/cb541637", "/f3f8eb43")
	for _, tc := range []struct {
		name string
		push []string
		want xmpp.LobbyResult
	}{
		{"admitted, recorded", []string{invitation(rec)}, xmpp.LobbyResult{Outcome: xmpp.LobbyAdmitted}},
		{"admitted with a password", []string{`<message xmlns='jabber:client' from='lobbyroom73b5@conference.meet.shard1.test'><x xmlns='http://jabber.org/protocol/muc#user'><invite from='a@b'/><password>4242</password></x></message>`},
			xmpp.LobbyResult{Outcome: xmpp.LobbyAdmitted, Password: "4242"}},
		{"denied, recorded", []string{denied}, xmpp.LobbyResult{Outcome: xmpp.LobbyDenied}},
		{"disabled, recorded", []string{disabled}, xmpp.LobbyResult{Outcome: xmpp.LobbyDisabled, Reason: "Lobby room closed."}},
		{"ended", []string{`<presence xmlns='jabber:client' type='unavailable' from='lobbyroom73b5@lobby.meet.shard1.test/f3f8eb43'><x xmlns='http://jabber.org/protocol/muc#user'><destroy><reason>over</reason></destroy><item role='none'/><status code='110'/></x></presence>`},
			xmpp.LobbyResult{Outcome: xmpp.LobbyEnded, Reason: "over"}},
		{"invitation of an occupant is none", []string{
			strings.Replace(invitation(rec), `from="lobbyroom73b5@conference.meet.shard1.test"`, `from="lobbyroom73b5@conference.meet.shard1.test/56b4f4e5"`, 1),
			strings.Replace(invitation(rec), `from="lobbyroom73b5@conference.meet.shard1.test"`, `from="lobbyroom73b5@lobby.meet.shard1.test"`, 1),
			denied}, xmpp.LobbyResult{Outcome: xmpp.LobbyDenied}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			f := newFake(t)
			s := f.dial(f.options())
			type result struct {
				l   *xmpp.Lobby
				err error
			}
			entered := make(chan result, 1)
			ctx := within(t)
			go func() {
				l, err := s.EnterLobby(ctx, xmpp.LobbyOptions{Lobby: xmpp.MustParseJID("lobbyroom73b5@lobby.meet.shard1.test"),
					Room: xmpp.MustParseJID("lobbyroom73b5@conference.meet.shard1.test"), Nick: "f3f8eb43", DisplayName: "lobbyguest"})
				entered <- result{l, err}
			}()
			if join := f.expect("join"); attribute(join, "to") != "lobbyroom73b5@lobby.meet.shard1.test/f3f8eb43" || !strings.Contains(join, ">lobbyguest<") {
				t.Errorf("join %s", join)
			}
			f.push(self)
			res := await(t, entered, "lobby")
			if res.err != nil {
				t.Fatal(res.err)
			}
			short, cancel := context.WithCancel(context.Background())
			cancel()
			if _, err := res.l.Wait(short); !errors.Is(err, context.Canceled) {
				t.Errorf("Wait: %v", err)
			}
			f.push(tc.push...)
			got, err := res.l.Wait(ctx)
			if err != nil || got != tc.want {
				t.Errorf("got %+v, %v", got, err)
			}
			if err := res.l.Leave(); err != nil {
				t.Error(err)
			}
		})
	}
}

// invitation is the invitation that the guest received.
func invitation(rec []string) string {
	for _, s := range rec {
		if strings.HasPrefix(s, "<message") && strings.Contains(s, "<invite from=") {
			return s
		}
	}
	panic("no invitation recorded")
}

func TestConferenceRequest(t *testing.T) {
	t.Parallel()
	reply := func(inner string) string {
		return `<iq xmlns='jabber:client' type='error' from='focus.meet.shard1.test' id='%s'><error type='cancel'>` + inner + `</error></iq>`
	}
	ready := `<iq xmlns='jabber:client' type='result' from='focus.meet.shard1.test' id='%s'><conference xmlns='http://jitsi.org/protocol/focus' ready='true' vnode='v1' session-id='s2'/></iq>`
	notReady := strings.Replace(ready, "ready='true'", "ready='false'", 1)
	invalid := reply(condition("not-acceptable") + "<session-invalid xmlns='http://jitsi.org/protocol/focus'/>")
	for _, tc := range []struct {
		name, session string
		answers       []string
		want          error
	}{
		{"ready", "", []string{ready}, nil},
		{"not ready at first", "", []string{notReady, notReady, ready}, nil},
		{"session forgotten", "s1", []string{invalid, ready}, nil},
		{"session invalid for good", "s1", []string{invalid, invalid}, xmpp.ErrSessionInvalid},
		{"host not there", "", []string{reply(condition("not-authorized"))}, xmpp.ErrNotAuthorized},
		{"no focus", "", []string{reply(condition("service-unavailable"))}, xmpp.ErrNoFocus},
		{"no such domain, no s2s", "", []string{reply(condition("not-allowed") + text("Communication with remote domains is not enabled"))}, xmpp.ErrNoFocus},
		{"reservation", "", []string{reply(condition("service-unavailable") + "<reservation-error error-code='1' xmlns='http://jitsi.org/protocol/focus'/>" + text("no"))}, xmpp.ErrReservation},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			f := newFake(t)
			o := f.options()
			o.ReadyRetry = time.Millisecond
			s := f.dial(o)
			done := make(chan error, 1)
			ctx := within(t)
			go func() {
				r, err := s.RequestConference(ctx, xmpp.ConferenceRequest{Focus: xmpp.JID{Domain: "focus.meet.shard1.test"},
					Room: xmpp.MustParseJID("r@conference.meet.shard1.test"), SessionID: tc.session})
				if err == nil && (r.VNode != "v1" || r.SessionID != "s2") {
					t.Errorf("reply %+v", r)
				}
				done <- err
			}()
			for i, a := range tc.answers {
				q := f.expect("request")
				if has := strings.Contains(q, "session-id"); has != (tc.session != "" && i == 0) {
					t.Errorf("request %d: %s", i, q)
				}
				f.push(fmt.Sprintf(a, attribute(q, "id")))
			}
			err := await(t, done, "result")
			if !errors.Is(err, tc.want) {
				t.Errorf("got %v", err)
			}
			var se *xmpp.StanzaError
			if tc.want != nil && !errors.As(err, &se) {
				t.Errorf("no stanza error in %v", err)
			}
		})
	}
	t.Run("never ready", func(t *testing.T) {
		t.Parallel()
		f := newFake(t)
		o := f.options()
		o.ReadyRetry = time.Hour
		s := f.dial(o)
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() {
			_, err := s.RequestConference(ctx, xmpp.ConferenceRequest{Focus: xmpp.JID{Domain: "focus.meet.shard1.test"}, Room: xmpp.MustParseJID("r@c")})
			done <- err
		}()
		f.push(fmt.Sprintf(notReady, attribute(f.expect("request"), "id")))
		cancel()
		if err := await(t, done, "result"); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
	})
}
