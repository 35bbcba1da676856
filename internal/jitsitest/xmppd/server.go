package xmppd

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"sync"
	"time"
)

// Server is one simulated Prosody.
type Server struct {
	o      Options
	faults *Faults
	log    *capture

	mu         sync.Mutex // guards everything below
	hosts      map[string]*Host
	services   map[string]*mucService // by domain
	sessions   map[string]*session    // bound, by full JID
	bosh       map[string]*boshSession
	components map[string]*component
	streams    map[*session]struct{} // every client session, bound or not
	down       bool

	net *network // nil while killed; guarded by ctl
	ctl sync.Mutex
	// addresses, kept over a restart
	httpAddr, c2sAddr, componentAddr string
}

// network is what Kill takes away.
type network struct {
	http      *http.Server
	listeners []net.Listener
	cancel    context.CancelFunc
	ctx       context.Context
	wg        sync.WaitGroup

	mu     sync.Mutex
	conns  map[io.Closer]struct{}
	closed bool
}

// hold registers a connection to be closed with the network; false when the
// network is closed already.
func (n *network) hold(c io.Closer) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return false
	}
	n.conns[c] = struct{}{}
	return true
}

// enter counts a running handler in wg; false when the network is closed.
func (n *network) enter() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return false
	}
	n.wg.Add(1)
	return true
}

func (n *network) drop(c io.Closer) {
	n.mu.Lock()
	delete(n.conns, c)
	n.mu.Unlock()
}

// Start serves on ports of its own choice.
func Start(o Options) (*Server, error) {
	o.fill()
	if o.Seed == 0 {
		o.Seed = rand.Int64N(1<<53) + 1
	}
	s := &Server{o: o, faults: newFaults(o.Seed), log: &capture{}}
	s.httpAddr = net.JoinHostPort(o.Listen, "0")
	s.c2sAddr, s.componentAddr = s.httpAddr, s.httpAddr
	if err := s.Restart(); err != nil {
		return nil, err
	}
	o.Logger.Info("xmpp server started", "shard", o.Shard, "domain", o.Domain, "http", s.httpAddr, "seed", o.Seed)
	return s, nil
}

// Restart serves again after Kill, on the same ports and with nothing in memory.
func (s *Server) Restart() error {
	s.ctl.Lock()
	defer s.ctl.Unlock()
	if s.net != nil {
		return nil
	}
	n := &network{conns: map[io.Closer]struct{}{}}
	n.ctx, n.cancel = context.WithCancel(context.Background())
	for _, a := range []*string{&s.httpAddr, &s.c2sAddr, &s.componentAddr} {
		l, err := net.Listen("tcp", *a)
		if err != nil {
			n.cancel()
			for _, l := range n.listeners {
				_ = l.Close()
			}
			return fmt.Errorf("xmppd: %w", err)
		}
		*a = l.Addr().String()
		n.listeners = append(n.listeners, l)
	}
	s.mu.Lock()
	s.reset()
	s.mu.Unlock()

	n.http = &http.Server{
		Handler:     s.handler(n),
		BaseContext: func(net.Listener) context.Context { return n.ctx },
		ConnContext: limitContext,
		ErrorLog:    nil,
	}
	web := n.listeners[0]
	if s.o.HTTPS {
		web = tls.NewListener(web, s.o.TLS)
	}
	n.wg.Add(3)
	go func() { defer n.wg.Done(); _ = n.http.Serve(web) }()
	go func() { defer n.wg.Done(); s.accept(n, n.listeners[1], s.serveClient) }()
	go func() { defer n.wg.Done(); s.accept(n, n.listeners[2], s.serveComponent) }()
	s.net = n
	return nil
}

// reset forgets everything in memory.
func (s *Server) reset() {
	s.hosts = map[string]*Host{}
	add := func(h Host) { s.hosts[h.Domain] = &h }
	add(Host{Domain: s.o.Domain, Kind: s.o.MainKind})
	add(Host{Domain: s.o.AuthDomain, Kind: Accounts})
	add(Host{Domain: s.o.GuestDomain, Kind: Anonymous})
	for _, h := range s.o.Hosts {
		add(h)
	}
	s.services = map[string]*mucService{}
	main := &mucService{s: s, domain: s.o.MUC, rooms: map[string]*room{}, conference: true}
	lobby := &mucService{s: s, domain: s.o.Lobby, rooms: map[string]*room{}, lobby: true}
	internal := &mucService{s: s, domain: s.o.InternalMUC, rooms: map[string]*room{}, allowed: s.o.InternalMUCHosts}
	for _, m := range []*mucService{main, lobby, internal} {
		s.services[m.domain] = m
	}
	s.sessions = map[string]*session{}
	s.bosh = map[string]*boshSession{}
	s.components = map[string]*component{}
	s.streams = map[*session]struct{}{}
	s.down = false
}

