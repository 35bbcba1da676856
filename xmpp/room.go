package xmpp

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
)

// RoomOptions say how to join a room.
type RoomOptions struct {
	Room           JID
	Nick, Password string
	Presence       OwnPresence
	FocusNick      string // occupant that leads the conference, default "focus"
	// FocusUser, if set, is the account the focus must have as its real JID
	// (ConferenceReply.FocusJID). Another one in its place is not obeyed.
	FocusUser JID
	// On is called for every change, from the first occupant of the join on,
	// thus before Join returns. It runs on the reader's goroutine and must
	// not block.
	On func(RoomEvent)
}

// Occupant is another member of a room.
type Occupant struct {
	Nick                           string
	JID                            JID // real JID, if the room shows it
	Affiliation, Role, DisplayName string
	Features                       []string // of its presence
	Gateway                        bool     // it has the Jigasi feature
	Presence                       *Presence
}

// RoomEventKind names a change in a room.
type RoomEventKind int

// Changes in a room. After Kicked, Banned, Destroyed or SelfLeft no other
// event follows.
const (
	OccupantJoined RoomEventKind = iota + 1
	OccupantChanged
	OccupantLeft
	FocusJoined
	FocusLeft
	FocusChanged  // conference properties, bridgeNotAvailable
	SelfChanged   // our role or affiliation
	Kicked        // Reason
	Banned        // Reason
	Destroyed     // Reason, Alternate
	SelfLeft      // the room put us out for another reason
	RoomMessage   // Message
	ConfigChanged // status 104
)

var roomEventNames = [...]string{"", "occupant-joined", "occupant-changed", "occupant-left", "focus-joined", "focus-left",
	"focus-changed", "self-changed", "kicked", "banned", "destroyed", "self-left", "message", "config-changed"}

func (k RoomEventKind) String() string {
	if k <= 0 || int(k) >= len(roomEventNames) {
		return fmt.Sprintf("RoomEventKind(%d)", int(k))
	}
	return roomEventNames[k]
}

// RoomEvent is a change in a room.
type RoomEvent struct {
	Kind      RoomEventKind
	Occupant  Occupant  // occupant events; for SelfChanged, us
	Presence  *Presence // what brought the event
	Message   *Message
	Reason    string
	Alternate JID // Destroyed: where to go instead
}

// Room is our membership in a MUC room (XEP-0045).
type Room struct {
	s      *Session
	room   JID
	focus  JID
	o      RoomOptions
	joined chan error // result of the join, once

	mu        sync.Mutex
	nick      string
	own       OwnPresence
	in        bool // self-presence came
	over      bool
	self      Occupant
	others    map[string]Occupant
	focusHere bool
	focusUser JID  // real bare JID of who sits in the focus' place, if shown
	impostor  bool // who sits in the focus' place is not FocusUser
}

// Join enters a room and waits for our own presence in it (status 110). A
// refusal is a *JoinError. Without a deadline in ctx, RequestTimeout holds.
func (s *Session) Join(ctx context.Context, o RoomOptions) (*Room, error) {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, s.o.RequestTimeout)
		defer cancel()
	}
	if o.FocusNick == "" {
		o.FocusNick = "focus"
	}
	o.Room = o.Room.Bare().normal()
	r := &Room{s: s, room: o.Room, focus: o.Room.WithResource(o.FocusNick), o: o, nick: o.Nick,
		own: o.Presence.clone(), others: map[string]Occupant{}, joined: make(chan error, 1)}
	if o.Room.Local == "" || o.Nick == "" {
		return nil, fmt.Errorf("join %s: room and nick are needed", o.Room)
	}
	s.mu.Lock()
	if s.rooms[o.Room] != nil {
		s.mu.Unlock()
		return nil, fmt.Errorf("join %s: already in it", o.Room)
	}
	s.rooms[o.Room] = r
	s.mu.Unlock()
	err := s.Send(r.own.wire(r.OccupantJID(), s.caps, &joinX{Password: o.Password}))
	if err == nil {
		select {
		case err = <-r.joined:
		case <-ctx.Done():
			err = &JoinError{Kind: JoinTimeout, Err: ctx.Err()}
			_ = s.Send(&Presence{To: r.OccupantJID(), Type: "unavailable"}) // should it have been let in meanwhile
		case <-s.done:
			err = s.Err()
		}
	}
	if err != nil {
		r.forget()
		return nil, fmt.Errorf("join %s: %w", o.Room, err)
	}
	return r, nil
}

