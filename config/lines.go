package config

import (
	"strconv"
	"strings"
	"unicode/utf8"
)

// lineMap tells on which line a key stands, by its path: "shard[1].login.kind",
// "trunk[0].match[2]". The TOML library names keys, but not where they are.
type lineMap map[string]int

// of returns the line of a path or else of the nearest table around it.
func (m lineMap) of(path string) int {
	for path != "" {
		if n, ok := m[path]; ok {
			return n
		}
		path = path[:max(strings.LastIndexAny(path, ".["), 0)]
	}
	return 0
}

// scanLines finds the keys of a text that is known to be valid TOML.
func scanLines(src string) lineMap {
	s := &lineScanner{src: strings.TrimPrefix(src, "\ufeff"), line: 1, lines: lineMap{}, counts: map[string]int{}}
	for s.pos < len(s.src) {
		switch c := s.src[s.pos]; {
		case c == '#':
			s.comment()
		case strings.ContainsRune(" \t\r\n,]}", rune(c)):
			s.advance(1)
		case c == '[':
			s.header()
		default:
			s.pair(s.table)
		}
	}
	return s.lines
}

// maxNesting bounds arrays within arrays. Nothing of ours nests so deep.
const maxNesting = 32

type lineScanner struct {
	src       string
	pos, line int
	depth     int
	table     string         // path of the table that pairs belong to
	counts    map[string]int // how many elements each array of tables has
	lines     lineMap
}

func (s *lineScanner) peek() byte {
	if s.pos < len(s.src) {
		return s.src[s.pos]
	}
	return 0
}

func (s *lineScanner) advance(n int) {
	end := min(s.pos+n, len(s.src))
	s.line += strings.Count(s.src[s.pos:end], "\n")
	s.pos = end
}

// until advances to the first of these characters, or to the end.
func (s *lineScanner) until(chars string) {
	if n := strings.IndexAny(s.src[s.pos:], chars); n >= 0 {
		s.advance(n)
	} else {
		s.advance(len(s.src))
	}
}

func (s *lineScanner) comment() { s.until("\n") }

func (s *lineScanner) blanks() {
	for s.pos < len(s.src) && strings.IndexByte(" \t", s.src[s.pos]) >= 0 {
		s.pos++
	}
}

// space skips everything between the elements of an array or inline table.
func (s *lineScanner) space() {
	for s.pos < len(s.src) {
		switch c := s.src[s.pos]; {
		case c == '#':
			s.comment()
		case strings.IndexByte(" \t\r\n,", c) >= 0:
			s.advance(1)
		default:
			return
		}
	}
}

// header reads [a.b] or [[a.b]].
func (s *lineScanner) header() {
	line := s.line
	s.advance(1)
	array := s.peek() == '['
	if array {
		s.advance(1)
	}
	parts := s.key("]\n")
	path := ""
	for i, part := range parts {
		path = join(path, part)
		switch n := s.counts[path]; {
		case array && i == len(parts)-1:
			s.counts[path]++
			path = index(path, n)
		case n > 0:
			path = index(path, n-1)
		}
	}
	s.table = path
	s.note(path, line)
	for s.peek() == ']' {
		s.advance(1)
	}
}

// pair reads key = value.
func (s *lineScanner) pair(table string) {
	line := s.line
	path := table
	for _, part := range s.key("=\n,}]") {
		path = join(path, part)
		s.note(path, line)
	}
	if s.peek() != '=' {
		s.advance(1)
		return
	}
	s.advance(1)
	s.blanks()
	s.value(path)
}

// key reads a dotted key up to one of the end characters.
func (s *lineScanner) key(end string) (parts []string) {
	for {
		s.blanks()
		switch c := s.peek(); {
		case c == 0 || strings.IndexByte(end, c) >= 0:
			return parts
		case c == '"' || c == '\'':
			parts = append(parts, s.quoted())
		case c == '.':
			s.advance(1)
		default:
			from := s.pos
			s.until(" \t." + end)
			parts = append(parts, s.src[from:s.pos])
		}
	}
}

func (s *lineScanner) value(path string) {
	switch s.peek() {
	case '"', '\'':
		s.quoted()
	case '[':
		s.nested(']', func(i int) {
			p := index(path, i)
			s.note(p, s.line)
			s.value(p)
		})
	case '{':
		s.nested('}', func(int) { s.pair(path) })
	default:
		s.until(",]}#\n")
	}
}

func (s *lineScanner) nested(end byte, element func(int)) {
	s.advance(1)
	if s.depth++; s.depth > maxNesting {
		s.advance(len(s.src))
	}
	for i := 0; ; i++ {
		s.space()
		if c := s.peek(); c == 0 || c == end {
			break
		}
		before := s.pos
		element(i)
		if s.pos == before {
			s.advance(1)
		}
	}
	s.depth--
	s.advance(1)
}

// quoted reads a string of any of the four kinds and returns its text.
func (s *lineScanner) quoted() string {
	q := s.src[s.pos : s.pos+1]
	long := strings.HasPrefix(s.src[s.pos:], q+q+q)
	if long {
		q += q + q
	}
	s.advance(len(q))
	from := s.pos
	for s.pos < len(s.src) && !strings.HasPrefix(s.src[s.pos:], q) {
		if q[0] == '"' && s.src[s.pos] == '\\' {
			s.advance(1)
		}
		if s.pos < len(s.src) {
			_, n := utf8.DecodeRuneInString(s.src[s.pos:])
			s.advance(n)
		}
	}
	text := s.src[from:s.pos]
	s.advance(len(q))
	if long { // """a"""" ends with a quote of its own
		for s.peek() == q[0] {
			s.advance(1)
		}
	}
	if q[0] == '"' && strings.Contains(text, `\`) {
		if t, err := strconv.Unquote(`"` + text + `"`); err == nil {
			text = t
		}
	}
	return text
}

func (s *lineScanner) note(path string, line int) {
	if _, known := s.lines[path]; !known {
		s.lines[path] = line
	}
}

func join(table, key string) string {
	if table == "" {
		return key
	}
	return table + "." + key
}

func index(path string, i int) string { return path + "[" + strconv.Itoa(i) + "]" }
