package brewery

import (
	"cmp"
	"context"
	"encoding/xml"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"brewline/config"
	"brewline/internal/jitsitest"
	"brewline/internal/jitsitest/client"
	"brewline/internal/jitsitest/jicofo"
	"brewline/internal/jitsitest/xmppd"
	"brewline/internal/needtool"
	"brewline/internal/prosodytest"
	"brewline/xmpp"
)

// These tests put a simulated Jicofo into the brewery, on simulated servers
// and on Prosody.

// site is a shard to be a gateway of.
type site struct {
	name, url, domain, password string
	component, secret           string
	focus                       *jicofo.Jicofo
	kill, restart               func()
	sim                         *xmppd.Server
}

func (s *site) brewery() string { return "jigasibrewery@internal.auth." + s.domain }

func (s *site) shard() config.Shard {
	return config.Shard{Name: s.name, Deployment: s.domain, URL: s.url, AuthDomain: "auth." + s.domain,
		Username: "jigasi", Password: config.Secret(s.password), Brewery: s.brewery(), Region: "eu"}
}

func (s *site) startFocus(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	s.focus = must(jicofo.Start(ctx, jicofo.Options{ComponentAddr: s.component, Domain: s.domain, Secret: s.secret,
		Brewery: s.brewery(), ReconnectInterval: 50 * time.Millisecond, InitialTimeout: patience}))(t)
	t.Cleanup(func() { _ = s.focus.Close() })
}

// simulated starts a shard of a simulated server.
func simulated(t *testing.T, name, domain string) *site {
	t.Helper()
	s := &site{name: name, domain: domain, password: "secret-" + name}
	s.sim = must(xmppd.Start(xmppd.Options{Domain: domain, Shard: name,
		Accounts: map[string]string{"jigasi": s.password, "jvb": "pw"}, Admins: []string{"jigasi@auth." + domain}}))(t)
	t.Cleanup(func() { _ = s.sim.Close() })
	s.url, s.component, s.secret = s.sim.BOSHURL(), s.sim.ComponentAddr(), s.sim.Options().ComponentSecret
	s.kill = s.sim.Kill
	s.restart = func() {
		if err := s.sim.Restart(); err != nil {
			t.Fatal(err)
		}
	}
	s.startFocus(t)
	return s
}

// prosody starts a shard of a real Prosody.
func prosodySite(t *testing.T, name, domain string) *site {
	t.Helper()
	s := &site{name: name, domain: domain, password: "secret-" + name}
	p := prosodytest.Start(t, prosodytest.Options{Domain: domain, RestrictRooms: true,
		Accounts: map[string]string{"jigasi": s.password, "jvb": "pw"},
		Admins:   []string{"focus@focus." + domain, "jigasi@auth." + domain}})
	s.url, s.component, s.secret = p.BOSHURL(), p.ComponentAddr(), p.ComponentSecret
	s.kill, s.restart = p.Kill, p.Restart
	s.startFocus(t)
	return s
}

func onServers(t *testing.T, domains []string, test func(t *testing.T, sites []*site)) {
	for kind, start := range map[string]func(*testing.T, string, string) *site{"simulated": simulated, "prosody": prosodySite} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			var sites []*site
			for i, d := range domains {
				sites = append(sites, start(t, fmt.Sprintf("s%d", i+1), d))
			}
			test(t, sites)
		})
	}
}

// serving starts a Set for the sites whose calls are all accepted, under the
// shard's name as nick, and awaits it in the breweries.
func serving(t *testing.T, sites []*site, onDial func(*DialRequest)) *Set {
	t.Helper()
	var deps []config.Deployment
	var shards []config.Shard
	for _, s := range sites {
		if !slices.ContainsFunc(deps, func(d config.Deployment) bool { return d.Name == s.domain }) {
			deps = append(deps, config.Deployment{Name: s.domain, Domain: s.domain})
		}
		shards = append(shards, s.shard())
	}
	if onDial == nil {
		onDial = func(r *DialRequest) { _ = r.Ref(r.Room.WithResource(r.Shard.Name())) }
	}
	s := must(New(conf(deps, shards...), Options{OnDial: onDial, Version: "1.2", Timers: Timers{
		Ping: 500 * time.Millisecond, PingTimeout: 2 * time.Second, RetryMin: 10 * time.Millisecond, RetryMax: 200 * time.Millisecond,
		PresenceGap: 20 * time.Millisecond, Presence: time.Second, Echo: 2 * time.Second}}))(t)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	for _, x := range sites {
		awaitBrewery(t, s, x)
	}
	return s
}

