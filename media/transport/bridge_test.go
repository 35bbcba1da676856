package transport

import (
	"context"
	"crypto"
	"crypto/tls"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pion/dtls/v3"
	"github.com/pion/ice/v4"
	"github.com/pion/rtp"
	"github.com/pion/srtp/v3"
	"github.com/pion/stun/v4"
)

// A bridge plays the videobridge: full ICE, controlling, told nothing but our
// ufrag, password and fingerprint; DTLS 1.2 on one socket; SRTP. It is made of
// Pion's stock parts.
type bridge struct {
	t      testing.TB
	udp    *net.UDPConn
	agent  *ice.Agent
	cert   tls.Certificate
	remote Remote

	onCheck atomic.Pointer[func(ice.Candidate)] // called for each of our checks

	ice  *ice.Conn
	dtls *dtls.Conn
	pkt  *demux

	mu       sync.Mutex // encrypt
	encrypt  *srtp.Context
	decrypt  *srtp.Context
	received chan []byte // decrypted RTP and RTCP
	done     sync.WaitGroup
}

type bridgeOptions struct {
	ip       string // "127.0.0.1" or "::1"
	client   bool   // DTLS role
	setup    string
	profiles []dtls.SRTPProtectionProfile
	hash     string
	lose     int // DTLS datagrams to lose
}

func newBridge(t testing.TB, o bridgeOptions) *bridge {
	t.Helper()
	if o.ip == "" {
		o.ip = "127.0.0.1"
	}
	if o.hash == "" {
		o.hash = "sha-256"
	}
	if o.setup == "" {
		o.setup = "actpass"
	}
	cert, err := newCertificate()
	if err != nil {
		t.Fatal(err)
	}
	b := &bridge{t: t, cert: cert, received: make(chan []byte, 1000)}
	b.agent, err = ice.NewAgentWithOptions(
		ice.WithMulticastDNSMode(ice.MulticastDNSModeDisabled),
		ice.WithPrflxAcceptanceMinWait(0),
		ice.WithCheckInterval(20*time.Millisecond),
		ice.WithKeepaliveInterval(100*time.Millisecond),
		ice.WithMaxBindingRequests(1000),
		ice.WithRenomination(ice.DefaultNominationValueGenerator()),
		ice.WithBindingRequestHandler(func(_ *stun.Message, _, remote ice.Candidate, _ *ice.CandidatePair) bool {
			if f := b.onCheck.Load(); f != nil {
				(*f)(remote)
			}
			return false
		}),
	)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.close)

	b.udp, err = net.ListenUDP("udp", &net.UDPAddr{IP: net.ParseIP(o.ip)})
	if err != nil {
		t.Fatal(err)
	}
	port := b.udp.LocalAddr().(*net.UDPAddr).Port
	candidate, err := ice.NewCandidateHost(&ice.CandidateHostConfig{Network: "udp", Address: o.ip, Port: port, Component: 1})
	if err != nil {
		t.Fatal(err)
	}
	if err := b.agent.AddVirtualCandidate(candidate, b.udp); err != nil {
		t.Fatal(err)
	}
	b.remote.Candidates = []Candidate{{
		Foundation: "1", Component: 1, Protocol: "udp", Priority: candidate.Priority(), IP: o.ip, Port: port, Type: "host",
	}}
	b.remote.Ufrag, b.remote.Pwd, err = b.agent.GetLocalUserCredentials()
	if err != nil {
		t.Fatal(err)
	}
	b.remote.Setup = o.setup
	b.remote.FingerprintHash = o.hash
	b.remote.Fingerprint = formatFingerprint(fingerprintHashes[o.hash], cert.Certificate[0])
	return b
}

// serve accepts the gateway, in the background of the test.
func (b *bridge) serve(local Local, o bridgeOptions) <-chan error {
	result := make(chan error, 1)
	b.done.Go(func() { result <- b.accept(local, o) })
	return result
}

