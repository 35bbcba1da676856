package realstack

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

const stopTimeout = 10 * time.Second

// process is a child whose output is followed line by line.
type process struct {
	t    *testing.T
	name string
	cmd  *exec.Cmd
	in   io.WriteCloser
	done chan struct{} // closed when it has ended and all its output is read
	err  error         // of its end

	mu   sync.Mutex
	out  []string
	more chan struct{} // closed and replaced at every line
}

// launch starts a child. It is killed at the latest when the test ends, and
// what it said is logged if the test failed.
func launch(t *testing.T, name string, cmd *exec.Cmd) *process {
	t.Helper()
	p := &process{t: t, name: name, cmd: cmd, done: make(chan struct{}), more: make(chan struct{})}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = w, w
	if p.in, err = cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	// Should the test be killed, the child goes too. The signal comes when the
	// thread that started the child ends, so that one is kept.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		_ = w.Close()
		started <- err
		if err != nil {
			return
		}
		p.read(r)
		p.err = cmd.Wait()
		_ = r.Close()
		close(p.done)
	}()
	if err := <-started; err != nil {
		_ = r.Close()
		t.Fatalf("%s: %v", name, err)
	}
	t.Cleanup(func() {
		p.kill()
		if t.Failed() {
			t.Logf("%s said:\n%s", name, p.tail(150))
			t.Logf("%s complained:\n%s", name, p.complaints(150))
		}
	})
	return p
}

func (p *process) read(r io.Reader) {
	lines := bufio.NewReader(r)
	for {
		line, err := lines.ReadString('\n')
		if line != "" {
			p.mu.Lock()
			p.out = append(p.out, strings.TrimRight(line, "\r\n"))
			close(p.more)
			p.more = make(chan struct{})
			p.mu.Unlock()
		}
		if err != nil {
			return
		}
	}
}

// lines is all that was said, with a channel that is closed when more comes.
func (p *process) lines() ([]string, <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.out, p.more
}

func (p *process) tail(n int) string {
	lines, _ := p.lines()
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// stacks ends a Go program and returns what its goroutines were at.
func (p *process) stacks() string {
	_ = p.cmd.Process.Signal(syscall.SIGQUIT)
	select {
	case <-p.done:
	case <-time.After(stopTimeout):
	}
	lines, _ := p.lines()
	at := max(0, slices.IndexFunc(lines, func(l string) bool { return strings.HasPrefix(l, "SIGQUIT") }))
	return strings.Join(lines[at:], "\n")
}

// complaints are the first n lines about something amiss.
func (p *process) complaints(n int) string {
	lines, _ := p.lines()
	var out []string
	for _, l := range lines {
		if len(out) < n && (strings.Contains(l, `"level":"WARN"`) || strings.Contains(l, `"level":"ERROR"`)) {
			out = append(out, l)
		}
	}
	return strings.Join(out, "\n")
}

// mark is the number of lines so far.
func (p *process) mark() int {
	lines, _ := p.lines()
	return len(lines)
}

// await returns the first line from a mark on that fits.
func (p *process) await(ctx context.Context, what string, mark int, fits func(string) bool) (string, error) {
	for {
		lines, more := p.lines()
		for ; mark < len(lines); mark++ {
			if fits(lines[mark]) {
				return lines[mark], nil
			}
		}
		select {
		case <-more:
		case <-p.done:
			if lines, _ := p.lines(); mark < len(lines) {
				continue
			}
			return "", fmt.Errorf("%s ended before %s: %v", p.name, what, p.err)
		case <-ctx.Done():
			return "", fmt.Errorf("%s never came to %s: %w", p.name, what, ctx.Err())
		}
	}
}

// end sends a signal and waits for the end; it is killed if that takes long.
func (p *process) end(sig os.Signal) error {
	_ = p.cmd.Process.Signal(sig)
	select {
	case <-p.done:
	case <-time.After(stopTimeout):
		p.kill()
		return fmt.Errorf("%s did not end within %s after %s", p.name, stopTimeout, sig)
	}
	return p.err
}

func (p *process) kill() {
	_ = p.cmd.Process.Kill() // nothing happens when it has ended
	<-p.done
}
