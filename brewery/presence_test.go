package brewery

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"brewline/config"
	"brewline/xmpp"
)

// withBrewery gives every shard an account and a brewery, with equal names.
func withBrewery(c *config.Config) *config.Config {
	for i := range c.Shards {
		sh := &c.Shards[i]
		sh.Username, sh.Password, sh.AuthDomain = "gw", "secret", "auth."+sh.Effective.Domain
		sh.Brewery = "JigasiBrewery@internal." + sh.AuthDomain
	}
	return c
}

const breweryJID = "jigasibrewery@internal.auth.meet.example"

func TestBreweryPresence(t *testing.T) {
	w := &world{}
	cfg := withBrewery(one("s1", "s2"))
	cfg.Shards[1].Region = "eu"
	p := w.at(urlOf("s1"))
	p.focus = true
	bubble(t, cfg, w, func(t *testing.T, s *Set) {
		st := status(t, s, "s1")
		if st.Brewery != BreweryJoined || st.BreweryErr != nil || !st.Focus || status(t, s, "s2").Focus {
			t.Errorf("s1: %+v", st)
		}
		told := p.tellings()
		if len(told) != 1 || !told[0].join || told[0].room != breweryJID || told[0].nick != st.JID.Resource {
			t.Fatalf("told %+v, we are %s", told, st.JID)
		}
		idle := map[string]string{"conferences": "0", "participants": "0", "graceful_shutdown": "false",
			"stress_level": "0.0", "version": "1.2", "supports_transcription": "false", "supports_sip": "false"}
		if !maps.Equal(told[0].stats, idle) {
			t.Errorf("told %v", told[0].stats)
		}
		if r := w.at(urlOf("s2")).tellings()[0].stats["region"]; r != "eu" {
			t.Errorf("region of s2 is %q", r)
		}

		// A change is told at once, many changes once in a second, the last
		// one in any case; every brewery has the same figures.
		time.Sleep(5 * time.Second)
		begin := time.Now()
		for n := range 100 {
			s.SetLoad(Load{Conferences: n, Participants: 2 * n, Stress: float64(n) / 100})
			time.Sleep(31 * time.Millisecond)
		}
		s.SetCanDial("s1", true)
		s.SetLoad(Load{Conferences: 99, Participants: 198, Stress: 0.99, Draining: true})
		time.Sleep(time.Second)
		synctest.Wait()
		for name, can := range map[string]string{"s1": "true", "s2": "false"} {
			told := w.at(urlOf(name)).tellings()[1:]
			if told[0].at.Sub(begin) > 40*time.Millisecond {
				t.Errorf("%s: the first change was told after %s", name, told[0].at.Sub(begin))
			}
			for i, next := range told[1:] {
				if gap := next.at.Sub(told[i].at); gap < time.Second {
					t.Errorf("%s: told again after %s", name, gap)
				}
			}
			want := maps.Clone(idle)
			maps.Copy(want, map[string]string{"conferences": "99", "participants": "198", "graceful_shutdown": "true",
				"stress_level": "0.99", "supports_sip": can})
			if name == "s2" {
				want["region"] = "eu"
			}
			if got := told[len(told)-1].stats; !maps.Equal(got, want) {
				t.Errorf("%s: at last told %v", name, got)
			}
		}

		// Without any change it is told again and again.
		n := len(p.tellings())
		s.SetLoad(Load{Conferences: 99, Participants: 198, Stress: 0.99, Draining: true})
		time.Sleep(10 * time.Minute)
		told = p.tellings()[n-1:]
		for i, next := range told[1:] {
			if gap := next.at.Sub(told[i].at); gap > 30*time.Second || gap < 20*time.Second {
				t.Errorf("told again after %s", gap)
			}
		}
		if len(told) < 20 {
			t.Errorf("told %d times in ten minutes", len(told))
		}

		// Another region is told without another session; another brewery
		// needs one.
		next := withBrewery(one("s1", "s2"))
		next.Shards[0].Region = "us"
		next.Shards[1].Brewery = "other@internal.auth.meet.example"
		if err := s.Reload(next); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		told = p.tellings()
		if last := told[len(told)-1]; last.stats["region"] != "us" || last.join {
			t.Errorf("after the reload told %+v", last)
		}
		if told = w.at(urlOf("s2")).tellings(); told[len(told)-1].room != "other@internal.auth.meet.example" {
			t.Errorf("s2 is in %s", told[len(told)-1].room)
		}
		if n, m := len(p.dialled()), len(w.at(urlOf("s2")).dialled()); n != 1 || m != 2 {
			t.Errorf("%d and %d sessions", n, m)
		}

		// What a shard may is not known any more once it was gone.
		if err := s.Reload(withBrewery(one("s2"))); err != nil {
			t.Fatal(err)
		}
		if err := s.Reload(next); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		told = p.tellings()
		if last := told[len(told)-1]; !last.join || last.stats["supports_sip"] != "false" {
			t.Errorf("a shard of old: %+v", last)
		}

		p.event(xmpp.RoomEvent{Kind: xmpp.FocusLeft})
		if st := status(t, s, "s1"); st.Focus || st.Brewery != BreweryJoined {
			t.Errorf("without focus: %+v", st)
		}
		p.event(xmpp.RoomEvent{Kind: xmpp.FocusJoined})
		if !status(t, s, "s1").Focus {
			t.Error("the focus is back unnoticed")
		}
	})
	if p.left != 2 {
		t.Errorf("left %d times", p.left)
	}
	for shard, focus := range map[string]string{"s1": "true", "s2": "false"} {
		if log := strings.ToLower(w.log.String()); !strings.Contains(log, fmt.Sprintf(`msg="in the brewery" shard=%s room=%s focus=%s`, shard, breweryJID, focus)) {
			t.Errorf("%s is not told to be in the brewery with focus=%s:\n%s", shard, focus, log)
		}
	}
}

