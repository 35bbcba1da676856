package sip

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/emiago/sipgo/sip"
)

// connKey says which connections serve as well as each other. One over TLS was
// opened to a name and with a trunk's settings, and serves no other.
type connKey struct {
	network     string
	addr        netip.AddrPort
	name, trunk string
}

// conn is an accepted or dialled connection.
type conn struct {
	u       *UA
	ln      *listener
	key     connKey
	nc      net.Conn // what the peer's bytes come from: of TLS the plain text
	wire    wire
	local   netip.AddrPort
	dialled bool
	closed  atomic.Bool
	done    chan struct{} // closed with it
	err     error         // why, before done is closed

	stranger atomic.Bool // counted in UA.strangers
	heard    atomic.Int64
	pinging  atomic.Bool  // a ping waits for its answer
	pongs    atomic.Bool  // the peer answers pings
	seen     atomic.Value // netip.AddrPort: our address as the peer sees it

	writing sync.Mutex
}

// wire is how messages are told apart on a connection.
type wire interface {
	// read returns the next message, and what is wrong with it if it cannot be
	// taken; no message: the connection is over.
	read() (msg []byte, err error)
	write(msg []byte) error
	// ping asks the peer for a sign of life, and may wait for it; pong gives one.
	ping(context.Context) error
	pong() error
	close()
}

func (u *UA) newConn(l *listener, nc net.Conn, key connKey) *conn {
	c := &conn{u: u, ln: l, nc: nc, key: key, done: make(chan struct{})}
	if ap, err := netip.ParseAddrPort(nc.LocalAddr().String()); err == nil {
		c.local = unmap(ap)
	}
	return c
}

func (c *conn) peer() netip.AddrPort { return c.key.addr }

// introduce marks the connection as a peer's.
func (c *conn) introduce() {
	if c.stranger.CompareAndSwap(true, false) {
		c.u.strangers.Add(-1)
	}
}

func (c *conn) close() { c.fail(nil) }

// fail closes the connection for an error.
func (c *conn) fail(err error) {
	if c.closed.CompareAndSwap(false, true) {
		c.err = err
		close(c.done)
		_ = c.nc.Close()
	}
}

// why says why the connection, which is closed, was.
func (c *conn) why() error {
	<-c.done
	if c.err == nil {
		return errClosed
	}
	return fmt.Errorf("%w: %w", errClosed, c.err)
}

var errClosed = errors.New("connection closed")

// write sends a whole message. A peer that does not read for 8·T1 loses the
// connection, since half a message would spoil every later one.
func (c *conn) write(b []byte) error {
	return c.under(func() error { return c.wire.write(b) })
}

func (c *conn) under(f func() error) error {
	patience := 8 * c.u.o.T1
	if c.u.ctx.Err() != nil { // Close does not wait so long
		patience = c.u.o.T1
	}
	c.writing.Lock()
	defer c.writing.Unlock()
	if c.closed.Load() {
		return c.why()
	}
	_ = c.nc.SetWriteDeadline(time.Now().Add(patience))
	if err := f(); err != nil {
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			// What the peer said last, as an alert of TLS, tells more than that
			// it is gone.
			c.wait(c.u.o.T1)
		}
		c.fail(err)
		return c.why()
	}
	// What the layers below write by themselves comes later.
	_ = c.nc.SetWriteDeadline(time.Time{}) // if it is closed by now, its reader says why
	return nil
}

func (l *listener) accept() {
	u := l.u
	for {
		nc, err := l.tcp.Accept()
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
		ap, err := netip.ParseAddrPort(nc.RemoteAddr().String())
		if err != nil || !u.welcome(unmap(ap)) {
			_ = nc.Close()
			continue
		}
		c := u.newConn(l, nc, connKey{network: l.network, addr: unmap(ap)})
		s := u.source(c.peer())
		if !u.adopt(c, !s.known && !s.peer) {
			c.close()
		}
	}
}

// welcome decides whether a connection is accepted. Strangers get no more than
// one in eight of them.
func (u *UA) welcome(a netip.AddrPort) bool {
	s := u.source(a)
	banned, _ := u.record.ask(a.Addr(), u.now())
	u.mu.Lock()
	near := u.near[network(a.Addr())]
	u.mu.Unlock()
	room := u.conns.Load() < int64(u.o.MaxConnections)
	switch {
	case s.known || s.peer:
		if room && near < u.o.MaxPerSource {
			return true
		}
	case banned:
		u.stats.banned.Add(1)
		return false
	case u.o.UnknownSource == "drop" && len(u.o.Accounts()) == 0:
	case room && near < max(1, u.o.MaxPerSource/8) && u.strangers.Load() < int64(u.o.MaxConnections)/8:
		if u.strangerLimit.allow(a.Addr(), u.now()) {
			return true
		}
	}
	u.stats.dropped.Add(1)
	return false
}

