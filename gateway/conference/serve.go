package conference

import (
	"context"
	"errors"
	"fmt"
	"time"

	"brewline/xmpp"
	"brewline/xmpp/jingle"
)

// nsJingle is XEP-0166.
const nsJingle = "urn:xmpp:jingle:1"

// serve handles what happens in the room until we are out of it.
func (l *Leg) serve() error {
	defer l.stopInviteTimers()
	defer l.stopRefocus()
	defer l.dropSession("left the room")
	o := l.occupants()
	l.told = o
	l.o.On(Joined{Nick: l.nick, Occupants: o})
	l.watchInvite(o)
	if !l.room.Focus() {
		l.startRefocus()
	}
	for {
		var err error
		select {
		case m := <-l.inbox:
			err = l.handle(m)
		case <-l.invite.C:
			l.log.Warn("no session-initiate from Jicofo", "waited", l.o.Timers.Invite)
			if err = ErrNeverInvited; l.heard {
				err = fmt.Errorf("%w: no session-initiate", errRejoin)
			}
		case <-l.moving.C:
			// "moving" is not always followed by anything.
			err = fmt.Errorf("%w: nothing followed the session-terminate", errRejoin)
		case <-l.disconnectedC():
			l.restart("the transport to the videobridge was lost")
		case <-l.xs.Done():
			err = errorf(ErrSessionLost, l.xs.Err())
		case <-l.ctx.Done():
			err = context.Cause(l.ctx)
		}
		if err != nil {
			return err
		}
	}
}

func (l *Leg) handle(m any) error {
	switch m := m.(type) {
	case *xmpp.IQ:
		return l.handleIQ(m)
	case roomEvent:
		if m.stay == l.stay {
			return l.handleRoom(m.RoomEvent)
		}
	case rosterChanged:
		if m.stay == l.stay {
			l.rosterChanged(m.roster)
		}
	case accepted:
		l.handleAccepted(m)
	case connected:
		return l.handleConnected(m)
	case transportState:
		l.handleTransport(m)
	case muteCommand:
		l.setMuted(m.muted, true)
	case muteAnswer:
		l.handleMuteAnswer(m)
	case statusCommand:
		l.status = m.status
		l.update()
	case nameCommand:
		l.o.DisplayName = m.name
		l.update()
	}
	return nil
}

// update publishes the whole presence again.
func (l *Leg) update() {
	if err := l.room.Update(func(p *xmpp.OwnPresence) { *p = l.presence() }); err != nil {
		l.log.Debug("presence not sent", "err", err)
	}
}

func (l *Leg) handleRoom(e xmpp.RoomEvent) error {
	switch e.Kind {
	case xmpp.SelfChanged:
		if p := e.Presence; p != nil && p.MUCUser != nil && p.MUCUser.Role == "moderator" && !l.moderator {
			l.moderator = true
			l.o.On(Moderator{})
		}
	case xmpp.FocusLeft:
		l.log.Warn("Jicofo left the room")
		l.o.On(FocusGone{})
		l.startRefocus()
	case xmpp.FocusJoined:
		l.stopRefocus()
	case xmpp.FocusChanged:
		if e.Presence != nil && e.Presence.BridgeNotAvailable {
			l.log.Warn("Jicofo has no videobridge for the conference")
			l.o.On(BridgeUnavailable{})
		}
	case xmpp.Kicked, xmpp.Banned:
		return fmt.Errorf("%w: %s", ErrKicked, e.Reason)
	case xmpp.Destroyed:
		return fmt.Errorf("%w: %s", ErrDestroyed, e.Reason)
	case xmpp.SelfLeft:
		return fmt.Errorf("%w: the room put us out: %s", errRejoin, e.Reason)
	}
	return nil
}

func (l *Leg) occupants() Occupants {
	var o Occupants
	for _, occ := range l.room.Occupants() {
		o.Others++
		if !occ.Gateway {
			o.Humans++
		}
	}
	return o
}

// watchInvite runs the invite timer while there is company but no session:
// Jicofo invites nobody who is alone.
func (l *Leg) watchInvite(o Occupants) {
	if o.Others == 0 || l.jingle != nil {
		l.invite.Stop()
		l.inviting = false
		return
	}
	if !l.inviting {
		l.inviting = true
		l.invite.Reset(l.o.Timers.Invite)
	}
}

