package gateway_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strings"
	"testing"

	"brewline/internal/siptest"
)

// Phones that encrypt are heard and hear, with each suite, on either transport,
// and where encryption is required of them.
func TestSRTP(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, mode string
		phone      siptest.PhoneOptions
	}{
		{"80", "required", siptest.PhoneOptions{SRTP: "AES_CM_128_HMAC_SHA1_80"}},
		{"32", "optional", siptest.PhoneOptions{SRTP: "AES_CM_128_HMAC_SHA1_32", Codec: "g722"}},
		{"GCM 128", "required", siptest.PhoneOptions{SRTP: "AEAD_AES_128_GCM", SRTPOptional: true, Codec: "opus"}},
		{"GCM 256", "optional", siptest.PhoneOptions{SRTP: "AEAD_AES_256_GCM", Reports: true}},
		{"refused", "off", siptest.PhoneOptions{SRTP: "AES_CM_128_HMAC_SHA1_80", SRTPOptional: true}},
		{"not offered", "optional", siptest.PhoneOptions{}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, worldOptions{shards: 1, trunk: "srtp = \"" + tt.mode + "\""})
			alice := w.browser(w.deps[0].Shards[0], "secret", 440)
			c := w.call(w.phone(tt.phone), "secret", 1000)
			w.hear("the phone", c, 440)
			w.hear("the participant", alice, 1000)
			if err := c.Hangup(w.ctx); err != nil {
				t.Fatal(err)
			}
			w.gone()
		})
	}
}

// Encryption outlasts hold, resume and an offer without description.
func TestSRTPHold(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{shards: 1, trunk: `srtp = "required"`})
	alice := w.browser(w.deps[0].Shards[0], "secret", 440)
	c := w.call(w.phone(siptest.PhoneOptions{SRTP: "AEAD_AES_128_GCM"}), "secret", 1000)
	w.both(alice, c)
	if err := c.Reinvite(w.ctx, "sendonly"); err != nil {
		t.Fatal(err)
	}
	w.still("packets to a phone that holds", func() uint64 { return c.RTP().Received })
	if err := c.Resume(w.ctx); err != nil {
		t.Fatal(err)
	}
	w.both(alice, c)
	if err := c.ReinviteLate(w.ctx); err != nil {
		t.Fatal(err)
	}
	w.both(alice, c)
	w.hangup(c)
}

// A meeting dials phones that must encrypt, that may, and that cannot.
func TestDialSRTP(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, mode string
		phone      siptest.PhoneOptions
	}{
		{"must", "required", siptest.PhoneOptions{Codec: "pcma", SRTP: "AEAD_AES_256_GCM"}},
		{"may", "optional", siptest.PhoneOptions{Codec: "pcma", SRTP: "AES_CM_128_HMAC_SHA1_80", SRTPOptional: true}},
		{"cannot", "optional", siptest.PhoneOptions{Codec: "pcma"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w, p := dialWorldTo(t, tt.phone, worldOptions{shards: 1, trunk: "srtp = \"" + tt.mode + "\""}, anyNumber)
			sh := w.deps[0].Shards[0]
			host := w.browser(sh, "secret", 440)
			w.refNick(w.ask(host, sh, "secret", "112"))
			c, err := w.rings(p).Answer(w.ctx, siptest.AnswerOptions{Tone: 1000})
			if err != nil {
				t.Fatal(err)
			}
			w.both(host, c)
			if err := c.Hangup(w.ctx); err != nil {
				t.Fatal(err)
			}
			w.alone(host)
		})
	}
}

// When no UDP port is left the next caller is told so at once, and the port of
// a call that has ended is given out again after its rest.
func TestPortsExhausted(t *testing.T) {
	t.Parallel()
	lo, hi := freePorts(t, 3)
	w := newWorld(t, worldOptions{shards: 1, gateway: "max_calls = 1", media: fmt.Sprintf("ports = \"%d-%d\"", lo, hi)})
	sh := w.deps[0].Shards[0]
	alice := w.browser(sh, "full", 440)
	c := w.call(w.phone(siptest.PhoneOptions{}), "full", 1000)
	w.both(alice, c)
	w.hangup(c)
	w.gone()
	// The ports rest now.
	_, err := w.phone(siptest.PhoneOptions{}).Call(w.ctx, siptest.CallOptions{URI: w.uri("conference"), Headers: w.headers("full")})
	var s *siptest.StatusError
	if !errors.As(err, &s) || s.Code != 503 || s.Headers["Retry-After"] == "" || !strings.Contains(s.Headers["Reason"], "port") {
		t.Fatalf("got %v, want 503 with Retry-After", err)
	}
	w.await("the ports have rested", func() bool {
		c, err := w.phone(siptest.PhoneOptions{}).Call(w.ctx, siptest.CallOptions{URI: w.uri("conference"), Headers: w.headers("full")})
		return err == nil && c.Hangup(w.ctx) == nil
	})
}

// freePorts finds a range of UDP ports that begins with an even one, in which
// nobody else listens.
func freePorts(t *testing.T, n int) (lo, hi int) {
	t.Helper()
	for range 100 {
		lo = 12000 + 2*rand.IntN(8000)
		var held []net.PacketConn
		for p := lo; p < lo+n; p++ {
			l, err := net.ListenPacket("udp", fmt.Sprintf("127.0.0.1:%d", p))
			if err != nil {
				break
			}
			held = append(held, l)
		}
		for _, l := range held {
			l.Close()
		}
		if len(held) == n {
			return lo, lo + n - 1
		}
	}
	t.Fatal("no free ports")
	return 0, 0
}

// What does not fit is refused with a text that says so.
func TestSRTPRefused(t *testing.T) {
	t.Parallel()
	const head = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n"
	for _, tt := range []struct{ mode, line string }{
		{"off", "m=audio 4000 RTP/SAVP 0\r\na=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:WVNfX19zZW1jdGwgKCkgewkyMjA7fQp9CnVubGVz\r\n"},
		{"required", "m=audio 4000 RTP/AVP 0\r\n"},
	} {
		t.Run(tt.mode, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, worldOptions{shards: 1, trunk: "srtp = \"" + tt.mode + "\""})
			answer := w.raw(head + tt.line)
			status, _, _ := strings.Cut(answer, "\r\n")
			_, warning, _ := strings.Cut(answer, "\r\nWarning: ")
			warning, _, _ = strings.Cut(warning, "\r\n")
			if !strings.Contains(status, " 488 ") || !strings.Contains(warning, "encrypted") || !strings.Contains(warning, tt.mode) {
				t.Errorf("%s, warning %s", status, warning)
			}
		})
	}
}
