package transport

import (
	"bytes"
	"context"
	"crypto"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"

	"github.com/pion/dtls/v3"
)

// PhoneDTLS says how keys are agreed on by DTLS (RFC 5763).
type PhoneDTLS struct {
	Client                       bool   // we begin the handshake
	FingerprintHash, Fingerprint string // of the phone's certificate
	Ufrag, Pwd                   string // ours, for its ICE checks; "": no ICE
}

// Fingerprint makes the leg's certificate, if there is none yet, and returns
// its SHA-256 as in RFC 8122 §5.
func (p *Phone) Fingerprint() (string, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cert == nil {
		cert, err := newCertificate()
		if err != nil {
			return "", err
		}
		p.cert = &cert
	}
	return formatFingerprint(crypto.SHA256, p.cert.Certificate[0]), nil
}

// SetPlain has packets go in the clear, as they do at first.
func (p *Phone) SetPlain() {
	p.mu.Lock()
	a := p.dtls
	p.dtls, p.ice, p.sdes, p.in = nil, nil, nil, nil
	p.secured.Store(false)
	p.out.Store(nil)
	p.mu.Unlock()
	a.close()
}

// SetSDES has packets encrypted by these keys. A key that is set already keeps
// its state.
func (p *Phone) SetSDES(s SDES) error {
	a, err := p.setSDES(s)
	a.close()
	return err
}

func (p *Phone) setSDES(s SDES) (old *association, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	was := p.sdes
	if was == nil {
		was = &SDES{}
	}
	in, out := p.in, p.out.Load()
	if s.Suite != was.Suite || !bytes.Equal(s.Receive, was.Receive) || !bytes.Equal(s.MKI, was.MKI) {
		if in, err = s.inbound(); err != nil {
			return nil, err
		}
	}
	if s.Suite != was.Suite || !bytes.Equal(s.Send, was.Send) {
		if out, err = s.outbound(); err != nil {
			return nil, err
		}
	}
	old = p.dtls
	p.dtls, p.ice, p.sdes, p.in = nil, nil, &s, in
	p.out.Store(out)
	p.secured.Store(true)
	return old, nil
}

// SetDTLS has packets encrypted by what DTLS gives; until then none go.
// [PhoneOptions.Failed] is told if it comes to nothing. What is as it was goes
// on: the connection with the same certificate in the same role, and ICE with
// the same credentials.
func (p *Phone) SetDTLS(d PhoneDTLS) error {
	fp, err := parseFingerprint(d.FingerprintHash, d.Fingerprint)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrRemote, err)
	}
	if _, err := p.Fingerprint(); err != nil {
		return err
	}
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return net.ErrClosed
	}
	p.sdes = nil
	p.mux.Store(true)
	p.secured.Store(true)
	switch {
	case d.Ufrag == "":
		p.ice = nil
	case p.ice == nil:
		p.ice = newICELite(d.Ufrag, d.Pwd)
		p.rtpDest.Store(nil)
	case p.ice.username != d.Ufrag+":": // a restart; the old pair counts till there is a new one
		valid := p.ice.valid
		p.ice = newICELite(d.Ufrag, d.Pwd)
		p.ice.valid = valid
	}
	old := p.dtls
	if old != nil && old.client == d.Client && old.fp.hash == fp.hash && bytes.Equal(old.fp.sum, fp.sum) {
		p.mu.Unlock()
		return nil
	}
	a := &association{p: p, client: d.Client, fp: fp, ready: make(chan struct{}), done: make(chan struct{})}
	a.conduit = newConduit(p.rtp.LocalAddr(), a.write)
	ctx, cancel := context.WithTimeout(context.Background(), p.o.HandshakeTimeout)
	a.cancel = cancel
	if dest := p.rtpDest.Load(); p.ice != nil && dest != nil {
		a.meet(*dest)
	}
	p.dtls, p.in = a, nil
	p.out.Store(nil)
	p.mu.Unlock()
	old.close()
	go a.run(ctx)
	return nil
}

