package media

import (
	"fmt"
	"testing"
	"time"
)

// steady is a call in which everything happens: the phone speaks, n
// participants speak, reports come and go.
func steady(t testing.TB, name string, n int) (c *call, step func()) {
	c = newCall(t, name, 20*time.Millisecond)
	c.phone.discard, c.conf.discard = true, true
	record := func(k *talker) [][]byte {
		packets := make([][]byte, 100)
		k.pcm = sine(300+int(k.ssrc)*100, k.rate, 3*time.Second)
		for i := range packets {
			packets[i] = k.packet()
		}
		return packets
	}
	talkers := []*talker{newTalker(t, name, phonePT(name), 1, 20)}
	for i := range n {
		k := newTalker(t, "opus", testOpusPT, uint32(i+2), 20)
		k.levelID = testLevel
		talkers = append(talkers, k)
	}
	records := make([][][]byte, len(talkers))
	for i, k := range talkers {
		records[i] = record(k)
	}
	rr := make([]byte, 200)
	k, blocks := putReport(rr, 99, nil, 1)
	(&reception{clock: 48000, seq: 1}).report(blocks, 7777, 0)
	k += putSDES(rr[k:], 99, "them")
	i := 0
	step = func() {
		for j, k := range talkers {
			b := records[j][i%100]
			putRTP(b, k.pt, false, k.seq, k.ts, k.ssrc)
			if k.levelID != 0 {
				b[0] |= 0x10
			}
			k.seq++
			k.ts += uint32(k.clock / 50)
			to := c.conf
			if j == 0 {
				to = c.phone
			}
			to.ring.Push(b, c.now, false)
		}
		if i%25 == 0 {
			c.conf.ring.Push(rr[:k], c.now, true)
			c.phone.ring.Push(rr[:k], c.now, true)
		}
		i++
		c.now += 10 * time.Millisecond
		c.pacer.Tick(c.now)
		c.now += 10 * time.Millisecond
		c.pacer.Tick(c.now)
	}
	for range 300 {
		step()
	}
	return c, step
}

func TestNothingAllocatedSteadily(t *testing.T) {
	for _, name := range []string{"pcmu", "pcma", "g722", "opus"} {
		for _, n := range []int{1, 5} {
			c, step := steady(t, name, n)
			before := c.bridge.Stats()
			// Longer than the longest interval between reports. AllocsPerRun
			// rounds down to whole allocations per run, so all is one run.
			allocs := testing.AllocsPerRun(1, func() {
				for range 200 {
					step()
				}
			})
			if allocs != 0 {
				t.Errorf("%s, %d speakers: %v allocations in 4 s", name, n, allocs)
			}
			after := c.bridge.Stats()
			if up, down := after.Conference.PacketsOut-before.Conference.PacketsOut,
				after.Phone.PacketsOut-before.Phone.PacketsOut; up < 200 || down < 200 {
				t.Errorf("%s, %d speakers: %d packets up, %d down", name, n, up, down)
			}
			if after.Conference.RTCPOut == before.Conference.RTCPOut || after.Conference.RTCPIn == before.Conference.RTCPIn {
				t.Errorf("%s, %d speakers: no reports", name, n)
			}
			if got := after.FramesDecoded - before.FramesDecoded; got > 404*uint64(min(n, maxChosen)) {
				t.Errorf("%s, %d speakers: %d frames decoded in 200 packet times", name, n, got)
			}
		}
	}
}

func BenchmarkSteady(b *testing.B) {
	for _, name := range []string{"pcmu", "g722", "opus"} {
		for _, n := range []int{0, 1, 3, 20} {
			b.Run(fmt.Sprintf("%s/speakers-%d", name, n), func(b *testing.B) {
				_, step := steady(b, name, n)
				b.ReportAllocs()
				for b.Loop() {
					step()
				}
			})
		}
	}
}
