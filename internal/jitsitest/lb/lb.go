// Package lb is a load balancer for tests: like the HAProxy in front of Jitsi
// shards it sends every HTTP request where its ?room= (and tenant) lives, by
// hash and a stick table.
package lb

import (
	"log/slog"
	"time"
)

// State of a backend.
type State int

// States of a backend, in HAProxy's words.
const (
	Up    State = iota
	Drain       // no new rooms
	Down
)

// Options of a Balancer.
type Options struct {
	Backends         map[string]string // name to base URL
	Expire           time.Duration     // of a stick table entry, default 5 min
	CheckInterval    time.Duration     // between health checks, default 250 ms; negative: none
	StripShardHeader bool              // remove X-Jitsi-Shard from answers
	Stateless        bool              // no stick table, hash only
	Logger           *slog.Logger
}

// Route records where one request went.
type Route struct {
	At      time.Time
	Path    string
	Token   string // tenant/room, lower case
	Backend string // "" when none was up
	Stuck   bool   // by the stick table
	Status  int
}

// Balancer is a running load balancer.
type Balancer struct{}

// Start serves on a port of its own choice.
func Start(o Options) (*Balancer, error) { return &Balancer{}, nil }

func (b *Balancer) Close() error                       { return nil }
func (b *Balancer) URL() string                        { return "" } // http://127.0.0.1:port
func (b *Balancer) BOSHURL() string                    { return "" } // …/http-bind
func (b *Balancer) SetState(backend string, s State)   {}
func (b *Balancer) SetBackend(name, url string)        {} // add or change
func (b *Balancer) RemoveBackend(name string)          {}
func (b *Balancer) Stick(tenant, room, backend string) {}            // force an entry
func (b *Balancer) Where(tenant, room string) string   { return "" } // backend a request would go to now; stores nothing
func (b *Balancer) Routes() []Route                    { return nil }
