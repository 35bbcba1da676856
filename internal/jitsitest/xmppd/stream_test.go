package xmppd

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"mellium.im/sasl"

	"brewline/internal/jitsitest/client"
)

// wire is a client stream of any framing.
type wire struct {
	t    *testing.T
	say  func(string)
	hear func() (*element, error)
	open func(domain string) // (re)starts the stream
	end  func()
}

func (w *wire) next(name string) *element {
	w.t.Helper()
	e, err := w.hear()
	if err != nil {
		w.t.Fatalf("no %s: %v", name, err)
	}
	if e.Name != name {
		w.t.Fatalf("got %s, want %s", e, name)
	}
	return e
}

func dialTCP(t *testing.T, addr string) (*wire, net.Conn) {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return tcpWire(t, c), c
}

func tcpWire(t *testing.T, c net.Conn) *wire {
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	br := bufio.NewReader(c)
	var in *xmlReader
	w := &wire{t: t, end: func() { _ = c.Close() }}
	w.say = func(s string) { _, _ = io.WriteString(c, s) }
	w.hear = func() (*element, error) {
		if in == nil { // a stream that never opened properly
			in = newXMLReader(br, 1<<20)
			if _, err := in.start(); err != nil {
				return nil, err
			}
		}
		return in.element()
	}
	w.open = func(domain string) {
		w.say("<?xml version='1.0'?><stream:stream xmlns='jabber:client' xmlns:stream='" + nsStream + "' to='" + domain + "' version='1.0'>")
		in = newXMLReader(br, 1<<20)
		if h, err := in.start(); err != nil || h.Name != "stream" || h.attr("id") == "" {
			t.Fatalf("stream header %v %v", h, err)
		}
	}
	return w
}

