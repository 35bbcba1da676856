package transport

import (
	"context"
	"crypto"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pion/dtls/v3"
	"github.com/pion/ice/v4"
	"github.com/pion/transport/v5/stdnet"
)

// State is what is known of a connected Conference.
type State int

// The states of a Conference after Connect.
const (
	Connected    State = iota + 1 // the bridge answers
	Disconnected                  // no answer for ConferenceOptions.DisconnectedTimeout; may recover
	Failed                        // final: no answer for longer, or the bridge closed DTLS
)

func (s State) String() string {
	switch s {
	case Connected:
		return "connected"
	case Disconnected:
		return "disconnected"
	case Failed:
		return "failed"
	}
	return fmt.Sprintf("State(%d)", int(s))
}

var (
	// ErrICEFailed says that no pair of addresses worked, or stopped working
	// before DTLS was done.
	ErrICEFailed = errors.New("ICE failed")
	// ErrRemote says that the bridge's description cannot be used.
	ErrRemote = errors.New("unusable transport description")
)

// ConferenceOptions are the parameters of OpenConference.
type ConferenceOptions struct {
	Ports     *Ports     // nil: the operating system's choice
	Bind      netip.Addr // zero: all addresses
	Advertise netip.Addr // announced instead of the local addresses, for 1:1 NAT

	ConnectTimeout      time.Duration // for all of Connect, default 30 s
	CheckInterval       time.Duration // between rounds of ICE checks while connecting, default 50 ms
	KeepaliveInterval   time.Duration // between consent checks (RFC 7675), default 2 s
	DisconnectedTimeout time.Duration // without an answer until Disconnected, default 6 s
	FailedTimeout       time.Duration // in Disconnected until Failed, default 10 s; both together also limit checking
	RetransmitInterval  time.Duration // until the first DTLS retransmission, then doubling, default 200 ms

	// OnState is told of every change of state, one at a time. It must not
	// block and must not call Close.
	OnState func(State)
	Logger  *slog.Logger // nil: none
}

func (o *ConferenceOptions) setDefaults() {
	for _, d := range []struct {
		field *time.Duration
		value time.Duration
	}{
		{&o.ConnectTimeout, 30 * time.Second},
		{&o.CheckInterval, 50 * time.Millisecond},
		{&o.KeepaliveInterval, 2 * time.Second},
		{&o.DisconnectedTimeout, 6 * time.Second},
		{&o.FailedTimeout, 10 * time.Second},
		{&o.RetransmitInterval, 200 * time.Millisecond},
	} {
		if *d.field <= 0 {
			*d.field = d.value
		}
	}
	if o.OnState == nil {
		o.OnState = func(State) {}
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
}

// Local is our side of the transport description.
type Local struct {
	Ufrag, Pwd                   string
	FingerprintHash, Fingerprint string // "sha-256", "AB:CD:…"
	Candidates                   []Candidate
}

// Remote is the bridge's side of the transport description.
type Remote struct {
	Ufrag, Pwd                   string
	FingerprintHash, Fingerprint string
	Setup                        string // "actpass", "passive", "active"; "" is actpass
	Candidates                   []Candidate
}

// A Pair is the two addresses that ICE selected, for logs.
type Pair struct{ Local, Remote netip.AddrPort }

// ConferenceStats counts packets; bytes are of UDP payload in the clear.
type ConferenceStats struct {
	RTPReceived, RTCPReceived, BytesReceived uint64 // handed to the ring
	RTPSent, RTCPSent, BytesSent             uint64

	Early          uint64 // SRTP before its keys were known
	Stranger       uint64 // not from the selected pair's remote address
	Invalid        uint64 // of no known protocol, wrong lengths, too large
	Replayed       uint64 // seen before or too old (RFC 3711 §3.3.2)
	Unauthentic    uint64 // wrong authentication tag
	TooManySources uint64 // of more SSRCs than are kept
	Unread         uint64 // STUN or DTLS that came faster than it is treated
	Full           uint64 // no room in the ring
	SendErrors     uint64 // refused by the operating system
}

// A Conference is the transport to a videobridge: one socket that carries
// ICE, DTLS and SRTP. It is a [Conn] once Connect has returned nil.
type Conference struct {
	o      ConferenceOptions
	log    *slog.Logger
	ring   *Ring
	sock   *socket
	reader sync.WaitGroup

	agent        *ice.Agent
	stun4, stun6 *conduit // nil for a family the socket does not have
	dtls         *conduit
	cert         tls.Certificate
	local        Local

	pair    atomic.Pointer[Pair]
	in      atomic.Pointer[inbound]
	out     atomic.Pointer[outbound]
	profile atomic.Pointer[string]

	life    context.Context // ends with the context of OpenConference or Close
	end     context.CancelCauseFunc
	closing sync.Once

	mu         sync.Mutex // below
	started    bool       // Connect was called
	closed     bool
	fail       context.CancelCauseFunc // ends Connect
	connecting sync.WaitGroup          // added to with mu held and closed false

	dtlsConn *dtls.Conn // of Connect, then of Close

	stateMu sync.Mutex // orders OnState
	state   State

	stats                                                counters
	early, replayed, unauthentic, tooManySources, unread atomic.Uint64
}

// OpenConference opens the socket and gathers host candidates; nothing is sent
// yet. The Conference lives until Close or the end of ctx, whichever is first,
// and then gives everything back.
func OpenConference(ctx context.Context, o ConferenceOptions) (*Conference, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("open conference leg: %w", err)
	}
	o.setDefaults()
	c := &Conference{o: o, log: o.Logger, ring: NewRing()}
	if err := c.open(); err != nil {
		if c.agent != nil {
			c.agent.GracefulClose()
		}
		if c.sock != nil {
			c.sock.Close()
		}
		return nil, fmt.Errorf("open conference leg: %w", err)
	}
	c.life, c.end = context.WithCancelCause(ctx)
	c.reader.Go(func() { c.sock.read(c.receive) })
	context.AfterFunc(c.life, func() { c.Close() })
	return c, nil
}

