package transport

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"hash/crc32"
	"maps"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/pion/ice/v4"
	"github.com/pion/rtcp"
	"github.com/pion/srtp/v3"
	"github.com/pion/stun/v4"
)

// exchangePhones sends RTP and RTCP from a to b.
func exchangePhones(t *testing.T, a, b *Phone, seq uint16) {
	t.Helper()
	for _, rtcp := range []bool{false, true} {
		send, packet := a.SendRTP, rtpPacket(t, 7, seq, "hello")
		if rtcp {
			send, packet = a.SendRTCP, senderReport(7)
		}
		want := bytes.Clone(packet)
		if err := send(append(make([]byte, 0, MTU), packet...)); err != nil {
			t.Fatal(err)
		}
		if got := pop(t, b.Ring()); got.RTCP != rtcp || !bytes.Equal(got.Data, want) {
			t.Errorf("received %+v, want %x", got, want)
		}
	}
}

func key(n int) []byte {
	b := make([]byte, n)
	rand.Read(b)
	return b
}

func local(p *Phone) netip.AddrPort { return netip.AddrPortFrom(loopback, uint16(p.Port())) }

// Every suite carries packets both ways; new keys take the place of old ones;
// what is not authentic is counted and moves nothing.
func TestPhoneSDES(t *testing.T) {
	t.Parallel()
	for suite, size := range map[string]int{
		"AES_CM_128_HMAC_SHA1_80": 30, "AES_CM_128_HMAC_SHA1_32": 30, "AEAD_AES_128_GCM": 28, "AEAD_AES_256_GCM": 44,
	} {
		t.Run(suite, func(t *testing.T) {
			t.Parallel()
			a, b := openPhone(t, PhoneOptions{}), openPhone(t, PhoneOptions{})
			set := func(k1, k2 []byte) {
				if err := a.SetSDES(SDES{Suite: suite, Send: k1, Receive: k2}); err != nil {
					t.Fatal(err)
				}
				if err := b.SetSDES(SDES{Suite: suite, Send: k2, Receive: k1}); err != nil {
					t.Fatal(err)
				}
			}
			k1, k2 := key(size), key(size)
			set(k1, k2)
			a.SetRemote(local(b), netip.AddrPort{})
			b.SetRemote(local(a), netip.AddrPort{})
			stranger := newDevice(t, "127.0.0.1")
			stranger.send(rtpPacket(t, 1, 9, "a packet in the clear, long enough"), b.Port())
			await(t, "not authentic", func() bool { return b.Stats().Unauthentic == 1 })
			if b.Remote() != local(a) {
				t.Errorf("sends to %s", b.Remote())
			}
			exchangePhones(t, a, b, 1)
			exchangePhones(t, b, a, 1)
			set(k1, k2) // a refresh: the state stays, replays do too
			exchangePhones(t, a, b, 2)
			set(key(size), key(size))
			exchangePhones(t, a, b, 3)
			exchangePhones(t, b, a, 3)
			if err := a.SetSDES(SDES{Suite: suite, Send: key(size - 1), Receive: key(size)}); err == nil {
				t.Error("a short key is taken")
			}
			a.SetPlain()
			b.SetPlain()
			exchangePhones(t, a, b, 4)
		})
	}
}

// DTLS without ICE: the certificates decide.
func TestPhoneDTLS(t *testing.T) {
	t.Parallel()
	failed := make(chan error, 2)
	o := PhoneOptions{RetransmitInterval: 50 * time.Millisecond, Failed: func(err error) { failed <- err }}
	a, b := openPhone(t, o), openPhone(t, o)
	fa, err := a.Fingerprint()
	if err != nil {
		t.Fatal(err)
	}
	fb, err := b.Fingerprint()
	if err != nil {
		t.Fatal(err)
	}
	set := func(p *Phone, client bool, fp string, to *Phone) {
		if err := p.SetDTLS(PhoneDTLS{Client: client, FingerprintHash: "sha-256", Fingerprint: fp}); err != nil {
			t.Fatal(err)
		}
		p.SetRemote(local(to), netip.AddrPort{})
	}
	set(a, false, fb, b)
	set(b, true, fa, a)
	secured := func(p *Phone) func() bool { return func() bool { return p.out.Load() != nil } }
	await(t, "keys", secured(a))
	await(t, "keys", secured(b))
	exchangePhones(t, a, b, 1)
	exchangePhones(t, b, a, 1)
	set(a, false, fb, b) // a refresh changes nothing
	exchangePhones(t, a, b, 2)

	c := openPhone(t, o)
	set(a, false, fb, c) // but c shows another certificate
	if _, err := c.Fingerprint(); err != nil {
		t.Fatal(err)
	}
	d := openPhone(t, o)
	set(d, false, fb, c)
	set(c, true, fa, d)
	select {
	case <-failed:
	case <-time.After(30 * time.Second):
		t.Fatal("a wrong certificate is taken")
	}
	if d.out.Load() != nil {
		t.Error("keys with a wrong certificate")
	}
}

