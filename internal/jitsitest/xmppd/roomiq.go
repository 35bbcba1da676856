package xmppd

import (
	"slices"
	"strconv"
)

// handleIQ takes an IQ to the room itself.
func (r *room) handleIQ(e *element, from jid) {
	s := r.m.s
	typ := e.attr("type")
	if typ == "result" || typ == "error" {
		return
	}
	q := e.first()
	switch {
	case q.NS == nsDiscoInfo && typ == "get":
		if r.m.conference && !s.o.VisibleRooms && r.occupantOf(from) == nil { // mod_muc_hide_all
			s.bounce(e, "auth", "forbidden", "")
			return
		}
		s.reply(e, r.info().element(q.attr("node")))
	case q.NS == nsDiscoItem && typ == "get":
		s.reply(e, el(nsDiscoItem, "query"))
	case q.NS == nsPing:
		s.reply(e)
	case q.NS == nsMUCAdmin && typ == "set":
		r.adminSet(e, from, q)
	case q.NS == nsMUCAdmin:
		r.adminGet(e, from, q)
	case q.NS == nsMUCOwner && r.affiliation(from) != "owner":
		s.bounce(e, "auth", "forbidden", "Only owners can configure rooms")
	case q.NS == nsMUCOwner && typ == "get":
		s.reply(e, el(nsMUCOwner, "query").add(r.form()))
	case q.NS == nsMUCOwner:
		r.ownerSet(e, from, q)
	default:
		s.bounce(e, "cancel", "service-unavailable", "")
	}
}

func field(name, typ string, values ...string) *element {
	f := el(nsData, "field", "var", name, "type", typ)
	for _, v := range values {
		f.add(el(nsData, "value").add(v))
	}
	return f
}

func flag(on bool) string {
	if on {
		return "1"
	}
	return "0"
}

// info is the room's service discovery.
func (r *room) info() info {
	i := info{identities: []identity{{"conference", "text", ""}}, features: []string{
		nsMUC, "http://jabber.org/protocol/muc#stable_id", "http://jabber.org/protocol/muc#self-ping-optimization",
		"http://jabber.org/protocol/muc#request", nsOccupant, "muc_hidden", "muc_temporary", "muc_unmoderated",
		"muc_nonanonymous", "jabber:iq:register"}}
	pick := func(on bool, a, b string) {
		if on {
			b = a
		}
		i.features = append(i.features, b)
	}
	pick(r.membersOnly, "muc_membersonly", "muc_open")
	pick(r.password != "", "muc_passwordprotected", "muc_unsecured")
	label := func(text string, f *element) *element { return f.with("label", text) }
	x := el(nsData, "x", "type", "result").add(
		field("FORM_TYPE", "hidden", "http://jabber.org/protocol/muc#roominfo"),
		label("The meeting created_timestamp.", field("muc#roominfo_created_timestamp", "text-single", strconv.FormatInt(r.created.UnixMilli(), 10))),
		field("muc#roominfo_lang", "text-single", "en"),
		label("Allow members to invite new members", field("{http://prosody.im/protocol/muc}roomconfig_allowmemberinvites", "boolean", "0")),
		label("Allow users to invite other users", field("muc#roomconfig_allowinvites", "boolean", "1")),
		label("Title", field("muc#roomconfig_roomname", "text-single")),
		field("muc#roomconfig_changesubject", "boolean"),
		label("Description", field("muc#roominfo_description", "text-single", "")),
		label("The meeting unique id.", field("muc#roominfo_meetingId", "text-single", r.meetingID)),
		label("Number of occupants", field("muc#roominfo_occupants", "text-single", strconv.Itoa(len(r.occ)))))
	if r.lobby != nil {
		x.add(field("muc#roominfo_lobbyroom", "text-single", r.lobby.jid.String()))
	}
	i.form = x
	return i
}

// form is the configuration form.
func (r *room) form() *element {
	return el(nsData, "x", "type", "form").add(
		el(nsData, "title").add("Configuration for "+r.jid.String()),
		field("FORM_TYPE", "hidden", "http://jabber.org/protocol/muc#roomconfig"),
		field("muc#roomconfig_roomname", "text-single", ""),
		field("muc#roomconfig_persistentroom", "boolean", "0"),
		field("muc#roomconfig_publicroom", "boolean", "0"),
		field("muc#roomconfig_membersonly", "boolean", flag(r.membersOnly)),
		field("muc#roomconfig_moderatedroom", "boolean", "0"),
		field("muc#roomconfig_whois", "list-single", "anyone"),
		field("muc#roomconfig_roomsecret", "text-private", r.password),
		field("muc#roominfo_meetingId", "text-single", r.meetingID))
}

