package call

import (
	"sync/atomic"

	"brewline/gateway/phone"
	"brewline/sip"
)

// side is a phone's part in the call. There is one, or two while the phone is
// being transferred or replaced.
type side struct {
	// spare: the call does not end with this phone. An end of its is posted
	// as goneEvent then.
	spare  atomic.Bool
	audio  *sideAudio
	dialog *sip.Dialog // nil until a callee has answered
	leg    *phone.Leg
	gone   bool // owned by run
	place
}

// place is the trunk that a phone is reached over, and its place among the
// calls that the trunk may have.
type place struct {
	trunk string
	free  func() // nil: it has none of its own
}

// leave gives the place back.
func (p *place) leave() {
	if p.free != nil {
		p.free()
	}
	p.trunk, p.free = "", nil
}

// carry takes a place for s on the first trunk from targets[i] on that has one,
// and returns its index; len(targets): none has. A phone that is to take over
// from the call's takes over its place on the same trunk as well.
func (c *Call) carry(s *side, targets []Target, i int) int {
	for ; i < len(targets); i++ {
		name := targets[i].Trunk
		if name == s.trunk {
			return i
		}
		s.leave()
		if name == c.side.trunk {
			s.trunk = name
			return i
		}
		if free, ok := c.o.Carry(name); ok {
			s.place = place{name, free}
			return i
		}
		c.log.Warn("the trunk has as many calls as it may", "over", name)
	}
	return i
}

// Events of one side.
type (
	goneEvent    struct{ side *side }
	reofferEvent struct {
		side *side
		leg  *phone.Leg // of a callee that has not answered yet
		r    *sip.Reoffer
	}
	refreshedEvent struct {
		side          *side
		offer, answer []byte
	}
	referEvent struct {
		side  *side
		refer *sip.Refer
	}
	replacedEvent struct {
		side *side
		by   *sip.Dialog
	}
)

// newSide makes a part for another phone, which is not heard yet.
func (c *Call) newSide() *side {
	s := &side{audio: c.newSideAudio()}
	s.spare.Store(true)
	return s
}

// handler posts what happens in the side's dialog.
func (c *Call) handler(s *side) sip.DialogHandler {
	end := func(e ending) {
		e.phoneGone = true
		if s.spare.Load() {
			c.box.post(goneEvent{s})
		} else {
			c.box.end(e)
		}
	}
	return sip.DialogHandler{
		Cancelled: func(r sip.Reason) { end(ending{end: EndCancelled, detail: peerReason(r)}) },
		Bye:       func(r sip.Reason) { end(ending{end: EndCallerHungUp, detail: peerReason(r)}) },
		Lost:      func(err error) { end(ending{end: EndPhoneLost, detail: err}) },
		Reoffer:   func(r *sip.Reoffer) { c.box.post(reofferEvent{side: s, r: r}) },
		Info: func(ctype string, body []byte) {
			if digit, d, ok := phone.ParseInfo(ctype, body); ok && !s.spare.Load() {
				c.box.post(digitEvent{digit, byInfo, d})
			}
		},
		Refer:     func(r *sip.Refer) { c.box.post(referEvent{s, r}) },
		Replaced:  func(d *sip.Dialog) { c.box.post(replacedEvent{s, d}) },
		Refreshed: func(offer, answer []byte) { c.box.post(refreshedEvent{s, offer, answer}) },
	}
}

// peerReason is what the phone's side says of an end, for the log.
func peerReason(r sip.Reason) error {
	if r == (sip.Reason{}) {
		return nil
	}
	return saidError{r}
}

type saidError struct{ r sip.Reason }

func (e saidError) Error() string { return e.r.String() }

func (c *Call) reoffered(e reofferEvent) {
	switch {
	case e.leg != nil:
		e.leg.Reoffer(e.r)
	case e.side.leg != nil:
		e.side.leg.Reoffer(e.r)
	default:
		e.r.Reject(491)
	}
}
