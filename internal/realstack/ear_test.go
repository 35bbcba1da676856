package realstack

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/bits"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"brewline/internal/tone"
)

const phoneRate = 8000

// ear is a phone's media alone: it says a tone in PCMU (RFC 3551 §4.5.14) to
// whoever sends it audio, and keeps what it hears.
type ear struct {
	conn *net.UDPConn
	wg   sync.WaitGroup
	mu   sync.Mutex
	pcm  []int16
	peer netip.AddrPort
}

func newEar(t *testing.T, freq int) *ear {
	t.Helper()
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	e := &ear{conn: conn}
	stop := make(chan struct{})
	e.wg.Go(e.listen)
	e.wg.Go(func() { e.talk(freq, stop) })
	t.Cleanup(func() {
		close(stop)
		_ = conn.Close()
		e.wg.Wait()
	})
	return e
}

func (e *ear) port() int { return e.conn.LocalAddr().(*net.UDPAddr).Port }

func (e *ear) listen() {
	buf := make([]byte, 1500)
	for {
		n, from, err := e.conn.ReadFromUDPAddrPort(buf)
		if err != nil {
			return
		}
		if n < 12 || buf[0] != 0x80 || buf[1]&0x7f != 0 {
			continue
		}
		e.mu.Lock()
		e.peer = from
		for _, b := range buf[12:n] {
			e.pcm = append(e.pcm, ulawDecode(b))
		}
		e.mu.Unlock()
	}
}

func (e *ear) talk(freq int, stop <-chan struct{}) {
	voice := tone.NewGenerator(freq, phoneRate, 0.5)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	pcm, packet := make([]int16, phoneRate/50), make([]byte, 12+phoneRate/50)
	packet[0] = 0x80
	binary.BigEndian.PutUint32(packet[8:], uint32(freq))
	for n := uint32(0); ; n++ {
		select {
		case <-stop:
			return
		case <-tick.C:
		}
		e.mu.Lock()
		peer := e.peer
		e.mu.Unlock()
		if !peer.IsValid() {
			continue
		}
		voice.Read(pcm)
		binary.BigEndian.PutUint16(packet[2:], uint16(n))
		binary.BigEndian.PutUint32(packet[4:], n*uint32(len(pcm)))
		for i, v := range pcm {
			packet[12+i] = ulawEncode(v)
		}
		_, _ = e.conn.WriteToUDPAddrPort(packet, peer)
	}
}

// heard is all that was heard, at phoneRate.
func (e *ear) heard() []int16 {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.pcm[:len(e.pcm):len(e.pcm)]
}

// Hear waits for a tone in audio that arrives from now on.
func (e *ear) Hear(ctx context.Context, freq int) error {
	return hearIn(ctx, e.heard, phoneRate, freq)
}

// hearIn waits for a tone in what is added to a recording.
func hearIn(ctx context.Context, recording func() []int16, rate, freq int) error {
	window := rate / 5
	mark := len(recording())
	for {
		pcm := recording()
		if len(pcm) >= mark+window && tone.Present(pcm[len(pcm)-window:], rate, freq) {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("no %d Hz in %d samples: %w", freq, len(pcm)-mark, ctx.Err())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// ulawEncode and ulawDecode are ITU-T G.711 µ-law.
func ulawEncode(v int16) byte {
	const bias = 0x84
	sign, x := byte(0), int(v)
	if x < 0 {
		sign, x = 0x80, -x
	}
	x = min(x, 32635) + bias
	exp := bits.Len(uint(x)) - 8
	return ^(sign | byte(exp)<<4 | byte(x>>(exp+3))&0x0f)
}

func ulawDecode(b byte) int16 {
	b = ^b
	x := (int(b&0x0f)<<3+0x84)<<(b>>4&7) - 0x84
	if b&0x80 != 0 {
		x = -x
	}
	return int16(x)
}