// What the process is busy with is told to very many breweries less often, what
// decides whether a call may go out as soon as to one.
func TestLoadToManyBreweries(t *testing.T) {
	const shards = 500
	w := &world{}
	var names []string
	for i := range shards {
		names = append(names, fmt.Sprintf("s%d", i))
	}
	bubble(t, withBrewery(one(names...)), w, func(t *testing.T, s *Set) {
		told := func() (n int) {
			for _, name := range names {
				n += len(w.at(urlOf(name)).tellings())
			}
			return n
		}
		last := func(name string) map[string]string {
			all := w.at(urlOf(name)).tellings()
			return all[len(all)-1].stats
		}
		time.Sleep(time.Minute) // the first presences come together, later ones do not
		before, n := told(), 0
		for range 60 {
			n++
			s.SetLoad(Load{Conferences: n})
			time.Sleep(time.Second)
		}
		if rate := float64(told()-before) / 60; rate > 70 || rate < 40 {
			t.Errorf("%.1f presences a second", rate)
		}
		time.Sleep(10 * time.Second)
		synctest.Wait()
		for _, name := range names {
			if last(name)["conferences"] != strconv.Itoa(n) {
				t.Fatalf("%s was not told the last load: %v", name, last(name))
			}
		}
		s.SetCanDial("s7", true)
		time.Sleep(time.Second)
		synctest.Wait()
		if last("s7")["supports_sip"] != "true" {
			t.Error("not told that it may dial")
		}
		s.SetLoad(Load{Conferences: n, Draining: true})
		time.Sleep(time.Second)
		synctest.Wait()
		for _, name := range names {
			if last(name)["graceful_shutdown"] != "true" {
				t.Fatalf("%s was not told of the drain in a second", name)
			}
		}
	})
}

