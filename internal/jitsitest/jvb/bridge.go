package jvb

import "errors"

// Errors of Bridge and Endpoint.
var (
	// ErrDown is returned by a bridge that crashed or was stopped.
	ErrDown = errors.New("bridge is down")
	// ErrUnknownEndpoint is returned for an endpoint that has expired.
	ErrUnknownEndpoint = errors.New("unknown endpoint")
	// ErrExists is returned when an endpoint is allocated twice.
	ErrExists = errors.New("endpoint exists")
)

// Bridge is a running videobridge.
type Bridge struct{ o Options }

// Start opens the bridge's UDP port and serves until Stop.
func Start(o Options) (*Bridge, error) { return &Bridge{o: o}, nil }

// ID returns Options.ID.
func (b *Bridge) ID() string { return b.o.ID }

// Region returns Options.Region.
func (b *Bridge) Region() string { return b.o.Region }

// Addr returns the bridge's UDP address, "ip:port".
func (b *Bridge) Addr() string { return "" }

// Seed returns the seed of the faults.
func (b *Bridge) Seed() uint64 { return b.o.Seed }

// Up says whether the bridge is neither stopped nor crashed.
func (b *Bridge) Up() bool { return true }

// Crash makes the bridge silently dead: its port stays bound and nothing is
// answered or sent any more. Stop must still be called.
func (b *Bridge) Crash() {}

// Stop closes the port and waits until everything has ended.
func (b *Bridge) Stop() error { return nil }

// Allocate makes an endpoint of a conference and its transport.
func (b *Bridge) Allocate(conference, endpoint string, o AllocOptions) (*Endpoint, error) {
	return nil, ErrDown
}

// Endpoint returns an endpoint, or nil when there is none.
func (b *Bridge) Endpoint(conference, endpoint string) *Endpoint { return nil }

// Endpoints returns all endpoints of a conference, or of all conferences when
// it is empty.
func (b *Bridge) Endpoints(conference string) []*Endpoint { return nil }

// FeedbackSSRC is the SSRC of jvb-a0, the bridge's own source.
func (b *Bridge) FeedbackSSRC() uint32 { return 0 }

// SetFaults replaces the faults of all endpoints and of those to come.
func (b *Bridge) SetFaults(fromClients, toClients Faults) {}
