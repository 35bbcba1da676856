package xmppd

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"
)

// Errors of the calls that act on rooms.
var (
	ErrNoRoom     = errors.New("no such room")
	ErrNoOccupant = errors.New("no such occupant")
)

// RoomInfo describes a room.
type RoomInfo struct {
	JID       string // inside the server: with [tenant]
	Password  string
	Members   bool   // members only: the lobby is on
	Lobby     string // JID of its lobby room, "" when off
	Created   time.Time
	Occupants int // focus included
}

// OccupantInfo describes an occupant.
type OccupantInfo struct {
	Nick, JID         string // nick and real full JID
	Affiliation, Role string
	Presence          string // last presence, as XML
}

// Request is what one HTTP or WebSocket request said.
type Request struct {
	At                  time.Time
	Method, Path        string
	Room, Prefix, Token string // of the query; Prefix also from the path
	Query               string // raw
	Host                string
	Header              http.Header
	SID                 string // BOSH session, "" for the first request
	RID                 int64
	Body                string // BOSH body, as received
	Status              int    // of the answer; 0 while none was given
	Answer              string // BOSH body, as sent
}

// Rooms lists the rooms of every service, lobbies and breweries too.
func (s *Server) Rooms() []RoomInfo {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []RoomInfo
	for _, d := range []string{s.o.MUC, s.o.Lobby, s.o.InternalMUC} {
		for _, r := range s.services[d].list() {
			i := RoomInfo{JID: r.jid.String(), Password: r.password, Members: r.membersOnly, Created: r.created, Occupants: len(r.occ)}
			if r.lobby != nil {
				i.Lobby = r.lobby.jid.String()
			}
			out = append(out, i)
		}
	}
	return out
}

// find takes a room's JID, also in its tenant form, or the node of a conference.
func (s *Server) find(name string) (*room, error) {
	j := jid{local: strings.ToLower(name), domain: s.o.MUC}
	if strings.Contains(name, "@") {
		var err error
		if j, err = parseJID(s.inner(name)); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	if m := s.services[j.domain]; m != nil && m.rooms[j.local] != nil {
		return m.rooms[j.local], nil
	}
	return nil, fmt.Errorf("%s: %w", name, ErrNoRoom)
}

// inRoom runs f under the lock with the named room.
func (s *Server) inRoom(name string, f func(*room) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, err := s.find(name)
	if err != nil {
		return err
	}
	return f(r)
}

// Occupants lists the occupants of a room in the order of their joining; name is
// a room's JID or the node of a conference. Nobody is in a room that does not exist.
func (s *Server) Occupants(name string) []OccupantInfo {
	var out []OccupantInfo
	_ = s.inRoom(name, func(r *room) error {
		for _, o := range r.byOrder() {
			out = append(out, OccupantInfo{o.nick, o.jid.String(), r.affiliation(o.jid), o.role, o.presence.String()})
		}
		return nil
	})
	return out
}

// SetPassword sets a room's password; "" removes it.
func (s *Server) SetPassword(name, password string) error {
	return s.inRoom(name, func(r *room) error {
		r.password = password
		r.configChanged()
		return nil
	})
}

// EnableLobby switches a conference's lobby on or off as a moderator would.
func (s *Server) EnableLobby(name string, on bool) error {
	return s.inRoom(name, func(r *room) error {
		if on == r.membersOnly {
			return nil
		}
		if on {
			r.openLobby("")
		} else {
			r.closeLobby("")
		}
		r.configChanged()
		return nil
	})
}

// Admit lets somebody in from the lobby; name is the conference, nick theirs in
// the lobby.
func (s *Server) Admit(name, nick string) error {
	return s.inRoom(name, func(r *room) error {
		if r.lobby == nil || r.lobby.occ[nick] == nil {
			return fmt.Errorf("admit %s: %w", nick, ErrNoOccupant)
		}
		by := r.jid.String()
		for _, o := range r.byOrder() {
			if o.role == "moderator" {
				by = o.jid.String()
			}
		}
		r.invited(r.lobby.occ[nick].jid, by, "")
		return nil
	})
}

// Deny turns somebody in the lobby away.
func (s *Server) Deny(name, nick string) error {
	return s.inRoom(name, func(r *room) error {
		if r.lobby == nil || r.lobby.occ[nick] == nil {
			return fmt.Errorf("deny %s: %w", nick, ErrNoOccupant)
		}
		r.lobby.kick(r.lobby.occ[nick], item{})
		return nil
	})
}

// Kick removes an occupant by force (status 307).
func (s *Server) Kick(name, nick, reason string) error {
	return s.inRoom(name, func(r *room) error {
		o := r.occ[nick]
		if o == nil {
			return fmt.Errorf("kick %s: %w", nick, ErrNoOccupant)
		}
		r.kick(o, item{reason: reason})
		return nil
	})
}

// Destroy ends a room; alternate is a room to go to instead, or "".
func (s *Server) Destroy(name, alternate, reason string) error {
	return s.inRoom(name, func(r *room) error {
		r.destroy(alternate, reason)
		return nil
	})
}

// SetAffiliation changes a user's standing in a room: owner, admin, member, none
// or outcast.
func (s *Server) SetAffiliation(name, bare, affiliation string) error {
	j, err := parseJID(bare)
	if err != nil {
		return fmt.Errorf("%s: %w", bare, err)
	}
	return s.inRoom(name, func(r *room) error {
		r.setAffiliation(j.bare(), affiliation, item{})
		return nil
	})
}

// SetMetadata changes one value of a room's metadata, given as JSON, and tells
// everybody.
func (s *Server) SetMetadata(name, key, value string) error {
	return s.inRoom(name, func(r *room) error {
		r.metadata.set(key, []byte(value))
		r.broadcastMetadata()
		return nil
	})
}

// Waiting counts joins that are kept back until the focus is in the room.
func (s *Server) Waiting(name string) int {
	n := 0
	_ = s.inRoom(name, func(r *room) error { n = len(r.waiting); return nil })
	return n
}