// receiveSTUN answers a check, false if there is no ICE.
func (p *Phone) receiveSTUN(b []byte, from netip.AddrPort) bool {
	p.mu.Lock()
	if p.ice == nil {
		p.mu.Unlock()
		return false
	}
	reply, nominated := p.ice.answer(b, from)
	if p.ice.checked(from) {
		if dest := p.rtpDest.Load(); dest == nil || !dest.IsValid() || nominated && *dest != from {
			p.log.Info("ICE decided for an address", "remote", from, "nominated", nominated)
			p.rtpDest.Store(&from)
			p.rtcpDest.Store(&from)
			if p.dtls != nil {
				p.dtls.meet(from)
			}
		}
	}
	p.mu.Unlock()
	if reply == nil {
		p.stats.invalid.Add(1)
		return true
	}
	if _, err := p.rtp.WriteToUDPAddrPort(reply, from); err != nil {
		p.stats.sendErrors.Add(1)
	}
	return true
}

// receiveDTLS hands a record over, false if there is no DTLS. Without ICE the
// handshake is done with whoever sends: it is the certificate that counts, and
// a phone behind NAT comes from an address that nobody told.
func (p *Phone) receiveDTLS(b []byte, from netip.AddrPort) bool {
	const applicationData = 23
	p.mu.Lock()
	defer p.mu.Unlock()
	a := p.dtls
	switch {
	case a == nil || b[0] == applicationData:
		return false
	case p.ice != nil && !p.ice.checked(from),
		p.ice == nil && a.connected && !p.rtpLatch.allows(from, Now()):
		p.stats.stranger.Add(1)
		return true
	}
	if p.ice == nil && !a.connected {
		a.meet(from)
	}
	if !a.conduit.push(b, from) {
		p.stats.invalid.Add(1)
	}
	return true
}

// An association is the DTLS connection of a phone leg.
type association struct {
	p         *Phone
	client    bool
	fp        fingerprint
	conduit   *conduit
	cancel    context.CancelFunc
	conn      *dtls.Conn // of run, then of close
	connected bool       // with p.mu
	dest      atomic.Pointer[netip.AddrPort]
	met       sync.Once
	ready     chan struct{} // closed when dest is known
	done      chan struct{} // closed when run has returned
}

// meet makes an address the one to write to.
func (a *association) meet(at netip.AddrPort) {
	if old := a.dest.Load(); old == nil || *old != at {
		a.dest.Store(&at)
	}
	a.met.Do(func() { close(a.ready) })
}

// signalled takes the address of the description where no other is known.
func (a *association) signalled(at netip.AddrPort) {
	if at.IsValid() && a.dest.Load() == nil {
		a.meet(at)
	}
}

// write sends to where the phone is known to be. What Pion writes before, it
// repeats.
func (a *association) write(b []byte, _ netip.AddrPort) error {
	dest := a.dest.Load()
	if dest == nil {
		return nil
	}
	_, err := a.p.rtp.WriteToUDPAddrPort(b, *dest)
	return err
}

func (a *association) run(ctx context.Context) {
	defer close(a.done)
	defer a.cancel()
	err := a.connect(ctx)
	p := a.p
	p.mu.Lock()
	current := p.dtls == a
	p.mu.Unlock()
	if err == nil || !current {
		return
	}
	p.log.Warn("DTLS with the phone failed", "err", err)
	if p.o.Failed != nil {
		p.o.Failed(fmt.Errorf("DTLS: %w", err))
	}
}

func (a *association) connect(ctx context.Context) (err error) {
	select {
	case <-a.ready:
	case <-ctx.Done():
		return fmt.Errorf("the phone did not come: %w", ctx.Err())
	}
	p := a.p
	if a.conn, err = dtlsOn(a.conduit, net.UDPAddrFromAddrPort(*a.dest.Load()), *p.cert, a.client, a.fp,
		p.o.RetransmitInterval, p.log); err != nil {
		return err
	}
	if err := a.conn.HandshakeContext(ctx); err != nil {
		return err
	}
	in, out, profile, err := newSRTP(a.conn, a.client)
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.dtls != a {
		return net.ErrClosed
	}
	a.connected, p.in = true, in
	p.out.Store(out)
	at := *a.dest.Load()
	if p.ice == nil {
		p.rtpDest.Store(&at)
		p.rtcpDest.Store(&at)
	}
	p.log.Info("DTLS with the phone is done", "profile", profile, "remote", at)
	return nil
}

// close ends the connection; a may be nil.
func (a *association) close() {
	if a == nil {
		return
	}
	a.cancel()
	<-a.done
	if a.conn != nil {
		a.conn.Close()
	}
	a.conduit.Close()
}
