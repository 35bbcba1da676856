package check

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"strings"
)

// remedy says what helps where the address that stands at key gives no answer,
// by what is wrong.
func remedy(err error, key, otherwise string) string {
	var (
		authority x509.UnknownAuthorityError
		name      x509.HostnameError
		invalid   x509.CertificateInvalidError
		record    tls.RecordHeaderError
		dns       *net.DNSError
	)
	switch {
	case errors.As(err, &name):
		names := name.Certificate.DNSNames
		for _, ip := range name.Certificate.IPAddresses {
			names = append(names, ip.String())
		}
		return fmt.Sprintf("the certificate there is for %q: write that name in the %s, or as server_name in tls", names, key)
	case errors.As(err, &authority):
		return "nobody whom this host trusts has signed the certificate there: name the file of its authority as ca in tls"
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return "the certificate there is not valid now: let it be renewed, and look at both clocks"
	case errors.As(err, &record):
		return "no TLS is spoken at this port: look at the port and the transport in the " + key
	case strings.Contains(err.Error(), "malformed HTTP response"): // its type is not exported
		return "no HTTP is spoken at this port, perhaps TLS is: look at the port in the " + key + ", and at https or wss"
	case strings.Contains(err.Error(), "protocol version"):
		return "let TLS 1.2 at least be spoken there"
	case strings.Contains(err.Error(), "remote error: tls: "): // its type is not exported
		return "the peer refuses us: it may want a certificate of ours, which sip.tls.certificate and sip.tls.key name, signed by whom it trusts"
	case errors.As(err, &dns):
		return "look at the name in the " + key + ", and at this host's name servers"
	}
	return otherwise
}
