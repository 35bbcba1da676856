package config

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func names(c *Config) string {
	var out []string
	for _, d := range c.Deployments {
		out = append(out, d.Name+":")
		for _, s := range c.ShardsOf(d.Name) {
			out = append(out, s.Name)
		}
	}
	return strings.Join(out, " ")
}

const added = `
[[shard]]
name = "z"
deployment = "inner"
url = "https://z.example.org/http-bind"
username = "gw"
password = "env:HOME"
`

func TestOverlay(t *testing.T) {
	t.Setenv("BREWLINE_TEST_SECRET", "s3cret")
	path := write(t, map[string]string{
		"brewline.toml":   two + trunk + "shard = \"b\"\naddress = \"sip:pbx.example.org\"\n[[dial]]\nname='r'\npattern='1'\ntrunks=['pbx']\nshards=['a', 'b']\n",
		"shards.d/b.toml": "[[shard]]\nname='b'\ndeployment='public'\nurl='https://b.example.org/http-bind'\ndomain='b.example.org'\n",
	})
	c, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	same, err := c.With(Overlay{})
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(c, same, cmpopts.IgnoreUnexported(Config{}, DialRule{}), cmpopts.EquateComparable(c.Media.Bind, c.Trunks[0].Match[0])); d != "" {
		t.Errorf("nothing changes something:\n%s", d)
	}
	if !Diff(c, same).Empty() {
		t.Errorf("nothing changes %s", Diff(c, same))
	}
	next, err := c.With(Overlay{Without: []string{"a"}, Source: "HTTP", Tables: added + "[[deployment]]\nname='third'\ndomain='third.example'\n"})
	if err != nil {
		t.Fatal(err)
	}
	if got := names(next); got != "public: b inner: z third:" {
		t.Errorf("overlaid: %s", got)
	}
	if got := names(c); got != "public: a b inner:" {
		t.Errorf("the files: %s", got)
	}
	// What comes from elsewhere names no secrets of this machine.
	if z := next.Shard("z"); z.Password.Value() != "env:HOME" || z.Effective.MUC != "muc.inner.example" || z.Brewery == "" {
		t.Errorf("%+v with password %s", z, z.Password.Value())
	}
	if next.Shard("b").Effective.Domain != "b.example.org" || len(next.Files) != 2 {
		t.Errorf("shard b: %+v", next.Shard("b"))
	}
	// An overlay takes the place of another, and the names it leaves out may
	// be given again.
	if next, err = next.With(Overlay{Without: []string{"a", "b"}, Tables: strings.Replace(added, `"z"`, `"b"`, 1)}); err != nil || names(next) != "public: inner: b" {
		t.Errorf("%v, %v", next, err)
	}
	for tables, want := range map[string]string{
		strings.Replace(added, `"z"`, `"a"`, 1):                           `HTTP:3: shard[0].name: shard "a" stands already at ` + path,
		strings.Replace(added, "inner", "outer", 1):                       `HTTP:4: shard[0].deployment: no deployment is named "outer"`,
		"[[deployment]]\nname='inner'\ndomain='x.example'\n":              `HTTP:2: deployment[0].name: deployment "inner" stands already`,
		"[[deployment]]\nname='third'\ndomain='a b'\n":                    `HTTP:3: deployment[0].domain: "a b" is no domain`,
		"[[trunk]]\nname='x'\n":                                           "HTTP: trunk: does not belong",
		"[gateway]\nname='x'\n":                                           "HTTP:1: gateway: does not belong",
		"[[shard]]\nname='q'\n":                                           "HTTP:1: shard[0].url: is missing",
		"[[shard\n":                                                       "HTTP:1: ",
		strings.Replace(added, "https://z.example.org/http-bind", "z", 1): `HTTP:5: shard[0].url: "z" is no address`,
	} {
		_, err := c.With(Overlay{Source: "HTTP", Tables: tables})
		var p *Problems
		if !errors.As(err, &p) || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%s: %v, want %s", tables, err, want)
		}
	}
	if _, err := new(Config).With(Overlay{}); err == nil {
		t.Error("overlaid a configuration of no file")
	}
}

// Shards that name no deployment stay in the only one of the files when a
// further one comes.
func TestOverlayOfAnotherDeployment(t *testing.T) {
	t.Parallel()
	const url = "url='https://%.example.org/http-bind'\n"
	c := load(t, "[[deployment]]\nname='meet'\ndomain='meet.example.org'\n[[shard]]\nname='a'\n"+strings.Replace(url, "%", "a", 1)+
		"[[shard]]\nname='b'\n"+strings.Replace(url, "%", "b", 1)+trunk)
	next, err := c.With(Overlay{Tables: "[[deployment]]\nname='new'\ndomain='new.example'\n[[shard]]\nname='z'\ndeployment='new'\n" + strings.Replace(url, "%", "z", 1)})
	if err != nil {
		t.Fatal(err)
	}
	if got := names(next); got != "meet: a b new: z" || next.Shard("a").Effective.Domain != "meet.example.org" {
		t.Errorf("overlaid: %s, %+v", got, next.Shard("a"))
	}
}

// The one shard that needs no deployment gets company.
func TestOverlayOfASingleShard(t *testing.T) {
	t.Parallel()
	c := load(t, "[[shard]]\nname='meet'\ndomain='meet.example.org'\nurl='https://meet.example.org/http-bind'\nmuc='muc.meet.example.org'\n"+trunk)
	next, err := c.With(Overlay{Tables: "[[shard]]\nname='two'\ndeployment='meet'\nurl='https://two.example.org/http-bind'\n"})
	if err != nil || names(next) != "meet: meet two" || next.Shard("two").Effective.MUC != "muc.meet.example.org" {
		t.Errorf("%v, %v", next, err)
	}
	if next.Shard("meet").Effective.Domain != "meet.example.org" || next.Shard("meet").Deployment != "meet" {
		t.Errorf("%+v", next.Shard("meet"))
	}
	next, err = c.With(Overlay{Without: []string{"meet"}})
	if err != nil || names(next) != "meet:" {
		t.Errorf("%v, %v", next, err)
	}
	if next, err = next.With(Overlay{}); err != nil || names(next) != "meet: meet" {
		t.Errorf("%v, %v", next, err)
	}
}
