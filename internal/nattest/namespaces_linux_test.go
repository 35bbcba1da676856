package nattest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"brewline/internal/siptest"
)

// Three hosts of which the middle one hides the first from the last:
//
//	phone 10.77.0.2 ── 10.77.0.1 router 203.0.113.1 ── 203.0.113.10 gateway
//
// The gateway has no way to 10.77.0.0/24. The addresses are documentation's
// (RFC 5737) and exist in the namespaces alone.
const (
	phoneAddr   = "10.77.0.2"
	routerIn    = "10.77.0.1"
	routerOut   = "203.0.113.1"
	gatewayAddr = "203.0.113.10"
)

// envHosts tells the copy of the test that runs on the gateway's host the names
// of the phone's and the router's.
const envHosts = "BREWLINE_NATTEST_HOSTS"

// masquerade hides the phones; loss takes its share of SIP both ways.
const masquerade = `
table ip nat {
	chain post {
		type nat hook postrouting priority srcnat; policy accept;
		oifname "out" masquerade random
	}
}
table ip loss {
	set sip {
		type inet_service
	}
	chain forward {
		type filter hook forward priority filter; policy accept;
		udp dport @sip numgen random mod 100 < 20 counter drop
		udp sport @sip numgen random mod 100 < 20 counter drop
	}
}
`

// TestNamespaces does the same as the tests in user space with the kernel's
// NAT between three hosts, if it lets us have them.
func TestNamespaces(t *testing.T) {
	t.Parallel()
	hosts := namespaces(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	args := []string{"netns", "exec", hosts.gateway, self, "-test.run=^TestOnGatewaysHost$", "-test.timeout=3m"}
	if testing.Verbose() {
		args = append(args, "-test.v")
	}
	cmd := exec.CommandContext(ctx, tool("ip"), args...)
	cmd.Env = append(os.Environ(), envHosts+"="+hosts.phone+" "+hosts.router)
	out, err := cmd.CombinedOutput()
	t.Logf("on the gateway's host:\n%s", out)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(out), "PASS") {
		t.Error("nothing was tested there")
	}
}

// TestOnGatewaysHost is what [TestNamespaces] runs there.
func TestOnGatewaysHost(t *testing.T) {
	phone, router, ok := strings.Cut(os.Getenv(envHosts), " ")
	if !ok {
		t.Skip("part of TestNamespaces")
	}
	t.Run("phone behind NAT", func(t *testing.T) { phoneBehindNAT(t, kernel(t, phone, router)) })
	t.Run("lossy signalling", func(t *testing.T) {
		p := kernel(t, phone, router)
		p.impair = func(sip netip.AddrPort) {
			run(t, "ip", "netns", "exec", router, "nft", "add", "element", "ip", "loss", "sip", fmt.Sprintf("{ %d }", sip.Port()))
		}
		lossySignalling(t, p)
	})
}

type hosts struct{ phone, router, gateway string }

