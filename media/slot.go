package media

import "time"

// slotTime is the grain of the pacer.
const slotTime = 10 * time.Millisecond

// phase moves a direction of a bridge among the slots of its packet time, so
// that it runs soon after the packets it needs have come. The move is bounded:
// our clock does not follow theirs.
type phase struct {
	offset int // slots from where we began
	moved  bool
	at     time.Duration
}

const (
	phaseRest = time.Second      // between moves
	phaseCalm = 10 * time.Second // before one that only saves delay

	phaseSlack = 2 * time.Millisecond
)

// shift returns by how many slots to come later (or, negative, earlier) next
// time, with spare the least delay beyond what is needed of all streams played.
func (p *phase) shift(now, spare time.Duration, period int) int {
	if p.moved && now-p.at < phaseRest {
		return 0
	}
	d := 0
	switch {
	case spare >= slotTime+phaseSlack && p.offset > -(period-1) &&
		(!p.moved || now-p.at >= phaseCalm):

		d = -1
	case spare < 0 && spare >= -slotTime && p.offset < period-1:
		d = 1
	default:
		return 0
	}
	p.offset += d
	p.moved, p.at = true, now
	return d
}
