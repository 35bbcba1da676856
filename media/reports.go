package media

import (
	"time"

	"brewline/media/codec"
)

// reports is what RTCP packets of one leg are told to.
type reports struct {
	bridge *Bridge
	at     time.Duration
}

type (
	phoneReports      reports
	conferenceReports reports
)

func (r *phoneReports) senderReport(ssrc uint32, ntp uint64, _ uint32) {
	if u := &r.bridge.up; u.started && ssrc == u.ssrc {
		u.lastSR, u.lastSRAt = uint32(ntp>>16), r.at
	}
}

func (r *phoneReports) reportOf(ssrc uint32, block reportBlock) {
	if b := r.bridge; ssrc == b.phone.ssrc {
		b.phone.heard(block, ntpTime(b.pacer.wall.Add(r.at)))
	}
}

// A phone that says goodbye to its stream may start another at once; the call
// is ended by signalling.
func (*phoneReports) bye(uint32) {}

func (r *conferenceReports) senderReport(ssrc uint32, ntp uint64, _ uint32) {
	if s := r.bridge.speakers.bySSRC[ssrc]; s != nil {
		s.lastSR, s.lastSRAt = uint32(ntp>>16), r.at
	}
}

func (r *conferenceReports) reportOf(ssrc uint32, block reportBlock) {
	b := r.bridge
	if ssrc != b.conference.ssrc {
		return
	}
	b.conference.heard(block, ntpTime(b.pacer.wall.Add(r.at)))
	if e, ok := b.up.out.enc.(*codec.OpusEncoder); ok {
		e.SetLoss(max(expectedLoss, int(block.fraction)*100/256))
	}
}

func (r *conferenceReports) bye(ssrc uint32) {
	if s := r.bridge.speakers.bySSRC[ssrc]; s != nil {
		r.bridge.speakers.remove(s)
	}
}

// reportPhone sends RTCP to the phone when it is time.
func (b *Bridge) reportPhone(now time.Duration) {
	l := &b.phone
	if !l.reportDue(now) {
		return
	}
	sources := 0
	if b.up.started {
		sources = 1
	}
	blocks := l.beginReport(b.pacer.wall.Add(now), sources)
	if sources == 1 {
		b.up.report(blocks, b.up.ssrc, now)
	}
	l.endReport(now)
}

// reportConference sends RTCP to the videobridge when it is time.
func (b *Bridge) reportConference(now time.Duration) {
	l := &b.conference
	if !l.reportDue(now) {
		return
	}
	b.speakers.expire(now)
	heard := b.speakers.chosen
	blocks := l.beginReport(b.pacer.wall.Add(now), len(heard))
	for i, s := range heard {
		s.report(blocks[24*i:], s.ssrc, now)
	}
	l.endReport(now)
}
