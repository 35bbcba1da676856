package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"brewline/internal/jitsitest"
	"brewline/internal/jitsitest/jvb"
)

// A world is simulated shards in this process, rooms with somebody in them on
// the first shard, and the gateway in a process of its own.
type world struct {
	dir    string
	deploy *jitsitest.Deployment
	crowd  *crowd
	serve  *process
	http   string
	phones *uac
}

type worldOptions struct {
	shards int // default 1
	rooms  []string
	exact  bool // count every allocation
}

// newWorld starts everything and waits until every shard is up.
func newWorld(ctx context.Context, o worldOptions) (w *world, err error) {
	w = &world{}
	defer func() {
		if err != nil {
			w.close()
		}
	}()
	if w.dir, err = os.MkdirTemp("", "brewline-bench-"); err != nil {
		return w, err
	}
	// Whoever never accepts their session must not expire.
	bridge := jvb.Options{ExpireAfter: time.Hour, FirstTransfer: time.Hour, InactiveAfter: time.Hour, Seed: 1}
	w.deploy, err = jitsitest.NewDeployment(max(o.shards, 1), jitsitest.DeploymentOptions{
		NoBalancer: true, Shard: jitsitest.ShardOptions{JVB: bridge, Seed: 1},
	})
	if err != nil {
		return w, err
	}
	if w.crowd, err = joinCrowd(ctx, w.shard(), o.rooms); err != nil {
		return w, err
	}
	config := filepath.Join(w.dir, "brewline.toml")
	if err = os.WriteFile(config, []byte(w.config()), 0o600); err != nil {
		return w, err
	}
	args := []string{"-role", "serve", "-c", config, "-log", w.logFile()}
	if o.exact {
		args = append(args, "-exact")
	}
	if w.serve, err = spawn(self(), args...); err != nil {
		return w, err
	}
	var up serveSetup
	if err = w.serve.hear(&up); err != nil {
		return w, w.failed(err)
	}
	w.http = up.HTTP
	sip, err := netip.ParseAddrPort(up.SIP)
	if err != nil {
		return w, err
	}
	if w.phones, err = newUAC(sip); err != nil {
		return w, err
	}
	return w, await(ctx, "all shards up", func() bool {
		v, err := w.metrics()
		return err == nil && int(v["brewline_shard_up"]) == len(w.deploy.Shards)
	})
}

func self() string {
	path, err := os.Executable()
	if err != nil {
		panic(err)
	}
	return path
}

func (w *world) logFile() string { return filepath.Join(w.dir, "brewline.log") }

// failed adds the end of the gateway's log to an error.
func (w *world) failed(err error) error {
	raw, _ := os.ReadFile(w.logFile())
	return fmt.Errorf("%w; the gateway said:\n%s", err, raw[max(0, len(raw)-2000):])
}

// shard is the one on which the rooms are: the last, so that it is not found by
// chance.
func (w *world) shard() *jitsitest.Shard { return w.deploy.Shards[len(w.deploy.Shards)-1] }

func (w *world) config() string {
	var b strings.Builder
	fmt.Fprintf(&b, "[gateway]\nname = \"bench\"\nmax_calls = 1000\n[http]\nlisten = \"127.0.0.1:0\"\n")
	fmt.Fprintf(&b, "[sip]\nlisten = [\"udp://127.0.0.1:0\"]\n[media]\nbind = \"127.0.0.1\"\n")
	fmt.Fprintf(&b, "[[deployment]]\nname = \"bench\"\ndomain = %q\n", w.shard().Domain())
	for _, s := range w.deploy.Shards {
		fmt.Fprintf(&b, "[[shard]]\nname = %q\ndeployment = \"bench\"\nurl = %q\n", s.Name, s.BOSHURL())
	}
	fmt.Fprintf(&b, "[[trunk]]\nname = \"ipbx\"\nmatch = [\"127.0.0.1\"]\ndeployment = \"bench\"\ncodecs = [\"pcmu\"]\n")
	return b.String()
}

// close ends everything.
func (w *world) close() {
	if w.phones != nil {
		w.phones.close()
	}
	if w.serve != nil {
		w.serve.stop()
	}
	if w.crowd != nil {
		w.crowd.close()
	}
	if w.deploy != nil {
		w.deploy.Close()
	}
	if w.dir != "" {
		os.RemoveAll(w.dir)
	}
}

// metrics reads the gateway's metrics, summed over their labels.
func (w *world) metrics() (map[string]float64, error) {
	r, err := http.Get("http://" + w.http + "/metrics")
	if err != nil {
		return nil, err
	}
	defer r.Body.Close()
	return parseMetrics(r.Body)
}

// A talk is a call with media.
type talk struct {
	*dialog
	*party
	endpoint *jvb.Endpoint
}

// call calls a room of ours and awaits that its media is connected.
func (w *world) call(ctx context.Context, room string) (*talk, error) {
	before := w.endpoints(room)
	t := &talk{party: &party{}}
	var err error
	if t.party.rtp, err = openSocket(); err != nil {
		return nil, err
	}
	if t.party.rtcp, err = openSocket(); err != nil {
		t.party.rtp.close()
		return nil, err
	}
	t.dialog, err = w.phones.call(ctx, room, t.party.rtp.port, t.party.rtcp.port)
	if err == nil {
		err = errors.Join(t.party.rtp.connect(t.dialog.rtp), t.party.rtcp.connect(t.dialog.rtcp))
	}
	if err == nil {
		ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
		err = await(ctx, "media of the call to "+room, func() bool {
			for _, e := range w.endpoints(room) {
				if !slices.Contains(before, e) && !e.Stats().DTLSConnected.IsZero() {
					t.endpoint = e
				}
			}
			return t.endpoint != nil
		})
		cancel()
	}
	if err != nil {
		t.party.close()
		return nil, w.failed(err)
	}
	t.say = t.endpoint.Send
	return t, nil
}

// endpoints are those of a room at the videobridge.
func (w *world) endpoints(room string) (all []*jvb.Endpoint) {
	r, ok := w.shard().Focus.Room(room + "@" + w.shard().MUC())
	if !ok {
		return nil
	}
	for _, p := range r.Participants {
		if p.Endpoint != nil {
			all = append(all, p.Endpoint)
		}
	}
	return all
}

// callAll calls rooms one after another.
func (w *world) callAll(ctx context.Context, rooms []string) (talks []*talk, err error) {
	for _, room := range rooms {
		t, err := w.call(ctx, room)
		if err != nil {
			return talks, err
		}
		talks = append(talks, t)
	}
	return talks, nil
}

func parties(talks []*talk) []*party {
	var all []*party
	for _, t := range talks {
		all = append(all, t.party)
	}
	return all
}

func (p *party) close() {
	p.rtp.close()
	p.rtcp.close()
}

// rooms are the names of n rooms.
func rooms(n int) []string {
	var names []string
	for i := range n {
		names = append(names, fmt.Sprintf("room%d", i))
	}
	return names
}

// await polls until something is so.
func await(ctx context.Context, what string, ok func() bool) error {
	for !ok() {
		select {
		case <-ctx.Done():
			return fmt.Errorf("never: %s", what)
		case <-time.After(5 * time.Millisecond):
		}
	}
	return nil
}
