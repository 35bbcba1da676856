package brewery

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"brewline/config"
)

// Set is all deployments and shards of a configuration.
type Set struct {
	o     Options
	log   *slog.Logger
	count counters

	advert advert
	seats  atomic.Int32 // breweries in which we are

	ctx    context.Context // ends with Run
	cancel context.CancelFunc
	wg     sync.WaitGroup // all goroutines; added to under mu or by one of them

	mu          sync.Mutex
	running     bool
	deployments []*Deployment // in the order of the configuration
	retired     map[string]*Deployment
	removed     []*Shard // that still have calls
}

// New makes a Set of a configuration. No shard is connected before [Set.Run].
func New(cfg *config.Config, o Options) (*Set, error) {
	o = o.withDefaults()
	s := &Set{o: o, log: o.Logger, retired: map[string]*Deployment{},
		advert: advert{canDial: map[string]bool{}}}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	if err := s.Reload(cfg); err != nil {
		s.cancel()
		return nil, err
	}
	return s, nil
}

// Run holds a control session to every shard, connecting again for ever, until
// ctx ends. It returns when everything the Set started has ended; the Set is
// of no use afterwards.
func (s *Set) Run(ctx context.Context) error {
	s.mu.Lock()
	if s.running || s.ctx.Err() != nil {
		s.mu.Unlock()
		return errors.New("brewery: Run called twice")
	}
	s.running = true
	for _, d := range s.deployments {
		for _, sh := range d.snap.Load().shards {
			sh.start()
		}
	}
	s.mu.Unlock()

	<-ctx.Done()

	s.mu.Lock()
	s.running = false
	s.cancel()
	for _, d := range s.deployments {
		for _, sh := range d.snap.Load().shards {
			sh.halt(Down, errStopped)
		}
	}
	s.mu.Unlock()
	s.wg.Wait()
	for _, d := range s.deployments {
		d.snap.Load().closeIdle()
	}
	return nil
}

// Reload takes a new configuration: shards come, go and change by name; the
// others are not touched. On error nothing has changed.
func (s *Set) Reload(cfg *config.Config) error {
	if err := check(cfg); err != nil {
		return fmt.Errorf("brewery: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ctx != nil && s.ctx.Err() != nil {
		return errors.New("brewery: Reload after Run has ended")
	}
	old := map[string]*Deployment{}
	for _, d := range s.deployments {
		old[d.name] = d
	}
	s.deployments = nil
	for i := range cfg.Deployments {
		c := &cfg.Deployments[i]
		d := old[c.Name]
		if d == nil {
			if d = s.retired[c.Name]; d == nil {
				d = newDeployment(s, c.Name)
			}
			delete(s.retired, c.Name)
		}
		delete(old, c.Name)
		s.deployments = append(s.deployments, d)
		s.update(d, c, cfg)
	}
	// A call may still hold a deployment that is gone; it then has no shards.
	for name, d := range old {
		s.update(d, d.snap.Load().Deployment, &config.Config{Gateway: cfg.Gateway})
		s.retired[name] = d
	}
	s.advert.keep(cfg)
	return nil
}

// check finds what config.Load would not have let pass.
func check(cfg *config.Config) error {
	if cfg == nil {
		return errors.New("no configuration")
	}
	seen := map[string]bool{}
	for _, d := range cfg.Deployments {
		if seen[d.Name] {
			return fmt.Errorf("deployment %q is there twice", d.Name)
		}
		seen[d.Name] = true
	}
	shards := map[string]bool{}
	for _, sh := range cfg.Shards {
		if shards[sh.Name] {
			return fmt.Errorf("shard %q is there twice", sh.Name)
		}
		shards[sh.Name] = true
		if !seen[sh.Deployment] {
			return fmt.Errorf("shard %q: there is no deployment %q", sh.Name, sh.Deployment)
		}
	}
	return nil
}

// update gives a deployment its new snapshot. The caller holds s.mu.
func (s *Set) update(d *Deployment, c *config.Deployment, cfg *config.Config) {
	before := d.snap.Load()
	have := map[string]*Shard{}
	for _, sh := range before.shards {
		have[sh.name] = sh
	}
	next := newSnapshot(c, cfg.Gateway.LocateTimeout.Duration)
	var fresh, changed []*Shard
	for _, sc := range cfg.ShardsOf(c.Name) {
		sh := have[sc.Name]
		delete(have, sc.Name)
		if sh == nil {
			sh = newShard(s, sc)
			fresh = append(fresh, sh)
		} else {
			old := sh.conf.Load()
			conf := &shardConf{Shard: sc}
			sh.conf.Store(conf)
			if old.key() != conf.key() {
				changed = append(changed, sh)
			} else {
				sh.poke() // the region may be another
			}
		}
		next.shards = append(next.shards, sh)
	}
	s.balancerClient(next)
	d.snap.Store(next)
	before.closeIdle()
	for _, sh := range have {
		sh.halt(Removed, nil)
		sh.log.Info("shard removed", "calls", sh.status().Calls)
		if sh.status().Calls > 0 {
			s.removed = append(s.removed, sh)
		}
	}
	if !s.running {
		return
	}
	for _, sh := range changed {
		sh.halt(Connecting, nil)
	}
	for _, sh := range append(fresh, changed...) {
		sh.start()
	}
}

// forget drops a removed shard without calls.
func (s *Set) forget(sh *Shard) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.removed = slices.DeleteFunc(s.removed, func(o *Shard) bool { return o == sh && sh.status().Calls == 0 })
}

// all returns the configured deployments.
func (s *Set) all() []*Deployment {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.deployments)
}

// Deployment returns a configured deployment, or nil.
func (s *Set) Deployment(name string) *Deployment {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range s.deployments {
		if d.name == name {
			return d
		}
	}
	return nil
}

// Status returns the state of every shard, in the order of the configuration,
// and then of removed ones that still have calls.
func (s *Set) Status() []ShardStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []ShardStatus
	for _, d := range s.deployments {
		for _, sh := range d.snap.Load().shards {
			out = append(out, sh.status())
		}
	}
	for _, sh := range s.removed {
		out = append(out, sh.status())
	}
	return out
}

// Up returns how many shards are up.
func (s *Set) Up() int {
	n := 0
	for sh := range s.shards() {
		if sh.Up() {
			n++
		}
	}
	return n
}

// AnyUp reports whether a shard is up.
func (s *Set) AnyUp() bool {
	for sh := range s.shards() {
		if sh.Up() {
			return true
		}
	}
	return false
}

// shards are those of the configuration.
func (s *Set) shards() iter.Seq[*Shard] {
	s.mu.Lock()
	deployments := s.deployments // replaced, never changed
	s.mu.Unlock()
	return func(yield func(*Shard) bool) {
		for _, d := range deployments {
			for _, sh := range d.snap.Load().shards {
				if !yield(sh) {
					return
				}
			}
		}
	}
}

// defaultLocate is the deadline of Locate when none is configured.
const defaultLocate = time.Second
