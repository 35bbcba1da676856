package jicofo_test

import (
	"context"
	"testing"
	"time"

	"brewline/internal/jitsitest"
	"brewline/internal/jitsitest/jicofo"
	"brewline/internal/jitsitest/jvb"
	"brewline/internal/prosodytest"
)

// TestMediaBehindProsody has two browsers hear each other in a room of a real
// Prosody, with the focus and the bridge of these packages behind it.
func TestMediaBehindProsody(t *testing.T) {
	t.Parallel()
	s := prosodytest.Start(t, prosodytest.Options{RestrictRooms: true, Admins: []string{"focus@focus.meet.test"}})
	b, err := jvb.Start(jvb.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Stop() })
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	// Numbers that nobody may take for granted.
	j, err := jicofo.Start(ctx, jicofo.Options{
		ComponentAddr: s.ComponentAddr(), Domain: s.Domain, Secret: s.ComponentSecret, Bridges: []*jvb.Bridge{b},
		OpusPT: 109, AudioLevelID: 7,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = j.Close() })
	join := func(tone int, json bool) *jitsitest.Browser {
		p, err := jitsitest.JoinBrowser(ctx, jitsitest.BrowserOptions{
			URL: s.BOSHURL(), Domain: s.Domain, MUC: s.MUC, Room: "standup", Tone: tone, JSON: json,
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = p.Close() })
		return p
	}
	low, high := join(440, false), join(1000, true)
	if err := low.Hear(ctx, 1000); err != nil {
		t.Error(err)
	}
	if err := high.Hear(ctx, 440); err != nil {
		t.Error(err)
	}
	r, ok := j.Room("standup")
	if !ok || len(r.Participants) != 2 {
		t.Fatalf("room %+v", r)
	}
	for _, p := range r.Participants {
		if st := p.Endpoint.Stats(); st.WrongPT != 0 || st.Unsignalled != 0 || st.AuthErrors != 0 || st.Profile != jvb.ProfileGCM {
			t.Errorf("%s: %+v", p.Nick, st)
		}
	}
	if len(r.Problems) > 0 {
		t.Error(r.Problems)
	}
}
