package jigasi

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// property is one setting, and where it stands.
type property struct {
	key, value string
	name       string // as the file calls it: the key, or a variable
	file       string
	line       int
}

// where names the file and line.
func (p *property) where() string {
	if p.file == "" {
		return ""
	}
	return fmt.Sprintf("%s:%d", p.file, p.line)
}

// parseProperties reads java.util.Properties' line-oriented format: comments
// with # and !, keys that end at =, : or white space, \ before the end of a line
// to continue it, and the escapes \t \n \r \f \uXXXX. Java reads Latin-1; text
// that is valid UTF-8 is taken as such, since that is what was meant.
func parseProperties(file string, data []byte) ([]property, error) {
	var out []property
	src := toUTF8(data)
	for line := 1; src != ""; {
		start := line
		var logical []byte
		for first := true; ; first = false {
			var part string
			part, src = cutLine(src)
			line++
			part = strings.TrimLeft(part, " \t\f")
			if first && (part == "" || part[0] == '#' || part[0] == '!') {
				break
			}
			logical = append(logical, part...)
			if !endsOddly(part) {
				break
			}
			logical = logical[:len(logical)-1]
			if src == "" {
				break
			}
		}
		if len(logical) == 0 {
			continue
		}
		rawKey, rawValue := cutKey(string(logical))
		key, err := unescape(rawKey)
		if err != nil {
			return nil, fmt.Errorf("%s:%d: %w", file, start, err)
		}
		value, err := unescape(rawValue)
		if err != nil {
			return nil, fmt.Errorf("%s:%d: value of %s: %w", file, start, printable(key), err)
		}
		out = append(out, property{key: key, value: value, name: key, file: file, line: start})
	}
	return out, nil
}

// toUTF8 takes what is not UTF-8 for Latin-1, and drops a byte order mark.
func toUTF8(data []byte) string {
	if utf8.Valid(data) {
		return strings.TrimPrefix(string(data), "\ufeff")
	}
	r := make([]rune, len(data))
	for i, b := range data {
		r[i] = rune(b)
	}
	return string(r)
}

// cutLine takes the first line off, which ends with \n, \r or \r\n.
func cutLine(s string) (line, rest string) {
	i := strings.IndexAny(s, "\r\n")
	if i < 0 {
		return s, ""
	}
	line, rest = s[:i], s[i+1:]
	if s[i] == '\r' {
		rest = strings.TrimPrefix(rest, "\n")
	}
	return line, rest
}

// endsOddly says whether a line ends with a backslash that is not escaped.
func endsOddly(s string) bool {
	return (len(s)-len(strings.TrimRight(s, `\`)))%2 == 1
}

// cutKey parts a logical line at the first =, : or blank that is not escaped.
func cutKey(s string) (key, value string) {
	i := 0
	for ; i < len(s) && strings.IndexByte("=: \t\f", s[i]) < 0; i++ {
		if s[i] == '\\' {
			i++
		}
	}
	i = min(i, len(s))
	value = strings.TrimLeft(s[i:], " \t\f")
	if value != "" && (value[0] == '=' || value[0] == ':') {
		value = strings.TrimLeft(value[1:], " \t\f")
	}
	return s[:i], value
}

func unescape(s string) (string, error) {
	if !strings.Contains(s, `\`) {
		return s, nil
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' || i+1 == len(s) {
			b.WriteByte(s[i])
			continue
		}
		i++
		switch s[i] {
		case 't':
			b.WriteByte('\t')
		case 'n':
			b.WriteByte('\n')
		case 'r':
			b.WriteByte('\r')
		case 'f':
			b.WriteByte('\f')
		case 'u':
			r, err := hex4(s[i+1:])
			if err != nil {
				return "", err
			}
			i += 4
			if utf16.IsSurrogate(r) { // the other half may follow
				low := rune(utf8.RuneError)
				if strings.HasPrefix(s[i+1:], `\u`) {
					if low, err = hex4(s[i+3:]); err != nil {
						return "", err
					}
				}
				if r = utf16.DecodeRune(r, low); r != utf8.RuneError {
					i += 6
				}
			}
			b.WriteRune(r)
		default:
			b.WriteByte(s[i])
		}
	}
	return b.String(), nil
}

func hex4(s string) (rune, error) {
	if len(s) >= 4 {
		if n, err := strconv.ParseUint(s[:4], 16, 16); err == nil {
			return rune(n), nil
		}
	}
	return 0, fmt.Errorf(`\u is not followed by four hexadecimal digits`)
}
