package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"brewline/config"
	"brewline/gateway/check"
)

// verdict is the whole outcome of check, as -json prints it.
type verdict struct {
	OK       bool             `json:"ok"`
	Problems []config.Problem `json:"problems,omitempty"` // of the configuration; nothing was tried then
	Results  []check.Result   `json:"results,omitempty"`
}

// runCheck goes through the configuration, every shard and every trunk.
func runCheck(args []string, out, errOut io.Writer) int {
	fs := flag.NewFlagSet("check", flag.ContinueOnError)
	path := fs.String("c", defaultConfig, "configuration `file`")
	asJSON := fs.Bool("json", false, "print JSON")
	timeout := fs.Duration("timeout", 0, "longest `time` for one step (default 10s)")
	if code, ok := parse(fs, args, out, errOut); !ok {
		return code
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()

	cfg, err := config.Load(*path)
	if err != nil {
		var problems *config.Problems
		if *asJSON && errors.As(err, &problems) {
			printJSON(out, verdict{Problems: problems.All})
			return exitUsage
		}
		return report(errOut, err)
	}
	v := verdict{Results: []check.Result{}}
	tell := check.Text(out)
	if *asJSON {
		tell = func(r check.Result) { v.Results = append(v.Results, r) }
	}
	v.OK = check.Run(ctx, cfg, check.Options{Timeout: *timeout}, tell)
	if *asJSON {
		printJSON(out, v)
	}
	if !v.OK {
		return exitFailed
	}
	return exitOK
}

func printJSON(w io.Writer, v any) {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	if err := enc.Encode(v); err != nil {
		fmt.Fprintln(os.Stderr, "brewline:", err)
	}
}
