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
		for quoteOpen(raw) && src != "" { // a value of several lines
			text, src = cutLine(src)
			raw += "\n" + text
			line++
		}
		value := envValue(raw, vars)
		vars[m[1]] = value
		out = append(out, property{key: m[1], value: value, name: m[1], file: file, line: start})
	}
	return out
}

// closing returns where a value that begins with a quote ends, or -1.
func closing(s string) int {
	for i := 1; i < len(s); i++ {
		switch {
		case s[i] == '\\' && s[0] == '"':
			i++
		case s[i] == s[0]:
			return i
		}
	}
	return -1
}

func quoteOpen(s string) bool {
	return s != "" && (s[0] == '"' || s[0] == '\'') && closing(s) < 0
}

func envValue(raw string, vars map[string]string) string {
	if raw == "" || raw[0] == '#' {
		return ""
	}
	if raw[0] == '"' || raw[0] == '\'' {
		end := closing(raw)
		if end < 0 {
			end = len(raw)
		}
		inner := raw[1:end]
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
