package codec

/*
#cgo pkg-config: spandsp
#cgo noescape g722_encode
#cgo nocallback g722_encode
#cgo noescape g722_decode
#cgo nocallback g722_decode
#include <stdint.h>
#include <spandsp.h>
*/
import "C"

import "errors"

// bitRate722 is the rate of G.722 mode 1, the only one RTP knows.
const bitRate722 = 64000

type g722Encoder struct{ s *C.g722_encode_state_t }

func newG722Encoder() (*g722Encoder, error) {
	s := C.g722_encode_init(nil, bitRate722, 0)
	if s == nil {
		return nil, errors.New("codec: g722_encode_init failed")
	}
	return &g722Encoder{s}, nil
}

func (e *g722Encoder) Encode(dst []byte, pcm []int16) (int, error) {
	if len(pcm) == 0 {
		return 0, nil
	}
	if len(dst) < len(pcm)/2 || len(pcm)%2 != 0 || e.s == nil {
		return 0, ErrShort
	}
	return int(C.g722_encode(e.s, (*C.uint8_t)(&dst[0]), (*C.int16_t)(&pcm[0]), C.int(len(pcm)))), nil
}

func (e *g722Encoder) Close() {
	if e.s != nil {
		C.g722_encode_free(e.s)
		e.s = nil
	}
}

type g722Decoder struct {
	s   *C.g722_decode_state_t
	plc *concealer
}

func newG722Decoder() (*g722Decoder, error) {
	s := C.g722_decode_init(nil, bitRate722, 0)
	if s == nil {
		return nil, errors.New("codec: g722_decode_init failed")
	}
	return &g722Decoder{s, newConcealer(16000)}, nil
}

func (d *g722Decoder) Samples(payload []byte) int {
	if len(payload) > MaxPacket*8 {
		return 0
	}
	return 2 * len(payload)
}

func (d *g722Decoder) Decode(dst []int16, payload []byte) (int, error) {
	n := d.Samples(payload)
	if n == 0 || d.s == nil {
		return 0, ErrMalformed
	}
	if len(dst) < n {
		return 0, ErrShort
	}
	n = int(C.g722_decode(d.s, (*C.int16_t)(&dst[0]), (*C.uint8_t)(&payload[0]), C.int(len(payload))))
	d.plc.good(dst[:n])
	return n, nil
}

func (d *g722Decoder) Conceal(dst []int16)           { d.plc.conceal(dst) }
func (d *g722Decoder) HasFEC([]byte) bool            { return false }
func (d *g722Decoder) Recover(dst []int16, _ []byte) { d.plc.conceal(dst) }

func (d *g722Decoder) Close() {
	if d.s != nil {
		C.g722_decode_free(d.s)
		d.s = nil
	}
}
