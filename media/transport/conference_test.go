package transport

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pion/dtls/v3"
	"github.com/pion/ice/v4"
)

// states collects what OnState is told.
type states struct {
	mu   sync.Mutex
	list []State
}

func (s *states) add(state State) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.list = append(s.list, state)
}

func (s *states) get() []State {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.list)
}

func testOptions() ConferenceOptions {
	return ConferenceOptions{
		Bind:              netip.MustParseAddr("127.0.0.1"),
		CheckInterval:     10 * time.Millisecond,
		KeepaliveInterval: 100 * time.Millisecond,
	}
}

func openConference(t testing.TB, o ConferenceOptions) *Conference {
	t.Helper()
	c, err := OpenConference(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// connected returns a leg that is through to a bridge.
func connected(t testing.TB, o ConferenceOptions, bo bridgeOptions) (*Conference, *bridge) {
	t.Helper()
	b := newBridge(t, bo)
	c := openConference(t, o)
	served := b.serve(c.Local(), bo)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := c.Connect(ctx, b.remote); err != nil {
		t.Fatal(err)
	}
	if err := <-served; err != nil {
		t.Fatal(err)
	}
	return c, b
}

func TestConferenceConnects(t *testing.T) {
	t.Parallel()
	gcm := []dtls.SRTPProtectionProfile{dtls.SRTP_AEAD_AES_128_GCM}
	cm := []dtls.SRTPProtectionProfile{dtls.SRTP_AES128_CM_HMAC_SHA1_80}
	tests := []struct {
		name    string
		bridge  bridgeOptions
		profile string
	}{
		{"GCM", bridgeOptions{profiles: gcm}, "SRTP_AEAD_AES_128_GCM"},
		{"GCM 256", bridgeOptions{profiles: []dtls.SRTPProtectionProfile{dtls.SRTP_AEAD_AES_256_GCM}}, "SRTP_AEAD_AES_256_GCM"},
		{"AES-CM", bridgeOptions{profiles: cm}, "SRTP_AES128_CM_HMAC_SHA1_80"},
		{"bridge passive", bridgeOptions{setup: "passive"}, "SRTP_AEAD_AES_128_GCM"},
		{"bridge active", bridgeOptions{setup: "active", client: true}, "SRTP_AEAD_AES_128_GCM"},
		{"bridge active, AES-CM", bridgeOptions{setup: "active", client: true, profiles: cm}, "SRTP_AES128_CM_HMAC_SHA1_80"},
		{"IPv6", bridgeOptions{ip: "::1"}, "SRTP_AEAD_AES_128_GCM"},
		{"SHA-1", bridgeOptions{hash: "sha-1"}, "SRTP_AEAD_AES_128_GCM"},
		{"SHA-512", bridgeOptions{hash: "sha-512"}, "SRTP_AEAD_AES_128_GCM"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			o := testOptions()
			if tt.bridge.ip != "" {
				newDevice(t, tt.bridge.ip) // skips where there is no IPv6
				o.Bind = netip.MustParseAddr(tt.bridge.ip)
			}
			var seen states
			o.OnState = seen.add
			o.Ports = NewPorts(0, 0, 0)
			c, b := connected(t, o, tt.bridge)
			if got := c.Profile(); got != tt.profile {
				t.Errorf("profile %s, want %s", got, tt.profile)
			}
			pair, ok := c.SelectedPair()
			if !ok || pair.Local.Addr() != o.Bind || int(pair.Remote.Port()) != b.remote.Candidates[0].Port {
				t.Errorf("selected pair %v", pair)
			}
			exchange(t, c, b)
			if got := seen.get(); !slices.Equal(got, []State{Connected}) {
				t.Errorf("states %v", got)
			}
			c.Close()
			if got := seen.get(); !slices.Equal(got, []State{Connected}) {
				t.Errorf("states after Close %v", got)
			}
			if n := o.Ports.InUse(); n != 0 {
				t.Errorf("%d ports in use after Close", n)
			}
			if err := c.SendRTP(rtpPacket(t, 7, 1, "late")); err == nil {
				t.Error("SendRTP after Close succeeded")
			}
		})
	}
}

// exchange sends RTP of three sources and RTCP from bridge to gateway, and one
// stream with RTCP back.
func exchange(t *testing.T, c *Conference, b *bridge) {
	t.Helper()
	early := c.Stats().Stranger // DTLS that overtook the choice of the pair
	for seq := range uint16(5) {
		for ssrc := range uint32(3) {
			plain := rtpPacket(t, 0xdead0000+ssrc, 65533+seq, fmt.Sprintf("frame %d of %d", seq, ssrc))
			b.send(b.protect(plain))
			got := pop(t, c.Ring())
			if got.RTCP || !bytes.Equal(got.Data, plain) {
				t.Fatalf("received %x, sent %x", got.Data, plain)
			}
			if age := Now() - got.At; age < 0 || age > 20*time.Second {
				t.Errorf("packet is %v old", age)
			}
		}
	}
	report := senderReport(0xdead0000)
	b.send(b.protect(report))
	if got := pop(t, c.Ring()); !got.RTCP || !bytes.Equal(got.Data, report) {
		t.Errorf("received RTCP %x, sent %x", got.Data, report)
	}

	for seq := range uint16(5) {
		plain := rtpPacket(t, 4711, 65533+seq, "ours")
		want := bytes.Clone(plain)
		if err := c.SendRTP(plain); err != nil {
			t.Fatal(err)
		}
		b.expect(t, want)
	}
	report = senderReport(4711)
	want := bytes.Clone(report)
	if err := c.SendRTCP(report); err != nil {
		t.Fatal(err)
	}
	b.expect(t, want)

	got := c.Stats()
	if got.RTPReceived != 15 || got.RTCPReceived != 1 || got.RTPSent != 5 || got.RTCPSent != 1 ||
		got.Stranger-early+got.Invalid+got.Replayed+got.Unauthentic+got.Full+got.SendErrors+got.TooManySources != 0 {
		t.Errorf("stats %+v", got)
	}
}

func (b *bridge) expect(t *testing.T, want []byte) {
	t.Helper()
	select {
	case got := <-b.received:
		if !bytes.Equal(got, want) {
			t.Errorf("bridge received %x, want %x", got, want)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("the bridge received nothing")
	}
}

func TestConferenceRefuses(t *testing.T) {
	t.Parallel()
	wrong := strings.Repeat("AB:", 31) + "AB"
	tests := []struct {
		name   string
		change func(*Remote)
		serves bool
		want   error
	}{
		{"another certificate", func(r *Remote) { r.Fingerprint = wrong }, true, ErrFingerprint},
		{"hash and value do not fit", func(r *Remote) { r.FingerprintHash = "sha-512" }, false, ErrRemote},
		{"unknown hash", func(r *Remote) { r.FingerprintHash = "md5" }, false, ErrRemote},
		{"fingerprint is no hexadecimal", func(r *Remote) { r.Fingerprint = "zz" }, false, ErrRemote},
		{"no fingerprint", func(r *Remote) { r.FingerprintHash, r.Fingerprint = "", "" }, false, ErrRemote},
		{"holdconn", func(r *Remote) { r.Setup = "holdconn" }, false, ErrRemote},
		{"no ufrag", func(r *Remote) { r.Ufrag = "" }, false, ErrRemote},
		{"no password", func(r *Remote) { r.Pwd = "" }, false, ErrRemote},
		{"endless ufrag", func(r *Remote) { r.Ufrag = strings.Repeat("x", 257) }, false, ErrRemote},
		{"wrong password", func(r *Remote) { r.Pwd = strings.Repeat("x", 24) }, true, ErrICEFailed},
		{"nobody there", func(r *Remote) { r.Candidates = nil }, false, ErrICEFailed},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			b := newBridge(t, bridgeOptions{})
			o := testOptions()
			o.DisconnectedTimeout, o.FailedTimeout = 200*time.Millisecond, 200*time.Millisecond
			var seen states
			o.OnState = seen.add
			c := openConference(t, o)
			if tt.serves {
				b.serve(c.Local(), bridgeOptions{})
			}
			r := b.remote
			tt.change(&r)
			err := c.Connect(t.Context(), r)
			if !errors.Is(err, tt.want) {
				t.Errorf("Connect: %v, want %v", err, tt.want)
			}
			if err := c.SendRTP(rtpPacket(t, 1, 1, "x")); !errors.Is(err, ErrNotConnected) {
				t.Errorf("SendRTP: %v", err)
			}
			if got := seen.get(); len(got) != 0 {
				t.Errorf("states %v", got)
			}
		})
	}
}

