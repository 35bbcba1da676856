package brewery

import (
	"context"
	"errors"
	"sync"
	"time"

	"brewline/xmpp"
)

// What [DialRequest.Ref] and [DialRequest.Refuse] return, for errors.Is.
var (
	// ErrAnswered: the request has its answer already, be it that its deadline
	// has passed.
	ErrAnswered = errors.New("dial request is answered")
	// ErrGone: the answer cannot reach Jicofo any more.
	ErrGone = errors.New("who asked to dial is gone")
)

// DialRequest is a request of a shard's Jicofo to call a number and bring it
// into a room. It is answered once, by Ref or by Refuse, and is refused at its
// deadline if it was not.
type DialRequest struct {
	ID         string // of the IQ
	Shard      *Shard
	Deployment *Deployment
	From, To   string   // as asked, To not normalised
	Room       xmpp.JID // on the shard's MUC domain, without resource
	Conference Room     // the same
	Password   string
	// Headers are all but JvbRoomName and JvbRoomPassword, in order, each name
	// once.
	Headers []xmpp.Header

	arrived  time.Time
	deadline time.Time
	session  session

	mu       sync.Mutex
	answered bool
}

// Deadline is when the request is refused unless it was answered: well before
// Jicofo asks another gateway.
func (r *DialRequest) Deadline() time.Time { return r.deadline }

// Ref accepts: occupant is where the call is in the room. After an error
// Jicofo does not know it, and may have asked another gateway: the phone must
// not ring.
func (r *DialRequest) Ref(occupant xmpp.JID) error { return r.answer(nil) }

// Refuse declines with a defined condition of XMPP (RFC 6120 §8.3.3). Jicofo
// then asks another gateway.
func (r *DialRequest) Refuse(condition, text string) error { return r.answer(nil) }

func (r *DialRequest) answer(func() error) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.answered {
		return ErrAnswered
	}
	r.answered = true
	return context.Canceled
}
