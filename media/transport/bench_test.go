package transport

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/pion/srtp/v3"
	"github.com/pion/stun/v4"
)

// A peer holds the bridge's ends of the keys of a leg made by keyed.
type peer struct{ encrypt, decrypt *srtp.Context }

// keyed returns a leg with SRTP keys as after a handshake, whose bridge is a
// socket that nobody reads.
func keyed(t testing.TB, profile srtp.ProtectionProfile) (*Conference, peer) {
	t.Helper()
	c := openConference(t, ConferenceOptions{Bind: loopback})
	sink, err := net.ListenUDP("udp4", &net.UDPAddr{IP: loopback.AsSlice()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { sink.Close() })
	keyLen, _ := profile.KeyLen()
	saltLen, _ := profile.SaltLen()
	key, salt := bytes.Repeat([]byte{7}, keyLen), bytes.Repeat([]byte{9}, saltLen)
	in, err := newInbound(profile, key, salt)
	if err != nil {
		t.Fatal(err)
	}
	out, err := newOutbound(profile, key, salt)
	if err != nil {
		t.Fatal(err)
	}
	var p peer
	if p.encrypt, err = srtp.CreateContext(key, salt, profile); err != nil {
		t.Fatal(err)
	}
	if p.decrypt, err = srtp.CreateContext(key, salt, profile); err != nil {
		t.Fatal(err)
	}
	c.pair.Store(&Pair{Remote: netip.AddrPortFrom(loopback, uint16(sink.LocalAddr().(*net.UDPAddr).Port))})
	c.in.Store(in)
	c.out.Store(out)
	return c, p
}

func (p peer) rtp(t testing.TB, seq uint16) []byte {
	t.Helper()
	b, err := p.encrypt.EncryptRTP(nil, rtpPacket(t, 4711, seq, "eighty bytes of Opus or so, as in a frame of 20 ms at 32 kbit/s, more or less ..."), nil)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func (p peer) rtcp(t testing.TB) []byte {
	t.Helper()
	b, err := p.encrypt.EncryptRTCP(nil, senderReport(4711), nil)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

var profiles = []srtp.ProtectionProfile{
	srtp.ProtectionProfileAeadAes128Gcm, srtp.ProtectionProfileAeadAes256Gcm, srtp.ProtectionProfileAes128CmHmacSha1_80,
}

// Media costs no allocation, neither way, on neither leg.
func TestAllocations(t *testing.T) {
	const runs = 1000
	check := func(t *testing.T, name string, f func()) {
		t.Helper()
		if n := testing.AllocsPerRun(runs, f); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
	for _, profile := range profiles {
		c, p := keyed(t, profile)
		from := c.remote()
		buf := make([]byte, MTU+1)
		var packets, reports [][]byte
		for i := range runs + 1 {
			packets = append(packets, p.rtp(t, uint16(65000+i)))
			reports = append(reports, p.rtcp(t))
		}
		receive := func(list [][]byte) func() {
			i := 0
			return func() {
				n := copy(buf, list[i])
				i++
				c.receive(buf[:n], from)
				if _, ok := c.Ring().Peek(); !ok {
					t.Fatalf("packet %d did not arrive: %+v", i, c.Stats())
				}
				c.Ring().Release()
			}
		}
		check(t, profile.String()+" RTP in", receive(packets))
		check(t, profile.String()+" RTCP in", receive(reports))

		out, report := rtpPacket(t, 1, 1, "ours"), senderReport(1)
		n, m := len(out), len(report)
		seq := uint16(0)
		check(t, profile.String()+" RTP out", func() {
			seq++
			b := out[:n]
			copy(b, []byte{0x90, 111, byte(seq >> 8), byte(seq)})
			if err := c.SendRTP(b); err != nil {
				t.Fatal(err)
			}
		})
		check(t, profile.String()+" RTCP out", func() {
			b := report[:m]
			clear(b[8:])
			if err := c.SendRTCP(b); err != nil {
				t.Fatal(err)
			}
		})
		stranger := addr("127.0.0.9:9")
		check(t, "stranger", func() { c.receive(buf[:100], stranger) })
	}

	p := openPhone(t, PhoneOptions{})
	remote := addr("127.0.0.1:9")
	p.SetRemote(remote, netip.AddrPort{})
	packet, report := rtpPacket(t, 1, 1, "phone"), senderReport(1)
	check(t, "phone RTP in", func() { p.receiveRTP(packet, remote); p.Ring().Release() })
	check(t, "phone RTCP in", func() { p.receiveRTCP(report, addr("127.0.0.1:10")); p.Ring().Release() })
	check(t, "phone RTP out", func() { p.SendRTP(packet) })
	check(t, "phone RTCP out", func() { p.SendRTCP(report) })
	if s := p.Stats(); s.RTPReceived < runs || s.RTCPReceived < runs || s.RTPSent < runs || s.RTCPSent < runs {
		t.Errorf("stats %+v", s)
	}
}

// Nor does SRTP on the phone leg, by whichever keys.
func TestPhoneSRTPAllocations(t *testing.T) {
	const mki = "\x00\x01"
	for suite, p := range suites {
		for _, id := range []string{"", mki} {
			a, b := openPhone(t, PhoneOptions{}), openPhone(t, PhoneOptions{})
			k, _ := p.KeyLen()
			n, _ := p.SaltLen()
			k1, k2 := key(k+n), key(k+n)
			if err := a.SetSDES(SDES{Suite: suite, Send: k1, Receive: k2}); err != nil {
				t.Fatal(err)
			}
			if err := b.SetSDES(SDES{Suite: suite, Send: k2, Receive: k1, MKI: []byte(id)}); err != nil {
				t.Fatal(err)
			}
			b.SetRemote(local(a), netip.AddrPort{})
			peer := a.out.Load()
			if id != "" {
				context, err := srtp.CreateContext(k1[:k], k1[k:], p, srtp.MasterKeyIndicator([]byte(id)))
				if err != nil {
					t.Fatal(err)
				}
				peer = &outbound{context: context}
			}
			checkPhoneAllocations(t, suite+" "+id, b, peer, local(a))
		}
	}
	for _, ice := range []bool{false, true} {
		a, b := openPhone(t, PhoneOptions{}), openPhone(t, PhoneOptions{})
		fa, _ := a.Fingerprint()
		fb, _ := b.Fingerprint()
		if err := a.SetDTLS(PhoneDTLS{FingerprintHash: "sha-256", Fingerprint: fb, Client: true}); err != nil {
			t.Fatal(err)
		}
		o := PhoneDTLS{FingerprintHash: "sha-256", Fingerprint: fa}
		if ice {
			o.Ufrag, o.Pwd = "ours", "ourpasswordthatislongenough"
		}
		if err := b.SetDTLS(o); err != nil {
			t.Fatal(err)
		}
		a.SetRemote(local(b), netip.AddrPort{})
		b.SetRemote(local(a), netip.AddrPort{})
		if ice {
			check, err := stun.Build(stun.TransactionID, stun.BindingRequest, stun.NewUsername(o.Ufrag+":theirs"), stunUseCandidate{},
				stun.NewShortTermIntegrity(o.Pwd), stun.Fingerprint)
			if err != nil {
				t.Fatal(err)
			}
			b.receive(check.Raw, local(a))
		}
		await(t, "keys", func() bool { return a.out.Load() != nil && b.out.Load() != nil })
		checkPhoneAllocations(t, fmt.Sprintf("DTLS, ICE %v", ice), b, a.out.Load(), local(a))
	}
}

type stunUseCandidate struct{}

func (stunUseCandidate) AddTo(m *stun.Message) error {
	m.Add(stun.AttrUseCandidate, nil)
	return nil
}

// checkPhoneAllocations has a leg take what its peer encrypts, and send.
func checkPhoneAllocations(t *testing.T, name string, p *Phone, peer *outbound, from netip.AddrPort) {
	t.Helper()
	const runs = 300
	check := func(what string, f func()) {
		t.Helper()
		if n := testing.AllocsPerRun(runs, f); n != 0 {
			t.Errorf("%s, %s: %v allocations", name, what, n)
		}
	}
	var packets, reports [runs + 2][]byte
	for i := range packets {
		b := append(make([]byte, 0, MTU), rtpPacket(t, 4711, uint16(65000+i), "160 bytes, were it G.711")...)
		r := append(make([]byte, 0, MTU), senderReport(4711)...)
		var err1, err2 error
		packets[i], err1 = peer.encryptRTP(b)
		reports[i], err2 = peer.encryptRTCP(r)
		if err1 != nil || err2 != nil {
			t.Fatal(err1, err2)
		}
	}
	buf, heard := make([]byte, MTU+1), 0
	receive := func(b []byte) {
		p.receive(buf[:copy(buf, b)], from)
		for _, ok := p.Ring().Peek(); ok; _, ok = p.Ring().Peek() {
			p.Ring().Release()
			heard++
		}
	}
	take := func(list [][]byte) func() {
		i := 0
		return func() { receive(list[i]); i++ }
	}
	p.SetMux(true)
	check("RTP in", take(packets[:]))
	check("RTCP in", take(reports[:]))
	receive(packets[runs]) // again
	for i := range packets[0] {
		packets[runs+1][i] ^= 1
		receive(packets[runs+1])
		packets[runs+1][i] ^= 1
	}
	if s := p.Stats(); heard != 2*(runs+1) || s.Replayed == 0 || s.Unauthentic < 40 {
		t.Errorf("%s: %d of %d packets are heard: %+v", name, heard, 2*(runs+1), s)
	}
	out, report, seq := rtpPacket(t, 1, 1, "ours"), senderReport(1), uint16(65500)
	n, m := len(out), len(report)
	sent := p.Stats()
	check("RTP out", func() {
		seq++
		b := out[:n]
		copy(b, []byte{0x80, 0, byte(seq >> 8), byte(seq)})
		if err := p.SendRTP(b); err != nil {
			t.Fatal(err)
		}
	})
	check("RTCP out", func() {
		b := report[:m]
		clear(b[8:])
		if err := p.SendRTCP(b); err != nil {
			t.Fatal(err)
		}
	})
	if s := p.Stats(); s.RTPSent-sent.RTPSent <= runs || s.RTCPSent-sent.RTCPSent <= runs {
		t.Errorf("%s: %+v", name, s)
	}
}

// The real reader, from the socket to the ring, does not allocate either.
func TestSocketAllocations(t *testing.T) {
	p := openPhone(t, PhoneOptions{})
	device := newDevice(t, "127.0.0.1")
	p.SetRemote(device.addr, netip.AddrPort{})
	packet := rtpPacket(t, 1, 1, "phone")
	to := netip.AddrPortFrom(loopback, uint16(p.Port()))
	n := testing.AllocsPerRun(500, func() {
		if _, err := device.conn.WriteToUDPAddrPort(packet, to); err != nil {
			t.Fatal(err)
		}
		for {
			if _, ok := p.Ring().Peek(); ok {
				p.Ring().Release()
				return
			}
			time.Sleep(10 * time.Microsecond) // spinning would starve the reader
		}
	})
	if n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkConferenceReceive(b *testing.B) {
	for _, profile := range profiles {
		b.Run(profile.String(), func(b *testing.B) {
			c, p := keyed(b, profile)
			from := c.remote()
			const batch = 1 << 12
			packets := make([][]byte, batch)
			buf := make([]byte, MTU+1)
			b.ReportAllocs()
			b.ResetTimer()
			seq := uint16(0)
			for i := range b.N {
				if i%batch == 0 {
					b.StopTimer()
					for k := range packets {
						packets[k] = p.rtp(b, seq)
						seq++
					}
					b.StartTimer()
				}
				n := copy(buf, packets[i%batch])
				c.receive(buf[:n], from)
				c.Ring().Release()
			}
			if got := c.Stats().RTPReceived; got != uint64(b.N) {
				b.Errorf("%d of %d received", got, b.N)
			}
		})
	}
}

// BenchmarkConferenceSend includes the system call.
func BenchmarkConferenceSend(b *testing.B) {
	for _, profile := range profiles {
		b.Run(profile.String(), func(b *testing.B) {
			c, _ := keyed(b, profile)
			out := rtpPacket(b, 1, 1, "eighty bytes of Opus or so, as in a frame of 20 ms at 32 kbit/s, more or less ...")
			n := len(out)
			b.ReportAllocs()
			b.ResetTimer()
			for i := range b.N {
				packet := out[:n]
				packet[2], packet[3] = byte(i>>8), byte(i)
				if err := c.SendRTP(packet); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkPhoneReceive(b *testing.B) {
	p := openPhone(b, PhoneOptions{})
	remote := addr("127.0.0.1:9")
	p.SetRemote(remote, netip.AddrPort{})
	packet := rtpPacket(b, 1, 1, string(make([]byte, 160)))
	b.ReportAllocs()
	for b.Loop() {
		p.receiveRTP(packet, remote)
		p.Ring().Release()
	}
}

// BenchmarkOpenLegs shows what a pair of legs costs before it is connected.
func BenchmarkOpenLegs(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		p, err := OpenPhone(PhoneOptions{Bind: loopback})
		if err != nil {
			b.Fatal(err)
		}
		c, err := OpenConference(b.Context(), ConferenceOptions{Bind: loopback})
		if err != nil {
			b.Fatal(err)
		}
		c.Close()
		p.Close()
	}
}
