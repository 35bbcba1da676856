package config

import (
	"errors"
	"slices"
)

// Overlay is what a running process changes of its configuration files.
type Overlay struct {
	Without []string // shards of the files that are left out; what names them may stay
	Source  string   // where Tables come from, for problems
	Tables  string   // further [[deployment]] and [[shard]], in TOML
}

// With returns the configuration as it would be with the overlay: nothing is
// read again but secrets and certificates. The error is a [*Problems]. Only
// what [Load] has returned can be overlaid.
func (c *Config) With(o Overlay) (*Config, error) {
	if c.docs == nil {
		return nil, errors.New("config: not from a file")
	}
	docs := c.docs()
	l := &loader{without: o.Without, order: map[string]int{}}
	for i, d := range docs {
		l.order[d.file] = i
	}
	l.order[o.Source] = len(docs)
	l.more = &document{file: o.Source}
	l.parse(l.more, o.Tables)
	if len(l.problems) > 0 {
		return nil, l.err()
	}
	if _, written := docs[0].raw["deployment"]; !written && len(c.Deployments) == 1 {
		l.made = &c.Deployments[0]
	}
	out := l.build(docs, c.shardsDir || len(o.Without) > 0)
	if len(l.problems) > 0 {
		return nil, l.err()
	}
	return out, nil
}

// leaveOut drops shards of the files, once all of those are read.
func (l *loader) leaveOut(c *Config) {
	if l.made != nil {
		c.Deployments = append(c.Deployments, *l.made)
		l.deployments = append(l.deployments, l.shards[0])
		c.Shards[0].Deployment = l.made.Name
	}
	if len(c.Deployments) == 1 { // the only one of the files, whatever else comes
		for i := range c.Shards {
			if s := &c.Shards[i]; s.Deployment == "" {
				s.Deployment = c.Deployments[0].Name
			}
		}
	}
	for i := len(c.Shards) - 1; i >= 0; i-- {
		if slices.Contains(l.without, c.Shards[i].Name) {
			c.Shards = slices.Delete(c.Shards, i, i+1)
			l.shards = slices.Delete(l.shards, i, i+1)
			l.over = slices.Delete(l.over, i, i+1)
		}
	}
}

// known says whether a shard of that name is configured, or was left out.
func (l *loader) known(c *Config, shard string) bool {
	return c.Shard(shard) != nil || slices.Contains(l.without, shard)
}