func TestNoBreweryWithoutAccount(t *testing.T) {
	w := &world{}
	cfg := one("s1")
	cfg.Shards[0].Brewery = breweryJID
	bubble(t, cfg, w, func(t *testing.T, s *Set) {
		s.SetLoad(Load{Conferences: 1})
		s.SetCanDial("s1", true)
		time.Sleep(time.Minute)
		if st := status(t, s, "s1"); st.State != Up || st.Brewery != "" || len(w.at(urlOf("s1")).tellings()) != 0 {
			t.Errorf("s1: %+v", st)
		}
	})
}

func TestStress(t *testing.T) {
	t.Parallel()
	nan := 0.0
	for f, want := range map[float64]string{0: "0.0", 0.004: "0.0", 0.015: "0.02", 0.5: "0.5", 1: "1.0", 12.345: "12.35", nan / nan: "1.0"} {
		if got := stress(f); got != want {
			t.Errorf("%v is %s", f, got)
		}
	}
}

// Whatever puts us out of a brewery, we come back, on the same session, and
// neither the other shard nor the questions about rooms notice.
func TestBackInTheBrewery(t *testing.T) {
	for name, e := range map[string]xmpp.RoomEvent{
		"kicked":    {Kind: xmpp.Kicked, Reason: "go <away>"},
		"banned":    {Kind: xmpp.Banned},
		"destroyed": {Kind: xmpp.Destroyed, Reason: "closed"},
		"forgotten": {Kind: xmpp.SelfLeft},
		"silence":   {},
	} {
		t.Run(name, func(t *testing.T) {
			w := &world{}
			p := w.at(urlOf("s1"))
			p.focus = true
			bubble(t, withBrewery(one("s1", "s2")), w, func(t *testing.T, s *Set) {
				if e.Kind != 0 {
					p.event(e)
				} else {
					p.set(func(p *prosody) { p.deaf = true })
					s.SetLoad(Load{Conferences: 1})
					time.Sleep(11 * time.Second) // a second is between two presences
				}
				synctest.Wait()
				st := status(t, s, "s1")
				if st.Brewery != BreweryOut || st.BreweryErr == nil || st.State != Up || st.Focus {
					t.Errorf("out: %+v", st)
				}
				if e.Kind != 0 && !strings.Contains(st.BreweryErr.Error(), e.Kind.String()) {
					t.Errorf("out: %v", st.BreweryErr)
				}
				if e.Kind == 0 && !errors.Is(st.BreweryErr, errSilent) {
					t.Errorf("out: %v", st.BreweryErr)
				}
				p.set(func(p *prosody) { p.deaf = false })
				loc, err := s.Deployment("prod").Locate(t.Context(), Room{Name: "r"}, "s1")
				if err != nil || loc.Shard.Name() != "s1" {
					t.Errorf("locate: %v", err)
				}
				time.Sleep(time.Second)
				synctest.Wait()
				if st = status(t, s, "s1"); st.Brewery != BreweryJoined || st.BreweryErr != nil || !st.Focus {
					t.Errorf("back: %+v", st)
				}
				if n := len(p.dialled()); n != 1 {
					t.Errorf("%d sessions", n)
				}
				if n := len(w.at(urlOf("s2")).tellings()); n > 2 {
					t.Errorf("s2 was told %d times", n)
				}
				if st := s.Stats(); st.BreweryLost != 1 || st.BreweryJoined != 3 {
					t.Errorf("counted %+v", st)
				}
			})
		})
	}
}

