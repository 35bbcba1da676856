package siptest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"time"
)

// maxWaiting bounds the calls that wait for Await.
const maxWaiting = 1024

// errNoACK says that nobody acknowledged the 200.
var errNoACK = errors.New("siptest: no ACK")

// Party is who a From or To header field names.
type Party struct{ Display, User, Host string }

// Incoming is a call to the phone that waits for its answer. Until one of its
// methods is called the phone says nothing, not even 100.
type Incoming struct {
	From, To    Party
	RequestURI  string
	RequestUser string // user part of the Request-URI, percent-decoded
	Offer       []byte // session description of the INVITE, nil: none

	p         *Phone
	key       string
	invite    *message
	tag       string
	reply     func([]byte)
	src       string
	cancelled chan struct{} // closed by a CANCEL, and when the phone closes
	acked     chan *message // buffered: the ACK of the final response

	mu      sync.Mutex
	last    []byte // what a repeated INVITE gets
	final   int    // code of the final response, 0: none yet
	over    bool   // cancelled is closed
	ignored bool
	copies  int
	media   *media
	sdp     []byte // our answer, once there is one
}

// AnswerOptions say how a call is answered.
type AnswerOptions struct {
	Tone int // Hz the phone "says" from the start, 0: silence
}

// Await returns the next call to the phone. Calls are only kept for it where
// PhoneOptions.Incoming is nil.
func (p *Phone) Await(ctx context.Context) (*Incoming, error) {
	select {
	case in := <-p.waiting:
		return in, nil
	case <-p.ctx.Done():
		return nil, errClosed
	case <-ctx.Done():
		return nil, fmt.Errorf("siptest: nobody called: %w", ctx.Err())
	}
}

// Invites returns how many calls came to the phone, repetitions and refused
// credentials not counted: 0 means that it never rang.
func (p *Phone) Invites() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.invites
}

func inviteKey(m *message) string { return m.get("Call-ID") + " " + branchOf(m) }

// invited takes an INVITE outside of a dialog.
func (p *Phone) invited(m *message, src string, reply func([]byte)) {
	key := inviteKey(m)
	p.mu.Lock()
	if old := p.in[key]; old != nil {
		p.mu.Unlock()
		old.again()
		return
	}
	if p.closed {
		p.mu.Unlock()
		return
	}
	in := &Incoming{
		From: partyOf(m.get("From")), To: partyOf(m.get("To")), p: p, key: key, invite: m, tag: tag(),
		reply: reply, src: src, copies: 1, cancelled: make(chan struct{}), acked: make(chan *message, 1),
	}
	_, uri, _ := strings.Cut(m.start, " ")
	in.RequestURI, _, _ = strings.Cut(uri, " ")
	in.RequestUser = userOf(in.RequestURI)
	if len(m.body) > 0 {
		in.Offer = m.body
	}
	p.in[key] = in
	challenge := p.challenge(m)
	if challenge == "" {
		p.invites++
	}
	p.mu.Unlock()
	switch {
	case challenge != "":
		_ = in.Reject(407, "Proxy Authentication Required", "Proxy-Authenticate: "+challenge)
	case p.o.Incoming != nil:
		p.spawn(func() { p.o.Incoming(in) })
	default:
		select {
		case p.waiting <- in:
		default:
			_ = in.Reject(486, "Busy Here")
		}
	}
}

// again answers a repeated INVITE as before.
func (in *Incoming) again() {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.copies++
	if in.last != nil && !in.ignored {
		in.reply(in.last)
	}
}

// Copies returns how often the INVITE came.
func (in *Incoming) Copies() int {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.copies
}

// Header returns the first value of a header field of the INVITE, or "".
func (in *Incoming) Header(name string) string { return in.invite.get(name) }

// CallID returns the Call-ID.
func (in *Incoming) CallID() string { return in.invite.get("Call-ID") }

// Replaces is the value of a Replaces header field that names the call to the
// caller (RFC 3891).
func (in *Incoming) Replaces() string {
	return in.CallID() + ";to-tag=" + tagOf(in.invite.get("From")) + ";from-tag=" + in.tag
}

// Cancelled is closed when the caller cancels, which the phone has then
// answered with 487, and when the phone is closed.
func (in *Incoming) Cancelled() <-chan struct{} { return in.cancelled }

