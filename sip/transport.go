package sip

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/emiago/sipgo/sip"
)

// listener is a bound Listener.
type listener struct {
	u       *UA
	network string // "udp" or "tcp"
	addr    netip.AddrPort
	advHost string // "" : the address that faces the peer
	advPort int    // 0: addr's
	udp     *net.UDPConn
	tcp     net.Listener
}

// flow is where a message came from and where the answer goes: a listener and
// a peer for UDP, a connection for TCP.
type flow struct {
	ln    *listener
	conn  *tcpConn // nil for UDP
	peer  netip.AddrPort
	trunk string
}

func (f flow) reliable() bool { return f.conn != nil }

// send writes a message; over UDP it goes to addr.
func (f flow) send(b []byte, addr netip.AddrPort) error {
	if f.conn != nil {
		return f.conn.write(b)
	}
	_, err := f.ln.udp.WriteToUDPAddrPort(b, addr)
	return err
}

// contact returns our Contact value towards the peer.
func (f flow) contact(user string) string {
	host, port := f.ln.sentBy(f.peer.Addr())
	uri := sip.Uri{Scheme: "sip", Host: host, Port: port}
	if isToken(user) {
		uri.User = user
	}
	if f.reliable() {
		uri.UriParams.Add("transport", "tcp")
	}
	return "<" + uri.String() + ">"
}

func (u *UA) bind(ctx context.Context, l Listener) (*listener, error) {
	ln := &listener{u: u, network: l.Network}
	if l.Advertise != "" {
		host, port, err := splitHostPort(l.Advertise)
		if err != nil {
			return nil, fmt.Errorf("advertised address %q: %w", l.Advertise, err)
		}
		ln.advHost, ln.advPort = host, port
	}
	var cfg net.ListenConfig
	var bound net.Addr
	switch l.Network {
	case "udp":
		pc, err := cfg.ListenPacket(ctx, "udp", l.Address)
		if err != nil {
			return nil, err
		}
		ln.udp = pc.(*net.UDPConn)
		_ = ln.udp.SetReadBuffer(1 << 20) // best effort: the kernel caps it
		bound = pc.LocalAddr()
	case "tcp":
		l, err := cfg.Listen(ctx, "tcp", l.Address)
		if err != nil {
			return nil, err
		}
		ln.tcp = l
		bound = l.Addr()
	default:
		return nil, fmt.Errorf("unknown network %q", l.Network)
	}
	ap, err := netip.ParseAddrPort(bound.String())
	if err != nil {
		ln.close()
		return nil, err
	}
	ln.addr = unmap(ap)
	return ln, nil
}

func (l *listener) netAddr() net.Addr {
	if l.udp != nil {
		return l.udp.LocalAddr()
	}
	return l.tcp.Addr()
}

func (l *listener) close() {
	if l.udp != nil {
		_ = l.udp.Close()
	}
	if l.tcp != nil {
		_ = l.tcp.Close()
	}
}

// facing returns our address as peer sees it, as far as we can know: the
// advertised one, the bound one, or that of the interface towards peer.
func (l *listener) facing(peer netip.Addr) netip.AddrPort {
	port := l.addr.Port()
	if l.advPort != 0 {
		port = uint16(l.advPort)
	}
	if a, err := netip.ParseAddr(l.advHost); err == nil {
		return netip.AddrPortFrom(a, port)
	}
	if !l.addr.Addr().IsUnspecified() {
		return netip.AddrPortFrom(l.addr.Addr(), port)
	}
	if a := facing(peer); a.IsValid() {
		return netip.AddrPortFrom(a, port)
	}
	return netip.AddrPortFrom(l.addr.Addr(), port)
}

// facing returns the address that packets to peer leave from, as the routing
// table says. Not valid: there is no way there.
func facing(peer netip.Addr) netip.Addr {
	// Connecting a datagram socket sends nothing.
	c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(peer, 9)))
	if err != nil {
		return netip.Addr{}
	}
	defer c.Close()
	return unmap(c.LocalAddr().(*net.UDPAddr).AddrPort()).Addr()
}

// sentBy returns host and port for Via and Contact towards peer.
func (l *listener) sentBy(peer netip.Addr) (host string, port int) {
	a := l.facing(peer)
	if l.advHost != "" {
		return l.advHost, int(a.Port())
	}
	return a.Addr().String(), int(a.Port())
}

func (l *listener) readUDP() {
	u := l.u
	buf := make([]byte, u.o.MaxMessage+1)
	for {
		n, src, err := l.udp.ReadFromUDPAddrPort(buf)
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil:
			// An ICMP error, or memory short: never a reason to stop serving.
			u.note("read failed", "addr", l.addr, "err", err)
			if !u.pause(100 * time.Millisecond) {
				return
			}
			continue
		}
		u.datagram(flow{ln: l, peer: unmap(src)}, buf[:n])
	}
}

