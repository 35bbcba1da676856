package jicofo

import (
	"errors"
	"math/rand/v2"
	"slices"
	"strconv"
	"time"

	"brewline/internal/jitsitest/jvb"
)

// session is a Jingle session with a participant.
type session struct {
	sid           string
	bridge        *jvb.Bridge
	bridgeSession string
	endpoint      *jvb.Endpoint
	acked         bool
	accepted      bool
	replacing     bool       // transport-replace awaits its transport-accept
	remote        jvb.Remote // as far as transport-info has told
	outbox        []sourceChange
	flush         *time.Timer
}

// sourceChange is a source-add or source-remove not sent yet.
type sourceChange struct {
	add    bool
	source Source
}

func (s *session) stop() {
	if s.flush != nil {
		s.flush.Stop()
	}
}

func newSID() string {
	return strconv.FormatUint(rand.Uint64()|1<<62, 36)
}

// inviteAll starts sessions with all who wait for one.
func (j *Jicofo) inviteAll(c *conference) {
	if !c.joined || c.gone || j.silent || len(c.members) < j.o.MinParticipants {
		return
	}
	if c.alone != nil {
		c.alone.Stop()
		c.alone = nil
	}
	for _, p := range slices.Clone(c.members) {
		if p.session != nil || !p.discovered || p.refused || p.inviting != nil {
			continue
		}
		if j.o.InviteDelay == 0 {
			j.invite(c, p)
			continue
		}
		var t *time.Timer
		t = j.after(j.o.InviteDelay, func() {
			if p.inviting != t {
				return
			}
			p.inviting = nil
			if !p.gone && !c.gone && p.session == nil && !j.silent && len(c.members) >= j.o.MinParticipants {
				j.invite(c, p)
			}
		})
		p.inviting = t
	}
}

// place allocates a participant's transport on a bridge, preferably not on
// avoid, and starts its session record. Without a bridge it announces that.
func (j *Jicofo) place(c *conference, p *participant, avoid *jvb.Bridge) bool {
	for _, b := range j.choose(c, avoid) {
		e, err := b.Allocate(c.meetingID, p.nick, jvb.AllocOptions{AudioLevelID: j.o.levelID(), OpusPT: uint8(j.o.OpusPT), EventPT: uint8(max(j.o.TelephoneEventPT, 0))})
		if err != nil {
			j.log.Warn("allocation failed", "room", c.room, "nick", p.nick, "err", err)
			continue
		}
		if c.sessionIDs[b] == "" {
			c.sessionIDs[b] = randomUUID()
		}
		if p.forceMuted {
			_ = e.SetForceMute(true) // just allocated
		}
		p.session = &session{sid: newSID(), bridge: b, bridgeSession: c.sessionIDs[b], endpoint: e}
		c.noBridge = false
		return true
	}
	c.noBridge = true
	j.updatePresence(c)
	return false
}

// invite sends session-initiate.
func (j *Jicofo) invite(c *conference, p *participant) { j.inviteAvoiding(c, p, nil) }

func (j *Jicofo) inviteAvoiding(c *conference, p *participant, avoid *jvb.Bridge) {
	if !j.place(c, p, avoid) {
		return
	}
	s := p.session
	p.invites++
	p.sources = nil
	j.updatePresence(c)
	j.log.Info("session-initiate", "room", c.room, "nick", p.nick, "sid", s.sid, "bridge", s.bridge.ID())
	j.jingle(c, p, j.offer(c, p, "session-initiate"), func(reply *element) {
		if p.session != s {
			return
		}
		switch reply.attr("type") {
		case "result":
			s.acked = true
		case "error": // Jicofo gives up on this participant
			c.problem("%s refused session-initiate", p.nick)
			p.refused = true
			j.terminate(c, p, "general-error", "jingle session failed")
		default:
			c.problem("%s did not acknowledge session-initiate", p.nick)
		}
	})
}

// jingle sends a Jingle request to a participant.
func (j *Jicofo) jingle(c *conference, p *participant, x *element, done func(reply *element)) {
	if done == nil {
		action := x.attr("action")
		done = func(reply *element) {
			if reply.attr("type") != "result" && !p.gone {
				c.problem("%s did not acknowledge %s", p.nick, action)
			}
		}
	}
	j.request(c.focusJID(), c.occupant(p.nick), "set", x, j.o.ReplyTimeout, done)
}

// dropSession ends a session without telling the participant; the others get
// no source-remove.
func (j *Jicofo) dropSession(p *participant) {
	if p.inviting != nil {
		p.inviting.Stop()
		p.inviting = nil
	}
	s := p.session
	if s == nil {
		return
	}
	p.session = nil
	p.oldSIDs = append(p.oldSIDs, s.sid)
	s.stop()
	s.endpoint.Expire()
}

