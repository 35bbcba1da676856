package media

import "time"

// duck is by how much, in bits, the conference is lowered under a prompt: 12 dB.
const duck = 2

// dtxRefresh is how often, in frames, an Opus phone gets a whole packet of
// silence, in between it gets packets without a frame (RFC 6716 §3.1).
const dtxRefresh = 20

// downlink is the way from the videobridge to the phone.
type downlink struct {
	phase  phase
	period int    // slots
	out    outlet // without encoder if there is no phone
	frame  frame  // one packet

	mix   []int32
	ticks uint32 // of a packet
	toc   byte   // of the last Opus packet
	quiet int    // packets of silence in a row
}

// conferencePacket takes an RTP packet of the videobridge.
func (b *Bridge) conferencePacket(p *rtpPacket, at time.Duration) {
	if b.eventPT != 0 && p.pt == b.eventPT {
		b.conference.stats.PacketsIn++
		b.conference.stats.BytesIn += uint64(len(p.payload))
		b.key(b.speakers.key(p, at))
		return
	}
	if p.pt != b.conference.pt {
		b.refuse(&b.conference, "conference", "payload type", p.payload)
		return
	}
	b.conference.stats.PacketsIn++
	b.conference.stats.BytesIn += uint64(len(p.payload))
	level, ok := p.audioLevel(b.levelID)
	if !ok {
		level = levelUnknown
	}
	if len(p.payload) == 0 {
		level = levelSilent
	}
	b.speakers.packet(p, at, level)
}

// tickDown is one packet towards the phone. It returns by how many slots to
// come later next time.
func (b *Bridge) tickDown(now time.Duration, missed int) (shift int) {
	if b.phone.conn == nil {
		return 0
	}
	d := &b.down
	b.key(b.speakers.keyLost(now))
	b.phone.ts += uint32(missed) * d.ticks
	sending := b.phoneLeg.Send
	heard := false
	if sending {
		heard, shift = b.mixDown(now, missed)
	} else {
		b.speakers.releaseAll(now)
		d.frame.silence()
	}
	if b.prompt != nil && b.speak(d.frame.pcm, missed) {
		heard, d.frame.opus = true, nil
	}
	if sending {
		pressed, sent := b.press()
		if !sent {
			b.sendDown(heard || pressed)
		}
	} else {
		b.keypad.silence()
		b.phone.pause = true
	}
	b.reportPhone(now)
	b.phone.ts += d.ticks
	return shift
}

// mixDown puts what the conference says into the frame.
func (b *Bridge) mixDown(now time.Duration, missed int) (heard bool, shift int) {
	d, k := &b.down, b.speakers
	k.choose(now)
	f := &d.frame
	voices, known := 0, false
	var spare time.Duration
	var packet []byte
	for _, s := range k.chosen {
		p := s.player
		if missed > 0 {
			p.advance(missed * len(f.pcm))
		}
		if !p.pull(f, now) {
			continue
		}
		b.conference.stats.Delay = p.waited
		if voices++; voices == 1 {
			packet = f.opus
			for i, v := range f.pcm {
				d.mix[i] = int32(v)
			}
		} else {
			packet = nil
			for i, v := range f.pcm {
				d.mix[i] += int32(v)
			}
		}
		if p.spareKnown && (!known || p.spare < spare) {
			spare, known = p.spare, true
		}
	}
	switch voices {
	case 0:
		clear(f.pcm)
	case 1: // it is in pcm: those who have nothing to say leave it alone
	default:
		saturate(f.pcm, d.mix)
	}
	f.opus = packet
	if known {
		if shift = d.phase.shift(now, spare, d.period); shift != 0 {
			for _, s := range k.chosen {
				s.player.adjusted(now)
			}
		}
	}
	return voices > 0, shift
}

// sendDown sends the frame.
func (b *Bridge) sendDown(heard bool) {
	d, l := &b.down, &b.phone
	h := l.header(l.pt)
	out := l.payload(h)
	if heard {
		d.quiet = 0
	} else {
		d.quiet++
	}
	if b.phoneLeg.CNPT != 0 && d.quiet > hangover {
		b.comfort()
		return
	}
	if b.codec.Name == "opus" && d.quiet > hangover && d.quiet%dtxRefresh != 0 {
		out[0] = d.toc
		d.out.rest()
		l.send(h+1, h)
		return
	}
	n, err := d.out.put(out, &d.frame)
	if err != nil || n == 0 {
		b.encodeErrors++
		return
	}
	d.toc = out[0] &^ 3
	l.send(h+n, h)
}
