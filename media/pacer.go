package media

import (
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"brewline/media/transport"
)

// PacerOptions are the parameters of [NewPacer].
type PacerOptions struct {
	// Workers is the number of goroutines that run bridges, default
	// GOMAXPROCS. Negative: none, the owner calls Tick.
	Workers int
	Logger  *slog.Logger // default slog.Default
}

// A Pacer runs bridges.
type Pacer struct {
	logger  *slog.Logger
	workers []*worker
	wall    time.Time // at 0 of transport.Now
	done    sync.WaitGroup
}

// NewPacer starts the workers of a pacer. Their slots are staggered.
func NewPacer(o PacerOptions) *Pacer {
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	n := o.Workers
	if n == 0 {
		n = runtime.GOMAXPROCS(0)
	}
	p := &Pacer{logger: o.Logger, wall: time.Now().Add(-transport.Now())}
	for i := range max(n, 1) {
		w := &worker{
			offset: slotTime * time.Duration(i) / time.Duration(max(n, 1)),
			wake:   make(chan struct{}, 1),
			stop:   make(chan struct{}),
			due:    make([]*entry, 0, usualEntries),
		}
		for i := range w.wheel {
			w.wheel[i] = make([]*entry, 0, usualEntries)
		}
		if n > 0 {
			w.slot = w.slotAt(transport.Now())
			p.done.Add(1)
			go func() {
				defer p.done.Done()
				w.loop()
			}()
		}
		p.workers = append(p.workers, w)
	}
	return p
}

// Close stops the workers and waits for them. Bridges should be closed before.
func (p *Pacer) Close() {
	for _, w := range p.workers {
		w.stopped.Do(func() { close(w.stop) })
	}
	p.done.Wait()
}

// Tick runs every bridge whose time has come at now, on the clock of
// transport.Now. It is for a pacer without workers, and for one goroutine at a
// time.
func (p *Pacer) Tick(now time.Duration) {
	for _, w := range p.workers {
		w.run(now, func() time.Duration { return now })
	}
}

// add gives a bridge to the worker with the fewest.
func (p *Pacer) add(b *Bridge) {
	w := p.workers[0]
	for _, o := range p.workers[1:] {
		if o.bridges.Load() < w.bridges.Load() {
			w = o
		}
	}
	b.worker = w
	w.bridges.Add(1)
	w.mu.Lock()
	slot := w.slot + 1
	w.insert(&entry{b, up, slot})
	w.insert(&entry{b, down, slot + 1})
	w.mu.Unlock()
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// wheelSize is more than the slots of the longest packet time and a shift.
const wheelSize = 8

// usualEntries is what a slot has room for from the start.
const usualEntries = 64

// direction is one of the two streams of a bridge.
type direction uint8

const (
	up direction = iota
	down
)

// An entry is one direction of one bridge on the wheel.
type entry struct {
	bridge    *Bridge
	direction direction
	due       int64 // slot
}

// A worker is a wheel of slots and a goroutine that runs what is in them.
type worker struct {
	offset  time.Duration // of slot 0
	wake    chan struct{}
	stop    chan struct{}
	stopped sync.Once
	bridges atomic.Int64

	mu    sync.Mutex
	slot  int64 // the last that was run
	wheel [wheelSize][]*entry
	due   []*entry // being run
}

func (w *worker) slotAt(now time.Duration) int64 {
	d := now - w.offset
	if d < 0 {
		return -1
	}
	return int64(d / slotTime)
}

// insert puts an entry in its slot. w.mu is held.
func (w *worker) insert(e *entry) {
	i := e.due % wheelSize
	w.wheel[i] = append(w.wheel[i], e)
}

// next is when the next occupied slot is due, false if there is none.
func (w *worker) next() (time.Duration, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for slot := w.slot + 1; slot <= w.slot+wheelSize; slot++ {
		if len(w.wheel[slot%wheelSize]) > 0 {
			return w.offset + time.Duration(slot)*slotTime, true
		}
	}
	return 0, false
}

// loop sleeps from slot to slot: waiting on a timer's channel beside others
// costs more, and allocates now and then. A bridge that comes, and the end,
// wait until the next slot that has something in it, at most wheelSize slots.
func (w *worker) loop() {
	for {
		at, ok := w.next()
		if !ok {
			select {
			case <-w.wake:
			case <-w.stop:
				return
			}
			continue
		}
		time.Sleep(at - transport.Now())
		select {
		case <-w.stop:
			return
		default:
			w.run(transport.Now(), transport.Now)
		}
	}
}

// run runs everything that is due at now. Deadlines are absolute: what is a
// whole packet time late has missed that packet.
func (w *worker) run(now time.Duration, clock func() time.Duration) {
	w.mu.Lock()
	current := w.slotAt(now)
	first := max(w.slot+1, current-wheelSize+1) // older slots share a bucket with these
	for slot := first; slot <= current; slot++ {
		bucket := &w.wheel[slot%wheelSize]
		w.due = append(w.due, *bucket...)
		clear(*bucket)
		*bucket = (*bucket)[:0]
	}
	w.slot = max(w.slot, current)
	w.mu.Unlock()
	for i, e := range w.due {
		if next := e.bridge.tick(e.direction, clock(), current-e.due); next > 0 {
			e.due = current + next
		} else {
			w.due[i] = nil
			if e.direction == up {
				w.bridges.Add(-1)
			}
		}
	}
	w.mu.Lock()
	for _, e := range w.due {
		if e != nil {
			w.insert(e)
		}
	}
	w.mu.Unlock()
	clear(w.due)
	w.due = w.due[:0]
}
