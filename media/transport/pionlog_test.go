package transport

import (
	"bytes"
	"log/slog"
	"strings"
	"sync"
	"testing"
)

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// What is logged at debug level has no password, neither ours nor the
// bridge's.
func TestLogHasNoPasswords(t *testing.T) {
	t.Parallel()
	var out syncBuffer
	o := testOptions()
	o.Logger = slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug}))
	c, b := connected(t, o, bridgeOptions{})
	c.Close()
	log := out.String()
	if !strings.Contains(log, "pion=ice") {
		t.Errorf("nothing of ICE is logged:\n%s", log)
	}
	for _, secret := range []string{c.Local().Pwd, b.remote.Pwd} {
		if secret == "" || strings.Contains(log, secret) {
			t.Errorf("%q is logged:\n%s", secret, log)
		}
	}
}
