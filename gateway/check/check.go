package check

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"time"

	"brewline/brewery"
	"brewline/config"
	"brewline/gateway"
	"brewline/media/transport"
)

// Status of one step.
type Status string

// A step is fine, fine but not as it should be, broken, or was left out since
// an earlier one is broken or it does not apply.
const (
	OK   Status = "ok"
	Warn Status = "warn"
	Fail Status = "fail"
	Skip Status = "skip"
)

// Result is one line of the report.
type Result struct {
	Subject string        `json:"subject"` // "configuration", "shard eu-1", "trunk ipbx"
	Step    string        `json:"step"`
	Status  Status        `json:"status"`
	Detail  string        `json:"detail,omitempty"`
	Remedy  string        `json:"remedy,omitempty"`
	Took    time.Duration `json:"took_ns"`
}

// String is the line for a person.
func (r Result) String() string {
	s := fmt.Sprintf("%-4s  %-20s %-22s", r.Status, r.Subject, r.Step)
	if r.Detail != "" {
		s += " " + r.Detail
	}
	if r.Remedy != "" {
		s += "\n" + strings.Repeat(" ", 6) + "→ " + r.Remedy
	}
	return s
}

// Options of Run.
type Options struct {
	Timeout time.Duration // of one step, default 10 s
	Logger  *slog.Logger  // default: none
}

// Run checks everything and calls report for each step as it is done, from one
// goroutine at a time. It returns false if a step failed.
func Run(ctx context.Context, cfg *config.Config, o Options, report func(Result)) bool {
	if o.Timeout <= 0 {
		o.Timeout = 10 * time.Second
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	var mu sync.Mutex
	good := true
	say := func(r Result) {
		mu.Lock()
		defer mu.Unlock()
		good = good && r.Status != Fail
		report(r)
	}
	say(Result{Subject: "configuration", Step: "read", Status: OK, Detail: fmt.Sprintf(
		"%d deployments, %d shards, %d trunks in %s", len(cfg.Deployments), len(cfg.Shards), len(cfg.Trunks),
		strings.Join(cfg.Files, ", "))})
	set, err := brewery.New(cfg, brewery.Options{Logger: o.Logger})
	if err != nil {
		say(Result{Subject: "configuration", Step: "shards", Status: Fail, Detail: err.Error()})
		return false
	}
	if err := gateway.CheckMedia(cfg.Media); err != nil {
		say(Result{Subject: "configuration", Step: "media", Status: Fail, Detail: err.Error()})
	}
	ports := transport.NewPorts(cfg.Media.Conference.Ports.Min, cfg.Media.Conference.Ports.Max, 0)
	var wg sync.WaitGroup
	for i := range cfg.Deployments {
		if cfg.Deployments[i].Balancer != "" {
			wg.Go(func() { checkBalancer(ctx, set.Deployment(cfg.Deployments[i].Name), o, say) })
		}
	}
	for i := range cfg.Shards {
		c := &checker{ctx: ctx, o: o, cfg: cfg, shard: &cfg.Shards[i], set: set, ports: ports, say: say}
		wg.Go(c.run)
	}
	for i := range cfg.Trunks {
		wg.Go(func() { checkTrunk(ctx, cfg, &cfg.Trunks[i], o, say) })
	}
	wg.Wait()
	return good
}

// Text writes the report's lines for a person.
func Text(w io.Writer) func(Result) {
	return func(r Result) { fmt.Fprintln(w, r) }
}
