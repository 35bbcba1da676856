// Command bench measures the gateway and prints each number as a line
//
//	figure <name> <value> <unit> [floor <value>]
//
// where a floor was measured in the same run.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"regexp"
	"syscall"
	"time"
)

// benchmarks by name, in the order in which they run.
var benchmarks = []struct {
	name string
	run  func(context.Context) error
}{
	{"steady", benchSteady},
	{"cpu", benchCPU},
	{"speakers", benchSpeakers},
	{"setup", benchSetup},
	{"churn", benchChurn},
	{"delay", benchDelay},
	{"loss", benchLoss},
	{"brewery", benchBrewery},
	{"restart", benchRestart},
	{"sip", benchSIP},
	{"flood", benchFlood},
}

func main() {
	role := flag.String("role", "", "internal: what a child process does")
	calls := flag.Int("calls", 20, "internal: calls of a child process")
	config := flag.String("c", "", "internal: configuration of a serving child")
	logs := flag.String("log", "", "internal: where it logs to")
	t1 := flag.Duration("t1", 500*time.Millisecond, "internal: SIP timer T1 of a child process")
	exact := flag.Bool("exact", false, "internal: it counts every allocation")
	flag.StringVar(&profileDir, "profile", "", "`folder` for profiles of the serving process")
	flag.StringVar(&soundDir, "wav", "", "`folder` for recordings of what was heard at loss")
	only := flag.String("run", "", "`pattern` of the benchmarks to run")
	flag.Parse()
	var err error
	switch *role {
	case "":
		err = runAll(*only)
	case "floor":
		err = runFloor(*calls, complexity)
	case "sip":
		err = runSIP(*t1)
	case "sip-echo":
		err = runSIPEcho()
	case "serve":
		err = runServe(*config, *logs, *exact)
	default:
		err = fmt.Errorf("no role %q", *role)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// complexity is the gateway's default of media.opus_complexity.
const complexity = 5

func runAll(pattern string) error {
	re, err := regexp.Compile(pattern)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	describeMachine()
	for _, b := range benchmarks {
		if re.MatchString(b.name) {
			note("%s", b.name)
			if err := b.run(ctx); err != nil {
				return fmt.Errorf("%s: %w", b.name, err)
			}
		}
	}
	return nil
}
