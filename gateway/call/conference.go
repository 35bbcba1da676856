package call

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"brewline/brewery"
	"brewline/gateway/conference"
)

const (
	conferenceLobby = conference.WaitLobby
	conferenceHost  = conference.WaitHost
)

// maxMoves bounds how often a caller who meets nobody is taken to another
// shard, until the conference is lost.
const maxMoves = 3

// unansweredRejoins bounds how often a call is tried again while it rings.
const unansweredRejoins = 2

// locate asks where the room lives.
func (c *Call) locate() {
	c.wg.Go(func() {
		ctx, cancel := context.WithTimeout(c.ctx, 2*c.t.Locate)
		defer cancel()
		loc, err := c.o.Deployment.Locate(ctx, c.o.Room, c.o.Told)
		c.box.post(locatedEvent{loc, err})
	})
}

func (c *Call) located(e locatedEvent) {
	if e.err != nil {
		c.log.Warn("room not located", "err", e.err)
		c.lost(ending{end: endOf(e.err), detail: e.err})
		return
	}
	c.log.Info("room located", "shard", shardName(e.loc.Shard), "how", string(e.loc.How), "asked", e.loc.Asked,
		"took", e.loc.Took.Round(time.Microsecond))
	c.ring()
	l, err := c.startLeg(e.loc.Shard, e.loc)
	if err != nil {
		c.box.end(ending{end: endOf(err), detail: err})
		return
	}
	c.cur, c.lastShard = l, l.name
	if later := e.loc.Later; later != nil && e.loc.How != brewery.HowAsked {
		c.wg.Go(func() {
			select {
			case sh, ok := <-later:
				if ok {
					c.box.post(lateHit{l, sh})
				}
			case <-l.conf.Done():
			}
		})
	}
	if err := l.audio.promote(); err != nil {
		c.box.end(ending{end: EndNoMedia, detail: err})
	}
	c.refresh()
}

// lateHit is a shard that said after the choice was made that the room lives
// there.
type lateHit struct {
	leg   *leg
	shard *brewery.Shard
}

// steer follows a late hit while the chosen shard has not been asked to open
// the room; after that it would be a split brain either way, and stays an alert.
func (c *Call) steer(e lateHit) {
	if e.leg != c.cur || !e.leg.conf.TakeBack() {
		return
	}
	c.log.Info("the room turned out to live elsewhere", "shard", e.shard.Name(), "instead_of", e.leg.name)
	c.cur = nil
	c.located(locatedEvent{loc: brewery.Location{Shard: e.shard, How: brewery.HowAsked, URL: e.shard.Config().URL}})
}

func shardName(s *brewery.Shard) string {
	if s == nil {
		return ""
	}
	return s.Name()
}

// startLeg begins a conference leg at a shard, or through the balancer.
func (c *Call) startLeg(sh *brewery.Shard, loc brewery.Location) (*leg, error) {
	xo, err := c.o.Deployment.SessionOptions(sh, loc, c.o.Room, c.o.Credentials)
	if err != nil {
		return nil, err
	}
	l := &leg{audio: c.newLegAudio(), shard: sh, name: shardName(sh), since: time.Now()}
	o := c.o.Conference
	o.Session = xo
	o.Room = c.o.Deployment.RoomJID(c.o.Room, sh)
	o.Focus, o.FocusNick = c.o.Deployment.Focus(sh)
	o.Password, o.Token = c.o.Password, xo.Token
	o.Exists = loc.How == brewery.HowAsked
	o.DisplayName, o.Initiator = c.o.DisplayName, c.initiator()
	o.Audio = l.audio
	if sh != nil {
		o.Region = sh.Config().Region
	}
	o.Logger = c.log.With("shard", l.name)
	o.On = func(e conference.Event) { c.box.post(legEvent{l, e}) }
	if sh != nil {
		sh.Acquire()
	}
	l.conf = conference.Start(c.ctx, o)
	if sh != nil {
		c.wg.Go(func() {
			<-l.conf.Done()
			sh.Release()
		})
	}
	c.legs = append(c.legs, l)
	return l, nil
}

func (c *Call) legEvent(l *leg, e conference.Event) {
	c.note(l, e)
	switch l {
	case c.cur:
		c.curEvent(l, e)
	case c.look:
		c.lookEvent(l, e)
	}
	if _, ok := e.(conference.Ended); ok {
		for i, other := range c.legs {
			if other == l {
				c.legs = append(c.legs[:i], c.legs[i+1:]...)
				break
			}
		}
	}
}

