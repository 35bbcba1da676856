package call

import "sync"

// floor lets one of several legs of a kind be heard at a time. The others keep
// theirs until they are promoted.
type floor[L any] struct {
	attach func(L) error
	detach func()

	mu      sync.Mutex
	current *seat[L]
}

// seat is one leg's access to the call's audio.
type seat[L any] struct {
	floor *floor[L]

	waiting  *L // ready, not attached; mu of floor is held for this and the next
	attached bool
}

// promote makes s the seat that is heard, and attaches its leg if it is ready.
func (s *seat[L]) promote() error {
	f := s.floor
	f.mu.Lock()
	defer f.mu.Unlock()
	if old := f.current; old != nil && old != s && old.attached {
		f.detach()
		old.attached = false
	}
	f.current = s
	if w := s.waiting; w != nil {
		s.waiting = nil
		return s.take(*w)
	}
	return nil
}

// take attaches l; mu is held.
func (s *seat[L]) take(l L) error {
	if err := s.floor.attach(l); err != nil {
		return err
	}
	s.attached = true
	return nil
}

// sit attaches l now, if the seat is the one that is heard, or when it becomes
// that.
func (s *seat[L]) sit(l L) error {
	s.floor.mu.Lock()
	defer s.floor.mu.Unlock()
	if s.floor.current != s {
		s.waiting = &l
		return nil
	}
	return s.take(l)
}

// rise detaches the leg.
func (s *seat[L]) rise() {
	s.floor.mu.Lock()
	defer s.floor.mu.Unlock()
	s.waiting = nil
	if s.attached {
		s.floor.detach()
		s.attached = false
	}
}
