// Package split cuts a byte stream of XML into its top-level elements without
// interpreting them, so that one element that does not decode, or is too big
// to keep, spoils nothing but itself.
package split

import (
	"bytes"
	"errors"
)

// Element is one whole element.
type Element struct {
	// Data is the element's bytes, a copy of its own. When Bad, only the
	// start tag is kept (nothing at all if even that was too long).
	Data []byte
	// Bad: the element was larger than the limit or nested too deeply.
	Bad bool
}

// Sink receives what a Splitter finds.
type Sink interface {
	// Root is called with the start tag of the root. The bytes are valid
	// during the call.
	Root(tag []byte) error
	// Element is called for every element directly inside the root.
	Element(Element) error
	// End is called when the root is closed.
	End() error
}

// Errors that make the rest of a stream useless.
var (
	ErrDoctype = errors.New("xml: document type declaration")
	ErrTags    = errors.New("xml: end tag without start tag")
	ErrHead    = errors.New("xml: start tag of the root too long")
	ErrEnd     = errors.New("xml: element after the root")
)

const (
	maxDepth = 200
	maxHead  = 16 << 10
)

type state uint8

const (
	inText    state = iota
	afterLT         // <
	inTag           // inside a start tag
	tagSlash        // / inside a start tag
	inQuote         // inside an attribute value
	inEnd           // </…
	inPI            // <?…
	piMark          // <?…?
	afterBang       // <!…
	inComment
	inCDATA
)

// Splitter is the state of one stream. The zero value is not usable.
type Splitter struct {
	sink  Sink
	max   int
	base  int // depth of the elements that are reported: 1 with a root, else 0
	depth int
	state state
	quote byte
	bang  []byte // what followed <!, while it is undecided
	tail  [2]byte

	keep    bool // bytes go to buf
	buf     []byte
	head    int // length of the first start tag in buf, 0 while unknown
	bad     bool
	endRoot bool
}

// New makes a splitter for elements of at most max bytes. With rooted, they
// are the children of a root element, as in a stream or a BOSH body; without,
// they stand alone.
func New(sink Sink, max int, rooted bool) *Splitter {
	s := &Splitter{sink: sink, max: max}
	if rooted {
		s.base = 1
	}
	return s
}

// Reset makes the splitter expect a new root.
func (s *Splitter) Reset() {
	*s = Splitter{sink: s.sink, max: s.max, base: s.base, buf: s.buf[:0]}
}

// Done reports whether the root was opened and closed and nothing is pending.
func (s *Splitter) Done() bool { return s.endRoot && s.state == inText }

// Between reports whether no element has begun that did not end.
func (s *Splitter) Between() bool { return s.state == inText && !s.keep }

// Feed takes the next bytes.
func (s *Splitter) Feed(b []byte) error {
	for len(b) > 0 {
		n, err := s.step(b)
		if err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

// step consumes at least one byte of b, which is not empty.
func (s *Splitter) step(b []byte) (int, error) {
	c := b[0]
	switch s.state {
	case inText:
		i := bytes.IndexByte(b, '<')
		if i != 0 {
			if i < 0 {
				i = len(b)
			}
			s.add(b[:i])
			return i, nil
		}
		if !s.keep {
			s.keep, s.bad, s.head, s.buf = true, false, 0, s.buf[:0]
		}
		s.state = afterLT
	case afterLT:
		switch c {
		case '/':
			s.state = inEnd
		case '?':
			s.state = inPI
		case '!':
			s.state, s.bang = afterBang, s.bang[:0]
		default:
			if s.endRoot {
				return 0, ErrEnd
			}
			s.state = inTag
		}
	case inTag:
		i := bytes.IndexAny(b, `"'/>`)
		if i < 0 {
			s.add(b)
			return len(b), s.checkHead()
		}
		s.add(b[:i+1])
		switch b[i] {
		case '>':
			s.state = inText
			return i + 1, s.opened(false)
		case '/':
			s.state = tagSlash
		default:
			s.state, s.quote = inQuote, b[i]
		}
		return i + 1, s.checkHead()
	case tagSlash:
		switch c {
		case '>':
			s.add(b[:1])
			s.state = inText
			return 1, s.opened(true)
		case '/':
		case '"', '\'':
			s.state, s.quote = inQuote, c
		default:
			s.state = inTag
		}
	case inQuote:
		i := bytes.IndexByte(b, s.quote)
		if i < 0 {
			s.add(b)
			return len(b), s.checkHead()
		}
		s.add(b[:i+1])
		s.state = inTag
		return i + 1, nil
	case inEnd:
		i := bytes.IndexByte(b, '>')
		if i < 0 {
			s.add(b)
			return len(b), nil
		}
		s.add(b[:i+1])
		s.state = inText
		return i + 1, s.closed()
	case inPI:
		if c == '?' {
			s.state = piMark
		}
	case piMark:
		switch c {
		case '>':
			s.add(b[:1])
			s.state = inText
			s.passed()
			return 1, nil
		case '?':
		default:
			s.state = inPI
		}
	case afterBang:
		s.bang = append(s.bang, c)
		switch {
		case string(s.bang) == "--":
			s.state, s.tail = inComment, [2]byte{}
		case string(s.bang) == "[CDATA[":
			s.state, s.tail = inCDATA, [2]byte{}
		case !bytes.HasPrefix([]byte("[CDATA["), s.bang) && string(s.bang) != "-":
			return 0, ErrDoctype
		}
	case inComment, inCDATA:
		mark := byte('-')
		if s.state == inCDATA {
			mark = ']'
		}
		if c == '>' && s.tail == [2]byte{mark, mark} {
			s.add(b[:1])
			s.state = inText
			s.passed()
			return 1, nil
		}
		s.tail = [2]byte{s.tail[1], c}
	}
	s.add(b[:1])
	return 1, nil
}

// add keeps bytes of the current element, up to the limit.
func (s *Splitter) add(b []byte) {
	switch {
	case !s.keep || s.bad:
	case len(s.buf)+len(b) > s.max:
		s.spoil()
	default:
		s.buf = append(s.buf, b...)
	}
}

func (s *Splitter) spoil() {
	s.bad = true
	s.buf = s.buf[:s.head]
}

func (s *Splitter) checkHead() error {
	if s.depth < s.base && (s.bad || len(s.buf) > maxHead) {
		return ErrHead
	}
	return nil
}

// opened is called at the end of a start tag.
func (s *Splitter) opened(empty bool) error {
	if s.depth < s.base {
		if s.bad {
			return ErrHead
		}
		err := s.sink.Root(s.buf)
		s.keep = false
		if err != nil {
			return err
		}
		if empty {
			s.endRoot = true
			return s.sink.End()
		}
		s.depth++
		return nil
	}
	if s.head == 0 && !s.bad {
		s.head = len(s.buf)
	}
	s.depth++
	if s.depth > s.base+maxDepth && !s.bad {
		s.spoil()
	}
	if empty {
		return s.closed()
	}
	return nil
}

// closed is called at the end of an element.
func (s *Splitter) closed() error {
	if s.depth == 0 {
		return ErrTags
	}
	s.depth--
	switch s.depth {
	case s.base:
		s.keep = false
		return s.sink.Element(Element{Data: append([]byte(nil), s.buf...), Bad: s.bad})
	case s.base - 1:
		s.keep = false
		s.endRoot = true
		return s.sink.End()
	}
	return nil
}

// passed is called after something that is no element.
func (s *Splitter) passed() {
	if s.depth <= s.base {
		s.keep = false
	}
}
