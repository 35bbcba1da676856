package transport

import (
	"crypto/x509"
	"net"
	"net/netip"

	"github.com/pion/dtls/v3"
)

// newDTLS makes the DTLS 1.2 connection on the selected pair, as client or as
// server.
func (c *Conference) newDTLS(client bool, fp fingerprint) (*dtls.Conn, error) {
	options := []dtls.Option{
		dtls.WithCertificates(c.cert),
		dtls.WithSRTPProtectionProfiles(srtpProfiles...),
		dtls.WithFlightInterval(c.o.RetransmitInterval),
		dtls.WithLoggerFactory(pionLog{c.log}),
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
	remote := net.UDPAddrFromAddrPort(c.remote())
	if client {
		list := make([]dtls.ClientOption, len(options))
		for i, o := range options {
			list[i] = o
		}
		return dtls.ClientWithOptions(c.dtls, remote, list...)
	}
	list := []dtls.ServerOption{dtls.WithClientAuth(dtls.RequireAnyClientCert)}
	for _, o := range options {
		list = append(list, o)
	}
	return dtls.ServerWithOptions(c.dtls, remote, list...)
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
