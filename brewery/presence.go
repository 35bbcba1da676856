package brewery

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"time"

	"brewline/xmpp"
)

// BreweryState is how the presence in a brewery fares.
type BreweryState string

// States of the presence in a brewery.
const (
	BreweryJoining BreweryState = "joining" // first attempt under way
	BreweryJoined  BreweryState = "joined"
	BreweryOut     BreweryState = "out" // tried again for ever
)

// errSilent: the brewery does not answer our presence, as every room must
// (XEP-0045 §7.2.2). It may have been emptied behind our back.
var errSilent = errors.New("no answer to presence")

// seat is our place in a brewery.
type seat struct {
	sh       *Shard
	occupant xmpp.JID
	over     chan error    // why we are out, once
	echo     chan struct{} // our own presence came back
}

// hasBrewery says whether there is a brewery to be in.
func (c *shardConf) hasBrewery() bool { return c.Username != "" && c.Brewery != "" }

// attend keeps us in the shard's brewery until the session or ctx ends. It
// returns true when only another session can help.
func (sh *Shard) attend(ctx context.Context, l *link, pause *backoff) bool {
	c := sh.conf.Load()
	if !c.hasBrewery() {
		select {
		case <-l.Done():
		case <-ctx.Done():
		}
		return false
	}
	if l.instead != nil {
		return sh.rest(ctx, l, pause)
	}
	for {
		began := time.Now()
		err := sh.sit(ctx, l, c)
		l.seat.Store(nil)
		if ctx.Err() != nil || ended(l) {
			return false
		}
		sh.breweryIs(ctx, BreweryOut, err)
		if time.Since(began) > sh.set.o.Timers.RetryMax {
			pause.reset()
		}
		if !sh.rest(ctx, l, pause) {
			return false
		}
		var je *xmpp.JoinError
		if errors.As(err, &je) && (je.Kind == xmpp.JoinConflict || je.Kind == xmpp.JoinBadNick) {
			// The nick has to be the session's resource.
			sh.mu.Lock()
			sh.resource = newResource()
			sh.mu.Unlock()
			return true
		}
	}
}

// rest pauses, and says whether the session is still there afterwards.
func (sh *Shard) rest(ctx context.Context, l *link, pause *backoff) bool {
	wait := time.NewTimer(pause.pause())
	defer wait.Stop()
	select {
	case <-wait.C:
		return true
	case <-l.Done():
	case <-ctx.Done():
	}
	return false
}

func ended(l *link) bool {
	select {
	case <-l.Done():
		return true
	default:
		return false
	}
}

// sit joins the brewery and says there how we are, until we are out of it.
func (sh *Shard) sit(ctx context.Context, l *link, c *shardConf) error {
	brewery, err := xmpp.ParseJID(c.Brewery)
	if err != nil {
		return err
	}
	t := &sh.set.o.Timers
	nick := l.JID().Resource
	s := &seat{sh: sh, occupant: brewery.WithResource(nick), over: make(chan error, 1), echo: make(chan struct{}, 1)}
	said := sh.stats()
	jctx, cancel := context.WithTimeout(ctx, t.Connect)
	r, err := l.Join(jctx, xmpp.RoomOptions{Room: brewery, Nick: nick, FocusNick: c.Effective.FocusNick,
		Presence: xmpp.OwnPresence{Stats: said}, On: s.event})
	cancel()
	if err != nil {
		sh.set.count.breweryRefused.Add(1)
		return err
	}
	defer func() { _ = r.Leave() }()
	l.seat.Store(s)
	sh.set.count.breweryJoined.Add(1)
	sh.set.seats.Add(1)
	defer sh.set.seats.Add(-1)
	sh.breweryIs(ctx, BreweryJoined, nil)

	at, loadGap := time.Now(), sh.set.loadGap()
	next := time.NewTimer(refresh(t.Presence))
	defer next.Stop()
	silent := time.NewTimer(t.Echo)
	silent.Stop()
	defer silent.Stop()
	for {
		select {
		case err := <-s.over:
			sh.set.count.breweryLost.Add(1)
			return err
		case <-silent.C:
			sh.set.count.breweryLost.Add(1)
			return fmt.Errorf("%w within %s", errSilent, t.Echo)
		case <-l.Done():
			return l.Err()
		case <-ctx.Done():
			sh.dials.abandon(l) // after we leave nothing would arrive
			return ctx.Err()
		case <-s.echo:
			silent.Stop()
		case <-sh.poked:
			if now := sh.stats(); !maps.Equal(said, now) {
				gap := t.PresenceGap
				if onlyLoad(said, now) {
					gap = loadGap
				}
				next.Reset(max(0, gap-time.Since(at)))
			}
		case <-next.C:
			select {
			case <-s.echo: // of an earlier presence
			default:
			}
			said, at, loadGap = sh.stats(), time.Now(), sh.set.loadGap()
			if err := r.Update(func(p *xmpp.OwnPresence) { p.Stats = said }); err != nil {
				return err
			}
			sh.set.count.presences.Add(1)
			next.Reset(refresh(t.Presence))
			silent.Reset(t.Echo)
		}
	}
}

