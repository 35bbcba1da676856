package siptest

// #cgo pkg-config: spandsp
// #include <stdlib.h>
// #include <spandsp.h>
import "C"

import (
	"errors"
	"runtime"
	"unsafe"
)

// g722 is ITU-T G.722 at 64 kbit/s, by libspandsp.
type g722 struct {
	enc *C.g722_encode_state_t
	dec *C.g722_decode_state_t
}

func newG722() (codec, error) {
	c := &g722{enc: C.g722_encode_init(nil, 64000, 0), dec: C.g722_decode_init(nil, 64000, 0)}
	if c.enc == nil || c.dec == nil {
		return nil, errors.New("siptest: g722: out of memory")
	}
	runtime.SetFinalizer(c, func(c *g722) {
		C.g722_encode_free(c.enc)
		C.g722_decode_free(c.dec)
	})
	return c, nil
}

func (c *g722) encode(pcm []int16) ([]byte, error) {
	out := make([]byte, len(pcm)/2+1)
	if len(pcm) == 0 {
		return nil, nil
	}
	n := C.g722_encode(c.enc, (*C.uint8_t)(unsafe.Pointer(&out[0])), (*C.int16_t)(unsafe.Pointer(&pcm[0])), C.int(len(pcm)))
	return out[:n], nil
}

func (c *g722) decode(p []byte) ([]int16, error) {
	if len(p) == 0 {
		return nil, nil
	}
	out := make([]int16, 2*len(p)+2)
	n := C.g722_decode(c.dec, (*C.int16_t)(unsafe.Pointer(&out[0])), (*C.uint8_t)(unsafe.Pointer(&p[0])), C.int(len(p)))
	return out[:n], nil
}
