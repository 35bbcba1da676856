// Package dialplan decides where a call out of a conference may go: which
// number was meant, which rule allows it, over which trunks, and how often.
// Nothing may be dialled until a rule says so.
package dialplan

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"strings"
)

// maxNumber bounds a number or address that somebody wants dialled, in bytes.
const maxNumber = 128

// ErrNumber: what should be dialled is neither a number nor a SIP address.
var ErrNumber = errors.New("neither a number nor a SIP address")

// Normalize makes one form of all the ways in which a destination is written:
// tel: and sip: URIs, numbers with and without a plus, with whatever people put
// between digits. A number is digits, * and #, with a plus in front if it had
// one (RFC 3966 §5.1.1); a SIP address with a host is user@host in lower case
// host. Parameters are dropped. What sip: names without a host must be a number,
// as many write it; an IPv4 address is none. Errors: ErrNumber.
func Normalize(raw string) (string, error) {
	s := strings.TrimSpace(raw)
	if len(s) > maxNumber {
		return "", fmt.Errorf("%w: longer than %d bytes", ErrNumber, maxNumber)
	}
	s, isSIP := cutScheme(s)
	s, _, _ = strings.Cut(s, ";")
	s, _, _ = strings.Cut(s, "?")
	user, host, isAddress := strings.Cut(s, "@")
	if isSIP && !isAddress && isIPv4(s) { // a host, which is no number
		return "", fmt.Errorf("%w: %q has no user part", ErrNumber, raw)
	}
	user, err := url.PathUnescape(user)
	if err != nil {
		return "", fmt.Errorf("%w: %q", ErrNumber, raw)
	}
	if number, ok := digits(user); ok {
		user = number
	} else if !isAddress || !isUser(user) {
		return "", fmt.Errorf("%w: %q", ErrNumber, raw)
	}
	if !isAddress {
		return user, nil
	}
	if host = strings.ToLower(host); !isHost(host) {
		return "", fmt.Errorf("%w: %q", ErrNumber, raw)
	}
	return user + "@" + host, nil
}

// OfContact is the number to which a 301 or 302 sends a call: the user part of
// the Contact's URI, normalised. Where that user is to be found is the trunk's
// business, as for every number. Errors: ErrNumber.
func OfContact(uri string) (string, error) {
	user, _, isAddress := strings.Cut(uri, "@")
	if !isAddress && !strings.HasPrefix(strings.ToLower(uri), "tel:") {
		return "", fmt.Errorf("%w: %q has no user part", ErrNumber, uri)
	}
	user, isSIP := cutScheme(user)
	if !isSIP && isAddress {
		return "", fmt.Errorf("%w: %q is no SIP URI", ErrNumber, uri)
	}
	return Normalize(user)
}

// cutScheme takes the scheme off a URI, and says whether it was SIP's.
func cutScheme(s string) (rest string, isSIP bool) {
	for _, scheme := range []string{"tel:", "callto:", "sips:", "sip:"} {
		if len(s) >= len(scheme) && strings.EqualFold(s[:len(scheme)], scheme) {
			return s[len(scheme):], strings.HasPrefix(scheme, "sip")
		}
	}
	return s, false
}

func isIPv4(s string) bool {
	host, _, _ := strings.Cut(s, ":")
	a, err := netip.ParseAddr(host)
	return err == nil && a.Is4()
}

// digits drops visual separators (RFC 3966 §5.1.1); false if it is no number.
func digits(s string) (string, bool) {
	var b strings.Builder
	any := false
	for i, r := range s {
		switch {
		case r >= '0' && r <= '9', r == '*', r == '#':
			b.WriteRune(r)
			any = true
		case r == '+' && i == 0:
			b.WriteRune(r)
		case strings.ContainsRune(" -./()\u00a0", r):
		default:
			return "", false
		}
	}
	return b.String(), any
}

// isUser says whether s may be the user part of a SIP URI as it stands: the
// unreserved characters of RFC 3261 §25.1 that need no escaping.
func isUser(s string) bool {
	return s != "" && strings.IndexFunc(s, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_.+", r))
	}) < 0
}

func isHost(s string) bool {
	return s != "" && strings.IndexFunc(s, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || strings.ContainsRune("-.:[]", r))
	}) < 0
}
