package jitsitest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"
)

// keys are digits that a leg sends as telephone-events, in place of audio, as
// browsers do (RFC 4733): with the clock of 8000 Hz that is offered, in a
// stream whose timestamps have another.
type keys struct {
	mu      sync.Mutex
	waiting []byte // events
	frames  int    // of each
	frame   int    // of the first
	ts      uint32
}

// Press sends digits as telephone-events, each for d, in place of the
// browser's audio. It does not wait.
func (b *Browser) Press(digits string, d time.Duration) error {
	b.mu.Lock()
	l := b.leg
	b.mu.Unlock()
	if l == nil || l.o.eventPT == 0 {
		return errors.New("no media with telephone-event")
	}
	l.keys.mu.Lock()
	defer l.keys.mu.Unlock()
	for _, r := range digits {
		i := strings.IndexRune("0123456789*#ABCD", r)
		if i < 0 {
			return fmt.Errorf("no digit %q", r)
		}
		l.keys.waiting = append(l.keys.waiting, byte(i))
	}
	l.keys.frames = max(int(d/frameTime), 1)
	return nil
}

// tick sends what is due of the first digit; false leaves the time to audio.
func (k *keys) tick(l *leg) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.waiting) == 0 {
		return false
	}
	const gap, level = 5, 20
	if k.frame == 0 {
		k.ts = l.ts
	}
	k.frame++
	send := func(flags byte, frames int) {
		p := binary.BigEndian.AppendUint16([]byte{k.waiting[0], flags | 10}, uint16(frames*8000/50))
		l.send(l.o.eventPT, k.frame == 1, k.ts, level, p)
	}
	switch {
	case k.frame <= k.frames:
		send(0, k.frame)
	case k.frame == k.frames+1:
		for range 3 {
			send(0x80, k.frames)
		}
	case k.frame > k.frames+gap:
		k.waiting, k.frame = k.waiting[1:], 0
		return false
	}
	return k.frame <= k.frames+1
}
