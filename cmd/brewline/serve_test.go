package main

import (
	"bufio"
	"errors"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// asBrewline makes the test's own program behave as brewline.
const asBrewline = "BREWLINE_TEST_AS_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asBrewline) != "" {
		main()
	}
	os.Exit(m.Run())
}

// program is brewline running as a process of its own.
type program struct {
	t     *testing.T
	cmd   *exec.Cmd
	lines chan string
	ended chan error
}

func start(t *testing.T, args ...string) *program {
	t.Helper()
	p := &program{t: t, cmd: exec.Command(os.Args[0], args...), lines: make(chan string, 1000), ended: make(chan error, 1)}
	p.cmd.Env = append(os.Environ(), asBrewline+"=1")
	stderr, err := p.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.cmd.Process.Kill() })
	go func() {
		for s := bufio.NewScanner(stderr); s.Scan(); {
			p.lines <- s.Text()
		}
		p.ended <- p.cmd.Wait()
	}()
	return p
}

// await waits for a line that contains all these words.
func (p *program) await(words ...string) {
	p.t.Helper()
	deadline := time.After(30 * time.Second)
	var seen []string
next:
	for {
		select {
		case line := <-p.lines:
			seen = append(seen, line)
			for _, w := range words {
				if !strings.Contains(line, w) {
					continue next
				}
			}
			return
		case <-deadline:
			p.t.Fatalf("no line with %q in:\n%s", words, strings.Join(seen, "\n"))
		}
	}
}

func (p *program) signal(s os.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Fatal(err)
	}
}

func (p *program) exitCode() int {
	p.t.Helper()
	select {
	case err := <-p.ended:
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			return exit.ExitCode()
		}
		return 0
	case <-time.After(30 * time.Second):
		p.t.Fatal("still running")
		return -1
	}
}

const served = `
[sip]
listen = ["udp://127.0.0.1:0", "tcp://127.0.0.1:0"]
[http]
listen = "127.0.0.1:0"
[[shard]]
name = "nowhere"
domain = "meet.test"
url = "http://127.0.0.1:1/http-bind"
[[trunk]]
name = "pbx"
match = ["127.0.0.1"]
`

// TestServe takes a gateway through its life: up, a reload that is refused, one
// that is not, and the end.
func TestServe(t *testing.T) {
	t.Parallel()
	path := file(t, served)
	p := start(t, "serve", "-c", path)
	p.await("brewline is up")

	write := func(text string) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(served + "max_cals = 1\n")
	p.signal(syscall.SIGHUP)
	p.await("not reloaded", "unknown key", "did you mean max_calls?")
	write(served + "[media]\nbind = \"203.0.113.1\"\n")
	p.signal(syscall.SIGHUP)
	p.await("not reloaded", "media.bind: 203.0.113.1", "write an address of this host")
	write(served + "max_calls = 1\n")
	p.signal(syscall.SIGHUP)
	p.await("configuration reloaded", "trunk ~pbx")

	p.signal(syscall.SIGTERM)
	if code := p.exitCode(); code != exitOK {
		t.Errorf("exit code %d", code)
	}
}

func TestServeCannotListen(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for _, tt := range []struct {
		old, new string
		says     []string
	}{
		{"udp://127.0.0.1:0", "udp://203.0.113.1:5060", []string{"brewline: sip.listen: ", "203.0.113.1:5060: ", "write an address of this host"}},
		{"[[shard]]", "[media]\nbind = \"203.0.113.1\"\n[[shard]]", []string{"brewline: media.bind: 203.0.113.1: ", "write an address of this host"}},
		{`http]
listen = "127.0.0.1:0"`, `http]
listen = "` + taken.Addr().String() + `"`, []string{"brewline: http.listen: ", taken.Addr().String(), "perhaps a second brewline"}},
	} {
		text := strings.Replace(served, tt.old, tt.new, 1)
		if text == served {
			t.Fatalf("%s is not in the configuration", tt.old)
		}
		p := start(t, "serve", "-c", file(t, text))
		p.await(tt.says...)
		if code := p.exitCode(); code != exitFailed {
			t.Errorf("%s: exit code %d", tt.says[0], code)
		}
	}
}
