package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"brewline/internal/jitsitest"
	"brewline/internal/jitsitest/client"
	"brewline/internal/jitsitest/jvb"
)

const (
	brewServers  = 4    // simulated servers
	brewShards   = 1000 // shards of the configuration, each with a brewery of its own
	brewRooms    = 200  // meetings on each server
	brewIdle     = 40 * time.Second
	dialTime     = 10 * time.Second
	dialDeadline = 15 * time.Second // Jicofo's
	brewAllIn    = 2 * time.Minute
)

// dialRates are in calls a second. At the second one the simulated side is as
// busy as the gateway.
var dialRates = []int{20, 100}

// benchBrewery measures what it costs to be in very many breweries, and how
// soon a dial request is answered there.
func benchBrewery(ctx context.Context) error {
	few, err := newTaproom(ctx, brewServers)
	if err != nil {
		return err
	}
	before, err := few.holdings()
	few.close()
	if err != nil {
		return err
	}
	t, err := newTaproom(ctx, brewShards)
	if err != nil {
		return err
	}
	defer t.close()
	figure("brewery.all_in", t.took.Seconds(), "s")
	after, err := t.holdings()
	if err != nil {
		return err
	}
	const more = brewShards - brewServers
	figure("brewery.memory", float64(after.Heap+after.Stack-before.Heap-before.Stack)/1024/more, "KiB/shard")
	figure("brewery.memory.resident", float64(after.resident-before.resident)/1024/more, "KiB/shard")
	figure("brewery.goroutines", float64(after.Goroutines-before.Goroutines)/more, "goroutines/shard")
	figure("brewery.files", float64(after.files-before.files)/more, "descriptors/shard")
	if err := t.idle(); err != nil {
		return err
	}
	for _, rate := range dialRates {
		if err := t.dials(ctx, rate); err != nil {
			return err
		}
	}
	return nil
}

// A taproom is simulated servers, each with meetings and with a client that is
// the focus of many breweries, and the gateway in all of them.
type taproom struct {
	*world
	servers []*tap
	phone   *net.UDPConn
	done    sync.WaitGroup
	took    time.Duration // from the start of the gateway until it was in all breweries
}

type tap struct {
	shard *jitsitest.Shard
	crowd *crowd
	focus *client.Client

	mu    sync.Mutex
	in    map[string]string // brewery to the gateway's nick
	seen  int               // presences of the gateway
	ready int               // breweries where the gateway may dial
}

