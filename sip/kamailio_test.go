package sip_test

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	gosip "github.com/emiago/sipgo/sip"

	"brewline/internal/needtool"
	"brewline/internal/siptest"
	"brewline/sip"
)

// startKamailio runs Kamailio with a configuration, to which the address is
// added, and returns the address.
func startKamailio(t *testing.T, cfg string) (addr string) {
	t.Helper()
	program := needtool.Path(t, "kamailio")
	port := freePort(t)
	addr = "127.0.0.1:" + port
	dir := t.TempDir()
	file := filepath.Join(dir, "kamailio.cfg")
	if err := os.WriteFile(file, []byte(cfg+"\nlisten=udp:"+addr+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	cmd := exec.Command(program, "-f", file, "-DD", "-E", "-m", "16", "-M", "4", "-Y", dir, "-P", filepath.Join(dir, "pid"))
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		kill := time.AfterFunc(5*time.Second, func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) })
		_ = cmd.Wait()
		kill.Stop()
		if t.Failed() {
			t.Logf("kamailio said:\n%s", tail(out.String(), 60))
		}
	})
	await(t, "kamailio listens", func() bool { return listens(t, "udp", port) })
	return addr
}

func kamailioConfig(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// patient are timers for a peer that is a process.
func patient(o *sip.Options) {
	o.T1, o.T2, o.T4 = 200*time.Millisecond, 1600*time.Millisecond, 2*time.Second
}

// We register at Kamailio, stay registered beyond what a registration and a
// nonce last, get a call through it, and are gone at once when we want to be.
func TestKamailioRegistrar(t *testing.T) {
	t.Parallel()
	addr := startKamailio(t, kamailioConfig(t, "testdata/kamailio/registrar.cfg"))
	calls := make(chan *sip.Dialog, 8)
	e := newEcho(t)
	u := newUA(t, func(d *sip.Dialog) {
		calls <- d
		if _, err := e.answer(d, "pcmu"); err != nil {
			t.Errorf("answer: %v", err)
		}
	}, patient, func(o *sip.Options) {
		o.Match = func(a netip.AddrPort) (string, bool) { return "carrier", a.String() == addr }
	})
	o := func(o *sip.RegisterOptions) {
		o.User, o.Username, o.Password, o.Host, o.Route = "4930123", "4930123", "tulip", "carrier.test", "sip:"+addr
	}
	if err := u.FetchRegistration(testCtx(t), sip.RegisterOptions{
		Registrar: "sip:" + addr, User: "4930123", Username: "4930123", Password: "rose",
	}); err == nil || !strings.Contains(err.Error(), "401") {
		t.Errorf("with a wrong password: %v", err)
	}
	states, end := register(t, u, "sip:carrier.test", o)
	for i := range 3 { // the third needs another nonce
		if s := receive(t, "a registration", states); s.Err != nil || time.Until(s.Until) > 4*time.Second {
			t.Fatalf("%d: %+v", i, s)
		}
	}
	p := newPhone(t, func(o *siptest.PhoneOptions) { o.T1 = 500 * time.Millisecond })
	c, err := p.Call(testCtx(t), siptest.CallOptions{URI: "sip:4930123@" + addr, Headers: map[string]string{"X-Room-Name": "standup"}})
	if err != nil {
		t.Fatal(err)
	}
	d := <-calls
	if d.Trunk() != "carrier" || d.RequestUser() != "4930123" || d.Header("X-Room-Name") != "standup" || d.From().User != "phone" {
		t.Errorf("trunk %q, called %q, from %+v", d.Trunk(), d.RequestUser(), d.From())
	}
	await(t, "the call is answered", func() bool { return d.Bye(testCtx(t), sip.Reason{Cause: 16}) == nil })
	_ = c
	end()
	if _, err = p.Call(testCtx(t), siptest.CallOptions{URI: "sip:4930123@" + addr}); err == nil || !strings.Contains(err.Error(), "480") {
		t.Errorf("after the end: %v", err)
	}
}

// Our call goes through Kamailio, which wants a login and stays on the way of
// all that follows.
func TestKamailioProxy(t *testing.T) {
	t.Parallel()
	addr := startKamailio(t, kamailioConfig(t, "testdata/kamailio/proxy.cfg"))
	u := newUA(t, reject, patient, func(o *sip.Options) {
		o.Match = func(a netip.AddrPort) (string, bool) { return "carrier", a.String() == addr }
	})
	p := newPeer(t, u, "udp")
	p.to = mustUDP("127.0.0.1", netip.MustParseAddrPort(addr).Port())
	type result struct {
		d   *sip.Dialog
		err error
	}
	done := make(chan result, 1)
	go func() {
		d, _, err := u.Invite(testCtx(t), sip.InviteOptions{
			URI: "sip:030123@" + p.addr(), Route: "sip:" + addr, From: sip.Party{User: "gw"}, SDP: []byte(offerSDP),
			Username: "gw", Password: "tulip",
		})
		done <- result{d, err}
	}()
	invite := p.awaitRequest(gosip.INVITE)
	if value(invite, "X-Through") != "kamailio" || !strings.Contains(value(invite, "Record-Route"), addr) || len(invite.GetHeaders("Proxy-Authorization")) != 0 ||
		invite.Recipient.User != "030123" || len(invite.GetHeaders("Route")) != 0 {
		t.Errorf("unexpected:\n%s", invite)
	}
	invite.To().Params.Add("tag", "callee")
	p.reply(invite, 200, answerSDP, "Contact: <sip:callee@"+p.addr()+">")
	through := func(m gosip.RequestMethod) *gosip.Request {
		t.Helper()
		req := p.awaitRequest(m)
		if value(req, "X-Through") != "kamailio" || len(req.GetHeaders("Via")) != 2 {
			t.Errorf("%s did not come through:\n%s", m, req)
		}
		return req
	}
	through(gosip.ACK)
	r := <-done
	if r.err != nil {
		t.Fatal(r.err)
	}
	info := make(chan error, 1)
	go func() { info <- r.d.Info(testCtx(t), "application/dtmf-relay", []byte("Signal=1\r\n")) }()
	p.reply(through(gosip.INFO), 200, "")
	if err := receive(t, "the answer to INFO", info); err != nil {
		t.Error(err)
	}
	go func() { info <- r.d.Bye(testCtx(t), sip.Reason{Cause: 16}) }()
	p.reply(through(gosip.BYE), 200, "")
	if err := receive(t, "the answer to BYE", info); err != nil {
		t.Error(err)
	}
	_, _, err := u.Invite(testCtx(t), sip.InviteOptions{URI: "sip:030123@" + p.addr(), Route: "sip:" + addr, SDP: []byte(offerSDP), Username: "gw", Password: "rose"})
	if err == nil || !strings.Contains(err.Error(), "407") {
		t.Errorf("with a wrong password: %v", err)
	}
}

// Kamailio with deploy/kamailio.cfg shares calls out between two gateways, and
// leaves the one alone that says 503 to its OPTIONS until it says 200 again.
func TestKamailioDispatcher(t *testing.T) {
	t.Parallel()
	needtool.Path(t, "kamailio")
	var ready [2]atomic.Bool
	var taken [2]atomic.Int32
	var list strings.Builder
	for i := range ready {
		ready[i].Store(true)
		u := newUA(t, func(d *sip.Dialog) {
			taken[i].Add(1)
			_ = d.Reject(486, sip.Reason{Cause: 17})
		}, patient, func(o *sip.Options) {
			o.Ready = func() (bool, time.Duration) { return ready[i].Load(), 10 * time.Second }
		})
		fmt.Fprintf(&list, "1 sip:%s\n", u.Addrs()[0])
	}
	file := filepath.Join(t.TempDir(), "dispatcher.list")
	if err := os.WriteFile(file, []byte(list.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg := kamailioConfig(t, "../deploy/kamailio.cfg")
	for old, now := range map[string]string{
		"/etc/kamailio/dispatcher.list": file,
		`"ds_ping_interval", 10`:        `"ds_ping_interval", 1`,
		`#!KAMAILIO`:                    "#!KAMAILIO\nlog_stderror=yes\nchildren=1\ndisable_tcp=yes",
	} {
		if !strings.Contains(cfg, old) {
			t.Fatalf("deploy/kamailio.cfg has no %s", old)
		}
		cfg = strings.Replace(cfg, old, now, 1)
	}
	addr := startKamailio(t, cfg)
	p := newPhone(t, func(o *siptest.PhoneOptions) { o.T1 = 500 * time.Millisecond })
	ctx, cancel := context.WithTimeout(context.Background(), 40*time.Second)
	defer cancel()
	// calls makes so many calls and returns how many each gateway got.
	calls := func(n int) (got [2]int32) {
		before := [2]int32{taken[0].Load(), taken[1].Load()}
		for range n {
			if _, err := p.Call(ctx, siptest.CallOptions{URI: "sip:8001@" + addr}); err == nil || !strings.Contains(err.Error(), "486") && !strings.Contains(err.Error(), "503") {
				t.Fatalf("a call: %v", err)
			}
		}
		return [2]int32{taken[0].Load() - before[0], taken[1].Load() - before[1]}
	}
	until := func(what string, ok func([2]int32) bool) {
		t.Helper()
		for ctx.Err() == nil {
			if ok(calls(4)) {
				return
			}
		}
		t.Fatalf("never: %s", what)
	}
	both := func(got [2]int32) bool { return got[0] == 2 && got[1] == 2 }
	until("calls go to both", both)
	ready[0].Store(false)
	until("calls go to the second alone", func(got [2]int32) bool { return got[0] == 0 && got[1] == 4 })
	ready[0].Store(true)
	until("calls go to both again", both)
	ready[1].Store(false)
	until("calls go to the first alone", func(got [2]int32) bool { return got[0] == 4 })
}
