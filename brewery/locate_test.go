package brewery

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"brewline/config"
	"brewline/xmpp"
)

const standup = "standup@conference.meet.example"

var room = Room{Name: "standup"}

func names(shards []*Shard) string {
	var n []string
	for _, sh := range shards {
		n = append(n, sh.name)
	}
	return strings.Join(n, " ")
}

// Who says what, and what becomes of it. Without a balancer; standup is owned
// by s3.
func TestLocate(t *testing.T) {
	unreachable := func(context.Context) error { return xmpp.ErrUnreachable }
	for name, c := range map[string]struct {
		answers map[string]reply // by shard; default item-not-found
		down    string
		told    string
		shard   string
		how     How
		err     error
		text    string
		took    time.Duration
		asked   int
		later   string
	}{
		"nobody has it":          {shard: "s3", how: HowHash, asked: 3},
		"result":                 {answers: map[string]reply{"s2": result}, shard: "s2", how: HowAsked, asked: 3},
		"forbidden":              {answers: map[string]reply{"s1": stanzaError("forbidden")}, shard: "s1", how: HowAsked, asked: 3},
		"first hit wins":         {answers: map[string]reply{"s1": after(20*time.Millisecond, result), "s2": never, "s3": never}, shard: "s1", how: HowAsked, asked: 3, took: 20 * time.Millisecond},
		"slow hit":               {answers: map[string]reply{"s1": after(900*time.Millisecond, result)}, shard: "s1", how: HowAsked, asked: 3, took: 900 * time.Millisecond},
		"slow no":                {answers: map[string]reply{"s1": after(900*time.Millisecond, stanzaError("item-not-found"))}, shard: "s3", how: HowHash, asked: 3, took: 900 * time.Millisecond},
		"silent other":           {answers: map[string]reply{"s1": never}, shard: "s3", how: HowHash, asked: 3, took: time.Second},
		"unclear other":          {answers: map[string]reply{"s1": stanzaError("remote-server-timeout")}, shard: "s3", how: HowHash, asked: 3},
		"unclear but a hit":      {answers: map[string]reply{"s1": stanzaError("remote-server-timeout"), "s2": result}, shard: "s2", how: HowAsked, asked: 3},
		"silent owner":           {answers: map[string]reply{"s3": never}, err: ErrOwnerDown, text: "belongs to s3, which gave no clear answer", took: time.Second},
		"owner says timeout":     {answers: map[string]reply{"s3": stanzaError("remote-server-timeout")}, err: ErrOwnerDown},
		"owner says not found":   {answers: map[string]reply{"s3": stanzaError("remote-server-not-found")}, err: ErrOwnerDown},
		"owner says not allowed": {answers: map[string]reply{"s3": stanzaError("not-allowed")}, err: ErrOwnerDown},
		"owner unavailable":      {answers: map[string]reply{"s3": stanzaError("service-unavailable")}, err: ErrOwnerDown},
		"owner lost":             {answers: map[string]reply{"s3": unreachable}, err: ErrOwnerDown},
		"owner down":             {down: "s3", err: ErrOwnerDown, text: "belongs to s3, which is down: server unreachable"},
		"owner down, a hit":      {down: "s3", answers: map[string]reply{"s1": result}, shard: "s1", how: HowAsked, asked: 2},
		"other down":             {down: "s1", shard: "s3", how: HowHash, asked: 2},
		"all down":               {down: "s1 s2 s3", err: ErrNothingUp},
		"told":                   {told: "s2", shard: "s2", how: HowTold},
		"told in other letters":  {told: " S2 ", shard: "s2", how: HowTold},
		"told, lives elsewhere":  {told: "s2", answers: map[string]reply{"s1": result}, shard: "s2", how: HowTold},
		"told one that is down":  {told: "s2", down: "s2", err: ErrOwnerDown, text: "s2, which the call is sent to, is down"},
		"told nonsense":          {told: "s9\r\n", err: ErrUnknownShard, text: `has no "s9"`},
		"split brain": {answers: map[string]reply{"s1": result, "s3": after(300*time.Millisecond, result), "s2": after(2*time.Second, stanzaError("forbidden"))},
			shard: "s1", how: HowAsked, asked: 3, later: "s3 s2"},
		"too late": {answers: map[string]reply{"s1": after(3*time.Second, result)},
			shard: "s3", how: HowHash, asked: 3, took: time.Second, later: "s1"},
		"far too late": {answers: map[string]reply{"s1": after(7*time.Second, result)},
			shard: "s3", how: HowHash, asked: 3, took: time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			w := &world{}
			for sh, r := range c.answers {
				w.at(urlOf(sh)).has(standup, r)
			}
			for sh := range strings.FieldsSeq(c.down) {
				w.at(urlOf(sh)).dial = unreachable
			}
			cfg := one("s1", "s2", "s3")
			cfg.Shards[2].Weight = 2
			bubble(t, cfg, w, func(t *testing.T, s *Set) {
				began := time.Now()
				loc, err := s.Deployment("prod").Locate(t.Context(), room, c.told)
				if took := time.Since(began); took != c.took || loc.Took != took {
					t.Errorf("took %v, says %v, want %v", took, loc.Took, c.took)
				}
				if c.err != nil {
					if !errors.Is(err, c.err) || !strings.Contains(fmt.Sprint(err), c.text) {
						t.Fatalf("error %v, want %v with %q", err, c.err, c.text)
					}
					if loc.Shard != nil || loc.URL != "" {
						t.Errorf("an error and %+v", loc)
					}
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				if loc.Shard == nil || loc.Shard.name != c.shard || loc.How != c.how || loc.Asked != c.asked ||
					loc.URL != urlOf(c.shard) || loc.ViaBalancer {
					t.Errorf("%+v, want %s by %s after asking %d", loc, c.shard, c.how, c.asked)
				}
				if loc.Later == nil {
					return
				}
				var later []*Shard
				for sh := range loc.Later {
					later = append(later, sh)
				}
				if names(later) != c.later {
					t.Errorf("later came %q, want %q", names(later), c.later)
				}
				n := s.Stats()
				if c.how == HowAsked && n.SplitBrain != uint64(len(later)) || c.how == HowHash && n.LateHits != uint64(len(later)) {
					t.Errorf("counted %+v", n)
				}
				if c.how == HowAsked && len(later) > 0 && !w.logged("split brain") {
					t.Error("no alarm in the log")
				}
			})
		})
	}
}

