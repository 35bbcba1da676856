package realstack

import (
	"fmt"
	"testing"
	"time"

	"brewline/internal/needtool"
	"brewline/internal/siptest"
)

// TestRestarts restarts one Prosody ten times under calls, half of the times
// without a word. No phone is hung up on, all are heard again, and nothing is
// left behind.
func TestRestarts(t *testing.T) {
	needtool.NeedLong(t)
	inLayouts(t, func(t *testing.T, l layout) {
		const restarts, phones = 10, 8
		o := &worldOptions{header: true, gateway: `alone_answer = "0s"`, rooms: []string{"standup"}, timeout: 10 * time.Minute}
		w := build(t, l, o)
		type usage struct{ goroutines, files float64 }
		measure := func() (u usage) {
			var err error
			u.goroutines, err = w.gw.metric(w.ctx, "go_goroutines")
			w.must(err)
			u.files, err = w.gw.metric(w.ctx, "process_open_fds")
			w.must(err)
			return u
		}
		p := o.places["standup"][0]
		var before usage
		for round := range 2 { // what is allocated once is there after the first
			alice := w.browser(p, theirs[0])
			c := w.phone(p.name, ours[0])
			w.hear("the phone", c, theirs[0])
			w.hangup(c)
			w.must(alice.Close())
			if round == 0 {
				before = measure()
			}
		}

		var calls []*siptest.Call
		for range phones {
			calls = append(calls, w.phone(p.name, 0))
		}
		for i := range restarts {
			if i%2 == 0 {
				p.shard.prosody.Kill()
			} else {
				p.shard.prosody.Close()
			}
			p.shard.prosody.Restart()
			w.await("Jicofo is back", func() bool { return w.focusAnswers(p.shard) })
			freq := theirs[i%2]
			b := w.join(p.shard.dep, p.room, freq)
			for n, c := range calls {
				w.hear(fmt.Sprintf("phone %d after restart %d", n+1, i+1), c, freq)
			}
			speaker := calls[i%phones]
			speaker.Say(ours[0])
			w.hear(fmt.Sprintf("the participant after restart %d", i+1), b, ours[0])
			speaker.Silence()
			w.must(b.Close())
		}
		for _, c := range calls {
			w.hangup(c)
		}
		w.await("no call and no port left", func() bool {
			calls, err := w.gw.metric(w.ctx, "brewline_calls")
			w.must(err)
			ports, err := w.gw.metric(w.ctx, "brewline_media_ports_in_use")
			w.must(err)
			return calls+ports == 0
		})
		var after usage
		leaked := func() bool {
			after = measure()
			return after.goroutines > before.goroutines+5 || after.files > before.files+5
		}
		for end := time.Now().Add(time.Minute); leaked(); time.Sleep(time.Second) {
			if time.Now().After(end) {
				t.Fatalf("goroutines and open files: %v before, %v after", before, after)
			}
		}
		t.Logf("goroutines and open files: %v before, %v after", before, after)
	})
}
