package jigasi

import (
	std "cmp"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/BurntSushi/toml"
	"github.com/google/go-cmp/cmp"

	"brewline/config"
)

var update = flag.Bool("update", false, "write the files that are compared")

func read(t testing.TB, names ...string) (files []File) {
	t.Helper()
	for _, name := range names {
		data, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, File{Name: name, Data: data})
	}
	return files
}

// lookup knows some names.
func lookup(host string) ([]netip.Addr, error) {
	switch host {
	case "pbx.example.org":
		return []netip.Addr{netip.MustParseAddr("192.0.2.11"), netip.MustParseAddr("::ffff:192.0.2.10")}, nil
	case "sip.example.com":
		return []netip.Addr{netip.MustParseAddr("2001:db8::10"), netip.MustParseAddr("198.51.100.10")}, nil
	}
	return nil, errors.New("no such host")
}

// load writes the result into a file and loads it.
func load(t testing.TB, r *Result) (*config.Config, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "brewline.toml")
	if err := os.WriteFile(path, r.TOML, 0o600); err != nil {
		t.Fatal(err)
	}
	return config.Load(path)
}

func golden(t *testing.T, file, got string) {
	t.Helper()
	file = filepath.Join("testdata", file)
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), got); d != "" {
		t.Errorf("%s (-want +got):\n%s", file, d)
	}
}

func notes(r *Result) string {
	var b strings.Builder
	for _, n := range r.Notes {
		fmt.Fprintf(&b, "%s: %s\n", n.Kind, n)
	}
	return b.String()
}

