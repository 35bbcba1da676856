package config

import (
	"bytes"
	"fmt"
	"net/netip"
	"reflect"
	"strings"
)

// Reference returns docs/configuration.md, made from the struct tags.
func Reference() []byte {
	var b bytes.Buffer
	b.WriteString(referenceIntro)
	reference(&b, "", reflect.TypeFor[Config](), false)
	return b.Bytes()
}

const referenceIntro = `# Configuration

<!-- Generated from the package config: go generate ./config -->

One file in [TOML](https://toml.io), given with ` + "`-c`" + `, and beside it a folder
` + "`shards.d`" + ` whose ` + "`*.toml`" + ` files hold ` + "`[[shard]]`" + ` tables, usually one each.
` + "`brewline check -c brewline.toml`" + ` reads it as ` + "`serve`" + ` does and reports all that
is wrong, with file, line, key and remedy. Unknown keys are errors.

* **Durations** have a unit: ` + "`\"20s\"`, `\"1m30s\"`, `\"500ms\"`" + `.
* **Secrets** may be written as they are, or as ` + "`\"file:/etc/brewline/secret\"`" + ` (the
  end of line does not count; a relative path starts at the folder of the file
  that names it), or as ` + "`\"env:NAME\"`" + `. They are never logged.
* **Defaults** in *italics* follow from other keys.
* **Reload:** SIGHUP, or a change in shards.d, reads everything again. New calls use the new values, running
  calls keep theirs. Keys marked *restart* take effect when the process starts
  again. A configuration with a problem is refused as a whole, and the running
  one stays.

The least that works is one shard and one trunk:

` + "```toml" + `
[[shard]]
name   = "meet"
domain = "meet.example.org"
url    = "https://meet.example.org/http-bind"

[[trunk]]
name  = "pbx"
match = ["192.0.2.10"]
` + "```" + `
`

// reference writes a table's section and those of the tables in it.
func reference(b *bytes.Buffer, path string, t reflect.Type, list bool) {
	type sub struct {
		name, doc string
		t         reflect.Type
		list      bool
	}
	var subs []sub
	head := false
	for i := range t.NumField() {
		f := t.Field(i)
		name := f.Tag.Get("toml")
		switch {
		case name == "-":
			continue
		case isTable(f.Type) && f.Type != reflect.TypeFor[netip.Prefix]():
			subs = append(subs, sub{name, f.Tag.Get("doc"), f.Type, false})
			continue
		case f.Type.Kind() == reflect.Slice && isTable(f.Type.Elem()):
			subs = append(subs, sub{name, f.Tag.Get("doc"), f.Type.Elem(), true})
			continue
		}
		if !head {
			head = true
			b.WriteString("\n| key | type | default | meaning |\n|---|---|---|---|\n")
		}
		fmt.Fprintf(b, "| `%s` | %s | %s | %s |\n", name, typeName(f), defaultText(f), meaning(f))
	}
	for _, s := range subs {
		p := join(path, s.name)
		title := "[" + p + "]"
		if s.list {
			title = "[" + title + "]"
		}
		fmt.Fprintf(b, "\n## `%s`\n\n%s\n", title, cell(s.doc))
		reference(b, p, s.t, s.list)
	}
}

func typeName(f reflect.StructField) string {
	t, name := f.Type, ""
	if t.Kind() == reflect.Slice {
		t, name = t.Elem(), "list of "
	}
	switch t {
	case reflect.TypeFor[Duration]():
		return name + "duration"
	case reflect.TypeFor[Secret]():
		return name + "secret"
	case reflect.TypeFor[PortRange]():
		return name + "ports"
	case reflect.TypeFor[netip.Addr]():
		return name + "address"
	case reflect.TypeFor[netip.Prefix]():
		return name + "networks"
	}
	switch t.Kind() {
	case reflect.Int:
		return name + "number"
	case reflect.Bool:
		return name + "true or false"
	case reflect.Map:
		return name + "table"
	}
	if name != "" {
		return "list of texts"
	}
	return "text"
}

func defaultText(f reflect.StructField) string {
	value, ok := f.Tag.Lookup("default")
	switch {
	case f.Tag.Get("required") == "true":
		return "**required**"
	case !ok && f.Tag.Get("derived") != "":
		return "*" + cell(f.Tag.Get("derived")) + "*"
	case !ok:
		return ""
	case f.Type.Kind() == reflect.Slice:
		return "`[\"" + strings.ReplaceAll(value, ",", "\", \"") + "\"]`"
	case f.Type.Kind() == reflect.Int || f.Type.Kind() == reflect.Bool:
		return "`" + value + "`"
	}
	return "`\"" + value + "\"`"
}

func meaning(f reflect.StructField) string {
	s := cell(f.Tag.Get("doc"))
	if list, ok := f.Tag.Lookup("oneof"); ok {
		s += " One of `" + strings.ReplaceAll(list, ",", "`, `") + "`."
	}
	if unit := f.Tag.Get("unit"); unit != "" {
		s += " Unit: " + unit + "."
	}
	lo, hi := f.Tag.Get("min"), f.Tag.Get("max")
	switch {
	case lo != "" && hi != "":
		s += fmt.Sprintf(" From %s to %s.", lo, hi)
	case lo != "":
		s += fmt.Sprintf(" At least %s.", lo)
	}
	if f.Tag.Get("restart") == "true" {
		s += " *Restart.*"
	}
	return s
}

// cell keeps Markdown from reading <domain> as HTML, or | as a column.
func cell(s string) string {
	return strings.NewReplacer("<", "&lt;", ">", "&gt;", "|", "\\|").Replace(s)
}
