package xmpp_test

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"brewline/xmpp"
)

const aRoom = "r@conference.meet.shard1.test"

// inRoom is a session in a room with a focus and an occupant.
func inRoom(t *testing.T, o func(*xmpp.Options), ro func(*xmpp.RoomOptions)) (*fake, *xmpp.Session, *xmpp.Room, chan *xmpp.IQ) {
	t.Helper()
	f := newFake(t)
	iqs := make(chan *xmpp.IQ, 10)
	opts := f.options()
	opts.Handler.IQ = func(iq *xmpp.IQ) { iqs <- iq }
	if o != nil {
		o(&opts)
	}
	s := f.dial(opts)
	join := xmpp.RoomOptions{Room: xmpp.MustParseJID(aRoom), Nick: "ab12cd34"}
	if ro != nil {
		ro(&join)
	}
	r, err := f.join(s, join, focusPresence(aRoom), selfPresence(aRoom+"/ab12cd34"))
	if err != nil {
		t.Fatal(err)
	}
	return f, s, r, iqs
}

func iq(typ, from, id, inner string) string {
	return fmt.Sprintf("<iq xmlns='jabber:client' type='%s' from='%s' id='%s'>%s</iq>", typ, from, id, inner)
}

func TestDiscoDuringJoin(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	s := f.dial(f.options())
	joined := make(chan error, 1)
	ctx := within(t)
	go func() {
		_, err := s.Join(ctx, xmpp.RoomOptions{Room: xmpp.MustParseJID(aRoom), Nick: "ab12cd34"})
		joined <- err
	}()
	join := f.expect("join")
	var p struct {
		C xmpp.Caps `xml:"http://jabber.org/protocol/caps c"`
	}
	if err := xml.Unmarshal([]byte(join), &p); err != nil || p.C != s.Caps() || p.C.Hash != "sha-1" {
		t.Fatalf("caps %+v, %v", p.C, err)
	}
	for _, tc := range []struct{ node, want string }{
		{p.C.Node + "#" + p.C.Ver, "result"}, {p.C.Node, "result"}, {"", "result"}, {"other", "error"},
	} {
		f.push(iq("get", aRoom+"/focus", "d1", "<query xmlns='http://jabber.org/protocol/disco#info' node='"+tc.node+"'/>"))
		answer := f.expect("disco#info")
		if attribute(answer, "type") != tc.want || attribute(answer, "to") != aRoom+"/focus" || attribute(answer, "id") != "d1" {
			t.Errorf("%q: %s", tc.node, answer)
		}
		if tc.want == "error" {
			continue
		}
		d := discoOf(t, answer)
		if xmpp.CapsHash(d) != p.C.Ver {
			t.Errorf("hash of %+v is not %s", d, p.C.Ver)
		}
		if d.Has("urn:xmpp:jingle:apps:rtp:video") || !d.Has("urn:xmpp:jingle:apps:rtp:audio") {
			t.Errorf("features %v", d.Features)
		}
	}
	f.push(selfPresence(aRoom + "/ab12cd34"))
	if err := await(t, joined, "join"); err != nil {
		t.Error(err)
	}
}

func discoOf(t *testing.T, stanza string) xmpp.DiscoInfo {
	t.Helper()
	var w struct {
		Query struct {
			Node       string          `xml:"node,attr"`
			Identities []xmpp.Identity `xml:"identity"`
			Features   []struct {
				Var string `xml:"var,attr"`
			} `xml:"feature"`
		} `xml:"query"`
	}
	if err := xml.Unmarshal([]byte(stanza), &w); err != nil {
		t.Fatal(err)
	}
	d := xmpp.DiscoInfo{Node: w.Query.Node, Identities: w.Query.Identities}
	for _, f := range w.Query.Features {
		d.Features = append(d.Features, f.Var)
	}
	return d
}

// The hash of what the real Jigasi answered is the one in its presence.
func TestCapsHashRecorded(t *testing.T) {
	t.Parallel()
	found := 0
	for _, file := range []string{"real-jigasi-leg1", "guest-domain"} {
		for _, s := range stanzas(t, file) {
			if !strings.Contains(s, "disco#info") || !strings.Contains(s, `node="http`) || !strings.Contains(s, "<identity") || strings.Contains(s, "prosody.im") {
				continue
			}
			d := discoOf(t, s)
			_, ver, _ := strings.Cut(d.Node, "#")
			if got := xmpp.CapsHash(d); got != ver {
				t.Errorf("%s: %s, want %s", file, got, ver)
			}
			found++
		}
	}
	if found != 2 {
		t.Errorf("%d answers", found)
	}
}

