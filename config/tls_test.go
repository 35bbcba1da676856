package config

import (
	"crypto/tls"
	"encoding/pem"
	"errors"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
)

func TestTLSConfig(t *testing.T) {
	t.Parallel()
	srv := httptest.NewUnstartedServer(http.NotFoundHandler())
	srv.Config.ErrorLog = log.New(io.Discard, "", 0) // refused handshakes are the point
	srv.StartTLS()
	defer srv.Close()
	dir := t.TempDir()
	ca, none := filepath.Join(dir, "ca.pem"), filepath.Join(dir, "none.pem")
	block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw})
	for file, data := range map[string][]byte{ca: block, none: []byte("nothing")} {
		if err := os.WriteFile(file, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	get := func(c TLS) error {
		conf, err := c.Config()
		if err != nil {
			return err
		}
		client := http.Client{Transport: &http.Transport{TLSClientConfig: conf, DisableKeepAlives: true}}
		resp, err := client.Get(srv.URL)
		if err == nil {
			resp.Body.Close()
		}
		return err
	}
	for _, c := range []TLS{{CA: ca}, {CA: ca, ServerName: "example.com"}, {Insecure: true}} {
		if err := get(c); err != nil {
			t.Errorf("%+v: %v", c, err)
		}
	}
	var verify *tls.CertificateVerificationError
	for _, c := range []TLS{{}, {CA: ca, ServerName: "other.test"}} {
		if err := get(c); !errors.As(err, &verify) {
			t.Errorf("%+v: got %v, want a refused certificate", c, err)
		}
	}
	for _, c := range []TLS{{CA: none}, {CA: filepath.Join(dir, "missing")}} {
		if err := get(c); err == nil {
			t.Errorf("%+v: no error", c)
		}
	}
}
