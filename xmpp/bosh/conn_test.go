package bosh

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 10 * time.Second

// manager is a connection manager whose every answer the test gives.
type manager struct {
	t   *testing.T
	srv *httptest.Server
	got chan *post

	mu    sync.Mutex
	open  int // requests without an answer
	most  int
	conns int
}

type post struct {
	t    *testing.T
	rid  uint64
	text string
	attr map[string]string
	room string
	out  chan func(http.ResponseWriter)
}

func newManager(t *testing.T) *manager {
	m := &manager{t: t, got: make(chan *post, 100)}
	m.srv = httptest.NewUnstartedServer(http.HandlerFunc(m.serve))
	m.srv.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			m.mu.Lock()
			m.conns++
			m.mu.Unlock()
		}
	}
	m.srv.Start()
	t.Cleanup(func() {
		m.srv.CloseClientConnections()
		m.srv.Close()
	})
	return m
}

func (m *manager) serve(w http.ResponseWriter, r *http.Request) {
	b, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	p := &post{t: m.t, text: string(b), attr: map[string]string{}, room: r.URL.Query().Get("room"), out: make(chan func(http.ResponseWriter), 1)}
	tok, err := xml.NewDecoder(strings.NewReader(p.text)).Token()
	if start, ok := tok.(xml.StartElement); err == nil && ok {
		for _, a := range start.Attr {
			p.attr[a.Name.Local] = a.Value
		}
	}
	_, _ = fmt.Sscan(p.attr["rid"], &p.rid)
	m.mu.Lock()
	m.open++
	m.most = max(m.most, m.open)
	m.mu.Unlock()
	m.got <- p
	select {
	case f := <-p.out:
		m.mu.Lock()
		m.open--
		m.mu.Unlock()
		f(w)
	case <-r.Context().Done():
	}
}

func (m *manager) next() *post {
	m.t.Helper()
	select {
	case p := <-m.got:
		return p
	case <-time.After(patience):
		m.t.Fatal("no request")
		return nil
	}
}

func (p *post) answer(elements string) { p.answerAttr("", elements) }

func (p *post) answerAttr(attrs, elements string) {
	p.raw(200, "", "<body xmlns='"+nsBOSH+"' xmlns:stream='http://etherx.jabber.org/streams' "+attrs+">"+elements+"</body>")
}

func (p *post) raw(status int, shard, text string) {
	p.out <- func(w http.ResponseWriter) {
		if shard != "" {
			w.Header().Set("X-Jitsi-Shard", shard)
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, text)
	}
}

// drop breaks the connection instead of answering.
func (p *post) drop() {
	p.out <- func(w http.ResponseWriter) {
		if c, _, err := w.(http.Hijacker).Hijack(); err == nil {
			_ = c.Close()
		}
	}
}

// stanzas is what is inside the body.
func (p *post) stanzas() string {
	_, rest, _ := strings.Cut(p.text, ">")
	s, _ := strings.CutSuffix(rest, "</body>")
	return s
}

func options(m *manager) Options {
	return Options{URL: m.srv.URL + "/http-bind?room=standup", Domain: "meet.test", Wait: 60 * time.Second,
		Grace: 10 * time.Second, ShardHeader: "X-Jitsi-Shard", MaxStanza: 1 << 16, QueueSize: 64}
}

// establish creates a session and consumes its features.
func establish(t *testing.T, m *manager, shard string) (*Conn, uint64) {
	t.Helper()
	var rid uint64
	done := make(chan struct{})
	go func() {
		defer close(done)
		p := m.next()
		rid = p.rid
		p.raw(200, shard, "<body xmlns='"+nsBOSH+"' sid='s&amp;1' wait='60' requests='2' inactivity='60'><features/></body>")
	}()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	c, err := Dial(ctx, options(m))
	<-done
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Abort(ErrClosed)
		c.Wait()
	})
	if el, err := c.Recv(); err != nil || string(el.Data) != "<features/>" {
		t.Fatalf("features: %s, %v", el.Data, err)
	}
	c.Established()
	return c, rid
}

