package sip

import (
	"bytes"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// Direction is the direction attribute of a media line (RFC 4566 §6).
type Direction int

// Directions, from the side that wrote the description.
const (
	SendRecv Direction = iota
	SendOnly
	RecvOnly
	Inactive
)

var directions = []string{"sendrecv", "sendonly", "recvonly", "inactive"}

// String returns the attribute's name.
func (d Direction) String() string { return directions[d&3] }

func (d Direction) sends() bool    { return d == SendRecv || d == SendOnly }
func (d Direction) receives() bool { return d == SendRecv || d == RecvOnly }

func direction(send, receive bool) Direction {
	switch {
	case send && receive:
		return SendRecv
	case send:
		return SendOnly
	case receive:
		return RecvOnly
	}
	return Inactive
}

// Codec is an RTP payload format.
type Codec struct {
	Name     string // lower case: "pcmu", "pcma", "g722", "opus", "telephone-event"
	PT       uint8
	Rate     int    // RTP clock, Hz
	Channels int    // 1, or 2 where rtpmap says so
	Fmtp     string // format parameters
}

// KnownCodecs returns the codecs that can be answered, by name, with the
// payload types and parameters we offer (RFC 3551, RFC 7587).
func KnownCodecs() map[string]Codec {
	return map[string]Codec{
		"pcmu": {Name: "pcmu", PT: 0, Rate: 8000, Channels: 1},
		"pcma": {Name: "pcma", PT: 8, Rate: 8000, Channels: 1},
		"g722": {Name: "g722", PT: 9, Rate: 8000, Channels: 1},
		"opus": {Name: "opus", PT: 96, Rate: 48000, Channels: 2, Fmtp: "useinbandfec=1"},
	}
}

// static are the payload types that need no rtpmap (RFC 3551 §6).
var static = map[uint8]Codec{
	0: {Name: "pcmu", Rate: 8000, Channels: 1},
	8: {Name: "pcma", Rate: 8000, Channels: 1},
	9: {Name: "g722", Rate: 8000, Channels: 1},

	comfortPT: {Name: comfort, Rate: 8000, Channels: 1}, // RFC 3389 §4
}

// rtpmapNames are the encoding names as they are registered.
var rtpmapNames = map[string]string{"pcmu": "PCMU", "pcma": "PCMA", "g722": "G722", comfort: "CN"}

// SDP is a session description (RFC 4566), as far as we take part.
type SDP struct {
	Addr    netip.Addr // origin; of one we write also that of the connection
	ID      string     // of o=, decimal
	Version string     // of o=, decimal
	Lite    bool       // a=ice-lite (RFC 8839 §5.3)
	Bundle  []string   // of a=group:BUNDLE (RFC 8843), the mids
	Media   []MediaLine
}

// MediaLine is an m= line with what belongs to it.
type MediaLine struct {
	Type    string // "audio"
	Port    int    // 0: refused
	Proto   string // "RTP/AVP"
	Formats []string
	Codecs  []Codec // RTP formats that are static or have an rtpmap, in order

	Addr      netip.Addr // c= of the line or else of the session; zero: a host name
	Direction Direction
	Ptime     time.Duration // 0: not said
	MaxPtime  time.Duration
	RTCP      netip.AddrPort // a=rtcp (RFC 3605); port 0: not said, zero address: Addr
	RTCPMux   bool           // RFC 5761

	Mid         string   // a=mid (RFC 5888)
	Crypto      []Crypto // those that can be used
	Fingerprint Fingerprint
	Setup       string // "actpass", "active", "passive"
	ICE         ICE

	keyed bool // has a=crypto, of whatever suite
}

// Limits of a description that is read. They are far above any phone's.
const (
	maxSDP     = 16 << 10
	maxLines   = 512
	maxMedia   = 16
	maxFormats = 64
)

// ParseSDP reads a session description. It is lenient about what is missing
// and strict about size; unknown lines and attributes are passed over.
func ParseSDP(b []byte) (*SDP, error) {
	if len(b) > maxSDP {
		return nil, fmt.Errorf("sdp: %d bytes", len(b))
	}
	b = bytes.TrimRight(b, "\r\n\x00 ")
	lines := bytes.Split(b, []byte("\n"))
	if len(lines) > maxLines {
		return nil, fmt.Errorf("sdp: %d lines", len(lines))
	}
	s := &SDP{}
	var conn netip.Addr       // of the session
	var session MediaLine     // what the session says for every line
	maps := map[uint8]Codec{} // rtpmap and fmtp of the current line
	var m *MediaLine
	endMedia := func() {
		if m == nil {
			return
		}
		m.codecs(maps)
		clear(maps)
		if m.Fingerprint.Value == "" {
			m.Fingerprint = session.Fingerprint
		}
	}
	for i, l := range lines {
		l := string(bytes.TrimRight(l, "\r"))
		if i == 0 {
			if l != "v=0" {
				return nil, fmt.Errorf("sdp: begins with %.20q", l)
			}
			continue
		}
		if len(l) < 2 || l[1] != '=' {
			return nil, fmt.Errorf("sdp: line %d: %.40q", i+1, l)
		}
		v := l[2:]
		var err error
		switch l[0] {
		case 'o':
			if f := strings.Fields(v); len(f) == 6 {
				s.ID, s.Version = f[1], f[2]
				s.Addr, _ = netip.ParseAddr(f[5])
			}
		case 'c':
			var a netip.Addr
			if a, err = connection(v); err == nil {
				if m == nil {
					conn = a
				} else {
					m.Addr = a
				}
			}
		case 'm':
			endMedia()
			if len(s.Media) == maxMedia {
				return nil, fmt.Errorf("sdp: more than %d media", maxMedia)
			}
			var line MediaLine
			if line, err = mediaLine(v); err == nil {
				line.Addr, line.Direction, line.Ptime, line.MaxPtime = conn, session.Direction, session.Ptime, session.MaxPtime
				line.Setup, line.ICE = session.Setup, session.ICE
				s.Media = append(s.Media, line)
				m = &s.Media[len(s.Media)-1]
			}
		case 'a':
			name, val, _ := strings.Cut(v, ":")
			if m != nil {
				err = m.attribute(name, strings.TrimSpace(val), maps)
				break
			}
			switch name {
			case "rtcp", "crypto", "mid": // meaningful for a media line only
			case "ice-lite":
				s.Lite = true
			case "group":
				if f := strings.Fields(val); len(f) > 1 && f[0] == "BUNDLE" && s.Bundle == nil {
					s.Bundle = f[1:]
				}
			default:
				err = session.attribute(name, strings.TrimSpace(val), map[uint8]Codec{})
			}
		}
		if err != nil {
			return nil, fmt.Errorf("sdp: line %d: %w", i+1, err)
		}
	}
	endMedia()
	return s, nil
}

// connection reads a c= value. A host name gives the zero address: it is
// resolved by nobody, the peer's first packet will tell.
func connection(v string) (netip.Addr, error) {
	f := strings.Fields(v)
	if len(f) != 3 || f[0] != "IN" || f[1] != "IP4" && f[1] != "IP6" {
		return netip.Addr{}, fmt.Errorf("connection %.60q", v)
	}
	addr, _, multicast := strings.Cut(f[2], "/")
	a, err := netip.ParseAddr(addr)
	if err != nil {
		return netip.Addr{}, nil
	}
	if a = a.Unmap().WithZone(""); multicast || a.IsMulticast() {
		return netip.Addr{}, fmt.Errorf("multicast %.60q", v)
	}
	return a, nil
}

func mediaLine(v string) (MediaLine, error) {
	f := strings.Fields(v)
	if len(f) < 4 || len(f) > 3+maxFormats {
		return MediaLine{}, fmt.Errorf("media %.60q", v)
	}
	for _, s := range f { // these are written back when we refuse the line
		if !isMediaToken(s) {
			return MediaLine{}, fmt.Errorf("media %.60q", v)
		}
	}
	port, _, _ := strings.Cut(f[1], "/") // a number of ports may follow
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return MediaLine{}, fmt.Errorf("port %.20q", f[1])
	}
	return MediaLine{Type: strings.ToLower(f[0]), Port: int(n), Proto: f[2], Formats: f[3:]}, nil
}