// adopt starts serving a connection, and reports whether it was not too late.
func (u *UA) adopt(c *conn, stranger bool) bool {
	source := network(c.peer().Addr())
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.closed {
		return false
	}
	u.open[c] = struct{}{}
	if c.wire != nil {
		u.reuse[c.key] = c
	}
	if !c.dialled {
		u.near[source]++
		u.conns.Add(1)
	}
	if stranger {
		c.stranger.Store(true)
		u.strangers.Add(1)
	}
	u.wg.Go(func() {
		c.serve()
		c.close()
		c.introduce()
		u.mu.Lock()
		defer u.mu.Unlock()
		delete(u.open, c)
		if u.reuse[c.key] == c {
			delete(u.reuse, c.key)
		}
		if c.dialled {
			return
		}
		u.conns.Add(-1)
		if u.near[source]--; u.near[source] <= 0 {
			delete(u.near, source)
		}
	})
	if c.dialled {
		u.wg.Go(c.keepAlive)
	}
	return true
}

// serve reads a connection until it ends.
func (c *conn) serve() {
	u := c.u
	if c.wire == nil {
		if err := c.welcomed(); err != nil {
			if !c.closed.Load() {
				u.note("handshake failed", "network", c.ln.network, "source", c.peer(), "err", err)
			}
			return
		}
		u.mu.Lock()
		if u.reuse[c.key] == nil {
			u.reuse[c.key] = c
		}
		u.mu.Unlock()
	}
	defer c.wire.close()
	for {
		b, err := c.wire.read()
		if b == nil && err != nil {
			c.fail(err)
			return
		}
		if !c.message(b, err) {
			return
		}
	}
}

// welcomed does the peer's handshake of TLS and WebSocket.
func (c *conn) welcomed() error {
	ctx, cancel := context.WithTimeout(c.u.ctx, c.u.o.HandshakeTimeout)
	defer cancel()
	_ = c.nc.SetDeadline(time.Now().Add(c.u.o.HandshakeTimeout))
	nc := c.nc
	if c.ln.tls != nil {
		t := tls.Server(nc, c.ln.tls)
		if err := t.HandshakeContext(ctx); err != nil {
			return err
		}
		nc = t
	}
	if c.ln.network == "ws" || c.ln.network == "wss" {
		w, err := acceptWS(c, nc)
		if err != nil {
			return err
		}
		c.wire = w
	} else {
		c.wire = &stream{c: c, nc: nc}
	}
	return c.nc.SetDeadline(time.Time{})
}

// patience is how long the next bytes may take. A message that has begun, and
// one of a stranger, must be complete 64·T1 after the one before. The
// allow-list is asked each time, since the configuration may have changed.
func (c *conn) patience(since time.Time, begun bool) time.Time {
	if begun || !c.known() {
		return since.Add(64 * c.u.o.T1)
	}
	return time.Now().Add(c.u.o.IdleTimeout)
}

// known reports whether the peer is one of a trunk, or one we have a call with.
func (c *conn) known() bool {
	s := c.u.source(c.peer())
	return s.known || s.peer
}

// retire has the next request of ours open another connection, since nothing
// came back on this one.
func (u *UA) retire(c *conn) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.reuse[c.key] == c {
		delete(u.reuse, c.key)
	}
}

// alive notes that the peer has sent something.
func (c *conn) alive() { c.heard.Add(1) }

// pinged answers a ping (RFC 5626 §3.5.1).
func (c *conn) pinged() error { return c.under(c.wire.pong) }

// keepAlive pings the peer of a connection that we opened, so that NATs keep
// it, and so that we learn when it is dead (RFC 5626 §4.4.1). A peer that has
// never answered a ping is not expected to.
func (c *conn) keepAlive() {
	u := c.u
	for {
		wait := time.Duration((0.8 + 0.2*rand.Float64()) * float64(u.o.KeepAlive))
		if !c.wait(wait) {
			return
		}
		before := c.heard.Load()
		c.pinging.Store(true)
		ctx, cancel := context.WithTimeout(u.ctx, min(20*u.o.T1, u.o.KeepAlive))
		err := c.wire.ping(ctx)
		if err == nil && c.heard.Load() == before {
			select {
			case <-ctx.Done():
			case <-c.done:
			}
		}
		cancel()
		c.pinging.Store(false)
		if err != nil || c.heard.Load() == before && c.pongs.Load() {
			if !c.closed.Load() {
				u.log.Warn("sip: connection is dead", "network", c.ln.network, "peer", c.peer())
				c.close()
			}
			return
		}
	}
}

