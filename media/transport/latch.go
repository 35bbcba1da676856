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
}

// signal takes a new signalled address. The next packet decides anew whom we
// listen to.
func (l *latch) signal(addr netip.AddrPort) {
	l.signalled = addr
	l.armed = true
}

// accept says whether a valid packet from from counts, and whether it made
// from the new source. The signalled address itself is always right; other
// sources are after a signal if they are first, later if the present source
// has been silent and they are on its host or on the signalled one.
func (l *latch) accept(from netip.AddrPort, now time.Duration) (ok, moved bool) {
	switch {
	case !l.signalled.IsValid():
		return false, false
	case from == l.source && !l.armed:
		l.last = now
		return true, false
	case l.armed, from == l.signalled:
	case now-l.last >= l.silence &&
		(from.Addr() == l.source.Addr() || from.Addr() == l.signalled.Addr()):
	default:
		return false, false
	}
	l.source, l.armed, l.last = from, false, now
	return true, true
}

// latched says whether a source has been heard since the last signal.
func (l *latch) latched() bool { return l.signalled.IsValid() && !l.armed }
