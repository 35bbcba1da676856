package sip_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"brewline/sip"
)

// What a single request outside of any dialog is answered with.
func TestRefusals(t *testing.T) {
	t.Parallel()
	invited := make(chan *sip.Dialog, 100)
	u := newUA(t, func(d *sip.Dialog) {
		invited <- d
		_ = d.Reject(404, sip.Reason{Cause: 1, Text: "no such room"})
	}, func(o *sip.Options) { o.MaxMessage = 4000 })
	long := strings.Repeat("x", 5000)
	multipart := "--b\r\nContent-Type: application/isup\r\n\r\nxx\r\n--b\r\nContent-Type: application/sdp\r\n\r\n" + offerSDP + "\r\n--b--\r\n"
	for _, tt := range []struct {
		name, method, body string
		lines              []string
		code               int
		header, value      string
	}{
		{"room unknown", "INVITE", offerSDP, nil, 404, "Reason", `Q.850;cause=1;text="no such room"`},
		{"late offer", "INVITE", "", nil, 404, "Warning", `"no such room"`},
		{"multipart", "INVITE", multipart, []string{"Content-Type: multipart/mixed;boundary=b"}, 404, "", ""},
		{"multipart without SDP", "INVITE", "--b\r\nContent-Type: a/b\r\n\r\nxx\r\n--b--\r\n", []string{"Content-Type: multipart/mixed;boundary=b"}, 415, "Accept", "application/sdp"},
		{"compact names", "INVITE", offerSDP, []string{"From:", "f: <sip:a@h>;tag=1", "To:", "t: <sip:b@h>", "Call-ID:", "i: compact", "Contact:", "m: <sip:a@127.0.0.1>", "Content-Type:", "c: application/sdp"}, 404, "", ""},
		{"folded", "INVITE", offerSDP, []string{"Subject: one\r\n two"}, 404, "", ""},
		{"extension", "INVITE", offerSDP, []string{"Require: 100rel, timer"}, 420, "Unsupported", "100rel"},
		{"body type", "INVITE", "<xml/>", []string{"Content-Type: text/xml"}, 415, "Accept", "application/sdp"},
		{"body without type", "INVITE", offerSDP, []string{"Content-Type:"}, 400, "", ""},
		{"body packed", "INVITE", offerSDP, []string{"Content-Encoding: gzip"}, 415, "Accept-Encoding", "identity"},
		{"no contact", "INVITE", offerSDP, []string{"Contact:"}, 400, "Warning", "Contact"},
		{"contact not SIP", "INVITE", offerSDP, []string{"Contact: <tel:+491>"}, 400, "Warning", "Contact"},
		{"unknown dialog", "INVITE", offerSDP, []string{"To: <sip:b@h>;tag=unknown"}, 481, "", ""},
		{"BYE astray", "BYE", "", []string{"To: <sip:b@h>;tag=unknown"}, 481, "", ""},
		{"BYE without tag", "BYE", "", nil, 481, "", ""},
		{"INFO astray", "INFO", "", nil, 481, "", ""},
		{"CANCEL astray", "CANCEL", "", nil, 481, "", ""},
		{"REGISTER", "REGISTER", "", nil, 405, "Allow", "INVITE, ACK, BYE, CANCEL, OPTIONS, INFO, UPDATE"},
		{"REFER", "REFER", "", nil, 405, "Allow", "INVITE"},
		{"unheard of", "FROBNICATE", "", nil, 501, "Allow", "INVITE"},
		{"OPTIONS", "OPTIONS", "", nil, 200, "Accept", "application/sdp"},
		{"no From tag", "INVITE", offerSDP, []string{"From: <sip:a@h>"}, 400, "", ""},
		{"two From", "INVITE", offerSDP, []string{"X-Pad: 1\r\nFrom: <sip:m@h>;tag=2"}, 400, "", ""},
		{"CSeq of another method", "INVITE", offerSDP, []string{"CSeq: 1 BYE"}, 400, "", ""},
		{"no Call-ID", "INVITE", offerSDP, []string{"Call-ID:"}, 400, "", ""},
		{"version", "OPTIONS", "", []string{"OPTIONS sip:room@h SIP/3.0"}, 505, "", ""},
		{"scheme", "OPTIONS", "", []string{"OPTIONS urn:service:sos SIP/2.0"}, 416, "", ""},
		{"body cut off", "INVITE", offerSDP, []string{"Content-Length: 3000"}, 400, "", ""},
		{"too large", "INVITE", offerSDP, []string{"X-Long: " + long}, 513, "", ""},
		{"garbage header", "INVITE", offerSDP, []string{"X-A: 1\r\nno colon here"}, 400, "", ""},
	} {
		p := newPeer(t, u, "udp") // kept to the end: its port must not be the next one's, to which answers are repeated
		t.Run(tt.name, func(t *testing.T) {
			p.t = t
			req := p.request(tt.method, 1, tt.body, tt.lines...)
			if tt.name == "too large" { // what is needed to answer must come first
				req = strings.Replace(req, "X-Long: "+long+"\r\n", "", 1)
				req = strings.Replace(req, "Content-Length", "X-Long: "+long+"\r\nContent-Length", 1)
			}
			p.send(req)
			if tt.code == 0 {
				p.quiet(5 * testT1)
				return
			}
			r := p.response(tt.code)
			if tagOf(r) == "" {
				t.Error("no To tag")
			}
			if tt.header != "" {
				h := r.GetHeaders(tt.header)
				if len(h) == 0 || !strings.Contains(h[0].Value(), tt.value) {
					t.Errorf("%s is %v, want %q", tt.header, h, tt.value)
				}
			}
		})
	}
	await(t, "dialogs gone", func() bool { return u.Stats().Dialogs == 0 })
	if n := len(invited); n != 5 {
		t.Errorf("%d calls reached the owner, want 5", n)
	}
	if s := u.Stats(); s.Malformed == 0 {
		t.Errorf("nothing counted: %+v", s)
	}
}

