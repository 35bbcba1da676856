package xmppd

import (
	"testing"

	"brewline/internal/jitsitest/client"
)

func TestRoomWithFocus(t *testing.T) {
	s := start(t, Options{Shard: "s1"})
	attach(t, s, nil)
	a := join(t, s, client.Options{Room: "standup"})
	if a.Shard() != "s1" {
		t.Errorf("shard %q", a.Shard())
	}
	room := "standup@" + s.o.MUC
	// before the focus there is no room, and nobody may make one
	if got := errorOf(a.ask("get", room, "<query xmlns='"+nsDiscoInfo+"'/>")); got != "cancel/item-not-found" {
		t.Errorf("disco of no room: %s", got)
	}
	a.enter(room, "aaaaaaaa", "")
	e := a.await("refusal", isPresence(room+"/aaaaaaaa", "error"))
	if errorOf(e) != "cancel/not-allowed" || e.child(nsClient, "error").child(nsStanzas, "text").text() != "Room creation is restricted" {
		t.Errorf("refusal %s", e)
	}

	if r := a.conference(s.o.Focus, room); r.child(nsFocus, "conference").attr("ready") != "true" {
		t.Fatalf("conference: %s", r)
	}
	a.enter(room, "aaaaaaaa", "<nick xmlns='"+nsNick+"'>Ann</nick>")
	a.await("focus", isPresence(room+"/focus", ""))
	e = a.await("self", isPresence(room+"/aaaaaaaa", ""))
	if codesOf(e) != "100 110" {
		t.Errorf("self presence %s", e)
	}
	if j := e.child(nsMUCUser, "x").child(nsMUCUser, "item").attr("jid"); j != a.JID() {
		t.Errorf("real JID %q", j)
	}

	b := join(t, s, client.Options{Room: "standup"})
	if got := errorOf(b.ask("get", room, "<query xmlns='"+nsDiscoInfo+"'/>")); got != "auth/forbidden" {
		t.Errorf("disco by a stranger: %s", got)
	}
	b.enter(room, "aaaaaaaa", "")
	if e := b.await("conflict", isPresence(room+"/aaaaaaaa", "error")); errorOf(e) != "cancel/conflict" {
		t.Errorf("conflict %s", e)
	}
	b.enter(room, "bad-nick", "")
	if e := b.await("bad nick", isPresence(room+"/bad-nick", "error")); errorOf(e) != "cancel/not-allowed" {
		t.Errorf("bad nick %s", e)
	}
	b.enter(room, "bbbbbbbb", "<audiomuted>false</audiomuted>")
	e = b.await("Ann", isPresence(room+"/aaaaaaaa", ""))
	if e.child(nsNick, "nick").text() != "Ann" || e.child(nsMUCUser, "x").child(nsMUCUser, "item").attr("jid") != a.JID() {
		t.Errorf("Ann: %s", e)
	}
	b.await("self", isPresence(room+"/bbbbbbbb", ""))
	e = a.await("Bob", isPresence(room+"/bbbbbbbb", ""))
	if e.child(nsClient, "audiomuted").text() != "false" || codesOf(e) != "" {
		t.Errorf("Bob: %s", e)
	}

	// an IQ between occupants: both see room addresses, the asker its own id
	go func() {
		q := a.await("ping", func(e *element) bool { return e.Name == "iq" })
		if q.attr("from") != room+"/bbbbbbbb" || q.attr("to") != a.JID() {
			t.Errorf("relayed %s", q)
		}
		a.must("<iq xmlns='jabber:client' type='result' id='" + q.attr("id") + "' to='" + q.attr("from") + "'/>")
	}()
	if r := b.ask("get", room+"/aaaaaaaa", "<ping xmlns='urn:xmpp:ping'/>"); r.attr("type") != "result" || r.attr("from") != room+"/aaaaaaaa" {
		t.Errorf("relayed reply %s", r)
	}
	if r := b.ask("get", room+"/nobody", "<ping xmlns='urn:xmpp:ping'/>"); errorOf(r) != "cancel/item-not-found" {
		t.Errorf("relay to nobody %s", r)
	}

	// the session ends: the room is told
	b.Drop()
	if err := s.DropSession(b.JID()); err != nil {
		t.Fatal(err)
	}
	e = a.await("Bob's end", isPresence(room+"/bbbbbbbb", "unavailable"))
	if e.child(nsMUCUser, "x").child(nsMUCUser, "item").attr("role") != "none" {
		t.Errorf("end %s", e)
	}
	if n := len(s.Occupants("standup")); n != 2 {
		t.Errorf("%d occupants left", n)
	}

	if err := s.Kick("standup", "aaaaaaaa", "bye"); err != nil {
		t.Fatal(err)
	}
	e = a.await("kick", isPresence(room+"/aaaaaaaa", "unavailable"))
	if codesOf(e) != "307 110" || e.child(nsMUCUser, "x").child(nsMUCUser, "item").child(nsMUCUser, "reason").text() != "bye" {
		t.Errorf("kick %s", e)
	}
}
