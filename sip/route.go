package sip

import (
	"context"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/emiago/sipgo/sip"
)

// newRequest makes a request within the dialog (RFC 3261 §12.2.1.1), without
// Via and body. d.mu is held.
func (d *Dialog) newRequest(m sip.RequestMethod) *sip.Request {
	d.localSeq++
	return d.build(m, d.localSeq)
}

func (d *Dialog) build(m sip.RequestMethod, seq uint32) *sip.Request {
	uri, routes := *d.target.Clone(), d.routes
	uri.Headers = nil
	if len(routes) > 0 {
		if _, loose := paramOK(routes[0].UriParams, "lr"); !loose {
			// A strict router wants itself as Request-URI, the target last.
			uri, routes = *routes[0].Clone(), append(append([]sip.Uri{}, routes[1:]...), uri)
		}
	}
	req := sip.NewRequest(m, uri)
	for _, r := range routes {
		req.AppendHeader(&sip.RouteHeader{Address: *r.Clone()})
	}
	mf := sip.MaxForwardsHeader(70)
	req.AppendHeader(&mf)
	from := d.invite.To().AsFrom()
	from.Params.Add("tag", d.id.local)
	req.AppendHeader(&from)
	to := d.invite.From().AsTo()
	req.AppendHeader(&to)
	req.AppendHeader(d.invite.CallID())
	req.AppendHeader(&sip.CSeqHeader{SeqNo: seq, MethodName: m})
	if d.u.o.UserAgent != "" {
		appendHeader(req, Header{"User-Agent", d.u.o.UserAgent})
	}
	req.SetBody(nil)
	return req
}

// send sends a request within the dialog, again with credentials where they
// are asked for, and returns the final response and the key of its
// transaction. req is then as it was sent last.
func (d *Dialog) send(ctx context.Context, req *sip.Request) (res *sip.Response, key string, err error) {
	return d.sendTold(ctx, req, nil)
}

// sendTold is send that tells final responses where they were read.
func (d *Dialog) sendTold(ctx context.Context, req *sip.Request, final func(*sip.Response)) (res *sip.Response, key string, err error) {
	auth := credentials{username: d.username, password: d.password}
	first := true
	to := func(h hop) (*sip.Response, error) {
		for {
			if !first {
				d.mu.Lock()
				d.localSeq++
				again(req, d.localSeq)
				d.mu.Unlock()
			}
			first = false
			res, key, err = d.u.transact(ctx, &clientTx{hop: h, final: final}, req, nil)
			if err != nil || auth.answer(req, res) != nil {
				return res, err
			}
		}
	}
	h, uri, fixed := d.nextHop()
	if !fixed {
		_, err = d.u.try(ctx, d.u.log.With("sip_call_id", d.CallID()), h.f, &uri, to)
		if !first || err == nil || ctx.Err() != nil || !h.f.open() {
			return res, key, err
		}
		// A name that only the peer knows, a port nobody listens on.
	}
	_, err = to(h)
	return res, key, err
}

// ack confirms a 2xx to an INVITE of ours, with its credentials (RFC 3261
// §13.2.2.4), again for every repetition of it.
func (d *Dialog) ack(invite *sip.Request, key string) {
	d.mu.Lock()
	req := d.build(sip.ACK, invite.CSeq().SeqNo)
	d.mu.Unlock()
	for _, f := range authFields {
		sip.CopyHeaders(f, invite, req)
	}
	h, uri, fixed := d.nextHop()
	if !fixed {
		if other, err := d.u.first(d.u.ctx, h.f, &uri); err == nil {
			h = other
		} else if !h.f.open() {
			return
		}
	}
	d.u.addVia(h, req, sip.RFC3261BranchMagicCookie+token(16))
	d.u.keepACK(key, d.id.remote, ack{[]byte(req.String()), h})
}

