package sip

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"net/netip"
	"sync"
	"time"
)

const (
	nonceLife = 5 * time.Minute
	// maxNonceUses bounds how often a nonce counts, maxNonces how many are
	// known to be in use.
	maxNonceUses, maxNonces = 1024, 8192
)

// nonces makes and judges nonces (RFC 7616 §3.3). One that was given out takes
// no memory before it has been answered rightly: it carries when it was made,
// and a code over that and the address it was made for.
type nonces struct {
	key   [32]byte
	began time.Time

	mu      sync.Mutex
	used    map[[nonceID]byte]*nonceUse
	horizon time.Duration // nonces made before count no more
}

// nonceID is the length of what tells nonces apart: when, and 8 random bytes.
const nonceID = 16

// nonceUse is which values of nc came: the highest and the 64 up to it.
type nonceUse struct {
	made time.Duration
	high uint32
	seen uint64 // bit i: high-i
}

func newNonces(now time.Time) *nonces {
	n := &nonces{began: now, used: map[[nonceID]byte]*nonceUse{}}
	rand.Read(n.key[:]) // never fails (crypto/rand)
	return n
}

func (n *nonces) code(id []byte, a netip.Addr) []byte {
	mac := hmac.New(sha256.New, n.key[:])
	mac.Write(id)
	ip := a.As16()
	mac.Write(ip[:])
	return mac.Sum(nil)[:16]
}

// make returns a nonce for an address.
func (n *nonces) make(a netip.Addr, now time.Time) string {
	var id [nonceID]byte
	binary.BigEndian.PutUint64(id[:], uint64(now.Sub(n.began)))
	rand.Read(id[8:])
	return base64.RawURLEncoding.EncodeToString(append(id[:], n.code(id[:], a)...))
}

// take reports whether a nonce was made for the address, lately, and is used
// with nc for the first time, which counts from then on. nc 0: without qop,
// which a nonce bears once.
func (n *nonces) take(nonce string, nc uint32, a netip.Addr, now time.Time) bool {
	b, err := base64.RawURLEncoding.DecodeString(nonce)
	if err != nil || len(b) != nonceID+16 || !hmac.Equal(b[nonceID:], n.code(b[:nonceID], a)) {
		return false
	}
	id := [nonceID]byte(b[:nonceID])
	made, age := time.Duration(binary.BigEndian.Uint64(id[:])), now.Sub(n.began)
	if age-made > nonceLife || nc > maxNonceUses {
		return false
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if made < n.horizon {
		return false
	}
	u := n.used[id]
	switch {
	case u == nil && len(n.used) >= maxNonces && !n.forget(age):
		return false // made before now, as all are
	case u == nil:
		if nc == 0 {
			nc = maxNonceUses // so that no other follows
		}
		n.used[id] = &nonceUse{made: made, high: nc, seen: 1}
		return true
	case nc > u.high:
		u.seen = u.seen<<min(64, nc-u.high) | 1
		u.high = nc
		return true
	case nc == 0 || u.high == maxNonceUses || u.high-nc >= 64 || u.seen&(1<<(u.high-nc)) != 0:
		return false
	}
	u.seen |= 1 << (u.high - nc)
	return true
}

// forget makes room. With nothing old to forget, everything made so far counts
// no more, so that nothing that is forgotten can be used again. n.mu is held.
func (n *nonces) forget(age time.Duration) bool {
	for id, u := range n.used {
		if age-u.made > nonceLife {
			delete(n.used, id)
		}
	}
	if len(n.used) < maxNonces {
		return true
	}
	clear(n.used)
	n.horizon = age + 1
	return false
}
