package sip_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"brewline/internal/needtool"
	"brewline/sip"
)

// The scenarios of testdata/sipp, each played by sipp against a user agent
// whose owner does what the header field X-Test says.
func TestSIPp(t *testing.T) {
	for _, tt := range []struct {
		scenario, network string
		calls             int
		stranger          bool
	}{
		{"basic", "udp", 50, false},
		{"basic", "tcp", 50, false},
		{"late-offer", "udp", 10, false},
		{"late-offer", "tcp", 10, false},
		{"cancel", "udp", 10, false},
		{"cancel", "tcp", 10, false},
		{"no-ack", "udp", 5, false},
		{"hold", "udp", 10, false},
		{"lossy", "udp", 20, false},
		{"refused", "udp", 10, false},
		{"refused", "tcp", 10, false},
		{"bye-from-us", "udp", 10, false},
		{"bye-from-us", "tcp", 10, false},
		{"identity", "udp", 5, false},
		{"timer", "udp", 5, false},
		{"timer", "tcp", 5, false},
		{"options", "udp", 10, false},
		{"options", "tcp", 10, false},
		{"options-full", "udp", 5, false},
		{"options-full", "tcp", 5, false},
		{"authenticated", "udp", 5, true},
		{"authenticated", "tcp", 5, true},
		{"wrong-password", "udp", 1, true},
		{"wrong-password", "tcp", 1, true},
		{"unknown", "udp", 1, true},
		{"unknown", "tcp", 1, true},
	} {
		t.Run(tt.scenario+" "+tt.network, func(t *testing.T) {
			t.Parallel()
			u := newUA(t, sippOwner(t), func(o *sip.Options) {
				o.Match = func(netip.AddrPort) (string, bool) { return "sipp", !tt.stranger }
				// sipp tells responses apart by code alone, so a 200 must not be
				// repeated only because the machine is slow.
				switch tt.scenario {
				case "options-full":
					o.Ready = func() (bool, time.Duration) { return false, 7 * time.Second }
				case "authenticated", "wrong-password":
					o.Accounts = func() []sip.Account { return accounts }
					o.Algorithms = []string{"MD5"} // sipp looks at the first challenge alone
					o.UnknownRate, o.UnknownBurst = 1000, 1000
				}
				switch tt.scenario {
				case "no-ack":
				case "lossy":
					o.T1, o.T2 = 40*time.Millisecond, 640*time.Millisecond // as the scenario
				default:
					o.T1, o.T2 = 200*time.Millisecond, 800*time.Millisecond
				}
			})
			addr := u.Addrs()[0]
			if tt.network == "tcp" {
				addr = u.Addrs()[1]
			}
			wait := startSIPp(t, tt.scenario, tt.network, freePort(t), addr.String(), "-m", fmt.Sprint(tt.calls), "-r", "100", "-l", "20", "-s", "phoneMeet")
			if err := wait(); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if t.Failed() {
					t.Logf("%+v", u.Stats())
				}
			})
			await(t, "nothing left", func() bool {
				s := u.Stats()
				return s.Dialogs+s.ClientTransactions == 0
			})
		})
	}
}

// startSIPp has sipp play a scenario, towards an address or, without one, as
// the called party. wait returns when it has played it, with why it failed.
func startSIPp(t *testing.T, scenario, network, port, to string, more ...string) (wait func() error) {
	t.Helper()
	program := needtool.Path(t, "sipp")
	file, err := filepath.Abs(filepath.Join("testdata", "sipp", scenario+".xml"))
	if err != nil {
		t.Fatal(err)
	}
	args := []string{"-sf", file, "-t", map[string]string{"udp": "u1", "tcp": "t1"}[network], "-i", "127.0.0.1", "-p", port,
		"-nostdin", "-timeout", "40s", "-timeout_error", "-recv_timeout", "20000", "-trace_err"}
	if to != "" {
		args = append(args, to)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, program, append(args, more...)...)
	cmd.Dir = t.TempDir()
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	played := sync.OnceValue(func() error {
		if err := cmd.Wait(); err != nil {
			logs, _ := exec.Command("sh", "-c", "cat "+cmd.Dir+"/*errors.log").Output()
			return fmt.Errorf("sipp: %w\n%s\n%s", err, tail(string(logs), 40), tail(out.String(), 45))
		}
		return nil
	})
	t.Cleanup(func() { cancel(); _ = played() })
	if to == "" {
		await(t, "sipp listens", func() bool { return listens(t, network, port) })
	}
	return played
}

// freePort returns a port that is free for UDP and TCP. Left to itself sipp
// finds one that another sipp is just about to take.
func freePort(t *testing.T) string {
	t.Helper()
	for range 100 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		addr := l.Addr().String()
		c, err := net.ListenPacket("udp", addr)
		_ = l.Close()
		if err == nil {
			_ = c.Close()
			_, port, _ := net.SplitHostPort(addr)
			return port
		}
	}
	t.Fatal("no free port")
	return ""
}

func tail(s string, lines int) string {
	l := strings.Split(s, "\n")
	return strings.Join(l[max(0, len(l)-lines):], "\n")
}

func sippOwner(t *testing.T) func(*sip.Dialog) {
	l := localFor("pcma pcmu")
	l.Addr, l.Ptime, l.RTCPMux = netip.MustParseAddr("127.0.0.1"), 0, false
	answer := func(b []byte) []byte {
		offer, err := sip.ParseSDP(b)
		if err != nil {
			t.Error(err)
			return nil
		}
		ans, _, err := sip.Answer(offer, l)
		if err != nil {
			t.Error(err)
			return nil
		}
		return ans.Marshal()
	}
	return func(d *sip.Dialog) {
		info := make(chan struct{}, 1)
		d.On(sip.DialogHandler{
			Reoffer: func(r *sip.Reoffer) {
				if err := r.Answer(answer(r.SDP)); err != nil {
					t.Error(err)
				}
			},
			Info: func(string, []byte) { info <- struct{}{} },
		})
		if err := d.Ringing(); err != nil {
			t.Error(err)
		}
		test := d.Header("X-Test")
		switch test {
		case "ring":
			<-d.Done()
			return
		case "identity":
			if id := d.Identity(); id.Display != `Alice "A", B` || id.User != "+49301" || !id.NumberHidden || !id.NameHidden {
				t.Errorf("%+v", id)
			}
		case "refuse":
			if err := d.Reject(404, sip.Reason{Cause: 1, Text: "no such room"}); err != nil {
				t.Error(err)
			}
			return
		}
		if d.Header("x-room-name") != "standup" {
			t.Errorf("room %q", d.Header("x-room-name"))
		}
		sdp := sip.Offer(l).Marshal()
		if d.Offer() != nil {
			sdp = answer(d.Offer())
		}
		_, err := d.Answer(context.Background(), sdp)
		if test == "hangup" {
			<-info
			err = d.Bye(context.Background(), sip.Reason{Cause: 16, Text: "the end"})
		}
		// Where the ACK is lost on purpose, a BYE may end the call first.
		if err != nil && !errors.Is(err, sip.ErrNoACK) && !errors.Is(err, sip.ErrEnded) {
			t.Error(err)
		}
	}
}
