package sip

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
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
func (d *Dialog) send(ctx context.Context, req *sip.Request) (*sip.Response, string, error) {
	h, err := d.nextHop(ctx)
	if err != nil {
		return nil, "", err
	}
	auth := credentials{username: d.username, password: d.password}
	for {
		res, key, err := d.u.roundTrip(ctx, h, req)
		if err != nil || auth.answer(req, res) != nil {
			return res, key, err
		}
		d.mu.Lock()
		d.localSeq++
		again(req, d.localSeq)
		d.mu.Unlock()
	}
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
	h, err := d.nextHop(d.u.ctx)
	if err != nil {
		return
	}
	d.u.addVia(h, req, sip.RFC3261BranchMagicCookie+token(16))
	d.u.keepACK(key, d.id.remote, ack{[]byte(req.String()), h})
}

// nextHop says where requests of the dialog go now: to the first route, else
// to the remote target. A peer that sent the INVITE itself and whose Contact
// names another address sits behind a NAT and is reached where it sent its last
// request from.
func (d *Dialog) nextHop(ctx context.Context) (hop, error) {
	d.mu.Lock()
	uri := d.target
	if len(d.routes) > 0 {
		uri = d.routes[0]
	}
	f := d.way
	d.mu.Unlock()
	transport := strings.ToLower(param(uri.UriParams, "transport"))
	if d.direct {
		if f.conn != nil && !f.conn.closed.Load() && transport != "udp" {
			return hop{f: f, addr: f.peer}, nil
		}
		if a, err := netip.ParseAddr(strings.Trim(uri.Host, "[]")); f.conn == nil && transport != "tcp" && err == nil && a.Unmap() != f.peer.Addr() {
			return hop{f: f, addr: f.peer}, nil
		}
	}
	if transport == "" {
		transport = f.ln.network
	}
	h, err := d.u.resolve(ctx, f, uri, transport)
	if err != nil && ctx.Err() == nil && (f.conn == nil || !f.conn.closed.Load()) {
		return hop{f: f, addr: f.peer}, nil // a name that only the peer knows, a port nobody listens on
	}
	return h, err
}

// resolve finds the way to a URI; f's listener, if it has one, and connection
// are used where they fit.
func (u *UA) resolve(ctx context.Context, f flow, uri sip.Uri, transport string) (hop, error) {
	if uri.Scheme != "sip" {
		return hop{}, fmt.Errorf("sip: no way to %s URIs", clean(uri.Scheme))
	}
	port := uri.Port
	if port <= 0 || port > 65535 {
		port = 5060
	}
	host := strings.Trim(uri.Host, "[]")
	addr, err := netip.ParseAddr(host)
	if err != nil {
		ctx, cancel := context.WithTimeout(ctx, 64*u.o.T1)
		defer cancel()
		ips, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		if err != nil || len(ips) == 0 {
			return hop{}, fmt.Errorf("sip: resolve %s: %w", clean(host), err)
		}
		i := slices.IndexFunc(ips, func(ip netip.Addr) bool { // a family we can send from, the same if we have sent
			if f.ln != nil && f.ln.network == transport {
				return f.ln.reaches(ip.Unmap())
			}
			return u.listenerFor(transport, ip.Unmap()) != nil
		})
		addr = ips[max(0, i)]
	}
	to := netip.AddrPortFrom(addr.Unmap(), uint16(port))
	ln := f.ln
	if ln == nil || ln.network != transport || !ln.reaches(to.Addr()) {
		if ln = u.listenerFor(transport, to.Addr()); ln == nil {
			return hop{}, fmt.Errorf("sip: no %s listener to reach %s", clean(transport), to)
		}
	}
	if transport == "udp" {
		return hop{f: flow{ln: ln, peer: to, trunk: f.trunk}, addr: to}, nil
	}
	if c := f.conn; c != nil && c.peer == to && !c.closed.Load() {
		return hop{f: f, addr: to}, nil
	}
	c, err := u.dial(ctx, ln, to)
	if err != nil {
		return hop{}, fmt.Errorf("sip: connect to %s: %w", to, err)
	}
	return hop{f: flow{ln: ln, conn: c, peer: to, trunk: f.trunk}, addr: to}, nil
}

// listenerFor returns a listener of the network that can reach addr: of
// several the one whose address faces it.
func (u *UA) listenerFor(network string, addr netip.Addr) *listener {
	var fit []*listener
	for _, l := range u.listeners {
		if l.network == network && l.reaches(addr) {
			fit = append(fit, l)
		}
	}
	if len(fit) < 2 {
		return append(fit, nil)[0]
	}
	ours := facing(addr)
	for _, l := range fit {
		if a := l.addr.Addr(); a == ours || a.IsUnspecified() {
			return l
		}
	}
	return fit[0]
}

// reaches reports whether addr is of a family that l can send to.
func (l *listener) reaches(addr netip.Addr) bool {
	a := l.addr.Addr()
	return a.Is4() == addr.Is4() || a == netip.IPv6Unspecified()
}

// Options sends an OPTIONS request to a SIP URI, "sip:host:port;transport=tcp",
// and waits for the answer: nil for 2xx, a [*StatusError] for any other.
func (u *UA) Options(ctx context.Context, target string) error {
	var uri sip.Uri
	if err := sip.ParseUri(target, &uri); err != nil || uri.Host == "" {
		return fmt.Errorf("sip: %q is no SIP URI", target)
	}
	transport := strings.ToLower(param(uri.UriParams, "transport"))
	if transport == "" {
		transport = "udp"
	}
	h, err := u.resolve(ctx, flow{}, uri, transport)
	if err != nil {
		return err
	}
	req := sip.NewRequest(sip.OPTIONS, uri)
	host, port := h.f.ln.sentBy(h.addr.Addr())
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
	res, _, err := u.roundTrip(ctx, h, req)
	if err != nil {
		return err
	}
	if res.StatusCode >= 300 {
		return statusError(res)
	}
	return nil
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
