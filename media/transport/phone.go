package transport

import (
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
}

// A Phone is a leg of plain RTP. Where packets go and whose are accepted is
// told by SetRemote and corrected by the packets that arrive: see SetRemote.
type Phone struct {
	log       *slog.Logger
	ring      *Ring
	rtp, rtcp *socket // the same with RTCPMux
	readers   sync.WaitGroup

	mu        sync.Mutex // latches and the ring's producer side: two readers
	rtpLatch  latch
	rtcpLatch latch

	rtpDest, rtcpDest atomic.Pointer[netip.AddrPort] // where to send
	stats             counters
}

// PhoneStats counts packets; bytes are of UDP payload.
type PhoneStats struct {
	RTPReceived, RTCPReceived, BytesReceived uint64 // handed to the ring
	RTPSent, RTCPSent, BytesSent             uint64

	Invalid    uint64 // neither RTP nor RTCP, wrong lengths, too large
	Stranger   uint64 // valid, but from an address that is not the far end's
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
	p := &Phone{log: o.Logger, ring: NewRing()}
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
	if o.RTCPMux {
		p.readers.Go(func() { p.rtp.read(p.receive) })
	} else {
		p.readers.Go(func() { p.rtp.read(p.receiveRTP) })
		p.readers.Go(func() { p.rtcp.read(p.receiveRTCP) })
	}
	return p, nil
}

// Port is the local RTP port.
func (p *Phone) Port() int { return p.rtp.port }

// RTCPPort is the local RTCP port, the same as Port with RTCPMux.
func (p *Phone) RTCPPort() int { return p.rtcp.port }

// SetRemote tells the addresses of the far end's session description. An
// invalid or unspecified rtp (hold with c=0.0.0.0, a refused stream) stops
// sending and accepting. An invalid rtcp means the port after rtp's, or rtp
// itself with RTCPMux.
//
// The first valid RTP packet after SetRemote decides from whom packets are
// accepted and where RTP is sent. Later another source is followed only if it
// is the signalled address, or if the present one has been silent for
// [PhoneOptions.Relatch] and the new one is on its host or on the signalled
// host. RTCP is accepted from the hosts of RTP and of rtcp only, and follows
// the same rule. Until a packet arrives, sends go where they went before if
// rtp is what it was, else to rtp.
func (p *Phone) SetRemote(rtp, rtcp netip.AddrPort) {
	rtp, rtcp = usable(rtp), usable(rtcp)
	mux := p.rtp == p.rtcp
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

// receive is for a port that carries both.
func (p *Phone) receive(b []byte, from netip.AddrPort) {
	if classify(b) == kindRTCP {
		p.receiveRTCP(b, from)
	} else {
		p.receiveRTP(b, from)
	}
}

func (p *Phone) receiveRTP(b []byte, from netip.AddrPort) {
	if len(b) > MTU || classify(b) != kindRTP || !validRTP(b) {
		p.stats.invalid.Add(1)
		return
	}
	now := Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	ok, moved := p.rtpLatch.accept(from, now)
	if !ok {
		p.stats.stranger.Add(1)
		return
	}
	if moved {
		p.latchRTP(from)
	}
	p.push(b, now, false)
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
	if p.rtp == p.rtcp {
		p.rtcpDest.Store(&from)
	}
}

func (p *Phone) receiveRTCP(b []byte, from netip.AddrPort) {
	if len(b) > MTU || classify(b) != kindRTCP || !validRTCP(b) {
		p.stats.invalid.Add(1)
		return
	}
	now := Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.acceptRTCP(from, now) {
		p.stats.stranger.Add(1)
		return
	}
	p.push(b, now, true)
}

func (p *Phone) acceptRTCP(from netip.AddrPort, now time.Duration) bool {
	rtp := p.rtpLatch.latched()
	if p.rtp == p.rtcp {
		return rtp && from == p.rtpLatch.source || !rtp && from == p.rtpLatch.signalled
	}
	if from.Addr() != p.rtcpLatch.signalled.Addr() && !(rtp && from.Addr() == p.rtpLatch.source.Addr()) {
		return false
	}
	ok, moved := p.rtcpLatch.accept(from, now)
	if moved {
		p.latchRTCP(from)
	}
	return ok
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
func (p *Phone) SendRTCP(b []byte) error { return p.send(p.rtcp, &p.rtcpDest, b, true) }

func (p *Phone) send(s *socket, dest *atomic.Pointer[netip.AddrPort], b []byte, rtcp bool) error {
	to := dest.Load()
	if to == nil || !to.IsValid() {
		return ErrNotConnected
	}
	if len(b) > MTU-Overhead {
		return ErrTooLarge
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
		Full: p.ring.Dropped(), SendErrors: s.sendErrors.Load(),
	}
}

// Close closes the sockets, waits for their readers and gives the ports back.
func (p *Phone) Close() error {
	err := p.rtp.Close()
	if p.rtcp != p.rtp {
		if err2 := p.rtcp.Close(); err == nil {
			err = err2
		}
	}
	p.readers.Wait()
	return err
}
