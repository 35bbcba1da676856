package sip

import (
	"bytes"
	"context"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/emiago/sipgo/sip"
)

func FuzzSDP(f *testing.F) {
	files, err := filepath.Glob("testdata/sdp/*")
	if err != nil || len(files) == 0 {
		f.Fatal("no seeds", err)
	}
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	l := Local{Addr: netip.MustParseAddr("192.0.2.1"), Port: 20000, DTMF: true, RTCPMux: true, Codecs: []Codec{{Name: "opus"}, {Name: "g722"}, {Name: "pcma"}, {Name: "pcmu"}}}
	own := Offer(l)
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := ParseSDP(b)
		if err != nil {
			return
		}
		if m, err := Accept(own, s, l); err == nil && KnownCodecs()[m.Codec.Name].Name == "" {
			t.Fatalf("accepted codec %+v", m.Codec)
		}
		ans, m, err := Answer(s, l)
		if err != nil {
			return
		}
		if len(ans.Media) != len(s.Media) {
			t.Fatalf("%d media answered with %d", len(s.Media), len(ans.Media))
		}
		if m.RecvPT > 127 || m.EventPT > 127 || m.Codec.Rate == 0 || m.EventPT != 0 && m.EventPT == m.RecvPT {
			t.Fatalf("%+v", m)
		}
		again, err := ParseSDP(ans.Marshal())
		if err != nil {
			t.Fatalf("our answer cannot be read: %v\n%s", err, ans.Marshal())
		}
		open := 0
		for _, am := range again.Media {
			if am.Port != 0 {
				open++
			}
		}
		if open != 1 || len(again.Media) != len(ans.Media) {
			t.Fatalf("%d open media in\n%s", open, ans.Marshal())
		}
	})
}

