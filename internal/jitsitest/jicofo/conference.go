package jicofo

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"brewline/internal/jitsitest/jvb"
)

// conference is one room with its members and sessions.
type conference struct {
	j          *Jicofo
	room       string // bare JID, the server's form
	meetingID  string
	joined     bool
	gone       bool
	waiting    []func(joined bool)
	members    []*participant // in order of joining
	sessionIDs map[*jvb.Bridge]string
	noBridge   bool
	moderated  bool            // AV moderation of audio
	approved   map[string]bool // nicks that may unmute under it
	alone      *time.Timer
	problems   []string
	shown      string // the presence last sent
}

// participant is a member of a room, the focus excluded.
type participant struct {
	nick, jid         string
	affiliation, role string
	capsNode, capsVer string
	presence          []string // <features/> in presence
	features          []string
	discovered        bool
	gone              bool
	refused           bool // no further invitation
	granted           bool // made owner by us
	forceMuted        bool
	invites           int
	inviting          *time.Timer
	restarts          []time.Time
	oldSIDs           []string
	session           *session
	sources           []Source
}

// Room is a snapshot of a conference.
type Room struct {
	JID          string
	MeetingID    string
	Participants []Participant
	// BridgeNotAvailable says that the focus announces it.
	BridgeNotAvailable bool
	// Problems are what the focus found wrong with its members' behaviour.
	Problems []string
}

// Participant is a snapshot of a member.
type Participant struct {
	Nick, JID string
	// Affiliation and Role are the room's.
	Affiliation, Role string
	Features          []string
	// SID is the Jingle session, empty when there is none; Acked says
	// whether its session-initiate was acknowledged, Accepted whether it was
	// accepted.
	SID             string
	Acked, Accepted bool
	BridgeSession   string
	Sources         []Source
	Endpoint        *jvb.Endpoint
	// Invites counts session-initiates since the member joined.
	Invites int
	// ForceMuted says whether the focus has muted it.
	ForceMuted bool
}

func (c *conference) snapshot() Room {
	r := Room{JID: c.room, MeetingID: c.meetingID, BridgeNotAvailable: c.noBridge, Problems: slices.Clone(c.problems)}
	for _, p := range c.members {
		x := Participant{
			Nick: p.nick, JID: p.jid, Affiliation: p.affiliation, Role: p.role, Features: slices.Clone(p.features),
			Sources: slices.Clone(p.sources), Invites: p.invites, ForceMuted: p.forceMuted,
		}
		if s := p.session; s != nil {
			x.SID, x.Acked, x.Accepted, x.BridgeSession, x.Endpoint = s.sid, s.acked, s.accepted, s.bridgeSession, s.endpoint
		}
		r.Participants = append(r.Participants, x)
	}
	return r
}

func (c *conference) problem(format string, args ...any) {
	s := fmt.Sprintf(format, args...)
	c.j.log.Warn("focus: "+s, "room", c.room)
	if len(c.problems) < 1000 {
		c.problems = append(c.problems, s)
	}
}

func (c *conference) member(nick string) *participant {
	for _, p := range c.members {
		if p.nick == nick {
			return p
		}
	}
	return nil
}

func (c *conference) occupant(nick string) string { return c.room + "/" + nick }

// focusJID is the focus' real JID.
func (c *conference) focusJID() string { return c.j.user + "/focus" }

// join brings the focus into a room, unless it is there, and tells done.
func (j *Jicofo) join(room string, done func(joined bool)) {
	key := j.roomKey(room)
	if c := j.conferences[key]; c != nil {
		if c.joined {
			done(true)
		} else {
			c.waiting = append(c.waiting, done)
		}
		return
	}
	c := &conference{
		j: j, room: key, meetingID: randomUUID(), waiting: []func(bool){done},
		sessionIDs: map[*jvb.Bridge]string{}, approved: map[string]bool{},
	}
	j.conferences[key] = c
	j.after(j.o.ReplyTimeout, func() {
		if !c.joined && !c.gone {
			j.endConference(c, true)
		}
	})
	p := j.focusPresence(c)
	c.shown = p.String()
	p.Kids = slices.Insert(p.Kids, 0, el(nsMUC, "x"))
	j.send(p)
}