func (b *bridge) accept(local Local, o bridgeOptions) error {
	ctx, cancel := context.WithTimeout(b.t.Context(), 20*time.Second)
	defer cancel()
	conn, err := b.agent.Dial(ctx, local.Ufrag, local.Pwd)
	if err != nil {
		return err
	}
	b.mu.Lock()
	b.ice = conn
	b.pkt = newDemux(conn)
	b.pkt.lose = o.lose
	b.mu.Unlock()
	options := []dtls.Option{
		dtls.WithCertificates(b.cert),
		dtls.WithInsecureSkipVerify(true),
		dtls.WithFlightInterval(100 * time.Millisecond),
	}
	if o.profiles == nil {
		o.profiles = srtpProfiles
	}
	options = append(options, dtls.WithSRTPProtectionProfiles(o.profiles...))
	var dc *dtls.Conn
	if o.client {
		list := make([]dtls.ClientOption, len(options))
		for i := range options {
			list[i] = options[i]
		}
		dc, err = dtls.ClientWithOptions(b.pkt.dtls, conn.RemoteAddr(), list...)
	} else {
		list := []dtls.ServerOption{dtls.WithClientAuth(dtls.RequireAnyClientCert)}
		for i := range options {
			list = append(list, options[i])
		}
		dc, err = dtls.ServerWithOptions(b.pkt.dtls, conn.RemoteAddr(), list...)
	}
	if err != nil {
		return err
	}
	b.mu.Lock()
	b.dtls = dc
	b.mu.Unlock()
	b.done.Go(func() { b.pkt.run(b.media) })
	if err := dc.HandshakeContext(ctx); err != nil {
		return err
	}
	state, _ := dc.ConnectionState()
	if formatFingerprint(crypto.SHA256, state.PeerCertificates[0]) != local.Fingerprint {
		b.t.Error("the gateway's certificate does not match its fingerprint")
	}
	profile, _ := dc.SelectedSRTPProtectionProfile()
	config := srtp.Config{Profile: srtp.ProtectionProfile(profile)}
	if err := config.ExtractSessionKeysFromDTLS(&state, o.client); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.encrypt, err = srtp.CreateContext(config.Keys.LocalMasterKey, config.Keys.LocalMasterSalt, config.Profile)
	if err != nil {
		return err
	}
	b.decrypt, err = srtp.CreateContext(config.Keys.RemoteMasterKey, config.Keys.RemoteMasterSalt, config.Profile)
	return err
}

func (b *bridge) media(p []byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.decrypt == nil {
		return
	}
	var plain []byte
	var err error
	if classify(p) == kindRTCP {
		plain, err = b.decrypt.DecryptRTCP(nil, p, nil)
	} else {
		plain, err = b.decrypt.DecryptRTP(nil, p, nil)
	}
	if err != nil {
		b.t.Errorf("bridge cannot decrypt: %v", err)
		return
	}
	select {
	case b.received <- plain:
	default:
	}
}

// protect encrypts one packet as the bridge would send it.
func (b *bridge) protect(plain []byte) []byte {
	b.t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	var out []byte
	var err error
	if classify(plain) == kindRTCP {
		out, err = b.encrypt.EncryptRTCP(nil, plain, nil)
	} else {
		out, err = b.encrypt.EncryptRTP(nil, plain, nil)
	}
	if err != nil {
		b.t.Fatal(err)
	}
	return out
}

// send sends anything from the bridge's socket.
func (b *bridge) send(raw []byte) {
	b.t.Helper()
	if _, err := b.udp.WriteTo(raw, b.ice.RemoteAddr()); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bridge) close() {
	b.mu.Lock()
	dc, pkt := b.dtls, b.pkt
	b.mu.Unlock()
	if dc != nil {
		dc.Close()
	}
	if pkt != nil {
		pkt.dtls.Close()
	}
	b.agent.GracefulClose()
	b.done.Wait()
}

// A demux splits the bridge's ICE connection.
type demux struct {
	conn *ice.Conn
	dtls *conduit
	lose int
}

func newDemux(conn *ice.Conn) *demux {
	d := &demux{conn: conn}
	d.dtls = newConduit(conn.LocalAddr(), func(b []byte, _ netip.AddrPort) error {
		_, err := conn.Write(b)
		return err
	})
	return d
}

func (d *demux) run(media func([]byte)) {
	buf := make([]byte, 2048)
	from := d.conn.RemoteAddr().(*net.UDPAddr).AddrPort()
	for {
		n, err := d.conn.Read(buf)
		if err != nil {
			return
		}
		switch kind := classify(buf[:n]); {
		case kind != kindDTLS:
			media(buf[:n])
		case d.lose > 0:
			d.lose--
		default:
			d.dtls.push(buf[:n], from)
		}
	}
}

// rtpPacket is one packet with an audio level, room for a tag behind it.
func rtpPacket(t testing.TB, ssrc uint32, seq uint16, payload string) []byte {
	t.Helper()
	h := rtp.Header{Version: 2, PayloadType: 111, SequenceNumber: seq, Timestamp: uint32(seq) * 960, SSRC: ssrc}
	if err := h.SetExtension(1, []byte{0x80 | 42}); err != nil {
		t.Fatal(err)
	}
	raw, err := (&rtp.Packet{Header: h, Payload: []byte(payload)}).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return append(make([]byte, 0, MTU), raw...)
}

// senderReport is an RTCP SR without blocks.
func senderReport(ssrc uint32) []byte {
	p := make([]byte, 28, MTU)
	p[0], p[1], p[3] = 0x80, 200, 6
	p[4], p[5], p[6], p[7] = byte(ssrc>>24), byte(ssrc>>16), byte(ssrc>>8), byte(ssrc)
	return p
}

// pop awaits the next packet of a ring.
func pop(t testing.TB, r *Ring) Packet {
	t.Helper()
	var got Packet
	await(t, "a packet", func() bool {
		p, ok := r.Peek()
		if ok {
			got = *p
			got.Data = append([]byte(nil), p.Data...)
			r.Release()
		}
		return ok
	})
	return got
}

// await polls for a condition.
func await(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within 20 s", what)
		}
		time.Sleep(time.Millisecond)
	}
}
