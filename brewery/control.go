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
		sess, err := sh.connect(ctx)
		if err != nil {
			sh.set.count.connectFailed.Add(1)
			sh.isDown(ctx, err)
		} else if sh.hold(ctx, sess) {
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

// hold keeps a session until it or ctx ends, and says whether it lasted.
func (sh *Shard) hold(ctx context.Context, sess session) bool {
	began := time.Now()
	sh.isUp(ctx, sess)
	select {
	case <-sess.Done():
		sh.set.count.lost.Add(1)
		sh.isDown(ctx, sess.Err())
	case <-ctx.Done():
	}
	_ = sess.Close()
	return time.Since(began) > sh.set.o.Timers.RetryMax
}

func (sh *Shard) connect(ctx context.Context) (session, error) {
	o, err := sh.controlOptions()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, sh.set.o.Timers.Connect)
	defer cancel()
	return sh.set.o.dial(ctx, o)
}

// isUp takes a new session into use. The session has told which shard it
// reached, if the server says so at all.
func (sh *Shard) isUp(ctx context.Context, sess session) {
	sh.set.count.connected.Add(1)
	got, want := sess.Shard(), sh.Config().HeaderValue
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
	sh.sess, sh.mismatch, sh.retries = sess, mismatch, 0
	sh.change(Up, nil)
	sh.mu.Unlock()
	sh.log.Info("shard up", "jid", sess.JID().String())
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
	sh.sess = nil
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
	sh.sess = nil
	sh.change(st, err)
}

// controlOptions: on the auth domain with the shard's account, or as calls
// log in.
func (sh *Shard) controlOptions() (xmpp.Options, error) {
	c := sh.conf.Load()
	t := sh.set.o.Timers
	o, err := c.reach("")
	if err != nil {
		return o, err
	}
	o.ConnectTimeout = t.Connect
	o.PingInterval, o.PingTimeout = t.Ping, t.PingTimeout
	o.Logger = sh.log
	if c.Username != "" {
		o.Domain, o.Username, o.Password = c.AuthDomain, c.Username, c.Password.Value()
		return o, nil
	}
	if err := login(&o, &c.Effective, Room{Name: "*"}, Credentials{}); err != nil {
		return o, fmt.Errorf("control session without username: %w", err)
	}
	return o, nil
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
	sess := sh.session(ctx)
	if sess == nil {
		return unknown
	}
	_, err := sess.DiscoInfo(ctx, roomJID(&sh.Config().Effective, r), "")
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
func (sh *Shard) session(ctx context.Context) session {
	sh.mu.Lock()
	settled := sh.settled
	sh.mu.Unlock()
	select {
	case <-settled:
	case <-ctx.Done():
	}
	sh.mu.Lock()
	defer sh.mu.Unlock()
	return sh.sess
}

// worthAsking says whether the shard is worth asking: not known to be down.
func (sh *Shard) worthAsking() bool {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	return sh.state == Up || sh.state == Connecting
}
