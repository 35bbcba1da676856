package sip

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"sync"
	"time"

	"github.com/emiago/sipgo/sip"
)

// Errors of a dialog's methods, for errors.Is.
var (
	ErrEnded = errors.New("sip: the dialog has ended") // cancelled, rejected, bye sent or received, lost
	ErrState = errors.New("sip: not in this state of the dialog")
	ErrNoACK = errors.New("sip: no ACK for the 200 (RFC 3261 §13.3.1.4)")

	errTooMany = errors.New("too many calls")
)

// StatusError is a final response other than 2xx.
type StatusError struct {
	Code    int
	Phrase  string
	Reason  Reason   // of the response's Reason header field, if any
	Contact string   // URI of its Contact, the one with the highest q: where 3xx says to call
	Headers []Header // all of the response
}

// Error implements error.
func (e *StatusError) Error() string { return fmt.Sprintf("%d %s", e.Code, e.Phrase) }

// Header returns the first value of a header field of the response, or "".
func (e *StatusError) Header(name string) string {
	for _, h := range e.Headers {
		if canonical(h.Name) == canonical(name) {
			return h.Value
		}
	}
	return ""
}

func statusError(res *sip.Response) error {
	e := &StatusError{Code: res.StatusCode, Phrase: clean(res.Reason), Reason: parseReason(res)}
	best := -1.0
	for _, h := range res.Headers() {
		e.Headers = append(e.Headers, Header{h.Name(), clean(h.Value())})
		c, ok := h.(*sip.ContactHeader)
		if !ok || c.Address.Wildcard {
			continue
		}
		q, err := strconv.ParseFloat(param(c.Params, "q"), 64)
		if err != nil {
			q = 1
		}
		if q > best {
			best, e.Contact = q, clean(c.Address.String())
		}
	}
	return e
}

// Header is a header field of a message.
type Header struct{ Name, Value string }

// Reason is a value of the Reason header field (RFC 3326).
type Reason struct {
	Protocol string // "Q.850" (also if empty) or "SIP"
	Cause    int
	Text     string
}

// Party is who a From or To header field names.
type Party struct {
	Display string // unquoted
	User    string // user part of the URI, percent-decoded
	Host    string
	URI     string // as it came
}

// DialogHandler receives what happens to a dialog. Callbacks come one after
// another, hold no lock, and must not block: they run where the message was
// read. A nil field ignores the event; a nil Reoffer refuses it with 488.
// Of Cancelled, Bye and Lost at most one comes, and nothing after it; none
// comes for an end that the owner brought about.
type DialogHandler struct {
	Cancelled func(Reason) // CANCEL, or the INVITE expired
	Bye       func(Reason)
	Info      func(contentType string, body []byte)
	Reoffer   func(*Reoffer)
	Lost      func(error) // an ACK or PRACK never came, a request was not answered, the session expired, the user agent closed

	// Refer asks to call somebody else in the place of the peer (RFC 3515).
	// nil refuses it with 603, as does a policy without transfer with 405.
	Refer func(*Refer)
	// Replaced is a call that wants to take this dialog's place (RFC 3891). It
	// must be answered or rejected, and once answered this dialog be ended.
	// nil rejects it with 603.
	Replaced func(*Dialog)
	// Refreshed tells the answer to the offer of ours that was in force, which
	// a session refresh repeated (RFC 4028 §7.4).
	Refreshed func(offer, answer []byte)
}

// maxEvents bounds what waits for a handler to be set, or to return.
const maxEvents = 64

type dialogState int

const (
	early     dialogState = iota
	answered              // 200 sent, no ACK yet
	confirmed             // ACK received
	ended
)

type dialogID struct{ call, local, remote string }

