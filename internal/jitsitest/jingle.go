package jitsitest

import (
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"strings"
)

// candidate is an ICE candidate (XEP-0176 §5.3).
type candidate struct {
	Component  int    `xml:"component,attr"`
	Foundation string `xml:"foundation,attr"`
	IP         string `xml:"ip,attr"`
	Port       int    `xml:"port,attr"`
	Priority   uint32 `xml:"priority,attr"`
	Protocol   string `xml:"protocol,attr"`
	Type       string `xml:"type,attr"`
}

type source struct {
	SSRC string `xml:"ssrc,attr"`
	Name string `xml:"name,attr"`
	Info struct {
		Owner string `xml:"owner,attr"`
	} `xml:"ssrc-info"`
}

// jingle is what a browser reads of a Jingle action (XEP-0166, 0167, 0176, 0320).
type jingle struct {
	Action    string `xml:"action,attr"`
	SID       string `xml:"sid,attr"`
	Initiator string `xml:"initiator,attr"`
	Contents  []struct {
		Name        string `xml:"name,attr"`
		Description struct {
			Media    string `xml:"media,attr"`
			Payloads []struct {
				ID   byte   `xml:"id,attr"`
				Name string `xml:"name,attr"`
			} `xml:"payload-type"`
			Extensions []struct {
				ID  byte   `xml:"id,attr"`
				URI string `xml:"uri,attr"`
			} `xml:"rtp-hdrext"`
			Sources []source `xml:"source"`
		} `xml:"description"`
		Transport struct {
			Ufrag       string `xml:"ufrag,attr"`
			Pwd         string `xml:"pwd,attr"`
			Fingerprint struct {
				Hash  string `xml:"hash,attr"`
				Setup string `xml:"setup,attr"`
				Value string `xml:",chardata"`
			} `xml:"fingerprint"`
			Candidates []candidate `xml:"candidate"`
		} `xml:"transport"`
	} `xml:"content"`
	BridgeSession struct {
		ID string `xml:"id,attr"`
	} `xml:"bridge-session"`
	JSON   string `xml:"json-message"`
	Reason struct {
		Text string `xml:"text"`
	} `xml:"reason"`
}

func parseJingle(iq string) (jingle, error) {
	var v struct {
		Jingle jingle `xml:"urn:xmpp:jingle:1 jingle"`
	}
	err := xml.Unmarshal([]byte(iq), &v)
	return v.Jingle, err
}

// audio are the audio sources by SSRC, with their owners.
func (j jingle) audio() (map[uint32]string, error) {
	out := map[uint32]string{}
	for _, c := range j.Contents {
		if c.Description.Media != "audio" {
			continue
		}
		for _, s := range c.Description.Sources {
			var n uint32
			if _, err := fmt.Sscanf(s.SSRC, "%d", &n); err != nil {
				return nil, fmt.Errorf("ssrc %q: %w", s.SSRC, err)
			}
			out[n] = strings.ToLower(s.Info.Owner)
		}
	}
	if j.JSON == "" {
		return out, nil
	}
	// Jitsi's compact form: owner to [video, video groups, audio, audio groups]
	var v struct {
		Sources map[string][]json.RawMessage `json:"sources"`
	}
	if err := json.Unmarshal([]byte(j.JSON), &v); err != nil {
		return nil, err
	}
	for owner, lists := range v.Sources {
		if len(lists) < 3 {
			continue
		}
		var audio []struct {
			S uint32 `json:"s"`
		}
		if err := json.Unmarshal(lists[2], &audio); err != nil {
			return nil, err
		}
		for _, a := range audio {
			out[a.S] = strings.ToLower(owner)
		}
	}
	return out, nil
}

// offer picks what the media needs.
func (j jingle) offer() (offer, error) {
	o := offer{sid: j.SID, initiator: j.Initiator, bridgeSession: j.BridgeSession.ID}
	for _, c := range j.Contents {
		if c.Description.Media == "audio" {
			for _, p := range c.Description.Payloads {
				if strings.EqualFold(p.Name, "opus") && o.pt == 0 {
					o.pt = p.ID
				}
				if strings.EqualFold(p.Name, "telephone-event") {
					o.eventPT = p.ID
				}
			}
			for _, x := range c.Description.Extensions {
				if x.URI == "urn:ietf:params:rtp-hdrext:ssrc-audio-level" {
					o.levelID = x.ID
				}
			}
		}
		if t := c.Transport; o.ufrag == "" && t.Ufrag != "" { // BUNDLE: the first one is everybody's
			o.ufrag, o.pwd, o.fingerprint, o.candidates = t.Ufrag, t.Pwd, strings.TrimSpace(t.Fingerprint.Value), t.Candidates
		}
	}
	if o.pt == 0 || o.ufrag == "" || o.pwd == "" || o.fingerprint == "" {
		return o, errors.New("offer without opus or transport")
	}
	return o, nil
}

// acceptance is a session-accept or transport-accept.
func (l *leg) acceptance(action, responder string, withSource bool) (string, error) {
	ufrag, pwd, err := l.agent.GetLocalUserCredentials()
	if err != nil {
		return "", err
	}
	locals, err := l.agent.GetLocalCandidates()
	if err != nil {
		return "", err
	}
	var cands, src, ext strings.Builder
	for i, c := range locals {
		fmt.Fprintf(&cands, "<candidate component='1' foundation='%s' generation='0' id='c%d' ip='%s' network='0' port='%d' priority='%d' protocol='udp' type='host'/>",
			c.Foundation(), i, c.Address(), c.Port(), c.Priority())
	}
	if withSource {
		fmt.Fprintf(&src, "<source xmlns='urn:xmpp:jingle:apps:rtp:ssma:0' ssrc='%d' name='%s-a0'><parameter name='msid' value='%s-audio-0-1 a%d'/></source>",
			l.ssrc, l.b.nick, l.b.nick, l.ssrc)
	}
	if l.o.levelID != 0 {
		fmt.Fprintf(&ext, "<rtp-hdrext xmlns='urn:xmpp:jingle:apps:rtp:rtp-hdrext:0' id='%d' uri='urn:ietf:params:rtp-hdrext:ssrc-audio-level'/>", l.o.levelID)
	}
	return fmt.Sprintf("<jingle xmlns='urn:xmpp:jingle:1' action='%s' sid='%s' initiator='%s' responder='%s'>"+
		"<content creator='responder' name='audio' senders='both'><description xmlns='urn:xmpp:jingle:apps:rtp:1' media='audio'>"+
		"<payload-type id='%d' name='opus' clockrate='48000' channels='2'/>%s%s<rtcp-mux/></description>"+
		"<transport xmlns='urn:xmpp:jingle:transports:ice-udp:1' ufrag='%s' pwd='%s'><rtcp-mux/>"+
		"<fingerprint xmlns='urn:xmpp:jingle:apps:dtls:0' hash='sha-256' setup='active'>%s</fingerprint>%s</transport></content>"+
		"<group xmlns='urn:xmpp:jingle:apps:grouping:0' semantics='BUNDLE'><content name='audio'/></group></jingle>",
		action, l.o.sid, l.o.initiator, responder, l.o.pt, src.String(), ext.String(), ufrag, pwd, fingerprint(l.cert.Certificate[0]), cands.String()), nil
}
