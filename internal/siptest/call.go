package siptest

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"brewline/internal/tone"
)

// CallOptions describe one call.
type CallOptions struct {
	URI       string            // "sip:user@host:port"
	To        string            // URI of To, "": URI
	Headers   map[string]string // further header fields of the INVITE
	LateOffer bool              // no SDP in the INVITE
	Tone      int               // Hz the phone "says" from the start, 0: silence
	NoACK     bool              // never acknowledge the 200
	Reliable  bool              // require reliable provisional responses (RFC 3262)
}

// StatusError is a final response other than 2xx.
type StatusError struct {
	Code        int
	Reason      string            // reason phrase
	Headers     map[string]string // first value of each
	Provisional []int
}

// Error implements error.
func (e *StatusError) Error() string { return fmt.Sprintf("%d %s", e.Code, e.Reason) }

// EndInfo tells how a call ended.
type EndInfo struct {
	ByPeer bool   // BYE came from the other side
	Reason string // value of its Reason header field
	Err    error
}

// Attempt is a call on its way.
type Attempt struct {
	call *Call
	done chan struct{} // closed at the end of the attempt
	err  error
}

// Call is an answered call.
type Call struct {
	p       *Phone
	o       CallOptions
	addr    string // where the INVITE went
	invite  *message
	branch  string
	callID  string
	tag     string
	from    string // From of our requests
	contact string // our Contact
	media   *media
	onACK   func(*message) // nil: of no interest
	end1    sync.Once
	over    chan struct{}
	ended   chan EndInfo
	changed chan struct{} // buffered: a provisional response came

	mu      sync.Mutex
	seq     int
	to      string // To with the peer's tag
	target  string
	routes  []string
	codes   []int
	finals  int
	headers map[string]string
	ack     map[int]func()
	told    []string // bodies of NOTIFY
	rseq    string   // of the last reliable provisional response
	early   bool     // one had the peer's answer
	again   int      // CSeq of the last re-INVITE that came
	answer  []byte   // what it got
	offers  int      // re-INVITEs that came
}

// Call calls and returns at the final response: a *Call, or a *StatusError.
// When ctx ends first the call is cancelled.
func (p *Phone) Call(ctx context.Context, o CallOptions) (*Call, error) {
	a, err := p.Start(ctx, o)
	if err != nil {
		return nil, err
	}
	return a.Wait(ctx)
}

// Start is Call without the waiting. The attempt outlives ctx.
func (p *Phone) Start(ctx context.Context, o CallOptions) (*Attempt, error) {
	addr, err := hostPort(o.URI)
	if err != nil {
		return nil, err
	}
	_, local, err := p.connect(ctx, addr)
	if err != nil {
		return nil, fmt.Errorf("siptest: connect: %w", err)
	}
	md, err := newMedia(p.o, o.Tone)
	if err != nil {
		return nil, err
	}
	c := &Call{p: p, o: o, addr: addr, branch: newBranch(), callID: rand.Text(), tag: tag(), media: md, seq: 1,
		over: make(chan struct{}), ended: make(chan EndInfo, 1), changed: make(chan struct{}, 1), ack: map[int]func(){}}
	req := &message{start: "INVITE " + o.URI + " SIP/2.0"}
	req.add("Max-Forwards", "70")
	c.from = fmt.Sprintf("<sip:%s@%s>;tag=%s", p.o.User, local, c.tag)
	if p.o.Display != "" {
		c.from = `"` + p.o.Display + `" ` + c.from
	}
	req.add("From", c.from)
	req.add("To", "<"+cmp.Or(o.To, o.URI)+">")
	req.add("Call-ID", c.callID)
	req.add("CSeq", "1 INVITE")
	c.contact = fmt.Sprintf("<sip:%s@%s>", p.o.User, local)
	if p.udp == nil {
		c.contact = fmt.Sprintf("<sip:%s@%s;transport=tcp>", p.o.User, local)
	}
	req.add("Contact", c.contact)
	req.add("Allow", "INVITE, ACK, BYE, CANCEL, OPTIONS, INFO")
	for k, v := range o.Headers {
		req.add(k, v)
	}
	if o.Reliable {
		req.add("Require", "100rel")
	}
	if !o.LateOffer {
		req.add("Content-Type", "application/sdp")
		req.body = md.offer("sendrecv")
	}
	c.invite = req
	c.to, c.target = "<"+o.URI+">", o.URI
	a := &Attempt{call: c, done: make(chan struct{})}
	p.mu.Lock()
	p.calls[c.callID] = a
	p.mu.Unlock()
	if !p.spawn(func() { a.run() }) {
		md.close()
		return nil, errClosed
	}
	return a, nil
}

