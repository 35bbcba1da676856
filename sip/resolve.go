package sip

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/emiago/sipgo/sip"
)

// maxTargets bounds how many servers are tried for a request.
const maxTargets = 16

// target is a server that a request may go to.
type target struct {
	network string
	addr    netip.AddrPort
	name    string // whom a certificate there must name
}

func (t target) String() string { return t.network + " " + t.addr.String() }

// defaultPort is RFC 3261 §19.1.2's, and RFC 7118's for WebSocket.
func defaultPort(network string) int {
	switch network {
	case "tls":
		return 5061
	case "ws":
		return 80
	case "wss":
		return 443
	}
	return 5060
}

// networkOf returns the transport that a URI names, "" if it leaves it open.
func networkOf(uri *sip.Uri) (string, error) {
	network := strings.ToLower(param(uri.UriParams, "transport"))
	secure := strings.EqualFold(uri.Scheme, "sips")
	switch network {
	case "", "tls", "wss":
		return network, nil
	case "tcp":
		if secure {
			return "tls", nil
		}
		return network, nil
	case "ws":
		if secure {
			return "wss", nil
		}
		return network, nil
	case "udp":
		if !secure {
			return network, nil
		}
	}
	return "", fmt.Errorf("sip: no way over transport %s", clean(network))
}

// targets returns the servers of a URI, best first (RFC 3263 §4). Where it
// does not name a transport, that of f is taken for a numeric address.
func (u *UA) targets(ctx context.Context, f flow, uri *sip.Uri) ([]target, error) {
	secure := strings.EqualFold(uri.Scheme, "sips")
	if !secure && !strings.EqualFold(uri.Scheme, "sip") {
		return nil, fmt.Errorf("sip: no way to %s URIs", clean(uri.Scheme))
	}
	network, err := networkOf(uri)
	if err != nil {
		return nil, err
	}
	host := strings.Trim(cmp.Or(param(uri.UriParams, "maddr"), uri.Host), "[]")
	name := strings.TrimSuffix(strings.ToLower(strings.Trim(uri.Host, "[]")), ".")
	if strings.HasSuffix(name, ".invalid") {
		return nil, fmt.Errorf("sip: %s is reached over its own connection only, which is gone", clean(name))
	}
	port := uri.Port
	if port < 0 || port > 65535 {
		return nil, fmt.Errorf("sip: port %d", port)
	}
	fallback := "udp"
	switch {
	case secure:
		fallback = "tls"
	case f.ln != nil:
		fallback = f.ln.network
	}
	if addr, err := netip.ParseAddr(host); err == nil {
		n := cmp.Or(network, fallback)
		return []target{{n, netip.AddrPortFrom(unmap(netip.AddrPortFrom(addr, 0)).Addr(), uint16(cmp.Or(port, defaultPort(n)))), name}}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, 16*u.o.Resolver.timeout())
	defer cancel()
	out, err := u.lookUp(ctx, strings.TrimSuffix(host, "."), name, network, fallback, port, secure)
	if err != nil {
		return nil, fmt.Errorf("sip: resolve %s: %w", clean(host), err)
	}
	// Those that failed lately come last.
	now := u.now()
	slices.SortStableFunc(out, func(a, b target) int { return u.failing.compare(a, b, now) })
	return out[:min(len(out), maxTargets)], nil
}

func (u *UA) lookUp(ctx context.Context, host, name, network, fallback string, port int, secure bool) ([]target, error) {
	r := u.o.Resolver
	plain := func(n string) ([]target, error) {
		return u.addressTargets(ctx, n, host, name, cmp.Or(port, defaultPort(n)))
	}
	if port != 0 || network == "ws" || network == "wss" {
		return plain(cmp.Or(network, fallback))
	}
	var ways []naptr
	if network == "" {
		ways, _ = r.preferences(ctx, host, secure) // no answer is as none
	}
	if len(ways) == 0 {
		for _, w := range []naptr{{"udp", "_sip._udp." + host}, {"tcp", "_sip._tcp." + host}, {"tls", "_sips._tcp." + host}} {
			if network == w.network || network == "" && (w.network == "tls" || !secure) {
				ways = append(ways, w)
			}
		}
	}
	var out []target
	var denied bool
	var failed error
	for _, w := range ways {
		servers, exists, err := r.services(ctx, w.srv)
		denied = denied || exists
		failed = cmp.Or(failed, err)
		for _, s := range servers {
			if len(out) >= maxTargets {
				break
			}
			list, err := u.addressTargets(ctx, w.network, s.name, name, s.port)
			failed = cmp.Or(failed, err)
			out = append(out, list...)
		}
	}
	switch {
	case len(out) > 0:
		return out, nil
	case denied:
		return nil, cmp.Or(failed, errors.New("its SRV records name no server"))
	}
	return plain(cmp.Or(network, fallback))
}