func dialWS(t *testing.T, url string) *wire {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	t.Cleanup(cancel)
	c, _, err := websocket.Dial(ctx, url, &websocket.DialOptions{Subprotocols: []string{"xmpp"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.CloseNow() })
	w := &wire{t: t, end: func() { _ = c.CloseNow() }}
	w.say = func(s string) { _ = c.Write(ctx, websocket.MessageText, []byte(s)) }
	w.hear = func() (*element, error) {
		_, data, err := c.Read(ctx)
		if err != nil {
			return nil, err
		}
		return parse(string(data))
	}
	w.open = func(domain string) {
		w.say("<open xmlns='" + nsFraming + "' to='" + domain + "' version='1.0'/>")
		if e := w.next("open"); e.NS != nsFraming || e.attr("id") == "" {
			t.Fatalf("open %s", e)
		}
	}
	return w
}

// bind logs in anonymously and binds.
func (w *wire) bind(domain, resource string) string {
	w.t.Helper()
	w.open(domain)
	if f := w.next("features"); f.child(nsSASL, "mechanisms") == nil {
		w.t.Fatalf("features %s", f)
	}
	w.say("<auth xmlns='" + nsSASL + "' mechanism='ANONYMOUS'/>")
	w.next("success")
	return w.bound(domain, resource)
}

func (w *wire) bound(domain, resource string) string {
	w.t.Helper()
	w.open(domain)
	if f := w.next("features"); f.child(nsBind, "bind") == nil {
		w.t.Fatalf("features %s", f)
	}
	w.say("<iq xmlns='jabber:client' type='set' id='b'><bind xmlns='" + nsBind + "'><resource>" + resource + "</resource></bind></iq>")
	for {
		e, err := w.hear()
		if err != nil {
			w.t.Fatal(err)
		}
		if e.Name == "iq" {
			return e.child(nsBind, "bind").child(nsBind, "jid").text()
		}
	}
}

func TestStreams(t *testing.T) {
	t.Parallel()
	s := start(t, Options{OpenRoomCreation: true, Shard: "s9"})
	f := attach(t, s, nil)
	room := "r@" + s.o.MUC
	f.join(room)
	for name, dial := range map[string]func(*testing.T) *wire{
		"tcp": func(t *testing.T) *wire { w, _ := dialTCP(t, s.C2SAddr()); return w },
		"ws":  func(t *testing.T) *wire { return dialWS(t, s.WebSocketURL()+"?room=r&token=x") },
	} {
		t.Run(name, func(t *testing.T) {
			watch := join(t, s, client.Options{Room: "r"})
			watch.enter(room, "watch"+name, "")
			watch.await("self", isPresence(room+"/watch"+name, ""))

			w := dial(t)
			if j := w.bind(s.o.Domain, "desk"); !strings.HasSuffix(j, "@meet.example/desk") {
				t.Errorf("JID %q", j)
			}
			w.say("<presence xmlns='jabber:client' to='" + room + "/" + name + "'><x xmlns='" + nsMUC + "'/></presence>")
			for { // the others' presences come first
				e, err := w.hear()
				if err != nil {
					t.Fatal(err)
				}
				if e.attr("from") == room+"/"+name {
					break
				}
			}
			watch.await(name, isPresence(room+"/"+name, ""))
			w.say(map[string]string{"tcp": "</stream:stream>", "ws": "<close xmlns='" + nsFraming + "'/>"}[name])
			watch.await("end", isPresence(room+"/"+name, "unavailable"))
			for {
				e, err := w.hear()
				if err != nil || e.Name == "close" {
					break
				}
			}
			// a connection that is lost
			w = dial(t)
			w.bind(s.o.Domain, "")
			w.say("<presence xmlns='jabber:client' to='" + room + "/" + name + "'><x xmlns='" + nsMUC + "'/></presence>")
			watch.await(name, isPresence(room+"/"+name, ""))
			w.end()
			watch.await("end", isPresence(room+"/"+name, "unavailable"))

			for what, x := range map[string][2]string{
				"broken XML":        {"<iq><a></iq>", "not-well-formed"},
				"a comment":         {"<!-- hello -->", "not-well-formed"},
				"too much":          {"<message xmlns='jabber:client'><body>" + strings.Repeat("x", 1<<20) + "</body></message>", "not-well-formed"},
				"before login":      {"<message xmlns='jabber:client' to='a@b'/>", "not-authorized"},
				"unknown namespace": {"<x xmlns='urn:x'/>", "unsupported-stanza-type"},
			} {
				w := dial(t)
				w.open(s.o.Domain)
				w.next("features")
				w.say(x[0])
				if what == "too much" && name == "ws" {
					if _, err := w.hear(); err == nil { // closed by its own limit
						t.Errorf("%s: no error", what)
					}
					continue
				}
				if e := w.next("error"); e.child(nsStreams, x[1]) == nil {
					t.Errorf("%s: %s", what, e)
				}
				w.end()
			}
			w = dial(t)
			w.say(map[string]string{
				"tcp": "<stream:stream xmlns='jabber:client' xmlns:stream='" + nsStream + "' to='no.such' version='1.0'>",
				"ws":  "<open xmlns='" + nsFraming + "' to='no.such' version='1.0'/>"}[name])
			if name == "ws" {
				w.next("open")
			}
			if e := w.next("error"); e.child(nsStreams, "host-unknown") == nil {
				t.Errorf("unknown host: %s", e)
			}
		})
	}
	var ws Request
	for _, q := range s.Requests() {
		if q.Path == "/xmpp-websocket" {
			ws = q
		}
	}
	if ws.Room != "r" || ws.Token != "x" || ws.Status != http.StatusSwitchingProtocols {
		t.Errorf("websocket request %+v", ws)
	}
	r, err := http.Get(strings.Replace(s.WebSocketURL(), "ws://", "http://", 1))
	if err != nil {
		t.Fatal(err)
	}
	_ = r.Body.Close()
	http.DefaultClient.CloseIdleConnections()
	if r.Header.Get("X-Jitsi-Shard") != "s9" {
		t.Errorf("shard of a GET: %v", r.Header)
	}
}

func TestLogin(t *testing.T) {
	t.Parallel()
	s := start(t, Options{
		Accounts: map[string]string{"gw": "s3cret, =", "x@meet.example": "no"},
		Hosts:    []Host{{Domain: "jigasi.meet.example", Kind: SharedSecret, Secret: "shared", Admin: true}},
		CheckToken: func(k Token) error {
			if k.Token == "bad" {
				return errors.New("token is no good")
			}
			return nil
		},
	})
	plain := func(user, password, domain string) error {
		c, err := client.Dial(within(t), client.Options{URL: s.BOSHURL(), Domain: domain, Username: user, Password: password})
		if err == nil {
			err = c.Close()
		}
		return err
	}
	for _, tt := range []struct {
		user, password, domain string
		ok                     bool
	}{
		{"gw", "s3cret, =", "auth.meet.example", true},
		{"GW", "s3cret, =", "auth.meet.example", true},
		{"gw", "wrong", "auth.meet.example", false},
		{"nobody", "", "auth.meet.example", false},
		{"x", "no", "auth.meet.example", false},
		{"anyone", "shared", "jigasi.meet.example", true},
		{"anyone", "wrong", "jigasi.meet.example", false},
		{"gw", "s3cret, =", "meet.example", false}, // anonymous only
	} {
		if err := plain(tt.user, tt.password, tt.domain); (err == nil) != tt.ok {
			t.Errorf("%s %q at %s: %v", tt.user, tt.password, tt.domain, err)
		}
	}
	for token, ok := range map[string]bool{"": true, "good": true, "bad": false} {
		c, err := client.Dial(within(t), client.Options{URL: s.BOSHURL(), Domain: "meet.example", Room: "r", Token: token})
		if (err == nil) != ok {
			t.Errorf("token %q: %v", token, err)
		}
		if err == nil {
			_ = c.Close()
		} else if !strings.Contains(err.Error(), "token is no good") || !strings.Contains(err.Error(), "not-allowed") {
			t.Errorf("refusal does not say why: %v", err)
		}
	}
	// SCRAM, by a client that is not ours; PLAIN is not offered without TLS
	for password, want := range map[string]string{"s3cret, =": "success", "wrong": "failure"} {
		w, _ := dialTCP(t, s.C2SAddr())
		w.open("auth.meet.example")
		f := w.next("features").child(nsSASL, "mechanisms")
		if m := f.children(); len(m) != 1 || m[0].text() != "SCRAM-SHA-1" {
			t.Errorf("mechanisms %s", f)
		}
		n := sasl.NewClient(sasl.ScramSha1, sasl.Credentials(func() (u, p, i []byte) { return []byte("gw"), []byte(password), nil }), sasl.RemoteMechanisms("SCRAM-SHA-1"))
		more, out, err := n.Step(nil)
		name := "auth"
		for err == nil {
			w.say(fmt.Sprintf("<%s xmlns='%s' mechanism='SCRAM-SHA-1'>%s</%s>", name, nsSASL, base64.StdEncoding.EncodeToString(out), name))
			name = "response"
			e, herr := w.hear()
			if herr != nil {
				t.Fatal(herr)
			}
			if e.Name == "failure" || e.Name == "success" {
				if e.Name != want {
					t.Errorf("password %q: %s", password, e)
				}
				if e.Name == "success" {
					in, _ := base64.StdEncoding.DecodeString(e.text())
					if _, _, err := n.Step(in); err != nil {
						t.Errorf("server's proof: %v", err)
					}
					if j := w.bound("auth.meet.example", "r1"); j != "gw@auth.meet.example/r1" {
						t.Errorf("JID %q", j)
					}
				}
				break
			}
			in, derr := base64.StdEncoding.DecodeString(e.text())
			if derr != nil || !more {
				t.Fatalf("challenge %s", e)
			}
			more, out, err = n.Step(in)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	w, _ := dialTCP(t, s.C2SAddr())
	w.open("auth.meet.example")
	w.next("features")
	for _, bad := range []string{
		"<auth xmlns='" + nsSASL + "' mechanism='PLAIN'>AGd3AHMzY3JldA==</auth>",
		"<auth xmlns='" + nsSASL + "' mechanism='SCRAM-SHA-1'>!!!</auth>",
		"<auth xmlns='" + nsSASL + "' mechanism='SCRAM-SHA-1'>bix0PXg=</auth>",
		"<response xmlns='" + nsSASL + "'/>",
		"<abort xmlns='" + nsSASL + "'/>",
	} {
		w.say(bad)
		w.next("failure")
	}
	w.say("<abort xmlns='" + nsSASL + "'/>")
	w.next("failure")
	w.next("error")
}

// A new session with a full JID that is taken ends the old one (RFC 6120 §7.7.2.2).
func TestResourceConflict(t *testing.T) {
	t.Parallel()
	s := start(t, Options{Accounts: map[string]string{"gw": "pw"}})
	o := client.Options{Domain: "auth.meet.example", Username: "gw", Password: "pw", Resource: "one"}
	a := join(t, s, o)
	b := join(t, s, o)
	select {
	case <-a.Done():
	case <-within(t).Done():
		t.Fatal("the old session goes on")
	}
	if a.JID() != b.JID() || s.Sessions() != 1 {
		t.Errorf("%s, %s, %d sessions", a.JID(), b.JID(), s.Sessions())
	}
	if err := s.EndSession(b.JID(), "system-shutdown", ""); err != nil {
		t.Fatal(err)
	}
	select {
	case <-b.Done():
	case <-within(t).Done():
		t.Fatal("session goes on")
	}
	if !errors.Is(b.Err(), client.ErrTerminated) {
		t.Errorf("end: %v", b.Err())
	}
}

func selfSigned(t *testing.T) (*tls.Config, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		DNSNames: []string{"meet.example"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(c)
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}, pool
}

func TestTLS(t *testing.T) {
	t.Parallel()
	cfg, pool := selfSigned(t)
	s := start(t, Options{TLS: cfg, HTTPS: true, Accounts: map[string]string{"gw": "pw"}, AuthDomain: "meet.example", MainKind: Accounts})
	w, c := dialTCP(t, s.C2SAddr())
	w.open("meet.example")
	if f := w.next("features"); f.child(nsTLS, "starttls") == nil {
		t.Fatalf("features %s", f)
	}
	w.say("<starttls xmlns='" + nsTLS + "'/>")
	w.next("proceed")
	tc := tls.Client(c, &tls.Config{RootCAs: pool, ServerName: "meet.example"})
	w = tcpWire(t, tc)
	w.open("meet.example")
	f := w.next("features")
	if f.child(nsTLS, "starttls") != nil || !strings.Contains(f.String(), "PLAIN") {
		t.Errorf("features over TLS %s", f)
	}
	w.say("<auth xmlns='" + nsSASL + "' mechanism='PLAIN'>" + base64.StdEncoding.EncodeToString([]byte("\x00gw\x00pw")) + "</auth>")
	w.next("success")
	if j := w.bound("meet.example", "x"); j != "gw@meet.example/x" {
		t.Errorf("JID %q", j)
	}
	h := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}}
	r, err := h.Get(s.BOSHURL())
	if err != nil {
		t.Fatal(err)
	}
	_ = r.Body.Close()
	h.CloseIdleConnections()
	if !strings.HasPrefix(s.BOSHURL(), "https://") || r.StatusCode != 200 {
		t.Errorf("%s: %d", s.BOSHURL(), r.StatusCode)
	}
}

func TestComponentRules(t *testing.T) {
	t.Parallel()
	s := start(t, Options{})
	for _, tt := range []struct{ name, domain, secret, say, want string }{
		{"wrong secret", "focus.meet.example", "wrong", "", "not-authorized"},
		{"a host of the server", "meet.example", "", "", "host-unknown"},
		{"a sender elsewhere", "focus.meet.example", "", "<message from='a@meet.example' to='b@meet.example'/>", "invalid-from"},
		{"no addressee", "focus.meet.example", "", "<message from='focus.meet.example'/>", "improper-addressing"},
		{"nonsense", "focus.meet.example", "", "<nonsense/>", "unsupported-stanza-type"},
		{"broken", "focus.meet.example", "", "<iq></a>", "not-well-formed"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, err := net.Dial("tcp", s.ComponentAddr())
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = c.Close() }()
			_ = c.SetDeadline(time.Now().Add(5 * time.Second))
			_, _ = fmt.Fprintf(c, "<stream:stream xmlns='%s' xmlns:stream='%s' to='%s'>", nsComponent, nsStream, tt.domain)
			in := newXMLReader(bufio.NewReader(c), 1<<20)
			h, err := in.start()
			if err != nil {
				t.Fatal(err)
			}
			if tt.secret == "" {
				tt.secret = s.o.ComponentSecret
			}
			_, _ = io.WriteString(c, handshake(h.attr("id"), tt.secret))
			e, err := in.element()
			if tt.say != "" {
				if err != nil || e.Name != "handshake" {
					t.Fatalf("handshake %v %v", e, err)
				}
				_, _ = io.WriteString(c, tt.say)
				e, err = in.element()
			}
			if err != nil || e.Name != "error" || e.child(nsStreams, tt.want) == nil {
				t.Fatalf("got %v %v, want %s", e, err, tt.want)
			}
			if _, err := in.element(); err != io.EOF {
				t.Errorf("after the error: %v", err)
			}
		})
	}
}

