package transport

import "encoding/binary"

// A kind is what a datagram is by its first bytes.
type kind uint8

const (
	kindUnknown kind = iota
	kindSTUN
	kindDTLS
	kindRTP
	kindRTCP
)

// classify tells the protocols on one port apart: RFC 7983 §7 by first byte,
// STUN also by its magic cookie (RFC 8489 §5), RTCP by its packet type (RFC
// 5761 §4). ZRTP, TURN channels and QUIC are unknown.
func classify(b []byte) kind {
	if len(b) == 0 {
		return kindUnknown
	}
	switch first := b[0]; {
	case first < 4:
		if len(b) >= 20 && binary.BigEndian.Uint32(b[4:]) == 0x2112a442 {
			return kindSTUN
		}
	case first >= 20 && first < 64:
		return kindDTLS
	case first >= 128 && first < 192:
		if len(b) < 2 {
			return kindUnknown
		}
		if b[1] >= 192 && b[1] < 224 {
			return kindRTCP
		}
		return kindRTP
	}
	return kindUnknown
}

const rtpHeaderLen, rtcpHeaderLen = 12, 8

// rtpPayload returns where the payload of an RTP packet begins (RFC 3550
// §5.1), false if the header does not fit.
func rtpPayload(b []byte) (int, bool) {
	if len(b) < rtpHeaderLen || b[0]>>6 != 2 {
		return 0, false
	}
	n := rtpHeaderLen + 4*int(b[0]&0x0f)
	if b[0]&0x10 != 0 {
		if len(b) < n+4 {
			return 0, false
		}
		n += 4 + 4*int(binary.BigEndian.Uint16(b[n+2:]))
	}
	return n, n <= len(b)
}

// validRTP checks all lengths of an RTP packet in the clear, padding included.
func validRTP(b []byte) bool {
	n, ok := rtpPayload(b)
	if !ok {
		return false
	}
	if b[0]&0x20 != 0 {
		padding := int(b[len(b)-1])
		return padding > 0 && n+padding <= len(b)
	}
	return true
}

// validRTCP checks the lengths of all packets of a compound RTCP packet in the
// clear (RFC 3550 §6.4, appendix A.2). Reduced-size RTCP (RFC 5506) is valid.
func validRTCP(b []byte) bool {
	if len(b) < rtcpHeaderLen {
		return false
	}
	for len(b) > 0 {
		if len(b) < 4 || b[0]>>6 != 2 || b[1] < 192 || b[1] >= 224 {
			return false
		}
		n := 4 + 4*int(binary.BigEndian.Uint16(b[2:]))
		if n > len(b) {
			return false
		}
		b = b[n:]
	}
	return true
}
