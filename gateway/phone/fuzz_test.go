package phone

import (
	"bytes"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"brewline/media"
	"brewline/sip"
)

// willing is audio that takes every leg it is right to attach.
type willing struct {
	Audio
	t   *testing.T
	has *media.PhoneLeg
}

func (w *willing) AttachPhone(l media.PhoneLeg) error {
	if w.has != nil {
		w.t.Fatal("attached twice")
	}
	if l.Conn == nil || l.Codec == "" || l.SendPT > 127 || l.RecvPT > 127 || l.EventPT > 127 || l.RecvEventPT > 127 || l.CNPT > 127 ||
		l.Ptime <= 0 || l.EventPT != 0 && l.EventPT == l.SendPT {
		w.t.Fatalf("attached %+v", l)
	}
	w.has = &l
	return nil
}

func (w *willing) UpdatePhone(send, receive bool) {
	if w.has == nil {
		w.t.Fatal("updated without a leg")
	}
	w.has.Send, w.has.Receive = send, receive
}

func (w *willing) DetachPhone() {
	if w.has == nil {
		w.t.Fatal("detached twice")
	}
	w.has = nil
}

// FuzzLeg has a phone offer twice and answer an offer of ours, down to the
// sockets: a session is as was agreed, or as it was before, and never less
// protected than it must be.
func FuzzLeg(f *testing.F) {
	files, err := filepath.Glob("../../sip/testdata/sdp/*")
	if err != nil || len(files) == 0 {
		f.Fatal("no seeds", err)
	}
	var all [][]byte
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		all = append(all, bytes.ReplaceAll(b, []byte("192.0.2."), []byte("127.0.0.")))
	}
	for i, b := range all {
		f.Add(b, b, uint8(i))
		f.Add(b, all[(i+1)%len(all)], uint8(i))
	}
	here := netip.MustParseAddr("127.0.0.1")
	modes := []string{"off", "optional", "required"}
	f.Fuzz(func(t *testing.T, first, second []byte, policy uint8) {
		audio := &willing{t: t}
		l := newLeg(Options{
			Codecs: []string{"opus", "g722", "pcma", "pcmu"}, Ptime: 20 * time.Millisecond, Audio: audio, Bind: here, ComfortNoise: true,
			SRTP: modes[policy%3], Keys: []string{"sdes", "dtls"}[policy>>2&1], Logger: slog.New(slog.DiscardHandler),
		}, here)
		l.peer = netip.AddrPortFrom(here, 5060)
		if err := l.open(); err != nil {
			t.Fatal(err)
		}
		defer func() {
			if l.Close(); audio.has != nil {
				t.Fatal("still attached")
			}
		}()
		l.live = policy&8 == 0
		check := func(err error, before string) {
			t.Helper()
			if err != nil {
				if now := l.state(); now != before {
					t.Fatalf("after %v the session is\n%s\nand was\n%s", err, now, before)
				}
				return
			}
			m := l.media
			if encrypted := m.Keys != nil || m.DTLS != nil; encrypted && l.local.SRTP == sip.SRTPOff || !encrypted && l.local.SRTP == sip.SRTPRequired {
				t.Fatalf("with srtp = %s is agreed on %+v", l.o.SRTP, m)
			}
			if l.live && (audio.has == nil || audio.has.Send != m.Send) {
				t.Fatalf("%+v is attached as %+v", m, audio.has)
			}
		}
		for _, raw := range [][]byte{first, second} {
			before := l.state()
			_, err := l.reoffer(raw)
			check(err, before)
		}
		if _, err := l.offer(); err != nil {
			t.Fatal(err)
		}
		l.live = true
		if err := l.accepted(second); err == nil {
			check(nil, "")
		}
	})
}

// state is what a session has come to.
func (l *Leg) state() string {
	attached := media.PhoneLeg{}
	if l.attached != nil {
		attached = *l.attached
	}
	attached.Conn = nil
	var m sip.Media
	if l.media != nil {
		m = *l.media
	}
	return fmt.Sprintf("%+v\n%+v\n%s\n%v %d", m, attached, l.answer, reflect.ValueOf(l.last).Pointer(), l.local.Version)
}