func (c *Conn) expect(t *testing.T, want string) {
	t.Helper()
	if el, err := c.Recv(); err != nil || string(el.Data) != want {
		t.Fatalf("received %s, %v; want %s", el.Data, err, want)
	}
}

func send(t *testing.T, c *Conn, s string) {
	t.Helper()
	if err := c.Send([]byte(s)); err != nil {
		t.Fatal(err)
	}
}

func TestOneHeldTwoInFlightInOrder(t *testing.T) {
	t.Parallel()
	m := newManager(t)
	c, first := establish(t, m, "")
	held := m.next()
	if held.rid != first+1 || held.stanzas() != "" || held.attr["sid"] != "s&1" {
		t.Fatalf("poll %s", held.text)
	}
	send(t, c, "<a/>")
	second := m.next()
	if second.rid != first+2 || second.stanzas() != "<a/>" {
		t.Fatalf("second %s", second.text)
	}
	for i := range 5 { // both requests are under way: these wait and go together
		send(t, c, fmt.Sprintf("<b%d/>", i))
	}
	second.answer("<late/>") // overtakes the older one
	held.answer("<early/>")
	c.expect(t, "<early/>")
	c.expect(t, "<late/>")
	third := m.next()
	if third.rid != first+3 || third.stanzas() != "<b0/><b1/><b2/><b3/><b4/>" {
		t.Fatalf("third %s", third.text)
	}
	third.answer("")
	if poll := m.next(); poll.stanzas() != "" || poll.rid != first+4 || poll.room != "standup" {
		t.Fatalf("not held again: %s", poll.text)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.most > 2 || m.conns > 2 {
		t.Errorf("%d requests at once, %d connections", m.most, m.conns)
	}
}

func TestLoginDoesNotPoll(t *testing.T) {
	t.Parallel()
	m := newManager(t)
	go func() { m.next().answerAttr("sid='1' wait='1'", "<features/>") }()
	c, err := Dial(context.Background(), options(m))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Wait()
	defer c.Abort(ErrClosed)
	c.expect(t, "<features/>")
	send(t, c, "<auth/>")
	p := m.next()
	if p.stanzas() != "<auth/>" {
		t.Fatalf("got %s", p.text)
	}
	p.answer("") // not yet: the question stands, so it is held
	p = m.next()
	if p.stanzas() != "" {
		t.Fatalf("got %s", p.text)
	}
	p.answer("<success/>")
	c.expect(t, "<success/>")
	if err := c.Restart(); err != nil {
		t.Fatal(err)
	}
	if p = m.next(); p.attr["restart"] != "true" || p.attr["to"] != "meet.test" || p.stanzas() != "" {
		t.Fatalf("restart %s", p.text)
	}
}

func TestLostAnswerIsFetchedAgain(t *testing.T) {
	t.Parallel()
	m := newManager(t)
	c, _ := establish(t, m, "")
	held := m.next()
	send(t, c, "<a/>")
	p := m.next()
	held.answer("")
	lost := p.text
	p.drop()
	p = m.next()
	if p.text != lost {
		t.Fatalf("asked again with %s, was %s", p.text, lost)
	}
	for _, status := range []int{502, 503, 429} {
		p.raw(status, "", "<html/>")
		if p = m.next(); p.text != lost {
			t.Fatalf("after %d with %s, was %s", status, p.text, lost)
		}
	}
	p.raw(200, "", "<body xmlns='"+nsBOSH+"'><a/><b>") // cut off
	if p = m.next(); p.text != lost {
		t.Fatalf("after half an answer with %s, was %s", p.text, lost)
	}
	p.answer("<result/>")
	c.expect(t, "<result/>")
}

func TestWindowWaitsForTheOldest(t *testing.T) {
	t.Parallel()
	m := newManager(t)
	c, first := establish(t, m, "")
	m.next().drop()
	again := m.next()
	send(t, c, "<a/>")
	m.next().answer("<x/>") // the newer one is answered, the older one still to be fetched
	send(t, c, "<b/>")
	again.answer("<w/>")
	c.expect(t, "<w/>")
	c.expect(t, "<x/>")
	if p := m.next(); p.rid != first+3 {
		t.Fatalf("rid %d", p.rid-first)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.most > 2 {
		t.Errorf("%d requests at once", m.most)
	}
}

// Prosody answers item-not-found when the held request is asked for again
// after a later one was processed, although the session lives.
func TestForgottenPoll(t *testing.T) {
	t.Parallel()
	m := newManager(t)
	c, _ := establish(t, m, "")
	held := m.next()
	send(t, c, "<a/>")
	p := m.next()
	held.drop()
	m.next().answerAttr("type='terminate' condition='item-not-found'", "")
	p.answer("<alive/>")
	c.expect(t, "<alive/>")
	m.next().answerAttr("type='terminate' condition='item-not-found'", "")
	var term *TerminateError
	if _, err := c.Recv(); !errors.As(err, &term) || term.Condition != "item-not-found" {
		t.Fatalf("then %v", err)
	}
}

func TestTerminateOnALaterRequest(t *testing.T) {
	t.Parallel()
	m := newManager(t)
	c, _ := establish(t, m, "")
	m.next() // never answered
	send(t, c, "<a/>")
	m.next().answerAttr("type='terminate' condition='remote-stream-error'", "<stream:error/>")
	c.expect(t, "<stream:error/>")
	var term *TerminateError
	if _, err := c.Recv(); !errors.As(err, &term) || term.Condition != "remote-stream-error" {
		t.Fatalf("ended with %v", err)
	}
	c.Wait()
	if err := c.Send([]byte("<a/>")); !errors.As(err, &term) {
		t.Errorf("Send afterwards: %v", err)
	}
}

func TestEnds(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name string
		do   func(p *post)
		want error
	}{
		{"other shard", func(p *post) { p.raw(200, "shard-2", "<body xmlns='"+nsBOSH+"'/>") }, ErrShardChanged},
		{"other shard's refusal", func(p *post) {
			p.raw(200, "shard-2", "<body xmlns='"+nsBOSH+"' type='terminate' condition='item-not-found'/>")
		}, ErrShardChanged},
		{"other shard's error page", func(p *post) { p.raw(503, "shard-2", "") }, ErrShardChanged},
		{"forbidden", func(p *post) { p.raw(403, "", "") }, ErrLost},
		{"not found", func(p *post) { p.raw(404, "", "") }, ErrLost},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			m := newManager(t)
			c, _ := establish(t, m, "shard-1")
			m.next().raw(200, "", "<body xmlns='"+nsBOSH+"'><ok/></body>") // no header is no change
			c.expect(t, "<ok/>")
			m.next().raw(200, "shard-1", "<body xmlns='"+nsBOSH+"'><ok/></body>")
			c.expect(t, "<ok/>")
			tc.do(m.next())
			if _, err := c.Recv(); !errors.Is(err, tc.want) {
				t.Fatalf("ended with %v", err)
			}
			c.Wait()
			if c.Shard() != "shard-1" {
				t.Errorf("shard %q", c.Shard())
			}
		})
	}
}

