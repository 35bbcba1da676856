package brewery

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"brewline/config"
	"brewline/internal/jitsitest/lb"
	"brewline/internal/jitsitest/xmppd"
	"brewline/xmpp"
)

// These tests hold a Set to simulated shards over real sockets.

// patience bounds what is awaited here.
const patience = 20 * time.Second

func await(t *testing.T, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !f(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", patience, what)
		}
	}
}

func shard(t *testing.T, o xmppd.Options) *xmppd.Server {
	t.Helper()
	if o.Domain == "" {
		o.Domain = "meet.example"
	}
	// There is no focus here: whoever comes opens the room.
	o.OpenRoomCreation, o.Admins = true, []string{o.Domain}
	s := must(xmppd.Start(o))(t)
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// running starts a Set and awaits its shards.
func running(t *testing.T, cfg *config.Config) *Set {
	t.Helper()
	cfg.Gateway.LocateTimeout.Duration = patience // nothing here depends on it
	tr := &http.Transport{}
	s := must(New(cfg, Options{HTTP: &http.Client{Transport: tr}, Timers: Timers{
		Ping: 500 * time.Millisecond, PingTimeout: 2 * time.Second,
		RetryMin: 10 * time.Millisecond, RetryMax: 100 * time.Millisecond, Late: patience}}))(t)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
		tr.CloseIdleConnections()
	})
	await(t, "all shards up", func() bool { return s.Up() == len(cfg.Shards) })
	return s
}

// enter opens a session as a call does and joins the room.
func enter(t *testing.T, d *Deployment, loc Location, r Room) *xmpp.Session {
	t.Helper()
	o := must(d.SessionOptions(loc.Shard, loc, r, Credentials{}))(t)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	sess := must(xmpp.Dial(ctx, o))(t)
	t.Cleanup(func() { _ = sess.Close() })
	must(sess.Join(ctx, xmpp.RoomOptions{Room: d.RoomJID(r, loc.Shard), Nick: "0a1b2c3d"}))(t)
	return sess
}

func TestShardsOfOneName(t *testing.T) {
	t.Parallel()
	servers := map[string]*xmppd.Server{}
	cfg := conf([]config.Deployment{{Name: "prod"}})
	for _, n := range []string{"s1", "s2", "s3"} {
		servers[n] = shard(t, xmppd.Options{Shard: n, Accounts: map[string]string{"gw": "secret-" + n}})
		cfg.Shards = append(cfg.Shards, config.Shard{Name: n, URL: servers[n].BOSHURL(),
			AuthDomain: "auth.meet.example", Username: "gw", Password: config.Secret("secret-" + n)})
	}
	cfg.Shards[1].URL = servers["s2"].WebSocketURL()
	s := running(t, conf(cfg.Deployments, cfg.Shards...))
	d := s.Deployment("prod")
	for _, st := range s.Status() {
		if st.JID.Domain != "auth.meet.example" || st.Mismatch != "" {
			t.Errorf("%+v", st)
		}
	}

	for raw, want := range map[string]string{"Standup": "s2", "Réunion": "s3", "acme/Standup": "s1"} {
		_, r, err := s.Resolve(Hints{Room: raw})
		if err != nil {
			t.Fatal(err)
		}
		there := must(d.Locate(t.Context(), r, want))(t) // a first web user is sent there
		enter(t, d, there, r)
		loc, err := d.Locate(t.Context(), r, "")
		if err != nil || loc.How != HowAsked || loc.Shard.name != want {
			t.Errorf("%s: %+v, %v; want %s", raw, loc, err, want)
			continue
		}
		for sh := range loc.Later {
			t.Errorf("%s is on %s as well", raw, sh.name)
		}
		seen := 0
		for _, q := range servers[want].Requests() {
			if q.Room == r.Name && q.Prefix == r.Tenant {
				seen++
			}
		}
		if seen == 0 {
			t.Errorf("%s saw no request with room=%s prefix=%s", want, r.Name, r.Tenant)
		}
		got, err := d.Elsewhere(t.Context(), r, d.Shard("s2"))
		if want == "s2" && len(got) != 0 || want != "s2" && names(got) != want || err != nil {
			t.Errorf("%s is elsewhere than on s2: %v, %v", raw, names(got), err)
		}
	}
	if n := s.Stats().SplitBrain; n != 0 {
		t.Errorf("%d split brains", n)
	}

	// A crash is noticed and costs only what lived there.
	servers["s3"].Kill()
	await(t, "s3 down", func() bool { return status(t, s, "s3").State == Down })
	if loc, err := d.Locate(t.Context(), Room{Name: "standup"}, ""); err != nil || loc.Shard.name != "s2" {
		t.Errorf("with s3 dead: %+v, %v", loc, err)
	}
	if _, err := d.Locate(t.Context(), Room{Name: "c"}, ""); err != nil && !errors.Is(err, ErrOwnerDown) {
		t.Errorf("with s3 dead: %v", err)
	}
	await(t, "several attempts", func() bool { return status(t, s, "s3").Retries > 3 })
	if err := servers["s3"].Restart(); err != nil {
		t.Fatal(err)
	}
	await(t, "s3 up again", func() bool { return s.Up() == 3 })
	if got, err := d.Elsewhere(t.Context(), Room{Name: "r%c3%a9union"}, nil); err != nil || len(got) != 0 {
		t.Errorf("a room survived the crash: %v, %v", names(got), err)
	}
}

