package codec

import "math/bits"

// A g711Table holds one law of ITU-T G.711 both ways. Encoding looks at the
// upper 14 bits, which is all that either law keeps.
type g711Table struct {
	encode [1 << 14]byte
	decode [256]int16
}

var (
	ulawTable = makeG711(ulawEncode, ulawDecode)
	alawTable = makeG711(alawEncode, alawDecode)
)

func makeG711(encode func(int) byte, decode func(byte) int16) (t g711Table) {
	for i := range t.encode {
		t.encode[i] = encode(int(int16(i << 2)))
	}
	for i := range t.decode {
		t.decode[i] = decode(byte(i))
	}
	return t
}

// ulawEncode implements G.711 table 2a on 16-bit samples: a bias of 33 of the
// law's 14 bits, sign, three bits of segment, four of step, all inverted.
func ulawEncode(s int) byte {
	sign := byte(0)
	if s < 0 {
		s, sign = -s, 0x80
	}
	s = min(s, 32635) + 132
	seg := bits.Len(uint(s)) - 8
	return ^(sign | byte(seg)<<4 | byte(s>>(seg+3))&0x0f)
}

func ulawDecode(b byte) int16 {
	b = ^b
	s := (int(b&0x0f)<<3+132)<<(b>>4&7) - 132
	if b&0x80 != 0 {
		s = -s
	}
	return int16(s)
}

// alawEncode implements G.711 table 1a: even bits inverted.
func alawEncode(s int) byte {
	sign := byte(0x80)
	if s < 0 {
		s, sign = -s-1, 0
	}
	seg := max(bits.Len(uint(s))-8, 0)
	return (sign | byte(seg)<<4 | byte(s>>max(seg+3, 4))&0x0f) ^ 0x55
}

func alawDecode(b byte) int16 {
	b ^= 0x55
	s := int(b&0x0f)<<4 + 8
	if seg := b >> 4 & 7; seg > 0 {
		s = (s + 256) << (seg - 1)
	}
	if b&0x80 == 0 {
		s = -s
	}
	return int16(s)
}

type g711Encoder struct{ t *g711Table }

func (e g711Encoder) Encode(dst []byte, pcm []int16) (int, error) {
	if len(dst) < len(pcm) {
		return 0, ErrShort
	}
	dst = dst[:len(pcm)]
	for i, s := range pcm {
		dst[i] = e.t.encode[uint16(s)>>2]
	}
	return len(pcm), nil
}

func (g711Encoder) Close() {}

type g711Decoder struct {
	t   *g711Table
	plc *concealer
}

func newG711Decoder(t *g711Table) *g711Decoder {
	return &g711Decoder{t, newConcealer(8000)}
}

func (d *g711Decoder) Samples(payload []byte) int {
	if len(payload) > MaxPacket*8 {
		return 0
	}
	return len(payload)
}

func (d *g711Decoder) Decode(dst []int16, payload []byte) (int, error) {
	n := d.Samples(payload)
	if n == 0 {
		return 0, ErrMalformed
	}
	if len(dst) < n {
		return 0, ErrShort
	}
	dst = dst[:n]
	for i, b := range payload {
		dst[i] = d.t.decode[b]
	}
	d.plc.good(dst)
	return n, nil
}

func (d *g711Decoder) Conceal(dst []int16)           { d.plc.conceal(dst) }
func (d *g711Decoder) HasFEC([]byte) bool            { return false }
func (d *g711Decoder) Recover(dst []int16, _ []byte) { d.plc.conceal(dst) }
func (d *g711Decoder) Close()                        {}
