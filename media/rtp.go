package media

import "encoding/binary"

const (
	rtpHeaderLen = 12
	ptCN         = 13 // comfort noise, RFC 3389
	// maxPayload is the largest payload that is taken from a packet.
	maxPayload = 1500
)

// rtpPacket is a parsed RTP packet (RFC 3550 §5.1). Its slices point into the
// packet.
type rtpPacket struct {
	pt       uint8
	marker   bool
	seq      uint16
	ts, ssrc uint32
	profile  uint16 // of the header extension
	ext      []byte
	payload  []byte
}

func parseRTP(b []byte) (p rtpPacket, ok bool) {
	if len(b) < rtpHeaderLen || b[0]>>6 != 2 {
		return p, false
	}
	p.marker, p.pt = b[1]&0x80 != 0, b[1]&0x7f
	p.seq = binary.BigEndian.Uint16(b[2:])
	p.ts = binary.BigEndian.Uint32(b[4:])
	p.ssrc = binary.BigEndian.Uint32(b[8:])
	rest := b[rtpHeaderLen:]
	if n := 4 * int(b[0]&0x0f); n > len(rest) {
		return p, false
	} else {
		rest = rest[n:]
	}
	if b[0]&0x10 != 0 {
		if len(rest) < 4 {
			return p, false
		}
		p.profile = binary.BigEndian.Uint16(rest)
		n := 4 * int(binary.BigEndian.Uint16(rest[2:]))
		if rest = rest[4:]; n > len(rest) {
			return p, false
		}
		p.ext, rest = rest[:n], rest[n:]
	}
	if b[0]&0x20 != 0 {
		if len(rest) == 0 {
			return p, false
		}
		n := int(rest[len(rest)-1])
		if n == 0 || n > len(rest) {
			return p, false
		}
		rest = rest[:len(rest)-n]
	}
	p.payload = rest
	return p, len(rest) <= maxPayload
}

// audioLevel finds the client-to-mixer audio level (RFC 6464 §3) under id, in
// one-byte or two-byte form (RFC 8285 §4.2, §4.3): 0 the loudest, 127 silence.
func (p *rtpPacket) audioLevel(id uint8) (level uint8, ok bool) {
	if id == 0 {
		return 0, false
	}
	e := p.ext
	switch {
	case p.profile == 0xbede:
		for len(e) > 0 {
			switch have, n := e[0]>>4, int(e[0]&0x0f)+1; {
			case e[0] == 0:
				e = e[1:]
			case have == 15 || len(e) < 1+n:
				return 0, false
			case have == id:
				return e[1] & 0x7f, true
			default:
				e = e[1+n:]
			}
		}
	case p.profile&0xfff0 == 0x1000:
		for len(e) > 0 {
			if e[0] == 0 {
				e = e[1:]
				continue
			}
			if len(e) < 2 || len(e) < 2+int(e[1]) {
				return 0, false
			}
			if e[0] == id && e[1] > 0 {
				return e[2] & 0x7f, true
			}
			e = e[2+int(e[1]):]
		}
	}
	return 0, false
}

// putRTP writes a header without extension and returns its length.
func putRTP(b []byte, pt uint8, marker bool, seq uint16, ts, ssrc uint32) int {
	b[0], b[1] = 0x80, pt&0x7f
	if marker {
		b[1] |= 0x80
	}
	binary.BigEndian.PutUint16(b[2:], seq)
	binary.BigEndian.PutUint32(b[4:], ts)
	binary.BigEndian.PutUint32(b[8:], ssrc)
	return rtpHeaderLen
}

// putLevel adds the audio level extension in one-byte form to the header of
// length n, and returns the new length.
func putLevel(b []byte, n int, id, level uint8, voice bool) int {
	b[0] |= 0x10
	binary.BigEndian.PutUint16(b[n:], 0xbede)
	binary.BigEndian.PutUint16(b[n+2:], 1)
	b[n+4], b[n+5], b[n+6], b[n+7] = id<<4, level, 0, 0
	if voice {
		b[n+5] |= 0x80
	}
	return n + 8
}
