package media

import (
	"testing"
	"time"

	"brewline/internal/tone"
)

func TestAudioLevel(t *testing.T) {
	square := make([]int16, 160)
	for i := range square {
		square[i] = 32767
		if i%2 == 0 {
			square[i] = -32768
		}
	}
	one := make([]int16, 160)
	one[0] = 1
	for _, v := range []struct {
		name string
		pcm  []int16
		want uint8
	}{
		{"silence", make([]int16, 160), 127},
		{"nothing", nil, 127},
		{"overload", square, 0}, // the reference of RFC 6464 §3
		{"full sine", tone.Sine(400, 8000, time.Second, 1), 3},
		{"one bit once", one, 112},
	} {
		if got := audioLevel(v.pcm); got != v.want {
			t.Errorf("%s: %d, want %d", v.name, got, v.want)
		}
	}
}

// The mix is left alone below the knee, never wraps, and never falls where it
// should rise.
func TestSaturate(t *testing.T) {
	last := int16(-32768)
	for s := int32(-4 * 32768); s <= 4*32767; s++ {
		var out [1]int16
		saturate(out[:], []int32{s})
		if out[0] < last {
			t.Fatalf("%d becomes %d after %d", s, out[0], last)
		}
		if s >= -knee && s <= knee && int32(out[0]) != s {
			t.Fatalf("%d becomes %d", s, out[0])
		}
		last = out[0]
	}
	if last < 31000 {
		t.Errorf("the loudest becomes %d", last)
	}
}
