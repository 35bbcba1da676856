package webrtctest

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"brewline/internal/needtool"
	"brewline/internal/tone"
)

// page is the phone in the browser, told what to do and telling what happens.
type page struct {
	t        *testing.T
	ctx      context.Context
	commands chan command

	mu     sync.Mutex
	events []event
	news   chan struct{} // closed and renewed with every event
}

type command struct {
	Name string `json:"name"`
	Text string `json:"text"`
}

// event is what the page tells.
type event struct {
	What, Text             string
	Frequency, Level       float64
	Packets                int
	Codec, SRTP, DTLS, ICE string
}

// phone starts a browser whose microphone says a tone, with a phone that calls
// room, a SIP URI, by a server, the URL of a WebSocket.
func phone(t *testing.T, ctx context.Context, server, room string, freq int) *page {
	t.Helper()
	chromium := needtool.Path(t, "chromium", "chromium-browser", "google-chrome")
	if _, err := os.Stat("node_modules/jssip"); err != nil {
		if needtool.Required() {
			t.Fatal("JsSIP is not installed: run make test-all")
		}
		t.Skip("JsSIP is not installed: run make test-all")
	}
	p := &page{t: t, ctx: ctx, commands: make(chan command), news: make(chan struct{})}
	mux := http.NewServeMux()
	mux.Handle("/", http.FileServer(http.Dir("testdata")))
	mux.Handle("/node_modules/", http.FileServer(http.Dir(".")))
	mux.HandleFunc("POST /event", p.event)
	mux.HandleFunc("GET /command", p.command)
	srv := httptest.NewServer(mux)
	t.Cleanup(srv.Close)

	dir := t.TempDir()
	microphone := filepath.Join(dir, "microphone.wav")
	if err := tone.WriteWAV(microphone, 48000, tone.Sine(freq, 48000, 10*time.Second, 0.5)); err != nil {
		t.Fatal(err)
	}
	address := srv.URL + "/phone.html?" + url.Values{"server": {server}, "room": {room}}.Encode()
	cmd := exec.Command(chromium, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
		"--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
		"--user-data-dir="+filepath.Join(dir, "profile"), "--ignore-certificate-errors",
		"--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream", "--use-file-for-fake-audio-capture="+microphone,
		"--autoplay-policy=no-user-gesture-required", "--allow-loopback-in-peer-connection",
		"--remote-debugging-port=0", address)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	var said strings.Builder
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // the browser is many processes
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("the browser said:\n%s\nthe page said:\n%s", said.String(), p.transcript())
		}
	})
	return p
}

func (p *page) event(w http.ResponseWriter, r *http.Request) {
	var e event
	if err := json.NewDecoder(io.LimitReader(r.Body, 1<<16)).Decode(&e); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.events = append(p.events, e)
	close(p.news)
	p.news = make(chan struct{})
}

// command gives the page the next command, or none after a while.
func (p *page) command(w http.ResponseWriter, r *http.Request) {
	var c command
	select {
	case c = <-p.commands:
	case <-time.After(2 * time.Second):
	case <-r.Context().Done():
	}
	_ = json.NewEncoder(w).Encode(c)
}

// do has the page do something.
func (p *page) do(name, text string) {
	p.t.Helper()
	select {
	case p.commands <- command{name, text}:
	case <-p.ctx.Done():
		p.t.Fatalf("the page does not take the command %s", name)
	}
}

// mark is a moment of what the page tells.
func (p *page) mark() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.events)
}

// await waits for an event since a moment, and fails where the call or the page
// does.
func (p *page) await(what string, mark int, ok func(event) bool) event {
	p.t.Helper()
	for {
		p.mu.Lock()
		events, news := p.events[mark:], p.news
		p.mu.Unlock()
		for _, e := range events {
			mark++
			if ok(e) {
				return e
			}
			if e.What == "error" || e.What == "failed" {
				p.t.Fatalf("%s before %s: %s", e.What, what, e.Text)
			}
		}
		select {
		case <-news:
		case <-p.ctx.Done():
			p.t.Fatalf("never: %s", what)
		}
	}
}

// says waits for an event by name.
func (p *page) says(what string, mark int) event {
	p.t.Helper()
	return p.await(what, mark, func(e event) bool { return e.What == what })
}

// hears waits until the page hears a tone from now on.
func (p *page) hears(freq float64) event {
	p.t.Helper()
	return p.await(fmt.Sprintf("%v Hz", freq), p.mark(), func(e event) bool {
		return e.What == "heard" && e.Level > -50 && e.Frequency > freq-15 && e.Frequency < freq+15
	})
}

func (p *page) transcript() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var b strings.Builder
	for i, e := range p.events {
		if e.What != "heard" || i > len(p.events)-4 {
			fmt.Fprintf(&b, "%+v\n", e)
		}
	}
	return b.String()
}
