package media

import "brewline/media/codec"

// A frame is one packet time of audio on its way from one leg to the other:
// PCM and, if that is exactly what one Opus packet said, the packet. It may
// then be passed on as it is.
type frame struct {
	pcm  []int16
	opus []byte // valid until the next pull; nil: none
	// noise says that all of it is comfort noise, made here.
	noise bool
}

// silence makes the frame silent.
func (f *frame) silence() {
	clear(f.pcm)
	f.opus, f.noise = nil, false
}

// An outlet makes payloads of frames. Where both legs speak Opus it passes
// packets on unchanged; packets are decoded all the same, for their level and
// so that the decoder is ready. It begins to pass them on in a pause only, as
// the far end's decoder would hear the change from one encoder to another in
// the middle of speech.
type outlet struct {
	enc     codec.Encoder
	opus    *codec.OpusEncoder // enc, if packets may be passed on
	passing bool
	pause   bool // nothing was heard in the last frame
	encoded uint64
	passed  uint64
}

// put writes the payload of f to dst and returns its length.
func (o *outlet) put(dst []byte, f *frame) (int, error) {
	if o.opus != nil {
		pause := audioLevel(f.pcm) >= levelPause
		switch {
		case f.opus == nil || len(f.opus) > len(dst):
			if o.passing {
				o.passing = false
				o.opus.Reset() // what it remembers is not what was heard
			}
		case !o.passing:
			o.passing = pause || o.pause
		}
		o.pause = pause
		if o.passing {
			o.passed++
			return copy(dst, f.opus), nil
		}
	}
	n, err := o.enc.Encode(dst, f.pcm)
	if err == nil {
		o.encoded++
	}
	return n, err
}

// rest tells the outlet that nothing was sent for a frame.
func (o *outlet) rest() { o.pause = true }
