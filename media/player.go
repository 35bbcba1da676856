package media

import (
	"time"

	"brewline/media/codec"
)

const (
	// slots is how many packets a player can hold, 1.28 s of 20 ms ones.
	slots = 64
	// playMargin is how long before its time the latest packet should be here.
	playMargin = 2 * time.Millisecond
	// playSlack is how much more than a step must be to spare before a step of
	// delay is taken out.
	playSlack = 4 * time.Millisecond
	// maxConceal is how long a loss is concealed before there is silence.
	maxConceal = 100 * time.Millisecond
	// maxBacklog is how much that was waiting is played when a stream begins
	// or begins again; what is older is left out.
	maxBacklog = 500 * time.Millisecond
	// fecMemory is how long after a loss one packet more is kept waiting, so
	// that its copy of the lost one can be used.
	fecMemory = 10 * time.Second
	// cutAfter is how long a pause in speech is waited for to take out delay,
	// and cutAbove the delay too much that is taken out at once.
	cutAfter = 2 * time.Second
	cutAbove = 80 * time.Millisecond
	// assessPackets and assessTime make one assessment of the delay.
	assessPackets = 6
	assessTime    = 120 * time.Millisecond
)

// packet is one that waits to be played.
type packet struct {
	seq, ts int64 // seq is 0 when the slot is empty
	at      time.Duration
	data    []byte // nil: a packet without sound
	noise   bool   // data describes comfort noise
}

// A player is the jitter buffer and decoder of one stream. It is given the
// stream's packets as they come, and asked for PCM at a steady pace. It waits
// no longer than the latest packets of the last two seconds made necessary.
//
// A loss is concealed with FEC if the next packet is here and has it, else
// with PLC. When nothing is here at all the time of the stream stands still
// while PLC is played: a packet that was only late is then played after all,
// and the delay has grown; one that was lost is passed over when its successor
// comes. Delay is taken out, and added, by a step at a time, in a pause of the
// speech if there is one (RFC 3550 leaves all this to the receiver).
type player struct {
	dec   codec.Decoder
	rate  int // Hz, of PCM
	clock int // Hz, of timestamps
	late  *lateness
	stats *LegStats
	pool  *pool

	slots [slots]packet
	count int
	top   int64 // highest seq held

	pcm        []int16 // [head:] is decoded and not played yet
	head       int
	playing    bool
	warm       bool  // begin with the newest packet that may be played
	next       int64 // seq to play next
	ts         int64 // and its timestamp
	owed       int64 // ticks concealed while the stream's time stood still
	concealed  int   // samples in a row
	duration   int   // samples in the last packet
	recovered  int64 // seq whose predecessor was recovered
	fecUntil   time.Duration
	skip, drop int    // samples to leave out undecoded, decoded
	asked      int    // samples in a pull
	held       []byte // the last packet decoded
	whole      bool   // pcm began with it in this pull, and nothing was cut

	assessed    time.Duration // when the running assessment began
	assessments int           // packets in it
	closest     time.Duration // least now−ts in it
	spare       time.Duration // delay beyond what is needed, by the last assessment
	spareKnown  bool
	adjust      int // +1 to add a step, -1 to take one out
	adjustAt    time.Duration
	waited      time.Duration // of the last packet played
	decoded     uint64        // packets
	noise       comfortNoise  // between talkspurts
}

func newPlayer(dec codec.Decoder, rate, clock int, p *pool, s *LegStats) *player {
	return &player{
		dec: dec, rate: rate, clock: clock, pool: p, stats: s,
		// A pull of 60 ms, and with that two packets of 120 ms for a splice.
		pcm: make([]int16, 0, rate*(60+2*codec.MaxPacket)/1000),
	}
}

func (p *player) samples(d time.Duration) int { return int(d * time.Duration(p.rate) / time.Second) }
func (p *player) span(samples int) time.Duration {
	return ticks(int64(samples), p.rate)
}

