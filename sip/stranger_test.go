package sip_test

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/ipv4"

	"brewline/internal/siptest"
	"brewline/sip"
)

// lines counts the lines of a log.
type lines struct{ n atomic.Int64 }

func (*lines) Enabled(context.Context, slog.Level) bool { return true }
func (l *lines) Handle(context.Context, slog.Record) error {
	l.n.Add(1)
	return nil
}
func (l *lines) WithAttrs([]slog.Attr) slog.Handler { return l }
func (l *lines) WithGroup(string) slog.Handler      { return l }

// onlyLocalhost lets 127.0.0.1 in, and no other address of the loopback.
func onlyLocalhost(o *sip.Options) {
	o.Match = func(a netip.AddrPort) (string, bool) { return "ipbx", a.Addr() == netip.MustParseAddr("127.0.0.1") }
}

// Who scans with REGISTER and SUBSCRIBE is refused or challenged so many
// times, then not answered any more until the ban is over.
func TestScanners(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		answer   int
		accounts []sip.Account
	}{
		"refused":    {403, nil},
		"challenged": {401, accounts},
	} {
		for i, method := range []string{"REGISTER", "SUBSCRIBE", "OPTIONS", "INVITE"} {
			t.Run(name+" "+method, func(t *testing.T) {
				t.Parallel()
				u := newUA(t, func(*sip.Dialog) { t.Error("a scanner's call came through") }, onlyLocalhost, func(o *sip.Options) {
					o.Accounts = func() []sip.Account { return tt.accounts }
					o.BanAfter, o.BanTime = 8, time.Hour
					o.UnknownRate, o.UnknownBurst = 1000, 1000
				})
				scanner, neighbour := newPeerAt(t, u, fmt.Sprintf("127.0.1.%d", i+1)), newPeerAt(t, u, fmt.Sprintf("127.0.2.%d", i+1))
				for i := range 8 {
					scanner.send(scanner.request(method, i+1, ""))
					scanner.response(tt.answer)
				}
				await(t, "the ban", func() bool { return u.Stats().BannedAddresses == 1 })
				scanner.send(scanner.request(method, 100, ""))
				await(t, "what a banned address sends is not read", func() bool { return u.Stats().Banned > 0 })
				neighbour.send(neighbour.request(method, 1, ""))
				neighbour.response(tt.answer)
				if s := u.Stats(); s.ServerTransactions != 0 || s.Malformed != 0 {
					t.Errorf("%+v", s)
				}
			})
		}
	}
}

