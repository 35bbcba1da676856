package xmppd

import (
	"crypto/hmac"
	"crypto/pbkdf2"
	crand "crypto/rand"
	"crypto/sha1"
	"encoding/base64"
	"encoding/hex"
	"strconv"
	"strings"
)

// login is the state of SASL (RFC 6120 §6) on a stream.
type login struct {
	done      bool
	restarted bool // BOSH: the features after the login were scheduled
	scram     *scram
	failed    int
}

// scram is a SCRAM-SHA-1 exchange on the server's side (RFC 5802).
type scram struct {
	user, gs2, clientFirst, serverFirst, nonce string
	salted                                     []byte
}

const scramRounds = 4096

func (x *session) mechanisms() []string {
	switch {
	case x.host.Kind == Anonymous:
		return []string{"ANONYMOUS"}
	case x.secure:
		return []string{"SCRAM-SHA-1", "PLAIN"}
	}
	return []string{"SCRAM-SHA-1"}
}

func (x *session) password(user string) (string, bool) {
	switch x.host.Kind {
	case SharedSecret:
		return x.host.Secret, true
	case Accounts:
		for _, key := range []string{user + "@" + x.host.Domain, user} {
			if key == user && x.host.Domain != x.s.o.AuthDomain {
				continue
			}
			if p, ok := x.s.o.Accounts[key]; ok {
				return p, true
			}
		}
	}
	return "", false
}

func (x *session) handleSASL(e *element) {
	if x.login.done {
		x.close("policy-violation", "")
		return
	}
	data, err := base64.StdEncoding.DecodeString(strings.TrimSpace(strings.TrimPrefix(e.text(), "=")))
	if err != nil {
		x.fail("incorrect-encoding", "")
		return
	}
	switch e.Name {
	case "auth":
		x.login.scram = nil
		mech := e.attr("mechanism")
		ok := false
		for _, m := range x.mechanisms() {
			ok = ok || m == mech
		}
		switch {
		case !ok:
			x.fail("invalid-mechanism", "")
		case mech == "ANONYMOUS":
			if check := x.s.o.CheckToken; check != nil {
				if err := check(x.token); err != nil {
					x.fail("not-allowed", err.Error())
					return
				}
			}
			x.welcome(randomUUID(), "")
		case mech == "PLAIN":
			x.plain(string(data))
		default:
			x.scramFirst(string(data))
		}
	case "response":
		if x.login.scram == nil {
			x.fail("malformed-request", "")
			return
		}
		x.scramFinal(string(data))
	case "abort":
		x.fail("aborted", "")
	default:
		x.fail("malformed-request", "")
	}
}

func (x *session) fail(condition, text string) {
	x.login.scram = nil
	f := el(nsSASL, "failure").add(el(nsSASL, condition))
	if text != "" {
		f.add(el(nsSASL, "text").add(text))
	}
	x.send(f)
	if x.login.failed++; x.login.failed > 5 {
		x.close("policy-violation", "too many attempts")
	}
}

func (x *session) welcome(user, data string) {
	x.login = login{done: true}
	x.jid = jid{local: strings.ToLower(user), domain: x.host.Domain}
	ok := el(nsSASL, "success")
	if data != "" {
		ok.add(base64.StdEncoding.EncodeToString([]byte(data)))
	}
	x.send(ok)
}

// plain is RFC 4616.
func (x *session) plain(data string) {
	f := strings.Split(data, "\x00")
	if len(f) != 3 || f[1] == "" {
		x.fail("malformed-request", "")
		return
	}
	want, ok := x.password(strings.ToLower(f[1]))
	if !ok || !hmac.Equal([]byte(want), []byte(f[2])) {
		x.fail("not-authorized", "Unable to authorize you with the authentication credentials you've sent.")
		return
	}
	x.welcome(f[1], "")
}

func (x *session) scramFirst(data string) {
	gs2, bare := "", ""
	if p := strings.SplitN(data, ",", 3); len(p) == 3 && (p[0] == "n" || p[0] == "y") {
		gs2, bare = p[0]+","+p[1]+",", p[2]
	}
	user, nonce := scramField(bare, "n"), scramField(bare, "r")
	if gs2 == "" || user == "" || nonce == "" {
		x.fail("malformed-request", "")
		return
	}
	user = strings.NewReplacer("=2C", ",", "=3D", "=").Replace(user)
	pass, ok := x.password(strings.ToLower(user))
	if !ok { // go on with a password nobody has, as not to tell
		pass = randomText(20)
	}
	salt := make([]byte, 16)
	_, _ = crand.Read(salt)
	salted, err := pbkdf2.Key(sha1.New, pass, salt, scramRounds, sha1.Size)
	if err != nil {
		x.fail("temporary-auth-failure", "")
		return
	}
	sc := &scram{user: user, gs2: gs2, clientFirst: bare, nonce: nonce + randomText(18), salted: salted}
	sc.serverFirst = "r=" + sc.nonce + ",s=" + base64.StdEncoding.EncodeToString(salt) + ",i=" + strconv.Itoa(scramRounds)
	x.login.scram = sc
	x.send(el(nsSASL, "challenge").add(base64.StdEncoding.EncodeToString([]byte(sc.serverFirst))))
}

func (x *session) scramFinal(data string) {
	sc := x.login.scram
	i := strings.LastIndex(data, ",p=")
	if i < 0 || scramField(data, "r") != sc.nonce ||
		scramField(data, "c") != base64.StdEncoding.EncodeToString([]byte(sc.gs2)) {
		x.fail("malformed-request", "")
		return
	}
	proof, err := base64.StdEncoding.DecodeString(data[i+3:])
	message := sc.clientFirst + "," + sc.serverFirst + "," + data[:i]
	clientKey := mac(sc.salted, "Client Key")
	stored := sha1.Sum(clientKey)
	signature := mac(stored[:], message)
	if err != nil || len(proof) != len(signature) {
		x.fail("not-authorized", "")
		return
	}
	for k := range proof {
		proof[k] ^= signature[k]
	}
	if got := sha1.Sum(proof); !hmac.Equal(got[:], stored[:]) {
		x.fail("not-authorized", "Unable to authorize you with the authentication credentials you've sent.")
		return
	}
	x.welcome(sc.user, "v="+base64.StdEncoding.EncodeToString(mac(mac(sc.salted, "Server Key"), message)))
}

func scramField(s, name string) string {
	for f := range strings.SplitSeq(s, ",") {
		if v, ok := strings.CutPrefix(f, name+"="); ok {
			return v
		}
	}
	return ""
}

func mac(key []byte, s string) []byte {
	h := hmac.New(sha1.New, key)
	h.Write([]byte(s))
	return h.Sum(nil)
}

func randomUUID() string {
	var b [16]byte
	_, _ = crand.Read(b[:])
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	h := hex.EncodeToString(b[:])
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}

// randomText is n characters of base64url without the dash and underscore, so
// that its beginning can serve as a nick.
func randomText(n int) string {
	var out strings.Builder
	b := make([]byte, n)
	for out.Len() < n {
		_, _ = crand.Read(b)
		for _, c := range base64.RawStdEncoding.EncodeToString(b) {
			if c != '+' && c != '/' && out.Len() < n {
				out.WriteRune(c)
			}
		}
	}
	return out.String()
}
