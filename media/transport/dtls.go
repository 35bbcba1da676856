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

// newDTLS makes the DTLS 1.2 connection on the selected pair, as client or as
// server.
func (c *Conference) newDTLS(client bool, fp fingerprint) (*dtls.Conn, error) {
	return dtlsOn(c.dtls, net.UDPAddrFromAddrPort(c.remote()), c.cert, client, fp, c.o.RetransmitInterval, c.log)
}

// dtlsOn makes a DTLS 1.2 connection on a conduit. remote is a name for the peer
// there.
func dtlsOn(on *conduit, remote net.Addr, cert tls.Certificate, client bool, fp fingerprint,
	retransmit time.Duration, log *slog.Logger) (*dtls.Conn, error) {
	options := []dtls.Option{
		dtls.WithCertificates(cert),
		dtls.WithSRTPProtectionProfiles(srtpProfiles...),
		dtls.WithFlightInterval(retransmit),
		dtls.WithLoggerFactory(pionLog{log}),
		// The certificate is self-signed: it is trusted for its fingerprint,
		// which came over signalling (RFC 5763 §5).
		dtls.WithInsecureSkipVerify(true),
		dtls.WithVerifyPeerCertificate(func(certs [][]byte, _ [][]*x509.Certificate) error {
			if len(certs) == 0 {
				return ErrFingerprint
			}
			return fp.verify(certs[0])
		}),
	}
	if client {
		list := make([]dtls.ClientOption, len(options))
		for i, o := range options {
			list[i] = o
		}
		return dtls.ClientWithOptions(on, remote, list...)
	}
	list := []dtls.ServerOption{dtls.WithClientAuth(dtls.RequireAnyClientCert)}
	for _, o := range options {
		list = append(list, o)
	}
	return dtls.ServerWithOptions(on, remote, list...)
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
