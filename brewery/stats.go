package brewery

import (
	"errors"
	"sync/atomic"
)

// Stats are counters since the start.
type Stats struct {
	// Calls located, by how.
	Told, Asked, Balancer, Hash uint64
	// Calls not located, by why.
	UnknownShard, OwnerDown, BalancerFailed, NothingUp uint64
	// Shared is how many of all these shared another call's question.
	Shared uint64

	// Answers of shards to "does this room live here?". Unknown are those that
	// did not come or say neither.
	Here, NotHere, Unknown uint64
	// SplitBrain counts rooms found on a second shard; LateHits, rooms found
	// when the balancer or the hash had already chosen another shard.
	SplitBrain, LateHits uint64

	// Requests to balancers, and how many of the good answers named no shard
	// or one that is not configured.
	BalancerRequests, BalancerNoHeader, BalancerUnknown uint64

	// Control sessions opened, attempts that failed, sessions lost, and
	// sessions that reached another shard than configured.
	Connected, ConnectFailed, Lost, Mismatched uint64

	// Breweries joined, joins refused, presences that were lost, and updates
	// of presences.
	BreweryJoined, BreweryRefused, BreweryLost, Presences uint64

	// Dial requests taken; of those, accepted, refused, and refused because
	// the deadline had passed; answers that came too late or found nobody.
	Dials, DialsAccepted, DialsRefused, DialsExpired, DialsUnheard uint64
	// Dial requests of the same stanza again, of somebody who may not dial,
	// and wrong in themselves.
	DialsTwice, DialsForbidden, DialsBad uint64
}

type counters struct {
	told, asked, balancer, hash                         atomic.Uint64
	unknownShard, ownerDown, balancerFailed, nothingUp  atomic.Uint64
	shared                                              atomic.Uint64
	here, notHere, unknown                              atomic.Uint64
	splitBrain, lateHits                                atomic.Uint64
	balancerRequests, balancerNoHeader, balancerUnknown atomic.Uint64
	connected, connectFailed, lost, mismatched          atomic.Uint64

	breweryJoined, breweryRefused, breweryLost, presences          atomic.Uint64
	dials, dialsAccepted, dialsRefused, dialsExpired, dialsUnheard atomic.Uint64
	dialsTwice, dialsForbidden, dialsBad                           atomic.Uint64
}

// Stats returns the counters.
func (s *Set) Stats() Stats {
	c := &s.count
	return Stats{
		Told: c.told.Load(), Asked: c.asked.Load(), Balancer: c.balancer.Load(), Hash: c.hash.Load(),
		UnknownShard: c.unknownShard.Load(), OwnerDown: c.ownerDown.Load(),
		BalancerFailed: c.balancerFailed.Load(), NothingUp: c.nothingUp.Load(),
		Shared: c.shared.Load(),
		Here:   c.here.Load(), NotHere: c.notHere.Load(), Unknown: c.unknown.Load(),
		SplitBrain: c.splitBrain.Load(), LateHits: c.lateHits.Load(),
		BalancerRequests: c.balancerRequests.Load(), BalancerNoHeader: c.balancerNoHeader.Load(),
		BalancerUnknown: c.balancerUnknown.Load(),
		Connected:       c.connected.Load(), ConnectFailed: c.connectFailed.Load(),
		Lost: c.lost.Load(), Mismatched: c.mismatched.Load(),
		BreweryJoined: c.breweryJoined.Load(), BreweryRefused: c.breweryRefused.Load(),
		BreweryLost: c.breweryLost.Load(), Presences: c.presences.Load(),
		Dials: c.dials.Load(), DialsAccepted: c.dialsAccepted.Load(), DialsRefused: c.dialsRefused.Load(),
		DialsExpired: c.dialsExpired.Load(), DialsUnheard: c.dialsUnheard.Load(), DialsTwice: c.dialsTwice.Load(),
		DialsForbidden: c.dialsForbidden.Load(), DialsBad: c.dialsBad.Load(),
	}
}

// located counts the outcome of one Locate.
func (c *counters) located(how How, err error) {
	switch {
	case errors.Is(err, ErrUnknownShard):
		c.unknownShard.Add(1)
	case errors.Is(err, ErrBalancer):
		c.balancerFailed.Add(1)
	case errors.Is(err, ErrOwnerDown):
		c.ownerDown.Add(1)
	case errors.Is(err, ErrNothingUp):
		c.nothingUp.Add(1)
	case err != nil: // the caller went away
	case how == HowTold:
		c.told.Add(1)
	case how == HowAsked:
		c.asked.Add(1)
	case how == HowBalancer:
		c.balancer.Add(1)
	case how == HowHash:
		c.hash.Add(1)
	}
}

// said counts a shard's answer.
func (c *counters) said(v verdict) {
	switch v {
	case here:
		c.here.Add(1)
	case notHere:
		c.notHere.Add(1)
	default:
		c.unknown.Add(1)
	}
}
