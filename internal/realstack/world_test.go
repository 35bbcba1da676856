package realstack

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"brewline/internal/jitsitest"
	"brewline/internal/jitsitest/jicofo"
	"brewline/internal/jitsitest/jvb"
	"brewline/internal/needtool"
	"brewline/internal/prosodytest"
	"brewline/internal/siptest"
	"brewline/internal/tone"
)

const (
	worldTimeout = 5 * time.Minute  // of everything that a test does
	hearTimeout  = 60 * time.Second // of one tone
	setupTimeout = 2 * time.Minute
)

// layouts are the two shapes in which every test of several shards is run.
var layouts = []layout{
	{"equal names", []string{"meet.test"}, 2},
	{"different names", []string{"alpha.test", "beta.test"}, 2},
}

// layout is deployments, by domain, of so many shards each.
type layout struct {
	name    string
	domains []string
	shards  int
}

// inLayouts runs a test with all shards in one deployment, which share their
// names as production has it, and with two deployments of different names that
// both have the same rooms.
func inLayouts(t *testing.T, test func(t *testing.T, l layout)) {
	t.Parallel()
	for _, l := range layouts {
		t.Run(l.name, func(t *testing.T) {
			t.Parallel()
			test(t, l)
		})
	}
}

// world is deployments of real Prosodys and HAProxys with a gateway in front.
type world struct {
	t    *testing.T
	ctx  context.Context
	l    layout
	deps []*deployment
	gw   *gateway
	path string // of brewline.toml
	ca   string // file of the gateway's certificate, which is its own authority
	next int    // number of the next place
}

type deployment struct {
	name, domain string
	shards       []*shard
	balancer     *balancer
}

type shard struct {
	name    string // as brewline.toml has it
	header  string // as HAProxy has it
	dep     *deployment
	prosody *prosodytest.Server
	focus   *jicofo.Jicofo
	bridge  *jvb.Bridge
}

// place is a room on a shard, with a number of its own in the trunk's map.
type place struct {
	shard  *shard
	room   string
	number string
	name   string // what X-Room-Name says: the bare name, or the JID where that is ambiguous
}

type worldOptions struct {
	header  bool                                   // HAProxy names the shard
	gateway string                                 // further keys of [gateway]
	listen  []string                               // further listeners for SIP
	tls     string                                 // further keys of [sip.tls]
	media   string                                 // [media], default bound to 127.0.0.1
	trunk   string                                 // further keys of the trunk of 127.0.0.1
	trunks  string                                 // further [[trunk]] and other tables
	url     func(s *shard, i int) (keys string)    // keys of a shard, default its BOSH URL; i counts all shards
	prosody func(i int, o *prosodytest.Options)    // changes the options of a Prosody
	jicofo  func(d *deployment, o *jicofo.Options) // changes those of a Jicofo
	rooms   []string                               // to have places of
	timeout time.Duration                          // of the whole test, default worldTimeout
	brewery bool                                   // shards have a brewery with their Jicofo in it
	places  map[string][]place                     // filled in, by room
}

// build starts a world. Each of o.rooms gets two places, on two shards: the
// same name in both deployments, or names like it that HAProxy sends to
// different shards of the one.
func build(t *testing.T, l layout, o *worldOptions) *world {
	t.Helper()
	for _, p := range []string{"prosody", "haproxy"} {
		needtool.Path(t, p)
	}
	ctx, cancel := context.WithTimeout(context.Background(), cmp.Or(o.timeout, worldTimeout))
	t.Cleanup(cancel)
	w := &world{t: t, ctx: ctx, l: l, next: 8001}
	for di, domain := range l.domains {
		d := &deployment{name: strings.TrimSuffix(domain, ".test"), domain: domain}
		w.deps = append(w.deps, d)
		var names, addrs []string
		for i := range l.shards {
			s := w.startShard(d, di*l.shards+i, o)
			s.header = fmt.Sprintf("shard-%d", i+1)
			s.name = s.header
			if len(l.domains) > 1 {
				s.name = d.name + "-" + s.header
			}
			d.shards = append(d.shards, s)
			names = append(names, s.header)
			addrs = append(addrs, strings.TrimSuffix(strings.TrimPrefix(s.prosody.BOSHURL(), "http://"), "/http-bind"))
		}
		d.balancer = startBalancer(t, names, addrs, o.header)
		w.await("HAProxy answers", func() bool { _, err := d.balancer.shard(ctx, "probe"); return err == nil })
	}
	o.places = map[string][]place{}
	for _, room := range o.rooms {
		o.places[room] = w.find(room)
	}
	setup, done := context.WithTimeout(ctx, setupTimeout)
	defer done()
	w.write(o)
	w.gw = startGateway(t, setup, w.path, 3+len(o.listen), len(l.domains)*l.shards)
	return w
}

