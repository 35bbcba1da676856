package xmpp

import (
	"encoding/xml"
	"fmt"
)

// Namespaces used in more than one place.
const (
	nsClient  = "jabber:client"
	nsStanzas = "urn:ietf:params:xml:ns:xmpp-stanzas"
	nsMUC     = "http://jabber.org/protocol/muc"
	nsMUCUser = "http://jabber.org/protocol/muc#user"
	nsCaps    = "http://jabber.org/protocol/caps"
	nsDisco   = "http://jabber.org/protocol/disco#info"
	nsNick    = "http://jabber.org/protocol/nick"
	nsPing    = "urn:xmpp:ping"
	nsJingle  = "urn:xmpp:jingle:1"
	nsFocus   = "http://jitsi.org/protocol/focus"
	nsJitmeet = "http://jitsi.org/jitmeet"
	nsColibri = "http://jitsi.org/protocol/colibri"
)

// IQ is a request or its reply (RFC 6120 §8.2.3).
type IQ struct {
	XMLName  xml.Name
	From, To JID
	ID, Type string       // Type: get, set, result, error
	Payload  any          // outgoing: the child, marshalled with encoding/xml
	Raw      []byte       // incoming: the inner XML
	Name     xml.Name     // incoming: name of the first child
	Error    *StanzaError // incoming, Type error

	full []byte // incoming: the whole stanza, so that prefixes resolve
}

// StanzaError is an error reply (RFC 6120 §8.3).
type StanzaError struct {
	Type      string // auth, cancel, continue, modify, wait
	Condition string // defined condition, like item-not-found
	Text      string
	By        string
	Code      int    // the legacy code, 0 if none
	Raw       []byte // incoming: everything inside <error/>
	// App is an application-specific condition to send along, marshalled.
	App any
}

func (e *StanzaError) Error() string {
	s := e.Condition
	if e.Type != "" {
		s = e.Type + "/" + s
	}
	if e.Text != "" {
		s += ": " + e.Text
	}
	return s
}

// Message is a message stanza.
type Message struct {
	From, To      JID
	ID, Type      string
	Body, Subject string
	JSON          []byte // content of Jitsi's <json-message/>
	JSONRoom      string // its room attribute
	MUCUser       *MUCUser
	Raw           []byte // incoming: the inner XML
	Error         *StanzaError
}

// Presence is a presence stanza with the children Jitsi uses.
type Presence struct {
	From, To             JID
	ID, Type, Status     string
	Nick                 string // display name (XEP-0172)
	MUCUser              *MUCUser
	Features             []string
	AudioMuted           *bool  // <audiomuted/>; nil if absent
	SourceInfo           string // JSON by source name
	Caps                 *Caps
	Stats                map[string]string // colibri statistics
	ConferenceProperties map[string]string // of the focus
	BridgeNotAvailable   bool              // the focus has no videobridge
	LobbyRoom            string
	Initiator            []Header // headers of the call a gateway announces
	RaisedHand           string   // jitsi_participant_raisedHand
	Region               string   // jitsi_participant_region
	Raw                  []byte   // incoming: the inner XML
	Error                *StanzaError
}

// MUCUser is what a room says about an occupant (XEP-0045, muc#user).
type MUCUser struct {
	Affiliation, Role string
	JID               JID // real JID, if shown
	Nick              string
	Reason            string
	Actor             string // nick or JID of who kicked or banned
	Codes             []int
	Invite            *MUCInvite
	Password          string
	Destroy           *MUCDestroy
}

// MUCInvite is a mediated invitation (XEP-0045 §7.8.2).
type MUCInvite struct {
	From   JID
	Reason string
}

// MUCDestroy says that the room is gone (XEP-0045 §10.9).
type MUCDestroy struct {
	JID    JID // alternate venue
	Reason string
}

// Has reports whether status code c was given.
func (u *MUCUser) Has(c int) bool {
	if u == nil {
		return false
	}
	for _, k := range u.Codes {
		if k == c {
			return true
		}
	}
	return false
}

// Header is a name and value pair of Rayo (XEP-0327 §5.3).
type Header struct {
	Name  string `xml:"name,attr"`
	Value string `xml:"value,attr"`
}

var errNoPayload = fmt.Errorf("iq has no payload")
