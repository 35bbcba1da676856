package media

import (
	"encoding/binary"
	"slices"
	"testing"
	"time"

	"brewline/internal/tone"
)

// speaker adds what the phone says.
func (c *call) speaker(pcm []int16, offset time.Duration) *talker {
	k := newTalker(c.t, c.name, phonePT(c.name), 1, 20)
	k.pcm = pcm
	c.says(k, c.phone, offset)
	return k
}

// Silence is not encoded, and what follows has the right time and a marker.
func TestSilenceIsNotSent(t *testing.T) {
	c := newCall(t, "pcmu", 20*time.Millisecond)
	speech := sine(440, 8000, 300*time.Millisecond)
	pcm := slices.Concat(speech, make([]int16, 8000), speech)
	c.speaker(pcm, 5*time.Millisecond)
	c.run(2 * time.Second)

	e := listen(t, "opus", 8000, c.conf.rtp, testLevel)
	var levels []int
	gap := -1
	for i := range e.packets {
		if i > 0 && e.packets[i].ts-e.packets[i-1].ts != 960 {
			if gap >= 0 {
				t.Fatal("more than one gap")
			}
			gap = i
			if e.packets[i].seq != e.packets[i-1].seq+1 {
				t.Errorf("sequence %d after %d", e.packets[i].seq, e.packets[i-1].seq)
			}
		}
		if e.packets[i].marker != (i == 0 || i == gap) {
			t.Errorf("packet %d: marker %v", i, e.packets[i].marker)
		}
		levels = append(levels, e.levels[i])
	}
	if gap < 0 {
		t.Fatal("silence was sent all along")
	}
	if want := []int{127, 127, 127}; !slices.Equal(levels[gap-3:gap], want) {
		t.Errorf("before the gap come %v", levels[gap-3:gap])
	}
	if levels[gap-4] > 20 || levels[gap] > 20 {
		t.Errorf("levels around: %v", levels)
	}
	// The second burst is where it was: 1.3 s after the first.
	onset := func(from int) int {
		for i := from; i+80 <= len(e.pcm); i += 8 {
			if tone.RMS(e.pcm[i:i+80]) > -25 {
				return i
			}
		}
		return -1
	}
	first := onset(0)
	second := onset(first + 8000)
	if d := second - first - 8*1300; d < -40 || d > 40 {
		t.Errorf("the second burst is %d samples from where it should be", d)
	}
	if s := c.bridge.Stats(); s.FramesEncoded > 40 || s.Conference.RTCPOut == 0 {
		t.Errorf("%d frames encoded, %d RTCP packets sent", s.FramesEncoded, s.Conference.RTCPOut)
	}
}

// Level and voice bit are what RFC 6464 says of the PCM.
func TestLevelIsHonest(t *testing.T) {
	for _, v := range []struct {
		amp  float64
		want int
	}{{1, 3}, {0.1, 23}, {0.01, 43}, {0.002, 57}} {
		c := newCall(t, "opus", 20*time.Millisecond)
		c.speaker(tone.Sine(440, 48000, time.Second, v.amp), 5*time.Millisecond)
		c.run(900 * time.Millisecond)
		e := listen(t, "opus", 8000, c.conf.rtp, testLevel)
		if got := e.levels[len(e.levels)-1]; got < v.want-1 || got > v.want+1 {
			t.Errorf("a sine of %g has level %d, want %d", v.amp, got, v.want)
		}
		if ext := e.packets[len(e.packets)-1].ext; ext[1]&0x80 == 0 {
			t.Errorf("a sine of %g is not marked as voice", v.amp)
		}
	}
}

func TestMute(t *testing.T) {
	c := newCall(t, "pcmu", 20*time.Millisecond)
	c.speaker(sine(440, 8000, 10*time.Second), 5*time.Millisecond)
	c.run(time.Second)
	c.bridge.SetMuted(true)
	sent := c.conf.sent
	c.run(time.Second)
	if n := c.conf.sent - sent; n != silenceSent {
		t.Errorf("%d packets sent while muted, want %d", n, silenceSent)
	}
	e := listen(t, "opus", 8000, c.conf.rtp[sent:], testLevel)
	if want := []int{127, 127, 127}; !slices.Equal(e.levels, want) {
		t.Errorf("with levels %v", e.levels)
	}
	c.bridge.SetMuted(false)
	c.run(time.Second)
	e = listen(t, "opus", 8000, c.conf.rtp[sent:], testLevel)
	hears(t, "after the mute", e.pcm, 8000, 440)
	if n := c.conf.sent - sent; n < 50 {
		t.Errorf("%d packets sent after the mute", n)
	}
	if s := c.bridge.Stats(); s.Phone.Concealed != 0 || s.Phone.Lost != 0 {
		t.Errorf("%+v", s.Phone)
	}
}

