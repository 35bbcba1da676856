package jingle

import (
	"encoding/xml"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
)

// Limits of Parse.
const (
	maxBytes   = 1 << 20
	maxSources = 20000
	maxItems   = 256 // contents, payload types, extensions, candidates
)

// ErrTooLarge marks a Jingle element beyond what any conference needs.
var ErrTooLarge = errors.New("jingle: too large")

// The wire types take text where a number is meant, so that one odd attribute
// costs that item and not the session.

type wireJingle struct {
	XMLName   xml.Name      `xml:"urn:xmpp:jingle:1 jingle"`
	Action    string        `xml:"action,attr"`
	SID       string        `xml:"sid,attr"`
	Initiator string        `xml:"initiator,attr,omitempty"`
	Responder string        `xml:"responder,attr,omitempty"`
	Contents  []wireContent `xml:"content"`
	Groups    []wireGroup   `xml:"urn:xmpp:jingle:apps:grouping:0 group"`
	Reason    *wireReason   `xml:"reason"`
	Bridge    *wireBridge   `xml:"http://jitsi.org/protocol/focus bridge-session"`
	JSON      []string      `xml:"http://jitsi.org/jitmeet json-message"`
	Muted     *struct {
		Audio string `xml:"audio,attr"`
		Video string `xml:"video,attr"`
	} `xml:"http://jitsi.org/jitmeet/start-muted startmuted"`
}

// wireReason has the condition first: Jicofo's reader stops at a text that
// precedes it, and answers nothing.
type wireReason struct {
	Conds []wireCondName `xml:",any"`
	Text  string         `xml:"text,omitempty"`
}

type wireCondName struct{ XMLName xml.Name }

type wireBridge struct {
	XMLName    xml.Name `xml:"http://jitsi.org/protocol/focus bridge-session"`
	ID         string   `xml:"id,attr,omitempty"`
	Region     string   `xml:"region,attr,omitempty"`
	Restart    string   `xml:"restart,attr,omitempty"`
	ICERestart string   `xml:"ice-restart,attr,omitempty"`
}

type wireGroup struct {
	XMLName   xml.Name        `xml:"urn:xmpp:jingle:apps:grouping:0 group"`
	Semantics string          `xml:"semantics,attr"`
	Contents  []wireGroupName `xml:"content"`
}

type wireGroupName struct {
	Name string `xml:"name,attr"`
}

type wireContent struct {
	Creator     string           `xml:"creator,attr,omitempty"`
	Name        string           `xml:"name,attr"`
	Senders     string           `xml:"senders,attr,omitempty"`
	Description *wireDescription `xml:"urn:xmpp:jingle:apps:rtp:1 description"`
	Transport   *wireTransport   `xml:"urn:xmpp:jingle:transports:ice-udp:1 transport"`
}

type wireDescription struct {
	XMLName  xml.Name      `xml:"urn:xmpp:jingle:apps:rtp:1 description"`
	Media    string        `xml:"media,attr"`
	Payloads []wirePayload `xml:"payload-type"`
	Exts     []wireExt     `xml:"urn:xmpp:jingle:apps:rtp:rtp-hdrext:0 rtp-hdrext"`
	Sources  []wireSource  `xml:"urn:xmpp:jingle:apps:rtp:ssma:0 source"`
	LastN    *wireLastN    `xml:"jitsi:colibri2 initial-last-n"`
	RTCPMux  *struct{}     `xml:"rtcp-mux"`
}

type wireLastN struct {
	XMLName xml.Name `xml:"jitsi:colibri2 initial-last-n"`
	Value   int      `xml:"value,attr"`
}

type wirePayload struct {
	ID       string      `xml:"id,attr"`
	Name     string      `xml:"name,attr,omitempty"`
	Rate     string      `xml:"clockrate,attr,omitempty"`
	Channels string      `xml:"channels,attr,omitempty"`
	Params   []wireParam `xml:"parameter"`
}

type wireParam struct {
	Name  string `xml:"name,attr,omitempty"`
	Value string `xml:"value,attr"`
}

type wireExt struct {
	XMLName xml.Name `xml:"urn:xmpp:jingle:apps:rtp:rtp-hdrext:0 rtp-hdrext"`
	ID      string   `xml:"id,attr"`
	URI     string   `xml:"uri,attr"`
}

