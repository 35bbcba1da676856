package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"
)

// gateway is `brewline serve` as a child process, followed by its log.
type gateway struct {
	cmd  *exec.Cmd
	log  *os.File
	sip  string // where it takes calls over UDP, "127.0.0.1:5060"
	mu   sync.Mutex
	seen []entry
	more chan struct{} // closed and replaced at every entry
	done chan struct{} // closed when the process has ended
	err  error
	next int // first entry that await has not looked at
}

// entry is one line of the gateway's log.
type entry map[string]any

func (e entry) str(key string) string {
	switch v := e[key].(type) {
	case nil:
		return ""
	case string:
		return v
	case float64:
		return fmt.Sprint(v)
	default:
		return fmt.Sprint(v)
	}
}

// ms is a duration of the log, which slog writes in nanoseconds.
func (e entry) ms(key string) string {
	ns, _ := e[key].(float64)
	return fmt.Sprintf("%.1f ms", ns/1e6)
}

func startGateway(ctx context.Context, program, config, logPath string) (*gateway, error) {
	log, err := os.Create(logPath)
	if err != nil {
		return nil, err
	}
	g := &gateway{log: log, more: make(chan struct{}), done: make(chan struct{})}
	g.cmd = exec.Command(program, "serve", "-c", config)
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	g.cmd.Stdout, g.cmd.Stderr = os.Stdout, w
	if err := g.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the gateway, which -brewline names: %w", err)
	}
	w.Close()
	go g.read(r)
	listening, err := g.await(ctx, "listening for SIP") // UDP is the first
	if err == nil {
		g.sip = listening.str("address")
		_, err = g.await(ctx, "brewline is up")
	}
	if err != nil {
		g.stop()
		return nil, err
	}
	return g, nil
}

func (g *gateway) read(r *os.File) {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		fmt.Fprintln(g.log, lines.Text())
		var e entry
		if json.Unmarshal(lines.Bytes(), &e) != nil {
			e = entry{"msg": lines.Text()}
		}
		g.mu.Lock()
		g.seen = append(g.seen, e)
		close(g.more)
		g.more = make(chan struct{})
		g.mu.Unlock()
	}
	g.err = g.cmd.Wait()
	close(g.done)
}

// await returns the next log line with that message.
func (g *gateway) await(ctx context.Context, msg string) (entry, error) {
	for {
		g.mu.Lock()
		for g.next < len(g.seen) {
			e := g.seen[g.next]
			g.next++
			if e.str("msg") == msg {
				g.mu.Unlock()
				return e, nil
			}
		}
		more := g.more
		g.mu.Unlock()
		select {
		case <-more:
		case <-g.done:
			return nil, fmt.Errorf("the gateway ended before %q: %v: %s; its log is %s", msg, g.err, g.last(), g.log.Name())
		case <-ctx.Done():
			return nil, fmt.Errorf("the gateway never said %q; its log is %s", msg, g.log.Name())
		}
	}
}

// last is what the gateway said last.
func (g *gateway) last() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.seen) == 0 {
		return "it said nothing"
	}
	e := g.seen[len(g.seen)-1]
	if e.str("error") != "" {
		return e.str("msg") + ": " + e.str("error")
	}
	return e.str("msg")
}

// stop drains the gateway as an operator would, with SIGTERM.
func (g *gateway) stop() {
	g.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-g.done:
	case <-time.After(10 * time.Second):
		g.cmd.Process.Kill()
		<-g.done
	}
	g.log.Close()
}
