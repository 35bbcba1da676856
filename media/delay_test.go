package media

import (
	"testing"
	"time"

	"brewline/internal/tone"
)

// click is a second of silence but for 4 ms of loudness at 500 ms.
func click(rate int) []int16 {
	pcm := make([]int16, rate)
	copy(pcm[rate/2:], tone.Sine(1000, rate, 4*time.Millisecond, 0.9))
	return pcm
}

// onset is where in pcm, from on, it becomes loud.
func onset(pcm []int16, from int) int {
	for i := from; i < len(pcm); i++ {
		if pcm[i] > 4000 || pcm[i] < -4000 {
			return i
		}
	}
	return -1
}

// clickDelay is the time from the click's sample going in to its coming out,
// had both streams no packets but a wire: packet times are not counted.
func clickDelay(t *testing.T, in, out *ear, inAt, outAt []time.Duration) time.Duration {
	t.Helper()
	where := func(e *ear, at []time.Duration) time.Duration {
		sample := onset(e.pcm, e.rate/4)
		if sample < 0 {
			t.Fatal("no click")
		}
		for i := len(e.packets) - 1; i >= 0; i-- {
			begin := int(int64(e.packets[i].ts-e.packets[0].ts) * int64(e.rate) / int64(e.clock))
			if begin <= sample {
				return at[i] + time.Duration(sample-begin)*time.Second/time.Duration(e.rate)
			}
		}
		t.Fatal("no packet with the click")
		return 0
	}
	return where(out, outAt) - where(in, inAt)
}

// A click goes through both ways, for every phase in which packets may come.
// The figures are what the bridge adds on a clean network, Opus' own 6.5 ms of
// look-ahead (RFC 7587 §4.2) included.
func TestClickDelay(t *testing.T) {
	var worstUp, worstDown time.Duration
	for phase := 0; phase < 20; phase += 3 {
		c := newCall(t, "pcmu", 20*time.Millisecond)
		var said [2][][]byte
		var at [2][]time.Duration
		phone := newTalker(t, "pcmu", 0, 1, 20)
		web := newTalker(t, "opus", testOpusPT, 2, 20)
		// The streams have been going for a second when the click comes. A
		// faint hum keeps the stream from resting.
		hum := func(rate int) []int16 { return tone.Sine(100, rate, time.Second, 0.01) }
		phone.pcm = append(hum(8000), tone.Add(click(8000), hum(8000))...)
		web.pcm = append(hum(16000), tone.Add(click(16000), hum(16000))...)
		for i, k := range []*talker{phone, web} {
			c.every(20*time.Millisecond, time.Duration(phase)*time.Millisecond, func(now time.Duration) {
				b := k.packet()
				said[i], at[i] = append(said[i], b), append(at[i], now)
				[]*conn{c.phone, c.conf}[i].ring.Push(b, now, false)
			})
		}
		c.run(2 * time.Second)
		up := clickDelay(t, listen(t, "pcmu", 0, said[0], 0), listen(t, "opus", 48000, c.conf.rtp, 0), at[0], c.conf.at)
		down := clickDelay(t, listen(t, "opus", 48000, said[1], 0), listen(t, "pcmu", 0, c.phone.rtp, 0), at[1], c.phone.at)
		worstUp, worstDown = max(worstUp, up), max(worstDown, down)
		if up > 25*time.Millisecond || down > 20*time.Millisecond || up < 0 || down < 0 {
			t.Errorf("phase %d ms: %v up, %v down", phase, up, down)
		}
		if s := c.bridge.Stats(); s.Phone.Concealed+s.Conference.Concealed+s.Phone.Adjusted+s.Conference.Adjusted > 0 {
			t.Errorf("phase %d ms: %+v", phase, s)
		}
	}
	t.Logf("at worst %v up, %v down", worstUp, worstDown)
}
