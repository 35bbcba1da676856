package gateway_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"brewline/gateway/trunk"
	"brewline/sip"
)

// trunkPeer is a peer that answers OPTIONS by 200 or 503, and calls by 486.
type trunkPeer struct {
	addr  string
	full  atomic.Bool
	calls atomic.Int32
}

func newTrunkPeer(t *testing.T) *trunkPeer {
	t.Helper()
	p := &trunkPeer{}
	u, err := sip.Listen(t.Context(), sip.Options{
		Listen: []sip.Listener{{Network: "udp", Address: "127.0.0.1:0"}},
		Match:  func(netip.AddrPort) (string, bool) { return "gateway", true },
		Ready:  func() (bool, time.Duration) { return !p.full.Load(), time.Second },
		OnInvite: func(d *sip.Dialog) {
			p.calls.Add(1)
			_ = d.Reject(486, sip.Reason{Cause: 17})
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = u.Close() })
	p.addr = u.Addrs()[0].String()
	return p
}

func (w *world) trunkState(name string) trunk.State {
	for _, s := range w.gw.Snapshot().Trunks {
		if s.Trunk == name {
			return s.State
		}
	}
	return "gone"
}

func (w *world) health() (int, string) {
	w.t.Helper()
	res, err := http.Get("http://" + w.gw.HTTPAddr() + "/about/health")
	if err != nil {
		w.t.Fatal(err)
	}
	defer res.Body.Close()
	b, _ := io.ReadAll(res.Body)
	return res.StatusCode, string(b)
}

// A trunk that is down is not dialled, and is no reason to tell a brewery that
// something could be; it counts again at its first answer.
func TestTrunkDown(t *testing.T) {
	t.Parallel()
	first, second := newTrunkPeer(t), newTrunkPeer(t)
	o := worldOptions{shards: 1, brewery: true, options: quick()}
	o.options.Trunks = trunk.Options{ProbeAgain: 10 * time.Millisecond, ProbeDown: 10 * time.Millisecond}
	o.trunk = fmt.Sprintf("address = \"sip:%s\"\nprobe = \"20ms\"\n", first.addr)
	extra := fmt.Sprintf("[[trunk]]\nname = \"second\"\naddress = \"sip:%s\"\nprobe = \"20ms\"\n", second.addr)
	const rule = "[[dial]]\nname = \"all\"\npattern = '\\d+'\ntrunks = [\"ipbx\", \"second\"]\n"
	o.more = extra + rule
	w := newWorld(t, o)
	sh := w.deps[0].Shards[0]
	dials := func() bool {
		gs := sh.Focus.Gateways()
		return len(gs) == 1 && gs[0].Stats["supports_sip"] == "true"
	}
	state := func(name string, want trunk.State) {
		t.Helper()
		w.await(name+" is "+string(want), func() bool { return w.trunkState(name) == want })
	}
	state("ipbx", trunk.Reachable)
	state("second", trunk.Reachable)
	w.await("the brewery is told that we dial", dials)
	first.full.Store(true)
	state("ipbx", trunk.Unreachable)
	b := w.browser(sh, "team", 0)
	w.refNick(w.ask(b, sh, "team", "100"))
	w.await("the other trunk's phone is called", func() bool { return second.calls.Load() == 1 })
	if n := first.calls.Load(); n != 0 || !dials() {
		t.Errorf("the trunk that is down got %d calls", n)
	}
	if code, body := w.health(); code != 200 {
		t.Errorf("health %d %s", code, body)
	}
	second.full.Store(true)
	state("second", trunk.Unreachable)
	w.await("the brewery is told that we do not", func() bool { return !dials() })
	if code, body := w.health(); code != 503 || !strings.Contains(body, "no trunk works: ipbx: 503") {
		t.Errorf("health %d %s", code, body)
	}
	first.full.Store(false)
	w.await("the brewery is told that we dial again", dials)
	w.o.more = strings.Replace(rule, `, "second"`, "", 1)
	w.write("")
	w.reload()
	if got := w.trunkState("second"); got != "gone" || w.trunkState("ipbx") != trunk.Reachable {
		t.Errorf("after the reload: %+v", w.gw.Snapshot().Trunks)
	}
}

// Strangers are challenged where a trunk lets somebody in by digest, and are
// not listened to when they have been in vain too often.
func TestStrangers(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{
		shards: 1, options: quick(), sip: "ban_after = 5",
		more: "[[trunk]]\nname = \"roaming\"\naccept_username = \"alice\"\naccept_password = \"secret\"\n",
	})
	d := net.Dialer{LocalAddr: &net.UDPAddr{IP: net.IPv4(127, 0, 0, 5)}}
	c, err := d.DialContext(context.Background(), "udp", w.gw.SIPAddrs()[0].String())
	if err != nil {
		t.Skipf("no 127.0.0.5 here: %v", err)
	}
	defer c.Close()
	ask := func(i int) string {
		fmt.Fprintf(c, "REGISTER sip:127.0.0.1 SIP/2.0\r\nVia: SIP/2.0/UDP %s;branch=z9hG4bK%d;rport\r\nFrom: <sip:a@b>;tag=1\r\nTo: <sip:a@b>\r\n"+
			"Call-ID: %d\r\nCSeq: 1 REGISTER\r\nMax-Forwards: 70\r\nContact: <sip:a@c>\r\nContent-Length: 0\r\n\r\n", c.LocalAddr(), i, i)
		buf := make([]byte, 4096)
		_ = c.SetReadDeadline(time.Now().Add(30 * time.Second))
		n, err := c.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		return string(buf[:n])
	}
	for i := range 5 {
		if res := ask(i); !strings.HasPrefix(res, "SIP/2.0 401 ") || !strings.Contains(res, "SHA-256") || !strings.Contains(res, "MD5") {
			t.Fatalf("%d: %s", i, res)
		}
	}
	w.await("the ban", func() bool { return w.gw.Snapshot().SIP.BannedAddresses == 1 })
	fmt.Fprintf(c, "REGISTER sip:127.0.0.1 SIP/2.0\r\n\r\n")
	w.await("it is not listened to", func() bool { return w.gw.Snapshot().SIP.Banned > 0 })
}
