package jvb

import (
	"log/slog"
	"time"
)

// Profile names an SRTP protection profile as DTLS negotiates it (RFC 5764
// §4.1.2, RFC 7714 §14.2).
type Profile string

// The profiles the bridge can offer.
const (
	ProfileGCM Profile = "AEAD_AES_128_GCM"
	ProfileCM  Profile = "AES128_CM_HMAC_SHA1_80"
)

// Options configures a Bridge. The zero value of every field is usable.
type Options struct {
	// ID names the bridge in logs and in the colibri web-socket URL
	// (default "jvb1").
	ID string
	// Region is what bridge-session announces; empty leaves it out.
	Region string
	// Listen is the one UDP address of the bridge, default "127.0.0.1:0".
	Listen string
	// ExtraCandidates are announced before the real one, for candidates that
	// lead nowhere.
	ExtraCandidates []Candidate
	// IgnoreCandidates makes the bridge learn clients only as peer-reflexive,
	// from the checks they send.
	IgnoreCandidates bool
	// Profiles is the order of preference (default GCM, then CM).
	Profiles []Profile
	// WebSocketURL is the base of the colibri-ws URL, default
	// "ws://127.0.0.1:9090/colibri-ws".
	WebSocketURL string

	// Loudest, when above zero, forwards only that many loudest speakers of
	// a conference; zero forwards every speaker (the real default).
	Loudest int

	// ReportInterval is the time between receiver reports (default 500 ms).
	ReportInterval time.Duration
	// CheckInterval is the first retransmission time of a connectivity check
	// (default 100 ms, doubled up to 1.6 s).
	CheckInterval time.Duration
	// ConsentInterval is the mean time between consent checks, randomised by
	// ±20 % (default 5 s, RFC 7675 §5.1).
	ConsentInterval time.Duration
	// ConsentTimeout ends an endpoint's ICE when no check was answered for
	// so long (default 30 s, RFC 7675 §5.1).
	ConsentTimeout time.Duration
	// InactiveAfter is the silence (no RTP, RTCP or answered consent check)
	// after which an endpoint is reported inactive (default 8 s).
	InactiveAfter time.Duration
	// FirstTransfer is InactiveAfter for an endpoint that has not sent
	// anything yet (default 15 s).
	FirstTransfer time.Duration
	// ExpireAfter is the silence after which an endpoint expires (default
	// 60 s).
	ExpireAfter time.Duration
	// HandshakeTimeout bounds the DTLS handshake (default 30 s).
	HandshakeTimeout time.Duration

	// OnActivity, if set, is told when an endpoint becomes inactive or
	// active again. It must not block and must not call into the bridge.
	OnActivity func(e *Endpoint, active bool)
	// OnExpire, if set, is told when an endpoint expired by itself. It must
	// not block and must not call into the bridge.
	OnExpire func(e *Endpoint)

	// FromClients and ToClients are the faults of every endpoint allocated
	// from now on, by direction.
	FromClients, ToClients Faults
	// Seed drives all faults; zero takes one from the clock. See
	// [Bridge.Seed].
	Seed uint64

	// Logger gets one line per state change, default none.
	Logger *slog.Logger
}

// Faults is what the network does to packets of one direction of one
// endpoint. Probabilities are 0..1. They touch RTP only unless Everything is
// set.
type Faults struct {
	// Loss is the probability that a packet is dropped.
	Loss float64
	// Drop, when set, decides in place of Loss; n counts the packets of
	// this direction from 0.
	Drop func(n uint64) bool
	// Duplicate is the probability that a packet is sent twice.
	Duplicate float64
	// Reorder is the probability that a packet is held back by ReorderBy
	// (default 50 ms) while others pass it.
	Reorder   float64
	ReorderBy time.Duration
	// Delay is added to every packet; Jitter adds up to so much more, and
	// keeps the order.
	Delay, Jitter time.Duration
	// Everything extends the faults to STUN, DTLS and RTCP.
	Everything bool
}

// Candidate is an ICE candidate as Jingle writes it (XEP-0176 §5.3).
type Candidate struct {
	Foundation string
	Component  int
	Protocol   string
	Priority   uint32
	IP         string
	Port       int
	Type       string
	RelAddr    string
	RelPort    int
}

// AllocOptions is what the signalling knows about an endpoint when it asks
// for a transport.
type AllocOptions struct {
	// AudioLevelID is the id of the audio level header extension in the
	// endpoint's offer (RFC 6464), 0 for none.
	AudioLevelID uint8
	// OpusPT is the payload type of Opus in the endpoint's offer, 0 for any.
	OpusPT uint8
	// EventPT is that of telephone-event, which is forwarded as audio is; 0
	// for none.
	EventPT uint8
}

// Remote is the transport description of a client.
type Remote struct {
	Ufrag, Pwd string
	// FingerprintHash is "sha-256" and so on; Fingerprint is in colon
	// notation (RFC 8122 §5).
	FingerprintHash, Fingerprint string
	// Setup is "active" (or empty) or "passive" (RFC 4145 §4). The bridge is
	// always the DTLS server: "passive" is an error.
	Setup      string
	Candidates []Candidate
}
