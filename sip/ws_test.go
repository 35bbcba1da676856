package sip_test

import (
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	gosip "github.com/emiago/sipgo/sip"

	"brewline/sip"
)

// browser is a SIP phone in a browser, as far as its messages go.
type browser struct {
	t  *testing.T
	ws *websocket.Conn
}

func openBrowser(t *testing.T, u *sip.UA, protocols ...string) (*browser, *http.Response, error) {
	t.Helper()
	return openFrom(t, u, "http://"+u.Addrs()[0].String(), protocols...)
}

// openFrom opens a WebSocket from a page of a host, "": from no page.
func openFrom(t *testing.T, u *sip.UA, origin string, protocols ...string) (*browser, *http.Response, error) {
	t.Helper()
	header := http.Header{}
	if origin != "" {
		header.Set("Origin", origin)
	}
	ws, res, err := websocket.Dial(testCtx(t), "ws://"+u.Addrs()[0].String(), &websocket.DialOptions{
		Subprotocols: protocols, HTTPHeader: header,
	})
	if err != nil {
		return nil, res, err
	}
	t.Cleanup(func() { _ = ws.CloseNow() })
	return &browser{t, ws}, res, nil
}

func (b *browser) send(s string) {
	b.t.Helper()
	if err := b.ws.Write(testCtx(b.t), websocket.MessageText, []byte(s)); err != nil {
		b.t.Fatal(err)
	}
}

func (b *browser) request(method string, seq int, to, body string, more ...string) {
	b.t.Helper()
	lines := append([]string{
		method + " sip:room@gw.example SIP/2.0",
		fmt.Sprintf("Via: SIP/2.0/WSS df7jal23ls0d.invalid;branch=z9hG4bK%s%d;rport", method, seq),
		"From: <sip:alice@example.org>;tag=alice", "To: <sip:room@gw.example>" + to,
		"Call-ID: " + strings.ReplaceAll(b.t.Name(), "/", "."), fmt.Sprintf("CSeq: %d %s", seq, method),
		"Contact: <sip:alice@df7jal23ls0d.invalid;transport=ws>", "Max-Forwards: 70",
	}, more...)
	if body != "" {
		lines = append(lines, "Content-Type: application/sdp")
	}
	b.send(strings.Join(append(lines, fmt.Sprintf("Content-Length: %d", len(body))), "\r\n") + "\r\n\r\n" + body)
}

// next reads the next message but 100 and 180.
func (b *browser) next() gosip.Message {
	b.t.Helper()
	for {
		kind, m, err := b.ws.Read(testCtx(b.t))
		if err != nil {
			b.t.Fatal(err)
		}
		if kind != websocket.MessageText {
			b.t.Errorf("a message of kind %v", kind)
		}
		msg, err := gosip.ParseMessage(m)
		if err != nil {
			b.t.Fatalf("%v in %q", err, m)
		}
		if r, ok := msg.(*gosip.Response); !ok || r.StatusCode >= 200 {
			return msg
		}
	}
}

// A phone in a browser calls, is asked within the dialog over its connection,
// comes back with another after that broke, and hangs up (RFC 7118).
func TestWebSocket(t *testing.T) {
	t.Parallel()
	calls := make(chan *sip.Dialog, 1)
	u := newUA(t, answering(calls), only("ws", nil), patiently, func(o *sip.Options) { o.Listen[0].Advertise = "gw.example:443" })
	b, _, err := openBrowser(t, u, "sip")
	if err != nil {
		t.Fatal(err)
	}
	b.request("INVITE", 1, "", offerSDP)
	ok := b.next().(*gosip.Response)
	contact := value(ok, "Contact")
	if ok.StatusCode != 200 || contact != "<sip:room@gw.example:443;transport=ws>" || ok.Via().Transport != "WSS" ||
		param(ok.Via(), "received") != "127.0.0.1" {
		t.Fatalf("unexpected:\n%s", ok)
	}
	to := ";tag=" + tagOf(ok)
	b.request("ACK", 1, to, "")
	d := <-calls
	asked := make(chan error, 1)
	ask := func() { asked <- d.Info(testCtx(t), "text/plain", []byte("hello")) }
	go ask()
	req := b.next().(*gosip.Request)
	if req.Method != gosip.INFO || req.Recipient.Host != "df7jal23ls0d.invalid" || req.Via().Transport != "WS" || req.Via().Host != "gw.example" {
		t.Errorf("unexpected:\n%s", req)
	}
	b.send(gosip.NewResponseFromRequest(req, 200, "OK", nil).String())
	if err := <-asked; err != nil {
		t.Error(err)
	}
	// Without its connection there is no way to it.
	_ = b.ws.CloseNow()
	await(t, "connection gone", func() bool { return u.Stats().Connections == 0 })
	if err := d.Info(testCtx(t), "text/plain", nil); err == nil || !strings.Contains(err.Error(), "connection") {
		t.Errorf("asked over nothing: %v", err)
	}
	if b, _, err = openBrowser(t, u, "sip"); err != nil {
		t.Fatal(err)
	}
	b.request("OPTIONS", 2, to, "")
	if ok := b.next().(*gosip.Response); ok.StatusCode != 200 {
		t.Errorf("unexpected:\n%s", ok)
	}
	go ask()
	b.send(gosip.NewResponseFromRequest(b.next().(*gosip.Request), 200, "OK", nil).String())
	if err := <-asked; err != nil {
		t.Error(err)
	}
	// Keep-alives of either kind.
	b.send("\r\n\r\n")
	if _, m, err := b.ws.Read(testCtx(t)); err != nil || string(m) != "\r\n" {
		t.Errorf("pong %q, %v", m, err)
	}
	b.request("BYE", 3, to, "")
	if ok := b.next().(*gosip.Response); ok.StatusCode != 200 {
		t.Errorf("unexpected:\n%s", ok)
	}
}