// note keeps a leg's state and logs its changes.
func (c *Call) note(l *leg, e conference.Event) {
	log := c.log.With("shard", l.name)
	took := time.Since(l.since).Round(time.Microsecond)
	switch e := e.(type) {
	case conference.LoggedIn:
		log.Info("logged in", "header", e.Shard, "took", took)
	case conference.Waiting:
		log.Info("waiting", "for", string(e.For))
	case conference.Joined:
		l.joined, l.nick, l.occ = true, e.Nick, e.Occupants
		log.Info("joined", "nick", e.Nick, "others", e.Others, "took", took)
	case conference.OccupantsChanged:
		l.occ = e.Occupants
	case conference.Invited:
		log.Info("invited by Jicofo", "region", e.Region, "took", took)
	case conference.MediaUp:
		l.media = true
		log.Info("media connected", "profile", e.Profile, "took", took)
	case conference.Muted:
		l.muted = e.Muted
	case conference.MediaDown:
		l.media = false
		log.Info("media gone", "reason", e.Reason)
	case conference.Moderator:
		log.Warn("Jicofo made our caller a moderator: put the domain of the gateway's accounts into jicofo.xmpp.trusted-domains")
	case conference.Ended:
		l.joined, l.media = false, false
		log.Info("conference leg ended", "err", e.Err)
	}
}

func (c *Call) curEvent(l *leg, e conference.Event) {
	if c.out != nil {
		c.outEvent(l, e)
	}
	switch e := e.(type) {
	case conference.Requested:
		if l.shard == nil {
			c.askWhere(l)
		}
	case conference.Waiting:
		c.waiting = e.For
		if e.For == conference.WaitLobby && c.out == nil {
			c.accept()
		}
	case conference.Joined:
		c.waiting = ""
		c.lostAt, c.rejoinIn = time.Time{}, 0
		if c.muted {
			l.conf.SetMuted(true)
		}
		if c.answer == isAnswered {
			l.conf.SetStatus("Connected")
		}
		c.watchAlone()
	case conference.OccupantsChanged:
		c.watchAlone()
	case conference.MediaUp:
		if c.out == nil {
			c.accept()
		}
	case conference.Muted:
		c.setMuted(e.Muted)
	case conference.HangupAsked:
		c.box.end(ending{end: EndHungUpByRoom})
	case conference.Ended:
		c.curEnded(e.Err)
	}
	c.refresh()
}

// curEnded follows the end of the leg that was heard: either the call ends
// with it, or the conference is looked for again while the phone stays up.
func (c *Call) curEnded(err error) {
	c.waiting = ""
	c.stopAlone()
	c.stopHunt()
	if err == nil {
		err = conference.ErrSessionLost
	}
	c.lost(ending{end: endOf(err), detail: err})
}

// lost decides whether to go on without a conference leg.
func (c *Call) lost(why ending) {
	c.cur, c.moved = nil, 0
	now := time.Now()
	if c.lostAt.IsZero() {
		c.lostAt = now
	}
	if c.out != nil && c.answer != isAnswered {
		c.box.end(why)
		return
	}
	unansweredOut := c.answer == unanswered && (c.rejoins >= unansweredRejoins || !rejoinsUnanswered(why))
	if !retryable(why.end) || unansweredOut || now.Sub(c.lostAt) > c.t.Rejoin {
		c.box.end(why)
		return
	}
	if c.look != nil {
		c.dropLook()
	}
	if c.out != nil {
		c.out.scattered = true
	}
	c.rejoins++
	if c.rejoinIn == 0 {
		c.rejoinIn = c.t.RejoinRetry
	}
	wait := c.rejoinIn*3/4 + rand.N(c.rejoinIn/2+1)
	c.rejoinIn = min(2*c.rejoinIn, 5*time.Second)
	c.log.Warn("conference lost, looking for it again", "why", why.detail, "in", wait.Round(time.Millisecond))
	c.rejoin.Reset(wait)
	c.refresh()
}

// rejoinsUnanswered says whether a caller who hears ringing may be taken
// elsewhere: only if a shard died under the call, not if it was known dead.
func rejoinsUnanswered(why ending) bool {
	return why.end == EndConferenceLost || errors.Is(why.detail, conference.ErrUnreachable)
}

// askWhere finds out which shard the balancer took us to.
func (c *Call) askWhere(l *leg) {
	c.wg.Go(func() {
		ctx, cancel := context.WithTimeout(c.ctx, 2*c.t.Locate)
		defer cancel()
		shards, err := c.o.Deployment.Elsewhere(ctx, c.o.Room, nil)
		c.box.post(elsewhereEvent{shards: shards, err: err, leg: l})
	})
}

func (c *Call) elsewhere(e elsewhereEvent) {
	if !e.hunt {
		if e.leg == c.cur && e.leg.shard == nil && len(e.shards) > 0 {
			e.leg.shard, e.leg.name = e.shards[0], e.shards[0].Name()
			c.lastShard = e.leg.name
			c.log.Info("the balancer chose", "shard", e.leg.name)
		}
		return
	}
	c.hunting = false
	if !c.lonely() || c.look != nil {
		return
	}
	if e.err != nil || len(e.shards) == 0 || c.moved >= maxMoves {
		c.huntLater()
		return
	}
	sh := e.shards[0]
	c.log.Info("the room lives on another shard as well, looking there", "other", sh.Name())
	l, err := c.startLeg(sh, brewery.Location{Shard: sh, How: brewery.HowAsked, URL: sh.Config().URL})
	if err != nil {
		c.huntLater()
		return
	}
	c.look = l
}

