package jitsitest

import (
	"encoding/binary"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"brewline/internal/tone"
)

// What the real Jicofo offers is understood, with sources in XML and in JSON.
func TestOffer(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		file    string
		sources map[uint32]string
		pt, ext byte
	}{
		{"session-initiate-jigasi-features.xml", map[uint32]string{524916201: "jvb", 1111111: "50707b25", 3333333: "19f5a4b1"}, 111, 1},
		{"session-initiate.xml", map[uint32]string{524916201: "jvb"}, 111, 1},
		{"session-initiate-web-xml-sources.xml", map[uint32]string{524916201: "jvb", 1111111: "50707b25", 3333333: "19f5a4b1", 5555555: "8acd7d62"}, 111, 1},
	} {
		data, err := os.ReadFile("testdata/" + tt.file)
		if err != nil {
			t.Fatal(err)
		}
		j, err := parseJingle(string(data))
		if err != nil {
			t.Fatal(err)
		}
		o, err := j.offer()
		if err != nil {
			t.Fatalf("%s: %v", tt.file, err)
		}
		if o.pt != tt.pt || o.levelID != tt.ext || o.sid == "" || o.initiator != "focus@auth.meet.shard1.test/focus" || o.bridgeSession == "" {
			t.Errorf("%s: %+v", tt.file, o)
		}
		if len(o.candidates) != 1 || o.candidates[0].IP != "127.0.0.1" || o.candidates[0].Port != 10000 || strings.Count(o.fingerprint, ":") != 31 {
			t.Errorf("%s: transport %+v", tt.file, o)
		}
		got, err := j.audio()
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(tt.sources, got); d != "" {
			t.Errorf("%s (-want +got)\n%s", tt.file, d)
		}
	}
}

func FuzzJingle(f *testing.F) {
	f.Add("<iq><jingle xmlns='urn:xmpp:jingle:1' action='session-initiate' sid='x'><content name='audio'/></jingle></iq>")
	f.Add(`<iq><jingle xmlns='urn:xmpp:jingle:1' action='source-add'><json-message>{"sources":{"a":[[],[],[{"s":1}]]}}</json-message></jingle></iq>`)
	f.Fuzz(func(t *testing.T, s string) {
		j, err := parseJingle(s)
		if err != nil {
			return
		}
		_, _ = j.audio()
		if o, err := j.offer(); err == nil && (o.pt == 0 || o.ufrag == "") {
			t.Errorf("offer %+v", o)
		}
	})
}

// packets makes RTP packets of a second of a tone.
func packets(t *testing.T, ssrc uint32, freq int) [][]byte {
	t.Helper()
	s, err := toneSound(freq)
	if err != nil {
		t.Fatal(err)
	}
	var out [][]byte
	for i, f := range s {
		p := []byte{0x80, 111}
		p = binary.BigEndian.AppendUint16(p, uint16(65530+i)) // wraps
		p = binary.BigEndian.AppendUint32(p, uint32(1<<32-4*frameSize)+uint32(i*frameSize))
		p = binary.BigEndian.AppendUint32(p, ssrc)
		out = append(out, append(p, f.opus...))
	}
	return out
}

func TestRecorder(t *testing.T) {
	t.Parallel()
	r := newRecorder(false, time.Minute)
	start := time.Now()
	a, b := packets(t, 1, 440), packets(t, 2, 1000)
	r.own(1, "ann")
	for i, p := range a {
		now := start.Add(time.Duration(i) * frameTime)
		if i%10 != 5 { // one in ten is lost
			r.audio(p, now)
		}
		if i >= 25 { // begins half a second later, and stops for 200 ms
			if i < 35 || i >= 45 {
				r.audio(b[i-25], now)
			}
		}
	}
	r.audio(a[3], start) // late
	r.audio([]byte{0x80}, start)
	mixed := r.mix(everybody)
	if n := len(mixed); n != rate {
		t.Errorf("%d samples, want %d", n, rate)
	}
	if !r.since().Equal(start) {
		t.Errorf("begins at %v", r.since().Sub(start))
	}
	ann := r.mix(ownedBy("Ann"))
	if !tone.Present(ann, rate, 440) || tone.Level(ann, rate, 440) < 0.8 {
		t.Errorf("share of 440 Hz is %.2f", tone.Level(ann, rate, 440))
	}
	other := r.mix(func(s uint32, _ string) bool { return s == 2 })
	if len(other) != rate/2 {
		t.Errorf("%d samples of the other", len(other))
	}
	if gap := other[13*frameSize : 19*frameSize]; tone.RMS(gap) > -40 {
		t.Errorf("the pause is %.0f dBFS loud", tone.RMS(gap))
	}
	if !tone.Present(other[:10*frameSize], rate, 1000) || tone.Present(mixed[:24*frameSize], rate, 1000) {
		t.Error("the other is not where it belongs")
	}
	if r.bad != 1 || r.tracks[1].lost != 5 || r.tracks[1].late != 1 {
		t.Errorf("bad %d, lost %d, late %d", r.bad, r.tracks[1].lost, r.tracks[1].late)
	}
	// only what is new counts
	if marks := r.ends(); r.hears(440, marks, everybody) || !r.hears(440, nil, everybody) || r.hears(700, nil, everybody) {
		t.Error("hears what it must not")
	}
	// only so much is kept
	k := newRecorder(false, 200*time.Millisecond)
	for i, p := range a {
		k.audio(p, start.Add(time.Duration(i)*frameTime))
	}
	if n := len(k.mix(everybody)); n < rate/5 || n > rate*3/10 {
		t.Errorf("kept %d samples", n)
	}
	if got := k.ends()[1]; got != rate {
		t.Errorf("ends at %d", got)
	}
}

func FuzzRecorder(f *testing.F) {
	f.Add([]byte{0x80, 111, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0xfc, 0xff, 0xfe})
	f.Add([]byte{0xb1, 111, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 1, 2, 3, 4, 0xbe, 0xde, 0, 1, 0x10, 0x7f, 0, 0, 1, 2})
	f.Fuzz(func(t *testing.T, p []byte) {
		r := newRecorder(false, time.Second)
		now := time.Now()
		for range 3 {
			r.audio(p, now)
		}
		if n := len(r.mix(everybody)); n > 20*rate {
			t.Errorf("%d samples of one packet", n)
		}
	})
}