// TestImport compares whole results; each can be loaded, but for the one of a
// file that was never filled in.
func TestImport(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		files []string
		check func(t *testing.T, c *config.Config)
	}{
		{"apt", []string{"apt.config", "apt.properties"}, func(t *testing.T, c *config.Config) {
			s, l, tr := c.Shards[0], c.Deployments[0].Login, c.Trunks[0]
			if s.Password.Value() != "hunter2" || s.Username != "jigasi" || s.AuthDomain != "auth.meet.example.org" || s.TLS.Insecure ||
				l.Kind != config.LoginAccount || l.Password.Value() != `clear "and" text` || l.Username != "phones" {
				t.Errorf("logins: %+v with %q, %+v with %q", s, s.Password.Value(), l, l.Password.Value())
			}
			if strings.Join(tr.Register, " ") != "sip:198.51.100.5" || tr.Username != "conf" || tr.Password.Value() != `secret of "conf"` || strings.Join(tr.Codecs, " ") != "opus g722 pcma pcmu" || tr.Shard != "" {
				t.Errorf("trunk %+v", tr)
			}
			dials(t, c, "+4930123", "+4930123")
			dials(t, c, "alice@example.org", "alice@example.org")
		}},
		{"docker", []string{"docker.env"}, func(t *testing.T, c *config.Config) {
			if c.Trunks[0].Password.Value() != "a $ecret #1" || c.Shards[0].Password.Value() != "0123456789abcdef" || c.Gateway.StatsID != "jigasi-1" || c.Gateway.MaxCalls != 66 ||
				c.Deployments[0].Login.Kind != config.LoginGuest || c.Deployments[0].MUC != "muc.meet.jitsi" {
				t.Errorf("%+v", c)
			}
			if tr := c.Trunks[0]; tr.Address != "sip:pbx.example.org:5061;transport=tls" || strings.Join(tr.Register, " ") != tr.Address || !tr.TLS.Insecure || tr.SRTP != "required" || tr.SRTPKeys != "sdes" {
				t.Errorf("%+v", tr)
			}
			dials(t, c, "30123", "030123")
		}},
		{"docker-shards", []string{"docker-shards.env"}, func(t *testing.T, c *config.Config) {
			if len(c.Shards) != 3 || len(c.Deployments) != 1 || c.Shards[2].URL != "xmpp://10.1.2.3:5222" || c.Deployments[0].Login.Password.Value() != "same-everywhere" {
				t.Errorf("%+v", c.Shards)
			}
		}},
		{"breweries", []string{"breweries.properties"}, func(t *testing.T, c *config.Config) {
			d := c.Deployments[0]
			if len(c.Deployments) != 1 || len(c.Shards) != 3 || d.Login.Kind != config.LoginSharedSecret || d.Login.Password.Value() != `shared=secret\` ||
				d.Balancer != "https://front.example.com{subdomain}/http-bind?room={roomName}" || c.Gateway.AloneMax != c.Gateway.InviteTimeout {
				t.Errorf("%+v with %q", d, d.Login.Password.Value())
			}
			dials(t, c, "+4930123", "9$1+4930123")
		}},
		{"domains", []string{"domains.properties"}, func(t *testing.T, c *config.Config) {
			if len(c.Deployments) != 2 || c.Deployments[1].Focus != "jicofo.two.example" || c.Deployments[1].MUC != "conference.two.example" ||
				c.Deployments[1].Login.Kind != config.LoginAnonymous || c.Shards[1].Password.Value() != "two pass" || c.Trunks[0].Password.Value() != "päß" {
				t.Errorf("%+v", c)
			}
		}},
		{"dial-in", []string{"dial-in.properties"}, func(t *testing.T, c *config.Config) {
			if len(c.Dial) != 0 || c.Shards[0].Username != "" || c.Trunks[0].DefaultRoom != "Réunion" || c.HTTP.Listen != "" {
				t.Errorf("%+v", c)
			}
		}},
		{"unfinished", []string{"unfinished.properties"}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r, err := Import(read(t, tt.files...), Options{Secrets: true, Lookup: lookup})
			if err != nil {
				t.Fatal(err)
			}
			golden(t, tt.name+".toml", string(r.TOML))
			golden(t, tt.name+".notes", notes(r))
			c, err := load(t, r)
			if tt.check == nil {
				if err == nil {
					t.Error("what has to be filled in is not missed")
				}
				return
			}
			if err != nil {
				t.Fatalf("does not load: %v\n%s", err, r.TOML)
			}
			tt.check(t, c)
		})
	}
}

// TestTrunk: what the SIP account says becomes keys of the trunk.
func TestTrunk(t *testing.T) {
	t.Parallel()
	const acc = "net.java.sip.communicator.impl.protocol.sip.a."
	for name, tt := range map[string]struct {
		properties string // of the account; G: those of the stack
		want       config.Trunk
		note       string
	}{
		"registrar": {"USER_ID=u@pbx.example.org\nPASSWORD=cHc=\nG.REGISTRATION_EXPIRATION=600", config.Trunk{
			Address: "sip:pbx.example.org", Register: []string{"sip:pbx.example.org"}, Expires: config.Duration{Duration: 10 * time.Minute}, Username: "u"}, ""},
		"authorization name": {"USER_ID=u@pbx.example.org\nAUTHORIZATION_NAME=auth\nPASSWORD=cHc=", config.Trunk{
			Address: "sip:pbx.example.org", Register: []string{"sip:pbx.example.org"}, Username: "auth"}, ""},
		"proxy before a registrar": {"USER_ID=u@example.com\nPASSWORD=cHc=\nSERVER_ADDRESS=sip.example.com\nPROXY_ADDRESS=192.0.2.7\nPROXY_PORT=5070\nPREFERRED_TRANSPORT=TCP", config.Trunk{
			Address: "sip:sip.example.com;transport=tcp", Proxy: "sip:192.0.2.7:5070;transport=tcp", Register: []string{"sip:sip.example.com;transport=tcp"}, Username: "u",
			Match: []netip.Prefix{netip.MustParsePrefix("192.0.2.7/32")}}, ""},
		"proxy by itself": {"PROXY_ADDRESS=192.0.2.7", config.Trunk{
			Address: "sip:192.0.2.7", Match: []netip.Prefix{netip.MustParsePrefix("192.0.2.7/32")}}, ""},
		"no password": {"USER_ID=u@192.0.2.7", config.Trunk{
			Address: "sip:192.0.2.7", Match: []netip.Prefix{netip.MustParsePrefix("192.0.2.7/32")}}, "without user and password"},
		"no keep-alive": {"USER_ID=u@pbx.example.org\nPASSWORD=cHc=\nKEEP_ALIVE_METHOD=NONE", config.Trunk{
			Address: "sip:pbx.example.org", Register: []string{"sip:pbx.example.org"}, Username: "u", Probe: config.Duration{Duration: -1}}, ""},
		"digits by INFO": {"USER_ID=u@pbx.example.org\nPASSWORD=cHc=\nDTMF_METHOD=SIP_INFO_DTMF", config.Trunk{
			Address: "sip:pbx.example.org", Register: []string{"sip:pbx.example.org"}, Username: "u", DTMF: "info"}, ""},
		"digits as tones": {"USER_ID=u@pbx.example.org\nPASSWORD=cHc=\nDTMF_METHOD=INBAND_DTMF", config.Trunk{
			Address: "sip:pbx.example.org", Register: []string{"sip:pbx.example.org"}, Username: "u", DTMF: "inband"}, ""},
		"DTLS first": {"USER_ID=u@pbx.example.org\nPASSWORD=cHc=\nSAVP_OPTION=2\nENCRYPTION_PROTOCOL.DTLS-SRTP=0\nENCRYPTION_PROTOCOL.SDES=1\nENCRYPTION_PROTOCOL.ZRTP=2", config.Trunk{
			Address: "sip:pbx.example.org", Register: []string{"sip:pbx.example.org"}, Username: "u", SRTP: "optional", SRTPKeys: "dtls"}, ""},
		"DTLS off": {"USER_ID=u@pbx.example.org\nPASSWORD=cHc=\nSAVP_OPTION=1\nENCRYPTION_PROTOCOL.DTLS-SRTP=0\nENCRYPTION_PROTOCOL_STATUS.DTLS-SRTP=false\nENCRYPTION_PROTOCOL.SDES=1", config.Trunk{
			Address: "sip:pbx.example.org", Register: []string{"sip:pbx.example.org"}, Username: "u", SRTP: "required"}, ""},
		"ZRTP alone": {"USER_ID=u@pbx.example.org\nPASSWORD=cHc=\nSAVP_OPTION=1\nENCRYPTION_PROTOCOL.ZRTP=0", config.Trunk{
			Address: "sip:pbx.example.org", Register: []string{"sip:pbx.example.org"}, Username: "u", SRTP: "required"}, "ZRTP is not spoken"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			text := "net.java.sip.communicator.impl.protocol.sip.a=a\n"
			for line := range strings.SplitSeq(tt.properties, "\n") {
				if global, ok := strings.CutPrefix(line, "G."); ok {
					text += "net.java.sip.communicator.impl.protocol.sip." + global + "\n"
				} else {
					text += acc + line + "\n"
				}
			}
			text += "net.java.sip.communicator.impl.protocol.jabber.x=x\nnet.java.sip.communicator.impl.protocol.jabber.x.USER_ID=j@auth.meet.test\n" +
				"net.java.sip.communicator.impl.protocol.jabber.x.PASSWORD=cHc=\nnet.java.sip.communicator.impl.protocol.jabber.x.BREWERY=b@internal.auth.meet.test\n"
			r, err := Import([]File{{"sip-communicator.properties", []byte(text)}}, Options{Secrets: true, Lookup: lookup})
			if err != nil {
				t.Fatal(err)
			}
			c, err := load(t, r)
			if err != nil {
				t.Fatalf("%v\n%s", err, r.TOML)
			}
			got, want := c.Trunks[0], tt.want
			for _, d := range []struct {
				is  *config.Duration
				def time.Duration
			}{{&want.Expires, 5 * time.Minute}, {&want.Probe, 30 * time.Second}} {
				switch d.is.Duration {
				case 0:
					d.is.Duration = d.def
				case -1:
					d.is.Duration = 0
				}
			}
			want.DTMF, want.SRTP, want.SRTPKeys = std.Or(want.DTMF, "auto"), std.Or(want.SRTP, "off"), std.Or(want.SRTPKeys, "sdes")
			is := config.Trunk{Address: got.Address, Proxy: got.Proxy, Register: got.Register, Expires: got.Expires, Probe: got.Probe, Username: got.Username,
				Match: got.Match, DTMF: got.DTMF, SRTP: got.SRTP, SRTPKeys: got.SRTPKeys}
			if fmt.Sprintf("%+v", is) != fmt.Sprintf("%+v", want) {
				t.Errorf("got  %+v\nwant %+v", is, want)
			}
			if n := notes(r); !strings.Contains(n, tt.note) || strings.Contains(n, "is not known to the import") {
				t.Errorf("notes %s", n)
			}
			if len(c.Dial) != 1 || c.Dial[0].Redirects != 5 || !got.Transfer || !got.EarlyMedia {
				t.Errorf("rule %+v, trunk %+v", c.Dial, got)
			}
		})
	}
}

// dials checks what the only rule makes of a number.
func dials(t *testing.T, c *config.Config, number, want string) {
	t.Helper()
	if len(c.Dial) != 1 {
		t.Fatalf("%d rules", len(c.Dial))
	}
	r := &c.Dial[0]
	m := r.Regexp().FindStringSubmatchIndex(number)
	if m == nil || r.Deny || len(r.Shards) > 0 {
		t.Fatalf("%s is refused by %+v", number, r)
	}
	got := number
	if r.Number != "" {
		got = string(r.Regexp().ExpandString(nil, r.Number, number, m))
	}
	if got != want {
		t.Errorf("%s is dialled as %s, want %s", number, got, want)
	}
}

// TestEveryPropertyIsNamed: what is not in the result stands among the notes.
func TestEveryPropertyIsNamed(t *testing.T) {
	t.Parallel()
	text := "net.java.sip.communicator.impl.protocol.sip.acc1=acc1\nnet.java.sip.communicator.impl.protocol.sip.acc1.USER_ID=a@192.0.2.1\n"
	keys := []string{}
	for i, prefix := range []string{jigasi, perCall, stack, sipStack + "acc1.", jabber, jabber + "nobody.", "org.jitsi."} {
		key := fmt.Sprintf("%sNOT_KNOWN_%d", prefix, i)
		keys = append(keys, key)
		text += key + "=topsecret\n"
	}
	r, err := Import([]File{{"sip-communicator.properties", []byte(text)}}, Options{Secrets: true})
	if err != nil {
		t.Fatal(err)
	}
	for i, key := range keys {
		if want := fmt.Sprintf("not as before: sip-communicator.properties:%d: %s: ", i+3, key); !strings.Contains(notes(r), want) || !strings.Contains(string(r.TOML), "#     "+key+"\n") {
			t.Errorf("no word of %s in\n%s", want, notes(r))
		}
	}
	if strings.Contains(notes(r)+string(r.TOML), "topsecret") {
		t.Error("tells the value of an unknown property")
	}
}

func TestIncomplete(t *testing.T) {
	t.Parallel()
	const sip = sipStack + "a=a\n" + sipStack + "a.USER_ID=1@192.0.2.1\n"
	const brewery = jabber + "b=b\n" + jabber + "b.BREWERY=b@internal.auth.x.example\n"
	const prosody = jabber + "b.USER_ID=gw@auth.x.example\n" + jabber + "b.PASSWORD=eA==\n" + jabber + "b.SERVER_ADDRESS=10.0.0.1\n"
	for text, want := range map[string]string{
		sip:                   "fill in: no brewery account and no server",
		brewery:               "fill in: there is no SIP account",
		sip + brewery:         "fill in: f:4: " + jabber + "b.BREWERY: its XMPP domain is not known",
		sip + "x\n" + brewery: "fill in: f:5: " + jabber + "b.BREWERY: has no server",
		sipStack + "a=a\n" + sipStack + "a.USER_ID=1@pbx.example\n" + brewery + prosody:                                                                    "trunk.match: the addresses",
		sip + brewery + jabber + "b.DOMAIN_BASE=x.example\n":                                                                                               "b.BREWERY: has no USER_ID",
		sip + brewery + prosody + jabber + "b.PASSWORD=\u00e4\n":                                                                                           "b.PASSWORD: is no Base64",
		sip + brewery + prosody + jabber + "b.PASSWORD=\n":                                                                                                 "b.USER_ID: has no password",
		sip + brewery + prosody + perCall + "USER_ID=u@x.example\n" + perCall + "ANONYMOUS_AUTH=false\n":                                                   "acc.USER_ID: has no password",
		sipStack + "a=a\n" + sipStack + "a.USER_ID=1\n" + brewery + prosody:                                                                                "there is no [[dial]] rule",
		sip + brewery + prosody + jabber + "c=c\n" + jabber + "c.BREWERY=c@x\n" + strings.ReplaceAll(prosody, "b.", "c."):                                  "c.BREWERY: the account b leads to the same server",
		sip + brewery + prosody + jabber + "b.BOSH_URL={{x\n":                                                                                              "is a template",
		sip + brewery + prosody + jabber + "b.BOSH_URL=x\n":                                                                                                "b.BOSH_URL: is no address",
		sip + brewery + prosody + sipStack + "a.PREFERRED_TRANSPORT=SCTP\n":                                                                                "is no transport",
		sip + brewery + prosody + sipStack + "a.SERVER_ADDRESS=elsewhere.example\n" + sipStack + "a.PROXY_ADDRESS=192.0.2.9\n":                             "elsewhere.example has no address that could be found",
		sip + brewery + prosody + jigasi + "JVB_INVITE_TIMEOUT=soon\n":                                                                                     "is no number of milliseconds",
		sip + brewery + prosody + jigasi + "rest.port=http\n":                                                                                              "rest.port: is no port",
		sip + brewery + prosody + stack + "SIP_PREFERRED_CLEAR_PORT=0\n":                                                                                   "is no port",
		sip + brewery + prosody + sipStack + "PTIME_VALUE=25\n":                                                                                            "is no packet time",
		sip + brewery + prosody + jigasi + "ALLOWED_JID=b@internal.auth.x.example\n" + jabber + "d=d\n" + jabber + "d.BREWERY=d@internal.auth.y.example\n": "Jigasi dialled for this one brewery",
	} {
		r, err := Import([]File{{"f", []byte(text)}}, Options{Secrets: true})
		if err != nil {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s%v", text, err)
			}
			continue
		}
		if !strings.Contains(notes(r), want) {
			t.Errorf("%sno word of %s in\n%s", text, want, notes(r))
		}
		if _, err := load(t, r); (err != nil) != (r.Notes[0].Kind == Missing) {
			t.Errorf("%s%s\nloads with %v", text, notes(r), err)
		}
	}
}

// TestSecrets: without Secrets none is in the result, and never in a note.
func TestSecrets(t *testing.T) {
	for _, files := range [][]string{{"apt.config", "apt.properties"}, {"docker.env"}, {"docker-shards.env"}, {"breweries.properties"}, {"domains.properties"}} {
		in := read(t, files...)
		r, err := Import(in, Options{Lookup: lookup})
		if err != nil {
			t.Fatal(err)
		}
		with, err := Import(in, Options{Lookup: lookup, Secrets: true})
		if err != nil {
			t.Fatal(err)
		}
		for _, secret := range []string{"hunter2", `clear \"and`, "clear \"and", "secret of", "a $ecret", "0123456789abcdef", "same-everywhere", "s1p", "brewer\"", "shared=", "one pass", "two pass", "päß", "fedcba9876543210", "00112233"} {
			if strings.Contains(string(r.TOML), secret) || strings.Contains(notes(r)+notes(with), secret) {
				t.Errorf("%v: %q is told", files, secret)
			}
		}
		// The names that stand for them can be set, and then it loads.
		for _, m := range regexp.MustCompile(`"env:(\w+)"`).FindAllStringSubmatch(string(r.TOML), -1) {
			t.Setenv(m[1], "x")
		}
		if _, err := load(t, r); err != nil {
			t.Errorf("%v: %v", files, err)
		}
	}
}