func (c *Conference) open() error {
	var err error
	if c.cert, err = newCertificate(); err != nil {
		return err
	}
	if c.sock, err = c.o.Ports.listen(c.o.Bind); err != nil {
		return err
	}
	addrs, err := hostAddresses(c.o.Bind)
	if err != nil {
		return err
	}
	c.dtls = c.newDTLSConduit()
	if err := c.startAgent(addrs); err != nil {
		return fmt.Errorf("ICE: %w", err)
	}
	c.local.FingerprintHash = "sha-256"
	c.local.Fingerprint = formatFingerprint(crypto.SHA256, c.cert.Certificate[0])
	if c.o.Advertise.IsValid() {
		addrs = []netip.Addr{c.o.Advertise.Unmap()}
	}
	c.local.Candidates = hostCandidates(addrs, c.sock.port)
	return nil
}

// startAgent makes the ICE agent. It gets one local candidate per address
// family of our socket, since each costs it a goroutine and which one it
// believes to send from makes no difference on a socket bound to all.
func (c *Conference) startAgent(addrs []netip.Addr) error {
	var err error
	c.agent, err = ice.NewAgentWithOptions(
		ice.WithNet(&stdnet.Net{}), // without interfaces: it has none to know
		ice.WithMulticastDNSMode(ice.MulticastDNSModeDisabled),
		ice.WithNetworkTypes([]ice.NetworkType{ice.NetworkTypeUDP4, ice.NetworkTypeUDP6}),
		ice.WithCheckInterval(c.o.CheckInterval),
		ice.WithKeepaliveInterval(c.o.KeepaliveInterval),
		ice.WithDisconnectedTimeout(c.o.DisconnectedTimeout),
		ice.WithFailedTimeout(c.o.FailedTimeout),
		// Pairs are given up by FailedTimeout, not by the number of checks:
		// the bridge may get our session-accept late.
		ice.WithMaxBindingRequests(10_000),
		ice.WithLoggerFactory(pionLog{c.log}),
	)
	if err != nil {
		return err
	}
	if c.local.Ufrag, c.local.Pwd, err = c.agent.GetLocalUserCredentials(); err != nil {
		return err
	}
	c.agent.OnConnectionStateChange(c.iceState)
	c.agent.OnSelectedCandidatePairChange(func(local, remote ice.Candidate) {
		if pair := newPair(local, remote); pair != nil {
			c.pair.Store(pair)
			c.log.Debug("ICE selected a pair", "local", pair.Local, "remote", pair.Remote)
		}
	})
	for _, addr := range addrs {
		stun := &c.stun4
		if addr.Is6() {
			stun = &c.stun6
		}
		if *stun != nil || addr.Is6() && c.sock.isIPv4() {
			continue
		}
		cand, err := ice.NewCandidateHost(&ice.CandidateHostConfig{
			Network: "udp", Address: addr.WithZone("").String(), Port: c.sock.port, Component: 1,
		})
		if err != nil {
			return err
		}
		conn := newConduit(net.UDPAddrFromAddrPort(netip.AddrPortFrom(addr, uint16(c.sock.port))), c.write)
		if err := c.agent.AddVirtualCandidate(cand, conn); err != nil {
			return err
		}
		*stun = conn
	}
	if c.stun4 == nil && c.stun6 == nil {
		return errors.New("no local address")
	}
	return nil
}

