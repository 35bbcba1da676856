package transport

import (
	"context"
	"crypto"
	"crypto/tls"
	"fmt"
	"net/netip"
	"time"

	"github.com/pion/dtls/v3"
	"github.com/pion/stun/v4"
)

const (
	handshakeTimeout  = 30 * time.Second // ICE and DTLS of a phone together
	handshakeInterval = 200 * time.Millisecond
)

// A PhoneHandshake is what offer and answer say of ICE and DTLS (RFC 8839,
// RFC 8122). Without our fragment there is no ICE, and the phone is where
// SetRemote has it.
type PhoneHandshake struct {
	LocalUfrag, LocalPwd string
	Ufrag                string // the phone's
	Hash, Fingerprint    string // of the phone's certificate: "sha-256", "AB:CD:…"
	Active               bool   // whether we begin
}

// phoneDTLS is a phone leg that agrees on keys by DTLS-SRTP (RFC 5763), as a
// lite agent of ICE (RFC 8445 §2.5) over the pair that the phone chooses.
type phoneDTLS struct {
	cert    tls.Certificate
	conduit *conduit
	chosen  chan struct{} // closed with the first pair
	ctx     context.Context
	cancel  context.CancelFunc

	agreed  PhoneHandshake // under mu, as what follows
	running bool
	user    string // that checks must name
	key     stun.MessageIntegrity
	pinned  netip.AddrPort
}

// Fingerprint makes the leg's certificate and returns its hash, the same each
// time.
func (p *Phone) Fingerprint() (hash, value string, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.dtls == nil {
		cert, err := newCertificate()
		if err != nil {
			return "", "", err
		}
		d := &phoneDTLS{cert: cert, chosen: make(chan struct{})}
		d.ctx, d.cancel = context.WithCancel(context.Background())
		d.conduit = newConduit(p.rtp.LocalAddr(), func(b []byte, _ netip.AddrPort) error {
			to := p.Remote()
			if !to.IsValid() {
				return ErrNotConnected
			}
			_, err := p.rtp.WriteToUDPAddrPort(b, to)
			return err
		})
		p.dtls = d
	}
	return "sha-256", formatFingerprint(crypto.SHA256, p.dtls.cert.Certificate[0]), nil
}

// Handshake agrees on keys with the phone in the background; nothing goes or
// comes in the clear meanwhile. Called again it takes new credentials of ICE,
// and refuses another certificate in the middle of a session.
func (p *Phone) Handshake(h PhoneHandshake) error {
	fp, err := parseFingerprint(h.Hash, h.Fingerprint)
	if err != nil {
		return err
	}
	if _, _, err := p.Fingerprint(); err != nil {
		return err
	}
	p.on.Store(true)
	p.SetRTCPMux(true)
	p.mu.Lock()
	defer p.mu.Unlock()
	d := p.dtls
	if d.running && d.agreed.Fingerprint != h.Fingerprint {
		return fmt.Errorf("%w: another one in the middle of a session", ErrFingerprint)
	}
	d.agreed = h
	if h.LocalUfrag != "" {
		d.user, d.key = h.LocalUfrag+":"+h.Ufrag, stun.NewShortTermIntegrity(h.LocalPwd)
	} else if to := p.Remote(); to.IsValid() {
		p.pin(d, to)
	}
	if d.running {
		return nil
	}
	d.running = true
	p.readers.Go(func() {
		if err := p.handshake(d, fp, h.Active); err != nil && d.ctx.Err() == nil {
			p.log.Warn("no DTLS with the phone", "err", err)
		}
	})
	return nil
}

func (p *Phone) handshake(d *phoneDTLS, fp fingerprint, client bool) error {
	ctx, cancel := context.WithTimeout(d.ctx, handshakeTimeout)
	defer cancel()
	select {
	case <-d.chosen:
	case <-ctx.Done():
		return fmt.Errorf("ICE: the phone has not chosen a pair: %w", context.Cause(ctx))
	}
	conn, err := dtlsPeer{d.conduit, p.Remote(), client, d.cert, fp, handshakeInterval, p.log}.connect()
	if err != nil {
		return err
	}
	if err = conn.HandshakeContext(ctx); err == nil {
		err = p.keyed(conn, client)
	}
	if err != nil {
		_ = conn.Close()
		return err
	}
	p.readers.Go(func() { // until the leg is closed
		<-d.ctx.Done()
		_ = conn.Close()
	})
	return nil
}

// keyed takes the keys of a finished handshake.
func (p *Phone) keyed(conn *dtls.Conn, client bool) error {
	in, out, profile, err := newSRTP(conn, client)
	if err != nil {
		return err
	}
	p.mu.Lock()
	p.in = in
	p.mu.Unlock()
	p.out.Store(out)
	p.profile.Store(&profile)
	p.log.Info("DTLS with the phone", "profile", profile)
	return nil
}

// endHandshake ends DTLS, before the sockets are closed.
func (p *Phone) endHandshake() {
	p.mu.Lock()
	d := p.dtls
	p.mu.Unlock()
	if d != nil {
		d.cancel()
		_ = d.conduit.Close()
	}
}

// receiveSTUN answers the phone's checks (RFC 8445 §7.3) and follows the pair
// that it chooses. What does not know our password gets no answer.
func (p *Phone) receiveSTUN(b []byte, from netip.AddrPort) {
	p.mu.Lock()
	defer p.mu.Unlock()
	d := p.dtls
	if d == nil || d.user == "" || len(b) > MTU {
		p.stats.invalid.Add(1)
		return
	}
	m := stun.New()
	m.Raw = append(m.Raw, b...)
	var user stun.Username
	if m.Decode() != nil || m.Type != stun.BindingRequest || user.GetFrom(m) != nil {
		p.stats.invalid.Add(1)
		return
	}
	if string(user) != d.user || d.key.Check(m) != nil {
		p.unsafe.Add(1)
		return
	}
	reply, err := stun.Build(m, stun.BindingSuccess,
		&stun.XORMappedAddress{IP: from.Addr().AsSlice(), Port: int(from.Port())}, d.key, stun.Fingerprint)
	if err != nil {
		p.stats.invalid.Add(1)
		return
	}
	if _, err := p.rtp.WriteToUDPAddrPort(reply.Raw, from); err != nil {
		p.stats.sendErrors.Add(1)
		return
	}
	if m.Contains(stun.AttrUseCandidate) {
		p.pin(d, from)
	}
}

// pin takes the address that ICE, or without it the description, has told.
// Call with mu held.
func (p *Phone) pin(d *phoneDTLS, to netip.AddrPort) {
	if d.pinned == to {
		return
	}
	first := !d.pinned.IsValid()
	d.pinned = to
	p.rtpLatch.pin(to)
	p.rtpDest.Store(&to)
	p.rtcpDest.Store(&to)
	if first {
		close(d.chosen)
	}
}

// receiveDTLS hands over what comes from the chosen pair.
func (p *Phone) receiveDTLS(b []byte, from netip.AddrPort) {
	const applicationData = 23 // SCTP, which nobody negotiated and nobody reads
	p.mu.Lock()
	d := p.dtls
	chosen := d != nil && d.pinned == from
	p.mu.Unlock()
	switch {
	case d == nil || len(b) > MTU || b[0] == applicationData:
		p.stats.invalid.Add(1)
	case !chosen:
		p.stats.stranger.Add(1)
	case !d.conduit.push(b, from):
		p.unsafe.Add(1)
	}
}
