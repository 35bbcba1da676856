package xmppd

import (
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"strings"
)

// XML namespaces.
const (
	nsClient    = "jabber:client"
	nsComponent = "jabber:component:accept"
	nsBOSH      = "http://jabber.org/protocol/httpbind"
	nsXBOSH     = "urn:xmpp:xbosh"
	nsStream    = "http://etherx.jabber.org/streams"
	nsStreams   = "urn:ietf:params:xml:ns:xmpp-streams"
	nsStanzas   = "urn:ietf:params:xml:ns:xmpp-stanzas"
	nsSASL      = "urn:ietf:params:xml:ns:xmpp-sasl"
	nsTLS       = "urn:ietf:params:xml:ns:xmpp-tls"
	nsBind      = "urn:ietf:params:xml:ns:xmpp-bind"
	nsSession   = "urn:ietf:params:xml:ns:xmpp-session"
	nsFraming   = "urn:ietf:params:xml:ns:xmpp-framing"
	nsMUC       = "http://jabber.org/protocol/muc"
	nsMUCUser   = "http://jabber.org/protocol/muc#user"
	nsMUCAdmin  = "http://jabber.org/protocol/muc#admin"
	nsMUCOwner  = "http://jabber.org/protocol/muc#owner"
	nsDiscoInfo = "http://jabber.org/protocol/disco#info"
	nsDiscoItem = "http://jabber.org/protocol/disco#items"
	nsPing      = "urn:xmpp:ping"
	nsData      = "jabber:x:data"
	nsConfJID   = "jabber:x:conference"
	nsRoster    = "jabber:iq:roster"
	nsVersion   = "jabber:iq:version"
	nsExtDisco  = "urn:xmpp:extdisco:2"
	nsNick      = "http://jabber.org/protocol/nick"
	nsCaps      = "http://jabber.org/protocol/caps"
	nsOccupant  = "urn:xmpp:occupant-id:0"
	nsJitmeet   = "http://jitsi.org/jitmeet"
	nsFocus     = "http://jitsi.org/protocol/focus"
	nsXML       = "http://www.w3.org/XML/1998/namespace"
)

const maxDepth = 64

var errXML = errors.New("malformed XML")

// attr is an attribute; xml:lang has the local name "xml:lang".
type attr struct{ Name, Value string }

// element is an XML element. It is never changed once it was delivered: who
// wants another one makes a copy with clone or with.
type element struct {
	NS, Name string
	Attrs    []attr
	Kids     []any // *element or string
}

// el builds an element; attributes come in pairs of name and value, pairs with
// an empty value are left out.
func el(ns, name string, pairs ...string) *element {
	e := &element{NS: ns, Name: name}
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			e.Attrs = append(e.Attrs, attr{pairs[i], pairs[i+1]})
		}
	}
	return e
}

// add appends children (*element or string) and returns e.
func (e *element) add(kids ...any) *element {
	for _, k := range kids {
		if c, ok := k.(*element); ok && c == nil {
			continue
		}
		e.Kids = append(e.Kids, k)
	}
	return e
}

// text is the element's own character data.
func (e *element) text() string {
	if e == nil {
		return ""
	}
	var b strings.Builder
	for _, k := range e.Kids {
		if s, ok := k.(string); ok {
			b.WriteString(s)
		}
	}
	return b.String()
}

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

func (e *element) has(name string) bool {
	for _, a := range e.Attrs {
		if a.Name == name {
			return true
		}
	}
	return false
}

// children are the child elements.
func (e *element) children() []*element {
	if e == nil {
		return nil
	}
	var out []*element
	for _, k := range e.Kids {
		if c, ok := k.(*element); ok {
			out = append(out, c)
		}
	}
	return out
}

func (e *element) first() *element {
	if e == nil {
		return nil
	}
	for _, k := range e.Kids {
		if c, ok := k.(*element); ok {
			return c
		}
	}
	return nil
}

func (e *element) child(ns, name string) *element {
	if e == nil {
		return nil
	}
	for _, k := range e.Kids {
		if c, ok := k.(*element); ok && c.Name == name && c.NS == ns {
			return c
		}
	}
	return nil
}

// clone copies the element and its lists; the children stay shared.
func (e *element) clone() *element {
	c := *e
	c.Attrs = append([]attr(nil), e.Attrs...)
	c.Kids = append([]any(nil), e.Kids...)
	return &c
}

// with returns a copy with attributes set; an empty value removes one.
func (e *element) with(pairs ...string) *element {
	c := e.clone()
	for i := 0; i+1 < len(pairs); i += 2 {
		c.set(pairs[i], pairs[i+1])
	}
	return c
}

// set changes an attribute in place; an empty value removes it.
func (e *element) set(name, value string) {
	for i, a := range e.Attrs {
		if a.Name != name {
			continue
		}
		if value == "" {
			e.Attrs = append(e.Attrs[:i], e.Attrs[i+1:]...)
		} else {
			e.Attrs[i].Value = value
		}
		return
	}
	if value != "" {
		e.Attrs = append(e.Attrs, attr{name, value})
	}
}

