package call

import (
	"sync"

	"brewline/media"
)

// audio lets one of a call's conference legs at a time be heard. A leg that is
// only looking around keeps its transport until it is promoted.
type audio struct {
	bridge *media.Bridge

	mu      sync.Mutex
	current *legAudio
}

// legAudio is one conference leg's access to the call's audio; it implements
// conference.Audio.
type legAudio struct {
	a        *audio
	waiting  *media.ConferenceLeg // connected, not attached
	attached bool
}

func (a *audio) leg() *legAudio { return &legAudio{a: a} }

// promote makes l the leg that is heard, and attaches it if it has connected.
func (a *audio) promote(l *legAudio) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if old := a.current; old != nil && old != l && old.attached {
		a.bridge.DetachConference()
		old.attached = false
	}
	a.current = l
	if w := l.waiting; w != nil {
		l.waiting = nil
		return l.attach(*w)
	}
	return nil
}

func (l *legAudio) attach(m media.ConferenceLeg) error {
	if err := l.a.bridge.AttachConference(m); err != nil {
		return err
	}
	l.attached = true
	return nil
}

// Attach implements conference.Audio.
func (l *legAudio) Attach(m media.ConferenceLeg) error {
	l.a.mu.Lock()
	defer l.a.mu.Unlock()
	if l.a.current != l {
		l.waiting = &m
		return nil
	}
	return l.attach(m)
}

// Detach implements conference.Audio.
func (l *legAudio) Detach(media.ConferenceLeg) {
	l.a.mu.Lock()
	defer l.a.mu.Unlock()
	l.waiting = nil
	if l.attached {
		l.a.bridge.DetachConference()
		l.attached = false
	}
}

// DropSource implements conference.Audio.
func (l *legAudio) DropSource(ssrc uint32) {
	l.a.mu.Lock()
	defer l.a.mu.Unlock()
	if l.attached {
		l.a.bridge.RemoveSource(ssrc)
	}
}
