package call

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"brewline/brewery"
	"brewline/gateway/conference"
	"brewline/gateway/phone"
	"brewline/media"
	"brewline/sip"
	"brewline/xmpp"
)

// Timers are a call's durations. Zero means the default.
type Timers struct {
	AloneAnswer  time.Duration // ringing of a caller who is alone; negative: answer at once
	AloneMax     time.Duration // how long an answered caller may be alone, 10 min
	Locate       time.Duration // asking where the room lives, 1 s
	Rejoin       time.Duration // how long a lost conference is looked for, 60 s
	RejoinRetry  time.Duration // between two attempts at first, 250 ms
	Hunt         time.Duration // first question of a caller who meets no human, 1 s
	HuntMax      time.Duration // longest pause between questions, 30 s
	PhoneSilence time.Duration // no packet from the phone, 120 s; negative: never
	Farewell     time.Duration // longest prompt before the BYE, 6 s
	Bye          time.Duration // for the last word to the phone, 5 s

	// Of calls that go out of a conference.
	Invited     time.Duration // from our joining to Jicofo's invitation, 10 s
	Empty       time.Duration // after the last human left; negative: at once
	StatusStays time.Duration // of a call that failed, 5 s
}

func (t Timers) withDefaults() Timers {
	set := func(d *time.Duration, def time.Duration) {
		if *d == 0 {
			*d = def
		}
	}
	set(&t.AloneAnswer, 15*time.Second)
	set(&t.AloneMax, 10*time.Minute)
	set(&t.Locate, time.Second)
	set(&t.Rejoin, time.Minute)
	set(&t.RejoinRetry, 250*time.Millisecond)
	set(&t.Hunt, time.Second)
	set(&t.HuntMax, 30*time.Second)
	set(&t.PhoneSilence, 2*time.Minute)
	set(&t.Farewell, 6*time.Second)
	set(&t.Bye, 5*time.Second)
	set(&t.Invited, 10*time.Second)
	set(&t.Empty, 5*time.Second)
	set(&t.StatusStays, 5*time.Second)
	return t
}

// Options are what a call is made of. It pins them: a reload of the
// configuration does not change a running call.
type Options struct {
	ID          string
	Dialog      *sip.Dialog // of a call that came in
	Out         *Outbound   // of a call that goes out
	Trunk       string
	Deployment  *brewery.Deployment
	Room        brewery.Room
	Told        string // shard named by header or trunk
	Password    string
	Credentials brewery.Credentials
	DisplayName string
	// Mask hides as much of a number as the operator wants, in logs.
	Mask func(string) string

	Phone phone.Options
	// EarlyPrompts lets a caller who waits for the answer hear ringing and
	// prompts of ours.
	EarlyPrompts bool
	// Transfer tells how to reach whom a phone's REFER names, for a room on
	// that shard. release gives back what a dial rule counts. nil: no transfer.
	Transfer func(shard string, r *sip.Refer) (targets []Target, release func(), err error)
	// NameOf is what the conference sees of a phone that calls to take the
	// place of the call's.
	NameOf func(*sip.Dialog) string
	// Carry counts a call of a phone's on a trunk, until release. Not ok: that has
	// as many as it may. On Trunk the call is counted from the beginning, until
	// Carried.
	Carry   func(trunk string) (release func(), ok bool)
	Carried func()

	Pacer          *media.Pacer
	OpusComplexity int

	// Conference holds what does not depend on the shard; the call fills in
	// session, focus, room and audio.
	Conference conference.Options
	Timers     Timers
	Logger     *slog.Logger
	OnEnd      func(Summary) // last act of the call, from its goroutine
}

// Summary is what is left of a call.
type Summary struct {
	ID, Trunk, Deployment, Shard string
	End                          End
	Started                      time.Time
	Answered                     time.Time // zero if never
	Ended                        time.Time
	Moves                        int // to another shard, for want of a human
	Rejoins                      int // after the conference was lost
	Media                        media.Stats
}

// Info is a running call as statistics see it.
type Info struct {
	ID, Trunk, Deployment, Shard, Room, Nick string
	State                                    string
	Started                                  time.Time
	Participants                             int // in the room without us and Jicofo
	Media                                    bool
}

// InRoom is what Jigasi counts as participants of a call: all occupants of its
// room but Jicofo, so us too. Jicofo asks the gateway that says the fewest.
func (i Info) InRoom() int {
	if i.Nick == "" {
		return 0 // not in a room
	}
	return i.Participants + 1
}

