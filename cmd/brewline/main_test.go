package main

import (
	"bytes"
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"brewline/gateway/check"
)

// call runs a command line and returns its code and output.
func call(args ...string) (code int, out, errOut string) {
	var o, e bytes.Buffer
	code = run(args, &o, &e)
	return code, o.String(), e.String()
}

func file(t *testing.T, text string) string {
	t.Helper()
	p := filepath.Join(t.TempDir(), "brewline.toml")
	if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return p
}

func TestCommandLine(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		args     string
		code     int
		out, err string // must be contained
	}{
		{"", exitUsage, "", "brewline serve -c file"},
		{"help", exitOK, "brewline check -c file [-json]", ""},
		{"help", exitOK, "brewline import [-o file] file...", ""},
		{"brew", exitUsage, "", `no command is named "brew"`},
		{"version", exitOK, "brewline dev go", ""},
		{"version now", exitUsage, "", `"now" is not understood`},
		{"serve -x", exitUsage, "", "-x"},
		{"serve -h", exitOK, "configuration file", ""},
		{"check -c", exitUsage, "", "needs an argument"},
	} {
		code, out, errOut := call(strings.Fields(tt.args)...)
		if code != tt.code || !strings.Contains(out, tt.out) || !strings.Contains(errOut, tt.err) ||
			(tt.out == "" && out != "") || (tt.err == "" && errOut != "") {
			t.Errorf("brewline %s: code %d, out %q, err %q", tt.args, code, out, errOut)
		}
	}
}

func TestWrongConfiguration(t *testing.T) {
	t.Parallel()
	path := file(t, "[gateway]\nmax_cals = 3\n")
	const unknown = "brewline.toml:2: gateway.max_cals: unknown key: did you mean max_calls?"
	for _, command := range []string{"serve", "check"} {
		if code, out, errOut := call(command, "-c", path); code != exitUsage || out != "" ||
			!strings.Contains(errOut, unknown) || strings.Count(errOut, "\n") != 3 {
			t.Errorf("%s: code %d, out %s, err %s", command, code, out, errOut)
		}
	}
	code, out, _ := call("check", "-json", "-c", path)
	var v verdict
	if err := json.Unmarshal([]byte(out), &v); err != nil || code != exitUsage || v.OK || len(v.Problems) != 3 || v.Problems[2].Line != 2 {
		t.Errorf("check -json: code %d, %v, %s", code, err, out)
	}
}

// What does not work is told in a line each, with what to do about it, and by
// the exit code.
func TestCheckFails(t *testing.T) {
	t.Parallel()
	gone, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone.Close()
	path := file(t, "[sip]\nlisten = [\"udp://127.0.0.1:0\"]\n[[shard]]\nname = \"one\"\ndomain = \"meet.example\"\nurl = \"http://"+
		gone.Addr().String()+"/http-bind\"\n[[trunk]]\nname = \"ipbx\"\nmatch = [\"192.0.2.1\"]\n")
	code, out, errOut := call("check", "-timeout", "5s", "-c", path)
	if code != exitFailed || errOut != "" || !strings.Contains(out, "reachable") || !strings.Contains(out, "firewall") {
		t.Errorf("check: code %d, out %s, err %s", code, out, errOut)
	}
	code, out, _ = call("check", "-json", "-timeout", "5s", "-c", path)
	var v verdict
	if err := json.Unmarshal([]byte(out), &v); err != nil || code != exitFailed || v.OK || len(v.Problems) != 0 {
		t.Errorf("check -json: code %d, %v, %s", code, err, out)
	}
	failed := 0
	for _, r := range v.Results {
		if r.Status == check.Fail {
			failed++
			if r.Subject != "shard one" || r.Remedy == "" {
				t.Errorf("check -json: %+v", r)
			}
		}
	}
	if failed == 0 {
		t.Errorf("check -json: nothing failed: %s", out)
	}
}
