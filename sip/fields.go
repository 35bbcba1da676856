package sip

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/emiago/sipgo/sip"
)

// fields are the readers of header fields by name; what is not here is left as
// it is.
var fields = sip.HeadersParser{}

func init() {
	for name, f := range map[string]func(string) (sip.Header, error){
		"via": readVia, "v": readVia,
		"from": readFrom, "f": readFrom,
		"to": readTo, "t": readTo,
		"contact": readContact, "m": readContact,
		"record-route":   readRecordRoute,
		"call-id":        readCallID,
		"i":              readCallID,
		"cseq":           readCSeq,
		"max-forwards":   readMaxForwards,
		"content-length": readContentLength,
		"l":              readContentLength,
		"content-type":   readContentType,
		"c":              readContentType,
	} {
		fields[name] = func(_ []byte, s string) (sip.Header, error) {
			h, err := f(s)
			if err != nil {
				return &unread{sip.NewHeader("X-Unread", s), canonical(name), err}, nil
			}
			return h, nil
		}
	}
}

func readFrom(s string) (sip.Header, error) {
	display, uri, params, err := readAddress(s)
	return &sip.FromHeader{DisplayName: display, Address: uri, Params: params}, err
}

func readTo(s string) (sip.Header, error) {
	display, uri, params, err := readAddress(s)
	return &sip.ToHeader{DisplayName: display, Address: uri, Params: params}, err
}

func readContact(s string) (sip.Header, error) {
	if strings.Trim(s, " \t") == "*" {
		return &sip.ContactHeader{Address: sip.Uri{Host: "*", Wildcard: true}}, nil
	}
	display, uri, params, err := readAddress(s)
	return &sip.ContactHeader{DisplayName: display, Address: uri, Params: params}, err
}

// recordRoute is a value of Record-Route as it came: responses must give it
// back so, with whatever parameters it has (RFC 3261 §12.1.1).
type recordRoute struct {
	sip.Header
	uri sip.Uri
}

func readRecordRoute(s string) (sip.Header, error) {
	_, uri, _, err := readAddress(s)
	return &recordRoute{sip.NewHeader("Record-Route", s), uri}, err
}

func readCallID(s string) (sip.Header, error) {
	h := sip.CallIDHeader(s)
	if s == "" || strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r == 0x7f }) {
		return &h, errors.New("no word")
	}
	return &h, nil
}

// readCSeq reads RFC 3261 §20.16; the number is less than 2³¹ (§8.1.1.5).
func readCSeq(s string) (sip.Header, error) {
	f := strings.Fields(s)
	if len(f) != 2 || !isToken(f[1]) {
		return nil, errors.New("no number and method")
	}
	n, err := strconv.ParseUint(f[0], 10, 31)
	if err != nil {
		return nil, errors.New("number")
	}
	return &sip.CSeqHeader{SeqNo: uint32(n), MethodName: sip.RequestMethod(f[1])}, nil
}

func readMaxForwards(s string) (sip.Header, error) {
	n, err := strconv.ParseUint(s, 10, 32)
	h := sip.MaxForwardsHeader(n)
	if err != nil || n > 255 {
		err = errors.New("number")
	}
	return &h, err
}

func readContentLength(s string) (sip.Header, error) {
	n, err := strconv.ParseUint(s, 10, 31)
	h := sip.ContentLengthHeader(n)
	if err != nil {
		err = errors.New("number")
	}
	return &h, err
}

func readContentType(s string) (sip.Header, error) {
	h := sip.ContentTypeHeader(s)
	if s == "" {
		return &h, errors.New("empty")
	}
	return &h, nil
}

// readVia reads one value of RFC 3261 §20.42.
func readVia(s string) (sip.Header, error) {
	name, s, ok1 := strings.Cut(s, "/")
	version, s, ok2 := strings.Cut(s, "/")
	s = strings.TrimLeft(s, " \t")
	i := strings.IndexAny(s, " \t")
	if !ok1 || !ok2 || i < 0 {
		return nil, errors.New("protocol")
	}
	v := &sip.ViaHeader{ProtocolName: strings.Trim(name, " \t"), ProtocolVersion: strings.Trim(version, " \t"), Transport: s[:i]}
	if !isToken(v.ProtocolName) || !isToken(v.ProtocolVersion) || !isToken(v.Transport) {
		return nil, errors.New("protocol")
	}
	by, params := s[i:], ""
	if i := strings.IndexByte(by, ';'); i >= 0 {
		by, params = by[:i], by[i:]
	}
	host, port := strings.Trim(by, " \t"), ""
	if i := strings.LastIndexByte(host, ':'); i > strings.LastIndexByte(host, ']') {
		host, port = strings.TrimRight(host[:i], " \t"), strings.TrimLeft(host[i+1:], " \t")
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil {
			return nil, errors.New("port")
		}
		v.Port = int(n)
	}
	if !isHost(host) {
		return nil, errors.New("host")
	}
	v.Host = host // with its brackets, which the library writes only for some addresses
	var err error
	v.Params, err = readParams(params, true)
	return v, err
}

