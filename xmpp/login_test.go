package xmpp_test

import (
	"context"
	"encoding/base64"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/coder/websocket"

	"brewline/xmpp"
)

// script is a server that says what it is told to, over TCP.
type script struct {
	t *testing.T
	c net.Conn
}

// hear reads until what the client said contains want.
func (s *script) hear(want string) string {
	var got strings.Builder
	buf := make([]byte, 4096)
	for !strings.Contains(got.String(), want) {
		n, err := s.c.Read(buf)
		got.Write(buf[:n])
		if err != nil {
			return got.String()
		}
	}
	return got.String()
}

func (s *script) say(text string) { _, _ = s.c.Write([]byte(text)) }

const (
	streamOpen  = "<?xml version='1.0'?><stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' from='meet.test' version='1.0'>"
	bindFeature = "<stream:features><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></stream:features>"
	success     = "<success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>"
)

func mechanisms(names ...string) string {
	return "<stream:features><mechanisms xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><mechanism>" +
		strings.Join(names, "</mechanism><mechanism>") + "</mechanism></mechanisms></stream:features>"
}

func challenge(s string) string {
	return "<challenge xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>" + base64.StdEncoding.EncodeToString([]byte(s)) + "</challenge>"
}

// serve runs play for one connection and returns where to connect to.
func serve(t *testing.T, play func(*script)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer func() { _ = c.Close() }()
		play(&script{t, c})
	}()
	t.Cleanup(func() {
		_ = l.Close()
		<-done
	})
	return "xmpp://" + l.Addr().String()
}

// loginAnonymously plays a login up to the bind result.
func (s *script) loginAnonymously() {
	s.hear("<stream:stream")
	s.say(streamOpen + mechanisms("ANONYMOUS"))
	s.hear("<auth")
	s.say(success)
	s.hear("<stream:stream")
	s.say(streamOpen + bindFeature)
	id := attributeIn(s.hear("</iq>"))
	s.say("<iq type='result' id='" + id + "'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><jid>u@meet.test/r</jid></bind></iq>")
}

func attributeIn(stanza string) string { return attribute(stanza[strings.Index(stanza, "<iq"):], "id") }

