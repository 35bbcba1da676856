package sip_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"brewline/sip"
)

// authority signs certificates for tests.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  []byte
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{t: t}
	a.cert, a.key, a.pem = a.issue(&x509.Certificate{
		Subject: pkix.Name{CommonName: "test authority"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	})
	return a
}

func (a *authority) issue(c *x509.Certificate) (*x509.Certificate, *ecdsa.PrivateKey, []byte) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	c.SerialNumber, _ = rand.Int(rand.Reader, big.NewInt(1<<62))
	if c.NotAfter.IsZero() {
		c.NotBefore, c.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	}
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = c, key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, &key.PublicKey, signer)
	if err != nil {
		a.t.Fatal(err)
	}
	if c, err = x509.ParseCertificate(der); err != nil {
		a.t.Fatal(err)
	}
	return c, key, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// files writes a certificate for names, and returns its file and its key's.
func (a *authority) files(dir string, change func(*x509.Certificate), names ...string) (chain, key string) {
	a.t.Helper()
	c := &x509.Certificate{Subject: pkix.Name{CommonName: "test"}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}
	for _, n := range names {
		if ip := net.ParseIP(n); ip != nil {
			c.IPAddresses = append(c.IPAddresses, ip)
		} else {
			c.DNSNames = append(c.DNSNames, n)
		}
	}
	if change != nil {
		change(c)
	}
	_, k, chainPEM := a.issue(c)
	der, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		a.t.Fatal(err)
	}
	chain, key = filepath.Join(dir, "chain.pem"), filepath.Join(dir, "key.pem")
	for name, b := range map[string][]byte{chain: chainPEM, key: pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})} {
		if err := os.WriteFile(name, b, 0o600); err != nil {
			a.t.Fatal(err)
		}
	}
	return chain, key
}

func (a *authority) file(dir string) string {
	a.t.Helper()
	name := filepath.Join(dir, "ca.pem")
	if err := os.WriteFile(name, a.pem, 0o600); err != nil {
		a.t.Fatal(err)
	}
	return name
}

func (a *authority) pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(a.cert)
	return p
}

