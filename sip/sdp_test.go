package sip_test

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"brewline/sip"
)

var update = flag.Bool("update", false, "write the answers in testdata anew")

var compareAddr = cmp.Options{cmpopts.EquateComparable(netip.Addr{}, netip.AddrPort{})}

func localFor(codecs string) sip.Local {
	l := sip.Local{Addr: netip.MustParseAddr("192.0.2.1"), Port: 20000, DTMF: true, RTCPMux: true, Ptime: 20 * time.Millisecond, SessionID: 7, Version: 3}
	for _, c := range strings.Fields(codecs) {
		l.Codecs = append(l.Codecs, sip.Codec{Name: c})
	}
	return l
}

func codec(name string, pt uint8, fmtp string) sip.Codec {
	c := sip.KnownCodecs()[name]
	c.PT, c.Fmtp = pt, fmtp
	return c
}

// What we answer to other people's offers; the answers themselves are in
// testdata/sdp/*.answer.
func TestAnswer(t *testing.T) {
	const all = "opus g722 pcma pcmu"
	at := netip.MustParseAddrPort
	for _, tt := range []struct {
		file, codecs string
		change       func(*sip.Local)
		want         sip.Media
		err          error
	}{
		{file: "asterisk", codecs: all, want: sip.Media{Codec: codec("opus", 107, "useinbandfec=1"), RecvPT: 107, EventPT: 101, RecvEventPT: 101, EventRate: 8000,
			Remote: at("192.0.2.10:11426"), RemoteRTCP: at("192.0.2.10:11427"), Send: true, Receive: true, Ptime: 20 * time.Millisecond, MaxPtime: 140 * time.Millisecond}},
		{file: "asterisk", codecs: "pcmu pcma", want: sip.Media{Codec: codec("pcmu", 0, ""), RecvPT: 0, EventPT: 101, RecvEventPT: 101, EventRate: 8000,
			Remote: at("192.0.2.10:11426"), RemoteRTCP: at("192.0.2.10:11427"), Send: true, Receive: true, Ptime: 20 * time.Millisecond, MaxPtime: 140 * time.Millisecond}},
		{file: "freeswitch", codecs: all, want: sip.Media{Codec: codec("opus", 102, "useinbandfec=1; maxaveragebitrate=30000; maxplaybackrate=48000; ptime=20; minptime=10; maxptime=40"), RecvPT: 102,
			EventPT: 103, RecvEventPT: 103, EventRate: 48000, Remote: at("198.51.100.7:27844"), RemoteRTCP: at("198.51.100.7:27845"), Send: true, Receive: true, Ptime: 20 * time.Millisecond}},
		{file: "freeswitch", codecs: "g722", change: func(l *sip.Local) { l.DTMF, l.RTCPPort, l.Direction = false, 30001, sip.SendOnly },
			want: sip.Media{Codec: codec("g722", 9, ""), RecvPT: 9, Remote: at("198.51.100.7:27844"), RemoteRTCP: at("198.51.100.7:27845"), Send: true, Ptime: 20 * time.Millisecond}},
		{file: "jigasi", codecs: "g722 opus", want: sip.Media{Codec: codec("g722", 9, ""), RecvPT: 9, EventPT: 101, RecvEventPT: 101, EventRate: 8000,
			Remote: at("127.0.0.1:16004"), RemoteRTCP: at("127.0.0.1:16005"), Send: true, Receive: true, Ptime: 20 * time.Millisecond}},
		{file: "linphone", codecs: all, change: func(l *sip.Local) { l.Addr = netip.MustParseAddr("2001:db8::1") },
			want: sip.Media{Codec: codec("opus", 96, "useinbandfec=1"), RecvPT: 96, EventPT: 101, RecvEventPT: 101, EventRate: 48000,
				Remote: at("[2001:db8::7]:7076"), RemoteRTCP: at("[2001:db8::7]:7077"), Send: true, Receive: true}},
		{file: "linphone", codecs: "pcma", want: sip.Media{Codec: codec("pcma", 8, ""), RecvPT: 8, EventPT: 100, RecvEventPT: 100, EventRate: 8000,
			Remote: at("[2001:db8::7]:7076"), RemoteRTCP: at("[2001:db8::7]:7077"), Send: true, Receive: true}},
		{file: "cisco", codecs: all, want: sip.Media{Codec: codec("pcmu", 0, ""), RecvPT: 0, EventPT: 101, RecvEventPT: 101, EventRate: 8000,
			Remote: at("203.0.113.6:17390"), RemoteRTCP: at("203.0.113.8:17399"), Send: true, Receive: true, Ptime: 30 * time.Millisecond}},
		{file: "savp-and-avp", codecs: all, want: sip.Media{Codec: codec("pcma", 8, ""), RecvPT: 8, Remote: at("192.0.2.44:5006"), RemoteRTCP: at("192.0.2.44:5006"), RTCPMux: true, Send: true, Receive: true}},
		{file: "savp-and-avp", codecs: "pcmu", change: func(l *sip.Local) { l.RTCPMux = false },
			want: sip.Media{Codec: codec("pcmu", 0, ""), Remote: at("192.0.2.44:5006"), RemoteRTCP: at("192.0.2.44:5007"), Send: true, Receive: true}},
		{file: "cisco", codecs: "pcmu", change: func(l *sip.Local) { l.ComfortNoise = true }, want: sip.Media{Codec: codec("pcmu", 0, ""), RecvPT: 0, EventPT: 101, RecvEventPT: 101, EventRate: 8000,
			CNPT: 19, RecvCNPT: 19, Remote: at("203.0.113.6:17390"), RemoteRTCP: at("203.0.113.8:17399"), Send: true, Receive: true, Ptime: 30 * time.Millisecond}},
		{file: "static-only", codecs: all, want: sip.Media{Codec: codec("g722", 9, ""), RecvPT: 9, Remote: at("192.0.2.50:16384"), RemoteRTCP: at("192.0.2.50:16385"), Send: true, Receive: true, Ptime: 40 * time.Millisecond}},
		{file: "hold-2543", codecs: all, want: sip.Media{Codec: codec("pcmu", 0, ""), Remote: at("0.0.0.0:16384"), RemoteRTCP: at("0.0.0.0:16385"), Receive: true}},
		{file: "hold-sendonly", codecs: all, want: sip.Media{Codec: codec("pcmu", 0, ""), Remote: at("192.0.2.60:16384"), RemoteRTCP: at("192.0.2.60:16385"), Receive: true}},
		{file: "hold-inactive", codecs: all, want: sip.Media{Codec: codec("pcmu", 0, ""), Remote: at("192.0.2.60:16384"), RemoteRTCP: at("192.0.2.60:16385")}},
		{file: "hostname", codecs: all, want: sip.Media{Codec: codec("pcma", 8, ""), RecvPT: 8, Remote: netip.AddrPortFrom(netip.Addr{}, 16384), Send: true, Receive: true}},
		{file: "remapped", codecs: "opus", want: sip.Media{Codec: sip.Codec{Name: "opus", PT: 98, Rate: 48000, Channels: 1}, RecvPT: 98, Remote: at("192.0.2.80:16384"), RemoteRTCP: at("192.0.2.80:16385"), Send: true, Receive: true}},
		{file: "remapped", codecs: "g722", want: sip.Media{Codec: codec("g722", 96, ""), RecvPT: 96, Remote: at("192.0.2.80:16384"), RemoteRTCP: at("192.0.2.80:16385"), Send: true, Receive: true}},
		{file: "remapped", codecs: "pcmu pcma", want: sip.Media{Codec: codec("pcma", 97, ""), RecvPT: 97, Remote: at("192.0.2.80:16384"), RemoteRTCP: at("192.0.2.80:16385"), Send: true, Receive: true}},
		{file: "remapped", codecs: "pcmu", err: sip.ErrNoCodec}, // 0 is something else here
		{file: "g729-only", codecs: all, err: sip.ErrNoCodec},
		{file: "webrtc", codecs: all, err: sip.ErrSRTP}, // which is off
		{file: "asterisk", codecs: "", err: sip.ErrNoCodec},
	} {
		name := tt.file + "-" + strings.ReplaceAll(tt.codecs, " ", "-")
		t.Run(name, func(t *testing.T) {
			b, err := os.ReadFile(filepath.Join("testdata", "sdp", tt.file+".sdp"))
			if err != nil {
				t.Fatal(err)
			}
			for _, b := range [][]byte{b, bytes.ReplaceAll(b, []byte("\n"), []byte("\r\n"))} {
				offer, err := sip.ParseSDP(b)
				if err != nil {
					t.Fatal(err)
				}
				l := localFor(tt.codecs)
				if tt.change != nil {
					tt.change(&l)
				}
				ans, m, err := sip.Answer(offer, l)
				if !errors.Is(err, tt.err) {
					t.Fatalf("error %v, want %v", err, tt.err)
				}
				if tt.err != nil {
					return
				}
				if d := cmp.Diff(tt.want, m, compareAddr); d != "" {
					t.Errorf("media (-want +got):\n%s", d)
				}
				golden(t, name+".answer", ans.Marshal())
				// The answer can be read again.
				if _, err := sip.ParseSDP(ans.Marshal()); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", "sdp", name)
	got = bytes.ReplaceAll(got, []byte("\r\n"), []byte("\n"))
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), string(got)); d != "" {
		t.Errorf("%s (-want +got):\n%s", name, d)
	}
}

// Our offers, and what answers to them mean.
func TestOfferAccept(t *testing.T) {
	l := localFor("opus pcmu pcma")
	golden(t, "offer-all", sip.Offer(l).Marshal())
	answer := func(lines string) string {
		return "v=0\r\no=- 1 1 IN IP4 192.0.2.9\r\ns=-\r\nc=IN IP4 192.0.2.9\r\nt=0 0\r\n" + lines
	}
	at := netip.MustParseAddrPort
	for _, tt := range []struct {
		name, answer string
		direction    sip.Direction
		want         sip.Media
		err          error
	}{
		{"pcmu", answer("m=audio 4000 RTP/AVP 0 101\r\na=rtpmap:101 telephone-event/8000\r\n"), sip.SendRecv,
			sip.Media{Codec: codec("pcmu", 0, ""), EventPT: 101, RecvEventPT: 101, EventRate: 8000, Remote: at("192.0.2.9:4000"), RemoteRTCP: at("192.0.2.9:4001"), Send: true, Receive: true}, nil},
		{"opus under another number, first of several", answer("m=audio 4000 RTP/AVP 120 8 121\r\na=rtpmap:120 opus/48000/2\r\na=fmtp:120 stereo=0\r\na=rtpmap:121 telephone-event/48000\r\na=rtcp-mux\r\n"), sip.SendRecv,
			sip.Media{Codec: codec("opus", 120, "stereo=0"), RecvPT: 96, EventPT: 121, RecvEventPT: 102, EventRate: 48000, Remote: at("192.0.2.9:4000"), RemoteRTCP: at("192.0.2.9:4000"), RTCPMux: true, Send: true, Receive: true}, nil},
		{"held", answer("m=audio 4000 RTP/AVP 8\r\na=inactive\r\n"), sip.SendRecv,
			sip.Media{Codec: codec("pcma", 8, ""), RecvPT: 8, Remote: at("192.0.2.9:4000"), RemoteRTCP: at("192.0.2.9:4001")}, nil},
		{"we hold", answer("m=audio 4000 RTP/AVP 8\r\na=recvonly\r\n"), sip.SendOnly,
			sip.Media{Codec: codec("pcma", 8, ""), RecvPT: 8, Remote: at("192.0.2.9:4000"), RemoteRTCP: at("192.0.2.9:4001"), Send: true}, nil},
		{"refused", answer("m=audio 0 RTP/AVP 8\r\n"), sip.SendRecv, sip.Media{}, sip.ErrNoCodec},
		{"other codec", answer("m=audio 4000 RTP/AVP 18\r\na=rtpmap:18 G729/8000\r\n"), sip.SendRecv, sip.Media{}, sip.ErrNoCodec},
		{"other protocol", answer("m=audio 4000 RTP/SAVP 8\r\n"), sip.SendRecv, sip.Media{}, sip.ErrSRTP},
		{"no media", answer(""), sip.SendRecv, sip.Media{}, sip.ErrNoCodec},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := l
			l.Direction = tt.direction
			ans, err := sip.ParseSDP([]byte(tt.answer))
			if err != nil {
				t.Fatal(err)
			}
			m, err := sip.Accept(sip.Offer(l), ans, l)
			if !errors.Is(err, tt.err) {
				t.Fatalf("error %v, want %v", err, tt.err)
			}
			if d := cmp.Diff(tt.want, m, compareAddr); d != "" && err == nil {
				t.Errorf("media (-want +got):\n%s", d)
			}
		})
	}
}

