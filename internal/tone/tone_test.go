package tone

import (
	"math"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

func noise(n int, amp float64, seed uint64) []int16 {
	r := rand.New(rand.NewPCG(seed, 1))
	out := make([]int16, n)
	for i := range out {
		out[i] = int16((2*r.Float64() - 1) * amp * math.MaxInt16)
	}
	return out
}

func TestLevelAndRMS(t *testing.T) {
	tests := []struct {
		name     string
		pcm      []int16
		rate     int
		freq     int
		min, max float64 // level
		rms      float64
	}{
		{"full scale", Sine(1000, 8000, 100*time.Millisecond, 1), 8000, 1000, 0.99, 1, -3},
		{"half scale 48k", Sine(440, 48000, 100*time.Millisecond, 0.5), 48000, 440, 0.99, 1, -9},
		{"other tone", Sine(1000, 8000, 100*time.Millisecond, 0.5), 8000, 440, 0, 0.01, -9},
		{"silence", make([]int16, 800), 8000, 440, 0, 0, Silence},
		{"nothing", nil, 8000, 440, 0, 0, Silence},
		{"two tones", Add(Sine(440, 8000, 100*time.Millisecond, 0.3), Sine(1000, 8000, 100*time.Millisecond, 0.3)), 8000, 440, 0.45, 0.55, -10.5},
		{"noise", noise(1600, 0.5, 7), 8000, 1000, 0, 0.05, -10.8},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if l := Level(tt.pcm, tt.rate, tt.freq); l < tt.min || l > tt.max {
				t.Errorf("Level = %.3f, want %.2f..%.2f", l, tt.min, tt.max)
			}
			if r := RMS(tt.pcm); math.Abs(r-tt.rms) > 0.3 {
				t.Errorf("RMS = %.2f, want %.1f", r, tt.rms)
			}
		})
	}
}

// Over a gap in which the tone's phase jumped, Level finds next to nothing.
func TestShareOverGaps(t *testing.T) {
	half := Sine(500, 8000, 601*time.Millisecond, 0.5) // one half period too much
	pcm := append(slices.Clone(half), half...)
	if l, s := Level(pcm, 8000, 500), Share(pcm, 8000, 500); l > 0.1 || s < 0.9 {
		t.Errorf("Level %.2f, Share %.2f", l, s)
	}
	if s := Share(pcm, 8000, 700); s > 0.02 {
		t.Errorf("another tone's share is %.2f", s)
	}
	if s := Share(make([]int16, 800), 8000, 500); s != 0 {
		t.Errorf("silence's share is %.2f", s)
	}
}

func TestGeneratorIsContinuous(t *testing.T) {
	g := NewGenerator(440, 8000, 0.5)
	var got []int16
	for range 10 {
		f := make([]int16, 160)
		g.Read(f)
		got = append(got, f...)
	}
	if !slices.Equal(got, Sine(440, 8000, 200*time.Millisecond, 0.5)) {
		t.Error("frames do not join into the sine")
	}
}

func TestDetector(t *testing.T) {
	d := NewDetector(440, 8000, 100*time.Millisecond, 0)
	if d.Present() {
		t.Error("present before anything came")
	}
	s := Sine(440, 8000, 330*time.Millisecond, 0.3)
	for i := 0; i+160 <= len(s); i += 160 {
		d.Write(s[i : i+160])
	}
	if !d.Present() || d.Level() < 0.99 {
		t.Errorf("tone missed: level %.2f", d.Level())
	}
	d.Write(Sine(1000, 8000, 90*time.Millisecond, 0.3))
	if d.Present() {
		t.Errorf("tone still seen: level %.2f", d.Level())
	}
	d.Write(make([]int16, 4000))
	if d.RMS() != Silence {
		t.Errorf("RMS of silence %.1f", d.RMS())
	}
}