// namespaces makes the hosts, or skips the test and says why.
func namespaces(t *testing.T) hosts {
	t.Helper()
	name := fmt.Sprintf("brewline-%d-", os.Getpid())
	h := hosts{name + "phone", name + "router", name + "gateway"}
	may := func(args ...string) {
		t.Helper()
		if out, err := exec.Command(tool(args[0]), args[1:]...).CombinedOutput(); err != nil {
			t.Skipf("no network namespaces here, user space has to do: %s: %v: %s", strings.Join(args, " "), err, out)
		}
	}
	for _, n := range []string{h.phone, h.router, h.gateway} {
		may("ip", "netns", "add", n)
		t.Cleanup(func() { run(t, "ip", "netns", "del", n) })
		may("ip", "-n", n, "link", "set", "lo", "up")
	}
	file := filepath.Join(t.TempDir(), "rules.nft")
	if err := os.WriteFile(file, []byte(masquerade), 0o600); err != nil {
		t.Fatal(err)
	}
	may("ip", "netns", "exec", h.router, tool("nft"), "-f", file)
	may("ip", "netns", "exec", h.router, "sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
	for _, link := range []struct{ host, addr, routerDev, routerAddr string }{
		{h.phone, phoneAddr, "in", routerIn}, {h.gateway, gatewayAddr, "out", routerOut},
	} {
		may("ip", "-n", h.router, "link", "add", link.routerDev, "type", "veth", "peer", "name", "eth", "netns", link.host)
		may("ip", "-n", h.router, "address", "add", link.routerAddr+"/24", "dev", link.routerDev)
		may("ip", "-n", link.host, "address", "add", link.addr+"/24", "dev", "eth")
		may("ip", "-n", h.router, "link", "set", link.routerDev, "up")
		may("ip", "-n", link.host, "link", "set", "eth", "up")
	}
	may("ip", "-n", h.phone, "route", "add", "default", "via", routerIn)
	return h
}

func tool(name string) string {
	for _, dir := range []string{"/usr/sbin/", "/sbin/"} {
		if p, err := exec.LookPath(dir + name); err == nil {
			return p
		}
	}
	return name
}

func run(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.Command(tool(args[0]), args[1:]...).CombinedOutput()
	if err != nil {
		t.Errorf("%s: %v: %s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// kernel is the path through the router.
func kernel(t *testing.T, phone, router string) *path {
	nft := tool("nft")
	dropped := regexp.MustCompile(`counter packets (\d+)`)
	return &path{
		gateway: netip.MustParseAddr(gatewayAddr), public: netip.MustParseAddr(routerOut),
		listen: func(a *net.UDPAddr) (s siptest.Socket, err error) {
			return s, on(phone, func() error {
				s, err = net.ListenUDP("udp4", &net.UDPAddr{IP: net.ParseIP(phoneAddr), Port: a.Port})
				return err
			})
		},
		rebind: func() { rebind(t, phone, router) },
		lost: func() uint64 {
			n := uint64(0)
			for _, m := range dropped.FindAllStringSubmatch(run(t, "ip", "netns", "exec", router, nft, "list", "table", "ip", "loss"), -1) {
				k, _ := strconv.ParseUint(m[1], 10, 64)
				n += k
			}
			return n
		},
	}
}

// rebind has the router forget its mappings, which it does when its outer
// interface goes down, and returns once a packet comes by another port.
func rebind(t *testing.T, phone, router string) {
	t.Helper()
	ear, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.ParseIP(gatewayAddr)})
	if err != nil {
		t.Fatal(err)
	}
	defer ear.Close()
	var probe *net.UDPConn
	if err := on(phone, func() (err error) {
		probe, err = net.ListenUDP("udp4", &net.UDPAddr{IP: net.ParseIP(phoneAddr)})
		return err
	}); err != nil {
		t.Fatal(err)
	}
	defer probe.Close()
	deadline := time.Now().Add(30 * time.Second)
	seen := func() netip.AddrPort {
		buf := make([]byte, 10)
		for time.Now().Before(deadline) {
			_, _ = probe.WriteToUDP([]byte("where"), ear.LocalAddr().(*net.UDPAddr)) // unreachable for a moment
			_ = ear.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
			if _, src, err := ear.ReadFromUDPAddrPort(buf); err == nil {
				return src
			}
		}
		t.Fatal("nothing comes through the router")
		return netip.AddrPort{}
	}
	before := seen()
	run(t, "ip", "-n", router, "link", "set", "out", "down")
	run(t, "ip", "-n", router, "link", "set", "out", "up")
	for seen() == before {
	}
}

// on runs f on a host: sockets that it opens stay there.
func on(namespace string, f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		fd, err := os.Open("/run/netns/" + namespace)
		if err == nil {
			defer fd.Close()
			err = unix.Setns(int(fd.Fd()), unix.CLONE_NEWNET)
		}
		done <- errors.Join(err, func() error {
			if err != nil {
				return nil
			}
			return f()
		}())
	}()
	return <-done
}
