package jitsitest

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pion/dtls/v3"
	"github.com/pion/dtls/v3/pkg/crypto/selfsign"
	"github.com/pion/ice/v4"
	"github.com/pion/srtp/v3"
)

// offer is what a browser needs of a session-initiate.
type offer struct {
	sid, initiator, bridgeSession string
	pt, eventPT, levelID          byte // eventPT 0: no telephone-event
	ufrag, pwd, fingerprint       string
	candidates                    []candidate
}

// leg is the media transport of one Jingle session: ICE (controlled), DTLS
// (active), SRTP.
type leg struct {
	b     *Browser
	o     offer
	ssrc  uint32
	agent *ice.Agent
	cert  tls.Certificate
	ctx   context.Context
	stop  context.CancelFunc
	wg    sync.WaitGroup
	ready chan struct{} // closed when media flows

	conn   *ice.Conn
	dtlsIn chan []byte
	in     atomic.Pointer[srtp.Context]

	// the metronome's
	out     *srtp.Context
	seq     uint16
	ts      uint32
	pos     int
	sent    uint32
	octets  uint32
	ticks   int
	started bool
	keys    keys
	buf     []byte
}

var (
	certMu sync.Mutex
	cert   *tls.Certificate
)

// certificate is one for all browsers of the process: making it is the most
// expensive part of a join.
func certificate() (tls.Certificate, error) {
	certMu.Lock()
	defer certMu.Unlock()
	if cert == nil {
		c, err := selfsign.GenerateSelfSigned()
		if err != nil {
			return tls.Certificate{}, err
		}
		cert = &c
	}
	return *cert, nil
}

func fingerprint(der []byte) string {
	sum := sha256.Sum256(der)
	parts := make([]string, len(sum))
	for i, b := range sum {
		parts[i] = fmt.Sprintf("%02X", b)
	}
	return strings.Join(parts, ":")
}

// newLeg gathers host candidates of the bridge's family, and of loopback only if
// that is where the bridge is.
func newLeg(b *Browser, o offer, ssrc uint32) (*leg, error) {
	c, err := certificate()
	if err != nil {
		return nil, err
	}
	local, family := true, ice.NetworkTypeUDP6
	for _, x := range o.candidates {
		if a, err := netip.ParseAddr(x.IP); err == nil {
			local = local && a.IsLoopback()
			if a.Is4() {
				family = ice.NetworkTypeUDP4
			}
		}
	}
	l := &leg{b: b, o: o, ssrc: ssrc, cert: c, ready: make(chan struct{}), dtlsIn: make(chan []byte, 64), buf: make([]byte, 0, 1500)}
	l.agent, err = ice.NewAgentWithOptions(
		ice.WithNetworkTypes([]ice.NetworkType{family}),
		ice.WithCandidateTypes([]ice.CandidateType{ice.CandidateTypeHost}),
		ice.WithIncludeLoopback(),
		ice.WithIPFilter(func(ip net.IP) bool { return ip.IsLoopback() == local }),
		ice.WithMulticastDNSMode(ice.MulticastDNSModeDisabled),
		ice.WithDisconnectedTimeout(b.o.ICETimeout),
		ice.WithFailedTimeout(b.o.ICETimeout),
		ice.WithKeepaliveInterval(min(2*time.Second, b.o.ICETimeout/3)),
	)
	if err != nil {
		return nil, err
	}
	l.ctx, l.stop = context.WithCancel(context.Background())
	gathered := make(chan struct{})
	if err = l.agent.OnCandidate(func(c ice.Candidate) {
		if c == nil {
			close(gathered)
		}
	}); err == nil {
		err = l.agent.OnConnectionStateChange(func(s ice.ConnectionState) {
			if s == ice.ConnectionStateFailed || s == ice.ConnectionStateDisconnected {
				b.lost(l)
			}
		})
	}
	if err == nil && local && family.IsIPv6() { // which Pion does not gather
		if err = l.addLoopback6(); err == nil {
			close(gathered)
		}
	} else if err == nil {
		err = l.agent.GatherCandidates()
	}
	if err != nil {
		_ = l.agent.Close()
		return nil, err
	}
	<-gathered
	return l, nil
}

