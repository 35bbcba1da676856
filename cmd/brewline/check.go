package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"text/tabwriter"

	"brewline/config"
)

// verdict is the whole outcome of check.
type verdict struct {
	OK       bool             `json:"ok"`
	Problems []config.Problem `json:"problems,omitempty"` // of the configuration
	Findings []finding        `json:"findings,omitempty"`
}

// finding is the outcome of one thing that was tried.
type finding struct {
	OK      bool   `json:"ok"`
	Subject string `json:"subject"`          // "shard a", "trunk pbx", "configuration"
	Check   string `json:"check"`            // what was tried
	Detail  string `json:"detail,omitempty"` // what came of it
	Remedy  string `json:"remedy,omitempty"`
}

// check goes through the configuration, every shard and every trunk.
func check(args []string, out, errOut io.Writer) int {
	fs := flag.NewFlagSet("check", flag.ContinueOnError)
	path := fs.String("c", defaultConfig, "configuration `file`")
	asJSON := fs.Bool("json", false, "print JSON")
	if code, ok := parse(fs, args, out, errOut); !ok {
		return code
	}
	code := exitOK
	v := verdict{OK: true}
	cfg, err := config.Load(*path)
	var problems *config.Problems
	switch {
	case errors.As(err, &problems):
		v.OK, v.Problems, code = false, problems.All, exitUsage
	case err != nil:
		return report(errOut, err)
	default:
		v.Findings = append(v.Findings, finding{OK: true, Subject: "configuration", Check: "valid",
			Detail: fmt.Sprintf("deployments %d, shards %d, trunks %d", len(cfg.Deployments), len(cfg.Shards), len(cfg.Trunks))})
	}
	if *asJSON {
		enc := json.NewEncoder(out)
		enc.SetIndent("", "  ")
		err = enc.Encode(v)
	} else {
		err = v.print(out)
	}
	if err != nil {
		return report(errOut, err)
	}
	return code
}

// print writes one line for each problem or finding.
func (v *verdict) print(out io.Writer) error {
	for _, p := range v.Problems {
		if _, err := fmt.Fprintln(out, p); err != nil {
			return err
		}
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, f := range v.Findings {
		word := "ok"
		if !f.OK {
			word = "FAIL"
		}
		line := f.Detail
		if f.Remedy != "" {
			line += ": " + f.Remedy
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", word, f.Subject, f.Check, line)
	}
	return w.Flush()
}
