package sip

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
)

// Resolver asks the DNS. The zero value asks the name servers of
// /etc/resolv.conf.
type Resolver struct {
	Servers []string      // name servers as "ip:port"
	Timeout time.Duration // of a question to one server, 2 s

	turn atomic.Uint32
}

func (r *Resolver) timeout() time.Duration { return cmp.Or(r.Timeout, 2*time.Second) }

// system is the resolver for all but NAPTR, which it does not know.
func (r *Resolver) system() *net.Resolver {
	if len(r.Servers) == 0 {
		return net.DefaultResolver
	}
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		d := net.Dialer{Timeout: r.timeout()}
		return d.DialContext(ctx, network, r.Servers[int(r.turn.Add(1))%len(r.Servers)])
	}}
}

// addresses returns those of a name.
func (r *Resolver) addresses(ctx context.Context, name string) ([]netip.Addr, error) {
	ips, err := r.system().LookupNetIP(ctx, "ip", name)
	if err == nil && len(ips) == 0 {
		err = errors.New("no address")
	}
	for i := range ips {
		ips[i] = ips[i].Unmap()
	}
	return ips, err
}

// srv is a server of a service.
type srv struct {
	name string
	port int
}

// services returns the servers of an SRV name, best first (RFC 2782). exists:
// there are records, be it to say that the service is not to be had here.
func (r *Resolver) services(ctx context.Context, name string) (list []srv, exists bool, err error) {
	_, found, err := r.system().LookupSRV(ctx, "", "", name+".")
	for _, s := range found {
		if target := strings.TrimSuffix(s.Target, "."); target != "" && s.Port != 0 {
			list = append(list, srv{target, int(s.Port)})
		}
	}
	var de *net.DNSError
	if errors.As(err, &de) && de.IsNotFound || len(found) > 0 {
		err = nil
	}
	return list, len(found) > 0, err
}

// naptr is the way to a service that a domain prefers (RFC 2915, RFC 3263 §4.1).
type naptr struct{ network, srv string }

// naptrServices are the services that we know.
var naptrServices = map[string]string{"sip+d2u": "udp", "sip+d2t": "tcp", "sips+d2t": "tls"}

// preferences returns a domain's NAPTR records that lead to SIP, in order.
func (r *Resolver) preferences(ctx context.Context, domain string, secure bool) ([]naptr, error) {
	answer, err := r.ask(ctx, domain, dns.TypeNAPTR)
	if err != nil {
		return nil, err
	}
	var records []*dns.NAPTR
	for _, rr := range answer {
		if n, ok := rr.(*dns.NAPTR); ok && strings.EqualFold(n.Flags, "s") && naptrServices[strings.ToLower(n.Service)] != "" {
			records = append(records, n)
		}
	}
	slices.SortStableFunc(records, func(a, b *dns.NAPTR) int {
		return cmp.Or(cmp.Compare(a.Order, b.Order), cmp.Compare(a.Preference, b.Preference))
	})
	var out []naptr
	for _, n := range records {
		network := naptrServices[strings.ToLower(n.Service)]
		if target := strings.TrimSuffix(n.Replacement, "."); target != "" && (network == "tls" || !secure) {
			out = append(out, naptr{network, target})
		}
	}
	return out, nil
}

// ask asks each server in turn until one answers.
func (r *Resolver) ask(ctx context.Context, name string, kind uint16) ([]dns.RR, error) {
	servers := r.Servers
	if len(servers) == 0 {
		conf, err := dns.ClientConfigFromFile("/etc/resolv.conf")
		if err != nil {
			return nil, err
		}
		for _, s := range conf.Servers {
			servers = append(servers, net.JoinHostPort(s, conf.Port))
		}
	}
	q := new(dns.Msg)
	q.SetQuestion(dns.Fqdn(name), kind)
	q.SetEdns0(1232, false)
	err := errors.New("no name server")
	for _, s := range servers {
		var res *dns.Msg
		if res, _, err = (&dns.Client{Timeout: r.timeout()}).ExchangeContext(ctx, q, s); err == nil && res.Truncated {
			res, _, err = (&dns.Client{Net: "tcp", Timeout: r.timeout()}).ExchangeContext(ctx, q, s)
		}
		switch {
		case err != nil:
		case res.Rcode == dns.RcodeSuccess, res.Rcode == dns.RcodeNameError:
			return res.Answer, nil
		default:
			err = fmt.Errorf("%s: %s", s, dns.RcodeToString[res.Rcode])
		}
	}
	return nil, err
}
