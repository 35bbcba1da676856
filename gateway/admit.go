package gateway

import (
	"sync"
	"time"

	"brewline/config"
	"brewline/gateway/call"
)

// retryAfter is what a dispatcher is told when this process can take no call.
const retryAfter = 10 * time.Second

// ready tells whether any call could be taken: what OPTIONS is answered by.
func (g *Gateway) ready() (bool, time.Duration) {
	if end := g.full(); end != "" {
		return false, retryAfter
	}
	return true, 0
}

// full says why no call at all can be taken, "" if one can.
func (g *Gateway) full() call.End {
	if g.draining.Load() {
		return call.EndDraining
	}
	g.mu.Lock()
	n := g.admitted
	g.mu.Unlock()
	if n >= g.cfg.Load().Gateway.MaxCalls {
		return call.EndBusy
	}
	if !g.set.AnyUp() {
		return call.EndNoShard
	}
	return ""
}

// admit reserves a place for a call, and one of the trunk's. A non-empty end
// says why there is none; else release and carried give the places back.
func (g *Gateway) admit(t *config.Trunk) (release, carried func(), end call.End) {
	if end := g.full(); end != "" {
		return nil, nil, end
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closing {
		return nil, nil, call.EndDraining
	}
	if g.admitted >= g.cfg.Load().Gateway.MaxCalls {
		return nil, nil, call.EndBusy
	}
	if carried = g.carryOn(t); carried == nil {
		return nil, nil, call.EndTrunkLimit
	}
	if g.admitted == 0 {
		g.idle = make(chan struct{})
	}
	g.admitted++
	return func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		if g.admitted--; g.admitted == 0 {
			close(g.idle)
		}
	}, carried, ""
}

// carry counts a call on a trunk until release.
func (g *Gateway) carry(trunk string) (release func(), ok bool) {
	t := g.cfg.Load().Trunk(trunk)
	if t == nil {
		return nil, false // gone in a reload
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	release = g.carryOn(t)
	return release, release != nil
}

// carryOn is carry; nil: the trunk has as many calls as it may. g.mu is held.
func (g *Gateway) carryOn(t *config.Trunk) (release func()) {
	if g.fullTrunk(t) {
		return nil
	}
	g.byTrunk[t.Name]++
	return sync.OnceFunc(func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		if g.byTrunk[t.Name]--; g.byTrunk[t.Name] == 0 {
			delete(g.byTrunk, t.Name)
		}
	})
}

// fullTrunk reports whether a trunk has as many calls as it may. g.mu is held.
func (g *Gateway) fullTrunk(t *config.Trunk) bool {
	return t.MaxCalls > 0 && g.byTrunk[t.Name] >= t.MaxCalls
}
