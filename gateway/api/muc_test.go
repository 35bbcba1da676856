package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"brewline/brewery"
	"brewline/config"
	"brewline/gateway/trunk"
	"brewline/sip"
)

// gateway is a Source that keeps what it is told.
type gateway struct {
	snap   Snapshot
	shards map[string]map[string]string
}

func (g *gateway) Snapshot() Snapshot   { return g.snap }
func (g *gateway) Shutdown() error      { return nil }
func (g *gateway) ListShards() []string { return slices.Sorted(maps.Keys(g.shards)) }

func (g *gateway) AddShard(id string, p map[string]string) error {
	if p["USER_ID"] == "" {
		return errors.New("USER_ID is missing")
	}
	g.shards[id] = p
	return nil
}

func (g *gateway) RemoveShard(id string) error {
	if g.shards[id] == nil {
		return fmt.Errorf("%w: %s", ErrNoSuchShard, id)
	}
	delete(g.shards, id)
	return nil
}

// asker asks a server, from loopback unless from says another address.
type asker struct {
	t *testing.T
	h http.Handler
}

func serverFor(t *testing.T, g *gateway, token string) asker {
	s := &Server{src: g, cfg: config.HTTP{Token: config.Secret(token)}, log: slog.New(slog.DiscardHandler)}
	return asker{t, s.handler()}
}

func (a asker) ask(method, path, from, body string, headers ...string) (int, string) {
	a.t.Helper()
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	r.RemoteAddr = from
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	a.h.ServeHTTP(w, r)
	b, _ := io.ReadAll(w.Result().Body)
	return w.Code, strings.TrimSpace(string(b))
}

const (
	base  = "/configure/call-control-muc"
	local = "127.0.0.1:4711"
)

func TestControlMUCs(t *testing.T) {
	t.Parallel()
	g := &gateway{shards: map[string]map[string]string{}}
	a := serverFor(t, g, "")
	asJSON := []string{"Content-Type", "application/json"}
	if code, body := a.ask("GET", base+"/list", local, ""); code != 200 || body != "[]" {
		t.Errorf("list: %d %s", code, body)
	}
	// As Jigasi's reconfigure_xmpp.sh has it.
	post := `{"USER_ID":"jigasi@auth.meet.example","SERVER_PORT":5222,"IS_SERVER_OVERRIDDEN":true,"PASSWORD":"pw","list":["x"],"nothing":null,"id":"acc-0"}`
	if code, body := a.ask("POST", base+"/add", local, post, asJSON...); code != 200 || body != "{}" {
		t.Errorf("add: %d %s", code, body)
	}
	if want := map[string]string{"USER_ID": "jigasi@auth.meet.example", "SERVER_PORT": "5222", "IS_SERVER_OVERRIDDEN": "true", "PASSWORD": "pw"}; !maps.Equal(g.shards["acc-0"], want) {
		t.Errorf("added %v", g.shards["acc-0"])
	}
	if code, body := a.ask("GET", base+"/list", "[::1]:9", ""); code != 200 || body != `["acc-0"]` {
		t.Errorf("list: %d %s", code, body)
	}
	for _, tt := range []struct {
		name, method, path, body, contentType string
		want                                  int
	}{
		{"no JSON said", "POST", "/add", post, "text/plain", 415},
		{"no type", "POST", "/add", post, "", 415},
		{"a form", "POST", "/remove", "id=acc-0", "application/x-www-form-urlencoded", 415},
		{"no JSON", "POST", "/add", "{", "application/json", 400},
		{"a list", "POST", "/add", "[]", "application/json", 400},
		{"no id", "POST", "/add", `{"USER_ID":"a@b"}`, "application/json", 400},
		{"a number for id", "POST", "/remove", `{"id":3}`, "application/json", 400},
		{"empty id", "POST", "/remove", `{"id":""}`, "application/json", 400},
		{"line in id", "POST", "/add", `{"id":"a\nb","USER_ID":"a@b"}`, "application/json", 400},
		{"long id", "POST", "/add", `{"id":"` + strings.Repeat("a", maxID+1) + `","USER_ID":"a@b"}`, "application/json", 400},
		{"huge body", "POST", "/add", `{"id":"x","USER_ID":"` + strings.Repeat("a", maxBody) + `"}`, "application/json", 400},
		{"unusable account", "POST", "/add", `{"id":"x"}`, "application/json", 400},
		{"unknown id", "POST", "/remove", `{"id":"nobody"}`, "application/json", 400},
		{"GET of add", "GET", "/add", "", "", 405},
		{"POST to list", "POST", "/list", "", "", 405},
		{"anything else", "POST", "/update", "{}", "application/json", 404},
		{"charset", "POST", "/remove", `{"id":"acc-0"}`, "application/json; charset=utf-8", 200},
	} {
		if code, body := a.ask(tt.method, base+tt.path, local, tt.body, "Content-Type", tt.contentType); code != tt.want {
			t.Errorf("%s: %d %s, want %d", tt.name, code, body, tt.want)
		}
	}
	if len(g.shards) != 0 {
		t.Errorf("left: %v", g.shards)
	}
}

