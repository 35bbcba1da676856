package sip_test

import (
	"context"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"brewline/internal/needtool"
	"brewline/internal/siptest"
	"brewline/sip"
)

// Calls through one user agent leave nothing behind: no dialog, no transaction
// when its timers have passed, no goroutine, no memory.
func TestNothingLeft(t *testing.T) { nothingLeft(t, 200) }

func TestNothingLeftOfTenThousand(t *testing.T) {
	needtool.NeedLong(t)
	nothingLeft(t, 10_000)
}

func nothingLeft(t *testing.T, calls int) {
	u := newUA(t, func(d *sip.Dialog) { _, _ = d.Answer(context.Background(), []byte(answerSDP)) },
		func(o *sip.Options) { o.Rate, o.Burst, o.T1 = 1e9, 1e9, 2*testT1 })
	to, err := netip.ParseAddrPort(u.Addrs()[0].String())
	if err != nil {
		t.Fatal(err)
	}
	run := func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
		defer cancel()
		r, err := siptest.Generator{To: to, Calls: calls, AtOnce: 32, Again: 50 * testT1}.Run(ctx)
		// On a slow machine a BYE may be repeated so late that its call is forgotten.
		if err != nil || r.Calls == 0 || r.Calls+r.Refused != calls {
			t.Fatalf("%+v, %v", r, err)
		}
		await(t, "nothing left", func() bool {
			s := u.Stats()
			return s.Dialogs == 0 && s.ServerTransactions == 0 && s.ClientTransactions == 0
		})
	}
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	run() // maps keep the room that they once had
	goroutines, before := runtime.NumGoroutine(), heap()
	run()
	await(t, "goroutines ended", func() bool { return runtime.NumGoroutine() <= goroutines })
	// A dialog with its INVITE is some 10 KiB, its transactions some more.
	if after := heap(); after > before+uint64(calls)*1024 {
		t.Errorf("heap of %d KiB after %d calls, %d before them", after>>10, calls, before>>10)
	}
}
