package sip_test

import (
	"crypto/md5"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	gosip "github.com/emiago/sipgo/sip"

	"brewline/sip"
)

var accounts = []sip.Account{{Trunk: "roaming", Username: "alice", Password: "secret"}, {Trunk: "other", Username: "bob", Password: "hush"}}

// newGuarded starts a user agent that knows nobody's address and two accounts.
func newGuarded(t *testing.T, change ...func(*sip.Options)) (*sip.UA, chan *sip.Dialog) {
	t.Helper()
	calls := make(chan *sip.Dialog, 16)
	e := newEcho(t)
	return newUA(t, func(d *sip.Dialog) {
		calls <- d
		if _, err := e.answer(d, "pcmu"); err != nil {
			t.Errorf("answer: %v", err)
		}
	}, append([]func(*sip.Options){func(o *sip.Options) {
		o.Match = func(netip.AddrPort) (string, bool) { return "", false }
		o.Accounts = func() []sip.Account { return accounts }
		o.UnknownRate, o.UnknownBurst = 1000, 1000
		o.T1, o.T2 = 100*time.Millisecond, 800*time.Millisecond
	}}, change...)...), calls
}

// credentials are what a peer puts into Authorization.
type credentials struct {
	user, password, algorithm string
	nonce                     string // "": that of the challenge
	nc                        int    // 0: 1
	plain                     bool   // without qop
	uri                       string
}

func hash(algorithm, s string) string {
	if algorithm == "SHA-256" {
		h := sha256.Sum256([]byte(s))
		return hex.EncodeToString(h[:])
	}
	h := md5.Sum([]byte(s))
	return hex.EncodeToString(h[:])
}

func field(v, name string) string {
	_, v, _ = strings.Cut(v, name+"=")
	v = strings.TrimPrefix(v, `"`)
	if i := strings.IndexAny(v, `",`); i >= 0 {
		v = v[:i]
	}
	return v
}

// An answer by an algorithm that was not offered counts for none.
func TestAuthenticateAlgorithm(t *testing.T) {
	t.Parallel()
	for only, other := range map[string]string{"MD5": "SHA-256", "SHA-256": "MD5"} {
		u, calls := newGuarded(t, func(o *sip.Options) { o.Algorithms = []string{only} })
		p := newPeer(t, u, "udp")
		c := credentials{user: "alice", password: "secret", algorithm: only}
		for i, algorithm := range []string{other, only} {
			p.send(p.request("INVITE", 2*i+1, offerSDP))
			r := p.response(401)
			if offered := r.GetHeaders("WWW-Authenticate"); len(offered) != 1 {
				t.Errorf("challenges: %v", offered)
			}
			p.send(p.request("ACK", 2*i+1, "", toLine(r)))
			c.nonce = field(challengeOf(t, r, only), "nonce")
			first := r.Clone() // as if it had offered that one
			first.ReplaceHeader(gosip.NewHeader("WWW-Authenticate", `Digest realm="brewline", algorithm=`+algorithm))
			c.algorithm = algorithm
			p.send(p.request("INVITE", 2*i+2, offerSDP, c.line(t, first, "INVITE", p)))
			want := 200
			if algorithm == other {
				want = 401
			}
			p.send(p.request("ACK", 2*i+2, "", toLine(p.response(want))))
		}
		if n := len(calls); n != 1 {
			t.Errorf("only %s: %d calls", only, n)
		}
		(<-calls).Bye(testCtx(t), sip.Reason{})
	}
}

// challenge returns the challenge of an algorithm in a 401.
func challengeOf(t *testing.T, r *gosip.Response, algorithm string) string {
	t.Helper()
	for _, h := range r.GetHeaders("WWW-Authenticate") {
		if field(h.Value(), "algorithm") == algorithm {
			return h.Value()
		}
	}
	t.Fatalf("no challenge of %s in\n%s", algorithm, r)
	return ""
}

