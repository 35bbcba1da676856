package siptest

import (
	"crypto/md5"
	"crypto/sha256"
	"encoding/hex"
	"strings"
)

const realm = "siptest"

// digests are the algorithms of RFC 8760.
var digests = map[string]func(string) string{
	"MD5":     func(s string) string { h := md5.Sum([]byte(s)); return hex.EncodeToString(h[:]) },
	"SHA-256": func(s string) string { h := sha256.Sum256([]byte(s)); return hex.EncodeToString(h[:]) },
}

// authorized reports whether an INVITE has the credentials for nonce (RFC
// 7616 §3.4, with qop auth).
func authorized(o PhoneOptions, m *message, nonce string) bool {
	kind, list, _ := strings.Cut(m.get("Proxy-Authorization"), " ")
	if !strings.EqualFold(kind, "Digest") {
		return false
	}
	f := map[string]string{}
	for _, p := range strings.Split(list, ",") {
		k, v, _ := strings.Cut(p, "=")
		f[strings.ToLower(strings.TrimSpace(k))] = strings.Trim(strings.TrimSpace(v), `"`)
	}
	_, uri, _ := strings.Cut(m.start, " ")
	uri, _, _ = strings.Cut(uri, " ")
	if f["username"] != o.Username || f["realm"] != realm || f["nonce"] != nonce || f["uri"] != uri || f["qop"] != "auth" {
		return false
	}
	h := digests[o.Algorithm]
	want := h(strings.Join([]string{
		h(o.Username + ":" + realm + ":" + o.Password), nonce, f["nc"], f["cnonce"], "auth", h("INVITE:" + uri),
	}, ":"))
	return f["response"] == want
}
