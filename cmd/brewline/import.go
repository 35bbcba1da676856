package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"brewline/config"
	"brewline/config/jigasi"
)

const (
	maxImports    = 16
	importTimeout = 3 * time.Second // for the addresses of a name
)

// runImport makes a configuration of Jigasi's files.
func runImport(args []string, out, errOut io.Writer) int {
	flags := flag.NewFlagSet("import", flag.ContinueOnError)
	target := flags.String("o", "", "write to this new `file`, with passwords, for its owner alone to read")
	force := flags.Bool("f", false, "replace the file of -o")
	show := flags.Bool("show-secrets", false, "print passwords; without -o they are left out otherwise")
	names, code, ok := parseFiles(flags, args, maxImports, out, errOut)
	if !ok {
		return code
	}
	if len(names) == 0 {
		fmt.Fprintln(errOut, "brewline import: name a file: sip-communicator.properties, or the .env of docker-jitsi-meet")
		return exitUsage
	}
	var files []jigasi.File
	for _, name := range names {
		data, err := readFile(name)
		if err != nil {
			fmt.Fprintln(errOut, "brewline import:", err)
			return exitUsage
		}
		files = append(files, jigasi.File{Name: name, Data: data})
	}
	r, err := jigasi.Import(files, jigasi.Options{Secrets: *target != "" || *show, Lookup: lookup})
	if err != nil {
		fmt.Fprintln(errOut, "brewline import:", err)
		return exitUsage
	}
	code = tellNotes(errOut, r.Notes)
	if *target == "" {
		if _, err := out.Write(r.TOML); err != nil {
			return report(errOut, err)
		}
		return code
	}
	if err := writePrivate(*target, r.TOML, *force); err != nil {
		return report(errOut, err)
	}
	fmt.Fprintf(errOut, "%s is written, with passwords. Next: brewline check -c %s\n", *target, *target)
	if _, err := config.Load(*target); err != nil {
		fmt.Fprintln(errOut, err)
		return exitFailed
	}
	return code
}

// tellNotes prints what needs attention, and how much does not.
func tellNotes(w io.Writer, notes []jigasi.Note) (code int) {
	moot := 0
	for _, n := range notes {
		switch n.Kind {
		case jigasi.Missing:
			code = exitFailed
		case jigasi.Moot:
			moot++
			continue
		}
		fmt.Fprintf(w, "%s: %s\n", n.Kind, n)
	}
	if moot > 0 {
		fmt.Fprintf(w, "%d more have no counterpart and need none; the end of the result names them\n", moot)
	}
	return code
}

// maxImport bounds a file to import, in bytes.
const maxImport = 1 << 20

func readFile(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxImport+1))
}

func lookup(host string) ([]netip.Addr, error) {
	ctx, cancel := context.WithTimeout(context.Background(), importTimeout)
	defer cancel()
	return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
}

// writePrivate writes a file that only its owner may read. Without replace it
// must not exist yet.
func writePrivate(name string, data []byte, replace bool) error {
	var f *os.File
	var err error
	if replace {
		f, err = os.CreateTemp(filepath.Dir(name), ".brewline-import-") // mode 0600
	} else if f, err = os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600); errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%s exists; -f replaces it", name)
	}
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Close()); err == nil && replace {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		os.Remove(f.Name())
	}
	return err
}