// The example of XEP-0115 §5.3.
func TestCapsHashWithForm(t *testing.T) {
	t.Parallel()
	d := xmpp.DiscoInfo{
		Identities: []xmpp.Identity{{Category: "client", Type: "pc", Lang: "el", Name: "Ψ 0.11"}, {Category: "client", Type: "pc", Lang: "en", Name: "Psi 0.11"}},
		Features:   []string{"http://jabber.org/protocol/muc", "http://jabber.org/protocol/disco#items", "http://jabber.org/protocol/disco#info", "http://jabber.org/protocol/caps"},
		Forms: []xmpp.Form{{Type: "urn:xmpp:dataforms:softwareinfo", Fields: map[string][]string{
			"ip_version": {"ipv6", "ipv4"}, "os": {"Mac"}, "os_version": {"10.5.1"}, "software": {"Psi"}, "software_version": {"0.11"}}}},
	}
	if got := xmpp.CapsHash(d); got != "q07IKJEyjvHSyhy//CH0CxmKi8w=" {
		t.Error(got)
	}
}

func TestDiscoInfoOfRooms(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	s := f.dial(f.options())
	room := "judgeroom095c@conference.meet.shard1.test"
	ask := func(answer string) (*xmpp.DiscoInfo, error) {
		type result struct {
			d   *xmpp.DiscoInfo
			err error
		}
		done := make(chan result, 1)
		ctx := within(t)
		go func() {
			d, err := s.DiscoInfo(ctx, xmpp.MustParseJID(room), "")
			done <- result{d, err}
		}()
		id := attribute(f.expect("question"), "id")
		f.push(strings.NewReplacer("7b57302261", id, "eaebc98449", id).Replace(answer))
		r := await(t, done, "answer")
		return r.d, r.err
	}
	d, err := ask(stanzas(t, "disco-info-room")[0])
	if err != nil || !d.Has("muc_nonanonymous") || len(d.Forms) != 1 || d.Forms[0].Fields["muc#roominfo_occupants"][0] != "3" {
		t.Errorf("living room: %+v, %v", d, err)
	}
	_, err = ask(stanzas(t, "disco-info-room-before-join")[0])
	var se *xmpp.StanzaError
	if !errors.As(err, &se) || se.Condition != "item-not-found" || se.By != "conference.meet.shard1.test" {
		t.Errorf("no room: %v", err)
	}
}

func TestRepliesAreMatchedBySender(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	s := f.dial(f.options())
	done := make(chan *xmpp.IQ, 1)
	ctx := within(t)
	go func() {
		r, err := s.Request(ctx, &xmpp.IQ{Type: "get", To: xmpp.MustParseJID("Focus.Meet.Shard1.test"), Payload: ping{}})
		if err != nil {
			t.Error(err)
		}
		done <- r
	}()
	id := attribute(f.expect("request"), "id")
	f.push(iq("result", aRoom+"/evil", id, "<evil/>"), iq("result", "meet.shard1.test", id, "<evil/>"),
		"<iq xmlns='jabber:client' type='result' id='"+id+"'><evil/></iq>", iq("result", "focus.meet.shard1.test", id, "<good/>"))
	if r := await(t, done, "reply"); r.Name.Local != "good" {
		t.Errorf("took %s", r.Raw)
	}
	// Our own server may leave out who it is.
	errs := make(chan error, 1)
	go func() { errs <- s.Ping(ctx) }()
	id = attribute(f.expect("ping"), "id")
	f.push("<iq xmlns='jabber:client' type='result' id='" + id + "'/>")
	if err := await(t, errs, "pong"); err != nil {
		t.Error(err)
	}
}

type ping struct {
	XMLName xml.Name `xml:"urn:xmpp:ping ping"`
}

func TestRequestEnds(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	o := f.options()
	o.RequestTimeout = 20 * time.Millisecond
	s := f.dial(o)
	_, err := s.Request(context.Background(), &xmpp.IQ{Type: "get", To: s.JID(), Payload: ping{}})
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("no answer: %v", err)
	}
	errs := make(chan error, 1)
	ctx := within(t)
	go func() {
		_, err := s.Request(ctx, &xmpp.IQ{Type: "get", To: s.JID(), Payload: ping{}})
		errs <- err
	}()
	f.expect("request")
	f.expect("request")
	f.push("<stream:error><conflict xmlns='urn:ietf:params:xml:ns:xmpp-streams'/><text xmlns='urn:ietf:params:xml:ns:xmpp-streams'>Replaced by new connection</text></stream:error>")
	if err := await(t, errs, "end"); !errors.Is(err, xmpp.ErrSessionLost) || !strings.Contains(err.Error(), "conflict: Replaced") {
		t.Errorf("session lost: %v", err)
	}
}

