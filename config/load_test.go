package config

import (
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

var update = flag.Bool("update", false, "write the files that are compared")

// write puts files into a folder and returns the path of brewline.toml there.
func write(t testing.TB, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return filepath.Join(dir, "brewline.toml")
}

func load(t testing.TB, text string) *Config {
	t.Helper()
	c, err := Load(write(t, map[string]string{"brewline.toml": text}))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

const trunk = `
[[trunk]]
name = "pbx"
match = ["192.0.2.10", "2001:db8::/32"]
`

func TestLeastConfiguration(t *testing.T) {
	t.Parallel()
	c := load(t, `
[[shard]]
name   = "meet"
domain = "meet.example.org"
url    = "https://meet.example.org/http-bind"
`+trunk)

	d := Deployment{
		Name: "meet", Domain: "meet.example.org", MUC: "conference.meet.example.org",
		MUCPrefixes: []string{"conference", "muc"}, Focus: "focus.meet.example.org", FocusNick: "focus",
		Login: Login{Kind: LoginAnonymous, Domain: "meet.example.org",
			JWT: JWT{Algorithm: "HS256", Audience: "jitsi", TTL: Duration{5 * time.Minute}}},
		ShardHeader: "X-Jitsi-Shard", Connections: 2,
	}
	ports := PortRange{20000, 29999}
	want := &Config{
		Gateway: Gateway{Name: "brewline", StatsID: "brewline", MaxCalls: 200,
			HostWait: Duration{time.Minute}, InviteTimeout: Duration{30 * time.Second},
			AloneAnswer: Duration{15 * time.Second}, AloneMax: Duration{10 * time.Minute},
			LobbyWait: Duration{10 * time.Minute}, EmptyGrace: Duration{5 * time.Second}, LocateTimeout: Duration{time.Second},
			DrainTimeout: Duration{time.Hour}, MaskNumbers: "last4"},
		Log:  Log{Level: "info", Format: "text"},
		HTTP: HTTP{Listen: "127.0.0.1:8788"},
		SIP: SIP{Listen: []string{"udp://0.0.0.0:5060", "tcp://0.0.0.0:5060"}, UnknownSource: "reject", UserAgent: "Brewline",
			Digest:   []string{"SHA-256", "MD5"},
			BanAfter: 20, BanTime: Duration{10 * time.Minute},
			Headers: Headers{
				Room:     []string{"Jitsi-Conference-Room", "X-Room-Name"},
				Password: []string{"Jitsi-Conference-Room-Pass", "X-Room-Pass"},
				Domain:   []string{"Jitsi-Conference-Domain-Base", "X-Domain-Base"},
				Tenant:   []string{"Jitsi-Conference-Domain-Tenant", "X-Domain-Tenant"},
				Token:    []string{"Jitsi-Auth-Token", "X-Auth-Token"},
				UserID:   []string{"Jitsi-User-ID-Token", "X-User-ID-Token"},
				Shard:    []string{"X-Shard"},
			}},
		Media: Media{Ports: ports, OpusComplexity: 5,
			Phone: MediaSide{Ports: ports}, Conference: MediaSide{Ports: ports}},
		Deployments: []Deployment{d},
		Shards: []Shard{{Name: "meet", Deployment: "meet", URL: "https://meet.example.org/http-bind",
			AuthDomain: "auth.meet.example.org", HeaderValue: "meet", Weight: 1, Effective: d}},
		Trunks: []Trunk{{Name: "pbx",
			Match:  []netip.Prefix{netip.MustParsePrefix("192.0.2.10/32"), netip.MustParsePrefix("2001:db8::/32")},
			Codecs: []string{"opus", "g722", "pcma", "pcmu"}, Ptime: Duration{20 * time.Millisecond},
			Probe: Duration{30 * time.Second}, DTMF: "auto", ComfortNoise: true, SRTP: "off", SRTPKeys: "sdes",
			Expires: Duration{5 * time.Minute}, SessionTimer: Duration{30 * time.Minute}, Reliable: "supported",
			DialTimeout: Duration{time.Minute}}},
	}
	if diff := cmp.Diff(want, c, cmpopts.IgnoreFields(Config{}, "Path", "Files"), cmpopts.IgnoreUnexported(Config{}),
		cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})); diff != "" {
		t.Errorf("defaults (-want +got):\n%s", diff)
	}
}

