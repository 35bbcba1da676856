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
	}
	for name, tt := range map[string]struct {
		reports []report
		want    string
	}{
		"one way":             {[]report{{0, '1', byEvent}, {100, '1', byEvent}, {200, '2', byEvent}}, "112"},
		"two ways":            {[]report{{0, '*', byEvent}, {20, '*', byInfo}, {200, '6', byInfo}, {240, '6', byEvent}}, "*6"},
		"two ways, in bursts": {[]report{{0, '1', byEvent}, {200, '1', byEvent}, {300, '1', byInfo}, {310, '1', byInfo}, {900, '1', byEvent}, {990, '1', byInfo}}, "111"},
		"three ways":          {[]report{{0, '5', byTone}, {50, '5', byEvent}, {70, '5', byInfo}, {500, '5', byInfo}, {510, '5', byTone}, {520, '5', byEvent}}, "55"},
		"other way, later":    {[]report{{0, '5', byEvent}, {2100, '5', byInfo}}, "55"},
		"interleaved":         {[]report{{0, '1', byEvent}, {100, '2', byEvent}, {110, '1', byInfo}, {120, '2', byInfo}}, "12"},
	} {
		var k digits
		start, got := time.Now(), ""
		for _, r := range tt.reports {
			if k.first(r.digit, r.way, start.Add(time.Duration(r.ms)*time.Millisecond)) {
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
		k.first('1', byEvent, now)
	}
	if len(k.recent) > maxRecent {
		t.Errorf("%d are remembered", len(k.recent))
	}
}
