package brewery

import (
	"encoding/xml"
	"errors"
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"brewline/config"
	"brewline/xmpp"
)

const rayo = "urn:xmpp:rayo:1"

// header writes a header of a dial request.
func header(name, value string) string {
	h, _ := xml.Marshal(struct {
		XMLName xml.Name `xml:"header"`
		xmpp.Header
	}{Header: xmpp.Header{Name: name, Value: value}})
	return string(h)
}

var intoRoom = header("JvbRoomName", "standup@conference.meet.example")

// dialIQ is a dial request as it arrives.
func dialIQ(from, id, to, headers string) *xmpp.IQ {
	esc := new(strings.Builder)
	_ = xml.EscapeText(esc, []byte(to))
	return &xmpp.IQ{Type: "set", From: xmpp.MustParseJID(from), ID: id, Name: xml.Name{Space: rayo, Local: "dial"},
		Raw: []byte("<dial xmlns='" + rayo + "' from='fromnumber' to='" + esc.String() + "'>" + headers + "</dial>")}
}

const focus = breweryJID + "/focus"

// dialling runs a shard with a brewery on a clock of its own; got is what its
// OnDial was given, say what it answers.
func dialling(t *testing.T, cfg *config.Config, f func(t *testing.T, s *Set, sess *fakeSession, got chan *DialRequest)) {
	t.Helper()
	got := make(chan *DialRequest, maxPending)
	w := &world{onDial: func(r *DialRequest) { got <- r }}
	bubble(t, cfg, w, func(t *testing.T, s *Set) {
		f(t, s, w.at(urlOf(cfg.Shards[0].Name)).sessions()[0], got)
	})
}

func brew() *config.Config { return withBrewery(one("s1")) }

// answered is the one reply that was sent, nil for none.
func (s *fakeSession) answered() *xmpp.IQ {
	synctest.Wait()
	select {
	case iq := <-s.replies:
		return iq
	default:
		return nil
	}
}

func (s *fakeSession) condition() string {
	if iq := s.answered(); iq != nil && iq.Error != nil {
		return iq.Error.Type + "/" + iq.Error.Condition
	}
	return ""
}

func TestDialAccepted(t *testing.T) {
	dialling(t, brew(), func(t *testing.T, s *Set, sess *fakeSession, got chan *DialRequest) {
		iq := dialIQ(focus, "d1", "tel:+49 30 123", header("X-A", "1")+intoRoom+header("x-a", "2")+header("JvbRoomPassword", " s<cret ")+
			header("X-B", "ä")+header("JvbRoomPassword", "second")+intoRoom)
		sess.h.IQ(iq)
		r := <-got
		if r.ID != "d1" || r.Shard.Name() != "s1" || r.Deployment != s.Deployment("prod") || r.From != "fromnumber" || r.To != "tel:+49 30 123" ||
			r.Room.String() != "standup@conference.meet.example" || r.Conference != (Room{Name: "standup"}) || r.Password != " s<cret " ||
			!reflect.DeepEqual(r.Headers, []xmpp.Header{{Name: "X-A", Value: "1"}, {Name: "X-B", Value: "ä"}}) {
			t.Errorf("got %+v", r)
		}
		if left := time.Until(r.Deadline()); left != 12*time.Second {
			t.Errorf("deadline in %s", left)
		}
		// The same stanza before and after the answer.
		sess.h.IQ(iq)
		if sess.answered() != nil {
			t.Fatal("answered before the call was")
		}
		time.Sleep(11 * time.Second)
		if err := r.Ref(r.Room.WithResource("1a2b3c4d")); err != nil {
			t.Fatal(err)
		}
		sess.h.IQ(iq)
		for range 3 {
			a := sess.answered()
			if a == nil || a.Type != "result" || a.ID != "d1" || a.To != iq.From || !reflect.DeepEqual(a.Payload, xmpp.DialRef("xmpp:standup@conference.meet.example/1a2b3c4d")) {
				t.Fatalf("answered %+v", a)
			}
		}
		for _, err := range []error{r.Ref(r.Room), r.Refuse("internal-server-error", "")} {
			if !errors.Is(err, ErrAnswered) {
				t.Errorf("again: %v", err)
			}
		}
		time.Sleep(10 * time.Second)
		if a := sess.answered(); a != nil || len(got) != 0 {
			t.Errorf("answered once more: %+v", a)
		}
		if st := s.Stats(); st.Dials != 1 || st.DialsTwice != 2 || st.DialsAccepted != 1 || st.DialsUnheard != 2 || st.DialsRefused+st.DialsExpired != 0 {
			t.Errorf("counted %+v", st)
		}
		// A minute later the stanza is another request, if it ever comes.
		time.Sleep(time.Minute)
		sess.h.IQ(iq)
		if r2 := <-got; r2 == r || r2.Refuse("forbidden", "no") != nil || sess.condition() != "auth/forbidden" {
			t.Error("not a new request")
		}
	})
}

