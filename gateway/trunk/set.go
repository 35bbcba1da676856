package trunk

import (
	"cmp"
	"context"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"brewline/config"
	"brewline/sip"
)

// UA is what a Set needs of a user agent.
type UA interface {
	// Options asks a SIP URI, through a proxy or "", for a trunk: see sip.UA.
	Options(ctx context.Context, uri, proxy, trunk string) error
	Resolve(ctx context.Context, uri string) ([]netip.AddrPort, error)
	Register(ctx context.Context, o sip.RegisterOptions)
}

// Options of a Set. The zero value is that of the product.
type Options struct {
	Logger *slog.Logger
	// Changed is called when a trunk has begun or ceased to work, from any
	// goroutine, and must not block.
	Changed func()

	// Timers, for tests.
	ProbeTimeout    time.Duration // of one OPTIONS, 6 s
	ProbeAgain      time.Duration // after one that was not answered, 1 s
	ProbeDown       time.Duration // at the most between probes of a peer that is down, 10 s
	Retry, MaxRetry time.Duration // of a registration: sip.RegisterOptions
	ResolveEvery    time.Duration // of registrars' names, 1 min
}

func (o Options) withDefaults() Options {
	o.ProbeTimeout = cmp.Or(o.ProbeTimeout, 6*time.Second)
	o.ProbeAgain = cmp.Or(o.ProbeAgain, time.Second)
	o.ProbeDown = cmp.Or(o.ProbeDown, 10*time.Second)
	o.ResolveEvery = cmp.Or(o.ResolveEvery, time.Minute)
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Changed == nil {
		o.Changed = func() {}
	}
	return o
}

// contact is the user part of a Contact at the address of a registrar.
type contact struct {
	addr netip.Addr
	user string
}

// Set is the trunks of a configuration at run time. Its methods are safe for
// concurrent use; those that ask may be called before Start.
type Set struct {
	o  Options
	ua UA

	// addresses of registrars and what is behind them; read for every packet
	// of an unknown source.
	addresses atomic.Pointer[map[netip.Addr]string]
	// contacts are the trunks by what they register there.
	contacts atomic.Pointer[map[contact]string]

	mu     sync.Mutex
	closed bool
	order  []string // of the configuration
	trunks map[string]*trunk
	wg     sync.WaitGroup
}

// New makes a Set without trunks.
func New(o Options) *Set {
	s := &Set{o: o.withDefaults(), trunks: map[string]*trunk{}}
	s.addresses.Store(&map[netip.Addr]string{})
	s.contacts.Store(&map[contact]string{})
	return s
}

// Start makes the trunks of a configuration live.
func (s *Set) Start(ua UA, cfg *config.Config) {
	s.ua = ua
	s.Apply(cfg)
}

// Apply starts, stops and changes trunks to be those of another configuration.
// It does not wait.
func (s *Set) Apply(cfg *config.Config) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	old, order := s.trunks, []string(nil)
	s.trunks = map[string]*trunk{}
	for i := range cfg.Trunks {
		p := newPolicy(&cfg.Trunks[i])
		order = append(order, p.name)
		t := old[p.name]
		if t != nil && t.policy.equal(p) {
			delete(old, p.name)
		} else {
			// What is registered otherwise is taken back first.
			t = newTrunk(s, p, t)
			s.wg.Go(t.run)
		}
		s.trunks[p.name] = t
	}
	s.order = order
	for _, t := range old {
		t.cancel()
	}
	s.tellAddresses()
}

// Close takes all registrations back and ends. It returns when that is done,
// or when it has failed.
func (s *Set) Close() {
	s.mu.Lock()
	s.closed = true
	for _, t := range s.trunks {
		t.cancel()
	}
	s.mu.Unlock()
	s.wg.Wait()
}

// Unregister takes all registrations back, and probes no more, but goes on
// letting registrars' addresses in. It does not wait.
func (s *Set) Unregister() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for _, t := range s.trunks {
		t.cancel()
	}
}

// Match finds the trunk that registers at an address.
func (s *Set) Match(a netip.Addr) (name string, ok bool) {
	name, ok = (*s.addresses.Load())[a.Unmap().WithZone("")]
	return name, ok
}

// Called finds the trunk that registers at an address and whose Contact there
// has that user part.
func (s *Set) Called(a netip.Addr, user string) (name string, ok bool) {
	name, ok = (*s.contacts.Load())[contact{a.Unmap().WithZone(""), user}]
	return name, ok
}

// tellAddresses publishes the addresses of all trunks: of one that several
// have, the first trunk counts. s.mu is held.
func (s *Set) tellAddresses() {
	all, contacts := map[netip.Addr]string{}, map[contact]string{}
	for _, name := range s.order {
		t := s.trunks[name]
		t.mu.Lock()
		for _, list := range t.addresses {
			for _, a := range list {
				if _, taken := all[a]; !taken {
					all[a] = name
				}
				c := contact{a, t.policy.contact()}
				if _, taken := contacts[c]; !taken && c.user != "" {
					contacts[c] = name
				}
			}
		}
		t.mu.Unlock()
	}
	s.addresses.Store(&all)
	s.contacts.Store(&contacts)
}

// Down reports whether a trunk is known not to work.
func (s *Set) Down(name string) bool {
	s.mu.Lock()
	t := s.trunks[name]
	s.mu.Unlock()
	return t != nil && t.status().State.Down()
}

// Status returns the trunks' states in the order of the configuration.
func (s *Set) Status() []Status {
	s.mu.Lock()
	trunks := make([]*trunk, 0, len(s.order))
	for _, name := range s.order {
		trunks = append(trunks, s.trunks[name])
	}
	s.mu.Unlock()
	out := make([]Status, 0, len(trunks))
	for _, t := range trunks {
		out = append(out, t.status())
	}
	return out
}

// policy is what of a trunk's configuration counts here.
type policy struct {
	name, address, proxy           string
	probe, expires                 time.Duration
	registrars                     []string
	user, domain, username, secret string
	other                          string // that makes peers see us otherwise
}

func newPolicy(t *config.Trunk) policy {
	user, _ := t.From()
	p := policy{
		name: t.Name, address: t.Address, proxy: t.Proxy, probe: t.Probe.Duration, expires: t.Expires.Duration,
		registrars: t.Register, user: user, username: t.Username, secret: t.Password.Value(),
		other: t.Advertise + t.TLS.CA + t.TLS.ServerName,
	}
	if len(t.Register) > 0 {
		p.domain = t.FromDomain
	}
	return p
}

// contact is the user part of the Contact that is registered, "" if none is.
func (p policy) contact() string {
	if len(p.registrars) == 0 {
		return ""
	}
	return cmp.Or(p.username, p.user)
}

func (p policy) equal(q policy) bool {
	same := slices.Equal(p.registrars, q.registrars)
	return same && p.name == q.name && p.address == q.address && p.proxy == q.proxy && p.probe == q.probe && p.expires == q.expires &&
		p.user == q.user && p.domain == q.domain && p.username == q.username && p.secret == q.secret && p.other == q.other
}