// In production all shards of a deployment have the same names, and another
// deployment may have a room of the same name: each call is kept to its own.
func TestLocateKeepsDeploymentsApart(t *testing.T) {
	w := &world{}
	cfg := conf([]config.Deployment{{Name: "a", Domain: "a.example"}, {Name: "b", Domain: "b.example"}},
		config.Shard{Name: "a1"}, config.Shard{Name: "a2"}, config.Shard{Name: "a3"},
		config.Shard{Name: "b1", Deployment: "b"}, config.Shard{Name: "b2", Deployment: "b"})
	w.at(urlOf("a2")).has("standup@conference.a.example", stanzaError("forbidden"))
	w.at(urlOf("b1")).has("standup@conference.b.example", stanzaError("forbidden"))
	bubble(t, cfg, w, func(t *testing.T, s *Set) {
		for jid, want := range map[string]string{
			"Standup@conference.a.example": "a2", "standup@conference.b.example": "b1",
		} {
			d, r, err := s.Resolve(Hints{Room: jid})
			if err != nil {
				t.Fatal(err)
			}
			loc, err := d.Locate(t.Context(), r, "")
			if err != nil || loc.Shard.name != want || loc.How != HowAsked {
				t.Errorf("%s: %+v, %v; want %s", jid, loc, err, want)
			}
			for range loc.Later {
				t.Error("found twice")
			}
			if j := d.RoomJID(r, loc.Shard); j.String() != strings.ToLower(jid) {
				t.Errorf("%s is called %s", jid, j)
			}
		}
		for name, n := range map[string]int{"a1": 1, "a2": 1, "a3": 1, "b1": 1, "b2": 1} {
			if got := w.at(urlOf(name)).questions(); len(got) != n || !strings.HasSuffix(got[0], name[:1]+".example") {
				t.Errorf("%s was asked for %v", name, got)
			}
		}
		if _, err := s.Deployment("a").Locate(t.Context(), room, "b1"); !errors.Is(err, ErrUnknownShard) {
			t.Errorf("a call of a was sent to b: %v", err)
		}
	})
}

