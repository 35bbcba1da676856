package xmppd

import (
	"regexp"
	"slices"
	"strings"
)

// validNick is mod_muc_resource_validate's default.
var validNick = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_]*$`)

// join handles a presence that carries <x xmlns='…/muc'/>.
func (m *mucService) join(r *room, e *element, from, to jid) {
	s := m.s
	refuse := func(typ, condition, text string) { s.bounceBy(e, typ, condition, text, to.bare().String()) }
	if strings.TrimSpace(to.resource) == "" {
		refuse("modify", "not-allowed", "Invisible Nicknames are forbidden")
		return
	}
	first := r == nil
	if first {
		switch {
		case m.lobby:
			s.bounceBy(e, "cancel", "item-not-found", "", m.domain)
			return
		case m.conference && !s.o.OpenRoomCreation && !s.admin(from):
			s.bounceBy(e, "cancel", "not-allowed", "Room creation is restricted", m.domain)
			return
		}
	}
	if m.conference && !s.o.AnyNick && !validNick.MatchString(to.resource) && !s.admin(from) {
		s.bounceBy(e, "cancel", "not-allowed", "Invalid resource", m.domain)
		return
	}
	if first {
		r = m.create(to.local)
		if !m.conference || s.o.OpenRoomCreation && !s.admin(from) {
			r.aff[from.bare().String()] = "owner"
		}
		if m.conference && s.o.WaitForHost {
			r.waitForHost = true
			r.openLobby("")
		}
	}
	o := r.occupantOf(from)
	if o != nil && o.nick == to.resource { // a client that lost track
		r.admit(o, e, false, true)
		return
	}
	if r.occupantOf(from) != nil {
		refuse("cancel", "not-allowed", "Nickname changes are not allowed")
		return
	}
	if m.conference && !r.focusIn && !s.admin(from) { // mod_muc_meeting_id
		if len(r.waiting) < 1000 {
			r.waiting = append(r.waiting, e)
		}
		return
	}
	if other := r.occ[to.resource]; other != nil && other.jid.bare() != from.bare() {
		refuse("cancel", "conflict", "")
		return
	}
	if err := r.mayJoin(e, from); err != nil {
		if first {
			r.emptied()
		}
		s.route(err, nil)
		return
	}
	if other := r.occ[to.resource]; other != nil { // the same user again: the new connection takes over
		r.forget(other)
	}
	o = &occupant{nick: to.resource, jid: from, id: r.occupantID(from)}
	r.admit(o, e, first, false)
	if m.conference && s.admin(from) && !r.focusIn {
		r.focusIn = true
		queued := r.waiting
		r.waiting = nil
		for _, q := range queued {
			s.route(q, nil)
		}
	}
}

// admit puts an occupant in the room and tells everybody; again says that it was
// there before.
func (r *room) admit(o *occupant, e *element, created, again bool) {
	s := r.m.s
	o.role = roleFor(r.affiliation(o.jid))
	o.presence = r.clean(e, o.nick)
	if !again {
		r.occ[o.nick] = o
		r.order = append(r.order, o.nick)
	}
	for _, v := range r.byOrder() {
		if v != o && r.sees(o, v) {
			s.route(r.build(v, v.role, status{}, false).with("to", o.jid.String()), nil)
		}
	}
	if r.m.conference && !s.o.NoExternalInfo && !again {
		r.send(o, r.metadataMessage())
	}
	st := status{}
	if created {
		st.self = append(st.self, 201)
	}
	if !again {
		st.self = append(st.self, 100)
	}
	r.publish(o, o.role, st)
	r.send(o, el(nsClient, "message", "type", "groupchat", "from", r.jid.String()).add(el(nsClient, "subject")))
	if !again {
		r.moderationAtJoin(o)
	}
}

// clean takes out of a presence what only the room may say, and the join.
func (r *room) clean(e *element, nick string) *element {
	p := e.with("from", r.jid.with(nick).String(), "to", "")
	p.Kids = slices.DeleteFunc(p.Kids, func(k any) bool {
		c, ok := k.(*element)
		if !ok {
			return strings.TrimSpace(k.(string)) == ""
		}
		return c.Name == "x" && (c.NS == nsMUC || c.NS == nsMUCUser) || c.NS == nsOccupant ||
			c.NS == nsJitmeet && c.Name == "permissions"
	})
	return p
}

// mayJoin is nil or the error that refuses a join.
func (r *room) mayJoin(e *element, from jid) *element {
	s := r.m.s
	refuse := func(typ, condition string) *element { return errorReply(e, typ, condition, "", r.jid.String()) }
	a := r.affiliation(from)
	if a == "outcast" {
		return refuse("auth", "forbidden")
	}
	if r.m.lobby && s.o.LobbyDisplayName && e.child(nsNick, "nick").text() == "" {
		return displayNameRequired(e)
	}
	if !r.m.conference || s.admin(from) {
		return nil
	}
	if n := s.o.MaxOccupants; n > 0 {
		count := 0
		for _, o := range r.occ {
			if !s.admin(o.jid) {
				count++
			}
		}
		if count >= n {
			return refuse("cancel", "service-unavailable")
		}
	}
	password := e.child(nsMUC, "x").child(nsMUC, "password").text()
	if r.membersOnly && a == "none" && !s.passesLobby(from) {
		if r.password == "" || password != r.password {
			if s.o.LobbyDisplayName && e.child(nsNick, "nick").text() == "" {
				return displayNameRequired(e)
			}
			return r.lobbyError(e)
		}
		r.aff[from.bare().String()] = "member"
	}
	if r.password != "" && password != r.password {
		return refuse("auth", "not-authorized")
	}
	return nil
}

func displayNameRequired(e *element) *element {
	err := errorReply(e, "modify", "not-acceptable", "", "")
	x := err.child(nsClient, "error")
	x.set("code", "406")
	x.add(el(nsJitmeet, "displayname-required", "lobby", "true"))
	return err
}

// handlePresence takes a presence to the room that is not a join.
func (r *room) handlePresence(e *element, from jid, nick string) {
	o := r.occupantOf(from)
	switch e.attr("type") {
	case "unavailable":
		if o != nil {
			r.presence(e, o.nick)
		}
	case "error":
		if o != nil {
			r.kickError(o, e)
		}
	case "":
		switch {
		case o == nil:
			r.m.s.bounceBy(e, "cancel", "item-not-found", "You are not currently connected to this chat", r.jid.String())
		case nick != "" && nick != o.nick:
			r.m.s.bounceBy(e, "cancel", "not-allowed", "Nickname changes are not allowed", r.jid.String())
		default:
			r.presence(e, o.nick)
		}
	}
}

// presence takes an occupant's new presence or leave.
func (r *room) presence(e *element, nick string) {
	o := r.occ[nick]
	o.presence = r.clean(e, nick)
	if e.attr("type") == "unavailable" {
		r.remove(o, status{})
		return
	}
	r.publish(o, o.role, status{})
}

// kickable are the error conditions that show a client to be gone.
var kickable = []string{"gone", "internal-server-error", "item-not-found", "jid-malformed", "recipient-unavailable",
	"redirect", "remote-server-not-found", "remote-server-timeout", "service-unavailable", "malformed-error"}

func (r *room) kickError(o *occupant, e *element) {
	condition := "malformed-error"
	for _, c := range e.child(nsClient, "error").children() {
		if c.NS == nsStanzas && c.Name != "text" {
			condition = c.Name
			break
		}
	}
	if !slices.Contains(kickable, condition) {
		return
	}
	o.presence = el(nsClient, "presence", "type", "unavailable", "from", r.jid.with(o.nick).String()).add(
		el(nsClient, "status").add("Kicked: " + strings.ReplaceAll(condition, "-", " ")))
	r.remove(o, status{codes: []int{333}})
}
