package gateway

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"brewline/brewery"
	"brewline/config"
	"brewline/gateway/call"
	"brewline/gateway/conference"
	"brewline/gateway/dialplan"
	"brewline/gateway/phone"
	"brewline/sip"
	"brewline/xmpp"
)

// resolveTimeout bounds the look-up of a trunk's host name.
const resolveTimeout = 2 * time.Second

// loadInterval is how often the breweries are told the process's load, if it
// has changed.
const loadInterval = time.Second

// maxDialling bounds the dial requests that wait for their call to be in its
// room. A machine that is too slow for more says so at once: Jicofo asks another
// gateway then, instead of having waited in vain.
const maxDialling = 256

// waitingDial is a dial request that is counted until its answer.
type waitingDial struct {
	*brewery.DialRequest
	done func()
}

func (w waitingDial) Ref(occupant xmpp.JID) error {
	w.done()
	return w.DialRequest.Ref(occupant)
}

func (w waitingDial) Refuse(condition, text string) error {
	w.done()
	return w.DialRequest.Refuse(condition, text)
}

// dial takes a shard's request to call a number.
func (g *Gateway) dial(r *brewery.DialRequest) {
	cfg := g.cfg.Load()
	g.counters.dials.Add(1)
	id := callID()
	log := g.log.With("call", id, "room", r.Conference.String())
	g.dialling.Add(1)
	waiting := waitingDial{r, sync.OnceFunc(func() { g.dialling.Add(-1) })}
	refuse := func(end call.End, condition string, detail error) {
		o := end.Outcome()
		g.counters.ended(end)
		log.Warn("dial request refused", "end", string(end), "why", o.Text, "detail", detail)
		waiting.Refuse(condition, o.Text)
	}
	if end := g.full(); end != "" {
		refuse(end, "resource-constraint", nil)
		return
	}
	if g.dialling.Load() > maxDialling {
		refuse(call.EndBusy, "resource-constraint", errors.New("too many dial requests wait already"))
		return
	}
	out := &call.Outbound{Request: waiting, Shard: r.Shard, Room: r.Room, Headers: r.Headers}
	number, err := dialplan.Normalize(r.To)
	var route dialplan.Route
	free := func() {}
	if err == nil {
		var done func()
		if route, done, err = g.plan.Admit(r.Shard.Name(), number); err == nil {
			free = done
			out.Redirect = g.redirects(r, number, route.Redirects, &free)
		}
	}
	out.To, out.Refused = number, err
	if err != nil {
		number = r.To
		log.Warn("number refused", "to", cfg.Gateway.Mask(r.To), "why", err)
	} else if out.Targets, err = g.targets(cfg, r.Room.String(), r.Headers, route, true); err != nil {
		free()
		refuse(call.EndCalleeFailed, "service-unavailable", err)
		return
	}
	trunk := &config.Trunk{Name: ""} // of no trunk while it is not dialled
	if len(out.Targets) > 0 {
		trunk = cfg.Trunk(out.Targets[0].Trunk)
	}
	release, carried, end := g.admit(trunk)
	if end != "" {
		free()
		refuse(end, "resource-constraint", nil)
		return
	}
	log = log.With("trunk", trunk.Name)
	ct := g.conferenceTimers(cfg)
	o := call.Options{
		ID: id, Out: out, Trunk: trunk.Name, Deployment: r.Deployment, Room: r.Conference,
		Password: r.Password, DisplayName: calleeName(cfg, trunk, number), Mask: cfg.Gateway.Mask,
		Transfer: g.transfers(r.Room.String(), r.Headers),
		NameOf:   g.nameOf, Carry: g.carry, Carried: carried,
		Pacer: g.pacer, OpusComplexity: cfg.Media.OpusComplexity,
		Conference: conference.Options{
			StatsID: cfg.Gateway.StatsID, Region: cfg.Gateway.Region, Version: "Brewline " + g.o.Version,
			Transport: g.transport(cfg), Timers: ct,
		},
		Timers: g.callTimers(cfg),
		Logger: log,
		OnEnd: func(s call.Summary) {
			free()
			waiting.done()
			g.over(id, s, release)
		},
	}
	g.run(id, o)
}

// redirects follows a callee's 301 and 302, at most so many times and never
// back to a number that was dialled. Each new number needs a rule as if it had
// been asked for; free gives back the place of the last one. It is used by one
// goroutine at a time.
func (g *Gateway) redirects(r *brewery.DialRequest, number string, most int, free *func()) func(string) ([]call.Target, error) {
	dialled := []string{number}
	return func(contact string) ([]call.Target, error) {
		number, err := dialplan.OfContact(contact)
		switch {
		case err != nil:
			return nil, err
		case len(dialled) > most:
			return nil, fmt.Errorf("no more than %d redirections are followed", most)
		case slices.Contains(dialled, number):
			return nil, errors.New("redirected in a circle")
		}
		dialled = append(dialled, number)
		(*free)()
		*free = func() {}
		route, done, err := g.plan.Admit(r.Shard.Name(), number)
		if err != nil {
			return nil, err
		}
		*free = done
		return g.targets(g.cfg.Load(), r.Room.String(), r.Headers, route, false)
	}
}