type wireSource struct {
	XMLName xml.Name    `xml:"urn:xmpp:jingle:apps:rtp:ssma:0 source"`
	SSRC    string      `xml:"ssrc,attr"`
	Name    string      `xml:"name,attr,omitempty"`
	Info    *wireInfo   `xml:"http://jitsi.org/jitmeet ssrc-info"`
	Params  []wireParam `xml:"parameter"`
}

type wireInfo struct {
	Owner string `xml:"owner,attr"`
}

type wireTransport struct {
	XMLName    xml.Name        `xml:"urn:xmpp:jingle:transports:ice-udp:1 transport"`
	Ufrag      string          `xml:"ufrag,attr,omitempty"`
	Pwd        string          `xml:"pwd,attr,omitempty"`
	Generation string          `xml:"ice-generation,attr,omitempty"`
	RTCPMux    *struct{}       `xml:"rtcp-mux"`
	Prints     []wirePrint     `xml:"urn:xmpp:jingle:apps:dtls:0 fingerprint"`
	Candidates []wireCandidate `xml:"candidate"`
	WebSockets []wireWebSocket `xml:"http://jitsi.org/protocol/colibri web-socket"`
}

type wireWebSocket struct {
	XMLName xml.Name `xml:"http://jitsi.org/protocol/colibri web-socket"`
	URL     string   `xml:"url,attr"`
}

type wirePrint struct {
	XMLName xml.Name `xml:"urn:xmpp:jingle:apps:dtls:0 fingerprint"`
	Hash    string   `xml:"hash,attr"`
	Setup   string   `xml:"setup,attr,omitempty"`
	Value   string   `xml:",chardata"`
}

type wireCandidate struct {
	Component  string `xml:"component,attr"`
	Foundation string `xml:"foundation,attr"`
	Generation string `xml:"generation,attr"`
	ID         string `xml:"id,attr"`
	IP         string `xml:"ip,attr"`
	Network    string `xml:"network,attr"`
	Port       string `xml:"port,attr"`
	Priority   string `xml:"priority,attr"`
	Protocol   string `xml:"protocol,attr"`
	Type       string `xml:"type,attr"`
	RelAddr    string `xml:"rel-addr,attr,omitempty"`
	RelPort    string `xml:"rel-port,attr,omitempty"`
}

// Parse reads a <jingle/> element. What it does not know it ignores, as it
// does items whose numbers make no sense.
func Parse(b []byte) (*Jingle, error) {
	if len(b) > maxBytes {
		return nil, ErrTooLarge
	}
	var w wireJingle
	if err := xml.Unmarshal(b, &w); err != nil {
		return nil, fmt.Errorf("jingle: %w", err)
	}
	if w.Action == "" {
		return nil, errors.New("jingle: no action")
	}
	if w.SID == "" {
		return nil, errors.New("jingle: no sid")
	}
	if len(w.Contents) > maxItems || len(w.JSON) > 16 {
		return nil, ErrTooLarge
	}
	j := &Jingle{Action: w.Action, SID: w.SID, Initiator: w.Initiator, Responder: w.Responder}
	switch j.Action { // names of old Jicofos
	case "addsource":
		j.Action = SourceAdd
	case "removesource":
		j.Action = SourceRemove
	}
	for _, c := range w.Contents {
		content, err := c.content()
		if err != nil {
			return nil, err
		}
		j.Contents = append(j.Contents, content)
		if d := content.Description; d != nil {
			j.Sources = append(j.Sources, d.Sources...)
		}
	}
	for _, g := range w.Groups {
		if g.Semantics == "BUNDLE" {
			for _, c := range g.Contents {
				j.Group = append(j.Group, c.Name)
			}
		}
	}
	if w.Reason != nil {
		j.Reason.Text = strings.TrimSpace(w.Reason.Text)
		if len(w.Reason.Conds) > 0 {
			j.Reason.Condition = w.Reason.Conds[0].XMLName.Local
		}
	}
	if w.Bridge != nil {
		j.BridgeSession = BridgeSession{ID: w.Bridge.ID, Region: w.Bridge.Region,
			Restart: isTrue(w.Bridge.Restart), ICERestart: isTrue(w.Bridge.ICERestart)}
	}
	if w.Muted != nil {
		j.StartMuted = &StartMuted{Audio: isTrue(w.Muted.Audio), Video: isTrue(w.Muted.Video)}
	}
	for _, text := range w.JSON {
		sources, err := parseJSONSources([]byte(text))
		if err != nil {
			return nil, err
		}
		j.Sources = append(j.Sources, sources...)
	}
	if len(j.Sources) > maxSources {
		return nil, ErrTooLarge
	}
	return j, nil
}

