package transport

import (
	"errors"
	"log/slog"
	"net/netip"
	"time"
)

// PhoneOptions are the parameters of OpenPhone.
type PhoneOptions struct {
	Ports   *Ports        // nil: any port
	Bind    netip.Addr    // zero: all addresses
	RTCPMux bool          // RTP and RTCP on one port (RFC 5761)
	Relatch time.Duration // silence before another source may be latched, default 5 s
	Logger  *slog.Logger
}

// Phone is a leg of plain RTP.
type Phone struct {
	ring *Ring
}

// PhoneStats counts what a Phone did.
type PhoneStats struct {
	RTPReceived, RTCPReceived, BytesReceived uint64
	RTPSent, RTCPSent, BytesSent             uint64
	Invalid, Stranger, Full, SendErrors      uint64
}

// OpenPhone opens the sockets.
func OpenPhone(o PhoneOptions) (*Phone, error) { return nil, errors.ErrUnsupported }

// Port is the local RTP port.
func (p *Phone) Port() int { return 0 }

// RTCPPort is the local RTCP port, the same as Port with RTCPMux.
func (p *Phone) RTCPPort() int { return 0 }

// SetRemote sets the addresses from the session description.
func (p *Phone) SetRemote(rtp, rtcp netip.AddrPort) {}

// Remote returns where RTP is sent now.
func (p *Phone) Remote() netip.AddrPort { return netip.AddrPort{} }

// Ring implements Conn.
func (p *Phone) Ring() *Ring { return p.ring }

// SendRTP implements Conn.
func (p *Phone) SendRTP(b []byte) error { return ErrNotConnected }

// SendRTCP implements Conn.
func (p *Phone) SendRTCP(b []byte) error { return ErrNotConnected }

// Stats returns the counters.
func (p *Phone) Stats() PhoneStats { return PhoneStats{} }

// Close closes the sockets and waits for their readers.
func (p *Phone) Close() error { return nil }
