package conference

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"log/slog"
	"math"
	mathrand "math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"brewline/media"
	"brewline/media/transport"
	"brewline/xmpp"
)

// inboxSize bounds what the XMPP reader and the leg's children may have waiting
// for the leg's goroutine.
const inboxSize = 512

// Audio is the call's side of a leg's media. Its methods may wait for the
// pacer, a few milliseconds at most.
type Audio interface {
	// Attach gives the call a transport that has connected.
	Attach(media.ConferenceLeg) error
	// Detach takes it back; nothing touches it any more when Detach returns.
	Detach(media.ConferenceLeg)
	// DropSource forgets a stream whose sender has gone.
	DropSource(ssrc uint32)
}

// Timers are a leg's durations. Zero means the default.
type Timers struct {
	HostWait     time.Duration // for a host to open the conference, 60 s
	HostRetry    time.Duration // between two conference requests meanwhile, 3 s
	LobbyWait    time.Duration // in the lobby, 10 min
	Invite       time.Duration // from company in the room to session-initiate, 30 s
	Moving       time.Duration // from a session-terminate to what follows, 10 s
	Disconnected time.Duration // of a transport that may come back, 8 s
	Failed       time.Duration // of a transport that is gone; Jicofo may know and move us, 2 s
	Connect      time.Duration // ICE and DTLS, 15 s
	Ping         time.Duration // silence of the XMPP server before it is asked, 10 s
	PingTimeout  time.Duration // and then until the session counts as lost, 5 s
	JoinRetry    time.Duration // before a failed join is tried again, 500 ms
	FocusReply   time.Duration // for the answer to a conference request, 20 s: Jicofo joins the room first
	FocusRetry   time.Duration // between conference requests for a lost focus, 1 s
}

func (t Timers) withDefaults() Timers {
	set := func(d *time.Duration, def time.Duration) {
		if *d <= 0 {
			*d = def
		}
	}
	set(&t.HostWait, time.Minute)
	set(&t.HostRetry, 3*time.Second)
	set(&t.LobbyWait, 10*time.Minute)
	set(&t.Invite, 30*time.Second)
	set(&t.Moving, 10*time.Second)
	set(&t.Disconnected, 8*time.Second)
	set(&t.Failed, 2*time.Second)
	set(&t.Connect, 15*time.Second)
	set(&t.Ping, 10*time.Second)
	set(&t.PingTimeout, 5*time.Second)
	set(&t.JoinRetry, 500*time.Millisecond)
	set(&t.FocusReply, 20*time.Second)
	set(&t.FocusRetry, time.Second)
	return t
}

// Options describe a leg.
type Options struct {
	Session   xmpp.Options // where and how to log in; Handler and Disco are the leg's
	Focus     xmpp.JID     // Jicofo's component, focus.<domain>
	FocusNick string       // its nick in the room, "focus"
	Room      xmpp.JID
	Password  string
	Token     string // JWT, repeated in the conference request
	// Exists says that the room is known to live on this shard, so that it can
	// be joined without waiting for the conference request's answer.
	Exists      bool
	DisplayName string
	StatsID     string
	Region      string
	Version     string
	Initiator   []xmpp.Header
	MachineUID  string
	Transport   transport.ConferenceOptions
	Audio       Audio
	On          func(Event)
	Timers      Timers
	Dial        func(context.Context, xmpp.Options) (*xmpp.Session, error) // xmpp.Dial
	Logger      *slog.Logger
}

// Leg is one conference leg. Its goroutine owns all of its state.
type Leg struct {
	o      Options
	log    *slog.Logger
	ctx    context.Context
	cancel context.CancelCauseFunc
	inbox  chan any
	done   chan struct{}
	wg     sync.WaitGroup // children

	// Owned by run.
	xs         *xmpp.Session
	room       *xmpp.Room
	focusUser  xmpp.JID // the account that Jicofo said is the focus
	nick       string
	moderator  bool // Jicofo made us one
	stay       int  // counts our stays in the room
	told       Occupants
	heard      bool // media ran at least once
	password   string
	muted      bool
	status     string
	jingle     *jingleSession
	gen        int
	lastSID    string // of the last Jingle session, and the source we signalled in it
	lastSSRC   uint32
	ssrcs      map[string][]uint32 // by owner, to forget an occupant that left
	refocus    context.CancelFunc  // repeats the conference request
	prepared   chan preparedLink
	invite     *time.Timer // company without a session-initiate
	moving     *time.Timer // a session-terminate without successor
	inviting   bool        // invite runs
	mediaTries int         // transports that failed one after another

	usedPrepared atomic.Bool
	step         atomic.Int32
}

type preparedLink struct {
	link *link
	err  error
}

// Messages to the leg's goroutine besides stanzas and room events.
type (
	muteCommand   struct{ muted bool }
	statusCommand struct{ status string }
	nameCommand   struct{ name string }
)

