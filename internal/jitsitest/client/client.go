// Package client is a small XMPP client over BOSH (XEP-0124, XEP-0206) for
// tests: enough of a browser to sit in a Jitsi room. It hands stanzas over as
// text.
package client

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"
)

// Options of Dial.
type Options struct {
	URL                string // BOSH service, without a query
	Room, Token        string // ?room= and ?token= of every request
	Query              url.Values
	Domain             string // stream "to"
	Username, Password string // both empty: ANONYMOUS, else PLAIN
	Resource           string
	Wait               int // seconds, default 60
	// Handler gets every stanza that is no answer to a Request, in order, on one
	// goroutine. It must not wait for a reply.
	Handler func(Stanza)
}

// Stanza is a received stanza.
type Stanza struct {
	Name, From, To, ID, Type string
	XML                      string // all of it
}

// Errors of a client.
var (
	ErrClosed     = errors.New("bosh session closed")
	ErrTerminated = errors.New("bosh session terminated by the server")
	ErrAuth       = errors.New("login refused")
)

// Client is a bound session.
type Client struct {
	o     Options
	url   string
	http  *http.Client
	jid   string
	shard string
	sid   string

	mu       sync.Mutex
	rid      int64
	queue    []string
	inFlight int
	answers  map[int64]*body // arrived out of order
	next     int64           // rid whose answer is handled next
	waiting  map[string]chan Stanza
	seq      int
	err      error
	closing  bool
	last     bool // the terminate was sent
	wake     chan struct{}
	done     chan struct{}
	inbox    []*body // in order, not handed over yet
	news     chan struct{}
	cancel   context.CancelFunc
	ctx      context.Context
	wg       sync.WaitGroup
}

type body struct {
	typ, condition, sid string
	stanzas             []Stanza
}

// Dial logs in and binds.
func Dial(ctx context.Context, o Options) (*Client, error) {
	if o.Wait == 0 {
		o.Wait = 60
	}
	q := url.Values{}
	for k, v := range o.Query {
		q[k] = v
	}
	if o.Room != "" {
		q.Set("room", o.Room)
	}
	if o.Token != "" {
		q.Set("token", o.Token)
	}
	u := o.URL
	if len(q) > 0 {
		u += "?" + q.Encode()
	}
	c := &Client{o: o, url: u, http: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 2, IdleConnTimeout: 90 * time.Second}},
		rid: rand.Int64N(1 << 31), answers: map[int64]*body{}, waiting: map[string]chan Stanza{},
		wake: make(chan struct{}, 1), done: make(chan struct{}), news: make(chan struct{}, 1)}
	if err := c.login(ctx); err != nil {
		c.http.CloseIdleConnections()
		return nil, fmt.Errorf("bosh %s: %w", o.URL, err)
	}
	c.next = c.rid + 1
	c.ctx, c.cancel = context.WithCancel(context.Background())
	c.wg.Add(2)
	go c.pump()
	go c.dispatch()
	return c, nil
}

// JID is the full JID that the server gave.
func (c *Client) JID() string { return c.jid }

// Shard is the X-Jitsi-Shard of the session's creation.
func (c *Client) Shard() string { return c.shard }

// Done is closed when the session is over.
func (c *Client) Done() <-chan struct{} { return c.done }

// Err says why, nil before.
func (c *Client) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