// run is the INVITE transaction, up to the ACK.
func (a *Attempt) run() {
	c := a.call
	defer close(a.done)
	fail := func(err error) {
		a.err = err
		c.end(EndInfo{Err: err})
	}
	m, err := c.p.roundTrip(c.p.ctx, c.addr, c.invite, c.branch, c.provisional)
	if err != nil {
		fail(err)
		return
	}
	code := m.status()
	if code >= 300 {
		ack := c.derive("ACK", m.get("To"))
		c.keepACK(1, c.addr, ack)
		_, phrase, _ := strings.Cut(strings.TrimPrefix(m.start, "SIP/2.0 "), " ")
		fail(&StatusError{Code: code, Reason: phrase, Headers: m.headers(), Provisional: c.Provisionals()})
		return
	}
	c.mu.Lock()
	c.to, c.headers = m.get("To"), m.headers()
	c.target = uriOf(m.get("Contact"))
	rr := m.all("Record-Route")
	for i := len(rr) - 1; i >= 0; i-- {
		c.routes = append(c.routes, rr[i])
	}
	c.mu.Unlock()
	var body []byte
	switch {
	case c.o.LateOffer:
		body, err = c.media.answer(m.body, "sendrecv")
	case !c.early || len(m.body) > 0:
		err = c.media.accept(m.body)
	}
	if err != nil {
		fail(fmt.Errorf("siptest: session description in the 200: %w", err))
		return
	}
	if !c.o.NoACK {
		if err := c.sendACK(1, body); err != nil {
			fail(err)
			return
		}
	}
	c.media.start()
}

// provisional takes a provisional response: what the peer's answer in it leads
// to is heard, and what is reliable confirmed.
func (c *Call) provisional(m *message) {
	rseq := m.get("RSeq")
	c.mu.Lock()
	again := rseq != "" && rseq == c.rseq
	if !again {
		c.codes = append(c.codes, m.status())
	}
	if m.status() > 100 {
		c.rseq, c.to, c.target = rseq, m.get("To"), uriOf(m.get("Contact"))
	}
	first := len(m.body) > 0 && !c.o.LateOffer && !c.early
	c.early = c.early || first
	c.mu.Unlock()
	if first && c.media.accept(m.body) == nil {
		c.media.start()
	}
	if rseq != "" && !again {
		c.p.spawn(func() {
			_, _ = c.do(c.p.ctx, "PRACK", c.nextSeq(), map[string]string{"RAck": rseq + " 1 INVITE"}, "", nil)
		})
	}
	c.wake()
}

func (c *Call) wake() {
	select {
	case c.changed <- struct{}{}:
	default:
	}
}

// Provisionals returns the codes of the provisional responses in order.
func (c *Call) Provisionals() []int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]int(nil), c.codes...)
}

// Header returns the first value of a header field of the 200, of a call to
// the phone of the INVITE.
func (c *Call) Header(name string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	for k, v := range c.headers {
		if canon(k) == canon(name) {
			return v
		}
	}
	return ""
}

// Finals returns how many final responses to INVITEs came, repetitions counted.
func (c *Call) Finals() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.finals
}

// ID returns the Call-ID.
func (c *Call) ID() string { return c.callID }

// Call returns the call that is on its way; before Wait it can hear early media.
func (a *Attempt) Call() *Call { return a.call }

// Wait returns what Call would return. When ctx ends first the call is
// cancelled, and hung up if the answer crosses that.
func (a *Attempt) Wait(ctx context.Context) (*Call, error) {
	select {
	case <-a.done:
	case <-ctx.Done():
		_ = a.Cancel()
		a.call.p.spawn(func() {
			<-a.done
			if a.err == nil {
				_ = a.call.Hangup(a.call.p.ctx)
			}
		})
		return nil, ctx.Err()
	}
	if a.err != nil {
		return nil, a.err
	}
	return a.call, nil
}