// Dialog is a call, one that came in or, once answered, one that we made. Its
// methods are safe for concurrent use.
type Dialog struct {
	u      *UA
	f      flow
	tx     *serverTx    // of the INVITE; nil: ours
	invite *sip.Request // only read; of a call that we made a mirror image
	id     dialogID

	username, password string // for challenges

	local  netip.AddrPort
	offer  []byte
	policy Policy
	done   chan struct{}

	mu        sync.Mutex
	state     dialogState
	byeing    bool
	handler   *DialogHandler
	events    []func(DialogHandler)
	draining  bool
	silent    bool // no event may follow
	localSeq  uint32
	remoteSeq int64 // -1: none yet
	target    sip.Uri
	routes    []sip.Uri
	direct    bool // the INVITE came from the peer's user agent itself, through at most a NAT
	way       flow // of the peer's last request: a NAT may have given it another port
	unacked   map[uint32]*unacked
	theirs    *Reoffer
	ours      bool // an offer of ours, or a refresh, is under way
	repeat    *time.Timer
	expires   *time.Timer
	updates   bool   // the peer allows UPDATE
	localSDP  []byte // our description that was sent last
	timer     timer
	refers    int

	// Reliable provisional responses of ours.
	rseq        uint32 // the last one's
	pending     *provisional
	queued      []*provisional
	described   bool   // a response had our answer, or our offer
	awaitsPRACK bool   // for the answer to it
	prackSDP    []byte // that answer

	// Those of the peer, while we wait for the answer.
	heardRSeq uint32
	earlySDP  []byte
}

func (u *UA) newDialog(tx *serverTx, req *sip.Request, sdp []byte) (*Dialog, error) {
	contact := contactOf(req)
	if contact == nil || contact.Address.Host == "" || contact.Address.Wildcard ||
		contact.Address.Scheme != "sip" && contact.Address.Scheme != "sips" {
		return nil, errors.New("no usable Contact")
	}
	d := &Dialog{
		u: u, f: tx.f, way: tx.f, tx: tx, invite: req, offer: sdp, policy: u.o.Policy(tx.f.trunk), done: make(chan struct{}),
		id:       dialogID{call: req.CallID().Value(), local: token(16), remote: param(req.From().Params, "tag")},
		local:    tx.f.local(),
		target:   *contact.Address.Clone(),
		localSeq: 1, remoteSeq: int64(req.CSeq().SeqNo),
		updates: allows(req, "UPDATE"),
		unacked: map[uint32]*unacked{},
	}
	for _, h := range req.GetHeaders("Record-Route") {
		if rr, ok := h.(*recordRoute); ok {
			d.routes = append(d.routes, *rr.uri.Clone())
		}
	}
	_, rport := paramOK(req.Via().Params, "rport")
	d.direct = len(d.routes) == 0 && len(req.GetHeaders("Via")) == 1 && (rport || tx.f.reliable())
	u.mu.Lock()
	switch {
	case u.closed:
		u.mu.Unlock()
		return nil, ErrEnded
	case len(u.dialogs)+u.calling >= u.o.MaxDialogs:
		u.mu.Unlock()
		return nil, errTooMany
	}
	u.dialogs[d.id] = d
	u.called[d.f.peer.Addr()]++
	u.mu.Unlock()
	tx.onCancel(d.id.local, d.cancelled)
	// RFC 3261 §13.3.1: an INVITE may say how long it is worth an answer.
	if e := seconds(headerValues(req, "Expires")); e > 0 {
		d.mu.Lock()
		d.expires = time.AfterFunc(e, func() { d.cancelled(Reason{}) })
		d.mu.Unlock()
	}
	return d, nil
}

// dialog finds the dialog a request belongs to.
func (u *UA) dialog(req *sip.Request) *Dialog {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.dialogs[dialogID{call: req.CallID().Value(), local: param(req.To().Params, "tag"), remote: param(req.From().Params, "tag")}]
}

func (d *Dialog) remove() {
	d.u.mu.Lock()
	defer d.u.mu.Unlock()
	if d.u.dialogs[d.id] != d {
		return
	}
	delete(d.u.dialogs, d.id)
	d.u.forgetCalled(d.f.peer.Addr())
}

// outgoing reports whether we made the call.
func (d *Dialog) outgoing() bool { return d.tx == nil }

// CallID returns the Call-ID.
func (d *Dialog) CallID() string { return clean(d.id.call) }

// Trunk returns what Options.Match said of the source.
func (d *Dialog) Trunk() string { return d.f.trunk }

// Source returns the address the INVITE came from, or was sent to.
func (d *Dialog) Source() netip.AddrPort { return d.f.peer }

