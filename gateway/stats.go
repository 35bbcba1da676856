package gateway

import (
	"sync"
	"sync/atomic"
	"time"

	"brewline/gateway/api"
	"brewline/gateway/call"
)

// counters are what the process has seen since its start.
type counters struct {
	invites  atomic.Uint64
	dials    atomic.Uint64
	answered atomic.Uint64
	seconds  atomic.Uint64 // of answered calls, rounded
	moves    atomic.Uint64
	rejoins  atomic.Uint64
	quality  *quality
	mu       sync.Mutex
	byEnd    map[call.End]uint64
}

func (c *counters) ended(e call.End) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.byEnd == nil {
		c.byEnd = map[call.End]uint64{}
	}
	c.byEnd[e]++
}

func (c *counters) finished(s call.Summary) {
	c.ended(s.End)
	c.moves.Add(uint64(s.Moves))
	c.rejoins.Add(uint64(s.Rejoins))
	if !s.Answered.IsZero() {
		c.answered.Add(1)
		c.quality.ended(s.Media)
		c.seconds.Add(uint64(s.Ended.Sub(s.Answered).Round(time.Second) / time.Second))
	}
}

// Snapshot implements api.Source.
func (g *Gateway) Snapshot() api.Snapshot {
	s := api.Snapshot{
		Version: g.o.Version, Draining: g.Draining(), MaxCalls: g.cfg.Load().Gateway.MaxCalls,
		Invites: g.counters.invites.Load(), Answered: g.counters.answered.Load(),
		TalkedSeconds: g.counters.seconds.Load(), Moves: g.counters.moves.Load(), Rejoins: g.counters.rejoins.Load(),
		PortsInUse: g.phonePorts.InUse(), Ended: map[string]uint64{}, Trunks: g.trunks.Status(), SIP: g.ua.Stats(),
	}
	if g.bridgePorts != g.phonePorts {
		s.PortsInUse += g.bridgePorts.InUse()
	}
	g.counters.mu.Lock()
	for e, n := range g.counters.byEnd {
		s.Ended[string(e)] = n
	}
	g.counters.mu.Unlock()
	g.mu.Lock()
	for _, c := range g.calls {
		s.Calls = append(s.Calls, c.Info())
	}
	g.mu.Unlock()
	s.Quality = g.counters.quality.snapshot()
	s.Shards = g.set.Status()
	s.Locate = g.set.Stats()
	return s
}
