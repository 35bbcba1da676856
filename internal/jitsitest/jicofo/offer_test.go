package jicofo

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"brewline/internal/jitsitest/jvb"
)

// shape renders a tree with everything that differs from call to call taken
// out, attributes and unordered siblings sorted.
func shape(e *element, indent string) []string {
	variable := map[string]bool{
		"sid": true, "initiator": true, "ssrc": true, "ufrag": true, "pwd": true, "url": true, "ip": true, "port": true,
		"from": true, "to": true, "id": e.Name == "candidate" || e.Name == "bridge-session" || e.Name == "iq",
	}
	line := indent + "{" + e.Space + "}" + e.Name
	attrs := slices.Clone(e.Attrs)
	slices.SortFunc(attrs, func(a, b attr) int { return strings.Compare(a.Name, b.Name) })
	for _, a := range attrs {
		if variable[a.Name] {
			a.Value = "*"
		}
		line += " " + a.Name + "=" + a.Value
	}
	if e.Name != "fingerprint" && e.Name != "json-message" {
		line += " " + strings.TrimSpace(e.Text)
	}
	var kids [][]string
	for _, k := range e.Kids {
		kids = append(kids, shape(k, indent+"  "))
	}
	slices.SortFunc(kids, slices.Compare)
	lines := []string{line}
	for _, k := range kids {
		lines = append(lines, k...)
	}
	return lines
}

// TestOfferHasTheRecordedShape holds our offers to those of a real Jicofo.
func TestOfferHasTheRecordedShape(t *testing.T) {
	t.Parallel()
	source := func(owner, media string, ssrc uint32) Source {
		s := Source{SSRC: ssrc, Owner: owner, Name: owner + "-a0", MSID: owner + "-audio-0-1 a0"}
		if media == "video" {
			s.Name, s.MSID, s.Video = owner+"-v0", owner+"-video-0-1 v0", true
		}
		return s
	}
	web := []string{featureAudio, featureVideo, featureTCC, featureRTX, featureSCTP}
	for _, tt := range []struct {
		name     string
		features []string
		others   map[string][]Source
	}{
		{"session-initiate-jigasi-features", []string{featureAudio, featureJigasi}, map[string][]Source{
			"50707b25": {source("50707b25", "audio", 1111111), source("50707b25", "video", 2222222)},
			"19f5a4b1": {source("19f5a4b1", "audio", 3333333)},
		}},
		{"session-initiate-web-xml-sources", web, map[string][]Source{
			"50707b25": {source("50707b25", "audio", 1111111), source("50707b25", "video", 2222222)},
			"8acd7d62": {source("8acd7d62", "audio", 5555555)},
			"19f5a4b1": {source("19f5a4b1", "audio", 3333333), source("19f5a4b1", "video", 4444444)},
		}},
		{"session-initiate", append([]string{featureJSON}, web...), nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newWired(t, Options{Bridges: []*jvb.Bridge{startBridge(t)}})
			c := w.room()
			p := w.member(c, "9b544bd8", tt.features...)
			for nick, sources := range tt.others {
				w.member(c, nick, featureAudio).sources = sources
			}
			w.mu.Lock()
			if !w.place(c, p, nil) {
				t.Fatal("no bridge")
			}
			iq := el("jabber:client", "iq").add(w.offer(c, p, "session-initiate"))
			w.mu.Unlock()
			got := parsed(t, iq.String()).Kids[0]
			want := recorded(t, tt.name).Kids[0]
			for _, x := range want.children("content") { // recorded for cameras, which we do not model
				for _, s := range x.child("", "description").children("source") {
					s.Attrs = slices.DeleteFunc(s.Attrs, func(a attr) bool { return a.Name == "videoType" })
				}
			}
			if d := cmp.Diff(shape(want, ""), shape(got, "")); d != "" {
				t.Errorf("recorded (-) and ours (+) differ:\n%s", d)
			}
			if text := want.child("", "json-message"); text != nil {
				ours := got.child("", "json-message")
				for _, m := range []*element{text, ours} {
					if s, err := parseCompact(m.Text, "x"); err != nil || len(s) != 2 {
						t.Errorf("sources %v, %v in %s", s, err, m.Text)
					}
				}
			}
		})
	}
}

func TestOfferNumbers(t *testing.T) {
	t.Parallel()
	b := startBridge(t)
	w := newWired(t, Options{
		Bridges: []*jvb.Bridge{b}, OpusPT: 109, AudioLevelID: 7, TelephoneEventPT: -1, MidID: -1, StartMuted: true,
	})
	c := w.room()
	p := w.member(c, "gw", featureAudio, featureJSON, featureRewrite)
	w.member(c, "other", featureAudio).sources = []Source{{SSRC: 5, Owner: "other", Name: "other-a0"}}
	w.mu.Lock()
	w.place(c, p, nil)
	x := w.offer(c, p, "session-initiate")
	w.mu.Unlock()
	d := x.child("", "content").child("", "description")
	if n := len(d.children("payload-type")); n != 1 || d.child("", "payload-type").attr("id") != "109" {
		t.Errorf("payload types in %s", d)
	}
	if n := len(d.children("rtp-hdrext")); n != 1 || d.child("", "rtp-hdrext").attr("id") != "7" {
		t.Errorf("extensions in %s", d)
	}
	if m := x.child(nsStartMuted, "startmuted"); m.attr("audio") != "true" {
		t.Errorf("not start-muted: %s", x)
	}
	if text := x.child("", "json-message").Text; strings.Contains(text, "other") {
		t.Errorf("sources signalled in spite of ssrc-rewriting: %s", text)
	}
}

func TestCapsHash(t *testing.T) {
	t.Parallel()
	// XEP-0115 §5.2 and §5.3, and the real Jigasi's.
	simple := `<query xmlns='http://jabber.org/protocol/disco#info'>
		<identity category='client' name='Exodus 0.9.1' type='pc'/>
		<feature var='http://jabber.org/protocol/caps'/><feature var='http://jabber.org/protocol/disco#info'/>
		<feature var='http://jabber.org/protocol/disco#items'/><feature var='http://jabber.org/protocol/muc'/></query>`
	if got := capsHash(parsed(t, simple)); got != "QgayPKawpkPSDYmwT/WM94uAlu0=" {
		t.Errorf("got %s", got)
	}
	if got := capsHash(recorded(t, "jigasi-disco").Kids[0]); got != "mJ+EpYV2ZsVH4q75qvmGzrpRV6g=" {
		t.Errorf("got %s", got)
	}
}
