package brewery

import (
	"context"
	"errors"
	"fmt"
	"time"

	"brewline/xmpp"
)

var errStopped = errors.New("stopped")

// start begins to hold the control session. The caller holds set.mu.
func (sh *Shard) start() {
	ctx, cancel := context.WithCancel(sh.set.ctx)
	stopped := make(chan struct{})
	sh.mu.Lock()
	before := sh.stopped
	sh.stop, sh.stopped = cancel, stopped
	sh.state, sh.since, sh.err, sh.retries, sh.mismatch = Connecting, time.Now(), nil, 0, ""
	sh.brewery, sh.breweryErr = "", nil
	if sh.conf.Load().hasBrewery() {
		sh.brewery = BreweryJoining
	}
	sh.settled = make(chan struct{})
	sh.mu.Unlock()
	sh.set.wg.Go(func() {
		defer close(stopped)
		defer cancel()
		if before != nil {
			<-before
		}
		sh.control(ctx)
	})
}

// control holds the control session until ctx ends.
func (sh *Shard) control(ctx context.Context) {
	t := sh.set.o.Timers
	pause := backoff{min: t.RetryMin, max: t.RetryMax}
	for ctx.Err() == nil {
		l, err := sh.connect(ctx)
		if err != nil {
			sh.set.count.connectFailed.Add(1)
			sh.isDown(ctx, err)
		} else if sh.hold(ctx, l) {
			pause.reset() // a session that did not last is no recovery
		}
		wait := time.NewTimer(pause.pause())
		select {
		case <-wait.C:
		case <-ctx.Done():
			wait.Stop()
		}
	}
}

// hold keeps a session, and us in the brewery, until it or ctx ends, and says
// whether it lasted.
func (sh *Shard) hold(ctx context.Context, l *link) bool {
	t := sh.set.o.Timers
	began := time.Now()
	pause := backoff{min: t.RetryMin, max: t.RetryMax}
	sh.isUp(ctx, l)
	for sh.attend(ctx, l, &pause) {
		next, err := sh.account(ctx)
		if err != nil {
			sh.set.count.connectFailed.Add(1)
			sh.breweryIs(ctx, BreweryOut, err)
			l.instead = err
			continue
		}
		sh.isUp(ctx, next)
		l.end()
		l = next
	}
	select {
	case <-l.Done():
		sh.set.count.lost.Add(1)
		sh.isDown(ctx, l.Err())
	default:
	}
	l.end()
	return time.Since(began) > t.RetryMax
}

// end closes the session of the link. Who waits for an answer gets it before.
func (l *link) end() {
	l.sh.dials.abandon(l)
	_ = l.Close()
}

// connect logs in with the shard's account. While that is refused, it logs in
// as calls do: rooms can be found then, though the brewery cannot be entered.
func (sh *Shard) connect(ctx context.Context) (*link, error) {
	l, err := sh.account(ctx)
	if !errors.Is(err, xmpp.ErrAuth) || !sh.conf.Load().hasBrewery() {
		return l, err
	}
	o, optErr := sh.callerOptions()
	if optErr != nil {
		return nil, err
	}
	l, callerErr := sh.dial(ctx, o)
	if callerErr != nil {
		return nil, err
	}
	l.instead = err
	sh.breweryIs(ctx, BreweryOut, err)
	return l, nil
}

// account opens a session as controlOptions have it.
func (sh *Shard) account(ctx context.Context) (*link, error) {
	o, err := sh.controlOptions()
	if err != nil {
		return nil, err
	}
	return sh.dial(ctx, o)
}

func (sh *Shard) dial(ctx context.Context, o xmpp.Options) (*link, error) {
	ctx, cancel := context.WithTimeout(ctx, sh.set.o.Timers.Connect)
	defer cancel()
	l := &link{sh: sh, ready: make(chan struct{})}
	o.Handler = l.handler()
	s, err := sh.set.o.dial(ctx, o)
	if err != nil {
		return nil, err
	}
	l.session = s
	close(l.ready)
	return l, nil
}

