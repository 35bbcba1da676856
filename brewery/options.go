package brewery

import (
	"context"
	"log/slog"
	"net/http"
	"time"

	"brewline/xmpp"
)

// Options of a [Set]. The zero value is what a gateway uses.
type Options struct {
	Logger *slog.Logger
	// Dial opens the control sessions. Default xmpp.Dial.
	Dial func(context.Context, xmpp.Options) (*xmpp.Session, error)
	// HTTP asks the load balancers; redirects are not followed whatever it
	// says. Default: a client of the Set's own that trusts the certificates
	// of the system and of the deployment's shards.
	HTTP   *http.Client
	Timers Timers
	// Version is what breweries are told.
	Version string
	// OnDial takes the requests to call a number, each in a goroutine of its
	// own; nil refuses them.
	OnDial func(*DialRequest)

	dial func(context.Context, xmpp.Options) (session, error) // tests
}

// Timers are durations that tests shorten.
type Timers struct {
	Connect     time.Duration // one attempt to connect and log in, default 10 s
	Ping        time.Duration // silence after which a shard is pinged (XEP-0199), default 10 s
	PingTimeout time.Duration // silence after a ping that ends the session, default 5 s
	RetryMin    time.Duration // about the first pause before connecting again, default 1 s
	RetryMax    time.Duration // longest pause, default 8 s
	Presence    time.Duration // longest pause between presences in a brewery, default 30 s
	PresenceGap time.Duration // shortest, default 1 s
	Echo        time.Duration // how long a brewery may take to show our presence, default 10 s
	Dial        time.Duration // deadline of a dial request, default 12 s: Jicofo waits for 15 s
	Remember    time.Duration // how long the answer to a dial request is known, default 1 min
	Late        time.Duration // how long after the deadline late answers are heard, default 5 s
}

// session is what a control session needs of *xmpp.Session.
type session interface {
	JID() xmpp.JID
	Shard() string
	Done() <-chan struct{}
	Err() error
	Close() error
	DiscoInfo(ctx context.Context, to xmpp.JID, node string) (*xmpp.DiscoInfo, error)
	Join(ctx context.Context, o xmpp.RoomOptions) (membership, error)
	Reply(req *xmpp.IQ, payload any) error
	ReplyError(req *xmpp.IQ, e *xmpp.StanzaError) error
}

// membership is what the presence in a brewery needs of *xmpp.Room.
type membership interface {
	Update(func(*xmpp.OwnPresence)) error
	Leave() error
}

// real is an *xmpp.Session as a session.
type real struct{ *xmpp.Session }

func (s real) Join(ctx context.Context, o xmpp.RoomOptions) (membership, error) {
	r, err := s.Session.Join(ctx, o)
	if err != nil {
		return nil, err // not a nil *Room in an interface
	}
	return r, nil
}

func (o Options) withDefaults() Options {
	def := func(d *time.Duration, v time.Duration) {
		if *d <= 0 {
			*d = v
		}
	}
	t := &o.Timers
	def(&t.Connect, 10*time.Second)
	def(&t.Ping, 10*time.Second)
	def(&t.PingTimeout, 5*time.Second)
	def(&t.RetryMin, time.Second)
	def(&t.RetryMax, 8*time.Second)
	def(&t.Presence, 30*time.Second)
	def(&t.PresenceGap, time.Second)
	def(&t.Echo, 10*time.Second)
	def(&t.Dial, 12*time.Second)
	def(&t.Remember, time.Minute)
	def(&t.Late, 5*time.Second)
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Dial == nil {
		o.Dial = xmpp.Dial
	}
	if o.dial == nil {
		dial := o.Dial
		o.dial = func(ctx context.Context, x xmpp.Options) (session, error) {
			s, err := dial(ctx, x)
			if err != nil {
				return nil, err // not a nil *Session in an interface
			}
			return real{s}, nil
		}
	}
	return o
}