func isTrue(s string) bool { return s == "true" || s == "1" }

// number is s as a decimal between lo and hi.
func number(s string, lo, hi int64) (int64, bool) {
	n, err := strconv.ParseInt(s, 10, 64)
	return n, err == nil && n >= lo && n <= hi
}

func (w *wireContent) content() (Content, error) {
	c := Content{Creator: w.Creator, Name: w.Name, Senders: w.Senders}
	if d := w.Description; d != nil {
		if len(d.Payloads) > maxItems || len(d.Exts) > maxItems {
			return c, ErrTooLarge
		}
		c.Description = d.description()
	}
	if t := w.Transport; t != nil {
		if len(t.Candidates) > maxItems || len(t.WebSockets) > maxItems {
			return c, ErrTooLarge
		}
		c.Transport = t.transport()
	}
	return c, nil
}

func (w *wireDescription) description() *Description {
	d := &Description{Media: w.Media, RTCPMux: w.RTCPMux != nil}
	for _, p := range w.Payloads {
		id, ok := number(p.ID, 0, 127)
		if !ok {
			continue
		}
		rate, _ := number(p.Rate, 1, 1<<20)
		channels, _ := number(p.Channels, 1, 255)
		pt := PayloadType{ID: uint8(id), Name: p.Name, ClockRate: int(rate), Channels: int(channels)}
		for _, kv := range p.Params {
			if pt.Params == nil {
				pt.Params = map[string]string{}
			}
			pt.Params[kv.Name] = kv.Value
		}
		d.Payloads = append(d.Payloads, pt)
	}
	for _, e := range w.Exts {
		if id, ok := number(e.ID, 1, 255); ok { // RFC 8285 §4.2, §4.3
			d.HdrExts = append(d.HdrExts, HdrExt{ID: int(id), URI: e.URI})
		}
	}
	for _, s := range w.Sources {
		ssrc, ok := number(s.SSRC, 1, math.MaxUint32)
		if !ok {
			continue
		}
		src := Source{SSRC: uint32(ssrc), Name: s.Name, Video: w.Media == "video"}
		if s.Info != nil {
			src.Owner = owner(s.Info.Owner)
		}
		for _, p := range s.Params {
			if p.Name == "msid" {
				src.MSID = p.Value
			}
		}
		d.Sources = append(d.Sources, src)
	}
	return d
}

// owner makes an endpoint id of what may be an occupant's full JID.
func owner(s string) string {
	if i := strings.IndexByte(s, '/'); i >= 0 {
		s = s[i+1:]
	}
	return strings.ToLower(s)
}

func (w *wireTransport) transport() *Transport {
	t := &Transport{Ufrag: w.Ufrag, Pwd: w.Pwd, ICEGeneration: w.Generation, RTCPMux: w.RTCPMux != nil}
	if len(w.Prints) > 0 {
		p := w.Prints[0]
		t.Fingerprint = Fingerprint{Hash: strings.ToLower(p.Hash), Value: strings.TrimSpace(p.Value), Setup: p.Setup}
	}
	for _, ws := range w.WebSockets {
		t.WebSockets = append(t.WebSockets, ws.URL)
	}
	for _, c := range w.Candidates {
		if cand, ok := c.candidate(); ok {
			t.Candidates = append(t.Candidates, cand)
		}
	}
	return t
}

func (w *wireCandidate) candidate() (Candidate, bool) {
	component, ok1 := number(w.Component, 1, 256)
	port, ok2 := number(w.Port, 1, 65535)
	priority, ok3 := number(w.Priority, 0, math.MaxUint32)
	rel, _ := number(w.RelPort, 0, 65535)
	generation, _ := number(w.Generation, 0, math.MaxInt32)
	network, _ := number(w.Network, 0, math.MaxInt32)
	return Candidate{Component: int(component), Foundation: w.Foundation, ID: w.ID, IP: w.IP, Port: int(port),
		Priority: uint32(priority), Protocol: strings.ToLower(w.Protocol), Type: w.Type, RelAddr: w.RelAddr,
		RelPort: int(rel), Generation: int(generation), Network: int(network)}, ok1 && ok2 && ok3
}

