package jicofo

import (
	"log/slog"
	"time"

	"brewline/internal/jitsitest/jvb"
)

// Options configures a Jicofo. Durations that are zero take Jicofo's own
// defaults.
type Options struct {
	// ComponentAddr is the server's XEP-0114 port, "host:port".
	ComponentAddr string
	// Domain is the XMPP domain; the component is "focus."+Domain unless
	// Component is set.
	Domain, Component string
	// Secret is the component's secret.
	Secret string
	// MUC is the rooms' domain, default "conference."+Domain.
	MUC string
	// Nick is the focus' nick, default "focus".
	Nick string
	// Bridges are the videobridges. AddBridge and RemoveBridge change them.
	Bridges []*jvb.Bridge

	// Region is Jicofo's own region.
	Region string
	// OpusPT, TelephoneEventPT, AudioLevelID and MidID are the numbers in
	// the offer (defaults 111, 126, 1, 10; -1 leaves the item out).
	OpusPT, TelephoneEventPT, AudioLevelID, MidID int
	// StartMuted adds <startmuted audio='true'/> to every offer.
	StartMuted bool
	// MinParticipants is the number of members from which on sessions are
	// started (default 2).
	MinParticipants int
	// TrustedDomains are those from which the Jigasi feature is believed.
	TrustedDomains []string
	// NoAutoOwner switches off that the first member becomes owner.
	NoAutoOwner bool
	// Reinvite says how sessions are moved between bridges.
	Reinvite ReinviteMethod
	// MaxAudioSenders refuses further sources with resource-constraint,
	// default no limit.
	MaxAudioSenders int
	// Properties is added to the conference reply and replaces what it has.
	Properties map[string]string

	// InviteDelay is waited before each session-initiate.
	InviteDelay time.Duration
	// SourceDelay batches source-add and source-remove for so long, so that
	// RTP may precede them.
	SourceDelay time.Duration
	// DiscoTimeout is the wait for a member's disco#info (default 15 s).
	DiscoTimeout time.Duration
	// ReplyTimeout is the wait for any other reply (default 15 s).
	ReplyTimeout time.Duration
	// InitialTimeout ends a conference nobody joined (default 15 s).
	InitialTimeout time.Duration
	// SingleTimeout ends the session of a lone member (default 20 s).
	SingleTimeout time.Duration
	// RestartMinInterval, RestartMax and RestartInterval limit how often a
	// participant may ask for a restart (defaults 10 s, 3 in 1 min).
	RestartMinInterval time.Duration
	RestartMax         int
	RestartInterval    time.Duration
	// ReconnectInterval is the pause before a lost component connection is
	// opened again (default 1 s).
	ReconnectInterval time.Duration

	// Brewery is the brewery's bare room JID; empty for none.
	Brewery string
	// DialTimeout is the wait for a gateway's answer to a dial request
	// (default 15 s), DialRetries how many other gateways are tried
	// (default 2).
	DialTimeout time.Duration
	DialRetries int
	// NoModeratorChecks lets everybody dial.
	NoModeratorChecks bool

	// Logger gets one line per state change, default none.
	Logger *slog.Logger
}

// ReinviteMethod is how a session is moved to another bridge.
type ReinviteMethod int

// The ways to move a session.
const (
	// RestartJingle: session-terminate ("moving"), new session-initiate.
	RestartJingle ReinviteMethod = iota
	// ReplaceTransport: transport-replace within the session.
	ReplaceTransport
	// TerminateOnly: session-terminate ("moving") that nothing follows, a
	// fault seen on the real one.
	TerminateOnly
)
