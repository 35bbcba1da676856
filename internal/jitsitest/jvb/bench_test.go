package jvb

import (
	"encoding/binary"
	"net/netip"
	"testing"
	"time"

	"github.com/pion/rtp"
	"github.com/pion/srtp/v3"
)

// forwarding is a bridge with n endpoints in one conference whose keys are
// set by hand, and a client's SRTP context for the first of them.
func forwarding(tb testing.TB, n int) (*Bridge, *srtp.Context, netip.AddrPort) {
	tb.Helper()
	b, err := Start(Options{})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = b.Stop() })
	context := func() *srtp.Context {
		c, err := srtp.CreateContext(make([]byte, 16), make([]byte, 12), srtp.ProtectionProfileAeadAes128Gcm, srtp.SRTPReplayProtection(256))
		if err != nil {
			tb.Fatal(err)
		}
		return c
	}
	var first netip.AddrPort
	for i := range n {
		e, err := b.Allocate("room", string(rune('a'+i)), AllocOptions{AudioLevelID: 1})
		if err != nil {
			tb.Fatal(err)
		}
		addr := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), b.addr.Port()) // to itself, where it is dropped
		if i == 0 {
			addr = netip.MustParseAddrPort("127.0.0.1:9")
			first = addr
		}
		b.mu.Lock()
		e.srtpIn, e.srtpOut, e.selected = context(), context(), &pair{addr: addr, next: time.Now().Add(time.Hour), consent: time.Now().Add(time.Hour)}
		if i == 0 {
			e.signalled[1] = true
			b.byAddr[addr] = e
		}
		b.mu.Unlock()
	}
	return b, context(), first
}

func BenchmarkForward(bm *testing.B) {
	b, client, from := forwarding(bm, 3)
	p := packet(1, 0, 111, 1, 30, string(make([]byte, 80)))
	enc := make([]byte, 0, maxPacket)
	seq, header := uint16(0), rtp.Header{}
	bm.ReportAllocs()
	for bm.Loop() {
		seq++
		binary.BigEndian.PutUint16(p[2:], seq)
		out, err := client.EncryptRTP(enc, p, &header)
		if err != nil {
			bm.Fatal(err)
		}
		b.mu.Lock()
		b.receive(out, from)
		b.mu.Unlock()
	}
}
