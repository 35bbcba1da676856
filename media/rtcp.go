package media

import (
	"encoding/binary"
	"time"
)

// RTCP packet types, RFC 3550 §12.1.
const (
	rtcpSR   = 200
	rtcpRR   = 201
	rtcpSDES = 202
	rtcpBye  = 203
)

const (
	// rtcpMin and rtcpMax bound the time between our reports: the videobridge
	// takes them for a sign of life.
	rtcpMin  = 1000 * time.Millisecond
	rtcpMax  = 2500 * time.Millisecond
	maxCNAME = 64
)

// senderInfo is what a sender report says of our stream (RFC 3550 §6.4.1).
type senderInfo struct {
	ntp             uint64
	ts              uint32
	packets, octets uint32
}

// ntpTime is wall-clock time as NTP has it: seconds since 1900, 32.32 bits.
func ntpTime(t time.Time) uint64 {
	const from1900 = 2208988800
	return uint64(t.Unix()+from1900)<<32 | uint64(t.Nanosecond())<<32/1_000_000_000
}

// rtcpHeader writes a header for a packet of n bytes.
func rtcpHeader(b []byte, count int, kind byte, n int) {
	b[0], b[1] = 0x80|byte(count), kind
	binary.BigEndian.PutUint16(b[2:], uint16(n/4-1))
}

// putReport writes a sender report, or without s a receiver report, with room
// for n report blocks, and returns its length and the blocks.
func putReport(b []byte, ssrc uint32, s *senderInfo, n int) (length int, blocks []byte) {
	length, kind := 8, byte(rtcpRR)
	if s != nil {
		kind = rtcpSR
		binary.BigEndian.PutUint64(b[8:], s.ntp)
		binary.BigEndian.PutUint32(b[16:], s.ts)
		binary.BigEndian.PutUint32(b[20:], s.packets)
		binary.BigEndian.PutUint32(b[24:], s.octets)
		length = 28
	}
	binary.BigEndian.PutUint32(b[4:], ssrc)
	blocks = b[length : length+24*n]
	length += 24 * n
	rtcpHeader(b, n, kind, length)
	return length, blocks
}

// putSDES writes a source description with the CNAME and returns its length.
func putSDES(b []byte, ssrc uint32, cname string) int {
	binary.BigEndian.PutUint32(b[4:], ssrc)
	b[8], b[9] = 1, byte(len(cname))
	n := 10 + copy(b[10:], cname)
	for b[n] = 0; n%4 != 3; b[n] = 0 { // at least one null item
		n++
	}
	n++
	rtcpHeader(b, 1, rtcpSDES, n)
	return n
}

// putBye writes a BYE and returns its length.
func putBye(b []byte, ssrc uint32) int {
	binary.BigEndian.PutUint32(b[4:], ssrc)
	rtcpHeader(b, 1, rtcpBye, 8)
	return 8
}

// rtcpEvents is told what a compound packet says. A report is of the source
// ssrc by the sender reporter.
type rtcpEvents interface {
	senderReport(ssrc uint32, ntp uint64, ts uint32)
	reportOf(ssrc uint32, r reportBlock)
	bye(ssrc uint32)
}

// reportBlock is what one receiver says of one stream (RFC 3550 §6.4.1).
type reportBlock struct {
	fraction        uint8
	lost            int32
	highest, jitter uint32
	lastSR, delaySR uint32
}

// parseRTCP goes through a compound packet (RFC 3550 §6.1). It returns false
// where the packet is not in order; what came before has been told.
func parseRTCP(b []byte, to rtcpEvents) bool {
	if len(b) < 8 {
		return false
	}
	for len(b) > 0 {
		if len(b) < 4 || b[0]>>6 != 2 {
			return false
		}
		n := 4 * (int(binary.BigEndian.Uint16(b[2:])) + 1)
		if n > len(b) {
			return false
		}
		p, count, kind := b[4:n], int(b[0]&0x1f), b[1]
		if b[0]&0x20 != 0 {
			if len(p) == 0 || int(p[len(p)-1]) == 0 || int(p[len(p)-1]) > len(p) {
				return false
			}
			p = p[:len(p)-int(p[len(p)-1])]
		}
		b = b[n:]
		switch kind {
		case rtcpSR:
			if len(p) < 24 {
				return false
			}
			to.senderReport(binary.BigEndian.Uint32(p), binary.BigEndian.Uint64(p[4:]), binary.BigEndian.Uint32(p[12:]))
			if !parseReports(p[24:], count, to) {
				return false
			}
		case rtcpRR:
			if len(p) < 4 || !parseReports(p[4:], count, to) {
				return false
			}
		case rtcpBye:
			if len(p) < 4*count {
				return false
			}
			for i := range count {
				to.bye(binary.BigEndian.Uint32(p[4*i:]))
			}
		}
	}
	return true
}

func parseReports(p []byte, count int, to rtcpEvents) bool {
	if len(p) < 24*count {
		return false
	}
	for i := range count {
		r := p[24*i:]
		lost := binary.BigEndian.Uint32(r[4:])
		to.reportOf(binary.BigEndian.Uint32(r), reportBlock{
			fraction: uint8(lost >> 24),
			lost:     int32(lost<<8) >> 8,
			highest:  binary.BigEndian.Uint32(r[8:]),
			jitter:   binary.BigEndian.Uint32(r[12:]),
			lastSR:   binary.BigEndian.Uint32(r[16:]),
			delaySR:  binary.BigEndian.Uint32(r[20:]),
		})
	}
	return true
}