func TestHold(t *testing.T) {
	c := newCall(t, "pcma", 20*time.Millisecond)
	c.speaker(sine(440, 8000, 10*time.Second), 5*time.Millisecond)
	c.web(10, 1000, 0.3, 3*time.Millisecond)
	c.run(time.Second)
	c.bridge.UpdatePhone(false, false)
	down, up, reports := c.phone.sent, c.conf.sent, len(c.phone.rtcp)
	c.run(4 * time.Second)
	if c.phone.sent != down {
		t.Errorf("%d packets sent to the held phone", c.phone.sent-down)
	}
	if n := c.conf.sent - up; n > silenceSent {
		t.Errorf("%d packets sent to the videobridge", n)
	}
	if n := len(c.phone.rtcp) - reports; n < 1 {
		t.Error("no RTCP to the held phone")
	}
	c.bridge.UpdatePhone(true, true)
	c.run(time.Second)
	first := listen(t, "pcma", 0, c.phone.rtp, 0).packets
	if d := first[down].ts - first[down-1].ts; !first[down].marker || d < 8*3900 || d > 8*4100 {
		t.Errorf("after the hold: marker %v, timestamp %d on", first[down].marker, d)
	}
	pcm, rate := c.heardDown(500 * time.Millisecond)
	hears(t, "the phone after the hold", pcm, rate, 1000)
	e := listen(t, "opus", 8000, c.conf.rtp[up:], testLevel)
	hears(t, "the videobridge after the hold", e.pcm, 8000, 440)
}

// Another leg in place of the first: a bridge that moved, a phone that changed
// its codec.
func TestReplaceLegs(t *testing.T) {
	c := newCall(t, "pcmu", 20*time.Millisecond)
	k := c.speaker(sine(440, 8000, 10*time.Second), 5*time.Millisecond)
	c.web(10, 1000, 0.3, 3*time.Millisecond)
	c.run(500 * time.Millisecond)
	old := c.conf
	c.bridge.DetachConference()
	if n := len(old.rtcp); n == 0 || !slices.Contains(kinds(old.rtcp[n-1]), rtcpBye) {
		t.Error("no BYE to the old videobridge")
	}
	sent := old.sent
	c.run(500 * time.Millisecond)
	if old.sent != sent {
		t.Errorf("%d packets sent to a detached leg", old.sent-sent)
	}
	// The phone hears silence meanwhile, steadily.
	if n := c.phone.sent; n < 48 || n > 51 {
		t.Errorf("%d packets to the phone in a second", n)
	}
	c.conf = newConn(&c.now)
	c.arrive = nil
	c.says(k, c.phone, 5*time.Millisecond)
	c.web(11, 1300, 0.3, 8*time.Millisecond)
	if err := c.bridge.AttachConference(ConferenceLeg{Conn: c.conf, OpusPT: testOpusPT, AudioLevelID: testLevel, SSRC: 8888}); err != nil {
		t.Fatal(err)
	}
	c.run(time.Second)
	e := listen(t, "opus", 8000, c.conf.rtp, testLevel)
	hears(t, "the new videobridge", e.pcm, 8000, 440)
	if e.packets[0].ssrc != 8888 || !e.packets[0].marker {
		t.Errorf("begins with %+v", e.packets[0])
	}
	pcm, rate := c.heardDown(500 * time.Millisecond)
	hears(t, "the phone", pcm, rate, 1300)

	// The phone goes over to Opus.
	before, _ := parseRTP(c.phone.rtp[len(c.phone.rtp)-1])
	c.phone, c.name = newConn(&c.now), "opus"
	c.attachPhone(20 * time.Millisecond)
	c.arrive = c.arrive[1:]
	c.speaker(sine(700, 48000, 5*time.Second), time.Millisecond)
	c.run(time.Second)
	pcm, rate = c.heardDown(500 * time.Millisecond)
	hears(t, "the phone in Opus", pcm, rate, 1300)
	after, _ := parseRTP(c.phone.rtp[0])
	if after.seq != before.seq+1 || after.ssrc != before.ssrc {
		t.Errorf("goes on with SSRC %d, sequence %d after %d, %d", after.ssrc, after.seq, before.ssrc, before.seq)
	}
	hears(t, "the videobridge from Opus", listen(t, "opus", 48000, c.conf.rtp, 0).pcm, 48000, 700)
}

