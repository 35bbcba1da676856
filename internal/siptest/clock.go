package siptest

import (
	"sync"
	"time"
)

// frameTime is the pace of all phones.
const frameTime = 20 * time.Millisecond

// clock calls everybody who speaks once a frame: one ticker for all phones of
// the process, running only while somebody speaks.
var clock metronome

type metronome struct {
	mu   sync.Mutex
	subs map[*media]struct{}
	stop chan struct{}
}

func (c *metronome) add(m *media) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.subs == nil {
		c.subs = map[*media]struct{}{}
	}
	c.subs[m] = struct{}{}
	if len(c.subs) == 1 {
		c.stop = make(chan struct{})
		go c.run(c.stop)
	}
}

func (c *metronome) remove(m *media) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.subs[m]; !ok {
		return
	}
	delete(c.subs, m)
	if len(c.subs) == 0 {
		close(c.stop)
	}
}

func (c *metronome) run(stop chan struct{}) {
	t := time.NewTicker(frameTime)
	defer t.Stop()
	next := time.Now().Add(frameTime)
	var subs []*media
	for {
		select {
		case <-stop:
			return
		case <-t.C:
		}
		// A ticker that was late drops ticks; speakers do not. After a stall
		// of more than 200 ms it starts anew.
		now := time.Now()
		if now.Sub(next) > 10*frameTime {
			next = now
		}
		for ; !next.After(now); next = next.Add(frameTime) {
			c.mu.Lock()
			subs = subs[:0]
			for m := range c.subs {
				subs = append(subs, m)
			}
			c.mu.Unlock()
			for _, m := range subs {
				m.tick()
			}
		}
	}
}
