package brewery

import (
	"crypto/rand"
	"encoding/hex"
	"sync/atomic"

	"brewline/xmpp"
)

// link is a control session with what hangs on it.
type link struct {
	session                // set before ready is closed
	ready    chan struct{} // the session may be used
	sh       *Shard
	instead  error // why the shard's account is not the one that is logged in
	seat     atomic.Pointer[seat]
	stranger atomic.Bool // somebody who may not dial was refused
}

// handler gives what the session receives to the link; it arrives on the
// reader's goroutine.
func (l *link) handler() xmpp.Handler {
	return xmpp.Handler{Presence: l.presence, IQ: l.iq}
}

func (l *link) presence(p *xmpp.Presence) {
	if s := l.seat.Load(); s != nil && p.From == s.occupant && p.Type == "" {
		select {
		case s.echo <- struct{}{}:
		default:
		}
	}
}

func (l *link) iq(iq *xmpp.IQ) {
	select {
	case <-l.ready:
	default:
		return // nobody can know our address yet
	}
	d, ok := xmpp.ParseDial(iq)
	if !ok {
		_ = l.ReplyError(iq, &xmpp.StanzaError{Type: "cancel", Condition: "service-unavailable"})
		return
	}
	l.dial(iq, d)
}

// newResource names us at a shard, and in its brewery. The same name after a
// lost session makes the server drop what is left of it; it is made anew only
// when somebody else has it. mod_muc_resource_validate takes letters, digits
// and underscores.
func newResource() string {
	b := make([]byte, 4)
	_, _ = rand.Read(b)
	return "brewline_" + hex.EncodeToString(b)
}