// Provisional waits until a provisional response of that code has come.
func (a *Attempt) Provisional(ctx context.Context, code int) error {
	for {
		for _, got := range a.call.Provisionals() {
			if got == code {
				return nil
			}
		}
		select {
		case <-a.call.changed:
		case <-a.done:
			return fmt.Errorf("siptest: the attempt ended without %d: %v", code, a.err)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Cancel sends CANCEL and waits for its answer.
func (a *Attempt) Cancel() error {
	c := a.call
	req := c.derive("CANCEL", c.invite.get("To"))
	req.fields = req.fields[1:] // roundTrip adds the same Via
	m, err := c.p.roundTrip(c.p.ctx, c.addr, req, c.branch, nil)
	if err != nil {
		return err
	}
	if m.status() != 200 {
		return &StatusError{Code: m.status(), Headers: m.headers()}
	}
	return nil
}

// derive makes the ACK of a failure, or a CANCEL: the INVITE's own Via.
func (c *Call) derive(method, to string) *message {
	_, uri, _ := strings.Cut(c.invite.start, " ")
	m := &message{start: method + " " + uri}
	m.add("Via", c.viaOfInvite())
	m.add("Max-Forwards", "70")
	m.add("From", c.invite.get("From"))
	m.add("To", to)
	m.add("Call-ID", c.callID)
	m.add("CSeq", "1 "+method)
	return m
}

func (c *Call) viaOfInvite() string {
	_, local, err := c.p.connect(c.p.ctx, c.addr)
	if err != nil {
		local = c.p.o.Bind
	}
	return c.p.via(local, c.branch)
}

// request makes a request within the dialog, without Via.
func (c *Call) newRequest(method string, seq int) (*message, string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	m := &message{start: fmt.Sprintf("%s %s SIP/2.0", method, c.target)}
	m.add("Max-Forwards", "70")
	m.add("From", c.from)
	m.add("To", c.to)
	m.add("Call-ID", c.callID)
	m.add("CSeq", fmt.Sprintf("%d %s", seq, method))
	hop := c.target
	for i, r := range c.routes {
		m.add("Route", r)
		if i == 0 {
			hop = uriOf(r)
		}
	}
	addr, err := hostPort(hop)
	if err != nil {
		addr = c.addr
	}
	return m, addr
}

func (c *Call) nextSeq() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.seq++
	return c.seq
}

// sendACK confirms a 2xx, and again whenever it is repeated.
func (c *Call) sendACK(seq int, body []byte) error {
	req, addr := c.newRequest("ACK", seq)
	send, local, err := c.p.connect(c.p.ctx, addr)
	if err != nil {
		return err
	}
	req.fields = append([]field{{"Via", c.p.via(local, newBranch())}}, req.fields...)
	if body != nil {
		req.add("Content-Type", "application/sdp")
		req.body = body
	}
	b := req.bytes()
	c.setACK(seq, func() { _ = send(b) })
	return send(b)
}

// keepACK sends the ACK of a failure, and again whenever that is repeated.
func (c *Call) keepACK(seq int, addr string, ack *message) {
	send, _, err := c.p.connect(c.p.ctx, addr)
	if err != nil {
		return
	}
	b := ack.bytes()
	c.setACK(seq, func() { _ = send(b) })
	_ = send(b)
}

func (c *Call) setACK(seq int, f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ack[seq] = f
}

// finalAgain sees every final response to an INVITE; a repeated one gets the
// ACK again.
func (c *Call) finalAgain(m *message) {
	c.mu.Lock()
	c.finals++
	f := c.ack[m.seq()]
	c.mu.Unlock()
	if f != nil {
		f()
	}
}

// do sends a request within the dialog and returns an error for a final
// response other than 2xx.
func (c *Call) do(ctx context.Context, method string, seq int, headers map[string]string, ctype string, body []byte) (*message, error) {
	req, addr := c.newRequest(method, seq)
	for k, v := range headers {
		req.add(k, v)
	}
	if method == "INVITE" {
		req.add("Contact", c.contact)
	}
	if body != nil {
		req.add("Content-Type", ctype)
		req.body = body
	}
	m, err := c.p.roundTrip(ctx, addr, req, newBranch(), nil)
	if err != nil {
		return nil, fmt.Errorf("siptest: %s: %w", method, err)
	}
	if m.status() >= 300 {
		_, phrase, _ := strings.Cut(strings.TrimPrefix(m.start, "SIP/2.0 "), " ")
		if method == "INVITE" {
			// The ACK of a failure has the INVITE's Via and request URI.
			ack := &message{start: strings.Replace(req.start, "INVITE", "ACK", 1)}
			for _, f := range []string{"Via", "Max-Forwards", "From", "Call-ID", "Route"} {
				for _, v := range req.all(f) {
					ack.add(f, v)
				}
			}
			ack.add("To", m.get("To"))
			ack.add("CSeq", fmt.Sprintf("%d ACK", seq))
			c.keepACK(seq, addr, ack)
		}
		return nil, &StatusError{Code: m.status(), Reason: phrase, Headers: m.headers()}
	}
	return m, nil
}

// Reinvite offers the media again with a direction, "sendrecv", "sendonly",
// "recvonly" or "inactive", and with the session timer that the INVITE asked for.
func (c *Call) Reinvite(ctx context.Context, direction string) error {
	seq := c.nextSeq()
	timer := map[string]string{}
	for _, name := range []string{"Supported", "Session-Expires"} {
		if v := c.o.Headers[name]; v != "" {
			timer[name] = v
		}
	}
	m, err := c.do(ctx, "INVITE", seq, timer, "application/sdp", c.media.offer(direction))
	if err != nil {
		return err
	}
	if err := c.media.accept(m.body); err != nil {
		return err
	}
	return c.sendACK(seq, nil)
}

// Update is Reinvite by UPDATE, which a call may have before it is answered.
func (c *Call) Update(ctx context.Context, direction string) error {
	m, err := c.do(ctx, "UPDATE", c.nextSeq(), map[string]string{"Contact": c.contact}, "application/sdp", c.media.offer(direction))
	if err != nil {
		return err
	}
	return c.media.accept(m.body)
}

// ReinviteLate sends a re-INVITE without an offer and answers the peer's.
func (c *Call) ReinviteLate(ctx context.Context) error {
	seq := c.nextSeq()
	m, err := c.do(ctx, "INVITE", seq, nil, "", nil)
	if err != nil {
		return err
	}
	body, err := c.media.answer(m.body, "sendrecv")
	if err != nil {
		return err
	}
	return c.sendACK(seq, body)
}

// Hold puts the peer on hold by re-INVITE with a=sendonly.
func (c *Call) Hold(ctx context.Context) error { return c.Reinvite(ctx, "sendonly") }

// Resume takes the peer off hold.
func (c *Call) Resume(ctx context.Context) error { return c.Reinvite(ctx, "sendrecv") }

// Info sends an INFO request.
func (c *Call) Info(ctx context.Context, contentType string, body []byte) error {
	_, err := c.do(ctx, "INFO", c.nextSeq(), nil, contentType, body)
	return err
}

// Refer sends REFER with a Refer-To header field and waits for its answer.
func (c *Call) Refer(ctx context.Context, to string) error {
	_, err := c.do(ctx, "REFER", c.nextSeq(), map[string]string{"Refer-To": to, "Referred-By": "<sip:" + c.p.o.User + "@phone>", "Contact": c.contact}, "", nil)
	return err
}

// Notified returns the first lines of what NOTIFY requests told, in order.
func (c *Call) Notified() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.told)
}

