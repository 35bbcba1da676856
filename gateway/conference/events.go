package conference

// Event is something the call must know of. Events of one leg come in order,
// from the leg's goroutine, and must not block it.
type Event interface{ event() }

type (
	// LoggedIn: the XMPP session is up. Shard is the X-Jitsi-Shard it was given.
	LoggedIn struct{ Shard string }
	// Requested: Jicofo answered the conference request and holds the room.
	Requested struct{}
	// Waiting: the leg cannot join yet and goes on trying.
	Waiting struct {
		For  WaitFor
		Nick string // ours, in the room or its lobby
	}
	// Joined: we are an occupant. Events about occupants follow.
	Joined struct {
		Nick string
		Occupants
	}
	// OccupantsChanged tells who else is in the room.
	OccupantsChanged struct{ Occupants }
	// Invited: Jicofo's session-initiate was accepted; the transport connects.
	Invited struct{ BridgeSession, Region string }
	// MediaUp: audio flows through the transport, which is attached.
	MediaUp struct{ Profile string }
	// MediaDown: the transport is gone; the leg waits for another invitation.
	MediaDown struct{ Reason string }
	// Muted: Jicofo muted or unmuted us. Actor is the moderator's nick, if any.
	Muted struct {
		Muted bool
		Actor string
	}
	// Moderator: Jicofo made us an owner of the room, as it does with the first
	// participant unless it trusts our domain.
	Moderator struct{}
	// FocusGone: Jicofo's occupant left; the conference request is repeated.
	FocusGone struct{}
	// BridgeUnavailable: Jicofo has no videobridge for the conference.
	BridgeUnavailable struct{}
	// HangupAsked: a moderator asked to end the call (Rayo hangup).
	HangupAsked struct{}
	// Ended is the last event of a leg. Err is one of the package's errors, nil
	// after Leave.
	Ended struct{ Err error }
)

// Occupants counts who else is in the room, Jicofo excluded.
type Occupants struct {
	Others int // all of them
	Humans int // those that are not gateways
}

// WaitFor says whom a leg waits for before it can join.
type WaitFor string

// What a leg waits for.
const (
	WaitHost  WaitFor = "host"
	WaitLobby WaitFor = "lobby"
)

func (LoggedIn) event()          {}
func (Requested) event()         {}
func (Waiting) event()           {}
func (Joined) event()            {}
func (OccupantsChanged) event()  {}
func (Invited) event()           {}
func (MediaUp) event()           {}
func (MediaDown) event()         {}
func (Muted) event()             {}
func (Moderator) event()         {}
func (FocusGone) event()         {}
func (BridgeUnavailable) event() {}
func (HangupAsked) event()       {}
func (Ended) event()             {}