// Where responses go: rport (RFC 3581), received and the Via port (RFC 3261 §18.2.2).
func TestResponseRouting(t *testing.T) {
	t.Parallel()
	u := newUA(t, func(d *sip.Dialog) { _ = d.Reject(486, sip.Reason{}) })
	p, other := newPeer(t, u, "udp"), newPeer(t, u, "udp")
	_, port, _ := strings.Cut(other.addr(), ":")

	p.send(p.request("OPTIONS", 1, "", "Via: SIP/2.0/UDP pbx.example:5099;branch=z9hG4bKa;rport, SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKb"))
	r := p.response(200)
	via := r.GetHeaders("Via")
	_, src, _ := strings.Cut(p.addr(), ":")
	if want := "SIP/2.0/UDP pbx.example:5099;branch=z9hG4bKa;rport=" + src + ";received=127.0.0.1"; len(via) != 2 || via[0].Value() != want {
		t.Errorf("Via %v, want %s first of 2", via, want)
	}
	p.send(p.request("OPTIONS", 2, "", "Via: SIP/2.0/UDP pbx.example:"+port+";branch=z9hG4bKc"))
	if v := other.response(200).Via().Value(); !strings.HasSuffix(v, ";received=127.0.0.1") {
		t.Errorf("Via %s", v)
	}
	p.send(p.request("OPTIONS", 3, "", "Via: SIP/2.0/UDP 127.0.0.1:"+port+";branch=z9hG4bKd"))
	if v := other.response(200).Via().Value(); strings.Contains(v, "received") {
		t.Errorf("Via %s", v)
	}
}

// The same request by another way is a loop; the same again is answered again.
func TestRetransmissionAndMerge(t *testing.T) {
	t.Parallel()
	invited := make(chan *sip.Dialog, 10)
	u := newUA(t, func(d *sip.Dialog) { invited <- d; _ = d.Ringing() })
	p := newPeer(t, u, "udp")
	inv := p.request("INVITE", 1, offerSDP)
	p.send(inv)
	tag := tagOf(p.response(180))
	p.send(inv)
	if got := tagOf(p.response(180)); got != tag {
		t.Errorf("To tag %q, then %q", tag, got)
	}
	p.send(p.request("INVITE", 1, offerSDP, "Via: SIP/2.0/UDP "+p.addr()+";branch=z9hG4bKotherway;rport"))
	p.response(482)
	if n := len(invited); n != 1 {
		t.Errorf("%d calls", n)
	}
	d := <-invited
	_ = d.Reject(480, sip.Reason{Cause: 20, Text: "not open"})
	// The failure is repeated until the ACK, then no more.
	p.response(480)
	r := p.response(480)
	p.send(p.request("ACK", 1, "", toLine(r), fmt.Sprintf("Via: SIP/2.0/UDP %s;branch=z9hG4bK%sINVITE1;rport", p.addr(), p.call)))
	await(t, "transactions gone", func() bool { return u.Stats().ServerTransactions <= 1 }) // the 482 waits for its ACK
}

// A stranger gets 403 or silence, and neither a call nor a transaction.
func TestUnknownSource(t *testing.T) {
	for _, policy := range []string{"reject", "drop"} {
		for _, network := range []string{"udp", "tcp"} {
			t.Run(policy+" "+network, func(t *testing.T) {
				t.Parallel()
				u := newUA(t, func(*sip.Dialog) { t.Error("a stranger's call") }, func(o *sip.Options) {
					o.UnknownSource = policy
					o.Match = func(netip.AddrPort) (string, bool) { return "", false }
				})
				if policy == "drop" && network == "tcp" {
					p := newPeer(t, u, network)
					if p.read(10*time.Second) != nil {
						t.Error("spoken to")
					}
					return
				}
				p := newPeer(t, u, network)
				p.send(p.request("INVITE", 1, offerSDP))
				if policy == "drop" {
					p.quiet(5 * testT1)
				} else if r := p.response(403); len(r.GetHeaders("Reason")) != 1 {
					t.Error("no Reason")
				}
				p.close()
				s := u.Stats()
				if s.Dialogs+s.ServerTransactions != 0 || s.Dropped+s.Refused != 1 {
					t.Errorf("%+v", s)
				}
			})
		}
	}
}

