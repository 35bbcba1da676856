package xmpp

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// The wire types take text where a number or an address is meant, so that one
// odd attribute does not cost the stanza.

type errorWire struct {
	Type  string `xml:"type,attr"`
	By    string `xml:"by,attr"`
	Code  string `xml:"code,attr"`
	Text  string `xml:"urn:ietf:params:xml:ns:xmpp-stanzas text"`
	Conds []struct {
		XMLName xml.Name
	} `xml:",any"`
	Raw []byte `xml:",innerxml"`
}

func (w *errorWire) stanzaError() *StanzaError {
	if w == nil {
		return &StanzaError{Type: "cancel", Condition: "undefined-condition"}
	}
	e := &StanzaError{Type: w.Type, Text: w.Text, By: w.By, Condition: "undefined-condition", Raw: w.Raw}
	e.Code, _ = strconv.Atoi(w.Code)
	for _, c := range w.Conds {
		if c.XMLName.Space == nsStanzas {
			e.Condition = c.XMLName.Local
			break
		}
	}
	return e
}

type head struct {
	From string `xml:"from,attr"`
	To   string `xml:"to,attr"`
	ID   string `xml:"id,attr"`
	Type string `xml:"type,attr"`
}

// addresses parses from and to; absent ones are zero.
func (h *head) addresses() (from, to JID, err error) {
	if err = from.UnmarshalText([]byte(h.From)); err == nil {
		err = to.UnmarshalText([]byte(h.To))
	}
	return from, to, err
}

type iqWire struct {
	XMLName xml.Name
	head
	Error *errorWire `xml:"error"`
	Raw   []byte     `xml:",innerxml"`
}

type mucUserWire struct {
	Items []struct {
		Affiliation string `xml:"affiliation,attr"`
		Role        string `xml:"role,attr"`
		JID         string `xml:"jid,attr"`
		Nick        string `xml:"nick,attr"`
		Reason      string `xml:"reason"`
		Actor       struct {
			JID  string `xml:"jid,attr"`
			Nick string `xml:"nick,attr"`
		} `xml:"actor"`
	} `xml:"item"`
	Status []struct {
		Code string `xml:"code,attr"`
	} `xml:"status"`
	Invite *struct {
		From   string `xml:"from,attr"`
		Reason string `xml:"reason"`
	} `xml:"invite"`
	Password string `xml:"password"`
	Destroy  *struct {
		JID    string `xml:"jid,attr"`
		Reason string `xml:"reason"`
	} `xml:"destroy"`
}

// lenient is the address in s, or the zero JID.
func lenient(s string) JID {
	j, err := ParseJID(s)
	if err != nil {
		return JID{}
	}
	return j
}

// mucUser takes the last element: rooms append theirs, and remove what an
// occupant put there.
func mucUser(ws []mucUserWire) *MUCUser {
	if len(ws) == 0 {
		return nil
	}
	w := ws[len(ws)-1]
	u := &MUCUser{Password: w.Password}
	if len(w.Items) > 0 {
		it := w.Items[0]
		u.Affiliation, u.Role, u.JID, u.Nick, u.Reason = it.Affiliation, it.Role, lenient(it.JID), it.Nick, it.Reason
		if u.Actor = it.Actor.Nick; u.Actor == "" {
			u.Actor = it.Actor.JID
		}
	}
	for _, s := range w.Status {
		if c, err := strconv.Atoi(s.Code); err == nil {
			u.Codes = append(u.Codes, c)
		}
	}
	if w.Invite != nil {
		u.Invite = &MUCInvite{From: lenient(w.Invite.From), Reason: w.Invite.Reason}
	}
	if w.Destroy != nil {
		u.Destroy = &MUCDestroy{JID: lenient(w.Destroy.JID), Reason: w.Destroy.Reason}
	}
	return u
}

type messageWire struct {
	head
	Body    string `xml:"body"`
	Subject string `xml:"subject"`
	JSON    *struct {
		Room string `xml:"room,attr"`
		Text []byte `xml:",chardata"`
	} `xml:"http://jitsi.org/jitmeet json-message"`
	User  []mucUserWire `xml:"http://jabber.org/protocol/muc#user x"`
	Error *errorWire    `xml:"error"`
	Raw   []byte        `xml:",innerxml"`
}

type presenceWire struct {
	head
	Status   string        `xml:"status"`
	Nick     string        `xml:"http://jabber.org/protocol/nick nick"`
	User     []mucUserWire `xml:"http://jabber.org/protocol/muc#user x"`
	Features []struct {
		Var string `xml:"var,attr"`
	} `xml:"features>feature"`
	AudioMuted *string `xml:"audiomuted"`
	SourceInfo string  `xml:"SourceInfo"`
	Caps       *Caps   `xml:"http://jabber.org/protocol/caps c"`
	Stats      []struct {
		Name  string `xml:"name,attr"`
		Value string `xml:"value,attr"`
	} `xml:"http://jitsi.org/protocol/colibri stats>stat"`
	Properties []struct {
		Key   string `xml:"key,attr"`
		Value string `xml:"value,attr"`
	} `xml:"http://jitsi.org/protocol/focus conference-properties>property"`
	NoBridge  *struct{} `xml:"http://jitsi.org/protocol/focus bridgeNotAvailable"`
	LobbyRoom string    `xml:"lobbyroom"`
	Initiator *struct {
		Headers []Header `xml:"header"`
	} `xml:"http://jitsi.org/protocol/jigasi initiator"`
	RaisedHand string     `xml:"jitsi_participant_raisedHand"`
	Region     string     `xml:"jitsi_participant_region"`
	Error      *errorWire `xml:"error"`
	Raw        []byte     `xml:",innerxml"`
}

