package config

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"github.com/BurntSushi/toml"
)

// maxFile bounds a configuration file, in bytes.
const maxFile = 1 << 20

// Load reads the file, and the shards.d/*.toml beside it, into a Config with
// all defaults filled in. When anything is wrong the error is a [*Problems]
// that has all of it; a syntax error ends the search, since what follows it
// cannot be told.
func Load(path string) (*Config, error) {
	l := &loader{}
	main := l.read(path)
	dir := filepath.Join(filepath.Dir(path), "shards.d")
	parts, err := ShardFiles(dir)
	if err != nil {
		l.add(place{&document{file: dir}, ""}, "cannot be listed: "+err.Error(), "let the user of the service read that folder")
	}
	docs := []*document{main}
	for _, file := range parts {
		docs = append(docs, l.read(file))
	}
	if len(l.problems) > 0 {
		return nil, l.err()
	}
	_, statErr := os.Stat(dir)
	c := l.build(docs, statErr == nil)
	if len(l.problems) > 0 {
		return nil, l.err()
	}
	return c, nil
}

// ShardFiles are the *.toml of a folder shards.d, none if there is no such
// folder. Names that begin with a dot are those of editors.
func ShardFiles(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, reason(err)
	}
	var out []string
	for _, e := range entries {
		if name := e.Name(); filepath.Ext(name) == ".toml" && name[0] != '.' {
			out = append(out, filepath.Join(dir, name))
		}
	}
	return out, nil
}

func readBounded(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, reason(err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, reason(err)
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("%s is larger than %d bytes", path, limit)
	}
	return data, nil
}

// reason drops the name of the system call: it says nothing to an operator.
func reason(err error) error {
	if pe := (*os.PathError)(nil); errors.As(err, &pe) {
		return fmt.Errorf("%s: %w", pe.Path, pe.Err)
	}
	return err
}

type loader struct {
	problems    []located
	deployments []place          // where each deployment stands, beside Config.Deployments
	shards      []place          // where each shard stands, beside Config.Shards
	over        []map[string]any // deployment keys that each shard overrides
	order       map[string]int   // order of the files

	// Of an overlay:
	more    *document   // its tables
	without []string    // shards left out
	made    *Deployment // the one that the only shard of the files makes
}

// located is a problem and the path of its key, which Key shows shortened.
type located struct {
	Problem
	path string
}

func (l *loader) add(at place, what, remedy string) {
	p := located{Problem{File: at.doc.file, Line: at.doc.lines.of(at.path), Key: at.path, What: what, Remedy: remedy}, at.path}
	if !slices.Contains(l.problems, p) {
		l.problems = append(l.problems, p)
	}
}

// wrongAt says whether something is known to be wrong with a key, or in it.
func (l *loader) wrongAt(at place) bool {
	return slices.ContainsFunc(l.problems, func(p located) bool {
		rest, ok := strings.CutPrefix(p.path, at.path)
		return ok && p.File == at.doc.file && (rest == "" || rest[0] == '.' || rest[0] == '[')
	})
}

// isWrong says whether there is a problem with the place itself.
func (l *loader) isWrong(at place) bool {
	return slices.ContainsFunc(l.problems, func(p located) bool { return p.path == at.path && p.File == at.doc.file })
}

func (l *loader) err() error {
	slices.SortStableFunc(l.problems, func(a, b located) int {
		return cmp.Or(cmp.Compare(l.order[a.File], l.order[b.File]), cmp.Compare(a.Line, b.Line))
	})
	out := &Problems{}
	for _, p := range l.problems {
		out.All = append(out.All, p.Problem)
	}
	return out
}

// read parses one file.
func (l *loader) read(file string) *document {
	if l.order == nil {
		l.order = map[string]int{}
	}
	l.order[file] = len(l.order)
	d := &document{file: file}
	data, err := readBounded(file, maxFile)
	if err != nil {
		l.add(place{d, ""}, "cannot be read: "+err.Error(), "name a file that the user of the service may read")
		return d
	}
	l.parse(d, string(data))
	return d
}

func (l *loader) parse(d *document, src string) {
	if _, err := toml.Decode(src, &d.raw); err != nil {
		p := Problem{File: d.file, What: err.Error(), Remedy: "correct the syntax (https://toml.io); more may be wrong after it"}
		if pe := (toml.ParseError{}); errors.As(err, &pe) {
			start := min(max(pe.Position.Start, 0), len(src))
			p.Line, p.Key, p.What = strings.Count(src[:start], "\n")+1, pe.LastKey, pe.Message
		}
		l.problems = append(l.problems, located{Problem: p})
		return
	}
	d.lines = scanLines(src)
}

