package sip

import (
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/emiago/sipgo/sip"
)

const contentSDP = "application/sdp"

var phrases = map[int]string{
	100: "Trying", 180: "Ringing", 181: "Call Is Being Forwarded", 182: "Queued", 183: "Session Progress",
	200: "OK", 202: "Accepted",
	400: "Bad Request", 403: "Forbidden", 404: "Not Found", 405: "Method Not Allowed", 406: "Not Acceptable",
	408: "Request Timeout", 410: "Gone", 413: "Request Entity Too Large", 415: "Unsupported Media Type",
	416: "Unsupported URI Scheme", 420: "Bad Extension", 421: "Extension Required", 422: "Session Interval Too Small",
	480: "Temporarily Unavailable",
	481: "Call/Transaction Does Not Exist", 482: "Loop Detected", 484: "Address Incomplete", 486: "Busy Here",
	487: "Request Terminated", 488: "Not Acceptable Here", 491: "Request Pending",
	500: "Server Internal Error", 501: "Not Implemented", 502: "Bad Gateway", 503: "Service Unavailable",
	504: "Server Time-out", 505: "Version Not Supported", 513: "Message Too Large",
	600: "Busy Everywhere", 603: "Decline", 604: "Does Not Exist Anywhere", 606: "Not Acceptable",
}

func phrase(code int) string {
	if p := phrases[code]; p != "" {
		return p
	}
	switch code / 100 {
	case 1:
		return "Progress"
	case 2:
		return "OK"
	case 3:
		return "Redirection"
	case 4:
		return "Request Failure"
	case 5:
		return "Server Failure"
	}
	return "Global Failure"
}

// reply is a response to be: what differs from one to the next.
type reply struct {
	code    int
	tag     string // To-tag, if the request has none
	headers []Header
	ctype   string
	body    []byte
}

// response writes a response to req (RFC 3261 §8.2.6). req is only read.
func (u *UA) response(f flow, req *sip.Request, r reply) []byte {
	res := sip.NewResponse(r.code, phrase(r.code))
	if r.code > 100 && r.code < 300 {
		sip.CopyHeaders("Record-Route", req, res)
	}
	for i, h := range req.GetHeaders("Via") {
		via, ok := h.(*sip.ViaHeader)
		if !ok {
			continue
		}
		via = via.Clone()
		if i == 0 {
			// RFC 3261 §18.2.1, RFC 3581 §4.
			src := f.peer.Addr().String()
			if _, rport := paramOK(via.Params, "rport"); rport {
				via.Params.Add("rport", strconv.Itoa(int(f.peer.Port())))
				via.Params.Add("received", src)
			} else if strings.Trim(via.Host, "[]") != src {
				via.Params.Add("received", src)
			}
		}
		res.AppendHeader(via)
	}
	if h := req.From(); h != nil {
		res.AppendHeader(sip.HeaderClone(h))
	}
	if h := req.To(); h != nil {
		to := sip.HeaderClone(h).(*sip.ToHeader)
		if r.code > 100 && r.tag != "" && param(to.Params, "tag") == "" {
			to.Params.Add("tag", r.tag)
		}
		res.AppendHeader(to)
	}
	if h := req.CallID(); h != nil {
		res.AppendHeader(h)
	}
	if h := req.CSeq(); h != nil {
		res.AppendHeader(sip.HeaderClone(h))
	}
	for _, h := range req.Headers() { // what could not be read is given back as it came
		if h, ok := h.(*unread); ok && framing[h.name] && h.name != "content-length" {
			res.AppendHeader(sip.NewHeader(h.name, clean(h.Value())))
		}
	}
	if r.code == 100 {
		sip.CopyHeaders("Timestamp", req, res)
	}
	if u.o.UserAgent != "" {
		res.AppendHeader(sip.NewHeader("Server", clean(u.o.UserAgent)))
	}
	for _, h := range r.headers {
		appendHeader(res, h)
	}
	if r.body != nil {
		res.AppendHeader(sip.NewHeader("Content-Type", clean(r.ctype)))
	}
	res.SetBody(r.body)
	return []byte(res.String())
}

// framing are the header fields that only the user agent itself may write.
var framing = map[string]bool{"via": true, "from": true, "to": true, "call-id": true, "cseq": true, "content-length": true}

// appendHeader adds a header field whose parts may be anything: a name that
// is no token or would spoil the message is left out, control characters in
// the value become spaces.
func appendHeader(m sip.Message, h Header) {
	if isToken(h.Name) && !framing[canonical(h.Name)] {
		m.AppendHeader(sip.NewHeader(h.Name, clean(h.Value)))
	}
}

// param returns a parameter by name without regard to case.
func param(ps sip.HeaderParams, name string) string {
	v, _ := paramOK(ps, name)
	return v
}

func paramOK(ps sip.HeaderParams, name string) (string, bool) {
	for _, p := range ps {
		if strings.EqualFold(strings.TrimSpace(p.K), name) {
			return strings.TrimSpace(p.V), true
		}
	}
	return "", false
}

func isToken(s string) bool {
	if s == "" {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("-.!%*_+`'~", c) >= 0) {
			return false
		}
	}
	return true
}

// clean makes a string fit to stand in a header field, a line of a log, or a
// name that is shown: valid UTF-8, on one line, without control characters.
func clean(s string) string {
	if !utf8.ValidString(s) {
		s = strings.ToValidUTF8(s, "�")
	}
	return strings.TrimSpace(strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || r == '\u2028' || r == '\u2029' {
			return ' '
		}
		return r
	}, s))
}