func TestLoginRefusals(t *testing.T) {
	t.Parallel()
	start := func(s *script, features string) {
		s.hear("<stream:stream")
		s.say(streamOpen + features)
	}
	for _, tc := range []struct {
		name  string
		want  error
		text  string
		plain bool
		play  func(*script)
	}{
		{"success without proof", xmpp.ErrAuth, "prove", false, func(s *script) {
			start(s, mechanisms("SCRAM-SHA-1"))
			s.hear("<auth")
			s.say(success)
			s.hear("\x00")
		}},
		{"endless challenge", xmpp.ErrAuth, "challenge", false, func(s *script) {
			start(s, mechanisms("SCRAM-SHA-256"))
			s.hear("<auth")
			s.say(challenge("x"))
			s.hear("\x00")
		}},
		{"endless hashing", xmpp.ErrAuth, "iteration", false, func(s *script) {
			start(s, mechanisms("SCRAM-SHA-1"))
			s.hear("<auth")
			s.say(challenge("r=x,s=QQ==,i=999999999"))
			s.hear("\x00")
		}},
		{"other nonce", xmpp.ErrAuth, "nonce", false, func(s *script) {
			start(s, mechanisms("SCRAM-SHA-1"))
			s.hear("<auth")
			s.say(challenge("r=xyz,s=QQ==,i=4096"))
			s.hear("\x00")
		}},
		{"challenge for PLAIN", xmpp.ErrAuth, "unexpected", true, func(s *script) {
			start(s, mechanisms("PLAIN"))
			s.hear("<auth")
			s.say(challenge("x"))
			s.hear("\x00")
		}},
		{"plain in the open", xmpp.ErrAuth, "PLAIN", false, func(s *script) {
			start(s, mechanisms("PLAIN", "X-OTHER"))
			if got := s.hear("<auth"); strings.Contains(got, "<auth") {
				s.t.Error("password sent")
			}
		}},
		{"nothing usable", xmpp.ErrAuth, "X-OTHER", false, func(s *script) {
			start(s, mechanisms("X-OTHER"))
			s.hear("\x00")
		}},
		{"token refused", xmpp.ErrAuth, "not-allowed: token expired", true, func(s *script) {
			start(s, mechanisms("PLAIN"))
			s.hear("<auth")
			s.say("<failure xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><not-allowed/><text>token expired</text></failure>")
			s.hear("\x00")
		}},
		{"host unknown", xmpp.ErrDomain, "host-unknown", false, func(s *script) {
			start(s, "<stream:error><host-unknown xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error></stream:stream>")
		}},
		{"no features", xmpp.ErrUnreachable, "", false, func(s *script) { start(s, "</stream:stream>") }},
		{"doctype", xmpp.ErrUnreachable, "type declaration", false, func(s *script) {
			s.hear("<stream:stream")
			s.say("<!DOCTYPE x [<!ENTITY y 'z'>]>" + streamOpen)
			s.hear("\x00")
		}},
		{"no XML", xmpp.ErrUnreachable, "", false, func(s *script) { s.say("SSH-2.0-x\r\n") }},
		{"hangs up", xmpp.ErrUnreachable, "EOF", false, func(s *script) { s.hear("<stream:stream") }},
		{"starttls refused", xmpp.ErrTLS, "failure", false, func(s *script) {
			start(s, "<stream:features><starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/></stream:features>")
			s.hear("<starttls")
			s.say("<failure xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>")
			s.hear("\x00")
		}},
		{"starttls with something behind it", xmpp.ErrTLS, "before the handshake", false, func(s *script) {
			start(s, "<stream:features><starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/></stream:features>")
			s.hear("<starttls")
			s.say("<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>" + mechanisms("ANONYMOUS"))
			s.hear("\x00")
		}},
		{"no bind", xmpp.ErrUnreachable, "binding", true, func(s *script) {
			start(s, mechanisms("PLAIN"))
			s.hear("<auth")
			s.say(success)
			start(s, "<stream:features/>")
			s.hear("\x00")
		}},
		{"bind refused", xmpp.ErrAuth, "conflict", true, func(s *script) {
			start(s, mechanisms("PLAIN"))
			s.hear("<auth")
			s.say(success)
			start(s, bindFeature)
			id := attributeIn(s.hear("</iq>"))
			s.say("<iq type='error' id='" + id + "'><error type='cancel'>" + condition("conflict") + "</error></iq>")
			s.hear("\x00")
		}},
		{"bind to nonsense", xmpp.ErrUnreachable, "jid", true, func(s *script) {
			start(s, mechanisms("PLAIN"))
			s.hear("<auth")
			s.say(success)
			start(s, bindFeature)
			id := attributeIn(s.hear("</iq>"))
			s.say("<iq type='result' id='" + id + "'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><jid>@</jid></bind></iq>")
			s.hear("\x00")
		}},
		{"chatter instead of the bind result", xmpp.ErrUnreachable, "bind result", true, func(s *script) {
			start(s, mechanisms("PLAIN"))
			s.hear("<auth")
			s.say(success)
			start(s, bindFeature)
			s.hear("</iq>")
			s.say(strings.Repeat("<message/>", 100))
			s.hear("\x00")
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			s, err := xmpp.Dial(within(t), xmpp.Options{URL: serve(t, tc.play), Domain: "meet.test", Username: "u", Password: "p", AllowPlain: tc.plain})
			if !errors.Is(err, tc.want) || !strings.Contains(err.Error(), tc.text) {
				t.Errorf("Dial: %v, %v", s, err)
			}
		})
	}
	t.Run("silence", func(t *testing.T) {
		t.Parallel()
		ctx, cancel := context.WithCancel(context.Background())
		_, err := xmpp.Dial(ctx, xmpp.Options{Domain: "meet.test", URL: serve(t, func(s *script) {
			s.hear("<stream:stream")
			cancel()
			s.hear("\x00")
		})})
		if !errors.Is(err, context.Canceled) || !errors.Is(err, xmpp.ErrUnreachable) {
			t.Errorf("Dial: %v", err)
		}
	})
}

func TestTCPStream(t *testing.T) {
	t.Parallel()
	heard := make(chan string, 2)
	messages := make(chan *xmpp.Message, 10)
	s := dial(t, xmpp.Options{Domain: "meet.test", PingInterval: -1, MaxStanza: 2000, Handler: xmpp.Handler{Message: func(m *xmpp.Message) { messages <- m }},
		URL: serve(t, func(s *script) {
			s.loginAnonymously()
			for _, part := range []string{" ", "<mess", "age><bo", "dy>one</bo", "dy></message> <message><body>" + strings.Repeat("x", 3000),
				"</body></message><message><body>two</body></message>"} {
				s.say(part)
			}
			heard <- s.hear("</stream:stream>")
			s.say("</stream:stream>")
		})})
	for _, want := range []string{"one", "two"} {
		if m := await(t, messages, "message"); m.Body != want {
			t.Errorf("got %q", m.Body)
		}
	}
	if n := s.Stats().Malformed; n != 1 {
		t.Errorf("%d malformed", n)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if got := await(t, heard, "goodbye"); got != `<presence xmlns="jabber:client" type="unavailable"></presence></stream:stream>` {
		t.Errorf("goodbye %s", got)
	}
	if err := s.Err(); !errors.Is(err, xmpp.ErrClosed) {
		t.Errorf("ended with %v", err)
	}
}

func TestStreamEnds(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]string{
		"closed": "</stream:stream>", "broken off": "", "ill-formed": "<!DOCTYPE x>",
		"error": "<stream:error><system-shutdown xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error></stream:stream>",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := dial(t, xmpp.Options{Domain: "meet.test", URL: serve(t, func(s *script) {
				s.loginAnonymously()
				s.say(end)
			})})
			await(t, s.Done(), "end")
			if err := s.Err(); !errors.Is(err, xmpp.ErrSessionLost) || (name == "error" && !strings.Contains(err.Error(), "system-shutdown")) {
				t.Errorf("ended with %v", err)
			}
			if err := s.Send(&xmpp.Presence{}); !errors.Is(err, xmpp.ErrSessionLost) {
				t.Errorf("Send: %v", err)
			}
		})
	}
}

