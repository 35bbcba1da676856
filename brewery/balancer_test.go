package brewery

import (
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"brewline/config"
	"brewline/xmpp"
)

// roundTripper is a balancer without a network, for a clock of its own.
type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func answers(status int, header ...string) roundTripper {
	return func(*http.Request) (*http.Response, error) {
		h := http.Header{}
		for i := 0; i < len(header); i += 2 {
			h.Set(header[i], header[i+1])
		}
		return &http.Response{StatusCode: status, Status: fmt.Sprint(status, " ", http.StatusText(status)),
			Header: h, Body: io.NopCloser(strings.NewReader("It works!"))}, nil
	}
}

func broken(*http.Request) (*http.Response, error) { return nil, errors.New("connection refused") }

func silent(r *http.Request) (*http.Response, error) {
	<-r.Context().Done()
	return nil, r.Context().Err()
}

// first answers the first request, and then as the second says.
func first(a, b roundTripper) roundTripper {
	var once sync.Once
	return func(r *http.Request) (*http.Response, error) {
		f := b
		once.Do(func() { f = a })
		return f(r)
	}
}

func delayed(d time.Duration, f roundTripper) roundTripper {
	return func(r *http.Request) (*http.Response, error) {
		select {
		case <-time.After(d):
			return f(r)
		case <-r.Context().Done():
			return nil, r.Context().Err()
		}
	}
}

func behind(pattern string, names ...string) *config.Config {
	var shards []config.Shard
	for _, n := range names {
		shards = append(shards, config.Shard{Name: n, HeaderValue: "value-" + n})
	}
	return conf([]config.Deployment{{Name: "prod", Balancer: pattern}}, shards...)
}

