package siptest

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"github.com/pion/srtp/v3"
)

// sdes is the SRTP of a call, keyed in the session descriptions (RFC 4568).
type sdes struct {
	tag     string
	mine    []byte // master key and salt
	theirs  string
	off     bool // refused by the peer
	in, out *srtp.Context
}

// suites are the profiles with the length of their keys and salts.
var suites = map[string]struct {
	profile   srtp.ProtectionProfile
	key, salt int
}{
	"AES_CM_128_HMAC_SHA1_80": {srtp.ProtectionProfileAes128CmHmacSha1_80, 16, 14},
	"AES_CM_128_HMAC_SHA1_32": {srtp.ProtectionProfileAes128CmHmacSha1_32, 16, 14},
	"AEAD_AES_128_GCM":        {srtp.ProtectionProfileAeadAes128Gcm, 16, 12},
	"AEAD_AES_256_GCM":        {srtp.ProtectionProfileAeadAes256Gcm, 32, 12},
}

// describe returns the transport and the attribute of our description.
func (s *sdes) describe(o PhoneOptions) (proto, attribute string) {
	if o.SRTP == "" || s.off {
		return "RTP/AVP", ""
	}
	if s.mine == nil {
		s.mine = make([]byte, suites[o.SRTP].key+suites[o.SRTP].salt)
		rand.Read(s.mine)
	}
	if s.tag == "" {
		s.tag = "1"
	}
	proto = "RTP/SAVP"
	if o.SRTPOptional {
		proto = "RTP/AVP"
	}
	return proto, fmt.Sprintf("a=crypto:%s %s inline:%s|2^31\r\n", s.tag, o.SRTP, base64.StdEncoding.EncodeToString(s.mine))
}

// agree takes the peer's description.
func (s *sdes) agree(o PhoneOptions, r remoteSDP) error {
	if o.SRTP == "" {
		if r.proto != "RTP/AVP" {
			return fmt.Errorf("transport %s", r.proto)
		}
		return nil
	}
	var line []string
	for _, l := range r.crypto {
		if f := strings.Fields(l); len(f) >= 3 && f[1] == o.SRTP {
			line = f
			break
		}
	}
	if line == nil {
		if !o.SRTPOptional {
			return errors.New("no key for " + o.SRTP)
		}
		s.off, s.in, s.out = true, nil, nil
		return nil
	}
	s.tag = line[0]
	key, _, _ := strings.Cut(strings.TrimPrefix(line[2], "inline:"), "|")
	if key == s.theirs {
		return nil
	}
	b, err := base64.StdEncoding.DecodeString(key)
	suite := suites[o.SRTP]
	if err != nil || len(b) != suite.key+suite.salt {
		return fmt.Errorf("key for %s of %d bytes: %v", o.SRTP, len(b), err)
	}
	if s.mine == nil {
		s.describe(o)
		s.tag = line[0]
	}
	if s.in, err = srtp.CreateContext(b[:suite.key], b[suite.key:], suite.profile); err != nil {
		return err
	}
	s.theirs = key
	s.out, err = srtp.CreateContext(s.mine[:suite.key], s.mine[suite.key:], suite.profile)
	return err
}

// encrypt returns the packet as it is sent, nil if it cannot be.
func (s *sdes) encrypt(b []byte, rtcp bool) []byte {
	if s.out == nil {
		return b
	}
	var err error
	if rtcp {
		b, err = s.out.EncryptRTCP(nil, b, nil)
	} else {
		b, err = s.out.EncryptRTP(nil, b, nil)
	}
	if err != nil {
		return nil
	}
	return b
}

// decrypt returns the packet in the clear, nil if it is not authentic.
func (s *sdes) decrypt(b []byte, rtcp bool) []byte {
	if s.in == nil {
		return b
	}
	var err error
	if rtcp {
		b, err = s.in.DecryptRTCP(nil, b, nil)
	} else {
		b, err = s.in.DecryptRTP(nil, b, nil)
	}
	if err != nil {
		return nil
	}
	return b
}