// Local returns the address of ours that the peer sees: the listener's
// advertised one if that is an IP address, else the one that faces the peer.
func (d *Dialog) Local() netip.AddrPort { return d.local }

// From returns the caller; of a call that we made, the called party.
func (d *Dialog) From() Party {
	h := d.invite.From()
	return party(h.DisplayName, &h.Address)
}

// To returns the called party of the To header field; of a call that we made,
// who we said we are.
func (d *Dialog) To() Party {
	h := d.invite.To()
	return party(h.DisplayName, &h.Address)
}

// RequestUser returns the user part of the Request-URI, percent-decoded.
func (d *Dialog) RequestUser() string { return unescapeUser(d.invite.Recipient.User) }

// Header returns the first value of a header field of an INVITE that came, or "". The
// name's case does not matter; quotes around the whole value, escapes in it
// and control characters are taken off.
func (d *Dialog) Header(name string) string {
	for _, v := range headerValues(d.invite, name) {
		return unquote(v)
	}
	return ""
}

// Offer returns the session description of the INVITE, nil for a late offer.
func (d *Dialog) Offer() []byte { return d.offer }

// Done is closed when the dialog has ended, in whatever way, right before the
// last event is delivered.
func (d *Dialog) Done() <-chan struct{} { return d.done }

// On sets the handler; an event that came before is delivered at once.
func (d *Dialog) On(h DialogHandler) {
	d.mu.Lock()
	d.handler = &h
	d.mu.Unlock()
	d.drain()
}

// post queues an event and delivers what is queued, unless somebody else is
// at it. The last event is never left out; of the others it reports whether
// they will be.
func (d *Dialog) post(last bool, ev func(DialogHandler)) bool {
	d.mu.Lock()
	if d.silent || !last && len(d.events) >= maxEvents {
		d.mu.Unlock()
		return false
	}
	d.silent = last
	d.events = append(d.events, ev)
	d.mu.Unlock()
	d.drain()
	return true
}

func (d *Dialog) drain() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.draining || d.handler == nil {
		return
	}
	d.draining = true
	for len(d.events) > 0 {
		ev, h := d.events[0], *d.handler
		d.events = d.events[1:]
		d.mu.Unlock()
		ev(h)
		d.mu.Lock()
	}
	d.draining = false
}

// finish marks the dialog ended and reports whether it had not been. d.mu is held.
func (d *Dialog) finish() bool {
	if d.state == ended {
		return false
	}
	wasEarly := d.state == early
	d.state = ended
	for _, t := range []*time.Timer{d.repeat, d.expires, d.timer.t} {
		if t != nil {
			t.Stop()
		}
	}
	d.confirmed(d.pending)
	for _, w := range d.unacked {
		w.settle(nil, ErrEnded)
	}
	// Requests that still wait for us get 487 (RFC 3261 §15.1.2).
	gone := reply{code: 487, headers: Reason{Cause: 16, Text: "the call has ended"}.headers()}
	if wasEarly && d.tx != nil {
		_ = d.tx.respond(487, d.response(d.f, d.invite, gone)) // a no-op after Reject
	}
	if r := d.theirs; r != nil {
		_ = r.tx.respond(487, d.response(r.tx.f, r.req, gone))
		r.settled()
	}
	close(d.done)
	return true
}

// lose ends the dialog for an error.
func (d *Dialog) lose(err error) {
	d.mu.Lock()
	first := d.finish()
	d.mu.Unlock()
	if first {
		d.remove()
		d.post(true, func(h DialogHandler) {
			if h.Lost != nil {
				h.Lost(err)
			}
		})
	}
}

// cancelled ends an early dialog with 487; later it does nothing.
func (d *Dialog) cancelled(r Reason) {
	d.mu.Lock()
	first := d.state == early && d.finish()
	d.mu.Unlock()
	if first {
		d.remove()
		d.post(true, func(h DialogHandler) {
			if h.Cancelled != nil {
				h.Cancelled(r)
			}
		})
	}
}

