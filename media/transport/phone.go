package transport

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// PhoneOptions are the parameters of OpenPhone.
type PhoneOptions struct {
	Ports   *Ports        // nil: the operating system's choice
	Bind    netip.Addr    // zero: all addresses
	RTCPMux bool          // RTP and RTCP on one port (RFC 5761)
	Relatch time.Duration // silence before another source may be latched, default 5 s
	Logger  *slog.Logger  // nil: none

	HandshakeTimeout   time.Duration // for ICE and DTLS together, default 30 s
	RetransmitInterval time.Duration // of DTLS, default 200 ms, doubled with each
	Failed             func(error)   // DTLS came to nothing; nil: nobody is told
}

// A Phone is a leg of RTP or SRTP. Where packets go and whose are accepted is
// told by SetRemote and corrected by the packets that arrive: see SetRemote.
type Phone struct {
	log       *slog.Logger
	ring      *Ring
	o         PhoneOptions
	rtp, rtcp *socket // the same with RTCPMux
	readers   sync.WaitGroup

	mux     atomic.Bool              // RTCP goes over rtp
	secured atomic.Bool              // nothing goes in the clear
	out     atomic.Pointer[outbound] // nil: not known yet

	mu        sync.Mutex // below, and the ring's producer side: two readers
	rtpLatch  latch
	rtcpLatch latch
	in        *inbound // nil: in the clear, or not known yet
	sdes      *SDES    // as set
	ice       *iceLite // nil: none
	dtls      *association
	cert      *tls.Certificate // once it was asked for
	closed    bool

	replayed, unauthentic, tooManySources, early atomic.Uint64

	rtpDest, rtcpDest atomic.Pointer[netip.AddrPort] // where to send
	stats             counters
}

// PhoneStats counts packets; bytes are of UDP payload.
type PhoneStats struct {
	RTPReceived, RTCPReceived, BytesReceived uint64 // handed to the ring
	RTPSent, RTCPSent, BytesSent             uint64

	Invalid  uint64 // neither RTP nor RTCP, wrong lengths, too large
	Stranger uint64 // valid, but from an address that is not the far end's

	Early          uint64 // SRTP before its keys were known
	Replayed       uint64 // seen before or too old (RFC 3711 §3.3.2)
	Unauthentic    uint64 // wrong authentication tag
	TooManySources uint64 // of more SSRCs than are kept

	Full       uint64 // no room in the ring
	SendErrors uint64 // refused by the operating system
}

