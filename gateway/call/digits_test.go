package call

import (
	"testing"
	"time"
)

// One press is one digit, in however many ways it comes, and two presses are
// two.
func TestDigitsThatComeTwice(t *testing.T) {
	type report struct {
		ms    int
		digit byte
		way   way
		held  time.Duration
	}
	for name, tt := range map[string]struct {
		reports []report
		want    string
	}{
		"one way":             {[]report{{0, '1', byEvent, 0}, {100, '1', byEvent, 0}, {200, '2', byEvent, 0}}, "112"},
		"two ways":            {[]report{{0, '*', byEvent, 0}, {20, '*', byInfo, 0}, {200, '6', byInfo, 0}, {240, '6', byEvent, 0}}, "*6"},
		"two ways, in bursts": {[]report{{0, '1', byEvent, 0}, {200, '1', byEvent, 0}, {300, '1', byInfo, 0}, {310, '1', byInfo, 0}, {900, '1', byEvent, 0}, {990, '1', byInfo, 0}}, "111"},
		"three ways":          {[]report{{0, '5', byTone, 0}, {50, '5', byEvent, 0}, {70, '5', byInfo, 0}, {500, '5', byInfo, 0}, {510, '5', byTone, 0}, {520, '5', byEvent, 0}}, "55"},
		"other way, later":    {[]report{{0, '5', byEvent, 0}, {2100, '5', byInfo, 0}}, "55"},
		"held for long":       {[]report{{0, '5', byInfo, 0}, {6000, '5', byEvent, 6 * time.Second}, {6500, '5', byInfo, 0}, {6600, '5', byEvent, 100 * time.Millisecond}}, "55"},
		"interleaved":         {[]report{{0, '1', byEvent, 0}, {100, '2', byEvent, 0}, {110, '1', byInfo, 0}, {120, '2', byInfo, 0}}, "12"},
	} {
		var k digits
		start, got := time.Now(), ""
		for _, r := range tt.reports {
			if k.first(r.digit, r.way, r.held, start.Add(time.Duration(r.ms)*time.Millisecond)) {
				got += string(r.digit)
			}
		}
		if got != tt.want {
			t.Errorf("%s: %q, want %q", name, got, tt.want)
		}
	}
	var k digits
	now := time.Now()
	for range 1000 {
		k.first('1', byEvent, 0, now)
	}
	if len(k.recent) > maxRecent {
		t.Errorf("%d are remembered", len(k.recent))
	}
}
