package sip

import (
	"net/netip"
	"strconv"
	"strings"

	"github.com/emiago/sipgo/sip"
)

// seenKey says where a NAT shows the address of a UDP listener as another.
type seenKey struct {
	ln   *listener
	peer netip.Addr
}

// seen is our address as the peer told that it sees us, if no other is
// advertised; over a connection, that of the connection. Not valid: as it is.
func (f flow) seen() netip.AddrPort {
	var a any
	if f.conn != nil {
		a = f.conn.seen.Load()
	} else {
		a, _ = f.ln.u.seen.Load(seenKey{f.ln, f.peer.Addr()})
	}
	ap, _ := a.(netip.AddrPort)
	return ap
}

// learn takes our address from a response as its sender sees it (RFC 3581 §4),
// and reports whether that is not what we have said. A port alone that differs
// is no NAT over a connection, whose port is not the one that we listen on.
func (u *UA) learn(f flow, res *sip.Response) bool {
	via := res.Via()
	if via == nil || f.advertised().host != "" || strings.HasPrefix(f.ln.network, "ws") || f.conn != nil && !f.conn.dialled ||
		!strings.EqualFold(via.Transport, f.ln.network) {
		return false
	}
	port, err := strconv.ParseUint(param(via.Params, "rport"), 10, 16)
	if err != nil || port == 0 {
		return false
	}
	host := param(via.Params, "received")
	if host == "" {
		host = via.Host
	}
	addr, err := netip.ParseAddr(strings.Trim(host, "[]"))
	if err != nil || addr.Unmap().Is4() != f.peer.Addr().Is4() || addr.IsUnspecified() || addr.IsMulticast() {
		return false
	}
	ap := unmap(netip.AddrPortFrom(addr, uint16(port)))
	if f.conn != nil && ap.Addr() == f.conn.local.Addr() {
		return false
	}
	if said, n := f.sentBy(); said == ap.Addr().String() && n == int(ap.Port()) {
		return false
	}
	switch key := (seenKey{f.ln, f.peer.Addr()}); {
	case f.conn != nil:
		f.conn.seen.Store(ap)
	case ap == f.local(): // no NAT any more
		u.seen.Delete(key)
	default:
		u.seen.Store(key, ap)
	}
	return true
}
