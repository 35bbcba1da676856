package media

import (
	"testing"
	"time"

	"go.uber.org/goleak"

	"brewline/internal/tone"
	"brewline/media/codec"
	"brewline/media/transport"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// conn is a leg without a network.
type conn struct {
	ring      *transport.Ring
	rtp, rtcp [][]byte
	at        []time.Duration // of rtp
	now       *time.Duration
	discard   bool
	sent      int
}

func newConn(now *time.Duration) *conn { return &conn{ring: transport.NewRing(), now: now} }

func (c *conn) Ring() *transport.Ring { return c.ring }

func (c *conn) SendRTP(p []byte) error {
	c.sent++
	if cap(p)-len(p) < transport.Overhead {
		panic("no room for the SRTP tag")
	}
	if !c.discard {
		c.rtp = append(c.rtp, append([]byte(nil), p...))
		c.at = append(c.at, *c.now)
	}
	return nil
}

func (c *conn) SendRTCP(p []byte) error {
	if cap(p)-len(p) < transport.Overhead {
		panic("no room for the SRTCP tag")
	}
	if !c.discard {
		c.rtcp = append(c.rtcp, append([]byte(nil), p...))
	}
	return nil
}

// talker makes one RTP stream.
type talker struct {
	pt      uint8
	ssrc    uint32
	seq     uint16
	ts      uint32
	clock   int
	rate    int
	ms      int // per packet
	enc     codec.Encoder
	pcm     []int16 // still to be said
	levelID uint8
	level   int // -1: as it is
}

func newTalker(t testing.TB, name string, pt uint8, ssrc uint32, ms int) *talker {
	t.Helper()
	c, _ := codec.ByName(name)
	if pt == testOpusPT {
		c.Rate = 16000 // enough for our tones, and quick
	}
	enc, err := c.NewEncoder(codec.OpusOptions{Complexity: 1, Loss: 10})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(enc.Close)
	return &talker{pt: pt, ssrc: ssrc, seq: 65530, ts: 1<<32 - 4000, clock: c.Clock, rate: c.Rate, ms: ms, enc: enc, level: -1}
}

// packet is the next one of what is to be said, silence at its end.
func (k *talker) packet() []byte {
	n := k.rate * k.ms / 1000
	frame := make([]int16, n)
	k.pcm = k.pcm[copy(frame, k.pcm):]
	b := make([]byte, 1500)
	h := putRTP(b, k.pt, false, k.seq, k.ts, k.ssrc)
	if k.levelID != 0 {
		level := audioLevel(frame)
		if k.level >= 0 {
			level = uint8(k.level)
		}
		h = putLevel(b, h, k.levelID, level, true)
	}
	m, err := k.enc.Encode(b[h:], frame)
	if err != nil {
		panic(err)
	}
	k.seq++
	k.ts += uint32(k.clock * k.ms / 1000)
	return b[:h+m]
}

// ear decodes one RTP stream, conceals nothing, and puts every packet where
// its timestamp says.
type ear struct {
	clock, rate int
	pcm         []int16
	packets     []rtpPacket
	levels      []int
}

func listen(t testing.TB, name string, rate int, packets [][]byte, levelID uint8) *ear {
	t.Helper()
	c, _ := codec.ByName(name)
	if rate != 0 {
		c.Rate = rate
	}
	dec, err := c.NewDecoder()
	if err != nil {
		t.Fatal(err)
	}
	defer dec.Close()
	e := &ear{clock: c.Clock, rate: c.Rate}
	var first uint32
	buf := make([]int16, c.Rate*codec.MaxPacket/1000)
	for i, b := range packets {
		p, ok := parseRTP(b)
		if !ok {
			t.Fatalf("packet %d is not RTP: % x", i, b)
		}
		if i == 0 {
			first = p.ts
		}
		level := -1
		if v, ok := p.audioLevel(levelID); ok {
			level = int(v)
		}
		e.packets, e.levels = append(e.packets, p), append(e.levels, level)
		n, err := dec.Decode(buf, p.payload)
		if err != nil {
			t.Fatalf("packet %d: %v", i, err)
		}
		at := int(int64(p.ts-first) * int64(c.Rate) / int64(c.Clock))
		for len(e.pcm) < at {
			e.pcm = append(e.pcm, 0)
		}
		e.pcm = append(e.pcm[:at], buf[:n]...)
	}
	return e
}

// call is a bridge with both legs and a clock of its own.
type call struct {
	t      testing.TB
	now    time.Duration
	pacer  *Pacer
	bridge *Bridge
	phone  *conn
	conf   *conn
	name   string
	// arrive is called for every millisecond before the tick that it may
	// bring.
	arrive []func(now time.Duration)
}

const (
	testOpusPT = 111
	testLevel  = 1
)

func newCall(t testing.TB, name string, ptime time.Duration) *call {
	t.Helper()
	c := &call{t: t, now: time.Second, name: name, pacer: NewPacer(PacerOptions{Workers: -1})}
	c.pacer.Tick(c.now)
	c.phone, c.conf = newConn(&c.now), newConn(&c.now)
	c.bridge = c.pacer.NewBridge(BridgeOptions{})
	t.Cleanup(func() { c.bridge.Close(); c.pacer.Close() })
	c.attachPhone(ptime)
	if err := c.bridge.AttachConference(ConferenceLeg{
		Conn: c.conf, OpusPT: testOpusPT, AudioLevelID: testLevel, SSRC: 7777, CNAME: "conference",
	}); err != nil {
		t.Fatal(err)
	}
	return c
}

func (c *call) attachPhone(ptime time.Duration) {
	c.t.Helper()
	if err := c.bridge.AttachPhone(PhoneLeg{
		Conn: c.phone, Codec: c.name, SendPT: phonePT(c.name), RecvPT: phonePT(c.name),
		EventPT: 101, RecvEventPT: 101, EventRate: 8000, Ptime: ptime,
		Send: true, Receive: true, SSRC: 4242, CNAME: "phone",
	}); err != nil {
		c.t.Fatal(err)
	}
}

func phonePT(name string) uint8 {
	return map[string]uint8{"pcmu": 0, "pcma": 8, "g722": 9, "opus": 96}[name]
}

// every has f called each period, beginning at offset from now.
func (c *call) every(period, offset time.Duration, f func(now time.Duration)) {
	next := c.now + offset
	c.arrive = append(c.arrive, func(now time.Duration) {
		for ; next <= now; next += period {
			f(next)
		}
	})
}

// says has a talker's packets arrive on a conn, offset after now.
func (c *call) says(k *talker, to *conn, offset time.Duration) {
	c.every(time.Duration(k.ms)*time.Millisecond, offset, func(now time.Duration) {
		to.ring.Push(k.packet(), now, false)
	})
}

// run lets d pass, a millisecond at a time.
func (c *call) run(d time.Duration) {
	for end := c.now + d; c.now < end; {
		c.now += time.Millisecond
		for _, f := range c.arrive {
			f(c.now)
		}
		c.pacer.Tick(c.now)
	}
}

func sine(freq, rate int, d time.Duration) []int16 { return tone.Sine(freq, rate, d, 0.3) }

// hears fails unless the last part of pcm is mostly freq.
func hears(t testing.TB, what string, pcm []int16, rate, freq int) {
	t.Helper()
	n := min(len(pcm), rate/2)
	if l := tone.Level(pcm[len(pcm)-n:], rate, freq); l < 0.9 {
		t.Errorf("%s: %d Hz is %.2f of what is heard (%.0f dBFS)", what, freq, l, tone.RMS(pcm[len(pcm)-n:]))
	}
}
