package codec

import (
	"encoding/binary"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"brewline/internal/tone"
)

// keys are digits as telephones make them, with their gaps.
func keys(rate int, digits string, on, off time.Duration, low, high float64) []int16 {
	var pcm []int16
	f := map[rune][2]int{}
	for i, r := range "123A456B789C*0#D" {
		f[r] = [2]int{[]int{697, 770, 852, 941}[i/4], []int{1209, 1336, 1477, 1633}[i%4]}
	}
	for _, r := range digits {
		d := tone.Add(tone.Sine(f[r][0], rate, on, low), tone.Sine(f[r][1], rate, on, high))
		pcm = append(append(pcm, d...), make([]int16, int(off.Seconds()*float64(rate)))...)
	}
	return pcm
}

// detect returns what is heard in pcm, in frames of 20 ms.
func detect(t *testing.T, rate int, pcm []int16) (heard string, times []time.Duration) {
	t.Helper()
	d, err := NewDTMFDetector(rate)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	for pcm = append(pcm, make([]int16, rate/5)...); len(pcm) > 0; {
		n := min(rate/50, len(pcm))
		if g, s := d.Write(pcm[:n]); g != 0 {
			heard += string(g)
			times = append(times, s)
		}
		pcm = pcm[n:]
	}
	return heard, times
}

func TestDTMFDetector(t *testing.T) {
	t.Parallel()
	const all = "1234567890*#ABCD11"
	for _, rate := range []int{8000, 16000, 48000} {
		for _, v := range []struct {
			on, off   time.Duration
			low, high float64
		}{
			{100 * time.Millisecond, 100 * time.Millisecond, 0.25, 0.25},
			{65 * time.Millisecond, 60 * time.Millisecond, 0.25, 0.25},
			{time.Second, 100 * time.Millisecond, 0.3, 0.3},
			{100 * time.Millisecond, 100 * time.Millisecond, 0.02, 0.02},
			{100 * time.Millisecond, 100 * time.Millisecond, 0.25, 0.15}, // twisted by 4 dB
			{100 * time.Millisecond, 100 * time.Millisecond, 0.18, 0.25}, // the other way, by 3 dB
		} {
			pcm := keys(rate, all, v.on, v.off, v.low, v.high)
			r := rand.New(rand.NewPCG(1, 2))
			for i := range pcm { // noise 26 dB below
				pcm[i] += int16(r.NormFloat64() * v.low * 32767 / 28)
			}
			heard, times := detect(t, rate, pcm)
			if heard != all {
				t.Errorf("%d Hz, %v on: %q is heard, of %q", rate, v, heard, all)
				continue
			}
			for i, d := range times {
				if d < v.on-30*time.Millisecond || d > v.on+30*time.Millisecond {
					t.Errorf("%d Hz: %c of %v is heard for %v", rate, all[i], v.on, d)
				}
			}
		}
		// Too short, a single tone, silence: nothing.
		for name, pcm := range map[string][]int16{
			"short":      keys(rate, "159", 20*time.Millisecond, 100*time.Millisecond, 0.25, 0.25),
			"one tone":   tone.Sine(697, rate, time.Second, 0.5),
			"dial tone":  tone.Add(tone.Sine(350, rate, time.Second, 0.2), tone.Sine(440, rate, time.Second, 0.2)),
			"very faint": keys(rate, "159", 100*time.Millisecond, 100*time.Millisecond, 0.0002, 0.0002),
		} {
			if heard, _ := detect(t, rate, pcm); heard != "" {
				t.Errorf("%d Hz, %s: %q is heard", rate, name, heard)
			}
		}
	}
	if _, err := NewDTMFDetector(44100); err == nil {
		t.Error("44.1 kHz is taken")
	}
}