func TestPingIsAnswered(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	_ = f.dial(f.options())
	f.push(iq("get", "meet.shard1.test", "p1", "<ping xmlns='urn:xmpp:ping'/>"))
	if pong := f.expect("pong"); pong != `<iq xmlns="jabber:client" type="result" id="p1" to="meet.shard1.test"></iq>` {
		t.Errorf("pong %s", pong)
	}
}

func TestSilenceEndsTheSession(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	o := f.options()
	o.PingInterval, o.PingTimeout, o.CloseTimeout = 10*time.Millisecond, time.Second, 10*time.Millisecond
	s := f.dial(o)
	for range 3 { // as long as they are answered the session lives
		p := f.expect("ping")
		if !strings.Contains(p, "urn:xmpp:ping") {
			t.Fatal(p)
		}
		f.push(iq("result", "meet.shard1.test", attribute(p, "id"), ""))
	}
	await(t, s.Done(), "end of the session")
	if err := s.Err(); !errors.Is(err, xmpp.ErrSessionLost) || !strings.Contains(err.Error(), "ping") {
		t.Errorf("ended with %v", err)
	}
}

const initiate = "<jingle xmlns='urn:xmpp:jingle:1' action='session-initiate' sid='p2p' initiator='x@y/z'/>"

func TestOnlyTheFocusIsObeyed(t *testing.T) {
	t.Parallel()
	mute := "<mute xmlns='http://jitsi.org/jitmeet/audio'>true</mute>"
	f, s, r, iqs := inRoom(t, nil, nil)
	for _, from := range []string{aRoom + "/evil", aRoom, "other@conference.meet.shard1.test/focus", "focus@auth.meet.shard1.test/focus", "evil@meet.shard1.test/focus", aRoom + "/Focus"} {
		f.push(iq("set", from, "j1", initiate))
		ack := f.expect("acknowledgement")
		if attribute(ack, "type") != "result" || attribute(ack, "to") != from || attribute(ack, "id") != "j1" {
			t.Errorf("%s: %s", from, ack)
		}
		end := f.expect("session-terminate")
		if attribute(end, "type") != "set" || attribute(end, "to") != from ||
			!strings.Contains(end, `<jingle xmlns="urn:xmpp:jingle:1" action="session-terminate" sid="p2p"><reason><decline></decline></reason></jingle>`) {
			t.Errorf("%s: %s", from, end)
		}
		f.push(iq("set", from, "j2", "<jingle xmlns='urn:xmpp:jingle:1' action='transport-info' sid='p2p'/>"))
		if e := f.expect("error"); !strings.Contains(e, "unknown-session") || attribute(e, "type") != "error" {
			t.Errorf("%s: %s", from, e)
		}
		f.push(iq("set", from, "j3", "<jingle xmlns='urn:xmpp:jingle:1' action='session-terminate' sid='p2p'/>"))
		if e := f.expect("result"); attribute(e, "type") != "result" {
			t.Errorf("%s: %s", from, e)
		}
		f.push(iq("set", from, "m1", mute))
		if e := f.expect("refusal"); attribute(e, "type") != "error" || !strings.Contains(e, "forbidden") {
			t.Errorf("%s: %s", from, e)
		}
	}
	if n := s.Stats().Refused; n != 24 {
		t.Errorf("%d refused", n)
	}
	if len(iqs) != 0 {
		t.Errorf("handed over %+v", <-iqs)
	}
	for _, inner := range []string{initiate, mute} {
		f.push(iq("set", aRoom+"/focus", "f1", inner))
		if got := await(t, iqs, "request of the focus"); got.From != r.FocusJID() {
			t.Errorf("from %s", got.From)
		}
	}
	if err := r.Leave(); err != nil {
		t.Fatal(err)
	}
	f.expect("leave")
	f.push(iq("set", aRoom+"/focus", "f2", initiate))
	f.expect("result")
	f.expect("session-terminate")
}

