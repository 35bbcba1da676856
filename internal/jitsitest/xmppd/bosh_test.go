package xmppd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"brewline/internal/jitsitest/client"
	"brewline/internal/prosodytest"
)

// post is a request under way.
type post struct {
	answer chan string // the body, or "error: …"
}

func send(ctx context.Context, url, body string) *post {
	p := &post{make(chan string, 1)}
	go func() {
		r, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader(body))
		if err != nil {
			p.answer <- "error: " + err.Error()
			return
		}
		tr := &http.Transport{DisableKeepAlives: true}
		resp, err := tr.RoundTrip(r)
		if err != nil {
			p.answer <- "error: " + err.Error()
			return
		}
		data, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if err != nil || resp.StatusCode != http.StatusOK {
			p.answer <- fmt.Sprintf("error: %d %v", resp.StatusCode, err)
			return
		}
		p.answer <- strings.TrimSpace(string(data))
	}()
	return p
}

// summary says what matters of an answer: how it ends the session, and its
// stanzas with their ids.
func summary(answer string) string {
	e, err := parse(answer)
	if err != nil {
		return answer
	}
	var out []string
	for _, a := range []string{"type", "condition"} {
		if v := e.attr(a); v != "" {
			out = append(out, v)
		}
	}
	for _, c := range e.children() {
		n := c.Name
		if id := c.attr("id"); id != "" {
			n += ":" + id
		}
		if c.NS == nsStream {
			n = "stream:" + n
		}
		if f := c.first(); c.Name == "error" && f != nil {
			n += "/" + f.Name
		}
		out = append(out, "<"+n+">")
	}
	return strings.Join(out, " ")
}

// target is a BOSH service: ours, or the real one.
type target struct {
	name, url, domain string
	ours              *Server // nil: the real one
}

func targets(t *testing.T) []target {
	ours := start(t, Options{Domain: "meet.test"})
	out := []target{{"xmppd", ours.BOSHURL(), "meet.test", ours}}
	t.Run("start prosody", func(t2 *testing.T) {
		p := prosodytest.Start(t, prosodytest.Options{Modules: []string{"ping", "disco"}})
		out = append(out, target{"prosody", p.BOSHURL(), p.Domain, nil})
	})
	return out
}

func (x target) create(t *testing.T, ctx context.Context, rid int) string {
	t.Helper()
	a := <-send(ctx, x.url, fmt.Sprintf("<body xmlns='%s' to='%s' rid='%d' wait='60' hold='1' ver='1.6' xmpp:version='1.0' xmlns:xmpp='urn:xmpp:xbosh'/>", nsBOSH, x.domain, rid)).answer
	e, err := parse(a)
	if err != nil || e.attr("sid") == "" {
		t.Fatalf("create: %s", a)
	}
	return e.attr("sid")
}

func body(sid string, rid int, attrs, payload string) string {
	return fmt.Sprintf("<body xmlns='%s' sid='%s' rid='%d'%s>%s</body>", nsBOSH, sid, rid, attrs, payload)
}

// login leaves a bound session whose last rid is 1003.
func (x target) login(t *testing.T, ctx context.Context) string {
	t.Helper()
	sid := x.create(t, ctx, 1000)
	for i, p := range []string{
		"<auth xmlns='" + nsSASL + "' mechanism='ANONYMOUS'/>", "",
		"<iq xmlns='jabber:client' type='set' id='bind'><bind xmlns='" + nsBind + "'/></iq>",
	} {
		a := summary(<-send(ctx, x.url, body(sid, 1001+i, "", p)).answer)
		if want := []string{"<success>", "<stream:features>", "<iq:bind>"}[i]; !strings.Contains(a, want) {
			t.Fatalf("login: %s, want %s", a, want)
		}
	}
	return sid
}

