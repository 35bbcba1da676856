package brewery

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

// How says how a room's shard was found.
type How string

// Ways to find a shard, in the order in which they are tried.
const (
	HowTold     How = "told"     // by header or trunk
	HowAsked    How = "asked"    // the shard said that the room lives there
	HowBalancer How = "balancer" // nobody had the room; the load balancer chose
	HowHash     How = "hash"     // nobody had the room; it belongs to this shard
)

// Location is where a call's room lives, or is to be opened.
type Location struct {
	// Shard is nil when only the balancer knows: ViaBalancer is then set, and
	// [Deployment.Elsewhere] tells after the conference request.
	Shard *Shard
	How   How
	// ViaBalancer: the call's session goes through the balancer.
	ViaBalancer bool
	// URL for the call's session: the shard's or the balancer's.
	URL   string
	Asked int // shards asked
	Took  time.Duration
	// Later gets every further shard that says the room lives there, and is
	// closed when no more answers are awaited. It is nil if nobody was asked.
	// It has room for all; nobody needs to read it.
	Later <-chan *Shard
}

// Locate finds out where a room lives, or is to be opened. Told is the name of
// a shard given by header or trunk, or empty. Everything together takes no
// longer than the configured locate_timeout; identical questions asked at the
// same time are asked once. Errors: [ErrUnknownShard], [ErrOwnerDown] (also
// [ErrBalancer]), [ErrNothingUp], or ctx's.
func (d *Deployment) Locate(ctx context.Context, r Room, told string) (Location, error) {
	began := time.Now()
	loc, err := d.locate(ctx, r, told)
	loc.Took = time.Since(began)
	d.set.count.located(loc.How, err)
	if err != nil {
		return Location{Took: loc.Took}, fmt.Errorf("locate %s: %w", r, err)
	}
	return loc, nil
}

func (d *Deployment) locate(ctx context.Context, r Room, told string) (Location, error) {
	if told = strings.TrimSpace(told); told != "" {
		return d.told(told)
	}
	f, err := d.join(r)
	if err != nil {
		return Location{}, err
	}
	select {
	case <-f.decided:
	case <-ctx.Done():
		return Location{}, ctx.Err()
	}
	if f.err != nil {
		return Location{}, f.err
	}
	loc := f.loc
	loc.Later = f.subscribe()
	return loc, nil
}

func (d *Deployment) told(name string) (Location, error) {
	for _, sh := range d.snap.Load().shards {
		if !strings.EqualFold(sh.name, name) {
			continue
		}
		if !sh.worthAsking() {
			return Location{}, fmt.Errorf("%w: %s, which the call is sent to, is %s", ErrOwnerDown, sh.name, sh.why())
		}
		return Location{Shard: sh, How: HowTold, URL: sh.Config().URL}, nil
	}
	return Location{}, fmt.Errorf("%w: deployment %s has no %s", ErrUnknownShard, d.name, shown(name))
}

// flight is one question about one room, which any number of calls may share.
type flight struct {
	decided chan struct{} // closed when what follows is set
	loc     Location
	err     error
	most    int // shards asked

	mu    sync.Mutex
	later []*Shard
	subs  []chan *Shard
	over  bool
}

// join returns the question about a room that is under way, or asks it.
func (d *Deployment) join(r Room) (*flight, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if f := d.flights[r]; f != nil {
		d.set.count.shared.Add(1)
		return f, nil
	}
	f := &flight{decided: make(chan struct{})}
	if !d.set.spawn(func() { d.fly(f, r) }) {
		return nil, fmt.Errorf("%w: the gateway is stopping or was not started", ErrNothingUp)
	}
	d.flights[r] = f
	return f, nil
}

// fly asks the question. It lives on until late answers are in.
func (d *Deployment) fly(f *flight, r Room) {
	n := d.snap.Load()
	ctx, cancel := context.WithTimeout(d.set.ctx, n.timeout+d.set.o.Timers.Late)
	defer cancel()
	in := d.inquire(ctx, n, r, nil)
	loc, err := d.decide(ctx, n, r, in)
	loc.Asked = in.asked

	d.mu.Lock()
	delete(d.flights, r) // whoever comes now asks anew
	d.mu.Unlock()
	f.loc, f.err, f.most = loc, err, in.asked
	close(f.decided)

	if err != nil {
		cancel()
	}
	for in.pending > 0 {
		a := <-in.answers
		in.take(a)
		if a.verdict == here && a.shard != loc.Shard && err == nil {
			d.alsoAt(r, loc, a.shard)
			f.also(a.shard)
		}
	}
	f.end()
}

// alsoAt raises the alarm.
func (d *Deployment) alsoAt(r Room, loc Location, sh *Shard) {
	first := ""
	if loc.Shard != nil {
		first = loc.Shard.name
	}
	if loc.How == HowAsked {
		d.set.count.splitBrain.Add(1)
		d.set.log.Error("split brain: a room lives on two shards", "room", r.String(), "shard", first, "other", sh.name)
		return
	}
	d.set.count.lateHits.Add(1)
	d.set.log.Warn("a room lives on a shard that said so too late", "room", r.String(), "shard", sh.name,
		"chosen", first, "how", string(loc.How))
}

