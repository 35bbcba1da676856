package nattest

import (
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestNAT(t *testing.T) {
	t.Parallel()
	n := New(Options{Public: netip.MustParseAddr("127.0.0.2"), Private: netip.MustParseAddr("10.77.0.2")})
	defer n.Close()
	s, err := n.Listen(0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := n.Listen(int(s.local.Port())); err == nil {
		t.Error("a port is taken twice")
	}
	outside := func() (*net.UDPConn, netip.AddrPort) {
		c, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		_ = c.SetDeadline(time.Now().Add(20 * time.Second))
		return c, c.LocalAddr().(*net.UDPAddr).AddrPort()
	}
	a, addrA := outside()
	b, addrB := outside()
	buf := make([]byte, 100)
	reach := func(c *net.UDPConn, to netip.AddrPort) netip.AddrPort {
		t.Helper()
		if _, err := s.WriteToUDPAddrPort([]byte("out"), to); err != nil {
			t.Fatal(err)
		}
		_, src, err := c.ReadFromUDPAddrPort(buf)
		if err != nil {
			t.Fatal(err)
		}
		if src != s.Public(to) || src.Addr() != n.o.Public {
			t.Errorf("comes from %v, not %v", src, s.Public(to))
		}
		return src
	}
	mapA, mapB := reach(a, addrA), reach(b, addrB)
	if mapA == mapB {
		t.Error("one port for two destinations")
	}
	if reach(a, addrA) != mapA {
		t.Error("the mapping does not stay")
	}
	// Only the destination itself gets in.
	for _, c := range []*net.UDPConn{b, a} {
		if _, err := c.WriteToUDPAddrPort([]byte("in"), mapA); err != nil {
			t.Fatal(err)
		}
	}
	if k, from, err := s.ReadFromUDPAddrPort(buf); err != nil || string(buf[:k]) != "in" || from != addrA {
		t.Errorf("%q from %v: %v", buf[:k], from, err)
	}
	if n.Barred() != 1 {
		t.Errorf("%d packets barred", n.Barred())
	}
	n.Rebind()
	if reach(a, addrA) == mapA {
		t.Error("the same port after rebinding")
	}
	_ = s.Close()
	if _, err := s.WriteToUDPAddrPort(buf, addrA); !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
	if _, _, err := s.ReadFromUDPAddrPort(buf); !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
}

func TestLoss(t *testing.T) {
	t.Parallel()
	n := New(Options{Loss: 0.2, Lossy: func(b []byte) bool { return b[0] == 's' }})
	l, lost, run := n.loss(1, 1), 0, 0
	for range 100000 {
		if n.drops(l, []byte("rtp")) {
			t.Fatal("lost what should not be")
		}
		if n.drops(l, []byte("sip")) {
			lost++
			run++
			if run > maxRun {
				t.Fatalf("%d in a row", run)
			}
		} else {
			run = 0
		}
	}
	if lost < 19000 || lost > 21000 || n.Lost() != uint64(lost) {
		t.Errorf("lost %d, counted %d", lost, n.Lost())
	}
}