// addressTargets returns the addresses of a host that we have a way to.
func (u *UA) addressTargets(ctx context.Context, network, host, name string, port int) ([]target, error) {
	ips, err := u.o.Resolver.addresses(ctx, host)
	if err != nil {
		return nil, err
	}
	var out []target
	for _, ip := range ips {
		if t := (target{network, netip.AddrPortFrom(ip, uint16(port)), name}); u.listenerFor(network, ip) != nil && !slices.Contains(out, t) {
			out = append(out, t)
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("no %s listener to reach %s", clean(network), ips[0])
	}
	return out, nil
}

// Resolve returns the addresses of the servers of a SIP URI, best first (RFC
// 3263 §4).
func (u *UA) Resolve(ctx context.Context, uri string) ([]netip.AddrPort, error) {
	parsed, err := parseURI(uri)
	if err != nil {
		return nil, err
	}
	targets, err := u.targets(ctx, flow{}, &parsed)
	var out []netip.AddrPort
	for _, t := range targets {
		out = append(out, t.addr)
	}
	return out, err
}

// reach opens the way to a target; f's listener and connection are used where
// they fit.
func (u *UA) reach(ctx context.Context, f flow, t target) (hop, error) {
	ln := f.ln
	if ln == nil || ln.network != t.network || !ln.reaches(t.addr.Addr()) {
		if ln = u.listenerFor(t.network, t.addr.Addr()); ln == nil {
			return hop{}, fmt.Errorf("sip: no %s listener to reach %s", clean(t.network), t.addr)
		}
	}
	if t.network == "udp" {
		return hop{f: flow{ln: ln, peer: t.addr, trunk: f.trunk}, addr: t.addr}, nil
	}
	if c := f.conn; c != nil && f.open() && c.key.network == t.network && c.peer() == t.addr {
		return hop{f: f, addr: t.addr}, nil
	}
	c, err := u.dial(ctx, ln, t, f.trunk)
	if err != nil {
		return hop{}, fmt.Errorf("sip: connect to %s: %w", t, err)
	}
	return hop{f: flow{ln: ln, conn: c, peer: t.addr, trunk: f.trunk}, addr: t.addr}, nil
}

// first reaches the first server of a URI that can be reached.
func (u *UA) first(ctx context.Context, f flow, uri *sip.Uri) (h hop, err error) {
	targets, err := u.targets(ctx, f, uri)
	for _, t := range targets {
		if h, err = u.reach(ctx, f, t); err == nil {
			return h, nil
		}
		u.failing.add(t, u.now().Add(u.o.DownTime))
	}
	return h, err
}

// try has a request sent to one server of a URI after another, until one is
// there for it (RFC 3263 §4.3).
func (u *UA) try(ctx context.Context, log *slog.Logger, f flow, uri *sip.Uri, send func(hop) (*sip.Response, error)) (*sip.Response, error) {
	targets, err := u.targets(ctx, f, uri)
	if err != nil {
		return nil, err
	}
	var res *sip.Response
	for i, t := range targets {
		h, why := u.reach(ctx, f, t)
		if res, err = nil, why; why == nil {
			h.more = i+1 < len(targets)
			res, err = send(h)
		}
		down := u.o.DownTime
		switch {
		case errors.Is(err, ErrEnded) || ctx.Err() != nil || err == nil && res.StatusCode != 503:
			if err == nil {
				u.failing.remove(t)
			}
			return res, err
		case err == nil:
			down = min(seconds(headerValues(res, "Retry-After")), 10*down)
		}
		u.failing.add(t, u.now().Add(down))
		if i+1 < len(targets) {
			if why = err; err == nil {
				why = statusError(res)
			}
			log.Info("sip: trying the next server", "host", clean(uri.Host), "failed", t, "err", why, "next", targets[i+1])
		}
	}
	return res, err
}

// failing remembers servers that failed lately.
type failing struct {
	mu    sync.Mutex
	until map[target]time.Time
}

func (f *failing) add(t target, until time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.until == nil || len(f.until) >= 1024 {
		f.until = map[target]time.Time{}
	}
	f.until[t] = until
}

func (f *failing) remove(t target) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.until, t)
}

// has reports whether a server failed lately.
func (f *failing) has(t target, now time.Time) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return now.Before(f.until[t])
}

func (f *failing) compare(a, b target, now time.Time) int {
	down := func(t target) int {
		if f.has(t, now) {
			return 1
		}
		return 0
	}
	return down(a) - down(b)
}

// listenerFor returns a listener of the network that can reach addr: of
// several the one whose address faces it. Of a network with connections, on
// which nothing is received, it is none in particular.
func (u *UA) listenerFor(network string, addr netip.Addr) *listener {
	var fit []*listener
	for _, l := range u.listeners {
		if l.network == network && l.reaches(addr) {
			fit = append(fit, l)
		}
	}
	switch {
	case len(fit) == 1:
		return fit[0]
	case len(fit) == 0 && network == "udp":
		return nil
	case len(fit) == 0:
		any := netip.IPv6Unspecified()
		if addr.Is4() {
			any = netip.IPv4Unspecified()
		}
		return &listener{u: u, network: network, addr: netip.AddrPortFrom(any, 0)}
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

func hostPort(host string, port int) string { return net.JoinHostPort(host, strconv.Itoa(port)) }
