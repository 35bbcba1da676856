package transport

import (
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"net"
	"net/netip"
	"time"

	"github.com/pion/dtls/v3"
)

// dtlsPeer is a handshake's part that both kinds of leg have.
type dtlsPeer struct {
	conduit     *conduit
	remote      netip.AddrPort
	client      bool
	cert        tls.Certificate
	fingerprint fingerprint   // of the peer's
	interval    time.Duration // until the first retransmission
	log         *slog.Logger
}

// connect makes the DTLS 1.2 connection, as client or as server.
func (p dtlsPeer) connect() (*dtls.Conn, error) {
	options := []dtls.Option{
		dtls.WithCertificates(p.cert),
		dtls.WithSRTPProtectionProfiles(srtpProfiles...),
		dtls.WithFlightInterval(p.interval),
		dtls.WithLoggerFactory(pionLog{p.log}),
		// The certificate is self-signed: it is trusted for its fingerprint,
		// which came over signalling (RFC 5763 §5).
		dtls.WithInsecureSkipVerify(true),
		dtls.WithVerifyPeerCertificate(func(certs [][]byte, _ [][]*x509.Certificate) error {
			if len(certs) == 0 {
				return ErrFingerprint
			}
			return p.fingerprint.verify(certs[0])
		}),
	}
	remote := net.UDPAddrFromAddrPort(p.remote)
	if p.client {
		list := make([]dtls.ClientOption, len(options))
		for i, o := range options {
			list[i] = o
		}
		return dtls.ClientWithOptions(p.conduit, remote, list...)
	}
	list := []dtls.ServerOption{dtls.WithClientAuth(dtls.RequireAnyClientCert)}
	for _, o := range options {
		list = append(list, o)
	}
	return dtls.ServerWithOptions(p.conduit, remote, list...)
}

// newDTLSConduit is where the DTLS connection reads and writes. It is closed
// by Close, or by Pion when the bridge ended DTLS.
func (c *Conference) newDTLSConduit() *conduit {
	conn := newConduit(c.sock.LocalAddr(), func(b []byte, _ netip.AddrPort) error {
		return c.write(b, c.remote())
	})
	conn.onClose = func() { c.setState(Failed) }
	return conn
}
