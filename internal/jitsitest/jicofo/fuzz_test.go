package jicofo

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"brewline/internal/jitsitest/jvb"
)

// FuzzStanza feeds a focus that has a session with anything a server may
// route to it.
func FuzzStanza(f *testing.F) {
	files, err := filepath.Glob("testdata/*.xml")
	if err != nil {
		f.Fatal(err)
	}
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(b))
	}
	f.Add(`<presence from='room@conference.meet.example/new'><x xmlns='http://jabber.org/protocol/muc#user'><item jid='a@b/c'/></x></presence>`)
	f.Add(`<message from='avmoderation.meet.example'><json-message xmlns='http://jitsi.org/jitmeet'>{"type":"av_moderation","room":"room@conference.meet.example","enabled":true,"mediaType":"audio"}</json-message></message>`)
	bridge, err := jvb.Start(jvb.Options{})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = bridge.Stop() })
	f.Fuzz(func(t *testing.T, text string) {
		e, err := parseElement(strings.NewReader(text))
		if err != nil {
			return
		}
		if _, err := parseElement(strings.NewReader(e.String())); err != nil {
			t.Errorf("%v after writing %s", err, e)
		}
		w := newWired(t, Options{Bridges: []*jvb.Bridge{bridge}, Brewery: testBrewery})
		c := w.room()
		p := w.member(c, "gw", featureAudio)
		w.member(c, "other", featureAudio)
		w.mu.Lock()
		w.inviteAll(c)
		sid := p.session.sid
		w.joinBrewery()
		w.mu.Unlock()
		w.get(e)
		// The same again from the member, in its session.
		e.Attrs = append([]attr{{"from", c.occupant("gw")}, {"to", c.focusJID()}}, e.Attrs...)
		for _, k := range e.Kids {
			for i, a := range k.Attrs {
				if a.Name == "sid" {
					k.Attrs[i].Value = sid
				}
			}
		}
		w.get(e)
		w.mu.Lock()
		w.forget(true)
		w.mu.Unlock()
	})
}
