package jvb

import (
	"slices"
	"time"
)

// Stats counts what an endpoint sent and received.
type Stats struct {
	// Profile is the SRTP profile in use, empty before DTLS is done.
	Profile Profile
	// ICEConnected, DTLSConnected, FirstRTP, LastRTP and LastRTCP are zero
	// until it happened.
	ICEConnected, DTLSConnected, FirstRTP, LastRTP, LastRTCP time.Time
	// RTPFrom and RTCPFrom count authentic packets of the client (RTCP:
	// compound ones); RTPTo and RTCPTo what was sent to it.
	RTPFrom, RTPTo, RTCPFrom, RTCPTo uint64
	// LargestRTPGap is the longest time between two RTP packets of the
	// client. LargestRTCPGap is the same for RTCP, but counts from
	// DTLSConnected and until now; SmallestRTCPGap is the shortest time.
	LargestRTPGap, LargestRTCPGap, SmallestRTCPGap time.Duration
	// LevelMissing counts the client's RTP packets without the audio level
	// extension.
	LevelMissing uint64
	// Unsignalled counts packets dropped because their SSRC is not
	// signalled, Silent those dropped as silence, Muted those dropped by
	// force-mute, Quiet those not among the loudest.
	Unsignalled, Silent, Muted, Quiet uint64
	// WrongPT counts packets with another payload type than the offer's Opus.
	WrongPT uint64
	// AuthErrors counts packets that failed SRTP or STUN authentication,
	// replayed ones included.
	AuthErrors uint64
	// SenderReports and ReceiverReports count the client's.
	SenderReports, ReceiverReports uint64
	// Checks counts the client's connectivity checks, RoleConflicts those
	// of them in which it wants to control (RFC 8445 §7.3.1.1).
	Checks, RoleConflicts uint64
	// Handshake is why DTLS failed, nil if it did not.
	Handshake error
	// SSRCs are all SSRCs seen from the client, also unsignalled ones (the
	// first 64).
	SSRCs []uint32
}

// Stats returns the endpoint's counters; they outlive it.
func (e *Endpoint) Stats() Stats {
	e.b.mu.Lock()
	defer e.b.mu.Unlock()
	s := e.stats
	s.SSRCs = slices.Clone(s.SSRCs)
	if !s.DTLSConnected.IsZero() && !e.gone {
		last := s.LastRTCP
		if last.IsZero() {
			last = s.DTLSConnected
		}
		s.LargestRTCPGap = max(s.LargestRTCPGap, time.Since(last))
	}
	return s
}

func (s *Stats) countRTP(now time.Time) {
	if s.RTPFrom == 0 {
		s.FirstRTP = now
	} else {
		s.LargestRTPGap = max(s.LargestRTPGap, now.Sub(s.LastRTP))
	}
	s.RTPFrom++
	s.LastRTP = now
}

func (s *Stats) countRTCP(now time.Time) {
	last := s.LastRTCP
	if last.IsZero() {
		last = s.DTLSConnected
	}
	gap := now.Sub(last)
	s.LargestRTCPGap = max(s.LargestRTCPGap, gap)
	if s.RTCPFrom > 0 && (s.SmallestRTCPGap == 0 || gap < s.SmallestRTCPGap) {
		s.SmallestRTCPGap = gap
	}
	s.RTCPFrom++
	s.LastRTCP = now
}

func (s *Stats) sawSSRC(ssrc uint32) {
	if len(s.SSRCs) < 64 && !slices.Contains(s.SSRCs, ssrc) {
		s.SSRCs = append(s.SSRCs, ssrc)
	}
}