// A brewery that is closed to us is tried with growing pauses, for ever; rooms
// are asked for all the same.
func TestBreweryRefuses(t *testing.T) {
	w := &world{}
	p := w.at(urlOf("s1"))
	tries := 0
	p.join = func(string) error {
		tries++
		return &xmpp.JoinError{Kind: xmpp.JoinNotAllowed, Condition: "not-allowed", Text: "Members only"}
	}
	bubble(t, withBrewery(one("s1")), w, func(t *testing.T, s *Set) {
		time.Sleep(time.Hour)
		synctest.Wait()
		st := status(t, s, "s1")
		var je *xmpp.JoinError
		if st.State != Up || st.Brewery != BreweryOut || !errors.As(st.BreweryErr, &je) || je.Text != "Members only" {
			t.Errorf("%+v", st)
		}
		if tries < 500 || tries > 1000 { // pauses of 2 to 8 s
			t.Errorf("%d attempts in an hour", tries)
		}
		p.has("r@conference.meet.example", result)
		if loc, err := s.Deployment("prod").Locate(t.Context(), Room{Name: "r"}, ""); err != nil || loc.How != HowAsked {
			t.Errorf("locate: %v %v", loc, err)
		}
		p.set(func(p *prosody) { p.join = nil })
		time.Sleep(8 * time.Second)
		synctest.Wait()
		if st = status(t, s, "s1"); st.Brewery != BreweryJoined {
			t.Errorf("%+v", st)
		}
		if n := len(p.dialled()); n != 1 {
			t.Errorf("%d sessions", n)
		}
	})
	if n := strings.Count(w.log.String(), "not in the brewery"); n != 1 {
		t.Errorf("%d lines for one state", n)
	}
}

// The nick is the session's resource; where it is taken, another session with
// another one is opened before the old one is closed.
func TestNickTaken(t *testing.T) {
	w := &world{}
	p := w.at(urlOf("s1"))
	var taken string
	p.join = func(nick string) error {
		if taken == "" {
			taken = nick
		}
		if nick == taken {
			return &xmpp.JoinError{Kind: xmpp.JoinConflict, Condition: "conflict"}
		}
		return nil
	}
	bubble(t, withBrewery(one("s1")), w, func(t *testing.T, s *Set) {
		first := p.sessions()[0]
		time.Sleep(2 * time.Second)
		synctest.Wait()
		st := status(t, s, "s1")
		if st.State != Up || st.Brewery != BreweryJoined || st.JID.Resource == taken || len(p.tellings()) != 1 || p.tellings()[0].nick != st.JID.Resource {
			t.Errorf("%s was taken: %+v", taken, st)
		}
		if n := len(p.sessions()); n != 2 || first.Err() != xmpp.ErrClosed {
			t.Errorf("%d sessions", n)
		}
		if s.Stats().Lost != 0 {
			t.Error("the shard was down")
		}

		// What stays taken does not take the questions about rooms along.
		p.set(func(p *prosody) {
			p.join = func(string) error { return &xmpp.JoinError{Kind: xmpp.JoinConflict} }
			p.dial = func(context.Context) error { return xmpp.ErrUnreachable }
		})
		p.event(xmpp.RoomEvent{Kind: xmpp.Kicked})
		time.Sleep(time.Minute)
		synctest.Wait()
		if st = status(t, s, "s1"); st.State != Up || st.Brewery != BreweryOut || !errors.Is(st.BreweryErr, xmpp.ErrUnreachable) {
			t.Errorf("%+v", st)
		}
		p.set(func(p *prosody) { p.dial, p.join = nil, nil })
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if st = status(t, s, "s1"); st.Brewery != BreweryJoined || s.Stats().Lost != 0 {
			t.Errorf("%+v", st)
		}
	})
}