// startShard starts a Prosody with its Jicofo and videobridge.
func (w *world) startShard(d *deployment, i int, o *worldOptions) *shard {
	w.t.Helper()
	s := &shard{dep: d}
	po := prosodytest.Options{
		Domain: d.domain, RestrictRooms: true, Admins: []string{"focus@focus." + d.domain},
		Accounts: map[string]string{"brewline": "tulip"},
		// One kind of shard tells everybody of its rooms, the other, as Jitsi's
		// does, only that they exist.
		HideRooms: i%2 == 1,
	}
	if o.prosody != nil {
		o.prosody(i, &po)
	}
	s.prosody = prosodytest.Start(w.t, po)
	var err error
	if s.bridge, err = jvb.Start(jvb.Options{ID: fmt.Sprintf("jvb%d", i+1)}); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = s.bridge.Stop() })
	var log *slog.Logger
	if testing.Verbose() {
		log = slog.New(slog.NewTextHandler(w.t.Output(), nil)).With("jicofo", i+1)
	}
	jo := jicofo.Options{
		ComponentAddr: s.prosody.ComponentAddr(), Domain: d.domain, Secret: s.prosody.ComponentSecret,
		Bridges: []*jvb.Bridge{s.bridge}, ReconnectInterval: 100 * time.Millisecond, Logger: log,
	}
	if o.brewery {
		jo.Brewery = "jigasibrewery@internal.auth." + d.domain
	}
	if o.jicofo != nil {
		o.jicofo(d, &jo)
	}
	if s.focus, err = jicofo.Start(w.ctx, jo); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = s.focus.Close() })
	return s
}

// find gives places to a room.
func (w *world) find(room string) (places []place) {
	w.t.Helper()
	add := func(s *shard, room string) {
		p := place{shard: s, room: room, number: fmt.Sprint(w.next), name: room}
		if len(w.deps) > 1 {
			p.name += "@conference." + s.dep.domain
		}
		w.next++
		places = append(places, p)
	}
	if len(w.deps) > 1 {
		for _, d := range w.deps {
			add(w.where(d, room), room)
		}
		return places
	}
	d := w.deps[0]
	add(w.where(d, room), room)
	for i := 2; len(places) < 2; i++ {
		like := fmt.Sprintf("%s-%d", room, i)
		if s := w.where(d, like); s != places[0].shard {
			add(s, like)
		}
	}
	return places
}

// where is the shard to which HAProxy sends web users of a room. Without the
// header only the room itself tells, once somebody is in it.
func (w *world) where(d *deployment, room string) *shard {
	w.t.Helper()
	name, err := d.balancer.shard(w.ctx, room)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, s := range d.shards {
		if s.header == name {
			return s
		}
	}
	if name != "" {
		w.t.Fatalf("HAProxy sends %s to %q", room, name)
	}
	return nil
}

// write writes brewline.toml.
func (w *world) write(o *worldOptions) {
	w.t.Helper()
	var b strings.Builder
	fmt.Fprintf(&b, "[gateway]\nname = \"real\"\nlocate_timeout = \"5s\"\n%s\n[log]\nlevel = \"debug\"\nformat = \"json\"\n[http]\nlisten = \"127.0.0.1:0\"\n", o.gateway)
	dir := w.t.TempDir()
	if _, err := prosodytest.WriteCertificate(dir, "gw.example"); err != nil {
		w.t.Fatal(err)
	}
	listen := append([]string{"udp://127.0.0.1:0", "tcp://127.0.0.1:0", "tls://127.0.0.1:0"}, o.listen...)
	fmt.Fprintf(&b, "[sip]\nlisten = [\"%s\"]\n[sip.tls]\ncertificate = %q\nkey = %q\n%s\n%s\n",
		strings.Join(listen, `", "`), filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"), o.tls, cmp.Or(o.media, "[media]\nbind = \"127.0.0.1\""))
	w.ca = filepath.Join(dir, "cert.pem")
	n := 0
	for _, d := range w.deps {
		fmt.Fprintf(&b, "[[deployment]]\nname = %q\ndomain = %q\nbalancer = %q\n", d.name, d.domain, d.balancer.url+"/http-bind?room={roomName}")
		for _, s := range d.shards {
			keys := fmt.Sprintf("url = %q\n", s.prosody.BOSHURL())
			if o.url != nil {
				keys = o.url(s, n)
			}
			if o.brewery {
				keys += "username = \"brewline\"\npassword = \"tulip\"\n"
			}
			n++
			fmt.Fprintf(&b, "[[shard]]\nname = %q\ndeployment = %q\nheader_value = %q\n%s", s.name, d.name, s.header, keys)
		}
	}
	fmt.Fprintf(&b, "[[trunk]]\nname = \"ipbx\"\nmatch = [\"127.0.0.1\"]\n%s\n[trunk.rooms]\n", o.trunk)
	for _, room := range o.rooms {
		for _, p := range o.places[room] {
			fmt.Fprintf(&b, "%q = %q\n", p.number, p.name)
		}
	}
	b.WriteString(o.trunks)
	w.path = filepath.Join(dir, "brewline.toml")
	if err := os.WriteFile(w.path, []byte(b.String()), 0o600); err != nil {
		w.t.Fatal(err)
	}
}

