package jicofo

import (
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"strings"
)

// element is an XML element. Space is its namespace; empty means the
// parent's. Stanzas are in the stream's namespace, which is dropped when
// reading, so that the same tree fits any stream.
type element struct {
	Space, Name string
	Attrs       []attr
	Kids        []*element
	Text        string
}

type attr struct{ Name, Value string }

// Limits of a received stanza.
const (
	maxDepth    = 32
	maxElements = 20000
)

// el builds an element from attribute names and values; attributes with an
// empty value are left out.
func el(space, name string, attrs ...string) *element {
	e := &element{Space: space, Name: name}
	for i := 0; i+1 < len(attrs); i += 2 {
		if attrs[i+1] != "" {
			e.Attrs = append(e.Attrs, attr{attrs[i], attrs[i+1]})
		}
	}
	return e
}

// add appends children, nil ones left out, and returns e.
func (e *element) add(kids ...*element) *element {
	for _, k := range kids {
		if k != nil {
			e.Kids = append(e.Kids, k)
		}
	}
	return e
}

func (e *element) text(s string) *element {
	e.Text = s
	return e
}

// attr returns an attribute, empty when absent. A nil element has none.
func (e *element) attr(name string) string {
	if e == nil {
		return ""
	}
	for _, a := range e.Attrs {
		if a.Name == name {
			return a.Value
		}
	}
	return ""
}

// child returns the first child of that name and, unless space is empty, of
// that namespace.
func (e *element) child(space, name string) *element {
	if e == nil {
		return nil
	}
	for _, k := range e.Kids {
		if k.Name == name && (space == "" || k.Space == space) {
			return k
		}
	}
	return nil
}

func (e *element) children(name string) []*element {
	if e == nil {
		return nil
	}
	var ks []*element
	for _, k := range e.Kids {
		if k.Name == name {
			ks = append(ks, k)
		}
	}
	return ks
}

func (e *element) String() string {
	var b strings.Builder
	e.write(&b, "")
	return b.String()
}

func (e *element) write(b *strings.Builder, parent string) {
	b.WriteByte('<')
	b.WriteString(e.Name)
	space := e.Space
	if space == "" {
		space = parent
	}
	if space != parent {
		fmt.Fprintf(b, " xmlns='%s'", escape(space))
	}
	for _, a := range e.Attrs {
		fmt.Fprintf(b, " %s='%s'", a.Name, escape(a.Value))
	}
	if len(e.Kids) == 0 && e.Text == "" {
		b.WriteString("/>")
		return
	}
	b.WriteByte('>')
	b.WriteString(escape(e.Text))
	for _, k := range e.Kids {
		k.write(b, space)
	}
	b.WriteString("</" + e.Name + ">")
}

func escape(s string) string {
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(s)) // a Builder never fails
	return b.String()
}

// readElement reads the element that start begins.
func readElement(d *xml.Decoder, start xml.StartElement, stream string) (*element, error) {
	n := 0
	return readTree(d, start, stream, 0, &n)
}

func readTree(d *xml.Decoder, start xml.StartElement, stream string, depth int, n *int) (*element, error) {
	if *n++; *n > maxElements || depth > maxDepth {
		return nil, errors.New("stanza too large")
	}
	e := &element{Space: start.Name.Space, Name: start.Name.Local}
	if e.Space == stream {
		e.Space = ""
	}
	for _, a := range start.Attr {
		if a.Name.Space == "" && a.Name.Local != "xmlns" {
			e.Attrs = append(e.Attrs, attr{a.Name.Local, a.Value})
		}
	}
	var text strings.Builder
	for {
		t, err := d.Token()
		if err != nil {
			return nil, err
		}
		switch t := t.(type) {
		case xml.StartElement:
			k, err := readTree(d, t, stream, depth+1, n)
			if err != nil {
				return nil, err
			}
			e.Kids = append(e.Kids, k)
		case xml.CharData:
			text.Write(t)
		case xml.EndElement:
			e.Text = text.String()
			if len(e.Kids) > 0 {
				e.Text = strings.TrimSpace(e.Text)
			}
			return e, nil
		}
	}
}

// parseElement reads one element from text, as a stanza of any client or
// component stream.
func parseElement(r io.Reader) (*element, error) {
	d := xml.NewDecoder(r)
	for {
		t, err := d.Token()
		if err != nil {
			return nil, err
		}
		if start, ok := t.(xml.StartElement); ok {
			return readElement(d, start, start.Name.Space)
		}
	}
}

// jid helpers: the parts are compared as the server sends them.

func bareOf(jid string) string {
	bare, _, _ := strings.Cut(jid, "/")
	return bare
}

func resourceOf(jid string) string {
	_, res, _ := strings.Cut(jid, "/")
	return res
}

func domainOf(jid string) string {
	bare := bareOf(jid)
	if i := strings.IndexByte(bare, '@'); i >= 0 {
		return bare[i+1:]
	}
	return bare
}

func localOf(jid string) string {
	bare := bareOf(jid)
	if i := strings.IndexByte(bare, '@'); i >= 0 {
		return bare[:i]
	}
	return ""
}
