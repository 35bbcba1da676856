package gateway_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"brewline/internal/jitsitest"
	"brewline/internal/jitsitest/xmppd"
	"brewline/internal/siptest"
)

// callers are the real JIDs of the gateway's occupants of a room.
func callers(sh *jitsitest.Shard, room string, nicks ...string) []string {
	var out []string
	for _, o := range sh.XMPP.Occupants(room) {
		for _, n := range nicks {
			if o.Nick == n {
				out = append(out, o.JID)
			}
		}
	}
	return out
}

// Every way to log in gets a call into the room, at the domain it is for.
func TestLogins(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, login, user string }{
		{"guest", "login = {kind = \"guest\"}", "@guest.meet.example/"},
		{"account", "login = {kind = \"account\", username = \"caller\", password = \"tulip\"}", "caller@auth.meet.example/"},
		{"shared secret", "login = {kind = \"shared_secret\", domain = \"sip.meet.example\", username = \"phone\", password = \"rose\"}",
			"@sip.meet.example/"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			o := worldOptions{shards: 1, login: tt.login, options: quick()}
			o.dep.Shard.XMPP.Accounts = map[string]string{"caller": "tulip"}
			o.dep.Shard.XMPP.Hosts = []xmppd.Host{{Domain: "sip.meet.example", Kind: xmppd.SharedSecret, Secret: "rose"}}
			w := newWorld(t, o)
			sh := w.deps[0].Shards[0]
			alice, c := w.inCall(sh, "members")
			first := w.nick()
			second := w.call(w.phone(siptest.PhoneOptions{}), "members", 700)
			w.hear("the participant", alice, 700)
			nicks := []string{first}
			for _, n := range alice.Others() {
				if n != first {
					nicks = append(nicks, n)
				}
			}
			jids := callers(sh, "members", nicks...)
			if len(jids) != 2 {
				t.Fatalf("callers in the room: %v of %v", jids, nicks)
			}
			for _, j := range jids {
				if !contains(j, tt.user) {
					t.Errorf("a call is logged in as %s, want …%s…", j, tt.user)
				}
			}
			a, _, _ := strings.Cut(jids[0], "/")
			b, _, _ := strings.Cut(jids[1], "/")
			if own := tt.name != "account"; own != (a != b) {
				t.Errorf("two calls are %s and %s", a, b)
			}
			if err := second.Hangup(w.ctx); err != nil {
				t.Fatal(err)
			}
			w.hangup(c)
		})
	}
}

// A login that the shard refuses is told as such.
func TestLoginRefused(t *testing.T) {
	t.Parallel()
	o := worldOptions{shards: 1, brewery: true, login: "login = {kind = \"account\", username = \"caller\", password = \"wrong\"}"}
	w := newWorld(t, o)
	w.browser(w.deps[0].Shards[0], "members", 440)
	e := w.refused(w.phone(siptest.PhoneOptions{}), w.headers("members"))
	if e.Code != 480 {
		t.Errorf("%d, Reason %q", e.Code, e.Headers["Reason"])
	}
	w.gone()
}

// token makes a token as an application server would.
func token(key, room string) string {
	enc := base64.RawURLEncoding
	body := fmt.Sprintf(`{"iss":"app","aud":"jitsi","sub":"meet.example","room":%q,"exp":%d}`, room, time.Now().Add(time.Hour).Unix())
	signed := enc.EncodeToString([]byte(`{"typ":"JWT","alg":"HS256"}`)) + "." + enc.EncodeToString([]byte(body))
	m := hmac.New(sha256.New, []byte(key))
	m.Write([]byte(signed))
	return signed + "." + enc.EncodeToString(m.Sum(nil))
}

// checkToken is what mod_auth_token asks of a token.
func checkToken(key string) func(xmppd.Token) error {
	return func(t xmppd.Token) error {
		parts := strings.Split(t.Token, ".")
		if len(parts) != 3 {
			return errors.New("token required")
		}
		m := hmac.New(sha256.New, []byte(key))
		m.Write([]byte(parts[0] + "." + parts[1]))
		if base64.RawURLEncoding.EncodeToString(m.Sum(nil)) != parts[2] {
			return errors.New("Invalid signature")
		}
		raw, err := base64.RawURLEncoding.DecodeString(parts[1])
		if err != nil {
			return err
		}
		var claims struct {
			Room string
			Exp  int64
		}
		if err := json.Unmarshal(raw, &claims); err != nil {
			return err
		}
		switch {
		case claims.Exp < time.Now().Unix():
			return errors.New("Token expired")
		case t.Room != "" && claims.Room != t.Room && claims.Room != "*":
			return errors.New("Room and token mismatched")
		}
		return nil
	}
}