func newTaproom(ctx context.Context, shards int) (t *taproom, err error) {
	t = &taproom{world: &world{}}
	defer func() {
		if err != nil {
			t.close()
		}
	}()
	if t.dir, err = os.MkdirTemp("", "brewline-bench-"); err != nil {
		return t, err
	}
	if t.phone, err = net.ListenUDP("udp4", &net.UDPAddr{IP: loopback[:]}); err != nil {
		return t, err
	}
	_ = t.phone.SetReadBuffer(4 << 20)
	t.done.Go(t.busy)
	so := jitsitest.ShardOptions{JVB: jvb.Options{ExpireAfter: time.Hour, FirstTransfer: time.Hour, InactiveAfter: time.Hour, Seed: 1}, Seed: 1}
	so.XMPP.Accounts = map[string]string{"gateway": "secret", "focus": "secret"}
	if t.deploy, err = jitsitest.NewDeployment(brewServers, jitsitest.DeploymentOptions{NoBalancer: true, DifferentNames: true, Shard: so}); err != nil {
		return t, err
	}
	names := make([][]string, brewServers)
	var config strings.Builder
	fmt.Fprintf(&config, "[gateway]\nname = \"bench\"\nmax_calls = 3000\n[http]\nlisten = \"127.0.0.1:0\"\n[sip]\nlisten = [\"udp://127.0.0.1:0\"]\n[media]\nbind = \"127.0.0.1\"\n")
	fmt.Fprintf(&config, "[[trunk]]\nname = \"out\"\naddress = \"sip:%s\"\nprobe = \"0s\"\ncodecs = [\"pcmu\"]\n[[dial]]\nname = \"any\"\npattern = '\\d+'\ntrunks = [\"out\"]\n", t.phone.LocalAddr())
	for i := range shards {
		n := i % brewServers
		s := t.deploy.Shards[n]
		brewery := fmt.Sprintf("brewery%d@internal.auth.%s", i, s.Domain())
		names[n] = append(names[n], brewery)
		fmt.Fprintf(&config, "[[deployment]]\nname = \"d%d\"\ndomain = %q\n", i, s.Domain())
		fmt.Fprintf(&config, "[[shard]]\nname = \"s%d\"\ndeployment = \"d%d\"\nurl = %q\nusername = \"gateway\"\npassword = \"secret\"\nbrewery = %q\nheader_value = %q\n",
			i, i, fmt.Sprintf("%s?n=%d", s.BOSHURL(), i), brewery, s.Name)
	}
	for n, s := range t.deploy.Shards {
		tp := &tap{shard: s, in: map[string]string{}}
		t.servers = append(t.servers, tp)
		if tp.crowd, err = joinCrowd(ctx, s, rooms(brewRooms)); err != nil {
			return t, err
		}
		if err = tp.brew(ctx, names[n]); err != nil {
			return t, err
		}
	}
	path := filepath.Join(t.dir, "brewline.toml")
	if err = os.WriteFile(path, []byte(config.String()), 0o600); err != nil {
		return t, err
	}
	began := time.Now()
	if t.serve, err = spawn(self(), "-role", "serve", "-c", path, "-log", t.logFile()); err != nil {
		return t, err
	}
	var up serveSetup
	if err = t.serve.hear(&up); err != nil {
		return t, t.failed(err)
	}
	t.http = up.HTTP
	within, cancel := context.WithTimeout(ctx, brewAllIn)
	defer cancel()
	err = await(within, "the gateway in all breweries", func() bool {
		ready := 0
		for _, tp := range t.servers {
			tp.mu.Lock()
			ready += tp.ready
			tp.mu.Unlock()
		}
		return ready == shards
	})
	t.took = time.Since(began)
	if err != nil {
		err = t.failed(err)
	}
	return t, err
}

// brew makes a client the focus of breweries.
func (tp *tap) brew(ctx context.Context, breweries []string) (err error) {
	tp.focus, err = client.Dial(ctx, client.Options{URL: tp.shard.BOSHURL(), Domain: "auth." + tp.shard.Domain(), Username: "focus", Password: "secret", Handler: tp.handle})
	if err != nil {
		return err
	}
	for _, b := range breweries {
		tp.in[b] = ""
		if err := tp.focus.Send("<presence xmlns='jabber:client' to='" + b + "/focus'><x xmlns='http://jabber.org/protocol/muc'/></presence>"); err != nil {
			return err
		}
	}
	return nil
}

// handle follows who is in the breweries.
func (tp *tap) handle(s client.Stanza) {
	room, nick, _ := strings.Cut(s.From, "/")
	if s.Name != "presence" || nick == "focus" {
		return
	}
	can := s.Type == "" && (strings.Contains(s.XML, `name="supports_sip" value="true"`) || strings.Contains(s.XML, `name='supports_sip' value='true'`))
	tp.mu.Lock()
	defer tp.mu.Unlock()
	tp.seen++
	switch was := tp.in[room] != ""; {
	case can && !was:
		tp.in[room] = nick
		tp.ready++
	case !can && was:
		tp.in[room] = ""
		tp.ready--
	}
}

func (t *taproom) presences() (n int) {
	for _, tp := range t.servers {
		tp.mu.Lock()
		n += tp.seen
		tp.mu.Unlock()
	}
	return n
}

// idle measures what it costs just to be there.
func (t *taproom) idle() error {
	n := t.presences()
	s, err := watch(t.serve, brewShards, brewIdle, func() uint64 { return 0 })
	if err != nil {
		return err
	}
	figure("brewery.cpu", s.millicores, "millicores/shard")
	figure("brewery.presences", float64(t.presences()-n)/brewIdle.Seconds(), "presences/s")
	if d := disturbed(s.others); d != "" {
		note("brewery%s", d)
	}
	return nil
}