func (c credentials) line(t *testing.T, r *gosip.Response, method string, p *peer) string {
	t.Helper()
	v := challengeOf(t, r, c.algorithm)
	nonce, realm, uri := c.nonce, field(v, "realm"), c.uri
	if nonce == "" {
		nonce = field(v, "nonce")
	}
	if uri == "" {
		uri = "sip:room@" + p.to.String()
	}
	h := func(s string) string { return hash(c.algorithm, s) }
	a1, a2 := h(c.user+":"+realm+":"+c.password), h(method+":"+uri)
	line := fmt.Sprintf(`Authorization: Digest username="%s", realm="%s", nonce="%s", uri="%s", algorithm=%s`, c.user, realm, nonce, uri, c.algorithm)
	if c.plain {
		return line + fmt.Sprintf(`, response="%s"`, h(a1+":"+nonce+":"+a2))
	}
	nc := fmt.Sprintf("%08x", max(1, c.nc))
	return line + fmt.Sprintf(`, response="%s", qop=auth, cnonce="xyz", nc=%s`, h(strings.Join([]string{a1, nonce, nc, "xyz", "auth", a2}, ":")), nc)
}

func stale(t *testing.T, r *gosip.Response) bool {
	return strings.Contains(challengeOf(t, r, "MD5"), "stale=true") && strings.Contains(challengeOf(t, r, "SHA-256"), "stale=true")
}

// A peer of an address that nobody knows is let in by its user and password,
// with either algorithm, and its calls are of that trunk.
func TestAuthenticate(t *testing.T) {
	t.Parallel()
	u, calls := newGuarded(t)
	for _, network := range []string{"udp", "tcp"} {
		for _, c := range []credentials{
			{user: "alice", password: "secret", algorithm: "MD5"},
			{user: "alice", password: "secret", algorithm: "SHA-256"},
			{user: "alice", password: "secret", algorithm: "MD5", plain: true},
			{user: "alice", password: "secret", algorithm: "SHA-256", uri: "sip:room@behind.a.proxy"},
			{user: "bob", password: "hush", algorithm: "SHA-256"},
		} {
			p := newPeer(t, u, network)
			p.send(p.request("INVITE", 1, offerSDP))
			r := p.response(401)
			if len(calls) > 0 || stale(t, r) {
				t.Fatalf("%+v: not challenged as it should be:\n%s", c, r)
			}
			p.send(p.request("ACK", 1, "", toLine(r)))
			invite := p.request("INVITE", 2, offerSDP, c.line(t, r, "INVITE", p))
			p.send(invite)
			ok := p.response(200)
			d := <-calls
			want := map[string]string{"alice": "roaming", "bob": "other"}[c.user]
			if d.Trunk() != want {
				t.Errorf("%+v: a call of trunk %q", c, d.Trunk())
			}
			if network == "udp" {
				p.send(invite) // it was lost on the way: no replay
			}
			p.send(p.request("ACK", 2, "", toLine(ok)))
			p.send(p.request("BYE", 3, "", toLine(ok))) // of a call that is known
			p.response(200)
			<-d.Done()
			// The credentials of the call are worth nothing for another.
			p.call += "again"
			p.send(p.request("INVITE", 4, offerSDP, c.line(t, r, "INVITE", p)))
			if r := p.response(401); !stale(t, r) {
				t.Errorf("%+v: a replay is answered with\n%s", c, r)
			}
		}
	}
	await(t, "no dialog is left", func() bool { return u.Stats().Dialogs == 0 })
	if s := u.Stats(); s.Failed != 0 || s.BannedAddresses != 0 {
		t.Errorf("%+v", s)
	}
}

// Wrong users and passwords get the answer that strangers get, and the same
// one, whichever it was.
func TestAuthenticateWrong(t *testing.T) {
	t.Parallel()
	u, calls := newGuarded(t)
	quiet, _ := newGuarded(t, func(o *sip.Options) { o.UnknownSource = "drop" })
	p, q := newPeer(t, u, "udp"), newPeer(t, quiet, "udp")
	for i, c := range []credentials{
		{user: "alice", password: "Secret", algorithm: "MD5"},
		{user: "alice", password: "", algorithm: "SHA-256"},
		{user: "mallory", password: "secret", algorithm: "SHA-256"},
		{user: "", password: "", algorithm: "MD5"},
		{user: "alice", password: "hush", algorithm: "MD5"}, // another's
		{user: "alice", password: "wrong", algorithm: "MD5", nonce: "forged"},
	} {
		for _, p := range []*peer{p, q} {
			p.send(p.request("OPTIONS", 2*i+1, ""))
			r := p.response(401)
			p.send(p.request("OPTIONS", 2*i+2, "", c.line(t, r, "OPTIONS", p)))
		}
		r := p.response(403)
		if got := len(r.Headers()); got != 8 || r.GetHeader("Reason").Value() != `Q.850;cause=21;text="unknown source"` {
			t.Errorf("%+v:\n%s", c, r)
		}
	}
	q.quiet(20 * time.Millisecond)
	if s := u.Stats(); s.Failed != 6 || s.ServerTransactions != 0 || len(calls) != 0 {
		t.Errorf("%+v, %d calls", s, len(calls))
	}
}

