package siptest

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// field is a header field.
type field struct{ name, value string }

// message is a SIP message, header fields as they came.
type message struct {
	start  string
	fields []field
	body   []byte
}

var long = map[string]string{
	"c": "content-type", "f": "from", "i": "call-id", "k": "supported", "l": "content-length",
	"m": "contact", "t": "to", "v": "via",
}

// parseMessage reads one message. It returns how many bytes it took; 0 with
// no error: more are needed.
func parseMessage(b []byte) (*message, int, error) {
	head, _, ok := bytes.Cut(b, []byte("\r\n\r\n"))
	if !ok {
		return nil, 0, nil
	}
	lines := strings.Split(string(head), "\r\n")
	m := &message{start: lines[0]}
	for _, l := range lines[1:] {
		if l != "" && (l[0] == ' ' || l[0] == '\t') && len(m.fields) > 0 {
			m.fields[len(m.fields)-1].value += " " + strings.TrimSpace(l)
			continue
		}
		name, value, ok := strings.Cut(l, ":")
		if !ok {
			return nil, 0, fmt.Errorf("header line %q", l)
		}
		m.fields = append(m.fields, field{strings.TrimSpace(name), strings.TrimSpace(value)})
	}
	n := len(head) + 4
	length, err := strconv.Atoi(m.get("Content-Length"))
	if err != nil {
		length = len(b) - n // a datagram may do without
	}
	if length < 0 || length > 1<<16 {
		return nil, 0, errors.New("content length")
	}
	if len(b) < n+length {
		return nil, 0, nil
	}
	m.body = bytes.Clone(b[n : n+length])
	return m, n + length, nil
}

func canon(name string) string {
	name = strings.ToLower(name)
	if l := long[name]; l != "" {
		return l
	}
	return name
}

// all returns the values of a header field.
func (m *message) all(name string) []string {
	var out []string
	for _, f := range m.fields {
		if canon(f.name) == canon(name) {
			out = append(out, f.value)
		}
	}
	return out
}

// get returns the first value of a header field, or "".
func (m *message) get(name string) string {
	for _, v := range m.all(name) {
		return v
	}
	return ""
}

func (m *message) add(name, value string) { m.fields = append(m.fields, field{name, value}) }

// bytes writes the message with its Content-Length.
func (m *message) bytes() []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s\r\n", m.start)
	for _, f := range m.fields {
		fmt.Fprintf(&b, "%s: %s\r\n", f.name, f.value)
	}
	fmt.Fprintf(&b, "Content-Length: %d\r\n\r\n%s", len(m.body), m.body)
	return b.Bytes()
}

// status returns the code of a response, 0 for a request.
func (m *message) status() int {
	rest, ok := strings.CutPrefix(m.start, "SIP/2.0 ")
	if !ok || len(rest) < 3 {
		return 0
	}
	n, _ := strconv.Atoi(rest[:3])
	return n
}

// method returns the method of a request, or that of a response's CSeq.
func (m *message) method() string {
	if m.status() != 0 {
		_, method, _ := strings.Cut(m.get("CSeq"), " ")
		return strings.TrimSpace(method)
	}
	method, _, _ := strings.Cut(m.start, " ")
	return method
}

// seq returns the number in CSeq.
func (m *message) seq() int {
	n, _, _ := strings.Cut(m.get("CSeq"), " ")
	i, _ := strconv.Atoi(n)
	return i
}

// respond makes a response to a request, with our tag.
func (m *message) respond(code int, phrase, tag string) *message {
	r := &message{start: fmt.Sprintf("SIP/2.0 %d %s", code, phrase)}
	for _, name := range []string{"Via", "Record-Route", "From", "To", "Call-ID", "CSeq"} {
		for _, v := range m.all(name) {
			if name == "To" && tagOf(v) == "" {
				v += ";tag=" + tag
			}
			r.add(name, v)
		}
	}
	return r
}

// tagOf returns the tag parameter of a From or To value.
func tagOf(v string) string {
	if i := strings.LastIndexByte(v, '>'); i >= 0 {
		v = v[i:]
	}
	for _, p := range strings.Split(v, ";")[1:] {
		if k, val, _ := strings.Cut(p, "="); strings.EqualFold(strings.TrimSpace(k), "tag") {
			return strings.TrimSpace(val)
		}
	}
	return ""
}

// uriOf returns the URI of a name-addr or addr-spec.
func uriOf(v string) string {
	if _, rest, ok := strings.Cut(v, "<"); ok {
		uri, _, _ := strings.Cut(rest, ">")
		return uri
	}
	uri, _, _ := strings.Cut(v, ";")
	return strings.TrimSpace(uri)
}

// hostPort returns "host:port" of a SIP URI.
func hostPort(uri string) (string, error) {
	rest, ok := strings.CutPrefix(uri, "sip:")
	if !ok {
		return "", fmt.Errorf("no SIP URI: %q", uri)
	}
	rest, _, _ = strings.Cut(rest, ";")
	rest, _, _ = strings.Cut(rest, "?")
	if i := strings.LastIndexByte(rest, '@'); i >= 0 {
		rest = rest[i+1:]
	}
	if strings.HasSuffix(rest, "]") || !strings.Contains(rest, ":") {
		rest += ":5060"
	}
	return rest, nil
}