func TestDeploymentsOfDifferentNames(t *testing.T) {
	t.Parallel()
	a := shard(t, xmppd.Options{Domain: "a.example", Shard: "s1"})
	b := shard(t, xmppd.Options{Domain: "b.example", MUC: "muc.b.example", Shard: "s1", VisibleRooms: true})
	s := running(t, conf([]config.Deployment{{Name: "a", Domain: "a.example"}, {Name: "b", Domain: "b.example", MUC: "muc.b.example"}},
		config.Shard{Name: "a1", URL: a.BOSHURL(), HeaderValue: "s1"},
		config.Shard{Name: "b1", URL: "xmpp://" + b.C2SAddr(), Deployment: "b"}))
	for raw, want := range map[string]string{"standup@conference.a.example": "a1", "standup@muc.b.example": "b1"} {
		d, r, err := s.Resolve(Hints{Room: raw})
		if err != nil {
			t.Fatal(err)
		}
		enter(t, d, must(d.Locate(t.Context(), r, ""))(t), r)
		if loc, err := d.Locate(t.Context(), r, ""); err != nil || loc.How != HowAsked || loc.Shard.name != want {
			t.Errorf("%s: %+v, %v", raw, loc, err)
		}
	}
	for _, x := range []*xmppd.Server{a, b} {
		if rooms := x.Rooms(); len(rooms) != 1 || rooms[0].JID != "standup@"+x.MUC() {
			t.Errorf("%s has %+v", x.Domain(), rooms)
		}
	}
}

// Whoever comes first, web user or phone, the balancer sends them to one shard.
func TestShardsBehindBalancer(t *testing.T) {
	t.Parallel()
	for _, domains := range [][]string{{"meet.example"}, {"a.example", "b.example"}} {
		for _, header := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s header=%v", domains, header), func(t *testing.T) {
				t.Parallel()
				testShardsBehindBalancer(t, domains, header)
			})
		}
	}
}

