package realstack

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// gateway is `brewline serve`.
type gateway struct {
	*process
	sip  map[string]string // where it takes SIP, by network, "udp6" for UDP over IPv6
	http string            // base URL
}

// entry is a line of its log.
type entry map[string]any

func (e entry) str(key string) string { s, _ := e[key].(string); return s }

func parseEntry(line string) entry {
	var e entry
	_ = json.Unmarshal([]byte(line), &e)
	return e
}

// startGateway returns when all shards are up. When the test ends the gateway
// is told to drain, and must end in order and without a data race.
func startGateway(t *testing.T, ctx context.Context, config string, listeners, shards int) *gateway {
	t.Helper()
	path, err := program()
	if err != nil {
		t.Fatalf("build brewline: %v", err)
	}
	g := &gateway{process: launch(t, "brewline", exec.Command(path, "serve", "-c", config)), sip: map[string]string{}}
	t.Cleanup(func() {
		if t.Failed() {
			return // calls may be running still
		}
		if err := g.end(syscall.SIGTERM); err != nil {
			t.Errorf("brewline serve: %v", err)
		}
		lines, _ := g.lines()
		for _, l := range lines {
			if strings.Contains(l, "DATA RACE") || strings.HasPrefix(l, "panic:") {
				t.Errorf("brewline serve: %s", l)
			}
		}
	})
	up := 0
	for mark := 0; len(g.sip) < listeners || g.http == "" || up < shards; mark++ {
		line, err := g.await(ctx, fmt.Sprintf("%d shards up", shards), mark, func(string) bool { return true })
		if err != nil {
			t.Fatal(err)
		}
		e := parseEntry(line)
		switch e.str("msg") {
		case "listening for SIP":
			network, address := e.str("network"), e.str("address")
			if strings.HasPrefix(address, "[") {
				network += "6"
			}
			g.sip[network] = address
		case "listening for HTTP":
			g.http = "http://" + e.str("address")
		case "shard up":
			up++
		}
	}
	return g
}

// says awaits a log entry from a mark on. The attributes are key, value …
func (g *gateway) says(ctx context.Context, mark int, msg string, attrs ...string) (entry, error) {
	what := fmt.Sprintf("%q %q", msg, attrs)
	line, err := g.await(ctx, what, mark, func(l string) bool {
		e := parseEntry(l)
		for i := 0; i < len(attrs); i += 2 {
			if e.str(attrs[i]) != attrs[i+1] {
				return false
			}
		}
		return e.str("msg") == msg
	})
	return parseEntry(line), err
}

// metric is the sum of all series of a metric.
func (g *gateway) metric(ctx context.Context, name string) (sum float64, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, g.http+"/metrics", nil)
	if err != nil {
		return 0, err
	}
	res, err := client.Do(req)
	if err != nil {
		return 0, err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(body)) {
		series, value, ok := strings.Cut(strings.TrimSpace(line), " ")
		if i := strings.LastIndexByte(series, '}'); i > 0 { // labels may hold blanks
			series, value = line[:strings.IndexByte(line, '{')], strings.TrimSpace(line[strings.LastIndexByte(line, '}')+1:])
		}
		if base, _, _ := strings.Cut(series, "{"); !ok || base != name {
			continue
		}
		var v float64
		if _, err := fmt.Sscan(value, &v); err != nil {
			return 0, fmt.Errorf("metric %s: %w", name, err)
		}
		sum += v
	}
	return sum, nil
}