func TestDialRefused(t *testing.T) {
	dialling(t, brew(), func(t *testing.T, s *Set, sess *fakeSession, got chan *DialRequest) {
		sess.h.IQ(dialIQ(focus, "d1", "112", intoRoom))
		sess.h.IQ(dialIQ(focus, "d1", "112", intoRoom))
		r := <-got
		if err := r.Refuse("resource-constraint", "full"); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if a := sess.answered(); a == nil || a.Type != "error" || a.ID != "d1" || !reflect.DeepEqual(*a.Error, xmpp.StanzaError{Type: "wait", Condition: "resource-constraint", Text: "full"}) {
				t.Fatalf("answered %+v", a)
			}
		}
		if err := r.Ref(r.Room); !errors.Is(err, ErrAnswered) {
			t.Errorf("accepted after all: %v", err)
		}

		// Nobody answers.
		sess.h.IQ(dialIQ(focus, "d2", "112", intoRoom))
		r = <-got
		time.Sleep(12*time.Second - time.Nanosecond)
		if sess.answered() != nil {
			t.Fatal("refused early")
		}
		time.Sleep(time.Nanosecond)
		if c := sess.condition(); c != "wait/remote-server-timeout" {
			t.Errorf("at the deadline: %s", c)
		}
		if err := r.Ref(r.Room); !errors.Is(err, ErrAnswered) {
			t.Errorf("accepted too late: %v", err)
		}
		if st := s.Stats(); st.DialsRefused != 1 || st.DialsExpired != 1 || st.DialsUnheard != 2 || st.DialsAccepted != 0 {
			t.Errorf("counted %+v", st)
		}
	})
}

// Only the focus of this shard's brewery may dial, and who is configured.
func TestWhoMayDial(t *testing.T) {
	cfg := brew()
	cfg.Shards[0].DialFrom = []string{"Robot@auth.meet.example/App", "dialer.meet.example"}
	dialling(t, cfg, func(t *testing.T, s *Set, sess *fakeSession, got chan *DialRequest) {
		for i, from := range []string{focus, "robot@auth.meet.example/App", "dialer.meet.example", "dialer.meet.example/x"} {
			sess.h.IQ(dialIQ(from, fmt.Sprint("y", i), "112", intoRoom))
			synctest.Wait()
			if len(got) != 1 {
				t.Errorf("%s may not dial", from)
				continue
			}
			(<-got).Ref(xmpp.MustParseJID("r@c/n"))
			sess.answered()
		}
		strangers := []string{
			breweryJID, breweryJID + "/Focus", breweryJID + "/focus/", breweryJID + "/jitsi-abc", "jigasibrewery@internal.auth.other.example/focus",
			"internal.auth.meet.example/focus", "focus@auth.meet.example/focus", "focus.meet.example", "robot@auth.meet.example/other",
			"robot@auth.meet.example", "x@dialer.meet.example", "standup@conference.meet.example/focus", "meet.example",
		}
		for i, from := range strangers {
			sess.h.IQ(dialIQ(from, fmt.Sprint("n", i), "112", intoRoom))
			if c := sess.condition(); c != "auth/forbidden" || len(got) != 0 {
				t.Errorf("%s: %s", from, c)
			}
		}
		if n := s.Stats().DialsForbidden; n != uint64(len(strangers)) {
			t.Errorf("counted %d", n)
		}
	})
}

