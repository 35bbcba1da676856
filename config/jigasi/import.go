package jigasi

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// File is a file of a Jigasi installation.
type File struct {
	Name string
	Data []byte
}

// Options of [Import].
type Options struct {
	// Secrets writes passwords into the TOML. Without it their places are
	// taken by references to environment variables, "env:NAME".
	Secrets bool
	// Lookup finds the addresses of the SIP server's name, from which its
	// calls come. Nil: that is left to the operator.
	Lookup func(host string) ([]netip.Addr, error)
}

// Kind says what a [Note] is about.
type Kind int

// Kinds, the worst first.
const (
	Missing Kind = iota // must be filled in before the result can be loaded
	Changed             // not carried over, or not as it was
	Moot                // not carried over, and nothing changes by that
)

func (k Kind) String() string {
	return [...]string{"fill in", "not as before", "without effect"}[k]
}

// Note is something that could not be carried over, or not as it was. It tells
// no secret.
type Note struct {
	Kind  Kind
	Key   string // property or variable, "" if it is about none
	Where string // file:line, "" if it stands nowhere
	Why   string
}

// String writes "file:line: key: why".
func (n Note) String() string {
	var parts []string
	for _, s := range []string{n.Where, n.Key, n.Why} {
		if s != "" {
			parts = append(parts, printable(s))
		}
	}
	return strings.Join(parts, ": ")
}

// Result is an imported configuration.
type Result struct {
	TOML  []byte
	Notes []Note // by kind
}

// maxFile bounds one file, in bytes.
const maxFile = 1 << 20

// template is a line of a file that has yet to be filled in by a program.
var template = regexp.MustCompile(`(?m)^[^#\r\n]*\{\{`)

// Import makes one configuration of the files. Of a property that stands in
// several, the last one counts, and a .env comes before all properties, as in
// docker-jitsi-meet. It is an error if a file is not what it should be.
func Import(files []File, o Options) (*Result, error) {
	im := &importer{o: o, props: map[string]*property{}, used: map[string]bool{}, said: map[Note]bool{}, env: map[string]bool{}}
	if err := im.read(files); err != nil {
		return nil, err
	}
	var d document
	names := make([]string, len(files))
	for i, f := range files {
		names[i] = filepath.Base(f.Name)
	}
	d.comment("Made by brewline import of " + strings.Join(names, " and ") + ". What could not be carried over stands at the end. Every key: docs/configuration.md. Try it: brewline check")
	if o.Secrets {
		d.comment("Passwords stand in this file, so it is for the eyes of the service alone. Each may be moved to a file of its own: password = \"file:/etc/brewline/meet.secret\"")
	}
	if !o.Secrets {
		d.comment("Passwords are left out: set the environment variables that stand in their places, or name files, as in password = \"file:/etc/brewline/meet.secret\"")
	}
	shards := im.shards()
	gw, http, sip, headers, media := im.gateway(), im.http(), im.sip(), im.headers(), im.media()
	d.add(gw, http, sip, headers, media)
	for _, t := range im.deployments(shards) {
		d.add(t)
	}
	trunk, canDial := im.trunk()
	d.add(trunk...)
	d.add(im.dial(shards, canDial))
	for _, t := range im.shardTables(shards) {
		d.add(t)
	}
	im.leftovers()
	slices.SortStableFunc(im.notes, func(a, b Note) int { return cmp.Compare(a.Kind, b.Kind) })
	d.notes(im.notes)
	return &Result{TOML: d.bytes(), Notes: im.notes}, nil
}

type importer struct {
	o     Options
	order []string // keys, as they first stand
	props map[string]*property
	used  map[string]bool
	notes []Note
	said  map[Note]bool
	env   map[string]bool // taken names of environment variables
	sipAt *string         // prefix of the SIP account, once looked for

	insecure bool // certificates of some are not checked
}

// note says something about a property, which is done with thereby.
func (im *importer) note(kind Kind, key, why string, args ...any) {
	n := Note{Kind: kind, Key: key, Why: fmt.Sprintf(why, args...)}
	if p := im.props[key]; p != nil {
		n.Key, n.Where = p.name, p.where()
		im.used[key] = true
	}
	im.say(n)
}

// say notes what was not said yet: a variable may make several properties.
func (im *importer) say(n Note) {
	if !im.said[n] {
		im.said[n] = true
		im.notes = append(im.notes, n)
	}
}

// take returns the value of a property, "" without one.
func (im *importer) take(key string) string {
	p := im.props[key]
	if p == nil {
		return ""
	}
	im.used[key] = true
	return strings.TrimSpace(p.value)
}

// first takes all of these properties and returns the first value there is.
func (im *importer) first(keys ...string) (key, value string) {
	for _, k := range keys {
		if v := im.take(k); v != "" && value == "" {
			key, value = k, v
		}
	}
	return key, value
}

// is says whether a property is "true", as Java's Boolean.parseBoolean does.
func (im *importer) is(key string) bool { return strings.EqualFold(im.take(key), "true") }

// read sorts the files by kind and merges what they say.
func (im *importer) read(files []File) error {
	if len(files) == 0 {
		return errors.New("no file to import")
	}
	var vars, props []property
	for _, f := range files {
		if len(f.Data) > maxFile {
			return fmt.Errorf("%s is larger than %d bytes", f.Name, maxFile)
		}
		if template.Match(f.Data) {
			return fmt.Errorf("%s is a template: import what is made of it, or the .env", f.Name)
		}
		env := parseEnv(f.Name, f.Data)
		if slices.ContainsFunc(env, func(p property) bool { return isVariable(p.key) }) {
			vars = append(vars, env...)
			continue
		}
		one, err := parseProperties(f.Name, f.Data)
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(one, func(p property) bool { return isProperty(p.key) }) {
			return fmt.Errorf("%s is neither Jigasi's sip-communicator.properties nor the .env of docker-jitsi-meet: it has no key of either", f.Name)
		}
		props = append(props, one...)
	}
	made, err := im.fromEnv(vars)
	if err != nil {
		return err
	}
	for _, p := range append(made, props...) {
		if im.props[p.key] == nil {
			im.order = append(im.order, p.key)
		}
		im.props[p.key] = &p
	}
	for _, key := range im.order {
		p := im.props[key]
		switch v := strings.TrimSpace(p.value); {
		case v == "":
			im.used[key] = true
			delete(im.props, key)
		case strings.Contains(v, "<<") && strings.Contains(v, ">>"):
			im.note(Changed, key, "has only the placeholder of the sample in it")
			delete(im.props, key)
		}
	}
	return nil
}

func isProperty(key string) bool {
	return strings.HasPrefix(key, "net.java.sip.communicator.") || strings.HasPrefix(key, "org.jitsi.")
}

// secret is how a password is written: as it is, or as the name of an
// environment variable.
func (im *importer) secret(value string, of ...string) string {
	if im.o.Secrets && !strings.HasPrefix(value, "env:") && !strings.HasPrefix(value, "file:") {
		return quote(value)
	}
	name := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' {
			return r - 'a' + 'A'
		}
		if r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' {
			return r
		}
		return '_'
	}, "brewline_"+strings.Join(of, "_")+"_password")
	unique := name
	for i := 2; im.env[unique]; i++ {
		unique = fmt.Sprintf("%s_%d", name, i)
	}
	im.env[unique] = true
	return quote("env:" + unique)
}