// Ignore answers nothing from now on, whatever comes of this call.
func (in *Incoming) Ignore() {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.ignored = true
}

// respond sends a response; headers are "Name: value". in.mu is held.
func (in *Incoming) respond(code int, reason string, body []byte, headers ...string) error {
	switch {
	case in.final != 0:
		return fmt.Errorf("siptest: %d after %d", code, in.final)
	case in.over:
		return errClosed
	}
	m := in.invite.respond(code, reason, in.tag)
	if code == 100 {
		m = in.invite.respond(code, reason, "")
	}
	if code > 100 && code < 300 {
		m.add("Contact", in.contact())
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ":")
		m.add(name, strings.TrimSpace(value))
	}
	if body != nil {
		m.add("Content-Type", "application/sdp")
		m.body = body
	}
	in.last = m.bytes()
	if code >= 200 {
		in.final = code
		p, key := in.p, in.key // not the call, with all that it heard
		time.AfterFunc(64*p.o.T1, func() { p.forget(key) })
	}
	if !in.ignored {
		in.reply(in.last)
	}
	return nil
}

func (p *Phone) forget(key string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.in, key)
}

func (in *Incoming) contact() string {
	uri := in.p.URI(url.PathEscape(in.RequestUser))
	return "<" + uri + ">"
}

// Trying sends 100.
func (in *Incoming) Trying() error { return in.provisional(100, "Trying", nil) }

// Ring sends 180.
func (in *Incoming) Ring(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return in.provisional(180, "Ringing", nil)
}

func (in *Incoming) provisional(code int, reason string, body []byte) error {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.respond(code, reason, body)
}

// Early sends 183 with a session description and begins to say a tone.
func (in *Incoming) Early(ctx context.Context, tone int) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	if err := in.describe(tone); err != nil {
		return err
	}
	if err := in.respond(183, "Session Progress", in.sdp); err != nil {
		return err
	}
	in.media.start()
	return nil
}

// RTP returns the counters of early media.
func (in *Incoming) RTP() RTPStats {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.media == nil {
		return RTPStats{}
	}
	return in.media.stats()
}

// describe makes the media and our session description. in.mu is held.
func (in *Incoming) describe(tone int) (err error) {
	if in.over || in.final != 0 {
		return fmt.Errorf("siptest: the call is over (%d)", in.final)
	}
	if in.media != nil {
		in.media.say(tone, nil, false)
		return nil
	}
	md, err := newMedia(in.p.o, tone)
	if err != nil {
		return err
	}
	if in.Offer == nil {
		in.sdp = md.offer("sendrecv")
	} else if in.sdp, err = md.answer(in.Offer, "sendrecv"); err != nil {
		md.close()
		return fmt.Errorf("siptest: session description of the INVITE: %w", err)
	}
	in.media = md
	return nil
}

