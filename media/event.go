package media

import (
	"encoding/binary"
	"time"
)

// eventTimeout ends an event whose last packets were lost. Updates come every
// packet time (RFC 4733 §2.5.1.2).
const eventTimeout = 200 * time.Millisecond

// digits are the events of RFC 4733 §3.2 table 3.
const digits = "0123456789*#ABCD"

// telephoneEvent follows the DTMF events of one stream.
type telephoneEvent struct {
	rate     int
	running  bool
	known    bool // ts is of an event already reported
	event    uint8
	ts       uint32 // of its last segment
	before   uint32 // duration of the segments before
	duration uint32 // of the last
	heard    time.Duration
}

// packet takes the payload of a telephone-event packet (RFC 4733 §2.3) and
// returns a digit when one has ended. A digit is reported once, however often
// its end is repeated; a new timestamp ends the one before, unless a long event
// goes on with it in another segment (RFC 4733 §2.5.1.3).
func (e *telephoneEvent) packet(p *rtpPacket, now time.Duration) (digit byte, d time.Duration) {
	if len(p.payload) < 4 || int(p.payload[0]) >= len(digits) {
		return 0, 0
	}
	event, end := p.payload[0], p.payload[1]&0x80 != 0
	length := uint32(binary.BigEndian.Uint16(p.payload[2:]))
	if (e.running || e.known) && event == e.event && !p.marker && p.ts-e.ts == maxSegment {
		e.ts, e.before, e.duration = p.ts, min(e.before+maxSegment, 1<<30), 0
	}
	if e.known && (p.ts == e.ts || int32(p.ts-e.ts) < 0 && now-e.heard < time.Second) {
		return 0, 0 // repeated, or late
	}
	if e.running && (p.ts != e.ts || event != e.event) {
		if int32(p.ts-e.ts) < 0 {
			return 0, 0
		}
		digit, d = e.finish()
	}
	if !e.running {
		e.running, e.known, e.event, e.ts, e.before, e.duration = true, false, event, p.ts, 0, 0
	}
	e.heard = now
	e.duration = max(e.duration, length)
	if end && digit == 0 {
		return e.finish()
	}
	return digit, d
}

// idle reports the digit whose end did not come.
func (e *telephoneEvent) idle(now time.Duration) (digit byte, d time.Duration) {
	if !e.running || now-e.heard < eventTimeout {
		return 0, 0
	}
	return e.finish()
}

func (e *telephoneEvent) finish() (byte, time.Duration) {
	e.running, e.known = false, true
	return digits[e.event], time.Duration(e.before+e.duration) * time.Second / time.Duration(max(e.rate, 1))
}
