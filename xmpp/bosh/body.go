package bosh

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"strconv"

	"mellium.im/xmlstream"

	"brewline/xmpp/internal/split"
)

const (
	nsBOSH = "http://jabber.org/protocol/httpbind"
	nsXBSH = "urn:xmpp:xbosh"
)

// maxBody bounds the elements kept of one answer, in bytes.
const maxBody = 16 << 20

// errBody marks an answer that is no BOSH body at all.
var errBody = errors.New("not a BOSH body")

// Body is an answer of the connection manager (XEP-0124 §7).
type Body struct {
	Type      string // "" or "terminate"
	Condition string // why it terminates
	SID       string
	Wait      int // seconds, 0 if not given
	// Inactivity is how many seconds the session lives without a request.
	Inactivity int
	Requests   int
	// Elements are the stanzas, in order.
	Elements []split.Element
}

type bodyHead struct {
	XMLName    xml.Name
	Type       string `xml:"type,attr"`
	Condition  string `xml:"condition,attr"`
	SID        string `xml:"sid,attr"`
	Wait       string `xml:"wait,attr"`
	Inactivity string `xml:"inactivity,attr"`
	Requests   string `xml:"requests,attr"`
}

// ReadBody reads one answer. Elements larger than maxStanza bytes are
// reduced to their start tag and marked bad.
func ReadBody(r io.Reader, maxStanza int) (*Body, error) {
	var b bodyReader
	s := split.New(&b, maxStanza, true)
	buf := make([]byte, 4096)
	for {
		n, err := r.Read(buf)
		if ferr := s.Feed(buf[:n]); ferr != nil {
			return nil, fmt.Errorf("%w: %w", errBody, ferr)
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, err
		}
	}
	if !s.Done() {
		if !b.opened {
			return nil, errBody
		}
		return nil, io.ErrUnexpectedEOF
	}
	return &b.Body, nil
}

type bodyReader struct {
	Body
	opened bool
	size   int
}

func (b *bodyReader) Root(tag []byte) error {
	b.opened = true
	var h bodyHead
	if err := parseTag(tag, &h); err != nil {
		return err
	}
	if h.XMLName.Local != "body" || h.XMLName.Space != nsBOSH {
		return fmt.Errorf("root is %.40q", h.XMLName.Local)
	}
	num := func(s string) int {
		n, err := strconv.Atoi(s)
		if err != nil || n < 0 || n > 1<<20 {
			return 0
		}
		return n
	}
	b.Body = Body{Type: h.Type, Condition: h.Condition, SID: h.SID,
		Wait: num(h.Wait), Inactivity: num(h.Inactivity), Requests: num(h.Requests)}
	return nil
}

func (b *bodyReader) Element(e split.Element) error {
	if b.size += len(e.Data) + 64; b.size > maxBody {
		return fmt.Errorf("more than %d bytes", maxBody)
	}
	b.Elements = append(b.Elements, e)
	return nil
}

func (b *bodyReader) End() error { return nil }

// parseTag decodes the attributes of a start tag.
func parseTag(tag []byte, v any) error {
	d := xml.NewDecoder(bytes.NewReader(tag))
	for {
		t, err := d.Token()
		if err != nil {
			return err
		}
		if start, ok := t.(xml.StartElement); ok {
			return xml.NewTokenDecoder(xmlstream.Wrap(nil, start)).Decode(v)
		}
	}
}

// escape appends s as an attribute value.
func escape(b []byte, s string) []byte {
	w := bytes.NewBuffer(b)
	_ = xml.EscapeText(w, []byte(s))
	return w.Bytes()
}

func attr(b []byte, name, value string) []byte {
	b = append(b, ' ')
	b = append(b, name...)
	b = append(b, '=', '\'')
	b = escape(b, value)
	return append(b, '\'')
}
