package conference

import (
	"errors"
	"fmt"
)

// Why a leg ended. The call branches on these; each is wrapped with detail.
var (
	ErrHostAbsent   = errors.New("the conference has not been opened by its host")
	ErrPassword     = errors.New("the room's password is missing or wrong")
	ErrLobbyDenied  = errors.New("a moderator refused the caller in the lobby")
	ErrLobbyTimeout = errors.New("nobody admitted the caller from the lobby")
	ErrRoomFull     = errors.New("the room is full")
	ErrNotAllowed   = errors.New("the shard does not let us into the room")
	ErrNoFocus      = errors.New("no Jicofo answers on the shard")
	ErrRoomNotOpen  = errors.New("the room could not be opened")
	ErrNeverInvited = errors.New("never invited by Jicofo to the conference")
	ErrKicked       = errors.New("kicked from the room")
	ErrDestroyed    = errors.New("the room was destroyed")
	ErrSessionLost  = errors.New("the XMPP session was lost")
	ErrLogin        = errors.New("login at the shard failed")
	ErrUnreachable  = errors.New("the shard cannot be reached")
	ErrMedia        = errors.New("no media path to the videobridge")
	ErrNoPorts      = errors.New("no free UDP port towards the videobridge")
	ErrOverflow     = errors.New("more stanzas than the leg can take")
	ErrVisitor      = errors.New("the room is on a visitor node")
	errLeft         = errors.New("left")
	errRejoin       = errors.New("rejoin")
)

// errorf wraps kind and the detail of err so that both can be told by
// errors.Is.
func errorf(kind, err error) error {
	if err == nil {
		return kind
	}
	return fmt.Errorf("%w: %w", kind, err)
}
