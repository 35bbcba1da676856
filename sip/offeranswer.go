package sip

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// ErrNoCodec says that offer and answer have no audio codec in common, or no
// audio we can take part in: 488.
var ErrNoCodec = errors.New("sip: no common codec")

// Local is our side of a session.
type Local struct {
	Addr               netip.Addr // in o= and c=
	Port               int        // RTP
	RTCPPort           int        // 0: Port+1
	Codecs             []Codec    // by preference; of known ones the name is enough
	DTMF               bool       // telephone-event (RFC 4733)
	ComfortNoise       bool       // with G.711 and G.722 (RFC 3389)
	Ptime              time.Duration
	Direction          Direction
	RTCPMux            bool   // offer, or accept, RTP and RTCP on one port (RFC 5761)
	SessionID, Version uint64 // of o=; the caller increments Version with every description it sends (RFC 3264 §8)

	SRTP        SRTP
	OfferDTLS   bool        // offers agree on keys by DTLS, not in the description
	Fingerprint Fingerprint // of our certificate; without it there is no DTLS

	// What the session has come to, nil at its beginning: our last description
	// and the peer's, and what they agreed on. Lines keep their places, payload
	// types their meaning and keys their value (RFC 3264 §8, RFC 4568 §7.1.4).
	Last, Peer *SDP
	Agreed     *Media
}

// Media is what an offer and an answer agreed on, from our side.
type Media struct {
	Codec         Codec          // PT and Fmtp as the peer wants them from us
	RecvPT        uint8          // what the peer sends us
	EventPT       uint8          // telephone-event we send, 0: none
	RecvEventPT   uint8          // telephone-event the peer sends us, 0: none
	EventRate     int            // its clock, Hz
	CNPT          uint8          // comfort noise we send, 0: none
	RecvCNPT      uint8          // comfort noise the peer sends us, 0: none
	Remote        netip.AddrPort // zero address: a host name
	RemoteRTCP    netip.AddrPort
	RTCPMux       bool
	Send, Receive bool          // hold and port 0 counted in
	Ptime         time.Duration // the peer's wish for what we send, 0: none
	MaxPtime      time.Duration // 0: none
	Keys          *Keys         // SRTP by the keys of the descriptions (RFC 4568)
	DTLS          *DTLS         // SRTP by DTLS (RFC 5763); neither: RTP in the clear
}

// Answer makes the answer to an offer (RFC 3264 §6). Of the offered codecs
// the one in use, else the one that comes first in l.Codecs is taken, alone,
// under the offer's payload type. The first audio line that allows it is taken,
// encrypted ones before others, and every other media line refused. Errors:
// ErrNoCodec, ErrSRTP.
func Answer(offer *SDP, l Local) (*SDP, Media, error) {
	taken, codec, how, err := choose(offer, l)
	if err != nil {
		return nil, Media{}, err
	}
	ans := l.description()
	var media Media
	for i, om := range offer.Media {
		if i != taken {
			ans.Media = append(ans.Media, om.refused())
			continue
		}
		media = om.remote()
		media.Codec, media.RecvPT = codec, codec.PT
		mux := om.RTCPMux && l.RTCPMux
		m := l.line(mux)
		m.Proto, m.Mid = om.Proto, om.Mid
		if slices.Contains(offer.Bundle, om.Mid) {
			ans.Bundle = []string{om.Mid}
		}
		mine := codec
		mine.Fmtp = l.fmtp(codec.Name)
		m.Codecs = []Codec{mine}
		if ev, ok := om.event(codec.Rate); ok && l.DTMF && ev.PT != codec.PT {
			media.EventPT, media.RecvEventPT, media.EventRate = ev.PT, ev.PT, ev.Rate
			ev.Fmtp = "0-15"
			m.Codecs = append(m.Codecs, ev)
		}
		if cn, ok := om.comfort(codec); ok && l.ComfortNoise && cn.PT != codec.PT {
			media.CNPT, media.RecvCNPT = cn.PT, cn.PT
			m.Codecs = append(m.Codecs, cn)
		}
		media.setMux(mux)
		switch how {
		case bySDES:
			media.Keys, m.Crypto = l.answerKeys(om.Crypto[0])
		case byDTLS:
			media.DTLS = l.answerDTLS(om, offer.Lite, &m)
			ans.Lite = m.ice()
		}
		// A peer that holds, even by the address 0.0.0.0 of RFC 2543, is not
		// sent to, and we say so.
		peerSends, peerReceives := om.Direction.sends(), om.Direction.receives() && !media.nowhere()
		m.Direction = direction(l.Direction.sends() && peerReceives, l.Direction.receives() && peerSends)
		media.Send, media.Receive = m.Direction.sends(), m.Direction.receives()
		m.formats()
		ans.Media = append(ans.Media, m)
	}
	return ans, media, nil
}