// awaitBrewery waits until the focus of a site sees us, and only us.
func awaitBrewery(t *testing.T, s *Set, x *site) {
	t.Helper()
	await(t, x.name+" in the brewery", func() bool {
		st := status(t, s, x.name)
		gs := slices.DeleteFunc(x.focus.Gateways(), func(g jicofo.Gateway) bool { return !strings.HasPrefix(g.Nick, "brewline_") })
		return st.Brewery == BreweryJoined && st.Focus && len(gs) == 1 && gs[0].Nick == st.JID.Resource && gs[0].Stats != nil
	})
}

// meet opens a room as a web user does, who gets to be its moderator.
func (s *site) meet(t *testing.T, room string) *jitsitest.Browser {
	t.Helper()
	b := must(jitsitest.JoinBrowser(t.Context(), jitsitest.BrowserOptions{URL: s.url, Domain: s.domain, Room: room, Timeout: patience}))(t)
	t.Cleanup(func() { _ = b.Close() })
	return b
}

// dialOut asks for a call as a web client does, until the focus has made it a
// moderator.
func (s *site) dialOut(ctx context.Context, b *jitsitest.Browser, room, number string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	jid := room + "@conference." + s.domain
	for {
		a, err := b.Request(ctx, "set", jid+"/focus", "<dial xmlns='urn:xmpp:rayo:1' from='fromnumber' to='"+number+
			"'><header name='JvbRoomName' value='"+jid+"'/></dial>")
		if err != nil || !strings.Contains(a, "forbidden") {
			return a, err
		}
	}
}

// Three shards with equal names, brewery JIDs too, and again with different
// ones: each dial request comes from its own shard and its answer goes there.
func TestDialFromEveryShard(t *testing.T) {
	t.Parallel()
	for name, domains := range map[string][]string{
		"equal names":     {"meet.example", "meet.example", "meet.example"},
		"different names": {"a.example", "b.example", "c.example"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var sites []*site
			for i, d := range domains {
				sites = append(sites, simulated(t, fmt.Sprintf("s%d", i+1), d))
			}
			s := serving(t, sites, nil)
			s.SetLoad(Load{Conferences: 2, Participants: 5, Stress: 0.01})
			for _, x := range sites {
				s.SetCanDial(x.name, true)
			}
			for _, x := range sites {
				await(t, "what the focus of "+x.name+" knows", func() bool {
					st := x.focus.Gateways()[0].Stats
					return st["supports_sip"] == "true" && st["participants"] == "5" && st["region"] == "eu"
				})
			}
			var browsers []*jitsitest.Browser
			for _, x := range sites {
				browsers = append(browsers, x.meet(t, "standup"))
			}
			all := func(sites []*site, n int) {
				t.Helper()
				var wg sync.WaitGroup
				for i, x := range sites {
					for range n {
						wg.Go(func() {
							a, err := x.dialOut(t.Context(), browsers[i], "standup", "+15551234567")
							if want := "uri='xmpp:standup@conference." + x.domain + "/" + x.name + "'"; err != nil || !strings.Contains(strings.ReplaceAll(a, `"`, "'"), want) {
								t.Errorf("%s: %s, %v", x.name, a, err)
							}
						})
					}
				}
				wg.Wait()
			}
			all(sites, 10)

			// One is killed while the other two dial.
			go sites[2].kill()
			all(sites[:2], 10)
			await(t, "s3 out", func() bool { return status(t, s, "s3").Brewery == BreweryOut })
			sites[2].restart()
			awaitBrewery(t, s, sites[2])
			await(t, "the load again", func() bool { return sites[2].focus.Gateways()[0].Stats["participants"] == "5" })
			browsers[2] = sites[2].meet(t, "standup")
			all(sites, 1)
			// An answer is counted once it was sent.
			await(t, "the last answer counted", func() bool { st := s.Stats(); return st.DialsAccepted+st.DialsUnheard == st.Dials })
			if st := s.Stats(); st.DialsAccepted < 53 || st.DialsAccepted != st.Dials || st.DialsForbidden+st.DialsBad+st.DialsTwice != 0 {
				t.Errorf("counted %+v", st)
			}
		})
	}
}

