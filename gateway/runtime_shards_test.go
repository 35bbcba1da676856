package gateway

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"brewline/config"
)

func TestParseAccount(t *testing.T) {
	t.Parallel()
	with := func(more ...string) map[string]string {
		p := map[string]string{"USER_ID": "jigasi@auth.meet.example.com", "PASSWORD": "pw", "BREWERY": "JigasiBrewery@internal.auth.meet.example.com"}
		for i := 0; i < len(more); i += 2 {
			if p[more[i]] = more[i+1]; more[i+1] == "" {
				delete(p, more[i])
			}
		}
		return p
	}
	const pattern = "https://{host}{subdomain}/http-bind?room={roomName}"
	plain := account{id: "x", user: "jigasi", domain: "auth.meet.example.com", password: "pw", brewery: "JigasiBrewery@internal.auth.meet.example.com"}
	for name, tt := range map[string]struct {
		in   map[string]string
		want func(*account)
		err  string
	}{
		"least":              {with(), func(a *account) { a.url = "xmpp://auth.meet.example.com:5222" }, ""},
		"server":             {with("SERVER_ADDRESS", "10.0.0.7"), func(a *account) { a.url = "xmpp://10.0.0.7:5222" }, ""},
		"server and port":    {with("SERVER_ADDRESS", "10.0.0.7", "SERVER_PORT", "6222"), func(a *account) { a.url = "xmpp://10.0.0.7:6222" }, ""},
		"IPv6":               {with("SERVER_ADDRESS", "2001:db8::7"), func(a *account) { a.url = "xmpp://[2001:db8::7]:5222" }, ""},
		"BOSH":               {with("BOSH_URL", "https://s1.example.com/http-bind?room={roomName}", "SERVER_ADDRESS", "10.0.0.7"), func(a *account) { a.url = "https://s1.example.com/http-bind" }, ""},
		"BOSH with a query":  {with("BOSH_URL", "https://s1.example.com/http-bind?vnode=1&room=x"), func(a *account) { a.url = "https://s1.example.com/http-bind?vnode=1" }, ""},
		"pattern":            {with("BOSH_URL_PATTERN", pattern), func(a *account) { a.url = "https://meet.example.com/http-bind" }, ""},
		"pattern and host":   {with("BOSH_URL_PATTERN", pattern, "DOMAIN_BASE", "Web.example.com"), func(a *account) { a.url, a.domainBase = "https://web.example.com/http-bind", "web.example.com" }, ""},
		"server and pattern": {with("BOSH_URL_PATTERN", pattern, "SERVER_ADDRESS", "10.0.0.7"), func(a *account) { a.url, a.balancer = "xmpp://10.0.0.7:5222", pattern }, ""},
		"all of it": {with("BOSH_URL_PATTERN", pattern, "SERVER_ADDRESS", "10.0.0.7", "DOMAIN_BASE", "web.example.com", "MUC_DOMAIN_PREFIX", "muc,conference",
			"DEPLOYMENT", "d", "HEADER_VALUE", "shard-7", "REGION", "eu"), func(a *account) {
			*a = account{id: "x", user: "jigasi", domain: "auth.meet.example.com", password: "pw", brewery: plain.brewery, url: "xmpp://10.0.0.7:5222", domainBase: "web.example.com",
				balancer: "https://web.example.com{subdomain}/http-bind?room={roomName}", muc: "muc", deployment: "d", header: "shard-7", region: "eu"}
		}, ""},
		"uid": {with("USER_ID", "", "ACCOUNT_UID", "Jabber:Jigasi@auth.meet.example.com@label"), func(a *account) {
			a.uid, a.url = "Jabber:Jigasi@auth.meet.example.com@label", "xmpp://auth.meet.example.com:5222"
		}, ""},
		"resource":         {with("USER_ID", "jigasi@auth.meet.example.com/x"), func(a *account) { a.url = "xmpp://auth.meet.example.com:5222" }, ""},
		"no user":          {with("USER_ID", ""), nil, "USER_ID"},
		"user, no domain":  {with("USER_ID", "jigasi"), nil, "USER_ID"},
		"no password":      {with("PASSWORD", ""), nil, "PASSWORD"},
		"no brewery":       {with("BREWERY", ""), nil, "BREWERY"},
		"empty":            {map[string]string{}, nil, "USER_ID"},
		"uid without user": {with("USER_ID", "", "ACCOUNT_UID", "Jabber:"), nil, "USER_ID"},
	} {
		got, err := parseAccount("x", tt.in)
		if tt.err != "" {
			if err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		want := plain
		tt.want(&want)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %v\n got %+v\nwant %+v", name, err, got, want)
		}
	}
}

