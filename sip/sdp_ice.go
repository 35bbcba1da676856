package sip

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"net/netip"
	"strings"
)

// Fingerprint is a certificate's hash (RFC 8122 §5).
type Fingerprint struct {
	Hash  string // "sha-256"
	Value string // "AB:CD:…"
}

// ICE are the credentials of one side (RFC 8839 §5.4).
type ICE struct{ Ufrag, Pwd string }

// Format implements fmt.Formatter: the password is in no log.
func (i ICE) Format(f fmt.State, _ rune) { fmt.Fprint(f, i.Ufrag) }

// DTLS is what was agreed on for DTLS-SRTP (RFC 5763).
type DTLS struct {
	Active      bool        // we begin the handshake
	Fingerprint Fingerprint // of the peer's certificate
	Local, ICE  ICE         // ours and the peer's; ICE.Ufrag "": without ICE
}

// newICE makes credentials (RFC 8445 §5.3: 24 and 128 bits at least).
func newICE() ICE {
	return ICE{Ufrag: rand.Text()[:8], Pwd: rand.Text()}
}

// fingerprintSizes are the hashes that can be checked, in bytes.
var fingerprintSizes = map[string]int{"sha-1": 20, "sha-224": 28, "sha-256": 32, "sha-384": 48, "sha-512": 64}

// secure takes the attributes of keys and of ICE, which may stand in the
// session part too (RFC 8122 §5, RFC 8839 §5.4).
func (m *MediaLine) secure(name, v string) {
	switch name {
	case "crypto":
		if c, ok := parseCrypto(v); ok && len(m.Crypto) < maxCrypto {
			m.Crypto = append(m.Crypto, c)
		}
		m.keyed = true
	case "fingerprint":
		hash, value, ok := strings.Cut(v, " ")
		value = strings.TrimSpace(value)
		hash = strings.ToLower(hash)
		sum, err := hex.DecodeString(strings.ReplaceAll(value, ":", ""))
		if !ok || err != nil || len(sum) == 0 || len(sum) != fingerprintSizes[hash] {
			return
		}
		// SHA-256 is preferred among several (RFC 8122 §5).
		if m.Fingerprint.Hash != "sha-256" {
			m.Fingerprint = Fingerprint{hash, value}
		}
	case "setup":
		m.Setup = strings.ToLower(v)
	case "ice-ufrag":
		if isICE(v, 4) {
			m.ICE.Ufrag = v
		}
	case "ice-pwd":
		if isICE(v, 22) {
			m.ICE.Pwd = v
		}
	case "mid":
		if isMediaToken(v) && len(v) <= 64 {
			m.Mid = v
		}
	}
}

// maxCrypto is how many crypto attributes of a line are kept.
const maxCrypto = 16

// isICE checks ice-char and length (RFC 8839 §5.4).
func isICE(s string, least int) bool {
	for i := range len(s) {
		c := s[i]
		if !(c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '+' || c == '/') {
			return false
		}
	}
	return len(s) >= least && len(s) <= 256
}

// dtls says that the line is keyed by DTLS.
func (m *MediaLine) dtls() bool {
	return m.Fingerprint.Value != "" && (strings.HasPrefix(m.Proto, "UDP/TLS/") || !m.keyed)
}

// ice says that the peer does ICE on the line.
func (m *MediaLine) ice() bool { return m.ICE.Ufrag != "" && m.ICE.Pwd != "" }

// candidate is our only one, of the only component (RFC 8839 §5.1; its
// priority by RFC 8445 §5.1.2.1).
func candidate(at netip.AddrPort) string {
	const priority = 126<<24 | 65535<<8 | 255
	return fmt.Sprintf("a=candidate:1 1 udp %d %s %d typ host\r\na=end-of-candidates\r\n", priority, at.Addr(), at.Port())
}
