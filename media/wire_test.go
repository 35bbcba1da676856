package media

import (
	"bytes"
	"encoding/hex"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/pion/rtcp"
	"github.com/pion/rtp"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestParseRTP(t *testing.T) {
	const header = "6f 0001 00000002 00000003"
	for _, v := range []struct {
		name    string
		packet  string
		ok      bool
		payload string
		level   int // of extension 1, -1 none
	}{
		{"plain", "80" + header + "aabb", true, "aabb", -1},
		{"empty", "80" + header, true, "", -1},
		{"short", "806f00010000000200000", false, "", -1},
		{"nothing", "", false, "", -1},
		{"version 1", "40" + header, false, "", -1},
		{"two CSRCs", "82" + header + "1111111122222222aa", true, "aa", -1},
		{"CSRCs cut", "82" + header + "11111111222222", false, "", -1},
		{"padded", "a0" + header + "aabb0002", true, "aabb", -1},
		{"all padding", "a0" + header + "000003", true, "", -1},
		{"padded by 0", "a0" + header + "aabb0000", false, "", -1},
		{"padded too much", "a0" + header + "aabb0005", false, "", -1},
		{"padded, empty", "a0" + header, false, "", -1},
		{"level", "90" + header + "bede0001 10850000 aa", true, "aa", 5},
		{"level after others", "90" + header + "bede0002 31ffff00 10ff0000 aa", true, "aa", 127},
		{"other id", "90" + header + "bede0001 20850000 aa", true, "aa", -1},
		{"after id 15", "90" + header + "bede0002 f0000000 10850000 aa", true, "aa", -1},
		{"element cut", "90" + header + "bede0001 00000017 aa", true, "aa", -1},
		{"two-byte form", "90" + header + "10000001 01018500 aa", true, "aa", 5},
		{"two-byte form, empty element", "90" + header + "10000001 01000000 aa", true, "aa", -1},
		{"two-byte form, cut", "90" + header + "10000001 02090000 aa", true, "aa", -1},
		{"two-byte form, appbits", "90" + header + "100f0002 02000300 01014200 aa", true, "aa", 0x42},
		{"another form", "90" + header + "abcd0001 10850000 aa", true, "aa", -1},
		{"extension cut", "90" + header + "bede0002 10850000", false, "", -1},
		{"extension header cut", "90" + header + "bede", false, "", -1},
	} {
		packet := bytes.ReplaceAll([]byte(v.packet), []byte(" "), nil)
		p, ok := parseRTP(unhex(t, string(packet[:len(packet)&^1])))
		if ok != v.ok {
			t.Errorf("%s: accepted %v", v.name, ok)
			continue
		}
		if !ok {
			continue
		}
		if p.pt != 111 || p.seq != 1 || p.ts != 2 || p.ssrc != 3 || hex.EncodeToString(p.payload) != v.payload {
			t.Errorf("%s: %+v", v.name, p)
		}
		level := -1
		if l, ok := p.audioLevel(1); ok {
			level = int(l)
		}
		if level != v.level {
			t.Errorf("%s: level %d, want %d", v.name, level, v.level)
		}
	}
}

// What we write is what another implementation reads.
func TestWriteRTP(t *testing.T) {
	b := make([]byte, 100)
	n := putRTP(b, 111, true, 7, 8, 9)
	n = putLevel(b, n, 5, 33, true)
	n += copy(b[n:], "payload")
	var p rtp.Packet
	if err := p.Unmarshal(b[:n]); err != nil {
		t.Fatal(err)
	}
	var level rtp.AudioLevelExtension
	if err := level.Unmarshal(p.GetExtension(5)); err != nil || level.Level != 33 || !level.Voice {
		t.Errorf("level %+v, %v", level, err)
	}
	if p.PayloadType != 111 || !p.Marker || p.SequenceNumber != 7 || p.Timestamp != 8 || p.SSRC != 9 || string(p.Payload) != "payload" {
		t.Errorf("%v", p)
	}
}

// collector notes what a compound packet tells.
type collector struct {
	senders, byes []uint32
	ntp           uint64
	reports       map[uint32]reportBlock
}

func (c *collector) senderReport(ssrc uint32, ntp uint64, _ uint32) {
	c.senders, c.ntp = append(c.senders, ssrc), ntp
}
func (c *collector) reportOf(ssrc uint32, r reportBlock) {
	if c.reports == nil {
		c.reports = map[uint32]reportBlock{}
	}
	c.reports[ssrc] = r
}
func (c *collector) bye(ssrc uint32) { c.byes = append(c.byes, ssrc) }

func TestParseRTCP(t *testing.T) {
	whole, err := rtcp.Marshal([]rtcp.Packet{
		&rtcp.SenderReport{SSRC: 1, NTPTime: 0x123456789abcdef0, Reports: []rtcp.ReceptionReport{
			{SSRC: 7, FractionLost: 64, TotalLost: 5, LastSequenceNumber: 99, Jitter: 3, LastSenderReport: 11, Delay: 12},
			{SSRC: 8},
		}},
		rtcp.NewCNAMESourceDescription(1, "x"),
		&rtcp.ReceiverReport{SSRC: 2, Reports: []rtcp.ReceptionReport{{SSRC: 9, FractionLost: 1}}},
		&rtcp.TransportLayerNack{SenderSSRC: 1, MediaSSRC: 7, Nacks: []rtcp.NackPair{{PacketID: 1}}},
		&rtcp.Goodbye{Sources: []uint32{1, 4}, Reason: "bye"},
	})
	if err != nil {
		t.Fatal(err)
	}
	var c collector
	if !parseRTCP(whole, &c) {
		t.Fatal("refused")
	}
	want := reportBlock{fraction: 64, lost: 5, highest: 99, jitter: 3, lastSR: 11, delaySR: 12}
	if len(c.reports) != 3 || c.reports[7] != want || c.reports[9].fraction != 1 ||
		c.ntp != 0x123456789abcdef0 || len(c.byes) != 2 || c.byes[1] != 4 {
		t.Errorf("%+v", c)
	}
	// Cut anywhere but between its packets it is refused.
	for n := range whole {
		ok := parseRTCP(whole[:n], &collector{})
		if ok != (n == 76 || n == 88 || n == 120 || n == 136) {
			t.Errorf("cut to %d bytes: accepted %v", n, ok)
		}
	}
	for _, s := range []string{
		"", "80", "80c80006000000010000000000000000",
		"81c9000100000001", // a block promised
		"a0c9000100000000", // padded by 0
		"a0c90001000000ff", // padded too much
		"83cb000100000001", // three goodbyes promised
		"00c9000100000001", // version 0
	} {
		if parseRTCP(unhex(t, s), &collector{}) {
			t.Errorf("%s accepted", s)
		}
	}
}

// Our reports, read by another implementation: both legs, on time, and right.
func TestReports(t *testing.T) {
	c := newCall(t, "pcmu", 20*time.Millisecond)
	k := newTalker(t, "pcmu", 0, 1, 20)
	k.pcm = syllables(8000, 30*time.Second)
	c.through(k, c.phone, 5, lossy(0.2))
	c.web(10, 1000, 0.3, 3*time.Millisecond)
	sr, _ := rtcp.Marshal([]rtcp.Packet{&rtcp.SenderReport{SSRC: 10, NTPTime: 0x1111222233334444}})
	c.conf.ring.Push(sr, c.now, true)
	var last time.Duration
	var gaps []time.Duration
	seen := 0
	c.arrive = append(c.arrive, func(now time.Duration) {
		if n := len(c.conf.rtcp); n > seen {
			gaps, last, seen = append(gaps, now-last), now, n
		}
	})
	c.run(200 * time.Millisecond)
	c.conf.ring.Push(sr, c.now, true) // now that the source is known
	c.run(19800 * time.Millisecond)
	for _, gap := range gaps[1:] {
		if gap < 900*time.Millisecond || gap > 3*time.Second {
			t.Errorf("reports %v apart", gap)
		}
	}
	if n := len(c.conf.rtcp); n < 7 || n > 20 {
		t.Errorf("%d reports in 20 s", n)
	}
	check := func(name string, b []byte, ssrc, source uint32, cname string) rtcp.ReceptionReport {
		packets, err := rtcp.Unmarshal(b)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if err := rtcp.CompoundPacket(packets).Validate(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		s, ok := packets[0].(*rtcp.SenderReport)
		if !ok || s.SSRC != ssrc || s.PacketCount == 0 || s.OctetCount == 0 || len(s.Reports) != 1 || s.Reports[0].SSRC != source {
			t.Fatalf("%s: %+v", name, packets)
		}
		if wall := ntpTime(time.Now()); int64(s.NTPTime-wall)>>32 > 60 {
			t.Errorf("%s: NTP time %x, now is %x", name, s.NTPTime, wall)
		}
		if got, _ := rtcp.CompoundPacket(packets).CNAME(); got != cname {
			t.Errorf("%s: CNAME %q", name, got)
		}
		return s.Reports[0]
	}
	r := check("phone", c.phone.rtcp[len(c.phone.rtcp)-1], 4242, 1, "phone")
	if lost := c.bridge.Stats().Phone.Lost; r.TotalLost < 100 || uint64(r.TotalLost) > lost || r.LastSequenceNumber < 65530+840 { // the last report is up to 3 s old
		t.Errorf("phone: %+v, lost %d", r, lost)
	}
	r = check("videobridge", c.conf.rtcp[len(c.conf.rtcp)-1], 7777, 10, "conference")
	if r.TotalLost != 0 || r.LastSenderReport != 0x22223333 || r.Delay == 0 {
		t.Errorf("videobridge: %+v", r)
	}
	// Nothing sent: a receiver report.
	c.arrive = nil
	c.run(8 * time.Second)
	packets, err := rtcp.Unmarshal(c.conf.rtcp[len(c.conf.rtcp)-1])
	if _, ok := packets[0].(*rtcp.ReceiverReport); err != nil || !ok {
		t.Errorf("%+v, %v", packets, err)
	}
}

// Reports of our stream are believed: the FEC follows the loss they tell of.
func TestReportsOfUs(t *testing.T) {
	c := newCall(t, "pcmu", 20*time.Millisecond)
	c.run(time.Second)
	ntp := ntpTime(c.pacer.wall.Add(c.now))
	b, _ := rtcp.Marshal([]rtcp.Packet{&rtcp.ReceiverReport{SSRC: 55, Reports: []rtcp.ReceptionReport{{
		SSRC: 7777, FractionLost: 64, LastSenderReport: uint32((ntp >> 16) - 65536/4), Delay: 65536 / 8,
	}}}})
	c.conf.ring.Push(b, c.now, true)
	c.run(20 * time.Millisecond)
	s := c.bridge.Stats().Conference
	if s.RemoteLoss != 0.25 || s.RoundTrip < 124*time.Millisecond || s.RoundTrip > 126*time.Millisecond {
		t.Errorf("loss %v, round trip %v", s.RemoteLoss, s.RoundTrip)
	}
	// A goodbye takes the source away.
	c.web(10, 1000, 0.3, 0)
	c.run(time.Second)
	c.arrive = nil
	b, _ = rtcp.Marshal([]rtcp.Packet{&rtcp.ReceiverReport{}, &rtcp.Goodbye{Sources: []uint32{10}}})
	c.conf.ring.Push(b, c.now, true)
	c.run(20 * time.Millisecond)
	if n := c.bridge.Stats().Sources; n != 0 {
		t.Errorf("%d sources after the goodbye", n)
	}
}

func FuzzRTP(f *testing.F) {
	f.Add(unhexF("906f00010000000200000003bede000110850000aa"))
	f.Add(unhexF("b26f000100000002000000031111111122222222100000010101850001"))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, ok := parseRTP(b)
		if !ok {
			return
		}
		for id := range 16 {
			p.audioLevel(uint8(id))
		}
		// Where the other implementation accepts it too, both see the same.
		var q rtp.Packet
		if q.Unmarshal(bytes.Clone(b)) == nil && (!bytes.Equal(q.Payload, p.payload) || q.SequenceNumber != p.seq) {
			t.Fatalf("% x\n% x", p.payload, q.Payload)
		}
	})
}