// names lists the children of a presence, and the statistics in it.
func childrenOf(t *testing.T, presence string) (children, stats []string) {
	t.Helper()
	var p struct {
		Children []struct {
			XMLName xml.Name
			Stats   []struct {
				Name string `xml:"name,attr"`
			} `xml:"stat"`
		} `xml:",any"`
	}
	if err := xml.Unmarshal([]byte(presence), &p); err != nil {
		t.Fatal(err)
	}
	for _, c := range p.Children {
		// The recording leaves out the stream's namespace.
		children = append(children, cmp.Or(c.XMLName.Space, "jabber:client")+" "+c.XMLName.Local)
		for _, s := range c.Stats {
			stats = append(stats, s.Name)
		}
	}
	slices.Sort(children)
	slices.Sort(stats)
	return children, stats
}

// Others in the breweries of two Prosodys see of us what they saw of the real
// Jigasi: the same elements, the same statistics, and the region. What their
// Jicofos send us, and are told, is what the real ones sent and were told.
func TestAsJigasi(t *testing.T) {
	t.Parallel()
	b, err := os.ReadFile("testdata/real-jigasi-brewery.xml")
	if err != nil {
		t.Fatal(err)
	}
	recording := string(b)
	recorded := recording[strings.Index(recording, `<presence from="jigasibrewery@internal.auth.meet.shard1.test/jitsi-u6edj8" xml:lang="en" id="GZ68V-17"`):]
	recorded = recorded[:strings.Index(recorded, "</presence>")+len("</presence>")]

	sites := []*site{prosodySite(t, "s1", "a.test"), prosodySite(t, "s2", "b.test")}
	got := make(chan *DialRequest, 1)
	s := serving(t, sites, func(r *DialRequest) {
		got <- r
		_ = r.Ref(r.Room.WithResource("21c442e3"))
	})
	for _, x := range sites {
		presenceAsJigasi(t, s, x, recorded)

		s.SetCanDial(x.name, true)
		await(t, "the focus knows that we may dial", func() bool { return x.focus.Gateways()[0].Stats["supports_sip"] == "true" })
		meeting := x.meet(t, "sipout1")
		answer, err := x.dialOut(t.Context(), meeting, "sipout1", "sip:bob@127.0.0.1:15071")
		if err != nil {
			t.Fatal(err)
		}
		r := <-got
		if r.iq.Type != "set" || r.iq.From.String() != x.brewery()+"/focus" || r.iq.To != status(t, s, x.name).JID {
			t.Errorf("%s: a request of type %s from %s to %s", x.name, r.iq.Type, r.iq.From, r.iq.To)
		}
		if got, want := outline(t, string(r.iq.Raw)), outline(t, part(recording, "<dial ", "</dial>")); got != want {
			t.Errorf("%s: Jicofo asks\n%s\nthe real one asked\n%s", x.name, got, want)
		}
		if got, want := outline(t, part(answer, "<ref ", "/>")), outline(t, part(recording, "<ref ", "/>")); got != want || !strings.Contains(answer, "xmpp:sipout1@conference."+x.domain+"/21c442e3") {
			t.Errorf("%s: we answer\n%s\nJigasi answered\n%s", x.name, got, want)
		}
	}
}

// part is a piece of text, with both of its ends.
func part(s, begin, end string) string {
	_, s, _ = strings.Cut(s, begin)
	s, _, _ = strings.Cut(s, end)
	return begin + s + end
}

// outline is elements with their namespaces and attributes, of whose values
// only that of name stays.
func outline(t *testing.T, text string) string {
	t.Helper()
	var b strings.Builder
	for d := xml.NewDecoder(strings.NewReader(text)); ; {
		token, err := d.Token()
		if err == io.EOF {
			return b.String()
		} else if err != nil {
			t.Fatalf("%v in %s", err, text)
		}
		e, ok := token.(xml.StartElement)
		if !ok {
			continue
		}
		var attrs []string
		for _, a := range e.Attr {
			switch a.Name.Local {
			case "xmlns":
			case "name":
				attrs = append(attrs, "name="+a.Value)
			default:
				attrs = append(attrs, a.Name.Local)
			}
		}
		slices.Sort(attrs)
		fmt.Fprintln(&b, e.Name.Space, e.Name.Local, attrs)
	}
}