// quote makes a quoted-string (RFC 3261 §25.1).
func quote(s string) string {
	return `"` + escape(s) + `"`
}

// unquote takes the quotes off a quoted-string and undoes its escapes; other
// strings are only trimmed.
func unquote(s string) string {
	s = clean(s)
	if len(s) < 2 || s[0] != '"' || s[len(s)-1] != '"' {
		return s
	}
	return clean(unescape(s[1 : len(s)-1]))
}

// escape makes the inside of a quoted-string.
func escape(s string) string { return escapes.Replace(clean(s)) }

var escapes = strings.NewReplacer(`\`, `\\`, `"`, `\"`)

func unescape(s string) string {
	if strings.IndexByte(s, '\\') < 0 {
		return s
	}
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+1 < len(s) {
			i++
		}
		b = append(b, s[i])
	}
	return string(b)
}

// String returns the value of a Reason header field (RFC 3326).
func (r Reason) String() string {
	p := r.Protocol
	if p == "" {
		p = "Q.850"
	}
	s := p + ";cause=" + strconv.Itoa(r.Cause)
	if r.Text != "" {
		s += ";text=" + quote(r.Text)
	}
	return s
}

func (r Reason) headers() []Header {
	if r.Cause == 0 && r.Text == "" || r.Protocol != "" && !isToken(r.Protocol) {
		return nil
	}
	return []Header{{"Reason", r.String()}}
}

// parseReason reads Reason header fields; of several values Q.850 is taken,
// else the first. The zero Reason: there was none.
func parseReason(m sip.Message) Reason {
	var first Reason
	for _, h := range m.GetHeaders("Reason") {
		for _, v := range splitQuoted(h.Value(), ',') {
			parts := splitQuoted(v, ';')
			r := Reason{Protocol: clean(parts[0])}
			for _, p := range parts[1:] {
				k, val, _ := strings.Cut(p, "=")
				switch strings.ToLower(strings.TrimSpace(k)) {
				case "cause":
					r.Cause, _ = strconv.Atoi(strings.TrimSpace(val))
				case "text":
					r.Text = unquote(val)
				}
			}
			if strings.EqualFold(r.Protocol, "Q.850") {
				return r
			}
			if first == (Reason{}) {
				first = r
			}
		}
	}
	return first
}

// splitQuoted splits at sep outside of quoted strings. It never returns an
// empty slice.
func splitQuoted(s string, sep byte) []string {
	var out []string
	quoted, start := false, 0
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case c == sep && !quoted:
			out = append(out, s[start:i])
			start = i + 1
		}
	}
	return append(out, s[start:])
}

// party reads a URI of From or To. A tel: URI is a number and no host (RFC 3966).
func party(display string, uri *sip.Uri) Party {
	p := Party{Display: clean(unescape(display)), User: unescapeUser(uri.User), Host: strings.Trim(uri.Host, "[]"), URI: clean(uri.String())}
	if scheme, rest, _ := strings.Cut(p.URI, ":"); strings.EqualFold(scheme, "tel") {
		p.User, p.Host = telUser(rest), ""
	}
	return p
}

// telUser is the number of what stands behind tel:, as it is written.
func telUser(s string) string {
	number, _, _ := strings.Cut(s, ";")
	return unescapeUser(number)
}

// unescapeUser decodes a URI's user part; one that is not well escaped is
// taken as it is.
func unescapeUser(s string) string {
	if d, err := url.PathUnescape(s); err == nil {
		s = d
	}
	return clean(s)
}

// escapeUser makes the user part of a URI (RFC 3261 §25.1).
func escapeUser(s string) string {
	var b strings.Builder
	for _, c := range []byte(clean(s)) {
		if 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("-_.!~*'()&=+$,/", c) >= 0 {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}

var compact = map[string]string{
	"a": "accept-contact", "b": "referred-by", "c": "content-type", "e": "content-encoding", "f": "from",
	"i": "call-id", "k": "supported", "l": "content-length", "m": "contact", "o": "event", "r": "refer-to",
	"s": "subject", "t": "to", "u": "allow-events", "v": "via", "x": "session-expires",
}

// canonical returns a header field's name in lower case and in full.
func canonical(name string) string {
	name = strings.ToLower(name)
	if c := compact[name]; c != "" {
		return c
	}
	return name
}

// message is a request or a response.
type message interface {
	Headers() []sip.Header
	Body() []byte
}

// headerValues returns the values of a header field by name, in whatever case
// or form it was written.
func headerValues(m message, name string) []string {
	name = canonical(name)
	var out []string
	for _, h := range m.Headers() {
		if n := h.Name(); len(n) == len(name) && strings.EqualFold(n, name) || len(n) == 1 && canonical(n) == name {
			out = append(out, h.Value())
		}
	}
	return out
}

// count returns how many header fields of that name there are.
func count(m message, name string) (n int) {
	for _, h := range m.Headers() {
		if strings.EqualFold(h.Name(), name) || len(h.Name()) == 1 && strings.EqualFold(compact[strings.ToLower(h.Name())], name) {
			n++
		}
	}
	return n
}

// tokens splits comma-separated header fields into lower-case tokens.
func tokens(values []string) []string {
	var out []string
	for _, v := range values {
		for _, t := range strings.Split(v, ",") {
			if t = strings.ToLower(strings.TrimSpace(t)); t != "" {
				out = append(out, t)
			}
		}
	}
	return out
}
