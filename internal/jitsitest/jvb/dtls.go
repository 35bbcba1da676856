package jvb

import (
	"context"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/pion/dtls/v3"
	"github.com/pion/srtp/v3"
)

var dtlsProfiles = map[Profile]dtls.SRTPProtectionProfile{
	ProfileGCM: dtls.SRTP_AEAD_AES_128_GCM,
	ProfileCM:  dtls.SRTP_AES128_CM_HMAC_SHA1_80,
}

// secure waits for ICE and shakes hands as the DTLS server (RFC 5764).
func (e *Endpoint) secure() {
	defer e.done.Done()
	select {
	case <-e.ready:
	case <-e.ctx.Done():
		return
	}
	err := e.handshake()
	b := e.b
	b.mu.Lock()
	defer b.mu.Unlock()
	if err != nil {
		e.stats.Handshake = err
		if e.ctx.Err() == nil {
			b.log.Warn("DTLS failed", "conference", e.Conference, "endpoint", e.ID, "err", err)
		}
		return
	}
	now := time.Now()
	e.stats.DTLSConnected = now
	e.reportAt = now.Add(b.o.ReportInterval)
	close(e.secured)
	b.log.Info("endpoint connected", "conference", e.Conference, "endpoint", e.ID, "profile", e.stats.Profile)
}

func (e *Endpoint) handshake() error {
	b := e.b
	b.mu.Lock()
	remote := e.remote
	b.mu.Unlock()
	var profiles []dtls.SRTPProtectionProfile
	for _, p := range b.o.Profiles {
		profiles = append(profiles, dtlsProfiles[p])
	}
	conn, err := dtls.ServerWithOptions(e.packets, e.packets.LocalAddr(),
		dtls.WithCertificates(b.cert),
		dtls.WithSRTPProtectionProfiles(profiles...),
		dtls.WithClientAuth(dtls.RequireAnyClientCert),
		dtls.WithExtendedMasterSecret(dtls.RequestExtendedMasterSecret),
		dtls.WithInsecureSkipVerifyHello(true), // ICE has verified the address
		dtls.WithFlightInterval(200*time.Millisecond),
		dtls.WithVerifyPeerCertificate(func(raw [][]byte, _ [][]*x509.Certificate) error {
			if len(raw) == 0 {
				return errors.New("client has no certificate")
			}
			got, err := fingerprintWith(remote.FingerprintHash, raw[0])
			if err != nil {
				return err
			}
			if !strings.EqualFold(got, strings.TrimSpace(remote.Fingerprint)) {
				return fmt.Errorf("client certificate is %s, signalled was %s", got, remote.Fingerprint)
			}
			return nil
		}),
	)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(e.ctx, b.o.HandshakeTimeout)
	defer cancel()
	if err := conn.HandshakeContext(ctx); err != nil {
		_ = conn.Close() // the handshake's error is the one that counts
		return err
	}
	in, out, profile, err := srtpContexts(conn)
	if err != nil {
		_ = conn.Close()
		return err
	}
	b.mu.Lock()
	e.dtls, e.srtpIn, e.srtpOut, e.stats.Profile = conn, in, out, profile
	b.mu.Unlock()
	return nil
}

// srtpContexts derives the SRTP keys of the server side (RFC 5764 §4.2).
func srtpContexts(conn *dtls.Conn) (in, out *srtp.Context, profile Profile, err error) {
	selected, ok := conn.SelectedSRTPProtectionProfile()
	if !ok {
		return nil, nil, "", errors.New("client offered no use_srtp")
	}
	for p, id := range dtlsProfiles {
		if id == selected {
			profile = p
		}
	}
	state, ok := conn.ConnectionState()
	if !ok {
		return nil, nil, "", errors.New("no DTLS state")
	}
	c := srtp.Config{Profile: srtp.ProtectionProfile(selected)}
	if err := c.ExtractSessionKeysFromDTLS(&state, false); err != nil {
		return nil, nil, "", err
	}
	in, err = srtp.CreateContext(c.Keys.RemoteMasterKey, c.Keys.RemoteMasterSalt, c.Profile,
		srtp.SRTPReplayProtection(256), srtp.SRTCPReplayProtection(64))
	if err != nil {
		return nil, nil, "", err
	}
	out, err = srtp.CreateContext(c.Keys.LocalMasterKey, c.Keys.LocalMasterSalt, c.Profile)
	if err != nil {
		return nil, nil, "", err
	}
	return in, out, profile, nil
}

