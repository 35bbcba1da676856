package xmpp

import (
	"context"
	"crypto/sha1"
	"encoding/base64"
	"encoding/xml"
	"fmt"
	"slices"
	"strings"
)

// Feature names that this package or its users test for.
const (
	FeatureJigasi    = "http://jitsi.org/protocol/jigasi"
	FeatureAudioMute = "http://jitsi.org/protocol/audio-mute"
)

// GatewayFeatures are the disco#info features of a gateway that has audio
// only. Jicofo builds its offer from them: no video, no data channel, sources
// as compact JSON.
var GatewayFeatures = []string{
	"http://jabber.org/protocol/caps",
	nsDisco,
	nsMUC,
	"http://jitsi.org/json-encoded-sources",
	FeatureAudioMute,
	FeatureJigasi,
	"http://jitsi.org/source-name",
	"http://jitsi.org/start-muted-room-metadata",
	"urn:ietf:rfc:5761",
	"urn:ietf:rfc:5888",
	nsJingle,
	"urn:xmpp:jingle:apps:dtls:0",
	"urn:xmpp:jingle:apps:rtp:1",
	"urn:xmpp:jingle:apps:rtp:audio",
	"urn:xmpp:jingle:apps:rtp:rtp-hdrext:0",
	"urn:xmpp:jingle:dtmf:0",
	"urn:xmpp:jingle:transports:ice-udp:1",
	nsPing,
}

// PresenceFeatures are the features a gateway names in its presence, which
// is where web clients look: no peer-to-peer, a phone's icon.
var PresenceFeatures = []string{FeatureJigasi, "urn:xmpp:jingle:dtmf:0", FeatureAudioMute}

// DefaultDisco is what a gateway answers to disco#info.
func DefaultDisco() DiscoInfo {
	return DiscoInfo{
		Identities: []Identity{{Category: "client", Type: "phone", Name: "Brewline"}},
		Features:   slices.Clone(GatewayFeatures),
	}
}

// DiscoInfo is what an entity is and can do (XEP-0030 §3).
type DiscoInfo struct {
	Node       string
	Identities []Identity
	Features   []string
	Forms      []Form // service discovery extensions (XEP-0128)
}

// Has reports whether feature is among the features.
func (d *DiscoInfo) Has(feature string) bool { return slices.Contains(d.Features, feature) }

// Identity is a kind of entity.
type Identity struct {
	Category string `xml:"category,attr"`
	Type     string `xml:"type,attr"`
	Lang     string `xml:"http://www.w3.org/XML/1998/namespace lang,attr,omitempty"`
	Name     string `xml:"name,attr,omitempty"`
}

// Form is a data form of a disco#info result.
type Form struct {
	Type   string // FORM_TYPE
	Fields map[string][]string
}

// Caps are entity capabilities (XEP-0115): Ver stands for a DiscoInfo.
type Caps struct {
	Hash string `xml:"hash,attr"`
	Node string `xml:"node,attr"`
	Ver  string `xml:"ver,attr"`
}

// CapsHash is the sha-1 verification string of XEP-0115 §5.1.
func CapsHash(d DiscoInfo) string {
	var b strings.Builder
	ids := make([]string, 0, len(d.Identities))
	for _, i := range d.Identities {
		ids = append(ids, i.Category+"/"+i.Type+"/"+i.Lang+"/"+i.Name+"<")
	}
	slices.Sort(ids)
	features := slices.Sorted(slices.Values(d.Features))
	for _, s := range ids {
		b.WriteString(s)
	}
	for _, s := range features {
		b.WriteString(s + "<")
	}
	forms := slices.SortedFunc(slices.Values(d.Forms), func(x, y Form) int { return strings.Compare(x.Type, y.Type) })
	for _, f := range forms {
		b.WriteString(f.Type + "<")
		names := make([]string, 0, len(f.Fields))
		for n := range f.Fields {
			names = append(names, n)
		}
		slices.Sort(names)
		for _, n := range names {
			b.WriteString(n + "<")
			for _, v := range slices.Sorted(slices.Values(f.Fields[n])) {
				b.WriteString(v + "<")
			}
		}
	}
	sum := sha1.Sum([]byte(b.String()))
	return base64.StdEncoding.EncodeToString(sum[:])
}

type discoQuery struct {
	XMLName    xml.Name   `xml:"http://jabber.org/protocol/disco#info query"`
	Node       string     `xml:"node,attr,omitempty"`
	Identities []Identity `xml:"identity"`
	Features   []struct {
		Var string `xml:"var,attr"`
	} `xml:"feature"`
	Forms []struct {
		Fields []struct {
			Var    string   `xml:"var,attr"`
			Values []string `xml:"value"`
		} `xml:"field"`
	} `xml:"jabber:x:data x"`
}

func (q *discoQuery) info() *DiscoInfo {
	d := &DiscoInfo{Node: q.Node, Identities: q.Identities}
	for _, f := range q.Features {
		d.Features = append(d.Features, f.Var)
	}
	for _, x := range q.Forms {
		f := Form{Fields: make(map[string][]string, len(x.Fields))}
		for _, field := range x.Fields {
			if field.Var == "FORM_TYPE" && len(field.Values) > 0 {
				f.Type = field.Values[0]
				continue
			}
			f.Fields[field.Var] = field.Values
		}
		d.Forms = append(d.Forms, f)
	}
	return d
}

func newDiscoQuery(d DiscoInfo, node string) *discoQuery {
	q := &discoQuery{Node: node, Identities: d.Identities}
	for _, f := range d.Features {
		q.Features = append(q.Features, struct {
			Var string `xml:"var,attr"`
		}{f})
	}
	return q
}

// Caps are our own capabilities: what presence to a room says.
func (s *Session) Caps() Caps { return s.caps }

// DiscoInfo asks what an entity is (XEP-0030 §3.1). An error reply is a
// *StanzaError.
func (s *Session) DiscoInfo(ctx context.Context, to JID, node string) (*DiscoInfo, error) {
	res, err := s.Request(ctx, &IQ{Type: "get", To: to, Payload: &discoQuery{Node: node}})
	if err != nil {
		return nil, err
	}
	var q discoQuery
	if err := res.Decode(&q); err != nil {
		return nil, fmt.Errorf("disco#info of %s: %w", to, err)
	}
	return q.info(), nil
}

// answerDisco answers disco#info about ourselves. Jicofo asks for the node of
// our caps as soon as it sees our presence, and holds its offer until then.
func (s *Session) answerDisco(iq *IQ) {
	var q discoQuery
	if err := iq.Decode(&q); err != nil {
		s.refuse(iq, "modify", "bad-request")
		return
	}
	switch q.Node {
	case "", s.caps.Node, s.caps.Node + "#" + s.caps.Ver:
		s.result(iq, newDiscoQuery(s.o.Disco, q.Node))
	default:
		s.refuse(iq, "cancel", "item-not-found")
	}
}
