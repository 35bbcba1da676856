package sip

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/emiago/sipgo/sip"
	"github.com/icholy/digest"
)

// ErrUnreachable says that a request could not be sent, or that nobody
// answered it at all.
var ErrUnreachable = errors.New("sip: peer unreachable")

// maxChallenges bounds how often an INVITE is repeated with credentials: once
// for a proxy, once for the peer, and once more for a stale nonce.
const maxChallenges = 3

// InviteOptions describe a call that we make.
type InviteOptions struct {
	URI      string   // request URI, sip:user@host:port;transport=…
	From, To Party    // From.URI "": our address; To.URI "": URI
	Headers  []Header // further header fields; those that SIP itself uses are left out
	SDP      []byte   // our offer
	Route    string   // outbound proxy as a SIP URI, "": none
	Username string   // for a digest challenge (RFC 3261 §22)
	Password string
	Handler  DialogHandler
	// Progress is told each provisional response but 100, in order. It must not
	// block.
	Progress func(code int, phrase string, sdp []byte)
	Timeout  time.Duration // until the answer, then CANCEL; default 3 min
}

// Invite calls somebody and returns when they have answered: the dialog,
// confirmed, and the session description of the answer. When ctx ends first,
// or Timeout passes, the call is cancelled; an answer that crosses the CANCEL
// is hung up on. Errors: *StatusError for a final response other than 2xx (408
// after Timeout), ErrUnreachable, the context's.
func (u *UA) Invite(ctx context.Context, o InviteOptions) (*Dialog, []byte, error) {
	if o.Timeout <= 0 {
		o.Timeout = 3 * time.Minute
	}
	ringing, cancel := context.WithTimeout(ctx, o.Timeout)
	defer cancel()
	c, err := u.newOutgoing(ringing, o)
	if err != nil {
		return nil, nil, err
	}
	res, key, err := c.send(ringing)
	switch {
	case ctx.Err() != nil:
		if err == nil && res.StatusCode < 300 {
			c.hangUp(res, key)
		}
		return nil, nil, ctx.Err()
	case err != nil && ringing.Err() != nil, err == nil && res.StatusCode == 487 && ringing.Err() != nil:
		return nil, nil, &StatusError{Code: 408, Phrase: "No answer within " + o.Timeout.String()}
	case err != nil:
		return nil, nil, fmt.Errorf("%w: %w", ErrUnreachable, err)
	case res.StatusCode >= 300:
		return nil, nil, statusError(res)
	case ringing.Err() != nil:
		c.hangUp(res, key)
		return nil, nil, &StatusError{Code: 408, Phrase: "No answer within " + o.Timeout.String()}
	}
	d, err := c.dialog(res, key)
	if err != nil {
		return nil, nil, err
	}
	d.On(o.Handler)
	return d, res.Body(), nil
}

// outgoing is an INVITE of ours on its way.
type outgoing struct {
	u      *UA
	o      InviteOptions
	hop    hop
	uri    sip.Uri
	routes []sip.Uri
	from   sip.FromHeader
	to     sip.ToHeader
	call   sip.CallIDHeader
	tag    string
	seq    uint32
	sent   *sip.Request // the last one
	auth   []Header
}

