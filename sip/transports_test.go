package sip_test

import (
	"bufio"
	"bytes"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	gosip "github.com/emiago/sipgo/sip"

	"brewline/sip"
)

// tcpPeer is a SIP peer that user agents connect to.
type tcpPeer struct {
	*peer
	l net.Listener
}

func newTCPPeer(t *testing.T) *tcpPeer {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return &tcpPeer{l: l}
}

// accept takes the next connection.
func (p *tcpPeer) accept(t *testing.T) {
	t.Helper()
	_ = p.l.(*net.TCPListener).SetDeadline(time.Now().Add(10 * time.Second))
	c, err := p.l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	p.peer = &peer{t: t, tcp: c, to: c.RemoteAddr(), call: "c"}
}

func (p *tcpPeer) uri() string { return "sip:" + p.l.Addr().String() + ";transport=tcp" }

// A connection that we opened is pinged (RFC 5626 §4.4.1). One whose peer has
// answered and does no more is given up; one whose peer never answers is not.
func TestKeepAlive(t *testing.T) {
	t.Parallel()
	u := newUA(t, reject, patiently, func(o *sip.Options) { o.KeepAlive = 100 * time.Millisecond })
	for _, pongs := range []bool{true, false} {
		p := newTCPPeer(t)
		done := make(chan error, 1)
		go func() { done <- u.Options(testCtx(t), sip.Target{URI: p.uri()}) }()
		p.accept(t)
		p.reply(p.awaitRequest(gosip.OPTIONS), 200, "")
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		r := bufio.NewReader(p.tcp)
		_ = p.tcp.SetReadDeadline(time.Now().Add(10 * time.Second))
		for i := range 4 {
			b := make([]byte, 4)
			if _, err := r.Read(b[:1]); err != nil { // with what is in its way
				if pongs && i > 2 {
					break
				}
				t.Fatalf("pongs %v, ping %d: %v", pongs, i, err)
			}
			if _, err := r.Discard(3); err != nil || b[0] != '\r' {
				t.Fatalf("ping %d: %q, %v", i, b, err)
			}
			if pongs && i < 2 {
				p.send("\r\n")
			}
		}
		if pongs {
			if _, err := r.ReadByte(); err == nil {
				t.Error("pinged on")
			}
			await(t, "connection given up", func() bool { return u.Stats().Connections == 0 })
		} else if n := u.Stats().Connections; n != 1 {
			t.Errorf("%d connections", n)
		}
	}
}

