package media

import (
	"time"

	"brewline/media/codec"
)

// duck is by how much, in bits, the conference is lowered under a prompt: 12 dB.
const duck = 2

// dtxRefresh is how often, in frames, an Opus phone gets a whole packet of
// silence, in between it gets packets without a frame (RFC 6716 §3.1).
const dtxRefresh = 20

// downlink is the way from the videobridge to the phone.
type downlink struct {
	phase  phase
	period int           // slots
	enc    codec.Encoder // nil without phone
	pcm    []int16       // one packet
	mix    []int32
	ticks  uint32 // of a packet
	toc    byte   // of the last Opus packet
	quiet  int    // packets of silence in a row
}

// conferencePacket takes an RTP packet of the videobridge.
func (b *Bridge) conferencePacket(p *rtpPacket, at time.Duration) {
	if p.pt != b.conference.pt {
		b.conference.stats.Invalid++
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
	b.phone.ts += uint32(missed) * d.ticks
	sending := b.phoneLeg.Send
	heard := false
	if sending {
		heard, shift = b.mixDown(now, missed)
	} else {
		b.speakers.releaseAll(now)
		clear(d.pcm)
	}
	if b.prompt != nil && b.speak(d.pcm, missed) {
		heard = true
	}
	if sending {
		b.sendDown(heard)
	} else {
		b.phone.pause = true
	}
	b.reportPhone(now)
	b.phone.ts += d.ticks
	return shift
}

// mixDown puts what the conference says into pcm.
func (b *Bridge) mixDown(now time.Duration, missed int) (heard bool, shift int) {
	d, k := &b.down, b.speakers
	k.choose(now)
	voices, known := 0, false
	var spare time.Duration
	for _, s := range k.chosen {
		p := s.player
		if missed > 0 {
			p.advance(missed * len(d.pcm))
		}
		if !p.pull(d.pcm, now) {
			continue
		}
		b.conference.stats.Delay = p.waited
		if voices++; voices == 1 {
			for i, v := range d.pcm {
				d.mix[i] = int32(v)
			}
		} else {
			for i, v := range d.pcm {
				d.mix[i] += int32(v)
			}
		}
		if p.spareKnown && (!known || p.spare < spare) {
			spare, known = p.spare, true
		}
	}
	switch voices {
	case 0:
		clear(d.pcm)
	case 1: // it is in pcm, or was before others had nothing to say
		for i, v := range d.mix {
			d.pcm[i] = int16(v)
		}
	default:
		saturate(d.pcm, d.mix)
	}
	if known {
		if shift = d.phase.shift(now, spare, d.period); shift != 0 {
			for _, s := range k.chosen {
				s.player.adjusted(now)
			}
		}
	}
	return voices > 0, shift
}

// sendDown encodes and sends pcm.
func (b *Bridge) sendDown(heard bool) {
	d, l := &b.down, &b.phone
	h := l.header(l.pt)
	out := l.payload(h)
	if heard {
		d.quiet = 0
	} else {
		d.quiet++
	}
	if b.codec.Name == "opus" && d.quiet > hangover && d.quiet%dtxRefresh != 0 {
		out[0] = d.toc
		l.send(h+1, h)
		return
	}
	n, err := d.enc.Encode(out, d.pcm)
	if err != nil || n == 0 {
		b.encodeErrors++
		return
	}
	d.toc = out[0] &^ 3
	l.send(h+n, h)
}
