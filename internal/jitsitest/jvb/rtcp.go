package jvb

import (
	"encoding/binary"
	"time"
)

// RTCP packet types (RFC 3550 §12.1).
const (
	ptSR = 200
	ptRR = 201
)

const opusClock = 48000

// reception is the receiver's side of RFC 3550 §6.4 and appendix A.
type reception struct {
	started                      bool
	base, highest                uint32 // extended sequence numbers
	packets                      uint32
	expectedBefore, packetsThere uint32
	transit                      int32
	jitter                       float64
	first                        time.Time
	lastSR                       uint32 // middle 32 bits of its NTP time
	lastSRAt                     time.Time
	fresh                        bool // something came since the last report
}

func (r *reception) received(seq uint16, ts uint32, now time.Time) {
	if !r.started {
		r.started, r.first = true, now
		r.base = 1<<16 | uint32(seq) // room for packets before the first
		r.highest = r.base
		r.packets = 1
		r.fresh = true
		r.transit = -int32(ts)
		return
	}
	r.fresh = true
	r.packets++
	if d := int16(seq - uint16(r.highest)); d > 0 {
		r.highest += uint32(d)
	}
	arrival := int32(uint32(now.Sub(r.first).Nanoseconds() * opusClock / int64(time.Second)))
	transit := arrival - int32(ts)
	d := transit - r.transit
	r.transit = transit
	if d < 0 {
		d = -d
	}
	r.jitter += (float64(d) - r.jitter) / 16
}

// block appends a report block (RFC 3550 §6.4.1).
func (r *reception) block(p []byte, ssrc uint32, now time.Time) []byte {
	expected := r.highest - r.base + 1
	lost := int64(expected) - int64(r.packets)
	interval, got := expected-r.expectedBefore, r.packets-r.packetsThere
	r.expectedBefore, r.packetsThere = expected, r.packets
	fraction := uint32(0)
	if interval > got {
		fraction = min((interval-got)<<8/interval, 255)
	}
	lost = max(min(lost, 1<<23-1), -(1 << 23))
	p = binary.BigEndian.AppendUint32(p, ssrc)
	p = binary.BigEndian.AppendUint32(p, fraction<<24|uint32(lost)&0xFFFFFF)
	p = binary.BigEndian.AppendUint32(p, r.highest)
	p = binary.BigEndian.AppendUint32(p, uint32(r.jitter))
	p = binary.BigEndian.AppendUint32(p, r.lastSR)
	delay := uint32(0)
	if r.lastSR != 0 {
		delay = uint32(now.Sub(r.lastSRAt).Seconds() * 65536)
	}
	return binary.BigEndian.AppendUint32(p, delay)
}

// tickReports sends the receiver report when it is due.
func (e *Endpoint) tickReports(now time.Time) {
	if e.srtpOut == nil || e.selected == nil || e.stats.DTLSConnected.IsZero() || now.Before(e.reportAt) {
		return
	}
	e.reportAt = now.Add(e.b.o.ReportInterval)
	p := append(e.b.scratch.build[:0], 0x80, ptRR, 0, 0)
	p = binary.BigEndian.AppendUint32(p, e.b.reportSSRC)
	n := byte(0)
	for ssrc, s := range e.sources {
		if !s.fresh || n == 31 {
			continue
		}
		s.fresh = false
		p = s.block(p, ssrc, now)
		n++
	}
	if n == 0 {
		return
	}
	p[0] |= n
	binary.BigEndian.PutUint16(p[2:], uint16(len(p)/4-1))
	e.sendRTCP(p)
}

func (e *Endpoint) sendRTCP(p []byte) {
	enc, err := e.srtpOut.EncryptRTCP(e.b.scratch.cipher, p, nil)
	if err != nil {
		return
	}
	e.stats.RTCPTo++
	e.b.send(e, kindRTCP, enc, e.selected.addr)
}

// handleRTCP counts what a client reports; sender reports go on to the
// others without their report blocks, everything else ends here.
func (b *Bridge) handleRTCP(e *Endpoint, p []byte) {
	if e.srtpIn == nil {
		return
	}
	plain, err := e.srtpIn.DecryptRTCP(b.scratch.plain, p, nil)
	if err != nil {
		e.stats.AuthErrors++
		return
	}
	now := time.Now()
	e.alive(now)
	e.stats.countRTCP(now)
	for len(plain) >= 8 && plain[0]>>6 == 2 {
		n := 4 * (int(binary.BigEndian.Uint16(plain[2:])) + 1)
		if n > len(plain) {
			return
		}
		switch plain[1] {
		case ptSR:
			e.stats.SenderReports++
			b.senderReport(e, plain[:n], now)
		case ptRR:
			e.stats.ReceiverReports++
		}
		plain = plain[n:]
	}
}

func (b *Bridge) senderReport(e *Endpoint, sr []byte, now time.Time) {
	const length = 28 // header and sender info
	if len(sr) < length {
		return
	}
	ssrc := u32(sr[4:])
	if !e.signalled[ssrc] {
		return
	}
	if s := e.sources[ssrc]; s != nil {
		s.lastSR = u32(sr[10:]) // low half of the seconds, high half of the fraction
		s.lastSRAt = now
	}
	out := append(b.scratch.build[:0], sr[:length]...)
	out[0] = 0x80
	binary.BigEndian.PutUint16(out[2:], length/4-1)
	for _, to := range e.conf.endpoints {
		if to != e && to.srtpOut != nil && to.selected != nil {
			to.sendRTCP(out)
		}
	}
}