// focusPresence is the whole presence of the focus in a room.
func (j *Jicofo) focusPresence(c *conference) *element {
	props := el(nsFocus, "conference-properties").add(el("", "property", "key", "support-terminate-restart", "value", "true"))
	if n := c.bridgeCount(); n > 0 {
		props.add(el("", "property", "key", "bridge-count", "value", strconv.Itoa(n)))
	}
	p := el("", "presence", "from", c.focusJID(), "to", c.occupant(j.o.Nick)).add(
		el("", "priority").text("0"),
		el(nsEtherpad, "etherpad").text(localOf(c.room)),
		el(nsJitmeet, "versions").add(el("", "component", "name", "focus").text("1.1.SNAPSHOT")),
		props,
	)
	if c.noBridge {
		p.add(el(nsFocus, "bridgeNotAvailable"))
	}
	return p.add(el(nsCaps, "c", "hash", "sha-1", "node", capsNode, "ver", capsHash(ownInfo())))
}

func (c *conference) bridgeCount() int {
	var seen []*jvb.Bridge
	for _, p := range c.members {
		if p.session != nil && !slices.Contains(seen, p.session.bridge) {
			seen = append(seen, p.session.bridge)
		}
	}
	return len(seen)
}

func (j *Jicofo) sendUnavailable(room, status string) {
	p := el("", "presence", "type", "unavailable", "from", j.user+"/focus", "to", room+"/"+j.o.Nick)
	if status != "" {
		p.add(el("", "status").text(status))
	}
	j.send(p)
}

// handlePresence takes what a room sends.
func (j *Jicofo) handlePresence(e *element) {
	from := e.attr("from")
	room, nick := bareOf(from), resourceOf(from)
	if j.brewery != nil && strings.EqualFold(room, j.brewery.room) {
		j.breweryPresence(j.brewery, nick, e)
		return
	}
	c := j.conferences[j.roomKey(room)]
	if c == nil || nick == "" {
		return
	}
	switch e.attr("type") {
	case "":
		if nick == j.o.Nick {
			j.selfPresence(c, e)
		} else {
			j.memberPresence(c, nick, e)
		}
	case "error":
		if nick == j.o.Nick && !c.joined {
			j.log.Warn("focus cannot join", "room", c.room, "err", e.child("", "error"))
			j.endConference(c, true)
		}
	case "unavailable":
		if nick == j.o.Nick {
			j.endConference(c, true) // kicked, or the room is gone
		} else if p := c.member(nick); p != nil {
			j.memberLeft(c, p)
		}
	}
}

func (j *Jicofo) selfPresence(c *conference, e *element) {
	if c.joined || !hasStatus(e, "110") {
		return
	}
	j.configure(c.room, func(bool) {
		if c.gone || c.joined {
			return
		}
		c.joined = true
		j.log.Info("focus joined", "room", c.room)
		for _, w := range c.waiting {
			w(true)
		}
		c.waiting = nil
		j.after(j.o.InitialTimeout, func() {
			if !c.gone && len(c.members) == 0 {
				j.log.Info("nobody joined", "room", c.room)
				j.leave(c)
			}
		})
		for _, p := range slices.Clone(c.members) {
			j.memberReady(c, p)
		}
	})
}

// configure sets up a room. A new one is locked until it is configured
// (XEP-0045 §10.1.2), and occupants must see each other's real JIDs.
func (j *Jicofo) configure(room string, done func(ok bool)) {
	field := func(name, value string) *element {
		return el("", "field", "var", name).add(el("", "value").text(value))
	}
	form := el(nsData, "x", "type", "submit").add(
		field("FORM_TYPE", "http://jabber.org/protocol/muc#roomconfig"),
		field("muc#roomconfig_whois", "anyone"),
	)
	j.request(j.user+"/focus", room, "set", el(nsMUCOwner, "query").add(form), j.o.ReplyTimeout, func(reply *element) {
		ok := reply.attr("type") == "result"
		if !ok {
			j.log.Warn("focus cannot configure the room", "room", room)
		}
		done(ok)
	})
}

func hasStatus(e *element, code string) bool {
	for _, s := range e.child(nsMUCUser, "x").children("status") {
		if s.attr("code") == code {
			return true
		}
	}
	return false
}

func (j *Jicofo) memberPresence(c *conference, nick string, e *element) {
	item := e.child(nsMUCUser, "x").child("", "item")
	p := c.member(nick)
	isNew := p == nil
	if isNew {
		p = &participant{nick: nick}
		c.members = append(c.members, p)
	}
	p.jid, p.affiliation, p.role = item.attr("jid"), item.attr("affiliation"), item.attr("role")
	p.presence = nil
	for _, f := range e.child("", "features").children("feature") {
		p.presence = append(p.presence, f.attr("var"))
	}
	if caps := e.child(nsCaps, "c"); caps != nil && isNew {
		p.capsNode, p.capsVer = caps.attr("node"), caps.attr("ver")
	}
	if isNew {
		j.log.Info("member joined", "room", c.room, "nick", nick)
		if c.joined {
			j.memberReady(c, p)
		}
	}
}

