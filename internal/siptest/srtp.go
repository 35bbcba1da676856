package siptest

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"github.com/pion/srtp/v3"
)

// profiles are the crypto suites a phone may have, and the lengths of their
// keys and salts (RFC 4568 §6.2, RFC 7714 §14.2).
var profiles = map[string]struct {
	profile   srtp.ProtectionProfile
	key, salt int
}{
	"AES_CM_128_HMAC_SHA1_80": {srtp.ProtectionProfileAes128CmHmacSha1_80, 16, 14},
	"AES_CM_128_HMAC_SHA1_32": {srtp.ProtectionProfileAes128CmHmacSha1_32, 16, 14},
	"AEAD_AES_128_GCM":        {srtp.ProtectionProfileAeadAes128Gcm, 16, 12},
	"AEAD_AES_256_GCM":        {srtp.ProtectionProfileAeadAes256Gcm, 32, 12},
}

// keys are a phone's SRTP, by keys in the session description (RFC 4568).
type keys struct {
	proto   string // of our media line
	line    string // our crypto attribute, "" none
	in, out *srtp.Context
}

func (k *keys) attributes() string {
	if k.line == "" {
		return ""
	}
	return "a=crypto:" + k.line + "\r\n"
}

// make makes a key of ours, with which what we send is encrypted.
func (k *keys) make(suite, tag string) error {
	p, ok := profiles[suite]
	if !ok {
		return fmt.Errorf("no suite %q", suite)
	}
	secret := make([]byte, p.key+p.salt)
	rand.Read(secret)
	var err error
	if k.out, err = srtp.CreateContext(secret[:p.key], secret[p.key:], p.profile); err != nil {
		return err
	}
	k.line = fmt.Sprintf("%s %s inline:%s|2^31", tag, suite, base64.StdEncoding.EncodeToString(secret))
	return nil
}

func (k *keys) offer(o PhoneOptions) {
	if k.proto = "RTP/AVP"; o.SRTP == "" {
		return
	}
	if !o.SRTPMaybe {
		k.proto = "RTP/SAVP"
	}
	if k.line == "" {
		if err := k.make(o.SRTP, "1"); err != nil {
			panic(err) // a test named a suite that there is not
		}
	}
}

// take takes the peer's key for our suite, and returns its tag.
func (k *keys) take(o PhoneOptions, r remoteSDP) (tag string, err error) {
	for _, c := range r.crypto {
		f := strings.Fields(c)
		if len(f) < 3 || f[1] != o.SRTP {
			continue
		}
		text, _, _ := strings.Cut(strings.TrimPrefix(f[2], "inline:"), "|")
		secret, err := base64.StdEncoding.DecodeString(text)
		p := profiles[o.SRTP]
		if err != nil || len(secret) != p.key+p.salt {
			return "", fmt.Errorf("key %q: %v", c, err)
		}
		k.in, err = srtp.CreateContext(secret[:p.key], secret[p.key:], p.profile)
		return f[0], err
	}
	return "", errors.New("the peer has no key of our suite")
}

func (k *keys) accept(o PhoneOptions, r remoteSDP) error {
	if r.proto != k.proto {
		return fmt.Errorf("answered %s to %s", r.proto, k.proto)
	}
	if o.SRTP == "" || o.SRTPMaybe && len(r.crypto) == 0 {
		k.in, k.out = nil, nil
		return nil
	}
	_, err := k.take(o, r)
	return err
}

func (k *keys) answer(o PhoneOptions, r remoteSDP) error {
	if k.proto = r.proto; o.SRTP == "" || o.SRTPMaybe && len(r.crypto) == 0 {
		k.line = ""
		return nil
	}
	tag, err := k.take(o, r)
	if err != nil {
		return err
	}
	return k.make(o.SRTP, tag)
}

// seal encrypts a packet of RTP.
func (k *keys) seal(b []byte) []byte {
	if k.out == nil {
		return b
	}
	out, err := k.out.EncryptRTP(nil, b, nil)
	if err != nil {
		return nil
	}
	return out
}

// sealRTCP encrypts a packet of RTCP.
func (k *keys) sealRTCP(b []byte) []byte {
	if k.out == nil {
		return b
	}
	out, err := k.out.EncryptRTCP(nil, b, nil)
	if err != nil {
		return nil
	}
	return out
}

// open decrypts a packet, nil if it is not authentic.
func (k *keys) open(b []byte, rtcp bool) []byte {
	if k.in == nil {
		return b
	}
	decrypt := func() ([]byte, error) { return k.in.DecryptRTP(nil, b, nil) }
	if rtcp {
		decrypt = func() ([]byte, error) { return k.in.DecryptRTCP(nil, b, nil) }
	}
	out, err := decrypt()
	if err != nil {
		return nil
	}
	return out
}
