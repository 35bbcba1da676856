package main

import (
	"embed"
	"encoding/binary"
	"fmt"
	"math"
	"strings"

	opus "gopkg.in/hraban/opus.v2"

	"brewline/media/codec"
)

//go:embed speech/*.pkt
var speechFiles embed.FS

// A sentence is recorded speech, which begins and ends with a short silence.
type sentence struct {
	name string
	pcm  []int16
}

// sentences decodes the recordings to rate.
func sentences(rate int) ([]sentence, error) {
	files, err := speechFiles.ReadDir("speech")
	if err != nil {
		return nil, err
	}
	var all []sentence
	for _, f := range files {
		raw, err := speechFiles.ReadFile("speech/" + f.Name())
		if err != nil {
			return nil, err
		}
		dec, err := codec.NewOpusDecoder(rate)
		if err != nil {
			return nil, err
		}
		s := sentence{name: strings.TrimSuffix(f.Name(), ".pkt")}
		buf := make([]int16, rate*codec.MaxPacket/1000)
		for len(raw) >= 2 {
			n := int(binary.BigEndian.Uint16(raw))
			if raw = raw[2:]; n > len(raw) {
				return nil, fmt.Errorf("%s is cut short", f.Name())
			}
			k, err := dec.Decode(buf, raw[:n])
			if err != nil {
				return nil, fmt.Errorf("%s: %w", f.Name(), err)
			}
			s.pcm, raw = append(s.pcm, buf[:k]...), raw[n:]
		}
		all = append(all, s)
	}
	return all, nil
}

// flowing is all sentences in a row without their pauses: somebody who never
// draws breath.
func flowing(rate int) ([]int16, error) {
	all, err := sentences(rate)
	if err != nil {
		return nil, err
	}
	const pause = 45 // -dBov
	var pcm []int16
	for _, s := range all {
		for p := s.pcm; len(p) >= rate/50; p = p[rate/50:] {
			if f := p[:rate/50]; loudness(f) < pause {
				pcm = append(pcm, f...)
			}
		}
	}
	return pcm, nil
}

// loudness is in -dBov, as RFC 6464 has it: 0 the loudest, 127 silence.
func loudness(pcm []int16) uint8 {
	sum := 0.0
	for _, v := range pcm {
		sum += float64(v) * float64(v)
	}
	if sum == 0 {
		return 127
	}
	return uint8(min(max(math.Round(-10*math.Log10(sum/float64(len(pcm))/(1<<30))), 0), 126))
}

// A frame is 20 ms of encoded speech.
type frame struct {
	payload []byte
	level   uint8
}

// opusFrames encodes 48 kHz speech as a browser does: 32 kbit/s, in-band FEC, no
// DTX. loss is what the encoder expects, percent.
func opusFrames(pcm []int16, loss int) ([]frame, error) {
	enc, err := opus.NewEncoder(48000, 1, opus.AppVoIP)
	if err != nil {
		return nil, err
	}
	for _, err := range []error{enc.SetBitrate(32000), enc.SetComplexity(9), enc.SetInBandFEC(true), enc.SetPacketLossPerc(loss), enc.SetDTX(false)} {
		if err != nil {
			return nil, err
		}
	}
	var out []frame
	buf := make([]byte, 1500)
	for ; len(pcm) >= 960; pcm = pcm[960:] {
		n, err := enc.Encode(pcm[:960], buf)
		if err != nil {
			return nil, err
		}
		out = append(out, frame{append([]byte(nil), buf[:n]...), loudness(pcm[:960])})
	}
	return out, nil
}

// pcmuFrames encodes 8 kHz speech.
func pcmuFrames(pcm []int16) ([]frame, error) {
	c, _ := codec.ByName("pcmu")
	enc, err := c.NewEncoder(codec.OpusOptions{})
	if err != nil {
		return nil, err
	}
	defer enc.Close()
	var out []frame
	for ; len(pcm) >= 160; pcm = pcm[160:] {
		p := make([]byte, 160)
		if _, err := enc.Encode(p, pcm[:160]); err != nil {
			return nil, err
		}
		out = append(out, frame{p, loudness(pcm[:160])})
	}
	return out, nil
}
