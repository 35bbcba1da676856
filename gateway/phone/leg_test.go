package phone

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"brewline/media"
	"brewline/media/transport"
	"brewline/sip"
)

// counted is audio that has only statistics.
type counted struct {
	Audio
	s media.Stats
}

func (c counted) Stats() media.Stats { return c.s }

// Hold and comfort noise are told from a phone that is gone.
func TestSilent(t *testing.T) {
	now := transport.Now() + time.Hour
	for name, tt := range map[string]struct {
		send, receive, comfort bool
		last                   time.Duration
		least, most            time.Duration
	}{
		"talks":                   {true, true, false, 0, 0, time.Second},
		"gone":                    {true, true, false, time.Minute, time.Minute, 61 * time.Second},
		"makes noise":             {true, true, true, time.Minute, 6 * time.Second, 7 * time.Second},
		"holds, sendonly":         {false, true, false, time.Hour, 0, 0},
		"holds, inactive":         {false, false, false, time.Hour, 0, 0},
		"listens only":            {true, false, false, time.Hour, 0, 0},
		"says by RTCP it is here": {true, true, false, 2 * time.Second, 2 * time.Second, 3 * time.Second},
	} {
		l := &Leg{media: &sip.Media{Send: tt.send, Receive: tt.receive}}
		l.since = -now
		l.o.Audio = counted{s: media.Stats{LastFromPhone: transport.Now() - tt.last, Comfort: tt.comfort}}
		if got := l.Silent(); got < tt.least || got > tt.most {
			t.Errorf("%s: silent for %v", name, got)
		}
	}
	if got := (&Leg{}).Silent(); got != 0 {
		t.Errorf("silent for %v before there is media", got)
	}
}

// What the phone asks for goes before what is configured, and neither beyond
// what it takes.
func TestPacketTime(t *testing.T) {
	const ms = time.Millisecond
	l := &Leg{o: Options{Ptime: 40 * ms}}
	for _, tt := range []struct{ ptime, maxPtime, want time.Duration }{
		{0, 0, 40 * ms}, {20 * ms, 0, 20 * ms}, {60 * ms, 0, 60 * ms}, {0, 150 * ms, 40 * ms},
		{0, 20 * ms, 20 * ms}, {60 * ms, 30 * ms, 30 * ms}, {10 * ms, 30 * ms, 10 * ms},
	} {
		if got := l.packetTime(&sip.Media{Ptime: tt.ptime, MaxPtime: tt.maxPtime}); got != tt.want {
			t.Errorf("ptime %v, maxptime %v: %v, not %v", tt.ptime, tt.maxPtime, got, tt.want)
		}
	}
}

// picky is audio that takes one codec only.
type picky struct {
	Audio
	codec string
	has   *media.PhoneLeg
}

func (p *picky) AttachPhone(l media.PhoneLeg) error {
	if l.Codec != p.codec {
		return errors.New("no such codec")
	}
	p.has = &l
	return nil
}
func (p *picky) UpdatePhone(send, receive bool) { p.has.Send, p.has.Receive = send, receive }
func (p *picky) DetachPhone()                   { p.has = nil }

// An offer that cannot be taken leaves the session as it was.
func TestRefusedReoffer(t *testing.T) {
	audio := &picky{codec: "pcma"}
	l := newLeg(Options{Codecs: []string{"pcma", "pcmu"}, Audio: audio, Bind: netip.MustParseAddr("127.0.0.1"), Logger: slog.New(slog.DiscardHandler)},
		netip.MustParseAddr("127.0.0.1"))
	if err := l.open(); err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	offer := func(port int, line string) []byte {
		return fmt.Appendf(nil, "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio %d RTP/AVP %s\r\n", port, line)
	}
	l.live = true
	first, err := l.reoffer(offer(4000, "8"))
	if err != nil {
		t.Fatal(err)
	}
	agreed, leg := *l.media, *audio.has
	for name, raw := range map[string][]byte{
		"audio that cannot be had": offer(5000, "0"), "no common codec": offer(5000, "18"), "not a description": []byte("v=1"),
		"fax (T.38) alone":           bytes.ReplaceAll(offer(5000, "t38"), []byte("audio 5000 RTP/AVP"), []byte("image 5000 udptl")),
		"fax in the place of audio":  append(offer(0, "8"), "m=image 5000 udptl t38\r\n"...),
		"a family that there is not": bytes.ReplaceAll(offer(5000, "8"), []byte("IP4 127.0.0.1"), []byte("IP6 2001:db8::1")),
	} {
		if _, err := l.reoffer(raw); err == nil {
			t.Errorf("%s is taken", name)
		}
		if !reflect.DeepEqual(*l.media, agreed) || audio.has == nil || *audio.has != leg || string(l.answer) != string(first) || l.conn.Remote().Port() != 4000 {
			t.Errorf("%s: the session is %+v, audio %+v towards %s", name, *l.media, audio.has, l.conn.Remote())
		}
	}
	if _, err := l.reoffer(offer(4000, "8\r\na=sendonly")); err != nil || audio.has.Send || !strings.Contains(string(l.answer), "a=recvonly") {
		t.Errorf("hold after all that: %v, %+v\n%s", err, audio.has, l.answer)
	}
}
