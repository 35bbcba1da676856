package realstack

import (
	"context"
	"fmt"
	"testing"

	"brewline/internal/jitsitest"
)

// TestCalls has everything that leaves the shards as they are, in one world.
func TestCalls(t *testing.T) {
	inLayouts(t, func(t *testing.T, l layout) {
		o := &worldOptions{header: true, rooms: []string{"standup"}}
		w := build(t, l, o)
		t.Run("sipp", func(t *testing.T) {
			t.Parallel()
			w.in(t).sippCalls(o.places["standup"])
		})
	})
}

// tones of the participants and of the phones in the two places.
var (
	theirs = []int{440, 700}
	ours   = []int{1000, 1300}
)

// sippCalls calls both places at once, with media that the test listens to.
func (w *world) sippCalls(places []place) {
	for _, network := range []string{"udp", "tcp"} {
		var there []*jitsitest.Browser
		var ears []*ear
		var calls []*sipp
		for i, p := range places {
			there = append(there, w.browser(p, theirs[i]))
			ears = append(ears, newEar(w.t, ours[i]))
			o := sippOptions{target: w.gw.udp, user: "conference", room: p.name, ear: ears[i].port()}
			if network == "tcp" {
				o.target, o.tcp = w.gw.tcp, true
			}
			calls = append(calls, startSIPp(w.t, w.ctx, o))
		}
		for i, p := range places {
			w.must(calls[i].answered(w.ctx))
			w.hear("sipp in "+p.name, ears[i], theirs[i])
			w.hear("the participant of "+p.name, there[i], ours[i])
		}
		for i := range places {
			w.must(calls[i].hangup(w.ctx))
			w.never("sipp", ears[i].heard(), phoneRate, theirs[1-i], ours[1-i])
			w.never("the participant", there[i].Heard(), 48000, theirs[1-i], ours[1-i])
			w.await("the caller has left", func() bool { return len(there[i].Others()) == 0 })
			w.must(there[i].Close())
		}
	}
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

var _ = context.Background
var _ = fmt.Sprint