// Nonces that are forged, another address's, or used up get a new one.
func TestAuthenticateNonce(t *testing.T) {
	t.Parallel()
	u, _ := newGuarded(t)
	p := newPeer(t, u, "udp")
	seq := 0
	ask := func(p *peer, line string) gosip.Message {
		seq++
		var lines []string
		if line != "" {
			lines = append(lines, line)
		}
		p.send(p.request("OPTIONS", seq, "", lines...))
		m := p.read(10 * time.Second)
		if m == nil {
			t.Fatal("no answer")
		}
		return m
	}
	first := ask(p, "").(*gosip.Response)
	c := credentials{user: "alice", password: "secret", algorithm: "SHA-256"}
	nonce := field(challengeOf(t, first, "MD5"), "nonce")
	elsewhere := newPeerAt(t, u, "127.0.0.2")
	for _, tt := range []struct {
		name  string
		p     *peer
		nonce string
		nc    int
		code  int
	}{
		{"first", p, nonce, 1, 200},
		{"again", p, nonce, 1, 401},
		{"later", p, nonce, 5, 200},
		{"overtaken", p, nonce, 3, 200},
		{"overtaken again", p, nonce, 3, 401},
		{"far ahead", p, nonce, 1000, 200},
		{"too old", p, nonce, 4, 401},
		{"used too often", p, nonce, 1025, 401},
		{"of another address", elsewhere, nonce, 1001, 401},
		{"forged", p, strings.Repeat("A", len(nonce)), 1, 401},
		{"cut", p, nonce[:10], 1, 401},
	} {
		c.nonce, c.nc = tt.nonce, tt.nc
		r := ask(tt.p, c.line(t, first, "OPTIONS", tt.p)).(*gosip.Response)
		if r.StatusCode != tt.code || tt.code == 401 && !stale(t, r) {
			t.Errorf("%s: %s", tt.name, r.StartLine())
		}
	}
}

// newPeerAt is newPeer over UDP at another address of the loopback.
func newPeerAt(t *testing.T, u *sip.UA, ip string) *peer {
	t.Helper()
	p := newPeer(t, u, "udp")
	_ = p.udp.Close()
	var err error
	if p.udp, err = net.ListenUDP("udp", &net.UDPAddr{IP: net.ParseIP(ip)}); err != nil {
		t.Skipf("no %s here: %v", ip, err)
	}
	p.call += ip
	return p
}

// What belongs to a call is taken from where the call came from only.
func TestAuthenticateDialog(t *testing.T) {
	t.Parallel()
	u, calls := newGuarded(t)
	p := newPeer(t, u, "udp")
	p.send(p.request("INVITE", 1, offerSDP))
	r := p.response(401)
	c := credentials{user: "alice", password: "secret", algorithm: "MD5"}
	p.send(p.request("INVITE", 2, offerSDP, c.line(t, r, "INVITE", p)))
	ok := p.response(200)
	d := <-calls
	p.send(p.request("ACK", 2, "", toLine(ok)))
	thief := newPeerAt(t, u, "127.0.0.3")
	thief.call = p.call
	thief.send(thief.request("BYE", 3, "", toLine(ok)))
	thief.response(401)
	select {
	case <-d.Done():
		t.Fatal("a stranger has hung up")
	default:
	}
	// The phone itself, should its address have changed, can prove who it is.
	thief.send(thief.request("OPTIONS", 3, "", toLine(ok)))
	r = thief.response(401)
	thief.send(thief.request("BYE", 4, "", toLine(ok), c.line(t, r, "BYE", thief)))
	thief.response(200)
	<-d.Done()
}

