package gateway

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"time"

	"brewline/brewery"
	"brewline/config"
	"brewline/gateway/call"
	"brewline/gateway/conference"
	"brewline/gateway/phone"
	"brewline/media/transport"
	"brewline/sip"
)

// ConferenceTimers are a conference leg's durations, for tests.
type ConferenceTimers = conference.Timers

// invite takes an INVITE of a known trunk: which room, which deployment, is
// there a place for it. What fails here is answered here; else a call begins.
func (g *Gateway) invite(d *sip.Dialog) {
	cfg := g.cfg.Load()
	g.counters.invites.Add(1)
	id := callID()
	log := g.log.With("call", id, "trunk", d.Trunk())
	refuse := func(end call.End, detail error) {
		o := end.Outcome()
		text := o.Text
		if detail != nil {
			text = detail.Error()
		}
		var extra []sip.Header
		if o.Retry {
			extra = append(extra, sip.Header{Name: "Retry-After", Value: "10"})
		}
		g.counters.ended(end)
		log.Warn("call refused", "end", string(end), "code", o.Code, "why", text, "sip_call_id", d.CallID())
		d.Reject(o.Code, sip.Reason{Protocol: "Q.850", Cause: o.Cause, Text: text}, extra...)
	}
	trunk := cfg.Trunk(d.Trunk())
	if trunk == nil { // gone in a reload since the request was let in
		refuse(call.EndNotAllowed, errors.New("the trunk is not configured any more"))
		return
	}
	h := cfg.SIP.Headers
	hints := brewery.Hints{
		Trunk: trunk, Room: header(d, h.Room), User: d.RequestUser(), To: d.To().User,
		Domain: header(d, h.Domain), Tenant: header(d, h.Tenant),
	}
	dep, room, err := g.set.Resolve(hints)
	if err != nil {
		end := call.EndNoDeployment
		if errors.Is(err, brewery.ErrNoRoom) {
			end = call.EndNoRoom
		}
		refuse(end, err)
		return
	}
	release, carried, end := g.admit(trunk)
	if end != "" {
		refuse(end, nil)
		return
	}
	told := header(d, h.Shard)
	if told == "" {
		told = trunk.Shard
	}
	log = log.With("room", room.String())
	o := call.Options{
		ID: id, Dialog: d, Trunk: trunk.Name, Deployment: dep, Room: room, Told: told,
		Password:    header(d, h.Password),
		Credentials: brewery.Credentials{Token: header(d, h.Token), UserID: header(d, h.UserID)},
		DisplayName: callerName(trunk, d),
		Mask:        cfg.Gateway.Mask,
		Phone:       g.phoneOptions(cfg, trunk), EarlyPrompts: trunk.EarlyPrompts,
		Transfer: g.transfers(room.String(), nil),
		NameOf:   g.nameOf, Carry: g.carry, Carried: carried,
		Pacer: g.pacer, OpusComplexity: cfg.Media.OpusComplexity,
		Conference: conference.Options{
			StatsID: cfg.Gateway.StatsID, Region: cfg.Gateway.Region, Version: "Brewline " + g.o.Version,
			Transport: g.transport(cfg),
			Timers:    g.conferenceTimers(cfg),
		},
		Timers: g.callTimers(cfg),
		Logger: log,
		OnEnd:  func(s call.Summary) { g.over(id, s, release) },
	}
	g.run(id, o)
}

// run starts a call that was admitted.
func (g *Gateway) run(id string, o call.Options) {
	g.mu.Lock()
	defer g.mu.Unlock()
	c := call.Start(g.ctx, o)
	g.calls[id] = c
	if g.closing {
		c.Hangup(call.EndShutdown)
	}
}

// over forgets a call that has ended.
func (g *Gateway) over(id string, s call.Summary, release func()) {
	g.counters.finished(s)
	g.mu.Lock()
	delete(g.calls, id)
	g.mu.Unlock()
	release()
}

func (g *Gateway) phoneOptions(cfg *config.Config, t *config.Trunk) phone.Options {
	advertise := cfg.Media.Phone.Advertise
	if t.MediaAdvertise.IsValid() {
		advertise = t.MediaAdvertise
	}
	return phone.Options{
		Codecs: t.Codecs, Ptime: t.Ptime.Duration, Ports: g.phonePorts,
		Bind: cfg.Media.Phone.Bind, Advertise: advertise,
		SRTP: t.SRTP, Keys: t.SRTPKeys,
		DTMF: t.DTMF, ComfortNoise: t.ComfortNoise, HoldMusic: t.HoldMusic,
	}
}

// header is the value of the first of these headers that is present.
func header(d *sip.Dialog, names []string) string {
	for _, n := range names {
		if v := d.Header(n); v != "" {
			return v
		}
	}
	return ""
}

func (g *Gateway) transport(cfg *config.Config) transport.ConferenceOptions {
	o := g.o.Transport
	o.Ports, o.Bind, o.Advertise = g.bridgePorts, cfg.Media.Conference.Bind, cfg.Media.Conference.Advertise
	return o
}

func (g *Gateway) conferenceTimers(cfg *config.Config) conference.Timers {
	t := g.o.Timers
	set(&t.HostWait, cfg.Gateway.HostWait)
	set(&t.LobbyWait, cfg.Gateway.LobbyWait)
	set(&t.Invite, cfg.Gateway.InviteTimeout)
	return t
}

func (g *Gateway) callTimers(cfg *config.Config) call.Timers {
	t := g.o.Call
	if t.AloneAnswer == 0 {
		t.AloneAnswer = cfg.Gateway.AloneAnswer.Duration
		if t.AloneAnswer == 0 {
			t.AloneAnswer = -1 // configured: at once
		}
	}
	if t.Empty == 0 {
		t.Empty = max(cfg.Gateway.EmptyGrace.Duration, time.Millisecond)
	}
	set(&t.AloneMax, cfg.Gateway.AloneMax)
	set(&t.Locate, cfg.Gateway.LocateTimeout)
	return t
}

func set(d *time.Duration, c config.Duration) {
	if *d == 0 {
		*d = c.Duration
	}
}

// callID is short enough to read aloud and unique enough for a day's logs.
func callID() string {
	var b [5]byte
	rand.Read(b[:]) // never fails (crypto/rand)
	return hex.EncodeToString(b[:])
}
