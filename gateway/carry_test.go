package gateway_test

import (
	"fmt"
	"testing"

	"brewline/internal/siptest"
)

// carriers is a world whose calls go out over the trunk "first", and where that
// fails over "ipbx", with two phones that can be called there.
func carriers(t *testing.T, o worldOptions, rules string) (w *world, first, second *siptest.Phone) {
	t.Helper()
	first, err := siptest.NewPhone(siptest.PhoneOptions{Codec: "pcma"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = first.Close() })
	w, second = dialWorld(t, o, fmt.Sprintf("[[trunk]]\nname = \"first\"\naddress = %q\nprobe = \"0s\"\nmax_calls = 1\n", address(first))+rules)
	return w, first, second
}

// carried awaits how many calls each trunk carries.
func (w *world) carried(first, ipbx int) {
	w.t.Helper()
	w.await(fmt.Sprintf("%d calls over the first trunk, %d over the second", first, ipbx), func() bool {
		n := map[string]int{}
		for _, c := range w.gw.Snapshot().Calls {
			n[c.Trunk]++
		}
		return n["first"] == first && n["ipbx"] == ipbx
	})
}

// A call that fails over counts on the trunk that carries it, and no more on
// the one that did not.
func TestFailoverCounts(t *testing.T) {
	t.Parallel()
	w, first, second := carriers(t, worldOptions{shards: 1, trunk: "max_calls = 1\n"},
		"[[dial]]\nname = \"any\"\npattern = '\\d+'\ntrunks = [\"first\", \"ipbx\"]\n")
	sh := w.deps[0].Shards[0]
	one, two, three := w.browser(sh, "one", 440), w.browser(sh, "two", 620), w.browser(sh, "three", 0)
	w.refNick(w.ask(one, sh, "one", "101"))
	if err := w.rings(first).Reject(503, "Service Unavailable"); err != nil {
		t.Fatal(err)
	}
	a, err := w.rings(second).Answer(w.ctx, siptest.AnswerOptions{})
	if err != nil {
		t.Fatal(err)
	}
	w.hear("the first callee", a, 440)
	w.carried(0, 1)

	// The first trunk has a place, the second one none.
	w.refNick(w.ask(two, sh, "two", "102"))
	b, err := w.rings(first).Answer(w.ctx, siptest.AnswerOptions{})
	if err != nil {
		t.Fatal(err)
	}
	w.hear("the second callee", b, 620)
	w.carried(1, 1)
	w.refusedDial(w.ask(three, sh, "three", "103"))
	if err := b.Hangup(w.ctx); err != nil {
		t.Fatal(err)
	}
	w.carried(0, 1)
	if err := a.Hangup(w.ctx); err != nil {
		t.Fatal(err)
	}
	w.alone(one)
}

// Where no trunk that is left has a place, the room is told.
func TestFailoverToFullTrunk(t *testing.T) {
	t.Parallel()
	w, first, second := carriers(t, worldOptions{shards: 1, trunk: "max_calls = 1\n"},
		"[[dial]]\nname = \"any\"\npattern = '1\\d+'\ntrunks = [\"first\", \"ipbx\"]\n[[dial]]\nname = \"other\"\npattern = '2\\d+'\ntrunks = [\"ipbx\"]\n")
	sh := w.deps[0].Shards[0]
	one, two := w.browser(sh, "one", 0), w.browser(sh, "two", 0)
	nick := w.refNick(w.ask(one, sh, "one", "101"))
	in := w.rings(first)
	w.refNick(w.ask(two, sh, "two", "201")) // takes the other trunk's place meanwhile
	other := w.rings(second)
	if err := in.Reject(503, "Service Unavailable"); err != nil {
		t.Fatal(err)
	}
	w.await("the occupant left", func() bool { return len(one.Others()) == 0 })
	w.statuses(one, nick, "Initializing Call", "Calling", "Disconnected")
	if err := other.Reject(486, "Busy Here"); err != nil {
		t.Fatal(err)
	}
	w.alone(two)
	if n := second.Invites(); n != 1 {
		t.Errorf("the second trunk was called %d times", n)
	}
}

// A phone that takes over from another is counted on its own trunk, and the
// other no more.
func TestTransferCounts(t *testing.T) {
	t.Parallel()
	w, first, _ := carriers(t, worldOptions{shards: 1, trunk: "transfer = true\nmax_calls = 1\n"},
		"[[dial]]\nname = \"any\"\npattern = '2\\d\\d'\ntrunks = [\"first\"]\n")
	sh := w.deps[0].Shards[0]
	room := w.browser(sh, "team", 620)
	p := w.phone(siptest.PhoneOptions{})
	c := w.call(p, "team", 440)
	w.hear("the room", room, 440)
	w.carried(0, 1)
	if err := c.Refer(w.ctx, "<sip:201@pbx.example>"); err != nil {
		t.Fatal(err)
	}
	d, err := w.rings(first).Answer(w.ctx, siptest.AnswerOptions{Tone: 1000})
	if err != nil {
		t.Fatal(err)
	}
	w.hear("the room", room, 1000)
	<-c.Ended()
	w.carried(1, 0)

	// One caller more may come; a transfer to the trunk that is full fails.
	w.await("the place is free", func() bool {
		c, err = p.Call(w.ctx, siptest.CallOptions{URI: w.uri("x"), Headers: w.headers("team"), Tone: 440})
		return err == nil
	})
	w.carried(1, 1)
	w.await("a second REFER is taken", func() bool { return c.Refer(w.ctx, "<sip:202@pbx.example>") == nil })
	w.notified(c, "480")
	w.hear("the room", room, 440)
	if err := d.Hangup(w.ctx); err != nil {
		t.Fatal(err)
	}
	w.carried(0, 1)
	if n := first.Invites(); n != 1 {
		t.Errorf("the full trunk was called %d times", n)
	}
	if err := c.Hangup(w.ctx); err != nil {
		t.Fatal(err)
	}
	w.alone(room)
}

// A redirection, and a transfer, over a trunk for one call at a time stay in
// the place that the call has.
func TestSameTrunkCounts(t *testing.T) {
	t.Parallel()
	w, first, _ := carriers(t, worldOptions{shards: 1},
		"[[dial]]\nname = \"any\"\npattern = '2\\d\\d'\ntrunks = [\"first\"]\nredirects = 1\n")
	sh := w.deps[0].Shards[0]
	room := w.browser(sh, "team", 620)
	w.refNick(w.ask(room, sh, "team", "201"))
	if err := w.rings(first).Reject(302, "Moved Temporarily", "Contact: <sip:202@pbx.example>"); err != nil {
		t.Fatal(err)
	}
	d, err := w.rings(first).Answer(w.ctx, siptest.AnswerOptions{Tone: 1000})
	if err != nil {
		t.Fatal(err)
	}
	w.hear("the room", room, 1000)
	w.carried(1, 0)
	if err := d.Hangup(w.ctx); err != nil {
		t.Fatal(err)
	}
	w.alone(room)
}
