package transport

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"
)

// ErrNoPorts says that every port of the range is in use, draining or taken
// by another process.
var ErrNoPorts = errors.New("transport: no free port")

// Ports hands out the UDP ports of a range in random order and is safe for
// concurrent use. A nil *Ports leaves the choice to the operating system.
type Ports struct {
	min, max int
	drain    time.Duration
	now      func() time.Time

	mu    sync.Mutex
	open  map[int]bool
	until map[int]time.Time // closed ports: when they may be used again
	sweep int               // length of until at which those that may be are forgotten
}

// NewPorts returns an allocator of the ports min to max, both included. A port
// that is given back is not used again for drain, so that late packets of one
// call are not heard in another. With min and max 0 the operating system
// chooses.
func NewPorts(min, max int, drain time.Duration) *Ports {
	return &Ports{
		min: min, max: max, drain: drain, now: time.Now,
		open: make(map[int]bool), until: make(map[int]time.Time),
	}
}

// InUse returns how many ports are open now.
func (p *Ports) InUse() int {
	if p == nil {
		return 0
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.open)
}

// listen opens a socket on a free port of addr, the zero Addr meaning all
// addresses of both families.
func (p *Ports) listen(addr netip.Addr) (*socket, error) {
	if p == nil {
		return open(nil, addr, 0)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.max == 0 {
		return p.take(addr, 0)
	}
	for port := range p.candidates(1) {
		s, err := p.take(addr, port)
		if !errors.Is(err, errTaken) {
			return s, err
		}
	}
	return nil, ErrNoPorts
}

// listenPair opens an even port for RTP and the next one for RTCP (RFC 3550
// §11).
func (p *Ports) listenPair(addr netip.Addr) (rtp, rtcp *socket, err error) {
	if p == nil {
		p = NewPorts(0, 0, 0)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.max == 0 {
		return p.anyPair(addr)
	}
	for port := range p.candidates(2) {
		rtp, rtcp, err = p.takePair(addr, port)
		if !errors.Is(err, errTaken) {
			return rtp, rtcp, err
		}
	}
	return nil, nil, ErrNoPorts
}

// anyPair finds a pair among ports that the operating system chooses.
func (p *Ports) anyPair(addr netip.Addr) (rtp, rtcp *socket, err error) {
	for range 100 {
		probe, err := open(nil, addr, 0)
		if err != nil {
			return nil, nil, err
		}
		port := probe.port &^ 1
		probe.Close()
		rtp, rtcp, err = p.takePair(addr, port)
		if !errors.Is(err, errTaken) {
			return rtp, rtcp, err
		}
	}
	return nil, nil, ErrNoPorts
}

// candidates yields every port of the range once, in steps of step and random
// order; the first is even if step is.
func (p *Ports) candidates(step int) func(func(int) bool) {
	first := p.min + p.min%step
	n := (p.max - first + 1) / step
	return func(yield func(int) bool) {
		if n <= 0 {
			return
		}
		stride := 1 + rand.IntN(n)
		for gcd(stride, n) != 1 {
			stride = stride%n + 1
		}
		for i, at := 0, rand.IntN(n); i < n; i, at = i+1, (at+stride)%n {
			if !yield(first + at*step) {
				return
			}
		}
	}
}

func gcd(a, b int) int {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

var errTaken = errors.New("port taken")

// take opens one port, 0 meaning any. It returns errTaken if the port is not
// free. Call with mu held.
func (p *Ports) take(addr netip.Addr, port int) (*socket, error) {
	if port != 0 {
		if p.open[port] {
			return nil, errTaken
		}
		if until, ok := p.until[port]; ok {
			if p.now().Before(until) {
				return nil, errTaken
			}
			delete(p.until, port)
		}
	}
	s, err := open(p, addr, port)
	if err != nil {
		return nil, err
	}
	p.open[s.port] = true
	return s, nil
}

func (p *Ports) takePair(addr netip.Addr, port int) (rtp, rtcp *socket, err error) {
	if p.open[port+1] || p.now().Before(p.until[port+1]) {
		return nil, nil, errTaken
	}
	rtp, err = p.take(addr, port)
	if err != nil {
		return nil, nil, err
	}
	rtcp, err = p.take(addr, port+1)
	if err != nil {
		// Nobody has seen this port yet: no drain.
		rtp.UDPConn.Close()
		delete(p.open, port)
		return nil, nil, err
	}
	return rtp, rtcp, nil
}

func (p *Ports) giveBack(port int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.open, port)
	if p.drain > 0 && p.max != 0 {
		now := p.now()
		if len(p.until) >= p.sweep {
			maps.DeleteFunc(p.until, func(_ int, t time.Time) bool { return !now.Before(t) })
			p.sweep = max(64, 2*len(p.until))
		}
		p.until[port] = now.Add(p.drain)
	}
}

// A socket is a UDP socket whose port goes back to its Ports when closed.
type socket struct {
	*net.UDPConn
	port  int
	ports *Ports
	once  sync.Once
}

func open(p *Ports, addr netip.Addr, port int) (*socket, error) {
	network := "udp"
	switch addr = addr.Unmap(); {
	case addr.Is4():
		network = "udp4"
	case addr.Is6():
		network = "udp6"
	}
	conn, err := net.ListenUDP(network, &net.UDPAddr{IP: addr.AsSlice(), Zone: addr.Zone(), Port: port})
	if errors.Is(err, syscall.EADDRINUSE) || errors.Is(err, syscall.EACCES) {
		return nil, fmt.Errorf("%w: %w", errTaken, err)
	}
	if err != nil {
		return nil, fmt.Errorf("transport: %w", err)
	}
	return &socket{UDPConn: conn, port: conn.LocalAddr().(*net.UDPAddr).Port, ports: p}, nil
}

// isIPv4 says that the socket cannot send to IPv6 addresses.
func (s *socket) isIPv4() bool {
	return s.LocalAddr().(*net.UDPAddr).IP.To4() != nil
}

// Close closes the socket, which ends its reader, and gives the port back.
func (s *socket) Close() error {
	var err error
	s.once.Do(func() {
		err = s.UDPConn.Close()
		if s.ports != nil {
			s.ports.giveBack(s.port)
		}
	})
	return err
}

// read hands every datagram to handle until the socket is closed. b is
// reused; a datagram longer than MTU comes with more than MTU bytes.
func (s *socket) read(handle func(b []byte, from netip.AddrPort)) {
	buf := make([]byte, MTU+1)
	var failed time.Duration
	for {
		n, from, err := s.ReadFromUDPAddrPort(buf)
		if err == nil {
			failed = 0
			handle(buf[:n], netip.AddrPortFrom(from.Addr().Unmap(), from.Port()))
			continue
		}
		if errors.Is(err, net.ErrClosed) {
			return
		}
		// Linux reports no ICMP errors on an unconnected socket, so this is
		// something like ENOMEM: leave it time.
		failed = min(2*failed+time.Millisecond, 100*time.Millisecond)
		time.Sleep(failed)
	}
}
