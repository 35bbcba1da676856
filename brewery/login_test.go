package brewery

import (
	"crypto"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"brewline/config"
	"brewline/xmpp"
)

func options(t *testing.T, cfg *config.Config, r Room, c Credentials) (xmpp.Options, error) {
	t.Helper()
	s := must(New(cfg, Options{}))(t)
	d := s.Deployment(cfg.Deployments[0].Name)
	return d.SessionOptions(d.Shard(cfg.Shards[0].Name), Location{}, r, c)
}

func TestLogins(t *testing.T) {
	t.Parallel()
	token := "aaa.bbb.c-_="
	jwt := config.JWT{Key: "s3cret", Algorithm: "HS256", TTL: config.Duration{Duration: time.Minute}}
	for name, c := range map[string]struct {
		login    config.Login
		url      string
		c        Credentials
		domain   string
		user     string // or its beginning
		password string
		token    string // "*": any
		err      string
	}{
		"anonymous":           {login: config.Login{Kind: "anonymous", Domain: "meet.example"}, domain: "meet.example"},
		"guest":               {login: config.Login{Kind: "guest", Domain: "guest.meet.example"}, domain: "guest.meet.example"},
		"account":             {login: config.Login{Kind: "account", Domain: "auth.meet.example", Username: "gw", Password: "pw"}, domain: "auth.meet.example", user: "gw", password: "pw"},
		"shared secret":       {login: config.Login{Kind: "shared_secret", Domain: "sip.meet.example", Password: "pw"}, domain: "sip.meet.example", user: "brewline-", password: "pw"},
		"shared secret, name": {login: config.Login{Kind: "shared_secret", Domain: "sip.meet.example", Username: "tel", Password: "pw"}, domain: "sip.meet.example", user: "tel-", password: "pw"},
		"own token":           {login: config.Login{Kind: "jwt", Domain: "meet.example", JWT: jwt}, domain: "meet.example", token: "*"},
		"given token":         {login: config.Login{Kind: "jwt", Domain: "jwt.meet.example", JWT: jwt}, c: Credentials{Token: token}, domain: "jwt.meet.example", token: token},
		"token, anonymous":    {login: config.Login{Kind: "anonymous", Domain: "anon.meet.example"}, c: Credentials{Token: token}, domain: "anon.meet.example", token: token},
		"token for a guest":   {login: config.Login{Kind: "guest", Domain: "guest.meet.example"}, c: Credentials{Token: token}, domain: "meet.example", token: token},
		"token, no account":   {login: config.Login{Kind: "account", Domain: "auth.meet.example", Username: "gw", Password: "pw"}, c: Credentials{Token: token}, domain: "meet.example", token: token},
		"token and user id":   {login: config.Login{Kind: "jwt", Domain: "meet.example"}, c: Credentials{Token: token, UserID: "x@Other.example/r"}, domain: "other.example", token: token},
		"user id, no domain":  {login: config.Login{Kind: "jwt", Domain: "meet.example"}, c: Credentials{Token: token, UserID: "x"}, domain: "meet.example", token: token},
		"user id, no token":   {login: config.Login{Kind: "anonymous", Domain: "meet.example"}, c: Credentials{UserID: "x@other.example"}, domain: "meet.example"},
		"default":             {domain: "meet.example"},

		"no token":              {login: config.Login{Kind: "jwt", Domain: "meet.example"}, err: "no key is configured"},
		"bad key":               {login: config.Login{Kind: "jwt", JWT: config.JWT{Key: "x", Algorithm: "RS256"}}, err: "not PEM"},
		"unknown algorithm":     {login: config.Login{Kind: "jwt", JWT: config.JWT{Key: "x", Algorithm: "none"}}, err: "neither HS256 nor RS256"},
		"token over TCP":        {login: config.Login{Kind: "jwt", JWT: jwt}, url: "xmpp://s1.example:5222", err: "only be sent in a BOSH or WebSocket URL"},
		"given token over TCP":  {url: "xmpp://s1.example:5222", c: Credentials{Token: token}, err: "only be sent in a BOSH or WebSocket URL"},
		"token with parameters": {c: Credentials{Token: "aaa&room=other"}, err: "no JSON web token"},
		"token too long":        {c: Credentials{Token: strings.Repeat("a", 8<<10)}, err: "no JSON web token"},
		"bad user id":           {c: Credentials{Token: token, UserID: "x@<evil>"}, err: "no JID"},
		"unknown kind":          {login: config.Login{Kind: "magic"}, err: "not known"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := conf([]config.Deployment{{Name: "prod"}}, config.Shard{Name: "s1", URL: c.url})
			cfg.Shards[0].Effective.Login = c.login
			o, err := options(t, cfg, room, c.c)
			if c.err != "" {
				if !errors.Is(err, ErrCredentials) || !strings.Contains(err.Error(), c.err) {
					t.Errorf("error %v, want %q", err, c.err)
				}
				if err != nil && strings.Contains(err.Error(), "s3cret") {
					t.Error("the error tells the key")
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if o.Domain != c.domain || o.Password != c.password || o.Room != "standup" || o.URL != urlOf("s1") {
				t.Errorf("%+v", o)
			}
			if strings.HasSuffix(c.user, "-") {
				again, err := options(t, cfg, room, c.c)
				if err != nil || again.Username == o.Username {
					t.Errorf("two calls are both %q, %v", o.Username, err)
				}
				if j, err := xmpp.ParseJID(o.Username + "@" + o.Domain); err != nil || j.Local != o.Username || !strings.HasPrefix(o.Username, c.user) || len(o.Username) < len(c.user)+16 {
					t.Errorf("user %q: %v", o.Username, err)
				}
			} else if o.Username != c.user {
				t.Errorf("user %q", o.Username)
			}
			if c.token == "*" && o.Token == "" || c.token != "*" && o.Token != c.token {
				t.Errorf("token %q", o.Token)
			}
		})
	}
}

func TestSessionOptionsReach(t *testing.T) {
	t.Parallel()
	cert := filepath.Join(t.TempDir(), "ca.pem")
	cfg := conf([]config.Deployment{{Name: "prod", Balancer: "https://{host}{subdomain}/http-bind?room={roomName}&x=y", ShardHeader: "X-S", Connections: 3}},
		config.Shard{Name: "s1", URL: "http://10.0.0.1:5280/http-bind?via=1&room=no"},
		config.Shard{Name: "s2", TLS: config.TLS{ServerName: "inner.example"}},
		config.Shard{Name: "s3", URL: "ws://s3.example/xmpp-websocket", TLS: config.TLS{CA: cert}},
		config.Shard{Name: "s4", URL: "xmpp://s4.example:5222", TLS: config.TLS{Insecure: true}})
	cfg.Shards[1].Effective.Domain, cfg.Shards[1].Effective.Login.Domain = "two.example", "two.example"
	s := must(New(cfg, Options{}))(t)
	d := s.Deployment("prod")
	acme := Room{Name: "r%c3%a9union", Tenant: "acme"}
	get := func(shard string, loc Location, r Room) xmpp.Options {
		t.Helper()
		return must(d.SessionOptions(d.Shard(shard), loc, r, Credentials{}))(t)
	}

	o := get("s1", Location{}, acme)
	if o.URL != "http://10.0.0.1:5280/http-bind" || o.Query.Encode() != "prefix=acme&via=1" || o.Room != "r%c3%a9union" ||
		!o.AllowPlain || o.TLS != nil || o.ShardHeader != "X-S" || o.Connections != 3 {
		t.Errorf("s1: %+v", o)
	}
	o = get("s2", Location{}, room)
	if o.URL != urlOf("s2") || len(o.Query) != 0 || o.AllowPlain || o.TLS.ServerName != "inner.example" || o.TLS.InsecureSkipVerify || o.Domain != "two.example" {
		t.Errorf("s2: %+v", o)
	}
	if o = get("s4", Location{}, room); o.URL != "xmpp://s4.example:5222" || !o.TLS.InsecureSkipVerify || o.AllowPlain {
		t.Errorf("s4: %+v", o)
	}
	// The file may come later.
	if _, err := d.SessionOptions(d.Shard("s3"), Location{}, room, Credentials{}); err == nil {
		t.Error("s3: a missing file was taken")
	}
	key := must(rsa.GenerateKey(rand.Reader, 2048))(t)
	der := must(x509.CreateCertificate(rand.Reader, &x509.Certificate{SerialNumber: big.NewInt(1)}, &x509.Certificate{SerialNumber: big.NewInt(1)}, &key.PublicKey, key))(t)
	if err := os.WriteFile(cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	if o = get("s3", Location{}, room); o.TLS.RootCAs == nil || !o.AllowPlain {
		t.Errorf("s3: %+v", o)
	}

	// Through the balancer: with and without knowing the shard. A leg that
	// looks at another shard goes there directly.
	via := Location{ViaBalancer: true, URL: "https://meet.example/acme/http-bind?room=r%25c3%25a9union&x=y"}
	o = must(d.SessionOptions(nil, via, acme, Credentials{}))(t)
	if o.URL != "https://meet.example/acme/http-bind" || o.Query.Encode() != "x=y" || o.Connections != 3 || o.Room != "r%c3%a9union" || o.Domain != "meet.example" {
		t.Errorf("balancer: %+v", o)
	}
	via.Shard = d.Shard("s2")
	if o = get("s2", via, acme); o.URL != "https://meet.example/acme/http-bind" || o.Domain != "two.example" {
		t.Errorf("s2 by the balancer: %+v", o)
	}
	if o = get("s1", via, room); !strings.HasPrefix(o.URL, "http://10.0.0.1") {
		t.Errorf("another shard: %+v", o)
	}
	if _, err := d.SessionOptions(nil, Location{}, room, Credentials{}); err == nil {
		t.Error("no shard and no balancer gave options")
	}
	if j := d.RoomJID(acme, nil); j.String() != "r%c3%a9union@conference.acme.meet.example" {
		t.Errorf("room %s", j)
	}
	if j, nick := d.Focus(nil); j.String() != "focus.meet.example" || nick != "focus" {
		t.Errorf("focus %s, %s", j, nick)
	}
}

// The control session without an account logs in as calls do, for no room.
func TestControlLogin(t *testing.T) {
	t.Parallel()
	cfg := conf([]config.Deployment{{Name: "prod", Login: config.Login{Kind: "jwt",
		JWT: config.JWT{Key: "k", Algorithm: "HS256", TTL: config.Duration{Duration: time.Minute}}}}}, config.Shard{Name: "s1"})
	s := must(New(cfg, Options{}))(t)
	o := must(s.Deployment("prod").Shard("s1").controlOptions())(t)
	if o.Room != "" || claimsOf(t, o.Token).Room != "*" {
		t.Errorf("%+v", o)
	}
	cfg.Shards[0].Effective.Login.JWT.Key = ""
	if _, err := must(New(cfg, Options{}))(t).Deployment("prod").Shard("s1").controlOptions(); !errors.Is(err, ErrCredentials) {
		t.Errorf("error %v", err)
	}
}

func claimsOf(t *testing.T, token string) (c claims) {
	t.Helper()
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		t.Fatalf("token %q", token)
	}
	if err := json.Unmarshal(must(base64.RawURLEncoding.DecodeString(parts[1]))(t), &c); err != nil {
		t.Fatal(err)
	}
	return c
}

func TestMintToken(t *testing.T) {
	t.Parallel()
	key := must(rsa.GenerateKey(rand.Reader, 2048))(t)
	pkcs1 := pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})
	pkcs8 := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: must(x509.MarshalPKCS8PrivateKey(key))(t)})
	now := time.Unix(1_700_000_000, 0)
	rs256 := func(data, sig []byte) bool {
		sum := sha256.Sum256(data)
		return rsa.VerifyPKCS1v15(&key.PublicKey, crypto.SHA256, sum[:], sig) == nil
	}
	for name, c := range map[string]struct {
		alg    string
		key    string
		verify func(data, sig []byte) bool
	}{
		"HS256": {"HS256", "secret", func(data, sig []byte) bool {
			m := hmac.New(sha256.New, []byte("secret"))
			m.Write(data)
			return hmac.Equal(sig, m.Sum(nil))
		}},
		"RS256, PKCS 1": {"RS256", string(pkcs1), rs256},
		"RS256, PKCS 8": {"RS256", string(pkcs8), rs256},
	} {
		t.Run(name, func(t *testing.T) {
			token, err := mintToken(config.JWT{Key: config.Secret(c.key), KeyID: "k1", Algorithm: c.alg, Issuer: "app", Audience: "jitsi",
				TTL: config.Duration{Duration: 5 * time.Minute}}, "acme", "standup", now)
			if err != nil {
				t.Fatal(err)
			}
			signed, sig, _ := cutLast(token, ".")
			if !c.verify([]byte(signed), must(base64.RawURLEncoding.DecodeString(sig))(t)) {
				t.Error("the signature is wrong")
			}
			var h map[string]string
			head, _, _ := strings.Cut(token, ".")
			if err := json.Unmarshal(must(base64.RawURLEncoding.DecodeString(head))(t), &h); err != nil || h["alg"] != c.alg || h["typ"] != "JWT" || h["kid"] != "k1" {
				t.Errorf("header %v, %v", h, err)
			}
			if got, want := claimsOf(t, token), (claims{"app", "jitsi", "acme", "standup", 1_700_000_000, 1_699_999_970, 1_700_000_300}); got != want {
				t.Errorf("claims %+v, want %+v", got, want)
			}
			if strings.ContainsFunc(token, notOfToken) {
				t.Errorf("token %q", token)
			}
		})
	}
	for _, bad := range []string{"", "x", string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: []byte("x")}))} {
		if _, err := mintToken(config.JWT{Key: config.Secret(bad), Algorithm: "RS256"}, "", "r", now); err == nil {
			t.Errorf("key %q was taken", bad)
		}
	}
}

func cutLast(s, sep string) (string, string, bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}

func TestTokenSubject(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ configured, tenant, want string }{
		{"", "", "meet.example"}, {"", "acme", "acme"}, {"meet.example", "acme", "acme"}, {"fixed", "acme", "fixed"}, {"*", "", "*"},
	} {
		d := &config.Deployment{Domain: "meet.example", Login: config.Login{JWT: config.JWT{Subject: c.configured}}}
		if got := subject(d, Room{Tenant: c.tenant}); got != c.want {
			t.Errorf("%+v: %q", c, got)
		}
	}
}
