package gateway_test

import (
	"runtime"
	"testing"
	"time"

	"brewline/internal/jitsitest"
	"brewline/internal/needtool"
	"brewline/internal/siptest"
)

// A thousand calls one after another, and a hundred at once, bring goroutines,
// ports, heap and the room's occupants back to where they began.
func TestThousandCalls(t *testing.T) {
	needtool.NeedLong(t)
	o := worldOptions{shards: 3, serial: true, limit: 5 * time.Minute}
	o.options.SIP.T1 = 50 * time.Millisecond // transactions are kept for 64·T1
	bothWays(t, o, "soak", func(t *testing.T, w *world) {
		sh := w.deps[0].Shards[1]
		alice, err := jitsitest.JoinBrowser(w.ctx, jitsitest.BrowserOptions{
			URL: sh.BOSHURL(), Domain: sh.Domain(), Room: "soak", Tone: 440, Deaf: true,
		})
		if err != nil {
			t.Fatal(err)
		}
		defer alice.Close()
		// A phone remembers what it heard: each is there for a hundred calls.
		phone := func() *siptest.Phone {
			p, err := siptest.NewPhone(siptest.PhoneOptions{})
			if err != nil {
				t.Fatal(err)
			}
			return p
		}
		heap := func() uint64 {
			for _, sh := range w.deps[0].Shards {
				sh.XMPP.ForgetRequests() // the simulated shard's record, not ours
			}
			runtime.GC()
			runtime.GC() // finalizers of the first round
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			return m.HeapAlloc
		}
		settled := func(goroutines int) {
			t.Helper()
			w.gone()
			w.await("nobody is left in the room", func() bool { return len(alice.Others()) == 0 })
			w.await("all ports are back", func() bool { return w.gw.Snapshot().PortsInUse == 0 })
			w.await("all goroutines have ended", func() bool { return runtime.NumGoroutine() <= goroutines })
		}
		hundred := func() {
			t.Helper()
			p := phone()
			defer p.Close()
			var attempts []*siptest.Attempt
			for range 100 {
				attempts = append(attempts, w.start(p, "soak", 0))
			}
			for _, a := range attempts {
				if err := w.answered(a).Hangup(w.ctx); err != nil {
					t.Fatal(err)
				}
			}
		}
		// What stays open is opened by the first calls.
		p := phone()
		w.hangup(w.call(p, "soak", 1000))
		p.Close()
		settled(1 << 20)
		before := runtime.NumGoroutine() + 20 // HTTP connections come and go; a leak would be 1 200
		hundred()
		settled(before)
		base := heap()
		for range 10 {
			p := phone()
			for range 100 {
				c := w.call(p, "soak", 0)
				if err := c.Hangup(w.ctx); err != nil {
					t.Fatal(err)
				}
			}
			p.Close()
		}
		hundred()
		settled(before)
		if after := heap(); after > base+8<<20 { // the simulated shards remember as well
			t.Errorf("the heap grew from %d to %d KiB", base>>10, after>>10)
		}
	})
}
