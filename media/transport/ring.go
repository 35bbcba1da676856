package transport

import (
	"sync/atomic"
	"time"
)

// ringSize is the number of packets a [Ring] holds: at 20 ms a packet more
// than a second of one stream, at three speakers and 20 ms over 400 ms. Must
// be a power of two.
const ringSize = 64

// A Packet is one received RTP or RTCP packet.
type Packet struct {
	Data []byte        // points into the ring's buffer; valid until Release
	At   time.Duration // when it was read, on the clock of Now
	RTCP bool
}

// A Ring is a bounded queue of received packets between one producer, the
// socket's reader, and one consumer. Its buffers are fixed; a packet that
// finds it full is dropped and counted. All methods but those of the producer
// are for the consumer, Dropped is for anyone.
type Ring struct {
	head    atomic.Uint32 // next slot to fill; written by the producer
	_       [60]byte      // keep the two sides on cache lines of their own
	tail    atomic.Uint32 // next slot to read; written by the consumer
	_       [60]byte
	dropped atomic.Uint64
	packets [ringSize]Packet
	buffers [ringSize][MTU]byte
}

// NewRing returns an empty ring.
func NewRing() *Ring { return new(Ring) }

// Peek returns the oldest packet, false if there is none. It stays the oldest
// until Release.
func (r *Ring) Peek() (*Packet, bool) {
	tail := r.tail.Load()
	if tail == r.head.Load() {
		return nil, false
	}
	return &r.packets[tail%ringSize], true
}

// Release gives the buffer of the oldest packet back to the producer. Without
// a packet it does nothing.
func (r *Ring) Release() {
	if tail := r.tail.Load(); tail != r.head.Load() {
		r.tail.Store(tail + 1)
	}
}

// Dropped returns how many packets found the ring full.
func (r *Ring) Dropped() uint64 { return r.dropped.Load() }

// Push copies one packet into the ring, or counts it dropped and returns false
// when the ring is full or data is longer than [MTU]. For the producer only.
func (r *Ring) Push(data []byte, at time.Duration, rtcp bool) bool {
	buf, ok := r.reserve()
	if !ok || len(data) > len(buf) {
		r.dropped.Add(1)
		return false
	}
	r.commit(buf[:copy(buf, data)], at, rtcp)
	return true
}

// reserve returns the next free buffer. It is given to the consumer by commit;
// reserving again without one returns the same buffer.
func (r *Ring) reserve() ([]byte, bool) {
	head := r.head.Load()
	if head-r.tail.Load() == ringSize {
		return nil, false
	}
	return r.buffers[head%ringSize][:], true
}

// commit hands the reserved buffer, of which data is the used part, to the
// consumer.
func (r *Ring) commit(data []byte, at time.Duration, rtcp bool) {
	head := r.head.Load()
	r.packets[head%ringSize] = Packet{Data: data, At: at, RTCP: rtcp}
	r.head.Store(head + 1)
}
