package nattest

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"brewline/config"
	"brewline/gateway"
	"brewline/internal/jitsitest"
	"brewline/internal/siptest"
	"brewline/sip"
)

// path is a network between phones and gateway, with a NAT between them.
type path struct {
	gateway netip.Addr // where the gateway takes calls
	public  netip.Addr // of the NAT: as whom each sees who is behind it
	listen  func(*net.UDPAddr) (siptest.Socket, error)
	rebind  func()
	lost    func() uint64 // packets
	// relay makes an address by which the gateway reaches another; nil: directly.
	relay  func(netip.AddrPort) netip.AddrPort
	impair func(gateway netip.AddrPort) // begins to lose packets to and from there; nil: does so anyway
}

// t1 is the SIP retransmission base of both sides.
const t1 = 60 * time.Millisecond

// world is a gateway that phones reach over a path, and a shard.
type world struct {
	t     *testing.T
	ctx   context.Context
	path  *path
	shard *jitsitest.Shard
	gw    *gateway.Gateway
}

func newWorld(t *testing.T, p *path, trunk string) *world {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 90*time.Second)
	t.Cleanup(cancel)
	w := &world{t: t, ctx: ctx, path: p}
	d, err := jitsitest.NewDeployment(1, jitsitest.DeploymentOptions{NoBalancer: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	w.shard = d.Shards[0]
	file := filepath.Join(t.TempDir(), "brewline.toml")
	text := fmt.Sprintf(`
[http]
listen = "127.0.0.1:0"
[sip]
listen = ["udp://%[1]s:0"]
[media]
bind = "127.0.0.1"
[media.phone]
bind = "%[1]s"
[[shard]]
name = "shard-1"
domain = "%[2]s"
url = "%[3]s"
`, p.gateway, w.shard.Domain(), w.shard.BOSHURL()) + trunk
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, err := config.Load(file)
	if err != nil {
		t.Fatal(err)
	}
	o := gateway.Options{Version: "test", Logger: slog.New(slog.DiscardHandler), SIP: sip.Options{T1: t1, T2: 8 * t1}}
	if testing.Verbose() {
		o.Logger = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	if w.gw, err = gateway.Start(ctx, cfg, o); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.gw.Close)
	w.await("the shard is up", func() bool { return w.gw.Brewery().Status()[0].State == "up" })
	return w
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

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) browser(room string, tone int) *jitsitest.Browser {
	w.t.Helper()
	b, err := jitsitest.JoinBrowser(w.ctx, jitsitest.BrowserOptions{
		URL: w.shard.BOSHURL(), Domain: w.shard.Domain(), MUC: w.shard.MUC(), Room: room, Tone: tone,
	})
	w.must(err)
	w.t.Cleanup(func() { b.Close() })
	return b
}

func (w *world) phone() *siptest.Phone {
	w.t.Helper()
	p, err := siptest.NewPhone(siptest.PhoneOptions{T1: t1, Listen: w.path.listen})
	w.must(err)
	w.t.Cleanup(func() { p.Close() })
	return p
}

// call calls a room and says a tone.
func (w *world) call(p *siptest.Phone, room string, tone int) (*siptest.Call, error) {
	return p.Call(w.ctx, siptest.CallOptions{URI: fmt.Sprintf("sip:%s@%s", room, w.gw.SIPAddrs()[0]), Tone: tone})
}

// talk fails the test unless both hear what the other says from now on.
func (w *world) talk(b *jitsitest.Browser, theirs int, c *siptest.Call, ours int) {
	w.t.Helper()
	w.must(b.SetTone(theirs))
	c.Say(ours)
	if err := c.Hear(w.ctx, theirs); err != nil {
		w.t.Fatalf("the phone does not hear the room: %v", err)
	}
	if err := b.Hear(w.ctx, ours); err != nil {
		w.t.Fatalf("the room does not hear the phone: %v", err)
	}
}

// hungUpOn awaits the BYE at the phone.
func (w *world) hungUpOn(c *siptest.Call) {
	w.t.Helper()
	select {
	case e := <-c.Ended():
		if !e.ByPeer {
			w.t.Errorf("ended by %+v", e)
		}
	case <-w.ctx.Done():
		w.t.Fatal("the BYE does not reach the phone")
	}
}

func (w *world) gone() {
	w.t.Helper()
	w.await("no call left", func() bool { return len(w.gw.Snapshot().Calls) == 0 })
}
