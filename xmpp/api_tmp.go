package xmpp

import (
	"context"
	"errors"
	"time"
)

var errTODO = errors.New("not implemented")

type Session struct{}

func Dial(ctx context.Context, o Options) (*Session, error)         { return nil, errTODO }
func (s *Session) JID() JID                                         { return JID{} }
func (s *Session) Shard() string                                    { return "" }
func (s *Session) Done() <-chan struct{}                            { return nil }
func (s *Session) Err() error                                       { return nil }
func (s *Session) Close() error                                     { return nil }
func (s *Session) Caps() Caps                                       { return Caps{} }
func (s *Session) Send(v any) error                                 { return errTODO }
func (s *Session) Request(ctx context.Context, iq *IQ) (*IQ, error) { return nil, errTODO }
func (s *Session) Reply(req *IQ, payload any) error                 { return errTODO }
func (s *Session) ReplyError(req *IQ, e *StanzaError) error         { return errTODO }
func (s *Session) Ping(ctx context.Context) error                   { return errTODO }
func (s *Session) DiscoInfo(ctx context.Context, to JID, node string) (*DiscoInfo, error) {
	return nil, errTODO
}
func (iq *IQ) Decode(v any) error { return errTODO }

// DiscoInfo is what an entity is and can do (XEP-0030 §3).
type DiscoInfo struct {
	Node       string
	Identities []Identity
	Features   []string
	Forms      []Form // service discovery extensions (XEP-0128)
}

// Identity is what kind of entity it is.
type Identity struct{ Category, Type, Lang, Name string }

// Form is a data form of a disco#info result.
type Form struct {
	Type   string // FORM_TYPE
	Fields map[string][]string
}

// Caps are entity capabilities (XEP-0115): the hash stands for a DiscoInfo.
type Caps struct{ Hash, Node, Ver string }

// GatewayFeatures are the features a gateway without video advertises.
var GatewayFeatures = []string{"urn:xmpp:ping"}

func DefaultDisco() DiscoInfo     { return DiscoInfo{} }
func CapsHash(d DiscoInfo) string { return "" }

// ConferenceRequest asks Jicofo to open a conference.
type ConferenceRequest struct {
	Focus, Room                  JID
	MachineUID, SessionID, Token string
	Properties                   map[string]string
}

// ConferenceReply is Jicofo's answer.
type ConferenceReply struct {
	Ready                      bool
	FocusJID                   JID
	SessionID, Identity, VNode string
	Properties                 map[string]string
}

func (s *Session) RequestConference(ctx context.Context, r ConferenceRequest) (*ConferenceReply, error) {
	return nil, errTODO
}

// RoomOptions say how to join a room.
type RoomOptions struct {
	Room           JID
	Nick, Password string
	Presence       OwnPresence
	FocusNick      string
	On             func(RoomEvent)
}

// OwnPresence is everything our presence in a room says.
type OwnPresence struct {
	DisplayName                      string
	Features                         []string
	AudioMuted                       bool
	Status, StatsID, Region, Version string
	Initiator                        []Header
	SourceName                       string
	RaisedHand                       time.Time
	Stats                            map[string]string
}

type Room struct{}

func (s *Session) Join(ctx context.Context, o RoomOptions) (*Room, error) { return nil, errTODO }
func (r *Room) JID() JID                                                  { return JID{} }
func (r *Room) Nick() string                                              { return "" }
func (r *Room) OccupantJID() JID                                          { return JID{} }
func (r *Room) FocusJID() JID                                             { return JID{} }
func (r *Room) Occupants() []Occupant                                     { return nil }
func (r *Room) Focus() bool                                               { return false }
func (r *Room) Update(change func(*OwnPresence)) error                    { return errTODO }
func (r *Room) Leave() error                                              { return nil }

// Occupant is another member of a room.
type Occupant struct {
	Nick                           string
	JID                            JID
	Affiliation, Role, DisplayName string
	Features                       []string
	Gateway                        bool
	Presence                       *Presence
}

// RoomEvent is a change in a room.
type RoomEvent struct {
	Kind      RoomEventKind
	Occupant  Occupant
	Presence  *Presence
	Message   *Message
	Reason    string
	Alternate JID
}

// RoomEventKind names a change.
type RoomEventKind int

const (
	OccupantJoined RoomEventKind = iota + 1
	OccupantChanged
	OccupantLeft
	FocusJoined
	FocusLeft
	FocusChanged
	SelfChanged
	Kicked
	Banned
	Destroyed
	SelfLeft
	RoomMessage
	ConfigChanged
)

type LobbyOptions struct {
	Lobby, Room       JID
	Nick, DisplayName string
}
type LobbyOutcome int

const (
	LobbyAdmitted LobbyOutcome = iota + 1
	LobbyDenied
	LobbyDisabled
	LobbyEnded
)

type LobbyResult struct {
	Outcome          LobbyOutcome
	Password, Reason string
}
type Lobby struct{}

func (s *Session) EnterLobby(ctx context.Context, o LobbyOptions) (*Lobby, error) {
	return nil, errTODO
}
func (l *Lobby) Wait(ctx context.Context) (LobbyResult, error) { return LobbyResult{}, errTODO }
func (l *Lobby) Leave() error                                  { return nil }

type Mute struct {
	Actor, JID JID
	Muted      bool
}

func ParseMute(iq *IQ) (Mute, bool)                              { return Mute{}, false }
func (r *Room) RequestMute(ctx context.Context, mute bool) error { return errTODO }