func isMediaToken(s string) bool {
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c >= 0x7f {
			return false
		}
	}
	return s != ""
}

// attribute takes an a= line. Only what would be dangerous to misread is an
// error.
func (m *MediaLine) attribute(name, v string, maps map[uint8]Codec) error {
	switch name {
	case "rtpmap":
		pt, rest, ok := payloadType(v)
		if !ok || m.Type != "audio" { // of a line that is refused in any case
			return nil
		}
		c := maps[pt]
		parts := strings.Split(rest, "/")
		if len(parts) < 2 {
			return fmt.Errorf("rtpmap %.60q", v)
		}
		rate, err := strconv.ParseUint(strings.TrimSpace(parts[1]), 10, 20)
		if err != nil || rate == 0 {
			return fmt.Errorf("rtpmap %.60q", v)
		}
		c.Name, c.Rate, c.Channels = strings.ToLower(parts[0]), int(rate), 1
		if len(parts) > 2 {
			ch, err := strconv.ParseUint(strings.TrimSpace(parts[2]), 10, 8)
			if err != nil || ch == 0 {
				return fmt.Errorf("rtpmap %.60q", v)
			}
			c.Channels = int(ch)
		}
		maps[pt] = c
	case "fmtp":
		if pt, rest, ok := payloadType(v); ok {
			c := maps[pt]
			c.Fmtp = rest
			maps[pt] = c
		}
	case "ptime":
		m.Ptime = milliseconds(v)
	case "maxptime":
		m.MaxPtime = milliseconds(v)
	case "rtcp-mux":
		m.RTCPMux = true
	case "rtcp":
		f := strings.Fields(v)
		if len(f) == 0 {
			return nil
		}
		port, err := strconv.ParseUint(f[0], 10, 16)
		if err != nil {
			return fmt.Errorf("rtcp %.60q", v)
		}
		var a netip.Addr
		if len(f) == 4 {
			if a, err = connection(strings.Join(f[1:], " ")); err != nil {
				return err
			}
		}
		m.RTCP = netip.AddrPortFrom(a, uint16(port))
	default:
		for i, d := range directions {
			if name == d {
				m.Direction = Direction(i)
			}
		}
		m.secure(name, v)
	}
	return nil
}

