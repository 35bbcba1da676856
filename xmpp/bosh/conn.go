package bosh

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	mrand "math/rand/v2"
	"net/http"
	"strconv"
	"sync"
	"time"

	"brewline/xmpp/internal/dial"
	"brewline/xmpp/internal/split"
)

// What ends a session, for errors.Is.
var (
	ErrClosed       = errors.New("bosh: closed")
	ErrShardChanged = errors.New("shard changed")
	ErrQueueFull    = errors.New("send queue full")
	ErrLost         = errors.New("bosh: session lost")
)

// TerminateError is a session ended by the server (XEP-0124 §17.2).
type TerminateError struct{ Condition string }

func (e *TerminateError) Error() string {
	if e.Condition == "" {
		return "bosh: server ended the session"
	}
	return "bosh: server ended the session: " + e.Condition
}

// StatusError is an HTTP status that BOSH has no use for.
type StatusError struct {
	Code     int
	Location string // of a redirect
}

func (e *StatusError) Error() string {
	s := "bosh: HTTP status " + strconv.Itoa(e.Code)
	if e.Location != "" {
		s += " to " + e.Location
	}
	return s
}

// Options of a session.
type Options struct {
	URL         string        // http or https, with the query parameters of every request
	Domain      string        // the "to" of the session
	Wait        time.Duration // longest time an answer is held
	Grace       time.Duration // how much later than Wait an answer may come before it is asked for again
	Connections int           // HTTP connections kept, at least 2
	TLS         *tls.Config
	ShardHeader string
	MaxStanza   int // bytes
	QueueSize   int // elements not sent yet
	Logger      *slog.Logger
}

const (
	window   = 2        // requests that may be unanswered (Prosody answers requests='2')
	maxBatch = 64 << 10 // bytes of stanzas sent in one body
	maxReady = 1024     // elements read ahead of Recv before polling pauses

	maxUnreadable = 5 // times that an answer is asked for again because it is no BOSH body

	retryFirst = 50 * time.Millisecond
	retryMax   = 5 * time.Second
	// An empty poll answered sooner than this, again and again, is a server
	// that does not hold requests; polls are then spaced out up to pollMax.
	quickPoll = 500 * time.Millisecond
	pollMax   = 5 * time.Second
)

// Conn is a BOSH session. Two workers send; each takes what is waiting to be
// sent into one body. At most two requests are unanswered, one is always
// held, and answers are delivered in the order of their request ids.
type Conn struct {
	o      Options
	client *http.Client
	tr     *http.Transport
	dialer dialer
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup

	sid        string
	inactivity time.Duration

	mu       sync.Mutex
	work     sync.Cond // workers wait here
	avail    sync.Cond // Recv waits here
	shard    string
	rid      uint64
	queue    []item
	pending  []*request // in rid order, not delivered yet
	ready    []split.Element
	err      error
	closing  bool
	login    bool // no polling between an answer and the next Send
	ourTurn  bool
	quick    int // empty polls answered at once, in a row
	pollFrom time.Time
	ended    chan struct{} // closed when err is set
}

type item struct {
	data    []byte
	restart bool
}

type request struct {
	rid    uint64
	body   []byte
	poll   bool
	final  bool
	sent   time.Time
	answer *Body // set when it came before its turn
}