// terminate sends session-terminate and ends the session. What the
// participant had signalled is withdrawn from the others.
func (j *Jicofo) terminate(c *conference, p *participant, condition, text string) {
	s := p.session
	if s == nil {
		return
	}
	reason := el("", "reason").add(el("", condition))
	if text != "" {
		reason.add(el("", "text").text(text))
	}
	j.log.Info("session-terminate", "room", c.room, "nick", p.nick, "sid", s.sid, "reason", condition, "text", text)
	j.jingle(c, p, el(nsJingle, "jingle", "action", "session-terminate", "sid", s.sid).add(reason), nil)
	j.withdraw(c, p)
	j.dropSession(p)
}

// withdraw removes a participant's sources.
func (j *Jicofo) withdraw(c *conference, p *participant) {
	gone := p.sources
	p.sources = nil
	j.announce(c, p, false, gone)
}

// handleJingle takes a Jingle request of a participant.
func (j *Jicofo) handleJingle(c *conference, p *participant, iq, x *element) {
	if r := x.child(nsJingle, "reason"); r != nil && (len(r.Kids) == 0 || r.Kids[0].Name == "text") {
		// The real one's reader wants the condition first; what it cannot read it
		// does not answer.
		c.problem("%s sent a reason that does not begin with its condition", p.nick)
		return
	}
	sid := x.attr("sid")
	s := p.session
	if s == nil || s.sid != sid {
		c.problem("%s sent %s for session %q", p.nick, x.attr("action"), sid)
		if slices.Contains(p.oldSIDs, sid) && s != nil {
			j.replyError(iq, "cancel", "gone", "session was replaced")
		} else {
			j.replyError(iq, "cancel", "item-not-found", "no such session", el(nsJingleError, "unknown-session"))
		}
		return
	}
	switch x.attr("action") {
	case "session-accept":
		j.handleAccept(c, p, iq, x)
	case "transport-accept":
		j.handleTransportAccept(c, p, iq, x)
	case "transport-info":
		j.handleTransportInfo(c, p, iq, x)
	case "transport-reject":
		c.problem("%s rejected a transport", p.nick)
		j.reply(iq, nil)
	case "source-add", "addsource":
		j.handleSourceAdd(c, p, iq, x)
	case "source-remove", "removesource":
		j.handleSourceRemove(c, p, iq, x)
	case "session-info":
		j.handleSessionInfo(c, p, iq, x)
	case "session-terminate":
		j.handleTerminate(c, p, iq, x)
	default:
		j.replyError(iq, "modify", "bad-request", "unknown action")
	}
}

// learn merges a client's <transport/> into what is known.
func (s *session) learn(x *element) {
	for _, content := range x.children("content") {
		t := content.child(nsICE, "transport")
		if t == nil {
			continue
		}
		if u, p := t.attr("ufrag"), t.attr("pwd"); u != "" && p != "" {
			s.remote.Ufrag, s.remote.Pwd = u, p
		}
		if f := t.child(nsDTLS, "fingerprint"); f != nil {
			s.remote.FingerprintHash, s.remote.Fingerprint, s.remote.Setup = f.attr("hash"), f.Text, f.attr("setup")
		}
		for _, k := range t.children("candidate") {
			component, _ := strconv.Atoi(k.attr("component"))
			port, _ := strconv.Atoi(k.attr("port"))
			if len(s.remote.Candidates) < 64 {
				s.remote.Candidates = append(s.remote.Candidates, jvb.Candidate{
					Component: component, Protocol: k.attr("protocol"), IP: k.attr("ip"), Port: port, Type: k.attr("type"),
				})
			}
		}
	}
}

// refuse answers bad-request and considers the session ended.
func (j *Jicofo) refuse(c *conference, p *participant, iq *element, why string) {
	c.problem("%s: %s refused: %s", p.nick, iq.Kids[0].attr("action"), why)
	j.replyError(iq, "modify", "bad-request", why)
	j.withdraw(c, p)
	j.dropSession(p)
	p.refused = true
}

func (j *Jicofo) handleAccept(c *conference, p *participant, iq, x *element) {
	s := p.session
	if s.accepted {
		c.problem("%s accepted twice", p.nick)
		j.replyError(iq, "wait", "unexpected-request", "", el(nsJingleError, "out-of-order"))
		return
	}
	if !s.acked {
		c.problem("%s accepted before it acknowledged session-initiate", p.nick)
	}
	sources, err := parseSources(x, p.nick)
	if err == nil {
		err = c.conflict(p, sources)
	}
	if err != nil {
		j.refuse(c, p, iq, err.Error())
		return
	}
	if !j.setTransport(c, p, iq, x) {
		return
	}
	s.accepted = true
	p.sources = sources
	if !j.setSources(c, p) {
		return
	}
	j.log.Info("session-accept", "room", c.room, "nick", p.nick, "sid", s.sid, "sources", len(sources))
	j.flushLater(c, p)
	j.announce(c, p, true, sources)
	j.reply(iq, nil)
}