// isUp takes a new session into use. The session has told which shard it
// reached, if the server says so at all.
func (sh *Shard) isUp(ctx context.Context, l *link) {
	sh.set.count.connected.Add(1)
	got, want := l.Shard(), sh.Config().HeaderValue
	mismatch := ""
	if got != "" && want != "" && got != want {
		mismatch = got
		sh.set.count.mismatched.Add(1)
	}
	sh.mu.Lock()
	if ctx.Err() != nil {
		sh.mu.Unlock()
		return
	}
	fresh := mismatch != "" && mismatch != sh.mismatch
	sh.link, sh.mismatch, sh.retries = l, mismatch, 0
	sh.change(Up, nil)
	sh.mu.Unlock()
	sh.log.Info("shard up", "jid", l.JID().String())
	if fresh {
		sh.log.Error("shard says it is another: its url leads elsewhere, or header_value is wrong",
			"header_value", want, "says", shown(got))
	}
}

func (sh *Shard) isDown(ctx context.Context, err error) {
	if err == nil {
		err = xmpp.ErrSessionLost
	}
	sh.mu.Lock()
	if ctx.Err() != nil { // whoever ended it has set the state
		sh.mu.Unlock()
		return
	}
	news := sh.state != Down || sh.err == nil || sh.err.Error() != err.Error()
	sh.retries++
	sh.link, sh.focus = nil, false
	if sh.conf.Load().hasBrewery() {
		sh.brewery, sh.breweryErr = BreweryOut, err
	}
	sh.change(Down, err)
	sh.mu.Unlock()
	if news {
		sh.log.Warn("shard down", "err", err)
	}
}

// change needs sh.mu.
func (sh *Shard) change(st State, err error) {
	if sh.state != st {
		sh.since = time.Now()
	}
	sh.state, sh.err = st, err
	select {
	case <-sh.settled:
	default:
		close(sh.settled)
	}
}

// halt ends the control loop and leaves the shard in the given state.
func (sh *Shard) halt(st State, err error) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if sh.stop != nil {
		sh.stop()
	}
	sh.link, sh.focus = nil, false
	sh.brewery, sh.breweryErr = "", nil
	sh.change(st, err)
}

// controlOptions: on the auth domain with the shard's account, or as calls
// log in.
func (sh *Shard) controlOptions() (xmpp.Options, error) {
	c := sh.conf.Load()
	if c.Username == "" {
		return sh.callerOptions()
	}
	o, err := sh.options(c)
	o.Domain, o.Username, o.Password = c.AuthDomain, c.Username, c.Password.Value()
	if c.hasBrewery() {
		sh.mu.Lock()
		o.Resource = sh.resource
		sh.mu.Unlock()
	}
	return o, err
}

// callerOptions: as calls log in.
func (sh *Shard) callerOptions() (xmpp.Options, error) {
	c := sh.conf.Load()
	o, err := sh.options(c)
	if err != nil {
		return o, err
	}
	if err := login(&o, &c.Effective, Room{Name: "*"}, Credentials{}); err != nil {
		return o, fmt.Errorf("control session without username: %w", err)
	}
	return o, nil
}

func (sh *Shard) options(c *shardConf) (xmpp.Options, error) {
	t := sh.set.o.Timers
	o, err := c.reach("")
	o.ConnectTimeout = t.Connect
	o.PingInterval, o.PingTimeout = t.Ping, t.PingTimeout
	o.Logger = sh.log
	return o, err
}

// verdict is a shard's answer to whether a room lives there.
type verdict int

const (
	unknown verdict = iota
	notHere
	here
)

// ask asks the shard whether a room lives there: disco#info to the bare room
// JID (XEP-0045 §6.4). Jitsi's hidden rooms answer strangers with forbidden;
// only item-not-found means that there is no such room.
func (sh *Shard) ask(ctx context.Context, r Room) verdict {
	l := sh.session(ctx)
	if l == nil {
		return unknown
	}
	_, err := l.DiscoInfo(ctx, roomJID(&sh.Config().Effective, r), "")
	var se *xmpp.StanzaError
	switch {
	case err == nil:
		return here
	case !errors.As(err, &se):
		return unknown
	case se.Condition == "forbidden":
		return here
	case se.Condition == "item-not-found":
		return notHere
	}
	sh.log.Debug("shard gave no clear answer about a room", "room", r.String(), "err", err)
	return unknown
}

// session returns the control session. While the first attempt is under way
// nothing is known of the shard, so it is waited for.
func (sh *Shard) session(ctx context.Context) *link {
	sh.mu.Lock()
	settled := sh.settled
	sh.mu.Unlock()
	select {
	case <-settled:
	case <-ctx.Done():
	}
	sh.mu.Lock()
	defer sh.mu.Unlock()
	return sh.link
}

// worthAsking says whether the shard is worth asking: not known to be down.
func (sh *Shard) worthAsking() bool {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	return sh.state == Up || sh.state == Connecting
}