// Dial creates a session (XEP-0124 §7.1). Its stream features are the first
// element that Recv returns. ctx bounds only the creation.
func Dial(ctx context.Context, o Options) (*Conn, error) {
	o.Connections = max(o.Connections, 2)
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	c := &Conn{o: o, login: true, ourTurn: true, ended: make(chan struct{})}
	c.work.L, c.avail.L = &c.mu, &c.mu
	c.ctx, c.cancel = context.WithCancel(context.Background())
	// With three or more the creating connection is given up: two in advance.
	single := o.Connections > 2
	c.dialer.ctx, c.dialer.tls, c.dialer.extra = c.ctx, o.TLS, 1
	if single {
		c.dialer.extra = 2
	}
	c.tr = newTransport(&c.dialer, o.Connections, o.Wait+o.Grace)
	c.client = &http.Client{
		Transport:     c.tr,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	var seed [8]byte
	_, _ = rand.Read(seed[:])
	c.rid = binary.BigEndian.Uint64(seed[:])>>16 + 1 // below 2^48, far from the limit of 2^53 (§14.1)

	if err := c.create(ctx, single); err != nil {
		c.Abort(err)
		c.Wait()
		return nil, err
	}
	c.wg.Add(window)
	for range window {
		go c.worker()
	}
	return c, nil
}

func (c *Conn) create(ctx context.Context, single bool) error {
	b := []byte("<body xmlns='" + nsBOSH + "' xmlns:xmpp='" + nsXBSH + "' content='text/xml; charset=utf-8'" +
		" hold='1' ver='1.6' xml:lang='en' xmpp:version='1.0'")
	b = attr(b, "to", c.o.Domain)
	b = attr(b, "rid", strconv.FormatUint(c.rid, 10))
	b = attr(b, "wait", strconv.Itoa(max(1, int(c.o.Wait/time.Second))))
	b = append(b, "/>"...)
	c.rid++

	stop := context.AfterFunc(ctx, c.cancel)
	defer stop()
	body, err := c.post(c.ctx, b, single)
	if err != nil {
		if ctx.Err() != nil {
			err = fmt.Errorf("%w: %w", ctx.Err(), err)
		}
		return err
	}
	if body.Type == "terminate" {
		return &TerminateError{body.Condition}
	}
	if body.SID == "" {
		return fmt.Errorf("%w: no sid", errBody)
	}
	c.sid = body.SID
	if body.Wait > 0 {
		c.o.Wait = time.Duration(body.Wait) * time.Second
	}
	c.inactivity = time.Minute
	if body.Inactivity > 0 {
		c.inactivity = time.Duration(body.Inactivity) * time.Second
	}
	c.ready = body.Elements
	c.ourTurn = len(body.Elements) > 0
	return nil
}

// Shard is what the shard header said, "" if it never came.
func (c *Conn) Shard() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.shard
}

// Send queues one element. It never blocks.
func (c *Conn) Send(el []byte) error { return c.enqueue(item{data: el}) }

// Restart asks for a new stream after authentication (XEP-0206 §5).
func (c *Conn) Restart() error { return c.enqueue(item{restart: true}) }

func (c *Conn) enqueue(it item) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return c.err
	}
	if c.closing {
		return ErrClosed
	}
	if len(c.queue) >= c.o.QueueSize {
		return ErrQueueFull
	}
	c.queue = append(c.queue, it)
	c.ourTurn = false
	c.work.Signal()
	return nil
}

// Established ends the login, during which the client speaks and the server
// answers: from now on a request is always held.
func (c *Conn) Established() {
	c.mu.Lock()
	c.login = false
	c.work.Signal()
	c.mu.Unlock()
}

// Recv returns the next element. After the last one it returns the error that
// ended the session. One goroutine may call it.
func (c *Conn) Recv() (split.Element, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.ready) == 0 {
		if c.err != nil {
			return split.Element{}, c.err
		}
		c.avail.Wait()
	}
	el := c.ready[0]
	c.ready[0] = split.Element{}
	c.ready = c.ready[1:]
	if len(c.ready) == 0 {
		c.ready = nil
		c.work.Signal()
	}
	return el, nil
}

// Close sends last and the end of the session in one body and waits until the
// server has confirmed it or ctx is over.
func (c *Conn) Close(ctx context.Context, last []byte) {
	c.mu.Lock()
	if c.err == nil && !c.closing {
		if last != nil {
			c.queue = append(c.queue, item{data: last})
		}
		c.closing = true
		c.work.Broadcast()
	}
	c.mu.Unlock()
	select {
	case <-c.ended:
	case <-ctx.Done():
	}
	c.Abort(ErrClosed)
	c.wg.Wait()
	c.dialer.close()
}