func (l *leg) addLoopback6() error {
	conn, err := net.ListenUDP("udp6", &net.UDPAddr{IP: net.IPv6loopback})
	if err != nil {
		return err
	}
	c, err := ice.NewCandidateHost(&ice.CandidateHostConfig{
		Network: "udp", Address: net.IPv6loopback.String(), Port: conn.LocalAddr().(*net.UDPAddr).Port, Component: 1,
	})
	if err == nil {
		err = l.agent.AddVirtualCandidate(c, conn)
	}
	if err != nil {
		_ = conn.Close()
	}
	return err
}

// connect runs ICE and DTLS, then the leg talks until it is closed.
func (l *leg) connect() {
	l.wg.Add(1)
	go func() {
		defer l.wg.Done()
		ctx, cancel := context.WithTimeout(l.ctx, 30*time.Second)
		defer cancel()
		if err := l.establish(ctx); err != nil {
			if l.ctx.Err() == nil {
				l.b.log.Warn("media failed", "err", err)
				l.b.lost(l)
			}
			return
		}
		close(l.ready)
		beat.add(l)
	}()
}

func (l *leg) establish(ctx context.Context) error {
	for _, x := range l.o.candidates {
		if !strings.EqualFold(x.Protocol, "udp") || x.Component != 1 {
			continue
		}
		c, err := ice.NewCandidateHost(&ice.CandidateHostConfig{Network: "udp", Address: x.IP, Port: x.Port, Component: 1,
			Priority: x.Priority, Foundation: x.Foundation})
		if err != nil {
			continue // an address family that is not ours
		}
		if err := l.agent.AddRemoteCandidate(c); err != nil {
			return err
		}
	}
	conn, err := l.agent.Accept(ctx, l.o.ufrag, l.o.pwd)
	if err != nil {
		return fmt.Errorf("ice: %w", err)
	}
	l.conn = conn
	l.wg.Add(1)
	go l.receive()
	d, err := dtls.ClientWithOptions(dtlsConn{l}, conn.RemoteAddr(),
		dtls.WithCertificates(l.cert),
		dtls.WithSRTPProtectionProfiles(dtls.SRTP_AEAD_AES_128_GCM, dtls.SRTP_AES128_CM_HMAC_SHA1_80),
		dtls.WithInsecureSkipVerify(true), // the fingerprint decides
		dtls.WithFlightInterval(100*time.Millisecond),
		dtls.WithVerifyPeerCertificate(func(raw [][]byte, _ [][]*x509.Certificate) error {
			if len(raw) == 0 || !strings.EqualFold(fingerprint(raw[0]), l.o.fingerprint) {
				return errors.New("the bridge's certificate is not the signalled one")
			}
			return nil
		}))
	if err != nil {
		return fmt.Errorf("dtls: %w", err)
	}
	if err := d.HandshakeContext(ctx); err != nil {
		return fmt.Errorf("dtls: %w", err)
	}
	l.wg.Add(1)
	go func() { // the bridge says goodbye by DTLS
		defer l.wg.Done()
		buf := make([]byte, 1500)
		for {
			if _, err := d.Read(buf); err != nil {
				_ = d.Close()
				return
			}
		}
	}()
	profile, _ := d.SelectedSRTPProtectionProfile()
	state, ok := d.ConnectionState()
	if !ok {
		return errors.New("dtls: no state")
	}
	cfg := srtp.Config{Profile: srtp.ProtectionProfile(profile)}
	if err := cfg.ExtractSessionKeysFromDTLS(&state, true); err != nil {
		return err
	}
	if l.out, err = srtp.CreateContext(cfg.Keys.LocalMasterKey, cfg.Keys.LocalMasterSalt, cfg.Profile); err != nil {
		return err
	}
	in, err := srtp.CreateContext(cfg.Keys.RemoteMasterKey, cfg.Keys.RemoteMasterSalt, cfg.Profile, srtp.SRTPReplayProtection(256))
	if err != nil {
		return err
	}
	l.in.Store(in)
	return nil
}

// receive is the only reader: it tells DTLS from SRTP (RFC 7983).
func (l *leg) receive() {
	defer l.wg.Done()
	defer l.stop()
	buf, plain := make([]byte, 2048), make([]byte, 0, 2048)
	for {
		n, err := l.conn.Read(buf)
		if err != nil {
			return
		}
		p := buf[:n]
		switch in := l.in.Load(); {
		case n < 2:
		case p[0] >= 20 && p[0] <= 63:
			select {
			case l.dtlsIn <- append([]byte(nil), p...):
			default:
			}
		case in == nil || p[0]>>6 != 2 || p[1] >= 192 && p[1] <= 223: // RTCP is not looked at
		default:
			d, err := in.DecryptRTP(plain, p, nil)
			if err != nil {
				l.b.rec.mu.Lock()
				l.b.rec.bad++
				l.b.rec.mu.Unlock()
				continue
			}
			l.b.rec.audio(d, time.Now())
		}
	}
}