// build turns parsed files into a configuration. shardsDir says that there is
// a folder in which shards may appear later.
func (l *loader) build(docs []*document, shardsDir bool) *Config {
	c := &Config{Path: docs[0].file, docs: func() []*document { return docs }, shardsDir: shardsDir}
	all := docs
	if l.more != nil {
		all = append(docs[:len(docs):len(docs)], l.more)
	}
	root := reflect.ValueOf(c).Elem()
	defaults(root)
	overridable := slices.DeleteFunc(slices.Collect(maps.Keys(fields(reflect.ValueOf(Deployment{})))), func(k string) bool { return k == "name" })

	for i, d := range all {
		if d != l.more {
			c.Files = append(c.Files, d.file)
		} else {
			l.leaveOut(c)
		}
		part := root
		if i > 0 {
			part = reflect.New(root.Type()).Elem()
		}
		known := fields(part)
		for _, key := range slices.Sorted(maps.Keys(d.raw)) {
			here := place{d, key}
			f, ok := known[key]
			switch {
			case !ok:
				l.add(here, "unknown key", suggest(key, slices.Collect(maps.Keys(known))))
			case i > 0 && key != "shard" && (d != l.more || key != "deployment"):
				l.add(here, "does not belong in shards.d", "only [[shard]] does; move it to "+docs[0].file)
			case key == "shard":
				l.fill(here, f, d.raw[key], overridable...)
			default:
				l.fill(here, f, d.raw[key])
			}
		}
		if i > 0 {
			c.Shards = append(c.Shards, known["shard"].Interface().([]Shard)...)
			c.Deployments = append(c.Deployments, known["deployment"].Interface().([]Deployment)...)
		}
		for n := range known["deployment"].Len() {
			l.deployments = append(l.deployments, place{d, "deployment"}.at(n))
		}
		for n := len(l.shards); n < len(c.Shards); n++ {
			at := place{d, "shard"}.at(n - (len(c.Shards) - known["shard"].Len()))
			l.shards = append(l.shards, at)
			l.over = append(l.over, overrides(d.raw["shard"], n-(len(c.Shards)-known["shard"].Len()), overridable))
		}
	}
	main := place{docs[0], ""}
	l.resolve(main, c)
	l.check(main, c, shardsDir)
	return c
}

// overrides picks a shard's keys that belong to its deployment.
func overrides(raw any, i int, keys []string) map[string]any {
	var table map[string]any
	switch x := raw.(type) {
	case []map[string]any:
		table = x[i]
	case []any:
		table, _ = x[i].(map[string]any)
	}
	out := map[string]any{}
	for _, k := range keys {
		if v, ok := table[k]; ok {
			out[k] = v
		}
	}
	return out
}

// resolve fills in what follows from other keys, and each shard's deployment.
func (l *loader) resolve(main place, c *Config) {
	c.Gateway.StatsID = cmp.Or(c.Gateway.StatsID, c.Gateway.Name)
	for _, side := range []*MediaSide{&c.Media.Phone, &c.Media.Conference} {
		if side.Ports.Len() == 0 {
			side.Ports = c.Media.Ports
		}
		if !side.Bind.IsValid() {
			side.Bind = c.Media.Bind
		}
		if !side.Advertise.IsValid() {
			side.Advertise = c.Media.Advertise
		}
	}
	implicit := len(c.Deployments) == 0
	if implicit && len(c.Shards) == 1 && c.Shards[0].Deployment == "" {
		d := Deployment{}
		defaults(reflect.ValueOf(&d).Elem())
		d.Name = c.Shards[0].Name
		c.Deployments = []Deployment{d}
	}
	for i := range c.Shards {
		s, at := &c.Shards[i], l.shards[i]
		if s.Deployment == "" && len(c.Deployments) == 1 {
			s.Deployment = c.Deployments[0].Name
		}
		known := c.Deployment(s.Deployment)
		switch {
		case known != nil:
			s.Effective = *known
		case l.wrongAt(at.key("deployment")):
		case s.Deployment != "":
			l.add(at.key("deployment"), fmt.Sprintf("no deployment is named %q", s.Deployment), l.deploymentHint(c))
		case implicit:
			l.add(at.key("deployment"), "is missing, and there is no [[deployment]]", "several shards need one: write [[deployment]] with name and domain, and what its shards have in common")
		default:
			l.add(at.key("deployment"), "is missing, and there are several", l.deploymentHint(c))
		}
		eff := reflect.ValueOf(&s.Effective).Elem()
		for _, key := range slices.Sorted(maps.Keys(l.over[i])) {
			l.fill(at.key(key), fields(eff)[key], l.over[i][key])
		}
		l.ranges(at, eff, l.over[i])
		derive(&s.Effective)
		if implicit && known != nil {
			*known = s.Effective
			if s.Effective.Domain == "" && !l.wrongAt(at.key("domain")) {
				f, _ := eff.Type().FieldByName("Domain")
				l.add(at.key("domain"), "is missing", f.Tag.Get("doc"))
			}
		}
		if s.AuthDomain == "" && s.Effective.Domain != "" {
			s.AuthDomain = "auth." + s.Effective.Domain
		}
		if s.Brewery == "" && s.Username != "" {
			s.Brewery = "jigasibrewery@internal." + s.AuthDomain
		}
		s.HeaderValue = cmp.Or(s.HeaderValue, s.Name)
		s.Region = cmp.Or(s.Region, c.Gateway.Region)
	}
	for i := range c.Deployments {
		derive(&c.Deployments[i])
	}
}

// derive fills in the keys of a deployment that follow from its domain.
func derive(d *Deployment) {
	if d.Domain == "" {
		return
	}
	d.MUC = cmp.Or(d.MUC, "conference."+d.Domain)
	d.Focus = cmp.Or(d.Focus, "focus."+d.Domain)
	if d.Login.Domain == "" {
		switch d.Login.Kind {
		case LoginGuest:
			d.Login.Domain = "guest." + d.Domain
		case LoginAccount:
			d.Login.Domain = "auth." + d.Domain
		case LoginAnonymous, LoginJWT:
			d.Login.Domain = d.Domain
		}
	}
}

func (l *loader) deploymentHint(c *Config) string {
	if len(c.Deployments) == 0 {
		return "write a [[deployment]] of that name"
	}
	var names []string
	for _, d := range c.Deployments {
		if d.Name != "" && !slices.Contains(names, d.Name) {
			names = append(names, d.Name)
		}
	}
	return "name one of " + strings.Join(names, ", ")
}
