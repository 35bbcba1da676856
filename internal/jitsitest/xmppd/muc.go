package xmppd

import (
	"crypto/hmac"
	crand "crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"slices"
	"strconv"
	"strings"
	"time"
)

// mucService is a domain with rooms (XEP-0045).
type mucService struct {
	s          *Server
	domain     string
	rooms      map[string]*room // by node
	conference bool             // Jitsi's conferences
	lobby      bool             // lobby rooms
	allowed    []string         // domains let in; nil is everybody
}

func (m *mucService) list() []*room {
	var out []*room
	for _, r := range m.rooms {
		out = append(out, r)
	}
	slices.SortFunc(out, func(a, b *room) int { return strings.Compare(a.jid.local, b.jid.local) })
	return out
}

// handle takes a stanza addressed to the domain.
func (m *mucService) handle(e *element, to jid) {
	from, err := parseJID(e.attr("from"))
	if err != nil {
		return
	}
	if m.allowed != nil && !slices.Contains(m.allowed, from.domain) { // mod_muc_filter_access
		m.s.bounceBy(e, "cancel", "service-unavailable", "", m.domain)
		return
	}
	if to.local == "" {
		m.handleService(e)
		return
	}
	r := m.rooms[to.local]
	if e.Name == "presence" && e.attr("type") == "" && e.child(nsMUC, "x") != nil && to.resource != "" {
		m.join(r, e, from, to)
		return
	}
	if r == nil {
		m.s.bounceBy(e, "cancel", "item-not-found", "", m.domain)
		return
	}
	switch e.Name {
	case "presence":
		r.handlePresence(e, from, to.resource)
	case "message":
		r.handleMessage(e, from, to.resource)
	case "iq":
		if to.resource != "" {
			r.relay(e, from, to.resource)
		} else {
			r.handleIQ(e, from)
		}
	}
}

// handleService answers what is asked of the domain itself.
func (m *mucService) handleService(e *element) {
	if e.Name != "iq" || e.attr("type") == "result" || e.attr("type") == "error" {
		return
	}
	switch q := e.first(); {
	case q.NS == nsDiscoInfo:
		m.s.reply(e, info{identities: []identity{{"conference", "text", "Prosody Chatrooms"}}, features: []string{
			"http://jabber.org/protocol/muc#unique", nsOccupant, nsMUC, nsDiscoInfo, nsDiscoItem,
			"http://jabber.org/protocol/commands"}}.element(q.attr("node")))
	case q.NS == nsDiscoItem: // rooms are hidden
		m.s.reply(e, el(nsDiscoItem, "query"))
	case q.NS == nsPing:
		m.s.reply(e)
	default:
		m.s.bounce(e, "cancel", "service-unavailable", "")
	}
}

// occupant is a member of a room.
type occupant struct {
	nick     string
	jid      jid      // real full JID
	role     string   // moderator or participant
	presence *element // last one, cleaned of what the room adds
	id       string   // XEP-0421
}

// room is a MUC room.
type room struct {
	m           *mucService
	jid         jid
	created     time.Time
	meetingID   string
	salt        []byte
	password    string
	membersOnly bool
	aff         map[string]string // bare JID to affiliation
	occ         map[string]*occupant
	order       []string // nicks by time of joining
	lobby       *room    // of a conference
	main        *room    // of a lobby room
	waitForHost bool
	focusIn     bool       // the focus has joined
	waiting     []*element // joins kept back until then
	metadata    metadata
	moderation  map[string]*moderation // by media type
}

func (m *mucService) create(node string) *room {
	r := &room{m: m, jid: jid{local: node, domain: m.domain}, created: time.Now(), meetingID: randomUUID(),
		salt: make([]byte, 16), aff: map[string]string{}, occ: map[string]*occupant{}, moderation: map[string]*moderation{}}
	_, _ = crand.Read(r.salt)
	m.rooms[node] = r
	return r
}

// byOrder are the occupants in the order of their joining.
func (r *room) byOrder() []*occupant {
	var out []*occupant
	for _, n := range r.order {
		out = append(out, r.occ[n])
	}
	return out
}

func (r *room) occupantOf(real jid) *occupant {
	for _, o := range r.occ {
		if o.jid == real {
			return o
		}
	}
	return nil
}

// admin says whether a user owns every room.
func (s *Server) admin(j jid) bool {
	if j.domain == s.o.Focus || slices.Contains(s.o.Admins, j.domain) || slices.Contains(s.o.Admins, j.bare().String()) {
		return true
	}
	h := s.hosts[j.domain]
	return h != nil && h.Admin
}

func (r *room) affiliation(j jid) string {
	if r.m.s.admin(j) {
		return "owner"
	}
	if r.main != nil {
		if a := r.main.affiliation(j); a == "owner" || a == "admin" {
			return a
		}
	}
	if a := r.aff[j.bare().String()]; a != "" {
		return a
	}
	return "none"
}

func roleFor(affiliation string) string {
	if affiliation == "owner" || affiliation == "admin" {
		return "moderator"
	}
	return "participant"
}

// item is the <item/> of an occupant.
type item struct{ actor, reason string }

// status is what a presence says beside the occupant itself.
type status struct {
	codes   []int    // for everybody
	self    []int    // for the occupant, before the item
	destroy *element // instead of codes
	item    item
}

// build makes an occupant's presence as seen by others or by itself.
func (r *room) build(o *occupant, role string, st status, self bool) *element {
	p := o.presence
	if role == "none" && p.attr("type") != "unavailable" {
		p = el(nsClient, "presence", "type", "unavailable", "from", r.jid.with(o.nick).String())
	}
	p = p.clone()
	x := el(nsMUCUser, "x").add(st.destroy)
	codes := st.codes
	if self {
		codes = append(slices.Clone(codes), st.self...)
	}
	for _, c := range codes {
		x.add(el(nsMUCUser, "status", "code", strconv.Itoa(c)))
	}
	i := el(nsMUCUser, "item", "affiliation", r.affiliation(o.jid), "jid", o.jid.String(), "role", role)
	if st.item.actor != "" {
		i.add(el(nsMUCUser, "actor", "nick", st.item.actor))
	}
	if st.item.reason != "" {
		i.add(el(nsMUCUser, "reason").add(st.item.reason))
	}
	x.add(i)
	if self {
		x.add(el(nsMUCUser, "status", "code", "110"))
	}
	p.add(el(nsOccupant, "occupant-id", "id", o.id), x)
	if self && role == "moderator" && r.m.conference {
		perms := el(nsJitmeet, "permissions")
		for _, n := range []string{"recording", "outbound-call", "flip", "send-groupchat", "livestreaming", "create-polls", "transcription"} {
			perms.add(el(nsJitmeet, "p", "name", n, "val", "true"))
		}
		p.add(perms)
	}
	return p
}

// sees says whether one occupant is shown another: in a lobby only moderators
// see the others.
func (r *room) sees(viewer, o *occupant) bool {
	return !r.m.lobby || viewer == o || viewer.role == "moderator"
}

// publish tells the room about an occupant, the occupant itself last.
func (r *room) publish(o *occupant, role string, st status) {
	others := r.build(o, role, st, false)
	for _, v := range r.byOrder() {
		if v != o && r.sees(v, o) {
			r.m.s.route(others.with("to", v.jid.String()), nil)
		}
	}
	r.m.s.route(r.build(o, role, st, true).with("to", o.jid.String()), nil)
}

// send delivers a stanza to an occupant.
func (r *room) send(o *occupant, e *element) { r.m.s.route(e.with("to", o.jid.String()), nil) }

// broadcast delivers a stanza to every occupant.
func (r *room) broadcast(e *element) {
	for _, o := range r.byOrder() {
		r.send(o, e)
	}
}

// remove takes an occupant out, telling everybody why.
func (r *room) remove(o *occupant, st status) {
	r.forget(o)
	r.publish(o, "none", st)
	r.emptied()
}

func (r *room) forget(o *occupant) {
	delete(r.occ, o.nick)
	r.order = slices.DeleteFunc(r.order, func(n string) bool { return n == o.nick })
	for _, m := range r.moderation {
		delete(m.allowed, o.nick)
	}
}

// emptied ends the room when nobody is left in it.
func (r *room) emptied() {
	if len(r.occ) == 0 && !(r.m.lobby && r.main != nil) {
		r.drop()
	}
}

func (r *room) drop() {
	if r.m.rooms[r.jid.local] == r {
		delete(r.m.rooms, r.jid.local)
	}
	if l := r.lobby; l != nil {
		r.lobby, l.main = nil, nil
		l.destroy("", "Lobby room closed.")
	}
}

// destroy removes everybody and the room (XEP-0045 §10.9).
func (r *room) destroy(alternate, reason string) {
	d := el(nsMUCUser, "destroy", "jid", alternate)
	if reason != "" {
		d.add(el(nsMUCUser, "reason").add(reason))
	}
	all := r.byOrder()
	r.occ, r.order = map[string]*occupant{}, nil
	for _, o := range all {
		r.m.s.route(r.build(o, "none", status{destroy: d}, true).with("to", o.jid.String(), "type", "unavailable"), nil)
	}
	r.drop()
}

func (r *room) occupantID(real jid) string {
	return base64.StdEncoding.EncodeToString(r.mac(real.bare().String()))
}

func (r *room) mac(t string) []byte {
	h := hmac.New(sha256.New, r.salt)
	h.Write([]byte(t))
	return h.Sum(nil)
}

// relay passes an IQ from one occupant to another. The room hides real addresses:
// a request's id is replaced by one from which the reply can be led back.
func (r *room) relay(e *element, from jid, nick string) {
	s, target := r.m.s, r.occ[nick]
	if t := e.attr("type"); t == "result" || t == "error" {
		raw, err := base64.StdEncoding.DecodeString(e.attr("id"))
		f := strings.SplitN(string(raw), "\x00", 3)
		sender := r.occupantOf(from)
		if err != nil || len(f) != 3 || target == nil || sender == nil || f[0] != from.String() ||
			f[2] != string(r.mac(target.jid.String())[:8]) {
			return
		}
		s.route(e.with("from", r.jid.with(sender.nick).String(), "to", target.jid.String(), "id", f[1]), nil)
		return
	}
	sender := r.occupantOf(from)
	switch {
	case sender == nil:
		s.bounceBy(e, "cancel", "not-acceptable", "You are not currently connected to this chat", r.jid.String())
	case target == nil:
		s.bounceBy(e, "cancel", "item-not-found", "Recipient not in room", r.jid.String())
	case target == sender && e.child(nsPing, "ping") != nil: // XEP-0410
		s.reply(e)
	default:
		id := base64.StdEncoding.EncodeToString([]byte(target.jid.String() + "\x00" + e.attr("id") + "\x00" + string(r.mac(from.String())[:8])))
		s.route(e.with("from", r.jid.with(sender.nick).String(), "to", target.jid.String(), "id", id), nil)
	}
}
