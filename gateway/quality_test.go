package gateway_test

import (
	"bytes"
	"log/slog"
	"regexp"
	"strconv"
	"sync"
	"testing"

	"brewline/internal/siptest"
)

// lines is a log that is read while it is written.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) find(re string) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return regexp.MustCompile(re).FindStringSubmatch(l.b.String())
}

// What is lost between the phone and us, in both directions, is in the log line
// at the call's end and in the metrics; the phone is told of it by RTCP.
func TestMeasurements(t *testing.T) {
	t.Parallel()
	log := new(lines)
	o := worldOptions{shards: 1}
	o.options.Logger = slog.New(slog.NewTextHandler(log, nil))
	w := newWorld(t, o)
	alice := w.browser(w.deps[0].Shards[0], "lossy", 440)
	c := w.call(w.phone(siptest.PhoneOptions{Codec: "g722", Loss: 0.2, Seed: 1, Reports: true}), "lossy", 1000)
	w.both(alice, c)
	w.await("reports, with the loss in them", func() bool {
		lost, ok := c.Loss()
		return ok && lost >= 10
	})
	sent := c.RTP().Sent
	w.await("a second of packets, and with that a report of the phone", func() bool { return c.RTP().Sent > max(sent+60, 200) })
	w.hangup(c)
	w.gone()
	if m := log.find(`msg="call received" call=\w+ .* sip_call_id=\S+`); m == nil {
		t.Error("the Call-ID is not in the log")
	}
	m := log.find(`msg="call ended".* phone\.in=(\d+) phone\.in_loss=([\d.]+) phone\.in_jitter=([\d.]+) phone\.out=(\d+) phone\.out_loss=([\d.]+) phone\.out_jitter=([\d.]+) phone\.rtt=([\d.]+) conference\.in=\d+ `)
	if m == nil {
		t.Fatalf("no measurements in the log: %q", log.find("msg=\"call ended.*"))
	}
	var v [8]float64
	for i := 1; i < len(m); i++ {
		v[i], _ = strconv.ParseFloat(m[i], 64)
	}
	if v[2] < 10 || v[2] > 30 {
		t.Errorf("%v %% of the phone's packets are said to be lost, of 20 %%", v[2])
	}
	if v[5] > 5 || v[6] != 1 {
		t.Errorf("out: %v %% lost, jitter %v ms, which the phone did not report", v[5], v[6])
	}
	code, body := w.http("GET", "/metrics")
	if code != 200 {
		t.Fatal(code)
	}
	for _, re := range []string{
		`brewline_media_packets_total{direction="in",leg="phone"} [1-9]`,
		`brewline_media_packets_lost_total{direction="in",leg="phone"} [1-9]`,
		`brewline_call_loss_ratio_bucket{direction="in",leg="phone",le="0.05"} 0\n`,
		`brewline_call_loss_ratio_bucket{direction="in",leg="phone",le="0.5"} 1\n`,
		`brewline_call_loss_ratio_count{direction="out",leg="phone"} 1\n`,
		`brewline_call_jitter_seconds_count{direction="out",leg="phone"} 1\n`,
		`brewline_call_round_trip_seconds_count{leg="phone"} 1\n`,
		`brewline_digits_total{direction="sent"} 0\n`,
	} {
		if !regexp.MustCompile(re).MatchString(body) {
			t.Errorf("metrics lack %s", re)
		}
	}
}
