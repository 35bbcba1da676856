package brewery

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"brewline/config"
	"brewline/xmpp"
)

func TestBackoff(t *testing.T) {
	t.Parallel()
	b := backoff{min: time.Second, max: 8 * time.Second}
	for round := range 2 {
		for i, top := range []time.Duration{1, 2, 4, 8, 8, 8} {
			top *= time.Second
			if d := b.pause(); d < top/4 || d > top {
				t.Errorf("round %d: pause %d is %v, want %v to %v", round, i, d, top/4, top)
			}
		}
		b.reset()
	}
}

func status(t *testing.T, s *Set, name string) ShardStatus {
	t.Helper()
	for _, st := range s.Status() {
		if st.Shard == name {
			return st
		}
	}
	t.Fatalf("no status of %s", name)
	return ShardStatus{}
}

func TestControlSession(t *testing.T) {
	w := &world{}
	cfg := one("s1", "s2")
	cfg.Shards[0].Username, cfg.Shards[0].Password, cfg.Shards[0].AuthDomain = "gw", "secret", "auth.meet.example"
	w.at(urlOf("s1")).name = "s1"
	bubble(t, cfg, w, func(t *testing.T, s *Set) {
		st := status(t, s, "s1")
		if st.State != Up || st.Err != nil || st.JID.Domain != "auth.meet.example" || st.Mismatch != "" || st.Deployment != "prod" {
			t.Errorf("s1: %+v", st)
		}
		o := w.at(urlOf("s1")).last
		if o.Domain != "auth.meet.example" || o.Username != "gw" || o.Password != "secret" || o.Room != "" {
			t.Errorf("s1 logged in with %+v", o)
		}
		if o.PingInterval != 10*time.Second || o.PingTimeout != 5*time.Second {
			t.Errorf("pings every %v, for %v", o.PingInterval, o.PingTimeout)
		}
		if o = w.at(urlOf("s2")).last; o.Domain != "meet.example" || o.Username != "" {
			t.Errorf("s2, without account, logged in with %+v", o)
		}
		if s.Up() != 2 {
			t.Errorf("%d are up", s.Up())
		}

		lost := time.Now()
		w.at(urlOf("s1")).crash()
		synctest.Wait()
		if st = status(t, s, "s1"); st.State != Down || !errors.Is(st.Err, xmpp.ErrSessionLost) || !st.JID.IsZero() || !st.Since.Equal(lost) {
			t.Errorf("s1 after the crash: %+v", st)
		}
		if st = status(t, s, "s2"); st.State != Up {
			t.Errorf("s2 after the crash of s1: %+v", st)
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		st = status(t, s, "s1")
		// An hour of pauses of 2 to 8 s, 5 on average.
		if st.State != Down || !errors.Is(st.Err, xmpp.ErrUnreachable) || st.Retries < 500 || st.Retries > 1000 || !st.Since.Equal(lost) {
			t.Errorf("s1 after an hour: %+v", st)
		}
		w.at(urlOf("s1")).set(func(p *prosody) { p.dial = nil })
		time.Sleep(8 * time.Second)
		synctest.Wait()
		if st = status(t, s, "s1"); st.State != Up || st.Err != nil || st.Retries != 0 {
			t.Errorf("s1, 8 s after it is back: %+v", st)
		}
	})
	if n := strings.Count(w.log.String(), `msg="shard down" shard=s1`); n != 2 {
		t.Errorf("%d lines for two causes:\n%s", n, w.log.String())
	}
	if strings.Contains(w.log.String(), "secret") {
		t.Error("the log has the password")
	}
}

// A session that breaks at once is no reason to begin the pauses anew.
func TestFlappingShardBacksOff(t *testing.T) {
	w := &world{}
	p := w.at(urlOf("s1"))
	bubble(t, one("s1"), w, func(t *testing.T, s *Set) {
		for range 200 {
			p.set(func(p *prosody) {
				for _, f := range p.online {
					f.end(xmpp.ErrSessionLost)
				}
				p.online = nil
			})
			time.Sleep(100 * time.Millisecond)
		}
		if n := len(p.dialled()); n > 12 {
			t.Errorf("%d connections in 20 s", n)
		}
	})
}

// What 50 shards lost at one moment does not come back at one moment.
func TestOutageIsSpread(t *testing.T) { layouts(t, testOutageIsSpread) }

func testOutageIsSpread(t *testing.T, of func(names ...string) *config.Config) {
	const shards, bin = 50, 100 * time.Millisecond
	var names []string
	for i := range shards {
		names = append(names, fmt.Sprintf("s%02d", i))
	}
	w := &world{}
	bubble(t, of(names...), w, func(t *testing.T, s *Set) {
		time.Sleep(time.Minute)
		lost := time.Now()
		for _, n := range names {
			w.at(urlOf(n)).crash()
		}
		time.Sleep(30 * time.Second)
		var all []time.Duration
		for _, n := range names {
			retries := w.at(urlOf(n)).dialled()[1:]
			if len(retries) < 4 {
				t.Errorf("%s was tried %d times in 30 s", n, len(retries))
			}
			for _, at := range retries {
				all = append(all, at.Sub(lost))
			}
		}
		slices.Sort(all)
		if all[0] < 250*time.Millisecond {
			t.Errorf("first attempt after %v", all[0])
		}
		for i, from := range all {
			n := 0
			for _, at := range all[i:] {
				if at-from < bin {
					n++
				}
			}
			if n > shards/2 {
				t.Errorf("%d attempts within %v of %v", n, bin, from)
			}
		}
		for _, n := range names {
			w.at(urlOf(n)).set(func(p *prosody) { p.dial = nil })
		}
		time.Sleep(8 * time.Second)
		synctest.Wait()
		if s.Up() != shards {
			t.Errorf("%d of %d are up, 8 s after the end", s.Up(), shards)
		}
	})
}

// A shard that takes a connection and says nothing holds up nobody.
func TestHungLogin(t *testing.T) {
	w := &world{}
	w.at(urlOf("s1")).dial = never
	bubble(t, one("s1", "s2"), w, func(t *testing.T, s *Set) {
		if status(t, s, "s1").State != Connecting || status(t, s, "s2").State != Up {
			t.Errorf("%+v", s.Status())
		}
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if st := status(t, s, "s1"); st.State != Down || !errors.Is(st.Err, context.DeadlineExceeded) {
			t.Errorf("s1: %+v", st)
		}
	})
}

func TestRefusedAccountStaysVisible(t *testing.T) {
	w := &world{}
	w.at(urlOf("s1")).dial = func(context.Context) error { return fmt.Errorf("%w: not-authorized", xmpp.ErrAuth) }
	bubble(t, one("s1", "s2"), w, func(t *testing.T, s *Set) {
		time.Sleep(time.Minute)
		if st := status(t, s, "s1"); st.State != Down || !errors.Is(st.Err, xmpp.ErrAuth) || st.Retries < 5 {
			t.Errorf("s1: %+v", st)
		}
	})
	if n := strings.Count(w.log.String(), "shard down"); n != 1 {
		t.Errorf("%d lines for one state:\n%s", n, w.log.String())
	}
}

func TestBadTLSFileStaysVisible(t *testing.T) {
	w := &world{}
	cfg := one("s1")
	cfg.Shards[0].TLS.CA = t.TempDir() + "/none.pem"
	bubble(t, cfg, w, func(t *testing.T, s *Set) {
		if st := status(t, s, "s1"); st.State != Down || st.Err == nil || !strings.Contains(st.Err.Error(), "none.pem") {
			t.Errorf("s1: %+v", st)
		}
	})
}

func TestMismatch(t *testing.T) {
	w := &world{}
	w.at(urlOf("s1")).name = "s2"
	w.at(urlOf("s2")).name = "s2"
	bubble(t, one("s1", "s2", "s3"), w, func(t *testing.T, s *Set) {
		if st := status(t, s, "s1"); st.State != Up || st.Mismatch != "s2" {
			t.Errorf("s1: %+v", st)
		}
		for _, n := range []string{"s2", "s3"} {
			if st := status(t, s, n); st.Mismatch != "" {
				t.Errorf("%s: %+v", n, st)
			}
		}
		if n := s.Stats().Mismatched; n != 1 {
			t.Errorf("counted %d", n)
		}
		if !w.logged("header_value") {
			t.Error("not logged")
		}
	})
}

func TestReload(t *testing.T) {
	w := &world{}
	bubble(t, one("s1", "s2"), w, func(t *testing.T, s *Set) {
		d := s.Deployment("prod")
		s1 := d.Shard("s1")
		s1.Acquire()
		s1.Acquire()

		// s1 goes, s3 comes, s2 is not touched, a deployment comes.
		next := conf([]config.Deployment{{Name: "prod"}, {Name: "lab", Domain: "lab.example"}},
			config.Shard{Name: "s2", Weight: 3}, config.Shard{Name: "s3"}, config.Shard{Name: "l1", Deployment: "lab"})
		if err := s.Reload(next); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if s.Deployment("prod") != d || d.Shard("s1") != nil || d.Shard("s2").Weight() != 3 || s.Deployment("lab") == nil {
			t.Error("the new configuration does not hold")
		}
		for name, want := range map[string]State{"s1": Removed, "s2": Up, "s3": Up, "l1": Up} {
			if st := status(t, s, name); st.State != want {
				t.Errorf("%s is %s, want %s", name, st.State, want)
			}
		}
		if n := len(w.at(urlOf("s2")).dialled()); n != 1 {
			t.Errorf("s2 was connected %d times", n)
		}
		if w.at(urlOf("s1")).online[0].Err() == nil {
			t.Error("the control session of s1 lives on")
		}
		if s1.Config().Name != "s1" || d.RoomJID(Room{Name: "r"}, s1).String() != "r@conference.meet.example" {
			t.Error("calls on s1 lost its configuration")
		}
		if _, err := d.Locate(t.Context(), Room{Name: "r"}, "s1"); !errors.Is(err, ErrUnknownShard) {
			t.Errorf("s1 is still used: %v", err)
		}
		s1.Release()
		if status(t, s, "s1").Calls != 1 {
			t.Error("s1 forgot a call")
		}
		s1.Release()
		if len(s.Status()) != 3 {
			t.Errorf("s1 stays after its last call: %+v", s.Status())
		}

		// A changed address is a new session; the shard is the same.
		s2 := d.Shard("s2")
		next = conf([]config.Deployment{{Name: "prod"}}, config.Shard{Name: "s2", URL: urlOf("moved")}, config.Shard{Name: "s3"})
		lab := s.Deployment("lab")
		if err := s.Reload(next); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if d.Shard("s2") != s2 || !s2.Up() || len(w.at(urlOf("moved")).dialled()) != 1 || w.at(urlOf("s2")).online[0].Err() == nil {
			t.Error("s2 did not move")
		}
		if len(w.at(urlOf("s3")).dialled()) != 1 {
			t.Error("s3 was disturbed")
		}
		if s.Deployment("lab") != nil || len(lab.Shards()) != 0 {
			t.Error("lab is still there")
		}
		if _, err := lab.Locate(t.Context(), Room{Name: "r"}, ""); !errors.Is(err, ErrNothingUp) {
			t.Errorf("a removed deployment locates: %v", err)
		}

		// It may come back.
		if err := s.Reload(conf([]config.Deployment{{Name: "lab"}, {Name: "prod"}}, config.Shard{Name: "l1"})); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if s.Deployment("lab") != lab || !lab.Shard("l1").Up() {
			t.Error("lab did not come back")
		}
	})
}

func TestReloadRefuses(t *testing.T) {
	w := &world{}
	bubble(t, one("s1"), w, func(t *testing.T, s *Set) {
		for name, c := range map[string]*config.Config{
			"nil":                 nil,
			"twice the shard":     one("a", "a"),
			"no such deployment":  conf([]config.Deployment{{Name: "x"}}, config.Shard{Name: "a", Deployment: "y"}),
			"twice the same name": conf([]config.Deployment{{Name: "x"}, {Name: "x"}}),
		} {
			if err := s.Reload(c); err == nil {
				t.Errorf("%s was taken", name)
			}
		}
		if !s.Deployment("prod").Shard("s1").Up() {
			t.Error("a refused configuration changed something")
		}
	})
}

func TestRunOnce(t *testing.T) {
	w := &world{}
	synctest.Test(t, func(t *testing.T) {
		s := must(New(one("s1"), Options{dial: w.dial}))(t)
		if st := s.Status()[0]; st.State != Connecting || s.Up() != 0 {
			t.Errorf("before Run: %+v", st)
		}
		if _, err := s.Deployment("prod").Locate(t.Context(), room, ""); !errors.Is(err, ErrNothingUp) {
			t.Errorf("located before Run: %v", err)
		}
		// What a call is told needs nobody to be asked.
		if loc, err := s.Deployment("prod").Locate(t.Context(), room, "s1"); err != nil || loc.Shard.name != "s1" {
			t.Errorf("told before Run: %+v, %v", loc, err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- s.Run(ctx) }()
		synctest.Wait()
		if err := s.Run(ctx); err == nil {
			t.Error("ran twice at once")
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if err := s.Run(t.Context()); err == nil {
			t.Error("ran again")
		}
		if st := s.Status()[0]; st.State != Down || !st.JID.IsZero() {
			t.Errorf("after Run: %+v", st)
		}
		if _, err := s.Deployment("prod").Locate(t.Context(), Room{Name: "r"}, ""); !errors.Is(err, ErrNothingUp) {
			t.Errorf("located after Run: %v", err)
		}
		if err := s.Reload(one("s1")); err == nil {
			t.Error("reloaded after Run")
		}
		if w.at(urlOf("s1")).online[0].Err() == nil {
			t.Error("the control session lives on")
		}
	})
}