func presenceAsJigasi(t *testing.T, s *Set, x *site, recorded string) {
	t.Helper()
	us := x.brewery() + "/" + status(t, s, x.name).JID.Resource
	seen := make(chan string, 64)
	o := must(client.Dial(t.Context(), client.Options{URL: x.url, Domain: "auth." + x.domain, Username: "jvb", Password: "pw", Resource: "jvb1",
		Handler: func(st client.Stanza) {
			if st.Name == "presence" && st.From == us && len(seen) < cap(seen) {
				seen <- st.XML
			}
		}}))(t)
	t.Cleanup(func() { _ = o.Close() })
	if err := o.Send("<presence xmlns='jabber:client' to='" + x.brewery() + "/jvb1'><x xmlns='http://jabber.org/protocol/muc'/></presence>"); err != nil {
		t.Fatal(err)
	}
	wantChildren, wantStats := childrenOf(t, recorded)
	wantStats = append(wantStats, "region")
	slices.Sort(wantStats)
	var ours string
	for range 3 { // the first, as the room kept it, and what follows
		select {
		case ours = <-seen:
		case <-time.After(patience):
			t.Fatal("we are not seen")
		}
		children, stats := childrenOf(t, ours)
		if !slices.Equal(slices.DeleteFunc(children, func(c string) bool { return c == "jabber:client status" }), wantChildren) || !slices.Equal(stats, wantStats) {
			t.Errorf("ours has %v with %v,\nJigasi's %v with %v\n%s", children, stats, wantChildren, wantStats, ours)
		}
	}

	// What the caps stand for has the feature by which Jicofo knows a gateway.
	var p struct {
		Caps xmpp.Caps `xml:"http://jabber.org/protocol/caps c"`
	}
	if err := xml.Unmarshal([]byte(ours), &p); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	a, err := o.Request(ctx, "get", us, "<query xmlns='http://jabber.org/protocol/disco#info' node='"+p.Caps.Node+"#"+p.Caps.Ver+"'/>")
	if err != nil || !strings.Contains(a.XML, "http://jitsi.org/protocol/jigasi") {
		t.Errorf("caps %+v: %s, %v", p.Caps, a.XML, err)
	}
}

// Two Prosodys, each with a Jicofo: what the real one sends is what arrives,
// and both may be killed and come back, under load.
func TestProsodyKilledAndRestarted(t *testing.T) {
	t.Parallel()
	times := 2
	if needtool.Long() {
		times = 10
	}
	for name, domains := range map[string][2]string{"equal names": {"meet.test", "meet.test"}, "different names": {"a.test", "b.test"}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sites := []*site{prosodySite(t, "s1", domains[0]), prosodySite(t, "s2", domains[1])}
			var mu sync.Mutex
			got := map[string]int{}
			s := serving(t, sites, func(r *DialRequest) {
				mu.Lock()
				got[r.Shard.Name()]++
				mu.Unlock()
				_ = r.Ref(r.Room.WithResource(r.Shard.Name()))
			})
			for _, x := range sites {
				s.SetCanDial(x.name, true)
			}
			ctx, stop := context.WithCancel(t.Context())
			defer stop()
			var wg sync.WaitGroup
			defer wg.Wait()
			defer stop()
			wg.Go(func() { // the other one works all the time
				b, err := jitsitest.JoinBrowser(ctx, jitsitest.BrowserOptions{URL: sites[1].url, Domain: sites[1].domain, Room: "standup"})
				if err != nil {
					t.Error(err)
					return
				}
				defer b.Close()
				for n := 0; ctx.Err() == nil; n++ {
					s.SetLoad(Load{Conferences: n})
					a, err := sites[1].dialOut(ctx, b, "standup", "112")
					if ctx.Err() == nil && (err != nil || !strings.Contains(a, "/s2")) {
						t.Errorf("s2: %s, %v", a, err)
						return
					}
				}
			})
			for range times {
				sites[0].kill()
				await(t, "s1 out", func() bool { return status(t, s, "s1").Brewery == BreweryOut })
				sites[0].restart()
				awaitBrewery(t, s, sites[0])
				await(t, "s1 may dial", func() bool { return sites[0].focus.Gateways()[0].Stats["supports_sip"] == "true" })
				b := sites[0].meet(t, "standup")
				if a, err := sites[0].dialOut(t.Context(), b, "standup", "112"); err != nil || !strings.Contains(a, "/s1") {
					t.Errorf("s1: %s, %v", a, err)
				}
				_ = b.Close()
			}
			mu.Lock()
			defer mu.Unlock()
			if got["s1"] != times || got["s2"] < times {
				t.Errorf("dialled %v", got)
			}
			if st := status(t, s, "s2"); st.Retries != 0 || s.Stats().BreweryLost != 0 {
				t.Errorf("s2 noticed: %+v", st)
			}
		})
	}
}

