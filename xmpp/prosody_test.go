package xmpp_test

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"sync"
	"testing"
	"time"

	"brewline/internal/prosodytest"
	"brewline/xmpp"
)

const patience = 20 * time.Second

func within(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

func dial(t testing.TB, o xmpp.Options) *xmpp.Session {
	t.Helper()
	s, err := xmpp.Dial(within(t), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// await receives from a channel, with a deadline.
func await[T any](t testing.TB, ch <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-ch:
		return v
	case <-time.After(patience):
		t.Fatalf("no %s", what)
		panic("unreachable")
	}
}

func TestProsodyLogin(t *testing.T) {
	t.Parallel()
	p := prosodytest.Start(t, prosodytest.Options{TLS: true, Accounts: map[string]string{"user": "päss<&"}})
	trust := &tls.Config{RootCAs: p.Roots()}
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := closed.Addr().String()
	_ = closed.Close()

	for _, tc := range []struct {
		name string
		o    xmpp.Options
		want error
	}{
		{"bosh", xmpp.Options{URL: p.BOSHURL(), Room: "r", Token: "t"}, nil},
		{"bosh, three connections", xmpp.Options{URL: p.BOSHURL(), Connections: 3}, nil},
		{"bosh, tls", xmpp.Options{URL: p.SecureBOSHURL(), TLS: trust}, nil},
		{"bosh, tls, three connections", xmpp.Options{URL: p.SecureBOSHURL(), TLS: trust, Connections: 3}, nil},
		{"websocket", xmpp.Options{URL: p.WebSocketURL()}, nil},
		{"websocket, tls", xmpp.Options{URL: p.SecureWebSocketURL(), TLS: trust}, nil},
		{"tcp", xmpp.Options{URL: "xmpp://" + p.C2SAddr(), TLS: trust}, nil},
		{"bosh account", xmpp.Options{URL: p.BOSHURL(), Domain: p.AuthDomain, Username: "user", Password: "päss<&", Resource: "gw-1"}, nil},
		{"websocket account", xmpp.Options{URL: p.WebSocketURL(), Domain: p.AuthDomain, Username: "user", Password: "päss<&", Resource: "gw-2"}, nil},
		{"tcp account", xmpp.Options{URL: "xmpp://" + p.C2SAddr(), TLS: trust, Domain: p.AuthDomain, Username: "user", Password: "päss<&", Resource: "gw-3"}, nil},
		{"wrong password", xmpp.Options{URL: p.BOSHURL(), Domain: p.AuthDomain, Username: "user", Password: "other"}, xmpp.ErrAuth},
		{"wrong password, websocket", xmpp.Options{URL: p.WebSocketURL(), Domain: p.AuthDomain, Username: "user", Password: "other"}, xmpp.ErrAuth},
		{"anonymous where accounts are", xmpp.Options{URL: p.BOSHURL(), Domain: p.AuthDomain}, xmpp.ErrAuth},
		{"bosh, other domain", xmpp.Options{URL: p.BOSHURL(), Domain: "other.test"}, xmpp.ErrDomain},
		{"websocket, other domain", xmpp.Options{URL: p.WebSocketURL(), Domain: "other.test"}, xmpp.ErrDomain},
		{"tcp, other domain", xmpp.Options{URL: "xmpp://" + p.C2SAddr(), TLS: trust, Domain: "other.test"}, xmpp.ErrDomain},
		{"bosh, certificate", xmpp.Options{URL: p.SecureBOSHURL()}, xmpp.ErrTLS},
		{"websocket, certificate", xmpp.Options{URL: p.SecureWebSocketURL()}, xmpp.ErrTLS},
		{"tcp, certificate", xmpp.Options{URL: "xmpp://" + p.C2SAddr()}, xmpp.ErrTLS},
		{"bosh, nobody there", xmpp.Options{URL: "http://" + nobody + "/http-bind"}, xmpp.ErrUnreachable},
		{"websocket, nobody there", xmpp.Options{URL: "ws://" + nobody + "/xmpp-websocket"}, xmpp.ErrUnreachable},
		{"tcp, nobody there", xmpp.Options{URL: "xmpp://" + nobody}, xmpp.ErrUnreachable},
		{"bosh, not found", xmpp.Options{URL: p.BOSHURL() + "/x"}, xmpp.ErrUnreachable},
		{"websocket, not found", xmpp.Options{URL: p.WebSocketURL() + "/x"}, xmpp.ErrUnreachable},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			if tc.o.Domain == "" {
				tc.o.Domain = p.Domain
			}
			s, err := xmpp.Dial(within(t), tc.o)
			if !errors.Is(err, tc.want) {
				t.Fatalf("Dial: %v, want %v", err, tc.want)
			}
			if err != nil {
				return
			}
			if got := s.JID(); got.Domain != tc.o.Domain || got.Resource == "" ||
				(tc.o.Resource != "" && got.Resource != tc.o.Resource) || (tc.o.Username != "" && got.Local != tc.o.Username) {
				t.Errorf("bound %s", got)
			}
			if err := s.Ping(within(t)); err != nil {
				t.Error(err)
			}
			d, err := s.DiscoInfo(within(t), xmpp.JID{Domain: p.MUC}, "")
			if err != nil || !d.Has("http://jabber.org/protocol/muc") {
				t.Errorf("disco#info of the MUC: %+v, %v", d, err)
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
			if err := s.Err(); !errors.Is(err, xmpp.ErrClosed) {
				t.Errorf("after Close: %v", err)
			}
			if err := s.Ping(within(t)); !errors.Is(err, xmpp.ErrClosed) {
				t.Errorf("ping after Close: %v", err)
			}
		})
	}
}

func transports(p *prosodytest.Server) map[string]string {
	return map[string]string{"bosh": p.BOSHURL(), "websocket": p.WebSocketURL(), "tcp": "xmpp://" + p.C2SAddr()}
}

func TestProsodyManyPings(t *testing.T) {
	t.Parallel()
	p := prosodytest.Start(t, prosodytest.Options{})
	for name, url := range transports(p) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := dial(t, xmpp.Options{URL: url, Domain: p.Domain})
			var wg sync.WaitGroup
			for range 50 {
				wg.Go(func() {
					for range 20 {
						if err := s.Ping(within(t)); err != nil {
							t.Error(err)
							return
						}
					}
				})
			}
			wg.Wait()
		})
	}
}

