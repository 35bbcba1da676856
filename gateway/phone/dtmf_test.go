package phone

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"brewline/media"
)

func TestParseInfo(t *testing.T) {
	for _, tt := range []struct {
		ctype, body string
		digit       byte
		d           time.Duration
	}{
		{"application/dtmf-relay", "Signal=5\r\nDuration=160\r\n", '5', 160 * time.Millisecond},
		{"Application/DTMF-Relay; charset=utf-8", "Signal= *\r\nDuration= 250\r\n", '*', 250 * time.Millisecond},
		{"application/dtmf-relay", "signal=#\nduration=x", '#', 0},
		{"application/dtmf-relay", "Duration=90\r\nSignal=11", '#', 90 * time.Millisecond},
		{"application/dtmf-relay", "Signal=d", 'D', 0},
		{"application/dtmf-relay", "Signal=16", 0, 0}, // a hook flash
		{"application/dtmf-relay", "Signal=", 0, 0},
		{"application/dtmf-relay", "Signal=55", 0, 0},
		{"application/dtmf-relay", "", 0, 0},
		{"application/dtmf", "9", '9', 0},
		{"application/dtmf", " 10\r\n", '*', 0},
		{"application/dtmf", "Signal=4", '4', 0},
		{"application/dtmf", "", 0, 0},
		{"application/dtmf", "\x00", 0, 0},
		{"application/dtmf", "é", 0, 0},
		{"application/json", "5", 0, 0},
		{"", "5", 0, 0},
		{"application/dtmf", strings.Repeat(" ", maxInfo) + "5", 0, 0},
	} {
		digit, d, ok := ParseInfo(tt.ctype, []byte(tt.body))
		if digit != tt.digit || ok != (tt.digit != 0) || ok && d != tt.d {
			t.Errorf("%s %q: %q for %v, %v", tt.ctype, tt.body, digit, d, ok)
		}
	}
	for _, key := range []byte(digitNames) {
		got, d, ok := ParseInfo(typeRelay, formatInfo(media.Digit{Key: key, Duration: 300 * time.Millisecond}))
		if !ok || got != key || d != 300*time.Millisecond {
			t.Errorf("%c comes back as %c for %v", key, got, d)
		}
	}
}

func FuzzInfo(f *testing.F) {
	f.Add(typeRelay, []byte("Signal=5\r\nDuration=160\r\n"))
	f.Add(typeDTMF, []byte("#"))
	f.Fuzz(func(t *testing.T, ctype string, body []byte) {
		digit, d, ok := ParseInfo(ctype, body)
		if ok != (digit != 0) || ok && !strings.ContainsRune(digitNames, rune(digit)) || d < 0 || d > 66*time.Second {
			t.Fatalf("%q for %v, %v", digit, d, ok)
		}
	})
}

// Digits go out in order, one at a time; no more wait than may, and nothing is
// left running.
func TestInfosInOrder(t *testing.T) {
	var q infos
	got, next := make(chan byte, 100), make(chan bool)
	send := func(ctx context.Context, d media.Digit) {
		select {
		case <-next:
			got <- d.Key
		case <-ctx.Done():
		}
	}
	for _, d := range []byte("123") {
		if err := q.add(media.Digit{Key: d}, send); err != nil {
			t.Fatal(err)
		}
	}
	for _, want := range []byte("123") {
		next <- true
		if d := <-got; d != want {
			t.Errorf("%c, not %c", d, want)
		}
	}
	var err error
	for range maxInfos + 2 {
		err = q.add(media.Digit{Key: '1'}, send)
	}
	if !errors.Is(err, media.ErrDigits) {
		t.Error(err)
	}
	q.close()
	if err := q.add(media.Digit{Key: '1'}, send); !errors.Is(err, media.ErrNoPhone) {
		t.Error(err)
	}
}