// toTicks is a number of samples on the clock of timestamps.
func (p *player) toTicks(samples int) int64 { return int64(samples) * int64(p.clock) / int64(p.rate) }

// insertNoise takes a description of comfort noise.
func (p *player) insertNoise(seq, ts int64, at time.Duration, payload []byte) {
	if s := p.insert(seq, ts, at, payload); s != nil {
		s.noise = true
	}
}

// insert takes a packet. A nil payload is one without sound.
func (p *player) insert(seq, ts int64, at time.Duration, payload []byte) *packet {
	switch {
	case p.next != 0 && seq < p.next:
		p.stats.Late++
		return nil
	case p.next != 0 && seq >= p.next+slots, p.count > 0 && seq >= p.oldest()+slots:
		p.flush()
	case p.count > 0 && seq <= p.top-slots:
		p.stats.Late++
		return nil
	}
	s := &p.slots[seq%slots]
	if s.seq == seq {
		p.stats.Late++
		return nil
	}
	var data []byte
	if payload != nil {
		if data = p.pool.copy(payload); data == nil {
			p.stats.Dropped++
			return nil
		}
	}
	*s = packet{seq: seq, ts: ts, at: at, data: data}
	if p.count == 0 || seq > p.top {
		p.top = seq
	}
	p.count++
	return s
}

// oldest is the lowest seq held.
func (p *player) oldest() int64 {
	seq := p.top - slots + 1
	for p.slots[seq%slots].seq != seq {
		seq++
	}
	return seq
}

// first is the next packet held at or after next, nil if none.
func (p *player) first() *packet {
	if p.count == 0 {
		return nil
	}
	seq := p.next
	if seq == 0 || p.top-seq >= slots {
		seq = p.oldest()
	}
	for ; seq <= p.top; seq++ {
		if s := &p.slots[seq%slots]; s.seq == seq {
			return s
		}
	}
	return nil
}

// remove gives a packet back.
func (p *player) remove(s *packet) {
	if s.data != nil {
		p.pool.put(s.data)
	}
	*s = packet{}
	p.count--
}

// flush forgets everything that waits; the stream begins anew.
func (p *player) flush() {
	for i := range p.slots {
		if p.slots[i].seq != 0 {
			p.remove(&p.slots[i])
		}
	}
	p.next, p.owed, p.top = 0, 0, 0
	p.pcm, p.head = p.pcm[:0], 0
	p.noise.on = false
	p.rest()
}

// rest ends a talkspurt: silence until the next packet is due.
func (p *player) rest() {
	p.playing, p.concealed, p.skip, p.drop, p.adjust, p.owed = false, 0, 0, 0, 0, 0
	p.spareKnown = false
	p.begin(0)
}

// begin starts an assessment of the delay.
func (p *player) begin(now time.Duration) { p.assessed, p.assessments = now, 0 }

// close gives back what the player holds.
func (p *player) close() {
	p.flush()
	if p.held != nil {
		p.pool.put(p.held)
		p.held = nil
	}

	p.dec.Close()
}

// advance leaves out n samples: the caller missed that much time.
func (p *player) advance(n int) {
	if !p.playing {
		return
	}
	have := len(p.pcm) - p.head
	cut := min(n, have)
	p.head += cut
	p.skip += n - cut
}

// pull fills f with what is to be heard at now. It returns false if there is
// nothing to be heard, and f's PCM is then untouched.
func (p *player) pull(f *frame, now time.Duration) bool {
	dst := f.pcm
	f.opus, f.noise, p.whole = nil, false, false

	if p.head > 0 {
		p.pcm = p.pcm[:copy(p.pcm[:cap(p.pcm)], p.pcm[p.head:])]
		p.head = 0
	}
	p.asked = len(dst)
	for len(p.pcm) < len(dst) && p.more(now) {
	}
	if n := len(dst) - len(p.pcm); n > 0 && p.noise.on {
		f.noise = len(p.pcm) == 0
		p.noise.fill(p.grow(n))
	}
	if len(p.pcm) == 0 {
		return false
	}
	n := copy(dst, p.pcm)
	clear(dst[n:])
	p.head = n
	if p.whole && n == len(p.pcm) && n == p.duration {
		f.opus = p.held
	}
	return true
}

