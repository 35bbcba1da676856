package siptest

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// PhoneOptions configure a phone.
type PhoneOptions struct {
	Bind      string // local IP address, "127.0.0.1"
	Codec     string // "pcmu" (default), "pcma", "g722" or "opus"
	Ptime     time.Duration
	Transport string // "udp" (default) or "tcp"
	User      string // user part of From, "phone"
	Display   string
	T1        time.Duration // SIP retransmission base, 500 ms

	// Impairments of what the phone sends, in a sequence fixed by Seed.
	Loss   float64 // share of packets, 0..1
	Jitter time.Duration
	Seed   uint64
}

// Phone makes calls. It is safe for concurrent use.
type Phone struct{}

// NewPhone binds a phone.
func NewPhone(o PhoneOptions) (*Phone, error) { return nil, errors.New("siptest: not finished") }

// Close hangs up nothing and frees everything the phone and its calls took.
func (p *Phone) Close() error { return nil }

// CallOptions describe one call.
type CallOptions struct {
	URI       string // "sip:user@host:port"
	Headers   map[string]string
	LateOffer bool
	Tone      int // Hz the phone "says" from the start, 0: silence
}

// StatusError is a final response other than 2xx.
type StatusError struct {
	Code        int
	Reason      string // reason phrase
	Headers     map[string]string
	Provisional []int
}

// Error implements error.
func (e *StatusError) Error() string { return fmt.Sprintf("%d %s", e.Code, e.Reason) }

// Call is an answered call.
type Call struct{}

// EndInfo tells how a call ended.
type EndInfo struct {
	ByPeer bool   // BYE came from the other side
	Reason string // value of its Reason header
	Err    error
}

// Call calls and returns at the final response: a *Call, or a *StatusError.
// When ctx ends first the call is cancelled.
func (p *Phone) Call(ctx context.Context, o CallOptions) (*Call, error) {
	return nil, errors.New("siptest: not finished")
}

// Attempt is a call on its way.
type Attempt struct{}

// Start is Call without the waiting.
func (p *Phone) Start(ctx context.Context, o CallOptions) (*Attempt, error) {
	return nil, errors.New("siptest: not finished")
}

// Wait returns what Call would return.
func (a *Attempt) Wait(ctx context.Context) (*Call, error) {
	return nil, errors.New("siptest: not finished")
}

// Provisional waits until a provisional response of that code has come.
func (a *Attempt) Provisional(ctx context.Context, code int) error { return nil }

// Cancel sends CANCEL.
func (a *Attempt) Cancel() error { return nil }

// Hear waits until a tone of freq Hz is heard.
func (c *Call) Hear(ctx context.Context, freq int) error { return errors.New("siptest: not finished") }

// Heard returns everything heard so far, silence where nothing came.
func (c *Call) Heard() []int16 { return nil }

// Rate returns the sample rate of Heard, Hz.
func (c *Call) Rate() int { return 0 }

// Say sends a tone of freq Hz from now on; SayPCM sends pcm once.
func (c *Call) Say(freq int) {}

// SayPCM sends pcm, at Rate, once, from now on.
func (c *Call) SayPCM(pcm []int16) {}

// Silence sends silence from now on.
func (c *Call) Silence() {}

// Hold puts the peer on hold by re-INVITE with a=sendonly.
func (c *Call) Hold(ctx context.Context) error { return nil }

// Resume takes the peer off hold.
func (c *Call) Resume(ctx context.Context) error { return nil }

// DTMF sends digits as telephone events (RFC 4733).
func (c *Call) DTMF(ctx context.Context, digits string) error { return nil }

// Info sends an INFO request.
func (c *Call) Info(ctx context.Context, contentType string, body []byte) error { return nil }

// Hangup sends BYE and waits for its answer.
func (c *Call) Hangup(ctx context.Context) error { return nil }

// Ended yields once, when the call has ended.
func (c *Call) Ended() <-chan EndInfo { return nil }

// Provisionals returns the codes of the provisional responses in order.
func (c *Call) Provisionals() []int { return nil }
