package brewery

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"golang.org/x/text/cases"
	"golang.org/x/text/language"
	"golang.org/x/text/unicode/norm"
)

const (
	maxNode = 1023        // bytes of a localpart, RFC 7622 §3.3.1
	maxRaw  = 3 * maxNode // percent-encoding makes three bytes of one
	maxHost = 253         // bytes of a domain name, RFC 1035 §2.3.4
)

// Room is a room of a deployment.
type Room struct {
	// Name is the localpart of the room JID and the value of room= in URLs,
	// as [NormalizeRoom] returns it.
	Name string
	// Tenant is the part of the deployment the room belongs to, in lower case;
	// empty for most. It is a label of the MUC domain and a folder of the URL.
	Tenant string
}

// String returns the room as a web user would write it: room or tenant/room.
func (r Room) String() string {
	if r.Tenant == "" {
		return r.Name
	}
	return r.Tenant + "/" + r.Name
}

// NormalizeRoom makes of a room name what jitsi-meet makes of it
// (getBackendSafeRoomName in react/features/base/util/uri.ts): percent-decoded,
// NFKC, lower case, percent-encoded as by encodeURIComponent, lower case again.
// A name that is not wholly valid percent-encoding is taken as it stands. Space
// around the name is dropped. Errors are [ErrBadRoom].
func NormalizeRoom(raw string) (string, error) {
	name := strings.TrimSpace(raw)
	switch {
	case name == "":
		return "", fmt.Errorf("%w: it is empty", ErrBadRoom)
	case len(name) > maxRaw:
		return "", fmt.Errorf("%w: %d bytes are too long", ErrBadRoom, len(name))
	case !utf8.ValidString(name):
		return "", fmt.Errorf("%w: %s is not UTF-8", ErrBadRoom, shown(name))
	}
	if decoded, ok := decodeURIComponent(name); ok {
		name = decoded
	}
	name = cases.Lower(language.Und).String(norm.NFKC.String(name))
	// Of what encodeURIComponent leaves alone, only the apostrophe may not
	// stand in a localpart (RFC 7622 §3.3.1): no browser can enter such a room.
	if strings.Contains(name, "'") {
		return "", fmt.Errorf("%w: %s has an apostrophe, which no room JID can have", ErrBadRoom, shown(raw))
	}
	name = encodeURIComponent(name)
	if len(name) > maxNode {
		return "", fmt.Errorf("%w: %s is too long: %d bytes when encoded, at most %d", ErrBadRoom, shown(raw), len(name), maxNode)
	}
	return name, nil
}

// cleanRoom drops from a name what jitsi-meet drops when it takes the room out
// of a URL, before [NormalizeRoom]: everything from ? or #, and delimiters that
// a browser leaves as they are (RFC 3986 §2.2). "Team sync!" is room
// team%20sync for everybody who types it into a browser.
func cleanRoom(raw string) string {
	if i := strings.IndexAny(raw, "?#"); i >= 0 {
		raw = raw[:i]
	}
	return strings.Map(func(r rune) rune {
		if strings.ContainsRune(":@!$&'()*+,;=", r) {
			return -1
		}
		return r
	}, raw)
}

// decodeURIComponent is ECMAScript's (ECMA-262 §19.2.6.2); false where that
// throws.
func decodeURIComponent(s string) (string, bool) {
	if !strings.Contains(s, "%") {
		return s, true
	}
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] != '%' {
			b = append(b, s[i])
			continue
		}
		if i+2 >= len(s) {
			return "", false
		}
		hi, ok1 := unhex(s[i+1])
		lo, ok2 := unhex(s[i+2])
		if !ok1 || !ok2 {
			return "", false
		}
		b = append(b, hi<<4|lo)
		i += 2
	}
	// What surrounds the escapes is whole UTF-8, so this checks the escapes.
	return string(b), utf8.Valid(b)
}

func unhex(c byte) (byte, bool) {
	switch {
	case '0' <= c && c <= '9':
		return c - '0', true
	case 'a' <= c && c <= 'f':
		return c - 'a' + 10, true
	case 'A' <= c && c <= 'F':
		return c - 'A' + 10, true
	}
	return 0, false
}

// encodeURIComponent is ECMAScript's (ECMA-262 §19.2.6.4), with lower-case
// digits.
func encodeURIComponent(s string) string {
	const digits = "0123456789abcdef"
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9',
			strings.IndexByte("-_.!~*'()", c) >= 0:
			b = append(b, c)
		default:
			b = append(b, '%', digits[c>>4], digits[c&15])
		}
	}
	return string(b)
}

// normalizeTenant returns a tenant as it stands in a MUC domain.
func normalizeTenant(raw string) (string, error) {
	t := strings.ToLower(strings.TrimSpace(raw))
	if len(t) > 63 {
		return "", fmt.Errorf("%w: %s is no tenant: letters, digits, - and _ only", ErrBadRoom, shown(raw))
	}
	for i := 0; i < len(t); i++ {
		if c := t[i]; !('a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '-' || c == '_') {
			return "", fmt.Errorf("%w: %s is no tenant: letters, digits, - and _ only", ErrBadRoom, shown(raw))
		}
	}
	return t, nil
}

// shown quotes what came from outside for an error or a log line.
func shown(s string) string {
	const most = 60
	if len(s) > most {
		s = s[:most] + "…"
	}
	return fmt.Sprintf("%+q", s)
}