// loadPresences is how many presences may say no more than how busy the process
// is, in a [Timers].PresenceGap. Its load changes all the time, and each change
// concerns every brewery: without a bound a thousand breweries would cost a
// thousand presences a second.
const loadPresences = 50

// loadGap is the pause before a brewery is told of another load.
func (s *Set) loadGap() time.Duration {
	t := &s.o.Timers
	n := time.Duration(s.seats.Load())
	if n <= loadPresences {
		return t.PresenceGap
	}
	return refresh(min(t.PresenceGap*n/loadPresences, t.Presence))
}

// onlyLoad says whether two presences differ in nothing but the load.
func onlyLoad(a, b map[string]string) bool {
	for name := range b {
		switch name {
		case "conferences", "participants", "stress_level":
		default:
			if a[name] != b[name] {
				return false
			}
		}
	}
	return len(a) == len(b)
}

// refresh spreads the presences of many breweries.
func refresh(longest time.Duration) time.Duration {
	return longest - rand.N(longest/4+1)
}

// event runs on the session's reader.
func (s *seat) event(e xmpp.RoomEvent) {
	switch e.Kind {
	case xmpp.FocusJoined, xmpp.FocusLeft:
		s.sh.focusIs(e.Kind == xmpp.FocusJoined)
	case xmpp.Kicked, xmpp.Banned, xmpp.Destroyed, xmpp.SelfLeft:
		err := fmt.Errorf("put out of the brewery: %s", e.Kind)
		if e.Reason != "" {
			err = fmt.Errorf("%w: %s", err, shown(e.Reason))
		}
		select {
		case s.over <- err:
		default:
		}
	}
}

// breweryIs notes how the presence in the brewery fares.
func (sh *Shard) breweryIs(ctx context.Context, st BreweryState, err error) {
	sh.mu.Lock()
	if ctx.Err() != nil { // whoever ended it has set the state
		sh.mu.Unlock()
		return
	}
	news := sh.brewery != st || text(sh.breweryErr) != text(err)
	sh.brewery, sh.breweryErr = st, err
	if st != BreweryJoined {
		sh.focus = false
	}
	focus := sh.focus
	sh.mu.Unlock()
	switch {
	case !news:
	case err != nil:
		sh.log.Warn("not in the brewery", "err", err)
	case st == BreweryJoined:
		// Without Jicofo nobody asks us to dial: another brewery is meant.
		sh.log.Info("in the brewery", "room", sh.Config().Brewery, "focus", focus)
	}
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func (sh *Shard) focusIs(here bool) {
	sh.mu.Lock()
	news := sh.focus != here
	sh.focus = here
	sh.mu.Unlock()
	if news {
		sh.log.Info("focus in the brewery", "present", here)
	}
}
