package brewery

import (
	"crypto/tls"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"brewline/config"
	"brewline/xmpp"
)

// Deployment is a set of shards that share their rooms. It follows the
// configuration; all methods are safe for concurrent use.
type Deployment struct {
	name string
	set  *Set
	snap atomic.Pointer[snapshot]

	mu      sync.Mutex
	flights map[Room]*flight // questions under way
}

// snapshot is a deployment as configured at one moment; never changed.
type snapshot struct {
	*config.Deployment
	shards  []*Shard
	timeout time.Duration // of Locate

	client *http.Client // for the balancer; nil without one
	own    bool         // client is ours
	tls    *tls.Config  // for sessions through the balancer
}

func newDeployment(s *Set, name string) *Deployment {
	d := &Deployment{name: name, set: s, flights: map[Room]*flight{}}
	d.snap.Store(&snapshot{})
	return d
}

func newSnapshot(c *config.Deployment, timeout time.Duration) *snapshot {
	if timeout <= 0 {
		timeout = defaultLocate
	}
	return &snapshot{Deployment: c, timeout: timeout}
}

func (n *snapshot) closeIdle() {
	if n.own {
		n.client.CloseIdleConnections()
	}
}

// Name returns the deployment's name in the configuration.
func (d *Deployment) Name() string { return d.name }

// Config returns the current configuration, not to be changed.
func (d *Deployment) Config() *config.Deployment { return d.snap.Load().Deployment }

// Shards returns the configured shards.
func (d *Deployment) Shards() []*Shard { return append([]*Shard(nil), d.snap.Load().shards...) }

// Shard returns the shard of that name, or nil.
func (d *Deployment) Shard(name string) *Shard {
	for _, sh := range d.snap.Load().shards {
		if sh.name == name {
			return sh
		}
	}
	return nil
}

// effective is the configuration at a shard, which may override some of the
// deployment's; nil is where only the balancer knows.
func (d *Deployment) effective(sh *Shard) *config.Deployment {
	if sh != nil {
		return &sh.Config().Effective
	}
	return d.Config()
}

// RoomJID returns the address of a room at a shard; sh may be nil.
func (d *Deployment) RoomJID(r Room, sh *Shard) xmpp.JID { return roomJID(d.effective(sh), r) }

// Focus returns the address for conference requests at a shard and the nick of
// Jicofo's occupant in rooms; sh may be nil.
func (d *Deployment) Focus(sh *Shard) (addr xmpp.JID, nick string) {
	c := d.effective(sh)
	return xmpp.JID{Domain: strings.ToLower(c.Focus)}, c.FocusNick
}

// roomJID puts the tenant behind the first label of the MUC domain, as
// jitsi-meet's config.js does: room@conference.tenant.meet.example.
func roomJID(c *config.Deployment, r Room) xmpp.JID {
	muc := strings.ToLower(c.MUC)
	if r.Tenant != "" {
		prefix, rest, _ := strings.Cut(muc, ".")
		muc = prefix + "." + r.Tenant + "." + rest
	}
	return xmpp.JID{Local: r.Name, Domain: muc}
}