// remap changes a namespace in the element and all below, in place.
func (e *element) remap(from, to string) {
	if e.NS == from {
		e.NS = to
	}
	for _, c := range e.children() {
		c.remap(from, to)
	}
}

// encode writes the element where parent is the default namespace in force.
// Stanzas may be written in another stream's content namespace.
func (e *element) encode(parent, content string) string {
	var b strings.Builder
	w := xmlWriter{&b, content}
	w.element(e, parent)
	return b.String()
}

// String is the element as it stands alone.
func (e *element) String() string { return e.encode("", nsClient) }

type xmlWriter struct {
	*strings.Builder
	content string
}

func (w xmlWriter) element(e *element, parent string) {
	ns := e.NS
	if ns == nsClient {
		ns = w.content
	}
	name := e.Name
	if ns == nsStream {
		name, ns = "stream:"+name, w.content
	}
	w.WriteByte('<')
	w.WriteString(name)
	if ns != parent {
		w.attr("xmlns", ns)
	}
	for _, a := range e.Attrs {
		w.attr(a.Name, a.Value)
	}
	if len(e.Kids) == 0 {
		w.WriteString("/>")
		return
	}
	w.WriteByte('>')
	for _, k := range e.Kids {
		switch k := k.(type) {
		case string:
			w.WriteString(escape(k))
		case *element:
			w.element(k, ns)
		}
	}
	w.WriteString("</")
	w.WriteString(name)
	w.WriteByte('>')
}

func (w xmlWriter) attr(name, value string) {
	w.WriteByte(' ')
	w.WriteString(name)
	w.WriteString("='")
	w.WriteString(escape(value))
	w.WriteByte('\'')
}

var escaper = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", "'", "&apos;", `"`, "&quot;")

func escape(s string) string { return escaper.Replace(s) }

// reader parses a stream of elements, counting bytes so that no element grows
// beyond a limit.
type xmlReader struct {
	dec   *xml.Decoder
	in    *countingReader
	limit int64
}

// countingReader fails when more than left bytes were read.
type countingReader struct {
	io.ByteReader
	left int64
}

func (c *countingReader) ReadByte() (byte, error) {
	if c.left <= 0 {
		return 0, fmt.Errorf("%w: too large", errXML)
	}
	c.left--
	return c.ByteReader.ReadByte()
}

func (c *countingReader) Read([]byte) (int, error) {
	panic("xmppd: the XML decoder reads by byte")
}

func newXMLReader(in io.ByteReader, limit int64) *xmlReader {
	cr := &countingReader{in, limit}
	return &xmlReader{xml.NewDecoder(cr), cr, limit}
}

// start reads the next start tag.
func (r *xmlReader) start() (*element, error) {
	r.in.left = r.limit
	for {
		t, err := r.dec.Token()
		if err != nil {
			return nil, err
		}
		switch t := t.(type) {
		case xml.StartElement:
			return newElement(t), nil
		case xml.EndElement:
			return nil, io.EOF
		case xml.CharData:
		case xml.ProcInst:
			if t.Target != "xml" {
				return nil, fmt.Errorf("%w: processing instruction", errXML)
			}
		default: // XMPP forbids comments and doctypes (RFC 6120 §11.1)
			return nil, fmt.Errorf("%w: restricted XML", errXML)
		}
	}
}

// element reads the next whole element; io.EOF means that the parent ended.
func (r *xmlReader) element() (*element, error) {
	e, err := r.start()
	if err != nil {
		return nil, err
	}
	return e, r.content(e, 0)
}

func (r *xmlReader) content(e *element, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("%w: too deep", errXML)
	}
	for {
		t, err := r.dec.Token()
		if err != nil {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return err
		}
		switch t := t.(type) {
		case xml.StartElement:
			c := newElement(t)
			if err := r.content(c, depth+1); err != nil {
				return err
			}
			e.Kids = append(e.Kids, c)
		case xml.EndElement:
			return nil
		case xml.CharData:
			e.Kids = append(e.Kids, string(t))
		default:
			return fmt.Errorf("%w: restricted XML", errXML)
		}
	}
}

func newElement(t xml.StartElement) *element {
	e := &element{NS: t.Name.Space, Name: t.Name.Local}
	for _, a := range t.Attr {
		switch a.Name.Space {
		case "":
			if a.Name.Local != "xmlns" {
				e.Attrs = append(e.Attrs, attr{a.Name.Local, a.Value})
			}
		case "xmlns":
		case "xml", nsXML:
			e.Attrs = append(e.Attrs, attr{"xml:" + a.Name.Local, a.Value})
		case "xmpp", nsXBOSH:
			e.Attrs = append(e.Attrs, attr{"xmpp:" + a.Name.Local, a.Value})
		default: // no protocol of ours has such attributes
		}
	}
	return e
}

// parse reads exactly one element.
func parse(s string) (*element, error) {
	r := newXMLReader(strings.NewReader(s), int64(len(s)))
	e, err := r.element()
	if err != nil {
		return nil, err
	}
	if _, err := r.start(); err != io.EOF {
		return nil, fmt.Errorf("%w: data after the element", errXML)
	}
	return e, nil
}
