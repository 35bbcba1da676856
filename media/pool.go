package media

// pool holds the packets that wait in one call's buffers. It grows to what
// the call needs, within a bound, and then allocates nothing.
type pool struct {
	small, large [][]byte
	made         [2]int
}

const (
	smallSize = 320 // Opus speech, and G.711 and G.722 up to 40 ms
	largeSize = maxPayload
	maxSmall  = 384
	maxLarge  = 96
	// usualSmall is three speakers and the phone with five packets each, and
	// the kept packets of four more speakers.
	usualSmall = 32
)

// copy returns a copy of b, nil when the bound is reached.
func (p *pool) copy(b []byte) []byte {
	free, size, made, bound := &p.small, smallSize, &p.made[0], maxSmall
	if len(b) > smallSize {
		free, size, made, bound = &p.large, largeSize, &p.made[1], maxLarge
	}
	var c []byte
	if n := len(*free); n > 0 {
		c, *free = (*free)[n-1], (*free)[:n-1]
	} else if *made < bound && len(b) <= size {
		c = make([]byte, size)
		*made++
	} else {
		return nil
	}
	return c[:copy(c[:size], b)]
}

// fill makes what a call needs in a usual network, so that later only unusual
// ones allocate.
func (p *pool) fill() {
	p.small = make([][]byte, 0, maxSmall)
	block := make([]byte, usualSmall*smallSize)
	for ; len(block) > 0; block = block[smallSize:] {
		p.small = append(p.small, block[:smallSize:smallSize])
	}
	p.made[0] = usualSmall
}

// put takes a copy back.
func (p *pool) put(b []byte) {
	switch cap(b) {
	case smallSize:
		p.small = append(p.small, b)
	case largeSize:
		p.large = append(p.large, b)
	}
}