// choose finds the line to take, its codec, and how its packets are protected.
func choose(offer *SDP, l Local) (line int, c Codec, how protection, err error) {
	var order []int
	if i := l.Last.audio(); i >= 0 && i < len(offer.Media) { // the stream in use is the line at its place
		order = append(order, i)
	}
	for i := range offer.Media {
		if !slices.Contains(order, i) {
			order = append(order, i)
		}
	}
	codecs := l.Codecs
	if l.Agreed != nil {
		codecs = append([]Codec{l.Agreed.Codec}, codecs...)
	}
	err = ErrNoCodec
	for _, secure := range []bool{true, false} {
		for _, i := range order {
			m := offer.Media[i]
			c, ok := m.pick(codecs)
			if !ok {
				continue
			}
			how, e := m.protection(l)
			switch {
			case e != nil:
				err = e
			case secure == (how != inTheClear):
				return i, c, how, nil
			}
		}
	}
	return 0, Codec{}, 0, err
}

// Offer makes an offer (RFC 3264 §5) of one audio line with all of l.Codecs.
// In a session that has begun it is one that goes on with its stream (§8).
func Offer(l Local) *SDP {
	s := l.description()
	m := l.line(l.RTCPMux)
	m.Direction = l.Direction
	l.offerKeys(s, &m)
	// A payload type is not used for anything else in the session.
	inUse := l.mapped()
	used := map[uint8]bool{}
	for _, c := range inUse {
		used[c.PT] = true
	}
	free := func(c Codec) uint8 {
		for _, o := range inUse {
			if same(o, c) || o.Name == event && c.Name == event && o.Rate == c.Rate {
				return o.PT
			}
		}
		pt := c.PT
		for used[pt] {
			if pt++; pt < 96 || pt > 127 {
				pt = 96
			}
		}
		used[pt] = true
		return pt
	}
	rates := map[int]bool{}
	known := KnownCodecs()
	for _, c := range l.Codecs {
		k, ok := known[c.Name]
		if !ok {
			continue
		}
		if c.Rate == 0 {
			c = k
		}
		c.Fmtp = l.fmtp(c.Name)
		c.PT = free(c)
		rates[c.Rate] = true
		m.Codecs = append(m.Codecs, c)
	}
	if l.ComfortNoise && rates[8000] {
		m.Codecs = append(m.Codecs, Codec{Name: comfort, PT: comfortPT, Rate: 8000, Channels: 1})
	}
	if l.DTMF {
		for _, rate := range []int{8000, 48000} { // RFC 4733 §2.1: the clock of the audio
			if rates[rate] {
				c := Codec{Name: event, PT: 101, Rate: rate, Channels: 1, Fmtp: "0-15"}
				c.PT = free(c)
				m.Codecs = append(m.Codecs, c)
			}
		}
	}
	m.formats()
	if at := l.Last.audio(); at >= 0 {
		for _, old := range l.Last.Media {
			s.Media = append(s.Media, old.refused())
		}
		m.Mid = l.Last.Media[at].Mid
		s.Bundle = l.Last.Bundle
		s.Media[at] = m
		return s
	}
	s.Media = []MediaLine{m}
	return s
}

// Accept reads the answer to an offer of ours (RFC 3264 §7). Errors:
// ErrNoCodec, ErrSRTP.
func Accept(offer, answer *SDP, l Local) (Media, error) {
	at := offer.audio()
	if at < 0 || at >= len(answer.Media) {
		return Media{}, ErrNoCodec
	}
	mine, am := offer.Media[at], answer.Media[at]
	if am.Type != mine.Type || am.Port == 0 || !strings.Contains(am.Proto, "RTP/") {
		return Media{}, ErrNoCodec
	}
	media := am.remote()
	media.setMux(am.RTCPMux && mine.RTCPMux)
	found := false
	for _, c := range am.Codecs {
		i := slices.IndexFunc(mine.Codecs, func(o Codec) bool { return o.Name != event && o.Name != comfort && same(o, c) })
		if i >= 0 {
			c.Name, c.Rate = mine.Codecs[i].Name, mine.Codecs[i].Rate
			media.Codec, media.RecvPT, found = c, mine.Codecs[i].PT, true
			break
		}
	}
	if !found {
		return Media{}, fmt.Errorf("%w: the answer has %v", ErrNoCodec, am.Formats)
	}
	if err := media.accept(mine, am, answer.Lite, l.SRTP); err != nil {
		return Media{}, err
	}
	if theirs, ok := am.event(media.Codec.Rate); ok && l.DTMF {
		for _, o := range mine.Codecs {
			if o.Name == event && o.Rate == theirs.Rate {
				media.EventPT, media.RecvEventPT, media.EventRate = theirs.PT, o.PT, o.Rate
			}
		}
	}
	if theirs, ok := am.comfort(media.Codec); ok && l.ComfortNoise {
		media.CNPT, media.RecvCNPT = theirs.PT, comfortPT
	}
	media.Send = mine.Direction.sends() && am.Direction.receives() && !media.nowhere()
	media.Receive = mine.Direction.receives() && am.Direction.sends()
	return media, nil
}

