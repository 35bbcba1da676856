package jvb

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/pion/dtls/v3"
	"github.com/pion/dtls/v3/pkg/crypto/selfsign"
	"github.com/pion/ice/v4"
	"github.com/pion/srtp/v3"
)

// client is what a browser or gateway does at a bridge: ICE controlled, DTLS
// active, SRTP.
type client struct {
	t        *testing.T
	agent    *ice.Agent
	cert     tls.Certificate
	profiles []dtls.SRTPProtectionProfile
	conn     *ice.Conn
	dtls     *dtls.Conn
	packets  *packetConn
	out, in  *srtp.Context

	mu   sync.Mutex
	rtp  [][]byte
	rtcp [][]byte
	read sync.WaitGroup
}

func newClient(t *testing.T) *client {
	t.Helper()
	agent, err := ice.NewAgentWithOptions(
		ice.WithNetworkTypes([]ice.NetworkType{ice.NetworkTypeUDP4}),
		ice.WithCandidateTypes([]ice.CandidateType{ice.CandidateTypeHost}),
		ice.WithIncludeLoopback(),
		ice.WithIPFilter(func(ip net.IP) bool { return ip.IsLoopback() }),
		ice.WithMulticastDNSMode(ice.MulticastDNSModeDisabled),
	)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := selfsign.GenerateSelfSigned()
	if err != nil {
		t.Fatal(err)
	}
	c := &client{
		t: t, agent: agent, cert: cert,
		profiles: []dtls.SRTPProtectionProfile{dtls.SRTP_AES128_CM_HMAC_SHA1_80, dtls.SRTP_AEAD_AES_128_GCM},
	}
	done := make(chan struct{})
	if err := agent.OnCandidate(func(c ice.Candidate) {
		if c == nil {
			close(done)
		}
	}); err != nil {
		t.Fatal(err)
	}
	if err := agent.GatherCandidates(); err != nil {
		t.Fatal(err)
	}
	<-done
	t.Cleanup(c.close)
	return c
}

func (c *client) remote() Remote {
	ufrag, pwd, err := c.agent.GetLocalUserCredentials()
	if err != nil {
		c.t.Fatal(err)
	}
	return Remote{Ufrag: ufrag, Pwd: pwd, FingerprintHash: "sha-256", Fingerprint: fingerprintOf(c.cert.Certificate[0]), Setup: "active"}
}

// connect runs ICE and DTLS against an endpoint.
func (c *client) connect(ctx context.Context, e *Endpoint) error {
	for _, x := range e.Candidates {
		rc, err := ice.NewCandidateHost(&ice.CandidateHostConfig{
			Network: "udp", Address: x.IP, Port: x.Port, Component: 1, Priority: x.Priority, Foundation: x.Foundation,
		})
		if err != nil {
			return err
		}
		if err := c.agent.AddRemoteCandidate(rc); err != nil {
			return err
		}
	}
	conn, err := c.agent.Accept(ctx, e.Ufrag, e.Pwd)
	if err != nil {
		return fmt.Errorf("ice: %w", err)
	}
	c.conn = conn
	c.packets = newPacketConn(conn.LocalAddr(), func(p []byte) { _, _ = conn.Write(p) })
	c.read.Add(1)
	go c.receive()
	d, err := dtls.ClientWithOptions(c.packets, conn.RemoteAddr(),
		dtls.WithCertificates(c.cert),
		dtls.WithSRTPProtectionProfiles(c.profiles...),
		dtls.WithInsecureSkipVerify(true),
		dtls.WithFlightInterval(100*time.Millisecond),
		dtls.WithVerifyPeerCertificate(func(raw [][]byte, _ [][]*x509.Certificate) error {
			if got := fingerprintOf(raw[0]); got != e.Fingerprint {
				return fmt.Errorf("bridge certificate is %s", got)
			}
			return nil
		}),
	)
	if err != nil {
		return err
	}
	if err := d.HandshakeContext(ctx); err != nil {
		return fmt.Errorf("dtls: %w", err)
	}
	c.dtls = d
	profile, _ := d.SelectedSRTPProtectionProfile()
	state, _ := d.ConnectionState()
	cfg := srtp.Config{Profile: srtp.ProtectionProfile(profile)}
	if err := cfg.ExtractSessionKeysFromDTLS(&state, true); err != nil {
		return err
	}
	out, err := srtp.CreateContext(cfg.Keys.LocalMasterKey, cfg.Keys.LocalMasterSalt, cfg.Profile)
	if err != nil {
		return err
	}
	in, err := srtp.CreateContext(cfg.Keys.RemoteMasterKey, cfg.Keys.RemoteMasterSalt, cfg.Profile)
	if err != nil {
		return err
	}
	c.mu.Lock()
	c.out, c.in = out, in
	c.mu.Unlock()
	return nil
}

