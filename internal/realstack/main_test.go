package realstack

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"go.uber.org/goleak"
)

// scratch is removed when all tests are over.
var scratch string

func TestMain(m *testing.M) {
	var err error
	if scratch, err = os.MkdirTemp("", "realstack"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	// Most of the time of these tests is spent waiting.
	_ = flag.Set("test.parallel", "6")
	code := m.Run()
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	_ = os.RemoveAll(scratch)
	os.Exit(code)
}

// program builds brewline once, with the race detector if the test has it.
var program = sync.OnceValues(func() (string, error) {
	path := filepath.Join(scratch, "brewline")
	args := []string{"build", "-buildvcs=false", "-tags=nolibopusfile", "-o", path}
	if raceDetector {
		args = append(args, "-race")
	}
	out, err := exec.Command("go", append(args, "brewline/cmd/brewline")...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%w\n%s", err, out)
	}
	return path, nil
})