func loaded(t *testing.T, text string) *config.Config {
	t.Helper()
	path := filepath.Join(t.TempDir(), "brewline.toml")
	if err := os.WriteFile(path, []byte(text+"\n[[trunk]]\nname='pbx'\nmatch=['192.0.2.1']\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := config.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

const twoDeployments = `
[[deployment]]
name = "public"
domain = "meet.example.com"
[[deployment]]
name = "docker"
domain = "meet.jitsi"
muc = "muc.meet.jitsi"
[[shard]]
name = "s1"
deployment = "public"
url = "https://s1.example.com/http-bind"
username = "jigasi"
password = "pw"
tls = { insecure = true }
`

// An account finds the deployment whose shards are like it, or gets one.
func TestDeploymentOfAccount(t *testing.T) {
	t.Parallel()
	files := loaded(t, twoDeployments)
	for _, tt := range []struct{ user, base, deployment, want, muc string }{
		{"jigasi@auth.meet.example.com", "", "", "public", "conference.meet.example.com"},
		{"jigasi@auth.meet.jitsi", "web.example.com", "", "docker", "muc.meet.jitsi"},
		{"jigasi@other.example.com", "meet.example.com", "", "public", "conference.meet.example.com"},
		{"jigasi@auth.meet.jitsi", "meet.example.com", "", "public", "conference.meet.example.com"},
		{"jigasi@auth.meet.jitsi", "", "public", "public", "conference.meet.example.com"},
		{"jigasi@auth.new.example.com", "", "", "new.example.com", "conference.new.example.com"},
		{"jigasi@auth.meet.example.com", "", "nobody", "", ""},
	} {
		a, err := parseAccount("s2", map[string]string{"USER_ID": tt.user, "PASSWORD": "file:/etc/passwd", "BREWERY": "b@internal.example.com",
			"DOMAIN_BASE": tt.base, "DEPLOYMENT": tt.deployment, "SERVER_ADDRESS": "10.0.0.2"})
		if err != nil {
			t.Fatal(err)
		}
		c, err := over(files, []account{a}, nil)
		if tt.want == "" {
			if err == nil || !strings.Contains(err.Error(), "nobody") {
				t.Errorf("%+v: %v", tt, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%+v: %v", tt, err)
			continue
		}
		s := c.Shard("s2")
		if s.Deployment != tt.want || s.Effective.MUC != tt.muc || s.Password.Value() != "file:/etc/passwd" || s.TLS.Insecure != (tt.want == "public") {
			t.Errorf("%+v: %+v", tt, s)
		}
	}
	// Two deployments of one name are told apart by the operator alone.
	files = loaded(t, strings.Replace(twoDeployments, `domain = "meet.jitsi"`, `domain = "meet.example.com"`, 1))
	a, _ := parseAccount("s2", map[string]string{"USER_ID": "jigasi@auth.meet.example.com", "PASSWORD": "pw", "BREWERY": "b@internal.example.com"})
	if _, err := over(files, []account{a}, nil); err == nil || !strings.Contains(err.Error(), "public or docker") {
		t.Errorf("ambiguous: %v", err)
	}
	// Two accounts of one new domain share its deployment.
	b, _ := parseAccount("n1", map[string]string{"USER_ID": "jigasi@auth.new.example.com", "PASSWORD": "pw", "BREWERY": "b@internal.example.com", "SERVER_ADDRESS": "10.0.0.1",
		"BOSH_URL_PATTERN": "https://{host}/http-bind?room={roomName}", "MUC_DOMAIN_PREFIX": "muc"})
	b2 := b
	b2.id, b2.url = "n2", "xmpp://10.0.0.2:5222"
	c, err := over(files, []account{b, b2}, []string{"s1"})
	if err != nil {
		t.Fatal(err)
	}
	d := c.Deployment("new.example.com")
	if len(c.ShardsOf("new.example.com")) != 2 || d.MUC != "muc.new.example.com" || d.Balancer != "https://{host}/http-bind?room={roomName}" || c.Shard("s1") != nil {
		t.Errorf("%+v", d)
	}
}

func FuzzAccount(f *testing.F) {
	f.Add("acc-0", "jigasi@auth.meet.example.com", "pw", "JigasiBrewery@internal.auth.meet.example.com", "https://{host}{subdomain}/http-bind?room={roomName}", "10.0.0.7")
	f.Add("a]\n[[trunk]]", "a@b", "\"\x00'''", "x@y", "://%", "[::1]")
	path := filepath.Join(f.TempDir(), "brewline.toml")
	if err := os.WriteFile(path, []byte(twoDeployments+"[[trunk]]\nname='pbx'\nmatch=['192.0.2.1']\n"), 0o600); err != nil {
		f.Fatal(err)
	}
	files, err := config.Load(path)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, id, user, password, brewery, pattern, server string) {
		a, err := parseAccount(id, map[string]string{"USER_ID": user, "PASSWORD": password, "BREWERY": brewery, "BOSH_URL_PATTERN": pattern, "SERVER_ADDRESS": server})
		if err != nil {
			return
		}
		c, err := over(files, []account{a}, nil)
		if err != nil {
			return
		}
		// Whatever was accepted is one shard more, and nothing else.
		s := c.Shard(id)
		if s == nil || s.Password.Value() != password || len(c.Trunks) != 1 || len(c.Shards) > 2 || len(c.Deployments) > 3 {
			t.Errorf("%q became %+v", a, s)
		}
	})
}
