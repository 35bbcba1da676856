package jicofo

import (
	"strconv"

	"brewline/internal/jitsitest/jvb"
)

const (
	uriAudioLevel = "urn:ietf:params:rtp-hdrext:ssrc-audio-level"
	uriMid        = "urn:ietf:params:rtp-hdrext:sdes:mid"
	uriTCC        = "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01"
	uriAbsTime    = "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time"
	uriDependency = "https://aomediacodec.github.io/av1-rtp-spec/#dependency-descriptor-rtp-header-extension"
)

func (o *Options) levelID() uint8 { return uint8(max(o.AudioLevelID, 0)) }

// offer builds session-initiate or transport-replace for a participant from
// what it can do.
func (j *Jicofo) offer(c *conference, p *participant, action string) *element {
	s := p.session
	sources := []Source{{SSRC: s.bridge.FeedbackSSRC(), Name: "jvb-a0", MSID: "mixedmslabel mixedlabelaudio0", Owner: bridgeOwner}}
	if p.has(featureVideo) {
		sources = append(sources, Source{SSRC: s.bridge.FeedbackSSRC() ^ 0x5a5a5a5a, Name: "jvb-v0", MSID: "mixedmslabel mixedlabelvideo0", Owner: bridgeOwner, Video: true})
	}
	for _, m := range c.members {
		if m == p {
			continue
		}
		for _, x := range m.sources {
			if p.wants(x) {
				sources = append(sources, x)
			}
		}
	}
	asJSON := p.has(featureJSON)
	transport := func(extra *element) *element { return transportElement(s.endpoint, extra) }

	jingle := el(nsJingle, "jingle", "action", action, "sid", s.sid, "initiator", c.focusJID())
	group := el(nsGroup, "group", "semantics", "BUNDLE")
	content := func(name string, description, transport *element) {
		jingle.add(el("", "content", "creator", "initiator", "name", name, "senders", "both").add(description, transport))
		group.add(el("", "content", "name", name))
	}
	if p.has(featureAudio) {
		content("audio", j.audio(p, sources, asJSON), transport(nil))
	}
	if p.has(featureVideo) {
		content("video", j.video(p, sources, asJSON), transport(nil))
	}
	// Jicofo loses this content on its way to clients with XML sources.
	if p.has(featureSCTP) && asJSON {
		content("data", el(nsRTP, "description", "media", "application").add(el("", "rtcp-mux")),
			transport(el(nsSCTP, "sctpmap", "number", "5000", "protocol", "webrtc-datachannel", "streams", "1024")))
	}
	jingle.add(group)
	if j.startMuted || c.moderated || j.o.MaxAudioSenders > 0 && c.audioSenders() >= j.o.MaxAudioSenders {
		jingle.add(el(nsStartMuted, "startmuted", "audio", "true", "video", "false"))
	}
	jingle.add(el(nsFocus, "bridge-session", "id", s.bridgeSession, "region", s.bridge.Region()))
	if asJSON {
		jingle.add(compactMessage(sources))
	}
	return jingle.add(el(nsTelemetry, "traceparent",
		"trace_id", "00000000000000000000000000000000", "parent_id", "0000000000000000", "trace_flags", "00"))
}

func (j *Jicofo) audio(p *participant, sources []Source, asJSON bool) *element {
	o := &j.o
	d := el(nsRTP, "description", "media", "audio", "maxptime", "60")
	opus := payloadType(o.OpusPT, "opus", 48000, 2).add(parameter("minptime", "10"), parameter("useinbandfec", "1"))
	if p.has(featureTCC) {
		opus.add(feedback("transport-cc", ""))
	}
	d.add(opus)
	if p.has(featureRED) {
		d.add(payloadType(112, "red", 48000, 2).add(el("", "parameter", "value", strconv.Itoa(o.OpusPT)+"/"+strconv.Itoa(o.OpusPT))))
	}
	if o.TelephoneEventPT > 0 {
		d.add(payloadType(o.TelephoneEventPT, "telephone-event", 8000, 0))
	}
	d.add(hdrExt(o.AudioLevelID, uriAudioLevel), hdrExt(o.MidID, uriMid))
	if p.has(featureTCC) {
		d.add(hdrExt(5, uriTCC))
	}
	return d.add(tail(sources, false, asJSON)...)
}