func (c *Client) login(ctx context.Context) error {
	c.rid++
	b, err := c.post(ctx, fmt.Sprintf(`<body xmlns='http://jabber.org/protocol/httpbind' xmlns:xmpp='urn:xmpp:xbosh' rid='%d' to='%s' `+
		`wait='%d' hold='1' ver='1.6' content='text/xml; charset=utf-8' xml:lang='en' xmpp:version='1.0'/>`, c.rid, c.o.Domain, c.o.Wait), true)
	if err != nil {
		return err
	}
	if c.sid = b.sid; c.sid == "" || b.typ == "terminate" {
		return fmt.Errorf("%w: %s", ErrTerminated, b.condition)
	}
	auth := `<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='ANONYMOUS'/>`
	if c.o.Username != "" {
		auth = `<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>` +
			base64.StdEncoding.EncodeToString([]byte("\x00"+c.o.Username+"\x00"+c.o.Password)) + `</auth>`
	}
	if b, err = c.step(ctx, auth, ""); err != nil {
		return err
	}
	if len(b.stanzas) == 0 || b.stanzas[0].Name != "success" {
		return fmt.Errorf("%w: %+v", ErrAuth, b.stanzas)
	}
	if _, err = c.step(ctx, "", fmt.Sprintf(" to='%s' xmpp:restart='true' xmlns:xmpp='urn:xmpp:xbosh'", c.o.Domain)); err != nil {
		return err
	}
	res := ""
	if c.o.Resource != "" {
		res = "<resource>" + c.o.Resource + "</resource>"
	}
	b, err = c.step(ctx, `<iq xmlns='jabber:client' type='set' id='bind'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'>`+res+`</bind></iq>`, "")
	for tries := 0; err == nil && tries < 3; tries++ {
		for _, s := range b.stanzas {
			if s.ID != "bind" {
				continue
			}
			if _, t, ok := strings.Cut(s.XML, "<jid>"); ok {
				c.jid, _, _ = strings.Cut(t, "</jid>")
				return nil
			}
			return fmt.Errorf("bind: %s", s.XML)
		}
		b, err = c.step(ctx, "", "")
	}
	if err == nil {
		err = errors.New("no answer to bind")
	}
	return err
}

func (c *Client) step(ctx context.Context, payload, attrs string) (*body, error) {
	c.rid++
	b, err := c.post(ctx, c.body(c.rid, payload, attrs), false)
	if err == nil && b.typ == "terminate" {
		err = fmt.Errorf("%w: %s", ErrTerminated, b.condition)
	}
	return b, err
}

func (c *Client) body(rid int64, payload, attrs string) string {
	return fmt.Sprintf("<body xmlns='http://jabber.org/protocol/httpbind' rid='%d' sid='%s'%s>%s</body>", rid, c.sid, attrs, payload)
}

// post sends a body; it repeats what failed on the way, as the server keeps its
// last answers.
func (c *Client) post(ctx context.Context, text string, first bool) (*body, error) {
	for try := 0; ; try++ {
		b, err := c.postOnce(ctx, text, first)
		if err == nil || try == 3 || ctx.Err() != nil {
			return b, err
		}
		select {
		case <-time.After(time.Duration(try+1) * 30 * time.Millisecond):
		case <-ctx.Done():
		}
	}
}

func (c *Client) postOnce(ctx context.Context, text string, first bool) (*body, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url, strings.NewReader(text))
	if err != nil {
		return nil, err
	}
	r.Header.Set("Content-Type", "text/xml; charset=utf-8")
	resp, err := c.http.Do(r)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	data, err := io.ReadAll(io.LimitReader(resp.Body, 16<<20))
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("http status %d", resp.StatusCode)
	}
	if first {
		c.shard = resp.Header.Get("X-Jitsi-Shard")
	}
	return parseBody(data)
}

func parseBody(data []byte) (*body, error) {
	d := xml.NewDecoder(bytes.NewReader(data))
	b := &body{}
	depth, from := 0, int64(0)
	var s Stanza
	for {
		before := d.InputOffset()
		t, err := d.Token()
		if err == io.EOF && depth == 0 {
			return b, nil
		}
		if err != nil {
			return nil, err
		}
		switch t := t.(type) {
		case xml.StartElement:
			switch depth {
			case 0:
				for _, a := range t.Attr {
					switch a.Name.Local {
					case "type":
						b.typ = a.Value
					case "condition":
						b.condition = a.Value
					case "sid":
						b.sid = a.Value
					}
				}
			case 1:
				s, from = Stanza{Name: t.Name.Local}, before
				for _, a := range t.Attr {
					switch a.Name.Local {
					case "from":
						s.From = a.Value
					case "to":
						s.To = a.Value
					case "id":
						s.ID = a.Value
					case "type":
						s.Type = a.Value
					}
				}
			}
			depth++
		case xml.EndElement:
			if depth--; depth == 1 {
				s.XML = string(data[from:d.InputOffset()])
				b.stanzas = append(b.stanzas, s)
			}
		}
	}
}

