package media

import (
	"errors"
	"log/slog"
	"time"

	"brewline/media/transport"
)

// ErrClosed is returned by an attach to a closed [Bridge].
var ErrClosed = errors.New("media: bridge closed")

// BridgeOptions are the parameters of [Pacer.NewBridge].
type BridgeOptions struct {
	// OnDigit is told of each telephone-event of the phone when it has ended
	// (RFC 4733): '0'..'9', '*', '#', 'A'..'D'. It runs on a pacer's worker and
	// must not block; it may call the Bridge.
	OnDigit func(digit byte, d time.Duration)
	// OpusComplexity is libopus' complexity, 1 to 10, default 5.
	OpusComplexity int
	Logger         *slog.Logger // default the pacer's
}

// PhoneLeg describes the stream to and from the phone. Payload types are those
// of the session descriptions.
type PhoneLeg struct {
	Conn                 transport.Conn
	Codec                string // "pcmu", "pcma", "g722", "opus"
	SendPT, RecvPT       uint8
	EventPT, RecvEventPT uint8 // telephone-event, 0 none
	EventRate            int   // clock of telephone-event, default the codec's RTP clock
	// Ptime is the time in a packet we send: 10 to 60 ms in steps of 10,
	// default 20 ms. Others are rounded down. Received packets may be of any.
	Ptime         time.Duration
	Send, Receive bool   // from our side; both false while held
	SSRC          uint32 // 0: random
	CNAME         string // RFC 3550 §6.5.1; "": random
}

// ConferenceLeg describes the stream to and from the videobridge.
type ConferenceLeg struct {
	Conn         transport.Conn
	OpusPT       uint8
	AudioLevelID uint8  // header extension of RFC 6464, 0 none
	SSRC         uint32 // of our stream, as announced; 0: random
	CNAME        string // "": random
}

// A Bridge is the audio of one call.
type Bridge struct {
	o BridgeOptions
}

// NewBridge returns a bridge without legs, run by p until Close.
func (p *Pacer) NewBridge(o BridgeOptions) *Bridge { return &Bridge{o: o} }

// AttachPhone gives the bridge its phone leg, in place of the one it had. The
// leg's Conn is used until DetachPhone has returned. A leg that follows one
// with the same SSRC goes on with its sequence numbers and timestamps.
func (b *Bridge) AttachPhone(l PhoneLeg) error { return nil }

// UpdatePhone changes the direction of the phone leg: hold and resume.
func (b *Bridge) UpdatePhone(send, receive bool) {}

// DetachPhone takes the phone leg away. When it returns the leg's Conn is not
// touched any more.
func (b *Bridge) DetachPhone() {}

// AttachConference gives the bridge its conference leg, in place of the one it
// had. The leg's Conn is used until DetachConference has returned.
func (b *Bridge) AttachConference(l ConferenceLeg) error { return nil }

// DetachConference takes the conference leg away. When it returns the leg's
// Conn is not touched any more.
func (b *Bridge) DetachConference() {}

// SetMuted stops (or resumes) sending the phone's voice to the bridge. Digits
// are still reported.
func (b *Bridge) SetMuted(muted bool) {}

// SetOwner tells whose source ssrc is. It is only used to name speakers in
// Stats; unknown sources are heard just the same.
func (b *Bridge) SetOwner(ssrc uint32, owner string) {}

// RemoveSource forgets a source that has been taken away. Should it go on
// sending it is heard again.
func (b *Bridge) RemoveSource(ssrc uint32) {}

// PlayOptions say how a prompt is played.
type PlayOptions struct {
	// Repeat plays the prompt again this long after its end, until StopPrompt;
	// 0 plays it once.
	Repeat time.Duration
	// Done is called once when the prompt is over, whether it came to its end,
	// was stopped, or was replaced by another. It runs on a pacer's worker or
	// on the caller of the method that ended the prompt, must not block, and may
	// call the Bridge.
	Done func()
}

// Play speaks a prompt to the phone, over the conference, which is lowered
// meanwhile. It takes the place of a prompt that is being played. A prompt
// begins when there is a phone leg to hear it.
func (b *Bridge) Play(p Prompt, o PlayOptions) {}

// StopPrompt ends the prompt that is being played, if any.
func (b *Bridge) StopPrompt() {}

// Close detaches both legs and ends a prompt. When it returns nothing of the
// bridge is touched any more.
func (b *Bridge) Close() {}
