package api

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"brewline/brewery"
)

// registry holds the collectors of one server.
func registry(src Source) *prometheus.Registry {
	r := prometheus.NewRegistry()
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		collector{src})
	return r
}

// collector turns a Snapshot into metrics. Labels are bounded by the
// configuration (shard, deployment, trunk) and by the code (end, state).
type collector struct{ src Source }

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("brewline_"+name, help, labels, nil)
}

var (
	descCalls    = desc("calls", "Calls by what they are doing.", "deployment", "shard", "state")
	descTrunk    = desc("trunk_calls", "Calls by trunk.", "trunk")
	descTrunkUp  = desc("trunk_up", "1 unless the trunk is known to be down.", "trunk")
	descTrunkIs  = desc("trunk_state", "1 for the state that the trunk is in.", "trunk", "state")
	descBound    = desc("trunk_registered", "1 while the trunk is registered at the registrar.", "trunk", "registrar")
	descMessages = desc("sip_messages_total", "SIP messages that were not served as a trunk's, by what became of them.", "result")
	descBans     = desc("sip_banned_addresses", "Addresses that are banned.")
	descMaxCalls = desc("calls_max", "Calls that may run at once.")
	descInvites  = desc("invites_total", "INVITEs of known trunks.")
	descAnswered = desc("calls_answered_total", "Calls that were answered and have ended.")
	descTalked   = desc("calls_talked_seconds_total", "Seconds of answered calls that have ended.")
	descEnded    = desc("calls_ended_total", "Calls by how they ended.", "end")
	descMoves    = desc("call_moves_total", "Callers who were alone and were taken to another shard.")
	descRejoins  = desc("call_rejoins_total", "Conferences that were lost under a call and looked for again.")
	descPorts    = desc("media_ports_in_use", "UDP ports taken for media.")
	descDraining = desc("draining", "1 while no new calls are taken.")
	descShardUp  = desc("shard_up", "1 while the shard's control session is up.", "deployment", "shard")
	descLocates  = desc("locate_total", "Questions where a room lives, by what was found.", "result")
	descSplit    = desc("split_brain_total", "Rooms found on more than one shard.")
	descRetries  = desc("shard_retries", "Failed attempts to reach the shard since it was last up.", "shard")
	descMismatch = desc("shard_mismatch", "1 while the shard's address leads to another shard than configured.", "shard")
	descBrewery  = desc("brewery_joined", "1 while the gateway is in the shard's brewery.", "deployment", "shard")
	descFocus    = desc("brewery_focus", "1 while Jicofo is in the shard's brewery.", "deployment", "shard")
	descJoins    = desc("brewery_joins_total", "Joins of breweries, by how they ended.", "result")
	descPresence = desc("brewery_presences_total", "Updates of presences in breweries.")
	descBackOut  = desc("brewery_lost_total", "Presences in breweries that were lost.")
	descDials    = desc("dial_requests_total", "Dial requests of shards, by what became of them.", "result")
	descLost     = desc("shard_sessions_lost_total", "Control sessions that were lost.")
)

// Describe implements prometheus.Collector.
func (c collector) Describe(ch chan<- *prometheus.Desc) { prometheus.DescribeByCollect(c, ch) }

// Collect implements prometheus.Collector.
func (c collector) Collect(ch chan<- prometheus.Metric) {
	s := c.src.Snapshot()
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	count := func(d *prometheus.Desc, v uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	type key struct{ deployment, shard, state string }
	calls, trunks := map[key]int{}, map[string]int{}
	for _, i := range s.Calls {
		calls[key{i.Deployment, i.Shard, i.State}]++
		trunks[i.Trunk]++
	}
	for k, n := range calls {
		gauge(descCalls, float64(n), k.deployment, k.shard, k.state)
	}
	for t, n := range trunks {
		gauge(descTrunk, float64(n), t)
	}
	for _, t := range s.Trunks {
		gauge(descTrunkUp, bool01(!t.State.Down()), t.Trunk)
		gauge(descTrunkIs, 1, t.Trunk, string(t.State))
		for _, r := range t.Registrars {
			gauge(descBound, bool01(r.Registered), t.Trunk, r.URI)
		}
	}
	for r, n := range map[string]uint64{
		"malformed": s.SIP.Malformed, "dropped": s.SIP.Dropped, "refused": s.SIP.Refused, "limited": s.SIP.Limited,
		"banned": s.SIP.Banned, "challenged": s.SIP.Challenged, "wrong_password": s.SIP.Failed,
	} {
		count(descMessages, n, r)
	}
	gauge(descBans, float64(s.SIP.BannedAddresses))
	gauge(descMaxCalls, float64(s.MaxCalls))
	gauge(descPorts, float64(s.PortsInUse))
	gauge(descDraining, bool01(s.Draining))
	count(descInvites, s.Invites)
	count(descAnswered, s.Answered)
	count(descTalked, s.TalkedSeconds)
	count(descMoves, s.Moves)
	count(descRejoins, s.Rejoins)
	for e, n := range s.Ended {
		count(descEnded, n, e)
	}
	for _, sh := range s.Shards {
		gauge(descShardUp, bool01(sh.State == brewery.Up), sh.Deployment, sh.Shard)
		gauge(descRetries, float64(sh.Retries), sh.Shard)
		gauge(descMismatch, bool01(sh.Mismatch != ""), sh.Shard)
		if sh.Brewery != "" {
			gauge(descBrewery, bool01(sh.Brewery == brewery.BreweryJoined), sh.Deployment, sh.Shard)
			gauge(descFocus, bool01(sh.Focus), sh.Deployment, sh.Shard)
		}
	}
	s.Quality.collect(ch, count)
	l := s.Locate
	for r, n := range map[string]uint64{
		"told": l.Told, "asked": l.Asked, "balancer": l.Balancer, "hash": l.Hash,
		"unknown_shard": l.UnknownShard, "owner_down": l.OwnerDown,
		"balancer_failed": l.BalancerFailed, "nothing_up": l.NothingUp,
	} {
		count(descLocates, n, r)
	}
	count(descSplit, l.SplitBrain)
	count(descLost, l.Lost)
	count(descJoins, l.BreweryJoined, "joined")
	count(descJoins, l.BreweryRefused, "refused")
	count(descPresence, l.Presences)
	count(descBackOut, l.BreweryLost)
	for r, n := range map[string]uint64{
		"accepted": l.DialsAccepted, "refused": l.DialsRefused, "expired": l.DialsExpired, "unheard": l.DialsUnheard,
		"repeated": l.DialsTwice, "forbidden": l.DialsForbidden, "bad": l.DialsBad,
	} {
		count(descDials, n, r)
	}
}

func bool01(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
