package gateway_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"brewline/internal/jitsitest"
	"brewline/internal/needtool"
)

// callee is sipp as the called party, over a trunk of its own.
type callee struct {
	name, scenario string // file of the scenario
	service        string // what [service] stands for in it
	trunk          string // further keys of the trunk
	rule           string // further keys of the rule
	dial           string // what the participant dials; the rule is for the number n that it means
	number         string
	statuses       []string // of the occupant, in order
	hangup         bool     // by the meeting, once it is connected

	port string
	done chan error
}

const sippScenarios = "../sip/testdata/sipp"

// start starts sipp.
func (c *callee) start(t *testing.T, ctx context.Context, sipp string) {
	t.Helper()
	file, err := filepath.Abs(c.scenario)
	if err != nil {
		t.Fatal(err)
	}
	c.port = freePort(t)
	cmd := exec.CommandContext(ctx, sipp, "-sf", file, "-t", "u1", "-m", "1", "-i", "127.0.0.1", "-p", c.port, "-s", c.service,
		"-nostdin", "-timeout", "50s", "-timeout_error", "-recv_timeout", "40000", "-trace_err")
	cmd.Dir = t.TempDir()
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	c.done = make(chan error, 1)
	go func() {
		err := cmd.Wait()
		if err != nil {
			logs, _ := exec.Command("sh", "-c", "cat "+cmd.Dir+"/*errors.log").Output()
			err = fmt.Errorf("sipp: %w\n%s\n%s", err, logs, out.String()[max(0, out.Len()-1500):])
		}
		c.done <- err
	}()
	n, _ := strconv.Atoi(c.port)
	for listens := fmt.Sprintf("0100007F:%04X 00000000:0000", n); ctx.Err() == nil; time.Sleep(5 * time.Millisecond) {
		if b, err := os.ReadFile("/proc/net/udp"); err != nil || strings.Contains(string(b), listens) {
			return
		}
	}
	t.Fatal("sipp does not listen")
}

// config is the trunk to sipp and the rule for its number.
func (c *callee) config() string {
	return fmt.Sprintf("[[trunk]]\nname = %[1]q\naddress = \"sip:127.0.0.1:%[2]s\"\nprobe = \"0s\"\n%[3]s\n[[dial]]\nname = %[1]q\npattern = '%[4]s'\ntrunks = [%[1]q]\n%[5]s\n",
		c.name, c.port, c.trunk, strings.ReplaceAll(c.number, "+", `\+`), c.rule)
}

func freePort(t *testing.T) string {
	t.Helper()
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, port, _ := net.SplitHostPort(c.LocalAddr().String())
	return port
}

