package jvb

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/pion/dtls/v3"
	"github.com/pion/srtp/v3"
)

// Endpoint is one client of the bridge.
type Endpoint struct {
	// Conference and ID are what Allocate was given.
	Conference, ID string
	// Ufrag, Pwd, FingerprintHash, Fingerprint and Candidates are the
	// bridge's side of the transport; the DTLS setup is "actpass".
	Ufrag, Pwd                   string
	FingerprintHash, Fingerprint string
	Candidates                   []Candidate
	// WebSocket is the colibri-ws URL; nothing listens there.
	WebSocket string

	b       *Bridge
	conf    *conference
	o       AllocOptions
	ready   chan struct{} // ICE has a selected pair
	secured chan struct{} // SRTP is ready
	expired chan struct{}
	ctx     context.Context
	cancel  context.CancelFunc
	packets *packetConn // DTLS in and out
	done    sync.WaitGroup

	// guarded by b.mu
	gone      bool
	remote    Remote
	started   bool
	pairs     []*pair
	selected  *pair
	known     []netip.AddrPort // addresses learned before SetRemote
	dtls      *dtls.Conn
	srtpIn    *srtp.Context
	srtpOut   *srtp.Context
	signalled map[uint32]bool
	sources   map[uint32]*source
	muted     bool
	in, out   direction
	born      time.Time
	active    time.Time // last sign of life
	heard     bool      // active was ever set by the client
	inactive  bool
	reportAt  time.Time
	stats     Stats
	tap       func(packet []byte, at time.Time)
}

func (b *Bridge) newEndpoint(c *conference, id string, o AllocOptions) *Endpoint {
	now := time.Now()
	e := &Endpoint{
		Conference:      c.name,
		ID:              id,
		Ufrag:           randomText(6),
		Pwd:             randomText(18),
		FingerprintHash: "sha-256",
		Fingerprint:     b.fingerprint,
		b:               b,
		conf:            c,
		o:               o,
		ready:           make(chan struct{}),
		secured:         make(chan struct{}),
		expired:         make(chan struct{}),
		signalled:       map[uint32]bool{},
		sources:         map[uint32]*source{},
		in:              newDirection(b.o.Seed, 2*b.allocated, b.from),
		out:             newDirection(b.o.Seed, 2*b.allocated+1, b.to),
		born:            now,
		active:          now,
	}
	b.allocated++
	e.WebSocket = fmt.Sprintf("%s/%s/%x/%s?pwd=%s", b.o.WebSocketURL, b.o.ID, c.name, id, randomText(9))
	e.Candidates = append(e.Candidates, b.o.ExtraCandidates...)
	e.Candidates = append(e.Candidates, Candidate{
		Foundation: "1", Component: 1, Protocol: "udp", Priority: hostPriority,
		IP: b.addr.Addr().String(), Port: int(b.addr.Port()), Type: "host",
	})
	e.ctx, e.cancel = context.WithCancel(b.ctx)
	e.packets = newPacketConn(net.UDPAddrFromAddrPort(b.addr), e.writeDTLS)
	return e
}

// Bridge returns the bridge that has the endpoint.
func (e *Endpoint) Bridge() *Bridge { return e.b }

// SetRemote gives the endpoint its client's transport: the bridge begins its
// checks now. It may be called again to add candidates; other credentials
// are an error.
func (e *Endpoint) SetRemote(r Remote) error {
	if r.Ufrag == "" || r.Pwd == "" || r.Fingerprint == "" {
		return errors.New("transport lacks ufrag, pwd or fingerprint")
	}
	if r.Setup == "passive" {
		return errors.New("the bridge is the DTLS server: setup must be active")
	}
	if !knownHash(r.FingerprintHash) {
		return fmt.Errorf("fingerprint hash %q is not supported", r.FingerprintHash)
	}
	b := e.b
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.crashed {
		return ErrDown
	}
	if e.gone {
		return ErrUnknownEndpoint
	}
	if e.started && (r.Ufrag != e.remote.Ufrag || r.Pwd != e.remote.Pwd || !strings.EqualFold(r.Fingerprint, e.remote.Fingerprint)) {
		return errors.New("transport has other credentials than before")
	}
	first := !e.started
	e.remote, e.started = r, true
	if first {
		e.done.Add(1)
		go e.secure()
	}
	e.startChecks(r.Candidates)
	return nil
}

// SetSources replaces the audio SSRCs that the client has signalled; others
// are dropped.
func (e *Endpoint) SetSources(ssrcs []uint32) error {
	e.b.mu.Lock()
	defer e.b.mu.Unlock()
	if e.gone {
		return ErrUnknownEndpoint
	}
	clear(e.signalled)
	for _, s := range ssrcs {
		e.signalled[s] = true
	}
	for ssrc := range e.sources {
		if !e.signalled[ssrc] {
			delete(e.sources, ssrc)
		}
	}
	return nil
}

// SetForceMute makes the bridge drop the client's audio, as far as it carries
// the audio level extension.
func (e *Endpoint) SetForceMute(mute bool) error {
	e.b.mu.Lock()
	defer e.b.mu.Unlock()
	if e.gone {
		return ErrUnknownEndpoint
	}
	e.muted = mute
	return nil
}

// SetFaults replaces the endpoint's faults.
func (e *Endpoint) SetFaults(fromClient, toClient Faults) {
	e.b.mu.Lock()
	defer e.b.mu.Unlock()
	e.in.faults, e.out.faults = fromClient, toClient
}

// Expire removes the endpoint, with a DTLS close_notify to the client.
func (e *Endpoint) Expire() {
	e.b.mu.Lock()
	e.b.remove(e)
	e.b.mu.Unlock()
	e.shutdown()
}

// shutdown ends what runs for a removed endpoint; b.mu must not be held.
func (e *Endpoint) shutdown() {
	e.cancel()
	e.done.Wait()
	e.b.mu.Lock()
	conn := e.dtls
	e.dtls = nil
	e.b.mu.Unlock()
	if conn != nil {
		_ = conn.Close() // the close_notify is best effort
	}
	_ = e.packets.Close()
}

// Connected is closed when SRTP is ready.
func (e *Endpoint) Connected() <-chan struct{} { return e.secured }

// Expired is closed when the endpoint is gone.
func (e *Endpoint) Expired() <-chan struct{} { return e.expired }