func TestBOSHRules(t *testing.T) {
	t.Parallel()
	ping := func(id string) string {
		return "<iq xmlns='jabber:client' type='get' id='" + id + "' to='meet.test'><ping xmlns='urn:xmpp:ping'/></iq>"
	}
	const same = "same as "
	type step struct {
		rid            int // after the login's
		sid            string
		attrs, payload string
		raw            string   // instead of all that; SID and RID are replaced
		want           []string // "n: summary" of the requests (by step, from 0) this one makes answered
	}
	tests := []struct {
		name  string
		steps []step
	}{
		{"a lone request with a stanza is answered itself", []step{
			{rid: 1, payload: ping("a"), want: []string{"0: <iq:a>"}},
		}},
		{"stanzas of a body share an answer", []step{
			{rid: 1, payload: ping("a") + ping("b"), want: []string{"0: <iq:a> <iq:b>"}},
		}},
		{"the answer goes out on the oldest request", []step{
			{rid: 1},
			{rid: 2, payload: ping("a"), want: []string{"0: <iq:a>"}},
			{rid: 3, payload: ping("b"), want: []string{"1: <iq:b>"}},
		}},
		{"a second request frees the first", []step{
			{rid: 1},
			{rid: 2, want: []string{"0: "}},
			{rid: 3, want: []string{"1: "}},
		}},
		{"an answered rid is answered alike, without effect", []step{
			{rid: 1, payload: ping("a"), want: []string{"0: <iq:a>"}},
			{rid: 1, payload: ping("b"), want: []string{"1: " + same + "0"}},
			{rid: 2, payload: ping("c"), want: []string{"2: <iq:c>"}},
			{rid: 1, want: []string{"3: " + same + "0"}},
		}},
		{"a rid out of the cache is refused, the session lives", []step{
			{rid: 1, payload: ping("a"), want: []string{"0: <iq:a>"}},
			{rid: 2, payload: ping("b"), want: []string{"1: <iq:b>"}},
			{rid: 3, payload: ping("c"), want: []string{"2: <iq:c>"}},
			{rid: 1, want: []string{"3: terminate item-not-found"}},
			{rid: 4, payload: ping("d"), want: []string{"4: <iq:d>"}},
		}},
		{"one early request waits for the missing one", []step{
			{rid: 2, payload: ping("b")},
			{rid: 1, payload: ping("a"), want: []string{"1: <iq:a> <iq:b>"}},
			{rid: 3, payload: ping("c"), want: []string{"0: <iq:c>"}},
		}},
		{"an early terminate", []step{
			{rid: 2, attrs: " type='terminate'"},
			{rid: 1, payload: ping("a"), want: []string{"1: terminate <iq:a>", "0: terminate"}},
		}},
		{"a request two early is refused", []step{
			{rid: 3, payload: ping("c"), want: []string{"0: terminate item-not-found"}},
			{rid: 1, payload: ping("a"), want: []string{"1: <iq:a>"}},
		}},
		{"a rid in flight is held beside itself", []step{
			{rid: 1},
			{rid: 1, payload: ping("a"), want: []string{"0: "}},
			{rid: 2, payload: ping("b"), want: []string{"1: <iq:b>"}},
		}},
		{"an unknown session", []step{
			{rid: 1, sid: "nonsense", want: []string{"0: terminate item-not-found"}},
		}},
		{"terminate answers what is held, then itself", []step{
			{rid: 1},
			{rid: 2, attrs: " type='terminate'", payload: "<presence xmlns='jabber:client' type='unavailable'/>",
				want: []string{"0: terminate <presence>", "1: terminate"}},
			{rid: 3, want: []string{"2: terminate item-not-found"}},
		}},
		{"a broken body is refused, the session lives", []step{
			{rid: 1},
			{raw: "<body xmlns='" + nsBOSH + "' sid='SID' rid='1005'>" + ping("a") + "<iq></body>", want: []string{"1: terminate bad-request"}},
			{rid: 3, payload: ping("b"), want: []string{"0: <iq:a> <iq:b>"}},
		}},
		{"a stanza in the body's namespace is one", []step{
			{rid: 1, payload: "<iq type='get' id='n' to='meet.test'><ping xmlns='urn:xmpp:ping'/></iq>", want: []string{"0: <iq:n>"}},
		}},
		{"a stanza that nobody understands ends the session", []step{
			{rid: 1, payload: "<nonsense xmlns='jabber:client'/>", want: []string{"0: terminate remote-stream-error <stream:error/bad-format>"}},
		}},
		{"an element of another protocol ends the session", []step{
			{rid: 1, payload: "<nonsense xmlns='urn:nonsense'/>", want: []string{"0: terminate remote-stream-error <stream:error/unsupported-stanza-type>"}},
		}},
		{"an IQ without an id is refused", []step{
			{rid: 1, payload: "<iq xmlns='jabber:client' type='get' to='meet.test'><ping xmlns='urn:xmpp:ping'/></iq>", want: []string{"0: <iq>"}},
		}},
		{"an IQ of no type is refused", []step{
			{rid: 1, payload: "<iq xmlns='jabber:client' type='ask' id='x' to='meet.test'><ping xmlns='urn:xmpp:ping'/></iq>", want: []string{"0: <iq:x>"}},
		}},
	}
	for _, x := range targets(t) {
		for _, tt := range tests {
			t.Run(x.name+"/"+tt.name, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
				defer cancel()
				sid := x.login(t, ctx)
				var posts []*post
				bodies := map[int]string{}
				for i, st := range tt.steps {
					s := sid
					if st.sid != "" {
						s = st.sid
					}
					b := body(s, 1003+st.rid, st.attrs, st.payload)
					if st.raw != "" {
						b = strings.ReplaceAll(st.raw, "SID", s)
					}
					posts = append(posts, send(ctx, x.url, b))
					if len(st.want) == 0 {
						x.settle(t, ctx, sid, 1003+st.rid, posts)
						continue
					}
					for _, w := range st.want {
						var n int
						if _, err := fmt.Sscanf(w, "%d:", &n); err != nil {
							t.Fatal(err)
						}
						_, w, _ = strings.Cut(w, ": ")
						a := <-posts[n].answer
						bodies[n] = a
						got := summary(a)
						if ref, ok := strings.CutPrefix(w, same); ok {
							var r int
							_, _ = fmt.Sscan(ref, &r)
							if bodies[r] != a {
								t.Errorf("step %d: answer %q differs from %q", i, a, bodies[r])
							}
						} else if got != w {
							t.Errorf("step %d: request %d answered %q, want %q\n%s", i, n, got, w, a)
						}
					}
				}
				for n, p := range posts {
					select {
					case a := <-p.answer:
						t.Errorf("request %d was answered too: %s", n, a)
					default:
					}
				}
			})
		}
	}
}