// Call is one call.
type Call struct {
	o      Options
	t      Timers
	log    *slog.Logger
	box    *mailbox
	ctx    context.Context
	cancel context.CancelFunc
	done   chan struct{}
	wg     sync.WaitGroup
	info   atomic.Pointer[Info]

	// Owned by run.
	started     time.Time
	side        *side // the phone
	phones      floor[media.PhoneLeg]
	transfer    *transfer // nil: none is under way
	releases    []func()  // of transfers that succeeded
	out         *outbound // nil if the call came in
	bridge      *media.Bridge
	conferences floor[media.ConferenceLeg]
	cur         *leg // the conference leg that is heard
	look        *leg // another one, looking around on another shard
	legs        []*leg
	lastShard   string
	waiting     conference.WaitFor
	ringing     bool
	early       bool // the caller hears us before the answer
	answer      answerState
	answered    time.Time
	muted       bool
	digits      digits
	star        bool // the last digit was a star
	prompt      media.Prompt
	announcing  media.Prompt // said once in between
	moves       int          // to other shards
	moved       int          // of these, since the conference was lost
	rejoins     int
	lostAt      time.Time // of the conference, zero while there is a leg that joined
	rejoinIn    time.Duration
	huntIn      time.Duration
	hunting     bool

	aloneArmed, aloneMaxArmed, huntArmed bool
	finish                               *ending
	late                                 []*phone.Leg // whose answers crossed the end
	kept                                 []any

	emptyArmed bool

	aloneAnswer, aloneMax, hunt, rejoin, watch, farewell, invited, empty *time.Timer
}

type answerState int

const (
	unanswered answerState = iota
	answering
	isAnswered
)

// leg is one conference leg of the call.
type leg struct {
	conf   *conference.Leg
	audio  *legAudio
	shard  *brewery.Shard // nil while only the balancer knows
	name   string         // of the shard, for logs
	joined bool
	nick   string
	occ    conference.Occupants
	media  bool
	muted  bool
	since  time.Time
}

// Events that children and handlers post.
type (
	locatedEvent struct {
		loc brewery.Location
		err error
	}
	legEvent struct {
		leg *leg
		conference.Event
	}
	answeredEvent  struct{ err error }
	elsewhereEvent struct {
		shards []*brewery.Shard
		err    error
		hunt   bool // asked for a caller who meets no human
		leg    *leg
	}
	digitEvent struct {
		digit byte
		way   way
		d     time.Duration
	}
	keyEvent    struct{ media.Digit } // of a participant
	promptEvent struct{ prompt media.Prompt }
)

// Start begins a call for a dialog that was let in. The call answers or
// rejects it and ends by itself, at the latest when ctx does.
func Start(ctx context.Context, o Options) *Call {
	ctx, cancel := context.WithCancel(ctx)
	c := &Call{
		o: o, t: o.Timers.withDefaults(), log: o.Logger, box: newMailbox(),
		ctx: ctx, cancel: cancel, done: make(chan struct{}), started: time.Now(),
		aloneAnswer: stoppedTimer(), aloneMax: stoppedTimer(), hunt: stoppedTimer(),
		rejoin: stoppedTimer(), watch: stoppedTimer(), farewell: stoppedTimer(),
		invited: stoppedTimer(), empty: stoppedTimer(),
	}
	c.side = &side{audio: c.newSideAudio(), place: place{o.Trunk, o.Carried}}
	c.phones.current = &c.side.audio.seat
	c.publish("locating")
	if o.Out != nil {
		c.out = &outbound{Outbound: *o.Out}
	} else {
		c.side.dialog = o.Dialog
		c.side.dialog.On(c.handler(c.side))
	}
	go c.run()
	return c
}

// Done is closed when the call has ended and released everything.
func (c *Call) Done() <-chan struct{} { return c.done }

// Info tells the call's present state. It is safe from any goroutine.
func (c *Call) Info() Info { return *c.info.Load() }

// Hangup ends the call for a reason of the gateway's.
func (c *Call) Hangup(e End) { c.box.end(ending{end: e}) }

func (c *Call) publish(state string) {
	i := Info{
		ID: c.o.ID, Trunk: c.side.trunk, Deployment: c.o.Deployment.Name(), Room: c.o.Room.Name,
		State: state, Started: c.started,
	}
	if c.cur != nil {
		i.Shard, i.Nick, i.Participants, i.Media = c.cur.name, c.cur.nick, c.cur.occ.Others, c.cur.media
	}
	c.info.Store(&i)
}

func (c *Call) run() {
	c.bridge = c.o.Pacer.NewBridge(media.BridgeOptions{
		Logger: c.log, OpusComplexity: c.o.OpusComplexity,
		OnDigit: func(d media.Digit) { c.box.post(digitEvent{d.Key, wayOf(d), d.Duration}) },
		OnKey:   func(d media.Digit) { c.box.post(keyEvent{d}) },
	})
	c.side.audio.Bridge = c.bridge
	c.phones.attach, c.phones.detach = c.bridge.AttachPhone, c.bridge.DetachPhone
	c.conferences.attach, c.conferences.detach = c.bridge.AttachConference, c.bridge.DetachConference
	if c.out == nil {
		c.takeIn()
	} else {
		c.goOut()
	}
	for c.step() {
	}
	c.cleanup()
}

