package xmppd

import (
	"errors"
	"net/http"
	"time"
)

// Errors of the calls that act on rooms.
var (
	ErrNoRoom     = errors.New("no such room")
	ErrNoOccupant = errors.New("no such occupant")
)

// RoomInfo describes a room.
type RoomInfo struct {
	JID       string
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
