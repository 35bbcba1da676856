package transport

import (
	"errors"
	"time"
)

const (
	// MTU is the largest packet, in bytes, that is received or sent. Larger
	// ones are counted and dropped.
	MTU = 1500

	// Overhead is how many bytes of spare capacity SendRTP and SendRTCP need
	// behind the packet for SRTP's tag and, with SRTCP, its index (RFC 3711
	// §3.4: 4+10; RFC 7714 §9: 4+16).
	Overhead = 32
)

// ErrNotConnected is returned by sends before the far end is known.
var ErrNotConnected = errors.New("transport: not connected")

// ErrTooLarge is returned by sends of packets longer than MTU−Overhead.
var ErrTooLarge = errors.New("transport: packet too large")

// A Conn carries RTP and RTCP of one leg.
type Conn interface {
	// Ring returns the received packets, checked and in the clear. It is the
	// same for the life of the Conn and may be read by one goroutine.
	Ring() *Ring
	// SendRTP sends one RTP packet. p needs [Overhead] bytes of spare
	// capacity, is overwritten, and is not kept. Sends are for one goroutine
	// at a time and do not allocate.
	SendRTP(p []byte) error
	// SendRTCP is SendRTP for a compound RTCP packet.
	SendRTCP(p []byte) error
}

var epoch = time.Now()

// Now is the clock of [Packet.At]: monotonic time since the process started.
func Now() time.Duration { return time.Since(epoch) }
