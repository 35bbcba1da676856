package gateway_test

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

	"go.uber.org/goleak"

	"brewline/config"
	"brewline/gateway"
	"brewline/internal/jitsitest"
	"brewline/internal/siptest"
	"brewline/internal/tone"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is a deployment of simulated shards with a gateway in front.
type world struct {
	t    *testing.T
	ctx  context.Context
	deps []*jitsitest.Deployment
	gw   *gateway.Gateway
	path string
	o    worldOptions

	moved   bool           // sessions were replaced: requests about the old ones may have crossed that
	callee  *siptest.Phone // that the trunk leads to, in a world of dialWorld
	decoyed bool           // somebody says decoyTone where nobody of the test may hear it
}

type worldOptions struct {
	shards   int // of the one deployment, default 3
	two      bool
	apart    bool // each of the shards is a deployment of its own, of other names and password
	balancer bool
	dep      jitsitest.DeploymentOptions
	gateway  string                        // further keys of [gateway]
	http     string                        // further keys of [http]
	sip      string                        // further keys of [sip]
	trunk    string                        // further keys of [[trunk]]
	more     string                        // further tables; {first} is before the names of the first deployment's shards
	token    string                        // of participants
	serial   bool                          // bothWays runs one after the other
	listen   []string                      // default UDP and TCP of 127.0.0.1
	bind     string                        // of media, default 127.0.0.1; "all": all addresses
	media    string                        // further keys of [media]
	match    string                        // addresses of the trunk, default 127.0.0.1
	login    string                        // further keys of each [[deployment]]
	shard    string                        // further keys of each [[shard]]
	url      func(*jitsitest.Shard) string // of a shard; default: its BOSH service
	limit    time.Duration                 // of the whole test, default 1 min
	brewery  bool                          // shards have an account and a brewery
	options  gateway.Options
}

// bothWays runs a test of several shards twice: all shards of one deployment
// with equal names, as production has it, and beside another deployment of
// other names, which has somebody in a room of the same name who must neither
// be heard nor hear.
func bothWays(t *testing.T, o worldOptions, room string, test func(t *testing.T, w *world)) {
	t.Helper()
	startBothWays(t, o, room, newWorld, test)
}

// dialBothWays is bothWays in a world of dialWorld.
func dialBothWays(t *testing.T, o worldOptions, rules, room string, test func(t *testing.T, w *world)) {
	t.Helper()
	startBothWays(t, o, room, func(t *testing.T, o worldOptions) *world {
		w, _ := dialWorld(t, o, rules)
		return w
	}, test)
}

func startBothWays(t *testing.T, o worldOptions, room string, start func(*testing.T, worldOptions) *world, test func(t *testing.T, w *world)) {
	t.Helper()
	t.Run("one deployment", func(t *testing.T) {
		if !o.serial {
			t.Parallel()
		}
		test(t, start(t, o))
	})
	t.Run("two deployments", func(t *testing.T) {
		if !o.serial {
			t.Parallel()
		}
		o := o
		o.two = true
		w := start(t, o)
		decoy := w.browser(w.deps[1].Shards[0], room, decoyTone)
		w.decoyed = true
		test(t, w)
		w.never("the other deployment's participant", decoy.Heard(), 48000, 1000)
	})
}

// decoyTone is said in the room of the same name of another deployment.
const decoyTone = 2300