// transfers finds out how to reach whom a phone's REFER names: by its user
// part, as if the room had asked for it.
func (g *Gateway) transfers(room string, headers []xmpp.Header) func(string, *sip.Refer) ([]call.Target, func(), error) {
	return func(shard string, r *sip.Refer) ([]call.Target, func(), error) {
		number, err := dialplan.OfContact(r.URI)
		if err != nil {
			return nil, nil, err
		}
		route, release, err := g.plan.Admit(shard, number)
		if err != nil {
			return nil, nil, err
		}
		cfg := g.cfg.Load()
		targets, err := g.targets(cfg, room, headers, route, false)
		if err != nil {
			release()
			return nil, nil, err
		}
		for i := range targets {
			targets[i].Name = shownName(cfg.Trunk(targets[i].Trunk), sip.Identity{Party: sip.Party{Display: r.Name, User: number}})
		}
		return targets, release, nil
	}
}

// targets are the trunks of a route that can take a call: now, or at all.
func (g *Gateway) targets(cfg *config.Config, room string, headers []xmpp.Header, route dialplan.Route, now bool) ([]call.Target, error) {
	var out []call.Target
	var last error
	for _, name := range g.alive(route.Trunks) {
		t := cfg.Trunk(name)
		if t == nil || t.Address == "" {
			last = fmt.Errorf("trunk %s has no address", name)
			continue
		}
		g.mu.Lock()
		busy := now && g.fullTrunk(t)
		g.mu.Unlock()
		if busy {
			last = fmt.Errorf("trunk %s has as many calls as it may", name)
			continue
		}
		uri, proxy, peer, err := g.dialURI(t, route.Number)
		if err != nil {
			last = fmt.Errorf("trunk %s: %w", name, err)
			continue
		}
		fromUser, fromDomain := t.From()
		o := phone.DialOptions{
			Options: g.phoneOptions(cfg, t),
			UA:      g.ua, URI: uri, Route: proxy, Trunk: t.Name, Peer: peer, Username: t.Username, Password: t.Password.Value(),
			From:       sip.Party{User: fromUser, Host: fromDomain},
			EarlyMedia: t.EarlyMedia, Timeout: t.DialTimeout.Duration,
			Headers: []sip.Header{{Name: "JigasiCallDirection", Value: "out"}},
		}
		if h := cfg.SIP.Headers.Room; len(h) > 0 {
			o.Headers = append(o.Headers, sip.Header{Name: h[0], Value: room})
		}
		for _, h := range headers {
			o.Headers = append(o.Headers, sip.Header{Name: h.Name, Value: h.Value})
		}
		out = append(out, call.Target{Trunk: name, Dial: o})
	}
	if len(out) == 0 && last == nil {
		last = errors.New("the rule names no trunk")
	}
	if len(out) > 0 {
		last = nil
	}
	return out, last
}

// dialURI is what a number is dialled as over a trunk, by which proxy, and
// where the call goes first.
func (g *Gateway) dialURI(t *config.Trunk, number string) (uri, route string, peer netip.AddrPort, err error) {
	address := strings.TrimPrefix(t.Address, "sip:")
	hostport, params, _ := strings.Cut(address, ";")
	if i := strings.LastIndexByte(hostport, '@'); i >= 0 {
		hostport = hostport[i+1:]
	}
	if params != "" {
		params = ";" + params
	}
	user, host, isAddress := strings.Cut(number, "@")
	uri, route = "sip:"+url.PathEscape(user)+"@"+hostport+params, t.Proxy
	if isAddress {
		uri = "sip:" + url.PathEscape(user) + "@" + host
		route = cmp.Or(t.Proxy, "sip:"+hostport+params) // the trunk is the way there
	}
	ctx, cancel := context.WithTimeout(g.ctx, resolveTimeout)
	defer cancel()
	peers, err := g.ua.Resolve(ctx, cmp.Or(route, uri))
	if err != nil {
		return "", "", peer, err
	}
	return uri, route, peers[0], nil
}

// tellLoad keeps the breweries informed until ctx ends.
func (g *Gateway) tellLoad(ctx context.Context) {
	tick := time.NewTicker(loadInterval)
	defer tick.Stop()
	for {
		g.updateLoad()
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

func (g *Gateway) updateLoad() {
	cfg := g.cfg.Load()
	load := brewery.Load{Draining: g.Draining()}
	g.mu.Lock()
	for _, c := range g.calls {
		load.Conferences++
		load.Participants += c.Info().InRoom()
	}
	g.mu.Unlock()
	load.Stress = float64(load.Conferences) / float64(cfg.Gateway.MaxCalls)
	g.set.SetLoad(load)
}

// applyRules puts the dial rules of a configuration in force.
func (g *Gateway) applyRules(cfg *config.Config) {
	rules := make([]dialplan.Rule, 0, len(cfg.Dial))
	for i := range cfg.Dial {
		r := &cfg.Dial[i]
		rules = append(rules, dialplan.Rule{
			Name: r.Name, Shards: r.Shards, Pattern: r.Regexp(), Deny: r.Deny, Trunks: r.Trunks,
			Number: r.Number, MaxCalls: r.MaxCalls, PerMinute: r.PerMinute, Redirects: r.Redirects,
		})
	}
	g.plan.SetRules(rules)
	g.tellDialable()
}