func (u *UA) newOutgoing(ctx context.Context, o InviteOptions) (*outgoing, error) {
	c := &outgoing{u: u, o: o, call: sip.CallIDHeader(token(20)), tag: token(16), seq: 1}
	if err := sip.ParseUri(o.URI, &c.uri); err != nil || c.uri.Host == "" {
		return nil, fmt.Errorf("sip: %q is no SIP URI", clean(o.URI))
	}
	next := c.uri
	if o.Route != "" {
		var proxy sip.Uri
		if err := sip.ParseUri(o.Route, &proxy); err != nil || proxy.Host == "" {
			return nil, fmt.Errorf("sip: outbound proxy %q is no SIP URI", clean(o.Route))
		}
		if _, loose := paramOK(proxy.UriParams, "lr"); !loose {
			proxy.UriParams.Add("lr", "")
		}
		c.routes, next = []sip.Uri{proxy}, proxy
	}
	transport := strings.ToLower(param(next.UriParams, "transport"))
	if transport == "" {
		transport = "udp"
	}
	ln := u.listenerFor(transport, netip.Addr{})
	if ln == nil {
		if ln = u.anyListener(transport); ln == nil {
			return nil, fmt.Errorf("%w: no %s listener", ErrUnreachable, clean(transport))
		}
	}
	var err error
	if c.hop, err = u.resolve(ctx, flow{ln: ln}, next, transport); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	if c.hop.f.peer == (netip.AddrPort{}) {
		c.hop.f.peer = c.hop.addr
	}
	host, port := c.hop.f.ln.sentBy(c.hop.addr.Addr())
	c.from.Address = sip.Uri{Scheme: "sip", Host: host, Port: port}
	if o.From.URI != "" {
		if err := sip.ParseUri(o.From.URI, &c.from.Address); err != nil {
			return nil, fmt.Errorf("sip: %q is no SIP URI", clean(o.From.URI))
		}
	} else if isToken(o.From.User) {
		c.from.Address.User = o.From.User
	}
	if o.From.Host != "" && o.From.URI == "" {
		c.from.Address.Host, c.from.Address.Port = o.From.Host, 0
	}
	c.from.DisplayName = clean(o.From.Display)
	c.to.Address = *c.uri.Clone()
	c.to.Address.UriParams = nil
	if o.To.URI != "" {
		if err := sip.ParseUri(o.To.URI, &c.to.Address); err != nil {
			return nil, fmt.Errorf("sip: %q is no SIP URI", clean(o.To.URI))
		}
	}
	return c, nil
}

// anyListener returns a listener of the network, whatever its address.
func (u *UA) anyListener(network string) *listener {
	for _, l := range u.listeners {
		if l.network == network {
			return l
		}
	}
	return nil
}

// send sends the INVITE, again with credentials where they are asked for.
func (c *outgoing) send(ctx context.Context) (*sip.Response, string, error) {
	for challenges := 0; ; challenges++ {
		c.sent = c.request()
		res, key, err := c.u.transact(ctx, c.hop, c.sent, c.progress)
		if err != nil || res.StatusCode != 401 && res.StatusCode != 407 ||
			c.o.Username == "" || challenges >= maxChallenges || ctx.Err() != nil {
			return res, key, err
		}
		stale, err := c.answer(res)
		if err != nil || challenges > 0 && !stale && len(c.auth) < 2 {
			return res, key, nil // refused for good
		}
		c.seq++
	}
}

func (c *outgoing) progress(res *sip.Response) {
	if res.StatusCode > 100 && c.o.Progress != nil {
		sdp := res.Body()
		if len(sdp) == 0 {
			sdp = nil
		}
		c.o.Progress(res.StatusCode, clean(res.Reason), sdp)
	}
}

func (c *outgoing) request() *sip.Request {
	req := sip.NewRequest(sip.INVITE, *c.uri.Clone())
	for _, r := range c.routes {
		req.AppendHeader(&sip.RouteHeader{Address: *r.Clone()})
	}
	mf := sip.MaxForwardsHeader(70)
	req.AppendHeader(&mf)
	from := c.from
	from.Params = nil
	from.Params.Add("tag", c.tag)
	req.AppendHeader(&from)
	to := c.to
	req.AppendHeader(&to)
	call := c.call
	req.AppendHeader(&call)
	req.AppendHeader(&sip.CSeqHeader{SeqNo: c.seq, MethodName: sip.INVITE})
	appendHeader(req, Header{"Contact", c.contact()})
	appendHeader(req, Header{"Allow", allow})
	if c.u.o.UserAgent != "" {
		appendHeader(req, Header{"User-Agent", c.u.o.UserAgent})
	}
	for _, h := range c.auth {
		appendHeader(req, h)
	}
	for _, h := range c.o.Headers {
		if !ours[canonical(h.Name)] {
			appendHeader(req, h)
		}
	}
	appendHeader(req, Header{"Content-Type", contentSDP})
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
	"MIME-Version", "Accept", "Request-Disposition", "Target-Dialog", "P-Charging-Vector")

func headerSet(names ...string) map[string]bool {
	m := map[string]bool{}
	for _, n := range names {
		m[canonical(n)] = true
	}
	return m
}

