// Package jitsitest wires simulated Jitsi shards for tests: an XMPP server, a
// Jicofo and videobridges each, a load balancer in front of several, and
// participants with a voice and ears.
package jitsitest

import (
	"context"
	"log/slog"
	"time"

	"brewline/internal/jitsitest/lb"
	"brewline/internal/jitsitest/xmppd"
)

// ShardOptions of NewShard.
type ShardOptions struct {
	Name    string        // X-Jitsi-Shard; default "shard-1"
	Domain  string        // default "meet.example"
	XMPP    xmppd.Options // further options; Domain and Shard are filled in
	Bridges int           // number of videobridges, default 1
	NoFocus bool          // no Jicofo and no bridges
	Seed    int64
	Logger  *slog.Logger
}

// Shard is one simulated shard.
type Shard struct {
	Name string
	XMPP *xmppd.Server
}

// NewShard starts a shard.
func NewShard(o ShardOptions) (*Shard, error) { return &Shard{}, nil }

func (s *Shard) Close() error    { return nil }
func (s *Shard) BOSHURL() string { return "" }
func (s *Shard) Kill()           {} // everything of the shard stops answering
func (s *Shard) Restart() error  { return nil }

// DeploymentOptions of NewDeployment.
type DeploymentOptions struct {
	Shard          ShardOptions // template: Name gets a number appended
	DifferentNames bool         // every shard a domain of its own (two deployments in one call)
	Balancer       lb.Options
	NoBalancer     bool
}

// Deployment is several shards behind a load balancer.
type Deployment struct {
	Shards   []*Shard
	Balancer *lb.Balancer // nil with NoBalancer
}

// NewDeployment starts n shards.
func NewDeployment(n int, o DeploymentOptions) (*Deployment, error) { return &Deployment{}, nil }

func (d *Deployment) Close() error             { return nil }
func (d *Deployment) Shard(name string) *Shard { return nil }

// BrowserOptions of JoinBrowser.
type BrowserOptions struct {
	URL      string // BOSH
	Domain   string // XMPP domain, default "meet.example"
	MUC      string // default "conference."+Domain
	Focus    string // default "focus."+Domain
	Room     string // node
	Nick     string // default: first 8 characters of the JID's user
	Name     string // display name
	Password string
	Token    string
	Tone     int           // Hz that it says continuously; 0 is silence
	PCM      []int16       // 48 kHz mono, said in a loop instead of Tone
	Deaf     bool          // counts what arrives and decodes nothing
	JSON     bool          // advertise json-encoded-sources
	Timeout  time.Duration // of the join, default 15 s
	Logger   *slog.Logger
}

// Browser is a participant.
type Browser struct{}

// JoinBrowser joins a room and returns when the participant is in it; media
// follows when Jicofo invites.
func JoinBrowser(ctx context.Context, o BrowserOptions) (*Browser, error) { return &Browser{}, nil }

func (b *Browser) Close() error                             { return nil }
func (b *Browser) Nick() string                             { return "" }
func (b *Browser) Connected(ctx context.Context) error      { return nil } // awaits media transport up
func (b *Browser) Hear(ctx context.Context, freq int) error { return nil } // awaits the tone in audio that arrives from now on
func (b *Browser) Heard() []int16                           { return nil } // 48 kHz mono, all sources mixed
func (b *Browser) HeardFrom(nick string) []int16            { return nil } // 48 kHz mono, by the owner of the source
func (b *Browser) SetTone(freq int)                         {}
func (b *Browser) SetPCM(pcm []int16)                       {}
func (b *Browser) Mute(on bool) error                       { return nil }
func (b *Browser) Others() []string                         { return nil } // nicks, focus excluded