func TestLocateTenantAndOverride(t *testing.T) {
	w := &world{}
	cfg := one("s1", "s2")
	cfg.Shards[1].Effective.MUC = "muc.meet.example"
	w.at(urlOf("s2")).has("standup@muc.acme.meet.example", result)
	bubble(t, cfg, w, func(t *testing.T, s *Set) {
		loc, err := s.Deployment("prod").Locate(t.Context(), Room{Name: "standup", Tenant: "acme"}, "")
		if err != nil || loc.Shard.name != "s2" {
			t.Fatalf("%+v, %v", loc, err)
		}
		synctest.Wait() // the other shard's answer was not waited for
		if q := w.at(urlOf("s1")).questions(); len(q) != 1 || q[0] != "standup@conference.acme.meet.example" {
			t.Errorf("s1 was asked for %v", q)
		}
	})
}

// Identical questions at one moment are one question; a later one is another.
func TestLocateSharesQuestions(t *testing.T) {
	w := &world{}
	w.at(urlOf("s1")).has(standup, after(200*time.Millisecond, result))
	w.at(urlOf("s2")).has(standup, after(500*time.Millisecond, result))
	bubble(t, one("s1", "s2"), w, func(t *testing.T, s *Set) {
		d := s.Deployment("prod")
		const calls = 50
		impatient, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		var wg sync.WaitGroup
		wg.Go(func() { // the first to ask leaves first
			if _, err := d.Locate(impatient, room, ""); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("impatient caller: %v", err)
			}
		})
		synctest.Wait()
		for range calls {
			wg.Go(func() {
				loc, err := d.Locate(t.Context(), room, "")
				if err != nil || loc.Shard.name != "s1" {
					t.Errorf("%+v, %v", loc, err)
					return
				}
				var later []*Shard
				for sh := range loc.Later {
					later = append(later, sh)
				}
				if names(later) != "s2" {
					t.Errorf("later came %q", names(later))
				}
			})
		}
		wg.Go(func() { // another room is another question
			if _, err := d.Locate(t.Context(), Room{Name: "other"}, ""); err != nil {
				t.Error(err)
			}
		})
		wg.Wait()
		if n := len(w.at(urlOf("s1")).questions()); n != 2 {
			t.Errorf("%d questions for two rooms", n)
		}
		if n := s.Stats(); n.Shared != calls || n.Asked != calls || n.Hash != 1 || n.SplitBrain != 1 {
			t.Errorf("counted %+v", n)
		}
		if _, err := d.Locate(t.Context(), room, ""); err != nil {
			t.Error(err)
		}
		if n := len(w.at(urlOf("s1")).questions()); n != 3 {
			t.Errorf("a later question was not asked anew: %d", n)
		}
	})
}

// A shard that hangs without being known to be down costs one deadline until
// then, and nothing afterwards.
func TestDownShardCostsNothing(t *testing.T) {
	w := &world{}
	p := w.at(urlOf("s1"))
	p.other = never
	bubble(t, one("s1", "s2", "s3"), w, func(t *testing.T, s *Set) {
		d := s.Deployment("prod")
		ask := func() time.Duration {
			loc, _ := d.Locate(t.Context(), Room{Name: "c"}, "") // owned by s3 or s2
			return loc.Took
		}
		if took := ask(); took != time.Second {
			t.Errorf("with a silent shard: %v", took)
		}
		p.crash()
		synctest.Wait()
		if took := ask(); took != 0 {
			t.Errorf("with a shard known to be down: %v", took)
		}
		p.set(func(p *prosody) { p.dial = never })
		time.Sleep(5 * time.Second) // while it is tried again
		if took := ask(); took != 0 {
			t.Errorf("with a shard that is tried again: %v", took)
		}
	})
}