func newWorld(t *testing.T, o worldOptions) *world {
	t.Helper()
	if o.limit == 0 {
		o.limit = time.Minute
	}
	ctx, cancel := context.WithTimeout(context.Background(), o.limit)
	t.Cleanup(cancel)
	if o.shards == 0 {
		o.shards = 3
	}
	w := &world{t: t, ctx: ctx, o: o}
	do := o.dep
	do.NoBalancer = !o.balancer
	if o.brewery {
		do.Shard.XMPP.Accounts = map[string]string{"gateway": "secret"}
	}
	add := func(n int, do jitsitest.DeploymentOptions) {
		if o.brewery {
			domain := do.Shard.Domain
			if domain == "" {
				domain = "meet.example"
			}
			do.Shard.Jicofo.Brewery = "jigasibrewery@internal.auth." + domain
		}
		if o.apart {
			do.Shard.XMPP.Accounts = map[string]string{"gateway": "secret-of-" + do.Shard.Domain}
		}
		d, err := jitsitest.NewDeployment(n, do)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { d.Close() })
		w.deps = append(w.deps, d)
	}
	if o.apart {
		for i := range o.shards {
			do.Shard.Domain = fmt.Sprintf("%s.example", []string{"alpha", "beta", "gamma"}[i])
			add(1, do)
		}
	} else if o.two {
		// Two deployments of different names.
		do.Shard.Domain = "alpha.example"
		add(o.shards, do)
		do.Shard.Domain = "beta.example"
		add(o.shards, do)
	} else {
		add(o.shards, do)
	}
	w.path = filepath.Join(t.TempDir(), "brewline.toml")
	w.write("")
	cfg, err := config.Load(w.path)
	if err != nil {
		t.Fatal(err)
	}
	if o.options.Logger == nil {
		last := new(lastLog)
		t.Cleanup(func() {
			if t.Failed() {
				t.Logf("what the gateway logged last:\n%s", last.String())
			}
		})
		o.options.Logger = slog.New(slog.NewTextHandler(last, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	o.options.Version = "test"
	if w.gw, err = gateway.Start(ctx, cfg, o.options); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.gw.Close)
	w.await("all shards up", func() bool {
		for _, s := range w.gw.Brewery().Status() {
			if s.State != "up" {
				return false
			}
		}
		return true
	})
	return w
}

// write writes the configuration; without is a shard to leave out.
func (w *world) write(without string) {
	var b strings.Builder
	fmt.Fprintf(&b, "[gateway]\nname = \"test\"\n%s\n[http]\nlisten = \"127.0.0.1:0\"\n%s\n", w.o.gateway, w.o.http)
	listen := w.o.listen
	if listen == nil {
		listen = []string{"udp://127.0.0.1:0", "tcp://127.0.0.1:0"}
	}
	bind := fmt.Sprintf("bind = %q", cmp.Or(w.o.bind, "127.0.0.1"))
	if w.o.bind == "all" {
		bind = ""
	}
	fmt.Fprintf(&b, "[sip]\nlisten = [\"%s\"]\n%s\n[media]\n%s\n%s\n", strings.Join(listen, `", "`), w.o.sip, bind, w.o.media)
	trunk := w.o.trunk
	for i, d := range w.deps {
		name := fmt.Sprintf("dep%d", i+1)
		fmt.Fprintf(&b, "[[deployment]]\nname = %q\ndomain = %q\n", name, d.Shards[0].Domain())
		fmt.Fprintln(&b, w.o.login)
		if d.Balancer != nil {
			fmt.Fprintf(&b, "balancer = %q\n", d.Balancer.URL()+"/http-bind?room={roomName}")
		}
		for _, s := range d.Shards {
			if w.prefix(i)+s.Name == without {
				continue
			}
			fmt.Fprintf(&b, "[[shard]]\nname = \"%s%s\"\nheader_value = %q\ndeployment = %q\nurl = %q\n",
				w.prefix(i), s.Name, s.Name, name, w.url(s))
			fmt.Fprintln(&b, w.o.shard)
			if w.o.brewery {
				password := "secret"
				if w.o.apart {
					password += "-of-" + s.Domain()
				}
				fmt.Fprintf(&b, "username = \"gateway\"\npassword = %q\n", password)
			}
		}
		if len(w.deps) == 1 && !contains(trunk, "deployment =") {
			trunk = "deployment = \"dep1\"\n" + trunk
		}
	}
	fmt.Fprintf(&b, "[[trunk]]\nname = \"ipbx\"\nmatch = [%q]\ncodecs = [\"opus\", \"g722\", \"pcma\", \"pcmu\"]\n%s\n", cmp.Or(w.o.match, "127.0.0.1"), trunk)
	b.WriteString(strings.ReplaceAll(w.o.more, "{first}", w.prefix(0)))
	if err := os.WriteFile(w.path, []byte(b.String()), 0o600); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) url(s *jitsitest.Shard) string {
	if w.o.url != nil {
		return w.o.url(s)
	}
	return s.BOSHURL()
}

// shardNames are those of all shards, as the configuration has them.
func (w *world) shardNames() (names []string) {
	for i, d := range w.deps {
		for _, sh := range d.Shards {
			names = append(names, w.prefix(i)+sh.Name)
		}
	}
	return names
}

// prefix makes the names of the shards of several deployments differ.
func (w *world) prefix(deployment int) string {
	if len(w.deps) == 1 {
		return ""
	}
	return fmt.Sprintf("d%d-", deployment+1)
}

func (w *world) await(what string, ok func() bool) {
	w.t.Helper()
	for !ok() {
		select {
		case <-w.ctx.Done():
			w.t.Fatalf("never: %s", what)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// browser joins a participant who says a tone, directly at a shard.
func (w *world) browser(s *jitsitest.Shard, room string, tone int) *jitsitest.Browser {
	w.t.Helper()
	b, err := jitsitest.JoinBrowser(w.ctx, jitsitest.BrowserOptions{
		URL: s.BOSHURL(), Domain: s.Domain(), MUC: "conference." + s.Domain(), Room: room, Tone: tone, Token: w.o.token,
	})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { b.Close() })
	return b
}

var phoneDefaults siptest.PhoneOptions

func (w *world) phone(o siptest.PhoneOptions) *siptest.Phone {
	w.t.Helper()
	if o.Codec == "" {
		o.Codec = "pcmu"
	}
	p, err := siptest.NewPhone(o)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { p.Close() })
	return p
}

// uri is where the gateway takes calls.
func (w *world) uri(user string) string {
	return fmt.Sprintf("sip:%s@%s", user, w.gw.SIPAddrs()[0])
}

// call calls a room by header and says a tone.
func (w *world) call(p *siptest.Phone, room string, tone int) *siptest.Call {
	w.t.Helper()
	c, err := p.Call(w.ctx, siptest.CallOptions{URI: w.uri("conference"), Headers: w.headers(room), Tone: tone})
	if err != nil {
		w.t.Fatalf("call to %s: %v", room, err)
	}
	return c
}

// headers name a room, and its deployment where there are several.
func (w *world) headers(room string) map[string]string {
	h := map[string]string{"X-Room-Name": room}
	if len(w.deps) > 1 {
		h["X-Domain-Base"] = w.deps[0].Shards[0].Domain()
	}
	return h
}

// shard is the name in the configuration of a shard of the first deployment.
func (w *world) shardName(sh *jitsitest.Shard) string { return w.prefix(0) + sh.Name }

// hear fails the test unless the tone is heard.
func (w *world) hear(who string, h interface {
	Hear(context.Context, int) error
}, freq int) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.ctx, 15*time.Second)
	defer cancel()
	if err := h.Hear(ctx, freq); err != nil {
		w.t.Fatalf("%s does not hear %d Hz: %v", who, freq, err)
	}
}