// forget stops listening to the room. It reports whether we still did.
func (r *Room) forget() bool {
	r.mu.Lock()
	first := !r.over
	r.over = true
	r.mu.Unlock()
	r.s.mu.Lock()
	if r.s.rooms[r.room] == r {
		delete(r.s.rooms, r.room)
	}
	r.s.mu.Unlock()
	return first
}

// JID is the room's bare JID.
func (r *Room) JID() JID { return r.room }

// Nick is our nick, which is the endpoint id as well.
func (r *Room) Nick() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.nick
}

// OccupantJID is our address in the room.
func (r *Room) OccupantJID() JID { return r.room.WithResource(r.Nick()) }

// FocusJID is where Jicofo is in the room: all Jingle goes there.
func (r *Room) FocusJID() JID { return r.focus }

// Focus reports whether the focus is in the room.
func (r *Room) Focus() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.focusHere
}

// Self is what the room says of us: role, affiliation, real JID.
func (r *Room) Self() Occupant {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.self
}

// Occupants are the others, without the focus, ordered by nick.
func (r *Room) Occupants() []Occupant {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.SortedFunc(maps.Values(r.others), func(a, b Occupant) int { return strings.Compare(a.Nick, b.Nick) })
}

// isFocus reports whether from may act as the focus of this room.
func (r *Room) isFocus(from JID) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return from == r.focus && !r.impostor
}

// Update changes what our presence says and sends the whole of it.
func (r *Room) Update(change func(*OwnPresence)) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.over {
		return fmt.Errorf("presence in %s: left", r.room)
	}
	change(&r.own)
	return r.s.Send(r.own.wire(r.room.WithResource(r.nick), r.s.caps, nil))
}

// Leave leaves the room. Nothing is heard of it any more.
func (r *Room) Leave() error {
	r.mu.Lock()
	over := r.over
	r.over = true
	r.mu.Unlock()
	if over {
		return nil
	}
	// Until it is told, the focus may still ask for something: it is the focus.
	defer r.forget()
	return r.s.Send(&Presence{To: r.OccupantJID(), Type: "unavailable"})
}

func (r *Room) emit(e RoomEvent) {
	if r.o.On != nil {
		r.o.On(e)
	}
}

// presence is called by the reader for everything from the room.
func (r *Room) presence(p *Presence) {
	r.mu.Lock()
	if r.over {
		r.mu.Unlock()
		return
	}
	nick := p.From.Resource
	switch {
	case p.Type == "error":
		in := r.in
		ours := nick == "" || nick == r.nick
		r.mu.Unlock()
		if !ours {
			return
		}
		r.refused(p, in)
	case p.MUCUser.Has(110) || (r.in && nick == r.nick):
		r.selfPresence(p)
	case nick == "":
		r.mu.Unlock()
	case nick == r.o.FocusNick:
		r.focusPresence(p)
	default:
		r.occupantPresence(p)
	}
}

// refused takes an error presence: the join failed, or the room does not
// know us any more.
func (r *Room) refused(p *Presence, in bool) {
	if !in {
		r.finishJoin(joinError(p))
		return
	}
	if p.Error.Condition == "not-acceptable" || p.Error.Condition == "item-not-found" { // XEP-0045 §7.2, §9
		if r.forget() {
			r.emit(RoomEvent{Kind: SelfLeft, Presence: p, Reason: p.Error.Error()})
		}
	}
}

func (r *Room) finishJoin(err error) {
	select {
	case r.joined <- err:
	default:
	}
}

