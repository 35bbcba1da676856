package gateway_test

import (
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