// readAddress reads a name-addr or addr-spec with parameters (RFC 3261 §20.10,
// §25.1). display has no quotes, and its escapes.
func readAddress(s string) (display string, uri sip.Uri, params sip.HeaderParams, err error) {
	s = strings.Trim(s, " \t")
	rest, angle := "", strings.IndexByte(s, '<')
	switch semi := strings.IndexByte(s, ';'); {
	case strings.HasPrefix(s, `"`):
		end := quotedEnd(s)
		if end < 0 {
			return "", uri, nil, errors.New("quotes do not balance")
		}
		display, s = s[1:end-1], strings.TrimLeft(s[end:], " \t")
		if angle = 0; !strings.HasPrefix(s, "<") {
			return "", uri, nil, errors.New("no address")
		}
	case angle > 0 && (semi < 0 || angle < semi):
		display = strings.Trim(s[:angle], " \t")
		if strings.ContainsFunc(display, func(r rune) bool { return r < ' ' || strings.ContainsRune(`",\<>`, r) }) {
			return "", uri, nil, errors.New("name that needs quotes")
		}
	case angle == 0:
	default:
		angle = -1
	}
	if angle >= 0 {
		end := strings.IndexByte(s, '>')
		if end < angle {
			return "", uri, nil, errors.New("brackets do not balance")
		}
		s, rest = s[angle+1:end], s[end+1:]
	} else {
		if i := strings.IndexByte(s, ';'); i >= 0 {
			s, rest = strings.TrimRight(s[:i], " \t"), s[i:]
		}
		if strings.ContainsAny(s, "?,") { // RFC 3261 §20
			return "", uri, nil, errors.New("address that needs brackets")
		}
	}
	if uri, err = readURI(s); err == nil {
		params, err = readParams(rest, false)
	}
	return display, uri, params, err
}

// quotedEnd returns the index after the quoted-string that s begins with, -1
// if it has no end.
func quotedEnd(s string) int {
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return -1
}

// readParams reads *( SEMI name [ EQUAL value ] ). Empty ones are passed over
// unless strict.
func readParams(s string, strict bool) (sip.HeaderParams, error) {
	var ps sip.HeaderParams
	for s = strings.Trim(s, " \t"); s != ""; s = strings.TrimLeft(s, " \t") {
		if s[0] != ';' {
			return nil, errors.New("parameters")
		}
		s = strings.TrimLeft(s[1:], " \t")
		end := strings.IndexAny(s, ";=")
		if end < 0 {
			end = len(s)
		}
		name, value := strings.TrimRight(s[:end], " \t"), ""
		s = s[end:]
		if strings.HasPrefix(s, "=") {
			s = strings.TrimLeft(s[1:], " \t")
			if strings.HasPrefix(s, `"`) {
				end = quotedEnd(s)
			} else if end = strings.IndexByte(s, ';'); end < 0 {
				end = len(s)
			}
			if end <= 0 {
				return nil, fmt.Errorf("value of %q", clean(name))
			}
			value, s = strings.TrimRight(s[:end], " \t"), s[end:]
			if value[0] != '"' && strings.ContainsFunc(value, func(r rune) bool { return r <= ' ' || strings.ContainsRune(`",<>`, r) }) {
				return nil, fmt.Errorf("value of %q", clean(name))
			}
		} else if name == "" && !strict {
			continue
		}
		if _, twice := paramOK(ps, name); !isToken(name) || twice {
			return nil, fmt.Errorf("parameter %q", clean(name))
		}
		ps = append(ps, sip.HeaderKV{K: name, V: value})
	}
	return ps, nil
}

// readURI reads a URI. Of those that are no SIP URI only the scheme counts.
func readURI(s string) (uri sip.Uri, err error) {
	if !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r == 0x7f || strings.ContainsRune(`<>"`, r) }) {
		return uri, errors.New("characters that no URI has")
	}
	scheme, rest, ok := strings.Cut(s, ":")
	if !ok || rest == "" || !isToken(scheme) {
		return uri, errors.New("no scheme")
	}
	if scheme = strings.ToLower(scheme); scheme != "sip" && scheme != "sips" {
		if sip.ParseUri(s, &uri) != nil { // a scheme with a digit, or so
			uri = sip.Uri{Scheme: scheme, Host: rest}
		}
		return uri, nil
	}
	if sip.ParseUri(s, &uri) != nil {
		return uri, errors.New("no URI")
	}
	if uri.Wildcard || !isHost(uri.Host) || uri.Port < 0 || uri.Port > 65535 {
		return uri, errors.New("host")
	}
	return uri, nil
}

// isHost reports whether s is a name, an IPv4 address or an IPv6 reference.
// Three colons are taken for two, as a former grammar had it (RFC 5118 §4.10).
func isHost(s string) bool {
	if strings.HasPrefix(s, "[") && strings.HasSuffix(s, "]") {
		a, err := netip.ParseAddr(strings.Replace(s[1:len(s)-1], ":::", "::", 1))
		return err == nil && a.Is6() && a.Zone() == ""
	}
	for i := range len(s) {
		c := s[i]
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '.' || c == '-' || c == '_') {
			return false
		}
	}
	return s != ""
}

// contactOf returns the Contact of a request, or where RFC 2543 has none the
// address it is from.
func contactOf(req *sip.Request) *sip.ContactHeader {
	if c := req.Contact(); c != nil || !legacy(req) {
		return c
	}
	return &sip.ContactHeader{Address: *req.From().Address.Clone()}
}
