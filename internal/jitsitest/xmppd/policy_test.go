package xmppd

import (
	"errors"
	"strings"
	"testing"

	"brewline/internal/jitsitest/client"
)

// A capture's stanzas, by the comment above them.
func commented(t *testing.T, file, comment string) []*element {
	t.Helper()
	for _, ev := range recordedComments(t, file) {
		if strings.HasPrefix(ev[0], comment) {
			var out []*element
			in := newXMLReader(strings.NewReader(ev[1]), 1<<20)
			for {
				e, err := in.element()
				if err != nil {
					return out
				}
				out = append(out, e)
			}
		}
	}
	t.Fatalf("%s has no %q", file, comment)
	return nil
}

// hall is a room with a focus and a moderator.
type hall struct {
	*script
	mod *user
}

func newHall(t *testing.T, node string, o Options) *hall {
	t.Helper()
	o.Domain = "meet.shard1.test"
	h := &hall{script: &script{t: t, s: start(t, o), room: node + "@conference.meet.shard1.test", people: map[string]*user{}}}
	h.f = attach(t, h.s, nil)
	h.mod = join(t, h.s, client.Options{Room: node})
	h.mod.conference(h.s.o.Focus, h.room)
	j, _ := parseJID(h.mod.JID())
	if err := h.s.SetAffiliation(h.room, j.bare().String(), "owner"); err != nil {
		t.Fatal(err)
	}
	h.mod.enter(h.room, "56b4f4e5", "<nick xmlns='"+nsNick+"'>mod2</nick>")
	h.mod.await("self", isPresence(h.room+"/56b4f4e5", ""))
	return h
}

func (h *hall) guest() *user {
	return join(h.t, h.s, client.Options{Room: strings.SplitN(h.room, "@", 2)[0]})
}

// same compares with a recorded stanza; the time of its sending does not matter.
func (h *hall) same(what string, got, want *element) {
	h.t.Helper()
	if a, b := shape(want, 0), shape(got, 0); a != b {
		h.t.Errorf("%s: the real server said\n%s\nthis one\n%s", what, a, b)
	}
}

const (
	guestCaps = "<c xmlns='" + nsCaps + "' hash='sha-1' node='https://jitsi.org/jitsi-meet' ver='BzCE47vfd8LVhFLcmbZTGtvCL2M='/>"
	webCaps   = "<c xmlns='" + nsCaps + "' hash='sha-1' node='https://jitsi.org/jitsi-meet' ver='hh2CXu/T1VIEqU+uecMt+LmZ8vo='/>"
	unmuted   = "<audiomuted>false</audiomuted>"
)

func TestPassword(t *testing.T) {
	t.Parallel()
	h := newHall(t, "pwroom73b5", Options{})
	h.mod.must("<iq xmlns='jabber:client' type='set' id='pw' to='" + h.room + "'><query xmlns='" + nsMUCOwner + "'><x xmlns='jabber:x:data' type='submit'>" +
		"<field var='FORM_TYPE'><value>http://jabber.org/protocol/muc#roomconfig</value></field>" +
		"<field var='muc#roomconfig_roomsecret'><value>1234</value></field></x></query></iq>")
	h.mod.await("104", func(e *element) bool { return e.Name == "message" && codesOf(e) == "104" })
	const nick = "bcc356a5"
	for _, tt := range []struct{ comment, password string }{{"join without password", ""}, {"wrong password", "<password>1</password>"}} {
		g := h.guest()
		g.must("<presence xmlns='jabber:client' to='" + h.room + "/" + nick + "'><x xmlns='" + nsMUC + "'>" + tt.password + "</x></presence>")
		h.same(tt.comment, g.await("refusal", isPresence(h.room+"/"+nick, "error")), commented(t, "policy-password.xml", tt.comment)[0])
	}
	g := h.guest()
	r := g.ask("get", h.room, "<query xmlns='"+nsDiscoInfo+"'/>")
	h.same("disco", r, commented(t, "policy-password.xml", "room disco#info by non-member")[0].with("id", r.attr("id")))
	g.must("<presence xmlns='jabber:client' to='" + h.room + "/" + nick + "'><x xmlns='" + nsMUC + "'><password>1234</password></x>" +
		webCaps + "<nick xmlns='" + nsNick + "'>pwguest</nick>" + unmuted + "</presence>")
	h.same("right password", g.await("self", isPresence(h.room+"/"+nick, "")), commented(t, "policy-password.xml", "right password")[0])
}