// settle returns when the server has taken the newest request, which it does not
// answer.
func (x target) settle(t *testing.T, ctx context.Context, sid string, rid int, posts []*post) {
	t.Helper()
	taken := func() bool {
		x.ours.mu.Lock()
		defer x.ours.mu.Unlock()
		bs := x.ours.bosh[sid]
		return bs.deferred != nil && bs.deferred.rid == int64(rid) ||
			slices.ContainsFunc(bs.held, func(r *boshRequest) bool { return r.rid == int64(rid) })
	}
	if x.ours == nil {
		// A server with one thread has seen the request by the time it answers
		// several later ones on connections of their own.
		for range 3 {
			x.create(t, ctx, 1)
		}
	} else {
		for !taken() {
			if ctx.Err() != nil {
				t.Fatal("request not taken")
			}
			time.Sleep(time.Millisecond)
		}
	}
	select {
	case a := <-posts[len(posts)-1].answer:
		t.Fatalf("answered: %s", a)
	default:
	}
}

func TestBOSHCreation(t *testing.T) {
	t.Parallel()
	tests := []struct{ name, attrs, want string }{
		{"fine", "to='meet.test' rid='7' wait='60'", "<stream:features>"},
		{"no host", "rid='7' wait='60'", "terminate improper-addressing"},
		{"unknown host", "to='elsewhere.test' rid='7' wait='60'", "terminate improper-addressing"},
		{"a component", "to='conference.meet.test' rid='7' wait='60'", "terminate improper-addressing"},
		{"no wait", "to='meet.test' rid='7'", "terminate bad-request"},
		{"odd wait", "to='meet.test' rid='7' wait='1.5'", "terminate bad-request"},
		{"negative wait", "to='meet.test' rid='7' wait='-1'", "terminate bad-request"},
		{"no rid", "to='meet.test' wait='60'", "terminate bad-request"},
		{"word for rid", "to='meet.test' rid='x' wait='60'", "terminate bad-request"},
		{"capital host", "to='MEET.test' rid='7' wait='60'", "<stream:features>"},
	}
	for _, x := range targets(t) {
		for _, tt := range tests {
			if x.name == "prosody" && tt.name == "capital host" {
				continue // prosody looks its modules up by the name as written
			}
			t.Run(x.name+"/"+tt.name, func(t *testing.T) {
				if got := summary(<-send(within(t), x.url, "<body xmlns='"+nsBOSH+"' "+tt.attrs+"/>").answer); got != tt.want {
					t.Errorf("got %q, want %q", got, tt.want)
				}
			})
		}
		for raw, want := range map[string]string{"hello": "terminate item-not-found", "": "terminate item-not-found",
			"<hello/>": "terminate bad-request", "<body xmlns='" + nsBOSH + "' to='meet.test'>><": "terminate bad-request",
			"<body xmlns='" + nsBOSH + "' sid='x' rid='1'><!-- no --></body>": "terminate item-not-found"} {
			t.Run(x.name+"/"+raw, func(t *testing.T) {
				if got := summary(<-send(within(t), x.url, raw).answer); got != want {
					t.Errorf("got %q, want %q", got, want)
				}
			})
		}
		t.Run(x.name+"/attributes", func(t *testing.T) {
			a := <-send(within(t), x.url, "<body xmlns='"+nsBOSH+"' to='meet.test' rid='9' wait='600' hold='1'/>").answer
			e, err := parse(a)
			if err != nil {
				t.Fatal(err)
			}
			got := map[string]string{}
			for _, at := range e.Attrs {
				got[at.Name] = at.Value
			}
			if got["sid"] == "" || got["sid"] != got["authid"] {
				t.Errorf("sid %q, authid %q", got["sid"], got["authid"])
			}
			delete(got, "sid")
			delete(got, "authid")
			want := map[string]string{"wait": "120", "requests": "2", "hold": "1", "inactivity": "60", "polling": "5",
				"from": "meet.test", "secure": "true", "ver": "1.6", "xmpp:version": "1.0"}
			if d := cmp.Diff(want, got); d != "" {
				t.Errorf("(-want +got)\n%s", d)
			}
		})
	}
}