// Abort ends the session at once, without a word to the server.
func (c *Conn) Abort(err error) {
	c.mu.Lock()
	c.fail(err)
	c.mu.Unlock()
	c.tr.CloseIdleConnections()
}

// Wait returns when no goroutine of the session is left, after Close or Abort.
func (c *Conn) Wait() {
	c.wg.Wait()
	c.dialer.close()
	c.tr.CloseIdleConnections()
}

// fail ends the session with err. The caller holds mu.
func (c *Conn) fail(err error) {
	if c.err != nil {
		return
	}
	if c.closing {
		err = ErrClosed
	}
	c.err = err
	c.cancel() // nobody will answer the other requests
	close(c.ended)
	c.work.Broadcast()
	c.avail.Broadcast()
}

func (c *Conn) worker() {
	defer c.wg.Done()
	for {
		r := c.take()
		if r == nil {
			return
		}
		body, err := c.exchange(r)
		c.settle(r, body, err)
	}
}

// take waits for something to send. It returns nil when the session is over.
func (c *Conn) take() *request {
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		if c.err != nil {
			return nil
		}
		if len(c.pending) < window && !c.finalSent() {
			if len(c.queue) > 0 || c.closing {
				return c.build()
			}
			if c.shouldPoll() {
				if d := time.Until(c.pollFrom); d > 0 {
					time.AfterFunc(d, c.work.Broadcast)
				} else {
					return c.build()
				}
			}
		}
		c.work.Wait()
	}
}

func (c *Conn) shouldPoll() bool {
	return len(c.pending) == 0 && !(c.login && c.ourTurn) && len(c.ready) < maxReady
}

func (c *Conn) finalSent() bool {
	n := len(c.pending)
	return n > 0 && c.pending[n-1].final
}

// build makes the next request of what is queued. The caller holds mu.
func (c *Conn) build() *request {
	r := &request{rid: c.rid, poll: len(c.queue) == 0}
	c.rid++
	restart := len(c.queue) > 0 && c.queue[0].restart
	n, size := 0, 0
	for n < len(c.queue) && !restart && !c.queue[n].restart && (n == 0 || size+len(c.queue[n].data) <= maxBatch) {
		size += len(c.queue[n].data)
		n++
	}
	b := make([]byte, 0, 160+size)
	b = append(b, "<body xmlns='"+nsBOSH+"'"...)
	b = attr(b, "rid", strconv.FormatUint(r.rid, 10))
	b = attr(b, "sid", c.sid)
	switch {
	case restart:
		b = attr(b, "to", c.o.Domain)
		b = append(b, " xml:lang='en' xmlns:xmpp='"+nsXBSH+"' xmpp:restart='true'"...)
		n = 1
	case c.closing && n == len(c.queue):
		b = append(b, " type='terminate'"...)
		r.final = true
	}
	b = append(b, '>')
	for i := range n {
		b = append(b, c.queue[i].data...)
		c.queue[i] = item{}
	}
	b = append(b, "</body>"...)
	if c.queue = c.queue[n:]; len(c.queue) == 0 {
		c.queue = nil
	}
	r.body, r.sent = b, time.Now()
	c.pending = append(c.pending, r)
	return r
}

// exchange sends r until it is answered. The same rid and body may be sent
// again: an answer that was lost is repeated by the server (XEP-0124 §14.3).
func (c *Conn) exchange(r *request) (*Body, error) {
	var first time.Time
	delay, unreadable := retryFirst, 0
	for attempt := 0; ; attempt++ {
		ctx, cancel := context.WithTimeout(c.ctx, c.o.Wait+c.o.Grace)
		body, err := c.post(ctx, r.body, false)
		cancel()
		if err == nil {
			if attempt > 0 && body.Type == "terminate" && body.Condition == "item-not-found" && c.overtaken(r) {
				// Prosody forgets a held request whose connection broke once a
				// later one was processed. It had no answer to lose then, and
				// should the session be gone, the later request will tell.
				return &Body{}, nil
			}
			return body, nil
		}
		if errors.Is(err, errBody) {
			unreadable++
		}
		if c.ctx.Err() != nil || errors.Is(err, ErrShardChanged) || !transient(err) || unreadable > maxUnreadable {
			return nil, err
		}
		now := time.Now()
		if attempt == 0 {
			first = now
			c.o.Logger.Debug("bosh request failed, asking again", "err", err)
		} else if now.Sub(first) > c.inactivity {
			return nil, fmt.Errorf("%w: %w", ErrLost, err)
		}
		if r.final {
			return nil, err
		}
		if attempt > 0 { // the first repetition is immediate: keep-alive connections die unnoticed
			t := time.NewTimer(delay/2 + mrand.N(delay))
			select {
			case <-t.C:
			case <-c.ctx.Done():
				t.Stop()
				return nil, err
			}
			delay = min(2*delay, retryMax)
		}
	}
}

