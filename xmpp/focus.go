package xmpp

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// ConferenceRequest asks Jicofo to open a conference and wait for us in its
// room. Asking creates the room.
type ConferenceRequest struct {
	Focus      JID // focus.<domain>
	Room       JID
	MachineUID string            // needed only where Jicofo authenticates users
	SessionID  string            // of an earlier reply
	Token      string            // JWT, read for the user's id and group
	Properties map[string]string // such as rtcstatsEnabled
}

// ConferenceReply is Jicofo's answer.
type ConferenceReply struct {
	Ready                      bool
	FocusJID                   JID // who will be the focus in the room
	SessionID, Identity, VNode string
	Properties                 map[string]string
}

type conferenceIQ struct {
	XMLName    xml.Name `xml:"http://jitsi.org/protocol/focus conference"`
	Room       string   `xml:"room,attr,omitempty"`
	MachineUID string   `xml:"machine-uid,attr,omitempty"`
	SessionID  string   `xml:"session-id,attr,omitempty"`
	Token      string   `xml:"token,attr,omitempty"`
	Ready      string   `xml:"ready,attr,omitempty"`
	FocusJID   string   `xml:"focusjid,attr,omitempty"`
	Identity   string   `xml:"identity,attr,omitempty"`
	VNode      string   `xml:"vnode,attr,omitempty"`
	Properties []struct {
		Name  string `xml:"name,attr"`
		Value string `xml:"value,attr"`
	} `xml:"property"`
}

// readyMax is the longest pause while Jicofo is not ready.
const readyMax = 30 * time.Second

// RequestConference sends the request, and again with growing pauses while
// Jicofo says that it is not ready, until ctx ends. errors.Is tells
// ErrNotAuthorized, ErrSessionInvalid, ErrNoFocus and ErrReservation; the
// *StanzaError behind them, or another one, is there for errors.As.
func (s *Session) RequestConference(ctx context.Context, r ConferenceRequest) (*ConferenceReply, error) {
	retried := false
	for delay := s.o.ReadyRetry; ; delay = min(2*delay, readyMax) {
		reply, err := s.askFocus(ctx, r)
		if errors.Is(err, ErrSessionInvalid) && r.SessionID != "" && !retried {
			r.SessionID, retried, delay = "", true, delay/2
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("conference %s: %w", r.Room, err)
		}
		if reply.Ready {
			return reply, nil
		}
		t := time.NewTimer(delay/2 + rand.N(delay))
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return nil, fmt.Errorf("conference %s: focus not ready: %w", r.Room, ctx.Err())
		case <-s.done:
			t.Stop()
			return nil, fmt.Errorf("conference %s: %w", r.Room, s.Err())
		}
	}
}

func (s *Session) askFocus(ctx context.Context, r ConferenceRequest) (*ConferenceReply, error) {
	q := &conferenceIQ{Room: r.Room.String(), MachineUID: r.MachineUID, SessionID: r.SessionID, Token: r.Token}
	for _, name := range slices.Sorted(maps.Keys(r.Properties)) {
		q.Properties = append(q.Properties, struct {
			Name  string `xml:"name,attr"`
			Value string `xml:"value,attr"`
		}{name, r.Properties[name]})
	}
	// Jicofo answers when it has joined the room, for which it allows itself
	// 15 s; a third more than the usual deadline leaves room for that.
	res, err := s.request(ctx, &IQ{Type: "set", To: r.Focus, Payload: q}, s.o.RequestTimeout*4/3)
	if err != nil {
		return nil, focusError(err)
	}
	var a conferenceIQ
	if err := res.Decode(&a); err != nil {
		return nil, fmt.Errorf("reply of the focus: %w", err)
	}
	reply := &ConferenceReply{Ready: xmlBool(a.Ready), FocusJID: lenient(a.FocusJID), SessionID: a.SessionID,
		Identity: a.Identity, VNode: a.VNode, Properties: make(map[string]string, len(a.Properties))}
	for _, p := range a.Properties {
		reply.Properties[p.Name] = p.Value
	}
	return reply, nil
}

func focusError(err error) error {
	var e *StanzaError
	if !errors.As(err, &e) {
		return err
	}
	var app struct {
		SessionInvalid *struct{} `xml:"http://jitsi.org/protocol/focus session-invalid"`
		Reservation    *struct {
			Code string `xml:"error-code,attr"`
		} `xml:"http://jitsi.org/protocol/focus reservation-error"`
	}
	_ = decodeInner(e.Raw, &app) // what does not decode is an ordinary error
	kind := error(nil)
	switch {
	case app.Reservation != nil:
		kind = ErrReservation
	case app.SessionInvalid != nil:
		kind = ErrSessionInvalid
	case e.Condition == "not-authorized":
		kind = ErrNotAuthorized
	case e.Condition == "service-unavailable", e.Condition == "remote-server-not-found", e.Condition == "remote-server-timeout",
		// Prosody without s2s, of a domain that it has not.
		e.Condition == "not-allowed" && strings.Contains(e.Text, "remote domains"):
		kind = ErrNoFocus
	default:
		return err
	}
	return fmt.Errorf("%w: %w", kind, err)
}
