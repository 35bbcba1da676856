package media

import (
	"time"

	"brewline/media/codec"
)

const (
	maxSources  = 64 // streams known at a time
	maxChosen   = 3  // streams heard at a time
	maxDecoders = 8
	keptPackets = 3
	// hysteresis is how long a stream counts as loud as it was at its loudest,
	// and how long one that was chosen stays.
	hysteresis = 400 * time.Millisecond
	// louder is by how many dB a stream must exceed one that is heard.
	louder = 3
	// keptFor is how old a kept packet may be to warm up a decoder.
	keptFor = 200 * time.Millisecond
	// inUse is how recent its last packet makes a source safe from newcomers.
	inUse     = 60 * time.Millisecond
	forgotten = time.Minute
	opusClock = 48000
)

// A source is one stream from the conference.
type source struct {
	reception
	ssrc     uint32
	kept     [keptPackets]packet // while not chosen; seq 0: none
	loud     uint8               // 127 less the level, held for hysteresis
	loudAt   time.Duration
	chosen   bool
	chosenAt time.Duration // or let go at
	player   *player
	event    telephoneEvent // a key that is pressed there
}

// active tells whether the source may be heard at now.
func (s *source) active(now time.Duration) bool {
	return s.loud > 0 && now-s.lastAt < hysteresis
}

// speakers are the sources of a conference and the choice of those that are
// heard. The choice is made by the level in the packets' headers, so that the
// others are not decoded.
type speakers struct {
	rate          int // Hz, of the players; 0: none
	bySSRC        map[uint32]*source
	all           []*source
	free          []*source
	chosen        []*source
	players       int
	pool          *pool
	stats         *LegStats
	eventRate     int    // clock of telephone-event, Hz
	pressing      bool   // some event is running
	lost          int64  // by sources that are gone
	decodedBefore uint64 // by players that are gone
}

func newSpeakers(p *pool, s *LegStats) *speakers {
	return &speakers{
		bySSRC: make(map[uint32]*source, maxSources),
		chosen: make([]*source, 0, maxChosen),
		pool:   p,
		stats:  s,
	}
}

// packet takes an Opus packet from the videobridge. Level is that of its
// header.
func (k *speakers) packet(p *rtpPacket, at time.Duration, level uint8) {
	s := k.bySSRC[p.ssrc]
	if s == nil {
		if s = k.add(p.ssrc, at); s == nil {
			k.stats.Dropped++
			return
		}
	}
	seq, ts, v := s.place(p, at, true)
	switch v {
	case bogus:
		k.stats.Invalid++
		return
	case restarted:
		k.forget(s)
	}
	if loud := levelSilent - level; loud >= s.loud || at-s.loudAt > hysteresis {
		s.loud, s.loudAt = loud, at
	}
	payload := p.payload
	if level == levelSilent {
		payload = nil
	}
	if s.chosen {
		s.player.insert(seq, ts, at, payload)
		return
	}
	k.keep(s, seq, ts, at, payload)
}

// key takes a telephone-event packet (RFC 4733): a source sends it in place of
// audio, in the same row of sequence numbers. It returns a digit that has ended.
func (k *speakers) key(p *rtpPacket, at time.Duration) (digit byte, d time.Duration) {
	s := k.bySSRC[p.ssrc]
	if s == nil {
		if s = k.add(p.ssrc, at); s == nil {
			k.stats.Dropped++
			return 0, 0
		}
	}
	seq, ts, v := s.place(p, at, false)
	switch v {
	case bogus:
		k.stats.Invalid++
		return 0, 0
	case restarted:
		k.forget(s)
	}
	if s.chosen {
		s.player.insert(seq, ts, at, nil)
	} else {
		k.keep(s, seq, ts, at, nil)
	}
	digit, d = s.event.packet(p, at)
	k.pressing = k.pressing || s.event.running
	return digit, d
}

// keyLost returns a digit whose end did not come.
func (k *speakers) keyLost(now time.Duration) (digit byte, d time.Duration) {
	if !k.pressing {
		return 0, 0
	}
	k.pressing = false
	for _, s := range k.all {
		if digit == 0 {
			digit, d = s.event.idle(now)
		}
		k.pressing = k.pressing || s.event.running
	}
	return digit, d
}

// keep has the packet replace the oldest that is kept.
func (k *speakers) keep(s *source, seq, ts int64, at time.Duration, payload []byte) {
	oldest := &s.kept[0]
	for i := range s.kept {
		if p := &s.kept[i]; p.seq == seq {
			return
		} else if p.seq < oldest.seq {
			oldest = p
		}
	}
	if seq < oldest.seq {
		return
	}
	if oldest.data != nil {
		k.pool.put(oldest.data)
	}
	*oldest = packet{}
	var data []byte
	if payload != nil {
		if data = k.pool.copy(payload); data == nil {
			return
		}
	}
	*oldest = packet{seq: seq, ts: ts, at: at, data: data}
}

// add makes room for a new source; nil if all are in use.
func (k *speakers) add(ssrc uint32, now time.Duration) *source {
	if len(k.all) == maxSources {
		var oldest *source
		for _, s := range k.all {
			if !s.chosen && now-s.lastAt >= inUse && (oldest == nil || s.lastAt < oldest.lastAt) {
				oldest = s
			}
		}
		if oldest == nil {
			return nil
		}
		k.remove(oldest)
	}
	var s *source
	if n := len(k.free); n > 0 {
		s, k.free = k.free[n-1], k.free[:n-1]
	} else {
		s = new(source)
	}
	*s = source{reception: reception{clock: opusClock}, ssrc: ssrc, event: telephoneEvent{rate: k.eventRate}}
	k.all = append(k.all, s)
	k.bySSRC[ssrc] = s
	return s
}