// What happens to a presence in a brewery is undone, whatever it was.
func TestPresenceComesBack(t *testing.T) {
	t.Parallel()
	onServers(t, []string{"meet.test"}, func(t *testing.T, sites []*site) {
		x := sites[0]
		s := serving(t, sites, nil)
		again := func(what string, do func(nick string) error) {
			t.Helper()
			n := s.Stats().BreweryJoined
			if err := do(status(t, s, "s1").JID.Resource); err != nil {
				t.Fatalf("%s: %v", what, err)
			}
			await(t, "back after "+what, func() bool { return s.Stats().BreweryJoined > n })
			awaitBrewery(t, s, x)
			if n := s.Stats().Lost; n != 0 {
				t.Errorf("%s cost the control session", what)
			}
		}
		again("a kick", func(nick string) error { return x.kick(t, nick) })
		again("a destroyed brewery", func(string) error { return x.destroy(t) })

		// Jicofo goes and comes.
		x.focus.Kill()
		await(t, "no focus", func() bool { return !status(t, s, "s1").Focus })
		if st := status(t, s, "s1"); st.Brewery != BreweryJoined {
			t.Errorf("without focus: %+v", st)
		}
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		if err := x.focus.Return(ctx); err != nil {
			t.Fatal(err)
		}
		awaitBrewery(t, s, x)
	})
}

// kick puts an occupant out of the brewery.
func (s *site) kick(t *testing.T, nick string) error {
	if s.sim != nil {
		return s.sim.Kick(s.brewery(), nick, "out")
	}
	return s.asAdmin(t, "<query xmlns='http://jabber.org/protocol/muc#admin'><item nick='"+nick+"' role='none'><reason>out</reason></item></query>")
}

// destroy ends the brewery.
func (s *site) destroy(t *testing.T) error {
	if s.sim != nil {
		return s.sim.Destroy(s.brewery(), "", "over")
	}
	return s.asAdmin(t, "<query xmlns='http://jabber.org/protocol/muc#owner'><destroy><reason>over</reason></destroy></query>")
}

// asAdmin has an owner in the brewery ask for something.
func (s *site) asAdmin(t *testing.T, payload string) error {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	in := make(chan struct{}, 64)
	c := must(client.Dial(ctx, client.Options{URL: s.url, Domain: "auth." + s.domain, Username: "jigasi", Password: s.password, Resource: "admin",
		Handler: func(st client.Stanza) {
			if st.Name == "presence" && strings.Contains(st.XML, "110") && len(in) < cap(in) {
				in <- struct{}{}
			}
		}}))(t)
	defer c.Close()
	if err := c.Send("<presence xmlns='jabber:client' to='" + s.brewery() + "/zz'><x xmlns='http://jabber.org/protocol/muc'/></presence>"); err != nil {
		return err
	}
	select {
	case <-in:
	case <-ctx.Done():
		return ctx.Err()
	}
	if a, err := c.Request(ctx, "set", s.brewery(), payload); err != nil || a.Type != "result" {
		return fmt.Errorf("%s: %w", a.XML, err)
	}
	return nil
}

