package lb

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// farm is a balancer with backends that say who they are.
type farm struct {
	*Balancer
	t        *testing.T
	backends map[string]*httptest.Server
}

func newFarm(t *testing.T, n int, o Options) *farm {
	t.Helper()
	f := &farm{t: t, backends: map[string]*httptest.Server{}}
	o.Backends = map[string]string{}
	for i := range n {
		name := fmt.Sprintf("s%d", i+1)
		f.backends[name] = newBackend(name)
		o.Backends[name] = f.backends[name].URL
	}
	var err error
	if f.Balancer, err = Start(o); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = f.Close()
		for _, b := range f.backends {
			b.Close()
		}
		http.DefaultClient.CloseIdleConnections()
	})
	return f
}

func newBackend(name string) *httptest.Server {
	return httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Jitsi-Shard", name)
		if r.Header.Get("Upgrade") != "" {
			c, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{"xmpp"}})
			if err != nil {
				return
			}
			defer func() { _ = c.CloseNow() }()
			for {
				typ, data, err := c.Read(r.Context())
				if err != nil || c.Write(r.Context(), typ, append([]byte(name+" "), data...)) != nil {
					return
				}
			}
		}
		if r.URL.Path == "/slow/http-bind" {
			_, _ = io.WriteString(w, "first")
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
			return
		}
		body, _ := io.ReadAll(r.Body)
		_, _ = fmt.Fprintf(w, "%s %s %s", name, r.URL.RequestURI(), body)
	}))
}

// get asks and returns the backend's name and the status.
func (f *farm) get(path string) (shard string, status int) {
	f.t.Helper()
	r, err := http.Post(f.URL()+path, "text/xml", strings.NewReader("x"))
	if err != nil {
		f.t.Fatal(err)
	}
	body, _ := io.ReadAll(r.Body)
	_ = r.Body.Close()
	if r.StatusCode == http.StatusOK && !strings.HasSuffix(string(body), " "+path+" x") {
		f.t.Errorf("%s arrived as %q", path, body)
	}
	return r.Header.Get("X-Jitsi-Shard"), r.StatusCode
}

func (f *farm) await(what string, ok func() bool) {
	f.t.Helper()
	for end := time.Now().Add(5 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			f.t.Fatalf("never: %s", what)
		}
	}
}

func TestSticky(t *testing.T) {
	t.Parallel()
	f := newFarm(t, 3, Options{CheckInterval: -1})
	seen := map[string]int{}
	for i := range 60 {
		room := fmt.Sprintf("room%d", i)
		want := f.Where("", room)
		for range 2 {
			if got, _ := f.get("/http-bind?room=" + room); got != want {
				t.Errorf("%s on %s, want %s", room, got, want)
			}
		}
		seen[want]++
	}
	for n := range f.backends {
		if seen[n] < 5 {
			t.Errorf("%s has %d of 60 rooms", n, seen[n])
		}
	}
	// one token, however it is written; the tenant belongs to it
	for a, b := range map[string]string{
		"/http-bind?room=Standup":             "/http-bind?room=standup&token=1",
		"/ACME/http-bind?room=standup":        "/acme/http-bind?room=STANDUP",
		"/http-bind?room=r%2525c3%2525a9":     "/http-bind?room=r%25c3%25a9",
		"/xmpp-websocket?room=standup&prev=1": "/http-bind?room=standup",
	} {
		x, _ := f.get(a)
		if y, _ := f.get(b); x != y {
			t.Errorf("%s on %s, %s on %s", a, x, b, y)
		}
	}
	if Token("acme", "r") == Token("", "r") {
		t.Error("the tenant does not count")
	}
	r := f.Routes()
	last := r[len(r)-1]
	if last.Status != 200 || last.Backend == "" || last.Token == "" {
		t.Errorf("route %+v", last)
	}
}