func TestInactivityEndsRetries(t *testing.T) {
	t.Parallel()
	m := newManager(t)
	c, _ := establish(t, m, "")
	c.inactivity = 0 // set before the first failure, read by the worker after it
	m.next().raw(502, "", "")
	m.next().raw(502, "", "")
	if _, err := c.Recv(); !errors.Is(err, ErrLost) {
		t.Fatalf("ended with %v", err)
	}
}

func TestDialFails(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name, body string
		status     int
		check      func(error) bool
	}{
		{"refused", "<body xmlns='" + nsBOSH + "' type='terminate' condition='improper-addressing'/>", 200, func(err error) bool {
			var e *TerminateError
			return errors.As(err, &e) && e.Condition == "improper-addressing"
		}},
		{"no sid", "<body xmlns='" + nsBOSH + "'/>", 200, func(err error) bool { return errors.Is(err, errBody) }},
		{"html", "<html><body>hello</body></html>", 200, func(err error) bool { return errors.Is(err, errBody) }},
		{"text", "hello", 200, func(err error) bool { return errors.Is(err, errBody) }},
		{"bad gateway", "", 502, func(err error) bool {
			var e *StatusError
			return errors.As(err, &e) && e.Code == 502
		}},
		{"redirect", "", 302, func(err error) bool {
			var e *StatusError
			return errors.As(err, &e) && e.Code == 302
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			m := newManager(t)
			go func() { m.next().raw(tc.status, "", tc.body) }()
			c, err := Dial(context.Background(), options(m))
			if err == nil || !tc.check(err) {
				t.Errorf("Dial: %v, %v", c, err)
			}
		})
	}
	t.Run("deadline", func(t *testing.T) {
		t.Parallel()
		m := newManager(t)
		ctx, cancel := context.WithCancel(context.Background())
		go func() { m.next(); cancel() }()
		if _, err := Dial(ctx, options(m)); !errors.Is(err, context.Canceled) {
			t.Errorf("Dial: %v", err)
		}
	})
}