const two = `
[[deployment]]
name = "public"
domain = "meet.example.org"
tenants = ["acme"]
[deployment.login]
kind = "shared_secret"
domain = "calls.meet.example.org"
password = "one"

[[deployment]]
name = "inner"
domain = "inner.example"
muc = "muc.inner.example"

[[shard]]
name = "a"
deployment = "public"
url = "https://a.example.org/http-bind"
username = "gw"
password = "env:BREWLINE_TEST_SECRET"
dial_from = ["dialer@auth.meet.example.org/app", "jicofo.meet.example.org"]
`

func TestTwoDeploymentsAndFolder(t *testing.T) {
	t.Setenv("BREWLINE_TEST_SECRET", "s3cret")
	path := write(t, map[string]string{
		"brewline.toml": "gateway.region = \"eu\"\n" + two + trunk,
		"shards.d/b.toml": `
[[shard]]
name = "b"
deployment = "public"
url = "wss://b.example.org/xmpp-websocket"
domain = "b.example.org"
header_value = "shard-b"
region = "us"
[shard.login]
password = "file:b.secret"
`,
		"shards.d/b.secret": "two\n",
		"shards.d/c.toml":   "[[shard]]\nname='c'\ndeployment='inner'\nurl='xmpp://c.example.org:5222'\n",
		"shards.d/d.off":    "not read",
	})
	c, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Dir(path)
	if want := []string{path, dir + "/shards.d/b.toml", dir + "/shards.d/c.toml"}; !cmp.Equal(c.Files, want) {
		t.Errorf("files %v", c.Files)
	}
	a, b := c.Shard("a"), c.Shard("b")
	if a.Password.Value() != "s3cret" || a.Brewery != "jigasibrewery@internal.auth.meet.example.org" {
		t.Errorf("shard a: password %q brewery %q", a.Password.Value(), a.Brewery)
	}
	if a.Region != "eu" || b.Region != "us" || len(a.DialFrom) != 2 {
		t.Errorf("regions %q and %q, dial from %q", a.Region, b.Region, a.DialFrom)
	}
	// b's own domain moves what follows from it, and leaves the rest as the
	// deployment has it.
	e := b.Effective
	if e.Domain != "b.example.org" || e.MUC != "conference.b.example.org" || e.Focus != "focus.b.example.org" ||
		e.Login.Kind != LoginSharedSecret || e.Login.Domain != "calls.meet.example.org" || e.Login.Password.Value() != "two" ||
		e.Name != "public" || !cmp.Equal(e.Tenants, []string{"acme"}) {
		t.Errorf("shard b: %+v", e)
	}
	if p := c.Deployment("public").Login.Password.Value(); p != "one" {
		t.Errorf("an override of shard b changed the deployment: password %q", p)
	}
	if got := c.ShardsOf("public"); len(got) != 2 || got[0] != a || got[1] != b {
		t.Errorf("shards of public: %v", got)
	}
	if c.Shard("c").Effective.MUC != "muc.inner.example" || c.Shard("x") != nil || c.Deployment("x") != nil || c.Trunk("x") != nil {
		t.Error("look-up by name")
	}
}

