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
//	inside 10.77.0.2 ── 10.77.0.1 router 203.0.113.1 ── 203.0.113.10 outside
//
// The outside has no way to 10.77.0.0/24. The addresses are documentation's
// (RFC 5737) and exist in the namespaces alone.
const (
	insideAddr  = "10.77.0.2"
	routerIn    = "10.77.0.1"
	routerOut   = "203.0.113.1"
	outsideAddr = "203.0.113.10"
)

// envHosts tells the copy of the test that runs on the gateway's host who is
// behind the NAT, and the names of the other's host and of the router.
const envHosts = "BREWLINE_NATTEST_HOSTS"

// masquerade hides the inside; loss takes its share of SIP both ways.
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
// NAT between three hosts, if it lets us have them. First the phones are behind
// it, then the gateway is.
func TestNamespaces(t *testing.T) {
	t.Parallel()
	for _, behind := range []string{"phones", "gateway"} {
		t.Run(behind, func(t *testing.T) {
			t.Parallel()
			h := namespaces(t, behind)
			self, err := os.Executable()
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
			defer cancel()
			here, there := h.outside, h.inside
			if behind == "gateway" {
				here, there = there, here
			}
			args := []string{"netns", "exec", here, self, "-test.run=^TestOnGatewaysHost$", "-test.timeout=3m"}
			if testing.Verbose() {
				args = append(args, "-test.v")
			}
			cmd := exec.CommandContext(ctx, tool("ip"), args...)
			cmd.Env = append(os.Environ(), envHosts+"="+strings.Join([]string{behind, there, h.router}, " "))
			out, err := cmd.CombinedOutput()
			t.Logf("on the gateway's host:\n%s", out)
			if err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(string(out), "PASS") {
				t.Error("nothing was tested there")
			}
		})
	}
}

// TestOnGatewaysHost is what [TestNamespaces] runs there.
func TestOnGatewaysHost(t *testing.T) {
	names := strings.Fields(os.Getenv(envHosts))
	if len(names) != 3 {
		t.Skip("part of TestNamespaces")
	}
	behind, there, router := names[0], names[1], names[2]
	if behind == "gateway" {
		gatewayBehindNAT(t, kernel(t, insideAddr, outsideAddr, there, router, true))
		return
	}
	t.Run("phone behind NAT", func(t *testing.T) {
		phoneBehindNAT(t, kernel(t, outsideAddr, insideAddr, there, router, false))
	})
	t.Run("lossy signalling", func(t *testing.T) {
		p := kernel(t, outsideAddr, insideAddr, there, router, false)
		p.impair = func(sip netip.AddrPort) {
			run(t, "ip", "netns", "exec", router, tool("nft"), "add", "element", "ip", "loss", "sip", fmt.Sprintf("{ %d }", sip.Port()))
		}
		lossySignalling(t, p)
	})
}

type hosts struct{ inside, router, outside string }

// namespaces makes the hosts, or skips the test and says why.
func namespaces(t *testing.T, behind string) hosts {
	t.Helper()
	name := fmt.Sprintf("brewline-%d-%s-", os.Getpid(), behind)
	h := hosts{name + "inside", name + "router", name + "outside"}
	may := func(args ...string) {
		t.Helper()
		if out, err := exec.Command(tool(args[0]), args[1:]...).CombinedOutput(); err != nil {
			t.Skipf("no network namespaces here, user space has to do: %s: %v: %s", strings.Join(args, " "), err, out)
		}
	}
	for _, n := range []string{h.inside, h.router, h.outside} {
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
		{h.inside, insideAddr, "in", routerIn}, {h.outside, outsideAddr, "out", routerOut},
	} {
		may("ip", "-n", h.router, "link", "add", link.routerDev, "type", "veth", "peer", "name", "eth", "netns", link.host)
		may("ip", "-n", h.router, "address", "add", link.routerAddr+"/24", "dev", link.routerDev)
		may("ip", "-n", link.host, "address", "add", link.addr+"/24", "dev", "eth")
		may("ip", "-n", h.router, "link", "set", link.routerDev, "up")
		may("ip", "-n", link.host, "link", "set", "eth", "up")
	}
	may("ip", "-n", h.inside, "route", "add", "default", "via", routerIn)
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

// kernel is the path through the router from the gateway here to phones there.
func kernel(t *testing.T, here, thereAddr, there, router string, behind bool) *path {
	dropped := regexp.MustCompile(`counter packets (\d+)`)
	open := func(port int) (c *net.UDPConn, err error) {
		return c, on(there, func() error {
			c, err = net.ListenUDP("udp4", &net.UDPAddr{IP: net.ParseIP(thereAddr), Port: port})
			return err
		})
	}
	return &path{
		gateway: netip.MustParseAddr(here), public: netip.MustParseAddr(routerOut),
		listen: func(a *net.UDPAddr) (siptest.Socket, error) { return open(a.Port) },
		rebind: func() {
			t.Helper()
			ours, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.ParseIP(here)})
			if err != nil {
				t.Fatal(err)
			}
			defer ours.Close()
			theirs, err := open(0)
			if err != nil {
				t.Fatal(err)
			}
			defer theirs.Close()
			if behind {
				ours, theirs = theirs, ours
			}
			rebind(t, router, theirs, ours)
		},
		lost: func() uint64 {
			n := uint64(0)
			for _, m := range dropped.FindAllStringSubmatch(run(t, "ip", "netns", "exec", router, tool("nft"), "list", "table", "ip", "loss"), -1) {
				k, _ := strconv.ParseUint(m[1], 10, 64)
				n += k
			}
			return n
		},
	}
}

// rebind has the router forget its mappings, which it does when its outer
// interface goes down, and returns once a packet from the inside reaches the
// outside by another port.
func rebind(t *testing.T, router string, inside, outside *net.UDPConn) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	seen := func() netip.AddrPort {
		buf := make([]byte, 10)
		for time.Now().Before(deadline) {
			_, _ = inside.WriteToUDP([]byte("where"), outside.LocalAddr().(*net.UDPAddr)) // unreachable for a moment
			_ = outside.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
			if _, src, err := outside.ReadFromUDPAddrPort(buf); err == nil {
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
