package xmpp

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/xml"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"brewline/xmpp/internal/split"
)

// transport carries top-level elements of one stream in both directions.
// bosh.Conn is one; stream is the other, over TCP or WebSocket.
type transport interface {
	// Send queues an element. It never blocks.
	Send(el []byte) error
	// Restart asks for a new stream after authentication.
	Restart() error
	// Established is called once the resource is bound.
	Established()
	// Recv returns the next element, or what ended the stream. Only one
	// goroutine calls it, the same that calls Restart.
	Recv() (split.Element, error)
	// Close says last and goodbye, and gives up when ctx is over.
	Close(ctx context.Context, last []byte)
	// Abort ends everything at once; Recv returns err.
	Abort(err error)
	// Wait returns when the transport has no goroutine left, after Close or
	// Abort.
	Wait()
	// Shard is the name of the shard, if the transport was told.
	Shard() string
}

// Session is a logged-in and bound XMPP session. All methods may be called
// from any goroutine; those that wait for the server not from a handler.
type Session struct {
	o      Options
	log    *slog.Logger
	t      transport
	secure bool
	jid    JID
	caps   Caps
	prefix string // of the ids of our requests
	count  atomic.Uint64

	done   chan struct{}
	reader chan struct{} // closed when no goroutine of the session is left
	early  []split.Element

	lastIn atomic.Int64 // time of the last element, ns since start
	start  time.Time

	malformed, refused atomic.Uint64
	logMalformed       sync.Once
	logRefused         sync.Once

	mu      sync.Mutex
	err     error
	pending map[string]*pendingIQ
	rooms   map[JID]*Room // by bare JID
	lobbies map[JID]*Lobby
	ping    *time.Timer
	pinged  time.Duration // when the unanswered ping was sent, 0 if none
}

type pendingIQ struct {
	to    JID
	reply chan *IQ // takes the one reply without blocking
}

// Stats count what the session refused to take.
type Stats struct {
	Malformed uint64 // stanzas that were too large or could not be read
	Refused   uint64 // requests that only the focus may make, from others
}

// Stats returns the counters.
func (s *Session) Stats() Stats {
	return Stats{Malformed: s.malformed.Load(), Refused: s.refused.Load()}
}

// JID is the full JID that was bound.
func (s *Session) JID() JID { return s.jid }

// Shard is the value of the shard header, "" if it never came.
func (s *Session) Shard() string { return s.t.Shard() }

// Done is closed when the session is over for whatever reason.
func (s *Session) Done() <-chan struct{} { return s.done }

// Err says why the session is over: nil before that, ErrClosed after Close.
func (s *Session) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// Close leaves all rooms and ends the session, within CloseTimeout. It must
// not be called from a handler.
func (s *Session) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), s.o.CloseTimeout)
	defer cancel()
	last, err := marshalStanza(&Presence{Type: "unavailable"})
	if err != nil {
		return err
	}
	s.t.Close(ctx, last)
	s.fail(ErrClosed)
	<-s.reader
	return nil
}

// fail ends the session with err, once.
func (s *Session) fail(err error) {
	s.mu.Lock()
	first := s.err == nil
	if first {
		s.err = err
		if s.ping != nil {
			s.ping.Stop()
		}
		close(s.done)
	}
	s.mu.Unlock()
	s.t.Abort(err)
	if first && !errors.Is(err, ErrClosed) {
		s.log.Warn("xmpp session ended", "jid", s.jid.String(), "err", err)
	}
}

// Send queues one stanza: a *Message, *Presence, *IQ or a struct that
// encoding/xml makes a stanza of. It never blocks.
func (s *Session) Send(v any) error {
	b, err := marshalStanza(v)
	if err != nil {
		return err
	}
	if err := s.Err(); err != nil {
		return err
	}
	if err := s.t.Send(b); err != nil {
		return s.sendError(err)
	}
	return nil
}

func (s *Session) sendError(err error) error {
	if errors.Is(err, ErrQueueFull) {
		return err
	}
	if e := s.Err(); e != nil {
		return e
	}
	return sessionError(err)
}

func (s *Session) nextID() string {
	return s.prefix + strconv.FormatUint(s.count.Add(1), 36)
}

func randomHex(n int) string {
	b := make([]byte, n)
	_, _ = rand.Read(b)
	return hex.EncodeToString(b)
}

// Request sends a get or set and waits for the reply, matched by id and
// sender. It fills in iq.ID. Without a deadline in ctx, RequestTimeout holds.
// An error reply is returned as *StanzaError.
func (s *Session) Request(ctx context.Context, iq *IQ) (*IQ, error) {
	return s.request(ctx, iq, s.o.RequestTimeout)
}

func (s *Session) request(ctx context.Context, iq *IQ, timeout time.Duration) (*IQ, error) {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, timeout)
		defer cancel()
	}
	iq.ID = s.nextID()
	p := &pendingIQ{to: iq.To.normal(), reply: make(chan *IQ, 1)}
	s.mu.Lock()
	if s.err != nil {
		s.mu.Unlock()
		return nil, fmt.Errorf("iq to %s: %w", iq.To, s.Err())
	}
	s.pending[iq.ID] = p
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.pending, iq.ID)
		s.mu.Unlock()
	}()
	if err := s.Send(iq); err != nil {
		return nil, fmt.Errorf("iq to %s: %w", iq.To, err)
	}
	select {
	case r := <-p.reply:
		if r.Type == "error" {
			return nil, r.Error
		}
		return r, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("iq to %s: no answer: %w", iq.To, ctx.Err())
	case <-s.done:
		return nil, fmt.Errorf("iq to %s: %w", iq.To, s.Err())
	}
}

// Reply answers a received request with a result; payload may be nil.
func (s *Session) Reply(req *IQ, payload any) error {
	return s.Send(&IQ{Type: "result", ID: req.ID, To: req.From, Payload: payload})
}

// ReplyError answers a received request with an error.
func (s *Session) ReplyError(req *IQ, e *StanzaError) error {
	return s.Send(&IQ{Type: "error", ID: req.ID, To: req.From, Error: e})
}

type pingPayload struct {
	XMLName xml.Name `xml:"urn:xmpp:ping ping"`
}

// Ping asks the server for a sign of life (XEP-0199 §4.2). An error reply is
// one, too.
func (s *Session) Ping(ctx context.Context) error {
	_, err := s.Request(ctx, &IQ{Type: "get", To: s.domain(), Payload: pingPayload{}})
	var se *StanzaError
	if errors.As(err, &se) {
		return nil
	}
	return err
}

func (s *Session) domain() JID { return JID{Domain: s.jid.Domain} }

func (s *Session) sinceStart() time.Duration { return time.Since(s.start) }

// watch pings the server after silence, and ends the session after silence
// that follows a ping. It runs on a timer.
func (s *Session) watch() {
	now, last := s.sinceStart(), time.Duration(s.lastIn.Load())
	s.mu.Lock()
	if s.err != nil {
		s.mu.Unlock()
		return
	}
	pinged := s.pinged
	next := s.o.PingTimeout
	send := false
	switch {
	case pinged != 0 && last < pinged:
		s.mu.Unlock()
		s.fail(fmt.Errorf("%w: no answer to a ping within %s", ErrSessionLost, s.o.PingTimeout))
		return
	case now-last < s.o.PingInterval:
		s.pinged = 0
		next = s.o.PingInterval - (now - last)
	default:
		s.pinged, send = now, true
	}
	s.ping.Reset(next)
	s.mu.Unlock()
	if send {
		_ = s.Send(&IQ{Type: "get", ID: s.nextID(), To: s.domain(), Payload: pingPayload{}})
	}
}
