package media

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"brewline/internal/tone"
	"brewline/media/codec"
)

// A trace is what a network does to the packets of a stream: for the i-th, its
// delay, whether it is lost, and how often it comes.
type trace func(r *rand.Rand, i int) (delay time.Duration, lost bool, copies int)

// through has a talker's packets arrive on a conn as the trace has it.
func (c *call) through(k *talker, to *conn, seed uint64, net trace) {
	type arrival struct {
		at time.Duration
		b  []byte
	}
	r := rand.New(rand.NewPCG(seed, 1))
	var under []arrival
	i := 0
	c.every(time.Duration(k.ms)*time.Millisecond, 3*time.Millisecond, func(now time.Duration) {
		b := k.packet()
		delay, lost, copies := net(r, i)
		i++
		for range copies {
			if !lost {
				under = append(under, arrival{now + delay, b})
			}
		}
	})
	c.arrive = append(c.arrive, func(now time.Duration) {
		slices.SortStableFunc(under, func(a, b arrival) int { return int(a.at - b.at) })
		for len(under) > 0 && under[0].at <= now {
			to.ring.Push(under[0].b, under[0].at, false)
			under = under[1:]
		}
	})
}

func steadyNet(*rand.Rand, int) (time.Duration, bool, int) { return 0, false, 1 }

func lossy(p float64) trace {
	return func(r *rand.Rand, _ int) (time.Duration, bool, int) { return 0, r.Float64() < p, 1 }
}

func jittery(most time.Duration) trace {
	return func(r *rand.Rand, _ int) (time.Duration, bool, int) {
		return time.Duration(r.Int64N(int64(most))), false, 1
	}
}

// TestNetworks has a voice come over networks of all kinds, from the phone and
// from the videobridge, in packets of all lengths, and sees to it that it is
// heard with little lost and that the delay is what the network asks for.
func TestNetworks(t *testing.T) {
	for _, v := range []struct {
		name      string
		net       trace
		delay     time.Duration // at most, at the end
		concealed float64       // share of the time, at most
	}{
		{"clean", steadyNet, 25 * time.Millisecond, 0},
		{"loss of 10 %", lossy(0.1), 50 * time.Millisecond, 0.14},
		{"loss of 30 %", lossy(0.3), 50 * time.Millisecond, 0.40},
		{"jitter of 15 ms", jittery(15 * time.Millisecond), 45 * time.Millisecond, 0.05},
		{"jitter of 50 ms, reordered", jittery(50 * time.Millisecond), 95 * time.Millisecond, 0.05},
		{"doubled", func(r *rand.Rand, i int) (time.Duration, bool, int) { return 0, false, 2 }, 25 * time.Millisecond, 0},
		{"stuck for 400 ms once", func(r *rand.Rand, i int) (time.Duration, bool, int) {
			if i >= 150 && i < 170 {
				return time.Duration(170-i) * 20 * time.Millisecond, false, 1
			}
			return 0, false, 1
		}, 90 * time.Millisecond, 0.05},
		{"early by 400 ms at first", func(r *rand.Rand, i int) (time.Duration, bool, int) {
			if i < 20 {
				return 0, false, 1
			}
			return 400 * time.Millisecond, false, 1
		}, 60 * time.Millisecond, 0.08},
		{"gone for a second", func(r *rand.Rand, i int) (time.Duration, bool, int) { return 0, i >= 150 && i < 200, 1 }, 25 * time.Millisecond, 0.02},
	} {
		for _, from := range []string{"pcmu", "bridge"} {
			t.Run(v.name+"/"+from, func(t *testing.T) {
				t.Parallel()
				c := newCall(t, "pcmu", 20*time.Millisecond)
				var k *talker
				var to *conn
				if from == "bridge" {
					k, to = newTalker(t, "opus", testOpusPT, 1, 20), c.conf
					k.levelID = testLevel
				} else {
					k, to = newTalker(t, "pcmu", 0, 1, 20), c.phone
				}
				k.pcm = syllables(k.rate, 10*time.Second)
				c.through(k, to, 7, v.net)
				c.run(8 * time.Second)
				s, l := c.bridge.Stats(), LegStats{}
				var heard *ear
				if from == "bridge" {
					l, heard = s.Conference, listen(t, "pcmu", 0, c.phone.rtp, 0)
				} else {
					l, heard = s.Phone, listen(t, "opus", 8000, c.conf.rtp, 0)
				}
				t.Logf("concealed %d, of these recovered %d, late %d, lost %d, adjusted %d, jitter %v, delay %v",
					l.Concealed, l.Recovered, l.Late, l.Lost, l.Adjusted, l.Jitter, l.Delay)
				if l.Delay > v.delay {
					t.Errorf("delay %v, want at most %v", l.Delay, v.delay)
				}
				if share := float64(l.Concealed) / 400; share > v.concealed {
					t.Errorf("%.3f concealed, want at most %.3f", share, v.concealed)
				}
				whole := syllables(8000, 8*time.Second)
				if got, want := tone.RMS(heard.pcm[8000:]), tone.RMS(whole[8000:]); math.Abs(got-want) > 2.5 {
					t.Errorf("%.1f dBFS is heard, of %.1f", got, want)
				}
			})
		}
	}
}

