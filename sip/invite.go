package sip

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/emiago/sipgo/sip"
)

// ErrUnreachable says that a request could not be sent, or that nobody
// answered it at all.
var ErrUnreachable = errors.New("sip: peer unreachable")

// InviteOptions describe a call that we make.
type InviteOptions struct {
	URI      string   // request URI, sip:user@host:port;transport=…
	From, To Party    // From.URI "": From.User at From.Host, or at our address; To.URI "": URI
	Headers  []Header // further header fields; those that SIP itself uses are left out
	SDP      []byte   // our offer
	Route    string   // outbound proxy as a SIP URI, "": none
	Trunk    string   // whose peer it is, and whose Policy counts; "": what Options.Match says of the address
	Username string   // for digest challenges (RFC 3261 §22), also within the dialog
	Password string
	Handler  DialogHandler
	// Progress is told each provisional response but 100, in order, with its
	// session description or nil. It must not block.
	Progress func(code int, phrase string, sdp []byte)
	Timeout  time.Duration // until the answer, then CANCEL; default 3 min
	Replaces string        // value of Replaces: the peer's dialog that this call takes the place of (RFC 3891)
	By       string        // value of Referred-By: who asked for the call (RFC 3892)
	Logger   *slog.Logger  // of this call; nil: that of the user agent
}

// CancelCause as the cause of a context's end tells why a call is cancelled:
// it becomes the Reason of the CANCEL (RFC 3326).
type CancelCause struct{ Reason }

// Error implements error.
func (c *CancelCause) Error() string { return "cancelled: " + c.Reason.String() }

// Invite calls somebody and returns when they have answered: the dialog,
// confirmed, and the session description of the answer, nil if it had none.
//
// When ctx ends first, or Timeout passes, the call is cancelled. Invite then
// returns when the peer has confirmed that, at the latest 64·T1 later, so that
// the caller may try elsewhere; an answer that crosses the CANCEL, or comes
// still later, is hung up on, and so is every answer but the first where a
// proxy forked the call (RFC 3261 §13.2.2.4).
//
// Errors: a [*StatusError] for a final response other than 2xx (408 after
// Timeout), ErrUnreachable where nothing could be sent or nothing came back,
// ErrEnded when the user agent is closed, the context's.
func (u *UA) Invite(ctx context.Context, o InviteOptions) (*Dialog, []byte, error) {
	if o.Timeout <= 0 {
		o.Timeout = 3 * time.Minute
	}
	if err := u.reserve(); err != nil {
		return nil, nil, err
	}
	defer u.release()
	if o.Logger == nil {
		o.Logger = u.log
	}
	late := &CancelCause{Reason{Cause: 19, Text: "No answer within " + o.Timeout.String()}}
	ringing, cancel := context.WithTimeoutCause(ctx, o.Timeout, late)
	defer cancel()
	c, err := u.newOutgoing(o)
	var res *sip.Response
	if err == nil {
		defer c.drop()
		res, err = c.send(ringing)
	}
	gone := ringing.Err() != nil && (err == nil || c != nil && c.heard)
	switch {
	case err == nil && res.StatusCode < 300 && c.d == nil:
		return nil, nil, ErrEnded
	case err == nil && res.StatusCode < 300 && !gone:
		c.d.ack(c.tx.invite, c.tx.key)
		c.d.On(o.Handler)
		sdp, _, _ := session(res)
		if sdp == nil {
			sdp = c.d.earlySDP // a provisional response had it (RFC 3261 §13.2.1)
		}
		return c.d, sdp, nil
	case err == nil && res.StatusCode < 300:
		c.d.hangUp(c.tx, "Cancelled")
	case errors.Is(err, ErrEnded):
		return nil, nil, err
	case gone && err == nil && !cancelledBy(res):
		gone = false // more precise than that it took too long
	}
	switch {
	case ctx.Err() != nil:
		return nil, nil, ctx.Err()
	case gone:
		return nil, nil, &StatusError{Code: 408, Phrase: "No answer within " + o.Timeout.String()}
	case err != nil:
		return nil, nil, err
	}
	return nil, nil, statusError(res)
}

// cancelledBy reports whether a failure is no more than the echo of a CANCEL.
func cancelledBy(res *sip.Response) bool {
	return res.StatusCode == 487 || res.StatusCode == 401 || res.StatusCode == 407
}

// reserve makes room for a dialog before anybody's phone rings.
func (u *UA) reserve() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	switch {
	case u.closed:
		return ErrEnded
	case len(u.dialogs)+u.calling >= u.o.MaxDialogs:
		return fmt.Errorf("sip: %w", errTooMany)
	}
	u.calling++
	return nil
}

func (u *UA) release() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.calling--
}

