package xmpp

import "encoding/xml"

const nsRayo = "urn:xmpp:rayo:1"

// RayoDial is a request to call a number (XEP-0327 §6.1.1), as Jicofo passes it on
// to a gateway of its brewery.
type RayoDial struct {
	From, To string
	Headers  []Header // in order, repeated names included
}

type dialWire struct {
	From    string   `xml:"from,attr"`
	To      string   `xml:"to,attr"`
	Headers []Header `xml:"header"` // of whatever namespace: clients and Prosody's modules differ
}

// ParseDial reads a dial request; ok is false if iq is none.
func ParseDial(iq *IQ) (d RayoDial, ok bool) {
	if iq.Type != "set" || iq.Name != (xml.Name{Space: nsRayo, Local: "dial"}) {
		return d, false
	}
	var w dialWire
	if err := iq.Decode(&w); err != nil {
		return d, false
	}
	return RayoDial(w), true
}

// ParseHangup reports whether iq asks to end the call (XEP-0327 §6.1.5).
func ParseHangup(iq *IQ) bool {
	return iq.Type == "set" && iq.Name == xml.Name{Space: nsRayo, Local: "hangup"}
}

type rayoRef struct {
	XMLName xml.Name `xml:"urn:xmpp:rayo:1 ref"`
	URI     string   `xml:"uri,attr"`
}

// DialRef is the payload of the result that accepts a dial request: uri is
// where the call can be reached from then on, "xmpp:room/nick".
func DialRef(uri string) any { return &rayoRef{URI: uri} }