func TestBalancer(t *testing.T) {
	const pattern = "https://{host}{subdomain}/http-bind?room={roomName}"
	const public = "https://meet.example/http-bind?room=standup"
	unreachable := func(context.Context) error { return xmpp.ErrUnreachable }
	for name, c := range map[string]struct {
		lb      roundTripper
		answers map[string]reply
		down    string
		shard   string
		how     How
		via     bool
		err     error
		text    string
		most    time.Duration // that it may take
		log     string
	}{
		"names a shard":             {lb: answers(200, "X-Jitsi-Shard", "value-s2"), shard: "s2", how: HowBalancer},
		"header in other letters":   {lb: answers(200, "x-jitsi-shard", " value-s1 "), shard: "s1", how: HowBalancer},
		"no GET, but a header":      {lb: answers(405, "X-Jitsi-Shard", "value-s2"), shard: "s2", how: HowBalancer},
		"no header":                 {lb: answers(200), how: HowBalancer, via: true},
		"a name, not header_value":  {lb: answers(200, "X-Jitsi-Shard", "s2"), how: HowBalancer, via: true, log: "value of no shard"},
		"a shard that is new":       {lb: answers(200, "X-Jitsi-Shard", "value-s9"), how: HowBalancer, via: true, log: "value-s9"},
		"a shard down for us":       {lb: answers(200, "X-Jitsi-Shard", "value-s2"), down: "s2", shard: "s2", how: HowBalancer, via: true},
		"nothing up for us":         {lb: answers(200, "X-Jitsi-Shard", "value-s2"), down: "s1 s2", shard: "s2", how: HowBalancer, via: true},
		"somebody has it":           {lb: broken, answers: map[string]reply{"s1": result}, shard: "s1", how: HowAsked},
		"somebody has it, slowly":   {lb: silent, answers: map[string]reply{"s1": after(700*time.Millisecond, result)}, shard: "s1", how: HowAsked, most: 700 * time.Millisecond},
		"silent shard, slow answer": {lb: delayed(300*time.Millisecond, answers(200, "X-Jitsi-Shard", "value-s2")), answers: map[string]reply{"s1": never}, shard: "s2", how: HowBalancer, most: 900 * time.Millisecond},
		"502":                       {lb: answers(502, "X-Jitsi-Shard", "value-s2"), err: ErrBalancer, text: "502 Bad Gateway", most: 80 * time.Millisecond},
		"502 once":                  {lb: first(answers(502), answers(200, "X-Jitsi-Shard", "value-s2")), shard: "s2", how: HowBalancer, most: 80 * time.Millisecond},
		"refused once":              {lb: first(broken, answers(200)), how: HowBalancer, via: true, most: 80 * time.Millisecond},
		"404":                       {lb: answers(404), err: ErrBalancer, text: "404", most: 80 * time.Millisecond},
		"redirect":                  {lb: answers(302, "Location", "https://elsewhere.example/", "X-Jitsi-Shard", "value-s2"), err: ErrBalancer, text: `redirects to "https://elsewhere.example/"`, most: 80 * time.Millisecond},
		"hostile redirect":          {lb: answers(302, "Location", "https://elsewhere.example/\r\nX: y"), err: ErrBalancer, most: 80 * time.Millisecond},
		"refused":                   {lb: broken, err: ErrBalancer, text: "connection refused", most: 80 * time.Millisecond},
		"silent":                    {lb: silent, err: ErrBalancer, text: "deadline", most: time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			w := &world{}
			for sh, r := range c.answers {
				w.at(urlOf(sh)).has(standup, r)
			}
			for sh := range strings.FieldsSeq(c.down) {
				w.at(urlOf(sh)).dial = unreachable
			}
			lb := func(r *http.Request) (*http.Response, error) {
				if r.Method != "GET" || r.URL.String() != public {
					t.Errorf("asked with %s %s", r.Method, r.URL)
				}
				return c.lb(r)
			}
			bubbleWith(t, behind(pattern, "s1", "s2"), w, roundTripper(lb), func(t *testing.T, s *Set) {
				loc, err := s.Deployment("prod").Locate(t.Context(), room, "")
				if loc.Took > c.most {
					t.Errorf("took %v, want at most %v", loc.Took, c.most)
				}
				if c.err != nil {
					if !errors.Is(err, c.err) || !errors.Is(err, ErrOwnerDown) || !strings.Contains(err.Error(), c.text) {
						t.Fatalf("error %v, want %v with %q", err, c.err, c.text)
					}
					if strings.ContainsAny(err.Error(), "\r\n") {
						t.Errorf("error is not for a header: %q", err)
					}
					if s.Stats().BalancerFailed != 1 {
						t.Error("not counted")
					}
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				got, url := "", urlOf(c.shard)
				if loc.Shard != nil {
					got = loc.Shard.name
				}
				if c.via {
					url = public
				}
				if got != c.shard || loc.How != c.how || loc.ViaBalancer != c.via || loc.URL != url {
					t.Errorf("%+v, want %q by %s, via %v", loc, c.shard, c.how, c.via)
				}
				if c.log != "" && !w.logged(c.log) {
					t.Errorf("the log says nothing of %s", c.log)
				}
			})
		})
	}
}

func TestBalancerURL(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		pattern string
		r       Room
		want    string
	}{
		{"https://{host}{subdomain}/http-bind?room={roomName}", Room{"standup", ""}, "https://meet.example/http-bind?room=standup"},
		{"https://{host}{subdomain}/http-bind?room={roomName}", Room{"standup", "acme"}, "https://meet.example/acme/http-bind?room=standup"},
		{"https://{host}{subdomain}/http-bind", Room{"r%c3%a9union", ""}, "https://meet.example/http-bind?room=r%25c3%25a9union"},
		{"https://{host}/http-bind?a=b", Room{"standup", "acme"}, "https://meet.example/http-bind?a=b&prefix=acme&room=standup"},
		{"wss://public.example{subdomain}/xmpp-websocket?room={roomName}", Room{"a", "t"}, "wss://public.example/t/xmpp-websocket?room=a"},
		{"https://lb.example/{roomName}/http-bind", Room{"a%26b", ""}, "https://lb.example/a%2526b/http-bind?room=a%2526b"},
	} {
		n := newSnapshot(&config.Deployment{Domain: "Meet.Example", Balancer: c.pattern}, 0)
		if u, err := n.balancerURL(c.r); err != nil || u.String() != c.want {
			t.Errorf("%s of %s: %v, %v; want %s", c.r, c.pattern, u, err, c.want)
		}
	}
	n := newSnapshot(&config.Deployment{Balancer: "https://[{host}"}, 0)
	if _, err := n.balancerURL(room); !errors.Is(err, ErrBalancer) {
		t.Errorf("a broken pattern: %v", err)
	}
}

