package jicofo

import (
	"maps"
	"slices"
	"strconv"
	"strings"
)

const nsColibriStats = "http://jitsi.org/protocol/colibri"

// brewery is the room in which gateways wait for dial requests.
type brewery struct {
	room     string
	joined   bool
	gateways []*gateway // in order of joining
}

type gateway struct {
	nick, jid string
	stats     map[string]string // nil until it published any
}

// Gateway is a snapshot of a gateway in the brewery.
type Gateway struct {
	Nick, JID string
	Stats     map[string]string
}

// Gateways returns the gateways present in the brewery.
func (j *Jicofo) Gateways() []Gateway {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.brewery == nil {
		return nil
	}
	var gs []Gateway
	for _, g := range j.brewery.gateways {
		gs = append(gs, Gateway{g.nick, g.jid, maps.Clone(g.stats)})
	}
	return gs
}

// joinBrewery enters the brewery, if there is one.
func (j *Jicofo) joinBrewery() {
	if j.o.Brewery == "" {
		return
	}
	b := &brewery{room: strings.ToLower(j.o.Brewery)}
	j.brewery = b
	j.send(el("", "presence", "from", j.user+"/focus", "to", b.room+"/"+j.o.Nick).add(
		el(nsMUC, "x"),
		el("", "priority").text("0"),
		el(nsCaps, "c", "hash", "sha-1", "node", capsNode, "ver", capsHash(ownInfo())),
	))
}

// breweryPresence takes what the brewery sends.
func (j *Jicofo) breweryPresence(b *brewery, nick string, e *element) {
	kind := e.attr("type")
	if nick == j.o.Nick {
		switch {
		case kind == "" && !b.joined && hasStatus(e, "110"):
			b.joined = true
			j.configure(b.room, func(bool) {})
			j.log.Info("focus joined", "room", b.room)
		case kind != "": // refused, removed or destroyed: try again
			j.log.Warn("focus is not in the brewery", "room", b.room, "presence", kind)
			j.brewery = nil
			n := j.connection
			j.after(j.o.ReconnectInterval, func() {
				if j.connection == n && j.comp != nil && j.brewery == nil {
					j.joinBrewery()
				}
			})
		}
		return
	}
	i := slices.IndexFunc(b.gateways, func(g *gateway) bool { return g.nick == nick })
	switch {
	case kind == "unavailable" && i >= 0:
		b.gateways = slices.Delete(b.gateways, i, i+1)
		return
	case kind != "":
		return
	case i < 0:
		i = len(b.gateways)
		b.gateways = append(b.gateways, &gateway{nick: nick})
	}
	g := b.gateways[i]
	g.jid = e.child(nsMUCUser, "x").child("", "item").attr("jid")
	if x := e.child(nsColibriStats, "stats"); x != nil {
		g.stats = map[string]string{}
		for _, s := range x.children("stat") {
			g.stats[s.attr("name")] = s.attr("value")
		}
	}
}

// choose picks the gateway for a call: in the regions of the conference's
// bridges, else in Jicofo's, else any; of those the one with the fewest
// participants. stress_level is not looked at.
func (b *brewery) choose(regions []string, local string, tried []string) *gateway {
	var able []*gateway
	for _, g := range b.gateways {
		if g.stats["supports_sip"] == "true" && g.stats["graceful_shutdown"] != "true" && !slices.Contains(tried, g.nick) {
			able = append(able, g)
		}
	}
	in := func(regions ...string) []*gateway {
		var gs []*gateway
		for _, g := range able {
			if r := g.stats["region"]; r != "" && slices.Contains(regions, r) {
				gs = append(gs, g)
			}
		}
		return gs
	}
	for _, gs := range [][]*gateway{in(regions...), in(local), able} {
		if len(gs) > 0 {
			return slices.MinFunc(gs, func(a, b *gateway) int { return a.load() - b.load() })
		}
	}
	return nil
}

func (g *gateway) load() int {
	n, _ := strconv.Atoi(g.stats["participants"])
	return n
}

// handleDial relays a participant's dial request to a gateway.
func (j *Jicofo) handleDial(iq, x *element) {
	if bareOf(iq.attr("to")) != j.user {
		j.replyError(iq, "modify", "bad-request", "")
		return
	}
	c, p := j.sender(iq)
	if p == nil {
		j.replyError(iq, "cancel", "item-not-found", "")
		return
	}
	room := ""
	for _, h := range x.children("header") {
		if h.attr("name") == "JvbRoomName" {
			room = h.attr("value")
		}
	}
	if p.role != "moderator" && !j.o.NoModeratorChecks || j.roomKey(room) != c.room {
		j.replyError(iq, "auth", "forbidden", "")
		return
	}
	var regions []string
	for _, m := range c.members {
		if m.session != nil {
			regions = append(regions, m.session.bridge.Region())
		}
	}
	j.relayDial(iq, x, regions, nil)
}

// relayDial asks one gateway and, when it fails, another.
func (j *Jicofo) relayDial(iq, x *element, regions, tried []string) {
	b := j.brewery
	if b == nil {
		j.replyError(iq, "cancel", "service-unavailable", "")
		return
	}
	g := b.choose(regions, j.o.Region, tried)
	if g == nil {
		j.log.Warn("no gateway for a dial request", "tried", tried)
		j.replyError(iq, "cancel", "service-unavailable", "")
		return
	}
	tried = append(slices.Clone(tried), g.nick)
	j.log.Info("dial relayed", "gateway", g.nick)
	// The same element goes out again: it is never changed.
	j.request(j.user+"/focus", b.room+"/"+g.nick, "set", x, j.o.DialTimeout, func(reply *element) {
		switch {
		case reply.attr("type") == "result":
			var ref *element
			if len(reply.Kids) > 0 {
				ref = reply.Kids[0]
			}
			j.reply(iq, ref)
		case len(tried) <= j.o.DialRetries:
			j.relayDial(iq, x, regions, tried)
		case reply == nil:
			j.replyError(iq, "wait", "remote-server-timeout", "")
		default:
			j.replyError(iq, "cancel", "undefined-condition", "")
		}
	})
}
