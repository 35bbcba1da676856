package realstack

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"brewline/internal/jitsitest"
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
		p := o.places["standup"][0]
		var before usage
		for round := range 2 { // what is allocated once is there after the first
			alice := w.browser(p, theirs[0])
			c := w.phone(p.name, ours[0])
			w.hear("the phone", c, theirs[0])
			w.hangup(c)
			w.must(alice.Close())
			if round == 0 {
				before = w.usage()
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
		w.nothingLeft(before)
	})
}

// usage is what the gateway's process holds.
type usage struct{ goroutines, files float64 }

func (w *world) usage() (u usage) {
	w.t.Helper()
	var err error
	u.goroutines, err = w.gw.metric(w.ctx, "go_goroutines")
	w.must(err)
	u.files, err = w.gw.metric(w.ctx, "process_open_fds")
	w.must(err)
	return u
}

func (w *world) noCall() bool {
	calls, err := w.gw.metric(w.ctx, "brewline_calls")
	w.must(err)
	return calls == 0
}

// nothingLeft awaits that the gateway has no call and holds no more than
// before, but for a second connection (two goroutines, one file) that each of
// at most four control sessions may have open now and then.
func (w *world) nothingLeft(before usage) {
	w.t.Helper()
	w.await("no call left", w.noCall)
	w.await("no port left", func() bool {
		ports, err := w.gw.metric(w.ctx, "brewline_media_ports_in_use")
		w.must(err)
		return ports == 0
	})
	var after usage
	leaked := func() bool {
		after = w.usage()
		return after.goroutines > before.goroutines+9 || after.files > before.files+5
	}
	for end := time.Now().Add(time.Minute); leaked(); time.Sleep(time.Second) {
		if time.Now().After(end) {
			w.t.Fatalf("goroutines and open files: %v before, %v after\n%s", before, after, w.gw.stacks())
		}
	}
	w.t.Logf("goroutines and open files: %v before, %v after", before, after)
}

// TestDialsUnderRestarts restarts one Prosody ten times, half of the times
// without a word, while a meeting on the other one dials all the time. Who was
// dialled before stays on the phone and is heard after each restart, and so is
// who is dialled anew. The other shard notices nothing, and nothing is left
// behind.
func TestDialsUnderRestarts(t *testing.T) {
	needtool.NeedLong(t)
	inLayouts(t, func(t *testing.T, l layout) {
		const restarts = 10
		const busy, free = "100", "200"
		answered := make(chan *siptest.Call, 2*restarts)
		phone, err := siptest.NewPhone(siptest.PhoneOptions{Incoming: func(in *siptest.Incoming) {
			if in.RequestUser == busy {
				_ = in.Reject(486, "Busy Here")
				return
			}
			c, err := in.Answer(t.Context(), siptest.AnswerOptions{Tone: ours[1]})
			if err != nil {
				t.Errorf("answer: %v", err)
				return
			}
			answered <- c
		}})
		if err != nil {
			t.Fatal(err)
		}
		defer phone.Close()
		_, address, _ := strings.Cut(phone.URI("x"), "@")
		o := &worldOptions{header: true, brewery: true, gateway: `empty_grace = "10m"`, rooms: []string{"standup"}, timeout: 10 * time.Minute,
			trunks: fmt.Sprintf("[[trunk]]\nname = \"out\"\naddress = \"sip:%s\"\n[[dial]]\nname = \"any\"\npattern = '\\d+'\ntrunks = [\"out\"]\n", address)}
		w := build(t, l, o)
		restarted, other := o.places["standup"][0], o.places["standup"][1]
		mayDial := func(p place) func() bool {
			return func() bool {
				gs := p.shard.focus.Gateways()
				return len(gs) == 1 && gs[0].Stats["supports_sip"] == "true"
			}
		}
		// talk dials from a new meeting and returns who answered.
		talk := func(what, room string) *siptest.Call {
			b := w.joinAt(restarted.shard.dep, restarted.shard.prosody.BOSHURL(), room, theirs[1])
			defer b.Close()
			if err := w.dial(w.ctx, b, restarted.shard, room, free); err != nil {
				t.Fatalf("%s: %v", what, err)
			}
			select {
			case c := <-answered:
				w.hear("the callee "+what, c, theirs[1])
				w.hear("the participant "+what, b, ours[1])
				return c
			case <-w.ctx.Done():
				t.Fatalf("%s: nobody was called", what)
				return nil
			}
		}
		w.await("both may dial", func() bool { return mayDial(restarted)() && mayDial(other)() })
		w.hangup(talk("before", "first"))
		w.await("no call left", w.noCall)
		before := w.usage()

		ctx, stop := context.WithCancel(w.ctx)
		defer stop()
		load := make(chan int, 1)
		b := w.join(other.shard.dep, other.room, 0)
		go func() {
			n := 0
			defer func() { load <- n }()
			for ; ; n++ {
				for ctx.Err() == nil && len(b.Others()) >= 4 { // a call that failed stays for 5 s
					pause(ctx)
				}
				err := w.dial(ctx, b, other.shard, other.room, busy)
				if ctx.Err() != nil {
					return
				}
				if err != nil {
					t.Errorf("dial %d on the other shard: %v", n+1, err)
					return
				}
			}
		}()
		held := talk("held", restarted.room)
		for i := range restarts {
			if i%2 == 0 {
				restarted.shard.prosody.Kill()
			} else {
				restarted.shard.prosody.Close()
			}
			restarted.shard.prosody.Restart()
			w.await("Jicofo is back", func() bool { return w.focusAnswers(restarted.shard) })
			w.await("the gateway is back", mayDial(restarted))
			what := fmt.Sprintf("after restart %d", i+1)
			c := talk(what, fmt.Sprintf("after%d", i+1))
			b := w.join(restarted.shard.dep, restarted.room, theirs[i%2])
			w.hear("who stayed "+what, held, theirs[i%2])
			w.hear("the meeting "+what, b, ours[1])
			w.must(b.Close())
			w.hangup(c)
		}
		w.hangup(held)
		stop()
		n := <-load
		w.must(b.Close())
		if n < restarts {
			t.Errorf("the other meeting dialled %d times", n)
		}
		t.Logf("the other meeting dialled %d times", n)
		w.nothingLeft(before)
	})
}

// dial has a participant dial a number, asking again while Jicofo has not yet
// made it a moderator or knows of no gateway yet.
func (w *world) dial(ctx context.Context, b *jitsitest.Browser, s *shard, room, number string) error {
	jid := room + "@conference." + s.dep.domain
	for {
		a, err := b.Request(ctx, "set", jid+"/focus", "<dial xmlns='urn:xmpp:rayo:1' from='fromnumber' to='"+number+
			"'><header name='JvbRoomName' value='"+jid+"'/></dial>")
		switch {
		case err != nil:
			return err
		case strings.Contains(a, "<ref"):
			return nil
		case !strings.Contains(a, "<forbidden") && !strings.Contains(a, "<service-unavailable"):
			return errors.New(a)
		}
		if err := pause(ctx); err != nil {
			return fmt.Errorf("%w: %s", err, a)
		}
	}
}

// pause is between two looks at the same thing.
func pause(ctx context.Context) error {
	select {
	case <-time.After(50 * time.Millisecond):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