// Start begins a leg. It ends when ctx does, after Leave, or by itself; the
// last event is Ended, and Done is closed when nothing of it is left.
func Start(ctx context.Context, o Options) *Leg {
	o.Timers = o.Timers.withDefaults()
	if o.FocusNick == "" {
		o.FocusNick = "focus"
	}
	if o.Dial == nil {
		o.Dial = xmpp.Dial
	}
	if o.MachineUID == "" {
		o.MachineUID = randomHex(16)
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	ctx, cancel := context.WithCancelCause(ctx)
	l := &Leg{
		o: o, log: o.Logger, ctx: ctx, cancel: cancel,
		inbox: make(chan any, inboxSize), done: make(chan struct{}),
		password: o.Password, status: "Initializing Call",
		ssrcs:    map[string][]uint32{},
		prepared: make(chan preparedLink, 1),
		invite:   stoppedTimer(), moving: stoppedTimer(),
	}
	go l.run()
	return l
}

// Done is closed when the leg has ended and released everything.
func (l *Leg) Done() <-chan struct{} { return l.done }

// Leave ends the leg in order. It does not wait; Done tells.
func (l *Leg) Leave() { l.cancel(errLeft) }

// Steps that exclude each other: a leg that has asked Jicofo to open the room
// is not taken back unseen, and one that was taken back does not ask.
const (
	nothingRequested int32 = iota
	requestSent
	takenBack
)

// TakeBack ends a leg that has sent no conference request yet, which would
// have opened the room on its shard. It returns false when it was too late.
func (l *Leg) TakeBack() bool {
	if !l.step.CompareAndSwap(nothingRequested, takenBack) {
		return false
	}
	l.Leave()
	return true
}

// SetMuted publishes that the caller is muted or not. When the caller asked
// for it (and not Jicofo), Jicofo is asked first, since it may refuse.
func (l *Leg) SetMuted(muted bool) { l.post(muteCommand{muted}) }

// SetStatus publishes the call's state as presence status, in Jigasi's words.
func (l *Leg) SetStatus(s string) { l.post(statusCommand{s}) }

// SetName publishes another display name: the phone's at the other end now.
func (l *Leg) SetName(name string) { l.post(nameCommand{name}) }

// post hands a message to the leg's goroutine. A full inbox ends the leg: it
// is better to log in again than to act on half of what was said.
func (l *Leg) post(m any) bool {
	select {
	case l.inbox <- m:
		return true
	case <-l.done:
		return false
	default:
		l.cancel(ErrOverflow)
		return false
	}
}

func (l *Leg) run() {
	err := l.live()
	if cause := context.Cause(l.ctx); cause != nil && !errors.Is(cause, context.Canceled) {
		err = cause
	}
	if errors.Is(err, errLeft) || errors.Is(err, context.Canceled) {
		err = nil
	}
	l.cancel(errLeft)
	l.wg.Wait()
	close(l.done)
	l.drain()
	l.o.On(Ended{Err: err})
}

// drain closes transports that children handed over too late.
func (l *Leg) drain() {
	for {
		select {
		case m := <-l.inbox:
			if c, ok := m.(connected); ok && c.link != nil {
				c.link.Close()
			}
		case p := <-l.prepared:
			if p.err == nil {
				p.link.Close()
			}
		default:
			return
		}
	}
}

// live logs in and attends the conference, again after a rejoin, until the leg
// is over.
func (l *Leg) live() error {
	// The transport does not depend on the login: open it meanwhile.
	l.prepare()

	xo := l.o.Session
	xo.Disco = disco()
	xo.PingInterval, xo.PingTimeout = l.o.Timers.Ping, l.o.Timers.PingTimeout
	xo.Logger = l.log
	xo.Handler = xmpp.Handler{
		IQ:      func(iq *xmpp.IQ) { l.post(iq) },
		Message: func(m *xmpp.Message) {},
	}
	xs, err := l.o.Dial(l.ctx, xo)
	if err != nil {
		return loginError(err)
	}
	l.xs = xs
	defer xs.Close()
	defer l.dropSession("leg ended")
	l.nick = nickFor(xs.JID())
	l.o.On(LoggedIn{Shard: xs.Shard()})

	for try := 0; ; try++ {
		err := l.attend()
		if !errors.Is(err, errRejoin) {
			return err
		}
		if try >= 5 {
			return ErrNeverInvited
		}
		l.log.Info("rejoining the conference", "room", l.o.Room.String(), "why", err)
		if err := l.pause(jitter(l.o.Timers.JoinRetry << min(try, 5))); err != nil {
			return err
		}
	}
}

func loginError(err error) error {
	switch {
	case errors.Is(err, xmpp.ErrUnreachable), errors.Is(err, xmpp.ErrTLS), errors.Is(err, context.DeadlineExceeded):
		return errorf(ErrUnreachable, err)
	case errors.Is(err, xmpp.ErrAuth), errors.Is(err, xmpp.ErrDomain):
		return errorf(ErrLogin, err)
	}
	return errorf(ErrSessionLost, err)
}

// pause waits for d or the leg's end.
func (l *Leg) pause(d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-l.xs.Done():
		return errorf(ErrSessionLost, l.xs.Err())
	case <-l.ctx.Done():
		return context.Cause(l.ctx)
	}
}

// disco is what the leg answers to disco#info: audio only, which keeps Jicofo
// from offering video.
func disco() xmpp.DiscoInfo {
	return xmpp.DiscoInfo{
		Identities: []xmpp.Identity{{Category: "client", Type: "pc", Name: "Brewline"}},
		Features:   xmpp.GatewayFeatures,
	}
}

// nickFor is the occupant's nick, which is the endpoint id as well: the first
// eight digits of an anonymous user's UUID (anonymous_strict demands it), else
// eight random hex digits.
func nickFor(self xmpp.JID) string {
	if u := self.Local; len(u) == 36 && u[8] == '-' {
		if _, err := hex.DecodeString(u[:8]); err == nil {
			return u[:8]
		}
	}
	return randomHex(4)
}

func randomHex(bytes int) string {
	b := make([]byte, bytes)
	rand.Read(b) // never fails (crypto/rand)
	return hex.EncodeToString(b)
}

func stoppedTimer() *time.Timer {
	t := time.NewTimer(time.Hour)
	t.Stop()
	return t
}

// randomSSRC is never 0, which Jicofo refuses.
func randomSSRC() uint32 { return mathrand.Uint32N(math.MaxUint32) + 1 }