// While the account is refused, rooms are asked for with the login of calls.
func TestAccountRefused(t *testing.T) {
	w := &world{}
	p := w.at(urlOf("s1"))
	refused := func(context.Context) error {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.last.Username != "" {
			return fmt.Errorf("%w: not-authorized", xmpp.ErrAuth)
		}
		return nil
	}
	p.dial = refused
	bubble(t, withBrewery(one("s1", "s2")), w, func(t *testing.T, s *Set) {
		st := status(t, s, "s1")
		if st.State != Up || st.Brewery != BreweryOut || !errors.Is(st.BreweryErr, xmpp.ErrAuth) || st.JID.Domain != "meet.example" {
			t.Errorf("s1: %+v", st)
		}
		if st := status(t, s, "s2"); st.Brewery != BreweryJoined {
			t.Errorf("s2: %+v", st)
		}
		p.has("r@conference.meet.example", stanzaError("forbidden"))
		if loc, err := s.Deployment("prod").Locate(t.Context(), Room{Name: "r"}, ""); err != nil || loc.How != HowAsked {
			t.Errorf("locate: %v %v", loc, err)
		}
		time.Sleep(time.Hour)
		if n := len(p.dialled()); n < 500 || n > 1000 {
			t.Errorf("%d attempts in an hour", n)
		}
		p.set(func(p *prosody) { p.dial = nil })
		time.Sleep(8 * time.Second)
		synctest.Wait()
		if st = status(t, s, "s1"); st.State != Up || st.Brewery != BreweryJoined || st.JID.Domain != "auth.meet.example" {
			t.Errorf("s1: %+v", st)
		}
		if online := slices.DeleteFunc(p.sessions(), func(f *fakeSession) bool { return ended(&link{session: f}) }); len(online) != 1 {
			t.Errorf("%d sessions are open", len(online))
		}
	})
}

// A server that is gone takes the presence along; both come back.
func TestServerRestarted(t *testing.T) {
	w := &world{}
	p := w.at(urlOf("s1"))
	bubble(t, withBrewery(one("s1", "s2")), w, func(t *testing.T, s *Set) {
		before := status(t, s, "s1").JID
		p.crash()
		synctest.Wait()
		if st := status(t, s, "s1"); st.State != Down || st.Brewery != BreweryOut || st.BreweryErr == nil {
			t.Errorf("down: %+v", st)
		}
		s.SetLoad(Load{Conferences: 3})
		time.Sleep(time.Minute)
		p.set(func(p *prosody) { p.dial = nil })
		time.Sleep(8 * time.Second)
		synctest.Wait()
		st := status(t, s, "s1")
		if st.Brewery != BreweryJoined || st.BreweryErr != nil {
			t.Errorf("up: %+v", st)
		}
		// What the server may still have of us has the same name.
		if st.JID != before {
			t.Errorf("we were %s and are %s", before, st.JID)
		}
		told := p.tellings()
		if len(told) != 2 || told[1].stats["conferences"] != "3" {
			t.Errorf("told %v", told)
		}
	})
}

// The presences of 50 shards that fell together come back apart.
func TestBreweriesComeBackApart(t *testing.T) { layouts(t, testBreweriesComeBackApart) }

func testBreweriesComeBackApart(t *testing.T, of func(names ...string) *config.Config) {
	const shards, bin = 50, 100 * time.Millisecond
	var names []string
	for i := range shards {
		names = append(names, fmt.Sprintf("s%02d", i))
	}
	w := &world{}
	bubble(t, withBrewery(of(names...)), w, func(t *testing.T, s *Set) {
		time.Sleep(time.Minute)
		for _, n := range names {
			w.at(urlOf(n)).event(xmpp.RoomEvent{Kind: xmpp.Destroyed})
		}
		time.Sleep(10 * time.Second)
		synctest.Wait()
		var joins []time.Time
		for _, n := range names {
			if st := status(t, s, n); st.Brewery != BreweryJoined {
				t.Errorf("%+v", st)
			}
			for _, x := range w.at(urlOf(n)).tellings()[1:] {
				if x.join {
					joins = append(joins, x.at)
				}
			}
		}
		slices.SortFunc(joins, time.Time.Compare)
		for i, from := range joins {
			n := 0
			for _, at := range joins[i:] {
				if at.Sub(from) < bin {
					n++
				}
			}
			if n > shards/2 {
				t.Errorf("%d of %d joins within %s", n, len(joins), bin)
			}
		}
	})
}
