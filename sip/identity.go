package sip

import (
	"strings"

	"github.com/emiago/sipgo/sip"
)

// maxIdentities bounds the values of an identity header field that are read;
// RFC 3325 §9.1 knows two.
const maxIdentities = 4

// Identity is who calls, by header fields that only a trusted peer is believed.
type Identity struct {
	Party
	// NameHidden and NumberHidden say what the caller wants nobody to see:
	// Privacy id or user (RFC 3325 §9.3, RFC 3323 §4.2) hides both, the privacy
	// of Remote-Party-ID either.
	NameHidden, NumberHidden bool
}

// Identity returns who calls by P-Asserted-Identity (RFC 3325 §9.1), without it
// by Remote-Party-ID (draft-ietf-sip-privacy-04 §5), without that by From, and
// what Privacy says of it. Whoever is not trusted may write all of these.
func (d *Dialog) Identity() Identity { return identity(d.invite, d.From()) }

func identity(m message, from Party) Identity {
	id := Identity{Party: from}
	if asserted := identities(m, "P-Asserted-Identity"); len(asserted) > 0 {
		id.Party = asserted[0].Party
		for _, other := range asserted[1:] { // a sip and a tel URI of one caller
			if id.Display == "" {
				id.Display = other.Display
			}
		}
	} else if remote, ok := remoteParty(m); ok {
		id.Party = remote.Party
		for _, v := range strings.Split(strings.ToLower(remote.param("privacy")), "-") {
			id.NameHidden = id.NameHidden || v == "full" || v == "name"
			id.NumberHidden = id.NumberHidden || v == "full" || v == "uri"
		}
	}
	for _, v := range headerValues(m, "Privacy") {
		for _, p := range strings.FieldsFunc(strings.ToLower(v), func(r rune) bool { return r == ';' || r == ',' || r == ' ' }) {
			if p == "id" || p == "user" {
				id.NameHidden, id.NumberHidden = true, true
			}
		}
	}
	return id
}

// remoteParty is the Remote-Party-ID of the calling party.
func remoteParty(m message) (nameAddr, bool) {
	for _, v := range identities(m, "Remote-Party-ID") {
		if p := v.param("party"); p == "" || strings.EqualFold(p, "calling") {
			return v, true
		}
	}
	return nameAddr{}, false
}

// nameAddr is a party with the parameters behind it.
type nameAddr struct {
	Party
	params string
}

// param is the value of a parameter, without its quotes.
func (n nameAddr) param(name string) string {
	for _, p := range splitQuoted(n.params, ';') {
		if k, v, _ := strings.Cut(p, "="); strings.EqualFold(strings.TrimSpace(k), name) {
			return unquote(v)
		}
	}
	return ""
}

// identities reads the values of a header field that names people; what cannot
// be read is left out.
func identities(m message, name string) []nameAddr {
	var out []nameAddr
	for _, v := range headerValues(m, name) {
		for v != "" && len(out) < maxIdentities {
			var one string
			one, v = cutValue(v)
			if n, ok := parseNameAddr(one); ok {
				out = append(out, n)
			}
		}
	}
	return out
}

// cutValue splits at the first comma outside of quotes and angle brackets.
func cutValue(s string) (value, rest string) {
	quoted, angle := false, false
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case quoted && c == '\\':
			i++
		case c == '"' && !angle:
			quoted = !quoted
		case quoted:
		case c == '<':
			angle = true
		case c == '>':
			angle = false
		case c == ',' && !angle:
			return s[:i], s[i+1:]
		}
	}
	return s, ""
}

// parseNameAddr reads a name-addr or addr-spec (RFC 3261 §25.1) of a sip, sips
// or tel URI.
func parseNameAddr(s string) (nameAddr, bool) {
	s = clean(s)
	display, uri, params := "", s, ""
	if open := indexUnquoted(s, '<'); open >= 0 {
		end := strings.IndexByte(s[open:], '>')
		if end < 0 {
			return nameAddr{}, false
		}
		display, uri, params = unquote(s[:open]), s[open+1:open+end], s[open+end+1:]
	} else { // parameters belong to the header field, not to the URI (§20.10)
		uri, params, _ = strings.Cut(s, ";")
	}
	uri = strings.TrimSpace(uri)
	n := nameAddr{Party{Display: display, URI: uri}, params}
	scheme, rest, ok := strings.Cut(uri, ":")
	if !ok || rest == "" {
		return nameAddr{}, false
	}
	if strings.EqualFold(scheme, "tel") {
		n.User = telUser(rest)
		return n, n.User != ""
	}
	if !strings.EqualFold(scheme, "sip") && !strings.EqualFold(scheme, "sips") {
		return nameAddr{}, false
	}
	var u sip.Uri
	if err := sip.ParseUri(uri, &u); err != nil || u.Host == "" {
		return nameAddr{}, false
	}
	n.Party = party("", &u)
	n.Display = display
	return n, true
}

// indexUnquoted is the place of a byte outside of quotes, or -1.
func indexUnquoted(s string, c byte) int {
	quoted := false
	for i := 0; i < len(s); i++ {
		switch {
		case quoted && s[i] == '\\':
			i++
		case s[i] == '"':
			quoted = !quoted
		case s[i] == c && !quoted:
			return i
		}
	}
	return -1
}
