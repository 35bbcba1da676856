package xmppd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"time"
)

// What mod_bosh announces (XEP-0124 §7.1): one request is held, two may be open.
const (
	boshHold     = 1
	boshRequests = 2
	boshBuffer   = 16 << 20 // bytes kept for a client that does not fetch them
)

// boshBody is a parsed request.
type boshBody struct {
	e      *element
	sid    string
	rid    int64
	hasRID bool
}

// parseBody reads a request body. On an error the result still has what the
// start tag said.
func parseBody(s string) (b boshBody, err error) {
	r := newXMLReader(strings.NewReader(s), int64(len(s))+1)
	b.e, err = r.start()
	if err != nil {
		return b, err
	}
	if b.e.NS != nsBOSH || b.e.Name != "body" {
		return b, fmt.Errorf("%w: not a body", errXML)
	}
	b.sid = b.e.attr("sid")
	if v, err := strconv.ParseInt(b.e.attr("rid"), 10, 64); err == nil && v >= 0 && v < 1<<53 {
		b.rid, b.hasRID = v, true
	}
	return b, r.content(b.e, 0)
}

// stanzas are the body's children; those in its own namespace are meant to be in
// the client's.
func (b boshBody) stanzas() []*element {
	out := b.e.children()
	for _, c := range out {
		if c.NS == nsBOSH {
			c.remap(nsBOSH, nsClient)
		}
	}
	return out
}

// boshRequest is an HTTP request waiting for its answer.
type boshRequest struct {
	rid  int64
	done chan string // capacity 1; closed without a value when the connection is to be cut
}

// boshSession is a session's transport (mod_bosh).
type boshSession struct {
	s    *Server
	x    *session
	sid  string
	rid  int64 // last accepted
	wait time.Duration

	held     []*boshRequest
	buf      []string
	bufBytes int
	cache    []cachedAnswer // the newest boshHold+1
	deferred *deferred

	creating, processing, terminate, notOpen bool

	waiting, inactive *time.Timer
}

type cachedAnswer struct {
	rid    int64
	answer string
}

// deferred is a request that came one too early.
type deferred struct {
	req       *boshRequest
	rid       int64
	stanzas   []*element
	terminate bool
}

func terminateBody(condition string, streams bool) *element {
	b := el(nsBOSH, "body", "type", "terminate", "condition", condition)
	if streams {
		b.Attrs = append(b.Attrs, attr{"xmlns:stream", nsStream})
	}
	return b
}