// The nick is somebody else's before we come.
func TestNickTakenOnServer(t *testing.T) {
	t.Parallel()
	onServers(t, []string{"meet.test"}, func(t *testing.T, sites []*site) {
		x := sites[0]
		other := must(client.Dial(t.Context(), client.Options{URL: x.url, Domain: "auth." + x.domain, Username: "jvb", Password: "pw"}))(t)
		t.Cleanup(func() { _ = other.Close() })
		deps := []config.Deployment{{Name: x.domain, Domain: x.domain}}
		s := must(New(conf(deps, x.shard()), Options{Timers: Timers{RetryMin: 10 * time.Millisecond, RetryMax: 100 * time.Millisecond}}))(t)
		taken := s.Deployment(x.domain).Shard("s1").resource
		if err := other.Send("<presence xmlns='jabber:client' to='" + x.brewery() + "/" + taken + "'><x xmlns='http://jabber.org/protocol/muc'/></presence>"); err != nil {
			t.Fatal(err)
		}
		await(t, "the nick taken", func() bool { return len(x.focus.Gateways()) == 1 })
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- s.Run(ctx) }()
		defer func() { cancel(); <-ended }()
		await(t, "another nick", func() bool {
			st := status(t, s, "s1")
			return st.Brewery == BreweryJoined && st.JID.Resource != taken && len(x.focus.Gateways()) == 2
		})
		if s.Stats().Lost != 0 {
			t.Error("the control session was lost")
		}
	})
}

// A wrong password takes the brewery away and says so; rooms are found still.
func TestAccountRefusedOnServer(t *testing.T) {
	t.Parallel()
	onServers(t, []string{"meet.test"}, func(t *testing.T, sites []*site) {
		x := sites[0]
		wrong := *x
		wrong.password = "wrong"
		deps := []config.Deployment{{Name: x.domain, Domain: x.domain}}
		s := must(New(conf(deps, wrong.shard()), Options{Timers: Timers{RetryMin: 10 * time.Millisecond, RetryMax: 100 * time.Millisecond}}))(t)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- s.Run(ctx) }()
		defer func() { cancel(); <-ended }()
		await(t, "refused", func() bool {
			st := status(t, s, "s1")
			return st.State == Up && st.Brewery == BreweryOut && strings.Contains(text(st.BreweryErr), xmpp.ErrAuth.Error())
		})
		x.meet(t, "standup")
		d := s.Deployment(x.domain)
		if loc, err := d.Locate(t.Context(), Room{Name: "standup"}, ""); err != nil || loc.How != HowAsked {
			t.Errorf("%+v, %v", loc, err)
		}
		if err := s.Reload(conf(deps, x.shard())); err != nil {
			t.Fatal(err)
		}
		awaitBrewery(t, s, x)
	})
}

// The HTTP invitation of Prosody's mod_muc_jigasi_invite comes to our full JID,
// in the name of the focus. A stranger's does not count, whatever it says.
func TestInviteOverHTTP(t *testing.T) {
	t.Parallel()
	x := simulated(t, "s1", "meet.example")
	got := make(chan *DialRequest, 1)
	s := serving(t, []*site{x}, func(r *DialRequest) { got <- r })
	us := status(t, s, "s1").JID.String()
	iq := func(id, from string) string {
		return "<iq xmlns='jabber:client' type='set' id='" + id + "' from='" + from + "' to='" + us + "'><dial xmlns='urn:xmpp:rayo:1' from='fromnumber' to='+49301'>" +
			"<header xmlns='urn:xmpp:rayo:1' name='JvbRoomName' value='standup@conference.meet.example'/></dial></iq>"
	}
	for _, from := range []string{x.brewery() + "/jvb1", x.brewery(), "standup@conference.meet.example/focus", "evil@meet.example/focus"} {
		if err := x.sim.Inject(us, iq("x", from)); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 { // twice the same
		if err := x.sim.Inject(us, iq("i", x.brewery()+"/focus")); err != nil {
			t.Fatal(err)
		}
	}
	select {
	case r := <-got:
		if r.To != "+49301" || r.Room.String() != "standup@conference.meet.example" {
			t.Errorf("%+v", r)
		}
		if err := r.Ref(r.Room.WithResource("1a2b3c4d")); err != nil {
			t.Error(err)
		}
	case <-time.After(patience):
		t.Fatal("not invited")
	}
	await(t, "the refusals", func() bool { st := s.Stats(); return st.DialsForbidden == 4 && st.DialsTwice == 1 })
	if len(got) != 0 {
		t.Error("a stranger dialled, or one request counts twice")
	}
}
