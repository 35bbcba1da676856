package phone

import (
	"testing"
	"time"

	"brewline/media"
	"brewline/media/transport"
	"brewline/sip"
)

// counted is audio that has only statistics.
type counted struct {
	Audio
	s media.Stats
}

func (c counted) Stats() media.Stats { return c.s }

// Hold and comfort noise are told from a phone that is gone.
func TestSilent(t *testing.T) {
	now := transport.Now() + time.Hour
	for name, tt := range map[string]struct {
		send, receive, comfort bool
		last                   time.Duration
		least, most            time.Duration
	}{
		"talks":                   {true, true, false, 0, 0, time.Second},
		"gone":                    {true, true, false, time.Minute, time.Minute, 61 * time.Second},
		"makes noise":             {true, true, true, time.Minute, 6 * time.Second, 7 * time.Second},
		"holds, sendonly":         {false, true, false, time.Hour, 0, 0},
		"holds, inactive":         {false, false, false, time.Hour, 0, 0},
		"listens only":            {true, false, false, time.Hour, 0, 0},
		"says by RTCP it is here": {true, true, false, 2 * time.Second, 2 * time.Second, 3 * time.Second},
	} {
		l := &Leg{media: &sip.Media{Send: tt.send, Receive: tt.receive}}
		l.since = -now
		l.o.Audio = counted{s: media.Stats{LastFromPhone: transport.Now() - tt.last, Comfort: tt.comfort}}
		if got := l.Silent(); got < tt.least || got > tt.most {
			t.Errorf("%s: silent for %v", name, got)
		}
	}
	if got := (&Leg{}).Silent(); got != 0 {
		t.Errorf("silent for %v before there is media", got)
	}
}
