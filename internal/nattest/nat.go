package nattest

import (
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
)

// Options describe a [NAT].
type Options struct {
	Public  netip.Addr // of this host, such as 127.0.0.2
	Private netip.Addr // what the sockets behind it believe to have

	// Loss is the share of packets that get lost, in each direction, of those
	// that Lossy picks (nil: all). No more than maxRun in a row are, so that no
	// run of bad luck outlasts a protocol's timers.
	Loss  float64
	Lossy func(b []byte) bool
	Seed  uint64
}

// maxRun is the longest run of losses of one direction of a mapping.
const maxRun = 6

// queueLength bounds the packets that wait for a socket to read them.
const queueLength = 256

// NAT is a router that is mean: mapping and filtering are address- and
// port-dependent (RFC 4787 §4.1, §5), so each destination sees a port of its
// own and only that destination gets in, and the private addresses are nobody's.
type NAT struct {
	o                    Options
	lost, passed, barred atomic.Uint64

	mu     sync.Mutex
	closed bool
	next   int
	socks  map[*Socket]bool
}

// New returns a NAT without anybody behind it.
func New(o Options) *NAT { return &NAT{o: o, next: 40000, socks: map[*Socket]bool{}} }

// Socket is a UDP socket behind the NAT.
type Socket struct {
	n     *NAT
	local netip.AddrPort
	queue chan packet
	done  chan struct{}

	mu       sync.Mutex
	closed   bool
	mappings map[netip.AddrPort]*mapping
	wg       sync.WaitGroup
}

type packet struct {
	b    []byte
	from netip.AddrPort
}

// mapping is a public port for one destination.
type mapping struct {
	c       *net.UDPConn
	out, in *loss
}

// loss decides which packets of a direction get lost.
type loss struct {
	share float64
	rng   *rand.Rand
	run   int
}

func (l *loss) drops() bool {
	if l.rng.Float64() < l.share && l.run < maxRun {
		l.run++
		return true
	}
	l.run = 0
	return false
}

// Listen opens a socket behind the NAT. The port counts, 0 for any; the address
// is the private one.
func (n *NAT) Listen(port int) (*Socket, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return nil, net.ErrClosed
	}
	if port == 0 {
		n.next += 2
		port = n.next
	}
	for s := range n.socks {
		if int(s.local.Port()) == port {
			return nil, fmt.Errorf("nattest: port %d is taken", port)
		}
	}
	s := &Socket{n: n, local: netip.AddrPortFrom(n.o.Private, uint16(port)), queue: make(chan packet, queueLength),
		done: make(chan struct{}), mappings: map[netip.AddrPort]*mapping{}}
	n.socks[s] = true
	return s, nil
}

// Rebind forgets all mappings, as a router does that was restarted: the next
// packet of each socket comes from another port, and nothing gets in before.
func (n *NAT) Rebind() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for s := range n.socks {
		s.unmap()
	}
}

// Close closes every socket.
func (n *NAT) Close() {
	n.mu.Lock()
	n.closed = true
	var socks []*Socket
	for s := range n.socks {
		socks = append(socks, s)
	}
	n.mu.Unlock()
	for _, s := range socks {
		_ = s.Close()
	}
}

// Lost and Passed count packets by what became of them; Barred are those that
// came to a mapping from elsewhere than where it leads.
func (n *NAT) Lost() uint64   { return n.lost.Load() }
func (n *NAT) Passed() uint64 { return n.passed.Load() }
func (n *NAT) Barred() uint64 { return n.barred.Load() }

// LocalAddr is the private address.
func (s *Socket) LocalAddr() net.Addr { return net.UDPAddrFromAddrPort(s.local) }

// Public is where a destination sees the socket now; invalid: nowhere.
func (s *Socket) Public(dest netip.AddrPort) netip.AddrPort {
	s.mu.Lock()
	defer s.mu.Unlock()
	if m := s.mappings[dest]; m != nil {
		return m.c.LocalAddr().(*net.UDPAddr).AddrPort()
	}
	return netip.AddrPort{}
}

// WriteToUDPAddrPort sends through the mapping for a destination.
func (s *Socket) WriteToUDPAddrPort(b []byte, to netip.AddrPort) (int, error) {
	to = netip.AddrPortFrom(to.Addr().Unmap(), to.Port())
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return 0, net.ErrClosed
	}
	m := s.mappings[to]
	if m == nil {
		c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(s.n.o.Public, 0)))
		if err != nil {
			return 0, err
		}
		seed := s.n.o.Seed + uint64(s.local.Port())
		m = &mapping{c: c, out: s.n.loss(seed, 1), in: s.n.loss(seed, 2)}
		s.mappings[to] = m
		s.wg.Go(func() { s.read(m, to) })
	}
	if s.n.drops(m.out, b) {
		return len(b), nil
	}
	return m.c.WriteToUDPAddrPort(b, to)
}

func (n *NAT) loss(seed, direction uint64) *loss {
	return &loss{share: n.o.Loss, rng: rand.New(rand.NewPCG(seed, direction))}
}

func (n *NAT) drops(l *loss, b []byte) bool {
	if (n.o.Lossy == nil || n.o.Lossy(b)) && l.drops() {
		n.lost.Add(1)
		return true
	}
	n.passed.Add(1)
	return false
}

func (s *Socket) read(m *mapping, from netip.AddrPort) {
	buf := make([]byte, 1<<16)
	for {
		n, src, err := m.c.ReadFromUDPAddrPort(buf)
		if err != nil {
			return // closed
		}
		if netip.AddrPortFrom(src.Addr().Unmap(), src.Port()) != from {
			s.n.barred.Add(1)
			continue
		}
		if s.n.drops(m.in, buf[:n]) {
			continue
		}
		select {
		case s.queue <- packet{append([]byte(nil), buf[:n]...), from}:
		default: // as a full socket buffer
		}
	}
}

// ReadFromUDPAddrPort returns the next packet.
func (s *Socket) ReadFromUDPAddrPort(b []byte) (int, netip.AddrPort, error) {
	select {
	case p := <-s.queue:
		return copy(b, p.b), p.from, nil
	case <-s.done:
		return 0, netip.AddrPort{}, net.ErrClosed
	}
}

// unmap gives every mapping up.
func (s *Socket) unmap() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for to, m := range s.mappings {
		_ = m.c.Close()
		delete(s.mappings, to)
	}
}

// Close closes the socket.
func (s *Socket) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return net.ErrClosed
	}
	s.closed = true
	close(s.done)
	s.mu.Unlock()
	s.unmap()
	s.wg.Wait()
	s.n.mu.Lock()
	defer s.n.mu.Unlock()
	delete(s.n.socks, s)
	return nil
}
