package realstack

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"brewline/internal/needtool"
)

// balancer is a real HAProxy with the configuration that operators are given.
type balancer struct {
	*process
	url string // http://host:port
}

var (
	bindLine   = regexp.MustCompile(`(?m)^    bind .*$`)
	serverLine = regexp.MustCompile(`(?m)^    server .*\n`)
	headerLine = regexp.MustCompile(`(?m)^    http-response set-header X-Jitsi-Shard .*\n`)
)

// startBalancer puts HAProxy in front of shards, given as name to host:port in
// their order. Only addresses and the time it takes to see a dead shard differ
// from deploy/haproxy.cfg, and the shard header if it shall not be sent.
func startBalancer(t *testing.T, names, addrs []string, header bool) *balancer {
	t.Helper()
	haproxy := needtool.Path(t, "haproxy")
	data, err := os.ReadFile("../../deploy/haproxy.cfg")
	if err != nil {
		t.Fatal(err)
	}
	text := string(data)
	for _, re := range []*regexp.Regexp{bindLine, serverLine, headerLine} {
		if !re.MatchString(text) {
			t.Fatalf("deploy/haproxy.cfg has no line %s", re)
		}
	}
	text = bindLine.ReplaceAllString(text, "    bind fd@3")
	text = serverLine.ReplaceAllString(text, "")
	if !header {
		text = headerLine.ReplaceAllString(text, "")
	}
	// The backend is the last section. A shard that refuses connections is dead,
	// one that is slow on a busy machine is not.
	text += "    timeout check 30s\n"
	for i, name := range names {
		text += fmt.Sprintf("    server %s %s check inter 300ms fall 2 rise 1\n", name, addrs[i])
	}
	path := filepath.Join(t.TempDir(), "haproxy.cfg")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	// HAProxy is given the socket: no port is guessed.
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	sock, err := l.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer sock.Close()
	cmd := exec.Command(haproxy, "-db", "-f", path)
	cmd.ExtraFiles = []*os.File{sock}
	return &balancer{launch(t, "haproxy", cmd), "http://" + l.Addr().String()}
}

// client keeps no connections: a test must leave none.
var client = &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}

// shard asks where a room is sent to, as X-Jitsi-Shard says; "" without.
func (b *balancer) shard(ctx context.Context, room string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, b.url+"/http-bind?room="+room, nil)
	if err != nil {
		return "", err
	}
	res, err := client.Do(req)
	if err != nil {
		return "", err
	}
	_ = res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return "", fmt.Errorf("haproxy answers %s", res.Status)
	}
	return strings.TrimSpace(res.Header.Get("X-Jitsi-Shard")), nil
}