// startRefocus repeats the conference request until Jicofo is back: nobody
// else may ask for it.
func (l *Leg) startRefocus() {
	if l.refocus != nil {
		return
	}
	ctx, cancel := context.WithCancel(l.ctx)
	l.refocus = cancel
	req, xs := l.conferenceRequest(), l.xs
	l.wg.Go(func() {
		for wait := l.o.Timers.FocusRetry; ; wait = min(2*wait, 30*time.Second) {
			// The request may be lost with the component's dying connection.
			one, done := context.WithTimeout(ctx, l.o.Timers.FocusReply)
			_, err := xs.RequestConference(one, req)
			done()
			if err == nil || ctx.Err() != nil {
				return
			}
			select {
			case <-time.After(jitter(wait)):
			case <-ctx.Done():
				return
			}
		}
	})
}

func (l *Leg) stopRefocus() {
	if l.refocus != nil {
		l.refocus()
		l.refocus = nil
	}
}

// handleIQ answers what Jicofo asks. Everybody else gets an error.
func (l *Leg) handleIQ(iq *xmpp.IQ) error {
	if xmpp.ParseHangup(iq) {
		l.handleHangup(iq)
		return nil
	}
	if iq.From != l.room.FocusJID() {
		l.xs.ReplyError(iq, &xmpp.StanzaError{Type: "auth", Condition: "forbidden", Text: "only the focus may ask this"})
		l.log.Warn("request from somebody who is not the focus refused", "from", iq.From.String(), "what", iq.Name.Local)
		return nil
	}
	if mute, ok := xmpp.ParseMute(iq); ok {
		l.xs.Reply(iq, nil)
		l.setMuted(mute.Muted, false)
		l.o.On(Muted{Muted: mute.Muted, Actor: mute.Actor.Resource})
		return nil
	}
	if iq.Type != "set" || iq.Name.Space != nsJingle {
		l.xs.ReplyError(iq, &xmpp.StanzaError{Type: "cancel", Condition: "service-unavailable"})
		return nil
	}
	j, err := jingle.Parse(iq.Raw)
	if err != nil {
		l.log.Warn("malformed Jingle from the focus", "err", err)
		l.xs.ReplyError(iq, &xmpp.StanzaError{Type: "modify", Condition: "bad-request", Text: err.Error()})
		return nil
	}
	return l.handleJingle(iq, j)
}

// setMuted mutes or unmutes us. A wish of the caller's goes to Jicofo first,
// which may refuse it (AV moderation).
func (l *Leg) setMuted(muted, ask bool) {
	if ask && !muted && l.muted {
		room := l.room
		l.wg.Go(func() {
			err := room.RequestMute(l.ctx, false)
			l.post(muteAnswer{err: err})
		})
		return
	}
	l.muted = muted
	l.update()
	if ask {
		l.o.On(Muted{Muted: muted})
	}
}

type muteAnswer struct{ err error }

func (l *Leg) handleMuteAnswer(m muteAnswer) {
	var refused *xmpp.StanzaError
	if errors.As(m.err, &refused) && refused.Condition == "not-allowed" {
		l.log.Info("Jicofo does not let us unmute")
		l.o.On(Muted{Muted: true})
		return
	}
	l.muted = false
	l.update()
	l.o.On(Muted{Muted: false})
}

// handleHangup ends the call for a moderator, as web clients ask for it.
func (l *Leg) handleHangup(iq *xmpp.IQ) {
	allowed := iq.From == l.room.FocusJID()
	for _, o := range l.room.Occupants() {
		if iq.From == l.o.Room.WithResource(o.Nick) {
			allowed = o.Role == "moderator"
		}
	}
	if !allowed {
		l.log.Warn("hangup refused", "from", iq.From.String())
		l.xs.ReplyError(iq, &xmpp.StanzaError{Type: "auth", Condition: "forbidden", Text: "only a moderator may hang up"})
		return
	}
	l.xs.Reply(iq, nil)
	l.o.On(HangupAsked{})
}
