package gateway_test

import (
	"cmp"
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
func (c *callee) start(t *testing.T, ctx context.Context) {
	t.Helper()
	c.port = freePort(t)
	c.done = playSIPp(t, ctx, c.scenario, c.port, "-s", cmp.Or(c.service, "service"))
	n, _ := strconv.Atoi(c.port)
	for listens := fmt.Sprintf("0100007F:%04X 00000000:0000", n); ctx.Err() == nil; time.Sleep(5 * time.Millisecond) {
		if b, err := os.ReadFile("/proc/net/udp"); err != nil || strings.Contains(string(b), listens) {
			return
		}
	}
	t.Fatal("sipp does not listen")
}

// playSIPp has sipp play a scenario once.
func playSIPp(t *testing.T, ctx context.Context, scenario, port string, more ...string) (done chan error) {
	t.Helper()
	file, err := filepath.Abs(scenario)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(ctx, needtool.Path(t, "sipp"), append([]string{"-sf", file, "-t", "u1", "-m", "1", "-i", "127.0.0.1", "-p", port,
		"-nostdin", "-timeout", "50s", "-timeout_error", "-recv_timeout", "40000", "-trace_err"}, more...)...)
	cmd.Dir = t.TempDir()
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done = make(chan error, 1)
	go func() {
		err := cmd.Wait()
		if err != nil {
			logs, _ := exec.Command("sh", "-c", "cat "+cmd.Dir+"/*errors.log").Output()
			err = fmt.Errorf("sipp: %w\n%s\n%s", err, logs, out.String()[max(0, out.Len()-1500):])
		}
		done <- err
	}()
	t.Cleanup(func() {
		select {
		case err := <-done:
			t.Log(err)
		default:
		}
	})
	return done
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
	sip := func(name string) string { return filepath.Join(sippScenarios, "uas_"+name+".xml") }
	const moved, movedPermanently = "testdata/moved.xml", "testdata/moved-permanently.xml"
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
		{name: "reliable", scenario: sip("reliable"), trunk: "reliable = \"required\"\nearly_media = true", dial: "116", number: "116", statuses: with("Ringing", "Connected"), hangup: true},
		{name: "not reliable", scenario: sip("reliable-refused"), trunk: `reliable = "required"`, dial: "117", number: "117", statuses: with("Rejected")},
		{name: "moved for good", scenario: movedPermanently, service: "+49-30-114", rule: "redirects = 1", dial: "113", number: "113", statuses: with("Ringing", "Connected"), hangup: true},
		{name: "moved for good to", scenario: sip("answer"), number: "+4930114"},
		{name: "for good not followed", scenario: movedPermanently, service: "+49-30-114", dial: "115", number: "115", statuses: with("Rejected")},
		{name: "not followed", scenario: moved, service: "+49-30-109", dial: "110", number: "110", statuses: with("Rejected")},
		{name: "moved off", scenario: moved, service: "0900123", rule: "redirects = 5", dial: "111", number: "111", statuses: with("Rejected")},
		{name: "no number", scenario: sip("redirect"), rule: "redirects = 5", dial: "112", number: "112", statuses: with("Rejected")},
	}
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	o := worldOptions{shards: 1, limit: 3 * time.Minute}
	// sipp takes a repetition for something unexpected where another message
	// came in between.
	o.options.SIP.T1, o.options.SIP.T2 = time.Second, 4*time.Second
	var config strings.Builder
	for _, c := range callees {
		c.start(t, ctx)
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
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	c.start(t, ctx)
	w, _ := dialWorld(t, o, c.config())
	w.dialSIPp(c)
	if err := <-c.done; err != nil {
		t.Error(err)
	}
}

// TestTransferSIPp has sipp call rooms and pass its calls on to another sipp,
// or to a second call of its own: it is told how that goes, and the room keeps
// the occupant it had.
func TestTransferSIPp(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, scenario, to string
		callee             *callee // nil: the caller's own
		named              string  // the occupant, in the end; "": the transfer fails
	}{
		{"blind", "refer", "201@pbx.example", &callee{name: "blind", scenario: filepath.Join(sippScenarios, "uas_answer.xml"), number: "201"}, "201"},
		{"attended", "refer", "202@pbx.example?Replaces=consultation%40pbx%3Bto-tag%3Db%3Bfrom-tag%3Da",
			&callee{name: "attended", scenario: "testdata/replacing.xml", number: "202"}, "202"},
		{"busy", "refer-busy", "203@pbx.example", &callee{name: "busy", scenario: filepath.Join(sippScenarios, "uas_busy.xml"), number: "203"}, ""},
		{"replaces", "replaces", "", nil, "Carol"},
	}
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	o := worldOptions{shards: 1, trunk: "transfer = true\n", limit: 3 * time.Minute}
	o.options.SIP.T1, o.options.SIP.T2 = time.Second, 4*time.Second // as above
	var config strings.Builder
	for _, tt := range tests {
		if tt.callee != nil {
			tt.callee.start(t, ctx)
			config.WriteString(tt.callee.config())
		}
	}
	w, p := dialWorld(t, o, config.String())
	sh := w.deps[0].Shards[0]
	for _, tt := range tests { // not in parallel: sipp does not wait for other tests
		t.Run(tt.name, func(t *testing.T) {
			w := *w
			w.t = t
			room := w.browser(sh, tt.name, 620)
			caller := playSIPp(t, ctx, "testdata/"+tt.scenario+".xml", freePort(t),
				"-s", "conference", "-key", "room", tt.name, "-key", "to", tt.to, w.gw.SIPAddrs()[0].String())
			var occupant string
			w.await("the caller is in the room", func() bool {
				occupant = strings.Join(room.Others(), " ")
				return occupant != ""
			})
			if tt.named != "" {
				w.named(room, tt.named)
				if tt.callee != nil {
					w.played(caller)
				}
				if now, calls := room.Others(), len(w.gw.Snapshot().Calls); !slices.Equal(now, []string{occupant}) || calls != 1 {
					t.Errorf("in the room was %s, now %v; %d calls", occupant, now, calls)
				}
				if err := sh.XMPP.Kick(tt.name, occupant, ""); err != nil {
					t.Error(err)
				}
			}
			if tt.callee != nil {
				w.played(tt.callee.done)
			}
			if tt.callee == nil || tt.named == "" {
				w.played(caller)
			}
			w.alone(room)
		})
	}
	silent(t, p)
}

// played awaits the end of a scenario.
func (w *world) played(sipp <-chan error) {
	w.t.Helper()
	if err := <-sipp; err != nil {
		w.t.Fatal(err)
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
	_, uri, ok := strings.Cut(strings.ReplaceAll(reply, "'", `"`), `uri="xmpp:`)
	_, nick, _ := strings.Cut(uri, "/")
	nick, _, _ = strings.Cut(nick, `"`)
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
