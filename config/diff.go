package config

import (
	"maps"
	"reflect"
	"slices"
	"strings"
)

// Changes is what differs between two configurations.
type Changes struct {
	ShardsAdded, ShardsRemoved, ShardsChanged                []string
	TrunksAdded, TrunksRemoved, TrunksChanged                []string
	DialAdded, DialRemoved, DialChanged                      []string
	DeploymentsAdded, DeploymentsRemoved, DeploymentsChanged []string
	// Live are changed keys of other sections that take effect for new calls;
	// Restart are those that need the process to start again.
	Live, Restart []string
}

// Empty says that nothing differs.
func (c Changes) Empty() bool { return reflect.DeepEqual(c, Changes{}) }

// String names what differs, + for added, - for removed, ~ for changed.
func (c Changes) String() string {
	var words []string
	list := func(what, sign string, names []string) {
		for _, n := range names {
			words = append(words, what+" "+sign+n)
		}
	}
	list("deployment", "+", c.DeploymentsAdded)
	list("deployment", "-", c.DeploymentsRemoved)
	list("deployment", "~", c.DeploymentsChanged)
	list("shard", "+", c.ShardsAdded)
	list("shard", "-", c.ShardsRemoved)
	list("shard", "~", c.ShardsChanged)
	list("trunk", "+", c.TrunksAdded)
	list("trunk", "-", c.TrunksRemoved)
	list("trunk", "~", c.TrunksChanged)
	list("dial rule", "+", c.DialAdded)
	list("dial rule", "-", c.DialRemoved)
	list("dial rule", "~", c.DialChanged)
	list("key", "~", c.Live)
	list("only after a restart:", "", c.Restart)
	if len(words) == 0 {
		return "none"
	}
	return strings.Join(words, ", ")
}

// Diff compares two configurations as [Load] returns them. A shard has changed
// when any key of its deployment has. Names and keys come sorted.
func Diff(old, new *Config) Changes {
	var c Changes
	c.ShardsAdded, c.ShardsRemoved, c.ShardsChanged = compare(old.Shards, new.Shards, func(s Shard) string { return s.Name })
	c.TrunksAdded, c.TrunksRemoved, c.TrunksChanged = compare(old.Trunks, new.Trunks, func(t Trunk) string { return t.Name })
	c.DeploymentsAdded, c.DeploymentsRemoved, c.DeploymentsChanged = compare(old.Deployments, new.Deployments, func(d Deployment) string { return d.Name })
	c.DialAdded, c.DialRemoved, c.DialChanged = compare(old.Dial, new.Dial, func(r DialRule) string { return r.Name })
	c.sections("", reflect.ValueOf(*old), reflect.ValueOf(*new))
	slices.Sort(c.Live)
	slices.Sort(c.Restart)
	return c
}

func compare[T any](old, new []T, name func(T) string) (added, removed, changed []string) {
	before, after := map[string]T{}, map[string]T{}
	for _, x := range old {
		before[name(x)] = x
	}
	for _, x := range new {
		after[name(x)] = x
	}
	for _, n := range slices.Sorted(maps.Keys(after)) {
		if was, ok := before[n]; !ok {
			added = append(added, n)
		} else if !reflect.DeepEqual(was, after[n]) {
			changed = append(changed, n)
		}
	}
	for _, n := range slices.Sorted(maps.Keys(before)) {
		if _, ok := after[n]; !ok {
			removed = append(removed, n)
		}
	}
	return added, removed, changed
}

// sections compares the tables that are not lists.
func (c *Changes) sections(path string, old, new reflect.Value) {
	for i := range old.NumField() {
		field := old.Type().Field(i)
		name := field.Tag.Get("toml")
		a, b := old.Field(i), new.Field(i)
		switch {
		case name == "-", a.Kind() == reflect.Slice && isTable(a.Type().Elem()):
		case isTable(a.Type()):
			c.sections(join(path, name), a, b)
		case reflect.DeepEqual(a.Interface(), b.Interface()):
		case field.Tag.Get("restart") == "true":
			c.Restart = append(c.Restart, join(path, name))
		default:
			c.Live = append(c.Live, join(path, name))
		}
	}
}