// outgoing is an INVITE of ours on its way.
type outgoing struct {
	u     *UA
	o     InviteOptions
	next  sip.Uri        // where it goes
	hop   hop            // where it went last
	from  sip.FromHeader // without the tag
	call  sip.CallIDHeader
	tag   string
	req   *sip.Request
	tx    *clientTx // the last one
	heard bool      // a provisional response came
	d     *Dialog   // of the 2xx that it returned

	policy Policy
	min    time.Duration // Min-SE of a 422

	mu      sync.Mutex
	earlies map[string]*Dialog // by To tag
}

func (u *UA) newOutgoing(o InviteOptions) (*outgoing, error) {
	c := &outgoing{u: u, o: o, call: sip.CallIDHeader(token(20)), tag: token(16), earlies: map[string]*Dialog{}}
	uri, next, route, err := (Target{URI: o.URI, Route: o.Route}).route()
	if err != nil {
		return nil, err
	}
	c.next = next
	c.from = sip.FromHeader{DisplayName: escape(o.From.Display), Address: sip.Uri{Scheme: "sip", User: escapeUser(o.From.User), Host: o.From.Host}}
	if o.From.URI != "" {
		if c.from.Address, err = parseURI(o.From.URI); err != nil {
			return nil, fmt.Errorf("From: %w", err)
		}
	} else if !fit(o.From.Host) {
		return nil, fmt.Errorf("sip: From host %q", clean(o.From.Host))
	}
	to := sip.ToHeader{DisplayName: escape(o.To.Display), Address: *uri.Clone()}
	to.Address.UriParams = nil
	if o.To.URI != "" {
		if to.Address, err = parseURI(o.To.URI); err != nil {
			return nil, fmt.Errorf("To: %w", err)
		}
	}
	c.req = c.request(uri, to)
	if route != nil {
		c.req.PrependHeader(route)
	}
	return c, nil
}

// parseURI reads a SIP URI for the start of a message. Header fields in it
// are dropped (RFC 3261 §19.1.1).
func parseURI(s string) (sip.Uri, error) {
	var uri sip.Uri
	if err := sip.ParseUri(s, &uri); err != nil || !fit(s) || uri.Scheme != "sip" && uri.Scheme != "sips" || uri.Host == "" || uri.Wildcard {
		return uri, fmt.Errorf("sip: %q is no SIP URI", clean(s))
	}
	uri.Headers = nil
	return uri, nil
}

// fit reports whether s can stand where no quotes protect it.
func fit(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r == 0x7f || strings.ContainsRune(`<>"`, r) })
}

