package xmpp

import (
	"encoding/json"
	"encoding/xml"
	"maps"
	"slices"
	"strconv"
	"time"
)

// OwnPresence is everything our presence in a room says; zero fields say
// nothing. It is sent whole on every change.
type OwnPresence struct {
	DisplayName string
	Features    []string // as web clients look for them: PresenceFeatures
	AudioMuted  bool     // told also when false, but not in a brewery
	Status      string   // progress of the call, as Jigasi words it
	StatsID     string
	Region      string
	Version     string
	Initiator   []Header          // headers of the call that brought us
	SourceName  string            // "<nick>-a0": our source in SourceInfo
	RaisedHand  time.Time         // since when our hand is up
	Stats       map[string]string // colibri statistics, in a brewery
}

func (p OwnPresence) clone() OwnPresence {
	p.Features = slices.Clone(p.Features)
	p.Initiator = slices.Clone(p.Initiator)
	p.Stats = maps.Clone(p.Stats)
	return p
}

type namedValue struct {
	Name  string `xml:"name,attr"`
	Value string `xml:"value,attr"`
}

type rayoHeader struct {
	XMLName xml.Name `xml:"urn:xmpp:rayo:1 header"`
	Name    string   `xml:"name,attr"`
	Value   string   `xml:"value,attr"`
}

type featuresWire struct {
	XMLName  xml.Name     `xml:"features"`
	Features []featureVar `xml:"feature"`
}

type featureVar struct {
	Var string `xml:"var,attr"`
}

type joinX struct {
	XMLName  xml.Name `xml:"http://jabber.org/protocol/muc x"`
	Password string   `xml:"password,omitempty"`
}

type textElement struct {
	XMLName xml.Name
	Text    string `xml:",chardata"`
}

type ownPresenceWire struct {
	XMLName    xml.Name     `xml:"jabber:client presence"`
	To         JID          `xml:"to,attr"`
	Status     string       `xml:"status,omitempty"`
	Priority   int          `xml:"priority"`
	Join       *joinX       // first presence only
	Nick       *textElement // XEP-0172
	Version    *namedValue  `xml:"stat"`
	Initiator  *initiatorWire
	Features   *featuresWire
	AudioMuted *bool  `xml:"audiomuted"`
	SourceInfo string `xml:"SourceInfo,omitempty"`
	StatsID    string `xml:"stats-id,omitempty"`
	RegionText string `xml:"jitsi_participant_region,omitempty"`
	Region     *regionWire
	RaisedHand string `xml:"jitsi_participant_raisedHand,omitempty"`
	Stats      *statsWire
	Caps       capsWire
}

type initiatorWire struct {
	XMLName xml.Name `xml:"http://jitsi.org/protocol/jigasi initiator"`
	Headers []rayoHeader
}

type regionWire struct {
	XMLName xml.Name `xml:"http://jitsi.org/jitsi-meet region"`
	ID      string   `xml:"id,attr"`
}

type statsWire struct {
	XMLName xml.Name     `xml:"http://jitsi.org/protocol/colibri stats"`
	Stats   []namedValue `xml:"stat"`
}

type capsWire struct {
	XMLName xml.Name `xml:"http://jabber.org/protocol/caps c"`
	Caps
}

// wire is the presence to a room or lobby. join is set in the first one only:
// repeated, it would make the room send everything again.
func (p OwnPresence) wire(to JID, caps Caps, join *joinX) *ownPresenceWire {
	w := &ownPresenceWire{To: to, Status: p.Status, Join: join,
		StatsID: p.StatsID, RegionText: p.Region, Caps: capsWire{Caps: caps}}
	if p.DisplayName != "" {
		w.Nick = &textElement{xml.Name{Space: nsNick, Local: "nick"}, p.DisplayName}
	}
	if p.Version != "" {
		w.Version = &namedValue{"version", p.Version}
	}
	if len(p.Initiator) > 0 {
		w.Initiator = &initiatorWire{}
		for _, h := range p.Initiator {
			w.Initiator.Headers = append(w.Initiator.Headers, rayoHeader{Name: h.Name, Value: h.Value})
		}
	}
	if len(p.Features) > 0 {
		w.Features = &featuresWire{}
		for _, f := range p.Features {
			w.Features.Features = append(w.Features.Features, featureVar{f})
		}
	}
	if p.SourceName != "" {
		type source struct {
			Muted bool `json:"muted"`
		}
		b, _ := json.Marshal(map[string]source{p.SourceName: {p.AudioMuted}})
		w.SourceInfo = string(b)
	}
	if p.Region != "" {
		w.Region = &regionWire{ID: p.Region}
	}
	if !p.RaisedHand.IsZero() {
		w.RaisedHand = strconv.FormatInt(p.RaisedHand.UnixMilli(), 10)
	}
	if p.Stats != nil {
		w.Stats = &statsWire{}
		for _, name := range slices.Sorted(maps.Keys(p.Stats)) {
			w.Stats.Stats = append(w.Stats.Stats, namedValue{name, p.Stats[name]})
		}
	}
	if p.Stats == nil || p.AudioMuted {
		w.AudioMuted = &p.AudioMuted
	}
	return w
}
