package jitsitest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"

	"brewline/internal/jitsitest/jicofo"
	"brewline/internal/jitsitest/jvb"
	"brewline/internal/jitsitest/lb"
	"brewline/internal/jitsitest/xmppd"
)

const startTimeout = 20 * time.Second

// ShardOptions of NewShard.
type ShardOptions struct {
	Name    string         // X-Jitsi-Shard; default "shard-1"
	Domain  string         // default "meet.example"
	XMPP    xmppd.Options  // further options; Domain, Shard, Seed and Logger are filled in
	Jicofo  jicofo.Options // further options; addresses, bridges and Logger are filled in
	JVB     jvb.Options    // further options of every bridge; ID, Seed and Logger are filled in
	Bridges int            // number of videobridges, default 1
	NoFocus bool           // no Jicofo and no bridges
	Seed    int64          // of everything random in the faults; 0 draws one
	Logger  *slog.Logger
}

// Shard is one simulated shard. Focus and Bridges are replaced by Restart.
type Shard struct {
	Name    string
	XMPP    *xmppd.Server
	Focus   *jicofo.Jicofo
	Bridges []*jvb.Bridge
	o       ShardOptions
}

// NewShard starts a shard.
func NewShard(o ShardOptions) (*Shard, error) {
	if o.Name == "" {
		o.Name = "shard-1"
	}
	if o.Domain == "" {
		o.Domain = "meet.example"
	}
	if o.Bridges == 0 {
		o.Bridges = 1
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Seed == 0 {
		o.Seed = rand.Int64N(1<<53) + 1
	}
	x := o.XMPP
	x.Domain, x.Shard, x.Seed = o.Domain, o.Name, o.Seed
	if x.Logger == nil {
		x.Logger = o.Logger
	}
	s := &Shard{Name: o.Name, o: o}
	var err error
	if s.XMPP, err = xmppd.Start(x); err != nil {
		return nil, fmt.Errorf("shard %s: %w", o.Name, err)
	}
	if err := s.startFocus(); err != nil {
		_ = s.Close()
		return nil, fmt.Errorf("shard %s: %w", o.Name, err)
	}
	return s, nil
}

func (s *Shard) startFocus() error {
	if s.o.NoFocus {
		return nil
	}
	s.Bridges = nil
	for i := range s.o.Bridges {
		j := s.o.JVB
		j.ID = fmt.Sprintf("%s-jvb%d", s.Name, i+1)
		j.Seed = uint64(s.o.Seed) + uint64(i)
		if j.Logger == nil {
			j.Logger = s.o.Logger.With("shard", s.Name)
		}
		b, err := jvb.Start(j)
		if err != nil {
			return err
		}
		s.Bridges = append(s.Bridges, b)
	}
	x := s.XMPP.Options()
	f := s.o.Jicofo
	f.ComponentAddr, f.Domain, f.Component, f.Secret, f.MUC = s.XMPP.ComponentAddr(), x.Domain, x.Focus, x.ComponentSecret, x.MUC
	f.Bridges = append(f.Bridges[:len(f.Bridges):len(f.Bridges)], s.Bridges...)
	if f.Logger == nil {
		f.Logger = s.o.Logger.With("shard", s.Name)
	}
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	var err error
	s.Focus, err = jicofo.Start(ctx, f)
	return err
}

// Domain is the shard's main XMPP domain.
func (s *Shard) Domain() string { return s.XMPP.Domain() }

// MUC is the domain of its conferences.
func (s *Shard) MUC() string { return s.XMPP.MUC() }

// BOSHURL is the address of its BOSH service.
func (s *Shard) BOSHURL() string { return s.XMPP.BOSHURL() }

// Close ends everything of the shard.
func (s *Shard) Close() error {
	var errs []error
	if s.Focus != nil {
		errs = append(errs, s.Focus.Close())
		s.Focus = nil
	}
	for _, b := range s.Bridges {
		errs = append(errs, b.Stop())
	}
	s.Bridges = nil
	return errors.Join(append(errs, s.XMPP.Close())...)
}

// Kill takes the whole shard away at once, as losing the machine would.
func (s *Shard) Kill() {
	s.XMPP.Kill()
	if s.Focus != nil {
		_ = s.Focus.Close()
		s.Focus = nil
	}
	for _, b := range s.Bridges {
		_ = b.Stop()
	}
	s.Bridges = nil
}

// Restart brings a killed shard back on the same ports, with nothing in memory.
func (s *Shard) Restart() error {
	if err := s.XMPP.Restart(); err != nil {
		return err
	}
	if s.Focus != nil {
		return nil
	}
	return s.startFocus()
}

// DeploymentOptions of NewDeployment.
type DeploymentOptions struct {
	Shard ShardOptions // template; Name (default "shard") gets "-1", "-2" … appended
	// DifferentNames gives every shard a domain of its own: shard1.<domain> ….
	DifferentNames bool
	Balancer       lb.Options // further options; Backends are filled in
	NoBalancer     bool
}

// Deployment is several shards behind a load balancer.
type Deployment struct {
	Shards   []*Shard
	Balancer *lb.Balancer // nil with NoBalancer
}

// NewDeployment starts n shards.
func NewDeployment(n int, o DeploymentOptions) (*Deployment, error) {
	d := &Deployment{}
	if o.Shard.Name == "" {
		o.Shard.Name = "shard"
	}
	if o.Shard.Domain == "" {
		o.Shard.Domain = "meet.example"
	}
	backends := map[string]string{}
	for i := 1; i <= n; i++ {
		so := o.Shard
		so.Name = fmt.Sprintf("%s-%d", o.Shard.Name, i)
		if o.DifferentNames {
			so.Domain = fmt.Sprintf("shard%d.%s", i, o.Shard.Domain)
		}
		if so.Seed != 0 {
			so.Seed += int64(i) << 20
		}
		s, err := NewShard(so)
		if err != nil {
			_ = d.Close()
			return nil, err
		}
		d.Shards = append(d.Shards, s)
		backends[s.Name] = s.XMPP.HTTPURL()
	}
	if o.NoBalancer {
		return d, nil
	}
	b := o.Balancer
	b.Backends = backends
	if b.Logger == nil {
		b.Logger = o.Shard.Logger
	}
	var err error
	if d.Balancer, err = lb.Start(b); err != nil {
		_ = d.Close()
		return nil, err
	}
	return d, nil
}

// Shard is the shard of that name, or nil.
func (d *Deployment) Shard(name string) *Shard {
	for _, s := range d.Shards {
		if s.Name == name {
			return s
		}
	}
	return nil
}

// ShardOf is the shard on which a room (the node, or the JID) lives, or nil.
func (d *Deployment) ShardOf(room string) *Shard {
	for _, s := range d.Shards {
		if len(s.XMPP.Occupants(room)) > 0 {
			return s
		}
	}
	return nil
}

// Close ends everything.
func (d *Deployment) Close() error {
	var errs []error
	if d.Balancer != nil {
		errs = append(errs, d.Balancer.Close())
	}
	for _, s := range d.Shards {
		errs = append(errs, s.Close())
	}
	return errors.Join(errs...)
}
