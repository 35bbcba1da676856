package media

import (
	"math"
	"math/cmplx"
	"math/rand/v2"
	"testing"
	"time"

	"brewline/media/codec"
)

// sentences are some prompts one after another, spoken in 16 kHz.
func sentences() (pcm []int16) {
	for p := Prompt(1); p <= PromptMuted; p++ {
		pcm = append(pcm, promptPCM(p, 16000)...)
		pcm = append(pcm, make([]int16, 4000)...)
	}
	return pcm
}

// TestListeningScore compares what the phone hears of sentences at a random
// loss of 10 % with what bare libopus makes of the same trace with FEC and PLC
// and the next packet always at hand.
func TestListeningScore(t *testing.T) {
	for seed := range uint64(2) {
		c := newCall(t, "pcmu", 20*time.Millisecond)
		k := newTalker(t, "opus", testOpusPT, 1, 20)
		enc, err := codec.NewOpusEncoder(16000, codec.OpusOptions{Loss: 10})
		if err != nil {
			t.Fatal(err)
		}
		k.enc, k.levelID, k.pcm = enc, testLevel, sentences()
		var packets [][]byte
		for len(k.pcm) > 0 {
			packets = append(packets, k.packet())
		}
		r := rand.New(rand.NewPCG(seed, 9))
		lost := make([]bool, len(packets)+1)
		for i := range packets {
			lost[i] = i > 0 && r.Float64() < 0.1
		}
		clean := reference(t, packets, make([]bool, len(packets)+1))
		bare := reference(t, packets, lost)
		i := 0
		c.every(20*time.Millisecond, 3*time.Millisecond, func(now time.Duration) {
			if i < len(packets) && !lost[i] {
				c.conf.ring.Push(packets[i], now, false)
			}
			i++
		})
		c.run(time.Duration(len(packets)) * 20 * time.Millisecond)
		ours := listen(t, "pcmu", 0, c.phone.rtp, 0).pcm
		want, got := distance(clean, bare), distance(clean, ours)
		t.Logf("seed %d: %.2f dB off with bare libopus, %.2f dB with ours", seed, want, got)
		if got > want*1.05 {
			t.Errorf("seed %d: %.2f dB off, with bare libopus %.2f dB", seed, got, want)
		}
	}
}

// reference decodes to 8 kHz with FEC where the next packet came, else PLC.
func reference(t *testing.T, packets [][]byte, lost []bool) (pcm []int16) {
	dec, err := codec.NewOpusDecoder(8000)
	if err != nil {
		t.Fatal(err)
	}
	frame := make([]int16, 160)
	payload := func(i int) []byte { p, _ := parseRTP(packets[i]); return p.payload }
	for i := range packets {
		switch {
		case !lost[i]:
			if _, err := dec.Decode(frame, payload(i)); err != nil {
				t.Fatal(err)
			}
		case i+1 < len(packets) && !lost[i+1]:
			dec.Recover(frame, payload(i+1))
		default:
			dec.Conceal(frame)
		}
		pcm = append(pcm, frame...)
	}
	// The phone hears it in G.711.
	law, _ := codec.ByName("pcmu")
	e, _ := law.NewEncoder(codec.OpusOptions{})
	d, _ := law.NewDecoder()
	b := make([]byte, len(pcm))
	e.Encode(b, pcm)
	for i := 0; i < len(b); i += 160 {
		d.Decode(pcm[i:i+160], b[i:i+160])
	}
	return pcm
}

// distance is how far b's spectrum is from a's, both at 8 kHz, over the frames
// in which a is not silent: the root mean square of the differences of level in
// bands a Bark wide, in dB, b being moved to where it fits best. Each second is
// placed by itself, since delay may change.
func distance(a, b []int16) float64 {
	const second, shift = 8000, 2000
	sum, n := 0.0, 0
	lag, _ := align(a[:min(len(a), 4*second)], b, 0, shift)
	for from := second; from+second <= len(a); from += second {
		at, ok := align(a[from:from+second], b, from+lag-400, 800)
		if !ok {
			continue
		}
		lag = at - from
		for i := 0; i+256 <= second && at+i+256 <= len(b); i += 128 {
			x, y := bands(a[from+i:]), bands(b[at+i:])
			loud := 0.0
			for _, v := range x {
				loud = max(loud, v)
			}
			if loud < 25 {
				continue
			}
			for k := range x {
				d := max(x[k], loud-35) - max(y[k], loud-35)
				sum += d * d
				n++
			}
		}
	}
	return math.Sqrt(sum / float64(max(n, 1)))
}

// align finds where in b, up to shift after from, a fits best; false if a is
// silent.
func align(a, b []int16, from, shift int) (int, bool) {
	best, at := 0.0, from
	for lag := max(from, 0); lag < from+shift && lag+len(a) <= len(b); lag++ {
		v := 0.0
		for i := 0; i < len(a); i += 3 {
			v += float64(a[i]) * float64(b[lag+i])
		}
		if v > best {
			best, at = v, lag
		}
	}
	return at, best > 0
}

// bands are the levels of 256 samples in 17 bands, dB.
func bands(pcm []int16) [17]float64 {
	var x [256]complex128
	for i := range x {
		w := 0.5 - 0.5*math.Cos(2*math.Pi*float64(i)/256)
		x[i] = complex(float64(pcm[i])*w/256, 0)
	}
	fft(x[:])
	edges := [18]float64{20, 100, 200, 300, 400, 510, 630, 770, 920, 1080, 1270, 1480, 1720, 2000, 2320, 2700, 3150, 3700}
	var out [17]float64
	for k := range out {
		e := 1e-6
		for bin := int(edges[k] / 31.25); float64(bin)*31.25 < edges[k+1]; bin++ {
			e += real(x[bin])*real(x[bin]) + imag(x[bin])*imag(x[bin])
		}
		out[k] = 10 * math.Log10(e)
	}
	return out
}

func fft(x []complex128) {
	n := len(x)
	if n == 1 {
		return
	}
	even, odd := make([]complex128, n/2), make([]complex128, n/2)
	for i := range even {
		even[i], odd[i] = x[2*i], x[2*i+1]
	}
	fft(even)
	fft(odd)
	for i := range even {
		t := cmplx.Rect(1, -2*math.Pi*float64(i)/float64(n)) * odd[i]
		x[i], x[i+n/2] = even[i]+t, even[i]-t
	}
}
