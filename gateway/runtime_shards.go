package gateway

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"
	"sync"

	"github.com/BurntSushi/toml"

	"brewline/config"
	"brewline/gateway/api"
)

// runtimeShards are the changes to the shards of the files that were asked for
// over HTTP. They outlast reloads, not the process.
type runtimeShards struct {
	mu      sync.Mutex     // also orders everything that puts a configuration in force
	files   *config.Config // without the changes
	added   []account
	removed []string // shards of the files
}

// account is a brewery account as Jigasi's properties describe it (README,
// "Call control MUCs"; the same keys stand in sip-communicator.properties).
type account struct {
	id                     string
	uid                    string // ACCOUNT_UID, "" if not told
	user, domain, password string
	brewery                string // room JID
	url                    string // of this one shard
	domainBase             string // of the deployment, or its public host
	muc                    string // first label of the MUC domain
	balancer               string // pattern, if it leads elsewhere than url
	deployment             string // chosen by name; Brewline's own key
	header                 string // value of the shard header; Brewline's own key
	region                 string // Brewline's own key
}

// parseAccount reads an account. Properties that say nothing about where the
// brewery is and how to log in are passed over.
func parseAccount(id string, p map[string]string) (account, error) {
	a := account{id: id, uid: p["ACCOUNT_UID"], password: p["PASSWORD"], brewery: p["BREWERY"], domainBase: strings.ToLower(p["DOMAIN_BASE"]),
		deployment: p["DEPLOYMENT"], header: p["HEADER_VALUE"], region: p["REGION"]}
	user := p["USER_ID"]
	if user == "" { // Jabber:user@domain, then perhaps @label
		uid, _ := strings.CutPrefix(p["ACCOUNT_UID"], "Jabber:")
		parts := strings.SplitN(uid, "@", 3)
		user = strings.Join(parts[:min(len(parts), 2)], "@")
	}
	bare, _, _ := strings.Cut(user, "/")
	a.user, a.domain, _ = strings.Cut(strings.ToLower(bare), "@")
	switch {
	case a.user == "" || a.domain == "":
		return a, errors.New("USER_ID is missing, or is no user@domain")
	case a.password == "":
		return a, errors.New("PASSWORD is missing")
	case a.brewery == "":
		return a, errors.New("BREWERY is missing")
	}
	a.muc, _, _ = strings.Cut(p["MUC_DOMAIN_PREFIX"], ",")
	pattern := p["BOSH_URL_PATTERN"]
	if base := a.domainBase; base != "" && base != a.xmppDomain() {
		pattern = strings.ReplaceAll(pattern, "{host}", base)
	}
	switch {
	case p["BOSH_URL"] != "":
		a.url, a.balancer = p["BOSH_URL"], pattern
	case p["SERVER_ADDRESS"] != "":
		port := p["SERVER_PORT"]
		if port == "" {
			port = "5222"
		}
		a.url, a.balancer = "xmpp://"+net.JoinHostPort(strings.Trim(p["SERVER_ADDRESS"], "[]"), port), pattern
	case pattern != "":
		a.url = pattern
	default:
		a.url = "xmpp://" + a.domain + ":5222"
	}
	a.url = strings.NewReplacer("{host}", a.xmppDomain(), "{subdomain}", "", "{roomName}", "").Replace(a.url)
	if u, err := url.Parse(a.url); err == nil && u.RawQuery != "" {
		q := u.Query()
		q.Del("room")
		q.Del("token")
		u.RawQuery = q.Encode()
		a.url = u.String()
	}
	if !strings.Contains(a.balancer, "{roomName}") {
		a.balancer = ""
	}
	return a, nil
}

// xmppDomain is the main virtual host, to which the account's belongs.
func (a *account) xmppDomain() string {
	if d, ok := strings.CutPrefix(a.domain, "auth."); ok {
		return d
	}
	return a.domain
}

// replaces says whether an account that was added under the same id has to make
// way. Jigasi compares ACCOUNT_UID, of which the server's address is often a
// part, and so do we where both tell it.
func (a *account) replaces(added []account) bool {
	return slices.ContainsFunc(added, func(b account) bool {
		return b.id == a.id && a.uid != "" && b.uid != "" && a.uid != b.uid
	})
}

// is says whether a shard is of the same account.
func (a *account) is(s *config.Shard) bool {
	return s != nil && strings.EqualFold(s.Username, a.user) && strings.EqualFold(s.AuthDomain, a.domain) && strings.EqualFold(s.Brewery, a.brewery)
}

// in finds the deployment of an account, "" if it needs one of its own.
func (a *account) in(c *config.Config) (string, error) {
	if a.deployment != "" {
		return a.deployment, nil
	}
	var exact, near []string
	add := func(to *[]string, name string) {
		if !slices.Contains(*to, name) {
			*to = append(*to, name)
		}
	}
	for i := range c.Deployments {
		if d := &c.Deployments[i]; strings.EqualFold(d.Domain, a.domainBase) {
			add(&exact, d.Name)
		} else if strings.EqualFold(d.Domain, a.xmppDomain()) {
			add(&near, d.Name)
		}
	}
	for i := range c.Shards {
		if s := &c.Shards[i]; strings.EqualFold(s.AuthDomain, a.domain) && !slices.Contains(exact, s.Deployment) {
			add(&near, s.Deployment)
		}
	}
	if len(exact) == 0 {
		exact = near
	}
	switch len(exact) {
	case 0:
		return "", nil
	case 1:
		return exact[0], nil
	}
	return "", fmt.Errorf("it could belong to deployment %s: name one as DEPLOYMENT", strings.Join(exact, " or "))
}