// memberReady begins with a member once the focus is in the room itself.
func (j *Jicofo) memberReady(c *conference, p *participant) {
	if p.gone {
		return
	}
	j.electOwner(c)
	j.discover(c, p)
}

// trustedJigasi says whether the Jigasi feature in its presence is believed.
func (j *Jicofo) trustedJigasi(p *participant) bool {
	return slices.Contains(p.presence, featureJigasi) && slices.Contains(j.o.TrustedDomains, domainOf(p.jid))
}

// electOwner makes the first member owner while nobody is.
func (j *Jicofo) electOwner(c *conference) {
	if j.o.NoAutoOwner || !c.joined {
		return
	}
	for _, p := range c.members {
		if p.affiliation == "owner" || p.granted {
			return
		}
	}
	for _, p := range c.members {
		if p.jid == "" || j.trustedJigasi(p) {
			continue
		}
		p.granted = true
		item := el("", "item", "affiliation", "owner", "jid", bareOf(p.jid))
		j.request(c.focusJID(), c.room, "set", el(nsMUCAdmin, "query").add(item), j.o.ReplyTimeout, func(reply *element) {
			if reply.attr("type") != "result" {
				j.log.Warn("focus cannot make an owner", "room", c.room, "nick", p.nick)
			}
		})
		return
	}
}

// memberLeft drops a member; the others get no source-remove.
func (j *Jicofo) memberLeft(c *conference, p *participant) {
	j.log.Info("member left", "room", c.room, "nick", p.nick)
	p.gone = true
	c.members = slices.DeleteFunc(c.members, func(x *participant) bool { return x == p })
	j.dropSession(p)
	for _, o := range c.members {
		if o.session != nil {
			o.session.outbox = slices.DeleteFunc(o.session.outbox, func(x sourceChange) bool { return x.source.Owner == p.nick })
		}
	}
	p.sources = nil
	switch {
	case len(c.members) == 0:
		j.leave(c)
		return
	case len(c.members) < j.o.MinParticipants:
		j.startAlone(c)
	}
	j.electOwner(c)
}

// startAlone ends the last sessions after the single participant timeout.
func (j *Jicofo) startAlone(c *conference) {
	if c.alone != nil {
		c.alone.Stop()
	}
	var t *time.Timer
	t = j.after(j.o.SingleTimeout, func() {
		if c.gone || c.alone != t {
			return
		}
		c.alone = nil
		if len(c.members) >= j.o.MinParticipants {
			return // a new one is still being asked what it can do
		}
		for _, p := range c.members {
			if p.inviting != nil {
				p.inviting.Stop()
				p.inviting = nil
			}
			j.terminate(c, p, "expired", "Idle session timeout")
		}
		j.updatePresence(c)
	})
	c.alone = t
}

// leave takes the focus out of a room.
func (j *Jicofo) leave(c *conference) {
	j.sendUnavailable(c.room, "")
	j.endConference(c, true)
}

// endConference forgets a conference, and expires its endpoints.
func (j *Jicofo) endConference(c *conference, expire bool) {
	if c.gone {
		return
	}
	c.gone = true
	delete(j.conferences, c.room)
	if c.alone != nil {
		c.alone.Stop()
		c.alone = nil
	}
	for _, p := range c.members {
		p.gone = true
		if p.inviting != nil {
			p.inviting.Stop()
		}
		if expire {
			j.dropSession(p)
		} else if p.session != nil {
			p.session.stop()
		}
	}
	for _, w := range c.waiting {
		w(false)
	}
	c.waiting = nil
	j.log.Info("conference ended", "room", c.room)
}

// updatePresence sends the focus' presence again when it has changed.
func (j *Jicofo) updatePresence(c *conference) {
	if c.gone || !c.joined {
		return
	}
	p := j.focusPresence(c)
	if s := p.String(); s != c.shown {
		c.shown = s
		j.send(p)
	}
}

// handleMessage takes AV moderation's news.
func (j *Jicofo) handleMessage(e *element) {
	m := e.child(nsJitmeet, "json-message")
	if m == nil || !strings.HasPrefix(domainOf(e.attr("from")), "avmoderation.") {
		return
	}
	j.handleModeration(m.Text)
}
