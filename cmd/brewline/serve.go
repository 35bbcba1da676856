package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"brewline/config"
	"brewline/gateway"
)

// serve runs the gateway. The first SIGTERM or SIGINT drains it, the second
// ends it at once; SIGHUP reads the configuration again.
func serve(args []string, out, errOut io.Writer) int {
	fs := flag.NewFlagSet("serve", flag.ContinueOnError)
	path := fs.String("c", defaultConfig, "configuration `file`")
	if code, ok := parse(fs, args, out, errOut); !ok {
		return code
	}
	ends := make(chan os.Signal, 2)
	signal.Notify(ends, syscall.SIGTERM, syscall.SIGINT)
	defer signal.Stop(ends)
	hups := make(chan os.Signal, 1)
	signal.Notify(hups, syscall.SIGHUP)
	defer signal.Stop(hups)

	force, forceNow := context.WithCancel(context.Background())
	defer forceNow()
	drain, drainNow := context.WithCancel(force)
	reload := make(chan struct{}, 1)
	go func() {
		for {
			select {
			case <-ends:
				if drain.Err() != nil {
					forceNow()
				}
				drainNow()
			case <-hups:
				select {
				case reload <- struct{}{}:
				default: // one is waiting already and will see this change too
				}
			case <-force.Done():
				return
			}
		}
	}()
	if err := gateway.Serve(drain, force, *path, reload, errOut, gateway.Options{Version: version}); err != nil {
		return report(errOut, err)
	}
	return exitOK
}

// report prints an error and returns the exit code that goes with it.
func report(w io.Writer, err error) int {
	var problems *config.Problems
	if errors.As(err, &problems) {
		fmt.Fprintln(w, problems)
		return exitUsage
	}
	fmt.Fprintln(w, "brewline:", err)
	return exitFailed
}
