package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/pprof"
	"strings"
	"syscall"
	"time"

	gosip "github.com/emiago/sipgo/sip"

	"brewline/internal/siptest"
	"brewline/sip"
)

const (
	sipRuns   = 5
	sipWarmup = time.Second
	sipTime   = 4 * time.Second
	sipAtOnce = 64
	sipCalls  = 10_000
	// sipHeap is what pools and maps may have grown by, bytes.
	sipHeap = 512 << 10
	// sipT1 scales the timers where it is looked at what is left: 64·T1 is 640 ms.
	sipT1 = 10 * time.Millisecond
)

// sipAnswer is what both answer with.
const sipAnswer = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio 9 RTP/AVP 0\r\na=rtpmap:0 PCMU/8000\r\n"

// benchSIP compares signalling alone, INVITE to BYE, with the bare echo of the
// library beneath it, run by run, and looks for what calls leave.
func benchSIP(ctx context.Context) error {
	var rate, floorRate, cost, floorCost, ratio, rateRatio []float64
	for range sipRuns {
		p, err := sipRun(ctx, "sip")
		if err != nil {
			return err
		}
		f, err := sipRun(ctx, "sip-echo")
		if err != nil {
			return err
		}
		note("%.0f calls a second at %.0f µs; floor %.0f at %.0f µs%s", p.rate, p.cost, f.rate, f.cost, disturbed(max(p.others, f.others)))
		rate, floorRate = append(rate, p.rate), append(floorRate, f.rate)
		cost, floorCost = append(cost, p.cost), append(floorCost, f.cost)
		ratio, rateRatio = append(ratio, p.cost/f.cost), append(rateRatio, p.rate/f.rate)
	}
	figureFloor("sip.calls", median(rate), "calls/s", median(floorRate))
	figure("sip.calls.ratio", median(rateRatio), "product/floor")
	figureFloor("sip.cpu", median(cost), "µs/call", median(floorCost))
	figure("sip.cpu.ratio", median(ratio), "product/floor")
	return sipRemains(ctx)
}

type sipSample struct {
	rate   float64 // calls a second
	cost   float64 // µs of processor a call
	others float64 // cores used by other processes
}

// sipChild starts a process that answers calls.
func sipChild(role string, args ...string) (*process, netip.AddrPort, error) {
	p, err := spawn(self(), append([]string{"-role", role}, args...)...)
	if err != nil {
		return nil, netip.AddrPort{}, err
	}
	var up serveSetup
	err = p.hear(&up)
	addr, err2 := netip.ParseAddrPort(up.SIP)
	if err = errors.Join(err, err2); err != nil {
		p.stop()
	}
	return p, addr, err
}

func sipRun(ctx context.Context, role string) (s sipSample, err error) {
	var args []string
	if profileDir != "" {
		args = []string{"-profile", profileDir}
	}
	p, addr, err := sipChild(role, args...)
	if err != nil {
		return s, err
	}
	defer p.stop()
	g := siptest.Generator{To: addr, AtOnce: sipAtOnce, Again: 500 * time.Millisecond}
	run := func(d time.Duration) (siptest.Generated, error) {
		ctx, cancel := context.WithTimeout(ctx, d)
		defer cancel()
		r, err := g.Run(ctx)
		if err == nil && (r.Calls == 0 || r.Refused > 0) {
			err = fmt.Errorf("%s: %d calls, %d refused", role, r.Calls, r.Refused)
		}
		return r, err
	}
	if _, err := run(sipWarmup); err != nil {
		return s, err
	}
	others, err := beginOthers(p)
	if err != nil {
		return s, err
	}
	before, err := p.cpu()
	if err != nil {
		return s, err
	}
	r, err := run(sipTime)
	if err != nil {
		return s, err
	}
	after, err := p.cpu()
	if err != nil {
		return s, err
	}
	err = others.end()
	s.rate = float64(r.Calls) / r.Took.Seconds()
	s.cost = float64((after - before).Microseconds()) / float64(r.Calls)
	s.others = others.cores()
	return s, err
}

// sipHeld is what the answering process holds.
type sipHeld struct {
	memory
	Dialogs, Transactions int
}

