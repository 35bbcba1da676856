package transport

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"time"
)

// State is what ICE says of a connected Conference.
type State int

// The states of a Conference after Connect.
const (
	Connected    State = iota + 1 // the bridge answers
	Disconnected                  // no answer for ConferenceOptions.DisconnectedTimeout; may recover
	Failed                        // final: ICE failed or the bridge closed DTLS
)

func (s State) String() string {
	switch s {
	case Connected:
		return "connected"
	case Disconnected:
		return "disconnected"
	case Failed:
		return "failed"
	}
	return "unknown"
}

// ConferenceOptions are the parameters of OpenConference.
type ConferenceOptions struct {
	Ports     *Ports     // nil: any port
	Bind      netip.Addr // zero: all addresses of all interfaces
	Advertise netip.Addr // address to announce instead of the local ones

	CheckInterval       time.Duration // between rounds of ICE checks, default 100 ms
	KeepaliveInterval   time.Duration // between consent checks, default 2 s
	DisconnectedTimeout time.Duration // default 7 s
	FailedTimeout       time.Duration // after Disconnected, default 15 s
	RetransmitInterval  time.Duration // first DTLS retransmission, default 200 ms

	OnState func(State) // must not block
	Logger  *slog.Logger
}

// A Candidate is an ICE candidate as in XEP-0176 §5.3.
type Candidate struct {
	Foundation string
	Component  int
	Protocol   string // "udp"
	Priority   uint32
	IP         string
	Port       int
	Type       string // "host", "srflx", "prflx", "relay"
	RelAddr    string
	RelPort    int
}

// Local is our side of the description.
type Local struct {
	Ufrag, Pwd                   string
	FingerprintHash, Fingerprint string // "sha-256", "AB:CD:…"
	Candidates                   []Candidate
}

// Remote is the bridge's side of the description.
type Remote struct {
	Ufrag, Pwd                   string
	FingerprintHash, Fingerprint string
	Setup                        string // "actpass", "passive", "active"
	Candidates                   []Candidate
}

// Pair is the pair of addresses chosen by ICE.
type Pair struct{ Local, Remote netip.AddrPort }

// ConferenceStats counts what a Conference did.
type ConferenceStats struct {
	RTPReceived, RTCPReceived, BytesReceived uint64
	RTPSent, RTCPSent, BytesSent             uint64
	Early, Stranger, Invalid, Replayed       uint64
	Unauthentic, TooManySources, Full        uint64
	SendErrors                               uint64
}

// Conference is the transport to a videobridge.
type Conference struct {
	ring *Ring
}

// OpenConference opens the socket and gathers host candidates.
func OpenConference(ctx context.Context, o ConferenceOptions) (*Conference, error) {
	return nil, errors.ErrUnsupported
}

// SetupFor returns our DTLS setup attribute (RFC 5763 §5) for the remote one.
func SetupFor(remote string) (string, error) { return "active", nil }

// Local returns what to tell the bridge.
func (c *Conference) Local() Local { return Local{} }

// Connect runs ICE, then DTLS.
func (c *Conference) Connect(ctx context.Context, r Remote) error { return errors.ErrUnsupported }

// Profile names the SRTP profile in use, "" before Connect.
func (c *Conference) Profile() string { return "" }

// SelectedPair returns the pair in use, false if there is none.
func (c *Conference) SelectedPair() (Pair, bool) { return Pair{}, false }

// Ring implements Conn.
func (c *Conference) Ring() *Ring { return c.ring }

// SendRTP implements Conn.
func (c *Conference) SendRTP(b []byte) error { return ErrNotConnected }

// SendRTCP implements Conn.
func (c *Conference) SendRTCP(b []byte) error { return ErrNotConnected }

// Stats returns the counters.
func (c *Conference) Stats() ConferenceStats { return ConferenceStats{} }

// Close releases everything.
func (c *Conference) Close() error { return nil }
