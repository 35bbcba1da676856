package transport

import (
	"net/netip"
	"time"
)

// A latch decides whose packets are the far end's. Phones behind NAT send from
// an address that their SDP does not tell, so the source of what arrives is
// believed (symmetric RTP, RFC 4961), but not every source at any time: or
// else anyone who finds the port could take over the call.
type latch struct {
	silence time.Duration // how long source must be silent before another may follow

	signalled netip.AddrPort // from SDP; invalid: nothing is accepted
	source    netip.AddrPort // whose packets are accepted
	armed     bool           // the next packet decides source
	last      time.Duration  // when source was last heard
	open      time.Duration  // until then the signalled address corrects source
}

// signal takes a new signalled address. The next packet decides anew whom we
// listen to.
func (l *latch) signal(addr netip.AddrPort) {
	l.signalled = addr
	l.armed = true
}

// allows says whether a packet from from counts if it is valid. After a signal
// every source does, but where one was heard just now it has the right of way
// for a tenth of the silence: a stranger who sends all the time must not win by
// a session refresh. For the time of one silence the signalled address may then
// correct the choice, which may have fallen on a late packet or on a stranger.
// Later the source must be silent, and the new one on its host or on the
// signalled one.
func (l *latch) allows(from netip.AddrPort, now time.Duration) bool {
	switch {
	case !l.signalled.IsValid():
		return false
	case from == l.source:
		return true
	case l.armed:
		return from == l.signalled || !l.source.IsValid() || now-l.last >= l.silence/10
	case from == l.signalled:
		return now < l.open || now-l.last >= l.silence
	}
	return now-l.last >= l.silence && (from.Addr() == l.source.Addr() || from.Addr() == l.signalled.Addr())
}

// accept takes a valid packet, and says whether it counts and whether it made
// from the new source.
func (l *latch) accept(from netip.AddrPort, now time.Duration) (ok, moved bool) {
	if !l.allows(from, now) {
		return false, false
	}
	moved = l.armed || from != l.source
	switch {
	case from == l.signalled:
		l.open = 0
	case l.armed:
		l.open = now + l.silence
	}
	l.source, l.armed, l.last = from, false, now
	return true, moved
}

// latched says whether a source has been heard since the last signal.
func (l *latch) latched() bool { return l.signalled.IsValid() && !l.armed }
