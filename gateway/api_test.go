package gateway_test

import (
	"encoding/json"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

// get asks the gateway over HTTP.
func (w *world) http(method, path string) (int, string) {
	w.t.Helper()
	req, err := http.NewRequestWithContext(w.ctx, method, "http://"+w.gw.HTTPAddr()+path, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

// jigasiStats are the names that operators' scripts read.
var jigasiStats = strings.Fields(`conferences participants stress_level conference_sizes threads current_timestamp
	total_conferences_completed total_participants total_conference_seconds total_calls_with_dropped_media
	total_count_dropped_media total_calls_with_connection_failed total_calls_with_sip_call_waiting
	total_calls_with_sip_call_reconnected total_calls_with_jvb_migrate total_calls_jvb_no_media
	total_calls_no_heartbeat_response graceful_shutdown
	total_transcriber_g_requests total_transcriber_g_minutes total_transcriber_ggl_millis total_transcriber_oci_millis
	total_transcriber_wsp_millis total_transcriber_vsk_millis total_transcriber_started total_transcriber_stopped
	total_transcriber_failed total_transcriber_connection_errors total_transcriber_connection_retries
	total_transcriber_no_result_errors total_transcriber_send_errors total_transcriber_session_creation_errors`)

func TestHTTP(t *testing.T) {
	t.Parallel()
	bothWays(t, worldOptions{shards: 2, options: quick()}, "counted", func(t *testing.T, w *world) {
		if code, body := w.http("GET", "/about/health"); code != 200 || strings.TrimSpace(body) != "{}" {
			t.Errorf("health: %d %s", code, body)
		}
		if code, body := w.http("GET", "/about/version"); code != 200 || !contains(body, `"version":"test"`) {
			t.Errorf("version: %d %s", code, body)
		}
		_, c := w.inCall(w.deps[0].Shards[1], "counted")
		code, body := w.http("GET", "/about/stats")
		stats := map[string]any{}
		if err := json.Unmarshal([]byte(body), &stats); err != nil || code != 200 {
			t.Fatalf("stats: %d %v", code, err)
		}
		for _, name := range jigasiStats {
			if _, ok := stats[name]; !ok {
				t.Errorf("statistics lack %s", name)
			}
		}
		if stats["conferences"] != 1.0 || stats["participants"] != 2.0 || stats["stress_level"] != 0.005 || stats["graceful_shutdown"] != false {
			t.Errorf("statistics of one call: %s", body)
		}
		code, body = w.http("GET", "/metrics")
		for _, line := range []string{
			`brewline_calls{deployment="dep1",shard="` + w.shardName(w.deps[0].Shards[1]) + `",state="connected"} 1`,
			`brewline_trunk_calls{trunk="ipbx"} 1`, `brewline_shard_up{deployment="dep1",shard="` + w.shardName(w.deps[0].Shards[0]) + `"} 1`,
			`brewline_locate_total{result="asked"} 1`, `brewline_invites_total 1`, `brewline_draining 0`,
		} {
			if !slices.Contains(strings.Split(body, "\n"), line) {
				t.Errorf("metrics (%d) lack %s", code, line)
			}
		}
		w.hangup(c)
		if _, body = w.http("GET", "/metrics"); !contains(body, `brewline_calls_ended_total{end="caller_hung_up"} 1`) {
			t.Error("the end of the call was not counted")
		}
		if code, body := w.http("POST", "/about/shutdown"); code != 503 || !contains(body, "enable_shutdown") {
			t.Errorf("shutdown that is not enabled: %d %s", code, body)
		}
		if code, _ := w.http("GET", "/about/shutdown"); code != 405 {
			t.Errorf("GET of shutdown: %d", code)
		}
		for _, d := range w.deps {
			for _, sh := range d.Shards {
				sh.Kill()
			}
		}
		w.await("no shard up", func() bool { return w.gw.Brewery().Up() == 0 })
		if code, body := w.http("GET", "/about/health"); code != 503 || !contains(body, "no shard is up") {
			t.Errorf("health without shards: %d %s", code, body)
		}
		if e := w.refused(w.phone(phoneDefaults), w.headers("x")); e.Code != 503 || e.Headers["Retry-After"] == "" {
			t.Errorf("a call without shards: %d", e.Code)
		}
	})
}

func TestShutdownOverHTTP(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{shards: 1, http: "enable_shutdown = true"})
	if code, _ := w.http("POST", "/about/shutdown"); code != 200 {
		t.Errorf("shutdown: %d", code)
	}
	select {
	case <-w.gw.Asked():
	case <-time.After(5 * time.Second):
		t.Error("the process is not told")
	}
	if e := w.refused(w.phone(phoneDefaults), map[string]string{"X-Room-Name": "x"}); e.Code != 503 {
		t.Errorf("a call afterwards: %d", e.Code)
	}
}
