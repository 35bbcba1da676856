package transport

import (
	"bytes"
	"context"
	"crypto/rand"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/pion/ice/v4"
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

func FuzzICELite(f *testing.F) {
	m, err := stun.Build(stun.TransactionID, stun.BindingRequest, stun.NewUsername("us:them"),
		stun.NewShortTermIntegrity("password"), stun.Fingerprint)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(m.Raw)
	f.Fuzz(func(t *testing.T, b []byte) {
		l := newICELite("us", "password")
		reply, _ := l.answer(b, addr("192.0.2.1:4000"))
		if reply == nil {
			return
		}
		answer := &stun.Message{Raw: reply}
		if err := answer.Decode(); err != nil || stun.Fingerprint.Check(answer) != nil {
			t.Errorf("answer %x: %v", reply, err)
		}
	})
}
