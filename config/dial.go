package config

import (
	"fmt"
	"regexp"
	"strings"
)

// DialRule allows or denies calls out of a conference. Rules are tried in the
// order of the file; the first that covers the shard and matches the number
// decides. What no rule matches is refused.
type DialRule struct {
	Name      string   `toml:"name" required:"true" doc:"Name of the rule, in logs and metrics."`
	Shards    []string `toml:"shards" derived:"every shard" doc:"Shards from which it may be dialled."`
	Pattern   string   `toml:"pattern" required:"true" doc:"Regular expression (Go's) that the whole number must match. Before that, separators, tel: and sip: are taken off: +4930123456, 112, alice@example.org."`
	Deny      bool     `toml:"deny" default:"false" doc:"Whether the rule refuses what it matches."`
	Trunks    []string `toml:"trunks" doc:"Trunks over which it is dialled, in the order in which they are tried. Each needs an address."`
	Number    string   `toml:"number" derived:"the number as matched" doc:"What is dialled; $1 or ${name} stand for parts of the pattern, $$ for a dollar sign."`
	MaxCalls  int      `toml:"max_calls" min:"0" default:"0" unit:"calls" doc:"Calls of the rule at once. 0: no limit of its own."`
	Redirects int      `toml:"redirects" min:"0" max:"5" default:"0" doc:"How many 301 and 302 of a called party are followed. The new number must be allowed by a rule, as if it had been asked for."`
	PerMinute int      `toml:"per_minute" min:"0" default:"0" unit:"calls" doc:"New calls of the rule in a minute. 0: no limit."`

	re *regexp.Regexp `toml:"-"`
}

// Regexp is the pattern, anchored at both ends.
func (r *DialRule) Regexp() *regexp.Regexp { return r.re }

func (l *loader) checkDial(at place, c *Config) {
	names := map[string]place{}
	for i := range c.Dial {
		r, at := &c.Dial[i], at.at(i)
		l.unique(names, at.key("name"), r.Name, "dial rule")
		re := l.pattern(at.key("pattern"), r.Pattern)
		if r.re = re; re == nil {
			r.re = regexp.MustCompile(`$.`) // matches nothing
		}
		for j, name := range r.Shards {
			if !l.known(c, name) {
				l.add(at.key("shards").at(j), fmt.Sprintf("no shard is named %q", name), "name one of the shards, or leave shards out for all of them")
			}
		}
		for j, name := range r.Trunks {
			switch t := c.Trunk(name); {
			case t == nil:
				l.add(at.key("trunks").at(j), fmt.Sprintf("no trunk is named %q", name), "name one of the trunks")
			case t.Address == "":
				l.add(at.key("trunks").at(j), fmt.Sprintf("trunk %q has no address", name), "give the trunk an address, as sip:pbx.example.org:5060")
			}
		}
		if !r.Deny && len(r.Trunks) == 0 && !l.wrongAt(at.key("trunks")) {
			l.add(at.key("trunks"), "is empty", "name the trunks over which it is dialled, or write deny = true")
		}
		l.checkReferences(at.key("number"), re, r.Number)
	}
}

// pattern compiles a pattern that the whole of a number must match, nil if it
// is none.
func (l *loader) pattern(at place, s string) *regexp.Regexp {
	re, err := regexp.Compile("^(?:" + s + ")$")
	if err != nil && !l.wrongAt(at) {
		l.add(at, strings.TrimPrefix(err.Error(), "error parsing regexp: "), "write a regular expression, as \\+49\\d+ in single quotes")
	}
	return re
}

// partReference is what [regexp.Regexp.Expand] takes for one, and "$$".
var partReference = regexp.MustCompile(`\$(?:\{(\w+)\}|(\w+)|\$)`)

// checkReferences looks for parts that the pattern does not have.
func (l *loader) checkReferences(at place, re *regexp.Regexp, template string) {
	if re == nil {
		return
	}
	for _, m := range partReference.FindAllStringSubmatch(template, -1) {
		name := m[1] + m[2]
		known := name == "" || re.SubexpIndex(name) >= 0
		for n := range re.NumSubexp() + 1 {
			known = known || fmt.Sprint(n) == name
		}
		if !known {
			l.add(at, fmt.Sprintf("the pattern has no part %q", name), "write ${1} for its first pair of parentheses")
		}
	}
}
