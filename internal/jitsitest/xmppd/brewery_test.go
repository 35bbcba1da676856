package xmppd

import (
	"testing"

	"brewline/internal/jitsitest/client"
)

// The brewery is a room for accounts and the focus alone; what a gateway says of
// itself reaches the focus whole.
func TestBrewery(t *testing.T) {
	t.Parallel()
	s := start(t, Options{Accounts: map[string]string{"gw": "pw"}, Admins: []string{"gw@auth.meet.example"}, Region: "eu"})
	seen := make(chan *element, 16)
	f := attach(t, s, func(_ *focus, e *element) {
		if e.Name == "presence" {
			seen <- e
		}
	})
	room := "jigasibrewery@" + s.o.InternalMUC
	f.join(room)
	g := join(t, s, client.Options{Domain: "auth.meet.example", Username: "gw", Password: "pw", Resource: "gw-1"})
	g.enter("JigasiBrewery@"+s.o.InternalMUC, "gw-1", "")
	e := g.await("self", isPresence(room+"/gw-1", ""))
	if i := e.child(nsMUCUser, "x").child(nsMUCUser, "item"); i.attr("affiliation") != "owner" || i.attr("jid") != "gw@auth.meet.example/gw-1" {
		t.Errorf("self %s", e)
	}
	const ns = "http://jitsi.org/protocol/colibri"
	g.must("<presence xmlns='jabber:client' to='" + room + "/gw-1'><stats xmlns='" + ns + "'><stat name='participants' value='3'/></stats></presence>")
	for {
		select {
		case e := <-seen:
			if st := e.child(ns, "stats"); st != nil {
				if e.attr("from") != room+"/gw-1" || st.child(ns, "stat").attr("value") != "3" {
					t.Errorf("focus sees %s", e)
				}
				goto stranger
			}
		case <-within(t).Done():
			t.Fatal("the focus sees no stats")
		}
	}
stranger:
	a := join(t, s, client.Options{})
	a.enter(room, "aaaaaaaa", "")
	if e := a.await("refusal", isPresence(room+"/aaaaaaaa", "error")); errorOf(e) != "cancel/service-unavailable" {
		t.Errorf("stranger: %s", e)
	}
	for _, r := range s.Rooms() {
		if r.JID != room || r.Occupants != 2 {
			t.Errorf("room %+v", r)
		}
	}
	if got := s.Components(); len(got) != 1 || got[0] != s.o.Focus {
		t.Errorf("components %v", got)
	}
}
