package sip

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/emiago/sipgo/sip"
)

// The message parser is a library's. What it would take too lightly, or would
// stumble over, is brought into a plain form or refused here: the start line,
// lines (folded, several values in one), and the header fields that steer a
// message.

// syntaxError says why a message cannot be taken, and what a request that is
// so is answered with.
type syntaxError struct {
	code int
	text string
}

func (e *syntaxError) Error() string { return e.text }

// codeOf is what a request that could not be read is answered with.
func codeOf(err error) int {
	var s *syntaxError
	switch {
	case errors.Is(err, sip.ErrMessageTooLarge):
		return sip.StatusMessageTooLarge
	case errors.As(err, &s):
		return s.code
	}
	return sip.StatusBadRequest
}

var crlf = []byte("\r\n")

// newParser returns a parser for messages that plain has seen.
func newParser(limit int) *sip.Parser {
	p := sip.NewParser(sip.WithHeadersParsers(fields))
	p.MaxMessageLength = limit + 1024 // a little more than before it was plain
	return p
}

// readMessage reads one message. With an error it still returns what could be
// read of a request, for the answer.
func readMessage(p *sip.Parser, b []byte) (msg sip.Message, err error) {
	// The parser is not ours and its input is anybody's.
	defer func() {
		if r := recover(); r != nil {
			msg, err = nil, fmt.Errorf("parser: %v", r)
		}
	}()
	start, rest, ok := bytes.Cut(b, crlf)
	if !ok {
		return nil, errors.New("no line")
	}
	first, method, startErr := startLine(string(start))
	if first == "" {
		return nil, startErr
	}
	text, lineErr := plain(rest)
	if len(rest) == 0 || &text[0] != &rest[0] || first != string(start) {
		text = slices.Concat([]byte(first), crlf, text)
	} else {
		text = b
	}
	msg, err = p.ParseSIP(text)
	if msg == nil {
		return nil, err
	}
	if r, ok := msg.(*sip.Request); ok {
		r.Method = sip.RequestMethod(method) // as it is written: RFC 3261 §7.1
	}
	for _, e := range []error{startErr, lineErr, unreadable(msg.(message), method)} {
		if e != nil {
			return msg, e
		}
	}
	return msg, err
}

// startLine returns a start line that can be parsed, and the method of a
// request. With an error the line only stands in for the one that cannot; "":
// this is no SIP.
func startLine(s string) (line, method string, err error) {
	if _, ok := strings.CutPrefix(s, "SIP/"); ok {
		version, rest, _ := strings.Cut(s, " ")
		code, phrase, _ := strings.Cut(rest, " ")
		n, err := strconv.ParseUint(code, 10, 16)
		if version != "SIP/2.0" || err != nil || len(code) != 3 || n < 100 || n > 699 {
			return "", "", errors.New("unreadable status line")
		}
		return version + " " + code + " " + phrase, "", nil
	}
	parts := strings.Split(s, " ")
	method = parts[0]
	if !isToken(method) || !slices.ContainsFunc(parts[1:], func(p string) bool { return len(p) > 3 && strings.EqualFold(p[:4], "SIP/") }) {
		return "", "", errors.New("no SIP message")
	}
	stand := method + " sip:unreadable.invalid SIP/2.0"
	if len(parts) != 3 {
		return stand, method, &syntaxError{400, "unreadable request line"}
	}
	if !strings.EqualFold(parts[2], "SIP/2.0") {
		return stand, method, &syntaxError{505, "SIP version"}
	}
	uri, err := readURI(parts[1])
	if err == nil && len(uri.Headers) > 0 {
		err = errors.New("header fields in it") // RFC 3261 §19.1.1
	}
	if err != nil {
		return stand, method, &syntaxError{400, "Request-URI: " + err.Error()}
	}
	switch uri.Scheme {
	case "sip", "sips":
		return method + " " + parts[1] + " SIP/2.0", method, nil
	case "tel":
		number, ok := telNumber(parts[1][len("tel:"):])
		if !ok {
			return stand, method, &syntaxError{400, "Request-URI: no telephone number"}
		}
		return method + " sip:" + number + "@tel.invalid;user=phone SIP/2.0", method, nil
	}
	return stand, method, &syntaxError{416, "URI scheme"}
}