// takeIn begins a call that came in.
func (c *Call) takeIn() {
	c.log.Info("call received", "from", c.o.Mask(c.o.DisplayName), "to", c.o.Mask(c.side.dialog.RequestUser()), "sip_call_id", c.side.dialog.CallID())
	po := c.o.Phone
	po.Audio, po.Logger = c.side.audio, c.log
	po.Failed = func(err error) { c.box.end(ending{end: EndSRTP, detail: err}) }
	p, err := phone.Accept(c.side.dialog, po)
	if err != nil {
		c.box.end(ending{end: phoneEnd(err), detail: err})
		return
	}
	c.side.leg = p
	c.locate()
}

// step handles what comes next; false when the call is over.
func (c *Call) step() bool {
	select {
	case <-c.box.wake:
		events, terminal := c.box.take()
		if terminal != nil {
			return c.terminate(*terminal, events)
		}
		for _, e := range events {
			c.handle(e)
		}
	case <-c.aloneAnswer.C:
		c.accept()
	case <-c.aloneMax.C:
		c.box.end(ending{end: EndAlone})
	case <-c.hunt.C:
		c.ask()
	case <-c.rejoin.C:
		c.locate()
	case <-c.watch.C:
		c.watchPhone()
	case <-c.invited.C:
		c.overdue()
	case <-c.empty.C:
		c.box.end(ending{end: EndEmpty})
	case <-c.farewell.C:
		return false
	case <-c.ctx.Done():
		return c.terminate(ending{end: EndShutdown}, nil)
	}
	return true
}

// terminate begins the end; false when nothing is left to wait for.
func (c *Call) terminate(e ending, events []any) bool {
	c.decline(append(c.kept, events...))
	c.kept = nil
	if c.finish != nil {
		if e.phoneGone && !c.finish.phoneGone {
			c.finish.phoneGone = true
			return false
		}
		return c.ctx.Err() == nil && !c.farewellHeard(events)
	}
	c.finish = &e
	c.publish("ending")
	if c.transfer != nil && c.transfer.refer != nil {
		c.transfer.refer.Notify(487, "")
	}
	for _, t := range []*time.Timer{c.aloneAnswer, c.aloneMax, c.hunt, c.rejoin, c.watch, c.invited, c.empty} {
		t.Stop()
	}
	if c.out != nil {
		if stay := c.outEnd(e); stay > 0 && c.ctx.Err() == nil {
			c.farewell.Reset(stay)
			return true
		}
	}
	for _, l := range c.legs {
		l.conf.Leave()
	}
	p := e.end.Outcome().Prompt
	if c.answer != isAnswered && !c.early || e.phoneGone || c.side.gone || p == promptNone || c.ctx.Err() != nil {
		return false
	}
	c.farewell.Reset(c.t.Farewell)
	c.play(p, 0)
	return true
}

// decline answers what came too late for the call.
func (c *Call) decline(events []any) {
	for _, e := range events {
		switch e := e.(type) {
		case reofferEvent:
			e.r.Reject(488)
		case referEvent:
			e.refer.Reject(603)
		case replacedEvent:
			e.by.Reject(603, sip.Reason{})
		case allowedEvent:
			e.t.refer.Reject(603)
			if e.release != nil {
				e.release()
			}
		case dialedEvent:
			c.late = append(c.late, e.leg)
		case transferredEvent:
			c.late = append(c.late, e.leg)
		}
	}
}

func (c *Call) handle(e any) {
	switch e := e.(type) {
	case locatedEvent:
		c.located(e)
	case legEvent:
		c.legEvent(e.leg, e.Event)
	case answeredEvent:
		c.wasAnswered(e.err)
	case elsewhereEvent:
		c.elsewhere(e)
	case lateHit:
		c.steer(e)
	case digitEvent:
		if c.digits.first(e.digit, e.way, e.d, time.Now()) {
			c.digit(e.digit)
		}
	case keyEvent:
		c.key(e.Digit)
	case promptEvent:
		c.promptOver(e.prompt)
	case dialedEvent:
		c.dialed(e)
	case redirectedEvent:
		c.redirected(e)
	case progressEvent:
		c.progress(e.code)
	case reofferEvent:
		c.reoffered(e)
	case refreshedEvent:
		if e.side.leg != nil {
			e.side.leg.Refreshed(e.offer, e.answer)
		}
	case goneEvent:
		c.sideGone(e.side)
	case referEvent:
		if c.answer != answering || !c.keep(e) {
			c.referred(e)
		}
	case allowedEvent:
		c.transferAllowed(e)
	case transferProgress:
		c.transferProgress(e)
	case transferredEvent:
		c.transferred(e)
	case replacedEvent:
		if c.answer != answering || c.out != nil || !c.keep(e) {
			c.replaced(e)
		}
	}
}