var errNotStanza = errors.New("not a stanza")

// decodeStanza reads one stanza: a *IQ, *Message or *Presence.
func decodeStanza(b []byte) (any, error) {
	d := xml.NewDecoder(bytes.NewReader(b))
	start, err := firstElement(d)
	if err != nil {
		return nil, err
	}
	if start.Name.Space != "" && start.Name.Space != nsClient {
		return nil, errNotStanza
	}
	switch start.Name.Local {
	case "iq":
		var w iqWire
		if err := d.DecodeElement(&w, &start); err != nil {
			return nil, err
		}
		return w.iq(b)
	case "message":
		var w messageWire
		if err := d.DecodeElement(&w, &start); err != nil {
			return nil, err
		}
		return w.message()
	case "presence":
		var w presenceWire
		if err := d.DecodeElement(&w, &start); err != nil {
			return nil, err
		}
		return w.presence()
	}
	return nil, errNotStanza
}

func firstElement(d *xml.Decoder) (xml.StartElement, error) {
	for {
		t, err := d.Token()
		if err != nil {
			return xml.StartElement{}, err
		}
		if start, ok := t.(xml.StartElement); ok {
			return start, nil
		}
	}
}

func (w *iqWire) iq(full []byte) (*IQ, error) {
	iq := &IQ{XMLName: w.XMLName, ID: w.ID, Type: w.Type, Raw: w.Raw, full: full}
	var err error
	if iq.From, iq.To, err = w.addresses(); err != nil {
		return nil, err
	}
	if iq.ID == "" {
		return nil, errors.New("iq without id")
	}
	d := xml.NewDecoder(bytes.NewReader(full))
	if _, err := firstElement(d); err != nil {
		return nil, err
	}
	child, childErr := firstElement(d)
	if childErr == nil {
		iq.Name = child.Name
	}
	switch iq.Type {
	case "get", "set":
		if childErr != nil {
			return nil, errNoPayload
		}
	case "error":
		iq.Error = w.Error.stanzaError()
	case "result":
	default:
		return nil, fmt.Errorf("iq of type %.32q", iq.Type)
	}
	return iq, nil
}

func (w *messageWire) message() (*Message, error) {
	m := &Message{ID: w.ID, Type: w.Type, Body: w.Body, Subject: w.Subject, MUCUser: mucUser(w.User), Raw: w.Raw}
	var err error
	if m.From, m.To, err = w.addresses(); err != nil {
		return nil, err
	}
	if w.JSON != nil {
		m.JSON, m.JSONRoom = bytes.TrimSpace(w.JSON.Text), w.JSON.Room
	}
	if w.Type == "error" {
		m.Error = w.Error.stanzaError()
	}
	return m, nil
}

func (w *presenceWire) presence() (*Presence, error) {
	p := &Presence{ID: w.ID, Type: w.Type, Status: w.Status, Nick: w.Nick, MUCUser: mucUser(w.User),
		SourceInfo: w.SourceInfo, Caps: w.Caps, BridgeNotAvailable: w.NoBridge != nil,
		LobbyRoom: w.LobbyRoom, RaisedHand: w.RaisedHand, Region: w.Region, Raw: w.Raw}
	var err error
	if p.From, p.To, err = w.addresses(); err != nil {
		return nil, err
	}
	for _, f := range w.Features {
		p.Features = append(p.Features, f.Var)
	}
	if w.AudioMuted != nil {
		muted := xmlBool(*w.AudioMuted)
		p.AudioMuted = &muted
	}
	if len(w.Stats) > 0 {
		p.Stats = make(map[string]string, len(w.Stats))
		for _, s := range w.Stats {
			p.Stats[s.Name] = s.Value
		}
	}
	if len(w.Properties) > 0 {
		p.ConferenceProperties = make(map[string]string, len(w.Properties))
		for _, s := range w.Properties {
			p.ConferenceProperties[s.Key] = s.Value
		}
	}
	if w.Initiator != nil {
		p.Initiator = w.Initiator.Headers
	}
	if w.Type == "error" {
		p.Error = w.Error.stanzaError()
	}
	return p, nil
}

func xmlBool(s string) bool {
	s = strings.TrimSpace(s)
	return s == "1" || strings.EqualFold(s, "true")
}

// Decode decodes the first child of a received IQ into v.
func (iq *IQ) Decode(v any) error {
	var d *xml.Decoder
	if iq.full != nil {
		d = xml.NewDecoder(bytes.NewReader(iq.full))
		if _, err := firstElement(d); err != nil {
			return err
		}
	} else {
		d = xml.NewDecoder(bytes.NewReader(iq.Raw))
	}
	start, err := firstElement(d)
	if err != nil {
		return fmt.Errorf("iq payload: %w", err)
	}
	return d.DecodeElement(v, &start)
}

// readHead takes name, from, to, id and type of what may not decode as a
// whole; they are empty if not even the start tag does.
func readHead(b []byte) (name xml.Name, h head) {
	start, err := firstElement(xml.NewDecoder(bytes.NewReader(b)))
	if err != nil {
		return name, h
	}
	for _, a := range start.Attr {
		if a.Name.Space != "" {
			continue
		}
		switch a.Name.Local {
		case "from":
			h.From = a.Value
		case "to":
			h.To = a.Value
		case "id":
			h.ID = a.Value
		case "type":
			h.Type = a.Value
		}
	}
	return start.Name, h
}

// decodeInner decodes children, as StanzaError.Raw has them, into v.
func decodeInner(raw []byte, v any) error {
	b := make([]byte, 0, len(raw)+7)
	b = append(append(append(b, "<e>"...), raw...), "</e>"...)
	return xml.Unmarshal(b, v)
}
