package sip_test

import (
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	gosip "github.com/emiago/sipgo/sip"

	"brewline/sip"
)

// natted answers as if a NAT lay between: seen is the address it shows.
func natted(req *gosip.Request, seen string) []string {
	host, port, _ := net.SplitHostPort(seen)
	req.Via().Params.Add("received", host)
	req.Via().Params.Add("rport", port)
	return []string{"Expires: 1"}
}

func contacts(m gosip.Message) (out []string) {
	for _, h := range m.GetHeaders("Contact") {
		out = append(out, h.Value())
	}
	return out
}

// Behind a NAT we register the address that the registrar sees, in the place of
// ours, say it in all that goes there, and follow it when it changes. What is
// advertised stays.
func TestRegisterBehindNAT(t *testing.T) {
	t.Parallel()
	for _, network := range []string{"udp", "tcp"} {
		t.Run(network, func(t *testing.T) {
			t.Parallel()
			u := newUA(t, reject, patiently)
			own := u.Addrs()[0].String()
			params := ""
			var p *peer
			registrar := ""
			if network == "udp" {
				p = newPeer(t, u, "udp")
				registrar = "sip:" + p.addr()
			} else {
				l := newTCPPeer(t)
				own, params, registrar = u.Addrs()[1].String(), ";transport=tcp", l.uri()
				defer func() { p.close() }()
				_, _ = register(t, u, registrar, func(o *sip.RegisterOptions) { o.Expires = 2 * time.Second })
				l.accept(t)
				p = l.peer
			}
			if network == "udp" {
				_, _ = register(t, u, registrar, func(o *sip.RegisterOptions) { o.Expires = 2 * time.Second })
			}
			next := func(via string, want ...string) *gosip.Request {
				t.Helper()
				req := p.awaitRequest(gosip.REGISTER)
				if got := contacts(req); strings.Join(got, " ") != strings.Join(want, " ") || hostOf(req.Via()) != via {
					t.Fatalf("Via %s, Contact %q, want %s, %q", hostOf(req.Via()), got, via, want)
				}
				return req
			}
			contact := func(a string) string { return "<sip:gw@" + a + params + ">" }
			answer := func(req *gosip.Request, seen string) {
				t.Helper()
				p.reply(req, 200, "", natted(req, seen)...)
			}
			first, second := "198.51.100.7:1024", "198.51.100.7:1025"
			answer(next(own, contact(own)), first)
			answer(next(first, contact(first), contact(own)+";expires=0"), first)
			answer(next(first, contact(first)), first) // refreshed
			asked := make(chan error, 1)
			go func() { asked <- u.Options(testCtx(t), sip.Target{URI: registrar}) }()
			req := p.awaitRequest(gosip.OPTIONS)
			if got := hostOf(req.Via()); got != first {
				t.Errorf("Via of OPTIONS: %s", got)
			}
			p.reply(req, 200, "")
			if err := receive(t, "the answer", asked); err != nil {
				t.Error(err)
			}
			answer(next(first, contact(first)), second) // the NAT has forgotten us
			answer(next(second, contact(second), contact(first)+";expires=0"), second)
		})
	}
	u := newUA(t, reject, slow, func(o *sip.Options) { o.Listen[0].Advertise = "gw.example:5070" })
	p := newPeer(t, u, "udp")
	states, _ := register(t, u, "sip:"+p.addr())
	req := p.awaitRequest(gosip.REGISTER)
	p.reply(req, 200, "", natted(req, "198.51.100.7:1024")...)
	if s := receive(t, "a state", states); s.Err != nil || contacts(req)[0] != "<sip:gw@gw.example:5070>" {
		t.Errorf("%+v of\n%s", s, req)
	}
}

func hostOf(v *gosip.ViaHeader) string {
	return net.JoinHostPort(v.Host, strconv.Itoa(v.Port))
}

// A registration whose connection is lost is made anew over another at once,
// with many an hour still to go; and where connections do not last, ever more
// slowly.
func TestRegisterConnectionLost(t *testing.T) {
	t.Parallel()
	u := newUA(t, reject, slow)
	l := newTCPPeer(t)
	states, _ := register(t, u, l.uri(), func(o *sip.RegisterOptions) { o.Expires = time.Hour })
	for range 3 {
		l.accept(t)
		l.reply(l.awaitRequest(gosip.REGISTER), 200, "", "Expires: 3600")
		if s := receive(t, "a state", states); s.Err != nil || time.Until(s.Until) < 50*time.Minute {
			t.Errorf("%+v", s)
		}
		l.close()
	}
	l.accept(t)
	l.reply(l.awaitRequest(gosip.REGISTER), 200, "", "Expires: 3600")
	receive(t, "a state", states)
	// A registrar that is gone for good costs the registration when it is over,
	// and is asked like any that fails.
	_ = l.l.Close()
	l.close()
	if s := receive(t, "a state", states); s.Err == nil || s.Until.IsZero() {
		t.Errorf("%+v", s)
	}
}

// Over UDP the way that calls come by is kept open between REGISTERs.
func TestRegisterKeepAlive(t *testing.T) {
	t.Parallel()
	u := newUA(t, reject, slow, func(o *sip.Options) { o.KeepAlive = 10 * time.Millisecond })
	p := newPeer(t, u, "udp")
	states, _ := register(t, u, "sip:"+p.addr(), func(o *sip.RegisterOptions) { o.Expires = time.Hour })
	p.reply(p.awaitRequest(gosip.REGISTER), 200, "")
	receive(t, "a state", states)
	b := make([]byte, 100)
	for range 3 {
		_ = p.udp.SetReadDeadline(time.Now().Add(10 * time.Second))
		if n, src, err := p.udp.ReadFromUDPAddrPort(b); err != nil || string(b[:n]) != "\r\n\r\n" || src.String() != u.Addrs()[0].String() {
			t.Fatalf("%q, %v, %v", b[:n], src, err)
		}
	}
}
