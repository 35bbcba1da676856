package jingle

// Actions (XEP-0166 §7.2 and Jitsi's own).
const (
	SessionInitiate  = "session-initiate"
	SessionAccept    = "session-accept"
	SessionTerminate = "session-terminate"
	SessionInfo      = "session-info"
	TransportInfo    = "transport-info"
	TransportReplace = "transport-replace"
	TransportAccept  = "transport-accept"
	SourceAdd        = "source-add"
	SourceRemove     = "source-remove"
)

// Jingle is one <jingle/> element.
type Jingle struct {
	Action, SID, Initiator, Responder string
	Contents                          []Content
	Group                             []string // content names of the BUNDLE group (XEP-0338)
	BridgeSession                     BridgeSession
	Reason                            Reason
	// Sources of all contents and of a json-message, in order.
	Sources    []Source
	StartMuted *StartMuted
}

// BridgeSession names the session with a videobridge, in Jicofo's offers and
// in our requests to restart it.
type BridgeSession struct {
	ID, Region          string
	Restart, ICERestart bool
}

// Reason is why a session ends (XEP-0166 §7.4).
type Reason struct{ Condition, Text string }

// StartMuted asks the client to join muted.
type StartMuted struct{ Audio, Video bool }

// Content is one medium.
type Content struct {
	Creator, Name, Senders string
	Description            *Description
	Transport              *Transport
}

// Description is an RTP session (XEP-0167).
type Description struct {
	Media    string
	Payloads []PayloadType
	HdrExts  []HdrExt
	Sources  []Source
	RTCPMux  bool
}

// PayloadType is a codec and its number.
type PayloadType struct {
	ID                  uint8
	Name                string
	ClockRate, Channels int // Hz; 0 channels is one
	Params              map[string]string
}

// HdrExt is an RTP header extension (XEP-0294).
type HdrExt struct {
	ID  int
	URI string
}

// Transport is ICE-UDP with DTLS (XEP-0176, XEP-0320).
type Transport struct {
	Ufrag, Pwd    string
	Fingerprint   Fingerprint
	Candidates    []Candidate
	WebSockets    []string // URLs of the bridge channel
	ICEGeneration string   // Jitsi's mark of an in-place ICE restart
	RTCPMux       bool
}

// Fingerprint of a DTLS certificate.
type Fingerprint struct {
	Hash  string // "sha-256"
	Value string // upper-case hex octets with colons
	Setup string // actpass, active, passive
}

// Candidate is an ICE candidate.
type Candidate struct {
	Component      int
	Foundation, ID string
	IP             string
	Port           int
	Priority       uint32
	Protocol, Type string
	RelAddr        string
	RelPort        int
	Generation     int
	Network        int
}

// Source is an RTP source. Owner is the endpoint id in lower case, or "jvb".
type Source struct {
	SSRC              uint32
	Name, Owner, MSID string
	Video             bool
}

// Offer is what an audio gateway needs of a session-initiate or
// transport-replace.
type Offer struct {
	Action, SID, Initiator string
	BridgeSession, Region  string
	Content                string // name of the audio content
	OpusPT                 uint8
	OpusParams             map[string]string
	EventPT                uint8 // telephone-event, 0 if not offered
	EventRate              int   // its clock, Hz
	AudioLevelID           int   // of the audio level header extension, 0 if not offered
	Ufrag, Pwd             string
	Fingerprint            Fingerprint
	Candidates             []Candidate // component 1, UDP, literal addresses
	WebSockets             []string
	Sources                []Source // audio only
	StartMuted             bool

	opusChannels int
	others       []Content // video, to be accepted inactive
}

// Answer is what we bring to a session-accept or transport-accept.
type Answer struct {
	Action                            string // SessionAccept or TransportAccept
	Responder                         string // our full JID
	SourceName, MSID                  string
	SSRC                              uint32
	Ufrag, Pwd                        string
	FingerprintHash, FingerprintValue string
	Setup                             string // our DTLS role, default "active"
	Candidates                        []Candidate
}
