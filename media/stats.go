package media

import (
	"strconv"
	"time"
)

// Stats is what a [Bridge] counted since it was made. Times are on the clock
// of transport.Now, 0 means never.
type Stats struct {
	Phone, Conference LegStats
	// LastFromPhone and LastFromBridge are when the last packet, RTP or RTCP,
	// came from the phone and from the videobridge.
	LastFromPhone, LastFromBridge time.Duration
	// LastAudioFromPhone and LastAudioFromBridge are when the last RTP packet came.
	LastAudioFromPhone, LastAudioFromBridge time.Duration

	Sources  int      // conference streams known now
	Decoders int      // decoders kept now
	Speakers []string // owners, or SSRCs, of the streams heard now
	// Comfort says that the phone's last packet described comfort noise: it
	// may now be silent for long (RFC 3389).
	Comfort       bool
	DigitsHeard   uint64 // of the phone
	DigitsSent    uint64 // to the phone
	KeysHeard     uint64 // digits of participants
	SlotsSkipped  uint64 // packet times that were not kept because we were late
	SendErrors    uint64
	EncodeErrors  uint64
	FramesEncoded uint64 // Opus frames encoded for the videobridge
	FramesDecoded uint64 // Opus frames decoded from the videobridge
	FramesPassed  uint64 // Opus packets passed from one leg to the other as they were
}

// LegStats counts the traffic of one leg.
type LegStats struct {
	PacketsIn, BytesIn   uint64 // RTP, bytes of payload
	PacketsOut, BytesOut uint64
	RTCPIn, RTCPOut      uint64
	Lost                 uint64        // by sequence number, RFC 3550 §6.4.1
	Late                 uint64        // came after their time, or twice
	Invalid              uint64        // not RTP or RTCP, or of a payload type we did not agree on
	Dropped              uint64        // the ring was full
	Concealed            uint64        // packet times made up for loss or lateness, by FEC or PLC
	Recovered            uint64        // of these, from FEC
	Adjusted             uint64        // packet times dropped or added for delay or drift
	Jitter               time.Duration // RFC 3550 §6.4.1, of the worst current stream
	Delay                time.Duration // time the last played packet waited here
	ComfortIn            uint64        // of the packets, comfort noise
	ComfortOut           uint64
	Reports              uint64        // of the far end about our stream
	RemoteLoss           float64       // 0..1, as the far end last reported of our stream
	RemoteLost           uint64        // packets of ours, as it reported
	RemoteJitter         time.Duration // as it last reported
	RoundTrip            time.Duration // from the far end's last report, 0 unknown
}

// LossIn is the share of the packets to us that did not come, 0 to 1.
func (l LegStats) LossIn() float64 { return share(l.Lost, l.PacketsIn+l.Lost) }

// LossOut is the share of our packets that the far end missed, as it reported;
// 0 where it reported nothing.
func (l LegStats) LossOut() float64 { return share(l.RemoteLost, l.PacketsOut) }

func share(part, whole uint64) float64 {
	if whole == 0 {
		return 0
	}
	return min(float64(part)/float64(whole), 1)
}

// Stats returns the counters.
func (b *Bridge) Stats() Stats {
	b.mu.Lock()
	defer b.mu.Unlock()
	k := b.speakers
	s := Stats{
		Phone: b.phone.counted(), Conference: b.conference.counted(),
		LastFromPhone: b.phone.last, LastFromBridge: b.conference.last,
		LastAudioFromPhone: b.phone.lastRTP, LastAudioFromBridge: b.conference.lastRTP,
		Sources: len(k.all), Decoders: k.players,
		Comfort: b.up.comfort, DigitsHeard: b.digitsHeard, DigitsSent: b.digitsSent, KeysHeard: b.keysHeard,
		SlotsSkipped:  b.slotsSkipped,
		FramesEncoded: b.framesEncoded + b.up.out.encoded, FramesDecoded: k.decoded(),
		FramesPassed: b.framesPassed + b.up.out.passed + b.down.out.passed,
		SendErrors:   b.phone.errors + b.conference.errors, EncodeErrors: b.encodeErrors,
	}
	s.Phone.Lost, s.Phone.Jitter = uint64(max(b.up.totalLost(), 0)), b.up.jitterTime()
	s.Conference.Lost = k.totalLost()
	for _, c := range k.chosen {
		if !c.active(b.now) {
			continue
		}
		s.Conference.Jitter = max(s.Conference.Jitter, c.jitterTime())
		name := b.owners[c.ssrc]
		if name == "" {
			name = strconv.FormatUint(uint64(c.ssrc), 10)
		}
		s.Speakers = append(s.Speakers, name)
	}
	return s
}

// counted is the leg's counters with what its rings dropped.
func (l *leg) counted() LegStats {
	s := l.stats
	s.Dropped += l.ring
	if l.conn != nil {
		s.Dropped += l.conn.Ring().Dropped()
	}
	return s
}
