package jvb

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"testing"
	"time"
)

// numbers sends n packets from alice and returns the numbers that bob got,
// once want of them are there.
func numbers(t *testing.T, b *Bridge, n, want int, set func(alice, bob *Endpoint)) []uint16 {
	t.Helper()
	alice, ea := join(t, b, "room", "alice", AllocOptions{AudioLevelID: 1}, 1)
	bob, eb := join(t, b, "room", "bob", AllocOptions{AudioLevelID: 1})
	set(ea, eb)
	for i := range n {
		alice.sendRTP(packet(1, uint16(i), 111, 1, 30, "x"))
		if i%20 == 19 { // do not overrun the socket
			await(t, "the bridge to follow", func() bool { return ea.in.count(b) >= uint64(i) })
		}
	}
	await(t, "the packets", func() bool { return len(bob.received()) >= want })
	var got []uint16
	for _, p := range bob.received() {
		got = append(got, binary.BigEndian.Uint16(p[2:]))
	}
	return got
}

// count returns how many packets the direction's faults have seen.
func (d *direction) count(b *Bridge) uint64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	if d.faults.none() {
		return ^uint64(0)
	}
	return d.n
}

func TestLossIsSeeded(t *testing.T) {
	t.Parallel()
	lost := func(seed uint64) []bool {
		b := start(t, Options{Seed: seed})
		e := &Endpoint{in: newDirection(seed, 0, Faults{Loss: 0.3})}
		var out []bool
		for range 1000 {
			out = append(out, b.through(e, &e.in, kindRTP, nil, netip.AddrPort{}, true) == 0)
		}
		return out
	}
	a := lost(7)
	if !slices.Equal(a, lost(7)) {
		t.Error("the same seed lost other packets")
	}
	if slices.Equal(a, lost(8)) {
		t.Error("another seed lost the same packets")
	}
	n := 0
	for _, l := range a {
		if l {
			n++
		}
	}
	if n < 200 || n > 400 {
		t.Errorf("%d of 1000 lost at 0.3", n)
	}
}

func TestDropTrace(t *testing.T) {
	t.Parallel()
	b := start(t, Options{Seed: 1})
	got := numbers(t, b, 10, 8, func(_, bob *Endpoint) {
		bob.SetFaults(Faults{}, Faults{Drop: func(n uint64) bool { return n == 3 || n == 4 }})
	})
	if want := []uint16{0, 1, 2, 5, 6, 7, 8, 9}; !slices.Equal(got, want) {
		t.Errorf("got %v", got)
	}
}

func TestDuplication(t *testing.T) {
	t.Parallel()
	b := start(t, Options{Seed: 1})
	got := numbers(t, b, 3, 6, func(_, bob *Endpoint) { bob.SetFaults(Faults{}, Faults{Duplicate: 1}) })
	if want := []uint16{0, 0, 1, 1, 2, 2}; !slices.Equal(got, want) {
		t.Errorf("got %v", got)
	}
}

func TestReorder(t *testing.T) {
	t.Parallel()
	b := start(t, Options{Seed: 3})
	got := numbers(t, b, 100, 100, func(alice, _ *Endpoint) {
		alice.SetFaults(Faults{Reorder: 0.2, ReorderBy: 20 * time.Millisecond}, Faults{})
	})
	if slices.IsSorted(got) {
		t.Error("in order")
	}
	slices.Sort(got)
	for i, n := range got {
		if int(n) != i {
			t.Fatalf("packet %d is missing or doubled: %v", i, got)
		}
	}
}

func TestJitterKeepsOrder(t *testing.T) {
	t.Parallel()
	b := start(t, Options{Seed: 4})
	begin := time.Now()
	got := numbers(t, b, 50, 50, func(_, bob *Endpoint) {
		bob.SetFaults(Faults{}, Faults{Delay: 30 * time.Millisecond, Jitter: 30 * time.Millisecond})
	})
	if !slices.IsSorted(got) {
		t.Errorf("out of order: %v", got)
	}
	if time.Since(begin) < 30*time.Millisecond {
		t.Error("not delayed")
	}
}

func TestConnectsThroughLoss(t *testing.T) {
	t.Parallel()
	f := Faults{Loss: 0.2, Everything: true}
	b := start(t, Options{Seed: 5, FromClients: f, ToClients: f, CheckInterval: 20 * time.Millisecond})
	join(t, b, "room", "alice", AllocOptions{}, 1)
}