// A secret that looks like a reference cannot be written as it is.
func TestSecretLikeReference(t *testing.T) {
	t.Parallel()
	im := &importer{o: Options{Secrets: true}, env: map[string]bool{}}
	for _, want := range []string{"env:BREWLINE_A_B_PASSWORD", "env:BREWLINE_A_B_PASSWORD_2"} {
		if got := im.secret("file:/etc/passwd", "a-b"); got != quote(want) {
			t.Errorf("%s, want %s", got, want)
		}
	}
}

func TestNotJigasi(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"":                                  "neither",
		"[gateway]\nname = 'x'\n":           "neither",
		"JVB_PORT=10000\n":                  "neither",
		"org.jitsi.jigasi.STATS_ID=\\uZZZZ": "f:1: value of org.jitsi.jigasi.STATS_ID: \\u is not followed",
		"{{ if .Env.X }}\norg.jitsi.x=1\n":  "is a template",
		"XMPP_SERVER=a::x,b::x\n":           "two servers with the id x",
		"JIGASI_MODE=sip\nJIGASI_CONFIGURATION=org.jitsi.x=\\uQQ": "JIGASI_CONFIGURATION: f:1",
		strings.Repeat("#", maxFile+1):                            "larger than",
	} {
		if _, err := Import([]File{{"f", []byte(text)}}, Options{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60q: %v, want %q", text, err, want)
		}
	}
	if _, err := Import(nil, Options{}); err == nil {
		t.Error("imported nothing")
	}
}