// selfPresence is entered with mu held, as the next two are.
func (r *Room) selfPresence(p *Presence) {
	if p.Type == "unavailable" {
		if p.MUCUser.Has(303) && p.MUCUser.Nick != "" { // the room renamed us (§7.6)
			r.nick = p.MUCUser.Nick
			r.mu.Unlock()
			return
		}
		in := r.in
		r.mu.Unlock()
		e := departure(p)
		switch {
		case !in && e.Kind == SelfLeft: // of an earlier stay, that we had left
		case !r.forget():
		case !in:
			r.finishJoin(&JoinError{Kind: departureJoinKind(e.Kind), Text: e.Reason, Err: errors.New(e.Kind.String() + " during the join")})
		default:
			r.emit(e)
		}
		return
	}
	first := !r.in
	old := r.self
	r.in, r.nick = true, p.From.Resource
	r.self = occupant(p)
	self := r.self
	r.mu.Unlock()
	switch {
	case first:
		r.finishJoin(nil)
	case old.Role != self.Role || old.Affiliation != self.Affiliation:
		r.emit(RoomEvent{Kind: SelfChanged, Occupant: self, Presence: p})
	}
}

// departure says how we left (XEP-0045 §8.2, §9.1, §10.9).
func departure(p *Presence) RoomEvent {
	e := RoomEvent{Kind: SelfLeft, Presence: p, Occupant: occupant(p)}
	u := p.MUCUser
	if u == nil {
		return e
	}
	e.Reason = u.Reason
	switch {
	case u.Destroy != nil:
		e.Kind, e.Reason, e.Alternate = Destroyed, u.Destroy.Reason, u.Destroy.JID
	case u.Has(301):
		e.Kind = Banned
	case u.Has(307):
		e.Kind = Kicked
	}
	return e
}

func departureJoinKind(k RoomEventKind) JoinKind {
	switch k {
	case Banned:
		return JoinBanned
	case Kicked:
		return JoinNotAllowed
	default: // Destroyed
		return JoinNoRoom
	}
}

// SetFocusUser says which account the focus must have, as RoomOptions.FocusUser
// does, when it is known only after the join.
func (r *Room) SetFocusUser(user JID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.o.FocusUser = user
	r.judgeFocus()
}

// judgeFocus decides whether who sits in the focus' place is obeyed; mu is held.
func (r *Room) judgeFocus() {
	wanted := r.o.FocusUser
	r.impostor = r.focusHere && !wanted.IsZero() && !r.focusUser.IsZero() && r.focusUser != wanted.Bare()
	if r.impostor {
		r.s.log.Warn("occupant in the focus' place is not the focus", "room", r.room.String(), "jid", r.focusUser.String())
	}
}

func (r *Room) focusPresence(p *Presence) {
	here := p.Type != "unavailable"
	kind := FocusChanged
	switch {
	case here && !r.focusHere:
		kind = FocusJoined
	case !here && r.focusHere:
		kind = FocusLeft
	case !here:
		kind = 0
	}
	r.focusHere, r.focusUser = here, JID{}
	if here && p.MUCUser != nil {
		r.focusUser = p.MUCUser.JID.Bare()
	}
	r.judgeFocus()
	r.mu.Unlock()
	if kind != 0 {
		r.emit(RoomEvent{Kind: kind, Occupant: occupant(p), Presence: p})
	}
}

func (r *Room) occupantPresence(p *Presence) {
	o := occupant(p)
	_, known := r.others[o.Nick]
	var kind RoomEventKind
	switch {
	case p.Type == "unavailable" && known:
		kind = OccupantLeft
		delete(r.others, o.Nick)
	case p.Type != "":
	case known:
		kind = OccupantChanged
		r.others[o.Nick] = o
	case len(r.others) < maxOccupants:
		kind = OccupantJoined
		r.others[o.Nick] = o
	}
	r.mu.Unlock()
	if kind != 0 {
		r.emit(RoomEvent{Kind: kind, Occupant: o, Presence: p})
	}
}

// maxOccupants bounds what is kept of one room.
const maxOccupants = 20000

func occupant(p *Presence) Occupant {
	o := Occupant{Nick: p.From.Resource, DisplayName: p.Nick, Features: p.Features,
		Gateway: slices.Contains(p.Features, FeatureJigasi), Presence: p}
	if u := p.MUCUser; u != nil {
		o.JID, o.Affiliation, o.Role = u.JID, u.Affiliation, u.Role
	}
	return o
}