// The phone's stream changes its SSRC, as after a transfer; a stray packet
// does not take it over.
func TestPhoneChangesSSRC(t *testing.T) {
	c := newCall(t, "pcmu", 20*time.Millisecond)
	k := c.speaker(sine(440, 8000, 10*time.Second), 5*time.Millisecond)
	stray := newTalker(t, "pcmu", 0, 66, 20)
	c.every(100*time.Millisecond, 50*time.Millisecond, func(now time.Duration) { c.phone.ring.Push(stray.packet(), now, false) })
	c.run(time.Second)
	hears(t, "before", listen(t, "opus", 8000, c.conf.rtp, 0).pcm, 8000, 440)
	if s := c.bridge.Stats(); s.Phone.Concealed != 0 || s.Phone.Dropped == 0 {
		t.Errorf("%+v", s.Phone)
	}
	k.ssrc, k.seq, k.ts, k.pcm = 99, 17, 1, sine(800, 8000, 10*time.Second)
	c.run(time.Second)
	hears(t, "after", listen(t, "opus", 8000, c.conf.rtp, 0).pcm, 8000, 800)
	if s := c.bridge.Stats(); s.Phone.Concealed > 5 {
		t.Errorf("%+v", s.Phone)
	}
}

type pressed struct {
	digit byte
	d     time.Duration
}

func TestDigits(t *testing.T) {
	var got []pressed
	c := newCall(t, "pcmu", 20*time.Millisecond)
	c.bridge.o.OnDigit = func(d Digit) {
		got = append(got, pressed{d.Key, d.Duration})
		c.bridge.Stats() // a callback may call the bridge
	}
	k := newTalker(t, "pcmu", 0, 1, 20)
	k.pcm = sine(440, 8000, 10*time.Second)
	// press sends n updates and the end thrice, of which lose are lost.
	press := func(event byte, n, lose int) {
		ts := k.ts
		for i := range n + 3 {
			b := make([]byte, 100)
			h := putRTP(b, 101, i == 0, k.seq, ts, k.ssrc)
			end := byte(0)
			if i >= n {
				end = 0x80
			}
			b[h], b[h+1] = event, end|10
			binary.BigEndian.PutUint16(b[h+2:], uint16(min(i+1, n)*160))
			k.seq++
			if i < n || i-n >= lose {
				c.phone.ring.Push(b[:h+4], c.now, false)
				if i == 1 {
					c.phone.ring.Push(b[:h+4], c.now, false) // doubled
				}
			}
			if i < n {
				k.ts += 160
				c.run(20 * time.Millisecond)
			}
		}
	}
	speak := func(n int) {
		for range n {
			c.phone.ring.Push(k.packet(), c.now, false)
			c.run(20 * time.Millisecond)
		}
	}
	speak(20)
	press(1, 5, 0)
	speak(10)
	press(11, 3, 2)
	press(15, 4, 3) // the end is lost altogether
	press(0, 4, 0)
	press(5, 2, 3)
	c.run(eventTimeout + 50*time.Millisecond)
	want := []pressed{
		{'1', 100 * time.Millisecond}, {'#', 60 * time.Millisecond}, {'D', 80 * time.Millisecond},
		{'0', 80 * time.Millisecond}, {'5', 40 * time.Millisecond},
	}
	if !slices.Equal(got, want) {
		t.Errorf("pressed %v\nwant    %v", got, want)
	}
	s := c.bridge.Stats()
	if s.DigitsHeard != 5 || s.Phone.Concealed > 6 {
		t.Errorf("%+v", s)
	}
	// Nothing of a digit is heard: the sine stops for its time.
	e := listen(t, "opus", 8000, c.conf.rtp, 0)
	if l := tone.Level(e.pcm[800:2400], 8000, 440); l < 0.9 {
		t.Errorf("440 Hz is %.2f of what is heard before", l)
	}
	if db := tone.RMS(e.pcm[len(e.pcm)-320:]); db > -50 {
		t.Errorf("%.0f dBFS while digits are pressed", db)
	}
}

// Faint comfort noise is taken for silence, not for loss.
func TestComfortNoise(t *testing.T) {
	c := newCall(t, "pcmu", 20*time.Millisecond)
	k := newTalker(t, "pcmu", 0, 1, 20)
	k.pcm = sine(440, 8000, 10*time.Second)
	for range 3 {
		for range 20 {
			c.phone.ring.Push(k.packet(), c.now, false)
			c.run(20 * time.Millisecond)
		}
		for i := range 20 {
			if i%10 == 0 {
				b := make([]byte, 13)
				putRTP(b, ptCN, false, k.seq, k.ts, k.ssrc)
				b[12] = 70
				k.seq++
				c.phone.ring.Push(b, c.now, false)
			}
			k.ts += 160
			c.run(20 * time.Millisecond)
		}
	}
	if s := c.bridge.Stats(); s.Phone.Concealed != 0 || s.Phone.Lost != 0 || s.Phone.Invalid != 0 {
		t.Errorf("%+v", s.Phone)
	}
	if n := c.conf.sent; n < 60 || n > 75 {
		t.Errorf("%d packets sent, of 60 with sound", n)
	}
}

// kinds lists the packet types in a compound packet.
func kinds(b []byte) (k []byte) {
	for len(b) >= 4 {
		k = append(k, b[1])
		b = b[min(4*(int(binary.BigEndian.Uint16(b[2:]))+1), len(b)):]
	}
	return k
}