// setTransport gives the bridge the transport of an accept. It says whether
// the request is still to be answered.
func (j *Jicofo) setTransport(c *conference, p *participant, iq, x *element) bool {
	s := p.session
	s.learn(x)
	switch r := s.remote; {
	case r.Ufrag == "" || r.Pwd == "":
		j.refuse(c, p, iq, "transport without ufrag and pwd")
		return false
	case r.Fingerprint == "":
		j.refuse(c, p, iq, "transport without fingerprint")
		return false
	case r.Setup != "active":
		// The real bridge then has no DTLS role, and nothing ever connects.
		c.problem("%s has setup %q", p.nick, r.Setup)
		return true
	}
	err := s.endpoint.SetRemote(s.remote)
	if errors.Is(err, jvb.ErrDown) || errors.Is(err, jvb.ErrUnknownEndpoint) {
		j.reply(iq, nil)
		j.colibriFailed(c, p, err)
		return false
	}
	if err != nil {
		j.refuse(c, p, iq, err.Error())
		return false
	}
	return true
}

// setSources tells the bridge a participant's audio SSRCs.
func (j *Jicofo) setSources(c *conference, p *participant) bool {
	var ssrcs []uint32
	for _, s := range p.sources {
		if !s.Video {
			ssrcs = append(ssrcs, s.SSRC)
		}
	}
	if err := p.session.endpoint.SetSources(ssrcs); err != nil {
		j.colibriFailed(c, p, err)
		return false
	}
	return true
}

// colibriFailed restarts a participant whose endpoint the bridge lost.
func (j *Jicofo) colibriFailed(c *conference, p *participant, err error) {
	j.log.Warn("bridge lost an endpoint", "room", c.room, "nick", p.nick, "err", err)
	j.terminate(c, p, "success", "moving")
	j.invite(c, p)
}

func (j *Jicofo) handleTransportAccept(c *conference, p *participant, iq, x *element) {
	s := p.session
	if !s.replacing {
		j.replyError(iq, "wait", "unexpected-request", "", el(nsJingleError, "out-of-order"))
		return
	}
	sources, err := parseSources(x, p.nick)
	if err == nil {
		err = c.conflict(p, sources) // ours were kept: repeating one is a conflict
	}
	if err != nil {
		j.refuse(c, p, iq, err.Error())
		return
	}
	if !j.setTransport(c, p, iq, x) {
		return
	}
	s.replacing, s.accepted = false, true
	p.sources = append(p.sources, sources...)
	if !j.setSources(c, p) {
		return
	}
	j.flushLater(c, p)
	j.announce(c, p, true, sources)
	j.reply(iq, nil)
}

// handleTransportInfo takes trickled candidates. As the real Jigasi sends
// its credentials this way before session-accept, they are kept.
func (j *Jicofo) handleTransportInfo(c *conference, p *participant, iq, x *element) {
	s := p.session
	s.learn(x)
	if s.accepted {
		if err := s.endpoint.SetRemote(s.remote); err != nil {
			c.problem("%s: transport-info: %v", p.nick, err)
		}
	}
	j.reply(iq, nil)
}

func (j *Jicofo) handleSourceAdd(c *conference, p *participant, iq, x *element) {
	sources, err := parseSources(x, p.nick)
	if err == nil {
		err = c.conflict(p, sources)
	}
	if err != nil {
		c.problem("%s: source-add: %v", p.nick, err)
		j.replyError(iq, "modify", "bad-request", err.Error())
		return
	}
	if j.o.MaxAudioSenders > 0 && len(p.sources) == 0 && c.audioSenders() >= j.o.MaxAudioSenders {
		j.replyError(iq, "wait", "resource-constraint", "audio sender limit reached")
		return
	}
	p.sources = append(p.sources, sources...)
	j.reply(iq, nil)
	if j.setSources(c, p) {
		j.announce(c, p, true, sources)
	}
}