// alone says whether nobody else is in our room.
func (c *Call) alone() bool {
	return c.cur != nil && c.cur.joined && c.cur.occ.Others == 0
}

// lonely says whether no human is in our room: nobody, or callers of gateways
// who may be as lost as this one, as after the death of a shard.
func (c *Call) lonely() bool {
	return c.cur != nil && c.cur.joined && c.cur.occ.Humans == 0
}

// watchAlone starts and stops what a caller who is alone is given, an answer
// after a while and an end, and one who meets no human: questions to the other
// shards.
func (c *Call) watchAlone() {
	if c.out != nil {
		c.watchHumans()
		if c.answer == isAnswered && c.rejoins > 0 {
			c.watchLonely() // its shard was lost, and where it was taken nobody may come
		}
		return
	}
	c.watchLonely()
	if !c.alone() {
		c.stopAlone()
		return
	}
	if c.answer == unanswered {
		if c.t.AloneAnswer <= 0 {
			c.accept()
		} else if !c.aloneArmed {
			c.aloneArmed = true
			c.aloneAnswer.Reset(c.t.AloneAnswer)
		}
	} else if c.answer == isAnswered && !c.aloneMaxArmed {
		c.aloneMaxArmed = true
		c.aloneMax.Reset(c.t.AloneMax)
	}
}

func (c *Call) stopAlone() {
	c.aloneArmed, c.aloneMaxArmed = false, false
	c.aloneAnswer.Stop()
	c.aloneMax.Stop()
}

func (c *Call) watchLonely() {
	if !c.lonely() {
		c.stopHunt()
		if c.look != nil && c.cur != nil && c.cur.joined {
			c.dropLook()
		}
		return
	}
	if !c.huntArmed {
		c.huntArmed = true
		c.huntIn = c.t.Hunt
		c.huntLater()
	}
}

func (c *Call) stopHunt() {
	c.huntArmed = false
	c.hunt.Stop()
}

func (c *Call) huntLater() {
	if c.huntIn <= 0 {
		c.huntIn = c.t.Hunt
	}
	c.hunt.Reset(c.huntIn*3/4 + rand.N(c.huntIn/2+1))
	c.huntIn = min(2*c.huntIn, c.t.HuntMax)
}

// ask asks the other shards for the room.
func (c *Call) ask() {
	if c.hunting || c.look != nil || !c.lonely() {
		return
	}
	c.hunting = true
	cur := c.cur.shard
	c.wg.Go(func() {
		ctx, cancel := context.WithTimeout(c.ctx, 2*c.t.Locate)
		defer cancel()
		shards, err := c.o.Deployment.Elsewhere(ctx, c.o.Room, cur)
		c.box.post(elsewhereEvent{shards: shards, err: err, hunt: true})
	})
}

// lookEvent follows the leg that looks around: the caller moves, make before
// break, only to somebody who is not a gateway's caller as lost as this one.
func (c *Call) lookEvent(l *leg, e conference.Event) {
	switch e.(type) {
	case conference.Joined, conference.OccupantsChanged:
		if !c.worthMoving(l) {
			c.dropLook()
			return
		}
		if l.media {
			c.move(l)
		}
	case conference.MediaUp:
		if c.worthMoving(l) {
			c.move(l)
		} else {
			c.dropLook()
		}
	case conference.Ended:
		c.look = nil
		if c.lonely() {
			c.huntLater()
		}
	}
}

func (c *Call) worthMoving(l *leg) bool {
	if !c.lonely() || c.moved >= maxMoves {
		return false
	}
	if l.occ.Humans > 0 {
		return true
	}
	return l.occ.Others > 0 && l.name < c.cur.name
}

func (c *Call) move(l *leg) {
	old := c.cur
	c.log.Info("moving the caller to the shard where the others are", "from", old.name, "shard", l.name)
	if err := l.audio.promote(); err != nil {
		c.log.Warn("moving failed", "err", err)
		c.dropLook()
		return
	}
	c.cur, c.look, c.lastShard = l, nil, l.name
	c.moves++
	c.moved++
	old.conf.Leave()
	c.stopAlone()
	c.stopHunt()
	switch {
	case c.muted:
		l.conf.SetMuted(true)
	case l.muted: // that meeting has muted us already
		c.setMuted(true)
	}
	c.accept()
	if c.answer == isAnswered {
		l.conf.SetStatus("Connected")
	}
	c.watchAlone()
	c.refresh()
}

func (c *Call) dropLook() {
	if c.look == nil {
		return
	}
	c.look.conf.Leave()
	c.look = nil
	if c.lonely() {
		c.huntLater()
	}
}
