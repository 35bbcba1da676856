package codec

import (
	"fmt"

	opus "gopkg.in/hraban/opus.v2"
)

// OpusOptions are the settings of an Opus encoder.
type OpusOptions struct {
	Complexity int // libopus' complexity, 1 to 10, default 5
	// Bitrate is in bit/s. The default is what libopus needs to send FEC from
	// 5 % of loss on: 20, 28 and 36 kbit/s at 8, 16 and 48 kHz.
	Bitrate int
	Loss    int // percent of packets expected to be lost, which sizes the FEC
}

// OpusEncoder encodes mono speech with in-band FEC.
type OpusEncoder struct {
	e    *opus.Encoder
	loss int
}

// NewOpusEncoder returns an encoder of PCM at rate: 8, 12, 16, 24 or 48 kHz.
func NewOpusEncoder(rate int, o OpusOptions) (*OpusEncoder, error) {
	if o.Complexity == 0 {
		o.Complexity = 5
	}
	if o.Bitrate == 0 {
		switch {
		case rate <= 8000:
			o.Bitrate = 20000
		case rate <= 16000:
			o.Bitrate = 28000
		default:
			o.Bitrate = 36000
		}
	}
	e, err := opus.NewEncoder(rate, 1, opus.AppVoIP)
	if err != nil {
		return nil, fmt.Errorf("codec: opus encoder at %d Hz: %w", rate, err)
	}
	for _, set := range []func() error{
		func() error { return e.SetComplexity(o.Complexity) },
		func() error { return e.SetBitrate(o.Bitrate) },
		func() error { return e.SetInBandFEC(true) },
		func() error { return e.SetPacketLossPerc(o.Loss) },
	} {
		if err := set(); err != nil {
			return nil, fmt.Errorf("codec: opus encoder options %+v: %w", o, err)
		}
	}
	return &OpusEncoder{e, o.Loss}, nil
}

// Encode implements [Encoder]. The PCM must be 2.5, 5, 10, 20, 40 or 60 ms.
func (e *OpusEncoder) Encode(dst []byte, pcm []int16) (int, error) {
	// The wrapper takes the capacity for the room.
	return e.e.Encode(pcm, dst[:len(dst):len(dst)])
}

// SetLoss says how many percent of the packets are lost on their way.
func (e *OpusEncoder) SetLoss(percent int) {
	if percent = min(max(percent, 0), 100); percent != e.loss {
		if e.e.SetPacketLossPerc(percent) == nil {
			e.loss = percent
		}
	}
}

// Reset makes the encoder forget what it encoded.
func (e *OpusEncoder) Reset() { _ = e.e.Reset() } // libopus knows no error here

// Close implements [Encoder].
func (e *OpusEncoder) Close() {}

// OpusDecoder decodes to mono whatever the stream's bandwidth and channels.
type OpusDecoder struct {
	d    *opus.Decoder
	rate int
}

// NewOpusDecoder returns a decoder to rate: 8, 12, 16, 24 or 48 kHz.
func NewOpusDecoder(rate int) (*OpusDecoder, error) {
	d, err := opus.NewDecoder(rate, 1)
	if err != nil {
		return nil, fmt.Errorf("codec: opus decoder at %d Hz: %w", rate, err)
	}
	return &OpusDecoder{d, rate}, nil
}

// Samples implements [Decoder].
func (d *OpusDecoder) Samples(p []byte) int { return OpusSamples(p, d.rate) }

// Decode implements [Decoder].
func (d *OpusDecoder) Decode(dst []int16, p []byte) (int, error) {
	n := d.Samples(p)
	if n == 0 {
		return 0, ErrMalformed
	}
	if len(dst) < n {
		return 0, ErrShort
	}
	return d.d.Decode(p, dst[:n:n])
}

// step is what libopus conceals in, 2.5 ms.
func (d *OpusDecoder) step() int { return d.rate / 400 }

// Conceal implements [Decoder]: libopus' own PLC.
func (d *OpusDecoder) Conceal(dst []int16) {
	whole := len(dst) - len(dst)%d.step()
	clear(dst[whole:])
	for p := dst[:whole]; len(p) > 0; {
		n := min(len(p), d.rate*MaxPacket/1000)
		if d.d.DecodePLC(p[:n:n]) != nil {
			clear(p)
			return
		}
		p = p[n:]
	}
}

// HasFEC implements [Decoder].
func (d *OpusDecoder) HasFEC(next []byte) bool {
	k, ok := parseOpus(next)
	return ok && k.hasFEC()
}

// Recover implements [Decoder]: in-band FEC, or PLC where there is none.
func (d *OpusDecoder) Recover(dst []int16, next []byte) {
	n := len(dst)
	if n%d.step() != 0 || n > d.rate*MaxPacket/1000 || d.Samples(next) == 0 ||
		d.d.DecodeFEC(next, dst[:n:n]) != nil {
		d.Conceal(dst)
	}
}

// Close implements [Decoder].
func (d *OpusDecoder) Close() {}
