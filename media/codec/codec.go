package codec

import (
	"errors"
	"fmt"
	"strings"
)

// MaxPacket is the longest packet of any codec, in milliseconds (RFC 6716 R5).
const MaxPacket = 120

// ErrMalformed is returned by Decode for a payload that the codec's format
// does not allow.
var ErrMalformed = errors.New("codec: malformed payload")

// ErrShort is returned when a destination has no room for the result.
var ErrShort = errors.New("codec: buffer too short")

// An Encoder turns PCM into payloads.
type Encoder interface {
	// Encode writes the payload of one packet's PCM to dst and returns its
	// length in bytes.
	Encode(dst []byte, pcm []int16) (int, error)
	// Close frees what the encoder holds outside the Go heap.
	Close()
}

// A Decoder turns the payloads of one stream into PCM. Packets must be given
// in order, with Conceal or Recover in place of those that are missing.
type Decoder interface {
	// Samples returns how many samples payload decodes to, 0 if it is
	// malformed.
	Samples(payload []byte) int
	// Decode writes the PCM of payload to dst and returns its length.
	Decode(dst []int16, payload []byte) (int, error)
	// Conceal fills dst with what might have been in a lost packet.
	Conceal(dst []int16)
	// HasFEC reports whether next carries a copy of the packet before it.
	HasFEC(next []byte) bool
	// Recover fills dst, which is as long as the lost packet was, from the
	// copy in next, the packet after it.
	Recover(dst []int16, next []byte)
	// Close frees what the decoder holds outside the Go heap.
	Close()
}

// A Codec describes an encoding.
type Codec struct {
	Name  string // "pcmu", "pcma", "g722", "opus"
	Rate  int    // of PCM, Hz
	Clock int    // of RTP timestamps, Hz; not the same for G.722 (RFC 3551 §4.5.2)
}

// ByName finds a codec. Case does not matter. Opus is given at 48 kHz.
func ByName(name string) (Codec, bool) {
	switch n := strings.ToLower(name); n {
	case "pcmu", "pcma":
		return Codec{n, 8000, 8000}, true
	case "g722":
		return Codec{n, 16000, 8000}, true
	case "opus":
		return Codec{n, 48000, 48000}, true
	}
	return Codec{}, false
}

// NewEncoder returns an encoder of c. The options are for Opus.
func (c Codec) NewEncoder(o OpusOptions) (Encoder, error) {
	switch c.Name {
	case "pcmu":
		return g711Encoder{&ulawTable}, nil
	case "pcma":
		return g711Encoder{&alawTable}, nil
	case "g722":
		return newG722Encoder()
	case "opus":
		return NewOpusEncoder(c.Rate, o)
	}
	return nil, fmt.Errorf("codec: no encoder for %q", c.Name)
}

// NewDecoder returns a decoder of c.
func (c Codec) NewDecoder() (Decoder, error) {
	switch c.Name {
	case "pcmu":
		return newG711Decoder(&ulawTable), nil
	case "pcma":
		return newG711Decoder(&alawTable), nil
	case "g722":
		return newG722Decoder()
	case "opus":
		return NewOpusDecoder(c.Rate)
	}
	return nil, fmt.Errorf("codec: no decoder for %q", c.Name)
}