// What does not speak SIP over WebSocket does not get one.
func TestWebSocketUpgrade(t *testing.T) {
	t.Parallel()
	u := newUA(t, reject, only("ws", nil), patiently)
	if _, res, err := openBrowser(t, u, "xmpp"); err == nil || res == nil || res.StatusCode != 400 {
		t.Errorf("another subprotocol: %v", err)
	}
	if _, res, err := openBrowser(t, u); err == nil || res == nil || res.StatusCode != 400 {
		t.Errorf("no subprotocol: %v", err)
	}
	for name, request := range map[string]string{
		"no upgrade": "GET / HTTP/1.1\r\nHost: x\r\nSec-WebSocket-Protocol: sip\r\n\r\n",
		"a body":     "GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Protocol: sip\r\nContent-Length: 4\r\n\r\nBYE ",
		"endless":    "GET / HTTP/1.1\r\nX: " + strings.Repeat("x", 20<<10),
		"SIP":        "OPTIONS sip:x SIP/2.0\r\n\r\n",
	} {
		c, err := net.Dial("tcp", u.Addrs()[0].String())
		if err != nil {
			t.Fatal(err)
		}
		_, _ = c.Write([]byte(request))
		_ = c.SetReadDeadline(time.Now().Add(8 * time.Second))
		var got []byte
		buf := make([]byte, 4096)
		for {
			n, err := c.Read(buf)
			if got = append(got, buf[:n]...); err != nil {
				break
			}
		}
		if _ = c.Close(); strings.HasPrefix(string(got), "HTTP/1.1 101") {
			t.Errorf("%s: %q", name, got)
		}
	}
	await(t, "connections gone", func() bool { return u.Stats().Connections == 0 })
}

// Pages of other hosts must be named, or a browser within the allow-list would
// lend them its address.
func TestWebSocketOrigin(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		origins []string
		from    string
		refused bool
	}{
		{nil, "https://evil.example", true},
		{nil, "null", true}, // a file, or a page without rights
		{nil, "", false},
		{[]string{"phone.example"}, "https://phone.example", false},
		{[]string{"phone.example"}, "https://phone.example.evil.example", true},
		{[]string{"*.example"}, "https://PHONE.example", false},
		{[]string{"https://phone.example"}, "http://phone.example", true},
	} {
		u := newUA(t, reject, only("ws", nil), patiently, func(o *sip.Options) { o.Origins = tt.origins })
		switch _, res, err := openFrom(t, u, tt.from, "sip"); {
		case !tt.refused && err != nil:
			t.Errorf("%v, from %q: %v", tt.origins, tt.from, err)
		case tt.refused && (err == nil || res == nil || res.StatusCode != 403):
			t.Errorf("%v, from %q: let in, or refused otherwise: %v", tt.origins, tt.from, err)
		}
	}
}

// A message that is too large costs the connection.
func TestWebSocketLimit(t *testing.T) {
	t.Parallel()
	u := newUA(t, reject, only("ws", nil), patiently, func(o *sip.Options) { o.MaxMessage = 4000 })
	b, _, err := openBrowser(t, u, "sip")
	if err != nil {
		t.Fatal(err)
	}
	_ = b.ws.Write(testCtx(t), websocket.MessageText, make([]byte, 5000))
	for err == nil {
		_, _, err = b.ws.Read(testCtx(t))
	}
	if websocket.CloseStatus(err) != websocket.StatusMessageTooBig {
		t.Errorf("unexpected: %v", err)
	}
}

func param(v *gosip.ViaHeader, name string) string { s, _ := v.Params.Get(name); return s }