// Speech is not taken for digits, whoever speaks: the recordings are played at
// many pitches, alone and two at once.
func TestSpeechIsNoDigit(t *testing.T) {
	t.Parallel()
	voices := speech(t, 8000)
	total := time.Duration(0)
	for _, pitch := range []int{6400, 8000, 9500, 11500} {
		for i, v := range voices {
			pcm := tone.Resample(v, pitch, 8000)
			if heard, _ := detect(t, 8000, pcm); heard != "" {
				t.Errorf("recording %d at %d Hz: %q is heard", i, pitch, heard)
			}
			both := tone.Add(pcm, voices[(i+1)%len(voices)])
			if heard, _ := detect(t, 8000, both); heard != "" {
				t.Errorf("recordings %d and %d at %d Hz: %q is heard", i, i+1, pitch, heard)
			}
			total += 2 * time.Duration(len(pcm)) * time.Second / 8000
		}
	}
	// Through the filter, too.
	for i, v := range speech(t, 48000) {
		if heard, _ := detect(t, 48000, v); heard != "" {
			t.Errorf("recording %d at 48 kHz: %q is heard", i, heard)
		}
	}
	// A digit is heard over speech that is fainter.
	faint := make([]int16, len(voices[0]))
	for i, s := range voices[0] {
		faint[i] = s / 32
	}
	if heard, _ := detect(t, 8000, tone.Add(faint, keys(8000, "*6", 200*time.Millisecond, 200*time.Millisecond, 0.25, 0.25))); heard != "*6" {
		t.Errorf("over speech %q is heard", heard)
	}
	t.Logf("%v of speech", total.Round(time.Second))
}

// speech is the recordings that the measurements use.
func speech(t *testing.T, rate int) (voices [][]int16) {
	t.Helper()
	files, err := filepath.Glob("../../internal/bench/speech/*.pkt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no recordings (%v)", err)
	}
	for _, f := range files {
		raw, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		dec, err := NewOpusDecoder(rate)
		if err != nil {
			t.Fatal(err)
		}
		var pcm []int16
		buf := make([]int16, rate*MaxPacket/1000)
		for len(raw) >= 2 {
			n := int(binary.BigEndian.Uint16(raw))
			k, err := dec.Decode(buf, raw[2:2+n])
			if err != nil {
				t.Fatal(err)
			}
			pcm, raw = append(pcm, buf[:k]...), raw[2+n:]
		}
		voices = append(voices, pcm)
	}
	return voices
}

// What is beyond half of 8 kHz does not come back as a tone.
func TestDTMFFilter(t *testing.T) {
	t.Parallel()
	d, err := NewDTMFDetector(48000)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	gain := func(freq int) float64 {
		sum, n := 0.0, 0
		for i, v := range tone.Sine(freq, 48000, time.Second, 0.5) {
			if s, ok := d.decimate(v); ok && i > 4800 {
				sum += float64(s) * float64(s)
				n++
			}
		}
		return 10*math.Log10(sum/float64(n)) - 20*math.Log10(0.5*32767/math.Sqrt2)
	}
	for _, f := range []int{697, 1209, 1633} {
		if g := gain(f); math.Abs(g) > 1.5 {
			t.Errorf("%d Hz passes with %.1f dB", f, g)
		}
	}
	for _, f := range []int{6400, 7000, 9300} {
		if g := gain(f); g > -40 {
			t.Errorf("%d Hz passes with %.1f dB", f, g)
		}
	}
}

func TestDTMFAllocatesNothing(t *testing.T) {
	d, err := NewDTMFDetector(48000)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	pcm := keys(48000, "1", 100*time.Millisecond, 100*time.Millisecond, 0.25, 0.25)
	if n := testing.AllocsPerRun(10, func() { d.Write(pcm) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func FuzzDTMF(f *testing.F) {
	f.Add([]byte("any sound"), uint8(1))
	f.Fuzz(func(t *testing.T, b []byte, which uint8) {
		rate := []int{8000, 16000, 48000}[which%3]
		pcm := make([]int16, len(b)/2)
		for i := range pcm {
			pcm[i] = int16(binary.LittleEndian.Uint16(b[2*i:]))
		}
		d, err := NewDTMFDetector(rate)
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		if g, s := d.Write(pcm); g != 0 && (!strings.ContainsRune("0123456789*#ABCD", rune(g)) || s < minTone) {
			t.Fatalf("%q for %v", g, s)
		}
	})
}