func TestDrain(t *testing.T) {
	t.Parallel()
	f := newFarm(t, 2, Options{CheckInterval: -1})
	home, _ := f.get("/http-bind?room=old")
	f.SetState(home, Drain)
	if got, _ := f.get("/http-bind?room=old"); got != home {
		t.Errorf("a room left the draining backend for %s", got)
	}
	for i := range 20 {
		if got, _ := f.get(fmt.Sprintf("/http-bind?room=new%d", i)); got == home {
			t.Errorf("a new room on the draining backend")
		}
	}
	f.SetState(home, Down)
	other, status := f.get("/http-bind?room=old")
	if other == home || status != 200 {
		t.Errorf("a room on a backend that is down: %s, %d", other, status)
	}
	f.SetState(home, Up)
	if got, _ := f.get("/http-bind?room=old"); got != other {
		t.Errorf("the room moved back to %s", got)
	}
	f.Forget()
	if got, _ := f.get("/http-bind?room=old"); got != home {
		t.Errorf("without the table the hash says %s, before %s", got, home)
	}
	f.Stick("", "old", other)
	if got, _ := f.get("/http-bind?room=old"); got != other {
		t.Errorf("forced to %s, went to %s", other, got)
	}
	f.RemoveBackend(other)
	if got, _ := f.get("/http-bind?room=old"); got != home {
		t.Errorf("after removing %s: %s", other, got)
	}
}

func TestDeadBackend(t *testing.T) {
	t.Parallel()
	f := newFarm(t, 2, Options{CheckInterval: -1})
	home, _ := f.get("/http-bind?room=r")
	f.backends[home].Close()
	// 502 where the connection was still open as the backend went.
	if _, status := f.get("/http-bind?room=r"); status != http.StatusServiceUnavailable && status != http.StatusBadGateway {
		t.Errorf("first request: %d", status)
	}
	got, status := "", 0
	for end := time.Now().Add(10 * time.Second); status != 200 && time.Now().Before(end); {
		got, status = f.get("/http-bind?room=r")
	}
	if got == home || got == "" || status != 200 {
		t.Fatalf("further requests: %s %d", got, status)
	}
	f.backends[got].Close()
	f.get("/http-bind?room=r")
	if _, status := f.get("/http-bind?room=r"); status != http.StatusServiceUnavailable {
		t.Errorf("nobody is up: %d", status)
	}
	if n := f.Routes(); n[len(n)-1].Backend != "" {
		t.Errorf("route %+v", n[len(n)-1])
	}
}

func TestHealthChecks(t *testing.T) {
	t.Parallel()
	f := newFarm(t, 2, Options{CheckInterval: 5 * time.Millisecond})
	f.backends["s1"].Close()
	f.await("s1 down", func() bool { return f.States()["s1"] == Down })
	again := newBackend("s1")
	t.Cleanup(again.Close)
	if err := f.SetBackend("s1", again.URL); err != nil {
		t.Fatal(err)
	}
	f.await("s1 up", func() bool { return f.States()["s1"] == Up })
	f.SetState("s2", Drain)
	for range 3 {
		f.get("/http-bind?room=x")
	}
	if f.States()["s2"] != Drain {
		t.Error("a health check undid the drain")
	}
}

func TestStreamsThrough(t *testing.T) {
	t.Parallel()
	f := newFarm(t, 2, Options{CheckInterval: -1, StripShardHeader: true})
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, f.URL()+"/slow/http-bind?room=r", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 16)
	if n, err := resp.Body.Read(buf); string(buf[:n]) != "first" {
		t.Errorf("got %q %v before the answer's end", buf[:n], err)
	}
	_ = resp.Body.Close()
	if resp.Header.Get("X-Jitsi-Shard") != "" {
		t.Error("the shard's header is still there")
	}
	c, _, err := websocket.Dial(ctx, strings.Replace(f.URL(), "http", "ws", 1)+"/xmpp-websocket?room=r", &websocket.DialOptions{Subprotocols: []string{"xmpp"}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.CloseNow() }()
	if err := c.Write(ctx, websocket.MessageText, []byte("hello")); err != nil {
		t.Fatal(err)
	}
	if _, data, err := c.Read(ctx); string(data) != f.Where("", "r")+" hello" {
		t.Errorf("websocket: %q %v", data, err)
	}
}