func TestLobby(t *testing.T) {
	t.Parallel()
	h := newHall(t, "lobbyroom73b5", Options{})
	lobby := "lobbyroom73b5@lobby.meet.shard1.test"
	members := func(on string) string {
		return "<iq xmlns='jabber:client' type='set' id='m" + on + "' to='" + h.room + "'><query xmlns='" + nsMUCOwner + "'><x xmlns='jabber:x:data' type='submit'>" +
			"<field var='FORM_TYPE'><value>http://jabber.org/protocol/muc#roomconfig</value></field><field var='muc#roomconfig_membersonly'><value>" + on + "</value></field></x></query></iq>"
	}
	h.mod.must(members("1"))
	h.mod.await("104", func(e *element) bool { return e.Name == "message" && codesOf(e) == "104" })

	const nick = "f3f8eb43"
	face := guestCaps + "<nick xmlns='" + nsNick + "'>lobbyguest</nick>" + unmuted
	g := h.guest()
	g.enter(h.room, nick, face)
	h.same("407", g.await("refusal", isPresence(h.room+"/"+nick, "error")), commented(t, "policy-lobby.xml", "join members-only room")[0])
	r := g.ask("get", h.room, "<query xmlns='"+nsDiscoInfo+"'/>")
	h.same("disco", r, commented(t, "policy-lobby.xml", "room disco#info by non-member")[0].with("id", r.attr("id")))

	h.mod.enter(lobby, "56b4f4e5", webCaps+"<nick xmlns='"+nsNick+"'>mod2</nick>"+unmuted)
	seen := commented(t, "policy-lobby.xml", "moderator sees")
	h.same("moderator in the lobby", h.mod.await("self", isPresence(lobby+"/56b4f4e5", "")), seen[0])
	g.enter(lobby, nick, face)
	h.same("guest in the lobby", g.await("self", isPresence(lobby+"/"+nick, "")), commented(t, "policy-lobby.xml", "guest sees after")[0])
	h.same("moderator sees the guest", h.mod.await("guest", isPresence(lobby+"/"+nick, "")), seen[1])
	g2 := h.guest()
	g2.enter(lobby, "cb541637", "<nick xmlns='"+nsNick+"'>lobbyguest2</nick>")
	g2.await("self", isPresence(lobby+"/cb541637", ""))
	g3 := h.guest()
	g3.enter(lobby, "aaaaaaaa", "")
	g3.await("self", isPresence(lobby+"/aaaaaaaa", ""))

	// admitted
	h.mod.must("<message xmlns='jabber:client' to='" + h.room + "'><x xmlns='" + nsMUCUser + "'><invite to='" + g.JID() + "'/></x></message>")
	got := g.await("invitation", func(e *element) bool { return e.Name == "message" && e.child(nsMUCUser, "x") != nil })
	h.same("invitation", got, commented(t, "policy-lobby.xml", "guest receives")[0])
	g.enter(h.room, nick, face)
	h.same("in the room", g.await("self", isPresence(h.room+"/"+nick, "")), commented(t, "policy-lobby.xml", "guest then joins main room")[3])
	g.mu.Lock()
	for _, e := range g.got {
		if e.attr("from") == lobby+"/cb541637" || e.attr("from") == lobby+"/56b4f4e5" {
			t.Errorf("a guest in the lobby sees %s", e)
		}
	}
	g.mu.Unlock()

	// denied
	h.mod.must("<iq xmlns='jabber:client' type='set' id='d' to='" + lobby + "'><query xmlns='" + nsMUCAdmin + "'><item nick='cb541637' role='none'/></query></iq>")
	h.same("denied", g2.await("denial", isPresence(lobby+"/cb541637", "unavailable")), commented(t, "policy-lobby-denied.xml", "guest receives")[0])
	notify := h.mod.await("notice", func(e *element) bool {
		return strings.Contains(e.child(nsJitmeet, "json-message").text(), "LOBBY-ACCESS-DENIED")
	})
	if got, want := notify.child(nsJitmeet, "json-message").text(), `{"type":"lobby-notify","event":"LOBBY-ACCESS-DENIED","value":"`+lobby+`/cb541637","name":"lobbyguest2"}`; got != want {
		t.Errorf("notice %s, want %s", got, want)
	}

	// the lobby closes: who waits is sent to the room
	h.mod.must(members("0"))
	e := g3.await("end of the lobby", isPresence(lobby+"/aaaaaaaa", "unavailable"))
	d := e.child(nsMUCUser, "x").child(nsMUCUser, "destroy")
	if d.attr("jid") != h.room || d.child(nsMUCUser, "reason").text() != "Lobby room closed." || codesOf(e) != "110" {
		t.Errorf("end of the lobby %s", e)
	}
	if e := g.await("metadata", func(e *element) bool {
		return strings.Contains(e.child(nsJitmeet, "json-message").text(), `"lobbyEnabled":false`)
	}); e.attr("from") != "metadata.meet.shard1.test" {
		t.Errorf("metadata %s", e)
	}
	g3.enter(h.room, "aaaaaaaa", "")
	g3.await("self", isPresence(h.room+"/aaaaaaaa", ""))
	for _, r := range h.s.Rooms() {
		if r.JID == lobby {
			t.Error("the lobby room is still there")
		}
	}

	// thrown out
	h.mod.must("<iq xmlns='jabber:client' type='set' id='k' to='" + h.room + "'><query xmlns='" + nsMUCAdmin + "'><item nick='" + nick + "' role='none'><reason>bye</reason></item></query></iq>")
	h.same("kick", g.await("kick", isPresence(h.room+"/"+nick, "unavailable")), commented(t, "policy-kick.xml", "victim sees")[0])

	// the end for everybody
	h.mod.must("<message xmlns='jabber:client' to='endconference.meet.shard1.test'><end_conference/></message>")
	e = g3.await("end", isPresence(h.room+"/aaaaaaaa", "unavailable"))
	want := commented(t, "policy-end-conference.xml", "guest sees")[0].with("from", h.room+"/aaaaaaaa")
	h.same("end", e, want)
	if n := len(h.s.Rooms()); n != 0 {
		t.Errorf("rooms left: %v", h.s.Rooms())
	}
}