// decide is steps 2 and 3: who has the room, else who is to open it.
func (d *Deployment) decide(ctx context.Context, n *snapshot, r Room, in *inquiry) (Location, error) {
	if len(n.shards) == 0 {
		return Location{}, fmt.Errorf("%w: deployment %s has none", ErrNothingUp, d.name)
	}
	ctx, cancel := context.WithTimeout(ctx, n.timeout)
	defer cancel()
	// The balancer needs some of the time.
	patience := n.timeout
	if n.Balancer != "" {
		patience = n.timeout * 3 / 5
	}
	enough := time.NewTimer(patience)
	defer enough.Stop()
	for in.pending > 0 {
		select {
		case a := <-in.answers:
			if in.take(a); a.verdict == here {
				return at(a.shard, HowAsked), nil
			}
			continue
		case <-enough.C:
		}
		break
	}
	if n.Balancer == "" {
		return d.byHash(n, r, in)
	}

	type reply struct {
		loc Location
		err error
	}
	got := make(chan reply, 1)
	d.set.wg.Go(func() { // this goroutine counts, so the group is not at zero
		loc, err := d.askBalancer(ctx, n, r)
		got <- reply{loc, err}
	})
	for {
		answers := in.answers
		if in.pending == 0 {
			answers = nil
		}
		select {
		case a := <-answers:
			if in.take(a); a.verdict == here {
				return at(a.shard, HowAsked), nil
			}
		case g := <-got:
			return g.loc, g.err
		}
	}
}

func at(sh *Shard, how How) Location {
	return Location{Shard: sh, How: how, URL: sh.Config().URL}
}

// byHash: the owner opens the room, or nobody does.
func (d *Deployment) byHash(n *snapshot, r Room, in *inquiry) (Location, error) {
	if in.asked == 0 {
		return Location{}, fmt.Errorf("%w in deployment %s", ErrNothingUp, d.name)
	}
	own := owner(n.shards, r)
	switch {
	case own == nil:
		return Location{}, fmt.Errorf("%w: no shard of deployment %s has weight", ErrNothingUp, d.name)
	case !own.Up():
		return Location{}, fmt.Errorf("%w: the room belongs to %s, which is %s", ErrOwnerDown, own.name, own.why())
	case in.said[own] != notHere:
		return Location{}, fmt.Errorf("%w: the room belongs to %s, which gave no clear answer", ErrOwnerDown, own.name)
	}
	return at(own, HowHash), nil
}

// Elsewhere returns the shards, other than except, on which the room lives
// now, by name. It waits for all answers, at most locate_timeout.
func (d *Deployment) Elsewhere(ctx context.Context, r Room, except *Shard) ([]*Shard, error) {
	n := d.snap.Load()
	asking, cancel := context.WithTimeout(ctx, n.timeout)
	defer cancel()
	defer context.AfterFunc(d.set.ctx, cancel)()
	in := d.inquire(asking, n, r, except)
	var out []*Shard
	for in.pending > 0 {
		a := <-in.answers // all come at the deadline at the latest
		if in.take(a); a.verdict == here {
			out = append(out, a.shard)
		}
	}
	if err := ctx.Err(); err != nil && len(out) == 0 {
		return nil, fmt.Errorf("ask for %s elsewhere: %w", r, err)
	}
	slices.SortFunc(out, func(a, b *Shard) int { return cmp.Compare(a.name, b.name) })
	return out, nil
}

// inquiry is the question, put to all shards at once.
type inquiry struct {
	answers chan answer // has room for all
	asked   int
	pending int
	said    map[*Shard]verdict
}

type answer struct {
	shard   *Shard
	verdict verdict
}

// inquire asks every shard not known to be down. Every one answers when ctx
// ends at the latest.
func (d *Deployment) inquire(ctx context.Context, n *snapshot, r Room, except *Shard) *inquiry {
	in := &inquiry{answers: make(chan answer, len(n.shards)), said: map[*Shard]verdict{}}
	for _, sh := range n.shards {
		if sh == except || !sh.worthAsking() {
			continue
		}
		if !d.set.spawn(func() {
			v := sh.ask(ctx, r)
			d.set.count.said(v)
			in.answers <- answer{sh, v}
		}) {
			break
		}
		in.asked++
	}
	in.pending = in.asked
	return in
}

func (in *inquiry) take(a answer) {
	in.pending--
	in.said[a.shard] = a.verdict
}

// also tells every call that shares the flight about a further shard.
func (f *flight) also(sh *Shard) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.later = append(f.later, sh)
	for _, c := range f.subs {
		c <- sh
	}
}

// subscribe returns a channel with room for all further shards.
func (f *flight) subscribe() <-chan *Shard {
	f.mu.Lock()
	defer f.mu.Unlock()
	c := make(chan *Shard, f.most)
	for _, sh := range f.later {
		c <- sh
	}
	if f.over {
		close(c)
	} else {
		f.subs = append(f.subs, c)
	}
	return c
}

func (f *flight) end() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.over = true
	for _, c := range f.subs {
		close(c)
	}
	f.subs = nil
}

// spawn starts a goroutine that Run waits for, unless Run has ended or not
// begun.
func (s *Set) spawn(f func()) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.running {
		return false
	}
	s.wg.Go(f)
	return true
}
