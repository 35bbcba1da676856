package siptest

import (
	"fmt"
	"math/bits"

	"gopkg.in/hraban/opus.v2"
)

// format is how a codec appears in SDP, and the rate its PCM has.
type format struct {
	pt       uint8
	rtpmap   string
	clock    int // RTP, Hz
	rate     int // PCM, Hz
	fmtp     string
	eventPT  uint8 // telephone-event with the same clock
	newCodec func() (codec, error)
}

var formats = map[string]format{
	"pcmu": {pt: 0, rtpmap: "PCMU/8000", clock: 8000, rate: 8000, eventPT: 101, newCodec: func() (codec, error) { return g711{ulawEncode, ulawDecode}, nil }},
	"pcma": {pt: 8, rtpmap: "PCMA/8000", clock: 8000, rate: 8000, eventPT: 101, newCodec: func() (codec, error) { return g711{alawEncode, alawDecode}, nil }},
	"g722": {pt: 9, rtpmap: "G722/8000", clock: 8000, rate: 16000, eventPT: 101, newCodec: newG722},
	"opus": {pt: 107, rtpmap: "opus/48000/2", clock: 48000, rate: 48000, fmtp: "useinbandfec=1", eventPT: 110, newCodec: newOpus},
}

// codec turns PCM into payloads and back. It belongs to one goroutine in each
// direction.
type codec interface {
	encode(pcm []int16) ([]byte, error)
	decode(payload []byte) ([]int16, error)
}

type g711 struct {
	enc func(int16) byte
	dec func(byte) int16
}

func (c g711) encode(pcm []int16) ([]byte, error) {
	out := make([]byte, len(pcm))
	for i, v := range pcm {
		out[i] = c.enc(v)
	}
	return out, nil
}

func (c g711) decode(p []byte) ([]int16, error) {
	out := make([]int16, len(p))
	for i, v := range p {
		out[i] = c.dec(v)
	}
	return out, nil
}

// The companding laws of ITU-T G.711, by segment and step.

func ulawEncode(v int16) byte {
	sign, x := byte(0), int(v)
	if x < 0 {
		sign, x = 0x80, -x
	}
	x = min(x, 32635) + 0x84
	seg := bits.Len(uint(x)) - 8
	return ^(sign | byte(seg)<<4 | byte(x>>(seg+3))&0xf)
}

func ulawDecode(b byte) int16 {
	b = ^b
	seg := int(b>>4) & 7
	v := (int(b&0xf)<<3+0x84)<<seg - 0x84
	if b&0x80 != 0 {
		v = -v
	}
	return int16(v)
}

func alawEncode(v int16) byte {
	sign, x := byte(0x80), int(v)
	if x < 0 {
		sign, x = 0, -x-1
	}
	x >>= 3
	seg := max(0, bits.Len(uint(x))-5)
	q := byte(seg) << 4
	if seg < 2 {
		q |= byte(x>>1) & 0xf
	} else {
		q |= byte(x>>seg) & 0xf
	}
	return (sign | q) ^ 0x55
}

func alawDecode(b byte) int16 {
	b ^= 0x55
	seg, v := int(b>>4)&7, int(b&0xf)<<4
	if seg == 0 {
		v += 8
	} else {
		v = (v + 0x108) << (seg - 1)
	}
	if b&0x80 == 0 {
		v = -v
	}
	return int16(v)
}

type opusCodec struct {
	enc *opus.Encoder
	dec *opus.Decoder
}

func newOpus() (codec, error) {
	enc, err := opus.NewEncoder(48000, 1, opus.AppVoIP)
	if err != nil {
		return nil, fmt.Errorf("siptest: %w", err)
	}
	if err := enc.SetInBandFEC(true); err != nil {
		return nil, fmt.Errorf("siptest: %w", err)
	}
	dec, err := opus.NewDecoder(48000, 1)
	if err != nil {
		return nil, fmt.Errorf("siptest: %w", err)
	}
	return &opusCodec{enc, dec}, nil
}

func (c *opusCodec) encode(pcm []int16) ([]byte, error) {
	out := make([]byte, 1275)
	n, err := c.enc.Encode(pcm, out)
	return out[:max(0, n)], err
}

func (c *opusCodec) decode(p []byte) ([]int16, error) {
	out := make([]int16, 5760) // 120 ms
	n, err := c.dec.Decode(p, out)
	return out[:max(0, n)], err
}
