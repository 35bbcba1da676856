package realstack

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"brewline/internal/needtool"
	"brewline/internal/tone"
)

// sipp is a running SIPp. The test is its twin, as a controller of 3PCC has
// one: each call says when it is up, and hangs up when it is told to.
type sipp struct {
	*process
	calls int
	conn  net.Conn
	dir   string
	up    []string // Call-IDs
}

type sippOptions struct {
	target string // host:port of the gateway
	tcp    bool
	user   string
	room   string // X-Room-Name
	calls  int    // at once, default 1
	// ear is the port that gets the audio, 0 for SIPp's own. SIPp then says a
	// tone, or with none says back what it hears.
	ear, tone int
}

func startSIPp(t *testing.T, ctx context.Context, o sippOptions) *sipp {
	t.Helper()
	path := needtool.Path(t, "sipp")
	s := &sipp{calls: max(1, o.calls), dir: t.TempDir()}
	text, err := os.ReadFile("testdata/call.xml")
	if err != nil {
		t.Fatal(err)
	}
	port := "[media_port]"
	if o.ear != 0 {
		port = fmt.Sprint(o.ear)
	}
	scenario := strings.Replace(string(text), "AUDIO_PORT", port, 1)
	mode := "u1"
	if o.tcp {
		mode = "t1"
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	args := []string{
		o.target, "-sf", "call.xml", "-3pcc", l.Addr().String(), "-t", mode, "-i", "127.0.0.1", "-mi", "127.0.0.1", "-bind_local",
		"-m", fmt.Sprint(s.calls), "-l", fmt.Sprint(s.calls), "-r", "20", "-s", o.user, "-key", "room", o.room,
		"-nostdin", "-timeout", "100s", "-timeout_error", "-recv_timeout", "60000", "-trace_err", "-error_file", "errors",
	}
	switch {
	case o.ear != 0:
	case o.tone != 0:
		scenario = strings.Replace(scenario, "<!-- PLAY -->", `<nop><action><exec rtp_stream="tone.ul,-1,0"/></action></nop>`, 1)
		var file []byte
		for _, v := range tone.Sine(o.tone, phoneRate, time.Second, 0.5) {
			file = append(file, ulawEncode(v))
		}
		if err := os.WriteFile(filepath.Join(s.dir, "tone.ul"), file, 0o600); err != nil {
			t.Fatal(err)
		}
	default:
		args = append(args, "-rtp_echo")
	}
	if err := os.WriteFile(filepath.Join(s.dir, "call.xml"), []byte(scenario), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(path, args...)
	cmd.Dir = s.dir
	s.process = launch(t, "sipp", cmd)
	if deadline, ok := ctx.Deadline(); ok {
		_ = l.(*net.TCPListener).SetDeadline(deadline)
	}
	if s.conn, err = l.Accept(); err != nil {
		t.Fatalf("sipp: %v", err)
	}
	t.Cleanup(func() { _ = s.conn.Close() })
	return s
}

var talking = regexp.MustCompile(`Call-ID: *(\S+)\s+State: talking\s*\x1b`)

// answered waits until all calls are up.
func (s *sipp) answered(ctx context.Context) error {
	if deadline, ok := ctx.Deadline(); ok {
		_ = s.conn.SetReadDeadline(deadline)
	}
	var text []byte
	for len(s.up) < s.calls {
		buf := make([]byte, 4096)
		n, err := s.conn.Read(buf)
		text = append(text, buf[:n]...)
		for m := talking.FindSubmatchIndex(text); m != nil; m = talking.FindSubmatchIndex(text) {
			s.up = append(s.up, string(text[m[2]:m[3]]))
			text = text[m[1]:]
		}
		if err != nil {
			return fmt.Errorf("sipp has %d calls up of %d: %w\n%s", len(s.up), s.calls, err, s.errors())
		}
	}
	return nil
}

// hangup lets all calls hang up and waits for SIPp's verdict.
func (s *sipp) hangup(ctx context.Context) error {
	for _, id := range s.up {
		if _, err := fmt.Fprintf(s.conn, "Call-ID: %s\r\nState: over\r\n\r\n\x1b", id); err != nil {
			return fmt.Errorf("sipp: %w", err)
		}
	}
	select {
	case <-s.done:
	case <-ctx.Done():
		return fmt.Errorf("sipp does not end: %w", ctx.Err())
	}
	if s.err != nil {
		return fmt.Errorf("sipp: %w\n%s", s.err, s.errors())
	}
	return nil
}

// errors is what SIPp took for unexpected.
func (s *sipp) errors() string {
	text, _ := os.ReadFile(filepath.Join(s.dir, "errors"))
	return string(bytes.TrimSpace(text))
}