type events chan xmpp.RoomEvent

func (e events) on(ev xmpp.RoomEvent) { e <- ev }

func (e events) next(t *testing.T, kind xmpp.RoomEventKind) xmpp.RoomEvent {
	t.Helper()
	for {
		if ev := await(t, e, "event "+kind.String()); ev.Kind == kind {
			return ev
		}
	}
}

func TestProsodyRoom(t *testing.T) {
	t.Parallel()
	p := prosodytest.Start(t, prosodytest.Options{})
	for name, url := range transports(p) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			roomJID := xmpp.JID{Local: "standup-" + name, Domain: p.MUC}
			focus := dial(t, xmpp.Options{URL: url, Domain: p.Domain})
			if _, err := focus.Join(within(t), xmpp.RoomOptions{Room: roomJID, Nick: "focus"}); err != nil {
				t.Fatal(err)
			}

			seen := make(events, 100)
			a := dial(t, xmpp.Options{URL: url, Domain: p.Domain})
			ra, err := a.Join(within(t), xmpp.RoomOptions{Room: roomJID, Nick: "aaaa0000", FocusUser: focus.JID(), On: seen.on,
				Presence: xmpp.OwnPresence{DisplayName: "A & co", Features: xmpp.PresenceFeatures, SourceName: "aaaa0000-a0"}})
			if err != nil {
				t.Fatal(err)
			}
			seen.next(t, xmpp.FocusJoined)
			if !ra.Focus() || len(ra.Occupants()) != 0 || ra.Self().Role != "participant" {
				t.Errorf("focus %t, occupants %v, self %+v", ra.Focus(), ra.Occupants(), ra.Self())
			}

			b := dial(t, xmpp.Options{URL: url, Domain: p.Domain})
			seenB := make(events, 100)
			rb, err := b.Join(within(t), xmpp.RoomOptions{Room: roomJID, Nick: "bbbb0000", On: seenB.on})
			if err != nil {
				t.Fatal(err)
			}
			if o := seen.next(t, xmpp.OccupantJoined).Occupant; o.Nick != "bbbb0000" || o.JID != b.JID() || o.Gateway {
				t.Errorf("joined: %+v", o)
			}
			if os := rb.Occupants(); len(os) != 1 || os[0].DisplayName != "A & co" || !os[0].Gateway || os[0].Presence.SourceInfo != `{"aaaa0000-a0":{"muted":false}}` {
				t.Errorf("occupants of b: %+v", os)
			}

			// The hash in our presence is that of our answer, as Jicofo checks.
			caps := rb.Occupants()[0].Presence.Caps
			d, err := b.DiscoInfo(within(t), ra.OccupantJID(), caps.Node+"#"+caps.Ver)
			if err != nil || xmpp.CapsHash(*d) != caps.Ver || *caps != a.Caps() {
				t.Errorf("caps %v: disco %+v, %v", caps, d, err)
			}

			if err := ra.Update(func(p *xmpp.OwnPresence) { p.AudioMuted = true }); err != nil {
				t.Fatal(err)
			}
			ev := seenB.next(t, xmpp.OccupantChanged)
			if m := ev.Presence.AudioMuted; m == nil || !*m || ev.Occupant.DisplayName != "A & co" {
				t.Errorf("changed: %+v", ev.Presence)
			}

			if err := b.Send(&xmpp.Message{To: roomJID, Type: "groupchat", Body: "hi"}); err != nil {
				t.Fatal(err)
			}
			if m := seen.next(t, xmpp.RoomMessage).Message; m.From.Resource != "bbbb0000" && m.Body != "hi" {
				m = seen.next(t, xmpp.RoomMessage).Message // the first one is the subject
				if m.Body != "hi" {
					t.Errorf("message %+v", m)
				}
			}

			c := dial(t, xmpp.Options{URL: url, Domain: p.Domain})
			var je *xmpp.JoinError
			if _, err := c.Join(within(t), xmpp.RoomOptions{Room: roomJID, Nick: "bbbb0000"}); !errors.As(err, &je) || je.Kind != xmpp.JoinConflict {
				t.Errorf("nick taken: %v", err)
			}

			if err := rb.Leave(); err != nil {
				t.Fatal(err)
			}
			if o := seen.next(t, xmpp.OccupantLeft).Occupant; o.Nick != "bbbb0000" || len(ra.Occupants()) != 0 {
				t.Errorf("left: %+v", o)
			}
			if _, err := b.Join(within(t), xmpp.RoomOptions{Room: roomJID, Nick: "bbbb0001"}); err != nil {
				t.Errorf("join again: %v", err)
			}

			// The focus' user kicks a: it owns the room.
			if _, err := focus.Request(within(t), &xmpp.IQ{Type: "set", To: roomJID, Payload: kick{Item: kickItem{Nick: "aaaa0000", Role: "none", Reason: "bye"}}}); err != nil {
				t.Fatal(err)
			}
			if ev := seen.next(t, xmpp.Kicked); ev.Reason != "bye" {
				t.Errorf("kicked: %+v", ev)
			}
			if err := ra.Update(func(*xmpp.OwnPresence) {}); err == nil {
				t.Error("update after the kick")
			}

			_ = focus.Close()
			if err := b.Ping(within(t)); err != nil {
				t.Error(err)
			}
		})
	}
}

