package lb

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"
)

// State of a backend.
type State int

// States of a backend, in HAProxy's words.
const (
	Up    State = iota
	Drain       // keeps its rooms, gets no new ones
	Down
)

func (s State) String() string { return [...]string{"up", "drain", "down"}[s] }

// Options of a Balancer.
type Options struct {
	Backends         map[string]string // name to base URL
	Expire           time.Duration     // of a stick table entry, default 5 min
	CheckInterval    time.Duration     // between health checks, default 250 ms; negative: none
	StripShardHeader bool              // remove X-Jitsi-Shard from answers
	Stateless        bool              // no stick table, hash only
	Logger           *slog.Logger
}

// Route records where one request went.
type Route struct {
	At      time.Time
	Path    string
	Token   string // tenant/room, lower case; "" for a request without a room
	Backend string // "" when none was up
	Stuck   bool   // the stick table decided
	Status  int    // of the answer, 0 before there is one
}

const maxRoutes = 20000

// Balancer is a running load balancer.
type Balancer struct {
	o    Options
	url  string
	http *http.Server
	stop context.CancelFunc
	wg   sync.WaitGroup

	mu       sync.Mutex
	backends map[string]*backend
	table    map[string]*entry
	routes   []*Route
	next     int // round robin of requests without a room
}

type backend struct {
	name, target string
	proxy        *httputil.ReverseProxy
	transport    *http.Transport
	state        State
	forced       bool // SetState decided; health checks do not
}

type entry struct {
	backend string
	until   time.Time
}

