package gateway

import (
	"context"
	"net/netip"

	"brewline/config"
	"brewline/gateway/trunk"
	"brewline/sip"
)

// trunkUA is the user agent as the trunks need it.
type trunkUA struct{ *sip.UA }

func (u trunkUA) Options(ctx context.Context, uri, proxy, trunk string) error {
	return u.UA.Options(ctx, sip.Target{URI: uri, Route: proxy, Trunk: trunk})
}

// match finds the trunk of a source address: by the configuration, or since
// the trunk registers there.
func (g *Gateway) match(src netip.AddrPort) (string, bool) {
	if t := g.cfg.Load().TrunkFor(src.Addr()); t != nil {
		return t.Name, true
	}
	return g.trunks.Match(src.Addr())
}

// called tells trunks behind one address apart: who calls what one of them has
// registered there calls that one.
func (g *Gateway) called(src netip.AddrPort, trunk, user string) string {
	if name, ok := g.trunks.Called(src.Addr(), user); ok {
		return name
	}
	return trunk
}

// accept puts those in force whom a trunk lets in by digest.
func (g *Gateway) accept(cfg *config.Config) {
	var list []sip.Account
	for i := range cfg.Trunks {
		if t := &cfg.Trunks[i]; t.AcceptUsername != "" {
			list = append(list, sip.Account{Trunk: t.Name, Username: t.AcceptUsername, Password: t.AcceptPassword.Value()})
		}
	}
	g.accounts.Store(&list)
}

// tellDialable tells the breweries which shards may dial something: over a
// trunk with an address that is not known to be down.
func (g *Gateway) tellDialable() {
	g.dialable.Lock()
	defer g.dialable.Unlock()
	cfg := g.cfg.Load()
	usable := func(name string) bool {
		t := cfg.Trunk(name)
		return t != nil && t.Address != "" && !g.trunks.Down(name)
	}
	for i := range cfg.Shards {
		g.set.SetCanDial(cfg.Shards[i].Name, g.plan.Allows(cfg.Shards[i].Name, usable))
	}
}

// alive leaves trunks out that are known to be down, unless all are: then one
// of them may be back.
func (g *Gateway) alive(names []string) []string {
	var out []string
	for _, n := range names {
		if !g.trunks.Down(n) {
			out = append(out, n)
		}
	}
	if len(out) == 0 {
		return names
	}
	return out
}

func (g *Gateway) newTrunks() *trunk.Set {
	o := g.o.Trunks
	o.Logger, o.Changed = g.log, g.tellDialable
	return trunk.New(o)
}