// in is the same world for a subtest.
func (w *world) in(t *testing.T) *world {
	c := *w
	c.t = t
	return &c
}

func (w *world) await(what string, ok func() bool) {
	w.t.Helper()
	for !ok() {
		select {
		case <-w.ctx.Done():
			w.t.Fatalf("never: %s", what)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// says awaits a line of the gateway's log.
func (w *world) says(mark int, msg string, attrs ...string) entry {
	w.t.Helper()
	e, err := w.gw.says(w.ctx, mark, msg, attrs...)
	if err != nil {
		w.t.Fatal(err)
	}
	return e
}

// browser joins a participant who says a tone through HAProxy, as web users
// do, and checks that this leads to the shard.
func (w *world) browser(p place, freq int) *jitsitest.Browser {
	w.t.Helper()
	b := w.join(p.shard.dep, p.room, freq)
	if at := b.Shard(); at != "" && at != p.shard.header {
		w.t.Fatalf("web users of %s are on %s, not on %s", p.name, at, p.shard.header)
	}
	return b
}

func (w *world) join(d *deployment, room string, freq int) *jitsitest.Browser {
	w.t.Helper()
	return w.joinAt(d, d.balancer.url+"/http-bind", room, freq)
}

func (w *world) joinAt(d *deployment, url, room string, freq int) *jitsitest.Browser {
	w.t.Helper()
	var b *jitsitest.Browser
	var err error
	for range 5 { // while HAProxy finds out that a shard is back, it may split a session
		if b, err = jitsitest.JoinBrowser(w.ctx, jitsitest.BrowserOptions{URL: url, Domain: d.domain, Room: room, Tone: freq}); err == nil {
			break
		}
	}
	if err != nil {
		w.t.Fatalf("participant of %s: %v", room, err)
	}
	w.t.Cleanup(func() { _ = b.Close() })
	return b
}

// focusAnswers says whether a shard's Jicofo opens rooms.
func (w *world) focusAnswers(s *shard) bool {
	b, err := jitsitest.JoinBrowser(w.ctx, jitsitest.BrowserOptions{
		URL: s.prosody.BOSHURL(), Domain: s.dep.domain, Room: "probe", Timeout: 5 * time.Second,
	})
	if err != nil {
		return false
	}
	_ = b.Close()
	return true
}

// phone calls a place by header and says a tone.
func (w *world) phone(name string, freq int) *siptest.Call {
	w.t.Helper()
	p, err := siptest.NewPhone(siptest.PhoneOptions{})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = p.Close() })
	c, err := p.Call(w.ctx, siptest.CallOptions{
		URI: "sip:conference@" + w.gw.sip["udp"], Headers: map[string]string{"X-Room-Name": name}, Tone: freq,
	})
	if err != nil {
		w.t.Fatalf("call to %s: %v", name, err)
	}
	return c
}

func (w *world) hangup(c *siptest.Call) {
	w.t.Helper()
	if err := c.Hangup(w.ctx); err != nil {
		w.t.Fatal(err)
	}
}

type listener interface {
	Hear(ctx context.Context, freq int) error
}

// hear fails the test unless the tone is heard from now on.
func (w *world) hear(who string, l listener, freq int) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.ctx, hearTimeout)
	defer cancel()
	if err := l.Hear(ctx, freq); err != nil {
		w.t.Fatalf("%s does not hear %d Hz: %v", who, freq, err)
	}
}

// never fails the test if a tone is in anything that was heard.
func (w *world) never(who string, pcm []int16, rate int, freqs ...int) {
	w.t.Helper()
	if len(pcm) == 0 {
		w.t.Errorf("nothing of what %s heard was kept", who)
	}
	// Piece by piece: a short burst is little of a long recording.
	for _, freq := range freqs {
		for rest := pcm; len(rest) >= rate/5; rest = rest[rate/5:] {
			if piece := rest[:rate/5]; tone.RMS(piece) > -60 && tone.Level(piece, rate, freq) > 0.05 {
				w.t.Errorf("%s heard %d Hz, which is said in another room", who, freq)
				break
			}
		}
	}
}
