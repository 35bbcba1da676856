package sip

import (
	"crypto/md5"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/emiago/sipgo/sip"
)

// maxChallenges bounds how often a request is repeated with credentials: for
// a proxy, for the peer, and for a stale nonce. maxRealms bounds how many
// realms it is known to.
const maxChallenges, maxRealms = 3, 8

var errChallenge = errors.New("sip: the challenge cannot be answered, or was in vain")

// credentials answer the digest challenges of one request (RFC 3261 §22).
type credentials struct {
	username, password string
	rounds             int
	known              []realm
}

// realm is where credentials were given.
type realm struct {
	challenge challenge
	field     Header // Authorization or Proxy-Authorization
	count     uint32 // requests with this nonce
	reused    bool   // the nonce is of an earlier request: it may be refused once
}

// reuse puts into another request what was asked for last time, which saves a
// round. A nonce is used so only where qop guards against replay, and not
// without end.
func (c *credentials) reuse(req *sip.Request) {
	c.rounds = 0
	c.known = slices.DeleteFunc(c.known, func(r realm) bool { return r.challenge.qop == "" || r.count >= maxNonceUses })
	for i := range c.known {
		r := &c.known[i]
		r.count++
		r.reused = true
		r.field.Value = c.value(r.challenge, r.count, req)
	}
	c.put(req)
}

func (c *credentials) value(ch challenge, count uint32, req *sip.Request) string {
	return ch.answer(c.username, c.password, token(20), count, string(req.Method), req.Recipient.String(), req.Body())
}

// put replaces the credentials of a request.
func (c *credentials) put(req *sip.Request) {
	for _, f := range authFields {
		for req.RemoveHeader(f) {
		}
	}
	for _, r := range c.known {
		appendHeader(req, r.field)
	}
}

// answer puts what the challenges of res ask for into req, in place of what
// was there before. An error: the same realm has refused us already, or asks
// for what we do not know.
func (c *credentials) answer(req *sip.Request, res *sip.Response) error {
	if res.StatusCode != 401 && res.StatusCode != 407 || c.username == "" || c.rounds >= maxChallenges {
		return errChallenge
	}
	c.rounds++
	var now []string // the realms of this response
	for _, f := range [][2]string{{"WWW-Authenticate", "Authorization"}, {"Proxy-Authenticate", "Proxy-Authorization"}} {
		for _, v := range headerValues(res, f[0]) {
			ch, ok := parseChallenge(v)
			if !ok || slices.Contains(now, f[1]+ch.realm) { // of one realm the first that we know (RFC 8760 §2.4)
				continue
			}
			now = append(now, f[1]+ch.realm)
			given := realm{challenge: ch, field: Header{f[1], c.value(ch, 1, req)}, count: 1}
			i := slices.IndexFunc(c.known, func(r realm) bool { return r.field.Name == f[1] && r.challenge.realm == ch.realm })
			switch {
			case i >= 0 && !ch.stale && !c.known[i].reused:
				return errChallenge
			case i >= 0:
				c.known[i] = given
			case len(c.known) < maxRealms:
				c.known = append(c.known, given)
			}
		}
	}
	if len(now) == 0 {
		return errChallenge
	}
	c.put(req)
	return nil
}

var authFields = []string{"Authorization", "Proxy-Authorization"}

// again makes req fit to be sent once more, with another CSeq.
func again(req *sip.Request, seq uint32) {
	for req.RemoveHeader("Via") {
	}
	req.ReplaceHeader(&sip.CSeqHeader{SeqNo: seq, MethodName: req.Method})
}

// challenge is one that we can answer. Quoted strings are kept as they came,
// but for the quotes (RFC 7616 §3.3).
type challenge struct {
	realm, nonce, opaque, algorithm string
	qop                             string // "auth", "auth-int", "": of RFC 2069
	stale, opaqueGiven              bool
	hash                            func(string) string
	session                         bool
}