// A shard that has an account but no focus in its configured brewery trusts
// nobody of that name elsewhere, and one without an account nobody at all.
func TestNobodyMayDialWithoutBrewery(t *testing.T) {
	cfg := one("s1")
	cfg.Shards[0].Brewery = breweryJID
	dialling(t, cfg, func(t *testing.T, s *Set, sess *fakeSession, got chan *DialRequest) {
		sess.h.IQ(dialIQ(focus, "d", "112", intoRoom))
		if c := sess.condition(); c != "auth/forbidden" || len(got) != 0 {
			t.Errorf("%s", c)
		}
	})
}

func TestDialNotUnderstood(t *testing.T) {
	var many strings.Builder
	for i := range maxHeaders + 1 {
		many.WriteString(header(fmt.Sprint("X-", i), "v"))
	}
	cfg := brew()
	cfg.Shards[0].Effective.Tenants = []string{"acme"}
	dialling(t, cfg, func(t *testing.T, s *Set, sess *fakeSession, got chan *DialRequest) {
		in := func(room string) string { return header("JvbRoomName", room) }
		for i, tt := range []struct{ name, to, headers, want string }{
			{"no number", "", intoRoom, "modify/bad-request"},
			{"blank number", " ", intoRoom, "modify/bad-request"},
			{"long number", strings.Repeat("1", maxNumber+1), intoRoom, "modify/bad-request"},
			{"line in the number", "1\n2", intoRoom, "modify/bad-request"},
			{"a transcriber", toTranscriber, intoRoom, "cancel/feature-not-implemented"},
			{"no room", "112", "", "modify/bad-request"},
			{"room in lower case only", "112", header("jvbroomname", "standup@conference.meet.example"), "modify/bad-request"},
			{"empty room", "112", in(""), "modify/bad-request"},
			{"bare room", "112", in("standup"), "modify/bad-request"},
			{"occupant", "112", in("standup@conference.meet.example/x"), "modify/bad-request"},
			{"service", "112", in("conference.meet.example"), "modify/bad-request"},
			{"room elsewhere", "112", in("standup@conference.other.example"), "modify/bad-request"},
			{"room of a domain that ends alike", "112", in("standup@evilconference.meet.example"), "modify/bad-request"},
			{"room below", "112", in("standup@conference.a.b.meet.example"), "modify/bad-request"},
			{"room of a tenant not served", "112", in("standup@conference.evil.meet.example"), "modify/bad-request"},
			{"room of no tenant", "112", in("[]standup@conference.meet.example"), "modify/bad-request"},
			{"open tenant", "112", in("[acme@conference.meet.example"), "modify/bad-request"},
			{"the brewery", "112", in(breweryJID), "modify/bad-request"},
			{"two rooms", "112", intoRoom + in("other@conference.meet.example"), "modify/bad-request"},
			{"many headers", "112", intoRoom + many.String(), "modify/bad-request"},
			{"long value", "112", intoRoom + header("X-A", strings.Repeat("v", maxHeaderValue+1)), "modify/bad-request"},
			{"long name", "112", intoRoom + header(strings.Repeat("X", maxHeaderName+1), "v"), "modify/bad-request"},
			{"line in a value", "112", intoRoom + header("X-A", "v\r\nVia: x"), "modify/bad-request"},
			{"line in a name", "112", intoRoom + header("X-A\r\nVia", "x"), "modify/bad-request"},
			{"no name", "112", intoRoom + header("", "x"), "modify/bad-request"},
		} {
			sess.h.IQ(dialIQ(focus, fmt.Sprint("d", i), tt.to, tt.headers))
			if c := sess.condition(); c != tt.want || len(got) != 0 {
				t.Errorf("%s: %q, want %s", tt.name, c, tt.want)
			}
		}
		// What is no dial request is no service of ours.
		for _, name := range []xml.Name{{Space: rayo, Local: "hangup"}, {Space: "jabber:iq:roster", Local: "query"}, {Space: "x", Local: "dial"}} {
			sess.h.IQ(&xmpp.IQ{Type: "set", From: xmpp.MustParseJID(focus), ID: "x", Name: name, Raw: []byte("<a/>")})
			if c := sess.condition(); c != "cancel/service-unavailable" {
				t.Errorf("%v: %s", name, c)
			}
		}
		for i, room := range []string{"standup@conference.acme.meet.example", "[Acme]standup@CONFERENCE.meet.example"} {
			sess.h.IQ(dialIQ(focus, fmt.Sprint("t", i), "112", in(room)))
			if r := <-got; r.Conference != (Room{Name: "standup", Tenant: "acme"}) || r.Room.String() != "standup@conference.acme.meet.example" {
				t.Errorf("%s: %+v", room, r.Conference)
			}
		}
	})
}

