package xmpp

import (
	"context"
	"errors"
	"fmt"
	"sync"
)

// LobbyOptions say in which lobby to wait for which room.
type LobbyOptions struct {
	Lobby, Room       JID
	Nick, DisplayName string
}

// LobbyOutcome is how waiting ended.
type LobbyOutcome int

// Outcomes of waiting in a lobby.
const (
	LobbyAdmitted LobbyOutcome = iota + 1 // join the room, after another conference request
	LobbyDenied                           // a moderator said no
	LobbyDisabled                         // no lobby any more: join the room
	LobbyEnded                            // the conference is over
)

var lobbyOutcomeNames = [...]string{"", "admitted", "denied", "disabled", "ended"}

func (o LobbyOutcome) String() string {
	if o <= 0 || int(o) >= len(lobbyOutcomeNames) {
		return fmt.Sprintf("LobbyOutcome(%d)", int(o))
	}
	return lobbyOutcomeNames[o]
}

// LobbyResult is the outcome and what came with it.
type LobbyResult struct {
	Outcome  LobbyOutcome
	Password string // LobbyAdmitted: of the room, if it has one
	Reason   string
}

// Lobby is our place in a lobby room.
type Lobby struct {
	s    *Session
	room *Room // the lobby itself, a room like others
	main JID
	over sync.Once
	done chan LobbyResult
}

// EnterLobby enters a lobby, where moderators of the room see us waiting.
func (s *Session) EnterLobby(ctx context.Context, o LobbyOptions) (*Lobby, error) {
	l := &Lobby{s: s, main: o.Room.Bare().normal(), done: make(chan LobbyResult, 1)}
	s.mu.Lock()
	if s.lobbies[l.main] != nil {
		s.mu.Unlock()
		return nil, fmt.Errorf("lobby of %s: already waiting", o.Room)
	}
	s.lobbies[l.main] = l
	s.mu.Unlock()
	room, err := s.Join(ctx, RoomOptions{Room: o.Lobby, Nick: o.Nick,
		Presence: OwnPresence{DisplayName: o.DisplayName}, On: l.event})
	if err != nil {
		l.forget()
		return nil, fmt.Errorf("lobby of %s: %w", o.Room, err)
	}
	l.room = room
	return l, nil
}

func (l *Lobby) forget() {
	l.s.mu.Lock()
	if l.s.lobbies[l.main] == l {
		delete(l.s.lobbies, l.main)
	}
	l.s.mu.Unlock()
}

// finish keeps the first outcome.
func (l *Lobby) finish(r LobbyResult) {
	l.over.Do(func() {
		l.done <- r
		l.forget()
	})
}

func (l *Lobby) event(e RoomEvent) {
	switch e.Kind {
	case Destroyed:
		if e.Alternate.Bare() == l.main {
			l.finish(LobbyResult{Outcome: LobbyDisabled, Reason: e.Reason})
		} else {
			l.finish(LobbyResult{Outcome: LobbyEnded, Reason: e.Reason})
		}
	case Kicked, Banned:
		l.finish(LobbyResult{Outcome: LobbyDenied, Reason: e.Reason})
	case SelfLeft:
		l.finish(LobbyResult{Outcome: LobbyEnded, Reason: e.Reason})
	}
}

// message is called by the reader for messages of the room we wait for. Only
// the room itself can invite; occupants write from its other addresses.
func (l *Lobby) message(m *Message) {
	if m.From != l.main || m.Type == "error" || m.MUCUser == nil || m.MUCUser.Invite == nil {
		return
	}
	l.finish(LobbyResult{Outcome: LobbyAdmitted, Password: m.MUCUser.Password, Reason: m.MUCUser.Invite.Reason})
}

// Wait waits for the decision. After LobbyAdmitted and LobbyDisabled the room
// can be joined; call Leave once that is done.
func (l *Lobby) Wait(ctx context.Context) (LobbyResult, error) {
	select {
	case r := <-l.done:
		l.done <- r // for another call
		return r, nil
	default:
	}
	select {
	case r := <-l.done:
		l.done <- r
		return r, nil
	case <-ctx.Done():
		return LobbyResult{}, fmt.Errorf("lobby of %s: %w", l.main, ctx.Err())
	case <-l.s.done:
		return LobbyResult{}, fmt.Errorf("lobby of %s: %w", l.main, l.s.Err())
	}
}

// Leave leaves the lobby.
func (l *Lobby) Leave() error {
	l.forget()
	if err := l.room.Leave(); err != nil && !errors.Is(err, ErrClosed) {
		return err
	}
	return nil
}