// pump keeps a request open and sends what is queued, at most two at a time.
func (c *Client) pump() {
	defer c.wg.Done()
	for {
		c.mu.Lock()
		if c.err != nil {
			c.mu.Unlock()
			return
		}
		if !c.last && (c.inFlight == 0 || c.inFlight < 2 && (len(c.queue) > 0 || c.closing)) {
			attrs := ""
			if c.closing {
				attrs, c.last = " type='terminate'", true
			}
			c.rid++
			rid, text := c.rid, c.body(c.rid, strings.Join(c.queue, ""), attrs)
			c.queue = nil
			c.inFlight++
			c.wg.Add(1)
			go c.exchange(rid, text)
		}
		c.mu.Unlock()
		select {
		case <-c.wake:
		case <-c.ctx.Done():
			c.end(ErrClosed)
			return
		}
	}
}

func (c *Client) exchange(rid int64, text string) {
	defer c.wg.Done()
	b, err := c.post(c.ctx, text, false)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.inFlight--
	c.poke()
	if err != nil {
		c.endLocked(err)
		return
	}
	c.answers[rid] = b
	for c.answers[c.next] != nil {
		c.inbox = append(c.inbox, c.answers[c.next])
		delete(c.answers, c.next)
		c.next++
	}
	select {
	case c.news <- struct{}{}:
	default:
	}
	if b.typ == "terminate" {
		c.endLocked(fmt.Errorf("%w: %s", ErrTerminated, b.condition))
	}
}

func (c *Client) poke() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

func (c *Client) end(err error) {
	c.mu.Lock()
	c.endLocked(err)
	c.mu.Unlock()
}

func (c *Client) endLocked(err error) {
	if c.err != nil {
		return
	}
	if c.closing {
		err = ErrClosed
	}
	c.err = err
	close(c.done)
	c.poke()
}

// dispatch hands stanzas over in order.
func (c *Client) dispatch() {
	defer c.wg.Done()
	for {
		c.mu.Lock()
		var b *body
		if len(c.inbox) > 0 {
			b, c.inbox = c.inbox[0], c.inbox[1:]
		}
		over := c.err != nil
		c.mu.Unlock()
		if b == nil {
			if over {
				return
			}
			select {
			case <-c.news:
			case <-c.done:
			}
			continue
		}
		for _, s := range b.stanzas {
			c.mu.Lock()
			ch := c.waiting[s.ID]
			if s.Name != "iq" || s.Type != "result" && s.Type != "error" {
				ch = nil
			}
			delete(c.waiting, s.ID)
			c.mu.Unlock()
			if ch != nil {
				ch <- s
			} else if c.o.Handler != nil {
				c.o.Handler(s)
			}
		}
	}
}

// Send queues a stanza, given as XML with xmlns='jabber:client'.
func (c *Client) Send(stanza string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return c.err
	}
	if c.closing {
		return ErrClosed
	}
	c.queue = append(c.queue, stanza)
	c.poke()
	return nil
}

// Request sends an IQ and waits for its answer, which may be an error stanza.
func (c *Client) Request(ctx context.Context, typ, to, payload string) (Stanza, error) {
	ch := make(chan Stanza, 1)
	c.mu.Lock()
	c.seq++
	id := fmt.Sprintf("q%d", c.seq)
	c.waiting[id] = ch
	c.mu.Unlock()
	addr := ""
	if to != "" {
		addr = " to='" + to + "'"
	}
	if err := c.Send("<iq xmlns='jabber:client' type='" + typ + "' id='" + id + "'" + addr + ">" + payload + "</iq>"); err != nil {
		return Stanza{}, err
	}
	select {
	case s := <-ch:
		return s, nil
	case <-c.done:
		return Stanza{}, c.Err()
	case <-ctx.Done():
		c.mu.Lock()
		delete(c.waiting, id)
		c.mu.Unlock()
		return Stanza{}, ctx.Err()
	}
}

// Close ends the session in order, within two seconds.
func (c *Client) Close() error {
	c.mu.Lock()
	c.closing = true
	c.poke()
	c.mu.Unlock()
	t := time.NewTimer(2 * time.Second)
	defer t.Stop()
	select {
	case <-c.done:
	case <-t.C:
	}
	c.Drop()
	return nil
}

// Drop goes away without a word.
func (c *Client) Drop() {
	c.cancel()
	c.end(ErrClosed)
	c.wg.Wait()
	c.http.CloseIdleConnections()
}