// Comfort noise goes with the codecs of its clock, whoever offers.
func TestComfortNoiseAgreed(t *testing.T) {
	for _, name := range []string{"pcmu", "pcma", "g722", "opus"} {
		for n, both := range []bool{false, true} {
			a, b := localFor("opus g722 pcma pcmu"), localFor(name)
			a.ComfortNoise, b.ComfortNoise = true, both
			offer := sip.Offer(a)
			read, err := sip.ParseSDP(offer.Marshal())
			if err != nil {
				t.Fatal(err)
			}
			ans, mb, err := sip.Answer(read, b)
			if err != nil {
				t.Fatal(err)
			}
			if read, err = sip.ParseSDP(ans.Marshal()); err != nil {
				t.Fatal(err)
			}
			ma, err := sip.Accept(offer, read, a)
			if err != nil {
				t.Fatal(err)
			}
			want := uint8(0)
			if n == 1 && name != "opus" {
				want = 13
			}
			if ma.CNPT != want || ma.RecvCNPT != want || mb.CNPT != want || mb.RecvCNPT != want || ma.Codec.Name != name {
				t.Errorf("%s, %v: %+v\n%+v", name, both, ma, mb)
			}
		}
	}
}

// Every offer of ours can be answered by us, and both sides see the same.
func TestOfferAnswerAgree(t *testing.T) {
	dirs := []sip.Direction{sip.SendRecv, sip.SendOnly, sip.RecvOnly, sip.Inactive}
	for _, name := range []string{"pcmu", "pcma", "g722", "opus"} {
		for _, da := range dirs {
			for _, db := range dirs {
				a, b := localFor("opus g722 pcma pcmu"), localFor(name)
				a.Direction, b.Direction, b.Port = da, db, 30000
				offer := sip.Offer(a)
				read, err := sip.ParseSDP(offer.Marshal())
				if err != nil {
					t.Fatal(err)
				}
				ans, mb, err := sip.Answer(read, b)
				if err != nil {
					t.Fatal(err)
				}
				read, err = sip.ParseSDP(ans.Marshal())
				if err != nil {
					t.Fatal(err)
				}
				ma, err := sip.Accept(offer, read, a)
				if err != nil {
					t.Fatal(err)
				}
				if ma.Codec.Name != name || ma.Codec.PT != mb.RecvPT || mb.Codec.PT != ma.RecvPT || ma.EventPT != mb.RecvEventPT || ma.EventRate != mb.EventRate ||
					ma.Send != mb.Receive || mb.Send != ma.Receive || !ma.RTCPMux || !mb.RTCPMux || ma.EventPT == 0 {
					t.Errorf("%s %v %v:\n%+v\n%+v", name, da, db, ma, mb)
				}
				if want := da == sip.SendRecv && (db == sip.SendRecv || db == sip.SendOnly) || da == sip.RecvOnly && (db == sip.SendRecv || db == sip.SendOnly); ma.Receive != want {
					t.Errorf("%v %v: receive %v", da, db, ma.Receive)
				}
			}
		}
	}
}

