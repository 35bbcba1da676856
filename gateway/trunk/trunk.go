package trunk

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"time"

	"brewline/sip"
)

// trunk is one at run time.
type trunk struct {
	set    *Set
	policy policy
	ctx    context.Context
	cancel context.CancelFunc
	before *trunk        // of the same name, must have ended first
	ended  chan struct{} // all is taken back

	mu            sync.Mutex
	registrations []sip.Registration // as policy.registrars
	peer          probe
	addresses     [][]netip.Addr // of the registrars, of the peer
	state         State
	reason        string
	since         time.Time
}

// probe is what OPTIONS has told.
type probe struct {
	asked bool // there was an answer, or none came
	down  bool
	err   error // of the latest
}

func newTrunk(s *Set, p policy, before *trunk) *trunk {
	t := &trunk{set: s, policy: p, before: before, ended: make(chan struct{}), since: time.Now()}
	t.ctx, t.cancel = context.WithCancel(context.Background())
	t.registrations = make([]sip.Registration, len(p.registrars))
	t.addresses = make([][]netip.Addr, len(p.registrars)+1)
	if before != nil { // who may call does not change for a moment
		before.mu.Lock()
		for _, list := range before.addresses {
			t.addresses[len(p.registrars)] = append(t.addresses[len(p.registrars)], list...)
		}
		before.mu.Unlock()
		if len(p.registrars) == 0 {
			t.addresses[0] = nil
		}
	}
	t.state, t.reason = t.judge()
	return t
}

// run lives until the trunk's context ends and everything is taken back.
func (t *trunk) run() {
	defer close(t.ended)
	if t.before != nil {
		<-t.before.ended
		t.before = nil
	}
	var wg sync.WaitGroup
	for i := range t.policy.registrars {
		wg.Go(func() { t.register(i) })
	}
	if len(t.policy.registrars) > 0 {
		wg.Go(t.resolve)
	}
	if t.probed() {
		wg.Go(t.ask)
	}
	<-t.ctx.Done()
	wg.Wait()
	t.mu.Lock()
	defer t.mu.Unlock()
	clear(t.registrations)
	t.state, t.reason = t.judge()
}

func (t *trunk) probed() bool { return t.policy.address != "" && t.policy.probe > 0 }

func (t *trunk) register(i int) {
	o := t.set.o
	t.set.ua.Register(t.ctx, sip.RegisterOptions{
		Registrar: t.policy.registrars[i], User: t.policy.user, Host: t.policy.domain,
		Username: t.policy.username, Password: t.policy.secret, Contact: t.policy.contact(),
		Route: t.policy.proxy, Trunk: t.policy.name, Expires: t.policy.expires,
		Retry: o.Retry, MaxRetry: o.MaxRetry,
		Changed: func(r sip.Registration) {
			t.update(func() { t.registrations[i] = r })
			if a := r.Address.Addr(); a.IsValid() {
				t.letIn(i, []netip.Addr{a}, true)
			}
		},
	})
}

// resolve keeps the addresses of the registrars and of the peer up to date.
func (t *trunk) resolve() {
	uris := append(slices.Clone(t.policy.registrars), t.policy.address)
	for {
		for i, uri := range uris {
			if uri == "" {
				t.letIn(i, nil, false)
				continue
			}
			list, err := t.set.ua.Resolve(t.ctx, uri)
			if err != nil { // those that were known go on counting
				continue
			}
			var addrs []netip.Addr
			for _, a := range list {
				addrs = append(addrs, a.Addr().Unmap().WithZone(""))
			}
			t.letIn(i, addrs, false)
		}
		if !t.pause(jitter(t.set.o.ResolveEvery)) {
			return
		}
	}
}

// maxAddresses bounds what one name may let in.
const maxAddresses = 64

// letIn sets or, with more, adds to the addresses of a registrar or the peer.
func (t *trunk) letIn(i int, addrs []netip.Addr, more bool) {
	t.mu.Lock()
	old := t.addresses[i]
	if more {
		addrs = append(slices.Clone(old), addrs...)
	}
	slices.SortFunc(addrs, netip.Addr.Compare)
	addrs = slices.Compact(addrs)
	addrs = addrs[:min(len(addrs), maxAddresses)]
	t.addresses[i] = addrs
	t.mu.Unlock()
	if slices.Equal(old, addrs) {
		return
	}
	t.set.mu.Lock()
	defer t.set.mu.Unlock()
	t.set.tellAddresses()
}

// ask probes the peer until the context ends. One probe that is not answered
// may be a bad moment; a second says that the peer is down.
func (t *trunk) ask() {
	silent := 0
	if !t.pause(time.Duration(rand.Float64() * float64(min(t.policy.probe, t.set.o.ProbeAgain)))) {
		return
	}
	for {
		err := t.probe()
		if t.ctx.Err() != nil {
			return
		}
		alive, told := verdict(err)
		if silent++; alive {
			silent, err = 0, nil
		}
		wait := t.policy.probe
		switch down := told || silent > 1; {
		case alive || down:
			t.update(func() { t.peer = probe{asked: true, down: down && !alive, err: err} })
			if !alive {
				wait = min(wait, t.set.o.ProbeDown)
			}
		default:
			wait = min(wait, t.set.o.ProbeAgain)
		}
		if !t.pause(jitter(wait)) {
			return
		}
	}
}

func (t *trunk) probe() error {
	ctx, cancel := context.WithTimeout(t.ctx, t.set.o.ProbeTimeout)
	defer cancel()
	return t.set.ua.Options(ctx, t.policy.address, t.policy.proxy, t.policy.name)
}

// verdict on a probe: any final response shows that somebody is there, but for
// 503, which tells that no call can be taken, and 408, which is a proxy's word
// for silence.
func verdict(err error) (alive, told bool) {
	var status *sip.StatusError
	if errors.As(err, &status) {
		told = status.Code == 503
		return !told && status.Code != 408, told
	}
	return err == nil, false
}

// jitter is somewhere between four fifths of a duration and all of it.
func jitter(d time.Duration) time.Duration {
	return time.Duration((0.8 + 0.2*rand.Float64()) * float64(d))
}

func (t *trunk) pause(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-t.ctx.Done():
		return false
	}
}

// update changes what is known, and tells if that is another state.
func (t *trunk) update(change func()) {
	t.mu.Lock()
	change()
	state, reason := t.judge()
	was := t.state
	if t.reason = reason; was != state {
		t.state, t.since = state, time.Now()
	}
	t.mu.Unlock()
	if was == state || t.ctx.Err() != nil {
		return
	}
	log := t.set.o.Logger.With("trunk", t.policy.name, "state", string(state), "was", string(was))
	if state.Down() {
		log.Warn("trunk down", "why", reason)
	} else {
		log.Info("trunk " + map[bool]string{true: "up", false: "changed"}[state.Up()])
	}
	if was.Down() != state.Down() {
		t.set.o.Changed()
	}
}

func (t *trunk) status() Status {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := Status{Trunk: t.policy.name, State: t.state, Reason: t.reason, Since: t.since}
	for i, r := range t.registrations {
		rs := RegistrarStatus{URI: t.policy.registrars[i], Registered: !r.Until.IsZero(), Until: r.Until}
		if r.Err != nil {
			rs.Reason = fmt.Sprint(r.Err)
		}
		s.Registrars = append(s.Registrars, rs)
	}
	return s
}