// OpenPhone opens the leg's sockets: one for RTP on an even port and one for
// RTCP on the next, or one for both. It returns ErrNoPorts when there are none.
func OpenPhone(o PhoneOptions) (*Phone, error) {
	if o.Relatch == 0 {
		o.Relatch = 5 * time.Second
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.HandshakeTimeout == 0 {
		o.HandshakeTimeout = 30 * time.Second
	}
	if o.RetransmitInterval == 0 {
		o.RetransmitInterval = 200 * time.Millisecond
	}
	p := &Phone{log: o.Logger, o: o, ring: NewRing()}
	p.mux.Store(o.RTCPMux)
	p.rtpLatch.silence, p.rtcpLatch.silence = o.Relatch, o.Relatch
	var err error
	if o.RTCPMux {
		p.rtp, err = o.Ports.listen(o.Bind)
		p.rtcp = p.rtp
	} else {
		p.rtp, p.rtcp, err = o.Ports.listenPair(o.Bind)
	}
	if err != nil {
		return nil, fmt.Errorf("open phone leg: %w", err)
	}
	p.readers.Go(func() { p.rtp.read(p.receive) })
	if p.rtcp != p.rtp {
		p.readers.Go(func() { p.rtcp.read(p.receiveRTCP) })
	}
	return p, nil
}

// Port is the local RTP port.
func (p *Phone) Port() int { return p.rtp.port }

// RTCPPort is the local RTCP port, the same as Port with RTCPMux.
func (p *Phone) RTCPPort() int { return p.rtcp.port }

// SetMux tells whether RTCP shares the RTP port (RFC 5761), on a leg that has
// two ports.
func (p *Phone) SetMux(mux bool) { p.mux.Store(mux || p.rtp == p.rtcp) }

// SetRemote tells the addresses of the far end's session description. An
// invalid or unspecified rtp (hold with c=0.0.0.0, a refused stream) stops
// sending and accepting. An invalid rtcp means the port after rtp's, or rtp
// itself with RTCPMux.
//
// The first valid RTP packet after SetRemote decides from whom packets are
// accepted and where RTP is sent; with SRTP it must be authentic. Later another
// source is followed only if the present one has been silent for
// [PhoneOptions.Relatch] and the new one is on its host or on the signalled
// host. For as long after the first packet the signalled address may correct
// the choice. With ICE the peer's checks decide and all this does not count.
// RTCP is accepted from the hosts of RTP and of rtcp only, and follows
// the same rule. Until a packet arrives, sends go where they went before if
// rtp is what it was, else to rtp.
func (p *Phone) SetRemote(rtp, rtcp netip.AddrPort) {
	rtp, rtcp = usable(rtp), usable(rtcp)
	mux := p.mux.Load()
	switch {
	case !rtp.IsValid():
		rtcp = netip.AddrPort{}
	case mux:
		rtcp = rtp
	case !rtcp.IsValid() && rtp.Port() < 65535:
		rtcp = netip.AddrPortFrom(rtp.Addr(), rtp.Port()+1)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ice != nil {
		return
	}
	if p.dtls != nil {
		p.dtls.signalled(rtp)
	}
	if p.rtpDest.Load() == nil || p.rtpLatch.signalled != rtp {
		p.rtpDest.Store(&rtp)
	}
	if p.rtcpDest.Load() == nil || p.rtcpLatch.signalled != rtcp {
		p.rtcpDest.Store(&rtcp)
	}
	p.rtpLatch.signal(rtp)
	p.rtcpLatch.signal(rtcp)
}

// usable returns addr as it appears as a packet's source, invalid if packets
// cannot be sent to it.
func usable(addr netip.AddrPort) netip.AddrPort {
	ip := addr.Addr().Unmap()
	if !ip.IsValid() || ip.IsUnspecified() || ip.IsMulticast() || addr.Port() == 0 {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(ip, addr.Port())
}

// Remote returns where RTP is sent now, invalid if nowhere.
func (p *Phone) Remote() netip.AddrPort {
	if dest := p.rtpDest.Load(); dest != nil {
		return *dest
	}
	return netip.AddrPort{}
}

// receive is for the port of RTP. b is overwritten.
func (p *Phone) receive(b []byte, from netip.AddrPort) {
	if len(b) > MTU {
		p.stats.invalid.Add(1)
		return
	}
	switch classify(b) {
	case kindRTP:
		p.receiveRTP(b, from)
		return
	case kindRTCP:
		if p.mux.Load() {
			p.receiveRTCP(b, from)
			return
		}
	case kindSTUN:
		if p.receiveSTUN(b, from) {
			return
		}
	case kindDTLS:
		if p.receiveDTLS(b, from) {
			return
		}
	}
	p.stats.invalid.Add(1)
}

func (p *Phone) receiveRTP(b []byte, from netip.AddrPort) {
	now := Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	secured := p.secured.Load()
	if !secured && !validRTP(b) {
		p.stats.invalid.Add(1)
		return
	}
	if p.ice != nil && !p.ice.checked(from) || p.ice == nil && !p.rtpLatch.allows(from, now) {
		p.stats.stranger.Add(1)
		return
	}
	if secured {
		if b = p.decrypt(b, false); b == nil {
			return
		}
	}
	if p.ice == nil {
		if _, moved := p.rtpLatch.accept(from, now); moved {
			p.latchRTP(from)
		}
	}
	p.push(b, now, false)
}

// decrypt returns the packet in the clear, nil if it is not to be heard. Call
// with mu held.
func (p *Phone) decrypt(b []byte, rtcp bool) []byte {
	if p.in == nil {
		p.early.Add(1)
		return nil
	}
	var v verdict
	if rtcp {
		b, v = p.in.decryptRTCP(b)
	} else {
		b, v = p.in.decryptRTP(b)
	}
	switch v {
	case accepted:
		return b
	case invalid:
		p.stats.invalid.Add(1)
	case replayed:
		p.replayed.Add(1)
	case unauthentic:
		p.unauthentic.Add(1)
	case tooManySources:
		p.tooManySources.Add(1)
	}
	return nil
}

// latchRTP makes from the far end's address. Not inlined, so that from is
// allocated here only.
//
//go:noinline
func (p *Phone) latchRTP(from netip.AddrPort) {
	if old := p.rtpDest.Load(); old == nil || *old != from {
		p.log.Info("RTP comes from another address than it was sent to", "from", from, "signalled", p.rtpLatch.signalled)
	}
	p.rtpDest.Store(&from)
	if p.mux.Load() {
		p.rtcpDest.Store(&from)
	}
}

func (p *Phone) receiveRTCP(b []byte, from netip.AddrPort) {
	secured := p.secured.Load()
	if len(b) > MTU || classify(b) != kindRTCP || !secured && !validRTCP(b) {
		p.stats.invalid.Add(1)
		return
	}
	now := Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.allowsRTCP(from, now) {
		p.stats.stranger.Add(1)
		return
	}
	if secured {
		if b = p.decrypt(b, true); b == nil {
			return
		}
	}
	if p.ice == nil && !p.mux.Load() {
		if _, moved := p.rtcpLatch.accept(from, now); moved {
			p.latchRTCP(from)
		}
	}
	p.push(b, now, true)
}

func (p *Phone) allowsRTCP(from netip.AddrPort, now time.Duration) bool {
	rtp := p.rtpLatch.latched()
	switch {
	case p.ice != nil:
		return p.ice.checked(from)
	case p.mux.Load():
		return rtp && from == p.rtpLatch.source || !rtp && from == p.rtpLatch.signalled
	case from.Addr() != p.rtcpLatch.signalled.Addr() && !(rtp && from.Addr() == p.rtpLatch.source.Addr()):
		return false
	}
	return p.rtcpLatch.allows(from, now)
}

//go:noinline
func (p *Phone) latchRTCP(from netip.AddrPort) { p.rtcpDest.Store(&from) }

// push hands a packet over. Call with mu held.
func (p *Phone) push(b []byte, now time.Duration, rtcp bool) {
	if !p.ring.Push(b, now, rtcp) {
		return
	}
	p.stats.received(len(b), rtcp)
}

// Ring implements Conn.
func (p *Phone) Ring() *Ring { return p.ring }

// SendRTP implements Conn.
func (p *Phone) SendRTP(b []byte) error { return p.send(p.rtp, &p.rtpDest, b, false) }

// SendRTCP implements Conn.
func (p *Phone) SendRTCP(b []byte) error {
	if p.mux.Load() {
		return p.send(p.rtp, &p.rtpDest, b, true)
	}
	return p.send(p.rtcp, &p.rtcpDest, b, true)
}

func (p *Phone) send(s *socket, dest *atomic.Pointer[netip.AddrPort], b []byte, rtcp bool) error {
	to := dest.Load()
	if to == nil || !to.IsValid() {
		return ErrNotConnected
	}
	if len(b) > MTU-Overhead {
		return ErrTooLarge
	}
	if p.secured.Load() {
		out := p.out.Load()
		if out == nil {
			return ErrNotConnected
		}
		var err error
		if rtcp {
			b, err = out.encryptRTCP(b)
		} else {
			b, err = out.encryptRTP(b)
		}
		if err != nil {
			return fmt.Errorf("encrypt: %w", err)
		}
	}
	return p.stats.send(s, b, *to, rtcp)
}

// Stats returns the counters.
func (p *Phone) Stats() PhoneStats {
	s := &p.stats
	return PhoneStats{
		RTPReceived: s.rtpIn.Load(), RTCPReceived: s.rtcpIn.Load(), BytesReceived: s.bytesIn.Load(),
		RTPSent: s.rtpOut.Load(), RTCPSent: s.rtcpOut.Load(), BytesSent: s.bytesOut.Load(),
		Invalid: s.invalid.Load(), Stranger: s.stranger.Load(),
		Early: p.early.Load(), Replayed: p.replayed.Load(), Unauthentic: p.unauthentic.Load(), TooManySources: p.tooManySources.Load(),
		Full: p.ring.Dropped(), SendErrors: s.sendErrors.Load(),
	}
}

// Close closes the sockets, waits for their readers and gives the ports back.
func (p *Phone) Close() error {
	p.mu.Lock()
	a := p.dtls
	p.closed, p.dtls = true, nil
	p.mu.Unlock()
	a.close()
	err := p.rtp.Close()
	if p.rtcp != p.rtp {
		if err2 := p.rtcp.Close(); err == nil {
			err = err2
		}
	}
	p.readers.Wait()
	return err
}
