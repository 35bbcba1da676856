package sip

import (
	"cmp"
	"crypto/subtle"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/emiago/sipgo/sip"
)

// Account lets a peer in that answers a challenge, from whatever address.
type Account struct{ Trunk, Username, Password string }

// digestRealm is ours.
const digestRealm = "brewline"

// guarded reports whether the addresses of a trunk are not enough.
func (u *UA) guarded(trunk string) bool {
	for _, a := range u.o.Accounts() {
		if a.Trunk == trunk {
			return true
		}
	}
	return false
}

// authenticate serves a request whose sender proves to be a peer. Others get
// a challenge, or the answer for strangers if they have failed one. There is
// no transaction before that, and nothing is remembered.
func (u *UA) authenticate(f flow, s source, req *sip.Request) {
	only := ""
	if s.known {
		only = s.trunk
	} else if s.peer && !u.strangerLimit.take(f.peer.Addr(), u.now(), 0) { // too many wrong ones from a peer's address
		u.stats.dropped.Add(1)
		return
	}
	trunk, v := u.verify(f.peer.Addr(), only, req)
	switch v {
	case right:
		u.record.trust(f.peer.Addr(), u.now())
		if f.conn != nil {
			f.conn.introduce()
		}
		f.trunk = trunk
		u.handleRequest(f, req)
	case stale, unanswered:
		u.stats.challenged.Add(1)
		if !s.known && v == unanswered {
			u.offend(f.peer.Addr())
		}
		_ = f.send(u.response(f, req, reply{code: 401, tag: token(10), headers: u.challenges(f.peer.Addr(), v == stale)}), responseAddr(f, req))
	case wrong:
		u.stats.failed.Add(1)
		u.note("digest failed", "source", f.peer, "method", string(req.Method), "trunk", only)
		if s.known {
			u.answerStranger(f, req, "wrong user or password")
			return
		}
		u.strangerLimit.take(f.peer.Addr(), u.now(), 1)
		u.refuse(f, s, req)
	}
}

// challenges are the fields of a 401.
func (u *UA) challenges(a netip.Addr, stale bool) (hs []Header) {
	nonce := u.nonces.make(a, u.now())
	for _, alg := range u.o.Algorithms {
		v := `Digest realm="` + digestRealm + `", nonce="` + nonce + `", algorithm=` + alg + `, qop="auth"`
		if stale {
			v += ", stale=true"
		}
		hs = append(hs, Header{"WWW-Authenticate", v})
	}
	return hs
}

// challengesBy says whether our challenges offer an algorithm; "" is MD5.
func (u *UA) challengesBy(algorithm string) bool {
	return slices.ContainsFunc(u.o.Algorithms, func(a string) bool { return strings.EqualFold(a, cmp.Or(algorithm, "md5")) })
}

// verdict on the credentials of a request.
type verdict int

const (
	unanswered verdict = iota // there are none for our realm
	wrong                     // user or password
	stale                     // right, but the nonce counts no more
	right
)

// maxCredentials bounds the values of Authorization that are looked at.
const maxCredentials = 4

// verify judges the credentials of a request, for the accounts of one trunk or
// of all. A user that nobody is costs as much time as a wrong password.
func (u *UA) verify(a netip.Addr, only string, req *sip.Request) (trunk string, v verdict) {
	for i, value := range headerValues(req, "Authorization") {
		if i == maxCredentials {
			break
		}
		c, ok := parseAuthorization(value)
		if !ok || c.realm != digestRealm || !u.challengesBy(c.algorithm) {
			continue
		}
		trunk, ok := "", false
		for _, acc := range u.o.Accounts() {
			if (only == "" || acc.Trunk == only) && acc.Username != "" && c.proves(acc, req) {
				trunk, ok = acc.Trunk, true
			}
		}
		switch {
		case !ok:
			v = max(v, wrong)
		case !u.nonces.take(c.nonce, c.nc, a, u.now()):
			v = max(v, stale)
		default:
			return trunk, right
		}
	}
	return "", v
}

// authorization is a value of Authorization (RFC 7616 §3.4).
type authorization struct {
	username, realm, nonce, uri, response string
	algorithm, qop, cnonce, count         string
	nc                                    uint32 // of count; 0: without qop
	hash                                  func(string) string
}

// maxAuthorization bounds a value of Authorization in bytes.
const maxAuthorization = 2048

// parseAuthorization reads a value of Authorization. Not ok: it is none that
// our challenges ask for.
func parseAuthorization(v string) (authorization, bool) {
	if len(v) > maxAuthorization {
		return authorization{}, false
	}
	ps, ok := digestParams(v)
	if !ok {
		return authorization{}, false
	}
	c := authorization{
		username: unescape(ps["username"]), realm: ps["realm"], nonce: ps["nonce"], uri: ps["uri"], response: strings.ToLower(ps["response"]),
		algorithm: strings.ToLower(ps["algorithm"]), qop: strings.ToLower(ps["qop"]), cnonce: ps["cnonce"], count: ps["nc"],
	}
	switch c.algorithm {
	case "", "md5", "sha-256":
		c.hash = hashes[c.algorithm]
	default:
		return c, false
	}
	switch c.qop {
	case "auth":
		n, err := strconv.ParseUint(c.count, 16, 32)
		if err != nil || n == 0 || len(c.count) != 8 {
			return c, false
		}
		c.nc = uint32(n)
	case "":
	default:
		return c, false
	}
	return c, c.nonce != "" && c.uri != ""
}

// proves reports whether the credentials are those of an account, for this
// request. It takes as long whether they are or not. Their uri need not be the
// request's, which proxies change and some phones shorten: the nonce is what
// keeps them from being used again.
func (c authorization) proves(acc Account, req *sip.Request) bool {
	h := c.hash
	middle := c.nonce
	if c.qop != "" {
		middle = strings.Join([]string{c.nonce, c.count, c.cnonce, c.qop}, ":")
	}
	a1 := h(acc.Username + ":" + c.realm + ":" + acc.Password)
	want := h(a1 + ":" + middle + ":" + h(string(req.Method)+":"+c.uri))
	same := subtle.ConstantTimeCompare([]byte(want), []byte(c.response))
	same &= subtle.ConstantTimeCompare([]byte(c.username), []byte(acc.Username))
	return same == 1
}
