package jvb

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	mrand "math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/pion/dtls/v3/pkg/crypto/selfsign"
)

// Errors of Bridge and Endpoint.
var (
	// ErrDown is returned by a bridge that crashed or was stopped.
	ErrDown = errors.New("bridge is down")
	// ErrUnknownEndpoint is returned for an endpoint that has expired.
	ErrUnknownEndpoint = errors.New("unknown endpoint")
	// ErrExists is returned when an endpoint is allocated twice.
	ErrExists = errors.New("endpoint exists")
)

// Bridge is a running videobridge. One goroutine reads the socket and
// forwards, one keeps the time; mu guards everything below it, endpoints'
// fields included.
type Bridge struct {
	o           Options
	conn        *net.UDPConn
	addr        netip.AddrPort
	cert        tls.Certificate
	fingerprint string
	feedback    uint32
	reportSSRC  uint32
	log         *slog.Logger

	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
	wake   chan struct{} // the delay queue got an earlier packet

	mu          sync.Mutex
	crashed     bool
	closing     bool // no endpoint any more
	stopped     bool // nothing is sent any more
	allocated   uint64
	conferences map[string]*conference
	byUfrag     map[string]*Endpoint
	byAddr      map[netip.AddrPort]*Endpoint
	delayed     delayQueue
	from, to    Faults
	scratch     scratch
}

type conference struct {
	name      string
	endpoints []*Endpoint // in order of allocation
}

// Start opens the bridge's UDP port and serves until Stop.
func Start(o Options) (*Bridge, error) {
	o.setDefaults()
	addr, err := netip.ParseAddrPort(o.Listen)
	if err != nil {
		return nil, fmt.Errorf("bridge %s: %w", o.ID, err)
	}
	for _, p := range o.Profiles {
		if _, ok := dtlsProfiles[p]; !ok {
			return nil, fmt.Errorf("bridge %s: no SRTP profile %q", o.ID, p)
		}
	}
	conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(addr))
	if err != nil {
		return nil, fmt.Errorf("bridge %s: %w", o.ID, err)
	}
	// A burst of a whole conference must not be lost in the socket.
	_ = conn.SetReadBuffer(4 << 20)
	_ = conn.SetWriteBuffer(4 << 20)
	cert, err := selfsign.GenerateSelfSigned() // ECDSA P-256
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("bridge %s: %w", o.ID, err)
	}
	b := &Bridge{
		o:           o,
		conn:        conn,
		addr:        conn.LocalAddr().(*net.UDPAddr).AddrPort(),
		cert:        cert,
		fingerprint: fingerprintOf(cert.Certificate[0]),
		feedback:    mrand.Uint32() | 1,
		reportSSRC:  mrand.Uint32() | 1,
		log:         o.Logger.With("bridge", o.ID),
		wake:        make(chan struct{}, 1),
		conferences: map[string]*conference{},
		byUfrag:     map[string]*Endpoint{},
		byAddr:      map[netip.AddrPort]*Endpoint{},
		from:        o.FromClients,
		to:          o.ToClients,
		scratch:     newScratch(),
	}
	b.ctx, b.cancel = context.WithCancel(context.Background())
	b.wg.Add(3)
	go b.read()
	go b.keepTime()
	go b.releaseDelayed()
	b.log.Info("bridge started", "addr", b.addr, "seed", o.Seed)
	return b, nil
}

func (o *Options) setDefaults() {
	o.ID = cmp.Or(o.ID, "jvb1")
	o.Listen = cmp.Or(o.Listen, "127.0.0.1:0")
	o.WebSocketURL = cmp.Or(o.WebSocketURL, "ws://127.0.0.1:9090/colibri-ws")
	if len(o.Profiles) == 0 {
		o.Profiles = []Profile{ProfileGCM, ProfileCM}
	}
	o.ReportInterval = cmp.Or(o.ReportInterval, 500*time.Millisecond)
	o.CheckInterval = cmp.Or(o.CheckInterval, 100*time.Millisecond)
	o.ConsentInterval = cmp.Or(o.ConsentInterval, 5*time.Second)
	o.ConsentTimeout = cmp.Or(o.ConsentTimeout, 30*time.Second)
	o.InactiveAfter = cmp.Or(o.InactiveAfter, 8*time.Second)
	o.FirstTransfer = cmp.Or(o.FirstTransfer, 15*time.Second)
	o.ExpireAfter = cmp.Or(o.ExpireAfter, time.Minute)
	o.HandshakeTimeout = cmp.Or(o.HandshakeTimeout, 30*time.Second)
	o.Seed = cmp.Or(o.Seed, uint64(time.Now().UnixNano()))
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
}

// ID returns Options.ID.
func (b *Bridge) ID() string { return b.o.ID }