func TestWebSocketStream(t *testing.T) {
	t.Parallel()
	heard := make(chan string, 100)
	queries := make(chan string, 1)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		queries <- r.URL.RawQuery
		w.Header().Set("X-Jitsi-Shard", "shard-7")
		c, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{"xmpp"}})
		if err != nil {
			return
		}
		defer func() { _ = c.CloseNow() }()
		say := func(text string) { _ = c.Write(r.Context(), websocket.MessageText, []byte(text)) }
		hear := func() string {
			_, b, err := c.Read(r.Context())
			if err != nil {
				return ""
			}
			return string(b)
		}
		const open = "<open xmlns='urn:ietf:params:xml:ns:xmpp-framing' from='meet.test' version='1.0'/>"
		features := func(s string) string {
			return strings.Replace(s, "<stream:features>", "<stream:features xmlns:stream='http://etherx.jabber.org/streams' xmlns='jabber:client'>", 1)
		}
		heard <- hear()
		say(open)
		say(features(mechanisms("ANONYMOUS")))
		heard <- hear()
		say(success)
		heard <- hear()
		say(open)
		say(features(bindFeature))
		id := attributeIn(hear())
		say("<iq xmlns='jabber:client' type='result' id='" + id + "'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><jid>u@meet.test/r</jid></bind></iq>")
		say("")
		say("garbage")
		_ = c.Write(r.Context(), websocket.MessageBinary, []byte("<message/>"))
		say("<message xmlns='jabber:client'><body>" + strings.Repeat("x", 100000) + "</body></message>")
		say("</message>")
		say("<message xmlns='jabber:client'><body>one</body></message>")
		heard <- hear()
		heard <- hear()
		say("<close xmlns='urn:ietf:params:xml:ns:xmpp-framing'/>")
		_ = hear()
	}))
	t.Cleanup(srv.Close)
	messages := make(chan *xmpp.Message, 10)
	s := dial(t, xmpp.Options{Domain: "meet.test", URL: strings.Replace(srv.URL, "http", "ws", 1), Room: "standup", Token: "t", MaxStanza: 2000,
		Handler: xmpp.Handler{Message: func(m *xmpp.Message) { messages <- m }}})
	if m := await(t, messages, "message"); m.Body != "one" {
		t.Errorf("got %q", m.Body)
	}
	if s.Shard() != "shard-7" || s.Stats().Malformed != 2 {
		t.Errorf("shard %q, %+v", s.Shard(), s.Stats())
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	const open = `<open xmlns='urn:ietf:params:xml:ns:xmpp-framing' to='meet.test' version='1.0'/>`
	for _, want := range []string{open, `<auth xmlns="urn:ietf:params:xml:ns:xmpp-sasl" mechanism="ANONYMOUS"></auth>`, open,
		`<presence xmlns="jabber:client" type="unavailable"></presence>`, `<close xmlns='urn:ietf:params:xml:ns:xmpp-framing'/>`} {
		if got := await(t, heard, want); got != want {
			t.Errorf("heard %s, want %s", got, want)
		}
	}
	if q := <-queries; q != "room=standup&token=t" {
		t.Errorf("query %s", q)
	}
}

func TestWebSocketWithoutSubprotocol(t *testing.T) {
	t.Parallel()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, nil)
		if err == nil {
			_, _, _ = c.Read(r.Context())
			_ = c.CloseNow()
		}
	}))
	t.Cleanup(srv.Close)
	if _, err := xmpp.Dial(within(t), xmpp.Options{Domain: "meet.test", URL: strings.Replace(srv.URL, "http", "ws", 1)}); !errors.Is(err, xmpp.ErrUnreachable) {
		t.Errorf("Dial: %v", err)
	}
}