type kick struct {
	XMLName struct{} `xml:"http://jabber.org/protocol/muc#admin query"`
	Item    kickItem `xml:"item"`
}

type kickItem struct {
	Nick   string `xml:"nick,attr"`
	Role   string `xml:"role,attr"`
	Reason string `xml:"reason"`
}

type owner struct {
	XMLName struct{} `xml:"http://jabber.org/protocol/muc#owner query"`
	Form    form     `xml:"jabber:x:data x"`
}

type form struct {
	Type   string  `xml:"type,attr"`
	Fields []field `xml:"field"`
}

type field struct {
	Var   string `xml:"var,attr"`
	Value string `xml:"value"`
}

func TestProsodyRefusals(t *testing.T) {
	t.Parallel()
	p := prosodytest.Start(t, prosodytest.Options{Accounts: map[string]string{"admin": "pw"}, RestrictRooms: true, Admins: []string{"admin@auth.meet.test"}})
	admin := dial(t, xmpp.Options{URL: p.BOSHURL(), Domain: p.AuthDomain, Username: "admin", Password: "pw"})
	s := dial(t, xmpp.Options{URL: p.BOSHURL(), Domain: p.Domain})
	room := xmpp.JID{Local: "closed", Domain: p.MUC}
	try := func(password string, want xmpp.JoinKind) {
		t.Helper()
		r, err := s.Join(within(t), xmpp.RoomOptions{Room: room, Nick: "ab12cd34", Password: password})
		var je *xmpp.JoinError
		switch {
		case want < 0 && err != nil, want >= 0 && (!errors.As(err, &je) || je.Kind != want):
			t.Errorf("join with %q: %v, want %v", password, err, want)
		case err == nil:
			_ = r.Leave()
		}
	}
	set := func(payload any) {
		t.Helper()
		if _, err := admin.Request(within(t), &xmpp.IQ{Type: "set", To: room, Payload: payload}); err != nil {
			t.Fatal(err)
		}
	}
	configure := func(fields ...field) {
		set(owner{Form: form{Type: "submit", Fields: append([]field{{"FORM_TYPE", "http://jabber.org/protocol/muc#roomconfig"}}, fields...)}})
	}
	try("", xmpp.JoinNoRoom)
	if _, err := admin.Join(within(t), xmpp.RoomOptions{Room: room, Nick: "focus"}); err != nil {
		t.Fatal(err)
	}
	try("", -1)
	configure(field{"muc#roomconfig_passwordprotectedroom", "1"}, field{"muc#roomconfig_roomsecret", "4242"})
	try("", xmpp.JoinPassword)
	try("0000", xmpp.JoinPassword)
	try("4242", -1)
	configure(field{"muc#roomconfig_passwordprotectedroom", "0"}, field{"muc#roomconfig_roomsecret", ""}, field{"muc#roomconfig_membersonly", "1"})
	try("", xmpp.JoinNotAllowed)
	configure(field{"muc#roomconfig_membersonly", "0"})
	set(affiliate{Item: affiliateItem{JID: s.JID().Bare(), Affiliation: "outcast"}})
	try("", xmpp.JoinBanned)
}

