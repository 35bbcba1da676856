package xmppd

import (
	"bufio"
	"context"
	"crypto/sha1"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"time"
)

// queue is what a stream's writer still has to write. It never blocks the
// server; a client that does not read is cut off when too much is waiting.
type queue struct {
	mu    sync.Mutex
	items []string
	bytes int
	last  bool // nothing comes after the items
	more  chan struct{}
}

func newQueue() *queue { return &queue{more: make(chan struct{}, 1)} }

func (q *queue) put(t string, last bool) (ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.last { // too late, and nobody's fault
		return true
	}
	if q.bytes > boshBuffer {
		return false
	}
	if t != "" {
		q.items = append(q.items, t)
		q.bytes += len(t)
	}
	q.last = last
	select {
	case q.more <- struct{}{}:
	default:
	}
	return true
}

// take waits for items; last says that no more will come.
func (q *queue) take(ctx context.Context) (items []string, last bool, err error) {
	for {
		q.mu.Lock()
		items, last = q.items, q.last
		q.items, q.bytes = nil, 0
		q.mu.Unlock()
		if len(items) > 0 || last {
			return items, last, nil
		}
		select {
		case <-q.more:
		case <-ctx.Done():
			return nil, true, ctx.Err()
		}
	}
}

// tcp is a client stream over TCP (RFC 6120 §4).
type tcp struct {
	s      *Server
	conn   net.Conn
	q      *queue
	open   bool // our stream header was sent
	domain string
	tls    bool // the stream ends for TLS to begin; set before its last item is queued
}

func (t *tcp) send(e *element) {
	if !t.q.put(e.encode(nsClient, nsClient), false) {
		_ = t.conn.Close()
	}
}

func (t *tcp) header(id string) {
	t.open = true
	t.q.put("<?xml version='1.0'?><stream:stream xmlns='jabber:client' xmlns:stream='"+nsStream+"' id='"+id+
		"' from='"+escape(t.domain)+"' version='1.0' xml:lang='en'>", false)
}

func (t *tcp) end(condition, text string) {
	if !t.open {
		t.header(randomUUID())
	}
	t.q.put(streamError(condition, text)+"</stream:stream>", true)
}

func (t *tcp) cut() { t.q.put("", true); _ = t.conn.Close() }

func streamError(condition, text string) string {
	if condition == "" {
		return ""
	}
	e := el(nsStream, "error").add(el(nsStreams, condition))
	if text != "" {
		e.add(el(nsStreams, "text").add(text))
	}
	return e.encode(nsClient, nsClient)
}

// write sends what is queued until the stream ends.
func (s *Server) write(ctx context.Context, q *queue, conn net.Conn) {
	for {
		items, last, err := q.take(ctx)
		if err != nil || s.faults.quiet(ctx) != nil {
			return
		}
		if len(items) > 0 {
			if _, err := io.WriteString(conn, strings.Join(items, "")); err != nil {
				return
			}
		}
		if last {
			return
		}
	}
}

// serveClient serves one TCP client.
func (s *Server) serveClient(n *network, conn net.Conn) {
	t := &tcp{s: s, conn: conn, q: newQueue()}
	x := &session{s: s, id: randomUUID(), out: t, canTLS: s.o.TLS != nil}
	for {
		again, err := s.clientStream(n, t, x)
		if err != nil || !again {
			return
		}
		c := tls.Server(t.conn, s.o.TLS)
		if err := c.HandshakeContext(n.ctx); err != nil {
			return
		}
		t.conn, t.q, t.open, t.tls, x.secure = c, newQueue(), false, false, true
	}
}

// clientStream runs until the connection ends; again says that TLS comes next.
func (s *Server) clientStream(n *network, t *tcp, x *session) (again bool, err error) {
	ctx, cancel := context.WithCancel(n.ctx)
	written := make(chan struct{})
	go func() {
		defer close(written)
		s.write(ctx, t.q, t.conn)
		if !t.tls { // let the client's last bytes in, but not for long
			closeWrite(t.conn)
			_ = t.conn.SetReadDeadline(time.Now().Add(time.Second))
		}
	}()
	defer func() {
		if !again {
			s.mu.Lock()
			x.destroy("connection closed")
			t.q.put("", true)
			s.mu.Unlock()
			_ = t.conn.SetWriteDeadline(time.Now().Add(time.Second))
		}
		<-written
		cancel()
	}()
	_ = t.conn.SetDeadline(time.Now().Add(s.o.Timing.Handshake))
	br := bufio.NewReader(t.conn)
	var in *xmlReader
	for restart := true; ; {
		if restart {
			restart = false
			in = newXMLReader(br, s.o.MaxBody)
			h, err := in.start()
			if err != nil {
				return false, err
			}
			s.mu.Lock()
			ok := s.openStream(t, x, h)
			s.mu.Unlock()
			if !ok {
				return false, nil
			}
		}
		e, err := in.element()
		s.mu.Lock()
		if err != nil {
			switch {
			case errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF):
				x.close("", "")
			case errors.As(err, new(net.Error)):
			default:
				x.close("not-well-formed", "")
			}
			s.mu.Unlock()
			return false, err
		}
		if e.NS == nsTLS && e.Name == "starttls" && x.canTLS && !x.secure && !x.login.done {
			t.tls = true
			t.q.put("<proceed xmlns='"+nsTLS+"'/>", true)
			s.mu.Unlock()
			return true, nil
		}
		was := x.login.done
		x.handle(e)
		restart = !was && x.login.done
		if x.jid.resource != "" {
			_ = t.conn.SetReadDeadline(time.Time{})
			_ = t.conn.SetWriteDeadline(time.Time{})
		}
		closed := x.closed
		s.mu.Unlock()
		if closed {
			return false, nil
		}
	}
}

