package check_test

import (
	"crypto/tls"
	"encoding/pem"
	"fmt"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"brewline/gateway/check"
	"brewline/internal/jitsitest"
	"brewline/sip"
)

// What is wrong between a trunk's certificates and ours is told, with what
// helps.
func TestTrunkCertificates(t *testing.T) {
	t.Parallel()
	web := httptest.NewTLSServer(nil) // for its certificate, of 127.0.0.1 and example.com
	defer web.Close()
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: web.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	peer := func(auth tls.ClientAuthType) string {
		u, err := sip.Listen(t.Context(), sip.Options{
			Listen: []sip.Listener{
				{Network: "tls", Address: "127.0.0.1:0", TLS: &tls.Config{Certificates: web.TLS.Certificates, ClientAuth: auth}},
			},
			OnInvite: func(d *sip.Dialog) { d.Reject(480, sip.Reason{}) },
			Match:    func(netip.AddrPort) (string, bool) { return "gateway", true },
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { u.Close() })
		return u.Addrs()[0].String()
	}
	open, mutual := peer(tls.NoClientCert), peer(tls.RequireAnyClientCert)
	sh := shard(t, jitsitest.ShardOptions{})
	text := shardTOML(sh, "")
	want := map[string]struct {
		status check.Status
		says   string
	}{}
	trunk := func(name, address, more string, status check.Status, says string) {
		text += fmt.Sprintf("[[trunk]]\nname = %q\nmatch = [\"192.0.2.%d\"]\naddress = \"sip:%s;transport=tls\"\ntls = { %s }\n", name, 10+len(want), address, more)
		want[name] = struct {
			status check.Status
			says   string
		}{status, says}
	}
	trunk("fine", open, fmt.Sprintf("ca = %q", ca), check.OK, "")
	trunk("insecure", open, "insecure = true", check.OK, "")
	trunk("authority", open, "", check.Fail, "as ca in tls")
	trunk("name", open, fmt.Sprintf("ca = %q, server_name = \"pbx.invalid\"", ca), check.Fail, `"127.0.0.1"`)
	trunk("mutual", mutual, fmt.Sprintf("ca = %q", ca), check.Fail, "sip.tls.certificate")
	trunk("nowhere", "nowhere.invalid:5061", "insecure = true", check.Fail, "")
	_, got := run(t, text)
	for name, w := range want {
		if r := got["trunk "+name+": OPTIONS"]; r.Status != w.status || !strings.Contains(r.Remedy, w.says) {
			t.Errorf("%s: %s", name, r)
		}
	}
}