// MarshalXML writes the element. Sources are written in the contents that
// have them; Jingle.Sources and StartMuted only come from the focus.
func (j *Jingle) MarshalXML(e *xml.Encoder, _ xml.StartElement) error {
	w := wireJingle{Action: j.Action, SID: j.SID, Initiator: j.Initiator, Responder: j.Responder}
	for i := range j.Contents {
		w.Contents = append(w.Contents, newWireContent(&j.Contents[i]))
	}
	if len(j.Group) > 0 {
		g := wireGroup{Semantics: "BUNDLE"}
		for _, name := range j.Group {
			g.Contents = append(g.Contents, wireGroupName{name})
		}
		w.Groups = []wireGroup{g}
	}
	if j.Reason.Condition != "" {
		w.Reason = &wireReason{Text: j.Reason.Text, Conds: []wireCondName{{xml.Name{Local: j.Reason.Condition}}}}
	}
	if b := j.BridgeSession; b != (BridgeSession{}) {
		w.Bridge = &wireBridge{ID: b.ID, Region: b.Region}
		if b.Restart {
			w.Bridge.Restart = "true"
		}
		if b.ICERestart {
			w.Bridge.ICERestart = "true"
		}
	}
	return e.Encode(w)
}

func newWireContent(c *Content) wireContent {
	w := wireContent{Creator: c.Creator, Name: c.Name, Senders: c.Senders}
	if d := c.Description; d != nil {
		w.Description = newWireDescription(d)
		if d.Media == "video" && c.Senders == "none" {
			w.Description.LastN = &wireLastN{}
		}
	}
	if t := c.Transport; t != nil {
		w.Transport = newWireTransport(t)
	}
	return w
}

func newWireDescription(d *Description) *wireDescription {
	w := &wireDescription{Media: d.Media}
	if d.RTCPMux {
		w.RTCPMux = &struct{}{}
	}
	for _, p := range d.Payloads {
		pt := wirePayload{ID: strconv.Itoa(int(p.ID)), Name: p.Name}
		if p.ClockRate > 0 {
			pt.Rate = strconv.Itoa(p.ClockRate)
		}
		if p.Channels > 0 {
			pt.Channels = strconv.Itoa(p.Channels)
		}
		for _, k := range slices.Sorted(maps.Keys(p.Params)) {
			pt.Params = append(pt.Params, wireParam{k, p.Params[k]})
		}
		w.Payloads = append(w.Payloads, pt)
	}
	for _, x := range d.HdrExts {
		w.Exts = append(w.Exts, wireExt{ID: strconv.Itoa(x.ID), URI: x.URI})
	}
	for _, s := range d.Sources {
		src := wireSource{SSRC: strconv.FormatUint(uint64(s.SSRC), 10), Name: s.Name}
		if s.MSID != "" {
			src.Params = []wireParam{{"msid", s.MSID}}
		}
		w.Sources = append(w.Sources, src)
	}
	return w
}

func newWireTransport(t *Transport) *wireTransport {
	w := &wireTransport{Ufrag: t.Ufrag, Pwd: t.Pwd, Generation: t.ICEGeneration}
	if t.RTCPMux {
		w.RTCPMux = &struct{}{}
	}
	if f := t.Fingerprint; f.Value != "" {
		w.Prints = []wirePrint{{Hash: f.Hash, Setup: f.Setup, Value: f.Value}}
	}
	for _, u := range t.WebSockets {
		w.WebSockets = append(w.WebSockets, wireWebSocket{URL: u})
	}
	for _, c := range t.Candidates {
		w.Candidates = append(w.Candidates, newWireCandidate(c))
	}
	return w
}

func newWireCandidate(c Candidate) wireCandidate {
	w := wireCandidate{Component: strconv.Itoa(c.Component), Foundation: c.Foundation, ID: c.ID, IP: c.IP,
		Generation: strconv.Itoa(c.Generation), Network: strconv.Itoa(c.Network), Port: strconv.Itoa(c.Port),
		Priority: strconv.FormatUint(uint64(c.Priority), 10), Protocol: c.Protocol, Type: c.Type, RelAddr: c.RelAddr}
	if c.RelPort > 0 {
		w.RelPort = strconv.Itoa(c.RelPort)
	}
	return w
}