// newPair translates a pair of Pion's, nil if its addresses are no literals.
func newPair(local, remote ice.Candidate) *Pair {
	l, err1 := netip.ParseAddr(local.Address())
	r, err2 := netip.ParseAddr(remote.Address())
	if err1 != nil || err2 != nil {
		return nil
	}
	return &Pair{
		Local:  netip.AddrPortFrom(l, uint16(local.Port())),
		Remote: netip.AddrPortFrom(r.Unmap(), uint16(remote.Port())),
	}
}

// Local returns what to tell the bridge.
func (c *Conference) Local() Local { return c.local }

// SetupFor returns the DTLS setup attribute that answers the offered one (RFC
// 5763 §5): "active" unless the bridge insists on that role, then "passive".
// "holdconn" and anything unknown give ErrRemote.
func SetupFor(offered string) (string, error) {
	switch offered {
	case "", "actpass", "passive":
		return "active", nil
	case "active":
		return "passive", nil
	}
	return "", fmt.Errorf("%w: setup %.20q", ErrRemote, offered)
}

// Connect runs ICE in the controlled role, then DTLS, and installs the SRTP
// keys. It may be called once. Errors: ErrRemote, ErrICEFailed, ErrFingerprint,
// the context's, context.DeadlineExceeded after ConnectTimeout, net.ErrClosed
// after Close. After an error the Conference is still to be closed.
func (c *Conference) Connect(ctx context.Context, r Remote) error {
	setup, err := SetupFor(r.Setup)
	if err != nil {
		return err
	}
	fp, err := parseFingerprint(r.FingerprintHash, r.Fingerprint)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrRemote, err)
	}
	if r.Ufrag == "" || r.Pwd == "" || len(r.Ufrag) > 256 || len(r.Pwd) > 256 {
		return fmt.Errorf("%w: ICE ufrag or password missing or too long", ErrRemote)
	}

	ctx, cancel := context.WithTimeout(ctx, c.o.ConnectTimeout)
	defer cancel()
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	defer context.AfterFunc(c.life, func() { fail(context.Cause(c.life)) })()
	if err := c.begin(fail); err != nil {
		return err
	}
	defer c.connecting.Done()

	if err := c.connectICE(ctx, r); err != nil {
		return fmt.Errorf("ICE: %w", reason(ctx, err))
	}
	if err := c.connectDTLS(ctx, setup == "active", fp); err != nil {
		return fmt.Errorf("DTLS: %w", reason(ctx, err))
	}
	c.setState(Connected)
	return nil
}

// reason prefers why ctx ended to err, which is then only a consequence.
func reason(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

// begin claims the one Connect. If it succeeds connecting.Done is owed.
func (c *Conference) begin(fail context.CancelCauseFunc) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.closed:
		return fmt.Errorf("transport: %w", net.ErrClosed)
	case c.started:
		return errors.New("transport: Connect called twice")
	}
	c.started, c.fail = true, fail
	c.connecting.Add(1)
	return nil
}

func (c *Conference) connectICE(ctx context.Context, r Remote) error {
	for _, cand := range remoteCandidates(r.Candidates) {
		if err := c.agent.AddRemoteCandidate(cand); err != nil {
			return err
		}
	}
	if _, err := c.agent.Accept(ctx, r.Ufrag, r.Pwd); err != nil {
		return err
	}
	if c.pair.Load() != nil {
		return nil
	}
	// OnSelectedCandidatePairChange has not been called yet.
	selected, err := c.agent.GetSelectedCandidatePair()
	if err != nil {
		return err
	}
	if selected == nil {
		return ErrICEFailed
	}
	pair := newPair(selected.Local, selected.Remote)
	if pair == nil {
		return ErrICEFailed
	}
	c.pair.CompareAndSwap(nil, pair)
	return nil
}