// syllables is a harmonic sound that comes and goes four times a second.
func syllables(rate int, d time.Duration) []int16 {
	n := int(int64(d) * int64(rate) / int64(time.Second))
	second := twoSeconds(rate)
	pcm := make([]int16, 0, n)
	for len(pcm) < n {
		pcm = append(pcm, second[:min(len(second), n-len(pcm))]...)
	}
	return pcm
}

// twoSeconds is what syllables repeats.
func twoSeconds(rate int) []int16 {
	pcm := make([]int16, 2*rate)
	for i := range pcm {
		at := float64(i) / float64(rate)
		envelope := max(math.Sin(2*math.Pi*4*at)+0.5, 0.002)
		s := 0.0
		for h := 1.0; h <= 6; h++ {
			s += math.Sin(2*math.Pi*(130)*h*at+h) / h
		}
		pcm[i] = int16(4000 * envelope * s)
	}
	return pcm
}

// FEC is used once a loss has shown that it is needed: what is lost is
// recovered from the next packet if that brings a copy.
func TestFECIsUsed(t *testing.T) {
	t.Parallel()
	c := newCall(t, "pcmu", 20*time.Millisecond)
	k := newTalker(t, "opus", testOpusPT, 1, 20)
	k.levelID = testLevel
	k.pcm = syllables(16000, 20*time.Second)
	dec, _ := codec.NewOpusDecoder(16000)
	copies, was := 0, false
	r := rand.New(rand.NewPCG(3, 1))
	c.every(20*time.Millisecond, 3*time.Millisecond, func(now time.Duration) {
		b, lost := k.packet(), r.Float64() < 0.1
		if p, _ := parseRTP(b); was && !lost && dec.HasFEC(p.payload) {
			copies++
		}
		if was = lost; !lost {
			c.conf.ring.Push(b, now, false)
		}
	})
	c.run(12 * time.Second)
	l := c.bridge.Stats().Conference
	if int(l.Recovered) < copies-2 || copies < 25 {
		t.Errorf("%d recovered, %d copies came, %d lost", l.Recovered, copies, l.Lost)
	}
	// Without loss the packet of delay that FEC costs is taken out again.
	before := l.Delay
	c.arrive = nil
	k.pcm = syllables(16000, 20*time.Second)
	c.says(k, c.conf, 3*time.Millisecond)
	c.run(15 * time.Second)
	if l := c.bridge.Stats().Conference; l.Delay >= before || l.Delay > 25*time.Millisecond {
		t.Errorf("delay %v after the loss, %v with it", l.Delay, before)
	}
}

