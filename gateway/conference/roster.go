package conference

import (
	"sync"

	"brewline/xmpp"
)

// maxLeft bounds how many departures are told apart at once.
const maxLeft = 4096

// roster gathers who came and went during one stay in the room until the leg's
// goroutine looks: a crowd takes one place in the inbox.
type roster struct {
	mu     sync.Mutex
	queued bool
	count  bool     // somebody came or went
	left   []string // nicks
}

// rosterChanged tells the leg's goroutine to look.
type rosterChanged struct {
	stay   int
	roster *roster
}

// note takes a change and reports whether the leg's goroutine has to be told.
func (r *roster) note(e xmpp.RoomEvent) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if e.Kind != xmpp.OccupantChanged {
		r.count = true
	}
	if e.Kind == xmpp.OccupantLeft && len(r.left) < maxLeft {
		r.left = append(r.left, e.Occupant.Nick)
	}
	first := !r.queued
	r.queued = true
	return first
}

func (r *roster) take() (left []string, count bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	left, count = r.left, r.count
	r.left, r.count, r.queued = nil, false, false
	return left, count
}

func (l *Leg) rosterChanged(r *roster) {
	left, count := r.take()
	for _, nick := range left {
		// A member that leaves sends no source-remove.
		for _, ssrc := range l.ssrcs[nick] {
			l.o.Audio.DropSource(ssrc)
		}
		delete(l.ssrcs, nick)
	}
	o := l.occupants()
	if count {
		l.watchInvite(o)
	}
	if o != l.told {
		l.told = o
		l.o.On(OccupantsChanged{o})
	}
}
