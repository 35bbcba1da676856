package sip

import (
	"bytes"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// FuzzCrypto reads one a=crypto attribute: what is taken can be used, and an
// answer to it is of its tag and suite.
func FuzzCrypto(f *testing.F) {
	for _, s := range suites {
		f.Add(strings.TrimPrefix(strings.TrimSpace(newCrypto(1, s.name).text()), "a=crypto:"))
	}
	const key = "WVNfX19zZW1jdGwgKCkgewkyMjA7fQp9CnVubGVz"
	for _, rest := range []string{"|2^20|1:4", "|1:128 KDR=0 WSH=64 -x", ";inline:" + key, "|18446744073709551615:8", " UNENCRYPTED_SRTCP"} {
		f.Add("999999999 aes_cm_128_hmac_sha1_32 inline:" + key + rest)
	}
	f.Fuzz(func(t *testing.T, v string) {
		c, ok := parseCrypto(v)
		if !ok {
			return
		}
		if suiteSize(c.Suite) != len(c.Key) || c.Tag < 0 || len(c.MKI) > maxMKI {
			t.Fatalf("%q: %v with a key of %d bytes, MKI of %d", v, c, len(c.Key), len(c.MKI))
		}
		again, ok := parseCrypto(strings.TrimSuffix(strings.TrimPrefix(c.text(), "a=crypto:"), "\r\n"))
		if !ok || again.Tag != c.Tag || again.Suite != c.Suite || !bytes.Equal(again.Key, c.Key) {
			t.Fatalf("%q is written as %q", v, c.text())
		}
		keys, answer := Local{}.answerKeys(c)
		if len(answer) != 1 || answer[0].Tag != c.Tag || answer[0].Suite != c.Suite || !bytes.Equal(keys.Receive, c.Key) ||
			len(keys.Send) != len(c.Key) || bytes.Equal(keys.Send, c.Key) {
			t.Fatalf("%q is answered with %v", v, answer)
		}
	})
}

// FuzzReoffer has a session begin with one offer and go on with another, and
// with one of ours, by any policy.
func FuzzReoffer(f *testing.F) {
	files, err := filepath.Glob("testdata/sdp/*")
	if err != nil || len(files) == 0 {
		f.Fatal("no seeds", err)
	}
	var all [][]byte
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		all = append(all, b)
	}
	for i, b := range all {
		f.Add(b, all[(i+1)%len(all)], uint8(i))
		f.Add(b, b, uint8(i))
	}
	f.Fuzz(func(t *testing.T, first, second []byte, policy uint8) {
		l := Local{
			Addr: netip.MustParseAddr("192.0.2.1"), Port: 20000, DTMF: policy&1 != 0, RTCPMux: true, ComfortNoise: policy&2 != 0,
			SRTP: SRTP(policy>>2) % 3, OfferDTLS: policy&64 != 0, Fingerprint: Fingerprint{"sha-256", strings.Repeat("AA:", 31) + "AA"},
			Codecs: []Codec{{Name: "opus"}, {Name: "g722"}, {Name: "pcma"}, {Name: "pcmu"}},
		}
		for _, b := range [][]byte{first, second} {
			offer, err := ParseSDP(b)
			if err != nil {
				return
			}
			ans, m, err := Answer(offer, l)
			if err != nil {
				return
			}
			checkAnswer(t, l, offer, ans, &m)
			l.Last, l.Peer, l.Agreed = ans, offer, &m
			l.Version++
		}
		// A line keeps its place, a payload type its meaning (RFC 3264 §8).
		ours := Offer(l)
		if len(ours.Media) != len(l.Last.Media) || ours.audio() != l.Last.audio() {
			t.Fatalf("after\n%s\nwe offer\n%s", l.Last.Marshal(), ours.Marshal())
		}
		seen := map[uint8]Codec{}
		for _, c := range ours.Media[ours.audio()].Codecs {
			if o, dup := seen[c.PT]; dup {
				t.Fatalf("payload type %d is %s and %s in\n%s", c.PT, o.Name, c.Name, ours.Marshal())
			}
			seen[c.PT] = c
		}
		if read, err := ParseSDP(ours.Marshal()); err != nil || len(read.Media) != len(ours.Media) {
			t.Fatalf("our offer cannot be read: %v\n%s", err, ours.Marshal())
		}
	})
}

func checkAnswer(t *testing.T, l Local, offer, ans *SDP, m *Media) {
	t.Helper()
	text := ans.Marshal()
	again, err := ParseSDP(text)
	if err != nil || len(again.Media) != len(offer.Media) {
		t.Fatalf("%d media, answered (%v) with\n%s", len(offer.Media), err, text)
	}
	at := again.audio()
	if at < 0 || slices.ContainsFunc(again.Media[at+1:], func(m MediaLine) bool { return m.Port != 0 }) {
		t.Fatalf("not one open line in\n%s", text)
	}
	line, theirs := again.Media[at], offer.Media[at]
	if line.Proto != theirs.Proto || line.Type != "audio" || !slices.ContainsFunc(theirs.Codecs, func(c Codec) bool { return c.PT == line.Codecs[0].PT }) {
		t.Fatalf("%s %v is answered with %s %v", theirs.Proto, theirs.Formats, line.Proto, line.Formats)
	}
	encrypted := m.Keys != nil || m.DTLS != nil
	switch {
	case l.SRTP == SRTPOff && encrypted, l.SRTP == SRTPRequired && !encrypted, m.Keys != nil && m.DTLS != nil,
		!encrypted && theirs.Proto != "RTP/AVP" && theirs.Proto != "RTP/AVPF",
		(m.Keys != nil) != (len(line.Crypto) == 1), (m.DTLS != nil) != (line.Fingerprint.Value != ""):
		t.Fatalf("policy %d, keys %v, DTLS %v in\n%s", l.SRTP, m.Keys, m.DTLS, text)
	}
	if m.Send && !theirs.Direction.receives() || m.Receive && !theirs.Direction.sends() {
		t.Fatalf("%s is answered with %+v", theirs.Direction, m)
	}
	if m.Ptime < 0 || m.MaxPtime < 0 || m.RecvPT > 127 || m.EventPT > 127 || m.Codec.Rate == 0 {
		t.Fatalf("%+v", m)
	}
}