// tick sends what is due: a frame of the browser's sound, and a report each
// second. The metronome calls it.
func (l *leg) tick() {
	l.ts += frameSize
	if l.ticks++; l.ticks%50 == 1 {
		l.report()
	}
	if l.keys.tick(l) {
		return
	}
	v := l.b.voice.Load()
	if v == nil || len(*v) == 0 || l.b.muted.Load() {
		l.started = false
		return
	}
	f := (*v)[l.pos%len(*v)]
	l.pos++
	marker := !l.started
	l.started = true
	l.send(l.o.pt, marker, l.ts, f.level, f.opus)
}

// send sends a packet of the leg's stream.
func (l *leg) send(pt byte, marked bool, ts uint32, level byte, payload []byte) {
	l.seq++
	p := l.buf[:0]
	first, marker := byte(0x80), byte(0)
	if l.o.levelID != 0 {
		first |= 0x10
	}
	if marked {
		marker = 0x80
	}
	p = append(p, first, marker|pt)
	p = binary.BigEndian.AppendUint16(p, l.seq)
	p = binary.BigEndian.AppendUint32(p, ts)
	p = binary.BigEndian.AppendUint32(p, l.ssrc)
	if id := l.o.levelID; id != 0 {
		voice := byte(0)
		if level < 60 {
			voice = 0x80
		}
		p = append(p, 0xBE, 0xDE, 0, 1, id<<4, voice|level, 0, 0)
	}
	head := len(p)
	p = append(p, payload...)
	enc, err := l.out.EncryptRTP(nil, p, nil)
	if err != nil {
		return
	}
	l.sent++
	l.octets += uint32(len(p) - head)
	_, _ = l.conn.Write(enc)
}

// report sends a sender report and our name (RFC 3550 §6.4.1, §6.5).
func (l *leg) report() {
	now := time.Now()
	const toNTP = 2208988800
	p := []byte{0x80, 200, 0, 6}
	p = binary.BigEndian.AppendUint32(p, l.ssrc)
	p = binary.BigEndian.AppendUint32(p, uint32(now.Unix()+toNTP))
	p = binary.BigEndian.AppendUint32(p, uint32(uint64(now.Nanosecond())<<32/1e9))
	p = binary.BigEndian.AppendUint32(p, l.ts)
	p = binary.BigEndian.AppendUint32(p, l.sent)
	p = binary.BigEndian.AppendUint32(p, l.octets)
	name := l.b.nick
	item := append([]byte{1, byte(len(name))}, name...)
	item = append(item, make([]byte, 4-len(item)%4)...)
	p = append(p, 0x81, 202, 0, byte(1+len(item)/4))
	p = binary.BigEndian.AppendUint32(p, l.ssrc)
	p = append(p, item...)
	enc, err := l.out.EncryptRTCP(nil, p, nil)
	if err == nil {
		_, _ = l.conn.Write(enc)
	}
}

// close ends the leg and waits for its goroutines.
func (l *leg) close() {
	beat.remove(l)
	l.stop()
	_ = l.agent.Close()
	l.wg.Wait()
	beat.remove(l) // it may have got there while it was being closed
}

// dtlsConn is DTLS's side of the demultiplexer.
type dtlsConn struct{ l *leg }

func (d dtlsConn) ReadFrom(p []byte) (int, net.Addr, error) {
	select {
	case b := <-d.l.dtlsIn:
		return copy(p, b), d.l.conn.RemoteAddr(), nil
	case <-d.l.ctx.Done():
		return 0, nil, io.EOF
	}
}
func (d dtlsConn) WriteTo(p []byte, _ net.Addr) (int, error) { return d.l.conn.Write(p) }
func (d dtlsConn) Close() error                              { return nil }
func (d dtlsConn) LocalAddr() net.Addr                       { return d.l.conn.LocalAddr() }
func (d dtlsConn) SetDeadline(time.Time) error               { return nil }
func (d dtlsConn) SetReadDeadline(time.Time) error           { return nil }
func (d dtlsConn) SetWriteDeadline(time.Time) error          { return nil }