func TestLobbyByHand(t *testing.T) {
	t.Parallel()
	h := newHall(t, "r", Options{LobbyDisplayName: true, LobbyWhitelist: []string{"guest.meet.shard1.test"}})
	if err := h.s.EnableLobby("r", true); err != nil {
		t.Fatal(err)
	}
	if err := h.s.SetPassword("r", "77"); err != nil {
		t.Fatal(err)
	}
	g := h.guest()
	g.enter(h.room, "aaaaaaaa", "")
	e := g.await("name wanted", isPresence(h.room+"/aaaaaaaa", "error"))
	if x := e.child(nsClient, "error"); errorOf(e) != "modify/not-acceptable" || x.attr("code") != "406" || x.child(nsJitmeet, "displayname-required").attr("lobby") != "true" {
		t.Errorf("name wanted: %s", e)
	}
	if err := h.s.Admit("r", "aaaaaaaa"); !errors.Is(err, ErrNoOccupant) {
		t.Errorf("admit: %v", err)
	}
	lobby := "r@lobby.meet.shard1.test"
	name := "<nick xmlns='" + nsNick + "'>Gil</nick>"
	for _, nick := range []string{"aaaaaaaa", "bbbbbbbb"} {
		x := g
		if nick == "bbbbbbbb" {
			x = h.guest()
		}
		x.enter(lobby, nick, name)
		x.await("self", isPresence(lobby+"/"+nick, ""))
		if nick == "aaaaaaaa" {
			if err := h.s.Admit("r", nick); err != nil {
				t.Fatal(err)
			}
			inv := x.await("invitation", func(e *element) bool { return e.child(nsMUCUser, "x").child(nsMUCUser, "invite") != nil })
			if inv.child(nsMUCUser, "x").child(nsMUCUser, "password").text() != "77" {
				t.Errorf("invitation without the password: %s", inv)
			}
			continue
		}
		if err := h.s.Deny("r", nick); err != nil {
			t.Fatal(err)
		}
		if e := x.await("denial", isPresence(lobby+"/"+nick, "unavailable")); codesOf(e) != "307 110" {
			t.Errorf("denial %s", e)
		}
	}
	// the password opens the door, too
	p := h.guest()
	p.must("<presence xmlns='jabber:client' to='" + h.room + "/cccccccc'><x xmlns='" + nsMUC + "'><password>77</password></x></presence>")
	p.await("self", isPresence(h.room+"/cccccccc", ""))
	// and so does a trusted domain, up to the password
	w := join(t, h.s, client.Options{Room: "r", Domain: "guest.meet.shard1.test"})
	w.enter(h.room, "dddddddd", name)
	if e := w.await("password wanted", isPresence(h.room+"/dddddddd", "error")); errorOf(e) != "auth/not-authorized" {
		t.Errorf("%s", e)
	}
	// the conference ends: so does the lobby, with nowhere to go
	l := h.guest()
	l.enter(lobby, "eeeeeeee", name)
	l.await("self", isPresence(lobby+"/eeeeeeee", ""))
	if err := h.s.Destroy("r", "", "over"); err != nil {
		t.Fatal(err)
	}
	e = l.await("end of the lobby", isPresence(lobby+"/eeeeeeee", "unavailable"))
	if d := e.child(nsMUCUser, "x").child(nsMUCUser, "destroy"); d == nil || d.has("jid") {
		t.Errorf("end of the lobby %s", e)
	}
}

