package media

import "math"

const (
	// comfortLevel is the noise that a phone is asked to make while the
	// conference says nothing, -dBov: faint, but the line is alive.
	comfortLevel = 70
	// comfortSlots is how often it is told so, in slots: one packet may be lost.
	comfortSlots = 20
	// comfortMax is how long noise goes on after its last description, seconds.
	comfortMax = 60
	// loudestComfort bounds the noise, -dBov: louder is no comfort to anybody.
	loudestComfort = 30
	// maxReflection is how many reflection coefficients are used.
	maxReflection = 12
)

// comfortNoise makes the noise that a CN packet describes (RFC 3389): white
// noise of the given level, coloured by an all-pole lattice filter where the
// packet tells its reflection coefficients.
type comfortNoise struct {
	on           bool
	left         int     // samples
	gain, target float64 // amplitude now, and where it goes: steps would be heard
	order        int
	k            [maxReflection]float64
	b            [maxReflection + 1]float64
	random       uint32
}

// describe takes the payload of a CN packet (RFC 3389 §3).
func (c *comfortNoise) describe(payload []byte, rate int) {
	if len(payload) == 0 {
		return
	}
	if !c.on {
		c.gain, c.b = 0, [maxReflection + 1]float64{}
	}
	if c.random == 0 {
		c.random = 0x9e3779b9
	}
	c.on, c.left = true, comfortMax*rate
	level := float64(max(payload[0]&0x7f, loudestComfort))
	payload = payload[1:]
	c.order = min(len(payload), maxReflection)
	power := 1.0 // of white noise behind the filter, were there no gain
	for i := range c.order {
		k := 258 * float64(int(payload[i])-127) / 32768
		c.k[i] = min(max(k, -0.9), 0.9) // beyond, the filter rings
		power /= 1 - c.k[i]*c.k[i]
	}
	// Uniform noise of amplitude a has an RMS of a/√3.
	c.target = 32768 * math.Pow(10, -level/20) * math.Sqrt(3/power)
}

// fill makes the next samples.
func (c *comfortNoise) fill(pcm []int16) {
	for i := range pcm {
		c.gain += (c.target - c.gain) / 128
		c.random ^= c.random << 13 // xorshift
		c.random ^= c.random >> 17
		c.random ^= c.random << 5
		f := c.gain * float64(int32(c.random)) / (1 << 31)
		for j := c.order - 1; j >= 0; j-- {
			f -= c.k[j] * c.b[j]
			c.b[j+1] = c.b[j] + c.k[j]*f
		}
		c.b[0] = f
		pcm[i] = int16(min(max(f, -32768), 32767))
	}
	if c.left -= len(pcm); c.left <= 0 {
		c.on = false
	}
}

// comfort sends a description of faint noise in place of coded silence, now and
// then; in between there is nothing to be sent. What is said next is marked
// (RFC 3551 §4.1).
func (b *Bridge) comfort() {
	d, l := &b.down, &b.phone
	if n := d.quiet - hangover - 1; n%max(comfortSlots/d.period, 1) == 0 {
		h := putRTP(l.out[:], b.phoneLeg.CNPT, false, l.seq, l.ts, l.ssrc)
		l.out[h] = comfortLevel
		l.send(h+1, h)
		l.stats.ComfortOut++
	}
	l.pause = true
	d.out.rest()
}
