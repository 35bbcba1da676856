package codec

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"brewline/internal/tone"
)

var names = []string{"pcmu", "pcma", "g722", "opus"}

// pair returns a codec both ways at a rate of its own or, for Opus, the one
// given.
func pair(t testing.TB, name string, rate int) (Codec, Encoder, Decoder) {
	t.Helper()
	c, ok := ByName(name)
	if !ok {
		t.Fatalf("no codec %q", name)
	}
	if name == "opus" && rate != 0 {
		c.Rate = rate
	}
	e, err := c.NewEncoder(OpusOptions{})
	if err != nil {
		t.Fatal(err)
	}
	d, err := c.NewDecoder()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Close)
	t.Cleanup(d.Close)
	return c, e, d
}

func TestToneThroughEveryCodec(t *testing.T) {
	for _, v := range []struct {
		name string
		rate int
	}{{"pcmu", 0}, {"pcma", 0}, {"g722", 0}, {"opus", 8000}, {"opus", 16000}, {"opus", 48000}} {
		for _, ms := range []int{10, 20, 40, 60} {
			c, e, d := pair(t, v.name, v.rate)
			in := tone.Sine(440, c.Rate, 600*time.Millisecond, 0.5)
			var out []int16
			payload, pcm := make([]byte, 1500), make([]int16, c.Rate*MaxPacket/1000)
			for n := c.Rate * ms / 1000; len(in) >= n; in = in[n:] {
				k, err := e.Encode(payload, in[:n])
				if err != nil {
					t.Fatalf("%v: encode: %v", c, err)
				}
				if got := d.Samples(payload[:k]); got != n {
					t.Fatalf("%v: %d samples in a packet of %d", c, got, n)
				}
				k, err = d.Decode(pcm, payload[:k])
				if err != nil || k != n {
					t.Fatalf("%v: decode: %d samples, %v", c, k, err)
				}
				out = append(out, pcm[:k]...)
			}
			out = out[c.Rate/10:] // codec delay and the beginning
			if l := tone.Level(out, c.Rate, 440); l < 0.95 {
				t.Errorf("%v, %d ms: 440 Hz is %.2f of what came out", c, ms, l)
			}
			if db := tone.RMS(out); math.Abs(db+9) > 1 {
				t.Errorf("%v, %d ms: %.1f dBFS, want -9", c, ms, db)
			}
		}
	}
}

// Values of ITU-T G.711 tables 1 and 2, scaled to 16 bits.
func TestG711Values(t *testing.T) {
	for _, v := range []struct {
		table *g711Table
		code  byte
		pcm   int16
	}{
		{&ulawTable, 0xff, 0}, {&ulawTable, 0x80, 32124}, {&ulawTable, 0x00, -32124},
		{&ulawTable, 0xfe, 8}, {&ulawTable, 0xef, 132}, {&ulawTable, 0x7e, -8},
		{&alawTable, 0xd5, 8}, {&alawTable, 0x55, -8}, {&alawTable, 0xaa, 32256},
		{&alawTable, 0x2a, -32256}, {&alawTable, 0xd4, 24}, {&alawTable, 0xc5, 264},
	} {
		if got := v.table.decode[v.code]; got != v.pcm {
			t.Errorf("decode %#02x: %d, want %d", v.code, got, v.pcm)
		}
	}
	for name, table := range map[string]*g711Table{"pcmu": &ulawTable, "pcma": &alawTable} {
		for code := range 256 {
			pcm := table.decode[code]
			if got := table.encode[uint16(pcm)>>2]; int(got) != code && pcm != 0 {
				t.Errorf("%s: %#02x becomes %d becomes %#02x", name, code, pcm, got)
			}
		}
		worst := 0.0
		for s := -32768; s < 32768; s++ {
			err := math.Abs(float64(table.decode[table.encode[uint16(s)>>2]]) - float64(s))
			worst = max(worst, err/(math.Abs(float64(s))+256))
		}
		if worst > 0.07 { // half a step of the largest segment, less its bias
			t.Errorf("%s: relative error %.3f", name, worst)
		}
	}
}