// video is what a client that can do video is offered; no test sends any.
func (j *Jicofo) video(p *participant, sources []Source, asJSON bool) *element {
	d := el(nsRTP, "description", "media", "video")
	fb := func(x *element) *element {
		x.add(feedback("ccm", "fir"), feedback("nack", ""), feedback("nack", "pli"))
		if p.has(featureREMB) {
			x.add(feedback("goog-remb", ""))
		}
		if p.has(featureTCC) {
			x.add(feedback("transport-cc", ""))
		}
		return x
	}
	d.add(fb(payloadType(41, "AV1", 90000, 0)), fb(payloadType(100, "VP8", 90000, 0)))
	d.add(fb(payloadType(107, "H264", 90000, 0)).add(
		parameter("profile-level-id", "42e01f;level-asymmetry-allowed=1;packetization-mode=1;")))
	d.add(fb(payloadType(101, "VP9", 90000, 0)))
	if p.has(featureRTX) {
		for _, x := range [][2]int{{42, 41}, {96, 100}, {97, 101}, {99, 107}} {
			rtx := payloadType(x[0], "rtx", 90000, 0).add(parameter("apt", strconv.Itoa(x[1])))
			if x[1] != 107 { // as recorded
				rtx.add(feedback("ccm", "fir"), feedback("nack", ""), feedback("nack", "pli"))
			}
			d.add(rtx)
		}
	}
	d.add(hdrExt(11, uriDependency), hdrExt(j.o.MidID, uriMid), hdrExt(3, uriAbsTime))
	if p.has(featureTCC) {
		d.add(hdrExt(5, uriTCC))
	}
	return d.add(tail(sources, true, asJSON)...)
}

// tail ends a description: flags and, unless they go as JSON, sources.
func tail(sources []Source, video, asJSON bool) []*element {
	kids := []*element{el(nsHdrExt, "extmap-allow-mixed"), el("", "rtcp-mux")}
	for _, s := range sources {
		if s.Video == video && !asJSON {
			kids = append(kids, sourceElement(s))
		}
	}
	return kids
}

func transportElement(e *jvb.Endpoint, extra *element) *element {
	t := el(nsICE, "transport", "ufrag", e.Ufrag, "pwd", e.Pwd).add(
		el(nsColibriWS, "web-socket", "url", e.WebSocket),
		el("", "rtcp-mux"),
		el(nsDTLS, "fingerprint", "hash", e.FingerprintHash, "setup", "actpass", "cryptex", "false", "required", "false").text(e.Fingerprint),
		extra,
	)
	for i, x := range e.Candidates {
		c := el("", "candidate", "component", strconv.Itoa(x.Component), "foundation", x.Foundation, "generation", "0",
			"id", randomID()+strconv.Itoa(i), "ip", x.IP, "network", "0", "port", strconv.Itoa(x.Port),
			"priority", strconv.FormatUint(uint64(x.Priority), 10), "protocol", x.Protocol, "type", x.Type)
		if x.RelAddr != "" {
			c.Attrs = append(c.Attrs, attr{"rel-addr", x.RelAddr}, attr{"rel-port", strconv.Itoa(x.RelPort)})
		}
		t.add(c)
	}
	return t
}

func payloadType(id int, name string, clock, channels int) *element {
	x := el("", "payload-type", "id", strconv.Itoa(id), "name", name, "clockrate", strconv.Itoa(clock))
	if channels > 0 {
		x.Attrs = append(x.Attrs, attr{"channels", strconv.Itoa(channels)})
	}
	return x
}

func parameter(name, value string) *element {
	return el("", "parameter", "name", name, "value", value)
}

func feedback(kind, subtype string) *element {
	return el(nsFeedback, "rtcp-fb", "type", kind, "subtype", subtype)
}

func hdrExt(id int, uri string) *element {
	if id <= 0 {
		return nil
	}
	return el(nsHdrExt, "rtp-hdrext", "id", strconv.Itoa(id), "uri", uri)
}