// A banned address gets no connection either.
func TestBannedConnection(t *testing.T) {
	t.Parallel()
	u := newUA(t, reject, func(o *sip.Options) {
		o.Match = func(netip.AddrPort) (string, bool) { return "", false }
		o.BanAfter, o.BanTime = 3, time.Hour
	})
	p := newPeer(t, u, "udp")
	for i := range 3 {
		p.send(p.request("REGISTER", i+1, ""))
		p.response(403)
	}
	c, err := net.Dial("tcp", u.Addrs()[1].String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := c.Read(make([]byte, 1)); err == nil || strings.Contains(err.Error(), "timeout") {
		t.Errorf("the connection is served: %v", err)
	}
	if n := u.Stats().Connections; n != 0 {
		t.Errorf("%d connections", n)
	}
}

// Floods of INVITEs from as many addresses as there are, and of nonsense,
// reach nobody, leave nothing, fill no log, and disturb no call.
func TestFloods(t *testing.T) {
	t.Parallel()
	garbage := func(r *rand.Rand, src string, i int) string {
		b := make([]byte, 40+r.IntN(1000))
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		switch i % 4 {
		case 0:
			return "INVITE sip:x@y SIP/2.0\r\nVia: " + string(b)
		case 1:
			return "SIP/2.0 200 OK\r\n" + string(b) + "\r\n\r\n"
		case 2:
			return "INVITE sip:x@y SIP/2.0\r\nVia: SIP/2.0/UDP " + src + ";branch=z9hG4bK1\r\nContent-Length: -1\r\n\r\n"
		}
		b[0] |= 0x40
		return string(b)
	}
	invite := func(_ *rand.Rand, src string, i int) string {
		return fmt.Sprintf("INVITE sip:9%d@127.0.0.1 SIP/2.0\r\nVia: SIP/2.0/UDP %s;branch=z9hG4bK%d;rport\r\nFrom: <sip:a@b>;tag=%d\r\nTo: <sip:c@d>\r\n"+
			"Call-ID: flood%d\r\nCSeq: 1 INVITE\r\nContact: <sip:a@%s>\r\nMax-Forwards: 70\r\nContent-Length: 0\r\n\r\n", i, src, i, i, i, src)
	}
	for name, tt := range map[string]struct {
		message  func(*rand.Rand, string, int) string
		accounts []sip.Account
		sources  int
	}{
		"INVITEs of one":                {invite, nil, 1},
		"INVITEs of many":               {invite, nil, 4000},
		"INVITEs of many, challenged":   {invite, accounts, 4000},
		"nonsense of one":               {garbage, nil, 1},
		"nonsense of many":              {garbage, nil, 4000},
		"nonsense of many, if they may": {garbage, accounts, 4000},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			log := &lines{}
			e := newEcho(t)
			u := newUA(t, func(d *sip.Dialog) {
				if d.Source().Addr() != netip.MustParseAddr("127.0.0.1") {
					t.Errorf("a stranger's call came through, from %s", d.Source())
				}
				_, _ = e.answer(d, "pcmu")
			}, onlyLocalhost, func(o *sip.Options) {
				o.T1, o.T2 = 50*testT1, 400*testT1
				o.Accounts = func() []sip.Account { return tt.accounts }
				o.BanAfter, o.BanTime, o.UnknownTotal = 20, time.Minute, 20
				o.Logger = slog.New(log)
			})
			p := newPhone(t, func(o *siptest.PhoneOptions) { o.T1 = 50 * testT1 })
			call := func() *siptest.Call {
				t.Helper()
				c, err := p.Call(testCtx(t), siptest.CallOptions{URI: uri(u, "udp")})
				if err != nil {
					t.Fatalf("a good call: %v", err)
				}
				return c
			}
			began := time.Now()
			before := call()
			flood(t, u, 4000, tt.sources, tt.message)
			during := call()
			for _, c := range []*siptest.Call{before, during} {
				if err := c.Hangup(testCtx(t)); err != nil {
					t.Errorf("a good call's end: %v", err)
				}
			}
			await(t, "no dialog is left", func() bool { return u.Stats().Dialogs == 0 })
			s := u.Stats()
			if s.Dropped+s.Banned == 0 || s.Refused+s.Challenged > 20+20*uint64(1+time.Since(began)/time.Second) || s.ServerTransactions > 8 || s.BannedAddresses > 8192 {
				t.Errorf("%+v", s)
			}
			if n := log.n.Load(); n > 12 {
				t.Errorf("%d lines of log", n)
			}
		})
	}
}

// flood sends so many datagrams to the user agent's UDP port, from so many
// addresses of 127.0.0.0/8.
func flood(t *testing.T, u *sip.UA, n, sources int, message func(r *rand.Rand, src string, i int) string) {
	t.Helper()
	c, err := net.ListenPacket("udp4", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	pc := ipv4.NewPacketConn(c)
	port := c.LocalAddr().(*net.UDPAddr).Port
	r := rand.New(rand.NewPCG(1, uint64(sources)))
	for i := range n {
		k := i%sources + 256
		src := net.IPv4(127, 1+byte(k>>16), byte(k>>8), byte(k))
		if _, err := pc.WriteTo([]byte(message(r, fmt.Sprintf("%s:%d", src, port), i)), &ipv4.ControlMessage{Src: src}, u.Addrs()[0]); err != nil {
			t.Skipf("no source address %s here: %v", src, err)
		}
	}
}