func (s *Server) accept(n *network, l net.Listener, serve func(*network, net.Conn)) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		if !n.hold(c) {
			_ = c.Close()
			return
		}
		n.wg.Add(1)
		go func() {
			defer n.wg.Done()
			defer n.drop(c)
			defer func() { _ = c.Close() }()
			serve(n, c)
		}()
	}
}

// Kill takes the server away as a crash would: listeners and connections close
// without a word, and everything in memory is lost.
func (s *Server) Kill() {
	s.ctl.Lock()
	defer s.ctl.Unlock()
	n := s.net
	if n == nil {
		return
	}
	s.net = nil
	s.mu.Lock()
	s.down = true
	for _, b := range s.bosh {
		b.stopTimers()
	}
	for x := range s.streams {
		x.closed = true
	}
	s.mu.Unlock()

	n.cancel()
	for _, l := range n.listeners {
		_ = l.Close()
	}
	_ = n.http.Close()
	n.mu.Lock()
	n.closed = true
	for c := range n.conns {
		_ = c.Close()
	}
	n.mu.Unlock()
	n.wg.Wait()
}

// Close ends the server. It waits for everything it started.
func (s *Server) Close() error {
	s.faults.Clear()
	s.Kill()
	return nil
}

// Options are the server's options with every default filled in.
func (s *Server) Options() Options { return s.o }

// Domain is the main XMPP domain.
func (s *Server) Domain() string { return s.o.Domain }

// MUC is the domain of the conferences.
func (s *Server) MUC() string { return s.o.MUC }

func (s *Server) web(ws bool) string {
	scheme := "http"
	if ws {
		scheme = "ws"
	}
	if s.o.HTTPS {
		scheme += "s"
	}
	return scheme + "://" + s.httpAddr
}

// HTTPURL is the base of the web server, without a path.
func (s *Server) HTTPURL() string { return s.web(false) }

// BOSHURL is the address of the BOSH service. A path segment before http-bind
// names a tenant.
func (s *Server) BOSHURL() string { return s.web(false) + "/http-bind" }

// WebSocketURL is the address of the WebSocket service.
func (s *Server) WebSocketURL() string { return s.web(true) + "/xmpp-websocket" }

// C2SAddr is the host and port of the client TCP service.
func (s *Server) C2SAddr() string { return s.c2sAddr }

// ComponentAddr is the host and port of the component service (XEP-0114).
func (s *Server) ComponentAddr() string { return s.componentAddr }

// Faults controls injected failures.
func (s *Server) Faults() *Faults { return s.faults }

// Seed is the seed of everything random in the faults.
func (s *Server) Seed() int64 { return s.o.Seed }

// Sessions counts bound client sessions.
func (s *Server) Sessions() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.sessions)
}

// SessionJIDs lists the full JIDs of bound client sessions.
func (s *Server) SessionJIDs() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []string
	for j := range s.sessions {
		out = append(out, j)
	}
	return out
}

// Components lists the domains of connected components.
func (s *Server) Components() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []string
	for d := range s.components {
		out = append(out, d)
	}
	return out
}

// Inject delivers a stanza, given as XML in the jabber:client namespace, to the
// session or component with that full JID as if it had been routed to it.
func (s *Server) Inject(to, stanza string) error {
	e, err := parse(stanza)
	if err != nil {
		return fmt.Errorf("inject: %w", err)
	}
	if e.NS == "" {
		e.remap("", nsClient)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if x := s.sessions[to]; x != nil {
		x.send(e)
		return nil
	}
	return fmt.Errorf("inject: no session %s", to)
}

// DropSession destroys a session as a lost connection would: its occupants
// leave, and the client is told nothing.
func (s *Server) DropSession(to string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	x := s.sessions[to]
	if x == nil {
		return fmt.Errorf("drop: no session %s", to)
	}
	x.destroy("connection lost")
	x.out.cut()
	return nil
}

// EndSession ends a session with a stream error condition (RFC 6120 §4.9.3) that
// the client is told.
func (s *Server) EndSession(to, condition, text string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	x := s.sessions[to]
	if x == nil {
		return fmt.Errorf("end: no session %s", to)
	}
	x.close(condition, text)
	return nil
}

// after runs f under the lock when d has passed, unless stopped.
func (s *Server) after(d time.Duration, f func()) *time.Timer {
	return time.AfterFunc(d, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if !s.down {
			f()
		}
	})
}