func TestBOSHWaitAndInactivity(t *testing.T) {
	t.Parallel()
	s := start(t, Options{Domain: "meet.test", OpenRoomCreation: true, AnyNick: true,
		Timing: Timing{MaxWait: 200 * time.Millisecond, Inactivity: time.Second}})
	attach(t, s, nil)
	x := target{"xmppd", s.BOSHURL(), "meet.test", s}
	ctx := within(t)
	w := join(t, s, client.Options{})
	w.conference(s.o.Focus, "r@"+s.o.MUC)
	w.enter("r@"+s.o.MUC, "watch", "")
	w.await("self", isPresence("r@"+s.o.MUC+"/watch", ""))

	sid := x.login(t, ctx)
	// held for the wait, then answered with nothing
	if got := summary(<-send(ctx, x.url, body(sid, 1004, "", "")).answer); got != "" {
		t.Errorf("after the wait: %q", got)
	}
	<-send(ctx, x.url, body(sid, 1005, "", "<presence xmlns='jabber:client' to='r@"+s.o.MUC+"/quiet'><x xmlns='"+nsMUC+"'/></presence>")).answer
	w.await("the quiet one", isPresence("r@"+s.o.MUC+"/quiet", ""))
	// nothing is held any more: the session ends, and the room is told
	e := w.await("its end", isPresence("r@"+s.o.MUC+"/quiet", "unavailable"))
	if got := e.child(nsClient, "status").text(); got != "Disconnected: BOSH client silent for over 1 seconds" {
		t.Errorf("status %q", got)
	}
	if got := summary(<-send(ctx, x.url, body(sid, 1006, "", "")).answer); got != "terminate item-not-found" {
		t.Errorf("after the end: %q", got)
	}
}