// wait waits, and reports whether the connection still stands.
func (c *conn) wait(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-c.done:
		return false
	}
}

// message handles one message, and reports whether the connection goes on.
// After a framing error there is no next message to find.
func (c *conn) message(b []byte, framing error) bool {
	u := c.u
	u.stats.received.Add(1)
	s := u.source(c.peer())
	f := flow{ln: c.ln, conn: c, peer: c.peer(), trunk: s.trunk}
	if !u.admit(s, c.peer(), isResponse(b)) {
		return framing == nil && (s.known || s.peer)
	}
	msg, err := u.parse(b)
	if framing != nil {
		err = framing
	}
	switch m := msg.(type) {
	case *sip.Request:
		m.SetSource(c.peer().String())
		u.take(f, s, m, err)
	case *sip.Response:
		if err == nil {
			u.handleResponse(m)
			break
		}
		u.malformed(f, nil, 0, err)
	default:
		u.malformed(f, nil, 0, err)
		if !s.known {
			u.offend(c.peer().Addr())
		}
		return false
	}
	return framing == nil
}

// dialling is a connection on its way, for all who want it.
type dialling struct {
	done chan struct{}
	c    *conn
	err  error
}

// dial returns a connection to a target, an open one if there is one.
func (u *UA) dial(ctx context.Context, l *listener, t target, trunk string) (*conn, error) {
	key := connKey{network: t.network, addr: t.addr}
	if t.network == "tls" || t.network == "wss" {
		key.name, key.trunk = t.name, trunk
	}
	u.mu.Lock()
	if c := u.reuse[key]; c != nil && !c.closed.Load() {
		u.mu.Unlock()
		return c, nil
	}
	d := u.dialling[key]
	if d == nil {
		if u.closed {
			u.mu.Unlock()
			return nil, ErrEnded
		}
		d = &dialling{done: make(chan struct{})}
		u.dialling[key] = d
		u.wg.Go(func() { u.connect(d, l, key, trunk) })
	}
	u.mu.Unlock()
	select {
	case <-d.done:
		return d.c, d.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (u *UA) connect(d *dialling, l *listener, key connKey, trunk string) {
	ctx, cancel := context.WithTimeout(u.ctx, u.o.HandshakeTimeout)
	defer cancel()
	if d.c, d.err = u.connectTo(ctx, l, key, trunk); d.err == nil && !u.adopt(d.c, false) {
		d.c.close()
		d.c.wire.close()
		d.c, d.err = nil, ErrEnded
	}
	u.mu.Lock()
	delete(u.dialling, key)
	u.mu.Unlock()
	close(d.done)
}

// connectTo opens a connection and does our handshake of TLS and WebSocket.
func (u *UA) connectTo(ctx context.Context, l *listener, key connKey, trunk string) (*conn, error) {
	var nd net.Dialer
	if a := l.addr.Addr(); !a.IsUnspecified() {
		nd.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(a, 0))
	}
	nc, err := nd.DialContext(ctx, "tcp", key.addr.String())
	if err != nil {
		return nil, err
	}
	c := u.newConn(l, nc, key)
	c.dialled = true
	_ = nc.SetDeadline(time.Now().Add(u.o.HandshakeTimeout))
	if err := c.shakeHands(ctx, trunk); err != nil {
		c.close()
		return nil, err
	}
	_ = nc.SetDeadline(time.Time{})
	return c, nil
}

func (c *conn) shakeHands(ctx context.Context, trunk string) error {
	nc := c.nc
	if c.key.network == "tls" || c.key.network == "wss" {
		cfg, err := c.u.clientTLS(trunk, c.key.name)
		if err != nil {
			return err
		}
		t := tls.Client(nc, cfg)
		if err := t.HandshakeContext(ctx); err != nil {
			return fmt.Errorf("TLS: %w", err)
		}
		nc = t
	}
	if c.key.network == "ws" || c.key.network == "wss" {
		w, err := dialWS(ctx, c, nc)
		if err != nil {
			return err
		}
		c.wire = w
		return nil
	}
	c.wire = &stream{c: c, nc: nc}
	return nil
}
