package config

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
)

// Config returns the settings for crypto/tls, TLS 1.2 at least. ServerName
// stays empty when it is not configured: the client fills in the URL's host.
func (t TLS) Config() (*tls.Config, error) {
	c := &tls.Config{
		MinVersion:         tls.VersionTLS12,
		ServerName:         t.ServerName,
		InsecureSkipVerify: t.Insecure,
	}
	if t.CA != "" {
		pem, err := os.ReadFile(t.CA)
		if err != nil {
			return nil, fmt.Errorf("read trusted certificates: %w", err)
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("read trusted certificates: no certificate in %s", t.CA)
		}
	}
	return c, nil
}