// sipRemains makes calls through one process and looks for what is left when
// the timers of the last have passed.
func sipRemains(ctx context.Context) error {
	p, addr, err := sipChild("sip", "-t1", sipT1.String())
	if err != nil {
		return err
	}
	defer p.stop()
	calls := func(n int) (siptest.Generated, error) {
		r, err := siptest.Generator{To: addr, Calls: n, AtOnce: sipAtOnce, Again: 500 * time.Millisecond}.Run(ctx)
		if err == nil && r.Calls != n {
			err = fmt.Errorf("%d of %d calls, %d refused", r.Calls, n, r.Refused)
		}
		return r, err
	}
	// Maps keep the room that they once had: before is after as many.
	if _, err := calls(sipCalls); err != nil {
		return err
	}
	before, err := sipSettled(ctx, p, nil)
	if err != nil {
		return err
	}
	r, err := calls(sipCalls)
	if err != nil {
		return err
	}
	after, err := sipSettled(ctx, p, before)
	if err != nil {
		return err
	}
	note("%d calls took %v, %d requests repeated", r.Calls, r.Took.Round(time.Millisecond), r.Repeated)
	figureFloor("sip.after_10000.dialogs", float64(after.Dialogs), "dialogs", float64(before.Dialogs))
	figureFloor("sip.after_10000.transactions", float64(after.Transactions), "transactions", float64(before.Transactions))
	figureFloor("sip.after_10000.goroutines", float64(after.Goroutines), "goroutines", float64(before.Goroutines))
	figureFloor("sip.after_10000.heap", float64(after.Heap)/1024, "KiB", float64(before.Heap)/1024)
	return nil
}

// sipSettled waits until nothing is left but what there was before, or gives up
// waiting.
func sipSettled(ctx context.Context, p *process, before *sipHeld) (*sipHeld, error) {
	for end := time.Now().Add(100 * 64 * sipT1); ; {
		var h sipHeld
		if err := p.ask(ask{Do: "memory"}, &h); err != nil {
			return nil, err
		}
		if h.Dialogs == 0 && h.Transactions == 0 && (before == nil || h.Goroutines <= before.Goroutines && h.Heap <= before.Heap+sipHeap) ||
			time.Now().After(end) {
			return &h, nil
		}
		select {
		case <-time.After(100 * time.Millisecond): // between two looks
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// runSIP is our user agent in a process of its own: it answers, and is hung up
// on.
func runSIP(t1 time.Duration) error {
	ctx := context.Background()
	u, err := sip.Listen(ctx, sip.Options{
		Listen: []sip.Listener{{Network: "udp", Address: "127.0.0.1:0"}},
		T1:     t1, T2: 8 * t1, T4: 10 * t1, Rate: 1e9, Burst: 1e9, MaxTransactions: 1 << 20,
		OnInvite: func(d *sip.Dialog) { _, _ = d.Answer(ctx, []byte(sipAnswer)) },
	})
	if err != nil {
		return err
	}
	defer u.Close()
	return serveSIP("sip", u.Addrs()[0].String(), func() any {
		s := u.Stats()
		return sipHeld{measureMemory(), s.Dialogs, s.ServerTransactions + s.ClientTransactions}
	})
}

// runSIPEcho is the least that the library answers calls with: what its server
// does without the table of handlers.
func runSIPEcho() error {
	gosip.SetDefaultLogger(slog.New(slog.DiscardHandler))
	transport := gosip.NewTransportLayer(net.DefaultResolver, gosip.NewParser(), nil)
	transactions := gosip.NewTransactionLayer(transport)
	defer transport.Close()
	defer transactions.Close()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	_ = conn.(*net.UDPConn).SetReadBuffer(1 << 20) // as ours
	contact := "<sip:echo@" + conn.LocalAddr().String() + ">"
	transactions.OnRequest(func(req *gosip.Request, tx *gosip.ServerTx) {
		switch req.Method {
		case gosip.INVITE:
			res := gosip.NewResponseFromRequest(req, 200, "OK", []byte(sipAnswer))
			res.AppendHeader(gosip.NewHeader("Contact", contact))
			res.AppendHeader(gosip.NewHeader("Content-Type", "application/sdp"))
			_ = tx.Respond(res)
		case gosip.BYE:
			_ = tx.Respond(gosip.NewResponseFromRequest(req, 200, "OK", nil))
		}
		if tx != nil {
			tx.TerminateGracefully()
		}
	})
	go func() { _ = transport.ServeUDP(conn) }()
	return serveSIP("sip-echo", conn.LocalAddr().String(), func() any { return sipHeld{memory: measureMemory()} })
}

// serveSIP tells the parent the address and what is held, until it is gone.
func serveSIP(name, addr string, held func() any) error {
	if profileDir != "" {
		signal.Ignore(syscall.SIGTERM) // the end of the input is enough
		f, err := os.Create(filepath.Join(profileDir, name+".pprof"))
		if err != nil {
			return err
		}
		defer f.Close()
		if err := pprof.StartCPUProfile(f); err != nil {
			return err
		}
		defer pprof.StopCPUProfile()
	}
	out := json.NewEncoder(os.Stdout)
	if err := out.Encode(serveSetup{SIP: strings.TrimSpace(addr)}); err != nil {
		return err
	}
	in := bufio.NewReader(os.Stdin)
	for {
		if _, err := in.ReadBytes('\n'); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		if err := out.Encode(held()); err != nil {
			return err
		}
	}
}
