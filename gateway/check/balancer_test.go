package check_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"brewline/gateway/check"
	"brewline/internal/jitsitest"
)

// The balancer must answer, say the same for one room every time, and name a
// shard of the configuration.
func TestBalancer(t *testing.T) {
	t.Parallel()
	var n atomic.Int64
	for _, tt := range []struct {
		name   string
		says   func(*http.Request) string
		code   int
		status check.Status
		part   string
	}{
		{"sticky", func(*http.Request) string { return "s1" }, 200, check.OK, `"s1" 4 times`},
		{"names nobody", func(*http.Request) string { return "" }, 200, check.OK, "DEPLOYMENTINFO_SHARD"},
		{"names another", func(*http.Request) string { return "s9" }, 200, check.Warn, "header_value"},
		{"round robin", func(*http.Request) string { return fmt.Sprint("s", n.Add(1)) }, 200, check.Fail, "?room="},
		{"broken", func(*http.Request) string { return "" }, 503, check.Fail, "503"},
		{"asked for the room", func(r *http.Request) string {
			if !strings.HasPrefix(r.URL.Query().Get("room"), "brewline-check-") {
				return "s9"
			}
			return "s1"
		}, 200, check.OK, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			b := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if says := tt.says(r); says != "" {
					w.Header().Set("X-Jitsi-Shard", says)
				}
				w.WriteHeader(tt.code)
			}))
			defer b.Close()
			good, got := run(t, shardTOML(shard(t, jitsitest.ShardOptions{Name: "s1"}), fmt.Sprintf("balancer = %q", b.URL+"/http-bind?room={roomName}")))
			r := got["deployment one: balancer"]
			if good == (tt.status == check.Fail) || r.Status != tt.status || !strings.Contains(r.Detail+r.Remedy, tt.part) {
				t.Errorf("verdict %v, want %q with %q: %s", good, tt.status, tt.part, r)
			}
		})
	}
}

// Addresses that this host has not are no addresses for media.
func TestMediaAddress(t *testing.T) {
	t.Parallel()
	good, got := run(t, "[media.phone]\nbind = \"203.0.113.1\"\n"+shardTOML(shard(t, jitsitest.ShardOptions{Name: "s1"}), ""))
	if r := got["configuration: media"]; good || r.Status != check.Fail || !strings.Contains(r.Detail, "media.phone.bind: 203.0.113.1") {
		t.Errorf("verdict %v: %s", good, r)
	}
}