func TestWaitForHost(t *testing.T) {
	t.Parallel()
	s := start(t, Options{WaitForHost: true})
	attach(t, s, nil)
	room := "r@" + s.o.MUC
	g := join(t, s, client.Options{Room: "r"})
	g.conference(s.o.Focus, room)
	g.enter(room, "aaaaaaaa", "")
	e := g.await("refusal", isPresence(room+"/aaaaaaaa", "error"))
	if errorOf(e) != "auth/registration-required" || e.child(nsClient, "error").child(nsJitmeet, "waiting-for-host") == nil {
		t.Errorf("refusal %s", e)
	}
	if err := s.EnableLobby("r", false); err != nil {
		t.Fatal(err)
	}
	g.enter(room, "aaaaaaaa", "")
	g.await("self", isPresence(room+"/aaaaaaaa", ""))
}

func TestJoinRefusals(t *testing.T) {
	t.Parallel()
	h := newHall(t, "r", Options{MaxOccupants: 2})
	a := h.guest()
	a.enter(h.room, "aaaaaaaa", "")
	a.await("self", isPresence(h.room+"/aaaaaaaa", ""))
	b := h.guest()
	b.enter(h.room, "bbbbbbbb", "")
	if e := b.await("full", isPresence(h.room+"/bbbbbbbb", "error")); errorOf(e) != "cancel/service-unavailable" {
		t.Errorf("full: %s", e)
	}
	j, _ := parseJID(a.JID())
	if err := h.s.SetAffiliation("r", j.bare().String(), "outcast"); err != nil {
		t.Fatal(err)
	}
	if e := a.await("ban", isPresence(h.room+"/aaaaaaaa", "unavailable")); codesOf(e) != "301 110" {
		t.Errorf("ban: %s", e)
	}
	a.enter(h.room, "aaaaaaaa", "")
	if e := a.await("banned", isPresence(h.room+"/aaaaaaaa", "error")); errorOf(e) != "auth/forbidden" {
		t.Errorf("banned: %s", e)
	}
	// presence without <x muc/> from a stranger, to a room and to none
	b.must("<presence xmlns='jabber:client' to='" + h.room + "/bbbbbbbb'/>")
	if e := b.await("not connected", isPresence(h.room+"/bbbbbbbb", "error")); errorOf(e) != "cancel/item-not-found" {
		t.Errorf("not connected: %s", e)
	}
}

// A room that somebody else made waits for the focus before it lets people in.
func TestJoinQueue(t *testing.T) {
	t.Parallel()
	s := start(t, Options{OpenRoomCreation: true})
	room := "r@" + s.o.MUC
	a := join(t, s, client.Options{Room: "r"})
	a.enter(room, "aaaaaaaa", "")
	a.ask("get", s.o.Domain, "<ping xmlns='urn:xmpp:ping'/>")
	if n := s.Waiting("r"); n != 1 || len(s.Occupants("r")) != 0 {
		t.Fatalf("%d waiting, %v inside", n, s.Occupants("r"))
	}
	f := attach(t, s, nil)
	f.join(room)
	a.await("focus", isPresence(room+"/focus", ""))
	a.await("self", isPresence(room+"/aaaaaaaa", ""))
	// the focus is lost: it leaves, the others stay
	f.close()
	e := a.await("focus gone", isPresence(room+"/focus", "unavailable"))
	if e.child(nsClient, "status").text() == "" || len(s.Occupants("r")) != 1 {
		t.Errorf("focus gone: %s, %v", e, s.Occupants("r"))
	}
	if got := errorOf(a.conference(s.o.Focus, room)); got != "cancel/service-unavailable" {
		t.Errorf("request without a focus: %s", got)
	}
}