func TestFaults(t *testing.T) {
	t.Parallel()
	s := start(t, Options{Domain: "meet.test", Shard: "one", Seed: 7})
	x := target{"xmppd", s.BOSHURL(), "meet.test", s}
	ctx := within(t)
	ping := func(rid int, sid, id string) *post {
		return send(ctx, x.url, body(sid, rid, "", "<iq xmlns='jabber:client' type='get' id='"+id+"' to='meet.test'><ping xmlns='urn:xmpp:ping'/></iq>"))
	}
	sid := x.login(t, ctx)

	s.Faults().Add(Fault{Kind: Status, Count: 1})
	if got := <-ping(1004, sid, "a").answer; got != "error: 502 <nil>" {
		t.Errorf("status fault: %s", got)
	}
	if got := summary(<-ping(1004, sid, "a").answer); got != "<iq:a>" {
		t.Errorf("after a 502 the same request: %s", got)
	}
	s.Faults().Add(Fault{Kind: Drop, Count: 1})
	if got := <-ping(1005, sid, "b").answer; !strings.HasPrefix(got, "error: ") {
		t.Errorf("drop fault: %s", got)
	}
	if got := summary(<-ping(1005, sid, "zzz").answer); got != "<iq:b>" {
		t.Errorf("a lost answer is replayed: %s", got)
	}
	s.Faults().Add(Fault{Kind: Late, Count: 1, Delay: 30 * time.Millisecond})
	if got := summary(<-ping(1006, sid, "c").answer); got != "<iq:c>" {
		t.Errorf("late: %s", got)
	}
	s.Faults().Add(Fault{Kind: Stall, Match: func(q Request) bool { return q.RID == 1007 }})
	p := ping(1007, sid, "d")
	for s.Faults().Fired(Stall) == 0 {
		time.Sleep(time.Millisecond)
	}
	s.Faults().Clear()
	if got := summary(<-p.answer); got != "<iq:d>" {
		t.Errorf("after the stall: %s", got)
	}
	for k, want := range map[FaultKind]int{Status: 1, Drop: 1, Late: 1, Stall: 1, Shard: 0} {
		if got := s.Faults().Fired(k); got != want {
			t.Errorf("%s fired %d times, want %d", k, got, want)
		}
	}
	s.Faults().Add(Fault{Kind: Shard, Value: "two"})
	_, r := raw(t, x.url, body(sid, 1008, "", "<iq xmlns='jabber:client' type='get' id='f' to='meet.test'><ping xmlns='urn:xmpp:ping'/></iq>"))
	if got := r.Header.Get("x-jitsi-shard"); got != "two" {
		t.Errorf("shard header %q", got)
	}
	// the same seed hits the same requests
	draws := func() (out []int) {
		f := newFaults(7)
		f.Add(Fault{Kind: Status, Probability: 0.3})
		for i := range 50 {
			if len(f.draw(Request{})) > 0 {
				out = append(out, i)
			}
		}
		return out
	}
	if a := draws(); len(a) < 5 || len(a) > 30 || cmp.Diff(a, draws()) != "" {
		t.Errorf("draws %v, then %v", a, draws())
	}
}

func TestKillAndRestart(t *testing.T) {
	t.Parallel()
	s := start(t, Options{})
	u := join(t, s, client.Options{Room: "r"})
	url := s.BOSHURL()
	s.Kill()
	select {
	case <-u.Done():
	case <-within(t).Done():
		t.Fatal("the session outlives the server")
	}
	if err := s.Restart(); err != nil {
		t.Fatal(err)
	}
	if s.BOSHURL() != url || s.Sessions() != 0 {
		t.Errorf("restarted at %s with %d sessions", s.BOSHURL(), s.Sessions())
	}
	v := join(t, s, client.Options{Room: "r"})
	if n := s.Sessions(); n != 1 {
		t.Errorf("%d sessions", n)
	}
	if err := v.Close(); err != nil && !errors.Is(err, client.ErrClosed) {
		t.Error(err)
	}
}

// Silence holds everything back, on every transport, and loses nothing.
func TestSilence(t *testing.T) {
	t.Parallel()
	s := start(t, Options{})
	u := join(t, s, client.Options{})
	tcp, _ := dialTCP(t, s.C2SAddr())
	tcp.bind(s.o.Domain, "x")
	web := dialWS(t, s.WebSocketURL())
	web.bind(s.o.Domain, "x")
	const ping = "<iq xmlns='jabber:client' type='get' id='p' to='meet.example'><ping xmlns='urn:xmpp:ping'/></iq>"
	s.Faults().Silence(true)
	got := make(chan string, 3)
	for name, w := range map[string]*wire{"tcp": tcp, "ws": web} {
		w.say(ping)
		go func() {
			e, err := w.hear()
			if err != nil {
				t.Error(err)
				return
			}
			got <- name + " " + e.attr("id")
		}()
	}
	u.must(ping)
	go func() {
		u.await("answer", func(e *element) bool { return e.attr("id") == "p" })
		got <- "bosh p"
	}()
	select {
	case x := <-got:
		t.Errorf("%s in spite of silence", x)
	case <-time.After(100 * time.Millisecond):
	}
	s.Faults().Silence(false)
	for range 3 {
		select {
		case <-got:
		case <-within(t).Done():
			t.Fatal("no answer after the silence")
		}
	}
}
