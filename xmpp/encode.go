package xmpp

import (
	"bytes"
	"encoding/xml"
	"fmt"
)

func stanzaStart(local string, from, to JID, id, typ string) xml.StartElement {
	start := xml.StartElement{Name: xml.Name{Space: nsClient, Local: local}}
	add := func(name, value string) {
		if value != "" {
			start.Attr = append(start.Attr, xml.Attr{Name: xml.Name{Local: name}, Value: value})
		}
	}
	add("type", typ)
	add("id", id)
	add("from", from.String())
	add("to", to.String())
	return start
}

func encodeWith(e *xml.Encoder, start xml.StartElement, children ...any) error {
	if err := e.EncodeToken(start); err != nil {
		return err
	}
	for _, c := range children {
		if c == nil {
			continue
		}
		if err := e.Encode(c); err != nil {
			return err
		}
	}
	return e.EncodeToken(start.End())
}

// MarshalXML writes the IQ with its payload and, for type error, its error.
func (iq *IQ) MarshalXML(e *xml.Encoder, _ xml.StartElement) error {
	var fail any
	if iq.Type == "error" && iq.Error != nil {
		fail = iq.Error
	}
	return encodeWith(e, stanzaStart("iq", iq.From, iq.To, iq.ID, iq.Type), iq.Payload, fail)
}

// MarshalXML writes <error/>.
func (e *StanzaError) MarshalXML(enc *xml.Encoder, _ xml.StartElement) error {
	typ := e.Type
	if typ == "" {
		typ = "cancel"
	}
	cond := e.Condition
	if cond == "" {
		cond = "undefined-condition"
	}
	type empty struct{ XMLName xml.Name }
	type text struct {
		XMLName xml.Name
		Text    string `xml:",chardata"`
	}
	var t any
	if e.Text != "" {
		t = text{xml.Name{Space: nsStanzas, Local: "text"}, e.Text}
	}
	start := xml.StartElement{Name: xml.Name{Local: "error"}, Attr: []xml.Attr{{Name: xml.Name{Local: "type"}, Value: typ}}}
	return encodeWith(enc, start, empty{xml.Name{Space: nsStanzas, Local: cond}}, t, e.App)
}

type messageOut struct {
	XMLName xml.Name `xml:"jabber:client message"`
	Type    string   `xml:"type,attr,omitempty"`
	ID      string   `xml:"id,attr,omitempty"`
	From    JID      `xml:"from,attr"`
	To      JID      `xml:"to,attr"`
	Subject string   `xml:"subject,omitempty"`
	Body    string   `xml:"body,omitempty"`
	JSON    *jsonMessage
}

type jsonMessage struct {
	XMLName xml.Name `xml:"http://jitsi.org/jitmeet json-message"`
	Room    string   `xml:"room,attr,omitempty"`
	Text    string   `xml:",chardata"`
}

// MarshalXML writes subject, body and JSON.
func (m *Message) MarshalXML(e *xml.Encoder, _ xml.StartElement) error {
	w := messageOut{Type: m.Type, ID: m.ID, From: m.From, To: m.To, Subject: m.Subject, Body: m.Body}
	if len(m.JSON) > 0 {
		w.JSON = &jsonMessage{Room: m.JSONRoom, Text: string(m.JSON)}
	}
	return e.Encode(w)
}

// MarshalXML writes a plain presence: type and status. What a room is told is
// OwnPresence.
func (p *Presence) MarshalXML(e *xml.Encoder, _ xml.StartElement) error {
	type status struct {
		XMLName xml.Name `xml:"status"`
		Text    string   `xml:",chardata"`
	}
	var st any
	if p.Status != "" {
		st = status{Text: p.Status}
	}
	return encodeWith(e, stanzaStart("presence", p.From, p.To, p.ID, p.Type), st)
}

// marshalStanza makes the bytes of a stanza that says its own namespace, as
// BOSH needs it.
func marshalStanza(v any) ([]byte, error) {
	b, err := xml.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("marshal %T: %w", v, err)
	}
	end := bytes.IndexAny(b, " />")
	tag := bytes.IndexByte(b, '>')
	if end < 0 || tag < 0 {
		return nil, fmt.Errorf("marshal %T: not an element", v)
	}
	if !bytes.Contains(b[:tag], []byte(` xmlns="`)) {
		ns := ` xmlns="` + nsClient + `"`
		out := make([]byte, 0, len(b)+len(ns))
		out = append(append(append(out, b[:end]...), ns...), b[end:]...)
		return out, nil
	}
	return b, nil
}
