package codec

// opusPacket is what the outside of an Opus packet tells (RFC 6716 §3).
type opusPacket struct {
	frame  int // samples at 48 kHz in each frame
	frames int
	silk   bool // SILK or hybrid: may carry FEC
	stereo bool
	first  []byte // the first frame
}

// parseOpus checks p against rules R1 to R7 of RFC 6716 §3.4, so that
// libopus, whose errors allocate, is never given a packet it would refuse.
func parseOpus(p []byte) (k opusPacket, ok bool) {
	if len(p) == 0 {
		return k, false
	}
	toc := p[0]
	switch config := toc >> 3; {
	case config < 12:
		k.silk = true
		k.frame = [4]int{480, 960, 1920, 2880}[config&3]
	case config < 16:
		k.silk = true
		k.frame = 480 << (config & 1)
	default:
		k.frame = 120 << (config & 3)
	}
	k.stereo = toc&4 != 0
	rest := p[1:]
	size := 0
	switch toc & 3 {
	case 0:
		k.frames, size = 1, len(rest)
	case 1:
		if len(rest)%2 != 0 {
			return k, false
		}
		k.frames, size = 2, len(rest)/2
	case 2:
		k.frames = 2
		var used int
		if size, used = opusLength(rest); used == 0 {
			return k, false
		}
		rest = rest[used:]
		if size > len(rest) || len(rest)-size > 1275 {
			return k, false
		}
	case 3:
		if len(rest) == 0 {
			return k, false
		}
		flags := rest[0]
		rest = rest[1:]
		k.frames = int(flags & 63)
		if k.frames == 0 || k.frames*k.frame > MaxPacket*48 {
			return k, false
		}
		if flags&0x40 != 0 { // padding
			pad := 0
			for more := true; more; {
				if len(rest) == 0 {
					return k, false
				}
				b := int(rest[0])
				rest = rest[1:]
				if more = b == 255; more {
					b = 254
				}
				pad += b
			}
			if pad > len(rest) {
				return k, false
			}
			rest = rest[:len(rest)-pad]
		}
		if flags&0x80 == 0 { // constant bit rate
			if len(rest)%k.frames != 0 {
				return k, false
			}
			size = len(rest) / k.frames
			break
		}
		sum := 0
		for i := range k.frames - 1 {
			n, used := opusLength(rest)
			if used == 0 {
				return k, false
			}
			rest = rest[used:]
			sum += n
			if i == 0 {
				size = n
			}
		}
		last := len(rest) - sum
		if last < 0 || last > 1275 {
			return k, false
		}
		if k.frames == 1 {
			size = last
		}
	}
	if size > 1275 {
		return k, false
	}
	k.first = rest[:size]
	return k, true
}

// opusLength reads a frame length (RFC 6716 §3.2.1); used is 0 when cut off.
func opusLength(p []byte) (n, used int) {
	switch {
	case len(p) == 0:
		return 0, 0
	case p[0] < 252:
		return int(p[0]), 1
	case len(p) < 2:
		return 0, 0
	}
	return int(p[0]) + 4*int(p[1]), 2
}

// OpusSamples returns the time in an Opus packet in samples at rate, 0 if the
// packet is malformed.
func OpusSamples(p []byte, rate int) int {
	k, ok := parseOpus(p)
	if !ok {
		return 0
	}
	return k.frame * k.frames / (48000 / rate)
}

// hasFEC reports whether the first frame has the LBRR flag (RFC 6716 §4.2.3,
// §4.2.4). The flags are the first symbols of the range coder, each of
// probability one half, so that they are the first bits of the frame.
func (k *opusPacket) hasFEC() bool {
	if !k.silk || len(k.first) < 2 {
		return false
	}
	silkFrames := max(1, k.frame/960)
	flags := k.first[0] << silkFrames // past mid's VAD flags
	if flags&0x80 != 0 {
		return true
	}
	return k.stereo && flags<<(silkFrames+1)&0x80 != 0
}
