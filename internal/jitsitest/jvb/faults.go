package jvb

import (
	"container/heap"
	"math/rand/v2"
	"net/netip"
	"time"
)

// maxDelayed bounds the packets held back at any time.
const maxDelayed = 1 << 16

// direction is one way between the bridge and one client.
type direction struct {
	faults Faults
	rng    *rand.Rand
	n      uint64
	last   time.Time // when the latest packet was or will be released
}

func newDirection(seed, stream uint64, f Faults) direction {
	return direction{faults: f, rng: rand.New(rand.NewPCG(seed, stream))}
}

func (f *Faults) none() bool {
	return f.Loss == 0 && f.Drop == nil && f.Duplicate == 0 && f.Reorder == 0 && f.Delay == 0 && f.Jitter == 0
}

// through returns how often a packet is delivered now: 0, 1 or 2. What is
// delivered later has been copied into the delay queue. The random numbers
// drawn depend on the packet's number alone, so that a seed gives the same
// losses whatever the times are.
func (b *Bridge) through(e *Endpoint, d *direction, k kind, p []byte, addr netip.AddrPort, inbound bool) int {
	f := &d.faults
	if f.none() || k != kindRTP && !f.Everything {
		return 1
	}
	n := d.n
	d.n++
	loss, dup, reorder, jitter := d.rng.Float64(), d.rng.Float64(), d.rng.Float64(), d.rng.Float64()
	if f.Drop != nil {
		if f.Drop(n) {
			return 0
		}
	} else if loss < f.Loss {
		return 0
	}
	copies := 1
	if dup < f.Duplicate {
		copies = 2
	}
	now := time.Now()
	at := now.Add(f.Delay + time.Duration(jitter*float64(f.Jitter)))
	if at.Before(d.last) {
		at = d.last // jitter keeps the order
	}
	if reorder < f.Reorder {
		by := f.ReorderBy
		if by == 0 {
			by = 50 * time.Millisecond
		}
		at = at.Add(by)
	} else if at.After(now) {
		d.last = at
	}
	if !at.After(now) {
		return copies
	}
	for range copies {
		if len(b.delayed.items) >= maxDelayed {
			return 0
		}
		b.delayed.seq++
		heap.Push(&b.delayed, delayedPacket{
			at: at, seq: b.delayed.seq, e: e, kind: k, inbound: inbound, addr: addr, data: append([]byte(nil), p...),
		})
	}
	select {
	case b.wake <- struct{}{}:
	default:
	}
	return 0
}

type delayedPacket struct {
	at      time.Time
	seq     uint64
	e       *Endpoint
	kind    kind
	inbound bool
	addr    netip.AddrPort
	data    []byte
}

// delayQueue is a heap of packets by their time of release.
type delayQueue struct {
	items []delayedPacket
	seq   uint64
}

func (q *delayQueue) Len() int { return len(q.items) }
func (q *delayQueue) Less(i, j int) bool {
	if c := q.items[i].at.Compare(q.items[j].at); c != 0 {
		return c < 0
	}
	return q.items[i].seq < q.items[j].seq
}
func (q *delayQueue) Swap(i, j int) { q.items[i], q.items[j] = q.items[j], q.items[i] }
func (q *delayQueue) Push(x any)    { q.items = append(q.items, x.(delayedPacket)) }
func (q *delayQueue) Pop() any {
	last := q.items[len(q.items)-1]
	q.items[len(q.items)-1] = delayedPacket{}
	q.items = q.items[:len(q.items)-1]
	return last
}

// releaseDelayed delivers held back packets in time.
func (b *Bridge) releaseDelayed() {
	defer b.wg.Done()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		select {
		case <-b.ctx.Done():
			return
		case <-b.wake:
		case <-timer.C:
		}
		b.mu.Lock()
		now := time.Now()
		for len(b.delayed.items) > 0 && !b.delayed.items[0].at.After(now) {
			p := heap.Pop(&b.delayed).(delayedPacket)
			switch {
			case b.crashed || b.stopped:
			case p.inbound:
				b.handle(p.e, p.kind, p.data, p.addr)
			default:
				b.write(p.data, p.addr)
			}
		}
		next := time.Hour
		if len(b.delayed.items) > 0 {
			next = b.delayed.items[0].at.Sub(now)
		}
		b.mu.Unlock()
		timer.Reset(next)
	}
}
