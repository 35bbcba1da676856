package jicofo

import (
	"testing"
	"time"
)

const testBrewery = "jigasibrewery@internal.auth.meet.example"

// gatewayPresence is a gateway's presence in the brewery.
func gatewayPresence(nick string, stats ...string) *element {
	x := el(nsColibriStats, "stats")
	for i := 0; i+1 < len(stats); i += 2 {
		x.add(el("", "stat", "name", stats[i], "value", stats[i+1]))
	}
	return el("", "presence", "from", testBrewery+"/"+nick).add(x)
}

// dialing is a wired focus with a moderator "mod" and a participant "guest"
// in a room, and a brewery.
func dialing(t *testing.T, o Options) (*wired, *conference) {
	t.Helper()
	o.Brewery = testBrewery
	w := newWired(t, o)
	c := w.room()
	w.member(c, "mod").role = "moderator"
	w.member(c, "guest")
	w.mu.Lock()
	w.joinBrewery()
	w.brewery.joined = true
	w.mu.Unlock()
	return w, c
}

func dialRequest(c *conference) *element {
	return el(nsRayo, "dial", "from", "fromnumber", "to", "+15551234567").add(
		el("", "header", "name", "JvbRoomName", "value", c.room))
}

// reply answers a request of the focus.
func (w *wired) answer(e *element, kind string, payload *element) {
	w.get(el("", "iq", "type", kind, "id", e.attr("id"), "from", e.attr("to"), "to", e.attr("from")).add(payload))
}

func TestDial(t *testing.T) {
	t.Parallel()
	w, c := dialing(t, Options{Region: "eu"})
	sip := []string{"supports_sip", "true", "participants"}
	w.get(gatewayPresence("no-sip", "participants", "0"))
	w.get(gatewayPresence("leaving", append(sip, "0", "graceful_shutdown", "true")...))
	w.get(gatewayPresence("elsewhere", append(sip, "0", "region", "us")...))
	w.get(gatewayPresence("busy", append(sip, "9", "region", "eu")...))
	w.get(gatewayPresence("free", append(sip, "2", "region", "eu", "stress_level", "0.9")...))
	if n := len(w.Gateways()); n != 5 {
		t.Errorf("%d gateways", n)
	}
	iq := fromMember(c, "mod", "set", dialRequest(c))
	w.get(iq)
	var refs []string
	for _, want := range []string{"free", "busy", "elsewhere"} {
		e := w.sent()
		x := e.child(nsRayo, "dial")
		if e.attr("to") != testBrewery+"/"+want || x.attr("to") != "+15551234567" || x.child("", "header").attr("value") != c.room {
			t.Fatalf("got %s, want a request to %s", e, want)
		}
		if want != "elsewhere" {
			w.answer(e, "error", el("", "error", "type", "cancel").add(el(nsStanzas, "service-unavailable")))
			continue
		}
		w.answer(e, "result", el(nsRayo, "ref", "uri", "xmpp:"+c.room+"/21c442e3"))
		r := w.sent()
		refs = append(refs, r.child(nsRayo, "ref").attr("uri"))
		if r.attr("id") != iq.attr("id") || r.attr("to") != c.occupant("mod") {
			t.Errorf("got %s", r)
		}
	}
	if len(refs) != 1 || refs[0] != "xmpp:"+c.room+"/21c442e3" {
		t.Errorf("got %v", refs)
	}
	w.get(el("", "presence", "type", "unavailable", "from", testBrewery+"/busy"))
	if n := len(w.Gateways()); n != 4 {
		t.Errorf("%d gateways", n)
	}
}

func TestDialIsRefused(t *testing.T) {
	t.Parallel()
	w, c := dialing(t, Options{DialTimeout: 20 * time.Millisecond, DialRetries: 1})
	wrongRoom := dialRequest(c)
	wrongRoom.Kids[0].Attrs[1].Value = "other@conference.meet.example"
	toComponent := fromMember(c, "mod", "set", dialRequest(c))
	toComponent.Attrs[3].Value = "focus.meet.example"
	for _, tt := range []struct {
		name, condition string
		iq              *element
	}{
		{"by a guest", "forbidden", fromMember(c, "guest", "set", dialRequest(c))},
		{"into another room", "forbidden", fromMember(c, "mod", "set", wrongRoom)},
		{"from outside", "item-not-found", fromMember(c, "nobody", "set", dialRequest(c))},
		{"to the component", "bad-request", toComponent},
		{"no gateway", "service-unavailable", fromMember(c, "mod", "set", dialRequest(c))},
	} {
		w.get(tt.iq)
		if r := w.sent(); r.child("", "error").child(nsStanzas, tt.condition) == nil {
			t.Errorf("%s: got %s", tt.name, r)
		}
	}
	for _, nick := range []string{"a", "b", "c"} {
		w.get(gatewayPresence(nick, "supports_sip", "true"))
	}
	w.get(fromMember(c, "mod", "set", dialRequest(c)))
	w.sent()
	w.sent() // the retry
	if r := w.sent(); r.child("", "error").child(nsStanzas, "remote-server-timeout") == nil {
		t.Errorf("got %s", r)
	}
	w.get(fromMember(c, "mod", "set", dialRequest(c)))
	for range 2 {
		w.answer(w.sent(), "error", nil)
	}
	if r := w.sent(); r.child("", "error").child(nsStanzas, "undefined-condition") == nil {
		t.Errorf("got %s", r)
	}
}

func TestBrewery(t *testing.T) {
	onServers(t, func(t *testing.T, s server) {
		brewery := "JigasiBrewery@internal.auth." + s.domain
		j := s.start(t, Options{Brewery: brewery})
		await(t, "the focus in the brewery", func() bool {
			j.mu.Lock()
			defer j.mu.Unlock()
			return j.brewery != nil && j.brewery.joined
		})
	})
}