// nextHop says where requests of the dialog go now: to the first route, else
// to the remote target, as a URI. Not so (fixed) to a peer that sent the INVITE
// itself and whose Contact names another address: it sits behind a NAT, and is
// reached where it sent its last request from, or over its connection. So is a proxy that wants
// to stay on the path and names the address its connection came from (RFC
// 5923).
func (d *Dialog) nextHop() (h hop, uri sip.Uri, fixed bool) {
	d.mu.Lock()
	uri = d.target
	routed := len(d.routes) > 0
	if routed {
		uri = d.routes[0]
	}
	f := d.way
	d.mu.Unlock()
	h = hop{f: f, addr: f.peer}
	network, err := networkOf(&uri)
	addr, numeric := netip.ParseAddr(strings.Trim(uri.Host, "[]"))
	switch same := network == f.ln.network || network == "ws" && f.ln.network == "wss"; {
	case err != nil:
	case f.conn == nil:
		fixed = d.direct && (network == "" || same) && numeric == nil && addr.Unmap() != f.peer.Addr()
	case !f.open():
	case d.direct:
		fixed = network != "udp"
	case routed && !f.conn.dialled:
		fixed = same && numeric == nil && addr.Unmap() == f.peer.Addr()
	}
	return h, uri, fixed
}

// Target is where a request outside of a dialog goes.
type Target struct {
	URI   string // "sip:host:port;transport=tcp"
	Route string // outbound proxy as a SIP URI, "": none
	Trunk string // whose peer it is, for Options.ClientTLS and Options.AdvertiseFor
}

// route returns the URI that a request goes to next, and the outbound proxy's
// Route if there is one.
func (t Target) route() (uri, next sip.Uri, route *sip.RouteHeader, err error) {
	if uri, err = parseURI(t.URI); err != nil || t.Route == "" {
		return uri, uri, nil, err
	}
	if next, err = parseURI(t.Route); err != nil {
		return uri, next, nil, fmt.Errorf("outbound proxy: %w", err)
	}
	if _, loose := paramOK(next.UriParams, "lr"); !loose {
		next.UriParams.Add("lr", "")
	}
	return uri, next, &sip.RouteHeader{Address: next}, nil
}

// Options sends an OPTIONS request, and waits for the answer: nil for 2xx, a
// [*StatusError] for any other.
func (u *UA) Options(ctx context.Context, t Target) error {
	uri, next, route, err := t.route()
	if err != nil {
		return err
	}
	var req *sip.Request
	res, err := u.try(ctx, u.log.With("trunk", t.Trunk), flow{trunk: t.Trunk}, &next, func(h hop) (*sip.Response, error) {
		if req == nil {
			req = u.options(h, uri, route)
		}
		for req.RemoveHeader("Via") {
		}
		res, _, err := u.roundTrip(ctx, h, req)
		return res, err
	})
	if err != nil {
		return err
	}
	if res.StatusCode >= 300 {
		return statusError(res)
	}
	return nil
}

func (u *UA) options(h hop, uri sip.Uri, route *sip.RouteHeader) *sip.Request {
	req := sip.NewRequest(sip.OPTIONS, uri)
	host, port := h.f.sentBy()
	if route != nil {
		req.AppendHeader(route)
	}
	mf := sip.MaxForwardsHeader(70)
	req.AppendHeader(&mf)
	from := sip.FromHeader{Address: sip.Uri{Scheme: "sip", Host: host, Port: port}}
	from.Params.Add("tag", token(16))
	req.AppendHeader(&from)
	req.AppendHeader(&sip.ToHeader{Address: *uri.Clone()})
	id := sip.CallIDHeader(token(20))
	req.AppendHeader(&id)
	req.AppendHeader(&sip.CSeqHeader{SeqNo: 1, MethodName: sip.OPTIONS})
	appendHeader(req, Header{"Accept", contentSDP})
	if u.o.UserAgent != "" {
		appendHeader(req, Header{"User-Agent", u.o.UserAgent})
	}
	req.SetBody(nil)
	return req
}

// seconds reads a header field of delta-seconds; 0: none, or unreadable.
func seconds(values []string) time.Duration {
	if len(values) == 0 {
		return 0
	}
	n, err := strconv.ParseUint(strings.TrimSpace(values[0]), 10, 31)
	if err != nil {
		return 0
	}
	return time.Duration(n) * time.Second
}
