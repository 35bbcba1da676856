package sip

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
)

// ErrSRTP says that one side wants the audio encrypted and the other cannot or
// may not do it: 488.
var ErrSRTP = errors.New("sip: no agreement on SRTP")

// SRTP is whether audio is encrypted.
type SRTP int

// The answers to that.
const (
	SRTPOff      SRTP = iota // neither offered nor accepted
	SRTPOptional             // accepted where it is offered, and offered so that it may be refused
	SRTPRequired
)

// protection is how packets of a line are protected.
type protection int

const (
	inTheClear protection = iota
	bySDES                // RFC 4568
	byDTLS                // RFC 5763
)

// protection says how the packets of an offered line would be protected.
// Attributes of keys are heeded on RTP/AVP too: opportunistic SRTP (RFC 8643).
func (m MediaLine) protection(l Local) (protection, error) {
	refuse := func(text string) (protection, error) { return 0, fmt.Errorf("%w: %s", ErrSRTP, text) }
	plain := m.Proto == "RTP/AVP" || m.Proto == "RTP/AVPF"
	switch m.Proto {
	case "RTP/AVP", "RTP/AVPF", "RTP/SAVP", "RTP/SAVPF", "UDP/TLS/RTP/SAVP", "UDP/TLS/RTP/SAVPF":
	default:
		return refuse(fmt.Sprintf("unknown transport %.30q", m.Proto))
	}
	if l.SRTP == SRTPOff {
		if !plain {
			return refuse("the audio is offered encrypted only, and this trunk has srtp = \"off\"")
		}
		return inTheClear, nil
	}
	why := "no key that can be used is offered"
	switch {
	case len(m.Crypto) > 0 && !strings.HasPrefix(m.Proto, "UDP/TLS/"):
		return bySDES, nil
	case !m.dtls() || l.Fingerprint.Value == "":
	case !m.RTCPMux || !l.RTCPMux:
		why = "DTLS is offered without rtcp-mux"
	case m.Setup == "holdconn":
		why = "DTLS is offered with setup:holdconn"
	default:
		return byDTLS, nil
	}
	switch {
	case !plain:
		return refuse(why)
	case l.SRTP == SRTPRequired:
		return refuse("the audio is not offered encrypted, and this trunk has srtp = \"required\"")
	}
	return inTheClear, nil
}

// answerKeys answers an offered key. Ours stays as it is while theirs does:
// with a new one of theirs a new device may be behind it, which does not know
// how often our sequence numbers have gone round (RFC 3711 §3.3.1).
func (l Local) answerKeys(theirs Crypto) (*Keys, []Crypto) {
	mine := newCrypto(theirs.Tag, theirs.Suite)
	if a := l.Agreed; a != nil && a.Keys != nil && a.Keys.Suite == theirs.Suite && bytes.Equal(a.Keys.Receive, theirs.Key) {
		mine.Key = a.Keys.Send
	}
	return &Keys{Suite: theirs.Suite, Send: mine.Key, Receive: theirs.Key, MKI: theirs.MKI}, []Crypto{mine}
}

// answerDTLS answers a line with a fingerprint, and fills in ours. Who may
// choose waits for the other's handshake, since behind NAT it reaches us and not
// the reverse. A peer that is ICE-lite itself never checks, and is answered
// without ICE.
func (l Local) answerDTLS(theirs MediaLine, lite bool, mine *MediaLine) *DTLS {
	d := &DTLS{Active: theirs.Setup == "passive", Fingerprint: theirs.Fingerprint}
	var was DTLS
	if l.Agreed != nil && l.Agreed.DTLS != nil {
		was = *l.Agreed.DTLS
	}
	if theirs.Setup == "actpass" && was.Fingerprint == d.Fingerprint {
		d.Active = was.Active // the connection there is (RFC 8842 §5.3)
	}
	mine.Fingerprint, mine.Setup = l.Fingerprint, "passive"
	if d.Active {
		mine.Setup = "active"
	}
	if theirs.ice() && !lite {
		d.ICE, d.Local = theirs.ICE, was.Local
		if was.ICE != d.ICE { // an ICE restart (RFC 8839 §4.4.1.1.1)
			d.Local = newICE()
		}
		mine.ICE = d.Local
	}
	return d
}

// offerKeys fills in protocol and keys of an offer. Where SRTP is optional the
// line stays RTP/AVP with keys (RFC 8643): who does not know them answers as
// ever. Two lines, or RTP/SAVP and a second try, are refused or answered oddly
// by many.
func (l Local) offerKeys(s *SDP, m *MediaLine) {
	m.Proto = "RTP/AVP"
	if at := l.Last.audio(); at >= 0 && l.Agreed != nil { // go on as it is
		m.Proto = l.Last.Media[at].Proto
		switch a := l.Agreed; {
		case a.Keys != nil:
			m.Crypto = []Crypto{{Tag: 1, Suite: a.Keys.Suite, Key: a.Keys.Send}}
		case a.DTLS != nil:
			m.Fingerprint, m.Setup, m.ICE, m.RTCPMux = l.Fingerprint, "actpass", a.DTLS.Local, true
			s.Lite = m.ice()
		}
		return
	}
	switch {
	case l.SRTP == SRTPOff:
	case l.OfferDTLS && l.Fingerprint.Value != "":
		if l.SRTP == SRTPRequired {
			m.Proto = "UDP/TLS/RTP/SAVPF"
		}
		m.Fingerprint, m.Setup, m.ICE, m.RTCPMux, m.Mid = l.Fingerprint, "actpass", newICE(), true, "0"
		s.Lite, s.Bundle = true, []string{m.Mid}
	default:
		if l.SRTP == SRTPRequired {
			m.Proto = "RTP/SAVP"
		}
		for i, c := range suites {
			m.Crypto = append(m.Crypto, newCrypto(i+1, c.name))
		}
	}
}

// accept takes from an answer how packets are protected.
func (media *Media) accept(mine, theirs MediaLine, lite bool, want SRTP) error {
	switch {
	case len(mine.Crypto) > 0 && len(theirs.Crypto) > 0:
		t := theirs.Crypto[0]
		for _, c := range mine.Crypto {
			if c.Tag == t.Tag && c.Suite == t.Suite {
				media.Keys = &Keys{Suite: c.Suite, Send: c.Key, Receive: t.Key, MKI: t.MKI}
				return nil
			}
		}
		return fmt.Errorf("%w: the answer has a key that was not asked for", ErrSRTP)
	case mine.Fingerprint.Value != "" && theirs.Fingerprint.Value != "":
		if !theirs.RTCPMux {
			return fmt.Errorf("%w: DTLS is answered without rtcp-mux", ErrSRTP)
		}
		media.DTLS = &DTLS{Active: theirs.Setup == "passive", Fingerprint: theirs.Fingerprint}
		if mine.ice() && theirs.ice() && !lite {
			media.DTLS.Local, media.DTLS.ICE = mine.ICE, theirs.ICE
		}
		return nil
	case want == SRTPRequired || theirs.Proto != "RTP/AVP" && theirs.Proto != "RTP/AVPF":
		return fmt.Errorf("%w: the answer has no key", ErrSRTP)
	}
	return nil
}
