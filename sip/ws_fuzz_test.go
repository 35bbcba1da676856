package sip

import (
	"bytes"
	"crypto/sha1"
	"encoding/base64"
	"net"
	"strings"
	"testing"
	"time"
)

// script is a connection whose peer has said everything that it will.
type script struct {
	*bytes.Reader
	out bytes.Buffer
}

func (s *script) Write(b []byte) (int, error)      { return s.out.Write(b) }
func (s *script) Close() error                     { return nil }
func (s *script) LocalAddr() net.Addr              { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 8} }
func (s *script) RemoteAddr() net.Addr             { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 9} }
func (s *script) SetDeadline(time.Time) error      { return nil }
func (s *script) SetReadDeadline(time.Time) error  { return nil }
func (s *script) SetWriteDeadline(time.Time) error { return nil }

const wsKey = "dGhlIHNhbXBsZSBub25jZQ=="

func upgradeRequest(more string) string {
	return "GET /sip HTTP/1.1\r\nHost: gw.example\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n" +
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + wsKey + "\r\n" + more + "\r\n"
}

// FuzzUpgrade reads the HTTP request of a WebSocket client: it is refused, or
// asked for WebSocket and SIP and gets nothing else.
func FuzzUpgrade(f *testing.F) {
	f.Add([]byte(upgradeRequest("Sec-WebSocket-Protocol: sip\r\n")))
	f.Add([]byte(upgradeRequest("Sec-WebSocket-Protocol: xmpp, sip\r\nOrigin: https://x\r\nSec-WebSocket-Extensions: permessage-deflate; client_no_context_takeover\r\n")))
	f.Add([]byte(upgradeRequest("Sec-WebSocket-Protocol: sip\r\nContent-Length: 4\r\n") + "BYE "))
	f.Add([]byte(upgradeRequest("Sec-WebSocket-Protocol: sip\r\nTransfer-Encoding: chunked\r\n") + "4\r\nBYE \r\n0\r\n\r\n"))
	f.Add([]byte("OPTIONS sip:x SIP/2.0\r\n\r\n"))
	u := fuzzUA(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		s := &script{Reader: bytes.NewReader(b)}
		w, err := acceptWS(u.newConn(u.listeners[0], s, connKey{network: "ws"}), s)
		status, _, _ := strings.Cut(s.out.String(), "\r\n")
		if err != nil {
			if strings.Contains(status, " 101 ") {
				t.Fatalf("%v, but %q", err, status)
			}
			return
		}
		defer w.close()
		if status != "HTTP/1.1 101 Switching Protocols" || !strings.Contains(s.out.String(), "\r\nSec-Websocket-Protocol: sip\r\n") {
			t.Fatalf("%q is answered with %q", b, s.out.String())
		}
		if len(b)-s.Len() > maxUpgrade+4096 { // what follows may have been read on the way
			t.Fatalf("read %d bytes", len(b)-s.Len())
		}
	})
}

// FuzzFrames reads the frames of a WebSocket: a message is no larger than it
// may, what we say ourselves is in frames, and the end of the bytes is the end.
func FuzzFrames(f *testing.F) {
	mask := []byte{1, 2, 3, 4}
	frame := func(head byte, payload string) []byte {
		out := []byte{head}
		switch n := len(payload); {
		case n < 126:
			out = append(out, 0x80|byte(n))
		default:
			out = append(out, 0x80|126, byte(n>>8), byte(n))
		}
		out = append(out, mask...)
		for i := range len(payload) {
			out = append(out, payload[i]^mask[i%4])
		}
		return out
	}
	join := func(frames ...[]byte) []byte { return bytes.Join(frames, nil) }
	m := messages()
	f.Add(join(frame(0x81, m[0]), frame(0x82, m[1]), frame(0x81, "\r\n\r\n"), frame(0x89, "ping"), frame(0x8a, "pong"), frame(0x88, "\x03\xe8bye")))
	f.Add(join(frame(0x01, m[3][:20]), frame(0x89, ""), frame(0x80, m[3][20:])))
	f.Add(join(frame(0x81, strings.Repeat("x", 9000))))
	f.Add([]byte{0x81, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 2, 3, 4})
	f.Add([]byte{0x81, 0x05, 'h', 'e', 'l', 'l', 'o'}) // not masked
	u := fuzzUA(f)
	sum := sha1.Sum([]byte(wsKey + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	accept := base64.StdEncoding.EncodeToString(sum[:])
	f.Fuzz(func(t *testing.T, b []byte) {
		s := &script{Reader: bytes.NewReader(append([]byte(upgradeRequest("Sec-WebSocket-Protocol: sip\r\n")), b...))}
		c := u.newConn(u.listeners[0], s, connKey{network: "ws"})
		w, err := acceptWS(c, s)
		if err != nil {
			t.Fatal(err)
		}
		defer w.close()
		c.wire = w
		for n := 0; ; n++ {
			msg, err := w.read()
			if len(msg) > u.o.MaxMessage {
				t.Fatalf("a message of %d bytes", len(msg))
			}
			if msg == nil && err != nil {
				break
			}
			if n > len(b) {
				t.Fatal("no end")
			}
		}
		head, rest, _ := strings.Cut(s.out.String(), "\r\n\r\n")
		if !strings.Contains(head, accept) || len(rest) > 0 && rest[0]&0x70 != 0 {
			t.Fatalf("we said %q", s.out.String())
		}
	})
}
