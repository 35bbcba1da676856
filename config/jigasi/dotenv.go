package jigasi

import (
	"regexp"
	"strings"
)

var assignment = regexp.MustCompile(`^(?:export\s+)?([A-Za-z_][A-Za-z0-9_.]*)\s*=\s*`)

// parseEnv reads a .env as docker compose does, which is close to what a shell
// makes of it: NAME=value, with single quotes, double quotes or none, # comments,
// and ${NAME}, ${NAME:-default}, ${NAME-default} and $NAME of the variables above.
// What is not defined above stays as it is.
func parseEnv(file string, data []byte) []property {
	var out []property
	vars := map[string]string{}
	src := toUTF8(data)
	for line := 1; src != ""; line++ {
		var text string
		text, src = cutLine(src)
		text = strings.TrimSpace(text)
		m := assignment.FindStringSubmatch(text)
		if m == nil {
			continue
		}
		start, raw := line, text[len(m[0]):]
		if quoted(raw) && closing(raw[1:], raw[0]) < 0 { // a value of several lines
			if end := closing(src, raw[0]); end >= 0 {
				tail, rest := cutLine(src[end:])
				raw += "\n" + src[:end] + tail
				src = rest
				line += strings.Count(raw, "\n")
			}
		}
		value := envValue(raw, vars)
		vars[m[1]] = value
		out = append(out, property{key: m[1], value: value, name: m[1], file: file, line: start})
	}
	return out
}

// closing returns where the quote ends the value, or -1.
func closing(s string, quote byte) int {
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '\\' && quote == '"':
			i++
		case s[i] == quote:
			return i
		}
	}
	return -1
}

func quoted(s string) bool { return s != "" && (s[0] == '"' || s[0] == '\'') }

func envValue(raw string, vars map[string]string) string {
	if raw == "" || raw[0] == '#' {
		return ""
	}
	if quoted(raw) {
		inner := raw[1:]
		if end := closing(inner, raw[0]); end >= 0 {
			inner = inner[:end]
		}
		if raw[0] == '\'' {
			return inner
		}
		return envQuoted.Replace(expand(inner, vars))
	}
	for i := 1; i < len(raw); i++ {
		if raw[i] == '#' && (raw[i-1] == ' ' || raw[i-1] == '\t') {
			raw = raw[:i]
			break
		}
	}
	return expand(strings.TrimSpace(raw), vars)
}

var envQuoted = strings.NewReplacer(`\\`, `\`, `\"`, `"`, `\$`, `$`, `\n`, "\n", `\r`, "\r", `\t`, "\t")

// reference is a variable in a value, or a dollar sign written twice or
// escaped.
var reference = regexp.MustCompile(`\\\$|\$\$|\$\{([A-Za-z_][A-Za-z0-9_]*)(?:(:?-)([^{}]*))?\}|\$([A-Za-z_][A-Za-z0-9_]*)`)

// maxValue bounds what variables expand to, in bytes: each may double another.
const maxValue = 64 << 10

func expand(s string, vars map[string]string) string {
	out := reference.ReplaceAllStringFunc(s, func(all string) string {
		m := reference.FindStringSubmatch(all)
		if all == `\$` || all == "$$" {
			return "$"
		}
		value, known := vars[m[1]+m[4]]
		switch {
		case known && (value != "" || m[2] != ":-"):
			return value
		case m[2] != "":
			return m[3]
		}
		return all
	})
	if len(out) > maxValue {
		return s
	}
	return out
}