// gone awaits that a call has left nothing behind.
func (w *world) gone() {
	w.t.Helper()
	w.await("no call left", func() bool { return len(w.gw.Snapshot().Calls) == 0 })
}

// never fails the test if a tone is in what was heard.
func (w *world) never(who string, pcm []int16, rate, freq int) {
	w.t.Helper()
	if share := tone.Level(pcm, rate, freq); share > 0.01 {
		w.t.Errorf("%s heard %d Hz (%.1f %% of the energy), which is another room's", who, freq, 100*share)
	}
}

// problems fails the test if a Jicofo found fault with what the gateway does.
func (w *world) problems() {
	w.t.Helper()
	if w.moved {
		return
	}
	for _, d := range w.deps {
		for _, sh := range d.Shards {
			if sh.Focus == nil { // killed
				continue
			}
			for _, r := range sh.Focus.Rooms() {
				for _, p := range r.Problems {
					w.t.Errorf("Jicofo of %s, room %s: %s", sh.Name, r.JID, p)
				}
			}
		}
	}
}

func contains(s, part string) bool { return strings.Contains(s, part) }

// reload puts the written configuration in force.
func (w *world) reload() {
	w.t.Helper()
	cfg, err := config.Load(w.path)
	if err != nil {
		w.t.Fatal(err)
	}
	if err := w.gw.Reload(cfg); err != nil {
		w.t.Fatal(err)
	}
}

// hearAll fails the test unless the tones are heard together, and nothing else.
func (w *world) hearAll(who string, c *siptest.Call, freqs ...int) {
	w.t.Helper()
	if err := c.HearAll(w.ctx, freqs...); err != nil {
		w.t.Fatalf("%s does not hear %v Hz: %v", who, freqs, err)
	}
}
