package brewery

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"brewline/config"
	"brewline/xmpp"
)

// State is how a shard's control session fares.
type State string

// States of a shard.
const (
	Connecting State = "connecting" // nothing known yet, first attempt under way
	Up         State = "up"
	Down       State = "down"    // tried again for ever
	Removed    State = "removed" // no longer configured, its calls may finish
)

// Shard is a configured shard at run time. All methods are safe for
// concurrent use.
type Shard struct {
	name string
	set  *Set
	log  *slog.Logger
	conf atomic.Pointer[shardConf]

	mu       sync.Mutex
	state    State
	since    time.Time
	err      error // why it is down
	link     *link
	settled  chan struct{} // closed when state is no longer Connecting
	retries  uint64        // failed attempts since it was last up
	mismatch string        // what the shard header said instead
	calls    int
	resource string // of the account's session, the nick in the brewery

	brewery    BreweryState
	breweryErr error
	focus      bool // is in the brewery

	poked chan struct{} // what the brewery is told has changed
	dials dialBook

	stop    func()        // ends the control loop; nil when none runs
	stopped chan struct{} // closed when it has ended
}

// shardConf is one snapshot of a shard's configuration.
type shardConf struct {
	*config.Shard
	tls tlsCache
}

// controlKey is what the control session depends on: when it changes, the
// session is opened anew.
type controlKey struct {
	url, authDomain, user string
	password              config.Secret
	brewery, focusNick    string
	domain, shardHeader   string
	login                 config.Login
	tls                   config.TLS
}

func (c *shardConf) key() controlKey {
	return controlKey{c.URL, c.AuthDomain, c.Username, c.Password, c.Brewery, c.Effective.FocusNick,
		c.Effective.Domain, c.Effective.ShardHeader, c.Effective.Login, c.TLS}
}

func newShard(s *Set, c *config.Shard) *Shard {
	sh := &Shard{
		name: c.Name, set: s, log: s.log.With("shard", c.Name),
		state: Connecting, since: time.Now(), settled: make(chan struct{}),
		resource: newResource(), poked: make(chan struct{}, 1),
	}
	close(sh.settled) // not before Run
	sh.conf.Store(&shardConf{Shard: c})
	return sh
}

// Name returns the shard's name in the configuration.
func (sh *Shard) Name() string { return sh.name }

// Config returns the shard's current configuration, not to be changed.
func (sh *Shard) Config() *config.Shard { return sh.conf.Load().Shard }

// Weight returns the shard's share of new rooms.
func (sh *Shard) Weight() int { return sh.Config().Weight }

// Up says whether the shard's control session is open.
func (sh *Shard) Up() bool {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	return sh.state == Up
}

// Acquire counts a call on the shard. A shard that is taken out of the
// configuration stays, as removed, until every call has called Release.
func (sh *Shard) Acquire() {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	sh.calls++
}

// Release takes back one Acquire.
func (sh *Shard) Release() {
	sh.mu.Lock()
	sh.calls--
	if sh.calls < 0 {
		sh.mu.Unlock()
		panic("brewery: Release without Acquire")
	}
	gone := sh.calls == 0 && sh.state == Removed
	sh.mu.Unlock()
	if gone {
		sh.set.forget(sh)
	}
}

// ShardStatus is the state of a shard at one moment.
type ShardStatus struct {
	Shard, Deployment string
	State             State
	Since             time.Time
	Err               error    // why it is down, nil otherwise
	JID               xmpp.JID // of the control session, zero when not up
	Retries           uint64   // failed attempts since it was last up
	// Mismatch is the value of the shard header when it is not the configured
	// header_value: the URL leads to another shard, or header_value is wrong.
	Mismatch string
	Calls    int // conference legs on it

	// Brewery is how the presence in the brewery fares, "" without one;
	// BreweryErr is why it is not there.
	Brewery    BreweryState
	BreweryErr error
	Focus      bool // Jicofo is in the brewery
}

func (sh *Shard) status() ShardStatus {
	c := sh.Config()
	sh.mu.Lock()
	defer sh.mu.Unlock()
	st := ShardStatus{
		Shard: sh.name, Deployment: c.Deployment, State: sh.state, Since: sh.since,
		Err: sh.err, Retries: sh.retries, Mismatch: sh.mismatch, Calls: sh.calls,
		Brewery: sh.brewery, BreweryErr: sh.breweryErr, Focus: sh.focus,
	}
	if sh.link != nil {
		st.JID = sh.link.JID()
	}
	return st
}

// why describes a shard that is not up, for an error.
func (sh *Shard) why() string {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if sh.err == nil {
		return string(sh.state)
	}
	return fmt.Sprintf("%s: %v", sh.state, sh.err)
}

// tlsCache keeps what was read from a CA file; a failure is tried again.
type tlsCache struct {
	mu sync.Mutex
	c  *tls.Config
}

// tlsConfig is nil when nothing but the defaults is configured.
func (c *shardConf) tlsConfig() (*tls.Config, error) {
	if c.TLS == (config.TLS{}) {
		return nil, nil
	}
	c.tls.mu.Lock()
	defer c.tls.mu.Unlock()
	if c.tls.c == nil {
		t, err := c.TLS.Config()
		if err != nil {
			return nil, err
		}
		c.tls.c = t
	}
	return c.tls.c.Clone(), nil
}