func TestOpusTOC(t *testing.T) {
	body := func(toc byte, more ...byte) []byte { return append([]byte{toc}, more...) }
	for _, v := range []struct {
		name    string
		packet  []byte
		samples int // at 48 kHz
	}{
		{"empty", nil, 0},
		{"SILK 10 ms", body(0<<3, 1, 2), 480},
		{"SILK 60 ms", body(3<<3, 1, 2), 2880},
		{"hybrid 10 ms", body(12<<3, 1, 2), 480},
		{"hybrid 20 ms", body(15<<3, 1, 2), 960},
		{"CELT 2.5 ms", body(16<<3, 1, 2), 120},
		{"CELT 5 ms", body(17<<3, 1, 2), 240},
		{"CELT 20 ms", body(31<<3, 1, 2), 960},
		{"nothing in the frame", body(1 << 3), 960},
		{"two equal", body(1<<3|1, 1, 2), 1920},
		{"two equal, odd", body(1<<3|1, 1, 2, 3), 0},
		{"two different", body(1<<3|2, 1, 9, 8, 7), 1920},
		{"two different, cut", body(1<<3|2, 4, 9, 8, 7), 0},
		{"two different, no length", body(1<<3 | 2), 0},
		{"two different, half a length", body(1<<3|2, 252), 0},
		{"six of 20 ms", body(1<<3|3, 6, 1, 2, 3, 4, 5, 6), 5760},
		{"seven of 20 ms", body(1<<3|3, 7, 1, 2, 3, 4, 5, 6, 7), 0},
		{"none", body(1<<3|3, 0), 0},
		{"no count", body(1<<3 | 3), 0},
		{"not divisible", body(1<<3|3, 2, 1, 2, 3), 0},
		{"variable", body(1<<3|3, 0x80|3, 1, 2, 7, 8, 8, 9), 2880},
		{"variable, cut", body(1<<3|3, 0x80|3, 9, 2, 7, 8, 8, 9), 0},
		{"padded", body(1<<3|3, 0x40|1, 2, 7, 0, 0), 960},
		{"padded too much", body(1<<3|3, 0x40|1, 5, 7, 0, 0), 0},
		{"padding not ended", body(1<<3|3, 0x40|1, 255), 0},
		{"too large", make([]byte, 1277), 0},
		{"largest", make([]byte, 1276), 480},
	} {
		if got := OpusSamples(v.packet, 48000); got != v.samples {
			t.Errorf("%s: %d samples, want %d", v.name, got, v.samples)
		}
		if got := OpusSamples(v.packet, 8000); got != v.samples/6 {
			t.Errorf("%s: %d samples at 8 kHz, want %d", v.name, got, v.samples/6)
		}
	}
}

// voice is a sum of harmonics that swells, which SILK takes for speech.
func voice(rate int, d time.Duration) []int16 {
	pcm := make([]int16, int(int64(rate)*int64(d)/int64(time.Second)))
	for i := range pcm {
		at := float64(i) / float64(rate)
		s := 0.0
		for h := 1.0; h <= 8; h++ {
			s += math.Sin(2*math.Pi*140*h*at+h) / h
		}
		pcm[i] = int16(s * 6000 * (1.2 + math.Sin(2*math.Pi*3*at)))
	}
	return pcm
}