func TestParseSDPErrors(t *testing.T) {
	const head = "v=0\r\no=- 1 1 IN IP4 192.0.2.9\r\ns=-\r\nc=IN IP4 192.0.2.9\r\nt=0 0\r\n"
	const audio = "m=audio 4000 RTP/AVP 0\r\n"
	var formats strings.Builder
	for i := range 65 {
		fmt.Fprintf(&formats, " %d", i)
	}
	for name, s := range map[string]string{
		"empty":             "",
		"version":           "v=1\r\n",
		"no line":           head + "hello\r\n",
		"empty line inside": head + "\r\n" + audio,
		"media short":       head + "m=audio 4000 RTP/AVP\r\n",
		"media port":        head + "m=audio 70000 RTP/AVP 0\r\n",
		"media bytes":       head + "m=audio 4000 RTP/AVP 0\x01\r\n",
		"formats":           head + "m=audio 4000 RTP/AVP" + formats.String() + "\r\n",
		"media lines":       head + strings.Repeat(audio, 17),
		"lines":             head + strings.Repeat("a=x\r\n", 600),
		"bytes":             head + "a=" + strings.Repeat("x", 17000),
		"connection":        "v=0\r\nc=IN IP5 1.2.3.4\r\n",
		"multicast":         head + audio + "c=IN IP4 224.2.1.1/127\r\n",
		"multicast v6":      head + audio + "c=IN IP6 ff02::1\r\n",
		"rtpmap rate":       head + audio + "a=rtpmap:0 PCMU/x\r\n",
		"rtpmap no rate":    head + audio + "a=rtpmap:0 PCMU\r\n",
		"rtpmap channels":   head + audio + "a=rtpmap:0 PCMU/8000/0\r\n",
		"rtcp":              head + audio + "a=rtcp:99999\r\n",
		"rtcp address":      head + audio + "a=rtcp:99 IN IP4 224.0.0.1\r\n",
	} {
		if _, err := sip.ParseSDP([]byte(s)); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	// What is odd but harmless.
	for name, s := range map[string]string{
		"only v":     "v=0",
		"no origin":  "v=0\r\nc=IN IP4 1.2.3.4\r\n" + audio,
		"zero byte":  head + audio + "\x00",
		"attributes": head + audio + "a=rtpmap:300 X/1\r\na=rtpmap:\r\na=fmtp:x\r\na=rtcp:\r\na=ptime:nan\r\na=ptime:99999\r\na=\r\na=:\r\n",
		"bandwidth":  head + "b=AS:64\r\nk=clear:x\r\n" + audio,
	} {
		if _, err := sip.ParseSDP([]byte(s)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