// datagram handles what came from f over UDP. Whether the source may speak
// at all is decided before anything is parsed.
func (u *UA) datagram(f flow, b []byte) {
	u.stats.received.Add(1)
	if len(b) < 16 || b[0] <= ' ' {
		return // keep-alives: CRLF, zeros (RFC 5626), STUN
	}
	s := u.source(f.peer)
	f.trunk = s.trunk
	if !u.admit(s, f.peer, bytes.HasPrefix(b, []byte("SIP/2.0 "))) {
		return
	}
	oversize := len(b) > u.o.MaxMessage
	if oversize {
		b = b[:u.o.MaxMessage]
	}
	msg, err := u.parse(b)
	switch m := msg.(type) {
	case *sip.Request:
		m.SetSource(f.peer.String())
		if oversize {
			err = sip.ErrMessageTooLarge
		}
		u.take(f, s, m, err)
	case *sip.Response:
		if err == nil {
			u.handleResponse(m)
			return
		}
		u.malformed(f, nil, 0, err)
	default:
		u.malformed(f, nil, 0, err)
		if !s.known {
			u.offend(f.peer.Addr())
		}
	}
}

// parse reads one message. On an error it may still return what it had read.
func (u *UA) parse(b []byte) (msg sip.Message, err error) {
	// The parser is not ours and its input is anybody's.
	defer func() {
		if r := recover(); r != nil {
			msg, err = nil, fmt.Errorf("parser: %v", r)
		}
	}()
	return u.parser.ParseSIP(b)
}

// tcpConn is an accepted or dialled connection.
type tcpConn struct {
	u      *UA
	ln     *listener
	c      net.Conn
	peer   netip.AddrPort
	closed atomic.Bool

	stranger atomic.Bool // counted in UA.strangers
}

// introduce marks the connection as a peer's.
func (c *tcpConn) introduce() {
	if c.stranger.CompareAndSwap(true, false) {
		c.u.strangers.Add(-1)
	}
}

func (c *tcpConn) close() {
	if c.closed.CompareAndSwap(false, true) {
		_ = c.c.Close()
	}
}

// write sends a whole message. A peer that does not read for 8·T1 loses the
// connection, since half a message would spoil every later one.
func (c *tcpConn) write(b []byte) error {
	patience := 8 * c.u.o.T1
	if c.u.ctx.Err() != nil { // Close does not wait so long
		patience = c.u.o.T1
	}
	_ = c.c.SetWriteDeadline(time.Now().Add(patience))
	if _, err := c.c.Write(b); err != nil {
		c.close()
		return err
	}
	return nil
}

func (l *listener) accept() {
	u := l.u
	for {
		c, err := l.tcp.Accept()
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil: // out of descriptors, or a peer that left at once
			u.note("accept failed", "addr", l.addr, "err", err)
			if !u.pause(100 * time.Millisecond) {
				return
			}
			continue
		}
		ap, err := netip.ParseAddrPort(c.RemoteAddr().String())
		if err != nil {
			_ = c.Close()
			continue
		}
		peer := unmap(ap)
		if !u.welcome(peer) {
			_ = c.Close()
			continue
		}
		s := u.source(peer)
		u.adopt(l, c, peer, !s.known && !s.peer)
	}
}

// welcome decides whether a connection is accepted. Strangers get no more than
// one in eight of them.
func (u *UA) welcome(a netip.AddrPort) bool {
	s := u.source(a)
	banned, _ := u.record.ask(a.Addr(), u.now())
	switch {
	case s.known || s.peer:
		if u.conns.Load() < int64(u.o.MaxConnections) {
			return true
		}
	case banned:
		u.stats.banned.Add(1)
		return false
	case u.o.UnknownSource == "drop" && len(u.o.Accounts()) == 0:
	case u.strangers.Load() < int64(u.o.MaxConnections)/8 && u.conns.Load() < int64(u.o.MaxConnections):
		if u.strangerLimit.allow(a.Addr(), u.now()) {
			return true
		}
	}
	u.stats.dropped.Add(1)
	return false
}

// adopt starts serving a connection.
func (u *UA) adopt(l *listener, c net.Conn, peer netip.AddrPort, stranger bool) *tcpConn {
	tc := &tcpConn{u: u, ln: l, c: c, peer: peer}
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.closed {
		tc.close()
		return tc
	}
	u.tcp[peer] = tc
	u.conns.Add(1)
	if stranger {
		tc.stranger.Store(true)
		u.strangers.Add(1)
	}
	u.wg.Go(func() {
		tc.read()
		tc.close()
		tc.introduce()
		u.conns.Add(-1)
		u.mu.Lock()
		defer u.mu.Unlock()
		if u.tcp[peer] == tc {
			delete(u.tcp, peer)
		}
	})
	return tc
}