func (r *room) ownerSet(e *element, from jid, q *element) {
	s := r.m.s
	if d := q.child(nsMUCOwner, "destroy"); d != nil {
		r.destroy(d.attr("jid"), d.child(nsMUCOwner, "reason").text())
		s.reply(e)
		return
	}
	x := q.child(nsData, "x")
	switch {
	case x == nil:
		s.bounce(e, "modify", "bad-request", "")
		return
	case x.attr("type") == "cancel":
		s.reply(e)
		return
	case x.attr("type") != "submit":
		s.bounce(e, "cancel", "bad-request", "Not a submitted form")
		return
	}
	changed := false
	for _, f := range x.children() {
		v := f.child(nsData, "value").text()
		switch f.attr("var") {
		case "muc#roomconfig_roomsecret":
			changed = changed || r.password != v
			r.password = v
		case "muc#roomconfig_membersonly":
			on := v == "1" || v == "true"
			if on == r.membersOnly {
				break
			}
			nick := ""
			if o := r.occupantOf(from); o != nil {
				nick = o.nick
			}
			if on {
				r.openLobby(nick)
			} else {
				r.closeLobby(nick)
			}
			changed = true
		}
	}
	s.reply(e)
	if changed {
		r.configChanged()
	}
}

// configChanged is status code 104 (XEP-0045 §10.2.1).
func (r *room) configChanged() {
	r.broadcast(el(nsClient, "message", "type", "groupchat", "from", r.jid.String()).add(
		el(nsMUCUser, "x").add(el(nsMUCUser, "status", "code", "104"))))
}

func (r *room) adminGet(e *element, from jid, q *element) {
	it := q.child(nsMUCAdmin, "item")
	a, role := it.attr("affiliation"), it.attr("role")
	if roleFor(r.affiliation(from)) != "moderator" {
		r.m.s.bounce(e, "auth", "forbidden", "")
		return
	}
	out := el(nsMUCAdmin, "query")
	if a != "" {
		var bare []string
		for j, v := range r.aff {
			if v == a {
				bare = append(bare, j)
			}
		}
		slices.Sort(bare)
		for _, j := range bare {
			out.add(el(nsMUCAdmin, "item", "affiliation", a, "jid", j))
		}
	}
	for _, o := range r.byOrder() {
		if role != "" && o.role == role {
			out.add(el(nsMUCAdmin, "item", "affiliation", r.affiliation(o.jid), "role", role, "jid", o.jid.String(), "nick", o.nick))
		}
	}
	r.m.s.reply(e, out)
}

// adminSet is kicking, banning and granting (XEP-0045 §8, §9). Prosody takes one
// item; Jitsi's clients send one each.
func (r *room) adminSet(e *element, from jid, q *element) {
	s := r.m.s
	it := q.child(nsMUCAdmin, "item")
	if it == nil {
		s.bounce(e, "cancel", "bad-request", "")
		return
	}
	actor := ""
	if o := r.occupantOf(from); o != nil {
		actor = o.nick
	} else if r.main != nil {
		if o := r.main.occupantOf(from); o != nil {
			actor = o.nick
		}
	}
	if roleFor(r.affiliation(from)) != "moderator" {
		s.bounce(e, "auth", "forbidden", "")
		return
	}
	why := item{actor, it.child(nsMUCAdmin, "reason").text()}
	switch {
	case it.attr("role") == "none":
		o := r.occ[it.attr("nick")]
		if o == nil {
			s.bounce(e, "cancel", "item-not-found", "")
			return
		}
		if s.admin(o.jid) || !s.admin(from) && r.affiliation(o.jid) == "owner" && o.jid.bare() != from.bare() {
			s.bounce(e, "cancel", "not-allowed", "")
			return
		}
		r.kick(o, why)
	case it.attr("affiliation") != "":
		target, err := parseJID(it.attr("jid"))
		if it.attr("jid") == "" && it.attr("nick") != "" && r.occ[it.attr("nick")] != nil {
			target, err = r.occ[it.attr("nick")].jid.bare(), nil
		}
		switch a := it.attr("affiliation"); {
		case err != nil || target.resource != "":
			s.bounce(e, "modify", "jid-malformed", "")
			return
		case !slices.Contains([]string{"owner", "admin", "member", "none", "outcast"}, a):
			s.bounce(e, "modify", "not-acceptable", "")
			return
		case r.affiliation(from) != "owner" && (a == "owner" || a == "admin"):
			s.bounce(e, "cancel", "not-allowed", "")
			return
		default:
			r.setAffiliation(target, a, why)
		}
	default:
		s.bounce(e, "cancel", "bad-request", "")
		return
	}
	if r.m.lobby { // as recorded: Jitsi's lobby swallows the answer
		return
	}
	s.reply(e)
}

