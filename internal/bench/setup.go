package main

import (
	"bufio"
	"context"
	"os"
	"regexp"
	"time"
)

const setupCalls = 200

// benchSetup measures the time from INVITE to 200 into a populated room, found
// among three shards, one call after another.
func benchSetup(ctx context.Context) error {
	names := rooms(1)
	w, err := newWorld(ctx, worldOptions{shards: 3, rooms: names})
	if err != nil {
		return err
	}
	defer w.close()
	var took, ringing []float64
	for i := range setupCalls + 5 {
		t, err := w.call(ctx, names[0])
		if err != nil {
			return err
		}
		if i >= 5 { // connections and caches are warm
			took, ringing = append(took, ms(t.took)), append(ringing, ms(t.ringing))
		}
		if err := t.hangup(ctx); err != nil {
			return w.failed(err)
		}
		t.party.close()
	}
	figure("setup.median", median(took), "ms")
	figure("setup.p99", quantile(took, 0.99), "ms")
	figure("setup.ringing", median(ringing), "ms")
	return w.setupSteps()
}

// steps are what a call logs on its way to the 200, with the time it took:
// located by itself, the others since the shard was known.
var steps = []string{"room located", "logged in", "joined", "invited by Jicofo", "media connected"}

var logged = regexp.MustCompile(`msg=(?:"([^"]+)"|(\S+)) .*took=(\S+)`)

// setupSteps says where the time goes, by the gateway's own log.
func (w *world) setupSteps() error {
	f, err := os.Open(w.logFile())
	if err != nil {
		return err
	}
	defer f.Close()
	at := map[string][]float64{}
	for in := bufio.NewScanner(f); in.Scan(); {
		m := logged.FindStringSubmatch(in.Text())
		if m == nil {
			continue
		}
		if d, err := time.ParseDuration(m[3]); err == nil {
			at[m[1]+m[2]] = append(at[m[1]+m[2]], ms(d))
		}
	}
	before := 0.0
	for i, s := range steps {
		v := median(at[s])
		name := "setup.step." + []string{"locate", "login", "join", "invite", "media"}[i]
		figure(name, v-before, "ms")
		if i > 0 {
			before = v
		}
	}
	return nil
}
