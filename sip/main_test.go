package sip_test

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"

	"go.uber.org/goleak"

	"brewline/internal/siptest"
	"brewline/sip"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// testT1 scales every SIP timer: 64·T1 is 640 ms.
const testT1 = 10 * time.Millisecond

func testCtx(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// newUA starts a user agent on a UDP and a TCP port; change may alter options.
func newUA(t *testing.T, onInvite func(*sip.Dialog), change ...func(*sip.Options)) *sip.UA {
	t.Helper()
	o := sip.Options{
		Listen:    []sip.Listener{{Network: "udp", Address: "127.0.0.1:0"}, {Network: "tcp", Address: "127.0.0.1:0"}},
		Match:     func(netip.AddrPort) (string, bool) { return "ipbx", true },
		OnInvite:  onInvite,
		UserAgent: "Brewline/test",
		T1:        testT1, T2: 8 * testT1, T4: 10 * testT1,
	}
	for _, f := range change {
		f(&o)
	}
	u, err := sip.Listen(testCtx(t), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = u.Close() })
	return u
}

// uri returns the SIP URI of the user agent over "udp" or "tcp".
func uri(u *sip.UA, network string) string {
	for _, a := range u.Addrs() {
		if a.Network() == network {
			return "sip:phoneMeet@" + a.String()
		}
	}
	return ""
}

func newPhone(t *testing.T, change ...func(*siptest.PhoneOptions)) *siptest.Phone {
	t.Helper()
	o := siptest.PhoneOptions{T1: 2 * testT1}
	for _, f := range change {
		f(&o)
	}
	p, err := siptest.NewPhone(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() })
	return p
}

// await polls until ok.
func await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
	}
}

// echo sends back every RTP packet that comes in on its port.
type echo struct{ c *net.UDPConn }

func newEcho(t *testing.T) *echo {
	t.Helper()
	c, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 2048)
		for {
			n, src, err := c.ReadFromUDPAddrPort(buf)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			_, _ = c.WriteToUDPAddrPort(buf[:n], src)
		}
	}()
	t.Cleanup(func() { _ = c.Close(); <-done })
	return &echo{c}
}

func (e *echo) local(codecs ...string) sip.Local {
	l := sip.Local{Addr: netip.MustParseAddr("127.0.0.1"), Port: e.c.LocalAddr().(*net.UDPAddr).Port, DTMF: true, SessionID: 1, Version: 1}
	for _, c := range codecs {
		l.Codecs = append(l.Codecs, sip.Codec{Name: c})
	}
	return l
}

// answer answers the dialog's offer, or offers, with the echo's port.
func (e *echo) answer(d *sip.Dialog, codecs ...string) (sip.Media, error) {
	l := e.local(codecs...)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if d.Offer() == nil {
		offer := sip.Offer(l)
		b, err := d.Answer(ctx, offer.Marshal())
		if err != nil {
			return sip.Media{}, err
		}
		ans, err := sip.ParseSDP(b)
		if err != nil {
			return sip.Media{}, err
		}
		return sip.Accept(offer, ans, l)
	}
	offer, err := sip.ParseSDP(d.Offer())
	if err != nil {
		return sip.Media{}, err
	}
	ans, m, err := sip.Answer(offer, l)
	if err != nil {
		return m, errors.Join(err, d.Reject(488, sip.Reason{Cause: 88, Text: err.Error()}))
	}
	_, err = d.Answer(ctx, ans.Marshal())
	return m, err
}
