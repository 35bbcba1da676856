package xmpp

import (
	"errors"
	"fmt"

	"brewline/xmpp/bosh"
)

// What Dial returns and a session ends with, for errors.Is.
var (
	// ErrUnreachable: no usable answer from the address.
	ErrUnreachable = errors.New("server unreachable")
	// ErrTLS: the certificate or the handshake failed.
	ErrTLS = errors.New("TLS failed")
	// ErrAuth: the login was refused, or no acceptable mechanism is offered.
	ErrAuth = errors.New("authentication failed")
	// ErrDomain: the server does not serve the domain.
	ErrDomain = errors.New("domain not served here")
	// ErrShardChanged: the load balancer sent a request of this session to
	// another shard. Rejoin from scratch.
	ErrShardChanged = bosh.ErrShardChanged
	// ErrClosed: Close was called.
	ErrClosed = errors.New("session closed")
	// ErrSessionLost: the session ended without our doing.
	ErrSessionLost = errors.New("session lost")
	// ErrQueueFull: too many stanzas wait to be sent.
	ErrQueueFull = bosh.ErrQueueFull
)

// What RequestConference returns, for errors.Is.
var (
	// ErrNotAuthorized: the room does not exist and we may not create it; the
	// host has not arrived. Try again later.
	ErrNotAuthorized = errors.New("not authorized to start the conference")
	// ErrSessionInvalid: the focus does not know the session id, and neither
	// accepted a request without one.
	ErrSessionInvalid = errors.New("focus session invalid")
	// ErrNoFocus: no Jicofo is online at this shard.
	ErrNoFocus = errors.New("no focus available")
	// ErrReservation: the reservation system refused the conference.
	ErrReservation = errors.New("conference reservation refused")
)

// JoinKind says why a room could not be joined.
type JoinKind int

// Reasons for a failed join (XEP-0045 §7.2, and what Jitsi adds).
const (
	JoinOther        JoinKind = iota
	JoinPassword              // a password is needed, or the one given is wrong
	JoinLobby                 // members only; JoinError.Lobby is where to wait
	JoinDisplayName           // a display name is required
	JoinFull                  // too many occupants
	JoinNoRoom                // the room does not exist and may not be created; repeat the conference request
	JoinAuthRequired          // only authenticated users
	JoinNotAllowed            // refused for another reason, see JoinError.Text
	JoinBanned                // we are banned
	JoinConflict              // the nick is taken
	JoinBadNick               // the nick is not acceptable
	JoinTimeout               // no answer
)

var joinKindNames = [...]string{"other", "password", "lobby", "display-name", "full", "no-room",
	"auth-required", "not-allowed", "banned", "conflict", "bad-nick", "timeout"}

func (k JoinKind) String() string {
	if k < 0 || int(k) >= len(joinKindNames) {
		return fmt.Sprintf("JoinKind(%d)", int(k))
	}
	return joinKindNames[k]
}

// JoinError is a failed join.
type JoinError struct {
	Kind            JoinKind
	Condition, Text string // of the stanza error, if there was one
	Lobby           JID    // JoinLobby: the lobby room
	WaitingForHost  bool   // JoinLobby: nobody is there yet to let us in
	Err             error  // the *StanzaError or the context's error
}

func (e *JoinError) Error() string {
	s := "join refused: " + e.Kind.String()
	if e.Condition != "" {
		s += " (" + e.Condition + ")"
	}
	if e.Text != "" {
		s += ": " + e.Text
	}
	if e.Condition == "" && e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

func (e *JoinError) Unwrap() error { return e.Err }
