package media

import (
	"encoding/binary"
	"encoding/hex"
	"math/rand/v2"
	"time"

	"brewline/media/transport"
)

// leg is one side of a bridge: where its packets come from, and our stream
// towards it.
type leg struct {
	conn     transport.Conn
	ssrc     uint32
	pt       uint8
	clock    int // of timestamps, Hz
	seq      uint16
	ts       uint32 // of the frame that is due
	pause    bool   // the next packet follows a pause: marker
	packets  uint32
	octets   uint32
	sent     bool // since the last report but one
	sentWas  bool
	cname    string
	report   time.Duration // when the next report is due
	reported int           // length of the report being written
	stats    LegStats
	ring     uint64 // dropped by the rings of earlier conns
	lostWas  int64  // by the far end's reports of earlier streams
	lostNow  int64  // of this one
	last     time.Duration
	lastRTP  time.Duration
	errors   uint64
	refused  bool // a packet was refused and logged

	out [transport.MTU + transport.Overhead]byte
}

// attach puts a conn in its place. A stream whose SSRC stays goes on, another
// begins at random (RFC 3550 §5.1).
func (l *leg) attach(c transport.Conn, ssrc uint32, pt uint8, cname string) {
	l.detach()
	l.conn, l.pt = c, pt
	if ssrc == 0 || ssrc != l.ssrc {
		for ssrc == 0 {
			ssrc = rand.Uint32()
		}
		l.ssrc, l.seq, l.ts = ssrc, uint16(rand.Uint32N(1<<15)), rand.Uint32()
		l.packets, l.octets = 0, 0
		l.lostWas, l.lostNow = l.lostWas+l.lostNow, 0
	}
	if cname == "" { // RFC 7022 §4.2: a random one for the session
		var r [12]byte
		binary.BigEndian.PutUint64(r[:], rand.Uint64())
		binary.BigEndian.PutUint32(r[8:], rand.Uint32())
		cname = hex.EncodeToString(r[:])
	}
	l.cname = cname[:min(len(cname), maxCNAME)]
	l.pause, l.report, l.sent, l.sentWas, l.refused = true, 0, false, false, false
}

// detach says goodbye and lets go of the conn.
func (l *leg) detach() {
	if l.conn == nil {
		return
	}
	n, _ := putReport(l.out[:], l.ssrc, nil, 0)
	n += putSDES(l.out[n:], l.ssrc, l.cname)
	n += putBye(l.out[n:], l.ssrc)
	l.sendRTCP(n)
	l.ring += l.conn.Ring().Dropped()
	l.conn = nil
}

// header begins a packet of the stream with the timestamp that is due and
// returns its length.
func (l *leg) header(pt uint8) int {
	return putRTP(l.out[:], pt, l.pause, l.seq, l.ts, l.ssrc)
}

// payload is where a packet's payload goes after n bytes of header.
func (l *leg) payload(n int) []byte {
	return l.out[n : transport.MTU-transport.Overhead]
}

// send sends the packet that is in out: n bytes, of which header.
func (l *leg) send(n, header int) {
	l.seq++
	l.pause = false
	if l.conn.SendRTP(l.out[:n]) != nil {
		l.errors++
		return
	}
	l.packets++
	l.octets += uint32(n - header)
	l.sent = true
	l.stats.PacketsOut++
	l.stats.BytesOut += uint64(n - header)
}

func (l *leg) sendRTCP(n int) {
	if l.conn.SendRTCP(l.out[:n]) != nil {
		l.errors++
		return
	}
	l.stats.RTCPOut++
}

// reportDue tells whether it is time for a report (RFC 3550 §6.2). The first
// follows soon after the leg was attached.
func (l *leg) reportDue(now time.Duration) bool {
	if l.report == 0 {
		l.report = now + time.Duration(rand.Int64N(int64(rtcpMin/2)))
	}
	return now >= l.report
}

// beginReport writes a sender report if we sent anything in the last two
// intervals, else a receiver report (RFC 3550 §6.4), and returns its blocks.
func (l *leg) beginReport(wall time.Time, sources int) (blocks []byte) {
	var info *senderInfo
	if l.sent || l.sentWas {
		info = &senderInfo{ntpTime(wall), l.ts, l.packets, l.octets}
	}
	l.sentWas, l.sent = l.sent, false
	l.reported, blocks = putReport(l.out[:], l.ssrc, info, sources)
	return blocks
}

// endReport adds who we are and sends it.
func (l *leg) endReport(now time.Duration) {
	n := l.reported
	n += putSDES(l.out[n:], l.ssrc, l.cname)
	l.sendRTCP(n)
	l.report = now + rtcpMin + time.Duration(rand.Int64N(int64(rtcpMax-rtcpMin)))
}

// heard takes a report of our stream.
func (l *leg) heard(r reportBlock, ntp uint64) {
	l.stats.Reports++
	l.stats.RemoteLoss = float64(r.fraction) / 256
	l.lostNow = max(int64(r.lost), 0) // negative where packets came twice
	l.stats.RemoteLost = uint64(min(l.lostWas+l.lostNow, int64(l.stats.PacketsOut)))
	if l.clock > 0 {
		l.stats.RemoteJitter = min(ticks(int64(r.jitter), l.clock), time.Minute)
	}
	if r.lastSR != 0 {
		if rtt := int32(uint32(ntp>>16) - r.lastSR - r.delaySR); rtt >= 0 {
			l.stats.RoundTrip = time.Duration(rtt) * time.Second / 65536
		}
	}
}