// keep puts off what came right behind the ACK, until the call has heard that
// it is answered; false: too much of it.
func (c *Call) keep(e any) bool {
	if len(c.kept) == 4 {
		return false
	}
	c.kept = append(c.kept, e)
	return true
}

// cleanup says the last word to the phone and releases everything.
func (c *Call) cleanup() {
	e := *c.finish
	c.sayEnd(e)
	for _, l := range c.legs {
		l.conf.Leave()
	}
	for _, l := range c.legs {
		<-l.conf.Done()
	}
	c.cancel()
	c.wg.Wait()
	c.dropLateAnswer()
	stats := c.bridge.Stats()
	if c.side.leg != nil {
		c.side.leg.Close()
	}
	c.side.leave()
	if c.transfer != nil {
		c.transfer.drop()
	}
	for _, release := range c.releases {
		release()
	}
	c.bridge.Close()
	s := Summary{
		ID: c.o.ID, Trunk: c.side.trunk, Deployment: c.o.Deployment.Name(), End: e.end,
		Shard: c.lastShard, Started: c.started, Answered: c.answered, Ended: time.Now(),
		Moves: c.moves, Rejoins: c.rejoins, Media: stats,
	}
	attrs := []any{"end", string(e.end), "took", time.Since(c.started).Round(time.Millisecond), "shard", s.Shard}
	if !c.answered.IsZero() {
		attrs = append(attrs, "talked", time.Since(c.answered).Round(time.Millisecond),
			measured("phone", stats.Phone), measured("conference", stats.Conference))
	}
	if e.detail != nil {
		attrs = append(attrs, "detail", e.detail)
	}
	c.log.Info("call ended", attrs...)
	if c.o.OnEnd != nil {
		c.o.OnEnd(s)
	}
	close(c.done)
}

// measured is what the log says of a leg's audio: packets, loss in percent and
// jitter in milliseconds both ways, and the round trip; what the far end never
// reported is left out.
func measured(leg string, l media.LegStats) slog.Attr {
	ms := func(d time.Duration) float64 { return math.Round(d.Seconds()*1e4) / 10 }
	percent := func(share float64) float64 { return math.Round(share*1e4) / 100 }
	attrs := []any{"in", l.PacketsIn, "in_loss", percent(l.LossIn()), "in_jitter", ms(l.Jitter), "out", l.PacketsOut}
	if l.Reports > 0 {
		attrs = append(attrs, "out_loss", percent(l.LossOut()), "out_jitter", ms(l.RemoteJitter))
	}
	if l.RoundTrip > 0 {
		attrs = append(attrs, "rtt", ms(l.RoundTrip))
	}
	return slog.Group(leg, attrs...)
}

func (c *Call) sayEnd(e ending) {
	if e.phoneGone || c.side.gone || c.side.dialog == nil {
		return
	}
	o := e.end.Outcome()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(c.ctx), c.t.Bye)
	defer cancel()
	var extra []sip.Header
	if o.Retry {
		extra = append(extra, sip.Header{Name: "Retry-After", Value: "10"})
	}
	// Our own answer may be on its way at this moment: whichever of the two
	// the dialog is not ready for leaves the other.
	for range 2 {
		err := sip.ErrState
		if c.out == nil && c.answer != isAnswered {
			err = c.side.dialog.Reject(o.Code, e.end.reason(e.detail), extra...)
		}
		if errors.Is(err, sip.ErrState) {
			err = c.side.dialog.Bye(ctx, e.end.reason(e.detail))
		}
		if err != nil {
			c.log.Debug("last word not sent", "err", err)
		}
		if !errors.Is(err, sip.ErrState) {
			return
		}
	}
}

// watchPhone ends a call whose phone has vanished without a BYE.
func (c *Call) watchPhone() {
	c.watch.Reset(c.t.PhoneSilence / 8)
	if c.transfer != nil {
		return
	}
	if silent := c.side.leg.Silent(); silent > c.t.PhoneSilence {
		c.box.end(ending{end: EndPhoneSilent})
	}
}

func stoppedTimer() *time.Timer {
	t := time.NewTimer(time.Hour)
	t.Stop()
	return t
}

// initiator is what Jigasi tells about a call in its presence.
func (c *Call) initiator() []xmpp.Header {
	if c.out == nil {
		return []xmpp.Header{{Name: "JigasiCallDirection", Value: "in"}}
	}
	return append(slices.Clone(c.out.Headers), xmpp.Header{Name: "JigasiCallDirection", Value: "out"})
}
