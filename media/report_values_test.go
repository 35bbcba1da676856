package media

import (
	"math"
	"testing"
	"time"

	"github.com/pion/rtcp"
)

// What our reports tell the phone is what RFC 3550 §6.4.1 and its appendix A
// make of the packets that came, and what they tell of our own stream is true.
func TestReportValues(t *testing.T) {
	c := newCall(t, "pcmu", 20*time.Millisecond)
	k := newTalker(t, "pcmu", 0, 1, 20)
	type state struct {
		packets, lost, highest, expected int
		jitter                           float64 // ticks
	}
	var now, last state // as of now, and at the last report
	var transit float64
	const lastSR = 0x22223333
	sr := time.Duration(-1)
	reports, sent := 0, 0
	var ntp, ts []uint64
	first := int(k.seq)
	for i := range 1500 {
		p := k.packet()
		lost := i%10 == 7 || i > 700 && i < 720
		if !lost {
			at := c.now - time.Duration(i*i%9)*time.Millisecond // late by up to 8 ms
			c.phone.ring.Push(p, at, false)
			was := transit
			if transit = at.Seconds()*8000 - float64(160*i); now.packets > 0 {
				now.jitter += (math.Abs(transit-was) - now.jitter) / 16
			}
			now.packets++
			now.highest, now.expected = first+i, i+1
			now.lost = now.expected - now.packets
		}
		if i == 300 {
			b, _ := rtcp.Marshal([]rtcp.Packet{&rtcp.SenderReport{SSRC: 1, NTPTime: lastSR<<16 | 0x1111<<48 | 0x4444}})
			c.phone.ring.Push(b, c.now, true)
			sr = c.now
		}
		c.run(10 * time.Millisecond)
		c.run(10 * time.Millisecond)
		if len(c.phone.rtcp) == reports {
			continue
		}
		// At most two packet times old.
		reports = len(c.phone.rtcp)
		packets, err := rtcp.Unmarshal(c.phone.rtcp[reports-1])
		if err != nil {
			t.Fatal(err)
		}
		s, ok := packets[0].(*rtcp.SenderReport)
		if !ok || len(s.Reports) == 0 {
			continue // before anything came or went
		}
		r := s.Reports[0]
		near := func(what string, got, want, by float64) {
			t.Helper()
			if math.Abs(got-want) > by {
				t.Errorf("at packet %d: %s %v, not %v", i, what, got, want)
			}
		}
		near("lost", float64(r.TotalLost), float64(now.lost), 1)
		near("highest sequence number", float64(r.LastSequenceNumber), float64(now.highest), 2)
		near("jitter", float64(r.Jitter), now.jitter, 5)
		if n := now.expected - last.expected; reports > 2 {
			near("fraction lost", float64(r.FractionLost)/256, float64(now.lost-last.lost)/float64(n), 2/float64(n))
		}
		last = now
		if sr < 0 {
			near("last sender report", float64(r.LastSenderReport), 0, 0)
			near("delay since", float64(r.Delay), 0, 0)
		} else {
			near("last sender report", float64(r.LastSenderReport), lastSR, 0)
			near("delay since, in seconds", float64(r.Delay)/65536, (c.now - sr).Seconds(), 0.021)
		}
		octets := 0
		for _, b := range c.phone.rtp[:sent] {
			octets += len(b) - 12
		}
		for ; sent < len(c.phone.rtp); sent++ {
			octets += len(c.phone.rtp[sent]) - 12
		}
		near("packets sent", float64(s.PacketCount), float64(sent), 1)
		near("octets sent", float64(s.OctetCount), float64(octets), 161)
		ntp, ts = append(ntp, s.NTPTime), append(ts, uint64(s.RTPTime))
	}
	if len(ntp) < 8 {
		t.Fatalf("%d sender reports", len(ntp))
	}
	// The two clocks of a report go together, by which streams are aligned.
	for i := range ntp[1:] {
		seconds := float64(ntp[i+1]-ntp[i]) / (1 << 32)
		if ticks := float64(uint32(ts[i+1] - ts[i])); math.Abs(ticks/8000-seconds) > 0.021 {
			t.Errorf("%v s of NTP are %v ticks", seconds, ticks)
		}
	}
	s := c.bridge.Stats().Phone
	if s.Lost != uint64(now.lost) || math.Abs(s.Jitter.Seconds()*8000-now.jitter) > 2 || s.LossIn() != float64(now.lost)/float64(now.expected) {
		t.Errorf("%+v, but %+v", s, now)
	}

	// And what the phone reports is taken for what it means.
	sample := ntpTime(c.pacer.wall.Add(c.now))
	b, _ := rtcp.Marshal([]rtcp.Packet{&rtcp.ReceiverReport{SSRC: 1, Reports: []rtcp.ReceptionReport{{
		SSRC: 4242, FractionLost: 64, TotalLost: 37, Jitter: 80, LastSenderReport: uint32(sample>>16) - 65536/4, Delay: 65536 / 8,
	}}}})
	c.phone.ring.Push(b, c.now, true)
	c.run(20 * time.Millisecond)
	s = c.bridge.Stats().Phone
	if s.RemoteLoss != 0.25 || s.RemoteLost != 37 || s.RemoteJitter != 10*time.Millisecond ||
		s.RoundTrip < 124*time.Millisecond || s.RoundTrip > 126*time.Millisecond || s.LossOut() != 37/float64(s.PacketsOut) {
		t.Errorf("the phone's report is taken for %+v", s)
	}
}
