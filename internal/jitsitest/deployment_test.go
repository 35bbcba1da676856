package jitsitest

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"brewline/internal/jitsitest/jicofo"
	"brewline/internal/jitsitest/jvb"
	"brewline/internal/jitsitest/xmppd"
	"brewline/internal/tone"
)

func await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(15 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
	}
}

// Three speak, in one room; one joins late, one leaves.
func TestThreeSpeakers(t *testing.T) {
	t.Parallel()
	s := shard(t, ShardOptions{Jicofo: jicofo.Options{OpusPT: 109, AudioLevelID: 7}})
	o := BrowserOptions{URL: s.BOSHURL(), Room: "standup", Tone: 440}
	a := browser(t, o)
	o.Tone, o.JSON, o.Nick = 1000, true, "0badcafe"
	b := browser(t, o)
	hears(t, a, 1000)
	o.Tone, o.Nick, o.Name = 1500, "", "Three"
	c := browser(t, o)
	for _, x := range []struct {
		ear   *Browser
		mouth *Browser
		freq  int
	}{{a, b, 1000}, {a, c, 1500}, {b, a, 440}, {b, c, 1500}, {c, a, 440}, {c, b, 1000}} {
		if err := x.ear.HearFrom(within(t, 15*time.Second), x.mouth.Nick(), x.freq); err != nil {
			t.Error(err)
		}
	}
	if err := b.Close(); err != nil {
		t.Error(err)
	}
	await(t, "a sees only c", func() bool { o := a.Others(); return len(o) == 1 && o[0] == c.Nick() })
	hears(t, a, 1500)
	if err := b.Hear(within(t, 15*time.Second), 440); err == nil {
		t.Error("who left still hears")
	}
	// says something else, falls silent, is muted
	if err := c.SetTone(700); err != nil {
		t.Fatal(err)
	}
	hears(t, a, 700)
	if err := c.SetPCM(tone.Sine(1200, rate, 130*time.Millisecond, 0.3)); err != nil {
		t.Fatal(err)
	}
	hears(t, a, 1200)
	if err := c.Mute(true); err != nil {
		t.Fatal(err)
	}
	await(t, "c is shown muted", func() bool {
		return strings.Contains(a.PresenceOf(c.Nick()), "<audiomuted>true</audiomuted>")
	})
	await(t, "silence", func() bool {
		n, _ := a.Received()
		time.Sleep(60 * time.Millisecond)
		m, _ := a.Received()
		return n == m
	})
	if err := c.SetTone(900); err != nil {
		t.Fatal(err)
	}
	if err := c.Mute(false); err != nil {
		t.Fatal(err)
	}
	hears(t, a, 900)
	for _, x := range []*Browser{a, c} {
		if _, bad := x.Received(); bad != 0 {
			t.Errorf("%d bad packets", bad)
		}
	}
	// the tone that was heard is loud enough, and of one piece
	if pcm := c.HeardFrom(a.Nick()); tone.Level(pcm[len(pcm)-rate/2:], rate, 440) < 0.95 {
		t.Errorf("the share of 440 Hz is %.2f", tone.Level(pcm[len(pcm)-rate/2:], rate, 440))
	}
}

// Sessions move to another bridge, either way, and when the bridge dies.
func TestMove(t *testing.T) {
	t.Parallel()
	s := shard(t, ShardOptions{Bridges: 2, Jicofo: jicofo.Options{RestartMinInterval: time.Millisecond, RestartMax: 1000}})
	o := BrowserOptions{URL: s.BOSHURL(), Room: "standup", Tone: 440, ICETimeout: 600 * time.Millisecond}
	a := browser(t, o)
	o.Tone = 1000
	b := browser(t, o)
	hears(t, a, 1000)
	hears(t, b, 440)
	for i, how := range []jicofo.ReinviteMethod{jicofo.RestartJingle, jicofo.ReplaceTransport} {
		if err := s.Focus.MoveRoom(a.room, how); err != nil {
			t.Fatal(err)
		}
		await(t, "new sessions", func() bool { return a.Invites() >= i+2 && b.Invites() >= i+2 })
		hears(t, a, 1000)
		hears(t, b, 440)
	}
	for _, x := range s.Bridges { // the one that has them goes
		if len(x.Endpoints("")) > 0 {
			x.Crash()
			s.Focus.RemoveBridge(x)
			break
		}
	}
	hears(t, a, 1000)
	hears(t, b, 440)
}

