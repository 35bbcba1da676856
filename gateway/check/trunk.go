package check

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"brewline/config"
	"brewline/gateway"
	"brewline/sip"
)

// checkTrunk asks the peer with OPTIONS and the registrars for what is
// registered, which changes nothing, from a port of its own.
func checkTrunk(ctx context.Context, cfg *config.Config, t *config.Trunk, o Options, say func(Result)) {
	subject := "trunk " + t.Name
	if t.Address == "" && len(t.Register) == 0 {
		say(Result{Subject: subject, Step: "OPTIONS", Status: Skip, Detail: "the trunk has no address: calls come in only"})
		return
	}
	ua, err := userAgent(ctx, cfg, o)
	if err != nil {
		say(Result{Subject: subject, Step: "SIP", Status: Fail, Detail: err.Error(), Remedy: "look at sip.listen and the certificates of the trunk"})
		return
	}
	defer ua.Close()
	if t.Address != "" {
		r := Result{Subject: subject, Step: "OPTIONS"}
		took, err := timed(ctx, o, func(ctx context.Context) error {
			return ua.Options(ctx, sip.Target{URI: t.Address, Route: t.Proxy, Trunk: t.Name})
		})
		r.Took = took
		var status *sip.StatusError
		switch {
		case err == nil:
			r.Status, r.Detail = OK, fmt.Sprintf("%s answers after %s", t.Address, took.Round(time.Millisecond))
		case errors.As(err, &status):
			r.Status, r.Detail = Warn, fmt.Sprintf("%s answers %s", t.Address, err)
			r.Remedy = "the peer is there; let it answer OPTIONS from this address if it should be probed"
		default:
			r.Status, r.Detail = Fail, fmt.Sprintf("%s: %v", t.Address, err)
			r.Remedy = remedy(err, "trunk's address", "check address, transport and firewall of the trunk, and that the peer knows this gateway; if it never answers OPTIONS, set probe = \"0s\"")
			if t.Probe.Duration == 0 && errors.Is(err, context.DeadlineExceeded) {
				r.Status, r.Remedy = Warn, "with probe = \"0s\" the peer need not answer OPTIONS; whether it is there only a call tells"
			}
		}
		say(r)
	}
	user, _ := t.From()
	for _, registrar := range t.Register {
		r := Result{Subject: subject, Step: "REGISTER"}
		took, err := timed(ctx, o, func(ctx context.Context) error {
			return ua.FetchRegistration(ctx, sip.RegisterOptions{
				Registrar: registrar, User: user, Host: t.FromDomain, Username: t.Username, Password: t.Password.Value(),
				Route: t.Proxy, Trunk: t.Name,
			})
		})
		r.Took = took
		var status *sip.StatusError
		switch {
		case err == nil:
			r.Status, r.Detail = OK, fmt.Sprintf("%s lets %s register", registrar, user)
		case errors.As(err, &status) && slices.Contains([]int{401, 403, 404, 407}, status.Code):
			r.Status, r.Detail = Fail, fmt.Sprintf("%s answers %s", registrar, err)
			r.Remedy = "check username, password, from_user and from_domain of the trunk"
		case errors.As(err, &status):
			r.Status, r.Detail = Warn, fmt.Sprintf("%s answers %s to the question what is registered", registrar, err)
			r.Remedy = "it may register all the same: brewline_trunk_registered and the log of the service tell"
		default:
			r.Status, r.Detail = Fail, fmt.Sprintf("%s: %v", registrar, err)
			r.Remedy = remedy(err, "trunk's register", "check the registrar's address and transport, and the way there")
		}
		say(r)
	}
}

func timed(ctx context.Context, o Options, f func(context.Context) error) (took time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, o.Timeout)
	defer cancel()
	began := time.Now()
	err = f(ctx)
	return time.Since(began), err
}

func userAgent(ctx context.Context, cfg *config.Config, o Options) (*sip.UA, error) {
	bind := netip.IPv4Unspecified()
	if len(cfg.SIP.Listen) > 0 {
		if l, err := config.ParseListener(cfg.SIP.Listen[0]); err == nil {
			if ap, err := netip.ParseAddrPort(l.Address); err == nil {
				bind = ap.Addr()
			}
		}
	}
	address := netip.AddrPortFrom(bind, 0).String()
	so := sip.Options{
		Match:     func(netip.AddrPort) (string, bool) { return "", false },
		OnInvite:  func(d *sip.Dialog) { d.Reject(480, sip.Reason{Cause: 41, Text: "This is a check"}) },
		UserAgent: cfg.SIP.UserAgent, UnknownSource: "drop", Logger: o.Logger,
	}
	if err := gateway.SIPTransports(cfg.SIP, func() *config.Config { return cfg }, &so); err != nil {
		return nil, err
	}
	so.AdvertiseFor = nil
	so.Listen = []sip.Listener{{Network: "udp", Address: address}, {Network: "tcp", Address: address}}
	return sip.Listen(ctx, so)
}