func TestWhoMayChange(t *testing.T) {
	t.Parallel()
	for _, token := range []string{"", "secret"} {
		g := &gateway{shards: map[string]map[string]string{"s": {}}}
		a := serverFor(t, g, token)
		for _, r := range [][3]string{
			{"GET", base + "/list", ""}, {"POST", base + "/add", `{"id":"x","USER_ID":"a@b"}`}, {"POST", base + "/remove", `{"id":"s"}`}, {"POST", "/about/shutdown", ""},
		} {
			for _, bearer := range []string{"", "Bearer ", "Bearer wrong", "secret", "bearer secret"} {
				if code, _ := a.ask(r[0], r[1], "192.0.2.1:99", r[2], "Authorization", bearer, "Content-Type", "application/json"); code != 403 {
					t.Errorf("token %q: %s with %q: %d", token, r[1], bearer, code)
				}
			}
			want := 200
			if token == "" {
				want = 403
			}
			if code, _ := a.ask(r[0], r[1], "192.0.2.1:99", r[2], "Authorization", "Bearer secret", "Content-Type", "application/json"); code != want {
				t.Errorf("token %q: %s with it: %d", token, r[1], code)
			}
		}
	}
}

func TestHealth(t *testing.T) {
	t.Parallel()
	up, down := brewery.ShardStatus{Shard: "a", State: brewery.Up}, brewery.ShardStatus{Shard: "b", State: brewery.Down, Err: errors.New("refused")}
	works := []trunk.Status{{Trunk: "a", State: trunk.Unreachable, Reason: "408"}, {Trunk: "b", State: trunk.Receives}}
	for _, tt := range []struct {
		snap   Snapshot
		code   int
		reason string
	}{
		{Snapshot{Trunks: works[:1], Shards: []brewery.ShardStatus{up}}, 503, "no trunk works: a: 408"},
		{Snapshot{Trunks: []trunk.Status{{State: trunk.Trying}}, Shards: []brewery.ShardStatus{up}}, 200, "{}"},
		{Snapshot{Trunks: works, Shards: []brewery.ShardStatus{down, up}}, 200, "{}"},
		{Snapshot{Trunks: works, Shards: []brewery.ShardStatus{down}}, 503, "b: refused"},
		{Snapshot{Trunks: works}, 503, "no shard is configured"},
		{Snapshot{Shards: []brewery.ShardStatus{up}}, 503, "no trunk"},
	} {
		if code, body := serverFor(t, &gateway{snap: tt.snap}, "").ask("GET", "/about/health", "192.0.2.1:1", ""); code != tt.code || !strings.Contains(body, tt.reason) {
			t.Errorf("%+v: %d %s", tt.snap, code, body)
		}
	}
}

