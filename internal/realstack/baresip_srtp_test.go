package realstack

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"brewline/internal/prosodytest"
)

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
	const sdes, dtls = "SRTP is Enabled", "DTLS-SRTP complete"
	for _, tt := range []struct {
		encrypt, codec string
		says           map[string]string // by trunk, what baresip says of its encryption: "": refused
	}{
		{"", "pcma", map[string]string{"optional": "clear", "required": ""}},
		{"srtp", "pcmu", map[string]string{"off": "clear", "optional": sdes, "required": sdes}},
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
				b.echo()
				w.hear("the participant, from the phone and back,", alice, theirs[0])
				b.hangup(w.ctx)
				if all := b.tail(1000); says == "clear" == (strings.Contains(all, sdes) || strings.Contains(all, dtls)) || says != "clear" && !strings.Contains(all, says) {
					t.Errorf("baresip does not say %q", says)
				}
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
	t.Run("another certificate", func(t *testing.T) {
		t.Parallel()
		w := w.in(t)
		_, stranger := certificate(t)
		b := startBaresip(t, w.ctx, baresipOptions{codec: "pcmu", encrypt: "srtp-mand", cert: stranger})
		b.do("dial sip:nobody@" + w.gw.sip["tls"] + ";transport=tls")
		if err := w.says(0, "sip: handshake failed").str("err"); !strings.Contains(err, "unknown authority") {
			t.Errorf("TLS failed by %s", err)
		}
		if strings.Contains(b.tail(1000), "SIP Progress") {
			t.Error("the gateway answers somebody whose certificate it does not know")
		}
	})
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