// An unusable candidate must neither fail the call nor be tried.
func TestRemoteCandidates(t *testing.T) {
	good := Candidate{Foundation: "1", Component: 1, Protocol: "udp", Priority: 1, IP: "192.0.2.1", Port: 10000, Type: "host"}
	with := func(change func(*Candidate)) Candidate {
		c := good
		change(&c)
		return c
	}
	tests := []struct {
		name string
		c    Candidate
		want string
	}{
		{"host", good, "192.0.2.1:10000"},
		{"srflx", with(func(c *Candidate) { c.Type, c.RelAddr, c.RelPort = "srflx", "10.0.0.4", 10000 }), "192.0.2.1:10000"},
		{"srflx with nonsense behind it", with(func(c *Candidate) { c.Type, c.RelAddr, c.RelPort = "srflx", "-", -1 }), "192.0.2.1:10000"},
		{"prflx", with(func(c *Candidate) { c.Type = "prflx" }), "192.0.2.1:10000"},
		{"relay", with(func(c *Candidate) { c.Type = "relay" }), "192.0.2.1:10000"},
		{"UDP in capitals", with(func(c *Candidate) { c.Protocol = "UDP" }), "192.0.2.1:10000"},
		{"IPv6", with(func(c *Candidate) { c.IP = "2001:db8::1" }), "[2001:db8::1]:10000"},
		{"IPv4 in IPv6", with(func(c *Candidate) { c.IP = "::ffff:192.0.2.1" }), "192.0.2.1:10000"},
		{"TCP", with(func(c *Candidate) { c.Protocol = "tcp" }), ""},
		{"ssltcp", with(func(c *Candidate) { c.Protocol = "ssltcp" }), ""},
		{"RTCP component", with(func(c *Candidate) { c.Component = 2 }), ""},
		{"mDNS", with(func(c *Candidate) { c.IP = "8d4e.local" }), ""},
		{"name", with(func(c *Candidate) { c.IP = "localhost" }), ""},
		{"empty", with(func(c *Candidate) { c.IP = "" }), ""},
		{"zone", with(func(c *Candidate) { c.IP = "fe80::1%eth0" }), ""},
		{"unspecified", with(func(c *Candidate) { c.IP = "0.0.0.0" }), ""},
		{"multicast", with(func(c *Candidate) { c.IP = "224.0.0.1" }), ""},
		{"port 0", with(func(c *Candidate) { c.Port = 0 }), ""},
		{"port too large", with(func(c *Candidate) { c.Port = 65536 }), ""},
		{"negative port", with(func(c *Candidate) { c.Port = -1 }), ""},
		{"unknown type", with(func(c *Candidate) { c.Type = "carrier pigeon" }), ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := ""
			if list := remoteCandidates([]Candidate{tt.c}); len(list) == 1 {
				addr := netip.MustParseAddr(list[0].Address())
				got = netip.AddrPortFrom(addr, uint16(list[0].Port())).String()
			}
			if got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
	if n := len(remoteCandidates(slices.Repeat([]Candidate{good}, 1000))); n != maxRemoteCandidates {
		t.Errorf("%d candidates kept", n)
	}
}

func TestLocalCandidates(t *testing.T) {
	t.Parallel()
	t.Run("bound", func(t *testing.T) {
		local := openConference(t, testOptions()).Local()
		if len(local.Candidates) != 1 || local.Candidates[0].IP != "127.0.0.1" || local.Candidates[0].Type != "host" ||
			local.Candidates[0].Component != 1 || local.Candidates[0].Priority != 2130706431 {
			t.Errorf("candidates %+v", local.Candidates)
		}
		if local.Ufrag == "" || local.Pwd == "" || local.FingerprintHash != "sha-256" || len(local.Fingerprint) != 95 {
			t.Errorf("local %+v", local)
		}
	})
	t.Run("advertised", func(t *testing.T) {
		o := testOptions()
		o.Advertise = netip.MustParseAddr("198.51.100.7")
		c := openConference(t, o)
		local := c.Local()
		if len(local.Candidates) != 1 || local.Candidates[0].IP != "198.51.100.7" || local.Candidates[0].Port != c.sock.port {
			t.Errorf("candidates %+v", local.Candidates)
		}
	})
	t.Run("all addresses", func(t *testing.T) {
		o := testOptions()
		o.Bind = netip.Addr{}
		c := openConference(t, o)
		list := c.Local().Candidates
		if len(list) == 0 || len(list) > maxLocalCandidates {
			t.Fatalf("candidates %+v", list)
		}
		seen := map[uint32]bool{}
		for _, cand := range list {
			if seen[cand.Priority] {
				t.Errorf("two candidates of priority %d", cand.Priority)
			}
			seen[cand.Priority] = true
		}
		if c.stun4 == nil && c.stun6 == nil {
			t.Error("no family")
		}
	})
}

// A leg bound to all addresses reaches a bridge on loopback.
func TestConferenceOnAllAddresses(t *testing.T) {
	t.Parallel()
	o := testOptions()
	o.Bind = netip.Addr{}
	c, b := connected(t, o, bridgeOptions{})
	exchange(t, c, b)
}

func TestConferenceConnectTwice(t *testing.T) {
	t.Parallel()
	c, b := connected(t, testOptions(), bridgeOptions{})
	if err := c.Connect(t.Context(), b.remote); err == nil {
		t.Error("second Connect succeeded")
	}
}

// Whatever the moment at which a leg is ended and by whom, Connect returns and
// nothing is left. TestMain looks for goroutines.
func TestConferenceEndsAnywhere(t *testing.T) {
	t.Parallel()
	stages := []struct {
		name   string
		serves bool          // the bridge answers
		after  time.Duration // of Connect; -1: before it
	}{
		{"before Connect", false, -1},
		{"at once", false, 0},
		{"in ICE", false, 30 * time.Millisecond},
		{"early in the handshake", true, 5 * time.Millisecond},
		{"in the handshake", true, 25 * time.Millisecond},
		{"about the end of the handshake", true, 40 * time.Millisecond},
		{"connected", true, 300 * time.Millisecond},
	}
	for _, how := range []string{"Close", "life", "connect"} {
		for _, tt := range stages {
			t.Run(how+" "+tt.name, func(t *testing.T) {
				t.Parallel()
				ports := NewPorts(0, 0, 0)
				o := testOptions()
				o.Ports = ports
				b := newBridge(t, bridgeOptions{})
				life, end := context.WithCancel(t.Context())
				defer end()
				c, err := OpenConference(life, o)
				if err != nil {
					t.Fatal(err)
				}
				if tt.serves {
					b.serve(c.Local(), bridgeOptions{})
				}
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				returned := make(chan error, 1)
				if tt.after >= 0 {
					go func() { returned <- c.Connect(ctx, b.remote) }()
					<-time.After(tt.after)
				} else {
					returned <- nil
				}
				switch how {
				case "Close":
					c.Close()
				case "life":
					end()
				case "connect":
					cancel()
				}
				select {
				case <-returned:
				case <-time.After(20 * time.Second):
					t.Fatal("Connect did not return")
				}
				if how == "connect" {
					c.Close()
				}
				await(t, "the port back", func() bool { return ports.InUse() == 0 })
				c.Close()
				if err := c.Connect(t.Context(), b.remote); err == nil {
					t.Error("Connect after the end succeeded")
				}
			})
		}
	}
}

func TestOpenConferenceFails(t *testing.T) {
	t.Parallel()
	ports := NewPorts(0, 0, 0)
	o := testOptions()
	o.Ports = ports
	o.Bind = netip.MustParseAddr("192.0.2.1") // not ours
	if _, err := OpenConference(t.Context(), o); err == nil {
		t.Error("bound to an address of somebody else")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := OpenConference(ctx, testOptions()); !errors.Is(err, context.Canceled) {
		t.Errorf("with a dead context: %v", err)
	}
	if ports.InUse() != 0 {
		t.Error("ports in use")
	}
}

// Lost handshake packets are sent again.
func TestConferenceHandshakeLoss(t *testing.T) {
	t.Parallel()
	o := testOptions()
	o.RetransmitInterval = 20 * time.Millisecond
	c, b := connected(t, o, bridgeOptions{lose: 3})
	exchange(t, c, b)
}

// A bridge that answers ICE but not DTLS is given up.
func TestConferenceHandshakeTimeout(t *testing.T) {
	t.Parallel()
	o := testOptions()
	o.ConnectTimeout = 300 * time.Millisecond
	o.RetransmitInterval = 20 * time.Millisecond
	b := newBridge(t, bridgeOptions{})
	c := openConference(t, o)
	b.serve(c.Local(), bridgeOptions{lose: 1 << 30})
	if err := c.Connect(t.Context(), b.remote); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "DTLS") {
		t.Errorf("Connect: %v", err)
	}
}

// When the bridge nominates another pair, media follows, both ways.
func TestConferencePairChanges(t *testing.T) {
	t.Parallel()
	c, b := connected(t, testOptions(), bridgeOptions{})
	before, _ := c.SelectedPair()
	udp, err := net.ListenUDP("udp4", &net.UDPAddr{IP: loopback.AsSlice()})
	if err != nil {
		t.Fatal(err)
	}
	second := udp.LocalAddr().(*net.UDPAddr)
	candidate, err := ice.NewCandidateHost(&ice.CandidateHostConfig{Network: "udp", Address: "127.0.0.1", Port: second.Port, Component: 1})
	if err != nil {
		t.Fatal(err)
	}
	if err := b.agent.AddVirtualCandidate(candidate, udp); err != nil {
		t.Fatal(err)
	}
	// Pion wants to be told on its own goroutine.
	nominate := func(remote ice.Candidate) { b.agent.RenominateCandidate(candidate, remote) }
	b.onCheck.Store(&nominate)
	await(t, "the other pair", func() bool {
		pair, _ := c.SelectedPair()
		return int(pair.Remote.Port()) == second.Port
	})
	b.onCheck.Store(nil)
	b.udp = udp
	plain := rtpPacket(t, 5, 1, "from the other address")
	b.send(b.protect(plain))
	if got := pop(t, c.Ring()); !bytes.Equal(got.Data, plain) {
		t.Errorf("received %x", got.Data)
	}
	ours := rtpPacket(t, 6, 1, "to the other address")
	want := bytes.Clone(ours)
	if err := c.SendRTP(ours); err != nil {
		t.Fatal(err)
	}
	b.expect(t, want)
	if before.Remote.Port() == uint16(second.Port) {
		t.Error("the pair was this one before")
	}
}

// The bridge goes silent, comes back, and goes for good.
func TestConferenceStates(t *testing.T) {
	t.Parallel()
	t.Run("silent", func(t *testing.T) {
		t.Parallel()
		o := testOptions()
		o.KeepaliveInterval = 20 * time.Millisecond
		o.DisconnectedTimeout, o.FailedTimeout = 300*time.Millisecond, 300*time.Millisecond
		var seen states
		o.OnState = seen.add
		_, b := connected(t, o, bridgeOptions{})
		b.agent.Close()
		await(t, "Failed", func() bool { return slices.Equal(seen.get(), []State{Connected, Disconnected, Failed}) })
	})
	t.Run("closes DTLS", func(t *testing.T) {
		t.Parallel()
		o := testOptions()
		var seen states
		o.OnState = seen.add
		_, b := connected(t, o, bridgeOptions{})
		b.dtls.Close()
		await(t, "Failed", func() bool { return slices.Equal(seen.get(), []State{Connected, Failed}) })
	})
}

// What anyone but the bridge sends, and what the bridge sends twice or broken,
// is dropped and counted, and the call goes on.
func TestConferenceHostilePackets(t *testing.T) {
	t.Parallel()
	c, b := connected(t, testOptions(), bridgeOptions{})
	stranger, err := net.Dial("udp4", c.sock.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer stranger.Close()
	seq := uint16(0)
	next := func(payload string) []byte { seq++; return b.protect(rtpPacket(t, 99, seq, payload)) }
	fromStranger := func(p []byte) {
		if _, err := stranger.Write(p); err != nil {
			t.Fatal(err)
		}
	}
	first := next("first")
	b.send(first)
	pop(t, c.Ring())

	tests := []struct {
		name    string
		send    func()
		counter func(ConferenceStats) uint64
	}{
		{"authentic RTP from a stranger", func() { fromStranger(next("x")) }, func(s ConferenceStats) uint64 { return s.Stranger }},
		{"RTCP from a stranger", func() { fromStranger(b.protect(senderReport(99))) }, func(s ConferenceStats) uint64 { return s.Stranger }},
		{"DTLS from a stranger", func() { fromStranger([]byte{22, 254, 253, 0}) }, func(s ConferenceStats) uint64 { return s.Stranger }},
		{"replay", func() { b.send(first) }, func(s ConferenceStats) uint64 { return s.Replayed }},
		{"RTCP replay", func() { p := b.protect(senderReport(99)); b.send(p); pop(t, c.Ring()); b.send(p) },
			func(s ConferenceStats) uint64 { return s.Replayed }},
		{"broken tag", func() { p := next("x"); p[len(p)-1] ^= 1; b.send(p) }, func(s ConferenceStats) uint64 { return s.Unauthentic }},
		{"RTCP, broken tag", func() { p := b.protect(senderReport(99)); p[12] ^= 1; b.send(p) }, func(s ConferenceStats) uint64 { return s.Unauthentic }},
		{"in the clear", func() { b.send(rtpPacket(t, 99, 1000, "in the clear, long enough for a tag")) }, func(s ConferenceStats) uint64 { return s.Unauthentic }},
		{"short RTP", func() { b.send([]byte{0x80, 111, 0}) }, func(s ConferenceStats) uint64 { return s.Invalid }},
		{"short RTCP", func() { b.send([]byte{0x80, 200, 0, 1, 0, 0, 0, 1}) }, func(s ConferenceStats) uint64 { return s.Invalid }},
		{"header without its extension", func() { b.send(append([]byte{0x90, 111}, make([]byte, 12)...)) }, func(s ConferenceStats) uint64 { return s.Invalid }},
		{"extension past its end", func() {
			p := append([]byte{0x90, 111}, make([]byte, 10)...)
			p = append(p, 0xbe, 0xde, 0, 1, 0x1f, 0, 0, 0)
			b.send(append(p, make([]byte, 40)...))
		}, func(s ConferenceStats) uint64 { return s.Invalid }},
		{"encrypted header nobody negotiated", func() {
			p := append([]byte{0x90, 111}, make([]byte, 10)...)
			p = append(p, 0xc0, 0xde, 0, 0)
			b.send(append(p, make([]byte, 40)...))
		}, func(s ConferenceStats) uint64 { return s.Invalid }},
		{"authentic, padding past its end", func() {
			p := rtpPacket(t, 99, 2000, "\xff")
			p[0] |= 0x20
			b.send(b.protect(p))
		}, func(s ConferenceStats) uint64 { return s.Invalid }},
		{"authentic compound RTCP past its end", func() { p := senderReport(99); p[3] = 200; b.send(b.protect(p)) }, func(s ConferenceStats) uint64 { return s.Invalid }},
		{"ZRTP", func() { b.send([]byte{0x10, 0, 0}) }, func(s ConferenceStats) uint64 { return s.Invalid }},
		{"STUN's first byte alone", func() { b.send([]byte{0, 1, 0}) }, func(s ConferenceStats) uint64 { return s.Invalid }},
		{"DTLS application data", func() { b.send([]byte{23, 254, 253, 0, 1}) }, func(s ConferenceStats) uint64 { return s.Invalid }},
		{"too large", func() { b.send(append([]byte{0x80, 111}, make([]byte, MTU)...)) }, func(s ConferenceStats) uint64 { return s.Invalid }},
	}
	for _, tt := range tests {
		before := tt.counter(c.Stats())
		tt.send()
		await(t, tt.name, func() bool { return tt.counter(c.Stats()) > before })
		if n := tt.counter(c.Stats()); n != before+1 {
			t.Errorf("%s: counted %d times", tt.name, n-before)
		}
		if _, ok := c.Ring().Peek(); ok {
			t.Errorf("%s: reached the ring", tt.name)
		}
	}
	// Nonsense of STUN and DTLS from the bridge and from strangers, too.
	for _, p := range [][]byte{
		{0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0},
		{0, 1, 255, 255, 0x21, 0x12, 0xa4, 0x42, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3},
		{1, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0},
		{22}, {22, 254, 253, 0, 0, 0, 0, 0, 0, 0, 0, 0, 200}, {21, 254, 253, 0, 0, 0, 0, 0, 0, 0, 1, 0, 2, 2, 40},
		{20, 254, 253, 0, 1, 0, 0, 0, 0, 0, 1, 0, 1, 1}, bytes.Repeat([]byte{22}, MTU),
	} {
		b.send(p)
		fromStranger(p)
	}
	plain := rtpPacket(t, 99, 3000, "still here")
	b.send(b.protect(plain))
	if got := pop(t, c.Ring()); !bytes.Equal(got.Data, plain) {
		t.Errorf("received %x", got.Data)
	}
}

// SRTP that comes before its keys is counted, not kept.
func TestConferenceEarlyMedia(t *testing.T) {
	t.Parallel()
	c := openConference(t, testOptions())
	anyone, err := net.Dial("udp4", c.sock.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer anyone.Close()
	if _, err := anyone.Write(rtpPacket(t, 1, 1, "early")); err != nil {
		t.Fatal(err)
	}
	await(t, "Early", func() bool { return c.Stats().Early == 1 })
	if err := c.SendRTP(rtpPacket(t, 1, 1, "early")); !errors.Is(err, ErrNotConnected) {
		t.Errorf("SendRTP: %v", err)
	}
}

// The number of sources is bounded, and spoofed packets do not use it up.
func TestConferenceSources(t *testing.T) {
	t.Parallel()
	c, b := connected(t, testOptions(), bridgeOptions{})
	pair, _ := c.SelectedPair()
	c.sock.Close() // from here on packets are fed by hand
	c.reader.Wait()
	drain := func() (n int) {
		for {
			if _, ok := c.Ring().Peek(); !ok {
				return n
			}
			c.Ring().Release()
			n++
		}
	}
	for ssrc := range uint32(2 * maxSources) {
		p := b.protect(rtpPacket(t, ssrc+1_000_000, 1, "spoofed"))
		p[len(p)-1] ^= 1
		c.receive(p, pair.Remote)
	}
	if got := c.Stats(); got.Unauthentic != 2*maxSources || got.TooManySources != 0 {
		t.Errorf("after spoofed packets: %+v", got)
	}
	heard := 0
	for ssrc := range uint32(maxSources + 10) {
		c.receive(b.protect(rtpPacket(t, ssrc, 1, "x")), pair.Remote)
		c.receive(b.protect(senderReport(ssrc)), pair.Remote)
		heard += drain()
	}
	if got := c.Stats(); heard != 2*maxSources || got.TooManySources != 20 {
		t.Errorf("heard %d, stats %+v", heard, got)
	}
	c.receive(b.protect(rtpPacket(t, 3, 2, "x")), pair.Remote)
	if drain() != 1 {
		t.Error("a known source is not heard any more")
	}
}

// A leg must be cheap in goroutines: the whole call may have twenty.
func TestConferenceGoroutines(t *testing.T) {
	// Not parallel: counts those of this leg by their creation.
	o := testOptions()
	o.Bind = netip.Addr{} // both families, the dearest case
	c, b := connected(t, o, bridgeOptions{})
	exchange(t, c, b)
	// Stop the bridge's goroutines, which look the same, without telling us.
	b.agent.GracefulClose()
	b.pkt.dtls.Close()
	count := func() int {
		buf := make([]byte, 1<<20)
		stacks := strings.Split(string(buf[:runtime.Stack(buf, true)]), "\n\n")
		n := 0
		for _, s := range stacks {
			if strings.Contains(s, "pion/") || strings.Contains(s, "(*socket).read") {
				n++
			}
		}
		return n
	}
	var n int
	await(t, "goroutines of the leg", func() bool { n = count(); return n <= 9 })
	t.Logf("%d goroutines", n)
	if n < 4 {
		t.Errorf("only %d goroutines found: the count is wrong", n)
	}
}
