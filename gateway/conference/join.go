package conference

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"brewline/xmpp"
)

// maxJoinTries bounds how often a join is repeated for reasons that pass: the
// room vanished between request and join, the nick is taken.
const maxJoinTries = 4

// maxLobbies bounds how often a lobby that let us out may take us back in.
const maxLobbies = 10

// attend is one stay in the room: conference request, join, and everything
// until we are out again. errRejoin asks for another stay in the same session.
func (l *Leg) attend() error {
	l.stay++
	if err := l.enter(); err != nil {
		return err
	}
	defer func() {
		l.room.Leave()
		l.room = nil
	}()
	return l.serve()
}

// enter gets us into the room, however long the host or the lobby let us wait.
func (l *Leg) enter() error {
	if !l.step.CompareAndSwap(nothingRequested, requestSent) && l.step.Load() == takenBack {
		return errLeft
	}
	early := l.o.Exists && l.password == ""
	for try := 0; ; try++ {
		var joined chan joinResult
		if early {
			// The room exists, so neither step needs the other's answer.
			joined = make(chan joinResult, 1)
			l.wg.Go(func() {
				room, err := l.join()
				joined <- joinResult{room, err}
			})
		}
		if err := l.request(); err != nil {
			if joined != nil {
				if r := <-joined; r.room != nil {
					r.room.Leave()
				}
			}
			return err
		}
		l.o.On(Requested{})
		var room *xmpp.Room
		var err error
		if joined != nil {
			r := <-joined
			room, err = r.room, r.err
			early = false
			if err != nil && roomGone(err) {
				room, err = l.join()
			}
		} else {
			room, err = l.join()
		}
		if err == nil {
			if !l.focusUser.IsZero() {
				room.SetFocusUser(l.focusUser)
			}
			l.room = room
			return nil
		}
		var refused *xmpp.JoinError
		if !errors.As(err, &refused) {
			if l.ctx.Err() != nil {
				return context.Cause(l.ctx)
			}
			return errorf(ErrSessionLost, err)
		}
		switch refused.Kind {
		case xmpp.JoinLobby:
			if try >= maxLobbies {
				return errorf(ErrRoomNotOpen, err)
			}
			if err := l.lobby(refused); err != nil {
				return err
			}
			continue
		case xmpp.JoinPassword:
			return errorf(ErrPassword, err)
		case xmpp.JoinFull:
			return errorf(ErrRoomFull, err)
		case xmpp.JoinConflict, xmpp.JoinBadNick:
			l.nick = randomHex(4)
		case xmpp.JoinNoRoom, xmpp.JoinTimeout:
		default:
			return errorf(ErrNotAllowed, err)
		}
		if try+1 >= maxJoinTries {
			return errorf(ErrRoomNotOpen, err)
		}
		if err := l.pause(jitter(l.o.Timers.JoinRetry)); err != nil {
			return err
		}
	}
}

type joinResult struct {
	room *xmpp.Room
	err  error
}

func roomGone(err error) bool {
	var e *xmpp.JoinError
	return errors.As(err, &e) && e.Kind == xmpp.JoinNoRoom
}

// request asks Jicofo for the conference, again while the host is not there.
func (l *Leg) request() error {
	ctx, cancel := context.WithTimeout(l.ctx, l.o.Timers.HostWait)
	defer cancel()
	waiting := false
	for {
		one, done := context.WithTimeout(ctx, l.o.Timers.FocusReply)
		reply, err := l.xs.RequestConference(one, l.conferenceRequest())
		done()
		switch {
		case err == nil && reply.VNode != "":
			return fmt.Errorf("%w %q, where nobody can speak", ErrVisitor, reply.VNode)
		case err == nil:
			l.focusUser = reply.FocusJID
			return nil
		case l.ctx.Err() != nil:
			return context.Cause(l.ctx)
		case ctx.Err() != nil && waiting:
			return ErrHostAbsent
		case errors.Is(err, xmpp.ErrNotAuthorized):
			if !waiting {
				waiting = true
				l.o.On(Waiting{For: WaitHost, Nick: l.nick})
			}
		case errors.Is(err, xmpp.ErrNoFocus):
			return errorf(ErrNoFocus, err)
		case errors.Is(err, xmpp.ErrSessionLost), errors.Is(err, xmpp.ErrClosed), errors.Is(err, xmpp.ErrShardChanged):
			return errorf(ErrSessionLost, err)
		case errors.Is(err, context.DeadlineExceeded):
			return errorf(ErrNoFocus, err)
		case errors.Is(err, xmpp.ErrReservation), refusal(err):
			return errorf(ErrNotAllowed, err)
		default:
			return errorf(ErrRoomNotOpen, err)
		}
		if err := l.pause(jitter(l.o.Timers.HostRetry)); err != nil {
			return err
		}
		if ctx.Err() != nil {
			return ErrHostAbsent
		}
	}
}