// Over a real connection: TLS by the authority of a shard, WebSocket patterns,
// redirects not followed, huge answers not read.
func TestBalancerOverTLS(t *testing.T) {
	t.Parallel()
	var followed bool
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/xmpp-websocket":
			w.Header().Set("X-Shard-Name", "value-s2")
			if r.URL.Query().Get("room") == "standup" {
				_, _ = io.Copy(w, io.LimitReader(zeros{}, 1<<20))
			}
		case "/moved/xmpp-websocket":
			http.Redirect(w, r, "/followed", http.StatusFound)
		case "/followed":
			followed = true
			w.Header().Set("X-Shard-Name", "value-s2")
		}
	}))
	srv.Config.ErrorLog = log.New(io.Discard, "", 0) // refused handshakes are part of the test
	srv.StartTLS()
	defer srv.Close()
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg := behind("wss"+strings.TrimPrefix(srv.URL, "https")+"{subdomain}/xmpp-websocket", "s1", "s2")
	cfg.Deployments[0].ShardHeader = "X-Shard-Name"
	cfg.Gateway.LocateTimeout.Duration = 20 * time.Second

	run := func(cfg *config.Config, f func(d *Deployment)) {
		t.Helper()
		w := &world{}
		s := must(New(cfg, Options{dial: w.dial}))(t)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- s.Run(ctx) }()
		defer func() { cancel(); <-ended }()
		for d := s.Deployment("prod"); ; time.Sleep(time.Millisecond) {
			if s.Up() == len(cfg.Shards) {
				f(d)
				return
			}
		}
	}
	run(cfg, func(d *Deployment) {
		if _, err := d.Locate(t.Context(), room, ""); !errors.Is(err, ErrBalancer) || !strings.Contains(err.Error(), "certificate") {
			t.Errorf("an unknown certificate: %v", err)
		}
	})
	cfg.Shards[0].TLS.CA = ca
	run(cfg, func(d *Deployment) {
		loc, err := d.Locate(t.Context(), room, "")
		if err != nil || loc.Shard == nil || loc.Shard.name != "s2" || loc.ViaBalancer {
			t.Errorf("%+v, %v", loc, err)
		}
		if _, err := d.Locate(t.Context(), Room{Name: "standup", Tenant: "moved"}, ""); !errors.Is(err, ErrBalancer) || followed {
			t.Errorf("a redirect: %v, followed %v", err, followed)
		}
	})
	cfg.Shards[0].TLS, cfg.Shards[1].TLS = config.TLS{Insecure: true}, config.TLS{Insecure: true}
	run(cfg, func(d *Deployment) {
		if loc, err := d.Locate(t.Context(), room, ""); err != nil || loc.Shard == nil {
			t.Errorf("nothing is checked: %+v, %v", loc, err)
		}
	})
	cfg.Shards[1].TLS = config.TLS{}
	run(cfg, func(d *Deployment) {
		if _, err := d.Locate(t.Context(), room, ""); !errors.Is(err, ErrBalancer) {
			t.Errorf("one insecure shard makes the balancer insecure: %v", err)
		}
	})
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }
