package xmppd

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
)

// The small components of Jitsi's Prosody: room metadata, AV moderation and the
// end of a conference. They find the room by the session's ?room=.

type external struct{ typ, domain string }

func (s *Server) externals() []external {
	d := "." + s.o.Domain
	return []external{
		{"room_metadata", "metadata" + d}, {"av_moderation", "avmoderation" + d}, {"end_conference", "endconference" + d},
		// only announced; what is sent to them is ignored
		{"speakerstats", "speakerstats" + d}, {"polls", "polls" + d}, {"conference_duration", "conferenceduration" + d},
		{"breakout_rooms", "breakout" + d},
	}
}

// extra handles stanzas to those components.
func (s *Server) extra(e *element, to jid) bool {
	if s.o.NoExternalInfo {
		return false
	}
	i := slices.IndexFunc(s.externals(), func(x external) bool { return x.domain == to.domain })
	if i < 0 {
		return false
	}
	if e.Name != "message" {
		s.bounce(e, "cancel", "service-unavailable", "")
		return true
	}
	from, err := parseJID(e.attr("from"))
	x := s.sessions[from.String()]
	if err != nil || x == nil || x.token.Room == "" {
		return true // as in the original: silence
	}
	r := s.services[s.o.MUC].rooms[x.roomNode()]
	if r == nil {
		return true
	}
	o := r.occupantOf(from)
	if o == nil {
		return true
	}
	if o.role != "moderator" {
		s.bounce(e, "auth", "forbidden", "")
		return true
	}
	switch s.externals()[i].typ {
	case "room_metadata":
		r.metadataSet(e)
	case "av_moderation":
		r.moderate(e, o)
	case "end_conference":
		if e.child(nsClient, "end_conference") != nil {
			r.destroy("", "The meeting has been terminated")
		}
	}
	return true
}

// roomNode is the node of the room that the session's URL names.
func (x *session) roomNode() string {
	n := strings.ToLower(x.token.Room)
	if x.token.Prefix != "" {
		n = "[" + strings.ToLower(x.token.Prefix) + "]" + n
	}
	return n
}

// metadata is an ordered set of JSON values.
type metadata struct {
	keys   []string
	values map[string]json.RawMessage
}

func (m *metadata) set(key string, v json.RawMessage) {
	if m.values == nil {
		m.values = map[string]json.RawMessage{}
	}
	if _, ok := m.values[key]; !ok {
		m.keys = append(m.keys, key)
	}
	m.values[key] = v
}

func (m *metadata) json() string {
	var b bytes.Buffer
	b.WriteByte('{')
	for i, k := range m.keys {
		if i > 0 {
			b.WriteByte(',')
		}
		n, _ := json.Marshal(k)
		b.Write(n)
		b.WriteByte(':')
		b.Write(m.values[k])
	}
	b.WriteByte('}')
	return b.String()
}

func jsonMessage(from, room, text string) *element {
	return el(nsClient, "message", "from", from).add(el(nsJitmeet, "json-message", "room", room).add(text))
}

func (r *room) metadataMessage() *element {
	s := r.m.s
	return jsonMessage("metadata."+s.o.Domain, s.outer(r.jid.String()), `{"type":"room_metadata","metadata":`+r.metadata.json()+`}`)
}

func (r *room) broadcastMetadata() {
	if r.m.conference && !r.m.s.o.NoExternalInfo {
		r.broadcast(r.metadataMessage())
	}
}

func (r *room) metadataSet(e *element) {
	var v struct {
		Key  string          `json:"key"`
		Data json.RawMessage `json:"data"`
	}
	x := e.child(nsJitmeet, "room_metadata")
	if x == nil || json.Unmarshal([]byte(x.text()), &v) != nil || v.Key == "" || len(v.Data) == 0 {
		r.m.s.bounce(e, "modify", "bad-request", "")
		return
	}
	r.metadata.set(v.Key, v.Data)
	r.broadcastMetadata()
}

// moderation is AV moderation of one media type.
type moderation struct {
	actor   string          // occupant JID
	allowed map[string]bool // nicks that may unmute
}

func (r *room) moderate(e *element, o *occupant) {
	x := e.child(nsClient, "av_moderation")
	media := x.attr("mediaType")
	if x == nil || media != "audio" && media != "video" && media != "desktop" {
		return
	}
	switch {
	case x.has("enable") && x.attr("enable") == "true":
		if r.moderation[media] == nil {
			r.moderation[media] = &moderation{actor: r.jid.with(o.nick).String(), allowed: map[string]bool{}}
			for _, v := range r.byOrder() {
				if v.role == "moderator" {
					r.moderation[media].allowed[v.nick] = true
				}
			}
			r.moderationState(media, true)
			r.moderationLists(media)
		}
	case x.has("enable"):
		if r.moderation[media] != nil {
			delete(r.moderation, media)
			r.moderationState(media, false)
		}
	default:
		m := r.moderation[media]
		who, add := x.attr("jidToWhitelist"), true
		if who == "" {
			who, add = x.attr("jidToBlacklist"), false
		}
		j, err := parseJID(who)
		target := r.occ[j.resource]
		if m == nil || err != nil || target == nil {
			return
		}
		m.allowed[target.nick] = add
		key := map[bool]string{true: "approved", false: "removed"}[add]
		r.moderationSend(target, map[string]any{"mediaType": media, key: true})
		r.moderationLists(media)
	}
}

func (r *room) moderationSend(o *occupant, v map[string]any) {
	s := r.m.s
	v["type"], v["room"] = "av_moderation", s.outer(r.jid.String())
	t, _ := json.Marshal(v)
	r.send(o, el(nsClient, "message", "from", "avmoderation."+s.o.Domain).add(el(nsJitmeet, "json-message").add(string(t))))
}

func (r *room) moderationState(media string, on bool) {
	for _, o := range r.byOrder() {
		v := map[string]any{"enabled": on, "mediaType": media}
		if m := r.moderation[media]; m != nil {
			v["actor"] = m.actor
		}
		r.moderationSend(o, v)
	}
}

// moderationLists tells moderators, and the focus, who may unmute.
func (r *room) moderationLists(media string) {
	m := r.moderation[media]
	list := []string{}
	for _, o := range r.byOrder() {
		if m.allowed[o.nick] {
			list = append(list, r.jid.with(o.nick).String())
		}
	}
	for _, o := range r.byOrder() {
		if o.role == "moderator" {
			r.moderationSend(o, map[string]any{"mediaType": media, "whitelists": map[string]any{media: list}})
		}
	}
}

// moderationAtJoin tells a newcomer what is moderated.
func (r *room) moderationAtJoin(o *occupant) {
	for media, m := range r.moderation {
		r.moderationSend(o, map[string]any{"enabled": true, "mediaType": media, "actor": m.actor})
	}
}