// bindRequest serves a request body and waits for its answer; ok is false when
// there is none and the connection has to be closed.
func (s *Server) bindRequest(ctx context.Context, n *network, b boshBody, perr error, q Request, lim *limiter) (answer string, ok bool) {
	req := &boshRequest{rid: b.rid, done: make(chan string, 1)}
	s.mu.Lock()
	if s.down {
		s.mu.Unlock()
		return "", false
	}
	bs := s.handleBody(b, perr, q, req, lim)
	s.mu.Unlock()
	select {
	case answer, ok = <-req.done:
		return answer, ok
	case <-n.ctx.Done():
	case <-ctx.Done():
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if bs != nil {
		bs.forget(req)
	}
	return "", false
}

// handleBody follows mod_bosh's handle_POST and its stream callbacks.
func (s *Server) handleBody(b boshBody, perr error, q Request, req *boshRequest, lim *limiter) *boshSession {
	refuse := func(e *element) *boshSession {
		req.done <- e.encode("", nsClient)
		return nil
	}
	bs := s.bosh[b.sid]
	if perr != nil {
		// Prosody reads as it goes: what was whole before the fault counts, and so
		// does the rid. The answers wait for the next body.
		if bs != nil && b.hasRID && b.rid == bs.rid+1 {
			bs.rid, bs.processing = b.rid, true
			bs.process(b.stanzas())
		}
		if errors.Is(perr, io.EOF) || b.sid != "" && bs == nil { // not a single tag, or nobody's
			return refuse(terminateBody("item-not-found", true))
		}
		return refuse(terminateBody("bad-request", true))
	}
	if b.sid == "" {
		var condition string
		if bs, condition = s.createBOSH(b, q); condition != "" {
			return refuse(terminateBody(condition, true))
		}
		lim.limit()
	}
	if bs == nil {
		return refuse(terminateBody("item-not-found", false))
	}
	if !b.hasRID {
		return refuse(terminateBody("bad-request", true))
	}
	ends := b.e.attr("type") == "terminate"
	stanzas := b.stanzas()

	switch diff := b.rid - bs.rid; {
	case diff == 1:
		bs.rid = b.rid
		bs.terminate = bs.terminate || ends
		bs.held = append(bs.held, req)
		bs.processing = true
		if bs.notOpen {
			bs.notOpen = false
			bs.x.send(bs.x.features())
		}
		bs.process(stanzas)
		if d := bs.deferred; d != nil && !bs.x.closed {
			bs.deferred = nil
			bs.rid = d.rid
			bs.held = append(bs.held, d.req)
			bs.process(d.stanzas)
			bs.terminate = bs.terminate || d.terminate
		}
		bs.processing = false
		bs.flush(false)
	case diff == 2:
		// Prosody keeps one such request; a second one takes its place, and the
		// first is never answered.
		bs.deferred = &deferred{req, b.rid, stanzas, ends}
	default:
		for _, c := range bs.cache {
			if c.rid == b.rid {
				req.done <- c.answer
				return bs
			}
		}
		if diff != 0 {
			return refuse(terminateBody("item-not-found", false))
		}
		bs.held = append(bs.held, req)
	}
	if bs.x.closed {
		return bs
	}
	if len(bs.held) > 0 {
		stop(&bs.inactive)
	}
	stop(&bs.waiting)
	if len(bs.held) > boshHold {
		bs.flush(true)
	} else {
		bs.flush(false)
	}
	if bs.terminate {
		bs.x.close("", "")
		return bs
	}
	bs.arm()
	return bs
}

func (bs *boshSession) process(stanzas []*element) {
	for _, e := range stanzas {
		bs.x.handle(e)
	}
	// A stream that restarts sends its features on the next body: Prosody goes by
	// the login, not by xmpp:restart.
	if l := &bs.x.login; l.done && bs.x.jid.resource == "" && !l.restarted {
		l.restarted, bs.notOpen = true, true
	}
}

func (s *Server) createBOSH(b boshBody, q Request) (*boshSession, string) {
	host := s.hosts[strings.ToLower(b.e.attr("to"))]
	if host == nil {
		return nil, "improper-addressing"
	}
	wait, err := strconv.ParseFloat(b.e.attr("wait"), 64)
	if !b.hasRID || err != nil || wait < 0 || wait != math.Trunc(wait) || math.IsInf(wait, 0) {
		return nil, "bad-request"
	}
	sid := randomUUID()
	bs := &boshSession{
		s: s, sid: sid, rid: b.rid - 1, creating: true, notOpen: true,
		wait: time.Duration(min(wait, s.o.Timing.MaxWait.Seconds()) * float64(time.Second)),
	}
	bs.x = &session{s: s, id: sid, host: host, out: bs, secure: true, web: true,
		token: Token{Token: q.Token, Room: q.Room, Prefix: q.Prefix}}
	s.bosh[sid] = bs
	s.streams[bs.x] = struct{}{}
	return bs, ""
}

// send queues a stanza and answers the oldest request with it.
func (bs *boshSession) send(e *element) {
	t := e.encode(nsBOSH, nsClient)
	bs.buf = append(bs.buf, t)
	if bs.bufBytes += len(t); bs.bufBytes > boshBuffer {
		bs.x.close("resource-constraint", "too much unread")
		return
	}
	bs.flush(false)
}

// flush answers the oldest request with what is queued; always even if that is
// nothing.
func (bs *boshSession) flush(always bool) {
	if len(bs.held) == 0 || bs.processing || len(bs.buf) == 0 && !always {
		return
	}
	req := bs.held[0]
	body := el(nsBOSH, "body", "type", map[bool]string{true: "terminate"}[bs.terminate], "sid", bs.sid)
	body.Attrs = append(body.Attrs, attr{"xmlns:stream", nsStream})
	if bs.creating {
		bs.creating = false
		t := bs.s.o.Timing
		body.Attrs = append(body.Attrs, []attr{
			{"wait", seconds(bs.wait)}, {"requests", strconv.Itoa(boshRequests)}, {"hold", strconv.Itoa(boshHold)},
			{"inactivity", seconds(t.Inactivity)}, {"polling", seconds(t.Polling)}, {"authid", bs.sid},
			{"secure", "true"}, {"ver", "1.6"}, {"from", bs.x.host.Domain}, {"xmlns:xmpp", nsXBOSH}, {"xmpp:version", "1.0"},
		}...)
	}
	answer := strings.TrimSuffix(body.encode("", nsClient), "/>") + ">" + strings.Join(bs.buf, "") + "</body>"
	bs.buf, bs.bufBytes = nil, 0
	bs.cache = append(bs.cache, cachedAnswer{req.rid, answer})
	if len(bs.cache) > boshHold+1 {
		bs.cache = bs.cache[1:]
	}
	bs.held = bs.held[1:]
	req.done <- answer
	bs.released()
}

// seconds is a duration as BOSH writes it, rounded up.
func seconds(d time.Duration) string {
	return strconv.FormatInt(int64((d+time.Second-1)/time.Second), 10)
}

// forget takes a request away whose connection is gone.
func (bs *boshSession) forget(req *boshRequest) {
	for i, r := range bs.held {
		if r == req {
			bs.held = append(bs.held[:i:i], bs.held[i+1:]...)
			bs.released()
			return
		}
	}
	if bs.deferred != nil && bs.deferred.req == req {
		// Prosody would keep the stanzas and process them; so do we, the answer
		// then goes to a connection that is gone.
		return
	}
}

// released starts the inactivity timer when no request is held any more.
func (bs *boshSession) released() {
	stop(&bs.waiting)
	if bs.x.closed || bs.s.down {
		return
	}
	if len(bs.held) > 0 {
		bs.arm()
		return
	}
	stop(&bs.inactive)
	idle := bs.s.o.Timing.Inactivity
	bs.inactive = bs.s.after(idle, func() {
		if bs.x.closed || len(bs.held) > 0 {
			return
		}
		delete(bs.s.bosh, bs.sid)
		bs.x.destroy("BOSH client silent for over " + seconds(idle) + " seconds")
		bs.stopTimers()
	})
}

// arm starts the timer after which the oldest request is answered with nothing.
func (bs *boshSession) arm() {
	stop(&bs.waiting)
	if len(bs.held) == 0 {
		return
	}
	req := bs.held[0]
	bs.waiting = bs.s.after(bs.wait, func() {
		if len(bs.held) > 0 && bs.held[0] == req {
			bs.flush(true)
		}
	})
}

// end answers every held request with a terminate.
func (bs *boshSession) end(condition, text string) {
	b := terminateBody("", true)
	if condition != "" {
		b.set("condition", "remote-stream-error")
		e := el(nsStream, "error").add(el(nsStreams, condition))
		if text != "" {
			e.add(el(nsStreams, "text").add(text))
		}
		b.add(e)
	}
	answer := b.encode("", nsClient)
	for _, r := range bs.held {
		r.done <- answer
	}
	bs.held = nil
	bs.gone()
}

// cut closes the connections of held requests.
func (bs *boshSession) cut() {
	for _, r := range bs.held {
		close(r.done)
	}
	bs.held = nil
	bs.gone()
}

func (bs *boshSession) gone() {
	if d := bs.deferred; d != nil {
		bs.deferred = nil
		close(d.req.done)
	}
	delete(bs.s.bosh, bs.sid)
	bs.stopTimers()
}

func (bs *boshSession) stopTimers() {
	stop(&bs.waiting)
	stop(&bs.inactive)
}

func stop(t **time.Timer) {
	if *t != nil {
		(*t).Stop()
		*t = nil
	}
}
