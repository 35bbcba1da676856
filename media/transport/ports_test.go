package transport

import (
	"errors"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"
)

var loopback = netip.MustParseAddr("127.0.0.1")

// freeRange finds n neighbouring ports that are free at the moment.
func freeRange(t *testing.T, n int) int {
	t.Helper()
	for range 1000 {
		first := 20000 + 2*rand.IntN(20000)
		free := true
		for port := first; port < first+n && free; port++ {
			s, err := open(nil, loopback, port)
			if free = err == nil; free {
				s.Close()
			}
		}
		if free {
			return first
		}
	}
	t.Fatal("no free range")
	return 0
}

func TestPorts(t *testing.T) {
	first := freeRange(t, 10)
	p := NewPorts(first, first+9, time.Minute)
	now := time.Now()
	p.now = func() time.Time { return now }
	seen := map[int]bool{}
	var all []*socket
	for range 10 {
		s, err := p.listen(loopback)
		if err != nil {
			t.Fatal(err)
		}
		if s.port < first || s.port > first+9 || seen[s.port] {
			t.Errorf("port %d", s.port)
		}
		seen[s.port] = true
		all = append(all, s)
	}
	if _, err := p.listen(loopback); !errors.Is(err, ErrNoPorts) {
		t.Errorf("eleventh of ten: %v", err)
	}
	if p.InUse() != 10 {
		t.Errorf("%d in use", p.InUse())
	}
	for _, s := range all {
		s.Close()
		s.Close() // once only
	}
	if p.InUse() != 0 {
		t.Errorf("%d in use after close", p.InUse())
	}
	now = now.Add(59 * time.Second)
	if _, err := p.listen(loopback); !errors.Is(err, ErrNoPorts) {
		t.Errorf("while draining: %v", err)
	}
	now = now.Add(time.Second)
	s, err := p.listen(loopback)
	if err != nil {
		t.Fatalf("after the drain: %v", err)
	}
	s.Close()
}

func TestPortPairs(t *testing.T) {
	first := freeRange(t, 11)
	p := NewPorts(first+1, first+10, 0) // odd first, even last: four whole pairs
	var all []*socket
	for range 4 {
		rtp, rtcp, err := p.listenPair(loopback)
		if err != nil {
			t.Fatal(err)
		}
		if rtp.port%2 != 0 || rtcp.port != rtp.port+1 || rtp.port <= first || rtcp.port > first+10 {
			t.Errorf("pair %d, %d", rtp.port, rtcp.port)
		}
		all = append(all, rtp, rtcp)
	}
	if _, _, err := p.listenPair(loopback); !errors.Is(err, ErrNoPorts) {
		t.Errorf("fifth of four pairs: %v", err)
	}
	for range 2 { // the odd first and the even last are left
		s, err := p.listen(loopback)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, s)
	}
	for _, s := range all {
		s.Close()
	}
	if p.InUse() != 0 {
		t.Errorf("%d in use", p.InUse())
	}
}

// Ports that another process has are passed over.
func TestPortsTaken(t *testing.T) {
	first := freeRange(t, 4)
	other, err := net.ListenUDP("udp4", &net.UDPAddr{IP: loopback.AsSlice(), Port: first + 1})
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	p := NewPorts(first, first+3, time.Minute)
	rtp, rtcp, err := p.listenPair(loopback)
	if err != nil {
		t.Fatal(err)
	}
	defer rtp.Close()
	defer rtcp.Close()
	if rtp.port != first+2 {
		t.Errorf("pair at %d, want %d", rtp.port, first+2)
	}
	s, err := p.listen(loopback) // the attempt at the first pair left no drain
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if s.port != first {
		t.Errorf("port %d, want %d", s.port, first)
	}
	if _, err := p.listen(loopback); !errors.Is(err, ErrNoPorts) {
		t.Errorf("nothing left: %v", err)
	}
}

func TestPortsRandomOrder(t *testing.T) {
	p := NewPorts(1000, 1999, 0)
	for _, step := range []int{1, 2} {
		visits := map[int]int{}
		starts := map[int]bool{}
		for range 20 {
			i := 0
			for port := range p.candidates(step) {
				if i == 0 {
					starts[port] = true
				}
				visits[port]++
				i++
			}
		}
		if len(visits) != 1000/step {
			t.Errorf("step %d: %d ports visited", step, len(visits))
		}
		for port, n := range visits {
			if n != 20 || port < 1000 || port > 1999 || step == 2 && port%2 != 0 {
				t.Errorf("step %d: port %d visited %d times", step, port, n)
			}
		}
		if len(starts) < 5 {
			t.Errorf("step %d: only %d different starts in 20", step, len(starts))
		}
	}
	for range NewPorts(1001, 1001, 0).candidates(2) {
		t.Error("a pair in a range of one")
	}
}

func TestPortsConcurrent(t *testing.T) {
	t.Parallel()
	first := freeRange(t, 40)
	p := NewPorts(first, first+39, 0)
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			for range 50 {
				rtp, rtcp, err := p.listenPair(loopback)
				if err != nil {
					t.Error(err)
					return
				}
				rtp.Close()
				rtcp.Close()
			}
		})
	}
	wg.Wait()
	if p.InUse() != 0 {
		t.Errorf("%d in use", p.InUse())
	}
}

func TestPortsOfTheSystem(t *testing.T) {
	for _, p := range []*Ports{nil, NewPorts(0, 0, time.Hour)} {
		s, err := p.listen(loopback)
		if err != nil {
			t.Fatal(err)
		}
		rtp, rtcp, err := p.listenPair(loopback)
		if err != nil {
			t.Fatal(err)
		}
		if rtp.port%2 != 0 || rtcp.port != rtp.port+1 {
			t.Errorf("pair %d, %d", rtp.port, rtcp.port)
		}
		if p != nil && p.InUse() != 3 {
			t.Errorf("%d in use", p.InUse())
		}
		s.Close()
		rtp.Close()
		rtcp.Close()
		if p.InUse() != 0 {
			t.Errorf("%d in use", p.InUse())
		}
	}
	if _, err := NewPorts(0, 0, 0).listen(netip.MustParseAddr("192.0.2.1")); err == nil || errors.Is(err, ErrNoPorts) {
		t.Errorf("address of somebody else: %v", err)
	}
}

// A port that has drained is forgotten, whether it is used again or not.
func TestDrainedPortsAreForgotten(t *testing.T) {
	p := NewPorts(20000, 29999, time.Second)
	now := time.Now()
	p.now = func() time.Time { return now }
	for port := range 10_000 {
		p.giveBack(20000 + port)
		now = now.Add(50 * time.Millisecond)
	}
	if n := len(p.until); n > 64 {
		t.Errorf("%d ports are kept, 20 are draining", n)
	}
}