// openStream answers a stream header with ours and the features.
func (s *Server) openStream(t *tcp, x *session, h *element) bool {
	if s.down {
		return false
	}
	if h.NS != nsStream || h.Name != "stream" {
		t.end("invalid-namespace", "")
		return false
	}
	host := s.hosts[strings.ToLower(h.attr("to"))]
	if host == nil || x.host != nil && x.host != host {
		t.end("host-unknown", "This server does not serve "+h.attr("to"))
		return false
	}
	x.host, t.domain = host, host.Domain
	s.streams[x] = struct{}{}
	t.header(x.id)
	x.send(x.features())
	return true
}

func closeWrite(c net.Conn) {
	if w, ok := c.(interface{ CloseWrite() error }); ok {
		_ = w.CloseWrite()
		return
	}
	_ = c.Close()
}

// component is a connected component (XEP-0114).
type component struct {
	s      *Server
	domain string
	conn   net.Conn
	q      *queue
}

func (c *component) send(e *element) {
	if !c.q.put(e.encode(nsComponent, nsComponent), false) {
		_ = c.conn.Close()
	}
}

// serveComponent serves one component connection.
func (s *Server) serveComponent(n *network, conn net.Conn) {
	ctx, cancel := context.WithCancel(n.ctx)
	c := &component{s: s, conn: conn, q: newQueue()}
	written := make(chan struct{})
	go func() { defer close(written); s.write(ctx, c.q, conn); _ = conn.Close() }()
	defer func() { <-written; cancel() }()
	defer c.q.put("", true)
	_ = conn.SetReadDeadline(time.Now().Add(s.o.Timing.Handshake))
	in := newXMLReader(bufio.NewReader(conn), s.o.MaxBody)
	h, err := in.start()
	if err != nil || h.NS != nsStream || h.Name != "stream" {
		return
	}
	id := randomUUID()
	c.domain = strings.ToLower(h.attr("to"))
	head := "<?xml version='1.0'?><stream:stream xmlns='" + nsComponent + "' xmlns:stream='" + nsStream +
		"' id='" + id + "' from='" + escape(c.domain) + "'>"
	fail := func(condition string) {
		c.q.put(el(nsStream, "error").add(el(nsStreams, condition)).encode(nsComponent, nsComponent)+"</stream:stream>", true)
	}
	c.q.put(head, false)
	s.mu.Lock()
	taken := s.hosts[c.domain] != nil || s.services[c.domain] != nil || !strings.Contains(c.domain, ".")
	s.mu.Unlock()
	if taken {
		fail("host-unknown")
		return
	}
	e, err := in.element()
	if err != nil {
		return
	}
	sum := sha1.Sum([]byte(id + s.o.ComponentSecret))
	if e.Name != "handshake" || strings.TrimSpace(e.text()) != hex.EncodeToString(sum[:]) {
		fail("not-authorized")
		return
	}
	s.mu.Lock()
	if s.components[c.domain] != nil || s.down {
		s.mu.Unlock()
		fail("conflict")
		return
	}
	s.components[c.domain] = c
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.components[c.domain] == c {
			delete(s.components, c.domain)
		}
		if !s.down {
			s.componentGone(c.domain)
		}
	}()
	c.q.put("<handshake/>", false)
	_ = conn.SetReadDeadline(time.Time{})
	for {
		e, err := in.element()
		if err != nil {
			if !errors.Is(err, io.EOF) {
				fail("not-well-formed")
			}
			return
		}
		e.remap(nsComponent, nsClient)
		from, ferr := parseJID(e.attr("from"))
		_, terr := parseJID(e.attr("to"))
		switch {
		case e.NS != nsClient || e.Name != "iq" && e.Name != "message" && e.Name != "presence":
			fail("unsupported-stanza-type")
			return
		case ferr != nil || from.domain != c.domain: // validate_from_addresses
			fail("invalid-from")
			return
		case terr != nil:
			fail("improper-addressing")
			return
		}
		e.set("from", from.String())
		s.mu.Lock()
		s.route(e, nil)
		s.mu.Unlock()
	}
}

// componentGone makes every occupant of a component leave, as Jicofo's does when
// its connection is lost.
func (s *Server) componentGone(domain string) {
	for _, m := range s.services {
		for _, r := range m.list() {
			for _, o := range r.byOrder() {
				if o.jid.domain == domain && r.occ[o.nick] == o {
					p := el(nsClient, "presence", "type", "unavailable", "from", o.jid.String(), "to", r.jid.with(o.nick).String())
					r.presence(p.add(el(nsClient, "status").add("Disconnected: component disconnected")), o.nick)
				}
			}
		}
	}
}