// At the start nothing is known of a shard: the first calls wait for it.
func TestLocateWaitsForFirstLogin(t *testing.T) {
	w := &world{}
	w.at(urlOf("s1")).dial = after(400*time.Millisecond, result)
	w.at(urlOf("s1")).has(standup, result)
	bubble(t, one("s1", "s2"), w, func(t *testing.T, s *Set) {
		loc, err := s.Deployment("prod").Locate(t.Context(), room, "")
		if err != nil || loc.Shard.name != "s1" || loc.Took != 400*time.Millisecond {
			t.Errorf("%+v, %v", loc, err)
		}
	})
}

func TestLocateEndsWithRun(t *testing.T) {
	w := &world{}
	w.at(urlOf("s1")).other = never
	synctest.Test(t, func(t *testing.T) {
		s := must(New(one("s1"), Options{dial: w.dial}))(t)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- s.Run(ctx) }()
		synctest.Wait()
		located, elsewhere := make(chan error), make(chan error)
		go func() { _, err := s.Deployment("prod").Locate(t.Context(), room, ""); located <- err }()
		go func() { _, err := s.Deployment("prod").Elsewhere(t.Context(), room, nil); elsewhere <- err }()
		synctest.Wait()
		began := time.Now()
		cancel()
		if err := <-located; err == nil {
			t.Error("located without shards")
		}
		<-elsewhere
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if took := time.Since(began); took != 0 {
			t.Errorf("it took %v to stop", took)
		}
	})
}

func TestElsewhere(t *testing.T) {
	w := &world{}
	bubble(t, one("s1", "s2", "s3", "s4"), w, func(t *testing.T, s *Set) {
		d := s.Deployment("prod")
		ask := func(except *Shard) (string, time.Duration) {
			began := time.Now()
			got, err := d.Elsewhere(t.Context(), room, except)
			if err != nil {
				t.Error(err)
			}
			return names(got), time.Since(began)
		}
		if got, took := ask(nil); got != "" || took != 0 {
			t.Errorf("nobody has it: %q after %v", got, took)
		}
		w.at(urlOf("s3")).has(standup, result)
		w.at(urlOf("s2")).has(standup, after(100*time.Millisecond, stanzaError("forbidden")))
		if got, took := ask(nil); got != "s2 s3" || took != 100*time.Millisecond {
			t.Errorf("%q after %v", got, took)
		}
		if got, _ := ask(d.Shard("s2")); got != "s3" {
			t.Errorf("but for s2: %q", got)
		}
		w.at(urlOf("s1")).has(standup, never)
		if got, took := ask(d.Shard("s2")); got != "s3" || took != time.Second {
			t.Errorf("with a silent shard: %q after %v", got, took)
		}
		w.at(urlOf("s1")).crash()
		synctest.Wait()
		if got, took := ask(d.Shard("s2")); got != "s3" || took != 0 {
			t.Errorf("with a shard that is down: %q after %v", got, took)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if got, err := d.Elsewhere(ctx, Room{Name: "x"}, nil); !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled: %v, %v", names(got), err)
		}
	})
}

// Shards come and go while questions are under way.
func TestLocateDuringReload(t *testing.T) {
	w := &world{}
	for _, n := range []string{"s1", "s2", "s3", "s4"} {
		w.at(urlOf(n)).has(standup, after(3*time.Millisecond, result))
	}
	bubble(t, one("s1", "s2"), w, func(t *testing.T, s *Set) {
		d := s.Deployment("prod")
		var wg sync.WaitGroup
		for i := range 20 {
			wg.Go(func() {
				for range 50 {
					time.Sleep(time.Duration(i) * time.Millisecond)
					loc, err := d.Locate(t.Context(), room, "")
					if err != nil {
						continue // all control sessions may be new
					}
					loc.Shard.Acquire()
					time.Sleep(time.Millisecond)
					loc.Shard.Release()
				}
			})
		}
		for i := range 100 {
			time.Sleep(5 * time.Millisecond)
			next := one("s2", "s3", "s4")
			if i%2 == 0 {
				next = one("s1", "s2")
			}
			if err := s.Reload(next); err != nil {
				t.Error(err)
			}
			s.Status()
		}
		wg.Wait()
		if st := s.Status(); len(st) != 3 {
			t.Errorf("left over: %+v", st)
		}
	})
}