func TestTenant(t *testing.T) {
	t.Parallel()
	s := start(t, Options{})
	attach(t, s, nil)
	outer, inner := "r@conference.acme.meet.example", "[acme]r@conference.meet.example"
	a := join(t, s, client.Options{URL: s.HTTPURL() + "/acme/http-bind", Room: "r"})
	if r := a.conference(s.o.Focus, outer); r.child(nsFocus, "conference").attr("room") != outer {
		t.Errorf("conference %s", r)
	}
	a.enter(outer, "aaaaaaaa", "")
	e := a.await("self", isPresence(outer+"/aaaaaaaa", ""))
	if codesOf(e) != "100 110" {
		t.Errorf("self %s", e)
	}
	if o := s.Occupants(inner); len(o) != 2 || len(s.Occupants(outer)) != 2 {
		t.Errorf("inside: %v", o)
	}
	q := s.Requests()[0]
	if q.Prefix != "acme" || q.Room != "r" {
		t.Errorf("request %+v", q)
	}
	if got := errorOf(a.ask("get", "r@conference.meet.example", "<query xmlns='"+nsDiscoInfo+"'/>")); got != "cancel/item-not-found" {
		t.Errorf("the room without tenant is another one: %s", got)
	}
	j, _ := parseJID(a.JID())
	if err := s.SetAffiliation(outer, j.bare().String(), "owner"); err != nil {
		t.Fatal(err)
	}
	// the session's URL names the room with its tenant
	a.must("<message xmlns='jabber:client' to='avmoderation.meet.example'><av_moderation enable='true' mediaType='audio'/></message>")
	m := a.await("moderation", func(e *element) bool { return e.attr("from") == "avmoderation.meet.example" })
	if !strings.Contains(m.child(nsJitmeet, "json-message").text(), `"room":"`+outer+`"`) {
		t.Errorf("moderation %s", m)
	}
	if err := s.Destroy(outer, "[acme]other@conference.meet.example", "moved"); err != nil {
		t.Fatal(err)
	}
	e = a.await("end", isPresence(outer+"/aaaaaaaa", "unavailable"))
	if got := e.child(nsMUCUser, "x").child(nsMUCUser, "destroy").attr("jid"); got != "other@conference.acme.meet.example" {
		t.Errorf("alternate %q", got)
	}
}

func TestModeration(t *testing.T) {
	t.Parallel()
	h := newHall(t, "r", Options{})
	g := h.guest()
	g.enter(h.room, "aaaaaaaa", "")
	g.await("self", isPresence(h.room+"/aaaaaaaa", ""))
	moderate := func(u *user, attrs string) {
		u.must("<message xmlns='jabber:client' to='avmoderation.meet.shard1.test'><av_moderation " + attrs + " mediaType='audio'/></message>")
	}
	says := func(parts ...string) func(*element) bool {
		return func(e *element) bool {
			t := e.child(nsJitmeet, "json-message").text()
			for _, p := range parts {
				if !strings.Contains(t, p) {
					return false
				}
			}
			return e.Name == "message"
		}
	}
	moderate(g, "enable='true'")
	g.await("refusal", func(e *element) bool { return e.attr("type") == "error" && errorOf(e) == "auth/forbidden" })
	moderate(h.mod, "enable='true'")
	for _, u := range []*user{g, h.mod} {
		u.await("on", says(`"enabled":true`, `"mediaType":"audio"`, `"actor":"`+h.room+`/56b4f4e5"`))
	}
	h.mod.await("list", says(`"whitelists":{"audio":["`))
	moderate(h.mod, "jidToWhitelist='"+h.room+"/aaaaaaaa'")
	g.await("approval", says(`"approved":true`))
	h.mod.await("list", says(h.room+`/aaaaaaaa"`))
	late := h.guest()
	late.enter(h.room, "bbbbbbbb", "")
	late.await("on", says(`"enabled":true`))
	moderate(h.mod, "jidToBlacklist='"+h.room+"/aaaaaaaa'")
	g.await("removal", says(`"removed":true`))
	moderate(h.mod, "enable='false'")
	g.await("off", says(`"enabled":false`))
	h.mod.must("<message xmlns='jabber:client' to='metadata.meet.shard1.test'><room_metadata xmlns='http://jitsi.org/jitmeet' room='" + h.room + `'>{"key":"startMuted","data":{"audio":true}}</room_metadata></message>`)
	g.await("metadata", says(`"startMuted":{"audio":true}`))
}