// response writes a response of the dialog to req, which came by f.
func (d *Dialog) response(f flow, req *sip.Request, r reply) []byte {
	r.tag = d.id.local
	if m := req.Method; r.code > 100 && r.code < 300 && (m == sip.INVITE || m == sip.UPDATE || m == sip.REFER) {
		r.headers = append(append(r.headers, Header{"Contact", d.contact()}), d.policy.headers()...)
	}
	if r.body != nil {
		r.ctype = contentSDP
	}
	return d.u.response(f, req, r)
}

// contact returns our Contact value.
func (d *Dialog) contact() string { return d.f.contact(d.invite.Recipient.User) }

// Ringing sends 180. Since a provisional response may get lost and proxies
// grow impatient, it is repeated: over UDP after T1, 2·T1 and 4·T1, then every
// 120·T1, which is a minute (RFC 3261 §13.3.1.1).
func (d *Dialog) Ringing() error { return d.Progress(180, nil) }

// Progress sends a provisional response of the given code, with an answer in
// it if sdp is not nil. It is repeated as in [Dialog.Ringing] until the next;
// or it goes reliably (RFC 3262), where policy and peer let it, and without a
// PRACK in 64·T1 the call is rejected with 504 and Lost is told ErrNoPRACK.
func (d *Dialog) Progress(code int, sdp []byte) error {
	if code <= 100 || code > 199 {
		return fmt.Errorf("sip: %d is no provisional response", code)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.must(early); err != nil {
		return err
	}
	if d.reliably(sdp) {
		return d.progress(code, sdp)
	}
	b := d.response(d.f, d.invite, reply{code: code, body: sdp})
	if d.repeat != nil {
		d.repeat.Stop()
	}
	next, steps := d.u.o.T1, 3
	if d.f.reliable() {
		steps = 0
	}
	wait := func() time.Duration {
		if steps == 0 {
			return 120 * d.u.o.T1
		}
		w := next
		steps, next = steps-1, 2*next
		return w
	}
	var t *time.Timer
	t = time.AfterFunc(wait(), func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		if d.state == early && d.repeat == t {
			_ = d.tx.respond(code, b)
			t.Reset(wait())
		}
	})
	d.repeat = t
	return d.tx.respond(code, b)
}

// must returns why the dialog is not in the state. d.mu is held.
func (d *Dialog) must(s dialogState) error {
	switch d.state {
	case s:
		return nil
	case ended:
		return ErrEnded
	}
	return ErrState
}

// Reject sends a final response of code 300 to 699 with a Reason header field
// and, if r has a text, a Warning 399.
func (d *Dialog) Reject(code int, r Reason, extra ...Header) error {
	if code < 300 || code > 699 {
		return fmt.Errorf("sip: cannot reject with %d", code)
	}
	d.mu.Lock()
	if err := d.must(early); err != nil {
		d.mu.Unlock()
		return err
	}
	hs := r.headers()
	if r.Text != "" {
		hs = append(hs, d.u.warning(d.f, r.Text))
	}
	err := d.tx.respond(code, d.response(d.f, d.invite, reply{code: code, headers: append(hs, extra...)}))
	d.silent = true
	d.finish()
	d.mu.Unlock()
	d.remove()
	return err
}

