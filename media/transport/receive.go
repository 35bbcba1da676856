package transport

import "net/netip"

// receive treats one datagram on the reader's goroutine. b is overwritten.
func (c *Conference) receive(b []byte, from netip.AddrPort) {
	if len(b) > MTU {
		c.stats.invalid.Add(1)
		return
	}
	switch kind := classify(b); kind {
	case kindRTP, kindRTCP:
		c.receiveSRTP(b, from, kind == kindRTCP)
	case kindSTUN:
		c.receiveSTUN(b, from)
	case kindDTLS:
		c.receiveDTLS(b, from)
	default:
		c.stats.invalid.Add(1)
	}
}

func (c *Conference) receiveSRTP(b []byte, from netip.AddrPort, rtcp bool) {
	in := c.in.Load()
	if in == nil {
		c.early.Add(1)
		return
	}
	if pair := c.pair.Load(); pair == nil || pair.Remote != from {
		c.stats.stranger.Add(1)
		return
	}
	var plain []byte
	var v verdict
	if rtcp {
		plain, v = in.decryptRTCP(b)
	} else {
		plain, v = in.decryptRTP(b)
	}
	switch v {
	case accepted:
		if c.ring.Push(plain, Now(), rtcp) {
			c.stats.received(len(plain), rtcp)
		}
	case invalid:
		c.stats.invalid.Add(1)
	case replayed:
		c.replayed.Add(1)
	case unauthentic:
		c.unauthentic.Add(1)
	case tooManySources:
		c.tooManySources.Add(1)
	}
}

// receiveSTUN leaves the judgement to ICE, which knows the credentials.
func (c *Conference) receiveSTUN(b []byte, from netip.AddrPort) {
	stun := c.stun4
	if from.Addr().Is6() {
		stun = c.stun6
	}
	if stun == nil {
		c.stats.stranger.Add(1)
		return
	}
	if !stun.push(b, from) {
		c.unread.Add(1)
	}
}

func (c *Conference) receiveDTLS(b []byte, from netip.AddrPort) {
	const applicationData = 23 // SCTP, which nobody negotiated and nobody reads
	if pair := c.pair.Load(); pair == nil || pair.Remote != from {
		c.stats.stranger.Add(1)
		return
	}
	if b[0] == applicationData {
		c.stats.invalid.Add(1)
		return
	}
	if !c.dtls.push(b, from) {
		c.unread.Add(1)
	}
}
