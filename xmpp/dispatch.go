package xmpp

import (
	"encoding/xml"
	"errors"
	"strings"

	"brewline/xmpp/internal/split"
)

// read is the reader's goroutine.
func (s *Session) read() {
	defer close(s.reader)
	for _, el := range s.early {
		s.dispatch(el)
	}
	s.early = nil
	for {
		el, err := s.t.Recv()
		if err != nil {
			s.fail(sessionError(err))
			break
		}
		s.lastIn.Store(int64(s.sinceStart()))
		s.dispatch(el)
	}
	s.t.Wait()
}

func (s *Session) dispatch(el split.Element) {
	if el.Bad {
		s.bad(el.Data, errors.New("too large or nested too deeply"))
		return
	}
	v, err := decodeStanza(el.Data)
	switch {
	case errors.Is(err, errNotStanza):
		s.nonza(el.Data)
		return
	case err != nil:
		s.bad(el.Data, err)
		return
	}
	switch v := v.(type) {
	case *IQ:
		s.dispatchIQ(v)
	case *Presence:
		s.dispatchPresence(v)
	case *Message:
		s.dispatchMessage(v)
	}
}

// bad counts a stanza that cannot be used, and answers it if it is a request.
func (s *Session) bad(b []byte, why error) {
	s.malformed.Add(1)
	name, h := readHead(b)
	s.logMalformed.Do(func() {
		s.log.Warn("xmpp stanza not understood, further ones only counted", "jid", s.jid.String(), "from", clip(h.From), "err", why)
	})
	if name.Local != "iq" || h.ID == "" || (h.Type != "get" && h.Type != "set") {
		return
	}
	var from JID
	if from.UnmarshalText([]byte(h.From)) == nil {
		_ = s.ReplyError(&IQ{From: from, ID: h.ID}, &StanzaError{Type: "modify", Condition: "bad-request"})
	}
}

func clip(s string) string {
	if len(s) > 100 {
		s = s[:100]
	}
	return strings.ToValidUTF8(s, "?")
}

// nonza takes elements that are no stanzas: a stream error ends the session.
func (s *Session) nonza(b []byte) {
	if err := streamError(b); err != nil {
		s.fail(err)
	}
}

func (s *Session) dispatchIQ(iq *IQ) {
	if iq.Type == "result" || iq.Type == "error" {
		s.mu.Lock()
		p := s.pending[iq.ID]
		if p != nil && s.answers(p.to, iq.From) {
			delete(s.pending, iq.ID)
		} else {
			p = nil
		}
		s.mu.Unlock()
		if p != nil {
			p.reply <- iq
		}
		return
	}
	switch iq.Name {
	case xml.Name{Space: nsPing, Local: "ping"}:
		s.result(iq, nil)
		return
	case xml.Name{Space: nsDisco, Local: "query"}:
		if iq.Type == "get" {
			s.answerDisco(iq)
			return
		}
	case xml.Name{Space: nsJingle, Local: "jingle"}:
		if !s.fromFocus(iq.From) {
			s.declineJingle(iq)
			return
		}
	}
	if iq.Name.Local == "mute" && strings.HasPrefix(iq.Name.Space, nsJitmeet+"/") && !s.fromFocus(iq.From) {
		s.countRefused(iq)
		s.refuse(iq, "auth", "forbidden")
		return
	}
	if h := s.o.Handler.IQ; h != nil {
		h(iq)
		return
	}
	s.refuse(iq, "cancel", "service-unavailable")
}

// answers reports whether a reply from from is one to a request sent to to.
// Requests to our own account or server may be answered without a from
// (RFC 6120 §8.1.2.1).
func (s *Session) answers(to, from JID) bool {
	if from == to {
		return true
	}
	own := func(j JID) bool { return j.IsZero() || j == s.jid || j == s.jid.Bare() || j == s.domain() }
	return own(to) && own(from)
}

func (s *Session) result(iq *IQ, payload any) { s.logSend(s.Reply(iq, payload)) }

func (s *Session) refuse(iq *IQ, typ, condition string) {
	s.logSend(s.ReplyError(iq, &StanzaError{Type: typ, Condition: condition}))
}

func (s *Session) logSend(err error) {
	if err != nil && s.Err() == nil {
		s.log.Warn("xmpp reply not sent", "jid", s.jid.String(), "err", err)
	}
}

// fromFocus reports whether from is the focus of a room we are in or joining.
func (s *Session) fromFocus(from JID) bool {
	s.mu.Lock()
	r := s.rooms[from.Bare()]
	s.mu.Unlock()
	return r != nil && r.isFocus(from)
}

func (s *Session) countRefused(iq *IQ) {
	s.refused.Add(1)
	s.logRefused.Do(func() {
		s.log.Warn("request that only the focus may make refused, further ones only counted",
			"jid", s.jid.String(), "from", clip(iq.From.String()), "request", iq.Name.Local)
	})
}

type jingleHead struct {
	Action string `xml:"action,attr"`
	SID    string `xml:"sid,attr"`
}

type jingleDecline struct {
	XMLName xml.Name `xml:"urn:xmpp:jingle:1 jingle"`
	Action  string   `xml:"action,attr"`
	SID     string   `xml:"sid,attr"`
	Reason  struct {
		Decline struct{} `xml:"decline"`
	} `xml:"reason"`
}

type unknownSession struct {
	XMLName xml.Name `xml:"urn:xmpp:jingle:errors:1 unknown-session"`
}

// declineJingle refuses sessions that do not come from the focus, as web
// clients offer them peer to peer: acknowledged, then ended (XEP-0166 §6.4).
func (s *Session) declineJingle(iq *IQ) {
	s.countRefused(iq)
	var h jingleHead
	switch err := iq.Decode(&h); {
	case err != nil || iq.Type != "set" || h.Action == "":
		s.refuse(iq, "modify", "bad-request")
	case h.Action == "session-initiate":
		s.result(iq, nil)
		d := jingleDecline{Action: "session-terminate", SID: h.SID}
		s.logSend(s.Send(&IQ{Type: "set", ID: s.nextID(), To: iq.From, Payload: &d}))
	case h.Action == "session-terminate":
		s.result(iq, nil)
	default: // XEP-0166 §10
		s.logSend(s.ReplyError(iq, &StanzaError{Type: "cancel", Condition: "item-not-found", App: unknownSession{}}))
	}
}

func (s *Session) dispatchPresence(p *Presence) {
	s.mu.Lock()
	r := s.rooms[p.From.Bare()]
	s.mu.Unlock()
	if r != nil {
		r.presence(p)
	}
	if h := s.o.Handler.Presence; h != nil {
		h(p)
	}
}

func (s *Session) dispatchMessage(m *Message) {
	s.mu.Lock()
	r, l := s.rooms[m.From.Bare()], s.lobbies[m.From]
	s.mu.Unlock()
	if l != nil {
		l.message(m)
	}
	if r != nil {
		r.message(m)
	}
	if h := s.o.Handler.Message; h != nil {
		h(m)
	}
}
