package check_test

import (
	"context"
	"encoding/pem"
	"fmt"
	"net"
	"net/http/httptest"
	"net/http/httputil"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"brewline/config"
	"brewline/gateway/check"
	"brewline/internal/jitsitest"
	"brewline/internal/jitsitest/jicofo"
	"brewline/internal/jitsitest/jvb"
	"brewline/sip"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func shard(t *testing.T, o jitsitest.ShardOptions) *jitsitest.Shard {
	t.Helper()
	sh, err := jitsitest.NewShard(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { sh.Close() })
	return sh
}

// run checks a configuration and returns the results by "subject: step".
func run(t *testing.T, text string) (bool, map[string]check.Result) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "brewline.toml")
	if err := os.WriteFile(path, []byte("[media]\nbind = \"127.0.0.1\"\n[sip]\nlisten = [\"udp://127.0.0.1:0\"]\n"+text), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, err := config.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	got := map[string]check.Result{}
	good := check.Run(ctx, cfg, check.Options{Timeout: 5 * time.Second}, func(r check.Result) {
		got[r.Subject+": "+r.Step] = r
		t.Log(r)
	})
	return good, got
}

func shardTOML(sh *jitsitest.Shard, more string) string {
	return fmt.Sprintf("[[trunk]]\nname = \"ipbx\"\nmatch = [\"192.0.2.1\"]\n[[shard]]\nname = \"one\"\nurl = %q\ndomain = %q\nheader_value = %q\n%s\n",
		sh.BOSHURL(), sh.Domain(), sh.Name, more)
}

func want(t *testing.T, got map[string]check.Result, step string, s check.Status, parts ...string) {
	t.Helper()
	r, ok := got["shard one: "+step]
	if !ok || r.Status != s {
		t.Errorf("%s is %q, want %q: %s", step, r.Status, s, r.Detail)
	}
	for _, p := range parts {
		if !strings.Contains(r.Detail+r.Remedy, p) {
			t.Errorf("%s does not say %q: %s", step, p, r)
		}
	}
}

func TestEverythingWorks(t *testing.T) {
	t.Parallel()
	o := jitsitest.ShardOptions{Name: "s1"}
	o.Jicofo.NoAutoOwner = true
	sh := shard(t, o)
	good, got := run(t, shardTOML(sh, ""))
	if !good {
		t.Error("the check failed")
	}
	want(t, got, "reachable", check.OK, `"s1"`)
	want(t, got, "control login", check.Skip)
	want(t, got, "call login", check.OK)
	want(t, got, "conference request", check.OK)
	want(t, got, "invitation", check.OK)
	want(t, got, "videobridge", check.OK, "ICE and DTLS")
	want(t, got, "moderator", check.OK)
	for _, r := range sh.XMPP.Rooms() {
		if n := len(sh.XMPP.Occupants(r.JID)); n > 1 { // Jicofo stays a while
			t.Errorf("%d occupants are left in the probe's room %s", n, r.JID)
		}
	}
}

func TestCallerWouldBeModerator(t *testing.T) {
	t.Parallel()
	sh := shard(t, jitsitest.ShardOptions{Name: "s1"})
	good, got := run(t, shardTOML(sh, ""))
	if !good {
		t.Error("a warning is no failure")
	}
	want(t, got, "moderator", check.Warn, "moderator", "jicofo.xmpp.trusted-domains", "virtual host")
}