func payloadType(v string) (pt uint8, rest string, ok bool) {
	n, rest, _ := strings.Cut(v, " ")
	u, err := strconv.ParseUint(n, 10, 7)
	return uint8(u), strings.TrimSpace(rest), err == nil
}

func milliseconds(v string) time.Duration {
	f, err := strconv.ParseFloat(v, 64) // 1016-style codecs have fractions
	if err != nil || !(f >= 1 && f <= 1000) {
		return 0
	}
	return time.Duration(f * float64(time.Millisecond))
}

// codecs fills in Codecs from the formats and what maps says of them.
func (m *MediaLine) codecs(maps map[uint8]Codec) {
	if !strings.Contains(m.Proto, "RTP/") {
		return
	}
	var seen [128]bool
	for _, s := range m.Formats {
		u, err := strconv.ParseUint(s, 10, 7)
		if err != nil || seen[u] {
			continue
		}
		pt := uint8(u)
		seen[pt] = true
		c := maps[pt]
		if c.Name == "" {
			fmtp := c.Fmtp
			if c = static[pt]; c.Name == "" {
				continue
			}
			c.Fmtp = fmtp
		}
		c.PT = pt
		m.Codecs = append(m.Codecs, c)
	}
}

// Marshal writes the session description.
func (s *SDP) Marshal() []byte {
	var b bytes.Buffer
	family := func(a netip.Addr) string {
		if a.Is4() {
			return "IN IP4 " + a.String()
		}
		return "IN IP6 " + a.String()
	}
	fmt.Fprintf(&b, "v=0\r\no=- %s %s %s\r\ns=-\r\nc=%s\r\nt=0 0\r\n", s.ID, s.Version, family(s.Addr), family(s.Addr))
	if len(s.Bundle) > 0 {
		fmt.Fprintf(&b, "a=group:BUNDLE %s\r\n", strings.Join(s.Bundle, " "))
	}
	if s.Lite {
		b.WriteString("a=ice-lite\r\n")
	}
	for _, m := range s.Media {
		fmt.Fprintf(&b, "m=%s %d %s %s\r\n", m.Type, m.Port, m.Proto, strings.Join(m.Formats, " "))
		if m.Mid != "" {
			fmt.Fprintf(&b, "a=mid:%s\r\n", m.Mid)
		}
		if m.Port == 0 {
			continue
		}
		for _, c := range m.Codecs {
			name := c.Name
			if n := rtpmapNames[name]; n != "" {
				name = n
			}
			fmt.Fprintf(&b, "a=rtpmap:%d %s/%d", c.PT, name, c.Rate)
			if c.Channels > 1 {
				fmt.Fprintf(&b, "/%d", c.Channels)
			}
			b.WriteString("\r\n")
			if c.Fmtp != "" {
				fmt.Fprintf(&b, "a=fmtp:%d %s\r\n", c.PT, c.Fmtp)
			}
		}
		for _, p := range []struct {
			name string
			d    time.Duration
		}{{"ptime", m.Ptime}, {"maxptime", m.MaxPtime}} {
			if p.d > 0 {
				fmt.Fprintf(&b, "a=%s:%d\r\n", p.name, p.d.Milliseconds())
			}
		}
		fmt.Fprintf(&b, "a=%s\r\n", m.Direction)
		if m.RTCP.Port() != 0 {
			fmt.Fprintf(&b, "a=rtcp:%d\r\n", m.RTCP.Port())
		}
		if m.RTCPMux {
			b.WriteString("a=rtcp-mux\r\n")
		}
		for _, c := range m.Crypto {
			b.WriteString(c.text())
		}
		if m.Fingerprint.Value != "" {
			fmt.Fprintf(&b, "a=setup:%s\r\na=fingerprint:%s %s\r\n", m.Setup, m.Fingerprint.Hash, m.Fingerprint.Value)
		}
		if m.ice() {
			fmt.Fprintf(&b, "a=ice-ufrag:%s\r\na=ice-pwd:%s\r\n", m.ICE.Ufrag, m.ICE.Pwd)
			b.WriteString(candidate(netip.AddrPortFrom(m.Addr, uint16(m.Port))))
		}
	}
	return b.Bytes()
}
