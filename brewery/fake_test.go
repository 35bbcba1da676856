package brewery

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"brewline/config"
	"brewline/xmpp"
)

// world is the shards as the tests want them, reached by URL.
type world struct {
	mu     sync.Mutex
	shards map[string]*prosody
	log    bytes.Buffer
	onDial func(*DialRequest)
}

// prosody is one fake shard.
type prosody struct {
	mu     sync.Mutex
	name   string // of X-Jitsi-Shard
	dial   func(context.Context) error
	rooms  map[string]reply // by bare room JID
	other  reply            // for all further rooms; nil: item-not-found
	dials  []time.Time
	last   xmpp.Options
	asked  []string
	online []*fakeSession

	join  func(nick string) error // nil: joins are accepted
	focus bool                    // Jicofo is in the brewery
	deaf  bool                    // presence is not answered
	told  []telling               // presences in the brewery
	left  int                     // departures
}

// telling is one presence in a brewery.
type telling struct {
	at    time.Time
	nick  string
	room  string
	join  bool
	stats map[string]string
}

// reply answers one disco#info.
type reply func(context.Context) error

func stanzaError(condition string) reply {
	return func(context.Context) error { return &xmpp.StanzaError{Type: "cancel", Condition: condition} }
}

func result(context.Context) error { return nil }

// after delays a reply.
func after(d time.Duration, r reply) reply {
	return func(ctx context.Context) error {
		select {
		case <-time.After(d):
			return r(ctx)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// never gives no reply.
func never(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }

func (w *world) at(url string) *prosody {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.shards == nil {
		w.shards = map[string]*prosody{}
	}
	p := w.shards[url]
	if p == nil {
		p = &prosody{rooms: map[string]reply{}}
		w.shards[url] = p
	}
	return p
}

func (w *world) dial(ctx context.Context, o xmpp.Options) (session, error) {
	p := w.at(o.URL)
	p.mu.Lock()
	p.dials = append(p.dials, time.Now())
	p.last = o
	dial, name := p.dial, p.name
	p.mu.Unlock()
	if dial != nil {
		if err := dial(ctx); err != nil {
			return nil, err
		}
	}
	s := &fakeSession{p: p, shard: name, done: make(chan struct{}), h: o.Handler,
		jid: xmpp.JID{Local: "u", Domain: o.Domain, Resource: "r"}, replies: make(chan *xmpp.IQ, 4*maxPending)}
	if o.Resource != "" {
		s.jid = xmpp.JID{Local: o.Username, Domain: o.Domain, Resource: o.Resource}
	}
	p.mu.Lock()
	p.online = append(p.online, s)
	p.mu.Unlock()
	return s, nil
}

// set changes a shard under its lock.
func (p *prosody) set(f func(*prosody)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f(p)
}

func (p *prosody) has(room string, r reply) { p.set(func(p *prosody) { p.rooms[room] = r }) }

// crash ends every session, and lets none in until it recovers.
func (p *prosody) crash() {
	p.set(func(p *prosody) {
		p.dial = func(context.Context) error { return xmpp.ErrUnreachable }
		for _, s := range p.online {
			s.end(xmpp.ErrSessionLost)
		}
		p.online = nil
	})
}

func (p *prosody) questions() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]string(nil), p.asked...)
}

func (p *prosody) dialled() []time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]time.Time(nil), p.dials...)
}

type fakeSession struct {
	p     *prosody
	shard string
	jid   xmpp.JID
	done  chan struct{}
	once  sync.Once
	err   error
	h     xmpp.Handler

	replies chan *xmpp.IQ // to requests of others

	mu      sync.Mutex
	brewery *fakeRoom
}

// fakeRoom is a place in the brewery.
type fakeRoom struct {
	s *fakeSession
	o xmpp.RoomOptions
}

func (s *fakeSession) end(err error) {
	s.once.Do(func() { s.err = err; close(s.done) })
}

func (s *fakeSession) JID() xmpp.JID         { return s.jid }
func (s *fakeSession) Shard() string         { return s.shard }
func (s *fakeSession) Done() <-chan struct{} { return s.done }
func (s *fakeSession) Err() error            { <-s.done; return s.err }
func (s *fakeSession) Close() error          { s.end(xmpp.ErrClosed); return nil }

func (s *fakeSession) Reply(req *xmpp.IQ, payload any) error {
	return s.answer(&xmpp.IQ{Type: "result", ID: req.ID, To: req.From, Payload: payload})
}

func (s *fakeSession) ReplyError(req *xmpp.IQ, e *xmpp.StanzaError) error {
	return s.answer(&xmpp.IQ{Type: "error", ID: req.ID, To: req.From, Error: e})
}

func (s *fakeSession) answer(iq *xmpp.IQ) error {
	select {
	case <-s.done:
		return s.err
	default:
		s.replies <- iq
		return nil
	}
}

func (s *fakeSession) Join(ctx context.Context, o xmpp.RoomOptions) (membership, error) {
	s.p.mu.Lock()
	join, focus := s.p.join, s.p.focus
	s.p.mu.Unlock()
	if join != nil {
		if err := join(o.Nick); err != nil {
			return nil, err
		}
	}
	r := &fakeRoom{s, o}
	s.mu.Lock()
	s.brewery = r
	s.mu.Unlock()
	r.tell(true)
	if focus {
		o.On(xmpp.RoomEvent{Kind: xmpp.FocusJoined})
	}
	return r, nil
}

