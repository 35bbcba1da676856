package config

import (
	"encoding"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// document is one file that was read.
type document struct {
	file  string
	raw   map[string]any
	lines lineMap
}

// place is where something stands: a document and a path in it.
type place struct {
	doc  *document
	path string
}

func (p place) key(k string) place { return place{p.doc, join(p.path, k)} }
func (p place) at(i int) place     { return place{p.doc, index(p.path, i)} }

// defaults sets every field that has a default tag.
func defaults(v reflect.Value) {
	for i := range v.NumField() {
		f, tag := v.Field(i), v.Type().Field(i).Tag
		if text, ok := tag.Lookup("default"); ok {
			if err := setText(f, text); err != nil {
				panic(fmt.Sprintf("default of %s: %v", v.Type().Field(i).Name, err))
			}
		} else if isTable(f.Type()) && tag.Get("toml") != "-" {
			defaults(f)
		}
	}
}

// setText sets a field from a default tag; a list is comma-separated.
func setText(v reflect.Value, text string) error {
	if u, ok := v.Addr().Interface().(encoding.TextUnmarshaler); ok {
		return u.UnmarshalText([]byte(text))
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(text)
	case reflect.Bool:
		v.SetBool(text == "true")
	case reflect.Int:
		n, err := strconv.Atoi(text)
		v.SetInt(int64(n))
		return err
	case reflect.Slice:
		v.Set(reflect.ValueOf(strings.Split(text, ",")))
	default:
		return fmt.Errorf("no text form of %s", v.Type())
	}
	return nil
}

var unmarshaler = reflect.TypeFor[encoding.TextUnmarshaler]()

// isTable says whether a type is a TOML table of ours.
func isTable(t reflect.Type) bool {
	return t.Kind() == reflect.Struct && !reflect.PointerTo(t).Implements(unmarshaler)
}

// fields returns a table's keys and their fields.
func fields(v reflect.Value) map[string]reflect.Value {
	out := map[string]reflect.Value{}
	for i := range v.NumField() {
		if name := v.Type().Field(i).Tag.Get("toml"); name != "-" {
			out[name] = v.Field(i)
		}
	}
	return out
}

// fill writes a parsed value into v and notes what does not fit. A table may
// also have these further keys, which are left alone.
func (l *loader) fill(at place, v reflect.Value, raw any, also ...string) {
	switch x := v.Addr().Interface().(type) {
	case *Secret:
		if s, ok := text(l, at, raw); ok {
			*x = l.secret(at, s)
		}
		return
	case *netip.Prefix:
		if s, ok := text(l, at, raw); ok {
			*x = l.prefix(at, s)
		}
		return
	case *netip.Addr:
		if s, ok := text(l, at, raw); ok && s != "" {
			a, err := netip.ParseAddr(s)
			if err != nil {
				l.add(at, fmt.Sprintf("%q is no IP address", s), "write an address such as 192.0.2.1, not a name")
			}
			*x = a.Unmap()
		}
		return
	case *Duration:
		if s, ok := typed[string](l, at, raw, `write it in quotes, with a unit, as "20s"`); ok {
			l.unmarshal(at, x, s)
		}
		return
	case encoding.TextUnmarshaler:
		if s, ok := text(l, at, raw); ok {
			l.unmarshal(at, x, s)
		}
		return
	}
	switch v.Kind() {
	case reflect.String:
		if s, ok := text(l, at, raw); ok {
			v.SetString(s)
		}
	case reflect.Bool:
		if b, ok := typed[bool](l, at, raw, "write true or false, without quotes"); ok {
			v.SetBool(b)
		}
	case reflect.Int:
		if n, ok := typed[int64](l, at, raw, "write a whole number, without quotes"); ok {
			v.SetInt(n)
		}
	case reflect.Map:
		l.fillMap(at, v, raw)
	case reflect.Slice:
		l.fillSlice(at, v, raw, also)
	case reflect.Struct:
		l.fillTable(at, v, raw, also)
	}
}

// unmarshal takes the error of a type of ours, "what: remedy".
func (l *loader) unmarshal(at place, x encoding.TextUnmarshaler, s string) {
	if err := x.UnmarshalText([]byte(s)); err != nil {
		what, remedy, _ := strings.Cut(err.Error(), ": ")
		l.add(at, what, remedy)
	}
}

func (l *loader) fillTable(at place, v reflect.Value, raw any, also []string) {
	table, ok := typed[map[string]any](l, at, raw, "write it as a table: "+header(at.path))
	if !ok {
		return
	}
	known := fields(v)
	for _, key := range slices.Sorted(maps.Keys(table)) {
		here := at.key(key)
		f, ok := known[key]
		switch {
		case ok:
			l.fill(here, f, table[key])
		case !slices.Contains(also, key):
			l.add(here, "unknown key", suggest(key, append(slices.Collect(maps.Keys(known)), also...)))
		}
	}
	l.ranges(at, v, table)
	for i := range v.NumField() {
		tag := v.Type().Field(i).Tag
		if here := at.key(tag.Get("toml")); tag.Get("required") == "true" && v.Field(i).IsZero() && !l.wrongAt(here) {
			l.add(here, "is missing", tag.Get("doc"))
		}
	}
}

var indices = regexp.MustCompile(`\[\d+\]`)

// header writes a path as the header of its table.
func header(path string) string {
	plain := "[" + indices.ReplaceAllString(path, "") + "]"
	if strings.HasSuffix(path, "]") {
		return "[" + plain + "]"
	}
	return plain
}

// ranges checks the tags oneof, min and max of the keys given in a table.
func (l *loader) ranges(at place, v reflect.Value, table map[string]any) {
	for i := range v.NumField() {
		f, tag := v.Field(i), v.Type().Field(i).Tag
		name := tag.Get("toml")
		if _, given := table[name]; !given || l.wrongAt(at.key(name)) {
			continue
		}
		if list, ok := tag.Lookup("oneof"); ok {
			all := strings.Split(list, ",")
			if !slices.Contains(all, f.String()) {
				l.add(at.key(name), fmt.Sprintf("%q is not known", f.String()), "write one of "+strings.Join(all, ", "))
			}
		}
		for _, bound := range []string{"min", "max"} {
			limit, ok := tag.Lookup(bound)
			if !ok {
				continue
			}
			edge := reflect.New(f.Type()).Elem()
			if err := setText(edge, limit); err != nil {
				panic(err)
			}
			switch n, e := number(f), number(edge); {
			case bound == "min" && n < e:
				l.add(at.key(name), fmt.Sprintf("%v is too little", f.Interface()), "write "+limit+" or more")
			case bound == "max" && n > e:
				l.add(at.key(name), fmt.Sprintf("%v is too much", f.Interface()), "write "+limit+" or less")
			}
		}
	}
}

func number(v reflect.Value) int64 {
	if d, ok := v.Interface().(Duration); ok {
		return int64(d.Duration)
	}
	return v.Int()
}

func (l *loader) fillMap(at place, v reflect.Value, raw any) {
	table, ok := typed[map[string]any](l, at, raw, `write it as { "key" = "value" }`)
	if !ok {
		return
	}
	out := make(map[string]string, len(table))
	for _, key := range slices.Sorted(maps.Keys(table)) {
		if s, ok := text(l, at.key(key), table[key]); ok {
			out[key] = s
		}
	}
	v.Set(reflect.ValueOf(out))
}

func (l *loader) fillSlice(at place, v reflect.Value, raw any, also []string) {
	var list []any
	switch x := raw.(type) {
	case []any:
		list = x
	case []map[string]any:
		for _, one := range x {
			list = append(list, one)
		}
	default:
		remedy := `write a list: ["…", "…"]`
		if isTable(v.Type().Elem()) {
			remedy = "write it as " + header(at.path+"[0]")
		}
		l.add(at, "is "+kind(raw)+", not a list", remedy)
		return
	}
	out := reflect.MakeSlice(v.Type(), len(list), len(list))
	for i, one := range list {
		e := out.Index(i)
		if isTable(e.Type()) {
			defaults(e)
		}
		l.fill(at.at(i), e, one, also...)
	}
	v.Set(out)
}

func text(l *loader, at place, raw any) (string, bool) {
	return typed[string](l, at, raw, "write it in quotes")
}

func typed[T any](l *loader, at place, raw any, remedy string) (T, bool) {
	x, ok := raw.(T)
	if !ok {
		l.add(at, "is "+kind(raw)+", not "+kind(x), remedy)
	}
	return x, ok
}

func kind(raw any) string {
	switch raw.(type) {
	case string:
		return "text"
	case bool:
		return "true or false"
	case int64:
		return "a number"
	case float64:
		return "a fraction"
	case time.Time:
		return "a date"
	case map[string]any:
		return "a table"
	}
	return "a list"
}

// maxSecret bounds the file of a secret, in bytes.
const maxSecret = 64 << 10

// secret resolves env:NAME and file:/path; a relative path starts at the
// folder of the file that names it. What is not from a file is as it stands.
func (l *loader) secret(at place, s string) Secret {
	if at.doc == l.more {
		return Secret(s)
	}
	if name, ok := strings.CutPrefix(s, "env:"); ok {
		v := os.Getenv(name)
		if v == "" {
			l.add(at, fmt.Sprintf("environment variable %s is not set", name), "set it for the service, or give the secret as file:/path")
		}
		return Secret(v)
	}
	path, ok := strings.CutPrefix(s, "file:")
	if !ok {
		return Secret(s)
	}
	if !filepath.IsAbs(path) {
		path = filepath.Join(filepath.Dir(at.doc.file), path)
	}
	data, err := readBounded(path, maxSecret)
	v := strings.TrimRight(string(data), "\r\n")
	switch {
	case err != nil:
		l.add(at, "secret cannot be read: "+err.Error(), "let the user of the service read that file")
	case v == "":
		l.add(at, path+" is empty", "write the secret into it")
	}
	return Secret(v)
}

// prefix reads a network, or one address.
func (l *loader) prefix(at place, s string) netip.Prefix {
	if a, err := netip.ParseAddr(s); err == nil && a.Zone() == "" {
		a = a.Unmap()
		return netip.PrefixFrom(a, a.BitLen())
	}
	p, err := netip.ParsePrefix(s)
	switch {
	case err != nil:
		l.add(at, fmt.Sprintf("%q is neither an address nor a network", s), "write 192.0.2.10 or 192.0.2.0/24")
	case p.Addr().Is4In6():
		l.add(at, fmt.Sprintf("%q is an IPv4 network written as IPv6", s), "write it as IPv4")
	case p != p.Masked():
		l.add(at, fmt.Sprintf("%q has bits beyond its length", s), "write "+p.Masked().String()+", or the one address alone")
	}
	return p
}

// suggest names the known key that a mistyped one probably meant.
func suggest(key string, known []string) string {
	plain := func(s string) string {
		return strings.NewReplacer("-", "", "_", "").Replace(strings.ToLower(s))
	}
	best, bestAt := "", max(2, len(key)/3)+1
	slices.Sort(known)
	for _, k := range known {
		if len(key) > 2*len(k)+2 {
			continue
		}
		if d := distance(plain(key), plain(k)); d < bestAt {
			best, bestAt = k, d
		}
	}
	if best != "" {
		return fmt.Sprintf("did you mean %s?", best)
	}
	return "known here: " + strings.Join(known, ", ")
}

// distance counts the letters to insert, remove or replace (Levenshtein).
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost = 1 + min(diagonal, row[j], row[j+1])
			}
			diagonal, row[j+1] = row[j+1], cost
		}
	}
	return row[len(b)]
}
