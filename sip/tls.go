package sip

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"
)

// serverTLS is what a listener's connections use: TLS 1.2 at least.
func serverTLS(c *tls.Config) (*tls.Config, error) {
	if c == nil || len(c.Certificates) == 0 && c.GetCertificate == nil && c.GetConfigForClient == nil {
		return nil, errors.New("no certificate")
	}
	c = c.Clone()
	c.MinVersion = max(c.MinVersion, tls.VersionTLS12)
	return c, nil
}

// clientTLS is what a connection of ours to name uses. The certificate must be
// for what the URI names, not for what DNS made of it (RFC 5922 §4).
func (u *UA) clientTLS(trunk, name string) (*tls.Config, error) {
	c := &tls.Config{}
	if u.o.ClientTLS != nil {
		given, err := u.o.ClientTLS(trunk)
		if err != nil {
			return nil, err
		}
		c = given.Clone()
	}
	c.MinVersion = max(c.MinVersion, tls.VersionTLS12)
	if c.ServerName == "" {
		c.ServerName = name
	}
	return c, nil
}

// Certificates are files in PEM that are read again when they have changed:
// a certificate chain with its key, and those that sign peers' certificates.
// While what has changed cannot be read, as half of a pair, the old counts.
type Certificates struct {
	chain, key, clientCA string

	mu      sync.Mutex
	seen    [3]stamp
	pair    *tls.Certificate
	clients *x509.CertPool // nil: peers need none
}

// stamp is what changes when a file does.
type stamp struct {
	at    time.Time
	size  int64
	inode uint64 // a file put in the place of another may be as old and as long
}

// LoadCertificates reads the files. clientCA may be "": peers then need show
// no certificate.
func LoadCertificates(chain, key, clientCA string) (*Certificates, error) {
	c := &Certificates{chain: chain, key: key, clientCA: clientCA}
	if err := c.load(); err != nil {
		return nil, err
	}
	return c, nil
}

func (c *Certificates) stamps() (s [3]stamp) {
	for i, name := range []string{c.chain, c.key, c.clientCA} {
		if fi, err := os.Stat(name); err == nil { // follows links, as of certbot
			s[i] = stamp{fi.ModTime(), fi.Size(), inode(fi)}
		}
	}
	return s
}

func inode(fi os.FileInfo) uint64 {
	if st, ok := fi.Sys().(*syscall.Stat_t); ok {
		return st.Ino
	}
	return 0
}

func (c *Certificates) load() error {
	seen := c.stamps()
	pair, err := tls.LoadX509KeyPair(c.chain, c.key)
	if err != nil {
		return fmt.Errorf("certificate: %w", err)
	}
	var clients *x509.CertPool
	if c.clientCA != "" {
		pem, err := os.ReadFile(c.clientCA)
		if err != nil {
			return fmt.Errorf("client CA: %w", err)
		}
		if clients = x509.NewCertPool(); !clients.AppendCertsFromPEM(pem) {
			return fmt.Errorf("client CA: no certificate in %s", c.clientCA)
		}
	}
	c.seen, c.pair, c.clients = seen, &pair, clients
	return nil
}

// current returns what the files hold now.
func (c *Certificates) current() (*tls.Certificate, *x509.CertPool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stamps() != c.seen {
		_ = c.load() // else tried again at the next connection
	}
	return c.pair, c.clients
}

// Server returns the settings for a listener; where there is a clientCA, for
// peers with a certificate only.
func (c *Certificates) Server() *tls.Config { return c.server(true) }

// ServerForAll returns those for a listener whose peers show no certificate,
// as browsers do not.
func (c *Certificates) ServerForAll() *tls.Config { return c.server(false) }

func (c *Certificates) server(mutual bool) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			pair, clients := c.current()
			// No tickets: a peer is not to come in by what was trusted once.
			cfg := &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{*pair}, SessionTicketsDisabled: true}
			if clients != nil && mutual {
				cfg.ClientAuth, cfg.ClientCAs = tls.RequireAndVerifyClientCert, clients
			}
			return cfg, nil
		},
	}
}

// Show makes connections with the settings cfg show the certificate to peers
// that ask for one.
func (c *Certificates) Show(cfg *tls.Config) {
	cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		pair, _ := c.current()
		return pair, nil
	}
}