func TestTrunkFor(t *testing.T) {
	t.Parallel()
	c := load(t, `
[[shard]]
name = "meet"
domain = "meet.example.org"
url = "https://meet.example.org/http-bind"
`+trunk)
	for src, want := range map[string]string{
		"192.0.2.10": "pbx", "::ffff:192.0.2.10": "pbx", "192.0.2.11": "", "2001:db8::1": "pbx", "2001:db9::1": "",
	} {
		got := ""
		if tr := c.TrunkFor(netip.MustParseAddr(src)); tr != nil {
			got = tr.Name
		}
		if got != want {
			t.Errorf("%s belongs to %q, want %q", src, got, want)
		}
	}
}

// TestProblems compares the problems of each testdata/bad/*.toml with the
// .want beside it.
func TestProblems(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/bad/*.toml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no test files: %v", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			t.Parallel()
			_, err := Load(file)
			var p *Problems
			if !errors.As(err, &p) {
				t.Fatalf("got %v, want problems", err)
			}
			got := err.Error() + "\n"
			for _, one := range p.All {
				if one.What == "" || one.Remedy == "" {
					t.Errorf("%s: without text or remedy", one)
				}
			}
			wantFile := strings.TrimSuffix(file, ".toml") + ".want"
			if *update {
				if err := os.WriteFile(wantFile, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(wantFile)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("problems (-want +got):\n%s", diff)
			}
		})
	}
}

func TestProblemsOfTheFolder(t *testing.T) {
	t.Parallel()
	path := write(t, map[string]string{
		"brewline.toml":   two + trunk,
		"shards.d/b.toml": "\n[[shard]]\nname='a'\ndeployment='public'\nurl='https://b.example.org/http-bind'\n[gateway]\nmax_calls=3\n",
		"shards.d/c.toml": "[[shard]]\nname='c'\nurl='https://c.example.org/http-bind'\n",
	})
	_, err := Load(path)
	if err == nil {
		t.Fatal("no problem found")
	}
	for _, want := range []string{
		fmt.Sprintf("%s:21: shard[0].password: environment variable BREWLINE_TEST_SECRET is not set", path),
		"b.toml:3: shard[0].name: shard \"a\" stands already at " + path + ":17",
		"b.toml:6: gateway: does not belong in shards.d",
		"c.toml:1: shard[0].deployment: is missing, and there are several: name one of public, inner",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("missing: %s\nin:\n%v", want, err)
		}
	}
}

func TestUnreadable(t *testing.T) {
	t.Parallel()
	_, err := Load(filepath.Join(t.TempDir(), "none.toml"))
	var p *Problems
	if !errors.As(err, &p) || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("got %v", err)
	}
	big := write(t, map[string]string{"brewline.toml": strings.Repeat("#", maxFile+1)})
	if _, err := Load(big); err == nil || !strings.Contains(err.Error(), "larger than") {
		t.Errorf("got %v", err)
	}
}

func TestFolderMayStandForShards(t *testing.T) {
	t.Parallel()
	path := write(t, map[string]string{"brewline.toml": trunk, "shards.d/readme": ""})
	if _, err := Load(path); err != nil {
		t.Error(err)
	}
}

// A folder that cannot be read is not one without shards, and what an editor
// puts into it is no shard.
func TestShardFiles(t *testing.T) {
	t.Parallel()
	const least = "[[shard]]\nname = 'meet'\ndomain = 'meet.example.org'\nurl = 'https://meet.example.org/http-bind'\n" + trunk
	path := write(t, map[string]string{"brewline.toml": least, "shards.d": "no folder"})
	if _, err := Load(path); err == nil || !strings.Contains(err.Error(), filepath.Join(filepath.Dir(path), "shards.d")+": cannot be listed: ") || !strings.Contains(err.Error(), "let the user of the service read") {
		t.Errorf("loads with %v", err)
	}
	path = write(t, map[string]string{"brewline.toml": least, "shards.d/a.toml": ""})
	if err := os.Symlink("somebody@host.42", filepath.Join(filepath.Dir(path), "shards.d", ".#a.toml")); err != nil {
		t.Fatal(err)
	}
	if c, err := Load(path); err != nil || len(c.Files) != 2 {
		t.Errorf("%v, %v", c, err)
	}
}

func TestSecretsDoNotShow(t *testing.T) {
	t.Parallel()
	c := load(t, `
[[shard]]
name = "meet"
domain = "meet.example.org"
url = "https://meet.example.org/http-bind"
username = "gw"
password = "hunter2"
`+trunk)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x"} {
		if got := fmt.Sprintf(verb, c.Shards[0].Password); strings.Contains(got, "hunter2") || strings.Contains(got, "68756e") {
			t.Errorf("%s shows %s", verb, got)
		}
		if got := fmt.Sprintf(verb, c); strings.Contains(got, "hunter2") {
			t.Errorf("%s of the configuration shows the password", verb)
		}
	}
}

// TestReferenceIsCurrent fails when docs/configuration.md is not what the
// structs say: run go generate ./config.
func TestReferenceIsCurrent(t *testing.T) {
	const file = "../docs/configuration.md"
	if *update {
		if err := os.WriteFile(file, Reference(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(Reference()), string(got)); diff != "" {
		t.Errorf("stale: run go generate ./config\n%s", diff)
	}
}

func FuzzLoad(f *testing.F) {
	f.Add(two + trunk)
	files, _ := filepath.Glob("testdata/bad/*.toml")
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(text))
	}
	f.Fuzz(func(t *testing.T, text string) {
		l := &loader{order: map[string]int{}}
		d := &document{file: "fuzz.toml"}
		if l.parse(d, text); len(l.problems) > 0 {
			return
		}
		c := l.build([]*document{d}, true)
		last := strings.Count(text, "\n") + 1
		for _, p := range l.problems {
			if p.Line < 0 || p.Line > last {
				t.Errorf("%s: line %d of %d", p, p.Line, last)
			}
			_ = p.String()
		}
		if ch := Diff(c, c); !ch.Empty() {
			t.Errorf("differs from itself: %+v", ch)
		}
	})
}

// TestEveryKeyIsDescribed walks the structs: each key has a line of
// documentation, and each field a key.
func TestEveryKeyIsDescribed(t *testing.T) {
	t.Parallel()
	var walk func(path string, typ reflect.Type)
	walk = func(path string, typ reflect.Type) {
		for i := range typ.NumField() {
			f := typ.Field(i)
			name, tagged := f.Tag.Lookup("toml")
			here := join(path, name)
			switch {
			case !tagged:
				t.Errorf("%s.%s has no key", path, f.Name)
			case name == "-":
				continue
			case f.Tag.Get("doc") == "":
				t.Errorf("%s has no documentation", here)
			}
			if e := f.Type; e.Kind() == reflect.Slice && isTable(e.Elem()) {
				walk(here, e.Elem())
			} else if isTable(e) {
				walk(here, e)
			}
		}
	}
	walk("", reflect.TypeFor[Config]())
}

func TestTrunkFrom(t *testing.T) {
	for _, tt := range []struct {
		trunk        Trunk
		user, domain string
	}{
		{Trunk{Username: "gw"}, "", ""},
		{Trunk{FromUser: "a", FromDomain: "b"}, "a", "b"},
		{Trunk{Username: "gw", Register: []string{"sip:one.example:5070;transport=tcp", "sip:two"}}, "gw", "one.example"},
		{Trunk{Username: "gw", FromUser: "4930", FromDomain: "b", Register: []string{"sip:one"}}, "4930", "b"},
		{Trunk{Username: "gw", Register: []string{"sip:[2001:db8::1]:5060"}}, "gw", "[2001:db8::1]"},
		{Trunk{Username: "gw", Register: []string{"sip:[2001:db8::1]"}}, "gw", "[2001:db8::1]"},
	} {
		if user, domain := tt.trunk.From(); user != tt.user || domain != tt.domain {
			t.Errorf("%+v: %q, %q", tt.trunk, user, domain)
		}
	}
}
