package xmppd

import (
	"bufio"
	"context"
	"crypto/sha1"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"brewline/internal/jitsitest/client"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func start(t *testing.T, o Options) *Server {
	t.Helper()
	s, err := Start(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// user is a client that keeps what it hears.
type user struct {
	*client.Client
	t    *testing.T
	mu   sync.Mutex
	got  []*element
	news chan struct{}
}

func join(t *testing.T, s *Server, o client.Options) *user {
	t.Helper()
	u := &user{t: t, news: make(chan struct{}, 1)}
	if o.URL == "" {
		o.URL = s.BOSHURL()
	}
	if o.Domain == "" {
		o.Domain = s.o.Domain
	}
	o.Handler = func(x client.Stanza) {
		e, err := parse(x.XML)
		if err != nil {
			t.Errorf("bad stanza %q: %v", x.XML, err)
			return
		}
		u.mu.Lock()
		u.got = append(u.got, e)
		u.mu.Unlock()
		select {
		case u.news <- struct{}{}:
		default:
		}
	}
	c, err := client.Dial(within(t), o)
	if err != nil {
		t.Fatal(err)
	}
	u.Client = c
	t.Cleanup(func() { _ = c.Close() })
	return u
}

// await returns the first stanza, from the beginning, that satisfies ok, and
// takes it and all before it away.
func (u *user) await(what string, ok func(*element) bool) *element {
	u.t.Helper()
	deadline := time.After(5 * time.Second)
	for {
		u.mu.Lock()
		for i, e := range u.got {
			if ok(e) {
				u.got = u.got[i+1:]
				u.mu.Unlock()
				return e
			}
		}
		got := fmt.Sprint(u.got)
		u.mu.Unlock()
		select {
		case <-u.news:
		case <-deadline:
			u.t.Fatalf("no %s; got %s", what, got)
		}
	}
}

func (u *user) must(stanza string) {
	u.t.Helper()
	if err := u.Send(stanza); err != nil {
		u.t.Fatal(err)
	}
}

func (u *user) ask(typ, to, payload string) *element {
	u.t.Helper()
	s, err := u.Request(within(u.t), typ, to, payload)
	if err != nil {
		u.t.Fatal(err)
	}
	e, err := parse(s.XML)
	if err != nil {
		u.t.Fatal(err)
	}
	return e
}

func (u *user) enter(room, nick, extra string) {
	u.t.Helper()
	u.must("<presence xmlns='jabber:client' to='" + room + "/" + nick + "'><x xmlns='" + nsMUC + "'/>" + extra + "</presence>")
}

func isPresence(from, typ string) func(*element) bool {
	return func(e *element) bool { return e.Name == "presence" && e.attr("from") == from && e.attr("type") == typ }
}

// errorOf is an error stanza's type and condition.
func errorOf(e *element) string {
	x := e.child(nsClient, "error")
	c := x.first()
	if c == nil {
		return "none"
	}
	return x.attr("type") + "/" + c.Name
}

func codesOf(e *element) string {
	var out []string
	for _, c := range e.child(nsMUCUser, "x").children() {
		if c.Name == "status" {
			out = append(out, c.attr("code"))
		}
	}
	return strings.Join(out, " ")
}

// focus is a component that joins every room it is asked for.
type focus struct {
	t    *testing.T
	s    *Server
	conn net.Conn
	// on gets every stanza that is no conference request.
	on     func(f *focus, e *element)
	joined bool // in the room that it will be asked for already
	wg     sync.WaitGroup
}

func attach(t *testing.T, s *Server, on func(*focus, *element)) *focus {
	t.Helper()
	conn, err := net.Dial("tcp", s.ComponentAddr())
	if err != nil {
		t.Fatal(err)
	}
	f := &focus{t: t, s: s, conn: conn, on: on}
	_, _ = fmt.Fprintf(conn, "<stream:stream xmlns='%s' xmlns:stream='%s' to='%s'>", nsComponent, nsStream, s.o.Focus)
	in := newXMLReader(bufio.NewReader(conn), 1<<20)
	h, err := in.start()
	if err != nil {
		t.Fatal(err)
	}
	f.say(handshake(h.attr("id"), s.o.ComponentSecret))
	if e, err := in.element(); err != nil || e.Name != "handshake" {
		t.Fatalf("handshake: %v %v", e, err)
	}
	f.wg.Add(1)
	go func() {
		defer f.wg.Done()
		for {
			e, err := in.element()
			if err != nil {
				return
			}
			e.remap(nsComponent, nsClient)
			f.handle(e)
		}
	}()
	t.Cleanup(f.close)
	return f
}

func handshake(id, secret string) string {
	sum := sha1.Sum([]byte(id + secret))
	return "<handshake>" + hex.EncodeToString(sum[:]) + "</handshake>"
}

func (f *focus) close() { _ = f.conn.Close(); f.wg.Wait() }

func (f *focus) say(x string) { _, _ = io.WriteString(f.conn, x) }

func (f *focus) jid() string { return "focus@" + f.s.o.Focus + "/focus" }

func (f *focus) join(room string) {
	f.say("<presence from='" + f.jid() + "' to='" + room + "/focus'><x xmlns='" + nsMUC + "'/>" +
		"<conference-properties xmlns='" + nsFocus + "'><property key='support-terminate-restart' value='true'/></conference-properties></presence>")
}

func (f *focus) handle(e *element) {
	if c := e.child(nsFocus, "conference"); e.Name == "iq" && e.attr("type") == "set" && c != nil {
		if !f.joined {
			f.join(c.attr("room"))
		}
		f.say(resultReply(e, c.with("machine-uid", "", "ready", "true", "focusjid", "focus@"+f.s.o.Focus).add(
			el(nsFocus, "property", "name", "authentication", "value", "false"),
			el(nsFocus, "property", "name", "sipGatewayEnabled", "value", "true"),
			el(nsFocus, "property", "name", "visitors-supported", "value", "false"))).encode(nsComponent, nsComponent))
		return
	}
	if f.on != nil {
		f.on(f, e)
	}
}

// conference asks the focus for a room.
func (u *user) conference(focus, room string) *element {
	u.t.Helper()
	return u.ask("set", focus, "<conference xmlns='"+nsFocus+"' room='"+room+"' machine-uid='t'/>")
}

// raw posts a body and returns the answer and status.
func raw(t *testing.T, url, body string) (*element, *http.Response) {
	t.Helper()
	r, err := http.Post(url, "text/xml; charset=utf-8", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(r.Body)
	_ = r.Body.Close()
	http.DefaultClient.CloseIdleConnections()
	if err != nil {
		t.Fatal(err)
	}
	if r.StatusCode != http.StatusOK {
		return nil, r
	}
	e, err := parse(strings.TrimSpace(string(data)))
	if err != nil {
		t.Fatalf("%s: %v", data, err)
	}
	return e, r
}