// audio is the index of the line in use, -1: none.
func (s *SDP) audio() int {
	if s == nil {
		return -1
	}
	return slices.IndexFunc(s.Media, func(m MediaLine) bool { return m.Type == "audio" && m.Port != 0 })
}

// refused is the line with which this one is refused.
func (m MediaLine) refused() MediaLine {
	return MediaLine{Type: m.Type, Proto: m.Proto, Formats: m.Formats, Mid: m.Mid}
}

// mapped are the formats that have a payload type in the session.
func (l Local) mapped() []Codec {
	var list []Codec
	for _, s := range []*SDP{l.Last, l.Peer} {
		if i := s.audio(); i >= 0 {
			list = append(list, s.Media[i].Codecs...)
		}
	}
	return list
}

const (
	event     = "telephone-event"
	comfort   = "cn" // RFC 3389
	comfortPT = 13   // its static payload type
)

// same says whether two formats are the same codec. G.722 runs at 16 kHz and
// says 8000 for historical reasons (RFC 3551 §4.5.2); some say 16000.
func same(a, b Codec) bool {
	if a.Name != b.Name {
		return false
	}
	switch a.Name {
	case "g722":
		return true
	case "opus":
		return a.Rate == b.Rate // RFC 7587: always 2 channels, some leave that out
	}
	return a.Rate == b.Rate && a.Channels == b.Channels
}

// pick returns the offered codec that comes first in our preference. Its Rate
// is the RTP clock in fact.
func (m MediaLine) pick(ours []Codec) (Codec, bool) {
	if m.Type != "audio" || m.Port == 0 {
		return Codec{}, false
	}
	known := KnownCodecs()
	for _, o := range ours {
		k, ok := known[strings.ToLower(o.Name)]
		if !ok {
			continue
		}
		for _, c := range m.Codecs {
			if same(k, c) {
				c.Rate = k.Rate
				return c, true
			}
		}
	}
	return Codec{}, false
}

// event returns the telephone-event format that goes with audio of the given
// clock: of the same clock, else of 8000 Hz, which many offer with Opus.
func (m MediaLine) event(rate int) (Codec, bool) {
	var other Codec
	for _, c := range m.Codecs {
		if c.Name != event {
			continue
		}
		if c.Rate == rate {
			return c, true
		}
		if c.Rate == 8000 && other.Name == "" {
			other = c
		}
	}
	return other, other.Name != ""
}

// comfort returns the comfort noise that goes with a codec: G.711 and G.722,
// whose clock is 8000 Hz as is that of payload type 13.
func (m MediaLine) comfort(with Codec) (Codec, bool) {
	if with.Name == "opus" { // has its own
		return Codec{}, false
	}
	for _, c := range m.Codecs {
		if c.Name == comfort && c.Rate == 8000 {
			return c, true
		}
	}
	return Codec{}, false
}

// remote returns what a peer's line says of where and how to send.
func (m MediaLine) remote() Media {
	media := Media{Ptime: m.Ptime, MaxPtime: m.MaxPtime}
	media.Remote = netip.AddrPortFrom(m.Addr, uint16(m.Port))
	if !m.Addr.IsValid() {
		return media
	}
	switch a := m.RTCP; {
	case a.Port() != 0 && a.Addr().IsValid():
		media.RemoteRTCP = a
	case a.Port() != 0:
		media.RemoteRTCP = netip.AddrPortFrom(m.Addr, a.Port())
	case m.Port < 65535:
		media.RemoteRTCP = netip.AddrPortFrom(m.Addr, uint16(m.Port)+1)
	}
	return media
}

func (m *Media) setMux(mux bool) {
	if m.RTCPMux = mux; mux {
		m.RemoteRTCP = m.Remote
	}
}

// nowhere says that the peer holds by its address. With ICE it has none to
// name before its checks.
func (m *Media) nowhere() bool {
	a := m.Remote.Addr()
	return a.IsValid() && a.IsUnspecified() && (m.DTLS == nil || m.DTLS.ICE.Ufrag == "")
}

func (l Local) description() *SDP {
	return &SDP{Addr: l.Addr, ID: strconv.FormatUint(l.SessionID, 10), Version: strconv.FormatUint(l.Version, 10)}
}

func (l Local) line(mux bool) MediaLine {
	m := MediaLine{Type: "audio", Port: l.Port, Addr: l.Addr, Ptime: l.Ptime, RTCPMux: mux}
	if l.RTCPPort != 0 && l.RTCPPort != l.Port+1 && !mux {
		m.RTCP = netip.AddrPortFrom(l.Addr, uint16(l.RTCPPort))
	}
	return m
}

// fmtp returns the format parameters we state for a codec.
func (l Local) fmtp(name string) string {
	for _, c := range l.Codecs {
		if strings.EqualFold(c.Name, name) && c.Fmtp != "" {
			return c.Fmtp
		}
	}
	return KnownCodecs()[name].Fmtp
}

// formats fills in Formats from Codecs.
func (m *MediaLine) formats() {
	m.Formats = nil
	for _, c := range m.Codecs {
		m.Formats = append(m.Formats, strconv.Itoa(int(c.PT)))
	}
}