// A request fails when its connection breaks, and does not wait for a timeout;
// the next one opens another.
func TestBrokenConnection(t *testing.T) {
	t.Parallel()
	u := newUA(t, reject, func(o *sip.Options) { o.T1 = time.Second }) // a timeout would come after the test's
	p := newTCPPeer(t)
	done := make(chan error, 1)
	ask := func() { done <- u.Options(testCtx(t), sip.Target{URI: p.uri()}) }
	go ask()
	p.accept(t)
	p.awaitRequest(gosip.OPTIONS)
	_ = p.tcp.Close()
	if err := <-done; err == nil || !strings.Contains(err.Error(), "connection") {
		t.Errorf("unexpected: %v", err)
	}
	go ask()
	p.accept(t)
	p.reply(p.awaitRequest(gosip.OPTIONS), 200, "")
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// A final response whose connection is gone goes to where the Via says (RFC
// 3261 §18.2.2).
func TestResponseElsewhere(t *testing.T) {
	t.Parallel()
	dialogs := make(chan *sip.Dialog, 1)
	u := newUA(t, func(d *sip.Dialog) { dialogs <- d }, patiently)
	p, l := newPeer(t, u, "tcp"), newTCPPeer(t)
	p.send(p.request("INVITE", 1, offerSDP, "Via: SIP/2.0/TCP "+l.l.Addr().String()+";branch=z9hG4bKelsewhere;rport"))
	p.response(100)
	d := <-dialogs
	p.close()
	await(t, "connection gone", func() bool { return u.Stats().Connections == 0 })
	if err := d.Reject(486, sip.Reason{Cause: 17}); err != nil {
		t.Error(err)
	}
	l.accept(t)
	if r := l.response(486); r.CSeq().SeqNo != 1 {
		t.Errorf("unexpected:\n%s", r)
	}
}

// What is too large for a datagram goes over TCP, unless the peer refuses that;
// the smaller rest of the call does not (RFC 3261 §18.1.1).
func TestLargeRequest(t *testing.T) {
	t.Parallel()
	large := sip.Header{Name: "X-Large", Value: strings.Repeat("large ", 250)}
	for _, refused := range []bool{false, true} {
		var way []string
		dialogs := make(chan *sip.Dialog, 1)
		server := newUA(t, func(d *sip.Dialog) {
			way = append(way, d.Header("X-Way"))
			answering(dialogs)(d)
		}, patiently, func(o *sip.Options) {
			if refused {
				o.Listen = o.Listen[:1]
				return
			}
			o.Listen[0].Address = "127.0.0.1:" + freePort(t)
			o.Listen[1].Address = o.Listen[0].Address
		})
		client := newUA(t, reject, only("udp", nil), patiently)
		d, err := invite(t, client, sip.InviteOptions{URI: at(server, ";transport=udp"), Headers: []sip.Header{large}})
		if err != nil {
			t.Fatal(err)
		}
		over := <-dialogs
		if n := server.Stats().Connections; (n == 0) != refused || len(over.Header("X-Large")) < 1300 {
			t.Errorf("refused %v: %d connections", refused, n)
		}
		before := server.Stats().Received
		if err := d.Info(testCtx(t), "text/plain", []byte("small")); err != nil {
			t.Error(err)
		}
		if err := over.Info(testCtx(t), "text/plain", bytes.Repeat([]byte("large "), 300)); err != nil {
			t.Error(err)
		}
		if err := d.Bye(testCtx(t), sip.Reason{Cause: 16}); err != nil {
			t.Error(err)
		}
		if server.Stats().Received == before {
			t.Error("nothing came")
		}
	}
}

// Each listener, and each trunk, has its own address for Via and Contact; a
// connection shows them as well.
func TestAdvertisedAddresses(t *testing.T) {
	t.Parallel()
	u := newUA(t, answering(nil), patiently, func(o *sip.Options) {
		o.Listen = []sip.Listener{
			{Network: "udp", Address: "127.0.0.1:0", Advertise: "198.51.100.1:5060"},
			{Network: "udp", Address: "127.0.0.1:0", Advertise: "gw.example"},
			{Network: "tcp", Address: "127.0.0.1:0", Advertise: "198.51.100.3:5070"},
			{Network: "udp", Address: "[::1]:0"},
		}
		o.AdvertiseFor = func(trunk string) string {
			switch trunk {
			case "far":
				return "203.0.113.9:6060"
			case "near":
				return "203.0.113.9"
			}
			return ""
		}
	})
	port := func(i int) string { _, p, _ := net.SplitHostPort(u.Addrs()[i].String()); return p }
	for i, want := range []string{
		"<sip:room@198.51.100.1:5060>", "<sip:room@gw.example:" + port(1) + ">", "<sip:room@198.51.100.3:5070;transport=tcp>", "<sip:room@[::1]:" + port(3) + ">",
	} {
		p := newPeerOf(t, u.Addrs()[i])
		p.send(p.request("INVITE", 1, offerSDP))
		r := p.response(200)
		if got := value(r, "Contact"); got != want {
			t.Errorf("listener %d: Contact %s, want %s", i, got, want)
		}
		p.send(p.request("ACK", 1, "", toLine(r)))
		p.send(p.request("BYE", 2, "", toLine(r)))
		p.response(200)
	}
	for trunk, want := range map[string]string{"": "198.51.100.1:5060", "near": "203.0.113.9:5060", "far": "203.0.113.9:6060"} {
		p := newPeerOf(t, u.Addrs()[0])
		go func() { _ = u.Options(testCtx(t), sip.Target{URI: "sip:" + p.addr(), Trunk: trunk}) }()
		req := p.awaitRequest(gosip.OPTIONS)
		via := req.Via()
		if got := fmt.Sprintf("%s:%d", via.Host, via.Port); got != want {
			t.Errorf("trunk %q: Via %s, want %s", trunk, got, want)
		}
		// The answer comes back all the same.
		p.sendTo(u.Addrs()[0], gosip.NewResponseFromRequest(req, 200, "OK", nil).String())
		go func() {
			d, err := invite(t, u, sip.InviteOptions{URI: "sip:1@" + p.addr(), Trunk: trunk})
			if err == nil {
				err = d.Bye(testCtx(t), sip.Reason{})
			}
			if err != nil {
				t.Log(err)
			}
		}()
		req = p.awaitRequest(gosip.INVITE)
		if got := value(req, "Contact"); got != "<sip:gw@"+want+">" {
			t.Errorf("trunk %q: Contact %s, want %s", trunk, got, want)
		}
		p.reply(req, 486, "")
	}
}

// Everything of a call goes through the outbound proxy that wants to stay on
// the path, over the connection that it opened where it did.
func TestOutboundProxy(t *testing.T) {
	t.Parallel()
	dialogs := make(chan *sip.Dialog, 1)
	u := newUA(t, answering(dialogs), patiently)
	proxy := newPeer(t, u, "udp")
	route := "sip:" + proxy.addr()
	done := make(chan error, 1)
	go func() { done <- u.Options(testCtx(t), sip.Target{URI: "sip:callee.invalid", Route: route}) }()
	req := proxy.awaitRequest(gosip.OPTIONS)
	if value(req, "Route") != "<"+route+";lr>" || req.Recipient.Host != "callee.invalid" {
		t.Errorf("unexpected:\n%s", req)
	}
	proxy.reply(req, 200, "")
	if err := <-done; err != nil {
		t.Error(err)
	}
	go func() {
		d, err := invite(t, u, sip.InviteOptions{URI: "sip:callee@callee.invalid", Route: route})
		if err == nil {
			err = d.Bye(testCtx(t), sip.Reason{})
		}
		done <- err
	}()
	req = proxy.awaitRequest(gosip.INVITE)
	proxy.reply(req, 200, answerSDP, "Record-Route: <"+route+";lr>", "Contact: <sip:callee@10.255.255.1>")
	for _, m := range []gosip.RequestMethod{gosip.ACK, gosip.BYE} {
		req = proxy.awaitRequest(m)
		if value(req, "Route") != "<"+route+";lr>" || req.Recipient.String() != "sip:callee@10.255.255.1" {
			t.Errorf("unexpected:\n%s", req)
		}
	}
	proxy.reply(req, 200, "")
	if err := <-done; err != nil {
		t.Error(err)
	}
	// Of a call that came: the port in Record-Route is not the one it opened
	// its connection from, and nobody listens there.
	tcp := newPeer(t, u, "tcp")
	tcp.send(tcp.request("INVITE", 1, offerSDP, "Record-Route: <sip:127.0.0.1:9;transport=tcp;lr>", "Contact: <sip:alice@10.255.255.1>"))
	ok := tcp.response(200)
	tcp.send(tcp.request("ACK", 1, "", toLine(ok)))
	go func() { done <- (<-dialogs).Bye(testCtx(t), sip.Reason{Cause: 16}) }()
	req = tcp.awaitRequest(gosip.BYE)
	if req.Via().Transport != "TCP" || value(req, "Route") == "" {
		t.Errorf("unexpected:\n%s", req)
	}
	tcp.reply(req, 200, "")
	if err := <-done; err != nil {
		t.Error(err)
	}
}