func unhexF(s string) []byte { b, _ := hex.DecodeString(s); return b }

func FuzzRTCP(f *testing.F) {
	b, _ := rtcp.Marshal([]rtcp.Packet{
		&rtcp.SenderReport{SSRC: 1, Reports: []rtcp.ReceptionReport{{SSRC: 7}}},
		rtcp.NewCNAMESourceDescription(1, "x"), &rtcp.Goodbye{Sources: []uint32{1}},
	})
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) { parseRTCP(b, &collector{}) })
}

func FuzzTelephoneEvent(f *testing.F) {
	f.Add([]byte{1, 0x8a, 0, 160, 1, 10, 0, 160}, uint32(5))
	f.Add([]byte{8, 10, 255, 255, 16, 8, 10, 1, 0, 2, 8, 0x8a, 1, 0, 2}, uint32(1<<32-1)) // in segments
	f.Fuzz(func(t *testing.T, b []byte, ts uint32) {
		e := telephoneEvent{rate: 8000}
		for now := time.Duration(0); len(b) > 0; now += 20 * time.Millisecond {
			n := min(len(b), 5)
			p := rtpPacket{payload: b[:min(n, 4)], ts: ts, marker: n == 5 && b[4]&1 != 0}
			switch {
			case n == 5 && b[4]&16 != 0:
				ts += maxSegment
			case b[0]&1 != 0:
				ts += uint32(b[0])
			}
			b = b[n:]
			if digit, d := e.packet(&p, now); digit != 0 && (!bytes.ContainsRune([]byte(digits), rune(digit)) || d < 0) {
				t.Fatalf("%q for %v", digit, d)
			}
			e.idle(now)
		}
	})
}

