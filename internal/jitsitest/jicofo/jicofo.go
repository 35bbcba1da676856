package jicofo

import (
	"context"
	"errors"

	"brewline/internal/jitsitest/jvb"
)

// Jicofo is a running focus.
type Jicofo struct{ o Options }

// Start connects to the server and serves until Close.
func Start(ctx context.Context, o Options) (*Jicofo, error) { return &Jicofo{o: o}, nil }

// Close leaves all rooms and disconnects.
func (j *Jicofo) Close() error { return nil }

// SetConferencePolicy replaces what conference requests are answered; nil is
// Ready always.
func (j *Jicofo) SetConferencePolicy(f func(ConferenceRequest) Verdict) {}

// SetSilent makes Jicofo never invite anybody, or invite again.
func (j *Jicofo) SetSilent(silent bool) {}

// SetStartMuted changes Options.StartMuted.
func (j *Jicofo) SetStartMuted(on bool) {}

// Kill makes the focus vanish from all rooms and from the server.
func (j *Jicofo) Kill() {}

// Return reconnects after Kill. Rooms are joined again only when a
// conference request for them arrives.
func (j *Jicofo) Return(ctx context.Context) error { return nil }

// AddBridge makes a bridge available.
func (j *Jicofo) AddBridge(b *jvb.Bridge) {}

// RemoveBridge takes a bridge away and moves its sessions to another one, or
// terminates them until there is another.
func (j *Jicofo) RemoveBridge(b *jvb.Bridge) {}

// MoveRoom moves all sessions of a room to another bridge (or to the same one
// when it is the only one), by the given method.
func (j *Jicofo) MoveRoom(room string, m ReinviteMethod) error { return errors.New("no such room") }

// Mute mutes or unmutes a participant, as if actor (a nick, may be empty) had
// asked for it.
func (j *Jicofo) Mute(room, nick, actor string, mute bool) error { return errors.New("no such room") }

// Rooms returns what Jicofo knows of its conferences.
func (j *Jicofo) Rooms() []Room { return nil }

// Room returns one conference by bare JID or by room name.
func (j *Jicofo) Room(room string) (Room, bool) { return Room{}, false }

// Requests returns all conference requests received.
func (j *Jicofo) Requests() []ConferenceRequest { return nil }

// Room is a snapshot of a conference.
type Room struct {
	JID          string
	MeetingID    string
	Participants []Participant
}

// Participant is a snapshot of a member.
type Participant struct {
	Nick, JID string
	Features  []string
	// SID is the Jingle session, empty when there is none; Accepted says
	// whether it was accepted.
	SID           string
	Accepted      bool
	BridgeSession string
	Sources       []Source
	Endpoint      *jvb.Endpoint
	// Invites counts session-initiates since the member joined.
	Invites int
}

// Source is a signalled media source.
type Source struct {
	SSRC              uint32
	Name, MSID, Owner string
	Video             bool
}

// ConferenceRequest is a received conference IQ.
type ConferenceRequest struct {
	From, Room, MachineUID, SessionID, Token string
	Properties                               map[string]string
	// Attempt counts the requests of this sender for this room from 1.
	Attempt int
}

// Verdict is the answer to a conference request.
type Verdict struct {
	Kind VerdictKind
	// Code and Text go with ReservationError.
	Code int
	Text string
	// VNode goes with Ready.
	VNode string
}

// VerdictKind is a kind of answer to a conference request.
type VerdictKind int

// The answers to a conference request.
const (
	// Ready joins the room and answers ready='true'.
	Ready VerdictKind = iota
	// NotReady answers ready='false' and does nothing.
	NotReady
	// NotAuthorized: the room does not exist and the sender may not make it.
	NotAuthorized
	// NotAcceptable: machine-uid is missing.
	NotAcceptable
	// SessionInvalid: not-acceptable with session-invalid.
	SessionInvalid
	// ReservationError carries Code and Text.
	ReservationError
	// ServiceUnavailable is what the server's proxy says without a Jicofo.
	ServiceUnavailable
	// NoReply leaves the request unanswered.
	NoReply
)
