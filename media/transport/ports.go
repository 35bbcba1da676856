package transport

import (
	"errors"
	"time"
)

// ErrNoPorts says that every port of the range is in use, draining or taken
// by another process.
var ErrNoPorts = errors.New("transport: no free port")

// Ports hands out UDP ports of a range.
type Ports struct {
	min, max int
	drain    time.Duration
}

// NewPorts returns an allocator of the ports min to max, both included. A port
// that is given back is not used again for drain, so that late packets of one
// call are not heard in another. With min and max 0 the operating system
// chooses.
func NewPorts(min, max int, drain time.Duration) *Ports {
	return &Ports{min: min, max: max, drain: drain}
}

// InUse returns how many ports are open now.
func (p *Ports) InUse() int { return 0 }