func sum[T any](f func([]byte) T, bytes func(T) []byte) func(string) string {
	return func(s string) string { return hex.EncodeToString(bytes(f([]byte(s)))) }
}

var hashes = map[string]func(string) string{
	"":            sum(md5.Sum, func(b [md5.Size]byte) []byte { return b[:] }),
	"md5":         sum(md5.Sum, func(b [md5.Size]byte) []byte { return b[:] }),
	"sha-256":     sum(sha256.Sum256, func(b [sha256.Size]byte) []byte { return b[:] }),
	"sha-512-256": sum(sha512.Sum512_256, func(b [sha512.Size256]byte) []byte { return b[:] }),
}

// parseChallenge reads a value of WWW-Authenticate or Proxy-Authenticate. Not
// ok: it is none that we can answer.
func parseChallenge(v string) (challenge, bool) {
	ps, ok := digestParams(v)
	if !ok {
		return challenge{}, false
	}
	c := challenge{realm: ps["realm"], nonce: ps["nonce"], algorithm: ps["algorithm"], stale: strings.EqualFold(ps["stale"], "true")}
	c.opaque, c.opaqueGiven = ps["opaque"]
	if strings.ContainsFunc(c.algorithm, func(r rune) bool { return r > 0x7f }) {
		return challenge{}, false
	}
	name, session := strings.CutSuffix(strings.ToLower(c.algorithm), "-sess")
	c.hash, c.session = hashes[name], session
	if qop, asked := ps["qop"]; asked {
		for _, q := range tokens([]string{qop}) {
			if q == "auth" || q == "auth-int" && c.qop == "" {
				c.qop = q
			}
		}
		if c.qop == "" {
			return challenge{}, false
		}
	}
	return c, c.hash != nil && c.nonce != ""
}

// digestParams reads the parameters of a challenge or of credentials, by name
// in lower case, quotes taken off. Not ok: they are not of scheme Digest.
func digestParams(v string) (map[string]string, bool) {
	scheme, list, _ := strings.Cut(strings.TrimSpace(v), " ")
	if !strings.EqualFold(scheme, "Digest") {
		return nil, false
	}
	ps := map[string]string{}
	for _, p := range splitQuoted(list, ',') {
		k, val, ok := strings.Cut(p, "=")
		k, val = strings.ToLower(strings.TrimSpace(k)), strings.TrimSpace(val)
		if n := len(val); n >= 2 && val[0] == '"' && val[n-1] == '"' {
			val = val[1 : n-1]
		}
		if _, dup := ps[k]; ok && !dup {
			ps[k] = val
		}
	}
	return ps, true
}

// answer returns the value of Authorization for a request, the count-th with
// this nonce.
func (c challenge) answer(username, password, cnonce string, count uint32, method, uri string, body []byte) string {
	h := c.hash
	a1 := h(username + ":" + c.realm + ":" + password)
	if c.session {
		a1 = h(a1 + ":" + c.nonce + ":" + cnonce)
	}
	a2 := method + ":" + uri
	if c.qop == "auth-int" {
		a2 += ":" + h(string(body))
	}
	nc := fmt.Sprintf("%08x", count)
	middle := c.nonce
	if c.qop != "" {
		middle = strings.Join([]string{c.nonce, nc, cnonce, c.qop}, ":")
	}
	v := `Digest username=` + quote(username) + `, realm="` + c.realm + `", nonce="` + c.nonce + `", uri="` + uri +
		`", response="` + h(a1+":"+middle+":"+h(a2)) + `"`
	if c.algorithm != "" {
		v += `, algorithm=` + c.algorithm
	}
	if c.qop != "" || c.session {
		v += `, cnonce="` + cnonce + `"`
	}
	if c.qop != "" {
		v += `, qop=` + c.qop + `, nc=` + nc
	}
	if c.opaqueGiven {
		v += `, opaque="` + c.opaque + `"`
	}
	return v
}
