// Command lint checks two things that no ready-made tool knows: that packages
// import only what their place in the house allows, and that the files of the
// repository name no machine and no document that is not part of it.
//
// It prints one line per offence and exits 1 when there is one.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
)

func main() {
	offences, err := run()
	for _, o := range offences {
		fmt.Println(o)
	}
	switch {
	case err != nil:
		fmt.Fprintln(os.Stderr, "lint:", err)
		os.Exit(2)
	case len(offences) > 0:
		os.Exit(1)
	}
}

func run() ([]string, error) {
	pkgs, err := list()
	if err != nil {
		return nil, err
	}
	offences := imports(pkgs)
	words, err := wording()
	return append(offences, words...), err
}

// list asks the go command for the packages of this module.
func list() ([]pkg, error) {
	cmd := exec.Command("go", "list", "-e", "-json=ImportPath,Imports,TestImports,XTestImports", "./...")
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	var pkgs []pkg
	for dec := json.NewDecoder(out); ; {
		var p pkg
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return nil, fmt.Errorf("read go list: %w", err)
		}
		pkgs = append(pkgs, p)
	}
	return pkgs, cmd.Wait()
}
