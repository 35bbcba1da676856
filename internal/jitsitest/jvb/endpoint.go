package jvb

import "time"

// Endpoint is one client of the bridge.
type Endpoint struct {
	// Conference and ID are what Allocate was given.
	Conference, ID string
	// Ufrag, Pwd, FingerprintHash, Fingerprint and Candidates are the
	// bridge's side of the transport; the DTLS setup is "actpass".
	Ufrag, Pwd                   string
	FingerprintHash, Fingerprint string
	Candidates                   []Candidate
	// WebSocket is the colibri-ws URL; nothing listens there.
	WebSocket string
}

// SetRemote gives the endpoint its client's transport: the bridge begins its
// checks now. It may be called again to add candidates.
func (e *Endpoint) SetRemote(r Remote) error { return nil }

// SetSources replaces the audio SSRCs that the client has signalled; others
// are dropped.
func (e *Endpoint) SetSources(ssrcs []uint32) error { return nil }

// SetForceMute makes the bridge drop the client's audio.
func (e *Endpoint) SetForceMute(mute bool) error { return nil }

// SetFaults replaces the endpoint's faults.
func (e *Endpoint) SetFaults(fromClient, toClient Faults) {}

// Expire removes the endpoint.
func (e *Endpoint) Expire() {}

// Connected is closed when SRTP is ready.
func (e *Endpoint) Connected() <-chan struct{} { return nil }

// Expired is closed when the endpoint is gone.
func (e *Endpoint) Expired() <-chan struct{} { return nil }

// Stats returns the endpoint's counters.
func (e *Endpoint) Stats() Stats { return Stats{} }

// Stats counts what an endpoint sent and received.
type Stats struct {
	// Profile is the SRTP profile in use, empty before DTLS is done.
	Profile Profile
	// ICEConnected, DTLSConnected, FirstRTP, LastRTP and LastRTCP are zero
	// until it happened.
	ICEConnected, DTLSConnected, FirstRTP, LastRTP, LastRTCP time.Time
	// RTPFrom and RTCPFrom count authentic packets of the client; RTPTo and
	// RTCPTo what was sent to it.
	RTPFrom, RTPTo, RTCPFrom, RTCPTo uint64
	// LargestRTPGap and LargestRTCPGap are the longest times between two
	// packets of the client (RTCP: also since DTLSConnected). SmallestRTCPGap
	// is the shortest.
	LargestRTPGap, LargestRTCPGap, SmallestRTCPGap time.Duration
	// LevelMissing counts the client's RTP packets without the audio level
	// extension.
	LevelMissing uint64
	// Unsignalled counts packets dropped because their SSRC is not signalled,
	// Silent those dropped as silence, Muted those dropped by force-mute.
	Unsignalled, Silent, Muted uint64
	// WrongPT counts packets with another payload type than the offer's Opus.
	WrongPT uint64
	// AuthErrors counts packets that failed SRTP or STUN authentication.
	AuthErrors uint64
	// SenderReports counts the client's RTCP sender reports.
	SenderReports uint64
	// RoleConflicts counts checks of a client that wants to control
	// (RFC 8445 §7.3.1.1).
	RoleConflicts uint64
	// SSRCs are all SSRCs seen from the client.
	SSRCs []uint32
}