// shardTable and deploymentTable are what is laid over the files.
type shardTable struct {
	Name        string    `toml:"name"`
	Deployment  string    `toml:"deployment"`
	URL         string    `toml:"url"`
	AuthDomain  string    `toml:"auth_domain"`
	Username    string    `toml:"username"`
	Password    string    `toml:"password"`
	Brewery     string    `toml:"brewery"`
	HeaderValue string    `toml:"header_value,omitempty"`
	Region      string    `toml:"region,omitempty"`
	TLS         *tlsTable `toml:"tls,omitempty"`
}

type tlsTable struct {
	CA         string `toml:"ca,omitempty"`
	ServerName string `toml:"server_name,omitempty"`
	Insecure   bool   `toml:"insecure,omitempty"`
}

type deploymentTable struct {
	Name     string `toml:"name"`
	Domain   string `toml:"domain"`
	MUC      string `toml:"muc,omitempty"`
	Balancer string `toml:"balancer,omitempty"`
}

// over lays the accounts over the configuration of the files.
func over(files *config.Config, added []account, removed []string) (*config.Config, error) {
	if len(added) == 0 && len(removed) == 0 {
		return files, nil
	}
	var tables struct {
		Deployments []deploymentTable `toml:"deployment,omitempty"`
		Shards      []shardTable      `toml:"shard,omitempty"`
	}
	o := config.Overlay{Without: slices.Clone(removed), Source: "/configure/call-control-muc"}
	for _, a := range added {
		o.Without = append(o.Without, a.id) // of the files, should there be one
		name, err := a.in(files)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", a.id, err)
		}
		t := shardTable{Name: a.id, Deployment: name, URL: a.url, AuthDomain: a.domain, Username: a.user, Password: a.password,
			Brewery: a.brewery, HeaderValue: a.header, Region: a.region}
		if name == "" {
			t.Deployment = a.xmppDomain()
			if !slices.ContainsFunc(tables.Deployments, func(d deploymentTable) bool { return d.Name == t.Deployment }) {
				d := deploymentTable{Name: t.Deployment, Domain: a.xmppDomain(), Balancer: a.balancer}
				if a.muc != "" {
					d.MUC = a.muc + "." + d.Domain
				}
				tables.Deployments = append(tables.Deployments, d)
			}
		} else if like := files.ShardsOf(name); len(like) > 0 && like[0].TLS != (config.TLS{}) {
			// Jigasi has one way for all to check certificates.
			tls := tlsTable(like[0].TLS)
			t.TLS = &tls
		}
		tables.Shards = append(tables.Shards, t)
	}
	b, err := toml.Marshal(tables)
	if err != nil {
		return nil, err
	}
	o.Tables = string(b)
	return files.With(o)
}

// Reload puts another configuration in force, with what was changed over HTTP.
// Running calls keep what they were started with. What needs a restart is
// named in the log.
func (g *Gateway) Reload(files *config.Config) error {
	r := &g.runtime
	r.mu.Lock()
	defer r.mu.Unlock()
	removed := slices.DeleteFunc(slices.Clone(r.removed), func(name string) bool { return files.Shard(name) == nil })
	cfg, err := over(files, r.added, removed)
	if err != nil {
		return err
	}
	if err := g.apply(cfg); err != nil {
		return err
	}
	r.files, r.removed = files, removed
	return nil
}

// ListShards implements api.Source.
func (g *Gateway) ListShards() []string {
	var ids []string
	for _, s := range g.cfg.Load().Shards {
		if s.Username != "" && s.Brewery != "" {
			ids = append(ids, s.Name)
		}
	}
	return ids
}

// AddShard implements api.Source. As with Jigasi, an id that is there already
// with the same account stays as it is, and one with another is replaced.
func (g *Gateway) AddShard(id string, properties map[string]string) error {
	a, err := parseAccount(id, properties)
	if err != nil {
		return err
	}
	r := &g.runtime
	r.mu.Lock()
	defer r.mu.Unlock()
	if a.is(g.cfg.Load().Shard(id)) && !a.replaces(r.added) {
		g.log.Info("shard is there already", "shard", id)
		return nil
	}
	other := func(b account) bool { return b.id != id }
	added := slices.DeleteFunc(slices.Clone(r.added), func(b account) bool { return !other(b) })
	removed := slices.DeleteFunc(slices.Clone(r.removed), func(name string) bool { return name == id })
	if !a.is(r.base(g).Shard(id)) {
		added = append(added, a)
	}
	return g.change(added, removed, "added", id)
}

// RemoveShard implements api.Source.
func (g *Gateway) RemoveShard(id string) error {
	r := &g.runtime
	r.mu.Lock()
	defer r.mu.Unlock()
	if s := g.cfg.Load().Shard(id); s == nil || s.Username == "" || s.Brewery == "" {
		return fmt.Errorf("%w: %s", api.ErrNoSuchShard, id)
	}
	added := slices.DeleteFunc(slices.Clone(r.added), func(a account) bool { return a.id == id })
	removed := slices.Clone(r.removed)
	if r.base(g).Shard(id) != nil {
		removed = append(removed, id)
	}
	return g.change(added, removed, "removed", id)
}

// base is the configuration of the files.
func (r *runtimeShards) base(g *Gateway) *config.Config {
	if r.files == nil {
		r.files = g.cfg.Load()
	}
	return r.files
}

// change lays other changes over the files; runtime.mu is held.
func (g *Gateway) change(added []account, removed []string, what, id string) error {
	r := &g.runtime
	cfg, err := over(r.base(g), added, removed)
	if err != nil {
		return err
	}
	if err := g.apply(cfg); err != nil {
		return err
	}
	r.added, r.removed = added, removed
	g.log.Info("shard "+what+" over HTTP", "shard", id)
	return nil
}
