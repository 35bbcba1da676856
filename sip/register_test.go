package sip_test

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	gosip "github.com/emiago/sipgo/sip"

	"brewline/internal/needtool"
	"brewline/sip"
)

// register keeps a user agent registered at a peer; states receives every
// outcome, and end takes the registration back and waits.
func register(t *testing.T, u *sip.UA, registrar string, change ...func(*sip.RegisterOptions)) (states chan sip.Registration, end func()) {
	t.Helper()
	states = make(chan sip.Registration, 64)
	o := sip.RegisterOptions{
		Registrar: registrar, User: "gw", Username: "gw", Password: "secret",
		Expires: time.Minute, Retry: testT1, MaxRetry: 4 * testT1,
		Changed: func(r sip.Registration) { states <- r },
	}
	for _, f := range change {
		f(&o)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); u.Register(ctx, o) }()
	end = func() { cancel(); <-done }
	t.Cleanup(end)
	return states, end
}

func value(m gosip.Message, name string) string {
	for _, h := range m.GetHeaders(name) {
		return h.Value()
	}
	return ""
}

func reject(*sip.Dialog) {}

// slow gives a peer that is a test time to answer.
func slow(o *sip.Options) { o.T1, o.T2 = 50*testT1, 200*testT1 }

const challengeMD5 = `WWW-Authenticate: Digest realm="carrier", nonce="%s", qop="auth", algorithm=MD5`

// A registration is challenged, granted for less than was asked, refreshed
// with the nonce it has, challenged anew by a registrar that has forgotten it,
// and taken back.
func TestRegister(t *testing.T) {
	t.Parallel()
	u := newUA(t, reject, slow)
	p := newPeer(t, u, "udp")
	states, end := register(t, u, "sip:"+p.addr(), func(o *sip.RegisterOptions) { o.Host = "carrier.example" })
	seen := map[string]bool{}
	next := func(expires, nonce, nc string) *gosip.Request {
		t.Helper()
		req := p.awaitRequest(gosip.REGISTER)
		auth := value(req, "Authorization")
		if got := value(req, "Expires"); got != expires || req.Recipient.String() != "sip:"+p.addr() ||
			req.To().Address.String() != "sip:gw@carrier.example" || req.From().Address.String() != "sip:gw@carrier.example" ||
			field(auth, "nonce") != nonce || field(auth, "nc") != nc {
			t.Fatalf("unexpected:\n%s", req)
		}
		if nonce != "" {
			h := func(s string) string { return hash("MD5", s) }
			want := h(strings.Join([]string{h("gw:carrier:secret"), nonce, nc, field(auth, "cnonce"), "auth", h("REGISTER:sip:" + p.addr())}, ":"))
			if field(auth, "response") != want {
				t.Fatalf("wrong credentials:\n%s", req)
			}
		}
		if seq := fmt.Sprint(req.CSeq().SeqNo); seen[seq] {
			t.Fatalf("CSeq %s twice", seq)
		} else {
			seen[seq] = true
		}
		return req
	}
	granted := func(req *gosip.Request, seconds int) {
		p.reply(req, 200, "", "Contact: <sip:other@192.0.2.9:5062>;expires=3600", fmt.Sprintf("Contact: %s;expires=%d", value(req, "Contact"), seconds))
	}
	p.reply(next("60", "", ""), 401, "", fmt.Sprintf(challengeMD5, "n1"))
	req := next("60", "n1", "00000001")
	if want := "<sip:gw@" + u.Addrs()[0].String() + ">"; value(req, "Contact") != want {
		t.Errorf("Contact %s, want %s", value(req, "Contact"), want)
	}
	granted(req, 2)
	if s := receive(t, "a state", states); s.Err != nil || time.Until(s.Until) > 2*time.Second || s.Address.String() != p.addr() {
		t.Errorf("%+v", s)
	}
	granted(next("60", "n1", "00000002"), 2) // refreshed
	receive(t, "a state", states)
	p.reply(next("60", "n1", "00000003"), 401, "", fmt.Sprintf(challengeMD5, "n2"))
	granted(next("60", "n2", "00000001"), 3600)
	if s := receive(t, "a state", states); s.Err != nil || time.Until(s.Until) < 59*time.Minute {
		t.Errorf("%+v", s)
	}
	done := make(chan struct{})
	go func() { end(); close(done) }()
	p.reply(next("0", "n2", "00000002"), 200, "")
	<-done
	if len(states) != 0 {
		t.Errorf("%+v", <-states)
	}
}

