package needtool

import (
	"fmt"
	"testing"
)

// recorder is a test that notes how it ended instead of ending.
type recorder struct {
	testing.TB
	ended string
}

func (r *recorder) Helper()           {}
func (r *recorder) Fatal(args ...any) { r.ended = "failed: " + fmt.Sprint(args...) }
func (r *recorder) Skip(args ...any)  { r.ended = "skipped: " + fmt.Sprint(args...) }

func TestPath(t *testing.T) {
	const none = "there-is-no-such-program"
	for _, tt := range []struct{ ci, require, ended string }{
		{"", "", "skipped: "},
		{"false", "0", "skipped: "},
		{"true", "", "failed: "},
		{"", "1", "failed: "},
	} {
		t.Setenv("CI", tt.ci)
		t.Setenv(EnvRequire, tt.require)
		r := &recorder{TB: t}
		if p := Path(r, none); p != "" || r.ended != tt.ended+none+" is not installed: run make deps" {
			t.Errorf("CI=%s %s=%s: path %q, %s", tt.ci, EnvRequire, tt.require, p, r.ended)
		}
		r = &recorder{TB: t}
		if p := Path(r, none, "sh"); p == "" || r.ended != "" {
			t.Errorf("second choice: path %q, %s", p, r.ended)
		}
	}
}

func TestNeedLong(t *testing.T) {
	for value, skipped := range map[string]bool{"": true, "0": true, "1": false} {
		t.Setenv("BREWLINE_LONG", value)
		r := &recorder{TB: t}
		if NeedLong(r); (r.ended != "") != skipped {
			t.Errorf("BREWLINE_LONG=%s: %s", value, r.ended)
		}
	}
}