func (j *Jicofo) handleSourceRemove(c *conference, p *participant, iq, x *element) {
	sources, err := parseSources(x, p.nick)
	if err != nil {
		j.replyError(iq, "modify", "bad-request", err.Error())
		return
	}
	var removed []Source
	for _, s := range sources {
		i := slices.IndexFunc(p.sources, func(o Source) bool { return o.SSRC == s.SSRC })
		if i < 0 {
			c.problem("%s: source-remove of an unknown SSRC", p.nick)
			j.replyError(iq, "modify", "bad-request", "no such source")
			return
		}
		removed = append(removed, p.sources[i])
	}
	p.sources = slices.DeleteFunc(p.sources, func(o Source) bool { return slices.Contains(removed, o) })
	j.reply(iq, nil)
	if j.setSources(c, p) {
		j.announce(c, p, false, removed)
	}
}

func (j *Jicofo) handleSessionInfo(c *conference, p *participant, iq, x *element) {
	if b := x.child(nsFocus, "bridge-session"); b.attr("ice-restart") == "true" {
		j.replyError(iq, "cancel", "feature-not-implemented", "")
		return
	}
	j.reply(iq, nil)
	if s := x.child(nsFocus, "ice-state"); s != nil && s.Text == "failed" {
		// The real one terminates and then invites no more.
		p.refused = true
		j.terminate(c, p, "success", "moving")
	}
}

func (j *Jicofo) handleTerminate(c *conference, p *participant, iq, x *element) {
	s := p.session
	b := x.child(nsFocus, "bridge-session")
	if id := b.attr("id"); b != nil && id != s.bridgeSession {
		c.problem("%s: session-terminate for bridge session %q", p.nick, id)
		j.replyError(iq, "cancel", "item-not-found", "no such bridge session")
		return
	}
	restart := b.attr("restart") == "true"
	j.log.Info("session-terminate received", "room", c.room, "nick", p.nick, "sid", s.sid, "restart", restart)
	j.withdraw(c, p)
	j.dropSession(p)
	if !restart {
		p.refused = true
		j.updatePresence(c)
		j.reply(iq, nil)
		return
	}
	if !j.mayRestart(p) {
		p.refused = true
		j.updatePresence(c)
		j.replyError(iq, "wait", "resource-constraint", "too many restarts")
		return
	}
	j.reply(iq, nil)
	j.inviteAll(c)
}

// mayRestart is the rate limit of restarts.
func (j *Jicofo) mayRestart(p *participant) bool {
	now := time.Now()
	p.restarts = slices.DeleteFunc(p.restarts, func(t time.Time) bool { return now.Sub(t) > j.o.RestartInterval })
	n := len(p.restarts)
	if n >= j.o.RestartMax || n > 0 && now.Sub(p.restarts[n-1]) < j.o.RestartMinInterval {
		return false
	}
	p.restarts = append(p.restarts, now)
	return true
}

// announce tells all other participants of sources added or removed.
func (j *Jicofo) announce(c *conference, owner *participant, add bool, sources []Source) {
	if len(sources) == 0 {
		return
	}
	for _, p := range c.members {
		s := p.session
		if p == owner || s == nil {
			continue
		}
		for _, x := range sources {
			if !p.wants(x) {
				continue
			}
			i := slices.IndexFunc(s.outbox, func(o sourceChange) bool { return o.add != add && o.source.SSRC == x.SSRC })
			if i >= 0 && !add {
				s.outbox = slices.Delete(s.outbox, i, i+1) // never announced
				continue
			}
			s.outbox = append(s.outbox, sourceChange{add, x})
		}
		j.flushLater(c, p)
	}
}

// flushLater sends what is in a session's outbox once it was accepted and
// SourceDelay has passed.
func (j *Jicofo) flushLater(c *conference, p *participant) {
	s := p.session
	if !s.accepted || s.replacing || s.flush != nil || len(s.outbox) == 0 {
		return
	}
	if j.o.SourceDelay == 0 {
		j.flushSources(c, p)
		return
	}
	s.flush = j.after(j.o.SourceDelay, func() {
		s.flush = nil
		if p.session == s && !c.gone {
			j.flushSources(c, p)
		}
	})
}

// flushSources sends a session's outbox, in as few messages as keep the order.
func (j *Jicofo) flushSources(c *conference, p *participant) {
	s := p.session
	for len(s.outbox) > 0 {
		add := s.outbox[0].add
		var batch []Source
		for len(s.outbox) > 0 && s.outbox[0].add == add {
			batch = append(batch, s.outbox[0].source)
			s.outbox = s.outbox[1:]
		}
		action := "source-remove"
		if add {
			action = "source-add"
		}
		x := el(nsJingle, "jingle", "action", action, "sid", s.sid)
		if p.has(featureJSON) {
			x.add(compactMessage(batch))
		} else {
			x.add(sourceContents(batch)...)
		}
		j.jingle(c, p, x, nil)
	}
}