// Strangers are answered at a rate; a trunk's flood is cut off at its own.
func TestRates(t *testing.T) {
	t.Parallel()
	known := true
	for _, known = range []bool{true, false} {
		u := newUA(t, func(d *sip.Dialog) {}, func(o *sip.Options) {
			o.Match = func(netip.AddrPort) (string, bool) { return "", known }
			o.Rate, o.Burst, o.UnknownRate, o.UnknownBurst = 0.001, 3, 0.001, 3
		})
		p := newPeer(t, u, "udp")
		for i := range 10 {
			p.send(p.request("OPTIONS", i+1, ""))
		}
		code := 200
		if !known {
			code = 403
		}
		for range 3 {
			p.response(code)
		}
		p.quiet(5 * testT1)
		await(t, "seven counted", func() bool { s := u.Stats(); return s.Limited+s.Dropped == 7 })
	}
}

func TestReady(t *testing.T) {
	t.Parallel()
	ready := make(chan bool, 1)
	ready <- true
	u := newUA(t, func(d *sip.Dialog) {}, func(o *sip.Options) {
		o.Ready = func() (bool, time.Duration) { r := <-ready; ready <- r; return r, 90 * time.Second }
	})
	p := newPeer(t, u, "udp")
	p.send(p.request("OPTIONS", 1, ""))
	p.response(200)
	<-ready
	ready <- false
	p.send(p.request("OPTIONS", 2, ""))
	if h := p.response(503).GetHeaders("Retry-After"); len(h) != 1 || h[0].Value() != "90" {
		t.Errorf("Retry-After %v", h)
	}
	// Our own question, and a user agent that is not ready.
	ctx := testCtx(t)
	other := newUA(t, func(*sip.Dialog) {})
	for _, a := range u.Addrs() {
		target := "sip:" + a.String() + ";transport=" + a.Network()
		if err := other.Options(ctx, sip.Target{URI: target}); err == nil || !strings.Contains(err.Error(), "503") {
			t.Errorf("%s: %v", target, err)
		}
	}
	<-ready
	ready <- true
	for _, a := range u.Addrs() {
		if err := other.Options(ctx, sip.Target{URI: "sip:" + a.String() + ";transport=" + a.Network()}); err != nil {
			t.Error(err)
		}
	}
	for _, bad := range []string{"", "tel:+49", "sip:127.0.0.1:1;transport=tls", "sip:127.0.0.1:1;transport=tcp", "sip:127.0.0.1:9"} {
		if err := other.Options(ctx, sip.Target{URI: bad}); err == nil {
			t.Errorf("%q answered", bad)
		}
	}
}

// TCP: messages in pieces and several at once, keep-alive, and framing lost.
func TestStream(t *testing.T) {
	t.Parallel()
	u := newUA(t, func(d *sip.Dialog) { _ = d.Reject(486, sip.Reason{}) }, func(o *sip.Options) { o.MaxMessage = 4000 })
	p := newPeer(t, u, "tcp")
	p.send("\r\n\r\n")
	pong := make([]byte, 2)
	_ = p.tcp.SetReadDeadline(time.Now().Add(10 * time.Second))
	if n, err := p.tcp.Read(pong); n != 2 || err != nil {
		t.Errorf("pong %q, %v", pong[:n], err)
	}
	for _, b := range []byte(p.request("OPTIONS", 1, "")) {
		p.send(string(b))
	}
	p.response(200)
	p.send(p.request("OPTIONS", 2, "") + "\r\n" + p.request("OPTIONS", 3, "") + "\r\n\r\n" + p.request("INVITE", 4, offerSDP)[:100])
	p.response(200)
	p.response(200)
	p.send(p.request("INVITE", 4, offerSDP)[100:])
	p.response(486)
	p.send(p.request("OPTIONS", 5, "", "Content-Length:"))
	p.response(400)
	if p.read(10*time.Second) != nil {
		t.Error("connection goes on without framing")
	}
	for name, junk := range map[string]string{
		"not SIP": "GET / HTTP/1.1\r\nHost: x\r\n\r\n", "endless line": strings.Repeat("x", 5000),
		"huge body": p.request("OPTIONS", 6, "", "Content-Length: 99999"),
	} {
		p := newPeer(t, u, "tcp")
		p.send(junk)
		for m := p.read(10 * time.Second); m != nil; m = p.read(10 * time.Second) {
			if name != "huge body" {
				t.Errorf("%s: %s", name, m)
			}
		}
	}
	await(t, "connections gone", func() bool { return u.Stats().Connections == 0 })
	// A message that never ends costs the connection.
	p = newPeer(t, u, "tcp")
	p.send("OPTIONS sip:x SIP/2.0\r\nVia: ")
	if p.read(10*time.Second) != nil {
		t.Error("answered")
	}
}