// Region returns Options.Region.
func (b *Bridge) Region() string { return b.o.Region }

// Addr returns the bridge's UDP address, "ip:port".
func (b *Bridge) Addr() string { return b.addr.String() }

// Seed returns the seed of the faults.
func (b *Bridge) Seed() uint64 { return b.o.Seed }

// FeedbackSSRC is the SSRC of jvb-a0, the bridge's own source.
func (b *Bridge) FeedbackSSRC() uint32 { return b.feedback }

// ReportSSRC is the sender of the bridge's receiver reports; it is signalled
// nowhere.
func (b *Bridge) ReportSSRC() uint32 { return b.reportSSRC }

// Up says whether the bridge is neither stopped nor crashed.
func (b *Bridge) Up() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return !b.crashed && !b.closing
}

// Crash makes the bridge silently dead: its port stays bound and nothing is
// answered or sent any more. Stop must still be called.
func (b *Bridge) Crash() {
	b.mu.Lock()
	b.crashed = true
	b.mu.Unlock()
	b.log.Info("bridge crashed")
}

// Stop closes the port and waits until everything has ended. It is
// idempotent.
func (b *Bridge) Stop() error {
	b.mu.Lock()
	b.closing = true
	var gone []*Endpoint
	for _, c := range b.conferences {
		gone = append(gone, c.endpoints...)
	}
	for _, e := range gone {
		b.remove(e)
	}
	first := !b.stopped
	b.mu.Unlock()
	for _, e := range gone {
		e.shutdown()
	}
	b.mu.Lock()
	b.stopped = true
	b.mu.Unlock()
	b.cancel()
	var err error
	if first {
		err = b.conn.Close()
		b.log.Info("bridge stopped")
	}
	b.wg.Wait()
	return err
}

// Allocate makes an endpoint of a conference and its transport.
func (b *Bridge) Allocate(conf, endpoint string, o AllocOptions) (*Endpoint, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.crashed || b.closing {
		return nil, ErrDown
	}
	c := b.conferences[conf]
	if c == nil {
		c = &conference{name: conf}
	}
	for _, e := range c.endpoints {
		if e.ID == endpoint {
			return nil, fmt.Errorf("allocate %s: %w", endpoint, ErrExists)
		}
	}
	b.conferences[conf] = c
	e := b.newEndpoint(c, endpoint, o)
	c.endpoints = append(c.endpoints, e)
	b.byUfrag[e.Ufrag] = e
	b.log.Info("endpoint allocated", "conference", conf, "endpoint", endpoint)
	return e, nil
}

// Endpoint returns an endpoint, or nil when there is none.
func (b *Bridge) Endpoint(conf, endpoint string) *Endpoint {
	b.mu.Lock()
	defer b.mu.Unlock()
	if c := b.conferences[conf]; c != nil {
		for _, e := range c.endpoints {
			if e.ID == endpoint {
				return e
			}
		}
	}
	return nil
}

// Endpoints returns all endpoints of a conference, or of all conferences when
// it is empty.
func (b *Bridge) Endpoints(conf string) []*Endpoint {
	b.mu.Lock()
	defer b.mu.Unlock()
	var es []*Endpoint
	for name, c := range b.conferences {
		if conf == "" || name == conf {
			es = append(es, c.endpoints...)
		}
	}
	return es
}

// SetFaults replaces the faults of all endpoints and of those to come.
func (b *Bridge) SetFaults(fromClients, toClients Faults) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.from, b.to = fromClients, toClients
	for _, c := range b.conferences {
		for _, e := range c.endpoints {
			e.in.faults, e.out.faults = fromClients, toClients
		}
	}
}

// remove forgets an endpoint; the caller holds mu and calls shutdown after
// releasing it.
func (b *Bridge) remove(e *Endpoint) {
	if e.gone {
		return
	}
	e.gone = true
	delete(b.byUfrag, e.Ufrag)
	for a, x := range b.byAddr {
		if x == e {
			delete(b.byAddr, a)
		}
	}
	e.conf.endpoints = slices.DeleteFunc(e.conf.endpoints, func(x *Endpoint) bool { return x == e })
	if len(e.conf.endpoints) == 0 && b.conferences[e.conf.name] == e.conf {
		delete(b.conferences, e.conf.name)
	}
	close(e.expired)
}

// randomText returns n bytes of randomness as ICE characters.
func randomText(n int) string {
	buf := make([]byte, n)
	_, _ = rand.Read(buf) // never fails
	return base64.RawStdEncoding.EncodeToString(buf)
}

// hostPriority is RFC 8445 §5.1.2.1 for the only host candidate.
const hostPriority = 126<<24 | 65535<<8 | 255

func u32(b []byte) uint32 { return binary.BigEndian.Uint32(b) }