func TestBroken(t *testing.T) {
	t.Parallel()
	gone, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone.Close()
	for _, tt := range []struct {
		name, step string
		status     check.Status
		parts      []string
		shard      func(sh *jitsitest.Shard) string
	}{
		{"nobody there", "reachable", check.Fail, []string{"refused", "firewall"}, func(sh *jitsitest.Shard) string {
			return strings.Replace(shardTOML(sh, ""), sh.BOSHURL(), "http://"+gone.Addr().String()+"/http-bind", 1)
		}},
		{"another shard", "reachable", check.Fail, []string{"s1", "header_value"}, func(sh *jitsitest.Shard) string {
			return strings.Replace(shardTOML(sh, ""), `"s1"`, `"s2"`, 1)
		}},
		{"not BOSH", "reachable", check.Fail, []string{"http-bind"}, func(sh *jitsitest.Shard) string {
			return strings.Replace(shardTOML(sh, ""), "/http-bind", "/nothing", 1)
		}},
		{"wrong domain", "call login", check.Fail, []string{"virtual host", "other.example"}, func(sh *jitsitest.Shard) string {
			return strings.Replace(shardTOML(sh, ""), sh.Domain(), "other.example", 1)
		}},
		{"wrong password", "control login", check.Fail, []string{"prosodyctl register"}, func(sh *jitsitest.Shard) string {
			return shardTOML(sh, "username = \"brewline\"\npassword = \"wrong\"")
		}},
		{"no such name", "reachable", check.Fail, []string{"name servers"}, func(sh *jitsitest.Shard) string {
			return strings.Replace(shardTOML(sh, ""), sh.BOSHURL(), "http://nowhere.invalid/http-bind", 1)
		}},
		{"no TLS there", "reachable", check.Fail, []string{"no TLS is spoken"}, func(sh *jitsitest.Shard) string {
			return strings.Replace(shardTOML(sh, ""), "http://", "https://", 1)
		}},
		{"not WebSocket", "call login", check.Fail, []string{"404", "/xmpp-websocket"}, func(sh *jitsitest.Shard) string {
			return strings.NewReplacer("http://", "ws://", "/http-bind", "/nothing").Replace(shardTOML(sh, ""))
		}},
		{"no focus", "conference request", check.Fail, []string{"Jicofo", "muc (conference.meet.example)"}, func(sh *jitsitest.Shard) string {
			sh.Focus.Kill()
			return shardTOML(sh, "")
		}},
		{"only hosts open rooms", "conference request", check.Warn, []string{"host"}, func(sh *jitsitest.Shard) string {
			sh.Focus.SetConferencePolicy(func(jicofo.ConferenceRequest) jicofo.Verdict {
				return jicofo.Verdict{Kind: jicofo.NotAuthorized}
			})
			return shardTOML(sh, "")
		}},
		{"no bridge", "invitation", check.Fail, []string{"videobridge"}, func(sh *jitsitest.Shard) string {
			sh.Bridges[0].Crash()
			return shardTOML(sh, "")
		}},
		{"no way to the bridge", "videobridge", check.Fail, []string{"10000/udp"}, func(sh *jitsitest.Shard) string {
			return "[media.conference]\nbind = \"::1\"\n" + shardTOML(sh, "") // the bridge has IPv4 alone
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			good, got := run(t, tt.shard(shard(t, jitsitest.ShardOptions{Name: "s1"})))
			if good == (tt.status == check.Fail) {
				t.Errorf("the verdict is %v", good)
			}
			want(t, got, tt.step, tt.status, tt.parts...)
		})
	}
}

// What is said of the shard's account, its brewery, and the Jicofo in it.
func TestBrewery(t *testing.T) {
	t.Parallel()
	const there = "jigasibrewery@internal.auth.meet.example"
	for _, tt := range []struct {
		name, jicofo, ours string
		status             check.Status
		parts              []string
	}{
		{"joined, and Jicofo is there", there, there, check.OK, nil},
		{"Jicofo is in another", "other@internal.auth.meet.example", there, check.Warn, []string{"jicofo.jigasi.brewery-jid"}},
		{"no such MUC", there, "jigasibrewery@nowhere.example", check.Fail, []string{"brewery-jid"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			o := jitsitest.ShardOptions{Name: "s1"}
			o.XMPP.Accounts = map[string]string{"brewline": "tulip"}
			o.Jicofo.Brewery = tt.jicofo
			good, got := run(t, shardTOML(shard(t, o), fmt.Sprintf("username = \"brewline\"\npassword = \"tulip\"\nbrewery = %q", tt.ours)))
			if good == (tt.status == check.Fail) {
				t.Errorf("the verdict is %v", good)
			}
			want(t, got, "control login", check.OK)
			want(t, got, "brewery", tt.status, tt.parts...)
		})
	}
}

