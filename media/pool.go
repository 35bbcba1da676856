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

// put takes a copy back.
func (p *pool) put(b []byte) {
	switch cap(b) {
	case smallSize:
		p.small = append(p.small, b)
	case largeSize:
		p.large = append(p.large, b)
	}
}
