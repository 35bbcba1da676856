package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"brewline/brewery"
	"brewline/config"
	"brewline/gateway/api"
	"brewline/gateway/call"
	"brewline/gateway/dialplan"
	"brewline/gateway/trunk"
	"brewline/media"
	"brewline/media/transport"
	"brewline/sip"
)

// portDrain is how long a media port rests before another call gets it, so
// that late packets of the old call do not reach the new one.
const portDrain = 5 * time.Second

// Options are what the configuration does not hold.
type Options struct {
	Version string
	Logger  *slog.Logger
	Brewery brewery.Options // timers, for tests
	SIP     sip.Options     // timers, for tests
	Trunks  trunk.Options   // timers, for tests
	Call    call.Timers     // what the configuration does not set, for tests
	Timers  ConferenceTimers
	// Transport holds the ICE timers towards the videobridges, for tests.
	Transport transport.ConferenceOptions
}

// Gateway is a running process's worth of calls.
type Gateway struct {
	o     Options
	log   *slog.Logger
	cfg   atomic.Pointer[config.Config]
	set   *brewery.Set
	ua    *sip.UA
	http  *api.Server
	pacer *media.Pacer

	phonePorts, bridgePorts *transport.Ports

	trunks   *trunk.Set
	accounts atomic.Pointer[[]sip.Account] // let in by digest
	dialable sync.Mutex                    // orders what tellDialable tells

	plan     *dialplan.Plan
	counters counters
	draining atomic.Bool
	dialling atomic.Int32    // dial requests without answer
	asked    chan struct{}   // closed by Shutdown
	ctx      context.Context // of the calls
	cancel   context.CancelFunc

	wg sync.WaitGroup // control sessions

	runtime runtimeShards

	mu       sync.Mutex
	calls    map[string]*call.Call
	byTrunk  map[string]int
	admitted int
	closing  bool          // calls that were on their way in are hung up
	idle     chan struct{} // closed while there is no call
}

// Start brings the gateway up: listeners bound, control sessions connecting.
// Close ends it.
func Start(ctx context.Context, cfg *config.Config, o Options) (*Gateway, error) {
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	ctx, cancel := context.WithCancel(ctx)
	g := &Gateway{
		o: o, log: o.Logger, ctx: ctx, cancel: cancel,
		calls: map[string]*call.Call{}, byTrunk: map[string]int{},
		plan: dialplan.New(nil), counters: counters{quality: newQuality()},
		idle: make(chan struct{}), asked: make(chan struct{}),
	}
	close(g.idle)
	g.cfg.Store(cfg)
	g.accept(cfg)
	g.trunks = g.newTrunks()
	if err := g.start(ctx, cfg); err != nil {
		g.Close()
		return nil, err
	}
	return g, nil
}

func (g *Gateway) start(ctx context.Context, cfg *config.Config) error {
	if err := CheckMedia(cfg.Media); err != nil {
		return err
	}
	bo := g.o.Brewery
	bo.Logger, bo.OnDial, bo.Version = g.log, g.dial, g.o.Version
	set, err := brewery.New(cfg, bo)
	if err != nil {
		return err
	}
	g.set = set
	g.applyRules(cfg)
	g.pacer = media.NewPacer(media.PacerOptions{Logger: g.log})
	p, b := cfg.Media.Phone.Ports, cfg.Media.Conference.Ports
	g.phonePorts = transport.NewPorts(p.Min, p.Max, portDrain)
	g.bridgePorts = g.phonePorts
	if b != p {
		g.bridgePorts = transport.NewPorts(b.Min, b.Max, portDrain)
	}
	so := g.o.SIP
	if err := SIPTransports(cfg.SIP, g.cfg.Load, &so); err != nil {
		return err
	}
	so.Match, so.Called = g.match, g.called
	so.Accounts = func() []sip.Account { return *g.accounts.Load() }
	so.BanAfter, so.BanTime = cfg.SIP.BanAfter, cfg.SIP.BanTime.Duration
	so.UnknownSource = cfg.SIP.UnknownSource
	so.Algorithms, so.Origins = cfg.SIP.Digest, cfg.SIP.Origins
	so.UserAgent = cfg.SIP.UserAgent
	so.Ready = g.ready
	so.OnInvite = g.invite
	so.Policy = g.policy
	so.Logger = g.log
	if g.ua, err = sip.Listen(ctx, so); err != nil {
		return fmt.Errorf("sip.listen: %w%s", err, bindHelp(err))
	}
	for i, a := range g.ua.Addrs() {
		g.log.Info("listening for SIP", "network", so.Listen[i].Network, "address", a.String())
	}
	if cfg.HTTP.Listen != "" {
		if g.http, err = api.Listen(cfg.HTTP, g, g.log); err != nil {
			return fmt.Errorf("http.listen: %w%s", err, bindHelp(err))
		}
	}
	g.trunks.Start(trunkUA{g.ua}, cfg)
	// Last: from here on shards may ask us to dial.
	g.wg.Go(func() { set.Run(ctx) })
	g.wg.Go(func() { g.tellLoad(ctx) })
	return nil
}

