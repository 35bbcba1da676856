package sip_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"brewline/sip"
)

// The scenarios testdata/sipp/uas_*, each played by sipp as the called party.
func TestSIPpCalled(t *testing.T) {
	refused := func(code int) func(error) bool {
		return func(err error) bool {
			var se *sip.StatusError
			return errors.As(err, &se) && se.Code == code
		}
	}
	for _, tt := range []struct {
		scenario, network string
		calls             int
		codes             []int            // provisional responses that Progress is told, repetitions left out
		hangup            bool             // by us, once it is answered
		failed            func(error) bool // nil: it is answered
		change            func(*sip.InviteOptions)
		t1                time.Duration
	}{
		{scenario: "answer", network: "udp", calls: 20, codes: []int{180}, hangup: true},
		{scenario: "answer", network: "tcp", calls: 20, codes: []int{180}, hangup: true},
		{scenario: "hold", network: "udp", calls: 5, codes: []int{180}},
		{scenario: "hold", network: "tcp", calls: 5, codes: []int{180}},
		{scenario: "early", network: "udp", calls: 5, codes: []int{183}, hangup: true},
		{scenario: "ringing", network: "udp", calls: 5, codes: []int{180}, hangup: true},
		{scenario: "ringing", network: "tcp", calls: 5, codes: []int{180}, hangup: true},
		{scenario: "busy", network: "udp", calls: 5, failed: refused(486)},
		{scenario: "busy", network: "tcp", calls: 5, failed: refused(486)},
		{scenario: "reject", network: "udp", calls: 5, codes: []int{180}, failed: refused(603)},
		{scenario: "redirect", network: "udp", calls: 5, failed: func(err error) bool {
			var se *sip.StatusError
			return errors.As(err, &se) && se.Code == 302 && se.Contact == "sip:near@192.0.2.2"
		}},
		{scenario: "no-answer", network: "udp", calls: 5, codes: []int{180}, failed: refused(408),
			change: func(o *sip.InviteOptions) { o.Timeout = 500 * time.Millisecond }},
		{scenario: "no-answer", network: "tcp", calls: 5, codes: []int{180}, failed: refused(408),
			change: func(o *sip.InviteOptions) { o.Timeout = 500 * time.Millisecond }},
		{scenario: "silence", network: "udp", calls: 3, failed: func(err error) bool { return errors.Is(err, sip.ErrUnreachable) }, t1: testT1},
		{scenario: "silence", network: "tcp", calls: 3, failed: func(err error) bool { return errors.Is(err, sip.ErrUnreachable) }, t1: testT1},
		{scenario: "digest", network: "udp", calls: 5, hangup: true,
			change: func(o *sip.InviteOptions) { o.Username, o.Password = "gw", "secret" }},
		{scenario: "digest", network: "tcp", calls: 5, failed: refused(401),
			change: func(o *sip.InviteOptions) { o.Username, o.Password = "gw", "wrong" }},
		{scenario: "proxy", network: "udp", calls: 5, hangup: true,
			change: func(o *sip.InviteOptions) { o.Username, o.Password = "gw", "secret" }},
	} {
		t.Run(tt.scenario+" "+tt.network, func(t *testing.T) {
			t.Parallel()
			u := newUA(t, func(d *sip.Dialog) { _ = d.Reject(480, sip.Reason{}) }, func(o *sip.Options) {
				// sipp takes a repetition for something unexpected where another
				// message came in between.
				o.T1, o.T2 = time.Second, 4*time.Second
				if tt.t1 != 0 {
					o.T1, o.T2 = tt.t1, 8*tt.t1
				}
			})
			port, ctx := freePort(t), t.Context()
			wait := startSIPp(t, "uas_"+tt.scenario, tt.network, port, "", "-m", fmt.Sprint(tt.calls))
			results := make(chan error, tt.calls)
			for range tt.calls {
				go func() {
					o := sip.InviteOptions{
						URI:  "sip:030123@127.0.0.1:" + port + ";transport=" + tt.network,
						From: sip.Party{User: "conference", Display: "Meeting"},
					}
					if tt.change != nil {
						tt.change(&o)
					}
					results <- callSIPp(ctx, u, o, tt.codes, tt.hangup, tt.failed)
				}()
			}
			for range tt.calls {
				if err := <-results; err != nil {
					t.Error(err)
				}
			}
			if err := wait(); err != nil {
				t.Fatal(err)
			}
			if n := u.Stats().Dialogs; n != 0 {
				t.Errorf("%d dialogs left", n)
			}
		})
	}
}

// callSIPp makes one call and lives through it.
func callSIPp(ctx context.Context, u *sip.UA, o sip.InviteOptions, codes []int, hangup bool, failed func(error) bool) error {
	l := localFor("pcma pcmu")
	l.Addr = netip.MustParseAddr("127.0.0.1")
	offer := sip.Offer(l)
	o.SDP = offer.Marshal()
	var told []int
	var early []byte
	o.Progress = func(code int, _ string, sdp []byte) {
		told = append(told, code)
		if code == 183 {
			early = sdp
		}
	}
	over, info := make(chan sip.Reason, 1), make(chan string, 1)
	var asked []sip.Direction
	o.Handler = sip.DialogHandler{
		Bye:  func(r sip.Reason) { over <- r },
		Info: func(ctype string, _ []byte) { info <- ctype },
		Reoffer: func(r *sip.Reoffer) {
			re, err := sip.ParseSDP(r.SDP)
			if err != nil {
				_ = r.Reject(488)
				return
			}
			asked = append(asked, re.Media[0].Direction)
			ans, _, err := sip.Answer(re, l)
			if err != nil {
				_ = r.Reject(488)
				return
			}
			_ = r.Answer(ans.Marshal())
		},
	}
	d, sdp, err := u.Invite(ctx, o)
	// On a slow machine an INVITE is repeated, and with it its last answer, and
	// of a burst of provisional responses some are left out.
	if !slices.Equal(slices.Compact(told), codes) {
		if d != nil {
			_ = d.Bye(ctx, sip.Reason{Cause: 16})
		}
		return fmt.Errorf("told %v, want %v (%v)", told, codes, err)
	}
	if failed != nil {
		if !failed(err) {
			return fmt.Errorf("unexpected outcome: %w", err)
		}
		return nil
	}
	if err != nil {
		return err
	}
	for _, b := range [][]byte{early, sdp} {
		if b == nil {
			continue
		}
		ans, err := sip.ParseSDP(b)
		if err != nil {
			return err
		}
		if m, err := sip.Accept(offer, ans, l); err != nil || m.Codec.Name != "pcma" {
			return fmt.Errorf("answer %+v, %w", m, err)
		}
	}
	if sdp == nil || slices.Contains(codes, 183) != (early != nil) {
		return fmt.Errorf("answer %q, early %q", sdp, early)
	}
	if hangup {
		return d.Bye(ctx, sip.Reason{Cause: 16, Text: "over"})
	}
	select {
	case r := <-over:
		if ctype := <-info; ctype != "application/dtmf-relay" || r.Cause != 16 || !slices.Equal(asked, []sip.Direction{sip.SendOnly, sip.SendRecv}) {
			return fmt.Errorf("INFO of %s, offers %v, BYE for %+v", ctype, asked, r)
		}
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// listens reports whether some process has the port.
func listens(t *testing.T, network, port string) bool {
	t.Helper()
	b, err := os.ReadFile("/proc/net/" + network)
	if err != nil {
		t.Skip("no /proc/net here")
	}
	n, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Contains(string(b), fmt.Sprintf("0100007F:%04X 00000000:0000", n))
}