// A full ICE agent finds and nominates us; what comes from elsewhere does not
// count.
func TestPhoneICELite(t *testing.T) {
	t.Parallel()
	const ufrag, pwd = "ourufrag", "ourpasswordthatislongenough"
	p := openPhone(t, PhoneOptions{RetransmitInterval: 50 * time.Millisecond})
	peer := openPhone(t, PhoneOptions{}) // for its certificate only
	fp, err := peer.Fingerprint()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.SetDTLS(PhoneDTLS{FingerprintHash: "sha-256", Fingerprint: fp, Ufrag: ufrag, Pwd: pwd}); err != nil {
		t.Fatal(err)
	}
	agent, err := ice.NewAgentWithOptions(ice.WithNetworkTypes([]ice.NetworkType{ice.NetworkTypeUDP4}),
		ice.WithIncludeLoopback(), ice.WithIPFilter(net.IP.IsLoopback), ice.WithMulticastDNSMode(ice.MulticastDNSModeDisabled),
		ice.WithCandidateTypes([]ice.CandidateType{ice.CandidateTypeHost}))
	if err != nil {
		t.Fatal(err)
	}
	defer agent.GracefulClose()
	if err := agent.OnCandidate(func(ice.Candidate) {}); err != nil {
		t.Fatal(err)
	}
	if err := agent.GatherCandidates(); err != nil {
		t.Fatal(err)
	}
	cand, err := ice.NewCandidateHost(&ice.CandidateHostConfig{Network: "udp", Address: loopback.String(), Port: p.Port(), Component: 1})
	if err != nil {
		t.Fatal(err)
	}
	if err := agent.AddRemoteCandidate(cand); err != nil {
		t.Fatal(err)
	}
	stranger := newDevice(t, "127.0.0.1")
	wrong, err := stun.Build(stun.TransactionID, stun.BindingRequest, stun.NewUsername(ufrag+":x"),
		stun.NewShortTermIntegrity("not the password of this agent"), stun.Fingerprint)
	if err != nil {
		t.Fatal(err)
	}
	stranger.send(wrong.Raw, p.Port())
	stranger.conn.SetReadDeadline(time.Now().Add(20 * time.Second))
	buf := make([]byte, MTU)
	n, _, err := stranger.conn.ReadFromUDPAddrPort(buf)
	if err != nil {
		t.Fatal(err)
	}
	answer := &stun.Message{Raw: buf[:n]}
	var code stun.ErrorCodeAttribute
	if err := answer.Decode(); err != nil || code.GetFrom(answer) != nil || code.Code != 401 || stun.Fingerprint.Check(answer) != nil {
		t.Errorf("answer to a wrong password: %v %v", answer, code)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	conn, err := agent.Dial(ctx, ufrag, pwd)
	if err != nil {
		t.Fatal(err)
	}
	at := netip.MustParseAddrPort(conn.LocalAddr().String())
	await(t, "the nomination", func() bool { return p.Remote() == at })
	before := p.Stats().Stranger
	stranger.send(rtpPacket(t, 1, 9, "a packet from elsewhere"), p.Port())
	await(t, "a stranger", func() bool { return p.Stats().Stranger == before+1 })
}

// FuzzICELite answers checks, hostile ones too: success is for who knows the
// password, and for a check that another implementation finds in order. Sealed
// bytes are attributes of a check of somebody who does know it.
func FuzzICELite(f *testing.F) {
	const ufrag, pwd = "us", "password"
	build := func(more ...stun.Setter) []byte {
		m, err := stun.Build(append([]stun.Setter{stun.TransactionID, stun.BindingRequest}, more...)...)
		if err != nil {
			f.Fatal(err)
		}
		return m.Raw
	}
	user, mac := stun.NewUsername(ufrag+":them"), stun.NewShortTermIntegrity(pwd)
	f.Add(build(user, mac, stun.Fingerprint), false)
	f.Add(build(user, stunUseCandidate{}, mac), false)
	f.Add(build(user, stun.NewShortTermIntegrity("another"), stun.Fingerprint), false)
	f.Add(build(stun.Fingerprint), false)
	f.Add(build(user)[stunHeaderLen:], true)
	f.Add(build(user, stunUseCandidate{}, stun.RawAttribute{Type: attrPriority, Value: make([]byte, 4)})[stunHeaderLen:], true)
	f.Add(build(user, stun.RawAttribute{Type: attrCtrled, Value: make([]byte, 8)})[stunHeaderLen:], true)
	f.Add(build(user, stun.RawAttribute{Type: 0x7777, Value: make([]byte, 3)})[stunHeaderLen:], true)
	l := newICELite(ufrag, pwd)
	f.Fuzz(func(t *testing.T, b []byte, sealed bool) {
		if sealed {
			b = seal(b[:min(len(b)&^3, 1000)], pwd)
		}
		from := netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(len(b))}), 4000)
		l.valid, l.next = [maxValid]netip.AddrPort{}, 0
		reply, nominated := l.answer(b, from)
		if nominated && !l.checked(from) {
			t.Fatalf("%x nominates without proof", b)
		}
		if reply == nil {
			if l.checked(from) {
				t.Fatalf("%x is taken without an answer", b)
			}
			return
		}
		answer := &stun.Message{Raw: reply}
		if err := answer.Decode(); err != nil || stun.Fingerprint.Check(answer) != nil || !bytes.Equal(answer.TransactionID[:], b[8:stunHeaderLen]) {
			t.Fatalf("answer %x: %v", reply, err)
		}
		if success := answer.Type == stun.BindingSuccess; success != l.checked(from) {
			t.Fatalf("answer %x, but taken %v", reply, !success)
		} else if !success {
			return
		}
		var at stun.XORMappedAddress
		if err := at.GetFrom(answer); err != nil || mac.Check(answer) != nil || at.Port != int(from.Port()) || !at.IP.Equal(from.Addr().AsSlice()) {
			t.Fatalf("answer %x: %v, %v", reply, at, err)
		}
		ask := &stun.Message{Raw: bytes.Clone(b)}
		var name stun.Username
		if err := ask.Decode(); err != nil || mac.Check(ask) != nil || name.GetFrom(ask) != nil {
			t.Fatalf("%x is taken: %v", b, err)
		}
	})
}