func TestOpusRecovers(t *testing.T) {
	for _, rate := range []int{8000, 16000, 48000} {
		e, err := NewOpusEncoder(rate, OpusOptions{Loss: 5})
		if err != nil {
			t.Fatal(err)
		}
		whole, _ := NewOpusDecoder(rate)
		fec, _ := NewOpusDecoder(rate)
		plc, _ := NewOpusDecoder(rate)
		in, n := voice(rate, 2*time.Second), rate/50
		var packets [][]byte
		for ; len(in) >= n; in = in[n:] {
			buf := make([]byte, 1500)
			k, err := e.Encode(buf, in[:n])
			if err != nil {
				t.Fatal(err)
			}
			packets = append(packets, buf[:k])
		}
		a, b, c := make([]int16, n), make([]int16, n), make([]int16, n)
		carried := 0
		var wrongFEC, wrongPLC float64
		for i, p := range packets {
			if _, err := whole.Decode(a, p); err != nil {
				t.Fatal(err)
			}
			if i%10 != 5 {
				fec.Decode(b, p)
				plc.Decode(c, p)
				continue
			}
			if fec.HasFEC(packets[i+1]) {
				carried++
			}
			fec.Recover(b, packets[i+1])
			plc.Conceal(c)
			for j := range a {
				wrongFEC += math.Pow(float64(a[j])-float64(b[j]), 2)
				wrongPLC += math.Pow(float64(a[j])-float64(c[j]), 2)
			}
		}
		if carried < 8 {
			t.Errorf("%d Hz: only %d of 10 packets carry FEC", rate, carried)
		}
		if wrongFEC > wrongPLC {
			t.Errorf("%d Hz: FEC is further off (%.3g) than PLC (%.3g)", rate, wrongFEC, wrongPLC)
		}
	}
}

func TestOpusWithoutFEC(t *testing.T) {
	e, _ := NewOpusEncoder(16000, OpusOptions{})
	d, _ := NewOpusDecoder(16000)
	in, buf := voice(16000, time.Second), make([]byte, 1500)
	for ; len(in) >= 320; in = in[320:] {
		n, err := e.Encode(buf, in[:320])
		if err != nil {
			t.Fatal(err)
		}
		if d.HasFEC(buf[:n]) {
			t.Fatal("FEC seen where no loss is expected")
		}
	}
	for _, p := range [][]byte{nil, {8}, {0xff, 0xff}, {8, 0xff}} {
		if d.HasFEC(p) {
			t.Errorf("FEC seen in % x", p)
		}
	}
}

func TestConcealPCM(t *testing.T) {
	for _, name := range []string{"pcmu", "pcma", "g722"} {
		c, e, d := pair(t, name, 0)
		n := c.Rate / 50
		in := voice(c.Rate, time.Second)
		payload, pcm := make([]byte, 1500), make([]int16, n)
		var out []int16
		jump := 0
		for i := 0; len(in) >= n; i, in = i+1, in[n:] {
			k, _ := e.Encode(payload, in[:n])
			if i%10 == 9 {
				d.Conceal(pcm)
			} else if _, err := d.Decode(pcm, payload[:k]); err != nil {
				t.Fatal(err)
			}
			out = append(out, pcm...)
		}
		for i := 1; i < len(out); i++ {
			jump = max(jump, int(math.Abs(float64(out[i])-float64(out[i-1]))))
		}
		whole := voice(c.Rate, time.Second)
		allowed := 0
		for i := 1; i < len(whole); i++ {
			allowed = max(allowed, int(math.Abs(float64(whole[i])-float64(whole[i-1]))))
		}
		if jump > allowed*3/2 {
			t.Errorf("%s: a jump of %d at a seam, the signal's own largest is %d", name, jump, allowed)
		}
		// A tenth is lost: what is there instead must be about as loud.
		if got, want := tone.RMS(out), tone.RMS(whole); math.Abs(got-want) > 1 {
			t.Errorf("%s: %.1f dBFS, want %.1f", name, got, want)
		}
		// It dies away within 60 ms.
		for range 4 {
			d.Conceal(pcm)
		}
		if db := tone.RMS(pcm); db != tone.Silence {
			t.Errorf("%s: still %.1f dBFS after 80 ms of loss", name, db)
		}
	}
}