// kick removes an occupant by force; it loses its affiliation, and a lobby tells
// the conference.
func (r *room) kick(o *occupant, why item) {
	if r.m.lobby && r.main != nil {
		r.main.lobbyNotify(why.actor, "LOBBY-ACCESS-DENIED", strconv.Quote(r.jid.with(o.nick).String()), o.presence.child(nsNick, "nick").text())
	}
	delete(r.aff, o.jid.bare().String())
	r.remove(o, status{codes: []int{307}, item: why})
}

// setAffiliation changes a user's standing and tells the room.
func (r *room) setAffiliation(target jid, a string, why item) {
	bare := target.bare().String()
	if a == "none" {
		delete(r.aff, bare)
	} else {
		r.aff[bare] = a
	}
	present := false
	for _, o := range r.byOrder() {
		if o.jid.bare().String() != bare {
			continue
		}
		present = true
		switch {
		case a == "outcast":
			r.remove(o, status{codes: []int{301}, item: why})
		case a == "none" && r.membersOnly && r.m.conference:
			r.remove(o, status{codes: []int{321}, item: why})
		default:
			o.role = roleFor(r.affiliation(o.jid))
			r.publish(o, o.role, status{item: why})
		}
	}
	if present {
		return
	}
	i := el(nsMUCUser, "item", "affiliation", a, "jid", bare)
	if why.reason != "" {
		i.add(el(nsMUCUser, "reason").add(why.reason))
	}
	for _, o := range r.byOrder() {
		if o.role == "moderator" {
			r.send(o, el(nsClient, "message", "from", r.jid.String()).add(el(nsMUCUser, "x").add(i)))
		}
	}
}

// handleMessage takes a message to the room or an occupant.
func (r *room) handleMessage(e *element, from jid, nick string) {
	s := r.m.s
	o := r.occupantOf(from)
	typ := e.attr("type")
	if typ == "error" {
		if o != nil {
			r.kickError(o, e)
		}
		return
	}
	if x := e.child(nsMUCUser, "x"); x != nil && nick == "" && typ != "groupchat" {
		if inv := x.child(nsMUCUser, "invite"); inv != nil {
			r.invite(e, from, inv)
		} else {
			s.bounce(e, "cancel", "bad-request", "")
		}
		return
	}
	if o == nil {
		s.bounceBy(e, "cancel", "not-acceptable", "You are not currently connected to this chat", r.jid.String())
		return
	}
	out := e.with("from", r.jid.with(o.nick).String())
	if nick == "" {
		if typ == "groupchat" {
			r.broadcast(out)
		}
		return
	}
	target := r.occ[nick]
	switch {
	case typ == "groupchat":
		s.bounceBy(e, "modify", "bad-request", "", r.jid.String())
	case target == nil:
		s.bounceBy(e, "cancel", "item-not-found", "Recipient not in room", r.jid.String())
	default:
		r.send(target, out.add(el(nsMUCUser, "x")))
	}
}

// invite is a mediated invitation (XEP-0045 §7.8.2); from a moderator of a room
// for members it also makes the invited one a member.
func (r *room) invite(e *element, from jid, inv *element) {
	s := r.m.s
	target, err := parseJID(inv.attr("to"))
	if err != nil {
		s.bounce(e, "cancel", "jid-malformed", "")
		return
	}
	moderator := roleFor(r.affiliation(from)) == "moderator"
	if r.occupantOf(from) == nil && !moderator || r.membersOnly && !moderator {
		s.bounce(e, "auth", "forbidden", "")
		return
	}
	r.invited(target, from.String(), inv.child(nsMUCUser, "reason").text())
}

func (r *room) invited(target jid, by, reason string) {
	if r.membersOnly && r.affiliation(target) == "none" {
		r.setAffiliation(target.bare(), "member", item{reason: "Invited by " + by})
	}
	x := el(nsMUCUser, "x").add(el(nsMUCUser, "invite", "from", by).add(el(nsMUCUser, "reason").add(reason)))
	if r.password != "" {
		x.add(el(nsMUCUser, "password").add(r.password))
	}
	r.m.s.route(el(nsClient, "message", "from", r.jid.String(), "to", target.String()).add(
		x, el(nsConfJID, "x", "jid", r.jid.String()),
		el(nsClient, "body").add(by+" invited you to the room "+r.jid.String())), nil)
	if r.lobby != nil {
		for _, o := range r.lobby.byOrder() {
			if o.jid == target {
				r.lobbyNotify("", "LOBBY-ACCESS-GRANTED", strconv.Quote(r.lobby.jid.with(o.nick).String()), o.presence.child(nsNick, "nick").text())
			}
		}
	}
}
