package sip

import (
	"errors"
	"net/netip"
	"time"
)

// ErrNoCodec says that offer and answer have no codec in common: 488.
var ErrNoCodec = errors.New("sip: no common codec")

// Direction is the direction attribute of a media line.
type Direction int

// Directions, from the side that wrote the description.
const (
	SendRecv Direction = iota
	SendOnly
	RecvOnly
	Inactive
)

// Codec is an RTP payload format.
type Codec struct {
	Name     string // lower case: "pcmu", "pcma", "g722", "opus", "telephone-event"
	PT       uint8
	Rate     int // RTP clock, Hz
	Channels int // 1, or 2 where rtpmap says so
	Fmtp     string
}

// KnownCodecs returns the codecs that can be answered, by name, with the
// payload types we offer.
func KnownCodecs() map[string]Codec {
	return map[string]Codec{
		"pcmu": {Name: "pcmu", PT: 0, Rate: 8000, Channels: 1},
		"pcma": {Name: "pcma", PT: 8, Rate: 8000, Channels: 1},
		"g722": {Name: "g722", PT: 9, Rate: 8000, Channels: 1},
		"opus": {Name: "opus", PT: 96, Rate: 48000, Channels: 2, Fmtp: "useinbandfec=1"},
	}
}

// SDP is a session description (RFC 4566).
type SDP struct{}

// Local is our side of a session.
type Local struct {
	Addr               netip.Addr // address in o= and c=
	Port               int        // RTP
	RTCPPort           int        // 0: Port+1
	Codecs             []Codec    // by preference
	DTMF               bool       // telephone-event (RFC 4733)
	Ptime              time.Duration
	Direction          Direction
	RTCPMux            bool   // allow or offer rtcp-mux (RFC 5761)
	SessionID, Version uint64 // of o=; the caller increments Version on every change (RFC 3264 §8)
}

// Media is what an offer and an answer agreed on, from our side.
type Media struct {
	Codec         Codec // PT is what we send
	RecvPT        uint8 // what the peer sends us
	EventPT       uint8 // telephone-event we send, 0: none
	RecvEventPT   uint8 // telephone-event the peer sends us, 0: none
	EventRate     int   // its clock, Hz
	Remote        netip.AddrPort
	RemoteRTCP    netip.AddrPort
	RTCPMux       bool
	Send, Receive bool
	Ptime         time.Duration // the peer's wish for what we send, 0: none
	MaxPtime      time.Duration // 0: none
}

// ParseSDP reads a session description.
func ParseSDP(b []byte) (*SDP, error) { return nil, errors.New("sip: not finished") }

// Marshal writes the session description.
func (s *SDP) Marshal() []byte { return nil }

// Answer makes the answer to an offer (RFC 3264 §6).
func Answer(offer *SDP, l Local) (*SDP, Media, error) {
	return nil, Media{}, errors.New("sip: not finished")
}

// Offer makes an offer (RFC 3264 §5).
func Offer(l Local) *SDP { return &SDP{} }

// Accept reads the answer to our offer (RFC 3264 §7).
func Accept(offer, answer *SDP, l Local) (Media, error) {
	return Media{}, errors.New("sip: not finished")
}