// Nothing accepts requests: they go to another gateway.
func TestDialWithoutTaker(t *testing.T) {
	w := &world{}
	bubble(t, brew(), w, func(t *testing.T, s *Set) {
		sess := w.at(urlOf("s1")).sessions()[0]
		sess.h.IQ(dialIQ(focus, "d", "112", intoRoom))
		if c := sess.condition(); c != "cancel/feature-not-implemented" {
			t.Errorf("%s", c)
		}
	})
}

func TestTooManyDials(t *testing.T) {
	dialling(t, brew(), func(t *testing.T, s *Set, sess *fakeSession, got chan *DialRequest) {
		for i := range maxPending {
			sess.h.IQ(dialIQ(focus, fmt.Sprint("d", i), "112", intoRoom))
		}
		sess.h.IQ(dialIQ(focus, "more", "112", intoRoom))
		if c := sess.condition(); c != "wait/resource-constraint" {
			t.Errorf("%s", c)
		}
		(<-got).Refuse("forbidden", "")
		sess.answered()
		sess.h.IQ(dialIQ(focus, "room again", "112", intoRoom))
		synctest.Wait()
		if len(got) != maxPending {
			t.Errorf("%d wait", len(got))
		}
		// The same stanza without end waits for one answer.
		for range 100 {
			sess.h.IQ(dialIQ(focus, "room again", "112", intoRoom))
		}
		for range maxPending - 1 {
			<-got
		}
		(<-got).Refuse("forbidden", "")
		n := 0
		for sess.answered() != nil {
			n++
		}
		if n != maxTwice+1 {
			t.Errorf("%d answers", n)
		}
	})
}

// An answer that cannot arrive is none: the phone must not ring.
func TestDialWhoseAskerIsGone(t *testing.T) {
	ref := func(r *DialRequest) error { return r.Ref(r.Room.WithResource("n")) }
	t.Run("session", func(t *testing.T) {
		dialling(t, brew(), func(t *testing.T, s *Set, sess *fakeSession, got chan *DialRequest) {
			sess.h.IQ(dialIQ(focus, "d", "112", intoRoom))
			sess.end(xmpp.ErrSessionLost)
			if err := ref(<-got); !errors.Is(err, ErrGone) && !errors.Is(err, ErrAnswered) {
				t.Errorf("%v", err)
			}
			time.Sleep(time.Minute)
			if n := s.Stats().DialsAccepted; n != 0 {
				t.Errorf("%d accepted", n)
			}
		})
	})
	t.Run("brewery", func(t *testing.T) {
		dialling(t, brew(), func(t *testing.T, s *Set, sess *fakeSession, got chan *DialRequest) {
			iq := dialIQ(focus, "d", "112", intoRoom)
			sess.h.IQ(iq)
			sess.p.event(xmpp.RoomEvent{Kind: xmpp.Kicked})
			synctest.Wait()
			if err := ref(<-got); !errors.Is(err, ErrGone) || sess.answered() != nil {
				t.Errorf("%v", err)
			}
			sess.h.IQ(iq) // must not learn of an acceptance now
			if c := sess.condition(); c != "cancel/internal-server-error" {
				t.Errorf("%s", c)
			}
			time.Sleep(2 * time.Second) // back in the brewery
			sess.h.IQ(dialIQ(focus, "e", "112", intoRoom))
			if err := ref(<-got); err != nil || sess.answered().Type != "result" {
				t.Errorf("%v", err)
			}
		})
	})
	t.Run("shard", func(t *testing.T) {
		dialling(t, brew(), func(t *testing.T, s *Set, sess *fakeSession, got chan *DialRequest) {
			sess.h.IQ(dialIQ(focus, "d", "112", intoRoom))
			if err := s.Reload(withBrewery(one("s2"))); err != nil {
				t.Fatal(err)
			}
			if c := sess.condition(); c != "cancel/service-unavailable" {
				t.Errorf("removed: %s", c)
			}
			if err := ref(<-got); !errors.Is(err, ErrAnswered) {
				t.Errorf("%v", err)
			}
		})
	})
}