// dials asks for calls at a steady rate, in all breweries and rooms by turns.
// The phone is busy.
func (t *taproom) dials(ctx context.Context, rate int) error {
	type result struct {
		took time.Duration
		err  error
	}
	total := rate * int(dialTime/time.Second)
	results := make(chan result, total)
	type place struct {
		tp      *tap
		brewery string
	}
	var places []place
	for _, tp := range t.servers {
		for b := range tp.in {
			places = append(places, place{tp, b})
		}
	}
	if profileDir != "" {
		stop, err := t.profile(fmt.Sprintf("dial-%d.pprof", rate))
		if err != nil {
			return err
		}
		defer stop()
	}
	cpu, err := t.serve.cpu()
	if err != nil {
		return err
	}
	others, err := beginOthers(t.serve)
	if err != nil {
		return err
	}
	began := time.Now()
	for i := range total {
		if d := time.Until(began.Add(time.Duration(i) * time.Second / time.Duration(rate))); d > 0 {
			time.Sleep(d) // the rate is what is measured
		}
		go func() {
			p := places[i*7919%len(places)]
			took, err := p.tp.dial(ctx, p.brewery, rooms(brewRooms)[i%brewRooms], fmt.Sprint(1000+i))
			results <- result{took, err}
		}()
	}
	var took []float64
	var failed error
	for range total {
		r := <-results
		if r.err != nil {
			if failed == nil {
				failed = r.err
			}
			continue
		}
		took = append(took, ms(r.took))
	}
	spent, err := t.serve.cpu()
	if err != nil {
		return err
	}
	if err := others.end(); err != nil {
		return err
	}
	name := fmt.Sprintf("dial.%d_a_second", rate)
	figure(name+".ref.median", median(took), "ms")
	figure(name+".ref.p99", quantile(took, 0.99), "ms")
	figure(name+".failed", float64(total-len(took)), "dials")
	figure(name+".cpu", ms(spent-cpu)/float64(total), "ms/dial")
	note("%d dials in %v%s", total, time.Since(began).Round(time.Millisecond), disturbed(others.cores()))
	if failed != nil {
		note("the first that failed: %.600s", failed)
	}
	for range 60 { // metrics of a thousand shards are not for polling
		if v, err := t.metrics(); err == nil && v["brewline_calls"] == 0 && v["brewline_media_ports_in_use"] == 0 {
			return nil
		}
		time.Sleep(time.Second)
	}
	return errors.New("never: no call left")
}

// dial asks the gateway, as Jicofo does, and tells how long it took to answer.
func (tp *tap) dial(ctx context.Context, brewery, room, number string) (time.Duration, error) {
	tp.mu.Lock()
	nick := tp.in[brewery]
	tp.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, dialDeadline)
	defer cancel()
	began := time.Now()
	a, err := tp.focus.Request(ctx, "set", brewery+"/"+nick, "<dial xmlns='urn:xmpp:rayo:1' from='fromnumber' to='"+number+
		"'><header name='JvbRoomName' value='"+room+"@"+tp.shard.MUC()+"'/></dial>")
	took := time.Since(began)
	if err == nil && !strings.Contains(a.XML, "<ref") {
		err = errors.New(a.XML)
	}
	return took, err
}

// busy answers every INVITE so.
func (t *taproom) busy() {
	buf := make([]byte, 1<<16)
	for {
		n, from, err := t.phone.ReadFromUDPAddrPort(buf)
		if err != nil {
			return
		}
		lines := strings.Split(string(buf[:n]), "\r\n")
		if strings.HasPrefix(lines[0], "ACK ") || strings.HasPrefix(lines[0], "SIP/") {
			continue
		}
		reply := "SIP/2.0 486 Busy Here\r\n"
		if !strings.HasPrefix(lines[0], "INVITE ") {
			reply = "SIP/2.0 200 OK\r\n"
		}
		for _, l := range lines[1:] {
			switch k, _, _ := strings.Cut(l, ":"); strings.ToLower(strings.TrimSpace(k)) {
			case "to":
				l += ";tag=busy"
				fallthrough
			case "via", "from", "call-id", "cseq":
				reply += l + "\r\n"
			}
		}
		_, _ = t.phone.WriteToUDPAddrPort([]byte(reply+"Content-Length: 0\r\n\r\n"), from)
	}
}

func (t *taproom) close() {
	for _, tp := range t.servers {
		if tp.crowd != nil {
			tp.crowd.close()
		}
		if tp.focus != nil {
			tp.focus.Close()
		}
	}
	t.world.close()
	if t.phone != nil {
		t.phone.Close()
	}
	t.done.Wait()
}
