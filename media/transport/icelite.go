package transport

import (
	"crypto/hmac"
	"crypto/sha1" //nolint:gosec // RFC 8489 §14.5 has no other
	"crypto/subtle"
	"encoding/binary"
	"hash/crc32"
	"net/netip"
	"strings"
)

// An iceLite answers the connectivity checks of a peer (RFC 8445 §2.5, §7.3)
// and sends none of its own. Which address is used the peer decides by
// nominating it (§8.1.1); the last nomination counts.
type iceLite struct {
	username string // "ours:", with which the peer's checks begin
	key      []byte // our password

	valid [maxValid]netip.AddrPort // sources of authentic checks, the last ones
	next  int
}

// maxValid is how many addresses of a peer may have passed a check at once.
const maxValid = 16

func newICELite(ufrag, pwd string) *iceLite {
	return &iceLite{username: ufrag + ":", key: []byte(pwd)}
}

// checked says whether a check from this address was authentic.
func (l *iceLite) checked(from netip.AddrPort) bool {
	for _, a := range l.valid {
		if a == from {
			return from.IsValid()
		}
	}
	return false
}

// STUN (RFC 8489 §5, §14, RFC 8445 §16.1).
const (
	stunHeaderLen   = 20
	stunCookie      = 0x2112a442
	stunFingerprint = 0x5354554e // XORed with the CRC

	bindingRequest, bindingSuccess, bindingError = 0x0001, 0x0101, 0x0111

	attrUsername, attrIntegrity, attrErrorCode = 0x0006, 0x0008, 0x0009
	attrUnknown, attrXORMapped, attrUse        = 0x000a, 0x0020, 0x0025
	attrPriority, attrFingerprint, attrCtrled  = 0x0024, 0x8028, 0x8029
)

// A stunRequest is what a binding request says, as far as it concerns us.
type stunRequest struct {
	username              string
	integrity             int // offset of MESSAGE-INTEGRITY, 0: none
	use, ctrled, priority bool
	unknown               uint16 // attribute that must be understood and is not
}

// parseSTUN reads a binding request. False: it is none, or malformed. What
// follows MESSAGE-INTEGRITY is passed over, but FINGERPRINT is checked.
func parseSTUN(b []byte) (r stunRequest, ok bool) {
	if len(b) < stunHeaderLen || len(b) > MTU || binary.BigEndian.Uint16(b) != bindingRequest ||
		binary.BigEndian.Uint32(b[4:]) != stunCookie || int(binary.BigEndian.Uint16(b[2:])) != len(b)-stunHeaderLen || len(b)%4 != 0 {
		return r, false
	}
	for at := stunHeaderLen; at < len(b); {
		if len(b)-at < 4 {
			return r, false
		}
		kind, n := binary.BigEndian.Uint16(b[at:]), int(binary.BigEndian.Uint16(b[at+2:]))
		if n > len(b)-at-4 {
			return r, false
		}
		v := b[at+4 : at+4+n]
		switch {
		case kind == attrFingerprint:
			if n != 4 || at+8 != len(b) || binary.BigEndian.Uint32(v) != crc32.ChecksumIEEE(b[:at])^stunFingerprint {
				return r, false
			}
		case r.integrity != 0:
		case kind == attrIntegrity:
			if n != sha1.Size {
				return r, false
			}
			r.integrity = at
		case kind == attrUsername:
			if n > 513 {
				return r, false
			}
			r.username = string(v)
		case kind == attrUse:
			r.use = true
		case kind == attrCtrled:
			r.ctrled = true
		case kind == attrPriority:
			r.priority = true
		case kind < 0x8000 && r.unknown == 0:
			r.unknown = kind
		}
		at += 4 + (n+3)&^3
	}
	return r, true
}

// stunMAC is the MESSAGE-INTEGRITY of a message whose attribute stands at at:
// over what is before it, with the length as if it ended there.
func stunMAC(key, b []byte, at int) []byte {
	h := hmac.New(sha1.New, key)
	var head [4]byte
	copy(head[:], b[:2])
	binary.BigEndian.PutUint16(head[2:], uint16(at-stunHeaderLen+4+sha1.Size))
	h.Write(head[:])
	h.Write(b[4:at])
	return h.Sum(nil)
}

// answer answers a datagram. A nil reply: none is due. nominated: the peer
// chose the address from.
func (l *iceLite) answer(b []byte, from netip.AddrPort) (reply []byte, nominated bool) {
	r, ok := parseSTUN(b)
	if !ok {
		return nil, false
	}
	refuse := func(code int, reason string) []byte {
		v := append([]byte{0, 0, byte(code / 100), byte(code % 100)}, reason...)
		return stunMessage(bindingError, b[4:stunHeaderLen], attrErrorCode, v, nil)
	}
	switch {
	case r.integrity == 0 || r.username == "":
		return refuse(400, "Bad Request"), false
	case !strings.HasPrefix(r.username, l.username), // the rest is proven by our password
		subtle.ConstantTimeCompare(stunMAC(l.key, b, r.integrity), b[r.integrity+4:r.integrity+4+sha1.Size]) != 1:
		return refuse(401, "Unauthenticated"), false
	case r.unknown != 0:
		v := append([]byte{0, 0, 4, 20}, "Unknown Attribute"...)
		return stunMessage(bindingError, b[4:stunHeaderLen], attrErrorCode, v, l.key, byte(r.unknown>>8), byte(r.unknown)), false
	case r.ctrled: // we never control (RFC 8445 §6.1.1)
		v := append([]byte{0, 0, 4, 87}, "Role Conflict"...)
		return stunMessage(bindingError, b[4:stunHeaderLen], attrErrorCode, v, l.key), false
	}
	if !l.checked(from) {
		l.valid[l.next] = from
		l.next = (l.next + 1) % maxValid
	}
	return stunMessage(bindingSuccess, b[4:stunHeaderLen], attrXORMapped, xorMapped(from, b[4:stunHeaderLen]), l.key), r.use
}

// xorMapped is the value of XOR-MAPPED-ADDRESS (RFC 8489 §14.2); pad is the
// cookie and the transaction.
func xorMapped(a netip.AddrPort, pad []byte) []byte {
	ip := a.Addr().AsSlice()
	family := byte(1)
	if len(ip) == 16 {
		family = 2
	}
	for i := range ip {
		ip[i] ^= pad[i]
	}
	return append([]byte{0, family, byte(a.Port()>>8) ^ pad[0], byte(a.Port()) ^ pad[1]}, ip...)
}

// stunMessage writes a response with an attribute, UNKNOWN-ATTRIBUTES if there
// are any, MESSAGE-INTEGRITY if there is a key, and FINGERPRINT.
func stunMessage(kind uint16, id []byte, attr uint16, v, key []byte, unknown ...byte) []byte {
	b := make([]byte, 4, 128)
	binary.BigEndian.PutUint16(b, kind)
	b = append(b, id...)
	add := func(attr uint16, v []byte) {
		b = binary.BigEndian.AppendUint16(b, attr)
		b = binary.BigEndian.AppendUint16(b, uint16(len(v)))
		b = append(b, v...)
		for len(b)%4 != 0 {
			b = append(b, 0)
		}
	}
	add(attr, v)
	if len(unknown) > 0 {
		add(attrUnknown, unknown)
	}
	if key != nil {
		add(attrIntegrity, stunMAC(key, b, len(b)))
	}
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)-stunHeaderLen+8))
	add(attrFingerprint, binary.BigEndian.AppendUint32(nil, crc32.ChecksumIEEE(b)^stunFingerprint))
	return b
}