// refusal tells a no to us from a shard that is broken.
func refusal(err error) bool {
	var e *xmpp.StanzaError
	return errors.As(err, &e) && (e.Type == "auth" || e.Condition == "forbidden" || e.Condition == "not-allowed")
}

func (l *Leg) conferenceRequest() xmpp.ConferenceRequest {
	return xmpp.ConferenceRequest{
		Focus: l.o.Focus, Room: l.o.Room, MachineUID: l.o.MachineUID, Token: l.o.Token,
		Properties: map[string]string{"rtcstatsEnabled": "false"},
	}
}

// roomEvent is an event of one stay in the room; those of an earlier stay are
// dropped.
type roomEvent struct {
	stay int
	xmpp.RoomEvent
}

func (l *Leg) join() (*xmpp.Room, error) {
	stay, r := l.stay, new(roster)
	return l.xs.Join(l.ctx, xmpp.RoomOptions{
		Room: l.o.Room, Nick: l.nick, Password: l.password, FocusNick: l.o.FocusNick,
		Presence: l.presence(),
		On: func(e xmpp.RoomEvent) {
			switch e.Kind {
			case xmpp.OccupantJoined, xmpp.OccupantChanged, xmpp.OccupantLeft:
				if r.note(e) {
					l.post(rosterChanged{stay, r})
				}
			case xmpp.RoomMessage, xmpp.ConfigChanged: // chat is not ours
			default:
				l.post(roomEvent{stay, e})
			}
		},
	})
}

func (l *Leg) presence() xmpp.OwnPresence {
	return xmpp.OwnPresence{
		DisplayName: l.o.DisplayName,
		Features: []string{
			"http://jitsi.org/protocol/jigasi", "urn:xmpp:jingle:dtmf:0", "http://jitsi.org/protocol/audio-mute",
		},
		AudioMuted: l.muted, Status: l.status, StatsID: l.o.StatsID, Region: l.o.Region,
		Version: l.o.Version, Initiator: l.o.Initiator, SourceName: l.nick + "-a0",
	}
}

// lobby waits until a moderator lets us in; the next join then succeeds.
func (l *Leg) lobby(refused *xmpp.JoinError) error {
	l.o.On(Waiting{For: WaitLobby, Nick: l.nick})
	ctx, cancel := context.WithTimeout(l.ctx, l.o.Timers.LobbyWait)
	defer cancel()
	lobby, err := l.xs.EnterLobby(ctx, xmpp.LobbyOptions{
		Lobby: refused.Lobby, Room: l.o.Room, Nick: l.nick, DisplayName: l.o.DisplayName,
	})
	if err != nil {
		return l.lobbyError(ctx, err)
	}
	defer lobby.Leave()
	result, err := lobby.Wait(ctx)
	if err != nil {
		return l.lobbyError(ctx, err)
	}
	switch result.Outcome {
	case xmpp.LobbyAdmitted, xmpp.LobbyDisabled:
		if result.Password != "" {
			l.password = result.Password
		}
		return nil
	case xmpp.LobbyDenied:
		return ErrLobbyDenied
	}
	return fmt.Errorf("%w while we waited in its lobby: %s", ErrDestroyed, result.Reason)
}

func (l *Leg) lobbyError(ctx context.Context, err error) error {
	switch {
	case l.ctx.Err() != nil:
		return context.Cause(l.ctx)
	case ctx.Err() != nil:
		return ErrLobbyTimeout
	}
	return errorf(ErrSessionLost, err)
}

// jitter spreads d by ±25 %.
func jitter(d time.Duration) time.Duration {
	return d*3/4 + rand.N(d/2+1)
}