func TestCloseSaysGoodbyeInOneBody(t *testing.T) {
	t.Parallel()
	m := newManager(t)
	c, _ := establish(t, m, "")
	held := m.next()
	send(t, c, "<a/>")
	p := m.next()
	send(t, c, "<b/>")
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		c.Close(ctx, []byte("<bye/>"))
	}()
	c.mu.Lock()
	for !c.closing {
		c.work.Wait()
	}
	c.mu.Unlock()
	held.answer("")
	last := m.next()
	if last.attr["type"] != "terminate" || last.stanzas() != "<b/><bye/>" {
		t.Fatalf("last body %s", last.text)
	}
	p.answer("")
	last.answerAttr("type='terminate'", "")
	<-closed
	if _, err := c.Recv(); !errors.Is(err, ErrClosed) {
		t.Errorf("ended with %v", err)
	}
	if err := c.Send([]byte("<a/>")); !errors.Is(err, ErrClosed) {
		t.Errorf("Send afterwards: %v", err)
	}
}

func TestCloseIsBounded(t *testing.T) {
	t.Parallel()
	m := newManager(t)
	c, _ := establish(t, m, "")
	m.next() // never answered
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	c.Close(ctx, []byte("<bye/>"))
	if _, err := c.Recv(); !errors.Is(err, ErrClosed) {
		t.Errorf("ended with %v", err)
	}
}

func TestQueueFull(t *testing.T) {
	t.Parallel()
	m := newManager(t)
	c, _ := establish(t, m, "")
	m.next()
	send(t, c, "<a/>")
	m.next()
	var err error
	n := 0
	for ; n < 1000 && err == nil; n++ {
		err = c.Send([]byte("<b/>"))
	}
	if !errors.Is(err, ErrQueueFull) || n != 65 {
		t.Errorf("after %d: %v", n, err)
	}
}

func TestBigBatchIsSplit(t *testing.T) {
	t.Parallel()
	m := newManager(t)
	c, _ := establish(t, m, "")
	held := m.next()
	send(t, c, "<a/>")
	p := m.next()
	big := "<b>" + strings.Repeat("x", maxBatch*2/3) + "</b>"
	send(t, c, big)
	send(t, c, big)
	held.answer("")
	p.answer("")
	if got := m.next().stanzas(); got != big {
		t.Errorf("%d bytes in one body", len(got))
	}
	if got := m.next().stanzas(); got != big {
		t.Errorf("%d bytes in one body", len(got))
	}
}

func TestQuickPollsAreSpacedOut(t *testing.T) {
	t.Parallel()
	c := &Conn{o: Options{Wait: time.Minute}, rid: 8}
	poll := func(sent time.Time, els int) {
		r := &request{rid: 7, poll: true, sent: sent}
		c.pending = []*request{r}
		c.pace(r, &Body{Elements: make([]splitElement, els)})
	}
	for range 3 {
		poll(time.Now(), 0)
	}
	first := c.pollFrom
	if first.IsZero() {
		t.Fatal("not spaced out")
	}
	poll(time.Now(), 0)
	if !c.pollFrom.After(first) {
		t.Error("not more and more")
	}
	for range 100 {
		poll(time.Now(), 0)
	}
	if d := time.Until(c.pollFrom); d > pollMax {
		t.Errorf("spaced out by %s", d)
	}
	poll(time.Now(), 1)
	if !c.pollFrom.IsZero() {
		t.Error("still spaced out after an element")
	}
}