// Reject sends a final response other than 2xx, with header fields "Name:
// value", and repeats it until its ACK comes.
func (in *Incoming) Reject(code int, reason string, headers ...string) error {
	if code < 300 || code > 699 {
		return fmt.Errorf("siptest: cannot reject with %d", code)
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.refuse(code, reason, headers...)
}

// refuse is Reject; in.mu is held.
func (in *Incoming) refuse(code int, reason string, headers ...string) error {
	if err := in.respond(code, reason, nil, headers...); err != nil {
		return err
	}
	if md := in.media; md != nil {
		in.media = nil
		md.close()
	}
	if in.p.udp != nil {
		in.p.spawn(func() { _, _ = in.repeat(context.Background()) })
	}
	return nil
}

// repeat repeats the final response until the ACK comes.
func (in *Incoming) repeat(ctx context.Context) (*message, error) {
	interval := in.p.o.T1
	resend, limit := time.NewTimer(interval), time.NewTimer(64*in.p.o.T1)
	defer resend.Stop()
	defer limit.Stop()
	for {
		select {
		case m := <-in.acked:
			return m, nil
		case <-resend.C:
			in.mu.Lock()
			if !in.ignored {
				in.reply(in.last)
			}
			in.mu.Unlock()
			interval = min(2*interval, 8*in.p.o.T1)
			resend.Reset(interval)
		case <-limit.C:
			return nil, errNoACK
		case <-in.p.ctx.Done():
			return nil, errClosed
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// Answer sends 200, repeats it until the ACK comes, and returns the call.
// After Early the media go on.
func (in *Incoming) Answer(ctx context.Context, o AnswerOptions) (*Call, error) {
	in.mu.Lock()
	if err := in.describe(o.Tone); err != nil {
		in.mu.Unlock()
		return nil, err
	}
	if err := in.respond(200, "OK", in.sdp); err != nil {
		in.mu.Unlock()
		return nil, err
	}
	c := in.call()
	in.media = nil // the call's
	in.mu.Unlock()
	c.media.start()
	ack, err := in.repeat(ctx)
	if err == nil && in.Offer == nil {
		err = c.media.accept(ack.body)
	}
	if err != nil {
		c.end(EndInfo{Err: err})
		return nil, err
	}
	return c, nil
}

// call makes the call and has the phone know it. in.mu is held.
func (in *Incoming) call() *Call {
	m := in.invite
	c := &Call{
		p: in.p, addr: in.src, invite: m, callID: m.get("Call-ID"), tag: in.tag, media: in.media,
		from: m.get("To") + ";tag=" + in.tag, to: m.get("From"), contact: in.contact(),
		target: uriOf(m.get("Contact")), routes: m.all("Record-Route"), headers: m.headers(),
		over: make(chan struct{}), ended: make(chan EndInfo, 1), changed: make(chan struct{}, 1), ack: map[int]func(){},
	}
	c.onACK = func(ack *message) {
		if ack.seq() == m.seq() {
			in.confirm(ack)
		}
	}
	a := &Attempt{call: c, done: make(chan struct{})}
	close(a.done)
	in.p.mu.Lock()
	defer in.p.mu.Unlock()
	in.p.calls[c.callID] = a
	return c
}

// confirm takes the ACK of the final response.
func (in *Incoming) confirm(ack *message) {
	select {
	case in.acked <- ack:
	default: // a repetition
	}
}

// cancel takes a CANCEL.
func (in *Incoming) cancel(m *message, reply func([]byte)) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.ignored {
		return
	}
	reply(m.respond(200, "OK", in.tag).bytes())
	if in.final == 0 && !in.over {
		_ = in.refuse(487, "Request Terminated")
		in.over = true
		close(in.cancelled)
	}
}

// close frees what the call took; the phone is closed.
func (in *Incoming) close() {
	in.mu.Lock()
	md := in.media
	in.media = nil
	if !in.over {
		in.over = true
		close(in.cancelled)
	}
	in.mu.Unlock()
	if md != nil {
		md.close()
	}
}

// challenge returns the challenge an INVITE gets, "" if it may ring. p.mu is
// held.
func (p *Phone) challenge(m *message) string {
	if p.o.Username == "" {
		return ""
	}
	call := m.get("Call-ID")
	nonce := p.nonces[call]
	if nonce != "" && authorized(p.o, m, nonce) {
		return ""
	}
	nonce = rand.Text()
	p.nonces[call] = nonce
	return fmt.Sprintf(`Digest realm="%s", nonce="%s", algorithm=%s, qop="auth"`, realm, nonce, p.o.Algorithm)
}

func partyOf(v string) Party {
	uri := uriOf(v)
	display, _, named := strings.Cut(v, "<")
	if !named {
		display = ""
	}
	p := Party{Display: strings.Trim(strings.TrimSpace(display), `"`), User: userOf(uri)}
	_, rest, _ := strings.Cut(uri, ":")
	if i := strings.LastIndexByte(rest, '@'); i >= 0 {
		rest = rest[i+1:]
	}
	rest, _, _ = strings.Cut(rest, ";")
	if i := strings.LastIndexByte(rest, ':'); i >= 0 && !strings.HasSuffix(rest, "]") {
		rest = rest[:i]
	}
	p.Host = strings.Trim(rest, "[]")
	return p
}

// userOf returns the user part of a URI, percent-decoded.
func userOf(uri string) string {
	_, rest, _ := strings.Cut(uri, ":")
	user, _, ok := strings.Cut(rest, "@")
	if !ok {
		return ""
	}
	if d, err := url.PathUnescape(user); err == nil {
		return d
	}
	return user
}
