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

// Nor is anything by digits that are sent and heard, and comfort noise that comes and
// goes.
func TestNothingAllocatedByDigits(t *testing.T) {
	for _, name := range []string{"pcmu", "g722", "opus"} {
		c := newCall(t, name, 20*time.Millisecond)
		c.phone.discard, c.conf.discard = true, true
		if err := c.bridge.AttachPhone(PhoneLeg{
			Conn: c.phone, Codec: name, SendPT: phonePT(name), RecvPT: phonePT(name), EventPT: 101, RecvEventPT: 101,
			CNPT: 13, RecvCNPT: 13, Send: true, Receive: true, Tones: true,
		}); err != nil {
			t.Fatal(err)
		}
		k := newTalker(t, name, phonePT(name), 1, 20)
		k.pcm = dialled(t, k.rate, "12")
		var packets [][]byte
		for range 50 {
			packets = append(packets, k.packet())
		}
		comfort := k.comfortPacket(13, 50, 120, 130)
		i := 0
		step := func() {
			b := packets[i%50]
			if i%100 >= 50 { // half the time noise
				b = comfort
			}
			putRTP(b, b[1]&0x7f, false, k.seq, k.ts, k.ssrc)
			if i%100 < 50 || i%10 == 0 {
				k.seq++
				c.phone.ring.Push(b, c.now, false)
			}
			k.ts += uint32(k.clock / 50)
			if i%50 == 0 {
				c.bridge.SendDigit('5', 200*time.Millisecond, i%100 == 0)
			}
			i++
			c.run(20 * time.Millisecond)
		}
		for range 200 {
			step()
		}
		before := c.bridge.Stats()
		// To tell of a digit costs an allocation.
		if allocs := testing.AllocsPerRun(1, func() {
			for range 40 {
				step()
			}
		}); allocs > 4 {
			t.Errorf("%s: %v allocations in 0.8 s", name, allocs)
		}
		for range 100 {
			step()
		}
		if s := c.bridge.Stats(); s.DigitsHeard <= before.DigitsHeard || s.DigitsSent <= before.DigitsSent ||
			s.Phone.ComfortIn == before.Phone.ComfortIn {
			t.Errorf("%s: %+v", name, s)
		}
	}
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