// transient reports whether the same request may still be answered.
func transient(err error) bool {
	var status *StatusError
	if errors.As(err, &status) {
		return status.Code >= 500 || status.Code == http.StatusTooManyRequests || status.Code == http.StatusRequestTimeout
	}
	return true
}

// overtaken reports whether a request after r was sent.
func (c *Conn) overtaken(r *request) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.rid > r.rid+1
}

// post does one HTTP exchange, with single on a connection that is closed
// after it.
func (c *Conn) post(ctx context.Context, body []byte, single bool) (*Body, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.o.URL, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "text/xml; charset=utf-8")
	req.Close = single
	res, err := c.client.Do(req)
	if err != nil {
		return nil, dial.WithoutURL(err)
	}
	defer func() { _ = res.Body.Close() }()
	if err := c.sameShard(res.Header.Get(c.o.ShardHeader)); err != nil {
		return nil, err
	}
	if res.StatusCode != http.StatusOK {
		_, _ = io.CopyN(io.Discard, res.Body, 4<<10)
		return nil, &StatusError{Code: res.StatusCode, Location: res.Header.Get("Location")}
	}
	return ReadBody(res.Body, c.o.MaxStanza)
}

// sameShard remembers the first shard named and refuses another. A header
// that is missing says nothing: error pages of proxies lack it.
func (c *Conn) sameShard(name string) error {
	if name == "" {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.shard == "" {
		c.shard = name
	}
	if c.shard != name {
		return fmt.Errorf("%w: from %.64q to %.64q", ErrShardChanged, c.shard, name)
	}
	return nil
}

// settle takes the answer to r and delivers all that are in order.
func (c *Conn) settle(r *request, body *Body, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil {
		if !errors.Is(err, ErrShardChanged) && !errors.Is(err, ErrLost) {
			err = fmt.Errorf("%w: %w", ErrLost, err)
		}
		c.fail(err)
		return
	}
	r.answer = body
	if body.Type == "terminate" {
		// It may come on a later request while an older one hangs; nothing
		// will answer that one any more.
		for _, p := range c.pending {
			if p.answer != nil {
				c.ready = append(c.ready, p.answer.Elements...)
			}
		}
		c.pending = nil
		c.fail(&TerminateError{body.Condition})
		return
	}
	if r.final { // answered without type='terminate': good enough
		c.fail(ErrClosed)
		return
	}
	c.pace(r, body)
	n := 0
	for n < len(c.pending) && c.pending[n].answer != nil {
		els := c.pending[n].answer.Elements
		c.ready = append(c.ready, els...)
		if len(els) > 0 {
			c.ourTurn = true
		}
		n++
	}
	c.pending = c.pending[n:]
	c.avail.Signal()
	c.work.Broadcast()
}

// pace spaces out polls that are answered empty at once.
func (c *Conn) pace(r *request, body *Body) {
	alone := len(c.pending) == 1 && c.rid == r.rid+1
	if !r.poll || !alone || len(body.Elements) > 0 || time.Since(r.sent) > min(quickPoll, c.o.Wait/2) {
		c.quick, c.pollFrom = 0, time.Time{}
		return
	}
	if c.quick++; c.quick > 2 {
		c.pollFrom = time.Now().Add(min(retryFirst<<min(c.quick, 10), pollMax))
	}
}