// FuzzBridge throws packets with hostile numbers and any bytes at both legs.
func FuzzBridge(f *testing.F) {
	f.Add(uint64(1), []byte("\x00\x01\x02\x03\x80\x81\xff"))
	f.Fuzz(func(t *testing.T, seed uint64, script []byte) { hostile(t, seed, script) })
}

func TestHostile(t *testing.T) {
	for seed := range uint64(8) {
		r := rand.New(rand.NewPCG(seed, 2))
		script := make([]byte, 1500)
		for i := range script {
			script[i] = byte(r.Uint32())
		}
		hostile(t, seed, script)
	}
}

func hostile(t *testing.T, seed uint64, script []byte) {
	r := rand.New(rand.NewPCG(seed, 3))
	name := []string{"pcmu", "pcma", "g722", "opus"}[seed%4]
	c := newCall(t, name, time.Duration(1+seed%6)*10*time.Millisecond)
	defer c.bridge.Close()
	c.phone.discard, c.conf.discard = true, true
	if err := c.bridge.AttachPhone(PhoneLeg{
		Conn: c.phone, Codec: name, SendPT: phonePT(name), RecvPT: phonePT(name), EventPT: 101, RecvEventPT: 101,
		CNPT: 13, RecvCNPT: 13, Tones: true, Ptime: time.Duration(1+seed%6) * 10 * time.Millisecond, Send: true, Receive: true,
	}); err != nil {
		t.Fatal(err)
	}
	if err := c.bridge.AttachConference(ConferenceLeg{Conn: c.conf, OpusPT: testOpusPT, EventPT: 126, AudioLevelID: testLevel}); err != nil {
		t.Fatal(err)
	}
	seq, ts := uint16(0), uint32(0)
	payload := make([]byte, 1600)
	for i := range payload {
		payload[i] = byte(r.Uint32())
	}
	for _, op := range script {
		b := make([]byte, 1600)
		to, pt := c.phone, phonePT(name)
		if op&1 != 0 {
			to, pt = c.conf, testOpusPT
		}
		switch op >> 1 & 15 {
		case 0:
			seq += uint16(r.Uint32N(200))
		case 1:
			seq -= uint16(r.Uint32N(200))
		case 2:
			seq = uint16(r.Uint32())
		case 3:
			ts = r.Uint32()
		case 4:
			ts -= r.Uint32N(48000)
		case 5:
			ts += r.Uint32N(48000)
		case 6:
			pt = uint8(r.Uint32N(128))
		case 7:
			if pt = 101; to == c.conf {
				pt = 126
			}
		case 9:
			pt = ptCN
		case 10:
			c.bridge.SendDigit(digits[r.Uint32N(16)], time.Duration(r.Int64N(int64(time.Second))), op&64 != 0)
		case 8:
			c.now += time.Duration(r.Int64N(int64(300 * time.Millisecond)))
		default:
			seq++
			ts += 960
		}
		h := putRTP(b, pt, false, seq, ts, 1+r.Uint32N(3)*r.Uint32N(60))
		if op&32 != 0 {
			h = putLevel(b, h, testLevel, uint8(r.Uint32N(128)), false)
		}
		n := []int{0, 1, 4, 40, 160, 320, 1275, 1400}[r.Uint32N(8)]
		off := int(r.Uint32N(100))
		h += copy(b[h:], payload[off:off+n])
		if r.Uint32N(20) == 0 {
			b = payload[off : off+n]
			h = n
		}
		if h > 1500 {
			h = 1500
		}
		to.ring.Push(b[:h], c.now, op&0xe0 == 0xe0)
		c.now += time.Duration(r.Int64N(int64(10 * time.Millisecond)))
		c.pacer.Tick(c.now)
	}
	s := c.bridge.Stats()
	if s.Sources > maxSources || s.Decoders > maxDecoders {
		t.Errorf("seed %d: %d sources, %d decoders", seed, s.Sources, s.Decoders)
	}
	c.bridge.Close()
	if p := &c.bridge.pool; len(p.small) != p.made[0] || len(p.large) != p.made[1] {
		t.Errorf("seed %d: %d of %d small buffers came back, %d of %d large", seed, len(p.small), p.made[0], len(p.large), p.made[1])
	}
}