// Later files count, and a .env comes before all properties.
func TestSeveralFiles(t *testing.T) {
	t.Parallel()
	r, err := Import([]File{
		{"custom.properties", []byte(jigasi + "LOCAL_REGION=custom\n" + jigasi + "STATS_ID=first\n")},
		{"more.properties", []byte(jigasi + "STATS_ID=second\n")},
		{".env", []byte("JIGASI_MODE=sip\nJIGASI_LOCAL_REGION=env\n")},
	}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	var c struct{ Gateway config.Gateway }
	if _, err := toml.Decode(string(r.TOML), &c); err != nil || c.Gateway.Region != "custom" || c.Gateway.StatsID != "second" {
		t.Errorf("%+v, %v", c, err)
	}
}

// FuzzImport: whatever the files say, the result is TOML that the loader can
// judge, it tells nothing twice, and stays the same.
func FuzzImport(f *testing.F) {
	// Small ones: what is found is made smaller still, which takes long.
	for _, file := range read(f, "unfinished.properties", "dial-in.properties", "docker-shards.env") {
		f.Add(file.Data)
	}
	f.Add([]byte("XMPP_SERVER=a:1:x,b::y\nENABLE_AUTH=1\nJIGASI_SIP_URI=1@192.0.2.1\nJIGASI_CONFIGURATION=" + jigasi + "STATS_ID=$X"))
	f.Add([]byte(jabber + "b=b\n" + jabber + "b.BREWERY=b@x\n" + jabber + "b.USER_ID=u@auth.x\n" + jabber + "b.PASSWORD=eA==\n" + jabber + "b.BOSH_URL=http://x/y?room=z"))
	f.Fuzz(func(t *testing.T, data []byte) {
		o := Options{Secrets: true, Lookup: lookup}
		r, err := Import([]File{{"f", data}}, o)
		if err != nil {
			return
		}
		var out map[string]any
		if _, err := toml.Decode(string(r.TOML), &out); err != nil {
			t.Fatalf("%v in\n%s", err, r.TOML)
		}
		again, err := Import([]File{{"f", data}}, o)
		if err != nil || string(again.TOML) != string(r.TOML) {
			t.Errorf("another result: %v", err)
		}
		seen := map[Note]bool{}
		for _, n := range r.Notes {
			if seen[n] {
				t.Errorf("twice: %s", n)
			}
			seen[n] = true
			if strings.ContainsAny(n.String(), "\r\n\x1b") {
				t.Errorf("control characters: %q", n)
			}
		}
	})
}
