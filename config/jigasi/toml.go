package jigasi

import (
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// lineWidth is where comments are broken.
const lineWidth = 88

// document is TOML being written.
type document struct{ b strings.Builder }

// table is one of its tables. A nil table, or one without rows, is not written.
type table struct {
	head  string // "[gateway]"
	above string // comment
	rows  []row
}

type row struct{ key, value, comment string } // no key: a comment of its own

// set adds a key whose value is TOML already.
func (t *table) set(key, value, comment string) {
	t.rows = append(t.rows, row{key, value, comment})
}

// text adds a key with a text, unless that is empty.
func (t *table) text(key, value, comment string) {
	if value != "" {
		t.set(key, quote(value), comment)
	}
}

// remark adds a line that is a comment.
func (t *table) remark(text string) { t.rows = append(t.rows, row{comment: text}) }

func (d *document) comment(text string) {
	for _, line := range wrap(printable(text), lineWidth-2) {
		d.b.WriteString("# " + line + "\n")
	}
}

func (d *document) add(tables ...*table) {
	for _, t := range tables {
		if t == nil || len(t.rows) == 0 {
			continue
		}
		d.b.WriteString("\n")
		if t.above != "" {
			d.comment(t.above)
		}
		d.b.WriteString(t.head + "\n")
		width := 0
		for _, r := range t.rows {
			width = max(width, len(r.key))
		}
		for _, r := range t.rows {
			if r.key == "" {
				d.comment(r.comment)
				continue
			}
			fmt.Fprintf(&d.b, "%-*s = %s", width, r.key, r.value)
			if r.comment != "" {
				d.b.WriteString(" # " + printable(r.comment))
			}
			d.b.WriteString("\n")
		}
	}
}

// notes lists, by reason, what could not be carried over.
func (d *document) notes(notes []Note) {
	heads := map[Kind]string{
		Missing: "To be filled in before this can be used:",
		Changed: "Not carried over, or not as it was:",
		Moot:    "Not carried over, and nothing changes by that:",
	}
	for len(notes) > 0 {
		kind := notes[0].Kind
		end := slices.IndexFunc(notes, func(n Note) bool { return n.Kind != kind })
		if end < 0 {
			end = len(notes)
		}
		d.b.WriteString("\n# " + heads[kind] + "\n")
		var whys []string
		keys := map[string][]string{}
		for _, n := range notes[:end] {
			if !slices.Contains(whys, n.Why) {
				whys = append(whys, n.Why)
			}
			if n.Key != "" {
				keys[n.Why] = append(keys[n.Why], n.Key)
			}
		}
		for _, why := range whys {
			d.b.WriteString("#\n")
			for i, line := range wrap(printable(why), lineWidth-4) {
				d.b.WriteString([]string{"# * ", "#   "}[min(i, 1)] + line + "\n")
			}
			for _, key := range keys[why] {
				d.b.WriteString("#     " + printable(key) + "\n")
			}
		}
		notes = notes[end:]
	}
}

func (d *document) bytes() []byte { return []byte(d.b.String()) }

// quote writes a TOML basic string.
func quote(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range strings.ToValidUTF8(s, "\ufffd") {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r < ' ' || r == 0x7f:
			fmt.Fprintf(&b, `\u%04X`, r)
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return b.String()
}

// list writes a TOML array of texts.
func list(items ...string) string {
	quoted := make([]string, len(items))
	for i, s := range items {
		quoted[i] = quote(s)
	}
	return "[" + strings.Join(quoted, ", ") + "]"
}

// printable makes one line without control characters of any text.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r == utf8.RuneError || unicode.IsControl(r) || unicode.In(r, unicode.Cf, unicode.Zl, unicode.Zp) {
			return '?'
		}
		return r
	}, s)
}

// wrap breaks a text at blanks.
func wrap(s string, width int) (lines []string) {
	line := ""
	for _, word := range strings.Fields(s) {
		if line != "" && utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) > width {
			lines, line = append(lines, line), ""
		}
		if line != "" {
			line += " "
		}
		line += word
	}
	if line != "" {
		lines = append(lines, line)
	}
	return lines
}