func (c *outgoing) contact() string {
	host, port := c.hop.f.ln.sentBy(c.hop.addr.Addr())
	uri := sip.Uri{Scheme: "sip", Host: host, Port: port, User: c.from.Address.User}
	if c.hop.f.reliable() {
		uri.UriParams.Add("transport", "tcp")
	}
	return "<" + uri.String() + ">"
}

// answer makes credentials for a challenge (RFC 3261 §22.2, RFC 7616).
func (c *outgoing) answer(res *sip.Response) (stale bool, err error) {
	ask, give := "WWW-Authenticate", "Authorization"
	if res.StatusCode == 407 {
		ask, give = "Proxy-Authenticate", "Proxy-Authorization"
	}
	var chal *digest.Challenge
	for _, v := range headerValues(res, ask) { // the first that we can answer
		if parsed, err := digest.ParseChallenge(v); err == nil && digest.CanDigest(parsed) {
			chal = parsed
			break
		}
	}
	if chal == nil {
		return false, errors.New("sip: no challenge that can be answered")
	}
	cred, err := digest.Digest(chal, digest.Options{
		Method: string(sip.INVITE), URI: c.uri.String(), Username: c.o.Username, Password: c.o.Password, Count: 1,
	})
	if err != nil {
		return false, fmt.Errorf("sip: answer a challenge: %w", err)
	}
	h := Header{give, cred.String()}
	for i := range c.auth {
		if c.auth[i].Name == give {
			c.auth[i] = h
			return chal.Stale, nil
		}
	}
	c.auth = append(c.auth, h)
	return true, nil
}

// hangUp confirms an answer that nobody wants any more, and ends it.
func (c *outgoing) hangUp(res *sip.Response, key string) {
	d, err := c.dialog(res, key)
	if err != nil {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel() // the BYE is sent and repeated without anybody waiting
	_ = d.Bye(ctx, Reason{Cause: 16, Text: "Cancelled"})
}

// dialog makes the dialog of an answer (RFC 3261 §12.1.2) and confirms it.
func (c *outgoing) dialog(res *sip.Response, key string) (*Dialog, error) {
	contact, to := res.Contact(), res.To()
	if to == nil || param(to.Params, "tag") == "" {
		c.u.forgetClient(key)
		return nil, fmt.Errorf("%w: its answer has no To tag", ErrUnreachable)
	}
	d := &Dialog{
		u: c.u, f: c.hop.f, invite: c.mirrored(to), done: make(chan struct{}),
		id:       dialogID{call: string(c.call), local: c.tag, remote: param(to.Params, "tag")},
		local:    c.hop.f.ln.facing(c.hop.addr.Addr()),
		target:   *c.uri.Clone(),
		state:    confirmed,
		localSeq: c.seq,
		unacked:  map[uint32]*unacked{},
	}
	d.refreshTarget(contact)
	rr := res.GetHeaders("Record-Route")
	for i := len(rr) - 1; i >= 0; i-- { // in reverse (RFC 3261 §12.1.2)
		if h, ok := rr[i].(*sip.RecordRouteHeader); ok {
			d.routes = append(d.routes, *h.Address.Clone())
		}
	}
	c.u.mu.Lock()
	if c.u.closed || len(c.u.dialogs) >= c.u.o.MaxDialogs {
		c.u.mu.Unlock()
		c.u.forgetClient(key)
		return nil, ErrEnded
	}
	c.u.dialogs[d.id] = d
	c.u.mu.Unlock()
	d.ack(c.sent, key)
	return d, nil
}

// mirrored is the INVITE as if the peer had sent it: a dialog's requests take
// their From, To and Contact from it.
func (c *outgoing) mirrored(to *sip.ToHeader) *sip.Request {
	m := sip.NewRequest(sip.INVITE, sip.Uri{Scheme: "sip", User: c.from.Address.User, Host: c.from.Address.Host})
	from := to.AsFrom()
	m.AppendHeader(&from)
	self := c.from
	self.Params = nil
	us := self.AsTo()
	m.AppendHeader(&us)
	call := c.call
	m.AppendHeader(&call)
	m.AppendHeader(&sip.CSeqHeader{SeqNo: 0, MethodName: sip.INVITE})
	m.SetBody(nil)
	return m
}
