package codec

// concealer makes up lost PCM by repeating the last pitch periods, in the
// manner of ITU-T G.711 Appendix I, but without its delay: the seam at the
// beginning of a loss is smoothed with the signal mirrored in time.
type concealer struct {
	rate    int
	history []int16 // the last 45 ms given out
	cycle   []int16 // what is being repeated
	pos     int     // in cycle
	pitch   int     // samples
	lost    int     // samples made up since the last good one
	tail    []int16 // what would have followed, for the seam at the end
}

func newConcealer(rate int) *concealer {
	return &concealer{
		rate:    rate,
		history: make([]int16, rate*45/1000),
		cycle:   make([]int16, 0, rate*45/1000),
		tail:    make([]int16, rate*5/1000),
	}
}

// good takes note of decoded PCM, and blends its beginning with the end of a
// concealment.
func (c *concealer) good(pcm []int16) {
	if c.lost > 0 {
		n := min(len(pcm), len(c.tail))
		c.repeat(c.tail[:n])
		for i := range n {
			w := int32(i+1) * 256 / int32(n+1)
			pcm[i] = int16((int32(pcm[i])*w + int32(c.tail[i])*(256-w)) >> 8)
		}
		c.lost = 0
	}
	c.remember(pcm)
}

func (c *concealer) remember(pcm []int16) {
	if n := len(c.history); len(pcm) >= n {
		copy(c.history, pcm[len(pcm)-n:])
	} else {
		copy(c.history, c.history[len(pcm):])
		copy(c.history[n-len(pcm):], pcm)
	}
}

func (c *concealer) conceal(dst []int16) {
	if c.lost == 0 {
		c.start()
	}
	first := c.lost == 0
	c.repeat(dst)
	if first {
		// From the signal mirrored at the last sample into the repetition.
		h := c.history
		n := min(c.pitch/4, len(dst))
		for i := range n {
			w := int32(i+1) * 256 / int32(n+1)
			dst[i] = int16((int32(dst[i])*w + int32(h[len(h)-1-i])*(256-w)) >> 8)
		}
	}
	c.remember(dst)
}

// start takes the last pitch period as the cycle, its end blended with what
// came before its beginning so that it can follow itself.
func (c *concealer) start() {
	c.pitch = c.findPitch()
	h, size := c.history, c.pitch
	c.cycle = append(c.cycle[:0], h[len(h)-size:]...)
	blend := c.pitch / 4
	for i := range blend {
		w := int32(i+1) * 256 / int32(blend+1)
		at := size - blend + i
		c.cycle[at] = int16((int32(c.cycle[at])*(256-w) + int32(h[len(h)-size-blend+i])*w) >> 8)
	}
	c.pos = 0
}

// repeat writes the next samples of the repetition. It is at full level for
// 10 ms and gone after 60 ms.
func (c *concealer) repeat(dst []int16) {
	hold, gone := c.rate/100, c.rate*6/100
	for i := range dst {
		switch {
		case c.lost >= gone:
			dst[i] = 0
		case c.lost > hold:
			gain := int32(gone-c.lost) * 256 / int32(gone-hold)
			dst[i] = int16(int32(c.cycle[c.pos]) * gain >> 8)
		default:
			dst[i] = c.cycle[c.pos]
		}
		if c.pos++; c.pos == len(c.cycle) {
			c.pos = 0
		}
		c.lost++
	}
}

// findPitch returns the lag, 2.5 to 15 ms, at which the last 15 ms are most
// like what was before them: normalised correlation on every fourth lag,
// then refined.
func (c *concealer) findPitch() int {
	shortest, longest := c.rate/400, c.rate*15/1000
	step := c.rate / 4000
	best, at := -1.0, longest
	for lag := shortest; lag <= longest; lag += step {
		if v := c.likeness(lag, longest, step); v > best {
			best, at = v, lag
		}
	}
	from, to := max(shortest, at-step+1), min(longest, at+step-1)
	best = -1
	for lag := from; lag <= to; lag++ {
		if v := c.likeness(lag, longest, 1); v > best {
			best, at = v, lag
		}
	}
	return at
}

func (c *concealer) likeness(lag, window, step int) float64 {
	h := c.history
	var product, energy int64
	for i := len(h) - window; i < len(h); i += step {
		product += int64(h[i]) * int64(h[i-lag])
		energy += int64(h[i-lag]) * int64(h[i-lag])
	}
	if product <= 0 || energy == 0 {
		return 0
	}
	return float64(product) * float64(product) / float64(energy)
}