// policy is what a trunk's peer may do and is asked for.
func (g *Gateway) policy(trunk string) sip.Policy {
	t := g.cfg.Load().Trunk(trunk)
	if t == nil {
		return sip.Policy{}
	}
	p := sip.Policy{SessionTimer: t.SessionTimer.Duration, Transfer: t.Transfer}
	switch t.Reliable {
	case "supported":
		p.Reliable = sip.ReliableSupported
	case "required":
		p.Reliable = sip.ReliableRequired
	}
	return p
}

// Config is the configuration in force.
func (g *Gateway) Config() *config.Config { return g.cfg.Load() }

// SIPAddrs are the addresses on which SIP is received; HTTPAddr that of HTTP.
func (g *Gateway) SIPAddrs() []netip.AddrPort {
	var out []netip.AddrPort
	for _, a := range g.ua.Addrs() {
		if ap, err := netip.ParseAddrPort(a.String()); err == nil {
			out = append(out, ap)
		}
	}
	return out
}

// HTTPAddr is where HTTP is served, "" if nowhere.
func (g *Gateway) HTTPAddr() string {
	if g.http == nil {
		return ""
	}
	return g.http.Addr()
}

// Brewery is the shards at run time.
func (g *Gateway) Brewery() *brewery.Set { return g.set }

// apply puts a configuration in force; runtime.mu is held.
func (g *Gateway) apply(cfg *config.Config) error {
	changes := config.Diff(g.cfg.Load(), cfg)
	if err := CheckMedia(cfg.Media); err != nil {
		return err
	}
	if err := g.set.Reload(cfg); err != nil {
		return err
	}
	g.cfg.Store(cfg)
	g.accept(cfg)
	g.trunks.Apply(cfg)
	g.applyRules(cfg)
	g.log.Info("configuration reloaded", "changes", changes.String())
	return nil
}

// Drain lets running calls end and takes no new ones. It returns when none is
// left or ctx ends.
func (g *Gateway) Drain(ctx context.Context) {
	g.draining.Store(true)
	g.mu.Lock()
	n, idle := g.admitted, g.idle
	g.mu.Unlock()
	g.log.Info("draining", "calls", n)
	g.trunks.Unregister() // so that new calls go elsewhere
	select {
	case <-idle:
	case <-ctx.Done():
	}
}

// Shutdown asks for a drain, as POST /about/shutdown does.
func (g *Gateway) Shutdown() error {
	if !g.cfg.Load().HTTP.EnableShutdown {
		return errors.New("http.enable_shutdown is off")
	}
	g.log.Info("asked to shut down")
	if !g.draining.Swap(true) {
		close(g.asked)
	}
	return nil
}

// Asked is closed when Shutdown was called.
func (g *Gateway) Asked() <-chan struct{} { return g.asked }

// Draining tells whether the gateway takes no new calls.
func (g *Gateway) Draining() bool { return g.draining.Load() }

// Close hangs up what is still running and releases everything.
func (g *Gateway) Close() {
	g.draining.Store(true)
	g.mu.Lock()
	g.closing = true
	for _, c := range g.calls {
		c.Hangup(call.EndShutdown)
	}
	idle := g.idle
	g.mu.Unlock()
	<-idle // every call bounds its own end
	g.trunks.Close()
	g.cancel()
	if g.ua != nil {
		g.ua.Close()
	}
	if g.http != nil {
		g.http.Close()
	}
	if g.pacer != nil {
		g.pacer.Close()
	}
	g.wg.Wait()
}