func load(t *testing.T, chain, key, clientCA string) *sip.Certificates {
	t.Helper()
	c, err := sip.LoadCertificates(chain, key, clientCA)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// only makes a user agent listen on one network.
func only(network string, cfg *tls.Config) func(*sip.Options) {
	return func(o *sip.Options) {
		o.Listen = []sip.Listener{{Network: network, Address: "127.0.0.1:0", TLS: cfg}}
	}
}

// answering answers every call with the peer's own offer and keeps it.
func answering(calls chan *sip.Dialog) func(*sip.Dialog) {
	return func(d *sip.Dialog) {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		_ = d.Ringing()
		if _, err := d.Answer(ctx, d.Offer()); err == nil && calls != nil {
			calls <- d
		}
	}
}

func at(u *sip.UA, params string) string { return "sip:room@" + u.Addrs()[0].String() + params }

// patiently gives handshakes on a busy machine their time.
func patiently(o *sip.Options) { o.T1, o.T2 = 50*time.Millisecond, 400*time.Millisecond }

func invite(t *testing.T, u *sip.UA, o sip.InviteOptions) (*sip.Dialog, error) {
	t.Helper()
	o.From.User, o.SDP = "gw", []byte(offerSDP)
	d, _, err := u.Invite(testCtx(t), o)
	return d, err
}

// Certificates are checked on both sides of a call over TLS and secure
// WebSocket: by name, by authority, by time.
func TestTLS(t *testing.T) {
	t.Parallel()
	ours, others := newAuthority(t), newAuthority(t)
	good := func(a *authority) *sip.Certificates {
		chain, key := a.files(t.TempDir(), nil, "127.0.0.1")
		return load(t, chain, key, "")
	}
	mutual := func(a *authority) *sip.Certificates {
		dir := t.TempDir()
		chain, key := a.files(dir, nil, "127.0.0.1")
		return load(t, chain, key, a.file(dir))
	}
	with := func(change func(*x509.Certificate), names ...string) *sip.Certificates {
		chain, key := ours.files(t.TempDir(), change, names...)
		return load(t, chain, key, "")
	}
	for name, tt := range map[string]struct {
		server, client *sip.Certificates
		change         func(*tls.Config) // of the client
		fails          func(error) bool
	}{
		"verified":          {server: good(ours)},
		"mutual":            {server: mutual(ours), client: good(ours)},
		"no certificate":    {server: mutual(ours), fails: func(err error) bool { return strings.Contains(err.Error(), "certificate") }},
		"stranger's":        {server: mutual(ours), client: good(others), fails: func(err error) bool { return strings.Contains(err.Error(), "certificate") }},
		"unknown authority": {server: good(others), fails: func(err error) bool { var e x509.UnknownAuthorityError; return errors.As(err, &e) }},
		"another name":      {server: with(nil, "pbx.example"), fails: func(err error) bool { var e x509.HostnameError; return errors.As(err, &e) }},
		"the name told":     {server: with(nil, "pbx.example"), change: func(c *tls.Config) { c.ServerName = "pbx.example" }},
		"expired": {server: with(func(c *x509.Certificate) {
			c.NotBefore, c.NotAfter = time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour)
		}, "127.0.0.1"), fails: func(err error) bool { var e x509.CertificateInvalidError; return errors.As(err, &e) }},
		"insecure":           {server: good(others), change: func(c *tls.Config) { c.InsecureSkipVerify = true }},
		"TLS 1.1 is too old": {server: good(ours), change: func(c *tls.Config) { c.MaxVersion = tls.VersionTLS11 }, fails: func(err error) bool { return err != nil }},
	} {
		for _, network := range []string{"tls", "wss"} {
			t.Run(name+" "+network, func(t *testing.T) {
				t.Parallel()
				calls := make(chan *sip.Dialog, 1)
				server := newUA(t, answering(calls), only(network, tt.server.Server()), patiently)
				client := newUA(t, reject, only("udp", nil), patiently, func(o *sip.Options) {
					o.ClientTLS = func(trunk string) (*tls.Config, error) {
						if trunk != "pbx" {
							t.Errorf("asked for trunk %q", trunk)
						}
						c := &tls.Config{RootCAs: ours.pool()}
						if tt.client != nil {
							tt.client.Show(c)
						}
						if tt.change != nil {
							tt.change(c)
						}
						return c, nil
					}
				})
				d, err := invite(t, client, sip.InviteOptions{URI: at(server, ";transport="+network), Trunk: "pbx"})
				if tt.fails != nil {
					if err == nil || !tt.fails(err) || !errors.Is(err, sip.ErrUnreachable) {
						t.Errorf("unexpected: %v", err)
					}
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				// Back over the same connection: the client listens nowhere.
				if err := (<-calls).Bye(testCtx(t), sip.Reason{Cause: 16}); err != nil {
					t.Error(err)
				}
				<-d.Done()
				if n := client.Stats().Connections; n != 1 {
					t.Errorf("%d connections", n)
				}
			})
		}
	}
}

// Listeners refuse TLS before 1.2, whatever the peer would rather have.
func TestOldTLS(t *testing.T) {
	t.Parallel()
	ours := newAuthority(t)
	chain, key := ours.files(t.TempDir(), nil, "127.0.0.1")
	server := load(t, chain, key, "").Server()
	for _, network := range []string{"tls", "wss"} {
		u := newUA(t, reject, only(network, server), patiently)
		for version, want := range map[uint16]bool{tls.VersionTLS10: false, tls.VersionTLS11: false, tls.VersionTLS12: true, tls.VersionTLS13: true} {
			d := tls.Dialer{Config: &tls.Config{RootCAs: ours.pool(), MinVersion: version, MaxVersion: version}}
			c, err := d.DialContext(testCtx(t), "tcp", u.Addrs()[0].String())
			if err == nil {
				_ = c.Close()
			}
			if (err == nil) != want || err != nil && !strings.Contains(err.Error(), "protocol version") {
				t.Errorf("%s over %s: %v", tls.VersionName(version), network, err)
			}
		}
	}
}

// A new certificate is shown as soon as its files are there, and while only
// half of it is, the old one.
func TestCertificateReload(t *testing.T) {
	t.Parallel()
	a, dir, next := newAuthority(t), t.TempDir(), t.TempDir()
	chain, key := a.files(dir, nil, "127.0.0.1")
	u := newUA(t, reject, only("tls", load(t, chain, key, "").Server()), patiently)
	serial := func() *big.Int {
		t.Helper()
		c, err := tls.Dial("tcp", u.Addrs()[0].String(), &tls.Config{RootCAs: a.pool()})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		return c.ConnectionState().PeerCertificates[0].SerialNumber
	}
	first := serial()
	newChain, newKey := a.files(next, nil, "127.0.0.1")
	for _, f := range [][2]string{{newChain, chain}, {newKey, key}} {
		if serial().Cmp(first) != 0 {
			t.Error("another certificate already")
		}
		if err := os.Rename(f[0], f[1]); err != nil {
			t.Fatal(err)
		}
	}
	if serial().Cmp(first) == 0 {
		t.Error("still the old certificate")
	}
}

// What is not done with its handshake in time, or comes too often from one
// address, is closed; strangers may not even begin.
func TestHandshakeLimits(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	chain, key := a.files(t.TempDir(), nil, "127.0.0.1")
	own := load(t, chain, key, "").Server()
	for _, network := range []string{"tls", "ws", "wss"} {
		t.Run(network, func(t *testing.T) {
			t.Parallel()
			u := newUA(t, reject, only(network, own), patiently, func(o *sip.Options) {
				o.HandshakeTimeout, o.MaxPerSource = 300*time.Millisecond, 3
			})
			var open []net.Conn
			for range 3 {
				c, err := net.Dial("tcp", u.Addrs()[0].String())
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				open = append(open, c)
			}
			// One of each kind: silent, slow, and wrong.
			if _, err := open[1].Write([]byte("G")); err != nil {
				t.Fatal(err)
			}
			if _, err := open[2].Write([]byte("REGISTER sip:x SIP/2.0\r\n\r\n")); err != nil {
				t.Fatal(err)
			}
			for i, c := range open {
				_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
				b := make([]byte, 512)
				for {
					if _, err := c.Read(b); err != nil {
						if errors.Is(err, os.ErrDeadlineExceeded) {
							t.Errorf("connection %d stays", i)
						}
						break
					}
				}
			}
			await(t, "connections gone", func() bool { return u.Stats().Connections == 0 })
		})
	}
	t.Run("many", func(t *testing.T) {
		t.Parallel()
		u := newUA(t, reject, only("tls", own), func(o *sip.Options) { o.MaxPerSource = 2 })
		for range 2 {
			c, err := net.Dial("tcp", u.Addrs()[0].String())
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
		}
		await(t, "two connections", func() bool { return u.Stats().Connections == 2 })
		closedAtOnce(t, u)
	})
	t.Run("stranger", func(t *testing.T) {
		t.Parallel()
		u := newUA(t, reject, only("wss", own), func(o *sip.Options) {
			o.Match = func(netip.AddrPort) (string, bool) { return "", false }
			o.UnknownSource = "drop"
		})
		closedAtOnce(t, u)
		if s := u.Stats(); s.Dropped == 0 {
			t.Errorf("%+v", s)
		}
	})
}

func closedAtOnce(t *testing.T, u *sip.UA) {
	t.Helper()
	c, err := net.Dial("tcp", u.Addrs()[0].String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetReadDeadline(time.Now().Add(5 * time.Second)) // less than a handshake may take
	if _, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the connection stays: %v", err)
	}
}