func (c *Conference) connectDTLS(ctx context.Context, client bool, fp fingerprint) error {
	conn, err := c.newDTLS(client, fp)
	if err != nil {
		return err
	}
	c.dtlsConn = conn
	if err := conn.HandshakeContext(ctx); err != nil {
		return err
	}
	in, out, profile, err := newSRTP(conn, client)
	if err != nil {
		return err
	}
	c.in.Store(in)
	c.out.Store(out)
	c.profile.Store(&profile)
	select {
	case <-c.dtls.closed: // before there was a state to report
		return errors.New("closed by the bridge")
	default:
		return nil
	}
}

// iceState is called by Pion, one change at a time.
func (c *Conference) iceState(s ice.ConnectionState) {
	switch s {
	case ice.ConnectionStateConnected:
		c.setState(Connected)
	case ice.ConnectionStateDisconnected:
		c.setState(Disconnected)
	case ice.ConnectionStateFailed:
		c.mu.Lock()
		if c.fail != nil {
			c.fail(ErrICEFailed) // if Connect is still under way
		}
		c.mu.Unlock()
		c.setState(Failed)
	}
}

// setState reports a change, unless Connect is still under way, Close has
// begun, or a failure has been reported.
func (c *Conference) setState(s State) {
	c.mu.Lock()
	silent := c.closed || c.out.Load() == nil
	c.mu.Unlock()
	c.stateMu.Lock()
	defer c.stateMu.Unlock()
	if silent || s == c.state || c.state == Failed {
		return
	}
	c.state = s
	c.log.Info("transport "+s.String(), "profile", c.Profile(), "remote", c.remote())
	c.o.OnState(s)
}

// Profile names the SRTP profile in use, "" before Connect.
func (c *Conference) Profile() string {
	if p := c.profile.Load(); p != nil {
		return *p
	}
	return ""
}

// SelectedPair returns the addresses in use, false if there are none yet.
func (c *Conference) SelectedPair() (Pair, bool) {
	if p := c.pair.Load(); p != nil {
		return *p, true
	}
	return Pair{}, false
}

func (c *Conference) remote() netip.AddrPort {
	pair, _ := c.SelectedPair()
	return pair.Remote
}

// Ring implements Conn.
func (c *Conference) Ring() *Ring { return c.ring }

// SendRTP implements Conn.
func (c *Conference) SendRTP(b []byte) error { return c.send(b, false) }

// SendRTCP implements Conn.
func (c *Conference) SendRTCP(b []byte) error { return c.send(b, true) }

func (c *Conference) send(b []byte, rtcp bool) (err error) {
	out, pair := c.out.Load(), c.pair.Load()
	if out == nil || pair == nil {
		return ErrNotConnected
	}
	if len(b) > MTU-Overhead {
		return ErrTooLarge
	}
	if rtcp {
		b, err = out.encryptRTCP(b)
	} else {
		b, err = out.encryptRTP(b)
	}
	if err != nil {
		return fmt.Errorf("encrypt: %w", err)
	}
	return c.stats.send(c.sock, b, pair.Remote, rtcp)
}

// write sends what Pion made.
func (c *Conference) write(b []byte, to netip.AddrPort) error {
	_, err := c.sock.WriteToUDPAddrPort(b, to)
	if err != nil {
		c.stats.sendErrors.Add(1)
	}
	return err
}

// Stats returns the counters.
func (c *Conference) Stats() ConferenceStats {
	s := &c.stats
	return ConferenceStats{
		RTPReceived: s.rtpIn.Load(), RTCPReceived: s.rtcpIn.Load(), BytesReceived: s.bytesIn.Load(),
		RTPSent: s.rtpOut.Load(), RTCPSent: s.rtcpOut.Load(), BytesSent: s.bytesOut.Load(),
		Early: c.early.Load(), Stranger: s.stranger.Load(), Invalid: s.invalid.Load(),
		Replayed: c.replayed.Load(), Unauthentic: c.unauthentic.Load(),
		TooManySources: c.tooManySources.Load(), Unread: c.unread.Load(),
		Full: c.ring.Dropped(), SendErrors: s.sendErrors.Load(),
	}
}

// Close ends a Connect under way, tells the bridge (close_notify), and gives
// the socket, the port and all goroutines back. It may be called at any time
// and more than once.
func (c *Conference) Close() error {
	c.closing.Do(func() {
		c.mu.Lock()
		c.closed = true
		c.mu.Unlock()
		c.end(fmt.Errorf("transport: %w", net.ErrClosed))
		c.connecting.Wait()
		if c.dtlsConn != nil {
			c.dtlsConn.Close()
		}
		c.agent.GracefulClose()
		c.sock.Close()
		c.reader.Wait()
	})
	return nil
}
