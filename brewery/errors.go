package brewery

import "errors"

// What [Set.Resolve] and [NormalizeRoom] return, for errors.Is.
var (
	// ErrNoRoom: the call names no room.
	ErrNoRoom = errors.New("no room")
	// ErrBadRoom: what the call names can be no room of Jitsi Meet. Is ErrNoRoom.
	ErrBadRoom error = kind{"not a room name", ErrNoRoom}
	// ErrNoDeployment: no deployment serves what the call names.
	ErrNoDeployment = errors.New("no deployment")
	// ErrAmbiguous: several deployments could be meant, or the call
	// contradicts itself.
	ErrAmbiguous = errors.New("ambiguous")
)

// What [Deployment.Locate] returns, for errors.Is.
var (
	// ErrOwnerDown: the shard that must open the room cannot now. Opening it
	// elsewhere would split the meeting.
	ErrOwnerDown = errors.New("shard down")
	// ErrBalancer: the load balancer must decide and gives no answer. Is
	// ErrOwnerDown.
	ErrBalancer error = kind{"load balancer", ErrOwnerDown}
	// ErrUnknownShard: the shard that the call names is not of the deployment.
	ErrUnknownShard = errors.New("unknown shard")
	// ErrNothingUp: no shard of the deployment is up.
	ErrNothingUp = errors.New("no shard is up")
)

// ErrCredentials: the configured login cannot be done, for want of a token or
// a usable key.
var ErrCredentials = errors.New("no credentials")

// kind is an error that is a special case of another.
type kind struct {
	text string
	of   error
}

func (k kind) Error() string { return k.text }
func (k kind) Unwrap() error { return k.of }