// Requests of two shards with the same names, even of the same id, are two.
func TestDialsOfTwoShards(t *testing.T) { layouts(t, testDialsOfTwoShards) }

func testDialsOfTwoShards(t *testing.T, of func(names ...string) *config.Config) {
	got := make(chan *DialRequest, 2)
	w := &world{onDial: func(r *DialRequest) { got <- r }}
	cfg := withBrewery(of("s1", "s2"))
	bubble(t, cfg, w, func(t *testing.T, s *Set) {
		seen := map[string]bool{}
		for i, n := range []string{"s1", "s2"} {
			sh := &cfg.Shards[i]
			w.at(urlOf(n)).sessions()[0].h.IQ(dialIQ(strings.ToLower(sh.Brewery)+"/focus", "d", "112", header("JvbRoomName", "standup@"+sh.Effective.MUC)))
			r := <-got
			seen[r.Shard.Name()] = true
			if err := r.Ref(r.Room.WithResource(n)); err != nil {
				t.Error(err)
			}
			if a := w.at(urlOf(n)).sessions()[0].answered(); a == nil || !strings.Contains(fmt.Sprintf("%+v", a.Payload), "/"+n) {
				t.Errorf("%s was told %+v", n, a)
			}
		}
		if len(seen) != 2 {
			t.Errorf("%v", seen)
		}
	})
}

func FuzzDial(f *testing.F) {
	f.Add("+15551234567", "JvbRoomName", "standup@conference.meet.example", "X-A", "b")
	f.Add("sip:a@b", "JvbRoomName", "[acme]standup@conference.meet.example", "JvbRoomName", "x@conference.acme.meet.example")
	f.Add("1", "JvbRoomName", "r%c3%a9union@conference.meet.example", "JvbRoomPassword", "\r\n")
	f.Fuzz(func(t *testing.T, to, n1, v1, n2, v2 string) {
		c := &config.Deployment{Domain: "meet.example", MUC: "conference.meet.example"}
		r := &DialRequest{To: to}
		condition, err := r.read(c, xmpp.RayoDial{To: to, Headers: []xmpp.Header{{Name: n1, Value: v1}, {Name: n2, Value: v2}}})
		if (err == nil) != (condition == "") {
			t.Fatalf("%q, %v", condition, err)
		}
		if err != nil {
			return
		}
		if j, err := xmpp.ParseJID(r.Room.String()); err != nil || j != r.Room || j.Resource != "" || j.Local == "" ||
			j.Domain != c.MUC && !strings.HasSuffix(j.Domain, ".meet.example") {
			t.Errorf("room %s: %v", r.Room, err)
		}
		for _, h := range append(r.Headers, xmpp.Header{Name: "x", Value: r.Password + to}) {
			if strings.ContainsAny(h.Name+h.Value, "\r\n\x00") || h.Name == "" {
				t.Errorf("header %q", h)
			}
		}
	})
}

// What Jicofo really sent is understood.
func TestRecordedDial(t *testing.T) {
	for file, want := range map[string]string{
		"rayo-dial-forwarded-to-jigasi.xml": "judgeroom095c@conference.meet.shard1.test +15551234567",
		"real-jigasi-brewery.xml":           "sipout1@conference.meet.shard1.test sip:bob@127.0.0.1:15071",
	} {
		b, err := os.ReadFile("testdata/" + file)
		if err != nil {
			t.Fatal(err)
		}
		raw := string(b)
		raw = raw[strings.Index(raw, "<dial "):]
		raw = raw[:strings.Index(raw, "</dial>")+len("</dial>")]
		cfg := conf([]config.Deployment{{Name: "prod", Domain: "meet.shard1.test"}}, config.Shard{Name: "s1"})
		dialling(t, withBrewery(cfg), func(t *testing.T, s *Set, sess *fakeSession, got chan *DialRequest) {
			sess.h.IQ(&xmpp.IQ{Type: "set", From: xmpp.MustParseJID("jigasibrewery@internal.auth.meet.shard1.test/focus"), ID: "1",
				Name: xml.Name{Space: rayo, Local: "dial"}, Raw: []byte(raw)})
			if r := <-got; r.Room.String()+" "+r.To != want {
				t.Errorf("%s: %s %s", file, r.Room, r.To)
			}
		})
	}
}
