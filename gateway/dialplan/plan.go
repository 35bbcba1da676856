package dialplan

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"sync"
	"time"
)

// Rule allows or denies some destinations.
type Rule struct {
	Name      string
	Shards    []string       // empty: every shard
	Pattern   *regexp.Regexp // on the whole normalised destination
	Deny      bool
	Trunks    []string // in order of failover
	Number    string   // dial string; $1 and ${name} come from the pattern
	MaxCalls  int      // at once, 0: no limit
	PerMinute int      // new calls in a minute, 0: no limit
	Redirects int      // how many 301 and 302 of a callee are followed
}

// Why a destination is refused. Each is wrapped with detail.
var (
	ErrNoRule = errors.New("no dial rule allows it")
	ErrDenied = errors.New("a dial rule denies it")
	ErrLimit  = errors.New("the dial rule's limit is reached")
)

// Route is where an allowed call goes.
type Route struct {
	Rule      string
	Trunks    []string // in order
	Number    string   // what is dialled: a user part, or user@host
	Redirects int      // how many 301 and 302 are followed
}

// Plan is the rules in force and what was dialled by them. It is safe for
// concurrent use.
type Plan struct {
	mu    sync.Mutex
	rules []Rule
	used  map[string]*usage // by rule
	now   func() time.Time
}

type usage struct {
	calls  int
	recent []time.Time // starts within the last minute, oldest first
}

// New makes a plan.
func New(rules []Rule) *Plan {
	return &Plan{rules: rules, used: map[string]*usage{}, now: time.Now}
}

// SetRules replaces the rules. What was counted for a rule's name goes on.
func (p *Plan) SetRules(rules []Rule) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.rules = rules
	for name := range p.used {
		if !slices.ContainsFunc(rules, func(r Rule) bool { return r.Name == name }) && p.used[name].calls == 0 {
			delete(p.used, name)
		}
	}
}

// Allows tells whether the shard may dial anything at all.
func (p *Plan) Allows(shard string, trunk func(name string) bool) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.ContainsFunc(p.rules, func(r Rule) bool {
		return !r.Deny && r.covers(shard) && slices.ContainsFunc(r.Trunks, trunk)
	})
}

func (r *Rule) covers(shard string) bool {
	return len(r.Shards) == 0 || slices.Contains(r.Shards, shard)
}

// Admit finds the first rule for the shard and the normalised destination and
// counts a call of it until release. Errors: ErrNoRule, ErrDenied, ErrLimit.
func (p *Plan) Admit(shard, destination string) (route Route, release func(), err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range p.rules {
		r := &p.rules[i]
		if !r.covers(shard) {
			continue
		}
		m := r.Pattern.FindStringSubmatchIndex(destination)
		if m == nil || m[0] != 0 || m[1] != len(destination) {
			continue
		}
		if r.Deny {
			return Route{}, nil, fmt.Errorf("%w: %s", ErrDenied, r.Name)
		}
		if release, err = p.count(r); err != nil {
			return Route{}, nil, err
		}
		number := destination
		if r.Number != "" {
			number = string(r.Pattern.ExpandString(nil, r.Number, destination, m))
		}
		return Route{Rule: r.Name, Trunks: r.Trunks, Number: number, Redirects: r.Redirects}, release, nil
	}
	return Route{}, nil, ErrNoRule
}

// count takes a place under the rule's limits; mu is held.
func (p *Plan) count(r *Rule) (release func(), err error) {
	u := p.used[r.Name]
	if u == nil {
		u = &usage{}
		p.used[r.Name] = u
	}
	now := p.now()
	u.recent = slices.DeleteFunc(u.recent, func(t time.Time) bool { return now.Sub(t) >= time.Minute })
	switch {
	case r.MaxCalls > 0 && u.calls >= r.MaxCalls:
		return nil, fmt.Errorf("%w: %s: %d calls at once", ErrLimit, r.Name, r.MaxCalls)
	case r.PerMinute > 0 && len(u.recent) >= r.PerMinute:
		return nil, fmt.Errorf("%w: %s: %d calls a minute", ErrLimit, r.Name, r.PerMinute)
	}
	u.calls++
	if r.PerMinute > 0 {
		u.recent = append(u.recent, now)
	}
	return sync.OnceFunc(func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		u.calls--
	}), nil
}