// read serves a connection until it ends. The allow-list is asked again for
// every message, since the configuration may have changed.
func (c *tcpConn) read() {
	u := c.u
	stream := u.parser.NewSIPStream()
	defer stream.Close()
	buf := make([]byte, 4096)
	partial := false
	for {
		// A message that has begun must be complete in 64·T1.
		idle := u.o.IdleTimeout
		if s := u.source(c.peer); partial || !s.known && !s.peer {
			idle = 64 * u.o.T1
		}
		_ = c.c.SetReadDeadline(time.Now().Add(idle))
		n, err := c.c.Read(buf)
		if err != nil {
			return
		}
		b := buf[:n]
		if !partial {
			if b = bytes.TrimLeft(b, "\r\n"); len(b) == 0 {
				if n >= 4 { // ping of RFC 5626 §3.5.1
					_ = c.write([]byte("\r\n"))
				}
				continue
			}
		}
		if _, err := stream.Write(b); err != nil {
			return
		}
		for {
			msg, err := c.next(stream)
			if partial = err == errPartial; partial {
				break
			}
			if !c.message(msg, err) {
				return
			}
			if rest := stream.Buffer(); len(bytes.TrimLeft(rest.Bytes(), "\r\n")) == 0 {
				rest.Reset() // CRLF between messages belongs to none
				break
			}
		}
	}
}

var errPartial = errors.New("partial message")

func (c *tcpConn) next(s *sip.ParserStream) (msg sip.Message, err error) {
	defer func() { // as in parse
		if r := recover(); r != nil {
			msg, err = nil, fmt.Errorf("parser: %v", r)
		}
	}()
	msg, _, err = s.ParseNext()
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, errPartial
	}
	return msg, err
}

// message handles one message, and reports whether the connection goes on.
// After a framing error there is no next message to find.
func (c *tcpConn) message(msg sip.Message, err error) bool {
	u := c.u
	u.stats.received.Add(1)
	s := u.source(c.peer)
	f := flow{ln: c.ln, conn: c, peer: c.peer, trunk: s.trunk}
	_, response := msg.(*sip.Response)
	if !u.admit(s, c.peer, response) {
		return s.known || s.peer
	}
	switch m := msg.(type) {
	case *sip.Request:
		m.SetSource(c.peer.String())
		u.take(f, s, m, err)
	case *sip.Response:
		if err == nil {
			u.handleResponse(m)
		}
	default:
		if err == nil {
			err = errors.New("no message")
		}
		u.malformed(f, nil, 0, err)
		if !s.known {
			u.offend(c.peer.Addr())
		}
	}
	return err == nil
}

// dialling is a connection on its way, for all who want it.
type dialling struct {
	done chan struct{}
	c    *tcpConn
	err  error
}

// dial returns a connection to addr, an open one if there is one.
func (u *UA) dial(ctx context.Context, l *listener, addr netip.AddrPort) (*tcpConn, error) {
	u.mu.Lock()
	if c := u.tcp[addr]; c != nil && !c.closed.Load() {
		u.mu.Unlock()
		return c, nil
	}
	d := u.dialling[addr]
	if d == nil {
		if u.closed {
			u.mu.Unlock()
			return nil, ErrEnded
		}
		d = &dialling{done: make(chan struct{})}
		u.dialling[addr] = d
		u.wg.Go(func() { u.connect(d, l, addr) })
	}
	u.mu.Unlock()
	select {
	case <-d.done:
		return d.c, d.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (u *UA) connect(d *dialling, l *listener, addr netip.AddrPort) {
	ctx, cancel := context.WithTimeout(u.ctx, 64*u.o.T1)
	defer cancel()
	var nd net.Dialer
	if a := l.addr.Addr(); !a.IsUnspecified() {
		nd.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(a, 0))
	}
	nc, err := nd.DialContext(ctx, "tcp", addr.String())
	if d.err = err; err == nil {
		d.c = u.adopt(l, nc, addr, false)
	}
	u.mu.Lock()
	delete(u.dialling, addr)
	u.mu.Unlock()
	close(d.done)
}

// splitHostPort splits "host", "host:port", "[v6]:port" and "v6".
func splitHostPort(s string) (host string, port int, err error) {
	if a, err := netip.ParseAddr(s); err == nil {
		return a.String(), 0, nil
	}
	h, p, err := net.SplitHostPort(s)
	if err != nil {
		if h, _, err2 := net.SplitHostPort(s + ":0"); err2 == nil && h != "" {
			return h, 0, nil
		}
		return "", 0, err
	}
	n, err := strconv.ParseUint(p, 10, 16)
	if err != nil {
		return "", 0, fmt.Errorf("port %q", p)
	}
	if h == "" {
		return "", 0, errors.New("no host")
	}
	return h, int(n), nil
}

func unmap(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap().WithZone(""), a.Port())
}

// logGate lets one line of a kind through a minute.
type logGate struct {
	mu   sync.Mutex
	last map[string]time.Time
	held map[string]int
}

func (g *logGate) pass(kind string, now time.Time) (held int, ok bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.last == nil {
		g.last, g.held = map[string]time.Time{}, map[string]int{}
	}
	if t, seen := g.last[kind]; seen && now.Sub(t) < time.Minute {
		g.held[kind]++
		return 0, false
	}
	held = g.held[kind]
	g.last[kind], g.held[kind] = now, 0
	return held, true
}