func TestSingleParticipantTimeout(t *testing.T) {
	t.Parallel()
	s := shard(t, ShardOptions{Jicofo: jicofo.Options{SingleTimeout: 50 * time.Millisecond}})
	o := BrowserOptions{URL: s.BOSHURL(), Room: "standup", Tone: 440}
	a := browser(t, o)
	o.Tone = 1000
	b := browser(t, o)
	hears(t, a, 1000)
	ssrc := a.SSRC()
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	await(t, "end of the lone session", func() bool { return a.SSRC() == 0 })
	o.Tone = 700
	c := browser(t, o)
	hears(t, a, 700)
	hears(t, c, 440)
	if a.Invites() != 2 || a.SSRC() == ssrc {
		t.Errorf("%d invites, SSRC %d then %d", a.Invites(), ssrc, a.SSRC())
	}
}

// Packets are lost, doubled and shuffled: the tone is still heard.
func TestBadNetwork(t *testing.T) {
	t.Parallel()
	s := shard(t, ShardOptions{Seed: 5})
	o := BrowserOptions{URL: s.BOSHURL(), Room: "standup", Tone: 440}
	a := browser(t, o)
	o.Tone = 1000
	b := browser(t, o)
	hears(t, a, 1000)
	bad := jvb.Faults{Loss: 0.1, Duplicate: 0.05, Reorder: 0.05}
	s.Bridges[0].SetFaults(bad, bad)
	hears(t, a, 1000)
	hears(t, b, 440)
}

func TestRefused(t *testing.T) {
	t.Parallel()
	s := shard(t, ShardOptions{XMPP: xmppd.Options{Accounts: map[string]string{"web": "pw"}}})
	o := BrowserOptions{URL: s.BOSHURL(), Room: "standup"}
	a := browser(t, o)
	if err := s.XMPP.SetPassword("standup", "1"); err != nil {
		t.Fatal(err)
	}
	if _, err := JoinBrowser(within(t, 10*time.Second), o); !errors.Is(err, ErrJoin) || !strings.Contains(err.Error(), "not-authorized") {
		t.Errorf("without the password: %v", err)
	}
	o.Password = "1"
	o.Domain, o.MUC, o.Focus = "auth.meet.example", "conference.meet.example", "focus.meet.example"
	o.Username, o.Secret, o.Nick = "web", "pw", "cafe0000"
	b := browser(t, o)
	if b.JID()[:22] != "web@auth.meet.example/" {
		t.Errorf("JID %s", b.JID())
	}
	o.Secret = "no"
	if _, err := JoinBrowser(within(t, 10*time.Second), o); err == nil {
		t.Error("wrong account password")
	}
	if err := s.XMPP.Kick("standup", b.Nick(), "out"); err != nil {
		t.Fatal(err)
	}
	select {
	case <-b.Gone():
	case <-within(t, 10*time.Second).Done():
		t.Fatal("kicked, and does not notice")
	}
	if len(a.Others()) != 0 {
		await(t, "a is alone", func() bool { return len(a.Others()) == 0 })
	}
}