func TestTokens(t *testing.T) {
	t.Parallel()
	const key = "0123456789abcdef0123456789abcdef"
	for name, login := range map[string]string{
		"given by header":   "login = {kind = \"jwt\"}",
		"made for the room": "login = {kind = \"jwt\", jwt = {key = \"" + key + "\", issuer = \"app\"}}",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := worldOptions{shards: 2, brewery: true, login: login, options: quick(), token: token(key, "closed")}
			o.dep.Shard.XMPP.CheckToken = checkToken(key)
			bothWays(t, o, "closed", func(t *testing.T, w *world) {
				alice := w.browser(w.deps[0].Shards[1], "closed", 440)
				p := w.phone(siptest.PhoneOptions{})
				call := func(token string, more ...string) (*siptest.Call, error) {
					h := w.headers("closed")
					if token != "" {
						h["X-Auth-Token"] = token
					}
					for i := 0; i < len(more); i += 2 {
						h[more[i]] = more[i+1]
					}
					return p.Call(w.ctx, siptest.CallOptions{URI: w.uri("x"), Headers: h, Tone: 1000})
				}
				good := ""
				if name == "given by header" {
					good = token(key, "closed")
					for _, bad := range []string{"", token("another key", "closed"), token(key, "another room"), "no token"} {
						c, err := call(bad)
						var status *siptest.StatusError
						if !errors.As(err, &status) {
							c.Hangup(w.ctx)
							t.Fatalf("token %q: %v", bad, err)
						}
						if status.Code != 403 && status.Code != 480 {
							t.Errorf("token %q: %d, Reason %q", bad, status.Code, status.Headers["Reason"])
						}
					}
				}
				var user []string
				if name == "given by header" {
					// The user that goes with the token says where to log in.
					for _, header := range []string{"Jitsi-User-ID-Token", "X-User-ID-Token"} {
						c, err := call(good, header, "alice@nowhere.example")
						var status *siptest.StatusError
						if !errors.As(err, &status) || status.Code != 480 {
							t.Errorf("%s of another domain: %v", header, err)
						}
						if c != nil {
							c.Hangup(w.ctx)
						}
					}
					user = []string{"Jitsi-User-ID-Token", "alice@" + w.deps[0].Shards[1].Domain()}
				}
				c, err := call(good, user...)
				if err != nil {
					t.Fatal(err)
				}
				w.both(alice, c)
				w.hangup(c)
			})
		})
	}
}

// Every kind of address in a shard's url leads a call into the room.
func TestShardAddresses(t *testing.T) {
	t.Parallel()
	cert, pool := certificate(t)
	for name, address := range map[string]func(*jitsitest.Shard) string{
		"https": func(s *jitsitest.Shard) string { return front(t, cert, s.XMPP.BOSHURL(), "https") },
		"wss":   func(s *jitsitest.Shard) string { return front(t, cert, s.XMPP.WebSocketURL(), "wss") },
		"ws":    func(s *jitsitest.Shard) string { return s.XMPP.WebSocketURL() },
		"xmpp":  func(s *jitsitest.Shard) string { return "xmpp://" + s.XMPP.C2SAddr() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := worldOptions{shards: 2, options: quick(), shard: fmt.Sprintf("tls = {ca = %q, server_name = \"shard.example\"}", pool)}
			var mu sync.Mutex
			made := map[*jitsitest.Shard]string{}
			o.url = func(s *jitsitest.Shard) string {
				mu.Lock()
				defer mu.Unlock()
				if made[s] == "" {
					made[s] = address(s)
				}
				return made[s]
			}
			o.dep.Shard.XMPP.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
			bothWays(t, o, "anywhere", func(t *testing.T, w *world) {
				alice, c := w.inCall(w.deps[0].Shards[1], "anywhere")
				w.both(alice, c)
				w.hangup(c)
				w.await("the caller left the room", func() bool { return len(alice.Others()) == 0 })
			})
		})
	}
}

// front is a TLS server before an HTTP service, as nginx is.
func front(t *testing.T, cert tls.Certificate, service, scheme string) string {
	u, err := url.Parse(service)
	if err != nil {
		t.Fatal(err)
	}
	path := u.Path
	u.Path, u.Scheme = "", "http"
	s := httptest.NewUnstartedServer(httputil.NewSingleHostReverseProxy(u))
	s.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
	s.StartTLS()
	t.Cleanup(s.Close)
	return scheme + "://" + s.Listener.Addr().String() + path
}

// certificate is one for shard.example, and the file of its authority.
func certificate(t *testing.T) (tls.Certificate, string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
		DNSNames: []string{"shard.example"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, path
}

// A tenant's room is another room than that of the same name without.
func TestTenantRoom(t *testing.T) {
	t.Parallel()
	bothWays(t, worldOptions{shards: 2, options: quick()}, "daily", func(t *testing.T, w *world) {
		sh := w.deps[0].Shards[1]
		plain := w.browser(w.deps[0].Shards[0], "daily", 700)
		alice, err := jitsitest.JoinBrowser(w.ctx, jitsitest.BrowserOptions{
			URL: sh.BOSHURL(), Domain: sh.Domain(), MUC: "conference.acme." + sh.Domain(), Room: "daily", Tone: 440,
		})
		if err != nil {
			t.Fatal(err)
		}
		defer alice.Close()
		for name, headers := range map[string]map[string]string{
			"tenant header": with(w.headers("daily"), "X-Domain-Tenant", "Acme"),
			"full room JID": {"Jitsi-Conference-Room": "daily@conference.acme." + sh.Domain()},
		} {
			c, err := w.phone(siptest.PhoneOptions{}).Call(w.ctx, siptest.CallOptions{URI: w.uri("x"), Headers: headers, Tone: 1000})
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			w.both(alice, c)
			w.never("the phone", c.Heard(), c.Rate(), 700)
			w.never("the other room", plain.Heard(), 48000, 1000)
			w.hangup(c)
		}
	})
}
