package jvb

import (
	"encoding/binary"
	"time"
)

// Send sends an RTP packet, in the clear, to the endpoint's client, as if
// another endpoint of the conference had said it: a participant without a
// transport of its own. The packet passes the faults. It returns false while
// the client is not connected.
func (e *Endpoint) Send(packet []byte) bool {
	b := e.b
	b.mu.Lock()
	defer b.mu.Unlock()
	if e.gone || e.srtpOut == nil || e.selected == nil || len(packet) > maxPacket {
		return false
	}
	enc, err := e.srtpOut.EncryptRTP(b.scratch.cipher, packet, &b.scratch.header)
	if err != nil {
		return false
	}
	e.stats.RTPTo++
	b.send(e, kindRTP, enc, e.selected.addr)
	return true
}

// Tap has f called with every RTP packet of the client, in the clear, and when
// it was read. F runs on the bridge's reader: it must neither block, nor call
// into the bridge, nor keep the packet. Nil ends it.
func (e *Endpoint) Tap(f func(packet []byte, at time.Time)) {
	e.b.mu.Lock()
	defer e.b.mu.Unlock()
	e.tap = f
}

// AppendRTP begins a packet as the bridge makes them: header and, with a level
// id, the audio level extension in one-byte form (RFC 6464).
func AppendRTP(p []byte, pt uint8, seq uint16, ts, ssrc uint32, levelID, level uint8) []byte {
	first := byte(0x80)
	if levelID != 0 {
		first |= 0x10
	}
	p = append(p, first, pt)
	p = binary.BigEndian.AppendUint16(p, seq)
	p = binary.BigEndian.AppendUint32(p, ts)
	p = binary.BigEndian.AppendUint32(p, ssrc)
	if levelID != 0 {
		p = append(p, 0xBE, 0xDE, 0, 1, levelID<<4, level, 0, 0)
	}
	return p
}
