package siptest

import (
	"encoding/binary"
	"net/netip"
	"time"
)

// comfortPT is the payload type of comfort noise (RFC 3389 §4).
const comfortPT = 13

// reports is what a phone knows by the peer's RTCP (RFC 3550 §6.4).
type reports struct {
	sr    uint32 // middle of the NTP time of the last sender report
	at    time.Time
	heard bool // a block about our stream came
	lost  int
}

// take reads a compound packet as far as it is in order.
func (r *reports) take(b []byte) {
	for len(b) >= 8 {
		n := 4 * (int(binary.BigEndian.Uint16(b[2:])) + 1)
		if n > len(b) {
			return
		}
		p, count := b[:n], int(b[0]&31)
		b = b[n:]
		blocks := 8
		switch p[1] {
		case 200:
			if blocks = 28; n < blocks {
				return
			}
			r.sr, r.at = binary.BigEndian.Uint32(p[10:]), time.Now()
		case 201:
		default:
			continue
		}
		if count > 0 && n >= blocks+24 {
			r.heard = true
			r.lost = int(int32(binary.BigEndian.Uint32(p[blocks+4:])<<8) >> 8)
		}
	}
}

// report sends a sender report with a block about the peer's stream. m.mu is
// held.
func (m *media) report() {
	const to1900 = 2208988800
	now := time.Now()
	b := []byte{0x81, 200, 0, 12}
	put := func(v uint32) { b = binary.BigEndian.AppendUint32(b, v) }
	put(m.ssrc)
	put(uint32(now.Unix() + to1900))
	put(uint32(uint64(now.Nanosecond()) << 32 / 1e9))
	put(m.ts)
	put(uint32(m.sent))
	put(uint32(m.octets))
	put(m.peerSSRC)
	fraction := uint32(0)
	if m.received > 0 {
		fraction = uint32(min(m.lost*256/(m.lost+m.received), 255))
	}
	put(fraction<<24 | uint32(m.lost)&0xffffff)
	put(uint32(m.lastSeq))
	put(uint32(m.f.clock / 1000)) // jitter: a millisecond
	put(m.reports.sr)
	delay := uint32(0)
	if m.reports.sr != 0 {
		delay = uint32(now.Sub(m.reports.at) * 65536 / time.Second)
	}
	put(delay)
	b = append(b, 0x81, 202, 0, 2)
	put(m.ssrc)
	b = append(b, 1, 1, 'p', 0)
	to := m.remote
	if b = m.srtp.encrypt(b, true); b != nil && to.Port() < 65535 {
		_, _ = m.rtcp.WriteToUDPAddrPort(b, netip.AddrPortFrom(to.Addr(), to.Port()+1))
	}
}
