package transport

import (
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/pion/transport/v5/deadline"
)

// A conduit carries the STUN or the DTLS of a conference leg between our
// socket and Pion, which sees a net.PacketConn. What Pion does not read in
// time is dropped.
type conduit struct {
	write    func(b []byte, to netip.AddrPort) error
	onClose  func() // called once, by whoever closes first; may be nil
	local    net.Addr
	queue    chan *datagram
	deadline *deadline.Deadline
	closed   chan struct{}
	once     sync.Once
}

type datagram struct {
	from netip.AddrPort
	n    int
	b    [MTU]byte
}

var datagrams = sync.Pool{New: func() any { return new(datagram) }}

func newConduit(local net.Addr, write func([]byte, netip.AddrPort) error) *conduit {
	return &conduit{
		write: write, local: local,
		queue:    make(chan *datagram, 32),
		deadline: deadline.New(), closed: make(chan struct{}),
	}
}

// push hands a datagram to Pion, false if it does not keep up.
func (c *conduit) push(b []byte, from netip.AddrPort) bool {
	d := datagrams.Get().(*datagram)
	d.from, d.n = from, copy(d.b[:], b)
	select {
	case c.queue <- d:
		return true
	default:
		datagrams.Put(d)
		return false
	}
}

// ReadFromAddrPort spares ICE the conversion that ReadFrom needs.
func (c *conduit) ReadFromAddrPort(b []byte) (int, netip.AddrPort, error) {
	select { // a passed deadline wins over waiting datagrams
	case <-c.closed:
		return 0, netip.AddrPort{}, net.ErrClosed
	case <-c.deadline.Done():
		return 0, netip.AddrPort{}, os.ErrDeadlineExceeded
	default:
	}
	select {
	case <-c.closed:
		return 0, netip.AddrPort{}, net.ErrClosed
	case <-c.deadline.Done():
		return 0, netip.AddrPort{}, os.ErrDeadlineExceeded
	case d := <-c.queue:
		n, from := copy(b, d.b[:d.n]), d.from
		datagrams.Put(d)
		return n, from, nil
	}
}

func (c *conduit) ReadFrom(b []byte) (int, net.Addr, error) {
	n, from, err := c.ReadFromAddrPort(b)
	if err != nil {
		return 0, nil, err
	}
	return n, net.UDPAddrFromAddrPort(from), nil
}

func (c *conduit) WriteToAddrPort(b []byte, to netip.AddrPort) (int, error) {
	select {
	case <-c.closed:
		return 0, net.ErrClosed
	default:
	}
	if err := c.write(b, to); err != nil {
		return 0, err
	}
	return len(b), nil
}

func (c *conduit) WriteTo(b []byte, to net.Addr) (int, error) {
	addr, ok := to.(*net.UDPAddr)
	if !ok {
		return 0, net.InvalidAddrError("not UDP")
	}
	return c.WriteToAddrPort(b, addr.AddrPort())
}

func (c *conduit) Close() error {
	c.once.Do(func() {
		close(c.closed)
		if c.onClose != nil {
			c.onClose()
		}
	})
	return nil
}

func (c *conduit) LocalAddr() net.Addr                { return c.local }
func (c *conduit) SetDeadline(t time.Time) error      { return c.SetReadDeadline(t) }
func (c *conduit) SetReadDeadline(t time.Time) error  { c.deadline.Set(t); return nil }
func (c *conduit) SetWriteDeadline(t time.Time) error { return nil } // writes do not wait
