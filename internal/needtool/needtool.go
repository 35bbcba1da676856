// Package needtool finds the programs that a test drives, such as sipp or
// prosody.
package needtool

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

// EnvRequire names the environment variable that turns a missing program
// from a skipped test into a failed one. make test sets it, and so does CI.
const EnvRequire = "BREWLINE_REQUIRE_TOOLS"

// Path returns the path of the first of these programs that is installed,
// searching /usr/sbin and /sbin as well. With none of them the test is
// skipped, or fails when CI or BREWLINE_REQUIRE_TOOLS is set.
func Path(t testing.TB, names ...string) string {
	t.Helper()
	for _, name := range names {
		for _, candidate := range []string{name, "/usr/sbin/" + name, "/sbin/" + name} {
			if p, err := exec.LookPath(candidate); err == nil {
				return p
			}
		}
	}
	missing := strings.Join(names, " or ") + " is not installed: run make deps"
	if Required() {
		t.Fatal(missing)
	} else {
		t.Skip(missing)
	}
	return ""
}

// Required says whether a missing program is a failure.
func Required() bool { return set(EnvRequire) || set("CI") }

// Long says whether long tests are wanted: BREWLINE_LONG, as make test-all
// sets it.
func Long() bool { return set("BREWLINE_LONG") }

// NeedLong skips a test that only make test-all runs.
func NeedLong(t testing.TB) {
	t.Helper()
	if !Long() {
		t.Skip("a long test: run make test-all")
	}
}

func set(name string) bool {
	v := os.Getenv(name)
	return v != "" && v != "0" && v != "false"
}
