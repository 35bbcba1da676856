package realstack

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"brewline/internal/needtool"
	"brewline/internal/prosodytest"
)

// What baresip says of a call's audio.
const (
	sdes, dtls = "SRTP is Enabled", "DTLS-SRTP complete"
	inTheClear = "neither"
)

// encrypted checks what it has said of the encryption of its audio.
func (b *baresip) encrypted(want string) {
	b.t.Helper()
	said := inTheClear
	for _, how := range []string{sdes, dtls} {
		if strings.Contains(b.tail(1000), how) {
			said = how
		}
	}
	if said != want {
		b.t.Errorf("baresip says %q, not %q", said, want)
	}
}

// TestBaresipSRTP calls with every way in which baresip encrypts its audio, over
// trunks that encrypt nothing, what comes encrypted, and everything; the last over
// mutual TLS. One calls over IPv6.
func TestBaresipSRTP(t *testing.T) {
	t.Parallel()
	// baresip's TCP comes from 127.0.0.1, wherever it is bound to.
	trunks := map[string]string{"off": "127.0.0.2", "optional": "127.0.0.3", "required": "127.0.0.1"}
	keys := func(mode string) string { return fmt.Sprintf("uri_rooms = true\nsrtp = %q\n", mode) }
	ca, cert := certificate(t)
	o := &worldOptions{trunk: keys("required"), tls: fmt.Sprintf("client_ca = %q", ca)}
	for _, mode := range []string{"off", "optional"} {
		o.trunks += fmt.Sprintf("[[trunk]]\nname = %q\nmatch = [%q]\n%s", mode, trunks[mode], keys(mode))
	}
	o.listen = []string{"udp://[::1]:0"}
	o.trunks += "[[trunk]]\nname = \"six\"\nmatch = [\"::1\"]\n" + keys("optional")
	o.media = "[media.conference]\nbind = \"127.0.0.1\""
	w := build(t, layout{domains: []string{"meet.test"}, shards: 1}, o)
	for _, tt := range []struct {
		encrypt, codec string
		says           map[string]string // by trunk, what baresip says of its encryption: "": refused
	}{
		{"", "pcma", map[string]string{"optional": inTheClear, "required": ""}},
		{"srtp", "pcmu", map[string]string{"off": inTheClear, "optional": sdes, "required": sdes}},
		{"srtp-mand", "g722/16000/1", map[string]string{"off": "", "optional": sdes, "required": sdes}},
		{"srtp-mandf", "opus/48000/2", map[string]string{"off": "", "optional": sdes, "required": sdes}},
		{"dtls_srtp", "pcma", map[string]string{"off": "", "optional": dtls, "required": dtls}},
	} {
		for mode, says := range tt.says {
			name := strings.TrimPrefix(tt.encrypt+"-"+mode, "-")
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				w := w.in(t)
				network := "udp"
				phone := baresipOptions{codec: tt.codec, tone: ours[0], at: trunks[mode], encrypt: tt.encrypt}
				if mode == "required" {
					network, phone.cert = "tls", cert
				}
				b := startBaresip(t, w.ctx, phone)
				to := "sip:" + name + "@" + w.gw.sip[network] + ";transport=" + network
				if says == "" {
					b.do("dial " + to)
					b.wait(w.ctx, "488 Not Acceptable Here")
					return
				}
				alice := w.browser(place{shard: w.deps[0].shards[0], room: name, name: name}, theirs[0])
				b.call(w.ctx, to)
				w.hear("baresip", b, theirs[0])
				w.hear("the participant", alice, ours[0])
				b.do("hold")
				w.silent("a caller on hold", alice)
				b.do("resume")
				w.hear("the participant, after hold,", alice, ours[0])
				mark := b.mark()
				w.must(alice.Press("7*", 120*time.Millisecond))
				b.receives(w.ctx, mark, "7*")
				b.press(w.ctx, "*6")
				w.await("the caller is muted", func() bool {
					others := alice.Others()
					return len(others) == 1 && strings.Contains(alice.PresenceOf(others[0]), "<audiomuted>true<")
				})
				b.hangup(w.ctx)
				b.encrypted(says)
				w.await("the caller has left", func() bool { return len(alice.Others()) == 0 })
			})
		}
	}
	t.Run("IPv6", func(t *testing.T) {
		t.Parallel()
		w := w.in(t)
		alice := w.browser(place{shard: w.deps[0].shards[0], room: "six", name: "six"}, theirs[0])
		b := startBaresip(t, w.ctx, baresipOptions{codec: "pcmu", tone: ours[0], at: "::1", encrypt: "srtp"})
		b.call(w.ctx, "sip:six@"+w.gw.sip["udp6"])
		w.hear("baresip", b, theirs[0])
		w.hear("the participant", alice, ours[0])
		b.hangup(w.ctx)
	})
	// baresip believes every certificate of ours, so that OpenSSL has to look.
	_, stranger := certificate(t)
	for name, tt := range map[string]struct{ authority, cert, end string }{
		"known to each other": {w.ca, cert, ""}, "a gateway that is not known": {ca, cert, "verify error"},
		"a peer that is not known": {w.ca, stranger, "alert unknown ca"}, "a peer without certificate": {w.ca, "", "certificate required"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := w.in(t)
			args := []string{"s_client", "-connect", w.gw.sip["tls"], "-quiet", "-CAfile", tt.authority, "-verify_return_error", "-verify_ip", "127.0.0.1"}
			if tt.cert != "" {
				args = append(args, "-cert", tt.cert, "-key", tt.cert)
			}
			s := launch(t, "openssl", exec.Command(needtool.Path(t, "openssl"), args...))
			_, _ = fmt.Fprint(s.in, "OPTIONS sip:gw.example SIP/2.0\r\nVia: SIP/2.0/TLS phone.example;branch=z9hG4bK1\r\nFrom: <sip:a@phone.example>;tag=1\r\n"+
				"To: <sip:gw.example>\r\nCall-ID: 1\r\nCSeq: 1 OPTIONS\r\nMax-Forwards: 70\r\nContent-Length: 0\r\n\r\n")
			line, err := s.await(w.ctx, "an answer", 0, func(l string) bool { return strings.HasPrefix(l, "SIP/2.0 ") })
			switch said := s.tail(100); {
			case tt.end == "" && (err != nil || line != "SIP/2.0 200 OK"):
				t.Errorf("%q, %v", line, err)
			case tt.end != "" && (err == nil || !strings.Contains(said, tt.end)):
				t.Errorf("%q, %v, and not %s:\n%s", line, err, tt.end, said)
			}
		})
	}
}

// certificate makes one for a phone, and returns the file of its authority and
// that of itself with its key.
func certificate(t *testing.T) (ca, cert string) {
	t.Helper()
	dir := t.TempDir()
	if _, err := prosodytest.WriteCertificate(dir, "phone.example"); err != nil {
		t.Fatal(err)
	}
	ca, cert = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "both.pem")
	var both []byte
	for _, name := range []string{"cert.pem", "key.pem"} {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		both = append(both, b...)
	}
	if err := os.WriteFile(cert, both, 0o600); err != nil {
		t.Fatal(err)
	}
	return ca, cert
}
