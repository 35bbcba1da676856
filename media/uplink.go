package media

import (
	"time"

	"brewline/media/codec"
)

const (
	// frameTime is the time in a packet to the videobridge.
	frameTime  = 20 * time.Millisecond
	upPeriod   = int(frameTime / slotTime)
	frameTicks = uint32(opusClock * frameTime / time.Second)
	// hangover is how many frames after the last that was worth it are still
	// encoded, and silenceSent how many are then sent as silence before
	// sending stops. After three the videobridge drops them anyway.
	hangover    = 10
	silenceSent = 3
	// switchAfter is how many packets of another SSRC in a row make the phone's
	// stream another, and switchIdle the silence after which one is enough.
	switchAfter = 3
	switchIdle  = 200 * time.Millisecond
	// voiceLevel is the level, -dBov, from which a packet is marked as voice.
	voiceLevel = 60
	// expectedLoss is what the FEC is laid out for as long as the videobridge
	// reports less, percent: it does not report what its receivers lose.
	expectedLoss = 5
)

// uplink is the way from the phone to the videobridge.
type uplink struct {
	phase  phase
	player *player // of the phone's stream; nil without phone
	reception
	ssrc      uint32
	newcomer  uint32 // another SSRC that is heard
	newcomers int    // packets of it in a row
	event     telephoneEvent
	tones     *codec.DTMFDetector // nil: digits are not looked for in the audio
	comfort   bool                // the last packet was comfort noise
	out       outlet              // without encoder unless both legs are here
	frame     frame
	quiet     int // frames not worth encoding in a row
	silent    int // frames sent as silence in a row
}

// packet takes an RTP packet of the phone.
func (b *Bridge) phonePacket(p *rtpPacket, at time.Duration) {
	u, l := &b.up, &b.phoneLeg
	audio := p.pt == l.RecvPT || p.pt == l.SendPT
	event := l.RecvEventPT != 0 && p.pt == l.RecvEventPT
	noise := p.pt == ptCN || l.RecvCNPT != 0 && p.pt == l.RecvCNPT
	if !audio && !event && !noise {
		b.refuse(&b.phone, "phone", "payload type", p.payload)
		return
	}
	b.phone.stats.PacketsIn++
	b.phone.stats.BytesIn += uint64(len(p.payload))
	if event && u.started && p.ssrc != u.ssrc {
		// Some send events as a stream of their own beside the audio's.
		b.digit(u.event.packet(p, at))
		return
	}
	if p.ssrc != u.ssrc && !u.follow(p.ssrc, at) {
		b.phone.stats.Dropped++
		return
	}
	u.newcomers = 0
	seq, ts, v := u.place(p, at, audio)
	switch v {
	case bogus:
		b.phone.stats.Invalid++
		return
	case restarted:
		u.player.flush()
	}
	u.comfort = noise
	payload := p.payload
	if event {
		b.digit(u.event.packet(p, at))
		payload = nil
	} else if len(payload) == 0 {
		payload = nil
	}
	if noise {
		b.phone.stats.ComfortIn++
	}
	switch {
	case !l.Receive:
	case noise && payload != nil:
		u.player.insertNoise(seq, ts, at, payload)
	default:
		u.player.insert(seq, ts, at, payload)
	}
}

// follow decides whether to take a new SSRC for the phone's stream.
func (u *uplink) follow(ssrc uint32, at time.Duration) bool {
	if u.started && at-u.lastAt < switchIdle {
		if u.newcomers == 0 || u.newcomer != ssrc {
			u.newcomer, u.newcomers = ssrc, 0
		}
		if u.newcomers++; u.newcomers < switchAfter {
			return false
		}
	}
	u.ssrc, u.reception = ssrc, reception{clock: u.clock, gone: u.totalLost()}
	return true
}

// tickUp is one frame towards the videobridge. It returns by how many slots to
// come later next time.
func (b *Bridge) tickUp(now time.Duration, missed int) (shift int) {
	u := &b.up
	b.digit(u.event.idle(now))
	if b.conference.conn == nil {
		if u.player != nil && u.player.count > 0 {
			u.player.flush()
		}
		return 0
	}
	b.conference.ts += uint32(missed) * frameTicks
	if u.out.enc != nil {
		shift = b.sendUp(now, missed)
	}
	b.reportConference(now)
	b.conference.ts += frameTicks
	return shift
}

// sendUp sends what the phone says, if it says anything.
func (b *Bridge) sendUp(now time.Duration, missed int) (shift int) {
	u, c := &b.up, &b.conference
	level := uint8(levelSilent)
	listening := u.tones != nil && b.phoneLeg.Receive
	heard := false
	if (b.muted || !b.phoneLeg.Receive) && !listening {
		if u.player.count > 0 {
			u.player.flush()
		}
	} else {
		u.player.advance(missed * len(u.frame.pcm))
		if heard = u.player.pull(&u.frame, now); heard && !b.muted {
			level = audioLevel(u.frame.pcm)
			b.phone.stats.Delay = u.player.waited
		}
		if u.player.spareKnown {
			if shift = u.phase.shift(now, u.player.spare, upPeriod); shift != 0 {
				u.player.adjusted(now)
			}
		}
	}
	if listening {
		if !heard {
			u.frame.silence()
		}
		if key, d := u.tones.Write(u.frame.pcm); key != 0 {
			b.told(Digit{key, d, true})
		}
	}
	if level < levelQuiet {
		u.quiet, u.silent = 0, 0
	} else if u.quiet++; u.quiet > hangover || u.frame.noise {
		level = levelSilent
	}
	if level == levelSilent {
		if u.silent == silenceSent {
			c.pause = true
			u.out.rest()
			return shift
		}
		u.silent++
		u.frame.silence()
	}
	h := c.header(c.pt)
	if b.levelID != 0 {
		h = putLevel(c.out[:], h, b.levelID, level, level <= voiceLevel && !u.frame.noise)
	}
	n, err := u.out.put(c.payload(h), &u.frame)
	if err != nil {
		b.encodeErrors++
		return shift
	}

	c.send(h+n, h)
	return shift
}