// The connection on which a session was created pays for its bytes (mod_limits).
func TestLimits(t *testing.T) {
	t.Parallel()
	s := start(t, Options{C2SBytesPerSecond: 10000})
	l := &limiter{}
	ctx := within(t)
	if err := l.wait(ctx, 1000, 10000); err != nil || !l.until.IsZero() {
		t.Errorf("an unlimited connection waits until %v, %v", l.until, err)
	}
	l.limit()
	before := time.Now()
	if err := l.wait(ctx, 200, 10000); err != nil {
		t.Error(err)
	}
	if d := l.until.Sub(before); d < 20*time.Millisecond {
		t.Errorf("next read after %v", d)
	}
	u := join(t, s, client.Options{})
	if e := u.ask("get", "meet.example", "<ping xmlns='urn:xmpp:ping'/>"); e.attr("type") != "result" {
		t.Errorf("%s", e)
	}
}

func FuzzBody(f *testing.F) {
	f.Add("<body xmlns='http://jabber.org/protocol/httpbind' rid='1' sid='x'><iq xmlns='jabber:client' type='get' id='a'/></body>")
	f.Add("<body xmlns='http://jabber.org/protocol/httpbind' xmlns:xmpp='urn:xmpp:xbosh' xmpp:restart='true'/>")
	f.Add("<a b='&lt;&#x26;'><![CDATA[x]]></a>")
	f.Fuzz(func(t *testing.T, s string) {
		if b, err := parseBody(s); err == nil && b.e == nil {
			t.Error("no element and no error")
		}
		e, err := parse(s)
		if err != nil {
			return
		}
		// what is written can be read again, and is the same
		out := e.String()
		again, err := parse(out)
		if err != nil {
			t.Fatalf("%q became %q: %v", s, out, err)
		}
		if again.String() != out {
			t.Errorf("%q, then %q", out, again.String())
		}
	})
}