// Every room lives on the shard that the balancer chose for it; equal names in
// two deployments are two rooms.
func TestDeployment(t *testing.T) {
	t.Parallel()
	first, err := NewDeployment(3, DeploymentOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = first.Close() })
	second, err := NewDeployment(2, DeploymentOptions{DifferentNames: true, Shard: ShardOptions{Name: "other", Domain: "meet.elsewhere"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = second.Close() })

	o := BrowserOptions{URL: first.Balancer.BOSHURL(), Room: "standup", Tone: 440}
	a := browser(t, o)
	o.Tone = 1000
	b := browser(t, o)
	home := first.ShardOf("standup")
	if home == nil || a.Shard() != home.Name || b.Shard() != home.Name || home.Name != first.Balancer.Where("", "standup") {
		t.Fatalf("a on %s, b on %s, room on %+v", a.Shard(), b.Shard(), home)
	}
	away := second.Shards[1]
	if away.Domain() != "shard2.meet.elsewhere" || away.Name != "other-2" {
		t.Errorf("%s is %s", away.Name, away.Domain())
	}
	c := browser(t, BrowserOptions{URL: away.BOSHURL(), Domain: away.Domain(), Room: "standup", Tone: 1500})
	d := browser(t, BrowserOptions{URL: away.BOSHURL(), Domain: away.Domain(), Room: "standup", Tone: 1800})
	hears(t, a, 1000)
	hears(t, b, 440)
	hears(t, c, 1800)
	hears(t, d, 1500)
	for _, x := range []*Browser{a, b, c, d} {
		if len(x.Sources()) != 1 {
			t.Errorf("%s hears %v", x.Nick(), x.Sources())
		}
	}

	// the shard dies; whoever comes again meets on another one
	home.Kill()
	for _, x := range []*Browser{a, b} {
		select {
		case <-x.Gone():
		case <-within(t, 15*time.Second).Done():
			t.Fatal("the shard is dead, and nobody notices")
		}
	}
	o.Tone = 440
	var e *Browser
	await(t, "a new home", func() bool {
		var err error
		e, err = JoinBrowser(within(t, 10*time.Second), o)
		return err == nil
	})
	t.Cleanup(func() { _ = e.Close() })
	o.Tone = 700
	f := browser(t, o)
	hears(t, e, 700)
	hears(t, f, 440)
	if e.Shard() == home.Name || e.Shard() != f.Shard() {
		t.Errorf("now on %s and %s; %s is dead", e.Shard(), f.Shard(), home.Name)
	}
	if err := home.Restart(); err != nil {
		t.Fatal(err)
	}
	g := browser(t, BrowserOptions{URL: home.BOSHURL(), Room: "back", Tone: 440})
	h := browser(t, BrowserOptions{URL: home.BOSHURL(), Room: "back", Tone: 1000})
	hears(t, g, 1000)
	hears(t, h, 440)
}

// Many at once, and nothing is left of them.
func TestCrowd(t *testing.T) {
	t.Parallel()
	s := shard(t, ShardOptions{Jicofo: jicofo.Options{SingleTimeout: 20 * time.Millisecond}})
	const rooms, each = 4, 4
	type result struct {
		b   *Browser
		err error
	}
	results := make(chan result)
	for i := range rooms * each {
		go func() {
			b, err := JoinBrowser(within(t, 30*time.Second), BrowserOptions{URL: s.BOSHURL(), Room: fmt.Sprintf("r%d", i%rooms), Tone: 400 + 100*(i%rooms), JSON: i%2 == 0})
			results <- result{b, err}
		}()
	}
	var all []*Browser
	for range rooms * each {
		r := <-results
		if r.err != nil {
			t.Error(r.err)
			continue
		}
		all = append(all, r.b)
		t.Cleanup(func() { _ = r.b.Close() })
	}
	for _, b := range all {
		var i int
		if _, err := fmt.Sscanf(b.o.Room, "r%d", &i); err != nil {
			t.Fatal(err)
		}
		if err := b.Hear(within(t, 30*time.Second), 400+100*i); err != nil {
			t.Error(err)
		}
	}
	for _, b := range all {
		b.Drop()
	}
	for _, j := range s.XMPP.SessionJIDs() {
		_ = s.XMPP.DropSession(j)
	}
	await(t, "empty rooms", func() bool { return len(s.XMPP.Rooms()) == 0 })
	if n := s.XMPP.Sessions(); n != 0 {
		t.Errorf("%d sessions left", n)
	}
	if n := len(s.Bridges[0].Endpoints("")); n != 0 {
		t.Errorf("%d endpoints left", n)
	}
}