// testShardsBehindBalancer has a deployment of three shards for each domain,
// with a balancer of its own.
func testShardsBehindBalancer(t *testing.T, domains []string, header bool) {
	var deployments []config.Deployment
	var shards []config.Shard
	balancers := map[string]*lb.Balancer{}
	for n, domain := range domains {
		backends := map[string]string{}
		for i := range 3 {
			name := fmt.Sprintf("s%d", 3*n+i+1)
			x := shard(t, xmppd.Options{Shard: name, Domain: domain})
			backends[name] = x.HTTPURL()
			shards = append(shards, config.Shard{Name: name, Deployment: domain, URL: x.BOSHURL()})
		}
		b := must(lb.Start(lb.Options{Backends: backends, StripShardHeader: !header, CheckInterval: -1}))(t)
		t.Cleanup(func() { _ = b.Close() })
		balancers[domain] = b
		deployments = append(deployments, config.Deployment{Name: domain, Domain: domain, Balancer: b.URL() + "{subdomain}/http-bind?room={roomName}"})
	}
	s := running(t, conf(deployments, shards...))
	for _, domain := range domains {
		b, used := balancers[domain], map[string]bool{}
		for i := range 6 {
			d, r, err := s.Resolve(Hints{Room: fmt.Sprintf("acme/Réunion %d", i), Domain: domain})
			if err != nil {
				t.Fatal(err)
			}
			loc := must(d.Locate(t.Context(), r, ""))(t)
			want := b.Where(r.Tenant, r.Name)
			used[want] = true
			if loc.How != HowBalancer || loc.ViaBalancer == header || header && loc.Shard.name != want || !header && loc.Shard != nil {
				t.Fatalf("%s: %+v, want %s", r, loc, want)
			}
			enter(t, d, loc, r)
			got, err := d.Elsewhere(t.Context(), r, nil)
			if err != nil || names(got) != want {
				t.Errorf("%s is on %v, %v; want %s", r, names(got), err, want)
			}
			if loc, err = d.Locate(t.Context(), r, ""); err != nil || loc.How != HowAsked || loc.Shard.name != want {
				t.Errorf("%s, asked: %+v, %v; want %s", r, loc, err, want)
			}
		}
		if len(used) < 2 {
			t.Errorf("the balancer used only %v", used)
		}
		for _, q := range b.Routes() {
			if !strings.HasPrefix(q.Token, "acme/r%c3%a9union%20") {
				t.Errorf("a request with token %q", q.Token)
			}
		}
	}
	for _, domain := range domains {
		for _, sh := range s.Deployment(domain).snap.Load().shards {
			balancers[domain].SetState(sh.name, lb.Down)
		}
		if _, err := s.Deployment(domain).Locate(t.Context(), Room{Name: "new"}, ""); !errors.Is(err, ErrBalancer) {
			t.Errorf("without backends: %v", err)
		}
	}
}

// The address of s1 leads to another shard: seen.
func TestWrongShard(t *testing.T) {
	t.Parallel()
	x := shard(t, xmppd.Options{Shard: "s2"})
	s := running(t, conf([]config.Deployment{{Name: "prod"}}, config.Shard{Name: "s1", URL: x.BOSHURL()}))
	if st := status(t, s, "s1"); st.Mismatch != "s2" {
		t.Errorf("%+v", st)
	}
}

// A shard that falls silent does not hold up the others, and is found out by
// its missing pong.
func TestSilentShard(t *testing.T) {
	t.Parallel()
	layouts(t, testSilentShard)
}

func testSilentShard(t *testing.T, of func(names ...string) *config.Config) {
	t.Parallel()
	cfg := of("s1", "s2")
	a := shard(t, xmppd.Options{Shard: "s1", Domain: cfg.Shards[0].Effective.Domain})
	b := shard(t, xmppd.Options{Shard: "s2", Domain: cfg.Shards[1].Effective.Domain})
	cfg.Shards[0].URL, cfg.Shards[1].URL = a.BOSHURL(), b.WebSocketURL()
	s := must(New(cfg, Options{Timers: Timers{Ping: 100 * time.Millisecond, PingTimeout: time.Second,
		Connect: time.Second, RetryMin: 10 * time.Millisecond, RetryMax: 50 * time.Millisecond}}))(t)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	defer func() { cancel(); <-ended }()
	await(t, "both up", func() bool { return s.Up() == 2 })
	d := s.Deployment(cfg.Shards[0].Deployment)
	enter(t, d, must(d.Locate(t.Context(), room, "s1"))(t), room)
	for _, x := range []struct {
		silent *xmppd.Server
		name   string
	}{{b, "s2"}, {a, "s1"}} {
		x.silent.Faults().Silence(true)
		if x.name == "s2" { // at once, though s2 is not known to be down yet
			if loc, err := d.Locate(t.Context(), room, ""); err != nil || loc.Shard.name != "s1" {
				t.Errorf("%+v, %v", loc, err)
			}
		}
		await(t, x.name+" down", func() bool { return status(t, s, x.name).State == Down })
		if err := status(t, s, x.name).Err; !errors.Is(err, xmpp.ErrSessionLost) && !errors.Is(err, xmpp.ErrUnreachable) && !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: %v", x.name, err)
		}
		x.silent.Faults().Silence(false)
		await(t, x.name+" up again", func() bool { return status(t, s, x.name).State == Up })
	}
}
