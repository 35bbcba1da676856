package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"brewline/internal/needtool"
	"brewline/internal/tone"
)

// What `make demo` does: the built program as a child process, both halves,
// judged by listening.
func TestDemo(t *testing.T) {
	needtool.NeedLong(t)
	dir := t.TempDir()
	o := options{brewline: filepath.Join(dir, "brewline"), out: filepath.Join(dir, "out"), shards: 3}
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", o.brewline, "../brewline").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if err := run(t.Context(), o); err != nil {
		log, _ := os.ReadFile(filepath.Join(o.out, "brewline.log"))
		t.Fatalf("%v\n%s", err, log)
	}
	for _, who := range []string{"phone", "participant", "callee", "host"} {
		if rate, pcm, err := tone.ReadWAV(filepath.Join(o.out, who+"-heard.wav")); err != nil || len(pcm) < rate {
			t.Errorf("%s heard %d samples of %d Hz, %v", who, len(pcm), rate, err)
		}
	}
}
