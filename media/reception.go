package media

import (
	"encoding/binary"
	"time"
)

// Bounds of RFC 3550 appendix A.1: how far a sequence number may run ahead or
// fall behind before it is taken for another stream's.
const (
	maxDropout  = 3000
	maxMisorder = 100
)

type verdict uint8

const (
	inOrder   verdict = iota // or out of it, but of this stream
	restarted                // the stream begins anew: forget what was buffered
	bogus                    // to be ignored
)

// reception numbers the packets of one RTP stream without wrapping, and keeps
// what a report block needs (RFC 3550 §6.4.1, A.1, A.3, A.8).
type reception struct {
	clock   int // Hz
	started bool
	seq     int64 // highest so far
	ts      int64 // of the packet with seq; counted from 0 at the beginning
	ts32    uint32
	bad     int32 // the sequence number that would prove a jump, -1 none

	base         int64 // first seq
	gone         int64 // packets lost before
	received     int64
	prevExpected int64
	prevReceived int64
	jitter       int64 // of the RTP clock, times 16
	lastTransit  time.Duration
	lastSR       uint32 // middle of its NTP time
	lastSRAt     time.Duration
	late         lateness
	lastAt       time.Duration
}

// place numbers a packet. audio is false for packets whose timestamp does not
// tell when they were sent, as telephone-events.
func (r *reception) place(p *rtpPacket, at time.Duration, audio bool) (seq, ts int64, v verdict) {
	ts = r.ts + int64(int32(p.ts-r.ts32))
	transit := at - r.when(ts)
	switch d := int64(int16(p.seq - uint16(r.seq))); {
	case !r.started:
		v = restarted
	case d > 0 && d < maxDropout, d <= 0 && d > -maxMisorder && !(audio && r.late.jumps(transit)):
		seq, r.bad = r.seq+d, -1
	case r.bad == int32(p.seq):
		v = restarted
	default:
		r.bad = int32(p.seq + 1)
		return 0, 0, bogus
	}
	if v == restarted {
		*r = reception{
			clock: r.clock, started: true, bad: -1, ts32: p.ts,
			gone: r.totalLost(), lastSR: r.lastSR, lastSRAt: r.lastSRAt,
		}
		r.seq = 1<<16 + int64(p.seq)
		r.base, seq = r.seq, r.seq
		ts, transit = 0, at
	}
	if seq >= r.seq {
		r.seq, r.ts, r.ts32 = seq, ts, p.ts
	}
	r.received++
	r.lastAt = at
	if audio {
		if r.received > 1 {
			diff := transit - r.lastTransit
			if diff < 0 {
				diff = -diff
			}
			if diff < time.Second {
				r.jitter += int64(diff)*int64(r.clock)/int64(time.Second) - (r.jitter+8)>>4
			}
		}
		r.lastTransit = transit
		r.late.note(transit, at)
	}
	return seq, ts, v
}

// when is timestamp ts as time since the beginning of the stream.
func (r *reception) when(ts int64) time.Duration { return ticks(ts, r.clock) }

// ticks is n ticks of a clock of hz, a multiple of 1000, as time.
func ticks(n int64, hz int) time.Duration {
	return time.Duration(n * 1_000_000 / int64(hz/1000))
}

// lost counts the packets lost since the stream began, anew perhaps.
func (r *reception) lost() int64 {
	if !r.started {
		return 0
	}
	return r.seq - r.base + 1 - r.received
}

// totalLost counts those before it began anew, too.
func (r *reception) totalLost() int64 { return r.gone + max(r.lost(), 0) }

// jitterTime is the interarrival jitter as time.
func (r *reception) jitterTime() time.Duration {
	if r.clock == 0 {
		return 0
	}
	return ticks(r.jitter>>4, r.clock)
}

// report writes a report block of 24 bytes.
func (r *reception) report(b []byte, ssrc uint32, now time.Duration) {
	expected := r.seq - r.base + 1
	lostNow := expected - r.prevExpected - (r.received - r.prevReceived)
	fraction := int64(0)
	if n := expected - r.prevExpected; n > 0 && lostNow > 0 {
		fraction = min(lostNow<<8/n, 255)
	}
	r.prevExpected, r.prevReceived = expected, r.received
	binary.BigEndian.PutUint32(b, ssrc)
	lost := min(max(r.lost(), -1<<23), 1<<23-1)
	binary.BigEndian.PutUint32(b[4:], uint32(fraction)<<24|uint32(lost)&0xffffff)
	binary.BigEndian.PutUint32(b[8:], uint32(r.seq-1<<16))
	binary.BigEndian.PutUint32(b[12:], uint32(r.jitter>>4))
	binary.BigEndian.PutUint32(b[16:], r.lastSR)
	delay := uint32(0)
	if r.lastSR != 0 {
		delay = uint32((now - r.lastSRAt) * 65536 / time.Second)
	}
	binary.BigEndian.PutUint32(b[20:], delay)
}

// A lateness watches the transit times of a stream's packets, arrival less
// timestamp, over the last two seconds.
type lateness struct {
	buckets [4]struct {
		first, second time.Duration // the two latest
		n             int
	}
	until time.Duration // the first bucket's end
	last  time.Duration
}

const (
	latenessBucket = 500 * time.Millisecond
	// latenessJump is a change of transit that no network makes: the sender's
	// clock was set.
	latenessJump = 600 * time.Millisecond
	latenessOld  = 30 * time.Second
)

// jumps reports whether a transit time is that of another clock.
func (l *lateness) jumps(transit time.Duration) bool {
	d := transit - l.last
	return d > latenessJump || d < -latenessJump
}

func (l *lateness) note(transit, at time.Duration) {
	if l.jumps(transit) || at-l.until > latenessOld {
		*l = lateness{}
	}
	l.last = transit
	if l.until == 0 || at >= l.until { // one bucket at a time: after a pause the old ones still count
		copy(l.buckets[1:], l.buckets[:])
		l.buckets[0].n = 0
		l.until = at + latenessBucket
	}
	b := &l.buckets[0]
	switch {
	case b.n == 0:
		b.first, b.second = transit, transit
	case transit > b.first:
		b.first, b.second = transit, b.first
	case transit > b.second || b.n == 1:
		b.second = transit
	}
	b.n++
}

// max is the largest transit time, not counting one straggler in each half
// second of at least ten packets.
func (l *lateness) max() time.Duration {
	m, any := time.Duration(0), false
	for i := range l.buckets {
		b := &l.buckets[i]
		if b.n == 0 {
			continue
		}
		v := b.first
		if b.n >= 10 {
			v = b.second
		}
		if !any || v > m {
			m, any = v, true
		}
	}
	return m
}
