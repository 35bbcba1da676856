package jicofo

import (
	"encoding/xml"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// member is a participant over XMPP on TCP: enough of a client to sit in a
// room and talk Jingle by hand.
type member struct {
	t        testing.TB
	conn     net.Conn
	dec      *xml.Decoder
	jid      string
	features []string
	room     string
	nick     string

	mu     sync.Mutex
	silent bool // does not answer disco#info
	got    []*element
	news   chan struct{}
	done   sync.WaitGroup
}

const nsClient = "jabber:client"

// login opens an anonymous session.
func login(t testing.TB, addr, domain string, features ...string) *member {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	m := &member{t: t, conn: conn, features: features, news: make(chan struct{}, 1)}
	t.Cleanup(m.close)
	m.open(domain)
	m.write("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='ANONYMOUS'/>")
	if e := m.next(); e.Name != "success" {
		t.Fatalf("login: %s", e)
	}
	m.open(domain)
	m.write("<iq type='set' id='bind'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>")
	for {
		if e := m.next(); e.attr("id") == "bind" { // a message may come before
			m.jid = e.child("", "bind").child("", "jid").Text
			break
		}
	}
	if m.jid == "" {
		t.Fatal("no JID bound")
	}
	m.done.Add(1)
	go m.read()
	return m
}

func (m *member) open(domain string) {
	m.t.Helper()
	m.write("<?xml version='1.0'?><stream:stream xmlns='jabber:client' xmlns:stream='" + nsStream + "' version='1.0' to='" + domain + "'>")
	m.dec = xml.NewDecoder(m.conn)
	if _, err := nextStart(m.dec); err != nil {
		m.t.Fatal(err)
	}
	if e := m.next(); e.Name != "features" {
		m.t.Fatalf("got %s", e)
	}
}

func (m *member) next() *element {
	m.t.Helper()
	_ = m.conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	start, err := nextStart(m.dec)
	if err != nil {
		m.t.Fatal(err)
	}
	e, err := readElement(m.dec, start, nsClient)
	if err != nil {
		m.t.Fatal(err)
	}
	return e
}

func (m *member) write(s string) { _, _ = m.conn.Write([]byte(s)) }

func (m *member) send(e *element) {
	var b strings.Builder
	e.write(&b, nsClient)
	m.write(b.String())
}

// read answers what a client answers by itself, and keeps the rest.
func (m *member) read() {
	defer m.done.Done()
	_ = m.conn.SetReadDeadline(time.Time{})
	for {
		start, err := nextStart(m.dec)
		if err != nil {
			return
		}
		e, err := readElement(m.dec, start, nsClient)
		if err != nil {
			return
		}
		m.mu.Lock()
		if kind := e.attr("type"); e.Name == "iq" && (kind == "get" || kind == "set") {
			result := el("", "iq", "type", "result", "id", e.attr("id"), "to", e.attr("from"))
			if q := e.child(nsDisco, "query"); q != nil {
				result.add(m.info())
			}
			if !m.silent {
				m.send(result)
			}
		}
		m.got = append(m.got, e)
		m.mu.Unlock()
		select {
		case m.news <- struct{}{}:
		default:
		}
	}
}

func (m *member) info() *element {
	q := el(nsDisco, "query").add(el("", "identity", "category", "client", "type", "pc"))
	for _, f := range m.features {
		q.add(el("", "feature", "var", f))
	}
	return q
}

func (m *member) close() {
	_ = m.conn.Close()
	m.done.Wait()
}

// await returns the first stanza that satisfies ok and forgets it and all
// before it.
func (m *member) await(what string, ok func(*element) bool) *element {
	m.t.Helper()
	return m.take(what, true, ok)
}

// take is await; without before it forgets nothing but what it returns.
func (m *member) take(what string, before bool, ok func(*element) bool) *element {
	m.t.Helper()
	deadline := time.After(10 * time.Second)
	for {
		m.mu.Lock()
		i := slices.IndexFunc(m.got, ok)
		if i >= 0 {
			e := m.got[i]
			m.got = slices.Delete(m.got, i, i+1)
			if before {
				m.got = m.got[i:]
			}
			m.mu.Unlock()
			return e
		}
		got := fmt.Sprint(m.got)
		m.mu.Unlock()
		select {
		case <-m.news:
		case <-deadline:
			m.t.Fatalf("%s: no %s; got %s", m.nick, what, got)
		}
	}
}

// saw says whether a stanza has come that await has not passed.
func (m *member) saw(ok func(*element) bool) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.ContainsFunc(m.got, ok)
}

// ask sends an IQ and returns its reply.
func (m *member) ask(kind, to string, payload *element) *element {
	m.t.Helper()
	id := randomID()
	m.send(el("", "iq", "type", kind, "id", id, "to", to).add(payload))
	return m.take("reply", false, func(e *element) bool { return e.Name == "iq" && e.attr("id") == id })
}

// request sends a conference request until it is ready.
func (m *member) request(focus, room string) {
	m.t.Helper()
	for range 50 {
		r := m.ask("set", focus, el(nsFocus, "conference", "room", room, "machine-uid", "x"))
		if x := r.child(nsFocus, "conference"); x.attr("ready") == "true" {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	m.t.Fatalf("no conference in %s", room)
}

// join enters the room.
func (m *member) join(room, nick string) {
	m.t.Helper()
	m.room, m.nick = room, nick
	m.send(el("", "presence", "to", room+"/"+nick).add(
		el(nsMUC, "x"),
		el(nsCaps, "c", "hash", "sha-1", "node", "https://example/caps", "ver", capsHash(m.info())),
		el("http://jabber.org/protocol/nick", "nick").text(nick),
	))
	m.await("self-presence", func(e *element) bool { return e.Name == "presence" && hasStatus(e, "110") })
}

func (m *member) leave() {
	m.send(el("", "presence", "type", "unavailable", "to", m.room+"/"+m.nick))
}

func (m *member) focus() string { return m.room + "/focus" }

// jingle awaits a Jingle request of the focus.
func (m *member) jingle(action string) *element {
	m.t.Helper()
	iq := m.await(action, func(e *element) bool { return isJingle(e, action) && e.attr("from") == m.focus() })
	return iq.child(nsJingle, "jingle")
}

func isJingle(e *element, action string) bool {
	x := e.child(nsJingle, "jingle")
	return e.attr("type") == "set" && x.attr("action") == action
}

// accept answers a session-initiate; nothing of media follows.
func (m *member) accept(sid, ssrc string) {
	m.t.Helper()
	if r := m.ask("set", m.focus(), accept(sid, ssrc, m.nick+" a0")); r.attr("type") != "result" {
		m.t.Fatalf("accept: %s", r)
	}
}
