package transport

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"testing"
	"time"
)

func TestRing(t *testing.T) {
	r := NewRing()
	if _, ok := r.Peek(); ok {
		t.Error("an empty ring has a packet")
	}
	r.Release() // harmless
	for round := range 3 * ringPackets {
		data := bytes.Repeat([]byte{byte(round)}, 1+round%MTU)
		if !r.Push(data, time.Duration(round), round%2 == 1) {
			t.Fatalf("round %d: dropped", round)
		}
		for range 2 { // Peek is repeatable
			p, ok := r.Peek()
			if !ok || !bytes.Equal(p.Data, data) || p.At != time.Duration(round) || p.RTCP != (round%2 == 1) {
				t.Fatalf("round %d: got %+v", round, p)
			}
		}
		r.Release()
	}
	if r.Dropped() != 0 {
		t.Errorf("%d dropped", r.Dropped())
	}
}

// A full ring drops what comes, keeps what it has, and goes on when there is
// room again, be it full by number or by bytes.
func TestRingFull(t *testing.T) {
	for _, size := range []int{1, 100, 172, 400, MTU} {
		r := NewRing()
		data := make([]byte, size)
		held := uint64(0)
		for r.Push(data, time.Duration(held), false) {
			held++
		}
		if want := uint64(min(ringPackets, ringBytes/size)); held != want {
			t.Errorf("size %d: holds %d, want %d", size, held, want)
		}
		r.Push(data, 0, false)
		if r.Dropped() != 2 {
			t.Errorf("size %d: %d dropped, want 2", size, r.Dropped())
		}
		for i := range held {
			p, ok := r.Peek()
			if !ok || p.At != time.Duration(i) {
				t.Fatalf("size %d: packet %d is %+v", size, i, p)
			}
			r.Release()
		}
		if !r.Push(data, 0, false) {
			t.Errorf("size %d: no room in an empty ring", size)
		}
	}
}

// One producer, one consumer, all sizes: everything that was not dropped
// arrives, whole and in order.
func TestRingConcurrent(t *testing.T) {
	r := NewRing()
	const total = 200_000
	go func() {
		random := rand.New(rand.NewPCG(1, 2))
		data := make([]byte, MTU)
		for i := range uint32(total) {
			n := 8 + random.IntN(MTU-8)
			binary.BigEndian.PutUint32(data, i)
			binary.BigEndian.PutUint32(data[n-4:], i)
			for !r.Push(data[:n], time.Duration(i), i%2 == 0) && i == total-1 {
				time.Sleep(time.Millisecond) // the last one must arrive
			}
		}
	}()
	got, last := 0, int64(-1)
	for last != total-1 {
		p, ok := r.Peek()
		if !ok {
			time.Sleep(10 * time.Microsecond)
			continue
		}
		i := binary.BigEndian.Uint32(p.Data)
		if end := binary.BigEndian.Uint32(p.Data[len(p.Data)-4:]); end != i || p.At != time.Duration(i) || p.RTCP != (i%2 == 0) {
			t.Fatalf("packet begins with %d, ends with %d, at %d", i, end, p.At)
		}
		if int64(i) <= last {
			t.Fatalf("packet %d after %d", i, last)
		}
		last = int64(i)
		got++
		r.Release()
	}
	if got == 0 || uint64(got)+r.Dropped() < total {
		t.Errorf("%d arrived, %d dropped of %d", got, r.Dropped(), total)
	}
}