// telNumber returns what stands behind tel: as the user part that a SIP URI has
// for it (RFC 3261 §19.1.6), without visual separators (RFC 3966 §3) and
// without parameters: of a local number the trunk is context enough.
func telNumber(s string) (user string, ok bool) {
	s, _, _ = strings.Cut(s, ";")
	var b strings.Builder
	for i, r := range s {
		switch {
		case r >= '0' && r <= '9', r == '*', r == '+' && i == 0:
			b.WriteRune(r)
		case r == '#':
			b.WriteString("%23")
		case !strings.ContainsRune("-.()", r):
			return "", false
		}
	}
	return b.String(), strings.Trim(b.String(), "+") != ""
}

// lists are the header fields of which several may stand in one line and that
// are parsed.
var lists = map[string]bool{"via": true, "v": true, "contact": true, "m": true, "record-route": true}

// plain brings header fields into a form with a line for each, and leaves the
// body alone. Where nothing is to be done it returns b itself. b begins after
// the start line.
func plain(b []byte) (out []byte, err error) {
	head, body, ok := b, []byte(nil), bytes.HasPrefix(b, crlf)
	if ok { // no header fields at all
		return b, errors.New("no header fields")
	}
	if head, body, ok = bytes.Cut(b, []byte("\r\n\r\n")); !ok {
		// A datagram without an empty line is cut off.
		return slices.Concat(bytes.TrimRight(b, "\r\n"), crlf, crlf), errors.New("no end of the header fields")
	}
	if isPlain(head) {
		return b, nil
	}
	out = make([]byte, 0, len(b)+256)
	lines := strings.Split(string(head), "\r\n")
	for i := 0; i < len(lines); i++ {
		line := lines[i]
		for i+1 < len(lines) && folded(lines[i+1]) {
			i++
			line = strings.TrimRight(line, " \t") + " " + strings.TrimLeft(lines[i], " \t")
		}
		name, value, ok := strings.Cut(line, ":")
		name = strings.TrimRight(name, " \t")
		if !ok || !isToken(name) || strings.ContainsAny(value, "\r\n") {
			err = errors.New("a line that is no header field")
			continue
		}
		values := []string{value}
		if lists[strings.ToLower(name)] {
			values = splitList(value)
		}
		for _, v := range values {
			out = append(out, name...)
			out = append(out, ": "...)
			out = append(out, strings.Trim(v, " \t")...)
			out = append(out, crlf...)
		}
	}
	return append(append(out, crlf...), body...), err
}

// isPlain reports whether header fields have a line for each already.
func isPlain(head []byte) bool {
	for line := range bytes.SplitSeq(head, crlf) {
		name, value, ok := bytes.Cut(line, []byte(":"))
		if !ok || bytes.ContainsAny(line, "\r\n") || !isToken(string(name)) ||
			bytes.IndexByte(value, ',') >= 0 && lists[strings.ToLower(string(name))] {
			return false
		}
	}
	return true
}

func folded(line string) bool { return line != "" && (line[0] == ' ' || line[0] == '\t') }

// splitList splits at commas outside of quoted strings and angle brackets.
func splitList(s string) []string {
	var out []string
	quoted, angle, start := false, false, 0
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '<':
			angle = true
		case c == '>':
			angle = false
		case c == ',' && !angle:
			out = append(out, s[start:i])
			start = i + 1
		}
	}
	return append(out, s[start:])
}

// unread is a header field that could not be read. The library must not find
// it by its name, since it would read it itself.
type unread struct {
	sip.Header
	name string
	err  error
}

// unreadable says which header field of a message is in the way. Where only
// the frame matters, the rest may be what it likes: a BYE ends the call.
func unreadable(m message, method string) error {
	strict := method != "" && method != "BYE" && method != "CANCEL" && method != "ACK"
	lengths := map[string]bool{}
	for _, h := range m.Headers() {
		switch h := h.(type) {
		case *unread:
			if strict || framing[h.name] {
				return fmt.Errorf("%s: %w", h.name, h.err)
			}
		case *sip.ContentLengthHeader:
			lengths[h.Value()] = true
		}
	}
	if len(lengths) > 1 {
		return errors.New("Content-Length: more than one")
	}
	return nil
}
