package gateway

import (
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
	if g.set.Up() == 0 {
		return call.EndNoShard
	}
	return ""
}

// admit reserves a place for a call of the trunk. A non-empty end says why
// there is none; else release gives the place back.
func (g *Gateway) admit(t *config.Trunk) (release func(), end call.End) {
	if end := g.full(); end != "" {
		return nil, end
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closing {
		return nil, call.EndDraining
	}
	if g.admitted >= g.cfg.Load().Gateway.MaxCalls {
		return nil, call.EndBusy
	}
	if t.MaxCalls > 0 && g.byTrunk[t.Name] >= t.MaxCalls {
		return nil, call.EndTrunkLimit
	}
	if g.admitted == 0 {
		g.idle = make(chan struct{})
	}
	g.admitted++
	g.byTrunk[t.Name]++
	return func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		if g.byTrunk[t.Name]--; g.byTrunk[t.Name] == 0 {
			delete(g.byTrunk, t.Name)
		}
		if g.admitted--; g.admitted == 0 {
			close(g.idle)
		}
	}, ""
}
