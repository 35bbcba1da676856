package check

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"brewline/config"
	"brewline/sip"
)

// checkTrunk asks the peer with OPTIONS, from a port of its own.
func checkTrunk(ctx context.Context, cfg *config.Config, t *config.Trunk, o Options, say func(Result)) {
	r := Result{Subject: "trunk " + t.Name, Step: "OPTIONS"}
	if t.Address == "" {
		r.Status, r.Detail = Skip, "the trunk has no address: calls come in only"
		say(r)
		return
	}
	ctx, cancel := context.WithTimeout(ctx, o.Timeout)
	defer cancel()
	began := time.Now()
	err := options(ctx, cfg, t, o)
	r.Took = time.Since(began)
	var status *sip.StatusError
	switch {
	case err == nil:
		r.Status, r.Detail = OK, fmt.Sprintf("%s answers after %s", t.Address, r.Took.Round(time.Millisecond))
	case errors.As(err, &status):
		r.Status, r.Detail = Warn, fmt.Sprintf("%s answers %s", t.Address, err)
		r.Remedy = "the peer is there; let it answer OPTIONS from this address if it should be probed"
	default:
		r.Status, r.Detail = Fail, fmt.Sprintf("%s: %v", t.Address, err)
		r.Remedy = "check address, transport and firewall of the trunk, and that the peer knows this gateway"
	}
	say(r)
}

func options(ctx context.Context, cfg *config.Config, t *config.Trunk, o Options) error {
	bind := netip.IPv4Unspecified()
	if len(cfg.SIP.Listen) > 0 {
		if l, err := config.ParseListener(cfg.SIP.Listen[0]); err == nil {
			if ap, err := netip.ParseAddrPort(l.Address); err == nil {
				bind = ap.Addr()
			}
		}
	}
	address := netip.AddrPortFrom(bind, 0).String()
	ua, err := sip.Listen(ctx, sip.Options{
		Listen:    []sip.Listener{{Network: "udp", Address: address}, {Network: "tcp", Address: address}},
		Match:     func(netip.AddrPort) (string, bool) { return "", false },
		OnInvite:  func(d *sip.Dialog) { d.Reject(480, sip.Reason{Cause: 41, Text: "This is a check"}) },
		UserAgent: cfg.SIP.UserAgent, UnknownSource: "drop", Logger: o.Logger,
	})
	if err != nil {
		return err
	}
	defer ua.Close()
	return ua.Options(ctx, sip.Target{URI: t.Address, Route: t.Proxy, Trunk: t.Name})
}