func TestFocusMustBeTheAnnouncedUser(t *testing.T) {
	t.Parallel()
	f, _, r, iqs := inRoom(t, nil, func(o *xmpp.RoomOptions) { o.FocusUser = xmpp.MustParseJID("focus@auth.meet.shard1.test") })
	f.push(iq("set", aRoom+"/focus", "f1", initiate))
	await(t, iqs, "offer of the focus")
	f.push(`<presence xmlns='jabber:client' type='unavailable' from='`+aRoom+`/focus'/>`,
		strings.Replace(focusPresence(aRoom), "focus@auth", "evil@", 1), iq("set", aRoom+"/focus", "f1", initiate))
	f.expect("result")
	f.expect("session-terminate")
	if len(iqs) != 0 || !r.Focus() {
		t.Error("obeyed an impostor")
	}
}

// One bad stanza is counted and answered; the session goes on.
func TestBadStanzas(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var log strings.Builder
	f, s, _, iqs := inRoom(t, func(o *xmpp.Options) {
		o.MaxStanza = 4096
		o.Logger = slog.New(slog.NewTextHandler(lockedWriter{&mu, &log}, nil))
	}, nil)
	for i, bad := range []string{
		iq("set", aRoom+"/evil", "x1", "<big xmlns='urn:big'>"+strings.Repeat("y", 5000)+"</big>"),
		iq("set", aRoom+"/evil", "x2", "<a xmlns='urn:a'>"+strings.Repeat("<b>", 300)+strings.Repeat("</b>", 300)+"</a>"),
		iq("set", aRoom+"/evil", "x3", "<a xmlns='urn:a'>&undefined;</a>"),
		iq("get", aRoom+"/evil", "x4", "<a xmlns='urn:a'><b></c></a>"),
		iq("set", aRoom+"/evil", "x5", ""),
		"<iq xmlns='jabber:client' type='set' from='" + aRoom + "/evil' to='@@' id='x6'><a xmlns='urn:a'/></iq>",
	} {
		f.push(bad)
		answer := f.expect(fmt.Sprintf("error %d", i+1))
		if want := fmt.Sprintf("x%d", i+1); attribute(answer, "id") != want {
			t.Errorf("%s: %s", want, answer)
		}
		if !strings.Contains(answer, "bad-request") || attribute(answer, "to") != aRoom+"/evil" {
			t.Errorf("answer %s", answer)
		}
	}
	f.push("<presence xmlns='jabber:client' from='@'/>", "<message xmlns='jabber:client' from='"+aRoom+"/evil'><a>&x;</a></message>",
		iq("set", "@", "x7", "<a xmlns='urn:a'/>"), iq("odd", aRoom+"/evil", "x8", "<a xmlns='urn:a'/>"),
		"<iq xmlns='jabber:client' type='set' from='"+aRoom+"/evil'><a xmlns='urn:a'/></iq>", "<what xmlns='urn:x'/>", "<iq xmlns='urn:x' type='set' id='1'/>",
		iq("get", aRoom+"/focus", "ok", "<a xmlns='urn:a'/>"))
	if got := await(t, iqs, "good stanza"); got.ID != "ok" {
		t.Errorf("got %+v", got)
	}
	if n := s.Stats().Malformed; n < 10 || n > 12 {
		t.Errorf("%d counted", n)
	}
	mu.Lock()
	defer mu.Unlock()
	if n := strings.Count(log.String(), "not understood"); n != 1 {
		t.Errorf("logged %d times:\n%s", n, log.String())
	}
}

type lockedWriter struct {
	mu *sync.Mutex
	w  *strings.Builder
}

func (l lockedWriter) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(b)
}

func TestNobodyAnswersForTheHandler(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	s := f.dial(f.options())
	f.push(iq("get", "someone@meet.shard1.test/x", "u1", "<query xmlns='jabber:iq:version'/>"))
	if e := f.expect("error"); !strings.Contains(e, "service-unavailable") {
		t.Errorf("answer %s", e)
	}
	if err := s.ReplyError(&xmpp.IQ{ID: "1", From: s.JID()}, &xmpp.StanzaError{Type: "auth", Condition: "forbidden", Text: "a<b"}); err != nil {
		t.Fatal(err)
	}
	want := `<iq xmlns="jabber:client" type="error" id="1" to="` + recordedJID + `"><error type="auth"><forbidden xmlns="urn:ietf:params:xml:ns:xmpp-stanzas"></forbidden><text xmlns="urn:ietf:params:xml:ns:xmpp-stanzas">a&lt;b</text></error></iq>`
	if e := f.expect("error"); e != want {
		t.Errorf("error %s", e)
	}
}

