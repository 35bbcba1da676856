// Command brewline-demo shows the gateway at its main job with nothing else
// configured: simulated Jitsi shards behind a balancer that sticks by room, a
// participant with a voice on one of them, the real gateway as a child process,
// a phone that calls in, and a meeting that calls the phone. It checks by
// listening and says what was heard.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	var o options
	flag.StringVar(&o.brewline, "brewline", "bin/brewline", "the gateway's `program`")
	flag.StringVar(&o.out, "out", "demo-out", "`folder` for the configuration, the log and what was heard")
	flag.BoolVar(&o.stay, "stay", false, "keep running afterwards, so that a softphone can call sip:phoneMeet@127.0.0.1")
	flag.IntVar(&o.shards, "shards", 3, "how many `shards` to simulate")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, o); err != nil && !errors.Is(err, context.Canceled) {
		fmt.Fprintln(os.Stderr, "\nThe demo failed:", err)
		os.Exit(1)
	}
}

type options struct {
	brewline, out string
	stay          bool
	shards        int
}

func run(ctx context.Context, o options) error {
	if err := os.MkdirAll(o.out, 0o755); err != nil {
		return err
	}
	limit, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	s, err := setUp(limit, o)
	if err != nil {
		return err
	}
	defer s.close()
	if err := s.play(limit); err != nil {
		return err
	}
	if err := s.callOut(limit); err != nil {
		return err
	}
	if err := s.judge(); err != nil {
		return err
	}
	if o.stay {
		return s.remain(ctx)
	}
	return nil
}
