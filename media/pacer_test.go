package media

import (
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"brewline/media/transport"
)

// A packet time that was missed is left out: timestamps advance, nothing is
// sent in a burst, and the delay is what it was.
func TestLateSlotsAreSkipped(t *testing.T) {
	c := newCall(t, "pcmu", 20*time.Millisecond)
	c.web(10, 1000, 0.3, 3*time.Millisecond)
	k := newTalker(t, "pcmu", 0, 1, 20)
	k.pcm = sine(440, 8000, 10*time.Second)
	c.says(k, c.phone, 3*time.Millisecond)
	c.run(time.Second)
	before, down, up := c.bridge.Stats(), c.phone.sent, c.conf.sent
	// 200 ms pass without a tick, though packets come.
	for range 200 {
		c.now += time.Millisecond
		for _, f := range c.arrive {
			f(c.now)
		}
	}
	c.pacer.Tick(c.now)
	if d, u := c.phone.sent-down, c.conf.sent-up; d > 1 || u > 1 {
		t.Errorf("%d packets at once to the phone, %d to the videobridge", d, u)
	}
	c.run(500 * time.Millisecond)
	s := c.bridge.Stats()
	if n := s.SlotsSkipped - before.SlotsSkipped; n < 17 || n > 20 {
		t.Errorf("%d packet times skipped", n)
	}
	for name, rtp := range map[string][][]byte{"phone": c.phone.rtp, "videobridge": c.conf.rtp} {
		at := map[string][]time.Duration{"phone": c.phone.at, "videobridge": c.conf.at}[name]
		hz := map[string]int{"phone": 8000, "videobridge": 48000}[name]
		first, _ := parseRTP(rtp[0])
		last, _ := parseRTP(rtp[len(rtp)-1])
		media := ticks(int64(last.ts-first.ts), hz)
		if d := at[len(at)-1] - at[0] - media; d < -15*time.Millisecond || d > 15*time.Millisecond {
			t.Errorf("%s: the timestamps are %v off the time", name, d)
		}
		if got := int(uint16(last.seq - first.seq)); got != len(rtp)-1 {
			t.Errorf("%s: %d sequence numbers for %d packets", name, got, len(rtp)-1)
		}
	}
	if s.Phone.Delay > before.Phone.Delay+15*time.Millisecond || s.Conference.Delay > before.Conference.Delay+15*time.Millisecond {
		t.Errorf("delay %v, %v, before %v, %v", s.Phone.Delay, s.Conference.Delay, before.Phone.Delay, before.Conference.Delay)
	}
	pcm, rate := c.heardDown(300 * time.Millisecond)
	hears(t, "afterwards", pcm, rate, 1000)
}

// countingConn counts what is sent, from whatever goroutine.
type countingConn struct {
	ring     *transport.Ring
	rtp      atomic.Int64
	detached atomic.Bool
	after    atomic.Int64
}

func (c *countingConn) Ring() *transport.Ring { return c.ring }
func (c *countingConn) SendRTP([]byte) error {
	c.rtp.Add(1)
	if c.detached.Load() {
		c.after.Add(1)
	}
	return nil
}
func (c *countingConn) SendRTCP(p []byte) error {
	if c.detached.Load() {
		c.after.Add(1)
	}
	return errors.New("not counted")
}

// Workers run bridges by themselves; a leg is not touched once it was detached,
// whatever else goes on. Run with -race.
func TestWorkers(t *testing.T) {
	p := NewPacer(PacerOptions{Workers: 2})
	defer p.Close()
	var wait sync.WaitGroup
	for i := range 8 {
		wait.Add(1)
		go func() {
			defer wait.Done()
			b := p.NewBridge(BridgeOptions{OnDigit: func(Digit) {}})
			for range 3 {
				phone, conf := &countingConn{ring: transport.NewRing()}, &countingConn{ring: transport.NewRing()}
				if err := b.AttachPhone(PhoneLeg{
					Conn: phone, Codec: "pcmu", Ptime: time.Duration(1+i%6) * 10 * time.Millisecond, Send: true, Receive: true,
				}); err != nil {
					t.Error(err)
				}
				if err := b.AttachConference(ConferenceLeg{Conn: conf, OpusPT: 111, AudioLevelID: 1}); err != nil {
					t.Error(err)
				}
				b.Play(PromptMuted, PlayOptions{Done: func() { b.Stats() }})
				deadline := time.Now().Add(5 * time.Second)
				for phone.rtp.Load() < 3 || conf.rtp.Load() < silenceSent {
					if time.Now().After(deadline) {
						t.Errorf("%d packets to the phone, %d to the videobridge", phone.rtp.Load(), conf.rtp.Load())
						break
					}
					b.SetMuted(time.Now().UnixNano()&1 == 0)
					b.SetOwner(uint32(i), "x")
					b.Stats()
					time.Sleep(time.Millisecond)
				}
				b.DetachConference()
				conf.detached.Store(true)
				b.DetachPhone()
				phone.detached.Store(true)
				defer func() {
					if n := phone.after.Load() + conf.after.Load(); n != 0 {
						t.Errorf("%d packets to detached legs", n)
					}
				}()
			}
			b.Close()
			b.Close()
			if err := b.AttachPhone(PhoneLeg{Conn: &countingConn{}, Codec: "pcmu"}); !errors.Is(err, ErrClosed) {
				t.Errorf("attach to a closed bridge: %v", err)
			}
		}()
	}
	wait.Wait()
	// Closed bridges leave the wheel.
	deadline := time.Now().Add(5 * time.Second)
	for _, w := range p.workers {
		for w.bridges.Load() != 0 {
			if time.Now().After(deadline) {
				t.Fatalf("%d bridges left", w.bridges.Load())
			}
			time.Sleep(time.Millisecond)
		}
		if at, ok := w.next(); ok && w.bridges.Load() == 0 {
			for time.Now().Before(deadline) && ok {
				time.Sleep(time.Millisecond)
				at, ok = w.next()
			}
			if ok {
				t.Errorf("a worker would wake at %v for nothing", at)
			}
		}
	}
}

func TestAttachErrors(t *testing.T) {
	p := NewPacer(PacerOptions{Workers: -1})
	b := p.NewBridge(BridgeOptions{})
	c := &countingConn{ring: transport.NewRing()}
	for _, l := range []PhoneLeg{
		{Conn: c, Codec: "g729"}, {Codec: "pcmu"}, {Conn: c, Codec: "opus", SendPT: 128},
	} {
		if err := b.AttachPhone(l); err == nil {
			t.Errorf("%+v attached", l)
		}
	}
	for _, l := range []ConferenceLeg{{OpusPT: 111}, {Conn: c, OpusPT: 200}, {Conn: c, OpusPT: 111, AudioLevelID: 15}} {
		if err := b.AttachConference(l); err == nil {
			t.Errorf("%+v attached", l)
		}
	}
	bad := p.NewBridge(BridgeOptions{OpusComplexity: 11})
	if err := bad.AttachPhone(PhoneLeg{Conn: c, Codec: "opus"}); err == nil {
		t.Error("complexity 11 accepted")
	}
	b.DetachPhone()
	b.DetachConference()
	b.Close()
	bad.Close()
	if err := b.AttachConference(ConferenceLeg{Conn: c, OpusPT: 111}); !errors.Is(err, ErrClosed) {
		t.Errorf("attach to a closed bridge: %v", err)
	}
	for now := time.Duration(0); now < 100*time.Millisecond; now += slotTime {
		p.Tick(now)
	}
	if at, ok := p.workers[0].next(); ok {
		t.Errorf("something is due at %v", at)
	}
	p.Close()
	p.Close()
}