func TestMalformed(t *testing.T) {
	for _, name := range names {
		_, e, d := pair(t, name, 0)
		pcm := make([]int16, 5760)
		for _, p := range [][]byte{nil, make([]byte, 1400)} {
			if n, err := d.Decode(pcm, p); err == nil {
				t.Errorf("%s: %d bytes decoded to %d samples", name, len(p), n)
			}
		}
		if _, err := d.Decode(pcm[:3], []byte{8, 1, 2, 3, 4}); err == nil {
			t.Errorf("%s: decoded into too short a buffer", name)
		}
		if _, err := e.Encode(nil, pcm[:960]); err == nil {
			t.Errorf("%s: encoded into no buffer", name)
		}
		d.Conceal(nil)
		d.Conceal(pcm[:7])
	}
	if _, ok := ByName("g729"); ok {
		t.Error("g729 found")
	}
	if _, err := (Codec{Name: "g729"}).NewDecoder(); err == nil {
		t.Error("g729 decoder made")
	}
	if _, err := (Codec{Name: "g729"}).NewEncoder(OpusOptions{}); err == nil {
		t.Error("g729 encoder made")
	}
	if _, err := NewOpusDecoder(44100); err == nil {
		t.Error("opus at 44.1 kHz")
	}
	if _, err := NewOpusEncoder(48000, OpusOptions{Complexity: 11}); err == nil {
		t.Error("complexity 11")
	}
}

func TestNothingAllocated(t *testing.T) {
	for _, name := range names {
		c, e, d := pair(t, name, 0)
		pcm, out, payload := voice(c.Rate, 20*time.Millisecond), make([]int16, c.Rate/50), make([]byte, 1500)
		if n := testing.AllocsPerRun(100, func() {
			k, _ := e.Encode(payload, pcm)
			d.Decode(out, payload[:k])
			d.Conceal(out)
			d.HasFEC(payload[:k])
			d.Recover(out, payload[:k])
			d.Decode(out, payload[:k])
			d.Decode(out, nil)
		}); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

func FuzzOpus(f *testing.F) {
	e, _ := NewOpusEncoder(16000, OpusOptions{Loss: 20})
	buf := make([]byte, 1500)
	for in := voice(16000, 200*time.Millisecond); len(in) >= 320; in = in[320:] {
		n, _ := e.Encode(buf, in[:320])
		f.Add(append([]byte(nil), buf[:n]...))
	}
	f.Add([]byte{11, 0x43, 1, 2, 3, 4})
	d, _ := NewOpusDecoder(48000)
	pcm := make([]int16, 5760)
	f.Fuzz(func(t *testing.T, p []byte) {
		n := d.Samples(p)
		if n < 0 || n > 5760 {
			t.Fatalf("%d samples", n)
		}
		k, err := d.Decode(pcm, p)
		if (n == 0) != (err != nil) || err == nil && k != n {
			t.Fatalf("expected %d samples, decoded %d: %v", n, k, err)
		}
		d.HasFEC(p)
		d.Recover(pcm[:960], p)
	})
}

func BenchmarkCodecs(b *testing.B) {
	for _, v := range []struct {
		name string
		rate int
	}{{"pcmu", 0}, {"g722", 0}, {"opus", 8000}, {"opus", 16000}, {"opus", 48000}} {
		c, e, d := pair(b, v.name, v.rate)
		in := voice(c.Rate, time.Second)
		n := c.Rate / 50
		for i := range in {
			in[i] += int16(rand.IntN(200))
		}
		payload, pcm := make([]byte, 1500), make([]int16, n)
		run := func(what string, f func(i int)) {
			b.Run(fmt.Sprintf("%s/%d/%s", c.Name, c.Rate, what), func(b *testing.B) {
				b.ReportAllocs()
				i := 0
				for b.Loop() {
					f(i % 50)
					i++
				}
			})
		}
		k := 0
		run("encode", func(i int) { k, _ = e.Encode(payload, in[i*n:][:n]) })
		run("decode", func(int) { d.Decode(pcm, payload[:k]) })
		run("conceal", func(int) { d.Conceal(pcm) })
	}
}