// TestDialSIPp has a participant dial what sipp plays: the dial is answered
// with a ref, the participant sees how the call goes, and nothing is left.
func TestDialSIPp(t *testing.T) {
	t.Parallel()
	sipp := needtool.Path(t, "sipp")
	sip := func(name string) string { return filepath.Join(sippScenarios, "uas_"+name+".xml") }
	const moved = "testdata/moved.xml"
	begin := []string{"Initializing Call", "Calling"}
	with := func(more ...string) []string { return append(slices.Clone(begin), more...) }
	callees := []*callee{
		{name: "answer", scenario: sip("answer"), dial: "+49 30 100", number: "+4930100", statuses: with("Ringing", "Connected"), hangup: true},
		{name: "busy", scenario: sip("busy"), dial: "tel:+49-30-101", number: "+4930101", statuses: with("Busy")},
		{name: "reject", scenario: sip("reject"), dial: "sip:+4930102", number: "+4930102", statuses: with("Ringing", "Rejected")},
		{name: "no answer", scenario: sip("no-answer"), trunk: `dial_timeout = "1s"`, dial: "103", number: "103", statuses: with("Ringing", "Ignored")},
		{name: "early", scenario: sip("early"), trunk: "early_media = true", dial: "104", number: "104", statuses: with("Ringing", "Connected"), hangup: true},
		{name: "digest", scenario: sip("digest"), trunk: "username = \"gw\"\npassword = \"secret\"", dial: "105", number: "105", statuses: with("Connected"), hangup: true},
		{name: "proxy", scenario: sip("proxy"), trunk: "username = \"gw\"\npassword = \"secret\"", dial: "106", number: "106", statuses: with("Connected"), hangup: true},
		{name: "forty 180", scenario: sip("ringing"), dial: "107", number: "107", statuses: with("Ringing", "Connected"), hangup: true},
		{name: "moved", scenario: moved, service: "+49-30-109", rule: "redirects = 1", dial: "108", number: "108", statuses: with("Ringing", "Connected"), hangup: true},
		{name: "moved to", scenario: sip("answer"), number: "+4930109"},
		{name: "not followed", scenario: moved, service: "+49-30-109", dial: "110", number: "110", statuses: with("Rejected")},
		{name: "moved off", scenario: moved, service: "0900123", rule: "redirects = 5", dial: "111", number: "111", statuses: with("Rejected")},
		{name: "no number", scenario: sip("redirect"), rule: "redirects = 5", dial: "112", number: "112", statuses: with("Rejected")},
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	o := worldOptions{shards: 1}
	// sipp takes a repetition for something unexpected where another message
	// came in between.
	o.options.SIP.T1, o.options.SIP.T2 = time.Second, 4*time.Second
	var config strings.Builder
	for _, c := range callees {
		c.start(t, ctx, sipp)
		config.WriteString(c.config())
	}
	w, p := dialWorld(t, o, config.String())
	for _, c := range callees { // not in parallel: sipp does not wait for other tests
		if c.dial == "" {
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			w := *w
			w.t = t
			w.dialSIPp(c)
		})
	}
	for _, c := range callees {
		if err := <-c.done; err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	w.gone()
	if n := p.Invites(); n != 0 {
		t.Errorf("the other trunk's phone rang %d times", n)
	}
}

// TestDialSilentSIPp dials somebody who never answers anything.
func TestDialSilentSIPp(t *testing.T) {
	t.Parallel()
	c := &callee{name: "silence", scenario: filepath.Join(sippScenarios, "uas_silence.xml"), dial: "108", number: "108",
		statuses: []string{"Initializing Call", "Calling", "Disconnected"}}
	o := worldOptions{shards: 1}
	o.options.SIP.T1, o.options.SIP.T2 = 20*time.Millisecond, 160*time.Millisecond
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	c.start(t, ctx, needtool.Path(t, "sipp"))
	w, _ := dialWorld(t, o, c.config())
	w.dialSIPp(c)
	if err := <-c.done; err != nil {
		t.Error(err)
	}
}

func (w *world) dialSIPp(c *callee) {
	sh := w.deps[0].Shards[0]
	room := strings.ReplaceAll(c.name, " ", "-")
	b := w.browser(sh, room, 0)
	nick := w.refNick(w.ask(b, sh, room, c.dial))
	if c.hangup {
		w.await("Connected", func() bool { return len(b.Statuses()) > 0 && b.Statuses()[len(b.Statuses())-1].Text == "Connected" })
		reply, err := b.Request(w.ctx, "set", room+"@"+sh.MUC()+"/"+nick, "<hangup xmlns='urn:xmpp:rayo:1'/>")
		if err != nil || !contains(reply, "type=\"result\"") && !contains(reply, "type='result'") {
			w.t.Errorf("hangup: %s, %v", reply, err)
		}
	}
	w.await("the occupant left", func() bool { return len(b.Statuses()) > 0 && len(b.Others()) == 0 })
	w.statuses(b, nick, c.statuses...)
}

// refNick is the occupant that a dial was answered with.
func (w *world) refNick(reply string) string {
	w.t.Helper()
	_, uri, ok := strings.Cut(reply, "xmpp:")
	_, nick, _ := strings.Cut(uri, "/")
	nick, _, _ = strings.Cut(nick, `"`)
	nick, _, _ = strings.Cut(nick, "'")
	if !ok || nick == "" {
		w.t.Fatalf("no ref: %s", reply)
	}
	return nick
}

// statuses fails the test unless these are what a participant saw of a call,
// in order and no others.
func (w *world) statuses(b *jitsitest.Browser, nick string, want ...string) {
	w.t.Helper()
	var got []string
	for _, s := range b.Statuses() {
		if s.Nick == nick {
			got = append(got, s.Text)
		}
	}
	if !slices.Equal(got, want) {
		w.t.Errorf("statuses %q, want %q", got, want)
	}
}