func knownHash(name string) bool {
	_, err := fingerprintWith(name, nil)
	return err == nil
}

// fingerprintOf is RFC 8122 §5 with SHA-256.
func fingerprintOf(der []byte) string {
	sum, _ := fingerprintWith("sha-256", der) // cannot fail
	return sum
}

func fingerprintWith(hash string, der []byte) (string, error) {
	var sum []byte
	switch strings.ToLower(hash) {
	case "sha-1":
		s := sha1.Sum(der)
		sum = s[:]
	case "sha-256":
		s := sha256.Sum256(der)
		sum = s[:]
	case "sha-384":
		s := sha512.Sum384(der)
		sum = s[:]
	case "sha-512":
		s := sha512.Sum512(der)
		sum = s[:]
	default:
		return "", fmt.Errorf("no fingerprint hash %q", hash)
	}
	text := strings.ToUpper(hex.EncodeToString(sum))
	var sb strings.Builder
	for i := 0; i < len(text); i += 2 {
		if i > 0 {
			sb.WriteByte(':')
		}
		sb.WriteString(text[i : i+2])
	}
	return sb.String(), nil
}

// packetConn is the net.PacketConn on which DTLS runs over something else:
// a demultiplexer pushes, write sends.
type packetConn struct {
	local  net.Addr // stands for both ends
	write  func([]byte)
	queue  chan []byte
	closed chan struct{}
	once   sync.Once

	mu       sync.Mutex
	deadline chan struct{} // closed when the read deadline has passed
	timer    *time.Timer
}

func newPacketConn(local net.Addr, write func([]byte)) *packetConn {
	return &packetConn{
		local: local, write: write,
		queue: make(chan []byte, 32), closed: make(chan struct{}), deadline: make(chan struct{}),
	}
}

// writeDTLS sends to the selected pair.
func (e *Endpoint) writeDTLS(p []byte) {
	e.b.mu.Lock()
	defer e.b.mu.Unlock()
	if e.selected != nil {
		e.b.send(e, kindDTLS, p, e.selected.addr)
	}
}

// push hands over a received datagram, and drops it when 32 are waiting.
// Application data (SCTP) is not for us and would only fill the queue.
func (c *packetConn) push(p []byte) {
	const applicationData = 23
	if p[0] == applicationData {
		return
	}
	select {
	case c.queue <- append([]byte(nil), p...):
	default:
	}
}

func (c *packetConn) ReadFrom(p []byte) (int, net.Addr, error) {
	c.mu.Lock()
	deadline := c.deadline
	c.mu.Unlock()
	select {
	case <-deadline:
		return 0, nil, os.ErrDeadlineExceeded
	default:
	}
	select {
	case d := <-c.queue:
		return copy(p, d), c.LocalAddr(), nil
	case <-deadline:
		return 0, nil, os.ErrDeadlineExceeded
	case <-c.closed:
		return 0, nil, net.ErrClosed
	}
}

func (c *packetConn) WriteTo(p []byte, _ net.Addr) (int, error) {
	c.write(p)
	return len(p), nil
}

func (c *packetConn) Close() error {
	c.once.Do(func() { close(c.closed) })
	return nil
}

func (c *packetConn) LocalAddr() net.Addr { return c.local }

func (c *packetConn) SetDeadline(t time.Time) error { return c.SetReadDeadline(t) }

func (c *packetConn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.timer != nil {
		c.timer.Stop()
		c.timer = nil
	}
	select {
	case <-c.deadline:
		c.deadline = make(chan struct{})
	default:
	}
	if t.IsZero() {
		return nil
	}
	d := time.Until(t)
	if d <= 0 {
		close(c.deadline)
		return nil
	}
	ch := c.deadline
	c.timer = time.AfterFunc(d, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.deadline == ch {
			select {
			case <-ch:
			default:
				close(ch)
			}
		}
	})
	return nil
}

func (c *packetConn) SetWriteDeadline(time.Time) error { return nil }

func addrOf(ip string, port int) (netip.AddrPort, bool) {
	a, err := netip.ParseAddr(ip)
	if err != nil || port <= 0 || port > 65535 {
		return netip.AddrPort{}, false
	}
	return netip.AddrPortFrom(a.Unmap(), uint16(port)), true
}