func (c *client) receive() {
	defer c.read.Done()
	buf := make([]byte, 2048)
	for {
		n, err := c.conn.Read(buf)
		if err != nil {
			return
		}
		p := append([]byte(nil), buf[:n]...)
		c.mu.Lock()
		switch k := kindOf(p); {
		case k == kindDTLS:
			c.packets.push(p)
		case c.in == nil:
		case k == kindRTP:
			if d, err := c.in.DecryptRTP(nil, p, nil); err == nil {
				c.rtp = append(c.rtp, d)
			}
		case k == kindRTCP:
			if d, err := c.in.DecryptRTCP(nil, p, nil); err == nil {
				c.rtcp = append(c.rtcp, d)
			}
		}
		c.mu.Unlock()
	}
}

func (c *client) close() {
	if c.dtls != nil {
		_ = c.dtls.Close()
	}
	_ = c.agent.Close()
	if c.packets != nil {
		_ = c.packets.Close()
	}
	c.read.Wait()
}

func (c *client) received() [][]byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([][]byte(nil), c.rtp...)
}

func (c *client) reports() [][]byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([][]byte(nil), c.rtcp...)
}

// packet builds an RTP packet with audio level under id (0: none) and a mid
// under id 10.
func packet(ssrc uint32, seq uint16, pt, levelID, level byte, payload string) []byte {
	p := []byte{0x90, pt}
	p = binary.BigEndian.AppendUint16(p, seq)
	p = binary.BigEndian.AppendUint32(p, uint32(seq)*960)
	p = binary.BigEndian.AppendUint32(p, ssrc)
	x := []byte{10 << 4, 'a'}
	if levelID != 0 {
		x = append(x, levelID<<4, level)
	} else {
		x = append(x, 0, 0)
	}
	p = append(p, 0xBE, 0xDE, 0, 1)
	p = append(p, x...)
	return append(p, payload...)
}

func (c *client) sendRTP(p []byte) {
	c.t.Helper()
	enc, err := c.out.EncryptRTP(nil, p, nil)
	if err != nil {
		c.t.Fatal(err)
	}
	if _, err := c.conn.Write(enc); err != nil {
		c.t.Fatal(err)
	}
}

func (c *client) sendRTCP(p []byte) {
	c.t.Helper()
	enc, err := c.out.EncryptRTCP(nil, p, nil)
	if err != nil {
		c.t.Fatal(err)
	}
	if _, err := c.conn.Write(enc); err != nil {
		c.t.Fatal(err)
	}
}

// join allocates an endpoint and connects a client to it.
func join(t *testing.T, b *Bridge, conf, id string, o AllocOptions, sources ...uint32) (*client, *Endpoint) {
	t.Helper()
	e, err := b.Allocate(conf, id, o)
	if err != nil {
		t.Fatal(err)
	}
	c := newClient(t)
	if err := e.SetSources(sources); err != nil {
		t.Fatal(err)
	}
	if err := e.SetRemote(c.remote()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := c.connect(ctx, e); err != nil {
		t.Fatal(err)
	}
	select {
	case <-e.Connected():
	case <-ctx.Done():
		t.Fatal("bridge not connected")
	}
	return c, e
}

// await polls a condition until it holds.
func await(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(15 * time.Second); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		if cond() {
			return
		}
	}
	t.Fatalf("not within 15 s: %s", what)
}
