package sip

import (
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"
)

// A suite is an SRTP crypto suite of RFC 4568 §6.2 or RFC 7714 §14.1, with the
// length of its master key and salt together, in bytes.
type suite struct {
	name string
	size int
}

// suites are those we speak, in the order we offer them: the first is the one
// that every peer has (RFC 4568 §8.2), GCM comes after since some old ones read
// one line only.
var suites = []suite{
	{"AES_CM_128_HMAC_SHA1_80", 30},
	{"AEAD_AES_128_GCM", 28},
	{"AEAD_AES_256_GCM", 44},
	{"AES_CM_128_HMAC_SHA1_32", 30},
}

func suiteSize(name string) int {
	for _, s := range suites {
		if strings.EqualFold(s.name, name) {
			return s.size
		}
	}
	return 0
}

// maxMKI is the longest master key identifier (RFC 4568 §6.1), in bytes.
const maxMKI = 128

// Crypto is an a=crypto attribute (RFC 4568 §9.1) that we can use. It never
// prints its key.
type Crypto struct {
	Tag   int
	Suite string // as in RFC 4568 §6.2
	Key   []byte // master key and salt
	MKI   []byte // in the packets of whoever wrote the attribute, nil: none
}

// Format implements fmt.Formatter: keys are in no log.
func (c Crypto) Format(f fmt.State, _ rune) { fmt.Fprintf(f, "%d %s", c.Tag, c.Suite) }

// parseCrypto reads an attribute's value. False: it is malformed, of another
// suite, has several keys, or a parameter that changes the packets.
func parseCrypto(v string) (Crypto, bool) {
	f := strings.Fields(v)
	if len(f) < 3 {
		return Crypto{}, false
	}
	tag, err := strconv.ParseUint(f[0], 10, 30) // at most 9 digits
	size := suiteSize(f[1])
	if err != nil || size == 0 {
		return Crypto{}, false
	}
	for _, p := range f[3:] {
		name, _, _ := strings.Cut(p, "=")
		switch {
		case strings.HasPrefix(p, "-"): // may be ignored (RFC 4568 §6.3.8)
		case name == "WSH", p == "KDR=0":
		default:
			return Crypto{}, false
		}
	}
	method, info, _ := strings.Cut(f[2], ":")
	if !strings.EqualFold(method, "inline") || strings.Contains(info, ";") {
		return Crypto{}, false
	}
	parts := strings.Split(info, "|")
	// Some write the padding of GCM's keys, some leave it out.
	key, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(parts[0], "="))
	if err != nil || len(key) != size {
		return Crypto{}, false
	}
	c := Crypto{Tag: int(tag), Suite: strings.ToUpper(f[1]), Key: key}
	for _, p := range parts[1:] {
		id, length, isMKI := strings.Cut(p, ":")
		if !isMKI {
			continue // the lifetime: no call lasts for 2^31 packets
		}
		n, err := strconv.ParseUint(length, 10, 8)
		value, err2 := strconv.ParseUint(id, 10, 64)
		if err != nil || err2 != nil || n == 0 || n > maxMKI || c.MKI != nil || n < 8 && value>>(8*n) != 0 {
			return Crypto{}, false
		}
		c.MKI = make([]byte, n)
		for i := int(n) - 1; i >= 0 && value > 0; i, value = i-1, value>>8 {
			c.MKI[i] = byte(value)
		}
	}
	return c, true
}

// newCrypto makes an attribute with a random key.
func newCrypto(tag int, name string) Crypto {
	key := make([]byte, suiteSize(name))
	rand.Read(key) // never fails (crypto/rand)
	return Crypto{Tag: tag, Suite: name, Key: key}
}

// text writes the attribute, key and all.
func (c Crypto) text() string {
	return fmt.Sprintf("a=crypto:%d %s inline:%s\r\n", c.Tag, c.Suite, base64.StdEncoding.EncodeToString(c.Key))
}

// Keys are what two crypto attributes agreed on. They never print.
type Keys struct {
	Suite         string // as in RFC 4568 §6.2
	Send, Receive []byte // master key and salt, one after the other
	MKI           []byte // in what is received
}

// Format implements fmt.Formatter: keys are in no log.
func (k Keys) Format(f fmt.State, _ rune) { fmt.Fprint(f, k.Suite) }
