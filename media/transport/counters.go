package transport

import (
	"net/netip"
	"sync/atomic"
)

// counters are what both kinds of leg count.
type counters struct {
	rtpIn, rtcpIn, bytesIn    atomic.Uint64
	rtpOut, rtcpOut, bytesOut atomic.Uint64

	invalid, stranger, sendErrors atomic.Uint64
}

func (c *counters) received(n int, rtcp bool) {
	if rtcp {
		c.rtcpIn.Add(1)
	} else {
		c.rtpIn.Add(1)
	}
	c.bytesIn.Add(uint64(n))
}

// send writes and counts one packet.
func (c *counters) send(s *socket, b []byte, to netip.AddrPort, rtcp bool) error {
	if _, err := s.WriteToUDPAddrPort(b, to); err != nil {
		c.sendErrors.Add(1)
		return err
	}
	if rtcp {
		c.rtcpOut.Add(1)
	} else {
		c.rtpOut.Add(1)
	}
	c.bytesOut.Add(uint64(len(b)))
	return nil
}