// more adds PCM or uses up a packet. It returns false when there is nothing
// more to be had now.
func (p *player) more(now time.Duration) bool {
	q := p.first()
	if q != nil && (q.data == nil || q.noise) { // comfort noise, an event, silence
		p.rest()
		if q.noise {
			p.noise.describe(q.data, p.rate)
		}
		p.next = q.seq + 1
		p.remove(q)
		return true
	}
	if !p.playing {
		return q != nil && p.start(q, now)
	}
	if q == nil {
		return p.starve()
	}
	gap := q.ts - p.ts
	if tolerance := p.clock / 1000; gap > int64(tolerance) || gap < -int64(tolerance) {
		if q.seq == p.next || gap < 0 || ticks(gap-p.owed, p.clock) > maxConceal {
			// The timestamp jumped: a pause, or another clock.
			p.rest()
			return p.start(q, now)
		}
		if p.fill(q, gap-p.owed, now) {
			return true
		}
	} else if p.owed > 0 {
		p.begin(now) // it was late, or lost without a gap: the delay has changed
	}
	p.next, p.ts, p.owed = q.seq, q.ts, 0
	p.play(q, now)
	return true
}

// start begins a talkspurt with q if it has waited as long as others needed.
func (p *player) start(q *packet, now time.Duration) bool {
	due := now - p.late.max() - p.needed()
	if p.warm {
		return p.startWarm(due)
	}
	newest := p.slots[p.top%slots].ts
	for ticks(newest-q.ts, p.clock) > maxBacklog {
		p.next = q.seq + 1
		p.remove(q)
		p.stats.Late++
		if q = p.first(); q == nil {
			return false
		}
	}
	if ticks(q.ts, p.clock) > due && now-q.at < maxBacklog {
		return false
	}
	p.open(q)
	return true
}

// open plays from q on. Where packets and pulls are not of one length there is
// silence before it, as much as keeps later pulls from coming too early.
func (p *player) open(q *packet) {
	p.playing, p.next, p.ts, p.owed = true, q.seq, q.ts, 0
	p.begin(0)
	noise := p.noise.on
	p.noise.on = false
	n := p.dec.Samples(q.data)
	if n == 0 {
		return
	}
	lead := p.asked - gcd(p.asked, n) - len(p.pcm)
	for seq := q.seq + 1; lead > 0 && seq <= p.top && p.slots[seq%slots].seq == seq; seq++ {
		lead -= n
	}
	if lead > 0 {
		if pcm := p.grow(lead); noise {
			p.noise.fill(pcm)
			p.noise.on = false
		} else {
			clear(pcm)
		}
	}
}

