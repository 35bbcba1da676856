package gateway_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"brewline/brewery"
	"brewline/gateway"
	"brewline/internal/jitsitest"
	"brewline/internal/jitsitest/jicofo"
	"brewline/internal/jitsitest/xmppd"
	"brewline/internal/siptest"
)

// muc asks for control MUCs as automation for Jigasi does.
func (w *world) muc(what string, body any) (int, string) {
	w.t.Helper()
	b, err := json.Marshal(body)
	if err != nil {
		w.t.Fatal(err)
	}
	method := http.MethodPost
	if what == "list" {
		method = http.MethodGet
	}
	req, err := http.NewRequestWithContext(w.ctx, method, "http://"+w.gw.HTTPAddr()+"/configure/call-control-muc/"+what, bytes.NewReader(b))
	if err != nil {
		w.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	return resp.StatusCode, strings.TrimSpace(string(answer))
}

func (w *world) list(want ...string) {
	w.t.Helper()
	code, body := w.muc("list", nil)
	var got []string
	if err := json.Unmarshal([]byte(body), &got); err != nil || code != 200 || !slices.Equal(got, want) {
		w.t.Errorf("list: %d %s, want %v", code, body, want)
	}
}

func (w *world) shardStatus(shard string) brewery.ShardStatus {
	for _, s := range w.gw.Brewery().Status() {
		if s.Shard == shard {
			return s
		}
	}
	return brewery.ShardStatus{}
}

// A shard is added and removed over HTTP, beside those of the files: found by
// callers, dialled from, kept over reloads, and its calls outlive it.
func TestShardsOverHTTP(t *testing.T) {
	t.Parallel()
	dialBothWays(t, worldOptions{shards: 2, options: quick()}, anyNumber, "there", func(t *testing.T, w *world) {
		domain, all := w.deps[0].Shards[0].Domain(), w.shardNames()
		second := all[1]
		more, err := jitsitest.NewShard(jitsitest.ShardOptions{Name: "shard-9", Domain: domain, XMPP: xmppd.Options{Accounts: map[string]string{"gateway": "secret"}},
			Jicofo: jicofo.Options{Brewery: "jigasibrewery@internal.auth." + domain}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { more.Close() })
		w.list(all...)
		account := map[string]any{
			"id": "acc-9", "ACCOUNT_UID": "Jabber:gateway@auth." + domain + "@acc-9", "USER_ID": "gateway@auth." + domain, "PASSWORD": "secret",
			"BOSH_URL": more.BOSHURL(), "BREWERY": "JigasiBrewery@internal.auth." + domain, "DOMAIN_BASE": domain, "HEADER_VALUE": "shard-9",
			"BOSH_URL_PATTERN": "https://{host}{subdomain}/http-bind?room={roomName}", "IS_SERVER_OVERRIDDEN": "true", "AUTO_GENERATE_RESOURCE": "true",
		}
		for range 2 { // the second changes nothing
			if code, body := w.muc("add", account); code != 200 {
				t.Fatalf("add: %d %s", code, body)
			}
		}
		w.await("the shard's brewery", func() bool {
			s := w.shardStatus("acc-9")
			gs := more.Focus.Gateways()
			return s.Brewery == brewery.BreweryJoined && s.Mismatch == "" && len(gs) == 1 && gs[0].Stats["supports_sip"] == "true"
		})
		// Another address under the same ACCOUNT_UID changes nothing either,
		// another UID does: Jigasi's automation puts the address into it.
		connected := w.gw.Brewery().Stats().Connected
		account["BOSH_URL"] = strings.Replace(more.BOSHURL(), "127.0.0.1", "[::ffff:127.0.0.1]", 1)
		for i, uid := range []any{account["ACCOUNT_UID"], "Jabber:gateway@auth." + domain + "@elsewhere"} {
			account["ACCOUNT_UID"] = uid
			if code, body := w.muc("add", account); code != 200 {
				t.Fatalf("add: %d %s", code, body)
			}
			w.await("the address is what the UID says", func() bool {
				return w.gw.Brewery().Stats().Connected == connected+uint64(i) && w.shardStatus("acc-9").Brewery == brewery.BreweryJoined
			})
		}
		connected = w.gw.Brewery().Stats().Connected
		w.reload()
		w.list(append(all[:len(all):len(all)], "acc-9")...)
		if n := w.gw.Brewery().Stats().Connected; n != connected {
			t.Errorf("%d sessions were opened by a reload", n-connected)
		}

		// Out of it, and into it.
		alice := w.browser(more, "there", 440)
		if a := w.ask(alice, more, "there", "112"); !contains(a, "xmpp:there@conference."+domain+"/") {
			t.Errorf("dial: %s", a)
		}
		in := w.rings(w.callee)
		out, err := in.Answer(w.ctx, siptest.AnswerOptions{Tone: 1000})
		if err != nil {
			t.Fatal(err)
		}
		w.both(alice, out)
		if err := out.Hangup(w.ctx); err != nil {
			t.Fatal(err)
		}
		w.gone()
		c := w.call(w.phone(siptest.PhoneOptions{}), "there", 1500)
		w.hear("the phone", c, 440)

		// Removed, it takes no new calls and keeps the one it has.
		if code, body := w.muc("remove", map[string]string{"id": "acc-9"}); code != 200 {
			t.Errorf("remove: %d %s", code, body)
		}
		w.list(all...)
		w.await("the brewery left", func() bool { return len(more.Focus.Gateways()) == 0 })
		if s := w.shardStatus("acc-9"); s.State != brewery.Removed || s.Calls != 1 {
			t.Errorf("removed: %+v", s)
		}
		w.reload()
		w.hear("the participant", alice, 1500)
		w.hear("the phone", c, 440)
		w.hangup(c)
		w.await("the shard forgotten", func() bool { return w.shardStatus("acc-9").Shard == "" })
		if code, _ := w.muc("remove", map[string]string{"id": "acc-9"}); code != 400 {
			t.Errorf("removed twice: %d", code)
		}

		// One of the files goes, stays away over a reload, and comes back.
		if code, body := w.muc("remove", map[string]string{"id": second}); code != 200 {
			t.Errorf("remove: %d %s", code, body)
		}
		w.reload()
		w.list(slices.Delete(slices.Clone(all), 1, 2)...)
		own := map[string]string{"id": second, "USER_ID": "gateway@auth." + domain, "PASSWORD": "secret", "BREWERY": "jigasibrewery@internal.auth." + domain}
		if code, body := w.muc("add", own); code != 200 {
			t.Errorf("add: %d %s", code, body)
		}
		w.list(all...)
		w.await(second+" up as the files have it", func() bool { return w.shardStatus(second).Brewery == brewery.BreweryJoined })

		// What cannot be is refused and changes nothing.
		account["BOSH_URL"] = w.deps[0].Shards[0].BOSHURL()
		if code, body := w.muc("add", account); code != 400 || !contains(body, "stands already") {
			t.Errorf("an address twice: %d %s", code, body)
		}
		delete(account, "PASSWORD")
		if code, body := w.muc("add", account); code != 400 || !contains(body, "PASSWORD") {
			t.Errorf("no password: %d %s", code, body)
		}
		w.list(all...)
	})
}

// buffer is written by the gateway and read by the test.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) count(s string) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return strings.Count(b.b.String(), s)
}

// Files that are dropped into shards.d, changed there and taken out count
// without a signal; one that is wrong changes nothing.
func TestShardsDroppedIn(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "brewline.toml")
	write := func(name, text string) {
		t.Helper()
		// As operators do: under another name first.
		if err := os.WriteFile(filepath.Join(dir, name+".new"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(filepath.Join(dir, name+".new"), filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	write("brewline.toml", `
[http]
listen = ""
[sip]
listen = ["udp://127.0.0.1:0"]
[[deployment]]
name = "d"
domain = "meet.example"
[[trunk]]
name = "pbx"
match = ["127.0.0.1"]
`)
	if err := os.Mkdir(filepath.Join(dir, "shards.d"), 0o700); err != nil {
		t.Fatal(err)
	}
	logs := &buffer{}
	drain, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- gateway.Serve(drain, t.Context(), path, nil, logs, gateway.Options{Version: "test"}) }()
	await := func(line string, n int) {
		t.Helper()
		for end := time.Now().Add(20 * time.Second); logs.count(line) < n; time.Sleep(5 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("not logged: %s\n%s", line, logs.b.String())
			}
		}
	}
	shard := func(url string) string {
		return fmt.Sprintf("[[shard]]\nname = \"a\"\nurl = %q\n", url)
	}
	await("brewline is up", 1)
	write("shards.d/a.toml", shard("http://127.0.0.1:1/http-bind"))
	await("shard +a", 1)
	write("shards.d/a.toml", shard("http://127.0.0.1:2/http-bind")+"colour = 1\n")
	await("not reloaded, the old one stays", 1)
	write("shards.d/a.toml", shard("http://127.0.0.1:2/http-bind"))
	await("shard ~a", 1)
	if err := os.Remove(filepath.Join(dir, "shards.d/a.toml")); err != nil {
		t.Fatal(err)
	}
	await("shard -a", 1)
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
