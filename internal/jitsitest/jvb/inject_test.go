package jvb

import (
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func TestSendAndTap(t *testing.T) {
	t.Parallel()
	b := start(t, Options{})
	e, err := b.Allocate("room", "nobody", AllocOptions{})
	if err != nil {
		t.Fatal(err)
	}
	voice := append(AppendRTP(nil, 111, 7, 960, 4711, 3, 25), "voice"...)
	if e.Send(voice) {
		t.Error("sent to nobody")
	}
	alice, ea := join(t, b, "room", "alice", AllocOptions{AudioLevelID: 3, OpusPT: 111}, 1)
	if !ea.Send(voice) {
		t.Error("not sent")
	}
	await(t, "the packet", func() bool { return len(alice.received()) == 1 })
	var v view
	got := alice.received()[0]
	if !v.parse(got, 3) || v.ssrc != 4711 || v.seq != 7 || v.ts != 960 || v.pt != 111 || v.level != 25 {
		t.Errorf("got %x", got)
	}
	if string(got[v.payload:]) != "voice" {
		t.Errorf("payload %q", got[v.payload:])
	}
	var heard atomic.Int32
	ea.Tap(func(p []byte, at time.Time) {
		if strings.HasSuffix(string(p), "said") && time.Since(at) < time.Minute {
			heard.Add(1)
		}
	})
	alice.sendRTP(packet(1, 1, 111, 3, 30, "said"))
	await(t, "the tap", func() bool { return heard.Load() == 1 })
}
