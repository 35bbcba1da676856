package realstack

import (
	"fmt"
	"testing"

	"brewline/internal/jitsitest"
	"brewline/internal/siptest"
)

// Said in a room after it has moved.
const movedTone = 1900

// TestShardDies kills a Prosody under a call. The room comes to life again on
// the other shard, where HAProxy sends the web users, and the phone is taken
// there. The other room notices nothing. When the Prosody is back it serves
// again.
func TestShardDies(t *testing.T) {
	inLayouts(t, func(t *testing.T, l layout) {
		o := &worldOptions{header: true, rooms: []string{"standup"}}
		w := build(t, l, o)
		places := o.places["standup"]
		var there []*jitsitest.Browser
		var calls []*siptest.Call
		for i, p := range places {
			there = append(there, w.browser(p, theirs[i]))
			calls = append(calls, w.phone(p.name, ours[i]))
		}
		hear := func(i int) {
			t.Helper()
			w.hear("the phone", calls[i], theirs[i])
			w.hear("the participant", there[i], ours[i])
		}
		hear(0)
		hear(1)

		dead, d := places[0].shard, places[0].shard.dep
		mark := w.gw.mark()
		dead.prosody.Kill()
		w.says(mark, "shard down", "shard", dead.name)
		w.await("HAProxy sends web users elsewhere", func() bool {
			at, err := d.balancer.shard(w.ctx, places[0].room)
			return err == nil && at != dead.header
		})
		bob := w.join(d, places[0].room, movedTone)
		w.hear("the phone, on the other shard,", calls[0], movedTone)
		w.hear("the participant, on the other shard,", bob, ours[0])
		hear(1)

		mark = w.gw.mark()
		dead.prosody.Restart()
		w.says(mark, "shard up", "shard", dead.name)
		w.await("Jicofo is back", func() bool { return w.focusAnswers(dead) })
		back := place{shard: dead, room: "back", name: "back@conference." + d.domain}
		carol := w.joinAt(d, dead.prosody.BOSHURL(), back.room, theirs[0])
		c := w.phone(back.name, ours[0])
		w.says(mark, "room located", "room", back.room, "how", "asked", "shard", dead.name)
		w.hear("the phone, on the shard that is back,", c, theirs[0])
		w.hear("the participant, on the shard that is back,", carol, ours[0])

		for _, c := range append(calls, c) {
			w.hangup(c)
		}
		w.never("the phone whose room moved", calls[0].Heard(), calls[0].Rate(), theirs[1], ours[1])
		w.never("the phone in the other room", calls[1].Heard(), calls[1].Rate(), theirs[0], ours[0], movedTone)
		w.never("the participant of the other room", there[1].Heard(), 48000, theirs[0], ours[0], movedTone)
		w.never("the participant on the other shard", bob.Heard(), 48000, theirs[1], ours[1])
		w.await("no ports in use", func() bool { n, err := w.gw.metric(w.ctx, "brewline_media_ports_in_use"); return err == nil && n == 0 })
	})
}

// TestBalancerWithoutHeader has an HAProxy that does not say which shard it
// chose: new rooms are opened through it all the same, and the gateway finds
// out where they came to be.
func TestBalancerWithoutHeader(t *testing.T) {
	inLayouts(t, func(t *testing.T, l layout) {
		w := build(t, l, &worldOptions{gateway: `alone_answer = "0s"`})
		for _, d := range w.deps {
			// Two rooms that are on different shards, each with a call.
			open := map[string]int{}
			var rooms []string
			var there []*jitsitest.Browser
			var calls []*siptest.Call
			for i := 1; len(open) < len(d.shards); i++ {
				room := fmt.Sprintf("new%d", i)
				mark, n := w.gw.mark(), len(open)
				c := w.phone(room+"@conference."+d.domain, ours[n])
				at := w.says(mark, "the balancer chose", "room", room).str("shard")
				if _, known := open[at]; known {
					w.hangup(c)
					continue
				}
				open[at] = n
				rooms = append(rooms, room)
				there, calls = append(there, w.join(d, room, theirs[n])), append(calls, c)
			}
			for i, c := range calls {
				w.hear("the phone", c, theirs[i])
				w.hear("the participant", there[i], ours[i])
			}
			// A second caller finds what is open.
			for i := range calls {
				mark := w.gw.mark()
				c := w.phone(rooms[i]+"@conference."+d.domain, movedTone)
				at := w.says(mark, "room located", "room", rooms[i], "how", "asked").str("shard")
				if n, ok := open[at]; !ok || n != i {
					t.Errorf("%s was found on %q", rooms[i], at)
				}
				w.hear("the participant", there[i], movedTone)
				w.hangup(c)
			}
			for i, c := range calls {
				w.hangup(c)
				w.never("the participant", there[i].Heard(), 48000, theirs[1-i], ours[1-i])
				w.must(there[i].Close())
			}
		}
	})
}