// request takes a request of the peer within the dialog.
func (d *Dialog) request(tx *serverTx, req *sip.Request) {
	respond := func(code int, hs ...Header) {
		_ = tx.respond(code, d.response(tx.f, req, reply{code: code, headers: hs}))
	}
	d.mu.Lock()
	if seq := int64(req.CSeq().SeqNo); seq <= d.remoteSeq {
		d.mu.Unlock()
		respond(500, d.u.warning(tx.f, "CSeq out of order")) // RFC 3261 §12.2.2
		return
	} else {
		d.remoteSeq = seq
		d.way = tx.f
	}
	over := d.state == ended // our BYE is still under way
	if len(headerValues(req, "Allow")) > 0 {
		d.updates = allows(req, "UPDATE")
	}
	switch {
	case d.outgoing() && d.state == early && req.Method == sip.BYE:
		d.mu.Unlock()
		respond(481) // RFC 3261 §15: not before the 2xx
		return
	case req.Method == sip.BYE:
		first := d.finish()
		d.mu.Unlock()
		respond(200)
		if first {
			d.remove()
			reason := parseReason(req)
			d.post(true, func(h DialogHandler) {
				if h.Bye != nil {
					h.Bye(reason)
				}
			})
		}
		return
	case over:
		d.mu.Unlock()
		respond(481)
		return
	case req.Method == sip.INVITE:
		d.reinvited(tx, req) // unlocks
		return
	case req.Method == sip.UPDATE:
		d.updated(tx, req)
		return
	case req.Method == sip.PRACK && d.policy.Reliable != ReliableOff:
		d.pracked(tx, req)
		return
	}
	d.mu.Unlock()
	switch req.Method {
	case sip.INFO:
		respond(200)
		var ctype string
		if v := headerValues(req, "Content-Type"); len(v) > 0 {
			ctype = clean(v[0])
		}
		body := req.Body()
		d.post(false, func(h DialogHandler) {
			if h.Info != nil {
				h.Info(ctype, body)
			}
		})
	case sip.OPTIONS:
		respond(200, append(d.policy.headers(), Header{"Accept", contentSDP})...)
	case sip.REFER:
		d.referred(tx, req, respond)
	default:
		respond(unserved(req.Method), Header{"Allow", d.policy.allow()})
	}
}

// Bye ends an answered dialog and waits for the answer. Before the ACK has
// come it waits for that first (RFC 3261 §15). When ctx ends first the BYE is
// still sent and repeated.
func (d *Dialog) Bye(ctx context.Context, r Reason) error {
	d.mu.Lock()
	switch {
	case d.state == early:
		d.mu.Unlock()
		return ErrState
	case d.state == ended || d.byeing:
		d.mu.Unlock()
		return ErrEnded
	}
	d.byeing = true
	ack := make(chan struct{})
	if w := d.unacked[d.invite.CSeq().SeqNo]; w != nil {
		ack = w.done
	} else {
		close(ack)
	}
	d.mu.Unlock()
	result := make(chan error, 1)
	if !d.u.spawn(func() {
		select {
		case <-ack:
		case <-d.u.ctx.Done():
		}
		result <- d.bye(r)
	}) {
		return ErrEnded
	}
	select {
	case err := <-result:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// bye ends the dialog, silently for its owner, and sends BYE.
func (d *Dialog) bye(r Reason) error {
	d.mu.Lock()
	if !d.finish() {
		d.mu.Unlock()
		return ErrEnded
	}
	d.silent = true
	req := d.newRequest(sip.BYE)
	d.mu.Unlock()
	return d.sendBye(req, r)
}

// sendBye sends the BYE of a dialog that has ended, and forgets the dialog
// when it is answered: until then the peer's own BYE may cross it.
func (d *Dialog) sendBye(req *sip.Request, r Reason) error {
	defer d.remove()
	for _, h := range r.headers() {
		appendHeader(req, h)
	}
	res, _, err := d.send(d.u.ctx, req)
	switch {
	case err != nil:
		return err
	case res.StatusCode >= 300 && res.StatusCode != 481 && res.StatusCode != 408:
		return statusError(res)
	}
	return nil
}

// Info sends an INFO request and waits for the answer: nil for 2xx, a
// [*StatusError] for any other.
func (d *Dialog) Info(ctx context.Context, contentType string, body []byte) error {
	d.mu.Lock()
	switch d.state {
	case ended:
		d.mu.Unlock()
		return ErrEnded
	case early:
		d.mu.Unlock()
		return ErrState
	}
	req := d.newRequest(sip.INFO)
	d.mu.Unlock()
	if body != nil {
		appendHeader(req, Header{"Content-Type", contentType})
	}
	req.SetBody(body)
	res, _, err := d.send(ctx, req)
	if err != nil {
		return d.failed(err)
	}
	if res.StatusCode >= 300 {
		return d.failed(statusError(res))
	}
	return nil
}

// failed ends the dialog where an answer, or none, says that the peer knows
// it no more (RFC 3261 §12.2.1.2), and returns the error.
func (d *Dialog) failed(err error) error {
	var se *StatusError
	if errors.Is(err, ErrTimeout) || errors.As(err, &se) && (se.Code == 481 || se.Code == 408) {
		d.lose(err)
	}
	return err
}
