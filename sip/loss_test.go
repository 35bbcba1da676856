package sip_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"brewline/sip"
)

// impairment carries datagrams between two user agents and loses, doubles and
// delays them. Each sees the other at the impairment's address.
type impairment struct {
	sides [2]*net.UDPConn // sides[0] is where the first one finds the second
	ends  [2]netip.AddrPort
	loss  float64

	mu      sync.Mutex
	rand    *rand.Rand
	dropped map[[32]byte]int // copies of a datagram, one after another
	sent    int
	lost    int
	wg      sync.WaitGroup
}

// maxDropped is how many copies of a datagram get lost one after another:
// without it, about one of 400 runs of 200 calls would lose all seven of an
// INVITE.
const maxDropped = 5

func newImpairment(t *testing.T, seed uint64, loss float64) *impairment {
	t.Helper()
	im := &impairment{loss: loss, rand: rand.New(rand.NewPCG(seed, 0)), dropped: map[[32]byte]int{}}
	for i := range im.sides {
		c, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			t.Fatal(err)
		}
		_ = c.SetReadBuffer(1 << 20)
		im.sides[i] = c
		t.Cleanup(func() { _ = c.Close() })
	}
	return im
}

// run starts between the two user agents.
func (im *impairment) run(t *testing.T, a, b *sip.UA) {
	for i, u := range []*sip.UA{a, b} {
		im.ends[i] = netip.MustParseAddrPort(u.Addrs()[0].String())
	}
	for i, in := range im.sides {
		out, to := im.sides[1-i], im.ends[1-i]
		im.wg.Go(func() {
			buf := make([]byte, 1<<16)
			for {
				n, _, err := in.ReadFromUDPAddrPort(buf)
				if err != nil {
					return
				}
				for _, delay := range im.fate(buf[:n]) {
					b := append([]byte(nil), buf[:n]...)
					time.AfterFunc(delay, func() { _, _ = out.WriteToUDPAddrPort(b, to) })
				}
			}
		})
	}
	t.Cleanup(func() {
		for _, c := range im.sides {
			_ = c.Close()
		}
		im.wg.Wait()
	})
}

// fate says when copies of a datagram arrive.
func (im *impairment) fate(b []byte) []time.Duration {
	im.mu.Lock()
	defer im.mu.Unlock()
	im.sent++
	key := sha256.Sum256(b)
	if im.rand.Float64() < im.loss && im.dropped[key] < maxDropped {
		im.dropped[key]++
		im.lost++
		return nil
	}
	delete(im.dropped, key)
	delays := []time.Duration{rand.N(5 * time.Millisecond)}
	if im.rand.Float64() < 0.05 {
		delays = append(delays, rand.N(20*time.Millisecond))
	}
	return delays
}

// A fifth of all datagrams is lost, some are doubled and overtake each other:
// no call is, whoever makes it and whoever ends it.
func TestLoss(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	im := newImpairment(t, seed, 0.2)
	const calls, atOnce = 100, 25
	var uas [2]*sip.UA
	arrived := [2]chan *sip.Dialog{make(chan *sip.Dialog, calls), make(chan *sip.Dialog, calls)}
	for i := range uas {
		uas[i] = newUA(t, func(d *sip.Dialog) {
			_ = d.Ringing()
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			callee := d.Header("X-Ends") == "callee"
			// The caller's BYE may come before the ACK, which was lost.
			if _, err := d.Answer(ctx, d.Offer()); err != nil && (callee || !errors.Is(err, sip.ErrEnded)) {
				t.Errorf("answer: %v", err)
			}
			if callee {
				if err := d.Bye(ctx, sip.Reason{Cause: 16}); err != nil {
					t.Errorf("callee's BYE: %v", err)
				}
			}
			arrived[i] <- d
		}, func(o *sip.Options) {
			o.Listen = []sip.Listener{{Network: "udp", Address: "127.0.0.1:0", Advertise: im.sides[1-i].LocalAddr().String()}}
			o.T1, o.T2, o.T4 = 150*time.Millisecond, 600*time.Millisecond, 600*time.Millisecond
		})
	}
	im.run(t, uas[0], uas[1])
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	call := func(from, n int) error {
		ends, over := "caller", make(chan struct{})
		if n%2 == 1 {
			ends = "callee"
		}
		d, sdp, err := uas[from].Invite(ctx, sip.InviteOptions{
			URI: "sip:room@" + im.sides[from].LocalAddr().String(), From: sip.Party{User: "gw"}, SDP: []byte(offerSDP),
			Headers: []sip.Header{{Name: "X-Ends", Value: ends}},
			Handler: sip.DialogHandler{Bye: func(sip.Reason) { close(over) }, Lost: func(err error) { t.Errorf("lost: %v", err) }},
		})
		if err != nil || string(sdp) != offerSDP {
			return fmt.Errorf("INVITE: %q, %w", sdp, err)
		}
		if ends == "caller" {
			return d.Bye(ctx, sip.Reason{Cause: 16})
		}
		select {
		case <-over:
			return nil
		case <-ctx.Done():
			return fmt.Errorf("no BYE: %w", ctx.Err())
		}
	}
	var wg sync.WaitGroup
	for from := range uas {
		slots := make(chan struct{}, atOnce)
		for n := range calls {
			wg.Go(func() {
				slots <- struct{}{}
				defer func() { <-slots }()
				if err := call(from, n); err != nil {
					t.Errorf("call %d of %d: %v", n, from, err)
				}
			})
		}
	}
	wg.Wait()
	for i := range uas {
		for range calls {
			select {
			case <-arrived[i]:
			case <-ctx.Done():
				t.Fatal("a call did not arrive")
			}
		}
		await(t, "dialogs gone", func() bool { return uas[i].Stats().Dialogs == 0 })
	}
	im.mu.Lock()
	defer im.mu.Unlock()
	if share := float64(im.lost) / float64(im.sent); share < 0.15 {
		t.Errorf("only %.0f %% were lost", 100*share)
	}
}