// Replaces is the value of a Replaces header field that names the call to the
// peer (RFC 3891).
func (c *Call) Replaces() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.callID + ";to-tag=" + tagOf(c.to) + ";from-tag=" + c.tag
}

// Hangup sends BYE and waits for its answer.
func (c *Call) Hangup(ctx context.Context) error {
	_, err := c.do(ctx, "BYE", c.nextSeq(), map[string]string{"Reason": `Q.850;cause=16;text="hung up"`}, "", nil)
	c.end(EndInfo{Err: err})
	return err
}

// Vanish ends the call without a word, as a phone that lost its network.
func (c *Call) Vanish() { c.end(EndInfo{}) }

// Ended yields once, when the call has ended.
func (c *Call) Ended() <-chan EndInfo { return c.ended }

// end frees the call. The dialog stays known for 64·T1, so that late
// repetitions are answered.
func (c *Call) end(info EndInfo) {
	c.end1.Do(func() {
		c.media.close()
		p, id := c.p, c.callID // not the call, with all that it heard
		time.AfterFunc(64*p.o.T1, func() {
			p.mu.Lock()
			defer p.mu.Unlock()
			delete(p.calls, id)
		})
		close(c.over)
		c.ended <- info
	})
}

// request takes a request of the peer within the dialog.
func (c *Call) request(m *message, reply func([]byte)) {
	ok := m.respond(200, "OK", c.tag)
	switch m.method() {
	case "ACK":
		if c.onACK != nil {
			c.onACK(m)
		}
	case "BYE":
		reply(ok.bytes())
		c.end(EndInfo{ByPeer: true, Reason: m.get("Reason")})
	case "INVITE":
		select {
		case <-c.over:
			reply(m.respond(481, "Call/Transaction Does Not Exist", c.tag).bytes())
			return
		default:
		}
		if b := c.answered(m.seq(), nil); b != nil { // a repetition
			reply(b)
			return
		}
		body, err := c.media.answer(m.body, "sendrecv")
		if err != nil {
			reply(m.respond(488, "Not Acceptable Here", c.tag).bytes())
			return
		}
		ok.add("Contact", c.contact)
		if se := m.get("Session-Expires"); se != "" && c.o.Headers["Session-Expires"] != "" {
			ok.add("Require", "timer")
			ok.add("Session-Expires", se)
		}
		ok.add("Content-Type", "application/sdp")
		ok.body = body
		reply(c.answered(m.seq(), ok.bytes()))
	case "INFO":
		c.media.info(m.get("Content-Type"), m.body)
		reply(ok.bytes())
	case "OPTIONS":
		reply(ok.bytes())
	case "NOTIFY":
		line, _, _ := strings.Cut(string(m.body), "\r\n")
		c.mu.Lock()
		if n := len(c.told); n == 0 || c.told[n-1] != line {
			c.told = append(c.told, line)
		}
		c.mu.Unlock()
		reply(ok.bytes())
	default:
		r := m.respond(405, "Method Not Allowed", c.tag)
		r.add("Allow", "INVITE, ACK, BYE, CANCEL, OPTIONS, INFO")
		reply(r.bytes())
	}
}