// Start serves on a port of its own choice.
func Start(o Options) (*Balancer, error) {
	if o.Expire == 0 {
		o.Expire = 5 * time.Minute
	}
	if o.CheckInterval == 0 {
		o.CheckInterval = 250 * time.Millisecond
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	b := &Balancer{o: o, backends: map[string]*backend{}, table: map[string]*entry{}}
	for name, u := range o.Backends {
		if err := b.SetBackend(name, u); err != nil {
			return nil, err
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("lb: %w", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	b.stop = cancel
	b.url = "http://" + l.Addr().String()
	b.http = &http.Server{Handler: b, BaseContext: func(net.Listener) context.Context { return ctx },
		ErrorLog: slog.NewLogLogger(slog.DiscardHandler, 0)}
	b.wg.Add(1)
	go func() { defer b.wg.Done(); _ = b.http.Serve(l) }()
	if o.CheckInterval > 0 {
		b.wg.Add(1)
		go func() { defer b.wg.Done(); b.check(ctx) }()
	}
	return b, nil
}

// Close ends the balancer and every connection through it.
func (b *Balancer) Close() error {
	b.stop()
	err := b.http.Close()
	b.wg.Wait()
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, x := range b.backends {
		x.transport.CloseIdleConnections()
	}
	return err
}

// URL is the balancer's base URL.
func (b *Balancer) URL() string { return b.url }

// BOSHURL is the address of the BOSH service behind the balancer.
func (b *Balancer) BOSHURL() string { return b.url + "/http-bind" }

// SetBackend adds a backend or changes its address; it is up.
func (b *Balancer) SetBackend(name, target string) error {
	u, err := url.Parse(target)
	if err != nil || u.Host == "" {
		return fmt.Errorf("lb: backend %s: bad URL %q", name, target)
	}
	t := &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: 64, DialContext: (&net.Dialer{Timeout: 2 * time.Second}).DialContext}
	x := &backend{name: name, target: target, transport: t}
	x.proxy = &httputil.ReverseProxy{
		Transport:     t,
		FlushInterval: -1,
		ErrorLog:      slog.NewLogLogger(slog.DiscardHandler, 0),
		Rewrite: func(p *httputil.ProxyRequest) {
			p.SetURL(u)
			p.SetXForwarded()
			p.Out.Host = p.In.Host
		},
		ModifyResponse: func(r *http.Response) error {
			if b.o.StripShardHeader {
				r.Header.Del("X-Jitsi-Shard")
			}
			return nil
		},
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) { b.failed(x, w, r, err) },
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.backends[name] = x
	return nil
}

// RemoveBackend takes a backend and its rooms out.
func (b *Balancer) RemoveBackend(name string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if x := b.backends[name]; x != nil {
		x.transport.CloseIdleConnections()
		delete(b.backends, name)
		b.unstick(name)
	}
}

// SetState sets a backend's state for good: health checks no longer change it,
// until it is set to Up.
func (b *Balancer) SetState(name string, s State) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if x := b.backends[name]; x != nil {
		x.forced = s != Up
		b.set(x, s)
	}
}

// States are the states of all backends.
func (b *Balancer) States() map[string]State {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := map[string]State{}
	for n, x := range b.backends {
		out[n] = x.state
	}
	return out
}

// set changes a state; a backend that is down loses its rooms.
func (b *Balancer) set(x *backend, s State) {
	if x.state == s {
		return
	}
	x.state = s
	b.o.Logger.Info("backend", "shard", x.name, "state", s.String())
	if s == Down {
		b.unstick(x.name)
	}
}

func (b *Balancer) unstick(name string) {
	for k, e := range b.table {
		if e.backend == name {
			delete(b.table, k)
		}
	}
}

// Token is the key by which requests stick: tenant and room in lower case, with
// %25 read as %.
func Token(tenant, room string) string {
	t := strings.ToLower(room)
	if tenant != "" {
		t = strings.ToLower(tenant) + "/" + t
	}
	return strings.ReplaceAll(t, "%25", "%")
}

// Stick forces an entry of the stick table.
func (b *Balancer) Stick(tenant, room, backend string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.table[Token(tenant, room)] = &entry{backend, time.Now().Add(b.o.Expire)}
}

// Forget empties the stick table.
func (b *Balancer) Forget() {
	b.mu.Lock()
	defer b.mu.Unlock()
	clear(b.table)
}

// Where is the backend a request for the room would go to now; asking changes
// nothing.
func (b *Balancer) Where(tenant, room string) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	if x, _ := b.pick(Token(tenant, room)); x != nil {
		return x.name
	}
	return ""
}

// Routes lists the requests so far (the first 20 000).
func (b *Balancer) Routes() []Route {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := make([]Route, len(b.routes))
	for i, r := range b.routes {
		out[i] = *r
	}
	return out
}

// pick chooses a backend: the one the token sticks to, else by rendezvous hash
// among those that are up.
func (b *Balancer) pick(token string) (x *backend, stuck bool) {
	if e := b.table[token]; e != nil && token != "" && time.Now().Before(e.until) {
		if x := b.backends[e.backend]; x != nil && x.state != Down {
			return x, true
		}
	}
	var up []string
	for n, x := range b.backends {
		if x.state == Up {
			up = append(up, n)
		}
	}
	if len(up) == 0 {
		return nil, false
	}
	slices.Sort(up)
	if token == "" {
		b.next++
		return b.backends[up[b.next%len(up)]], false
	}
	best, top := "", uint64(0)
	for _, n := range up {
		h := fnv.New64a()
		_, _ = io.WriteString(h, n+"\x00"+token)
		v := h.Sum64()
		v ^= v >> 33 // FNV mixes its high bits poorly for short texts
		v *= 0xff51afd7ed558ccd
		v ^= v >> 33
		if best == "" || v > top {
			best, top = n, v
		}
	}
	return b.backends[best], false
}

// ServeHTTP routes one request.
func (b *Balancer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	token := ""
	if room := r.URL.Query().Get("room"); room != "" {
		tenant := ""
		if parts := strings.Split(strings.Trim(r.URL.Path, "/"), "/"); len(parts) > 1 {
			tenant = parts[len(parts)-2]
		}
		token = Token(tenant, room)
	}
	b.mu.Lock()
	x, stuck := b.pick(token)
	route := &Route{At: time.Now(), Path: r.URL.Path, Token: token, Stuck: stuck}
	if x != nil {
		route.Backend = x.name
		if token != "" && !b.o.Stateless {
			b.table[token] = &entry{x.name, time.Now().Add(b.o.Expire)}
		}
	}
	if len(b.routes) < maxRoutes {
		b.routes = append(b.routes, route)
	}
	b.mu.Unlock()
	rec := &recorder{ResponseWriter: w, b: b, route: route}
	if x == nil {
		http.Error(rec, "503 Service Unavailable\nNo server is available to handle this request.", http.StatusServiceUnavailable)
		return
	}
	x.proxy.ServeHTTP(rec, r)
}

// failed answers a request whose backend did not. A backend that cannot be
// connected to is down, so that the next request goes elsewhere.
func (b *Balancer) failed(x *backend, w http.ResponseWriter, r *http.Request, err error) {
	if r.Context().Err() != nil {
		panic(http.ErrAbortHandler)
	}
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "dial" {
		b.mu.Lock()
		if !x.forced {
			b.set(x, Down)
		}
		b.mu.Unlock()
		http.Error(w, "503 Service Unavailable", http.StatusServiceUnavailable)
		return
	}
	http.Error(w, "502 Bad Gateway", http.StatusBadGateway)
}

// check asks every backend for its health.
func (b *Balancer) check(ctx context.Context) {
	t := time.NewTicker(b.o.CheckInterval)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		b.mu.Lock()
		var all []*backend
		for _, x := range b.backends {
			if !x.forced {
				all = append(all, x)
			}
		}
		b.mu.Unlock()
		for _, x := range all {
			state := Up
			if !x.healthy(ctx) {
				state = Down
			}
			b.mu.Lock()
			if !x.forced && ctx.Err() == nil {
				b.set(x, state)
			}
			b.mu.Unlock()
		}
	}
}

func (x *backend) healthy(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(x.target, "/")+"/about/health", nil)
	if err != nil {
		return false
	}
	resp, err := x.transport.RoundTrip(r)
	if err != nil {
		return false
	}
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 4096))
	_ = resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

// recorder notes the status; it lets the proxy flush and hijack.
type recorder struct {
	http.ResponseWriter
	b     *Balancer
	route *Route
}

func (r *recorder) WriteHeader(code int) {
	r.b.mu.Lock()
	r.route.Status = code
	r.b.mu.Unlock()
	r.ResponseWriter.WriteHeader(code)
}

func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }
