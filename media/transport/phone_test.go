package transport

import (
	"bytes"
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"
)

func addr(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

func openPhone(t testing.TB, o PhoneOptions) *Phone {
	t.Helper()
	if !o.Bind.IsValid() {
		o.Bind = loopback
	}
	p, err := OpenPhone(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

func TestLatch(t *testing.T) {
	const signalled, nat, natMoved, stranger = "192.168.1.9:4000", "203.0.113.5:30000", "203.0.113.5:31000", "198.51.100.66:4000"
	type step struct {
		signal string // new signalled address, "-" for none
		from   string
		at     time.Duration
		ok     bool
	}
	tests := []struct {
		name  string
		steps []step
	}{
		{"nobody before SDP", []step{{from: signalled}, {from: stranger}}},
		{"as signalled", []step{{signal: signalled}, {from: signalled, ok: true}, {from: stranger, at: time.Second}}},
		{"first source", []step{{signal: signalled}, {from: nat, ok: true}, {from: stranger, at: time.Second}, {from: nat, at: 2 * time.Second, ok: true}}},
		{"the signalled address corrects the first source", []step{
			{signal: signalled}, {from: nat, ok: true}, {from: signalled, at: time.Second, ok: true}, {from: nat, at: 2 * time.Second},
		}},
		{"but not later", []step{
			{signal: signalled}, {from: nat, ok: true}, {from: nat, at: 4 * time.Second, ok: true}, {from: signalled, at: 6 * time.Second},
			{from: signalled, at: 9 * time.Second, ok: true},
		}},
		{"a stranger that sends all the time does not win by a refresh", []step{
			{signal: signalled}, {from: nat, ok: true}, {signal: signalled}, {from: stranger, at: 400 * time.Millisecond},
			{from: nat, at: 410 * time.Millisecond, ok: true}, {from: stranger, at: 3 * time.Second},
		}},
		{"same host too early", []step{{signal: signalled}, {from: nat, ok: true}, {from: natMoved, at: 4 * time.Second}}},
		{"same host after silence", []step{{signal: signalled}, {from: nat, ok: true}, {from: natMoved, at: 5 * time.Second, ok: true}, {from: nat, at: 6 * time.Second}}},
		{"signalled host after silence", []step{{signal: signalled}, {from: nat, ok: true}, {from: "192.168.1.9:5555", at: 5 * time.Second, ok: true}}},
		{"stranger after silence", []step{{signal: signalled}, {from: nat, ok: true}, {from: stranger, at: time.Hour}, {from: nat, at: 2 * time.Hour, ok: true}}},
		{"silence counts from the last packet", []step{
			{signal: signalled}, {from: nat, ok: true}, {from: nat, at: 4 * time.Second, ok: true}, {from: natMoved, at: 8 * time.Second},
		}},
		{"a stranger does not keep the silence from passing", []step{
			{signal: signalled}, {from: nat, ok: true}, {from: stranger, at: 4 * time.Second}, {from: natMoved, at: 5 * time.Second, ok: true},
		}},
		{"re-INVITE opens it once", []step{
			{signal: signalled}, {from: nat, ok: true}, {signal: signalled}, {from: "203.0.113.77:9", at: time.Second, ok: true}, {from: nat, at: 2 * time.Second},
		}},
		{"old source in flight does not lock out the new one", []step{
			{signal: signalled}, {from: signalled, ok: true},
			{signal: "192.168.1.20:6000"}, {from: signalled, at: time.Second, ok: true},
			{from: "192.168.1.20:6000", at: 2 * time.Second, ok: true}, {from: signalled, at: 3 * time.Second},
		}},
		{"hold without address", []step{{signal: signalled}, {from: signalled, ok: true}, {signal: "-"}, {from: signalled, at: time.Second}, {from: nat, at: time.Hour}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			l := latch{silence: 5 * time.Second}
			for i, s := range tt.steps {
				switch s.signal {
				case "":
					before := l.source
					ok, moved := l.accept(addr(s.from), time.Hour+s.at)
					if ok != s.ok {
						t.Errorf("step %d: %s accepted: %v", i, s.from, ok)
					}
					if ok && l.source != addr(s.from) || !ok && l.source != before {
						t.Errorf("step %d: source %s", i, l.source)
					}
					if !ok && moved {
						t.Errorf("step %d: moved to a refused source", i)
					}
				case "-":
					l.signal(netip.AddrPort{})
				default:
					l.signal(addr(s.signal))
				}
			}
		})
	}
}

// A device is the far end of a phone leg.
type device struct {
	t    *testing.T
	conn *net.UDPConn
	addr netip.AddrPort
}

func newDevice(t *testing.T, ip string) *device {
	t.Helper()
	conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.ParseIP(ip)})
	if err != nil {
		t.Skip(err) // no such address here
	}
	t.Cleanup(func() { conn.Close() })
	return &device{t, conn, conn.LocalAddr().(*net.UDPAddr).AddrPort()}
}

func (d *device) send(b []byte, port int) {
	d.t.Helper()
	to := netip.AddrPortFrom(d.addr.Addr(), uint16(port))
	if to.Addr().Is4() {
		to = netip.AddrPortFrom(loopback, uint16(port))
	}
	if _, err := d.conn.WriteToUDPAddrPort(b, to); err != nil {
		d.t.Fatal(err)
	}
}

func (d *device) expect(want []byte) {
	d.t.Helper()
	d.conn.SetReadDeadline(time.Now().Add(20 * time.Second))
	buf := make([]byte, 2*MTU)
	n, _, err := d.conn.ReadFromUDPAddrPort(buf)
	if err != nil {
		d.t.Fatal(err)
	}
	if !bytes.Equal(buf[:n], want) {
		d.t.Errorf("device received %x, want %x", buf[:n], want)
	}
}

func TestPhone(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		ip   string
		mux  bool
	}{{"two ports", "127.0.0.1", false}, {"mux", "127.0.0.1", true}, {"IPv6", "::1", false}, {"IPv6 mux", "::1", true}} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			rtp, rtcp := newDevice(t, tt.ip), newDevice(t, tt.ip)
			if tt.mux {
				rtcp = rtp
			}
			ports := NewPorts(0, 0, 0)
			p := openPhone(t, PhoneOptions{Ports: ports, Bind: netip.MustParseAddr(tt.ip), RTCPMux: tt.mux})
			if tt.mux != (p.Port() == p.RTCPPort()) || !tt.mux && p.RTCPPort() != p.Port()+1 {
				t.Errorf("ports %d, %d", p.Port(), p.RTCPPort())
			}
			if err := p.SendRTP(rtpPacket(t, 1, 1, "x")); !errors.Is(err, ErrNotConnected) {
				t.Errorf("SendRTP before SetRemote: %v", err)
			}
			p.SetRemote(rtp.addr, rtcp.addr)

			packet, report := rtpPacket(t, 1, 1, "to the device"), senderReport(1)
			if err := p.SendRTP(packet); err != nil {
				t.Fatal(err)
			}
			rtp.expect(packet)
			if err := p.SendRTCP(report); err != nil {
				t.Fatal(err)
			}
			rtcp.expect(report)

			packet, report = rtpPacket(t, 2, 1, "from the device"), senderReport(2)
			rtp.send(packet, p.Port())
			if got := pop(t, p.Ring()); got.RTCP || !bytes.Equal(got.Data, packet) {
				t.Errorf("received %+v", got)
			}
			rtcp.send(report, p.RTCPPort())
			if got := pop(t, p.Ring()); !got.RTCP || !bytes.Equal(got.Data, report) {
				t.Errorf("received %+v", got)
			}

			want := PhoneStats{
				RTPReceived: 1, RTCPReceived: 1, BytesReceived: uint64(len(packet) + len(report)),
				RTPSent: 1, RTCPSent: 1, BytesSent: uint64(len(rtpPacket(t, 1, 1, "to the device")) + len(report)),
			}
			if got := p.Stats(); got != want {
				t.Errorf("stats %+v, want %+v", got, want)
			}
			if ports.InUse() == 0 {
				t.Error("no port in use")
			}
			p.Close()
			if ports.InUse() != 0 {
				t.Errorf("%d ports in use after Close", ports.InUse())
			}
			if err := p.SendRTP(packet); !errors.Is(err, net.ErrClosed) {
				t.Errorf("SendRTP after Close: %v", err)
			}
		})
	}
}

// A device behind NAT sends from elsewhere: we follow it, RTP by its first
// packet and RTCP by its own.
func TestPhoneFollowsNAT(t *testing.T) {
	t.Parallel()
	for _, mux := range []bool{false, true} {
		rtp, rtcp := newDevice(t, "127.0.0.1"), newDevice(t, "127.0.0.1")
		if mux {
			rtcp = rtp
		}
		p := openPhone(t, PhoneOptions{RTCPMux: mux})
		private := addr("127.0.0.2:9")
		p.SetRemote(private, netip.AddrPort{})
		if p.Remote() != private {
			t.Errorf("remote %s", p.Remote())
		}
		if !mux {
			// RTCP before RTP, from a host that nobody told us of.
			rtcp.send(senderReport(1), p.RTCPPort())
			await(t, "RTCP refused", func() bool { return p.Stats().Stranger == 1 })
		}
		rtp.send(rtpPacket(t, 1, 1, "x"), p.Port())
		pop(t, p.Ring())
		if p.Remote() != rtp.addr {
			t.Errorf("remote %s, want %s", p.Remote(), rtp.addr)
		}
		packet := rtpPacket(t, 2, 1, "to the right place")
		if err := p.SendRTP(packet); err != nil {
			t.Fatal(err)
		}
		rtp.expect(packet)
		rtcp.send(senderReport(1), p.RTCPPort())
		pop(t, p.Ring())
		report := senderReport(2)
		if err := p.SendRTCP(report); err != nil {
			t.Fatal(err)
		}
		rtcp.expect(report)

		// A repeated SDP with the private address does not send media there.
		p.SetRemote(private, netip.AddrPort{})
		if p.Remote() != rtp.addr {
			t.Errorf("remote %s after a session refresh, want %s", p.Remote(), rtp.addr)
		}
	}
}

func TestPhoneRelatches(t *testing.T) {
	t.Parallel()
	old, moved := newDevice(t, "127.0.0.1"), newDevice(t, "127.0.0.1")
	p := openPhone(t, PhoneOptions{Relatch: 50 * time.Millisecond})
	p.SetRemote(old.addr, netip.AddrPort{})
	old.send(rtpPacket(t, 1, 1, "x"), p.Port())
	pop(t, p.Ring())
	await(t, "the new source", func() bool {
		moved.send(rtpPacket(t, 1, 2, "x"), p.Port())
		return p.Remote() == moved.addr
	})
}

func TestPhoneDrops(t *testing.T) {
	t.Parallel()
	for _, mux := range []bool{false, true} {
		rtp, stranger := newDevice(t, "127.0.0.1"), newDevice(t, "127.0.0.1")
		p := openPhone(t, PhoneOptions{RTCPMux: mux})
		p.SetRemote(rtp.addr, netip.AddrPort{})
		rtp.send(rtpPacket(t, 1, 1, "x"), p.Port())
		pop(t, p.Ring())
		late := func(s PhoneStats) uint64 { return s.Invalid }
		tests := []struct {
			name    string
			send    func()
			counter func(PhoneStats) uint64
		}{
			{"stranger", func() { stranger.send(rtpPacket(t, 1, 2, "x"), p.Port()) }, func(s PhoneStats) uint64 { return s.Stranger }},
			{"empty", func() { rtp.send(nil, p.Port()) }, late},
			{"short", func() { rtp.send([]byte{0x80, 0, 0}, p.Port()) }, late},
			{"version 0", func() { rtp.send(make([]byte, 172), p.Port()) }, late},
			{"too large", func() { rtp.send(append([]byte{0x80, 0}, make([]byte, MTU)...), p.Port()) }, late},
			{"RTP on the RTCP port, or short", func() { rtp.send([]byte{0x80, 0}, p.RTCPPort()) }, late},
			{"STUN", func() { rtp.send(append([]byte{0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42}, make([]byte, 12)...), p.Port()) }, late},
			{"broken RTCP", func() { rtp.send([]byte{0x80, 200, 0, 9, 0, 0, 0, 1}, p.RTCPPort()) }, late},
		}
		if !mux {
			tests = append(tests, tests[0])
			tests[len(tests)-1] = struct {
				name    string
				send    func()
				counter func(PhoneStats) uint64
			}{"RTCP on the RTP port", func() { rtp.send(senderReport(1), p.Port()) }, late}
		}
		for _, tt := range tests {
			before := tt.counter(p.Stats())
			tt.send()
			await(t, tt.name, func() bool { return tt.counter(p.Stats()) == before+1 })
			if _, ok := p.Ring().Peek(); ok {
				t.Errorf("%s: reached the ring", tt.name)
			}
		}

		// Held without an address: neither sent nor accepted.
		p.SetRemote(addr("0.0.0.0:4000"), netip.AddrPort{})
		before := p.Stats().Stranger
		rtp.send(rtpPacket(t, 1, 3, "x"), p.Port())
		await(t, "held", func() bool { return p.Stats().Stranger == before+1 })
		if err := p.SendRTP(rtpPacket(t, 1, 1, "x")); !errors.Is(err, ErrNotConnected) {
			t.Errorf("SendRTP on hold: %v", err)
		}
		if err := p.SendRTCP(senderReport(1)); !errors.Is(err, ErrNotConnected) {
			t.Errorf("SendRTCP on hold: %v", err)
		}
		p.SetRemote(rtp.addr, netip.AddrPort{})
		if err := p.SendRTP(make([]byte, MTU)); !errors.Is(err, ErrTooLarge) {
			t.Errorf("SendRTP of %d bytes: %v", MTU, err)
		}
	}
}

func TestPhoneNoPorts(t *testing.T) {
	t.Parallel()
	first := freeRange(t, 2)
	ports := NewPorts(first, first+1, 0)
	p := openPhone(t, PhoneOptions{Ports: ports})
	if _, err := OpenPhone(PhoneOptions{Ports: ports, Bind: loopback}); !errors.Is(err, ErrNoPorts) {
		t.Errorf("second leg on one pair: %v", err)
	}
	p.Close()
	openPhone(t, PhoneOptions{Ports: ports})
}
