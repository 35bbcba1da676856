package realstack

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"brewline/internal/jitsitest"
	"brewline/internal/siptest"
)

// TestCalls has everything that leaves the shards as they are, in one world.
func TestCalls(t *testing.T) {
	inLayouts(t, func(t *testing.T, l layout) {
		o := &worldOptions{header: true, gateway: `alone_answer = "0s"`, rooms: []string{"standup", "retro", "codecs", "lonely", "trio"}}
		w := build(t, l, o)
		t.Run("sipp", func(t *testing.T) {
			t.Parallel()
			w.in(t).sippCalls(o.places["standup"])
		})
		t.Run("sipp with its own media", func(t *testing.T) {
			t.Parallel()
			w.in(t).sippMedia(o.places["retro"])
		})
		t.Run("baresip", func(t *testing.T) {
			t.Parallel()
			w.in(t).baresipCalls(o.places["codecs"])
		})
		t.Run("new rooms", func(t *testing.T) {
			t.Parallel()
			w.in(t).newRooms()
		})
		t.Run("lonely callers", func(t *testing.T) {
			t.Parallel()
			w.in(t).lonelyCallers(o.places["lonely"])
		})
		t.Run("three speakers", func(t *testing.T) {
			t.Parallel()
			w.in(t).threeSpeakers(o.places["trio"])
		})
		t.Run("ambiguous room", func(t *testing.T) {
			t.Parallel()
			if len(w.deps) == 1 {
				t.Skip("the one deployment has every room")
			}
			w.in(t).refused("standup", 404)
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
			o := sippOptions{target: w.gw.sip["udp"], user: "conference", room: p.name, ear: ears[i].port()}
			if network == "tcp" {
				o.target, o.tcp = w.gw.sip["tcp"], true
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

// sippMedia has SIPp say a tone by itself, from several calls at once, and then
// say back what it hears.
func (w *world) sippMedia(places []place) {
	run := func(o sippOptions, hear []int) {
		w.t.Helper()
		var there []*jitsitest.Browser
		var calls []*sipp
		for i, p := range places {
			there = append(there, w.browser(p, theirs[i]))
			o.target, o.user, o.room = w.gw.sip["udp"], "conference", p.name
			if o.tone != 0 {
				o.tone = ours[i]
			}
			calls = append(calls, startSIPp(w.t, w.ctx, o))
		}
		for i, p := range places {
			w.must(calls[i].answered(w.ctx))
			w.await("all callers are in "+p.name, func() bool { return len(there[i].Others()) == o.calls })
			w.hear("the participant of "+p.name, there[i], hear[i])
		}
		for i := range places {
			w.must(calls[i].hangup(w.ctx))
			w.never("the participant", there[i].Heard(), 48000, theirs[1-i], ours[1-i])
			w.await("the callers have left", func() bool { return len(there[i].Others()) == 0 })
			w.must(there[i].Close())
		}
	}
	run(sippOptions{calls: 3, tone: 1}, ours)
	run(sippOptions{calls: 1}, theirs)
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// baresipCalls calls both places at once with every codec, over UDP and TCP,
// presses keys, is sent keys, and holds and resumes.
func (w *world) baresipCalls(places []place) {
	var there []*jitsitest.Browser
	for i, p := range places {
		there = append(there, w.browser(p, theirs[i]))
	}
	for n, codec := range []string{"pcmu", "pcma", "g722/16000/1", "opus/48000/2"} {
		var phones []*baresip
		for i, p := range places {
			b := startBaresip(w.t, w.ctx, baresipOptions{codec: codec, tone: ours[i]})
			phones = append(phones, b)
			network := []string{"udp", "tcp", "tls"}[(n+i)%3]
			b.call(w.ctx, "sip:"+p.number+"@"+w.gw.sip[network]+";transport="+network)
		}
		for i, b := range phones {
			w.hear("baresip with "+codec, b, theirs[i])
			w.hear("the participant, from "+codec, there[i], ours[i])
			pcm, rate := b.heard()
			w.never("baresip with "+codec, pcm, rate, theirs[1-i], ours[1-i])
			for _, muted := range []bool{true, false} {
				b.press(w.ctx, "*6")
				w.await(fmt.Sprintf("%s is muted: %v", codec, muted), func() bool {
					others := there[i].Others()
					return len(others) == 1 && strings.Contains(there[i].PresenceOf(others[0]), fmt.Sprintf("<audiomuted>%v<", muted))
				})
			}
			w.hear("the participant, unmuted, from "+codec, there[i], ours[i])
			mark := b.mark()
			w.must(there[i].Press("15#*9", 120*time.Millisecond))
			b.receives(w.ctx, mark, "15#*9")
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

// newRooms calls rooms that nobody has opened: they are opened where HAProxy
// will send the web users.
func (w *world) newRooms() {
	for _, d := range w.deps {
		opened := map[string]bool{}
		for i := 1; len(opened) < len(d.shards); i++ {
			room := fmt.Sprintf("new%d", i)
			mark := w.gw.mark()
			c := w.phone(room+"@conference."+d.domain, ours[0])
			at := w.says(mark, "room located", "room", room, "how", "balancer").str("shard")
			opened[at] = true
			alice := w.join(d, room, theirs[0])
			if alice.Shard() != strings.TrimPrefix(at, d.name+"-") {
				w.t.Errorf("%s was opened on %s, web users are on %s", room, at, alice.Shard())
			}
			w.hear("the phone", c, theirs[0])
			w.hear("the participant", alice, ours[0])
			w.hangup(c)
			w.must(alice.Close())
		}
	}
}

// lonelyCallers opens rooms on one shard each by a call, after which a
// participant opens the same room on the other, past HAProxy: the caller is
// taken there.
func (w *world) lonelyCallers(places []place) {
	var calls []*siptest.Call
	var there []*jitsitest.Browser
	for i, p := range places {
		calls = append(calls, w.phone(p.name, ours[i]))
	}
	for i, p := range places {
		d := p.shard.dep
		other := d.shards[0]
		if other == p.shard {
			other = d.shards[1]
		}
		mark := w.gw.mark()
		there = append(there, w.joinAt(d, other.prosody.BOSHURL(), p.room, theirs[i]))
		w.says(mark, "moving the caller to the shard where the others are", "from", p.shard.name, "shard", other.name)
		w.hear("the phone", calls[i], theirs[i])
		w.hear("the participant", there[i], ours[i])
	}
	for i := range places {
		w.hangup(calls[i])
		w.never("the participant", there[i].Heard(), 48000, theirs[1-i], ours[1-i])
		w.must(there[i].Close())
	}
}

// refused calls a room by a name that is not served.
func (w *world) refused(name string, code int) {
	w.t.Helper()
	p, err := siptest.NewPhone(siptest.PhoneOptions{})
	w.must(err)
	defer p.Close()
	_, err = p.Call(w.ctx, siptest.CallOptions{URI: "sip:conference@" + w.gw.sip["udp"], Headers: map[string]string{"X-Room-Name": name}})
	var status *siptest.StatusError
	if !errors.As(err, &status) || status.Code != code {
		w.t.Errorf("a call to %s: %v, not %d", name, err, code)
	}
}

// threeSpeakers has a phone in each place hear one participant, another who
// joins, a third who joins in one place, and those who stay.
func (w *world) threeSpeakers(places []place) {
	tones := [][]int{{440, 700, 1900}, {560, 840, 0}}
	var there [2][]*jitsitest.Browser
	var calls []*siptest.Call
	for i, p := range places {
		there[i] = append(there[i], w.browser(p, tones[i][0]))
		calls = append(calls, w.phone(p.name, ours[i]))
		w.hear("the phone", calls[i], tones[i][0])
	}
	for i, p := range places {
		there[i] = append(there[i], w.browser(p, tones[i][1]))
		w.hearAll("the phone", calls[i], tones[i][:2]...)
	}
	there[0] = append(there[0], w.browser(places[0], tones[0][2]))
	w.hearAll("the phone", calls[0], tones[0]...)
	w.must(there[0][1].Close()) // leaves without a source-remove
	w.await("a participant has left", func() bool { return len(there[0][0].Others()) == 2 })
	w.hearAll("the phone", calls[0], tones[0][0], tones[0][2])
	w.hearAll("the other phone", calls[1], tones[1][:2]...)
	for i := range places {
		for _, b := range there[i] {
			w.never("a participant", b.Heard(), 48000, append(tones[1-i][:2:2], ours[1-i])...)
		}
		w.hangup(calls[i])
		w.never("the phone", calls[i].Heard(), calls[i].Rate(), append(tones[1-i][:2:2], ours...)...)
	}
}

// hearAll fails the test unless the tones are heard together, and nothing else.
func (w *world) hearAll(who string, c *siptest.Call, freqs ...int) {
	w.t.Helper()
	if err := c.HearAll(w.ctx, freqs...); err != nil {
		w.t.Fatalf("%s does not hear %v Hz: %v", who, freqs, err)
	}
}
