package transport

import (
	"sync/atomic"
	"time"
)

// A ring holds what thirty-two speakers of 20 ms packets send in 160 ms, or
// forty packets of the largest size. Both are powers of two.
const (
	ringPackets = 256
	ringBytes   = 64 << 10
)

// A Packet is one received RTP or RTCP packet.
type Packet struct {
	Data []byte        // points into the ring's buffer; valid until Release
	At   time.Duration // when it was read, on the clock of Now
	RTCP bool
}

// A Ring is a bounded queue of received packets between one producer, the
// socket's reader, and one consumer. Its buffer is fixed; a packet that finds
// it full is dropped and counted. No call blocks, locks or allocates. Push is
// for the producer, Peek and Release are for the consumer, Dropped is for all.
type Ring struct {
	written uint64 // bytes ever used, the producer's
	head    atomic.Uint32
	_       [64]byte // keep the two sides on cache lines of their own

	tail  atomic.Uint32
	freed atomic.Uint64 // bytes ever given back, the consumer's
	_     [64]byte

	dropped atomic.Uint64
	slots   [ringPackets]slot
	buffer  [ringBytes]byte
}

type slot struct {
	Packet
	end uint64 // what the packet makes of Ring.freed when it is released
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
	return &r.slots[tail%ringPackets].Packet, true
}

// Release gives the room of the oldest packet back to the producer. Without
// a packet it does nothing.
func (r *Ring) Release() {
	tail := r.tail.Load()
	if tail == r.head.Load() {
		return
	}
	r.freed.Store(r.slots[tail%ringPackets].end)
	r.tail.Store(tail + 1)
}

// Dropped returns how many packets found no room.
func (r *Ring) Dropped() uint64 { return r.dropped.Load() }

// Push copies a packet into the ring. It returns false, and counts the packet
// as dropped, when there is no room for it.
func (r *Ring) Push(data []byte, at time.Duration, rtcp bool) bool {
	head := r.head.Load()
	start := r.written
	if left := ringBytes - start%ringBytes; uint64(len(data)) > left {
		start += left // a packet is in one piece
	}
	end := start + uint64(len(data))
	if head-r.tail.Load() == ringPackets || end-r.freed.Load() > ringBytes {
		r.dropped.Add(1)
		return false
	}
	room := r.buffer[start%ringBytes:][:len(data):len(data)]
	copy(room, data)
	r.slots[head%ringPackets] = slot{Packet{Data: room, At: at, RTCP: rtcp}, end}
	r.written = end
	r.head.Store(head + 1)
	return true
}
