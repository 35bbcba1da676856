package xmppd

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"
)

// FaultKind is what goes wrong with an HTTP exchange.
type FaultKind string

// The kinds of fault.
const (
	Status FaultKind = "status" // answered with Fault.Code; nothing was processed
	Refuse FaultKind = "refuse" // connection closed; nothing was processed
	Drop   FaultKind = "drop"   // processed, then the connection is closed instead of an answer
	Late   FaultKind = "late"   // processed; the answer waits for Fault.Delay
	Shard  FaultKind = "shard"  // the answer's X-Jitsi-Shard is Fault.Value, "" removes it
	Stall  FaultKind = "stall"  // processed; not answered until the fault is cleared
)

// Fault is one rule. The first rules that match a request all apply.
type Fault struct {
	Kind        FaultKind
	Match       func(Request) bool // nil: every request
	Skip        int                // let this many matching requests pass first
	Count       int                // then hit this many; 0 is no limit
	Probability float64            // of hitting a matching request; 0 means 1
	Code        int                // Status: default 502
	Delay       time.Duration      // Late
	Value       string             // Shard
}

// Faults injects failures into HTTP exchanges, and silence on all transports.
// It is safe for concurrent use.
type Faults struct {
	mu      sync.Mutex
	rng     *rand.Rand
	rules   []*rule
	fired   map[FaultKind]int
	silence chan struct{} // closed when silence ends; nil: no silence
}

type rule struct {
	Fault
	seen, hit int
	cleared   chan struct{}
}

func newFaults(seed int64) *Faults {
	return &Faults{rng: rand.New(rand.NewPCG(uint64(seed), 0x6661756c7473)), fired: map[FaultKind]int{}}
}

// Add adds a rule.
func (f *Faults) Add(r Fault) {
	if r.Code == 0 {
		r.Code = 502
	}
	f.mu.Lock()
	f.rules = append(f.rules, &rule{Fault: r, cleared: make(chan struct{})})
	f.mu.Unlock()
}

// Clear removes every rule and ends every stall and silence.
func (f *Faults) Clear() {
	f.mu.Lock()
	for _, r := range f.rules {
		close(r.cleared)
	}
	f.rules = nil
	f.mu.Unlock()
	f.Silence(false)
}

// Fired counts how often faults of a kind hit.
func (f *Faults) Fired(k FaultKind) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.fired[k]
}

// Silence holds back everything the server would say on any transport, without
// closing anything, until it is switched off.
func (f *Faults) Silence(on bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if on && f.silence == nil {
		f.silence = make(chan struct{})
	} else if !on && f.silence != nil {
		close(f.silence)
		f.silence = nil
	}
}

// quiet waits while there is silence.
func (f *Faults) quiet(ctx context.Context) error {
	for {
		f.mu.Lock()
		c := f.silence
		f.mu.Unlock()
		if c == nil {
			return nil
		}
		select {
		case <-c:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// draw picks the rules that hit a request.
func (f *Faults) draw(q Request) []*rule {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []*rule
	for _, r := range f.rules {
		if r.Match != nil && !r.Match(q) {
			continue
		}
		r.seen++
		if r.seen <= r.Skip || r.Count > 0 && r.hit >= r.Count {
			continue
		}
		if r.Probability > 0 && f.rng.Float64() >= r.Probability {
			continue
		}
		r.hit++
		f.fired[r.Kind]++
		out = append(out, r)
	}
	return out
}
