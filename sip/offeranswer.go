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
	Remote        netip.AddrPort // invalid: a host name; the peer's first packet tells
	RemoteRTCP    netip.AddrPort
	RTCPMux       bool
	Send, Receive bool          // hold and port 0 counted in
	Ptime         time.Duration // the peer's wish for what we send, 0: none
	MaxPtime      time.Duration // 0: none
}

// Answer makes the answer to an offer (RFC 3264 §6). Of the offered codecs
// the one that comes first in l.Codecs is taken, alone, under the offer's
// payload type; the first audio line that allows it is taken, and every other
// media line refused. ErrNoCodec: there is none.
func Answer(offer *SDP, l Local) (*SDP, Media, error) {
	taken, codec := -1, Codec{}
	for i, m := range offer.Media {
		if c, ok := m.pick(l.Codecs); ok {
			taken, codec = i, c
			break
		}
	}
	if taken < 0 {
		return nil, Media{}, ErrNoCodec
	}
	ans := l.description()
	var media Media
	for i, om := range offer.Media {
		if i != taken {
			ans.Media = append(ans.Media, MediaLine{Type: om.Type, Proto: om.Proto, Formats: om.Formats})
			continue
		}
		media = om.remote()
		media.Codec, media.RecvPT = codec, codec.PT
		mux := om.RTCPMux && l.RTCPMux
		m := l.line(mux)
		m.Proto = om.Proto
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
		// A peer that holds, even by the address 0.0.0.0 of RFC 2543, is not
		// sent to, and we say so.
		peerSends, peerReceives := om.Direction.sends(), om.Direction.receives() && !unspecified(om.Addr)
		m.Direction = direction(l.Direction.sends() && peerReceives, l.Direction.receives() && peerSends)
		media.Send, media.Receive = m.Direction.sends(), m.Direction.receives()
		m.formats()
		ans.Media = append(ans.Media, m)
	}
	return ans, media, nil
}

// Offer makes an offer (RFC 3264 §5) of one audio line with all of l.Codecs.
func Offer(l Local) *SDP {
	s := l.description()
	m := l.line(l.RTCPMux)
	m.Proto, m.Direction = "RTP/AVP", l.Direction
	used := map[uint8]bool{}
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
		used[c.PT], rates[c.Rate] = true, true
		m.Codecs = append(m.Codecs, c)
	}
	if l.ComfortNoise && rates[8000] {
		used[comfortPT] = true
		m.Codecs = append(m.Codecs, Codec{Name: comfort, PT: comfortPT, Rate: 8000, Channels: 1})
	}
	if l.DTMF {
		pt := uint8(101)
		for _, rate := range []int{8000, 48000} { // RFC 4733 §2.1: the clock of the audio
			if !rates[rate] {
				continue
			}
			for used[pt] {
				pt++
			}
			used[pt] = true
			m.Codecs = append(m.Codecs, Codec{Name: event, PT: pt, Rate: rate, Channels: 1, Fmtp: "0-15"})
		}
	}
	m.formats()
	s.Media = []MediaLine{m}
	return s
}

// Accept reads the answer to an offer of ours (RFC 3264 §7).
func Accept(offer, answer *SDP, l Local) (Media, error) {
	if len(offer.Media) == 0 || len(answer.Media) == 0 {
		return Media{}, ErrNoCodec
	}
	mine, am := offer.Media[0], answer.Media[0]
	if am.Type != mine.Type || am.Port == 0 || am.Proto != mine.Proto {
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
	media.Send = mine.Direction.sends() && am.Direction.receives() && !unspecified(am.Addr)
	media.Receive = mine.Direction.receives() && am.Direction.sends()
	return media, nil
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
	if m.Type != "audio" || m.Port == 0 || m.Proto != "RTP/AVP" && m.Proto != "RTP/AVPF" {
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
	if !m.Addr.IsValid() {
		return media
	}
	media.Remote = netip.AddrPortFrom(m.Addr, uint16(m.Port))
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

func unspecified(a netip.Addr) bool { return a.IsValid() && a.IsUnspecified() }

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