// remove forgets a source altogether.
func (k *speakers) remove(s *source) {
	k.release(s, 0)
	k.dropPlayer(s)
	k.forget(s)
	k.lost += s.totalLost()
	delete(k.bySSRC, s.ssrc)
	for i := range k.all {
		if k.all[i] == s {
			last := len(k.all) - 1
			k.all[i], k.all[last] = k.all[last], nil
			k.all = k.all[:last]
			break
		}
	}
	k.free = append(k.free, s)
}

// clear forgets all sources.
func (k *speakers) clear() {
	for len(k.all) > 0 {
		k.remove(k.all[0])
	}
}

// forget drops what is buffered of a source.
func (k *speakers) forget(s *source) {
	if s.player != nil {
		s.player.flush()
	}
	for i := range s.kept {
		if s.kept[i].data != nil {
			k.pool.put(s.kept[i].data)
		}
		s.kept[i] = packet{}
	}
}

// setRate has all streams decoded to another rate.
func (k *speakers) setRate(rate int) {
	if rate == k.rate {
		return
	}
	k.rate = rate
	k.releaseAll(0)
	for _, s := range k.all {
		k.dropPlayer(s)
	}
}

func (k *speakers) dropPlayer(s *source) {
	if s.player != nil {
		k.decodedBefore += s.player.decoded
		s.player.close()
		s.player = nil
		k.players--
	}
}

// choose decides whom to hear at now.
func (k *speakers) choose(now time.Duration) {
	for i := 0; i < len(k.chosen); {
		if s := k.chosen[i]; now-s.lastAt > hysteresis {
			k.release(s, now)
		} else {
			i++
		}
	}
	for {
		var loudest *source
		for _, s := range k.all {
			if !s.chosen && s.active(now) && (loudest == nil || s.loud > loudest.loud) {
				loudest = s
			}
		}
		if loudest == nil {
			return
		}
		if len(k.chosen) == maxChosen {
			weakest := k.weakest(now)
			if weakest.active(now) &&
				(loudest.loud < weakest.loud+louder || now-weakest.chosenAt < hysteresis) {
				return
			}
			k.release(weakest, now)
		}
		if !k.take(loudest, now) {
			return
		}
	}
}

// weakest is the one of the chosen to give way first.
func (k *speakers) weakest(now time.Duration) *source {
	weakest := k.chosen[0]
	for _, c := range k.chosen[1:] {
		switch a, b := c.active(now), weakest.active(now); {
		case !a && b, a == b && c.loud < weakest.loud:
			weakest = c
		}
	}
	return weakest
}

// take begins to hear a source. Its kept packets warm up the decoder.
func (k *speakers) take(s *source, now time.Duration) bool {
	if s.player == nil {
		if k.players == maxDecoders {
			k.dropPlayer(k.leastRecent())
		}
		dec, err := codec.NewOpusDecoder(k.rate)
		if err != nil { // cannot be: the rate is one of ours
			return false
		}
		s.player = newPlayer(dec, k.rate, opusClock, k.pool, k.stats)
		k.players++
	}
	s.player.flush()
	s.player.late = &s.late
	s.player.warm = true
	for i := range s.kept {
		p := &s.kept[i]
		if p.seq != 0 && now-p.at <= keptFor {
			s.player.insert(p.seq, p.ts, p.at, p.data)
		}
		if p.data != nil {
			k.pool.put(p.data)
		}
		*p = packet{}
	}
	s.chosen, s.chosenAt = true, now
	k.chosen = append(k.chosen, s)
	return true
}

// leastRecent is the source with a player that was let go longest ago.
func (k *speakers) leastRecent() *source {
	var oldest *source
	for _, s := range k.all {
		if s.player != nil && !s.chosen && (oldest == nil || s.chosenAt < oldest.chosenAt) {
			oldest = s
		}
	}
	return oldest
}

// release stops hearing a source; its decoder is kept for a while.
func (k *speakers) release(s *source, now time.Duration) {
	if !s.chosen {
		return
	}
	s.chosen, s.chosenAt = false, now
	s.player.flush()
	for i := range k.chosen {
		if k.chosen[i] == s {
			k.chosen = append(k.chosen[:i], k.chosen[i+1:]...)
			break
		}
	}
}

// releaseAll stops hearing anyone: nobody listens.
func (k *speakers) releaseAll(now time.Duration) {
	for len(k.chosen) > 0 {
		k.release(k.chosen[0], now)
	}
}

// expire forgets sources that have long been silent.
func (k *speakers) expire(now time.Duration) {
	for i := 0; i < len(k.all); {
		if s := k.all[i]; now-s.lastAt > forgotten {
			k.remove(s)
		} else {
			i++
		}
	}
}

// totalLost counts the packets lost by all sources since the beginning.
func (k *speakers) totalLost() uint64 {
	n := k.lost
	for _, s := range k.all {
		n += s.totalLost()
	}
	return uint64(max(n, 0))
}

// decoded counts the packets decoded.
func (k *speakers) decoded() uint64 {
	n := k.decodedBefore
	for _, s := range k.all {
		if s.player != nil {
			n += s.player.decoded
		}
	}
	return n
}
