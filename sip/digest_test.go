package sip

import (
	"context"
	"net/netip"
	"strings"
	"testing"

	"github.com/emiago/sipgo/sip"
)

// The examples of RFC 7616 §3.9.1 and RFC 2617 §3.5, the latter also without
// qop, and
// a session key and an integrity check computed with another program.
func TestDigest(t *testing.T) {
	t.Parallel()
	const http = `realm="http-auth@example.org", nonce="7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v", opaque="FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS"`
	const host = `realm="testrealm@host.com", nonce="dcd98b7102dd2f0e8b11d0f600bfb0c093", opaque="5ccc069c403ebaf9f0171e9517f40e41"`
	for _, tt := range []struct{ challenge, password, cnonce, want string }{
		{`Digest ` + http + `, qop="auth, auth-int", algorithm=MD5`, "Circle of Life", "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ", "8ca523f5e9506fed4657c9700eebdbec"},
		{`Digest ` + http + `, qop="auth, auth-int", algorithm=SHA-256`, "Circle of Life", "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ", "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1"},
		{`digest ` + host + `,	QOP="auth,auth-int"`, "Circle Of Life", "0a4f113b", "6629fae49393a05397450978507c4ef1"},
		{`Digest ` + host, "Circle Of Life", "", "670fd8c2df070c60b045671b8b24ff02"},
		{`Digest ` + host + `, qop=auth, algorithm=md5-SESS`, "Circle Of Life", "0a4f113b", "8e3825c57e897f5a0dec6c2d4e5059d0"},
		{`Digest ` + host + `, qop=auth-int`, "Circle Of Life", "0a4f113b", "f93d61f87864e6c8c6a46b339ad998de"},
	} {
		c, ok := parseChallenge(tt.challenge)
		if !ok {
			t.Errorf("%s: not understood", tt.challenge)
			continue
		}
		v := c.answer("Mufasa", tt.password, tt.cnonce, 1, "GET", "/dir/index.html", []byte("body"))
		if !strings.Contains(v, `response="`+tt.want+`"`) || !strings.Contains(v, `opaque="`+c.opaque+`"`) || strings.Contains(v, "Circle") {
			t.Errorf("%s: %s", tt.challenge, v)
		}
	}
	for _, v := range []string{"", "Digest", "Basic realm=x", `Digest realm="x"`, `Digest realm="x", nonce="n", algorithm="MD5x"`,
		`Digest nonce="n", qop=auth-conf`, `Digest nonce="n", algorithm=ſha-256`} {
		if c, ok := parseChallenge(v); ok {
			t.Errorf("%q was taken: %+v", v, c)
		}
	}
}

func FuzzChallenge(f *testing.F) {
	f.Add(`Digest realm="a\"b", nonce="n,=", qop="auth", algorithm=SHA-256-sess, stale=true, opaque=""`)
	f.Add(`Digest ,,=,"`)
	f.Fuzz(func(t *testing.T, v string) {
		c, ok := parseChallenge(v)
		if !ok {
			return
		}
		a := c.answer("gw", "secret", "c", 1, "INVITE", "sip:1@host", nil)
		var req, res = sip.NewRequest(sip.INVITE, sip.Uri{Scheme: "sip", Host: "h"}), sip.NewResponse(401, "X")
		res.AppendHeader(sip.NewHeader("WWW-Authenticate", v))
		if err := (&credentials{username: "gw", password: "secret"}).answer(req, res); err != nil {
			t.Errorf("%v, but answered with %q", err, a)
		}
		if strings.ContainsAny(req.String()[:strings.Index(req.String(), "\r\n\r\n")], "\x00") || strings.Count(req.String(), "Authorization:") > 1+strings.Count(v, "Authorization:") {
			t.Errorf("unfit: %q", req.String())
		}
	})
}

// A dialog with somebody behind a NAT goes on where it began; one whose
// Contact can be reached goes there.
func TestNextHop(t *testing.T) {
	t.Parallel()
	u, err := Listen(context.Background(), Options{Listen: []Listener{{Network: "udp", Address: "127.0.0.1:0"}}, OnInvite: func(*Dialog) {}})
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	public := netip.MustParseAddrPort("192.0.2.1:5070")
	for _, tt := range []struct {
		peer              netip.AddrPort
		contact, rr, want string
	}{
		{public, "sip:a@10.0.0.5:5062", "", "192.0.2.1:5070"},
		{public, "sip:a@0.0.0.0", "", "192.0.2.1:5070"},
		{public, "sip:a@198.51.100.7:5062", "", "198.51.100.7:5062"},
		{public, "sip:a@10.0.0.5:5062", "<sip:198.51.100.8;lr>", "198.51.100.8:5060"},
		{netip.MustParseAddrPort("10.0.0.1:5060"), "sip:a@10.0.0.5:5062", "", "10.0.0.5:5062"},
	} {
		c := &outgoing{u: u, hop: hop{f: flow{ln: u.listeners[0], peer: tt.peer}, addr: tt.peer}, call: "c", tag: token(8)}
		invite := sip.NewRequest(sip.INVITE, sip.Uri{Scheme: "sip", Host: "192.0.2.1"})
		invite.AppendHeader(&sip.CSeqHeader{SeqNo: 1, MethodName: sip.INVITE})
		text := "SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP h;branch=z\r\nFrom: <sip:a@b>;tag=1\r\nTo: <sip:a@b>;tag=" + token(8) + "\r\nCall-ID: c\r\nCSeq: 1 INVITE\r\nContact: <" + tt.contact + ">\r\n"
		if tt.rr != "" {
			text += "Record-Route: " + tt.rr + "\r\n"
		}
		m, err := u.parse([]byte(text + "Content-Length: 0\r\n\r\n"))
		if err != nil {
			t.Fatal(err)
		}
		d := c.dialog(&clientTx{invite: invite}, m.(*sip.Response))
		h, next, fixed := d.nextHop()
		if !fixed {
			if h, err = u.first(context.Background(), h.f, &next); err != nil {
				t.Error(err)
			}
		}
		if h.addr.String() != tt.want {
			t.Errorf("%+v: %v, %v", tt, h.addr, err)
		}
	}
}
