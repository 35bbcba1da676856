package jvb

import (
	"net/netip"
	"testing"

	"github.com/pion/stun/v3"
)

// FuzzPacket feeds the bridge's socket with anything, from an address it
// knows and from one it does not.
func FuzzPacket(f *testing.F) {
	b, err := Start(Options{})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = b.Stop() })
	e, err := b.Allocate("room", "alice", AllocOptions{AudioLevelID: 1})
	if err != nil {
		f.Fatal(err)
	}
	known, unknown := netip.MustParseAddrPort("127.0.0.1:9"), netip.MustParseAddrPort("127.0.0.1:10")
	b.mu.Lock()
	b.byAddr[known] = e
	b.mu.Unlock()
	check, err := stun.Build(stun.BindingRequest, stun.TransactionID, stun.NewUsername(e.Ufrag+":x"),
		stun.NewShortTermIntegrity(e.Pwd), stun.Fingerprint)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(check.Raw)
	f.Add(packet(1, 2, 111, 1, 30, "x"))
	f.Add([]byte{22, 254, 253, 0})
	f.Add([]byte{0x80, ptSR, 0, 6, 0, 0, 0, 1})
	f.Fuzz(func(t *testing.T, p []byte) {
		b.mu.Lock()
		b.receive(p, known)
		b.receive(p, unknown)
		b.mu.Unlock()
		var v view
		if v.parse(p, 1) && v.payload > len(p) {
			t.Errorf("payload at %d of %d", v.payload, len(p))
		}
	})
}
