package sip_test

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"brewline/sip"
)

func readOffer(t *testing.T, file string) *sip.SDP {
	t.Helper()
	b, err := os.ReadFile("testdata/sdp/" + file + ".sdp")
	if err != nil {
		t.Fatal(err)
	}
	s, err := sip.ParseSDP(b)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// What becomes of other people's offers by the trunk's policy.
func TestAnswerSRTP(t *testing.T) {
	const sha80, gcm256 = "AES_CM_128_HMAC_SHA1_80", "AEAD_AES_256_GCM"
	for _, tt := range []struct {
		file   string
		policy sip.SRTP
		line   int    // that is taken
		suite  string // "": plain
		tag    int
		err    error
	}{
		{"asterisk-srtp", sip.SRTPOff, 0, "", 0, sip.ErrSRTP},
		{"asterisk-srtp", sip.SRTPOptional, 0, sha80, 1, nil},
		{"asterisk-srtp", sip.SRTPRequired, 0, sha80, 1, nil},
		{"cube-srtp", sip.SRTPOptional, 0, gcm256, 1, nil},
		{"freeswitch-srtp", sip.SRTPOff, 1, "", 0, nil},
		{"freeswitch-srtp", sip.SRTPOptional, 0, sha80, 2, nil}, // there is no such suite as the first
		{"freeswitch-srtp", sip.SRTPRequired, 0, sha80, 2, nil},
		{"savp-and-avp", sip.SRTPRequired, 0, sha80, 1, nil},
		{"asterisk", sip.SRTPOptional, 0, "", 0, nil},
		{"asterisk", sip.SRTPRequired, 0, "", 0, sip.ErrSRTP},
		{"g729-only", sip.SRTPRequired, 0, "", 0, sip.ErrNoCodec},
	} {
		t.Run(fmt.Sprintf("%s %d", tt.file, tt.policy), func(t *testing.T) {
			offer := readOffer(t, tt.file)
			l := localFor("opus g722 pcma pcmu")
			l.SRTP = tt.policy
			ans, m, err := sip.Answer(offer, l)
			if !errors.Is(err, tt.err) {
				t.Fatalf("error %v, want %v", err, tt.err)
			}
			if err != nil {
				return
			}
			// Read as the peer reads it.
			read, err := sip.ParseSDP(ans.Marshal())
			if err != nil {
				t.Fatal(err)
			}
			if len(read.Media) != len(offer.Media) {
				t.Fatalf("%d lines answered to %d", len(read.Media), len(offer.Media))
			}
			for i, line := range read.Media {
				if line.Type != offer.Media[i].Type || line.Proto != offer.Media[i].Proto || (line.Port != 0) != (i == tt.line) {
					t.Errorf("line %d: %s %d %s", i, line.Type, line.Port, line.Proto)
				}
			}
			line := read.Media[tt.line]
			if tt.suite == "" {
				if m.Keys != nil || len(line.Crypto) != 0 {
					t.Errorf("keys %v, %v", m.Keys, line.Crypto)
				}
				return
			}
			if len(line.Crypto) != 1 || line.Crypto[0].Tag != tt.tag || line.Crypto[0].Suite != tt.suite || m.Keys == nil ||
				string(line.Crypto[0].Key) != string(m.Keys.Send) {
				t.Fatalf("answered %v", line.Crypto)
			}
			theirs := ""
			for _, c := range offer.Media[tt.line].Crypto {
				if c.Tag == tt.tag {
					theirs = string(c.Key)
				}
			}
			if string(m.Keys.Receive) != theirs {
				t.Error("we expect another key than theirs")
			}

			// The same offer again, as on hold and resume, keeps our key; another changes it.
			l.Last, l.Peer, l.Agreed = ans, offer, &m
			if _, again, err := sip.Answer(offer, l); err != nil || string(again.Keys.Send) != string(m.Keys.Send) {
				t.Errorf("another key for the same offer (%v)", err)
			}
			offer.Media[tt.line].Crypto[0].Key = append([]byte{^theirs[0]}, theirs[1:]...)
			offer.Media[tt.line].Crypto = offer.Media[tt.line].Crypto[:1]
			if _, again, err := sip.Answer(offer, l); err != nil || string(again.Keys.Send) == string(m.Keys.Send) {
				t.Errorf("the same key for another offer (%v)", err)
			}
		})
	}
}

// Our offers, answered by ourselves and by those who cannot.
func TestOfferSRTP(t *testing.T) {
	mine, peer := localFor("pcma pcmu"), localFor("pcma")
	mine.SRTP, peer.SRTP = sip.SRTPRequired, sip.SRTPOptional
	offer, err := sip.ParseSDP(sip.Offer(mine).Marshal())
	if err != nil {
		t.Fatal(err)
	}
	if m := offer.Media[0]; m.Proto != "RTP/SAVP" || len(m.Crypto) != 4 {
		t.Fatalf("offered %s with %v", m.Proto, m.Crypto)
	}
	answer, theirs, err := sip.Answer(offer, peer)
	if err != nil {
		t.Fatal(err)
	}
	m, err := sip.Accept(offer, answer, mine)
	if err != nil {
		t.Fatal(err)
	}
	if string(m.Keys.Send) != string(theirs.Keys.Receive) || string(m.Keys.Receive) != string(theirs.Keys.Send) {
		t.Error("the two sides have other keys")
	}
	answer.Media[0].Crypto = nil
	if _, err := sip.Accept(offer, answer, mine); !errors.Is(err, sip.ErrSRTP) {
		t.Errorf("an answer without key: %v", err)
	}

	mine.SRTP = sip.SRTPOptional
	offer = sip.Offer(mine)
	if m := offer.Media[0]; m.Proto != "RTP/AVP" || len(m.Crypto) != 4 {
		t.Fatalf("offered %s with %v", m.Proto, m.Crypto)
	}
	peer.SRTP = sip.SRTPOff
	if answer, _, err = sip.Answer(offer, peer); err != nil {
		t.Fatal(err)
	}
	if m, err = sip.Accept(offer, answer, mine); err != nil || m.Keys != nil {
		t.Errorf("with a peer that has no SRTP: %v, %v", m.Keys, err)
	}
}

func TestAnswerDTLS(t *testing.T) {
	aa, cc := strings.Repeat("AA:", 31)+"AA", strings.Repeat("CC:", 31)+"CC"
	l := localFor("opus g722 pcma pcmu")
	l.SRTP, l.Fingerprint = sip.SRTPOptional, sip.Fingerprint{Hash: "sha-256", Value: aa}
	offer := readOffer(t, "webrtc")
	ans, m, err := sip.Answer(offer, l)
	if err != nil {
		t.Fatal(err)
	}
	d := m.DTLS
	if d == nil || d.Active || d.ICE.Ufrag != "Xk9z" || d.ICE.Pwd != "wN2rS5JGhH1WqNUsYy8rJrKU" || d.Fingerprint.Hash != "sha-256" ||
		!strings.HasPrefix(d.Fingerprint.Value, "1F:2E") || !m.RTCPMux || m.Codec.Name != "opus" || len(d.Local.Pwd) < 22 {
		t.Fatalf("agreed on %+v", m)
	}
	text := string(ans.Marshal())
	for _, line := range []string{"a=ice-lite", "a=group:BUNDLE 0", "a=mid:0", "a=setup:passive", "a=rtcp-mux", "a=fingerprint:sha-256 " + aa,
		"a=ice-ufrag:" + d.Local.Ufrag, "a=ice-pwd:" + d.Local.Pwd, "a=candidate:1 1 udp 2130706431 192.0.2.1 20000 typ host", "m=audio 20000 UDP/TLS/RTP/SAVPF 111 110"} {
		if !strings.Contains(text, line+"\r\n") {
			t.Errorf("the answer lacks %s:\n%s", line, text)
		}
	}

	// An offer of ours is answered by ourselves: both have the same in mind.
	l.OfferDTLS, l.SRTP = true, sip.SRTPRequired
	ours, err := sip.ParseSDP(sip.Offer(l).Marshal())
	if err != nil {
		t.Fatal(err)
	}
	peer := l
	peer.Fingerprint.Value = cc
	ours.Lite = false // as if we were a browser
	ans, theirs, err := sip.Answer(ours, peer)
	if err != nil {
		t.Fatal(err)
	}
	m, err = sip.Accept(ours, ans, l)
	if err != nil {
		t.Fatal(err)
	}
	if m.DTLS.Active == theirs.DTLS.Active || m.DTLS.Fingerprint.Value != cc || theirs.DTLS.Fingerprint.Value != aa {
		t.Errorf("%+v and %+v", m.DTLS, theirs.DTLS)
	}

	offer.Media[0].Fingerprint.Value = ""
	if _, _, err := sip.Answer(offer, l); !errors.Is(err, sip.ErrSRTP) {
		t.Errorf("an offer without fingerprint: %v", err)
	}

	// Of several the one that is best checked is taken, and one that cannot be
	// checked is none.
	line := func(hash string, n int) string {
		return "a=fingerprint:" + hash + " " + strings.TrimSuffix(strings.Repeat("0F:", n), ":") + "\r\n"
	}
	for lines, want := range map[string]string{
		line("sha-1", 20) + line("SHA-256", 32) + line("sha-512", 64): "sha-256", line("sha-512", 64): "sha-512", line("sha-1", 20): "sha-1",
		line("md5", 16): "", line("sha-256", 31): "", line("sha-256", 33): "", "a=fingerprint:sha-256\r\n": "", "a=fingerprint:md2 \r\n": "",
		"a=fingerprint:sha-256 " + strings.Repeat("xy:", 32) + "\r\n": "",
	} {
		s, err := sip.ParseSDP([]byte("v=0\r\nm=audio 4000 UDP/TLS/RTP/SAVPF 0\r\n" + lines))
		if err != nil || s.Media[0].Fingerprint.Hash != want {
			t.Errorf("of %q is taken %+v (%v)", lines, s.Media[0].Fingerprint, err)
		}
	}
}

func TestParseCrypto(t *testing.T) {
	const key = "WVNfX19zZW1jdGwgKCkgewkyMjA7fQp9CnVubGVz"
	for v, ok := range map[string]bool{
		"1 AES_CM_128_HMAC_SHA1_80 inline:" + key:                         true,
		"1 aes_cm_128_hmac_sha1_80 inline:" + key + "|2^20":               true,
		"99 AES_CM_128_HMAC_SHA1_32 inline:" + key + "|1048576 KDR=0":     true,
		"1 AES_CM_128_HMAC_SHA1_80 inline:" + key + " WSH=64":             true,
		"1 AES_CM_128_HMAC_SHA1_80 inline:" + key + "|2^20|1:4":           true,
		"1 AES_CM_128_HMAC_SHA1_80 inline:" + key + "|1:4":                true,
		"1 AES_CM_128_HMAC_SHA1_80 inline:" + key + ";inline:" + key:      false,
		"1 AES_CM_128_HMAC_SHA1_80 inline:" + key + " UNENCRYPTED_SRTP":   false,
		"1 AES_CM_128_HMAC_SHA1_80 inline:" + key + " KDR=4":              false,
		"1 AES_CM_128_HMAC_SHA1_80 inline:" + key + " FEC_ORDER=SRTP_FEC": false,
		"1 AES_CM_128_HMAC_SHA1_80 inline:" + key[:20]:                    false,
		"1 AES_CM_128_HMAC_SHA1_80 inline:!!!!":                           false,
		"1 AEAD_AES_128_GCM inline:" + key:                                false,
		"x AES_CM_128_HMAC_SHA1_80 inline:" + key:                         false,
		"1 F8_128_HMAC_SHA1_80 inline:" + key:                             false,
		"1 AES_CM_128_HMAC_SHA1_80":                                       false,
		"":                                                                false,
	} {
		s, err := sip.ParseSDP([]byte("v=0\r\nm=audio 4000 RTP/SAVP 0\r\na=crypto:" + v + "\r\n"))
		if err != nil {
			t.Fatal(err)
		}
		if got := len(s.Media[0].Crypto) == 1; got != ok {
			t.Errorf("%s: taken %v", v, got)
		}
		if shown := fmt.Sprintf("%v %+v %#v", s.Media[0], s.Media[0], s.Media[0]); strings.Contains(shown, "WVNf") || strings.Contains(shown, "0x59, 0x53") || strings.Contains(shown, "89 83") {
			t.Errorf("the key is shown: %s", shown)
		}
	}
}