// Where a trunk has addresses and an account, it needs both.
func TestAuthenticateGuarded(t *testing.T) {
	t.Parallel()
	u, calls := newGuarded(t, func(o *sip.Options) {
		o.Match = func(a netip.AddrPort) (string, bool) { return "roaming", a.Addr() == netip.MustParseAddr("127.0.0.1") }
		o.BanAfter = 2
	})
	p := newPeer(t, u, "udp")
	p.send(p.request("OPTIONS", 1, "")) // which tells nothing but whether we are there
	p.response(200)
	c := credentials{user: "bob", password: "hush", algorithm: "MD5"} // right, for another trunk
	for i := range 5 {
		p.send(p.request("INVITE", 10+2*i, offerSDP))
		r := p.response(401)
		p.send(p.request("INVITE", 11+2*i, offerSDP, c.line(t, r, "INVITE", p)))
		p.response(403)
	}
	p.send(p.request("INVITE", 30, offerSDP))
	r := p.response(401)
	c.user, c.password = "alice", "secret"
	p.send(p.request("INVITE", 31, offerSDP, c.line(t, r, "INVITE", p)))
	ok := p.response(200)
	d := <-calls
	p.send(p.request("ACK", 31, "", toLine(ok)))
	p.send(p.request("BYE", 32, "", toLine(ok)))
	p.response(200)
	<-d.Done()
	if s := u.Stats(); s.BannedAddresses != 0 {
		t.Errorf("the address of a trunk is banned: %+v", s)
	}
}

// A CANCEL of the peer's own INVITE needs no credentials.
func TestAuthenticateCancel(t *testing.T) {
	t.Parallel()
	rings := make(chan *sip.Dialog, 1)
	u := newUA(t, func(d *sip.Dialog) { rings <- d }, func(o *sip.Options) {
		o.Match = func(netip.AddrPort) (string, bool) { return "", false }
		o.Accounts = func() []sip.Account { return accounts }
	})
	p := newPeer(t, u, "udp")
	p.send(p.request("INVITE", 1, offerSDP))
	c := credentials{user: "alice", password: "secret", algorithm: "MD5"}
	p.send(p.request("INVITE", 2, offerSDP, c.line(t, p.response(401), "INVITE", p)))
	p.response(100)
	d := <-rings
	invite := p.request("INVITE", 2, "")
	via := strings.SplitN(invite, "\r\n", 3)[1]
	p.send(p.request("CANCEL", 2, "", via))
	r := p.response(487)
	<-d.Done()
	p.send(p.request("ACK", 2, "", via, toLine(r)))
	await(t, "the ACK has come", func() bool { return u.Stats().Dialogs == 0 })
}

// Of several trunks at one address, a call is for the one that is called, and
// so is what belongs to it; whom nobody has registered, the first has.
func TestCalledTrunk(t *testing.T) {
	t.Parallel()
	calls := make(chan *sip.Dialog, 3)
	u := newUA(t, answering(calls), patiently, func(o *sip.Options) {
		o.Called = func(_ netip.AddrPort, trunk, user string) string {
			if user == "second one" {
				return "second"
			}
			return trunk
		}
		o.Policy = func(trunk string) sip.Policy { return sip.Policy{Transfer: trunk == "second"} }
	})
	for user, want := range map[string]string{"room": "ipbx", "second%20one": "second", "": "ipbx"} {
		p := newPeer(t, u, "udp")
		p.send(p.request("INVITE", 1, offerSDP, fmt.Sprintf("INVITE sip:%s@gw.example SIP/2.0", user)))
		ok := p.response(200)
		p.send(p.request("ACK", 1, "", toLine(ok)))
		d := receive(t, "a call", calls)
		if d.Trunk() != want {
			t.Errorf("%q is for %s, want %s", user, d.Trunk(), want)
		}
		// The Request-URI within the dialog tells nothing.
		p.send(p.request("OPTIONS", 2, "", toLine(ok), "OPTIONS sip:room@gw.example SIP/2.0"))
		if got := strings.Contains(value(p.response(200), "Allow"), "REFER"); got != (want == "second") {
			t.Errorf("%q: OPTIONS within the call is of another trunk", user)
		}
		p.send(p.request("BYE", 3, "", toLine(ok)))
		p.response(200)
	}
}