// Reinvites returns how many re-INVITEs of the peer's came, repetitions not
// counted.
func (c *Call) Reinvites() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.offers
}

// answered keeps the answer to the re-INVITE of that CSeq, or returns it.
func (c *Call) answered(seq int, b []byte) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	if b != nil {
		c.again, c.answer = seq, b
		c.offers++
	}
	if c.again != seq {
		return nil
	}
	return c.answer
}

// Hear waits until a tone of freq Hz fills 200 ms of what comes from now on.
func (c *Call) Hear(ctx context.Context, freq int) error {
	present := func(pcm []int16, rate int, freqs ...int) bool { return tone.Present(pcm, rate, freqs[0]) }
	return c.media.hear(ctx, c.over, present, freq)
}

// HearAll waits until these tones together, and nothing else, fill 200 ms of
// what comes from now on.
func (c *Call) HearAll(ctx context.Context, freqs ...int) error {
	return c.media.hear(ctx, c.over, tone.Together, freqs...)
}

// Heard returns everything heard so far, silence where nothing came; of a
// call longer than five minutes the last five.
func (c *Call) Heard() []int16 { return c.media.heard() }

// Rate returns the sample rate of Heard, Hz.
func (c *Call) Rate() int { return c.media.rate() }

// Codec returns the name of the codec the call uses.
func (c *Call) Codec() string { return c.media.codecName() }

// Say sends a tone of freq Hz from now on.
func (c *Call) Say(freq int) { c.media.say(freq, nil, false) }

// SayPCM sends pcm, at Rate, once, from now on, and then silence.
func (c *Call) SayPCM(pcm []int16) { c.media.say(0, pcm, false) }

// LoopPCM sends pcm, at Rate, over and over from now on.
func (c *Call) LoopPCM(pcm []int16) { c.media.say(0, pcm, true) }

// Silence sends silence from now on.
func (c *Call) Silence() { c.media.say(0, nil, false) }

// Noise has the phone send comfort noise of a level, -dBov, five times a second
// and nothing else from now on, until it says something.
func (c *Call) Noise(level byte) {
	c.media.say(0, nil, false)
	c.media.mu.Lock()
	defer c.media.mu.Unlock()
	c.media.noise = level
}

// Loss returns what the peer last reported of what it lost of the phone's
// packets, false if it has not reported anything.
func (c *Call) Loss() (packets int, ok bool) {
	c.media.mu.Lock()
	defer c.media.mu.Unlock()
	return c.media.reports.lost, c.media.reports.heard
}

// DTMF sends digits as telephone events (RFC 4733) of 100 ms, 100 ms apart,
// and returns when they are sent.
func (c *Call) DTMF(ctx context.Context, digits string) error {
	done, err := c.media.dtmf(digits)
	if err != nil {
		return err
	}
	select {
	case <-done:
		return nil
	case <-c.over:
		return errors.New("siptest: the call ended")
	case <-ctx.Done():
		return ctx.Err()
	}
}

// RTPStats counts what a call's media sockets saw.
type RTPStats struct {
	Sent, Received, RTCP uint64
	Lost                 uint64 // by sequence number
	Comfort              uint64 // packets of comfort noise that came
	LastReceived         time.Time
}

// RTP returns the counters.
func (c *Call) RTP() RTPStats { return c.media.stats() }

// RTPAddr returns the phone's own RTP address.
func (c *Call) RTPAddr() net.Addr { return c.media.conn.LocalAddr() }

// Infos returns the bodies of INFO requests that came, by content type.
func (c *Call) Infos() []Info { return c.media.infos() }

// Info is an INFO request that came.
type Info struct {
	ContentType string
	Body        []byte
}

// Digits returns the telephone events that came.
func (c *Call) Digits() string { return c.media.digitsHeard() }