func TestTrunkMetrics(t *testing.T) {
	t.Parallel()
	until := time.Date(2030, 1, 2, 3, 4, 5, 6, time.UTC)
	g := &gateway{snap: Snapshot{
		Trunks: []trunk.Status{
			{Trunk: "carrier", State: trunk.Registered, Since: until, Registrars: []trunk.RegistrarStatus{
				{URI: "sip:one", Registered: true, Until: until}, {URI: "sip:two", Reason: "403 \"no\""}}},
			{Trunk: "ipbx", State: trunk.Unreachable, Reason: "timed out", Since: until},
		},
		SIP: sip.Stats{Banned: 7, BannedAddresses: 2},
	}}
	s := serverFor(t, g, "")
	_, body := s.ask("GET", "/metrics", "192.0.2.1:1", "")
	for _, want := range []string{
		`brewline_trunk_up{trunk="carrier"} 1`, `brewline_trunk_up{trunk="ipbx"} 0`,
		`brewline_trunk_state{state="registered",trunk="carrier"} 1`, `brewline_trunk_state{state="unreachable",trunk="ipbx"} 1`,
		`brewline_trunk_registered{registrar="sip:one",trunk="carrier"} 1`, `brewline_trunk_registered{registrar="sip:two",trunk="carrier"} 0`,
		`brewline_sip_messages_total{result="banned"} 7`, `brewline_sip_banned_addresses 2`,
	} {
		if !strings.Contains(body, want+"\n") {
			t.Errorf("no %s in\n%s", want, body)
		}
	}
	_, body = s.ask("GET", "/about/stats", "192.0.2.1:1", "")
	for _, want := range []string{
		`"carrier":{"state":"registered","since":"2030-01-02T03:04:05Z","registrars":[` +
			`{"uri":"sip:one","registered":true,"until":"2030-01-02T03:04:05Z"},{"uri":"sip:two","registered":false,"reason":"403 \"no\""}]}`,
		`"ipbx":{"state":"unreachable","reason":"timed out","since":"2030-01-02T03:04:05Z"}`,
	} {
		if !strings.Contains(body, want) {
			t.Errorf("no %s in\n%s", want, body)
		}
	}
}

func TestBreweryMetrics(t *testing.T) {
	t.Parallel()
	g := &gateway{snap: Snapshot{
		Shards: []brewery.ShardStatus{
			{Shard: "a", Deployment: "d", State: brewery.Up, Brewery: brewery.BreweryJoined, Focus: true},
			{Shard: "b", Deployment: "d", State: brewery.Up, Brewery: brewery.BreweryOut}, {Shard: "c", Deployment: "d", State: brewery.Up}},
		Locate: brewery.Stats{BreweryJoined: 3, BreweryRefused: 2, BreweryLost: 1, Presences: 9, DialsAccepted: 5, DialsForbidden: 4},
	}}
	_, body := serverFor(t, g, "").ask("GET", "/metrics", local, "")
	for _, line := range []string{
		`brewline_brewery_joined{deployment="d",shard="a"} 1`, `brewline_brewery_joined{deployment="d",shard="b"} 0`,
		`brewline_brewery_focus{deployment="d",shard="a"} 1`, `brewline_brewery_joins_total{result="refused"} 2`,
		`brewline_brewery_lost_total 1`, `brewline_brewery_presences_total 9`,
		`brewline_dial_requests_total{result="accepted"} 5`, `brewline_dial_requests_total{result="forbidden"} 4`,
	} {
		if !slices.Contains(strings.Split(body, "\n"), line) {
			t.Errorf("metrics lack %s", line)
		}
	}
	if strings.Contains(body, `brewline_brewery_joined{deployment="d",shard="c"}`) {
		t.Error("a shard without brewery is shown as out of it")
	}
}

func FuzzMUC(f *testing.F) {
	f.Add([]byte(`{"id":"acc-0","USER_ID":"jigasi@auth.meet.example","PASSWORD":"pw","SERVER_PORT":5222}`))
	f.Add([]byte(`{"id":"\u0000"}`))
	f.Add([]byte(`[[[[`))
	f.Fuzz(func(t *testing.T, body []byte) {
		id, p, err := parseMUC(body)
		if err != nil {
			return
		}
		if id == "" || len(id) > maxID || strings.ContainsAny(id, "\r\n\x00") {
			t.Errorf("id %q", id)
		}
		if _, ok := p["id"]; ok || !json.Valid(body) {
			t.Errorf("%q: %v", body, p)
		}
	})
}
