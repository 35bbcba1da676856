package nattest

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"testing"

	"brewline/internal/siptest"
)

// userSpace is a NAT that this package plays; loss is that of signalling.
func userSpace(t *testing.T, loss float64) *path {
	n := New(Options{
		Public: netip.MustParseAddr("127.0.0.2"), Private: netip.MustParseAddr("10.77.0.2"),
		Loss: loss, Lossy: isSIP, Seed: 1,
	})
	t.Cleanup(n.Close)
	return &path{
		gateway: netip.MustParseAddr("127.0.0.1"), public: n.o.Public,
		listen: func(a *net.UDPAddr) (siptest.Socket, error) { return n.Listen(a.Port) },
		rebind: n.Rebind, lost: n.Lost,
	}
}

func isSIP(b []byte) bool {
	line, _, _ := bytes.Cut(b, []byte("\r\n"))
	return bytes.Contains(line, []byte("SIP/2.0"))
}

func TestPhoneBehindNAT(t *testing.T) {
	t.Parallel()
	phoneBehindNAT(t, userSpace(t, 0))
}

func TestLossySignalling(t *testing.T) {
	t.Parallel()
	lossySignalling(t, userSpace(t, 0.2))
}

// phones is the trunk of phones behind a path.
func phones(p *path) string {
	return fmt.Sprintf("[[trunk]]\nname = \"phones\"\nmatch = [%q]\ncodecs = [\"pcmu\"]\nuri_rooms = true\n", p.public)
}

// phoneBehindNAT calls from behind a NAT: both hear each other, also after hold
// and re-INVITE, and after the NAT has forgotten the call's ports; then each
// side hangs up once.
func phoneBehindNAT(t *testing.T, p *path) {
	w := newWorld(t, p, phones(p))
	alice := w.browser("standup", 0)
	for _, byPhone := range []bool{true, false} {
		phone := w.phone()
		c, err := w.call(phone, "standup", 0)
		w.must(err)
		w.talk(alice, 440, c, 1000)
		w.must(c.Hold(w.ctx))
		w.must(c.Resume(w.ctx))
		w.talk(alice, 500, c, 1100)
		w.must(c.ReinviteLate(w.ctx))
		w.talk(alice, 440, c, 1000)

		p.rebind()
		w.talk(alice, 560, c, 1200)
		// Signalling too comes from another port now, and ours must go there.
		w.must(c.Hold(w.ctx))
		w.must(c.Resume(w.ctx))
		w.talk(alice, 620, c, 1300)
		if byPhone {
			w.must(c.Hangup(w.ctx))
		} else {
			room := "standup@" + w.shard.MUC()
			w.must(w.shard.XMPP.Kick(room, alice.Others()[0], "enough"))
			w.hungUpOn(c)
		}
		w.gone()
	}
}

// lossySignalling makes calls, holds and ends them while a share of all SIP
// messages is lost: no call may be.
func lossySignalling(t *testing.T, p *path) {
	w := newWorld(t, p, phones(p))
	w.browser("standup", 440)
	if p.impair != nil {
		p.impair(netip.MustParseAddrPort(w.gw.SIPAddrs()[0].String()))
	}
	const calls = 12
	var wg sync.WaitGroup
	for i := range calls {
		phone := w.phone()
		wg.Go(func() {
			c, err := w.call(phone, "standup", 0)
			if err == nil {
				err = c.Hold(w.ctx)
			}
			if err == nil {
				err = c.Resume(w.ctx)
			}
			if err == nil {
				err = c.Hangup(w.ctx)
			}
			if err != nil {
				t.Errorf("call %d: %v", i, err)
			}
		})
	}
	wg.Wait()
	w.gone()
	s := w.gw.Snapshot()
	if n := s.Ended["caller_hung_up"]; n != calls {
		t.Errorf("%d calls of %d ended as they should: %v", n, calls, s.Ended)
	}
	if p.lost() < calls {
		t.Errorf("only %d packets lost", p.lost())
	}
}