func TestSendMarshals(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	s := f.dial(f.options())
	type plain struct {
		XMLName xml.Name `xml:"message"`
		To      xmpp.JID `xml:"to,attr"`
		Body    string   `xml:"body"`
	}
	for _, tc := range []struct {
		v    any
		want string
	}{
		{plain{To: s.JID(), Body: "x"}, `<message xmlns="jabber:client" to="` + recordedJID + `"><body>x</body></message>`},
		{&xmpp.Message{To: xmpp.MustParseJID(aRoom), Type: "groupchat", Body: "a&b", JSON: []byte(`{"a":1}`)},
			`<message xmlns="jabber:client" type="groupchat" to="` + aRoom + `"><body>a&amp;b</body><json-message xmlns="http://jitsi.org/jitmeet">{&#34;a&#34;:1}</json-message></message>`},
		{&xmpp.Presence{Type: "unavailable", Status: "bye"}, `<presence xmlns="jabber:client" type="unavailable"><status>bye</status></presence>`},
	} {
		if err := s.Send(tc.v); err != nil {
			t.Fatal(err)
		}
		if got := f.expect("stanza"); got != tc.want {
			t.Errorf("got %s\nwant %s", got, tc.want)
		}
	}
	if err := s.Send(make(chan int)); err == nil {
		t.Error("sent a channel")
	}
}

func TestShardChangeEndsTheSession(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	var mu sync.Mutex
	shard := "shard-1"
	inner := f.srv.Config.Handler
	lb := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		w.Header().Set("X-Jitsi-Shard", shard)
		mu.Unlock()
		inner.ServeHTTP(w, r)
	}))
	t.Cleanup(func() {
		lb.CloseClientConnections()
		lb.Close()
	})
	o := f.options()
	o.URL = lb.URL
	s := f.dial(o)
	if s.Shard() != "shard-1" {
		t.Errorf("shard %q", s.Shard())
	}
	mu.Lock()
	shard = "shard-2"
	mu.Unlock()
	if err := s.Send(&xmpp.Presence{}); err != nil { // the held request went before the change
		t.Fatal(err)
	}
	f.push("<message xmlns='jabber:client'/>")
	await(t, s.Done(), "end of the session")
	if err := s.Err(); !errors.Is(err, xmpp.ErrShardChanged) {
		t.Errorf("ended with %v", err)
	}
}

func TestSecretsStayOut(t *testing.T) {
	t.Parallel()
	for _, u := range []string{"http://127.0.0.1:1/http-bind", "ws://127.0.0.1:1/xmpp-websocket", "http://127.0.0.1:1/http-bind?token=geheim"} {
		_, err := xmpp.Dial(within(t), xmpp.Options{URL: u, Domain: "meet.test", Token: "geheim"})
		if !errors.Is(err, xmpp.ErrUnreachable) || strings.Contains(err.Error(), "geheim") {
			t.Errorf("%v", err)
		}
	}
	for _, o := range []xmpp.Options{{}, {URL: "ftp://x", Domain: "y"}, {URL: "http://x"}, {URL: "://", Domain: "y"}} {
		if _, err := xmpp.Dial(within(t), o); err == nil {
			t.Errorf("%+v dialled", o)
		}
	}
}

func TestCloseWhileTheServerIsDead(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	o := f.options()
	o.CloseTimeout = 50 * time.Millisecond
	s := f.dial(o)
	f.mu.Lock() // nobody is answered any more
	defer f.mu.Unlock()
	done := make(chan struct{})
	go func() {
		_ = s.Close()
		close(done)
	}()
	await(t, done, "end of Close")
	if err := s.Err(); !errors.Is(err, xmpp.ErrClosed) {
		t.Errorf("ended with %v", err)
	}
}

func TestRequestMute(t *testing.T) {
	t.Parallel()
	f, _, r, _ := inRoom(t, nil, nil)
	for _, tc := range []struct{ answer, want string }{{"result", ""}, {"error", "not-allowed"}} {
		errs := make(chan error, 1)
		ctx := within(t)
		go func() { errs <- r.RequestMute(ctx, false) }()
		q := f.expect("mute request")
		if !strings.Contains(q, `<mute xmlns="http://jitsi.org/jitmeet/audio" jid="`+aRoom+`/ab12cd34">false</mute>`) || attribute(q, "to") != aRoom+"/focus" {
			t.Errorf("request %s", q)
		}
		f.push(iq(tc.answer, aRoom+"/focus", attribute(q, "id"), "<error type='cancel'>"+condition("not-allowed")+"</error>"))
		err := await(t, errs, "answer")
		var se *xmpp.StanzaError
		if (tc.want == "") != (err == nil) || (err != nil && (!errors.As(err, &se) || se.Condition != tc.want)) {
			t.Errorf("%s: %v", tc.answer, err)
		}
	}
}
