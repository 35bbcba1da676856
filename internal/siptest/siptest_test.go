package siptest

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"brewline/internal/tone"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestCodecs(t *testing.T) {
	for name, f := range formats {
		enc, err := f.newCodec()
		if err != nil {
			t.Fatal(err)
		}
		dec, err := f.newCodec()
		if err != nil {
			t.Fatal(err)
		}
		in := tone.Sine(800, f.rate, time.Second, amplitude)
		var out []int16
		for n := f.rate / 50; len(in) >= n; in = in[n:] {
			p, err := enc.encode(in[:n])
			if err != nil {
				t.Fatal(err)
			}
			pcm, err := dec.decode(p)
			if err != nil || len(pcm) != n {
				t.Fatalf("%s: %d samples of %d, %v", name, len(pcm), n, err)
			}
			out = append(out, pcm...)
		}
		out = out[len(out)/2:]
		if l, r := tone.Level(out, f.rate, 800), tone.RMS(out); l < 0.98 || math.Abs(r+15) > 1 {
			t.Errorf("%s: level %.3f, %.1f dBFS", name, l, r)
		}
	}
}

// G.711's tables: every code decodes to a value that encodes to it again.
func TestG711(t *testing.T) {
	for i := range 256 {
		b := byte(i)
		if got := ulawEncode(ulawDecode(b)); got != b && b != 0x7f { // minus zero
			t.Errorf("µ-law %#x becomes %#x", b, got)
		}
		if got := alawEncode(alawDecode(b)); got != b {
			t.Errorf("A-law %#x becomes %#x", b, got)
		}
	}
	for _, v := range []struct {
		pcm  int16
		u, a byte
	}{{0, 0xff, 0xd5}, {-8, 0x7e, 0x55}, {32767, 0x80, 0xaa}, {-32768, 0x00, 0x2a}} {
		if u, a := ulawEncode(v.pcm), alawEncode(v.pcm); u != v.u || a != v.a {
			t.Errorf("%d: µ-law %#x, A-law %#x, want %#x and %#x", v.pcm, u, a, v.u, v.a)
		}
	}
}

// gateway is a scripted peer on UDP that answers calls and echoes sound.
type gateway struct {
	c, rtp *net.UDPConn
	got    chan *message
	script func(g *gateway, m *message, send func(*message))
}

