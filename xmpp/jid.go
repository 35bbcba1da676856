package xmpp

import (
	"encoding/xml"
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// JID is an XMPP address (RFC 7622): local@domain/resource. Two JIDs that
// ParseJID returned are the same address exactly when they are ==.
type JID struct{ Local, Domain, Resource string }

// maxPart is the length limit of each part in bytes (RFC 7622 §3.1).
const maxPart = 1023

var errEmptyJID = errors.New("empty address")

// ParseJID reads an address. The local part is brought to NFKC and lower
// case, the domain to lower case, the resource is kept as it is.
func ParseJID(s string) (JID, error) {
	var j JID
	if s == "" {
		return j, fmt.Errorf("jid: %w", errEmptyJID)
	}
	if !utf8.ValidString(s) {
		return j, fmt.Errorf("jid %.64q: not UTF-8", s)
	}
	rest, res, hasRes := strings.Cut(s, "/")
	if hasRes && res == "" {
		return j, fmt.Errorf("jid %.64q: empty resource", s)
	}
	local, domain, hasLocal := strings.Cut(rest, "@")
	if !hasLocal {
		local, domain = "", rest
	} else if local == "" {
		return j, fmt.Errorf("jid %.64q: empty local part", s)
	}
	j = JID{Local: foldLocal(local), Domain: strings.ToLower(strings.TrimSuffix(domain, ".")), Resource: res}
	switch {
	case j.Domain == "":
		return JID{}, fmt.Errorf("jid %.64q: empty domain", s)
	case len(j.Local) > maxPart || len(j.Domain) > maxPart || len(j.Resource) > maxPart:
		return JID{}, fmt.Errorf("jid %.64q: a part is longer than %d bytes", s, maxPart)
	case strings.ContainsFunc(j.Local, badLocal):
		return JID{}, fmt.Errorf("jid %.64q: character not allowed in the local part", s)
	case strings.ContainsFunc(j.Domain, badDomain):
		return JID{}, fmt.Errorf("jid %.64q: character not allowed in the domain", s)
	case strings.ContainsFunc(j.Resource, unicode.IsControl):
		return JID{}, fmt.Errorf("jid %.64q: control character in the resource", s)
	}
	return j, nil
}

// MustParseJID is ParseJID for constants. It panics on error.
func MustParseJID(s string) JID {
	j, err := ParseJID(s)
	if err != nil {
		panic(err)
	}
	return j
}

// foldLocal maps a local part as nodeprep does for the characters that occur
// in names (RFC 7622 §3.3.1, without the prohibition tables). Lower case is
// taken on both sides of NFKC, which can bring out upper case and the reverse.
func foldLocal(s string) string {
	if isASCII(s) {
		return strings.ToLower(s)
	}
	for range 3 {
		t := norm.NFKC.String(strings.ToLower(norm.NFKC.String(s)))
		if t == s {
			break
		}
		s = t
	}
	return s
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

func badLocal(r rune) bool {
	return strings.ContainsRune("\"&'/:<>@", r) || unicode.IsSpace(r) || unicode.IsControl(r)
}

func badDomain(r rune) bool {
	return strings.ContainsRune("\"&'<>@/", r) || unicode.IsSpace(r) || unicode.IsControl(r)
}

// String is the address as written on the wire, "" for the zero JID.
func (j JID) String() string {
	s := j.Domain
	if j.Local != "" {
		s = j.Local + "@" + s
	}
	if j.Resource != "" {
		s += "/" + j.Resource
	}
	return s
}

// Bare is the address without its resource.
func (j JID) Bare() JID { j.Resource = ""; return j }

// IsZero reports whether j is no address at all.
func (j JID) IsZero() bool { return j == JID{} }

// WithResource is the address with another resource.
func (j JID) WithResource(r string) JID { j.Resource = r; return j }

// normal is j as ParseJID would have returned it, or j when it is no address.
func (j JID) normal() JID {
	if n, err := ParseJID(j.String()); err == nil {
		return n
	}
	return j
}

// MarshalText writes the address.
func (j JID) MarshalText() ([]byte, error) { return []byte(j.String()), nil }

// UnmarshalText reads an address; empty text gives the zero JID.
func (j *JID) UnmarshalText(b []byte) error {
	if len(b) == 0 {
		*j = JID{}
		return nil
	}
	p, err := ParseJID(string(b))
	if err != nil {
		return err
	}
	*j = p
	return nil
}

// MarshalXMLAttr writes the address as an attribute, and none when it is zero.
func (j JID) MarshalXMLAttr(name xml.Name) (xml.Attr, error) {
	if j.IsZero() {
		return xml.Attr{}, nil
	}
	return xml.Attr{Name: name, Value: j.String()}, nil
}
