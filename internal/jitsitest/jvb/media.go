package jvb

import (
	"encoding/binary"
	"time"
)

// silentLevel is digital silence in the audio level extension (RFC 6464).
const silentLevel = 127

// source is what the bridge keeps of one received SSRC.
type source struct {
	ssrc uint32
	reception

	silent int // consecutive packets of level 127

	// sequence numbers after packets were dropped as silence
	sent     bool
	lastSent uint16
	shift    uint16 // added to what is received
	energy   float64
	energyAt time.Time
}

// view is a parsed RTP packet, without copies.
type view struct {
	pt, cc   byte
	seq      uint16
	ts, ssrc uint32
	fixed    int  // length of fixed header and CSRCs
	payload  int  // where the payload (with padding) begins
	level    byte // with the voice activity bit
	hasLevel bool
}

// parse reads an RTP header (RFC 3550 §5.1) and its audio level extension
// with the given id in either form of RFC 8285.
func (v *view) parse(p []byte, levelID uint8) bool {
	*v = view{}
	if len(p) < 12 || p[0]>>6 != 2 {
		return false
	}
	v.cc, v.pt = p[0]&15, p[1]&127
	v.seq = binary.BigEndian.Uint16(p[2:])
	v.ts, v.ssrc = u32(p[4:]), u32(p[8:])
	v.fixed = 12 + 4*int(v.cc)
	v.payload = v.fixed
	if p[0]&0x10 != 0 {
		if len(p) < v.fixed+4 {
			return false
		}
		profile := binary.BigEndian.Uint16(p[v.fixed:])
		n := 4 * int(binary.BigEndian.Uint16(p[v.fixed+2:]))
		v.payload = v.fixed + 4 + n
		if len(p) < v.payload {
			return false
		}
		v.extension(profile, p[v.fixed+4:v.payload], levelID)
	}
	return len(p) >= v.payload
}

func (v *view) extension(profile uint16, x []byte, levelID uint8) {
	oneByte := profile == 0xBEDE
	if levelID == 0 || !oneByte && profile&0xFFF0 != 0x1000 {
		return
	}
	for i := 0; i < len(x); {
		id, n, head := x[i], 0, 2
		switch {
		case id == 0: // padding
			i++
			continue
		case oneByte:
			n, id, head = int(id&15)+1, id>>4, 1
			if id == 15 {
				return
			}
		case i+1 < len(x):
			n = int(x[i+1])
		default:
			return
		}
		if i+head+n > len(x) {
			return
		}
		if id == levelID && n > 0 {
			v.level, v.hasLevel = x[i+head], true
			return
		}
		i += head + n
	}
}

// handleRTP decrypts a packet of a client and forwards it.
func (b *Bridge) handleRTP(e *Endpoint, p []byte) {
	if e.srtpIn == nil {
		return // DTLS is not done
	}
	var v view
	if !v.parse(p, e.o.AudioLevelID) {
		return
	}
	if v.payload >= len(p) || v.fixed > maxPacket/2 {
		return
	}
	plain, err := e.srtpIn.DecryptRTP(b.scratch.plain, p, &b.scratch.header)
	if err != nil {
		e.stats.AuthErrors++
		return
	}
	now := time.Now()
	e.alive(now)
	e.stats.countRTP(now)
	e.stats.sawSSRC(v.ssrc)
	if e.tap != nil {
		e.tap(plain, now)
	}
	if !v.hasLevel {
		e.stats.LevelMissing++
	}
	if e.o.OpusPT != 0 && v.pt != e.o.OpusPT && (e.o.EventPT == 0 || v.pt != e.o.EventPT) {
		e.stats.WrongPT++
	}
	if !e.signalled[v.ssrc] {
		e.stats.Unsignalled++
		return
	}
	s := e.sources[v.ssrc]
	if s == nil {
		s = &source{ssrc: v.ssrc}
		e.sources[v.ssrc] = s
	}
	s.received(v.seq, v.ts, now)
	if e.muted && v.hasLevel {
		e.stats.Muted++
		return
	}
	if !s.accept(&v) {
		e.stats.Silent++
		return
	}
	if !b.loudEnough(e, s, &v, now) {
		s.drop(v.seq)
		e.stats.Quiet++
		return
	}
	seq := s.renumber(v.seq)
	b.forward(e, &v, seq, plain)
}

// accept drops silence: after three packets of level 127 the rest go, and
// the sequence numbers close up.
func (s *source) accept(v *view) bool {
	if v.hasLevel && v.level&127 == silentLevel {
		s.silent++
		if s.silent > 3 {
			s.drop(v.seq)
			return false
		}
		return true
	}
	s.silent = 0
	return true
}

// drop lets the next packet take the place of this one.
func (s *source) drop(seq uint16) {
	if s.sent && int16(seq+s.shift-s.lastSent) > 0 {
		s.shift = s.lastSent - seq
	}
}

func (s *source) renumber(seq uint16) uint16 {
	seq += s.shift
	if !s.sent || int16(seq-s.lastSent) > 0 {
		s.lastSent, s.sent = seq, true
	}
	return seq
}

// loudEnough ranks speakers by a running mean of their level when
// Options.Loudest is set. Packets without a level always pass.
func (b *Bridge) loudEnough(e *Endpoint, s *source, v *view, now time.Time) bool {
	if b.o.Loudest == 0 || !v.hasLevel {
		return true
	}
	const recent = 500 * time.Millisecond
	if now.Sub(s.energyAt) > recent {
		s.energy = 0
	}
	s.energy += (float64(silentLevel-v.level&127) - s.energy) / 10
	s.energyAt = now
	louder := 0
	for _, x := range e.conf.endpoints {
		for _, o := range x.sources {
			if o != s && now.Sub(o.energyAt) <= recent && o.energy > s.energy {
				louder++
			}
		}
	}
	return louder < b.o.Loudest
}

// forward sends a decrypted packet to all other endpoints of the conference.
// Of the header extensions only the audio level stays, with the id that the
// receiver was offered.
func (b *Bridge) forward(e *Endpoint, v *view, seq uint16, plain []byte) {
	built := -1
	var out []byte
	for _, to := range e.conf.endpoints {
		if to == e || to.srtpOut == nil || to.selected == nil {
			continue
		}
		id := 0
		if v.hasLevel {
			id = int(to.o.AudioLevelID)
		}
		if id != built {
			out = buildRTP(b.scratch.build, v, seq, uint8(id), plain)
			built = id
		}
		enc, err := to.srtpOut.EncryptRTP(b.scratch.cipher, out, &b.scratch.header)
		if err != nil {
			continue
		}
		to.stats.RTPTo++
		b.send(to, kindRTP, enc, to.selected.addr)
	}
}

func buildRTP(buf []byte, v *view, seq uint16, levelID uint8, plain []byte) []byte {
	out := append(buf[:0], plain[:v.fixed]...)
	out[0] &^= 0x10
	binary.BigEndian.PutUint16(out[2:], seq)
	switch {
	case levelID == 0:
	case levelID < 15:
		out[0] |= 0x10
		out = append(out, 0xBE, 0xDE, 0, 1, levelID<<4, v.level, 0, 0)
	default:
		out[0] |= 0x10
		out = append(out, 0x10, 0x00, 0, 1, levelID, 1, v.level, 0)
	}
	return append(out, plain[v.payload:]...)
}