func TestResample(t *testing.T) {
	for _, r := range [][2]int{{8000, 48000}, {48000, 8000}, {16000, 48000}, {48000, 16000}, {44100, 8000}, {8000, 8000}} {
		out := Resample(Sine(600, r[0], time.Second, 0.25), r[0], r[1])
		if l, rms := Level(out, r[1], 600), RMS(out); len(out) != r[1] || l < 0.98 || math.Abs(rms+15) > 0.6 {
			t.Errorf("%v: %d samples, level %.3f, %.1f dBFS", r, len(out), l, rms)
		}
	}
	if len(Resample(nil, 8000, 16000)) != 0 {
		t.Error("something of nothing")
	}
}

func TestSpeech(t *testing.T) {
	const s = time.Second
	for _, tt := range []struct {
		name     string
		pcm      []int16
		rate     int
		min, max float64
	}{
		{"tone in band", Sine(800, 8000, s, 0.2), 8000, 0.95, 1},
		{"tone in band 48k", Sine(800, 48000, s, 0.2), 48000, 0.95, 1},
		{"hum", Sine(50, 8000, s, 0.5), 8000, 0, 0},
		{"whistle", Sine(9000, 48000, s, 0.5), 48000, 0, 0},
		{"hiss", noise(48000, 0.5, 3), 48000, 0, 0.05},
		{"too soft", Sine(800, 8000, s, 0.003), 8000, 0, 0},
		{"silence", make([]int16, 8000), 8000, 0, 0},
		{"half", append(Sine(800, 8000, s/2, 0.2), make([]int16, 4000)...), 8000, 0.45, 0.55},
	} {
		if v := Speech(tt.pcm, tt.rate); v < tt.min || v > tt.max {
			t.Errorf("%s: %.2f, want %.2f..%.2f", tt.name, v, tt.min, tt.max)
		}
	}
}

func TestWAV(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.wav")
	want := Sine(440, 16000, 50*time.Millisecond, 0.5)
	if err := WriteWAV(path, 16000, want); err != nil {
		t.Fatal(err)
	}
	rate, got, err := ReadWAV(path)
	if err != nil || rate != 16000 || !slices.Equal(got, want) {
		t.Errorf("ReadWAV = %d, %d samples, %v", rate, len(got), err)
	}
	for _, bad := range []string{"", "RIFF", "RIFF....WAVE", "RIFF....WAVEdata\x02\x00\x00\x00ab", "RIFF....WAVEfmt \x02\x00\x00\x00ab"} {
		if _, _, err := ParseWAV([]byte(bad)); err == nil {
			t.Errorf("ParseWAV(%q) succeeded", bad)
		}
	}
}

func FuzzParseWAV(f *testing.F) {
	f.Add([]byte("RIFF\x24\x00\x00\x00WAVEfmt \x10\x00\x00\x00\x01\x00\x01\x00\x40\x1f\x00\x00\x80\x3e\x00\x00\x02\x00\x10\x00data\x02\x00\x00\x00ab"))
	f.Fuzz(func(t *testing.T, b []byte) {
		_, pcm, _ := ParseWAV(b)
		if 2*len(pcm) > len(b) {
			t.Fatal("more samples than bytes")
		}
	})
}

func TestTogether(t *testing.T) {
	const rate = 8000
	mix := func(freqs ...int) []int16 {
		pcm := make([]int16, rate/5)
		for i := range pcm {
			for _, f := range freqs {
				pcm[i] += int16(4000 * math.Sin(2*math.Pi*float64(f)*float64(i)/rate))
			}
		}
		return pcm
	}
	for name, tt := range map[string]struct {
		pcm  []int16
		want bool
	}{
		"both": {mix(440, 1000), true}, "one is missing": {mix(440), false}, "one too many": {mix(440, 1000, 1500), false},
		"silence": {mix(), false}, "nothing": {nil, false},
	} {
		if got := Together(tt.pcm, rate, 440, 1000); got != tt.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