// A certificate of nobody's is no way to a shard, until its authority is named.
func TestCertificate(t *testing.T) {
	t.Parallel()
	sh := shard(t, jitsitest.ShardOptions{Name: "s1"})
	u, err := url.Parse(sh.XMPP.HTTPURL())
	if err != nil {
		t.Fatal(err)
	}
	front := httptest.NewTLSServer(httputil.NewSingleHostReverseProxy(u))
	defer front.Close()
	authority := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(authority, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: front.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	text := strings.Replace(shardTOML(sh, ""), sh.XMPP.HTTPURL(), front.URL, 1)
	good, got := run(t, text)
	if good {
		t.Error("a certificate of nobody's passed")
	}
	want(t, got, "reachable", check.Fail, "as ca in tls")
	good, got = run(t, text+fmt.Sprintf("tls = {ca = %q, server_name = \"shard.example\"}\n", authority))
	if good {
		t.Error("a certificate for another name passed")
	}
	want(t, got, "reachable", check.Fail, `"127.0.0.1"`, "shard's url")
	good, got = run(t, text+fmt.Sprintf("tls = {ca = %q}\n", authority))
	if !good {
		t.Error("the check failed")
	}
	want(t, got, "reachable", check.OK, `"s1"`)
}

// A shard that has been started only now is slow at every step.
func TestSlowShard(t *testing.T) {
	t.Parallel()
	sh := shard(t, jitsitest.ShardOptions{Name: "s1", Jicofo: jicofo.Options{InviteDelay: 3 * time.Second}})
	late := jvb.Faults{Delay: 400 * time.Millisecond, Everything: true}
	sh.Bridges[0].SetFaults(late, late)
	if good, _ := run(t, shardTOML(sh, "")); !good {
		t.Error("the check failed")
	}
}

func TestTrunks(t *testing.T) {
	t.Parallel()
	peer, err := sip.Listen(t.Context(), sip.Options{
		Listen:   []sip.Listener{{Network: "udp", Address: "127.0.0.1:0"}},
		OnInvite: func(d *sip.Dialog) { d.Reject(480, sip.Reason{}) },
		Match:    func(netip.AddrPort) (string, bool) { return "gateway", true },
	})
	if err != nil {
		t.Fatal(err)
	}
	defer peer.Close()
	sh := shard(t, jitsitest.ShardOptions{Name: "s1"})
	trunk := func(name, address string) string {
		return fmt.Sprintf("[[trunk]]\nname = %q\nmatch = [\"192.0.2.%d\"]\naddress = %q\n", name, len(name)+1, address)
	}
	mute, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer mute.Close()
	good, got := run(t, shardTOML(sh, "")+trunk("there", "sip:"+peer.Addrs()[0].String())+
		trunk("silent", "sip:127.0.0.1:9;transport=tcp")+
		trunk("unasked", "sip:"+mute.LocalAddr().String())+"probe = \"0s\"\n")
	if good {
		t.Error("a silent trunk passed")
	}
	for name, status := range map[string]check.Status{"ipbx": check.Skip, "there": check.OK, "silent": check.Fail, "unasked": check.Warn} {
		if r := got["trunk "+name+": OPTIONS"]; r.Status != status {
			t.Errorf("trunk %s is %q: %s", name, r.Status, r.Detail)
		}
	}
}

// registrar answers every request with a status line.
func registrar(t *testing.T, status string) string {
	t.Helper()
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() { c.Close(); <-done })
	go func() {
		defer close(done)
		b := make([]byte, 4096)
		for {
			n, src, err := c.ReadFrom(b)
			if err != nil {
				return
			}
			res := "SIP/2.0 " + status + "\r\n"
			for line := range strings.SplitSeq(string(b[:n]), "\r\n") {
				name, _, _ := strings.Cut(line, ":")
				if slices.Contains([]string{"Via", "From", "To", "Call-ID", "CSeq"}, name) {
					res += line + "\r\n"
				}
			}
			_, _ = c.WriteTo([]byte(res+"Content-Length: 0\r\n\r\n"), src)
		}
	}()
	return "sip:" + c.LocalAddr().String()
}

func TestRegistrars(t *testing.T) {
	t.Parallel()
	sh := shard(t, jitsitest.ShardOptions{})
	text := shardTOML(sh, "")
	for name, status := range map[string]string{"fine": "200 OK", "wrong": "403 Forbidden", "unsaid": "405 Method Not Allowed"} {
		text += fmt.Sprintf("[[trunk]]\nname = %q\nregister = [%q]\nusername = \"gw\"\npassword = \"secret\"\n", name, registrar(t, status))
	}
	if good, got := run(t, text); good || got["trunk fine: REGISTER"].Status != check.OK || got["trunk wrong: REGISTER"].Status != check.Fail ||
		got["trunk unsaid: REGISTER"].Status != check.Warn || !strings.Contains(got["trunk wrong: REGISTER"].Remedy, "password") {
		t.Errorf("%+v", got)
	}
}