// What a registrar refuses is tried again and again; what it wants for longer
// is registered for longer.
func TestRegisterRefused(t *testing.T) {
	t.Parallel()
	u := newUA(t, reject, slow)
	p := newPeer(t, u, "udp")
	states, end := register(t, u, "sip:"+p.addr())
	code := func(want int) {
		t.Helper()
		var se *sip.StatusError
		if s := receive(t, "a state", states); !errors.As(s.Err, &se) || se.Code != want || !s.Until.IsZero() {
			t.Errorf("%+v, want %d", s, want)
		}
	}
	for range 3 {
		p.reply(p.awaitRequest(gosip.REGISTER), 401, "", fmt.Sprintf(challengeMD5, "n1"))
		p.reply(p.awaitRequest(gosip.REGISTER), 401, "", fmt.Sprintf(challengeMD5, "n2")) // wrong
		code(401)
	}
	p.reply(p.awaitRequest(gosip.REGISTER), 403, "")
	code(403)
	for _, least := range []string{"", "60", "10", "99999999", "x"} { // nonsense
		p.reply(p.awaitRequest(gosip.REGISTER), 423, "", "Min-Expires: "+least)
		code(423)
	}
	p.reply(p.awaitRequest(gosip.REGISTER), 423, "", "Min-Expires: 600")
	p.reply(p.awaitRequest(gosip.REGISTER), 423, "", "Min-Expires: 1200") // and does not know what it wants
	code(423)
	req := p.awaitRequest(gosip.REGISTER)
	if value(req, "Expires") != "600" {
		t.Errorf("Expires %s", value(req, "Expires"))
	}
	p.reply(req, 200, "", "Contact: "+value(req, "Contact")+";expires=0")
	if s := receive(t, "a state", states); s.Err == nil || !s.Until.IsZero() {
		t.Errorf("%+v", s)
	}
	p.reply(p.awaitRequest(gosip.REGISTER), 200, "", "Expires: 300")
	if s := receive(t, "a state", states); s.Err != nil || time.Until(s.Until) > 5*time.Minute || time.Until(s.Until) < 4*time.Minute {
		t.Errorf("%+v", s)
	}
	done := make(chan struct{})
	go func() { end(); close(done) }()
	p.reply(p.awaitRequest(gosip.REGISTER), 500, "") // its own affair
	<-done
}

// A registrar that falls silent: the registration ends when its time is over,
// and is there again as soon as the registrar is.
func TestRegisterSilence(t *testing.T) {
	t.Parallel()
	u := newUA(t, reject)
	p := newPeer(t, u, "udp")
	states, _ := register(t, u, "sip:"+p.addr())
	p.reply(p.awaitRequest(gosip.REGISTER), 200, "", "Expires: 1")
	if s := receive(t, "a state", states); s.Err != nil || s.Until.IsZero() {
		t.Fatalf("%+v", s)
	}
	for !receive(t, "a state", states).Until.IsZero() { // nobody answers
	}
	await(t, "it is registered again", func() bool {
		if req, ok := p.read(testT1).(*gosip.Request); ok {
			p.reply(req, 200, "", "Expires: 600") // also to those that have been given up
		}
		select {
		case s := <-states:
			return s.Err == nil && !s.Until.IsZero()
		default:
			return false
		}
	})
}

// Through an outbound proxy, and over TCP.
func TestRegisterProxy(t *testing.T) {
	t.Parallel()
	u := newUA(t, reject)
	p := newPeer(t, u, "udp")
	register(t, u, "sip:carrier.invalid;transport=tcp", func(o *sip.RegisterOptions) { o.Route = "sip:" + p.addr() })
	req := p.awaitRequest(gosip.REGISTER)
	if req.Recipient.Host != "carrier.invalid" || value(req, "Route") != "<sip:"+p.addr()+";lr>" {
		t.Errorf("unexpected:\n%s", req)
	}
	p.reply(req, 200, "")
}

// sipp as registrar: challenges, grants nothing under a minute, forgets its
// nonce, and lets go.
func TestSIPpRegistrar(t *testing.T) {
	sipp := needtool.Path(t, "sipp")
	for _, network := range []string{"udp", "tcp"} {
		t.Run(network, func(t *testing.T) {
			t.Parallel()
			u := newUA(t, reject, slow)
			file, err := filepath.Abs("testdata/sipp/uas_register.xml")
			if err != nil {
				t.Fatal(err)
			}
			port, ctx := freePort(t), testCtx(t)
			cmd := exec.CommandContext(ctx, sipp, "-sf", file, "-t", map[string]string{"udp": "u1", "tcp": "t1"}[network], "-m", "1",
				"-i", "127.0.0.1", "-p", port, "-nostdin", "-timeout", "20s", "-timeout_error", "-recv_timeout", "10000", "-trace_err")
			cmd.Dir = t.TempDir()
			var out strings.Builder
			cmd.Stdout, cmd.Stderr = &out, &out
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			await(t, "sipp listens", func() bool { return listens(t, network, port) })
			states, end := register(t, u, "sip:127.0.0.1:"+port+";transport="+network, func(o *sip.RegisterOptions) { o.Expires = 30 * time.Second })
			var got []bool
			for range 2 {
				s := receive(t, "a state", states)
				got = append(got, s.Err == nil && !s.Until.IsZero())
			}
			end()
			if err := cmd.Wait(); err != nil || !slices.Equal(got, []bool{true, true}) {
				logs, _ := exec.Command("sh", "-c", "cat "+cmd.Dir+"/*errors.log").Output()
				t.Fatalf("%v, %v\n%s\n%s", got, err, tail(string(logs), 40), tail(out.String(), 45))
			}
		})
	}
}