// message is called by the reader for messages of the room and its occupants.
func (r *Room) message(m *Message) {
	r.mu.Lock()
	over := r.over
	r.mu.Unlock()
	if over {
		return
	}
	kind := RoomMessage
	if m.From.Resource == "" && m.MUCUser.Has(104) {
		kind = ConfigChanged
	}
	r.emit(RoomEvent{Kind: kind, Message: m})
}

// joinError reads why a room refused us (XEP-0045 §7.2 and Jitsi's modules).
func joinError(p *Presence) *JoinError {
	e := p.Error
	j := &JoinError{Condition: e.Condition, Text: e.Text, Err: e}
	var app struct {
		Lobby       string    `xml:"http://jitsi.org/jitmeet lobbyroom"`
		Waiting     *struct{} `xml:"http://jitsi.org/jitmeet waiting-for-host"`
		DisplayName *struct{} `xml:"http://jitsi.org/jitmeet displayname-required"`
		NoRoom      *struct{} `xml:"http://jitsi.org/jitmeet room-does-not-exist"`
		AuthNeeded  *struct{} `xml:"http://jitsi.org/jitmeet authentication-required"`
	}
	_ = decodeInner(e.Raw, &app) // what does not decode is an ordinary error
	if app.Lobby == "" {
		app.Lobby = p.LobbyRoom
	}
	j.WaitingForHost = app.Waiting != nil
	text := strings.ToLower(e.Text)
	switch e.Condition {
	case "not-authorized":
		j.Kind = JoinPassword
	case "registration-required":
		if j.Lobby = lenient(strings.TrimSpace(app.Lobby)); j.Lobby.IsZero() {
			j.Kind = JoinNotAllowed // members only, and nowhere to wait
		} else {
			j.Kind = JoinLobby
		}
	case "not-acceptable":
		if app.DisplayName != nil {
			j.Kind = JoinDisplayName
		}
	case "service-unavailable", "resource-constraint":
		j.Kind = JoinFull
	case "forbidden":
		j.Kind = JoinBanned
	case "conflict":
		j.Kind = JoinConflict
	case "item-not-found", "gone":
		j.Kind = JoinNoRoom
	case "jid-malformed":
		j.Kind = JoinBadNick
	case "not-allowed":
		switch {
		case app.AuthNeeded != nil:
			j.Kind = JoinAuthRequired
		case app.NoRoom != nil, strings.Contains(text, "creation is restricted"):
			j.Kind = JoinNoRoom
		case strings.Contains(text, "invalid resource"), strings.Contains(text, "nickname"):
			j.Kind = JoinBadNick
		default:
			j.Kind = JoinNotAllowed
		}
	}
	return j
}

// Mute is a request of the focus to mute or unmute us.
type Mute struct {
	Actor JID // who wants it; zero when it is a rule of the room
	JID   JID // whom, if said
	Muted bool
}

type muteIQ struct {
	XMLName xml.Name `xml:"http://jitsi.org/jitmeet/audio mute"`
	JID     string   `xml:"jid,attr,omitempty"`
	Actor   string   `xml:"actor,attr,omitempty"`
	Muted   string   `xml:",chardata"`
}

// ParseMute reads an audio mute request; ok is false if iq is none. The
// session has made sure that the focus sent it.
func ParseMute(iq *IQ) (m Mute, ok bool) {
	if iq.Type != "set" || iq.Name.Local != "mute" || iq.Name.Space != nsJitmeet+"/audio" {
		return m, false
	}
	var w muteIQ
	if err := iq.Decode(&w); err != nil {
		return m, false
	}
	switch strings.ToLower(strings.TrimSpace(w.Muted)) {
	case "true", "1":
		m.Muted = true
	case "false", "0":
	default:
		return m, false
	}
	m.Actor, m.JID = lenient(w.Actor), lenient(w.JID)
	return m, true
}

// RequestMute asks the focus to mute or unmute us. Unmuting is refused with
// not-allowed while moderators moderate audio and have not approved us.
func (r *Room) RequestMute(ctx context.Context, mute bool) error {
	_, err := r.s.Request(ctx, &IQ{Type: "set", To: r.focus,
		Payload: &muteIQ{JID: r.OccupantJID().String(), Muted: fmt.Sprint(mute)}})
	if err != nil {
		return fmt.Errorf("mute %t in %s: %w", mute, r.room, err)
	}
	return nil
}
