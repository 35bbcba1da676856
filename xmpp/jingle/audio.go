package jingle

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
)

// URIAudioLevel is the client-to-mixer audio level extension (RFC 6464).
const URIAudioLevel = "urn:ietf:params:rtp-hdrext:ssrc-audio-level"

// telephoneEvent are keys that participants press (RFC 4733).
const telephoneEvent = "telephone-event"

// Why an offer cannot be taken.
var (
	ErrNoAudio     = errors.New("jingle: offer has no audio")
	ErrNoOpus      = errors.New("jingle: offer has no Opus")
	ErrNoTransport = errors.New("jingle: offer has no usable transport")
)

// AudioOffer picks what an audio client needs from a session-initiate or
// transport-replace. Payload types and extension ids are the offered ones.
func AudioOffer(j *Jingle) (Offer, error) {
	o := Offer{Action: j.Action, SID: j.SID, Initiator: j.Initiator,
		BridgeSession: j.BridgeSession.ID, Region: j.BridgeSession.Region}
	i := slices.IndexFunc(j.Contents, func(c Content) bool { return c.Description != nil && c.Description.Media == "audio" })
	if i < 0 {
		return o, ErrNoAudio
	}
	audio := &j.Contents[i]
	o.Content = audio.Name
	p := slices.IndexFunc(audio.Description.Payloads, func(p PayloadType) bool {
		return strings.EqualFold(p.Name, "opus") && p.ClockRate == 48000
	})
	if p < 0 {
		return o, ErrNoOpus
	}
	opus := audio.Description.Payloads[p]
	o.OpusPT, o.OpusParams, o.opusChannels = opus.ID, opus.Params, opus.Channels
	for _, p := range audio.Description.Payloads {
		if strings.EqualFold(p.Name, telephoneEvent) && p.ClockRate >= 8000 && p.ClockRate <= 48000 {
			o.EventPT, o.EventRate = p.ID, p.ClockRate
			break
		}
	}
	for _, x := range audio.Description.HdrExts {
		if x.URI == URIAudioLevel {
			o.AudioLevelID = x.ID
			break
		}
	}
	t := audio.Transport
	if t == nil { // bundled: any content's transport is everyone's
		for _, c := range j.Contents {
			if c.Transport != nil {
				t = c.Transport
				break
			}
		}
	}
	if t == nil || t.Ufrag == "" || t.Pwd == "" || t.Fingerprint.Value == "" {
		return o, ErrNoTransport
	}
	o.Ufrag, o.Pwd, o.Fingerprint, o.WebSockets = t.Ufrag, t.Pwd, t.Fingerprint, t.WebSockets
	for _, c := range t.Candidates {
		if _, err := netip.ParseAddr(c.IP); err == nil && c.Component == 1 && c.Protocol == "udp" {
			o.Candidates = append(o.Candidates, c)
		}
	}
	for _, s := range j.Sources {
		if !s.Video {
			o.Sources = append(o.Sources, s)
		}
	}
	o.StartMuted = j.StartMuted != nil && j.StartMuted.Audio
	for n, c := range j.Contents {
		if n != i && c.Description != nil && c.Description.Media == "video" {
			o.others = append(o.others, Content{Creator: c.Creator, Name: c.Name, Senders: "none",
				Description: &Description{Media: c.Description.Media, RTCPMux: true}})
		}
	}
	return o, nil
}

// Accept answers an offer: session-accept with our source, or
// transport-accept without it, since Jicofo kept it then and would refuse its
// SSRC as used. DTLS is ours to begin, unless Answer.Setup says otherwise. A video content, which
// is offered by mistake only, is taken with nothing to flow in it.
func Accept(o Offer, a Answer) *Jingle {
	if a.Action == "" {
		a.Action = SessionAccept
	}
	if a.Setup == "" {
		a.Setup = "active"
	}
	t := &Transport{Ufrag: a.Ufrag, Pwd: a.Pwd, RTCPMux: true, Candidates: a.Candidates,
		Fingerprint: Fingerprint{Hash: a.FingerprintHash, Value: a.FingerprintValue, Setup: a.Setup}}
	channels := o.opusChannels
	if channels == 0 {
		channels = 2 // RFC 7587 §4.1
	}
	d := &Description{Media: "audio", RTCPMux: true,
		Payloads: []PayloadType{{ID: o.OpusPT, Name: "opus", ClockRate: 48000, Channels: channels, Params: o.OpusParams}}}
	if o.EventPT != 0 {
		d.Payloads = append(d.Payloads, PayloadType{ID: o.EventPT, Name: telephoneEvent, ClockRate: o.EventRate})
	}
	if o.AudioLevelID > 0 {
		d.HdrExts = []HdrExt{{ID: o.AudioLevelID, URI: URIAudioLevel}}
	}
	if a.Action == SessionAccept {
		d.Sources = []Source{{SSRC: a.SSRC, Name: a.SourceName, MSID: a.MSID}}
	}
	j := &Jingle{Action: a.Action, SID: o.SID, Initiator: o.Initiator, Responder: a.Responder,
		Contents: []Content{{Creator: "initiator", Name: o.Content, Senders: "both", Description: d, Transport: t}},
		Group:    []string{o.Content}}
	for _, c := range o.others {
		c.Transport = t
		j.Contents = append(j.Contents, c)
		j.Group = append(j.Group, c.Name)
	}
	return j
}

// Terminate ends a session. With restart, Jicofo is asked to invite us anew;
// bridgeSession must then be the id of the current one.
func Terminate(sid, initiator, condition, text, bridgeSession string, restart bool) *Jingle {
	j := &Jingle{Action: SessionTerminate, SID: sid, Initiator: initiator, Reason: Reason{condition, text}}
	if bridgeSession != "" || restart {
		j.BridgeSession = BridgeSession{ID: bridgeSession, Restart: restart}
	}
	return j
}

// TransportInformation tells candidates or, with an ICE generation, new
// credentials for one content (XEP-0176 §5.6).
func TransportInformation(sid, initiator, content string, t Transport) *Jingle {
	return &Jingle{Action: TransportInfo, SID: sid, Initiator: initiator,
		Contents: []Content{{Creator: "initiator", Name: content, Transport: &t}}}
}

// ChangeSources adds or removes audio sources of ours: action is SourceAdd or
// SourceRemove.
func ChangeSources(action, sid, initiator, content string, sources ...Source) *Jingle {
	return &Jingle{Action: action, SID: sid, Initiator: initiator,
		Contents: []Content{{Creator: "initiator", Name: content,
			Description: &Description{Media: "audio", Sources: sources}}}}
}
