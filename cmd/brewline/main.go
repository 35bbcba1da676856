// Command brewline is a SIP gateway for Jitsi Meet: phone calls join the
// conference they name, on the shard where that conference lives.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
)

// version is set by the linker.
var version = "dev"

// Exit codes, for scripts.
const (
	exitOK     = 0
	exitFailed = 1 // it runs, or ran, and something is wrong
	exitUsage  = 2 // wrong command line or wrong configuration: nothing was tried
)

const defaultConfig = "/etc/brewline/brewline.toml"

// command is one subcommand.
type command struct {
	name, args, summary string
	run                 func(args []string, out, errOut io.Writer) int
}

func commands() []command {
	return []command{
		{"serve", "-c file", "run the gateway; SIGTERM drains, SIGHUP reloads", serve},
		{"check", "-c file [-json]", "try the configuration against the live shards and trunks", runCheck},
		{"import", "[-o file] file...", "make a configuration of Jigasi's", runImport},
		{"version", "", "print the version", printVersion},
	}
}

func main() {
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

func run(args []string, out, errOut io.Writer) int {
	if len(args) == 0 {
		usage(errOut)
		return exitUsage
	}
	for _, c := range commands() {
		if c.name == args[0] {
			return c.run(args[1:], out, errOut)
		}
	}
	switch args[0] {
	case "help", "-h", "-help", "--help":
		usage(out)
		return exitOK
	}
	fmt.Fprintf(errOut, "brewline: no command is named %q\n", args[0])
	usage(errOut)
	return exitUsage
}

func usage(w io.Writer) {
	fmt.Fprint(w, "Brewline joins phone calls to Jitsi conferences.\n\n")
	for _, c := range commands() {
		fmt.Fprintf(w, "  %-31s %s\n", strings.TrimSpace("brewline "+c.name+" "+c.args), c.summary)
	}
	fmt.Fprintf(w, "\nThe configuration is %s unless -c names another.\n", defaultConfig)
}

// parse reads the flags of a subcommand that takes nothing else. When it
// returns false the command ends with the code.
func parse(fs *flag.FlagSet, args []string, out, errOut io.Writer) (code int, ok bool) {
	_, code, ok = parseFiles(fs, args, 0, out, errOut)
	return code, ok
}

// parseFiles reads the flags of a subcommand, and up to most files among them.
func parseFiles(fs *flag.FlagSet, args []string, most int, out, errOut io.Writer) (files []string, code int, ok bool) {
	fs.SetOutput(io.Discard)
	err := fs.Parse(args)
	for err == nil && fs.NArg() > 0 {
		if len(files) == most {
			err = fmt.Errorf("%q is not understood", fs.Arg(0))
			break
		}
		files = append(files, fs.Arg(0))
		err = fs.Parse(fs.Args()[1:])
	}
	switch {
	case err == nil:
		return files, exitOK, true
	case errors.Is(err, flag.ErrHelp):
		fs.SetOutput(out)
		fmt.Fprintf(out, "brewline %s\n", fs.Name())
		fs.PrintDefaults()
		return nil, exitOK, false
	}
	fmt.Fprintf(errOut, "brewline %s: %v\n", fs.Name(), err)
	fs.SetOutput(errOut)
	fs.PrintDefaults()
	return nil, exitUsage, false
}

func printVersion(args []string, out, errOut io.Writer) int {
	if code, ok := parse(flag.NewFlagSet("version", flag.ContinueOnError), args, out, errOut); !ok {
		return code
	}
	fmt.Fprintf(out, "brewline %s %s %s/%s\n", version, runtime.Version(), runtime.GOOS, runtime.GOARCH)
	return exitOK
}
