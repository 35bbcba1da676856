package transport

import (
	"bytes"
	"fmt"
	"sync/atomic"

	"github.com/pion/srtp/v3"
)

// security is how a phone leg's packets are encrypted.
type security struct {
	// on is set before there are keys, and from then on nothing goes or comes
	// in the clear.
	on      atomic.Bool
	keys    Keys     // as SetKeys had them
	in      *inbound // under mu
	out     atomic.Pointer[outbound]
	profile atomic.Pointer[string]
	unsafe  atomic.Uint64
	dtls    *phoneDTLS // under mu
}

// Keys are those of SRTP for both directions, each master key and salt, as a
// session description has them (RFC 4568 §6.1).
type Keys struct {
	Suite         string // as registered: AES_CM_128_HMAC_SHA1_80
	Send, Receive []byte
	MKI           []byte // in received packets (RFC 3711 §3.1), nil: none
}

// suites are the profiles of the suites and the lengths of their keys.
var suites = map[string]struct {
	profile srtp.ProtectionProfile
	key     int
}{
	"AES_CM_128_HMAC_SHA1_80": {srtp.ProtectionProfileAes128CmHmacSha1_80, 16},
	"AES_CM_128_HMAC_SHA1_32": {srtp.ProtectionProfileAes128CmHmacSha1_32, 16},
	"AEAD_AES_128_GCM":        {srtp.ProtectionProfileAeadAes128Gcm, 16},
	"AEAD_AES_256_GCM":        {srtp.ProtectionProfileAeadAes256Gcm, 32},
}

// SetKeys encrypts from here on. Keys that are already in use go on as they
// are; a direction whose key is new begins anew.
func (p *Phone) SetKeys(k Keys) error {
	s, ok := suites[k.Suite]
	if !ok || len(k.Send) <= s.key || len(k.Receive) <= s.key {
		return fmt.Errorf("keys of suite %q cannot be used", k.Suite)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	same := p.keys.Suite == k.Suite
	if !same || !bytes.Equal(p.keys.Receive, k.Receive) || !bytes.Equal(p.keys.MKI, k.MKI) {
		var more []srtp.ContextOption
		if len(k.MKI) > 0 {
			more = append(more, srtp.MasterKeyIndicator(k.MKI))
		}
		in, err := newInbound(s.profile, k.Receive[:s.key], k.Receive[s.key:], more...)
		if err != nil {
			return fmt.Errorf("keys to receive: %w", err)
		}
		p.in = in
	}
	if !same || !bytes.Equal(p.keys.Send, k.Send) {
		out, err := newOutbound(s.profile, k.Send[:s.key], k.Send[s.key:])
		if err != nil {
			return fmt.Errorf("keys to send: %w", err)
		}
		p.out.Store(out)
	}
	p.keys = k
	p.profile.Store(&k.Suite)
	p.on.Store(true)
	return nil
}

// SetPlain goes back to RTP in the clear, as a new offer and answer may.
func (p *Phone) SetPlain() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.dtls != nil {
		return // it has no other way
	}
	p.on.Store(false)
	p.keys, p.in = Keys{}, nil
	p.out.Store(nil)
	p.profile.Store(nil)
}

// Profile names the protection of the packets, "" without one.
func (p *Phone) Profile() string {
	if s := p.profile.Load(); s != nil {
		return *s
	}
	return ""
}

// open checks a packet, and decrypts it where it is; nil, counted, if it is
// not to be taken. Call with mu held.
func (p *Phone) open(b []byte, rtcp bool) []byte {
	v := accepted
	switch {
	case p.on.Load() && p.in == nil:
		v = unauthentic
	case p.on.Load() && rtcp:
		b, v = p.in.decryptRTCP(b)
	case p.on.Load():
		b, v = p.in.decryptRTP(b)
	case rtcp && !validRTCP(b), !rtcp && !validRTP(b):
		v = invalid
	}
	switch v {
	case accepted:
		return b
	case invalid:
		p.stats.invalid.Add(1)
	default:
		p.unsafe.Add(1)
	}
	return nil
}

// seal encrypts a packet where it is.
func (p *Phone) seal(b []byte, rtcp bool) ([]byte, error) {
	if !p.on.Load() {
		return b, nil
	}
	out := p.out.Load()
	switch {
	case out == nil:
		return nil, ErrNotConnected
	case rtcp:
		return out.encryptRTCP(b)
	}
	return out.encryptRTP(b)
}
