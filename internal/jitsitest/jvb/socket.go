package jvb

import (
	"net/netip"
	"time"

	"github.com/pion/rtp"
)

// maxPacket is the largest datagram the bridge handles.
const maxPacket = 2048

// scratch holds the buffers of the forwarding path, used under Bridge.mu.
type scratch struct {
	plain, build, cipher []byte
	header               rtp.Header
}

func newScratch() scratch {
	return scratch{
		plain:  make([]byte, maxPacket),
		build:  make([]byte, maxPacket),
		cipher: make([]byte, maxPacket+64),
	}
}

// read is the reader goroutine of the bridge's only socket.
func (b *Bridge) read() {
	defer b.wg.Done()
	buf := make([]byte, maxPacket)
	for {
		n, from, err := b.conn.ReadFromUDPAddrPort(buf)
		if err != nil {
			select {
			case <-b.ctx.Done():
				return
			default: // an ICMP error of some client
				continue
			}
		}
		from = netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
		b.mu.Lock()
		b.receive(buf[:n], from)
		b.mu.Unlock()
	}
}

// kind is what a datagram carries (RFC 7983 §7, RFC 5761 §4).
type kind uint8

const (
	kindOther kind = iota
	kindSTUN
	kindDTLS
	kindRTP
	kindRTCP
)

func kindOf(p []byte) kind {
	if len(p) == 0 {
		return kindOther
	}
	switch c := p[0]; {
	case c < 4:
		return kindSTUN
	case c >= 20 && c < 64:
		return kindDTLS
	case c >= 128 && c < 192 && len(p) >= 8:
		if p[1] >= 192 && p[1] <= 223 {
			return kindRTCP
		}
		return kindRTP
	}
	return kindOther
}

// receive takes a datagram off the wire and lets the faults have it.
func (b *Bridge) receive(p []byte, from netip.AddrPort) {
	if b.crashed || b.stopped {
		return
	}
	k := kindOf(p)
	e := b.byAddr[from]
	if e == nil && k == kindSTUN {
		e = b.byUsername(p)
	}
	if e == nil {
		return
	}
	for range b.through(e, &e.in, k, p, from, true) {
		b.handle(e, k, p, from)
	}
}

// handle processes what the network delivered.
func (b *Bridge) handle(e *Endpoint, k kind, p []byte, from netip.AddrPort) {
	if e.gone {
		return
	}
	switch k {
	case kindSTUN:
		b.handleSTUN(p, from)
	case kindDTLS:
		e.packets.push(p)
	case kindRTP:
		b.handleRTP(e, p)
	case kindRTCP:
		b.handleRTCP(e, p)
	}
}

// send puts a datagram of an endpoint on the wire, faults permitting. The
// caller holds mu.
func (b *Bridge) send(e *Endpoint, k kind, p []byte, to netip.AddrPort) {
	if b.crashed || b.stopped {
		return
	}
	for range b.through(e, &e.out, k, p, to, false) {
		b.write(p, to)
	}
}

func (b *Bridge) write(p []byte, to netip.AddrPort) {
	_, _ = b.conn.WriteToUDPAddrPort(p, to) // UDP: what is lost is lost
}

// keepTime does everything that happens by the clock.
func (b *Bridge) keepTime() {
	defer b.wg.Done()
	tick := min(20*time.Millisecond, b.o.CheckInterval/2, b.o.ReportInterval/4, b.o.InactiveAfter/4, b.o.ExpireAfter/4)
	t := time.NewTicker(max(tick, time.Millisecond))
	defer t.Stop()
	for {
		select {
		case <-b.ctx.Done():
			return
		case now := <-t.C:
			b.tick(now)
		}
	}
}

type change struct {
	e      *Endpoint
	active bool
}

func (b *Bridge) tick(now time.Time) {
	var changes []change
	var expired []*Endpoint
	b.mu.Lock()
	if b.crashed || b.stopped {
		b.mu.Unlock()
		return
	}
	for _, c := range b.conferences {
		for _, e := range c.endpoints {
			lost := e.tickICE(now)
			e.tickReports(now)
			quiet := now.Sub(e.active)
			limit := b.o.InactiveAfter
			if !e.heard {
				limit = b.o.FirstTransfer
			}
			if inactive := quiet > limit; inactive != e.inactive {
				e.inactive = inactive
				changes = append(changes, change{e, !inactive})
			}
			if lost || quiet > b.o.ExpireAfter {
				expired = append(expired, e)
			}
		}
	}
	for _, e := range expired {
		b.remove(e)
	}
	b.mu.Unlock()
	for _, c := range changes {
		b.log.Info("endpoint activity", "conference", c.e.Conference, "endpoint", c.e.ID, "active", c.active)
		if b.o.OnActivity != nil {
			b.o.OnActivity(c.e, c.active)
		}
	}
	for _, e := range expired {
		b.log.Info("endpoint expired", "conference", e.Conference, "endpoint", e.ID)
		e.shutdown()
		if b.o.OnExpire != nil {
			b.o.OnExpire(e)
		}
	}
}
