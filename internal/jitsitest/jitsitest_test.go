package jitsitest

import (
	"context"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func within(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

func shard(t *testing.T, o ShardOptions) *Shard {
	t.Helper()
	s, err := NewShard(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func browser(t *testing.T, o BrowserOptions) *Browser {
	t.Helper()
	b, err := JoinBrowser(within(t, 20*time.Second), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	return b
}

func hears(t *testing.T, b *Browser, freq int) {
	t.Helper()
	if err := b.Hear(within(t, 15*time.Second), freq); err != nil {
		t.Fatal(err)
	}
}

func TestTwoHearEachOther(t *testing.T) {
	t.Parallel()
	s := shard(t, ShardOptions{})
	a := browser(t, BrowserOptions{URL: s.BOSHURL(), Room: "standup", Tone: 440})
	b := browser(t, BrowserOptions{URL: s.BOSHURL(), Room: "standup", Tone: 1000, JSON: true})
	c := browser(t, BrowserOptions{URL: s.BOSHURL(), Room: "other", Tone: 700})
	d := browser(t, BrowserOptions{URL: s.BOSHURL(), Room: "other", Tone: 1500})
	hears(t, a, 1000)
	hears(t, b, 440)
	hears(t, c, 1500)
	hears(t, d, 700)
	for _, x := range []struct {
		b    *Browser
		nick string
		n    int
	}{{a, b.Nick(), 1}, {b, a.Nick(), 1}, {c, d.Nick(), 1}, {d, c.Nick(), 1}} {
		src := x.b.Sources()
		if len(src) != x.n {
			t.Errorf("%s hears %v", x.b.Nick(), src)
		}
		if len(x.b.HeardFrom(x.nick)) == 0 {
			t.Errorf("%s does not know whom it hears: %v", x.b.Nick(), src)
		}
		if got := x.b.Others(); len(got) != 1 || got[0] != x.nick {
			t.Errorf("%s sees %v", x.b.Nick(), got)
		}
		if _, bad := x.b.Received(); bad != 0 {
			t.Errorf("%d bad packets", bad)
		}
	}
}
