package transport

import (
	"fmt"

	"github.com/pion/srtp/v3"
)

// suites are the crypto suites of RFC 4568 §6.2 and RFC 7714 §14.1.
var suites = map[string]srtp.ProtectionProfile{
	"AES_CM_128_HMAC_SHA1_80": srtp.ProtectionProfileAes128CmHmacSha1_80,
	"AES_CM_128_HMAC_SHA1_32": srtp.ProtectionProfileAes128CmHmacSha1_32,
	"AEAD_AES_128_GCM":        srtp.ProtectionProfileAeadAes128Gcm,
	"AEAD_AES_256_GCM":        srtp.ProtectionProfileAeadAes256Gcm,
}

// SDES are keys that were told in the session descriptions (RFC 4568).
type SDES struct {
	Suite         string // as in RFC 4568 §6.2
	Send, Receive []byte // master key and salt, one after the other
	MKI           []byte // master key identifier in what is received
}

// Format implements fmt.Formatter: keys are in no log.
func (s SDES) Format(f fmt.State, _ rune) { fmt.Fprint(f, s.Suite) }

func (s SDES) split(p srtp.ProtectionProfile, b []byte) (key, salt []byte, err error) {
	k, err := p.KeyLen()
	if err != nil {
		return nil, nil, err
	}
	n, err := p.SaltLen()
	if err == nil && k+n != len(b) {
		err = fmt.Errorf("SRTP key of %d bytes for %s", len(b), s.Suite)
	}
	if err != nil {
		return nil, nil, err
	}
	return b[:k], b[k:], nil
}

func (s SDES) inbound() (*inbound, error) {
	p, ok := suites[s.Suite]
	if !ok {
		return nil, fmt.Errorf("unknown SRTP suite %.40q", s.Suite)
	}
	key, salt, err := s.split(p, s.Receive)
	if err != nil {
		return nil, err
	}
	return newInbound(p, key, salt, srtp.MasterKeyIndicator(s.MKI))
}

func (s SDES) outbound() (*outbound, error) {
	p, ok := suites[s.Suite]
	if !ok {
		return nil, fmt.Errorf("unknown SRTP suite %.40q", s.Suite)
	}
	key, salt, err := s.split(p, s.Send)
	if err != nil {
		return nil, err
	}
	return newOutbound(p, key, salt)
}