func newGateway(t *testing.T, script func(g *gateway, m *message, send func(*message))) *gateway {
	t.Helper()
	listen := func() *net.UDPConn {
		c, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	g := &gateway{c: listen(), rtp: listen(), got: make(chan *message, 1000), script: script}
	done := make(chan struct{}, 2)
	serve := func(c *net.UDPConn, f func(b []byte, src *net.UDPAddr)) {
		defer func() { done <- struct{}{} }()
		buf := make([]byte, 1<<16)
		for {
			n, src, err := c.ReadFromUDP(buf)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			f(buf[:n], src)
		}
	}
	go serve(g.rtp, func(b []byte, src *net.UDPAddr) { _, _ = g.rtp.WriteToUDP(b, src) })
	go serve(g.c, func(b []byte, src *net.UDPAddr) {
		if m, _, err := parseMessage(b); err == nil && m != nil {
			g.got <- m
			script(g, m, func(r *message) { _, _ = g.c.WriteToUDP(r.bytes(), src) })
		}
	})
	t.Cleanup(func() { _ = g.c.Close(); _ = g.rtp.Close(); <-done; <-done })
	return g
}

func (g *gateway) sdp(list, attrs string) []byte {
	return fmt.Appendf(nil, "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio %d RTP/AVP %s\r\n%s",
		g.rtp.LocalAddr().(*net.UDPAddr).Port, list, attrs)
}

func (g *gateway) ok(m *message, sdp []byte) *message {
	r := m.respond(200, "OK", "gw")
	r.add("Contact", "<sip:"+g.c.LocalAddr().String()+">")
	if sdp != nil {
		r.add("Content-Type", "application/sdp")
		r.body = sdp
	}
	return r
}

func echoScript(g *gateway, m *message, send func(*message)) {
	switch m.method() {
	case "INVITE":
		send(m.respond(180, "Ringing", "gw"))
		send(g.ok(m, g.sdp("0 101", "a=rtpmap:101 telephone-event/8000\r\n")))
	case "BYE", "CANCEL", "INFO", "OPTIONS":
		send(g.ok(m, nil))
	}
}

func TestPhone(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	g := newGateway(t, echoScript)
	b := NewIPBX(IPBXOptions{Gateway: g.c.LocalAddr().String(), Phone: PhoneOptions{T1: 20 * time.Millisecond}})
	defer b.Close()
	if code, _, err := b.Ping(ctx); code != 200 || err != nil {
		t.Errorf("OPTIONS: %d, %v", code, err)
	}
	c, err := b.Call(ctx, "pcmu", "standup", CallOptions{Tone: 700})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Hear(ctx, 700); err != nil {
		t.Error(err)
	}
	short, stop := context.WithTimeout(ctx, 300*time.Millisecond)
	defer stop()
	if c.Hear(short, 900) == nil {
		t.Error("heard what nobody said")
	}
	if err := c.DTMF(ctx, "1#"); err != nil {
		t.Error(err)
	}
	c.SayPCM(tone.Sine(1500, c.Rate(), 500*time.Millisecond, amplitude))
	if err := c.Hear(ctx, 1500); err != nil {
		t.Error(err)
	}
	if c.Digits() != "1#" { // its own, echoed
		t.Errorf("digits %q", c.Digits())
	}
	if s := c.RTP(); s.Received == 0 || s.Sent < s.Received {
		t.Errorf("stats %+v", s)
	}
	if err := c.Hangup(ctx); err != nil {
		t.Error(err)
	}
	if end := <-c.Ended(); end.ByPeer || end.Err != nil {
		t.Errorf("end %+v", end)
	}
	var methods []string
	for len(g.got) > 0 {
		m := <-g.got
		if m.method() == "INVITE" && m.get("X-Room-Name") != "standup" {
			t.Error("no room header field")
		}
		methods = append(methods, m.method())
	}
	// What is repeated, since the answer was late, counts once.
	if methods = slices.Compact(methods); !slices.Equal(methods, []string{"OPTIONS", "INVITE", "ACK", "BYE"}) {
		t.Errorf("sent %v", methods)
	}
}

// A call that is refused, one that is cancelled, and one whose peer is silent.
func TestPhoneFailures(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	var invite *message
	g := newGateway(t, func(g *gateway, m *message, send func(*message)) {
		switch {
		case m.method() == "INVITE" && strings.Contains(m.start, "busy"):
			send(m.respond(486, "Busy Here", "gw"))
		case m.method() == "INVITE" && strings.Contains(m.start, "rings"):
			invite = m
			send(m.respond(180, "Ringing", "gw"))
		case m.method() == "CANCEL":
			send(m.respond(200, "OK", "gw"))
			send(invite.respond(487, "Request Terminated", "gw"))
		}
	})
	p, err := NewPhone(PhoneOptions{T1: 2 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	at := "@" + g.c.LocalAddr().String()
	var se *StatusError
	if _, err := p.Call(ctx, CallOptions{URI: "sip:busy" + at}); !errors.As(err, &se) || se.Code != 486 {
		t.Errorf("busy: %v", err)
	}
	if _, err := p.Call(ctx, CallOptions{URI: "sip:silent" + at}); !errors.Is(err, errTimeout) {
		t.Errorf("silent: %v", err)
	}
	a, err := p.Start(ctx, CallOptions{URI: "sip:rings" + at})
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Provisional(ctx, 180); err != nil {
		t.Error(err)
	}
	if err := a.Cancel(); err != nil {
		t.Error(err)
	}
	if _, err := a.Wait(ctx); !errors.As(err, &se) || se.Code != 487 {
		t.Errorf("cancelled: %v", err)
	}
}

// Loss takes its share, in the same places for the same seed.
func TestImpairments(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	g := newGateway(t, echoScript)
	p, err := NewPhone(PhoneOptions{T1: 20 * time.Millisecond, Loss: 0.5, Jitter: 5 * time.Millisecond, Seed: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	c, err := p.Call(ctx, CallOptions{URI: "sip:x@" + g.c.LocalAddr().String(), Tone: 500})
	if err != nil {
		t.Fatal(err)
	}
	for c.RTP().Sent < 60 {
		select {
		case <-ctx.Done():
			t.Fatal("not sent")
		case <-time.After(5 * time.Millisecond):
		}
	}
	if s := c.RTP(); s.Received < 10 || s.Received > 50 {
		t.Errorf("of %d packets %d came back", s.Sent, s.Received)
	}
	c.Vanish()
}

func FuzzParseMessage(f *testing.F) {
	f.Add([]byte("SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP h;branch=z\r\nContent-Length: 2\r\n\r\nab"))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, n, err := parseMessage(b)
		if err == nil && n > 0 {
			_, _, _ = m.status(), m.method(), m.seq()
			_, _ = tagOf(m.get("To")), uriOf(m.get("Contact"))
			_, _ = hostPort(uriOf(m.get("Contact")))
			_ = m.respond(200, "OK", "t").bytes()
			_, _ = parseSDP(m.body)
		}
	})
}
