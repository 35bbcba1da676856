package transport

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	_ "crypto/sha1" // announced by old peers (RFC 8122 §5)
	_ "crypto/sha256"
	_ "crypto/sha512"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"time"
)

// ErrFingerprint says that the certificate shown in the DTLS handshake is not
// the one announced in signalling.
var ErrFingerprint = errors.New("certificate does not match the announced fingerprint")

// fingerprintHashes are the hash functions of RFC 8122 §5 that we accept.
var fingerprintHashes = map[string]crypto.Hash{
	"sha-1": crypto.SHA1, "sha-224": crypto.SHA224, "sha-256": crypto.SHA256,
	"sha-384": crypto.SHA384, "sha-512": crypto.SHA512,
}

// A fingerprint is a certificate's hash as announced in signalling.
type fingerprint struct {
	hash crypto.Hash
	sum  []byte
}

// parseFingerprint reads hash and value of XEP-0320 §2, such as "sha-256" and
// "AB:CD:…".
func parseFingerprint(hash, value string) (fingerprint, error) {
	h, ok := fingerprintHashes[strings.ToLower(strings.TrimSpace(hash))]
	if !ok {
		return fingerprint{}, fmt.Errorf("fingerprint: unknown hash %.20q", hash)
	}
	sum, err := hex.DecodeString(strings.ReplaceAll(strings.TrimSpace(value), ":", ""))
	if err != nil || len(sum) != h.Size() {
		return fingerprint{}, fmt.Errorf("fingerprint: value is not %d hexadecimal octets", h.Size())
	}
	return fingerprint{h, sum}, nil
}

// verify compares with the certificate in DER.
func (f fingerprint) verify(der []byte) error {
	h := f.hash.New()
	h.Write(der)
	if subtle.ConstantTimeCompare(h.Sum(nil), f.sum) != 1 {
		return ErrFingerprint
	}
	return nil
}

// formatFingerprint writes the hash of der as XEP-0320 has it.
func formatFingerprint(h crypto.Hash, der []byte) string {
	sum := h.New()
	sum.Write(der)
	var s strings.Builder
	for i, b := range sum.Sum(nil) {
		if i > 0 {
			s.WriteByte(':')
		}
		fmt.Fprintf(&s, "%02X", b)
	}
	return s.String()
}

// newCertificate makes the self-signed certificate of one leg. Nobody checks
// more of it than its fingerprint.
func newCertificate() (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return tls.Certificate{}, err
	}
	template := x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: "brewline"},
		NotBefore:    time.Now().Add(-24 * time.Hour),
		NotAfter:     time.Now().Add(30 * 24 * time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, &template, &template, key.Public(), key)
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}
