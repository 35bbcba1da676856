package gateway_test

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"brewline/gateway/trunk"
	"brewline/internal/needtool"
)

// sipp calls numbers and rooms over a trunk that is trusted and over one that is
// not: each call is in its room, and the meeting sees who calls as the trunk may
// tell it, with what is hidden hidden.
func TestSIPpCallers(t *testing.T) {
	t.Parallel()
	program := needtool.Path(t, "sipp")
	scenario, err := filepath.Abs("testdata/caller.xml")
	if err != nil {
		t.Fatal(err)
	}
	o := worldOptions{shards: 1, trunk: "trusted = true\n" + numbers, limit: 3 * time.Minute}
	o.more = "[[trunk]]\nname = \"untrusted\"\nmatch = [\"127.0.0.2\"]\ndeployment = \"dep1\"\n" + numbers
	w := newWorld(t, o)
	const masked = "+49 170 ••• 78"
	asserted := `P-Asserted-Identity: "Alice" <sip:+491701234578@carrier.example;user=phone>`
	const trusted, untrusted = "127.0.0.1", "127.0.0.2"
	for i, tt := range []struct {
		called, room, source, from string
		asserted, privacy          string
		want                       string
	}{
		{"+49308000", "standup", trusted, "Bob", "", "", "Bob"},                  // rooms
		{"+49-30-8.124", "standup124", trusted, "Bob", asserted, "", "Alice"},    // did, a capture
		{"conf-retro", "retro", untrusted, "Bob", asserted, "", "Bob"},           // did, a user part
		{"monthly", "monthly", untrusted, "Bob", asserted, "Privacy: id", "Bob"}, // the URI is the room
		{"hidden", "hidden", trusted, "Bob", asserted, "Privacy: id", "Anonymous"},
		{"masked", "masked", trusted, "", "P-Asserted-Identity: <tel:+49-170-1234578>", "", masked},
		{"number", "number", untrusted, "", "", "", masked},
		{"remote", "remote", trusted, "", `Remote-Party-ID: "Carol" <sip:+491701234578@h>;party=calling;privacy=off`, "", "Carol"},
		{"private", "private", trusted, "", `Remote-Party-ID: "Carol" <sip:+491701234578@h>;privacy=full`, "", "Anonymous"},
	} {
		t.Run(tt.called, func(t *testing.T) {
			w := *w
			w.t = t
			alice := w.browser(w.deps[0].Shards[0], tt.room, 440+20*i)
			ctx, cancel := context.WithCancel(w.ctx)
			defer cancel()
			key := func(name, value string) []string {
				if value == "" { // a header field of no meaning
					value = "X-None: " + name
				}
				return []string{"-key", name, value}
			}
			args := []string{w.gw.SIPAddrs()[0].String(), "-sf", scenario, "-t", "u1", "-m", "1", "-i", tt.source, "-s", tt.called,
				"-key", "from", tt.from, "-nostdin", "-timeout", "40s", "-timeout_error", "-recv_timeout", "30000", "-trace_err"}
			cmd := exec.CommandContext(ctx, program, append(append(args, key("asserted", tt.asserted)...), key("privacy", tt.privacy)...)...)
			cmd.Dir = t.TempDir()
			var out strings.Builder
			cmd.Stdout, cmd.Stderr = &out, &out
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			presence := w.other(alice)
			w.await("the meeting sees "+tt.want, func() bool {
				presence = w.other(alice)
				return shownNick(presence) == tt.want
			})
			if tt.want != "Bob" && strings.Contains(presence, "1234578") {
				t.Errorf("the meeting sees the number: %s", presence)
			}
			if err := cmd.Wait(); err != nil {
				logs, _ := exec.Command("sh", "-c", "cat "+cmd.Dir+"/*errors.log").Output()
				t.Errorf("%v\n%s\n%s", err, logs, out.String()[max(0, out.Len()-1500):])
			}
		})
	}
	w.gone()
}

// The breweries are told that we dial while sipp, the only trunk's peer, answers
// OPTIONS, and not while it is silent or says 503.
func TestSIPpTrunkState(t *testing.T) {
	t.Parallel()
	program := needtool.Path(t, "sipp")
	port := freePort(t)
	o := worldOptions{shards: 1, brewery: true}
	o.options.Trunks = trunk.Options{ProbeTimeout: 500 * time.Millisecond, ProbeAgain: 10 * time.Millisecond, ProbeDown: 50 * time.Millisecond}
	o.options.SIP.T1 = 100 * time.Millisecond
	o.trunk = fmt.Sprintf("address = \"sip:127.0.0.1:%s\"\nprobe = \"100ms\"\n", port)
	o.more = "[[dial]]\nname = \"all\"\npattern = '\\d+'\ntrunks = [\"ipbx\"]\n"
	w := newWorld(t, o)
	for _, tt := range []struct {
		scenario string // "": nobody is there
		state    trunk.State
		dials    string
	}{
		{"options", trunk.Reachable, "true"}, {"", trunk.Unreachable, "false"},
		{"options", trunk.Reachable, "true"}, {"options-full", trunk.Unreachable, "false"},
		{"options", trunk.Reachable, "true"},
	} {
		ctx, cancel := context.WithCancel(w.ctx)
		var cmd *exec.Cmd
		if tt.scenario != "" {
			file, err := filepath.Abs(filepath.Join(sippScenarios, "uas_"+tt.scenario+".xml"))
			if err != nil {
				t.Fatal(err)
			}
			cmd = exec.CommandContext(ctx, program, "-sf", file, "-t", "u1", "-i", "127.0.0.1", "-p", port, "-nostdin")
			cmd.Dir = t.TempDir()
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
		}
		w.await(fmt.Sprintf("%q makes the trunk %s", tt.scenario, tt.state), func() bool { return w.trunkState("ipbx") == tt.state })
		w.await("supports_sip is "+tt.dials, func() bool {
			gs := w.deps[0].Shards[0].Focus.Gateways()
			return len(gs) == 1 && gs[0].Stats["supports_sip"] == tt.dials
		})
		if tt.scenario == "options-full" {
			w.await("its 503 is why", func() bool {
				_, why := w.health()
				return strings.Contains(why, "ipbx: 503")
			})
		}
		cancel()
		if cmd != nil {
			_ = cmd.Wait()
		}
	}
}