// send sends the INVITE, to one server after another until one is there, and
// again with credentials where they are asked for.
func (c *outgoing) send(ctx context.Context) (*sip.Response, error) {
	seq, tried := uint32(0), false
	res, err := c.u.try(ctx, c.o.Logger, flow{trunk: c.o.Trunk}, &c.next, func(h hop) (*sip.Response, error) {
		c.by(h, tried)
		tried = true
		auth := credentials{username: c.o.Username, password: c.o.Password}
		for {
			seq++
			again(c.req, seq)
			tx := &clientTx{hop: c.hop}
			tx.accepted = func(res *sip.Response, first bool) { c.accepted(tx, res, first) }
			c.tx = tx
			res, _, err := c.u.transact(ctx, tx, c.req, c.progress)
			if err != nil || ctx.Err() != nil || !c.raise(res) && auth.answer(c.req, res) != nil {
				return res, err
			}
			c.drop() // what was early has failed
		}
	})
	if err != nil && !errors.Is(err, ErrEnded) {
		err = fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	return res, err
}

// by makes the INVITE say where we are to be found from a hop.
func (c *outgoing) by(h hop, before bool) {
	if c.hop = h; c.o.Trunk == "" {
		c.hop.f.trunk, _ = c.u.o.Match(h.addr)
	}
	if !before && c.from.Address.Host == "" {
		c.from.Address.Host, c.from.Address.Port = c.hop.f.sentBy()
		from := c.from
		from.Params = sip.HeaderParams{}
		from.Params.Add("tag", c.tag)
		c.req.ReplaceHeader(&from)
	}
	for _, name := range append([]string{"Contact", "Allow", "Supported", "Require", "Session-Expires"}, authFields...) {
		for c.req.RemoveHeader(name) {
		}
	}
	c.drop()
	c.policy = c.u.o.Policy(c.hop.f.trunk)
	appendHeader(c.req, Header{"Contact", c.hop.f.contact(c.from.Address.User)})
	for _, h := range c.policy.headers() {
		appendHeader(c.req, h)
	}
	if c.policy.Reliable == ReliableRequired {
		appendHeader(c.req, Header{"Require", "100rel"})
	}
	if t := c.policy.SessionTimer; t > 0 {
		appendHeader(c.req, expires(max(t, c.u.o.MinSE, c.min), ""))
	}
}

// progress takes a provisional response: each makes an early dialog (RFC 3261
// §12.1), reliable ones are confirmed and come in their order (RFC 3262 §4).
func (c *outgoing) progress(res *sip.Response) {
	c.heard = true
	if res.StatusCode == 100 {
		return
	}
	sdp, _, _ := session(res)
	if d := c.early(res); d != nil {
		rseq := rseqOf(res)
		d.mu.Lock()
		switch {
		case rseq == 0 || c.policy.Reliable == ReliableOff:
			rseq = 0
		case d.heardRSeq != 0 && rseq != d.heardRSeq+1: // repeated, or too early: it will be repeated
			d.mu.Unlock()
			return
		default:
			d.heardRSeq = rseq
		}
		if sdp != nil && d.earlySDP == nil {
			d.earlySDP = sdp
		}
		if rseq != 0 && sdp != nil {
			d.ours = false // our offer is answered for good
		}
		d.mu.Unlock()
		if rseq != 0 {
			d.prack(rseq, c.tx.invite.CSeq().SeqNo)
		}
	}
	if c.o.Progress != nil {
		c.o.Progress(res.StatusCode, clean(res.Reason), sdp)
	}
}

// early returns the early dialog of a provisional response, nil if it makes
// none.
func (c *outgoing) early(res *sip.Response) *Dialog {
	to := res.To()
	if to == nil || res.Contact() == nil {
		return nil
	}
	tag := param(to.Params, "tag")
	c.mu.Lock()
	defer c.mu.Unlock()
	if d := c.earlies[tag]; d != nil || tag == "" || len(c.earlies) >= maxForks {
		return d
	}
	d := c.newDialog(c.tx, res)
	d.state, d.ours = early, true
	if !c.register(d) {
		return nil
	}
	c.earlies[tag] = d
	h := c.o.Handler
	d.On(DialogHandler{Reoffer: h.Reoffer, Replaced: h.Replaced})
	return d
}

// drop ends the early dialogs that were not answered.
func (c *outgoing) drop() {
	c.mu.Lock()
	earlies := c.earlies
	c.earlies = map[string]*Dialog{}
	c.mu.Unlock()
	for _, d := range earlies {
		d.mu.Lock()
		if d.state == early {
			d.finish()
			d.silent = true
			d.mu.Unlock()
			d.remove()
			continue
		}
		d.mu.Unlock()
	}
}

func (c *outgoing) request(uri sip.Uri, to sip.ToHeader) *sip.Request {
	req := sip.NewRequest(sip.INVITE, uri)
	mf := sip.MaxForwardsHeader(70)
	req.AppendHeader(&mf)
	from := c.from
	from.Params.Add("tag", c.tag)
	req.AppendHeader(&from)
	req.AppendHeader(&to)
	req.AppendHeader(&c.call)
	req.AppendHeader(&sip.CSeqHeader{MethodName: sip.INVITE})
	if c.o.Replaces != "" {
		appendHeader(req, Header{"Replaces", c.o.Replaces})
	}
	if c.o.By != "" {
		appendHeader(req, Header{"Referred-By", c.o.By})
	}
	if c.u.o.UserAgent != "" {
		appendHeader(req, Header{"User-Agent", c.u.o.UserAgent})
	}
	for _, h := range c.o.Headers {
		if !ours[canonical(h.Name)] {
			appendHeader(req, h)
		}
	}
	if len(c.o.SDP) > 0 {
		appendHeader(req, Header{"Content-Type", contentSDP})
	}
	req.SetBody(c.o.SDP)
	return req
}

// ours are the header fields that nobody else may put into a request of ours:
// those that steer it, that say who we are, or that change what it asks for.
var ours = headerSet("Via", "From", "To", "Call-ID", "CSeq", "Contact", "Max-Forwards", "Route", "Record-Route",
	"Path", "Service-Route", "Authorization", "Proxy-Authorization", "Require", "Proxy-Require", "Supported",
	"Content-Type", "Content-Length", "Content-Encoding", "Content-Disposition", "Allow", "User-Agent", "Expires",
	"Replaces", "Refer-To", "Referred-By", "Session-Expires", "Min-SE", "P-Asserted-Identity", "P-Preferred-Identity",
	"Remote-Party-ID", "Privacy", "Diversion", "History-Info", "Identity", "Join", "Event", "RSeq", "RAck", "Reason",
	"MIME-Version", "Accept", "Request-Disposition", "Accept-Contact", "Reject-Contact", "Target-Dialog", "P-Charging-Vector")

func headerSet(names ...string) map[string]bool {
	m := map[string]bool{}
	for _, n := range names {
		m[canonical(n)] = true
	}
	return m
}

// accepted takes a 2xx with a To tag that is new, on the goroutine that read
// it, so that whatever the peer sends next finds the dialog.
func (c *outgoing) accepted(tx *clientTx, res *sip.Response, first bool) {
	d := c.dialog(tx, res)
	switch {
	case first:
		c.d = d
	case d != nil: // another phone answered, or this one too late
		c.u.spawn(func() { d.hangUp(tx, "Call completed elsewhere") })
	}
}

// dialog makes the dialog of a 2xx (RFC 3261 §12.1.2), or the early one to it;
// nil: there is no more room for it.
func (c *outgoing) dialog(tx *clientTx, res *sip.Response) *Dialog {
	to := res.To()
	if to == nil {
		return nil
	}
	c.mu.Lock() // throughout: a 180 of the same phone may be read only now
	defer c.mu.Unlock()
	d := c.earlies[param(to.Params, "tag")]
	delete(c.earlies, param(to.Params, "tag"))
	if d != nil {
		d.mu.Lock()
		if d.state == early {
			d.state, d.ours = confirmed, false
			d.confirm(res)
			d.mu.Unlock()
			return d
		}
		d.mu.Unlock()
	}
	d = c.newDialog(tx, res)
	d.state = confirmed
	d.mu.Lock()
	d.confirm(res)
	d.mu.Unlock()
	if !c.register(d) {
		d.mu.Lock()
		d.watch(0, false)
		d.mu.Unlock()
		return nil
	}
	return d
}

// confirm takes what a 2xx to our INVITE says beside the answer. d.mu is held.
func (d *Dialog) confirm(res *sip.Response) {
	d.heed(res)
	d.updates = d.updates || allows(res, "UPDATE")
	d.agreed(res)
}

// heed takes the way to the peer from a response to our INVITE.
func (d *Dialog) heed(res *sip.Response) {
	d.refreshTarget(res.Contact())
	d.routes = routesOf(res)
	// A Contact of a private network in an answer from a public one is of no
	// use: the peer is behind a NAT.
	a, err := netip.ParseAddr(strings.Trim(d.target.Host, "[]"))
	d.direct = len(d.routes) == 0 && err == nil && private(a) && !private(d.f.peer.Addr())
}

// routesOf is the route set that a response to our INVITE makes.
func routesOf(res *sip.Response) (routes []sip.Uri) {
	rr := res.GetHeaders("Record-Route")
	for i := len(rr) - 1; i >= 0; i-- { // in reverse
		if h, ok := rr[i].(*recordRoute); ok {
			routes = append(routes, *h.uri.Clone())
		}
	}
	return routes
}

// newDialog makes the dialog of a response with a To tag.
func (c *outgoing) newDialog(tx *clientTx, res *sip.Response) *Dialog {
	to := res.To()
	d := &Dialog{
		u: c.u, f: c.hop.f, way: c.hop.f, invite: c.mirrored(to), policy: c.policy, done: make(chan struct{}),
		id:       dialogID{call: string(c.call), local: c.tag, remote: param(to.Params, "tag")}, // no tag: RFC 2543
		username: c.o.Username, password: c.o.Password,
		local:     c.hop.f.local(),
		target:    *tx.invite.Recipient.Clone(),
		localSeq:  tx.invite.CSeq().SeqNo,
		remoteSeq: -1,
		localSDP:  c.o.SDP,
		timer:     timer{min: c.min},
		updates:   allows(res, "UPDATE"),
		unacked:   map[uint32]*unacked{},
	}
	d.heed(res)
	return d
}

// register lets requests of the peer's find the dialog, unless there is such
// a one.
func (c *outgoing) register(d *Dialog) bool {
	c.u.mu.Lock()
	defer c.u.mu.Unlock()
	if c.u.closed || c.u.dialogs[d.id] != nil {
		return false
	}
	c.u.dialogs[d.id] = d
	c.u.called[c.hop.addr.Addr()]++
	return true
}

func private(a netip.Addr) bool {
	return a.IsPrivate() || a.IsLoopback() || a.IsUnspecified() || a.IsLinkLocalUnicast()
}

// mirrored is the INVITE as if the peer had sent it: a dialog's requests take
// their From, To and Contact from it.
func (c *outgoing) mirrored(to *sip.ToHeader) *sip.Request {
	m := sip.NewRequest(sip.INVITE, sip.Uri{Scheme: "sip", User: c.from.Address.User, Host: c.from.Address.Host})
	from := to.AsFrom()
	m.AppendHeader(&from)
	us := c.from.AsTo()
	m.AppendHeader(&us)
	call := c.call
	m.AppendHeader(&call)
	m.AppendHeader(&sip.CSeqHeader{SeqNo: 0, MethodName: sip.INVITE})
	m.SetBody(nil)
	return m
}

// hangUp confirms an answer that nobody wants, and ends the call without
// waiting.
func (d *Dialog) hangUp(tx *clientTx, why string) {
	d.ack(tx.invite, tx.key)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_ = d.Bye(ctx, Reason{Cause: 16, Text: why})
}
