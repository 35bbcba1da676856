package gateway_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"brewline/internal/siptest"
)

// Phones of each suite are heard and hear, also after hold and resume.
func TestSRTP(t *testing.T) {
	t.Parallel()
	for _, suite := range []string{"AES_CM_128_HMAC_SHA1_80", "AES_CM_128_HMAC_SHA1_32", "AEAD_AES_128_GCM", "AEAD_AES_256_GCM"} {
		t.Run(suite, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, worldOptions{shards: 1, trunk: `srtp = "required"`})
			alice := w.browser(w.deps[0].Shards[0], "secret", 440)
			p := w.phone(siptest.PhoneOptions{SRTP: suite, RTCPMux: suite == "AEAD_AES_128_GCM", Reports: true})
			c := w.call(p, "secret", 1000)
			w.both(alice, c)
			if err := c.Reinvite(w.ctx, "sendonly"); err != nil {
				t.Fatal(err)
			}
			if err := c.Resume(w.ctx); err != nil {
				t.Fatal(err)
			}
			w.both(alice, c)
			w.await("RTCP at the phone", func() bool { return c.RTP().RTCP > 0 })
			w.hangup(c)
		})
	}
}

// What a trunk's policy makes of plain and of encrypted phones.
func TestSRTPPolicies(t *testing.T) {
	t.Parallel()
	const suite = "AES_CM_128_HMAC_SHA1_80"
	for _, tt := range []struct {
		policy string
		phone  siptest.PhoneOptions
		says   string // in the Warning of a 488, "": it is answered
	}{
		{"off", siptest.PhoneOptions{SRTP: suite}, "is offered encrypted only, and this trunk has srtp"},
		{"off", siptest.PhoneOptions{SRTP: suite, SRTPMaybe: true}, ""},
		{"optional", siptest.PhoneOptions{}, ""},
		{"optional", siptest.PhoneOptions{SRTP: suite}, ""},
		{"optional", siptest.PhoneOptions{SRTP: suite, SRTPMaybe: true}, ""},
		{"required", siptest.PhoneOptions{}, "is not offered encrypted, and this trunk has srtp"},
		{"required", siptest.PhoneOptions{SRTP: suite, SRTPMaybe: true}, ""},
	} {
		t.Run(fmt.Sprintf("%s %s %v", tt.policy, tt.phone.SRTP, tt.phone.SRTPMaybe), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, worldOptions{shards: 1, trunk: fmt.Sprintf("srtp = %q", tt.policy)})
			alice := w.browser(w.deps[0].Shards[0], "secret", 440)
			p := w.phone(tt.phone)
			if tt.says == "" {
				c := w.call(p, "secret", 1000)
				w.both(alice, c)
				w.hangup(c)
				return
			}
			_, err := p.Call(w.ctx, siptest.CallOptions{URI: w.uri("conference"), Headers: w.headers("secret")})
			var s *siptest.StatusError
			if !errors.As(err, &s) || s.Code != 488 || !strings.Contains(s.Headers["Warning"], tt.says) {
				t.Fatalf("got %v, want 488 with %q", err, tt.says)
			}
		})
	}
}

// A meeting dials phones that must, may or cannot encrypt.
func TestDialSRTP(t *testing.T) {
	t.Parallel()
	const suite = "AEAD_AES_128_GCM"
	for _, tt := range []struct {
		policy string
		phone  siptest.PhoneOptions
	}{
		{"required", siptest.PhoneOptions{Codec: "pcma", SRTP: suite}},
		{"optional", siptest.PhoneOptions{Codec: "pcma", SRTP: suite, SRTPMaybe: true}},
		{"optional", siptest.PhoneOptions{Codec: "pcma"}},
	} {
		t.Run(fmt.Sprintf("%s %s", tt.policy, tt.phone.SRTP), func(t *testing.T) {
			t.Parallel()
			w, p := dialWorldTo(t, tt.phone, worldOptions{shards: 1, trunk: fmt.Sprintf("srtp = %q", tt.policy)}, anyNumber)
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
