package trunk

import (
	"fmt"
	"strings"
	"time"
)

// State of a trunk.
type State string

// The states. A trunk without an address and without a registrar only takes
// calls, and one that is not probed is believed to be there.
const (
	Receives     State = "receives"
	Unprobed     State = "unprobed"
	Trying       State = "trying"
	Registered   State = "registered"
	Reachable    State = "reachable"
	Unregistered State = "unregistered"
	Unreachable  State = "unreachable"
)

// Down reports whether calls over the trunk are known to be in vain.
func (s State) Down() bool { return s == Unregistered || s == Unreachable }

// Up reports whether nothing is known against the trunk, and what could be
// asked was answered.
func (s State) Up() bool { return !s.Down() && s != Trying }

// Status is a trunk at one moment.
type Status struct {
	Trunk  string
	State  State
	Reason string // why it is down, "" if it is not
	Since  time.Time
	// Registrars are those of the configuration, in its order.
	Registrars []RegistrarStatus
}

// RegistrarStatus is a registration at one moment.
type RegistrarStatus struct {
	URI        string
	Registered bool
	Until      time.Time
	Reason     string // why the latest attempt failed
}

// judge finds the state of a trunk. t.mu is held, or t is new.
func (t *trunk) judge() (State, string) {
	registered, failed := false, []string(nil)
	for i, r := range t.registrations {
		if !r.Until.IsZero() {
			registered = true
		} else if r.Err != nil {
			failed = append(failed, fmt.Sprintf("%s: %v", t.policy.registrars[i], r.Err))
		}
	}
	registers := len(t.registrations) > 0
	switch {
	case registers && len(failed) == len(t.registrations):
		return Unregistered, strings.Join(failed, "; ")
	case t.peer.down:
		return Unreachable, t.peer.err.Error()
	case registered:
		return Registered, ""
	case registers || t.probed() && !t.peer.asked:
		return Trying, ""
	case t.probed():
		return Reachable, ""
	case t.policy.address != "":
		return Unprobed, ""
	}
	return Receives, ""
}