func gcd(a, b int) int {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

// startWarm begins with the newest packet that is due; the decoder gets those
// before it to find its state.
func (p *player) startWarm(due time.Duration) bool {
	var from *packet
	for seq := p.top; seq > p.top-slots && seq > 0; seq-- {
		if s := &p.slots[seq%slots]; s.seq == seq && s.data != nil && ticks(s.ts, p.clock) <= due {
			from = s
			break
		}
	}
	if from == nil {
		return false
	}
	for {
		s := p.first()
		if s == from {
			break
		}
		if s.data != nil {
			if n := p.dec.Samples(s.data); n > 0 && n <= cap(p.pcm) {
				scratch := p.pcm[len(p.pcm):cap(p.pcm)]
				if n <= len(scratch) {
					p.decoded++
					p.dec.Decode(scratch, s.data)
				}
			}
		}
		p.next = s.seq + 1
		p.remove(s)
	}
	p.warm = false
	p.open(from)
	return true
}

// starve conceals because nothing is here. The stream's time stands still.
func (p *player) starve() bool {
	p.skip = 0
	if p.span(p.concealed) >= maxConceal {
		p.rest()
		return false
	}
	n := p.frame()
	p.conceal(n)
	p.owed += p.toTicks(n)
	if p.span(p.concealed) >= maxConceal {
		fade(p.pcm[len(p.pcm)-n:])
	}
	return true
}

// frame is what is concealed at a time: as much as was lost probably, not more
// than 20 ms.
func (p *player) frame() int {
	most := p.rate / 50
	if p.duration == 0 {
		return most
	}
	return min(p.duration, most)
}

func (p *player) conceal(n int) {
	p.dec.Conceal(p.grow(n))
	p.concealed += n
	p.stats.Concealed++
}

// grow lengthens pcm by n samples and returns them.
func (p *player) grow(n int) []int16 {
	k := len(p.pcm)
	p.pcm = p.pcm[:k+n]
	return p.pcm[k:]
}

// fill makes up what is missing before q, of which rest is still to be heard,
// a part at a time. It returns false when it has no part left to make.
func (p *player) fill(q *packet, missing int64, now time.Duration) bool {
	n := p.dec.Samples(q.data)
	fec := n > 0 && n <= p.rate*60/1000 && p.dec.HasFEC(q.data)
	if fec {
		p.fecUntil = now + fecMemory
	}
	if missing <= 0 {
		// All of it was concealed while nothing was here. If q brings a copy
		// and came just in time, play the copy and have q wait: from now on
		// there is time for FEC.
		late := now - ticks(q.ts, p.clock) - p.late.max()
		if !fec || p.recovered == q.seq || late >= p.needed() {
			p.begin(now)
			return false
		}
		p.recover(q, n)
		return true
	}
	left := int(missing * int64(p.rate) / int64(p.clock))
	if left == 0 {
		return false
	}
	if n > 0 && left > n {
		left = min(left-n, p.frame())
		p.conceal(left)
	} else if fec && left == n && p.recovered != q.seq {
		p.recover(q, n)
	} else {
		left = min(left, p.frame())
		p.conceal(left)
	}
	p.owed += p.toTicks(left)
	return true
}

func (p *player) recover(q *packet, n int) {
	p.dec.Recover(p.grow(n), q.data)
	p.recovered = q.seq
	p.concealed = 0
	p.stats.Concealed++
	p.stats.Recovered++
}

// needed is the time that the latest packets should be here before they are
// played.
func (p *player) needed() time.Duration {
	if p.fecUntil != 0 && p.duration > 0 {
		return playMargin + p.span(p.duration)
	}
	return playMargin
}

// play decodes q, and takes out or adds a step of delay where it is due.
func (p *player) play(q *packet, now time.Duration) {
	p.waited = now - q.at
	after := now - ticks(q.ts, p.clock)
	if p.fecUntil != 0 && now >= p.fecUntil {
		p.fecUntil = 0
	}
	from := len(p.pcm)
	p.decode(q)
	n := len(p.pcm) - from
	switch {
	case n == 0:
	case p.skip > 0:
		k := min(p.skip, n)
		p.cut(from, k)
		p.skip -= k
	case p.drop > 0:
		k := min(p.drop, n)
		p.cut(from, k)
		p.drop -= k
	default:
		p.assess(now, after)
		p.correct(from, now)
	}
}

// decode adds the PCM of q, which is the next packet, and removes it. What is
// to be skipped as a whole is not decoded.
func (p *player) decode(q *packet) {
	n := p.dec.Samples(q.data)
	p.next++
	p.ts += p.toTicks(n)
	p.concealed = 0
	switch from := len(p.pcm); {
	case n == 0:
		p.stats.Invalid++
	case p.skip >= n:
		p.skip -= n
		p.duration = n
	case n <= cap(p.pcm)-from:
		p.duration = n
		p.decoded++
		if k, err := p.dec.Decode(p.grow(n), q.data); err != nil || k != n {
			clear(p.pcm[from:])
		}
		p.hold(q)
		p.whole = from == 0
	}
	p.remove(q)
}

// hold keeps the data of q until that of another is held.
func (p *player) hold(q *packet) {
	if p.held != nil {
		p.pool.put(p.held)
	}
	p.held, q.data = q.data, nil
}

// cut takes n samples out of pcm at from.
func (p *player) cut(from, n int) {
	p.whole = false

	k := copy(p.pcm[from:], p.pcm[from+n:])
	p.pcm = p.pcm[:from+k]
}

// step is the delay that is taken out or added at once.
func (p *player) step() time.Duration {
	if p.span(p.duration) < 20*time.Millisecond {
		return 10 * time.Millisecond
	}
	return 20 * time.Millisecond
}

// assess learns how long after its timestamp a packet was played and, when it
// has seen enough, compares the least of it with what the latest packets
// needed.
func (p *player) assess(now, after time.Duration) {
	if p.assessments == 0 || after < p.closest {
		p.closest = after
	}
	if p.assessments == 0 {
		p.assessed = now
	}
	p.assessments++
	if p.assessments < assessPackets || now-p.assessed < assessTime {
		return
	}
	p.begin(now)
	p.spare = p.closest - p.late.max() - p.needed()
	p.spareKnown = true
	was := p.adjust
	switch {
	case p.spare < 0:
		p.adjust = 1
	case p.spare >= p.step()+playSlack:
		p.adjust = -1
	default:
		p.adjust = 0
	}
	if p.adjust != was {
		p.adjustAt = now
	}
}

// correct carries out an adjustment, pcm[from:] having just been decoded.
func (p *player) correct(from int, now time.Duration) {
	if p.adjust == 0 {
		return
	}
	n := p.samples(p.step())
	pause := audioLevel(p.pcm[from:]) >= levelPause
	switch {
	case p.adjust > 0 && pause:
		p.dec.Conceal(p.grow(n))
	case p.adjust < 0 && pause:
		k := min(n, len(p.pcm)-from)
		p.cut(from, k)
		p.drop = n - k
	case p.adjust < 0 && (p.spare >= cutAbove || now-p.adjustAt >= cutAfter):
		if !p.splice(from, n) {
			return
		}
	default:
		return
	}
	p.stats.Adjusted++
	p.adjusted(now)
}

// adjusted makes the next assessment start from what is now true.
func (p *player) adjusted(now time.Duration) {
	p.adjust, p.spareKnown = 0, false
	p.begin(now)
}

// splice takes about n samples out of sounding speech, pcm[from:], where the
// two ends are most alike. What follows is decoded for that if it is here.
func (p *player) splice(from, n int) bool {
	blend := p.rate / 200
	for len(p.pcm)-from < n+blend {
		q := p.first()
		if q == nil || q.data == nil || q.noise || q.seq != p.next || q.ts != p.ts ||
			cap(p.pcm)-len(p.pcm) < p.dec.Samples(q.data) {
			return false
		}
		p.decode(q)
	}
	x := p.pcm[from:]
	stride := max(1, p.rate/8000)
	best, at := int64(-1<<62), n
	for lag := n / 2; lag <= n; lag += stride {
		like := int64(0)
		for i := 0; i < blend; i += stride {
			like += int64(x[i]) * int64(x[lag+i])
		}
		if like > best {
			best, at = like, lag
		}
	}
	for i := range blend {
		w := int32(i+1) * 256 / int32(blend+1)
		x[at+i] = int16((int32(x[i])*(256-w) + int32(x[at+i])*w) >> 8)
	}
	p.cut(from, at)
	return true
}

// fade lets pcm die away.
func fade(pcm []int16) {
	for i := range pcm {
		pcm[i] = int16(int(pcm[i]) * (len(pcm) - i) / len(pcm))
	}
}