func (r *fakeRoom) tell(join bool) {
	r.s.p.set(func(p *prosody) {
		p.told = append(p.told, telling{time.Now(), r.o.Nick, r.o.Room.String(), join, maps.Clone(r.o.Presence.Stats)})
	})
}

func (r *fakeRoom) Update(change func(*xmpp.OwnPresence)) error {
	change(&r.o.Presence)
	r.tell(false)
	r.s.p.mu.Lock()
	deaf := r.s.p.deaf
	r.s.p.mu.Unlock()
	if !deaf {
		go r.s.h.Presence(&xmpp.Presence{From: r.o.Room.WithResource(r.o.Nick)})
	}
	return nil
}

func (r *fakeRoom) Leave() error {
	r.s.p.set(func(p *prosody) { p.left++ })
	return nil
}

// event is a change in the brewery, at the session opened last.
func (p *prosody) event(e xmpp.RoomEvent) {
	p.mu.Lock()
	s := p.online[len(p.online)-1]
	p.mu.Unlock()
	s.mu.Lock()
	r := s.brewery
	s.mu.Unlock()
	r.o.On(e)
}

func (p *prosody) sessions() []*fakeSession {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.online)
}

func (p *prosody) tellings() []telling {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.told)
}

func (s *fakeSession) DiscoInfo(ctx context.Context, to xmpp.JID, _ string) (*xmpp.DiscoInfo, error) {
	s.p.mu.Lock()
	s.p.asked = append(s.p.asked, to.String())
	r := s.p.rooms[to.String()]
	if r == nil {
		r = s.p.other
	}
	s.p.mu.Unlock()
	if r == nil {
		r = stanzaError("item-not-found")
	}
	if err := r(ctx); err != nil {
		return nil, fmt.Errorf("disco#info %s: %w", to, err)
	}
	return &xmpp.DiscoInfo{}, nil
}

// conf makes a configuration as Load would return it.
func conf(deployments []config.Deployment, shards ...config.Shard) *config.Config {
	c := &config.Config{Deployments: deployments, Shards: shards}
	c.Gateway.LocateTimeout = config.Duration{Duration: time.Second}
	for i := range c.Deployments {
		d := &c.Deployments[i]
		or := func(s *string, v string) {
			if *s == "" {
				*s = v
			}
		}
		or(&d.Domain, "meet.example")
		or(&d.MUC, "conference."+d.Domain)
		or(&d.Focus, "focus."+d.Domain)
		or(&d.FocusNick, "focus")
		or(&d.ShardHeader, "X-Jitsi-Shard")
		or(&d.Login.Kind, config.LoginAnonymous)
		or(&d.Login.Domain, d.Domain)
		if d.MUCPrefixes == nil {
			d.MUCPrefixes = []string{"conference", "muc"}
		}
	}
	for i := range c.Shards {
		sh := &c.Shards[i]
		if sh.Deployment == "" {
			sh.Deployment = c.Deployments[0].Name
		}
		if sh.URL == "" {
			sh.URL = "https://" + sh.Name + ".example/http-bind"
		}
		if sh.HeaderValue == "" {
			sh.HeaderValue = sh.Name
		}
		if sh.Weight == 0 {
			sh.Weight = 1
		}
		if d := c.Deployment(sh.Deployment); d != nil {
			sh.Effective = *d
		}
	}
	return c
}

// one makes a deployment "prod" of shards with equal domain names.
func one(names ...string) *config.Config {
	var shards []config.Shard
	for _, n := range names {
		shards = append(shards, config.Shard{Name: n})
	}
	return conf([]config.Deployment{{Name: "prod"}}, shards...)
}

// apart makes a deployment of its own, with its own domain, for each shard.
func apart(names ...string) *config.Config {
	var deployments []config.Deployment
	var shards []config.Shard
	for _, n := range names {
		deployments = append(deployments, config.Deployment{Name: "of-" + n, Domain: n + ".example"})
		shards = append(shards, config.Shard{Name: n, Deployment: "of-" + n})
	}
	return conf(deployments, shards...)
}

// layouts runs a test with the shards of one deployment, and with deployments
// of one shard each.
func layouts(t *testing.T, f func(t *testing.T, of func(names ...string) *config.Config)) {
	t.Helper()
	t.Run("one deployment", func(t *testing.T) { f(t, one) })
	t.Run("a deployment each", func(t *testing.T) { f(t, apart) })
}

func urlOf(shard string) string { return "https://" + shard + ".example/http-bind" }

// bubble runs a test on a clock of its own: the set of cfg is running, and
// everything has come to rest, when f is called.
func bubble(t *testing.T, cfg *config.Config, w *world, f func(t *testing.T, s *Set)) {
	t.Helper()
	bubbleWith(t, cfg, w, nil, f)
}

func bubbleWith(t *testing.T, cfg *config.Config, w *world, rt http.RoundTripper, f func(t *testing.T, s *Set)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := must(New(cfg, Options{
			Logger: slog.New(slog.NewTextHandler(locked{&w.mu, &w.log}, &slog.HandlerOptions{Level: slog.LevelDebug})),
			HTTP:   &http.Client{Transport: rt},
			dial:   w.dial, OnDial: w.onDial, Version: "1.2",
		}))(t)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- s.Run(ctx) }()
		defer func() {
			cancel()
			if err := <-ended; err != nil {
				t.Errorf("Run: %v", err)
			}
		}()
		synctest.Wait()
		f(t, s)
	})
}

type locked struct {
	mu *sync.Mutex
	b  *bytes.Buffer
}

func (l locked) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (w *world) logged(text string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return strings.Contains(w.log.String(), text)
}

func must[T any](v T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}