// Clocks that run apart are followed by leaving out or adding steps, and
// nothing else is heard of it.
func TestDrift(t *testing.T) {
	for _, ppm := range []int{-1500, -200, 200, 1500} {
		t.Run(fmt.Sprint(ppm), func(t *testing.T) {
			t.Parallel()
			c := newCall(t, "pcmu", 20*time.Millisecond)
			phone, web := newTalker(t, "pcmu", 0, 1, 20), newTalker(t, "opus", testOpusPT, 2, 20)
			web.levelID = testLevel
			phone.pcm, web.pcm = syllables(8000, 30*time.Second), syllables(16000, 30*time.Second)
			period := 20*time.Millisecond - time.Duration(20*ppm)*time.Nanosecond
			c.every(period, 3*time.Millisecond, func(now time.Duration) { c.phone.ring.Push(phone.packet(), now, false) })
			c.every(period, 9*time.Millisecond, func(now time.Duration) { c.conf.ring.Push(web.packet(), now, false) })
			c.run(25 * time.Second)
			s := c.bridge.Stats()
			for name, l := range map[string]LegStats{"phone": s.Phone, "videobridge": s.Conference} {
				t.Logf("%s: %+v", name, l)
				if l.Delay > 40*time.Millisecond {
					t.Errorf("%s: delay %v", name, l.Delay)
				}
				apart := time.Duration(ppm) * 25 * time.Microsecond
				steps := uint64(max(apart, -apart)/(20*time.Millisecond)) + 2
				if l.Concealed+l.Adjusted > steps {
					t.Errorf("%s: %d concealed, %d adjusted for %v", name, l.Concealed, l.Adjusted, apart)
				}
				if l.Late > 0 {
					t.Errorf("%s: %d late", name, l.Late)
				}
			}
		})
	}
}

// The videobridge leaves out silence and renumbers: the timestamp jumps, the
// sequence does not. A source may also begin anew with any numbers.
func TestJumps(t *testing.T) {
	for _, v := range []struct {
		name string
		jump func(k *talker) (pause time.Duration)
	}{
		{"silence left out", func(k *talker) time.Duration { k.ts += 48000; return time.Second }},
		{"timestamp on", func(k *talker) time.Duration { k.ts += 1 << 30; return 0 }},
		{"timestamp back", func(k *talker) time.Duration { k.ts -= 1 << 30; return 0 }},
		{"timestamp on a little", func(k *talker) time.Duration { k.ts += 480 * 25; return 0 }},
		{"timestamp back a little", func(k *talker) time.Duration { k.ts -= 480 * 25; return 0 }},
		{"sequence on", func(k *talker) time.Duration { k.seq += 20000; return 0 }},
		{"sequence back", func(k *talker) time.Duration { k.seq -= 20000; return 0 }},
		{"sequence on by 70", func(k *talker) time.Duration { k.seq += 70; return 0 }},
		{"both", func(k *talker) time.Duration { k.seq, k.ts = 3, 5; return 100 * time.Millisecond }},
		{"SSRC", func(k *talker) time.Duration { k.ssrc, k.seq, k.ts = 999, 3, 5; return 0 }},
	} {
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			c := newCall(t, "pcma", 20*time.Millisecond)
			k := newTalker(t, "opus", testOpusPT, 1, 20)
			k.levelID = testLevel
			k.pcm = sine(500, 16000, time.Minute)
			say := func(d time.Duration) {
				for end := c.now + d; c.now < end; {
					c.conf.ring.Push(k.packet(), c.now, false)
					c.run(20 * time.Millisecond)
				}
			}
			say(time.Second)
			c.run(v.jump(k))
			sent := len(c.phone.rtp)
			k.pcm = sine(1300, 16000, time.Minute)
			say(3 * time.Second)
			down := listen(t, "pcma", 0, c.phone.rtp[sent:], 0)
			hears(t, "after the jump", down.pcm, 8000, 1300)
			if l := c.bridge.Stats().Conference; l.Delay > 100*time.Millisecond {
				t.Errorf("delay %v", l.Delay)
			}
		})
	}
}