type affiliate struct {
	XMLName struct{}      `xml:"http://jabber.org/protocol/muc#admin query"`
	Item    affiliateItem `xml:"item"`
}

type affiliateItem struct {
	JID         xmpp.JID `xml:"jid,attr"`
	Affiliation string   `xml:"affiliation,attr"`
}

func TestProsodyGone(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"bosh", "websocket", "tcp"} {
		for _, how := range []string{"kill", "close"} {
			t.Run(name+" "+how, func(t *testing.T) {
				t.Parallel()
				p := prosodytest.Start(t, prosodytest.Options{})
				s := dial(t, xmpp.Options{URL: transports(p)[name], Domain: p.Domain,
					PingInterval: 200 * time.Millisecond, PingTimeout: 300 * time.Millisecond, CloseTimeout: time.Second})
				if how == "kill" {
					p.Kill()
				} else {
					p.Close()
				}
				await(t, s.Done(), "end of the session")
				if err := s.Err(); !errors.Is(err, xmpp.ErrSessionLost) {
					t.Errorf("lost with %v", err)
				}
				if err := s.Close(); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

func BenchmarkProsodyPing(b *testing.B) {
	p := prosodytest.Start(b, prosodytest.Options{})
	for name, url := range transports(p) {
		b.Run(name, func(b *testing.B) {
			s := dial(b, xmpp.Options{URL: url, Domain: p.Domain})
			b.ReportAllocs()
			for b.Loop() {
				if err := s.Ping(context.Background()); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkProsodyDial(b *testing.B) {
	p := prosodytest.Start(b, prosodytest.Options{})
	for name, url := range transports(p) {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				s, err := xmpp.Dial(context.Background(), xmpp.Options{URL: url, Domain: p.Domain})
				if err != nil {
					b.Fatal(err)
				}
				if err := s.Close(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