// FuzzHeaders checks that nothing put into a header field gets out of it.
func FuzzHeaders(f *testing.F) {
	f.Add("X-Room", `"quoted \" value"`, "text\r\nX: 1")
	f.Add("Reason", `SIP;cause=200;text="a", Q.850;cause=17;text="b;c"`, `\`)
	f.Fuzz(func(t *testing.T, name, value, text string) {
		req := sip.NewRequest(sip.BYE, sip.Uri{Scheme: "sip", Host: "h"})
		appendHeader(req, Header{name, value})
		for _, h := range (Reason{Cause: 16, Text: text}).headers() {
			appendHeader(req, h)
		}
		appendHeader(req, Header{"Warning", "399 h " + quote(text)})
		req.SetBody(nil)
		b := req.String()
		want := 4
		if !isToken(name) || framing[canonical(name)] {
			want--
		}
		if n := strings.Count(b, "\r\n"); n != want+2 || strings.Count(b, "\n") != n || strings.Count(b, "\r") != n {
			t.Fatalf("%d lines in %q, want %d", n, b, want+2)
		}
		if got := unquote(quote(text)); got != clean(text) {
			t.Fatalf("%q quoted and back is %q", text, got)
		}
		_ = unquote(value)
		_ = unescapeUser(value)
		_ = tokens([]string{value})
		_ = seconds([]string{value})
		_ = parseReason(req)
		_ = multipartSDP([]byte(value), text)
	})
}

func messages() []string {
	const invite = "INVITE sip:room@127.0.0.1 SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1:5060;branch=z9hG4bK1;rport\r\nFrom: \"A\" <sip:a@127.0.0.1>;tag=1\r\nTo: <sip:room@127.0.0.1>\r\nCall-ID: c1\r\nCSeq: 1 INVITE\r\nContact: <sip:a@127.0.0.1:9>\r\nMax-Forwards: 70\r\nX-Room-Name: standup\r\nRecord-Route: <sip:127.0.0.1:9;lr>, <sip:127.0.0.1:9>\r\n"
	const sdp = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio 9 RTP/AVP 0\r\n"
	out := []string{
		invite + "Content-Type: application/sdp\r\nContent-Length: 101\r\n\r\n" + sdp,
		invite + "Content-Type: multipart/mixed;boundary=b\r\n\r\n--b\r\nContent-Type: application/sdp\r\n\r\n" + sdp + "\r\n--b--\r\n",
		invite + "Expires: 5\r\nRequire: 100rel\r\nContent-Length: 0\r\n\r\n",
		"SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP 127.0.0.1;branch=z9hG4bKx\r\nFrom: <sip:a@h>;tag=1\r\nTo: <sip:b@h>;tag=2\r\nCall-ID: x\r\nCSeq: 2 BYE\r\nContent-Length: 0\r\n\r\n",
	}
	for _, m := range []string{"ACK", "BYE", "CANCEL", "OPTIONS", "INFO", "REGISTER", "XYZ"} {
		out = append(out, strings.ReplaceAll(invite, "INVITE", m)+"Content-Length: 0\r\n\r\n")
	}
	return out
}

func fuzzUA(f testing.TB) *UA {
	u, err := Listen(context.Background(), Options{
		Listen: []Listener{{Network: "udp", Address: "127.0.0.1:0"}},
		T1:     time.Millisecond, T2: 2 * time.Millisecond, T4: time.Millisecond, MaxMessage: 8192, Rate: 1e9, Burst: 1e9,
		OnInvite: func(d *Dialog) {
			_, _, _, _ = d.From(), d.To(), d.RequestUser(), d.Header("X-Room-Name")
			_ = d.Ringing()
			if d.Offer() != nil && len(d.Offer())%2 == 0 {
				_ = d.Reject(404, Reason{Cause: 1, Text: d.Header("Subject")})
				return
			}
			_, _ = d.Answer(context.Background(), []byte("v=0\r\n"))
		},
	})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = u.Close() })
	return u
}

// FuzzMessage gives any datagram to a user agent.
func FuzzMessage(f *testing.F) {
	for _, m := range messages() {
		f.Add([]byte(m))
	}
	u := fuzzUA(f)
	peer := flow{ln: u.listeners[0], peer: netip.MustParseAddrPort("127.0.0.1:9")}
	f.Fuzz(func(t *testing.T, b []byte) {
		u.datagram(peer, bytes.Clone(b))
	})
}

// FuzzStream cuts a stream in two anywhere: what is read stays the same.
func FuzzStream(f *testing.F) {
	all := strings.Join(messages(), "\r\n")
	for i := 0; i < len(all); i += 97 {
		f.Add([]byte(all), i)
	}
	f.Add([]byte("\r\n\r\n\r\nBYE sip:a SIP/2.0\r\nl : \r\n 3\r\n\r\nabcX"), 20)
	f.Add([]byte("BYE sip:a SIP/2.0\r\nl: 3\r\nContent-Length: 4\r\n\r\nabcd"), 30)
	const limit = 2048
	read := func(parts ...[]byte) (out []string, pings int) {
		var s framer
		for _, p := range parts {
			s.buf = append(s.buf, p...)
			for {
				m, n, err := s.next(limit)
				pings += n
				if len(m) > limit {
					t := len(m)
					f.Fatalf("a message of %d bytes", t)
				}
				if err != nil {
					return append(out, err.Error()), pings
				}
				if m == nil {
					break
				}
				out = append(out, string(m))
			}
		}
		return out, pings
	}
	f.Fuzz(func(t *testing.T, b []byte, cut int) {
		if len(b) > 4096 || cut < 0 || cut > len(b) {
			return
		}
		whole, pings := read(b)
		halves, pings2 := read(b[:cut], b[cut:])
		if !slices.Equal(whole, halves) || pings != pings2 {
			t.Fatalf("%d pings, %q\n%d pings, %q", pings, whole, pings2, halves)
		}
		for _, m := range whole[:max(0, len(whole)-1)] {
			if n, err := contentLength([]byte(m)[:strings.Index(m, headerEnd)+4]); err != nil || len(m) != strings.Index(m, headerEnd)+4+n {
				t.Fatalf("%q: %d, %v", m, n, err)
			}
		}
	})
}
