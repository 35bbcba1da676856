package nattest

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"brewline/internal/siptest"
)

// expires is how long the carrier lets a registration last, in seconds.
const expires = 3

// carrier is a registrar and the phones of its other subscribers. It answers
// where packets come from, as carriers do: whatever is sent to the private
// address of a customer goes to where that was heard from.
type carrier struct {
	private netip.Addr // of the customer

	mu         sync.Mutex
	registered netip.AddrPort // where the customer is
	registers  int
}

// binding is where calls to the customer go.
func (c *carrier) binding() (netip.AddrPort, int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.registered, c.registers
}

// carrierSocket is one of the carrier's sockets.
type carrierSocket struct {
	siptest.Socket
	c *carrier

	mu   sync.Mutex
	from netip.AddrPort // of the last packet
}

func (s *carrierSocket) ReadFromUDPAddrPort(b []byte) (int, netip.AddrPort, error) {
	for {
		n, src, err := s.Socket.ReadFromUDPAddrPort(b)
		if err != nil {
			return n, src, err
		}
		src = netip.AddrPortFrom(src.Addr().Unmap(), src.Port())
		s.mu.Lock()
		s.from = src
		s.mu.Unlock()
		if !bytes.HasPrefix(b[:n], []byte("REGISTER ")) {
			return n, src, nil
		}
		_, _ = s.Socket.WriteToUDPAddrPort(s.c.register(string(b[:n]), src), src)
	}
}

func (s *carrierSocket) WriteToUDPAddrPort(b []byte, to netip.AddrPort) (int, error) {
	s.mu.Lock()
	if to.Addr().Unmap() == s.c.private && s.from.IsValid() {
		to = s.from
	}
	s.mu.Unlock()
	return s.Socket.WriteToUDPAddrPort(b, to)
}

// register accepts a REGISTER (RFC 3261 §10.3), and makes the response.
func (c *carrier) register(req string, src netip.AddrPort) []byte {
	c.mu.Lock()
	c.registered = src
	c.registers++
	c.mu.Unlock()
	var res strings.Builder
	res.WriteString("SIP/2.0 200 OK\r\n")
	for line := range strings.SplitSeq(req, "\r\n") {
		name, value, _ := strings.Cut(line, ":")
		switch strings.ToLower(name) {
		case "via":
			value = strings.Replace(value, ";rport", fmt.Sprintf(";rport=%d;received=%s", src.Port(), src.Addr()), 1)
			fmt.Fprintf(&res, "Via:%s\r\n", value)
		case "from", "call-id", "cseq":
			fmt.Fprintf(&res, "%s:%s\r\n", name, value)
		case "to":
			fmt.Fprintf(&res, "To:%s;tag=registrar\r\n", value)
		case "contact":
			fmt.Fprintf(&res, "Contact:%s;expires=%d\r\n", strings.Split(value, ";expires")[0], expires)
		}
	}
	fmt.Fprintf(&res, "Expires: %d\r\nContent-Length: 0\r\n\r\n", expires)
	return []byte(res.String())
}

// gatewayBehindNAT has a trunk register through a NAT. Calls come in by the
// registration, with audio both ways, also after the NAT gave it another port.
func gatewayBehindNAT(t *testing.T, p *path) {
	c := &carrier{private: p.gateway}
	phone, err := siptest.NewPhone(siptest.PhoneOptions{T1: t1, Listen: func(a *net.UDPAddr) (siptest.Socket, error) {
		s, err := p.listen(a)
		return &carrierSocket{Socket: s, c: c}, err
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { phone.Close() })
	registrar := netip.MustParseAddrPort(phone.Addr().String())
	if p.relay != nil {
		registrar = p.relay(registrar)
	}
	w := newWorld(t, p, fmt.Sprintf(`
[[trunk]]
name = "carrier"
register = ["sip:%s"]
username = "brewline"
password = "secret"
codecs = ["pcmu"]
default_room = "standup"
`, registrar))
	alice := w.browser("standup", 0)
	var at netip.AddrPort
	registered := func(but netip.AddrPort) {
		t.Helper()
		w.await("the trunk is registered", func() bool {
			var n int
			at, n = c.binding()
			return n > 0 && at != but
		})
	}
	registered(netip.AddrPort{})
	for range 2 {
		if at.Addr() != p.public {
			t.Errorf("registered from %v", at)
		}
		call, err := phone.Call(w.ctx, siptest.CallOptions{URI: fmt.Sprintf("sip:brewline@%s", at)})
		w.must(err)
		w.talk(alice, 440, call, 1000)
		w.must(call.Hold(w.ctx))
		w.must(call.Resume(w.ctx))
		w.talk(alice, 500, call, 1100)
		w.must(call.Hangup(w.ctx))
		w.gone()
		p.rebind()
		registered(at)
	}
}

// relayed is a NAT in user space between a gateway on this host and a carrier:
// SIP goes through it, audio past it.
func relayed(t *testing.T, loss float64) *path {
	n := New(Options{
		Public: netip.MustParseAddr("127.0.0.2"), Private: netip.MustParseAddr("10.77.0.2"),
		Loss: loss, Lossy: isSIP, Seed: 2,
	})
	t.Cleanup(n.Close)
	return &path{
		gateway: netip.MustParseAddr("127.0.0.1"), public: n.o.Public, rebind: n.Rebind, lost: n.Lost,
		listen: func(a *net.UDPAddr) (siptest.Socket, error) {
			return net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 3), Port: a.Port})
		},
		relay: func(to netip.AddrPort) netip.AddrPort {
			inside, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
			if err != nil {
				t.Fatal(err)
			}
			outside, err := n.Listen(0)
			if err != nil {
				t.Fatal(err)
			}
			var mu sync.Mutex
			var customer netip.AddrPort
			var wg sync.WaitGroup
			wg.Go(func() {
				buf := make([]byte, 1<<16)
				for {
					k, src, err := inside.ReadFromUDPAddrPort(buf)
					if err != nil {
						return
					}
					mu.Lock()
					customer = src
					mu.Unlock()
					_, _ = outside.WriteToUDPAddrPort(buf[:k], to)
				}
			})
			wg.Go(func() {
				buf := make([]byte, 1<<16)
				for {
					k, _, err := outside.ReadFromUDPAddrPort(buf)
					if err != nil {
						return
					}
					mu.Lock()
					dest := customer
					mu.Unlock()
					_, _ = inside.WriteToUDPAddrPort(buf[:k], dest)
				}
			})
			t.Cleanup(func() {
				_ = inside.Close()
				_ = outside.Close()
				wg.Wait()
			})
			return inside.LocalAddr().(*net.UDPAddr).AddrPort()
		},
	}
}

func TestGatewayBehindNAT(t *testing.T) {
	t.Parallel()
	gatewayBehindNAT(t, relayed(t, 0))
}

func TestLossyRegistration(t *testing.T) {
	t.Parallel()
	gatewayBehindNAT(t, relayed(t, 0.2))
}
