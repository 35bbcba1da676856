package sip

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/emiago/sipgo/sip"
)

// listener is a bound Listener, or none that could be bound: the stand-in of
// connections that go out over a network nothing is received on.
type listener struct {
	u       *UA
	network string         // "udp", "tcp", "tls", "ws" or "wss"
	addr    netip.AddrPort // port 0: not bound
	adv     advertised
	tls     *tls.Config
	udp     *net.UDPConn
	tcp     net.Listener
}

// advertised is our address as others shall see it.
type advertised struct {
	host string // "": the one that faces the peer
	port int    // 0: the bound one
}

func parseAdvertised(s string) (a advertised, err error) {
	if s != "" {
		if a.host, a.port, err = splitHostPort(s); err != nil {
			err = fmt.Errorf("advertised address %q: %w", s, err)
		}
	}
	return a, err
}

// flow is where a message came from and where the answer goes: a listener and
// a peer for UDP, else a connection.
type flow struct {
	ln    *listener
	conn  *conn // nil for UDP
	peer  netip.AddrPort
	trunk string
}

func (f flow) reliable() bool { return f.conn != nil }

// open reports whether the connection, if there is one, still stands.
func (f flow) open() bool { return f.conn == nil || !f.conn.closed.Load() }

// near reports whether what came by f may belong to what came by other: from
// the same trunk, or the same address. Connections and ports may differ.
func (f flow) near(other flow) bool {
	return f.peer.Addr() == other.peer.Addr() || f.trunk != "" && f.trunk == other.trunk
}

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
	host, port := f.sentBy()
	uri := sip.Uri{Scheme: "sip", Host: host, Port: port}
	if isToken(user) {
		uri.User = user
	}
	switch f.ln.network {
	case "udp":
	case "wss": // RFC 7118 §5.4: of both
		uri.UriParams.Add("transport", "ws")
	default:
		uri.UriParams.Add("transport", f.ln.network)
	}
	return "<" + uri.String() + ">"
}

// local returns our address as the peer sees it, as far as we can know: the
// advertised one, the bound one, or that of the interface towards the peer.
func (f flow) local() netip.AddrPort {
	adv, port := f.advertised(), f.ln.addr.Port()
	if port == 0 && f.conn != nil {
		port = f.conn.local.Port()
	}
	if adv.port != 0 {
		port = uint16(adv.port)
	}
	if a, err := netip.ParseAddr(adv.host); err == nil {
		return netip.AddrPortFrom(a, port)
	}
	switch a := f.ln.addr.Addr(); {
	case f.conn != nil && f.conn.local.IsValid():
		return netip.AddrPortFrom(f.conn.local.Addr(), port)
	case !a.IsUnspecified():
		return netip.AddrPortFrom(a, port)
	}
	if a := facing(f.peer.Addr()); a.IsValid() {
		return netip.AddrPortFrom(a, port)
	}
	return netip.AddrPortFrom(f.ln.addr.Addr(), port)
}

// advertised returns what the trunk, else the listener has us say.
func (f flow) advertised() advertised {
	a, err := parseAdvertised(f.ln.u.o.AdvertiseFor(f.trunk))
	if err != nil || a.host == "" {
		return f.ln.adv
	}
	if a.port == 0 {
		a.port = f.ln.adv.port
	}
	return a
}

// sentBy returns host and port for Via and Contact towards the peer.
func (f flow) sentBy() (host string, port int) {
	if f.conn != nil && f.conn.dialled && strings.HasPrefix(f.ln.network, "ws") {
		return f.ln.u.invalid, 0 // nobody can connect to a client (RFC 7118 §5.2)
	}
	a := f.local()
	if adv := f.advertised(); adv.host != "" {
		return adv.host, int(a.Port())
	}
	if seen := f.seen(); seen.IsValid() {
		a = seen
	}
	return a.Addr().String(), int(a.Port())
}

func (u *UA) bind(ctx context.Context, l Listener) (*listener, error) {
	ln := &listener{u: u, network: l.Network}
	var err error
	if ln.adv, err = parseAdvertised(l.Advertise); err != nil {
		return nil, err
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
	case "tls", "wss":
		if ln.tls, err = serverTLS(l.TLS); err != nil {
			return nil, err
		}
		fallthrough
	case "tcp", "ws":
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
	if !u.admit(s, f.peer, isResponse(b)) {
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

func isResponse(b []byte) bool { return bytes.HasPrefix(b, []byte("SIP/2.0 ")) }

// parse reads one message. On an error it may still return what it had read.
func (u *UA) parse(b []byte) (msg sip.Message, err error) { return readMessage(u.parser, b) }

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