// seal makes a check of attributes.
func seal(attributes []byte, pwd string) []byte {
	b := binary.BigEndian.AppendUint16(nil, bindingRequest)
	b = binary.BigEndian.AppendUint16(b, uint16(len(attributes)+4+20+8))
	b = binary.BigEndian.AppendUint32(b, stunCookie)
	b = append(b, "transaction."...)
	b = append(b, attributes...)
	b = append(b, 0, attrIntegrity, 0, 20)
	b = append(b, stunMAC([]byte(pwd), b, len(b)-4)...)
	sum := crc32.ChecksumIEEE(b) ^ stunFingerprint
	b = append(b, 0x80, 0x28, 0, 4)
	return binary.BigEndian.AppendUint32(b, sum)
}

// FuzzPhoneSRTP has a peer that holds the keys, or has none, send any packet to
// a leg: what is heard is in order, and all else is counted once.
func FuzzPhoneSRTP(f *testing.F) {
	report, err := (&rtcp.SenderReport{SSRC: 7}).Marshal()
	if err != nil {
		f.Fatal(err)
	}
	for suite := range uint8(8) {
		f.Add([]byte{0x80, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3}, suite, true)
		f.Add([]byte{0xb1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 9, 9, 9, 9, 0xbe, 0xde, 0, 1, 0x10, 42, 0, 0, 2, 3, 1}, suite, true)
		f.Add(report, suite, true)
		f.Add([]byte{0x80, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}, suite, false)
		f.Add(append(report, 0x80, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0), suite, false)
	}
	names := slices.Sorted(maps.Keys(suites))
	remote := addr("127.0.0.1:4000")
	type side struct {
		leg *Phone
		out *outbound
	}
	var sides []side
	for i := range 2 * len(names) {
		profile := suites[names[i/2]]
		k, _ := profile.KeyLen()
		n, _ := profile.SaltLen()
		secret := key(k + n)
		s := SDES{Suite: names[i/2], Send: secret, Receive: secret}
		var more []srtp.ContextOption
		if i%2 == 1 {
			s.MKI = []byte{0, 1}
			more = append(more, srtp.MasterKeyIndicator(s.MKI))
		}
		p := openPhone(f, PhoneOptions{RTCPMux: true})
		p.SetRemote(remote, remote)
		if err := p.SetSDES(s); err != nil {
			f.Fatal(err)
		}
		context, err := srtp.CreateContext(secret[:k], secret[k:], profile, more...)
		if err != nil {
			f.Fatal(err)
		}
		sides = append(sides, side{p, &outbound{context: context}})
	}
	f.Fuzz(func(t *testing.T, b []byte, suite uint8, knows bool) {
		s := sides[int(suite)%len(sides)]
		b = append(make([]byte, 0, 2*MTU), b[:min(len(b), MTU)]...)
		if knows {
			encrypt := s.out.encryptRTP
			if classify(b) == kindRTCP {
				encrypt = s.out.encryptRTCP
			}
			if c, err := encrypt(b); err == nil {
				b = c
			}
		}
		p := s.leg
		count := func() (in, out uint64) {
			n := p.Stats()
			return n.RTPReceived + n.RTCPReceived, n.Invalid + n.Stranger + n.Full + n.Replayed + n.Unauthentic + n.TooManySources + n.Early
		}
		in, out := count()
		p.receive(b, remote)
		in2, out2 := count()
		if in2+out2 != in+out+1 || !knows && in2 != in {
			t.Errorf("%x: received %d, dropped %d", b, in2-in, out2-out)
		}
		if packet, ok := p.Ring().Peek(); ok {
			if packet.RTCP && !validRTCP(packet.Data) || !packet.RTCP && !validRTP(packet.Data) {
				t.Errorf("%x got through", packet.Data)
			}
			p.Ring().Release()
		}
	})
}
