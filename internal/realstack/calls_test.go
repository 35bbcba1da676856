package realstack

import (
	"testing"
	"time"

	"brewline/internal/jitsitest"
)

// TestCalls has everything that leaves the shards as they are, in one world.
func TestCalls(t *testing.T) {
	inLayouts(t, func(t *testing.T, l layout) {
		o := &worldOptions{header: true, rooms: []string{"standup", "codecs"}}
		w := build(t, l, o)
		t.Run("sipp", func(t *testing.T) {
			t.Parallel()
			w.in(t).sippCalls(o.places["standup"])
		})
		t.Run("baresip", func(t *testing.T) {
			t.Parallel()
			w.in(t).baresipCalls(o.places["codecs"])
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

// baresipCalls calls both places at once with every codec, over UDP and TCP,
// and holds and resumes.
func (w *world) baresipCalls(places []place) {
	var there []*jitsitest.Browser
	for i, p := range places {
		there = append(there, w.browser(p, theirs[i]))
	}
	for n, codec := range []string{"pcmu", "pcma", "g722", "opus/48000/2"} {
		var phones []*baresip
		for i, p := range places {
			b := startBaresip(w.t, w.ctx, baresipOptions{codec: codec, tone: ours[i]})
			phones = append(phones, b)
			uri := "sip:" + p.number + "@" + w.gw.udp
			if (n+i)%2 == 1 {
				uri = "sip:" + p.number + "@" + w.gw.tcp + ";transport=tcp"
			}
			b.call(w.ctx, uri)
		}
		for i, b := range phones {
			w.hear("baresip with "+codec, b, theirs[i])
			w.hear("the participant, from "+codec, there[i], ours[i])
			pcm, rate := b.heard()
			w.never("baresip with "+codec, pcm, rate, theirs[1-i], ours[1-i])
			b.do("hold")
		}
		for i, b := range phones {
			w.silent("a caller on hold", there[i])
			b.do("resume")
		}
		for i, b := range phones {
			w.hear("the participant, after hold, from "+codec, there[i], ours[i])
			b.echo()
			w.hear("the participant, after hold, from "+codec+" and back,", there[i], theirs[i])
			b.hangup(w.ctx)
			w.await("the caller has left", func() bool { return len(there[i].Others()) == 0 })
		}
	}
	for i, b := range there {
		w.never("the participant", b.Heard(), 48000, theirs[1-i], ours[1-i])
	}
}

// silent awaits half a second in which a participant gets no audio.
func (w *world) silent(who string, b *jitsitest.Browser) {
	w.t.Helper()
	last, since := uint64(0), time.Now()
	w.await(who+" is silent", func() bool {
		n, _ := b.Received()
		if n != last {
			last, since = n, time.Now()
		}
		return time.Since(since) > 500*time.Millisecond
	})
}
