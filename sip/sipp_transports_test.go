package sip_test

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"brewline/sip"
)

// unhurried keeps us from repeating what sipp has only not read yet.
func unhurried(o *sip.Options) { o.T1, o.T2 = time.Second, 4*time.Second }

// sipp calls each of several listeners, and from several trunks, and is told the
// address that is advertised there.
func TestSIPpAdvertised(t *testing.T) {
	t.Parallel()
	u := newUA(t, answering(nil), unhurried, func(o *sip.Options) {
		o.Listen = []sip.Listener{
			{Network: "udp", Address: "127.0.0.1:0", Advertise: "198.51.100.1:5060"},
			{Network: "udp", Address: "127.0.0.1:0", Advertise: "198.51.100.2:5070"},
			{Network: "tcp", Address: "127.0.0.1:0", Advertise: "198.51.100.3:5060"},
		}
		o.Match = func(a netip.AddrPort) (string, bool) { return a.Addr().String(), true }
		o.AdvertiseFor = func(trunk string) string {
			if trunk == "127.0.0.2" {
				return "198.51.100.9:5070"
			}
			return ""
		}
	})
	for _, tt := range []struct {
		listener         int
		network, from    string
		host, parameters string
	}{
		{0, "udp", "127.0.0.1", "198.51.100.1:5060", ""},
		{1, "udp", "127.0.0.1", "198.51.100.2:5070", ""},
		{2, "tcp", "127.0.0.1", "198.51.100.3:5060", ";transport=tcp"},
		{0, "udp", "127.0.0.2", "198.51.100.9:5070", ""},
		{2, "tcp", "127.0.0.2", "198.51.100.9:5070", ";transport=tcp"},
	} {
		t.Run(fmt.Sprint(tt.listener, " ", tt.from), func(t *testing.T) {
			t.Parallel()
			if err := startSIPp(t, "advertised", tt.network, freePort(t), u.Addrs()[tt.listener].String(), "-m", "1", "-s", "room",
				"-i", tt.from, "-key", "advertised", "<sip:room@"+tt.host+tt.parameters+">")(); err != nil {
				t.Error(err)
			}
		})
	}
}

// sipp is a phone behind a NAT, and one that answers a challenge twice.
func TestSIPpCallers(t *testing.T) {
	t.Parallel()
	for _, scenario := range []string{"nat", "reused"} {
		for i, network := range []string{"udp", "tcp"} {
			t.Run(scenario+" "+network, func(t *testing.T) {
				t.Parallel()
				owner := answering(nil)
				if scenario == "nat" {
					owner = sippOwner(t)
				}
				u := newUA(t, owner, unhurried, func(o *sip.Options) {
					if scenario == "reused" {
						o.Match = func(netip.AddrPort) (string, bool) { return "", false }
						o.Accounts, o.Algorithms = func() []sip.Account { return accounts }, []string{"MD5"}
						o.UnknownRate, o.UnknownBurst = 1000, 1000
					}
				})
				if err := startSIPp(t, scenario, network, freePort(t), u.Addrs()[i].String(), "-m", "3", "-s", "room")(); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

// Calls and registrations go through sipp as the outbound proxy, by Route.
func TestSIPpRoute(t *testing.T) {
	t.Parallel()
	for _, network := range []string{"udp", "tcp"} {
		t.Run("call "+network, func(t *testing.T) {
			t.Parallel()
			port := freePort(t)
			wait := startSIPp(t, "uas_route", network, port, "", "-m", "1")
			u := newUA(t, reject, unhurried)
			d, err := invite(t, u, sip.InviteOptions{URI: "sip:030123@callee.invalid", Route: "sip:127.0.0.1:" + port + ";transport=" + network})
			if err == nil {
				err = d.Bye(testCtx(t), sip.Reason{Cause: 16})
			}
			if err := errors.Join(err, wait()); err != nil {
				t.Error(err)
			}
		})
		t.Run("registration "+network, func(t *testing.T) {
			t.Parallel()
			port := freePort(t)
			wait := startSIPp(t, "uas_register-route", network, port, "", "-m", "1")
			u := newUA(t, reject, slow)
			states, end := register(t, u, "sip:carrier.invalid", func(o *sip.RegisterOptions) { o.Route = "sip:127.0.0.1:" + port + ";transport=" + network })
			for range 2 {
				if s := receive(t, "a state", states); s.Err != nil || s.Until.IsZero() {
					t.Errorf("%+v", s)
				}
			}
			end()
			if err := wait(); err != nil {
				t.Error(err)
			}
		})
	}
}

// sipp is the server that is left when the others of a name refuse the
// connection, are overloaded, or say nothing.
func TestSIPpFailover(t *testing.T) {
	t.Parallel()
	for _, network := range []string{"udp", "tcp"} {
		t.Run(network, func(t *testing.T) {
			t.Parallel()
			n := newNameServer(t)
			good, busy := freePort(t), freePort(t)
			waits := []func() error{
				startSIPp(t, "uas_answer", network, good, "", "-m", "2"),
				startSIPp(t, "uas_unavailable", network, busy, "", "-m", "1"),
			}
			dead := freePort(t) // of TCP: refused
			if network == "udp" {
				silent, err := net.ListenPacket("udp", "127.0.0.1:0")
				if err != nil {
					t.Fatal(err)
				}
				defer silent.Close()
				_, dead, _ = net.SplitHostPort(silent.LocalAddr().String())
			}
			n.set(t, "here.example.org. 60 IN A 127.0.0.1",
				fmt.Sprintf(`example.org. 60 IN NAPTR 10 10 "s" "SIP+D2%s" "" _sip._%s.example.org.`, strings.ToUpper(network[:1]), network),
				fmt.Sprintf("_sip._%s.example.org. 60 IN SRV 1 0 %s here.example.org.", network, dead),
				fmt.Sprintf("_sip._%s.example.org. 60 IN SRV 2 0 %s here.example.org.", network, busy),
				fmt.Sprintf("_sip._%s.example.org. 60 IN SRV 3 0 %s here.example.org.", network, good))
			u := newUA(t, reject, asking(n), func(o *sip.Options) {
				o.T1, o.T2, o.DownTime = 200*time.Millisecond, 1600*time.Millisecond, time.Minute
			})
			var said bytes.Buffer
			log := slog.New(slog.NewTextHandler(&said, nil)).With("call", "c1")
			for range 2 { // those that failed are not asked again
				d, err := invite(t, u, sip.InviteOptions{URI: "sip:030123@example.org", Logger: log})
				if err == nil {
					err = d.Bye(testCtx(t), sip.Reason{Cause: 16})
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			for _, wait := range waits {
				if err := wait(); err != nil {
					t.Error(err)
				}
			}
			if n := strings.Count(said.String(), "trying the next server"); n != 2 {
				t.Errorf("the log of the call tells of %d servers that failed:\n%s", n, said.String())
			}
		})
	}
}

// An INVITE that is too large for a datagram reaches sipp over TCP, and over UDP
// where sipp takes no connection.
func TestSIPpLarge(t *testing.T) {
	t.Parallel()
	large := sip.Header{Name: "X-Large", Value: strings.TrimSpace(strings.Repeat("large ", 250))}
	for _, network := range []string{"tcp", "udp"} {
		t.Run(network, func(t *testing.T) {
			t.Parallel()
			port := freePort(t)
			wait := startSIPp(t, "uas_large", network, port, "", "-m", "1")
			u := newUA(t, reject, unhurried)
			d, err := invite(t, u, sip.InviteOptions{URI: "sip:030123@127.0.0.1:" + port + ";transport=udp", Headers: []sip.Header{large}})
			if err == nil {
				err = d.Bye(testCtx(t), sip.Reason{Cause: 16})
			}
			if err := errors.Join(err, wait()); err != nil {
				t.Error(err)
			}
		})
	}
}

// sipp is a registrar that sees us behind a NAT, and one in trouble; and of two
// registrars each has a registration of its own.
func TestSIPpRegistrars(t *testing.T) {
	t.Parallel()
	for _, network := range []string{"udp", "tcp"} {
		t.Run("NAT "+network, func(t *testing.T) {
			t.Parallel()
			port := freePort(t)
			wait := startSIPp(t, "uas_register-nat", network, port, "", "-m", "1")
			u := newUA(t, reject, slow)
			states, end := register(t, u, "sip:127.0.0.1:"+port+";transport="+network)
			for range 2 {
				if s := receive(t, "a state", states); s.Err != nil || s.Until.IsZero() {
					t.Errorf("%+v", s)
				}
			}
			end()
			if err := wait(); err != nil {
				t.Error(err)
			}
		})
		t.Run("trouble "+network, func(t *testing.T) {
			t.Parallel()
			ports := []string{freePort(t), freePort(t)}
			waits := []func() error{
				startSIPp(t, "uas_register-retry", network, ports[0], "", "-m", "1"),
				startSIPp(t, "uas_register-retry", network, ports[1], "", "-m", "1"),
			}
			u := newUA(t, reject, slow)
			for i := range ports {
				states, end := register(t, u, "sip:127.0.0.1:"+ports[i]+";transport="+network)
				var came [4]time.Time
				for j, code := range []int{500, 503, 403, 0} {
					s := receive(t, "a state", states)
					came[j] = time.Now()
					var se *sip.StatusError
					if code == 0 && (s.Err != nil || s.Until.IsZero()) || code != 0 && (!errors.As(s.Err, &se) || se.Code != code || !s.Until.IsZero()) {
						t.Errorf("want %d: %+v", code, s)
					}
				}
				if d := came[2].Sub(came[1]); d < 900*time.Millisecond {
					t.Errorf("again %s after Retry-After: 1", d)
				}
				end()
				if err := waits[i](); err != nil {
					t.Error(err)
				}
			}
		})
	}
}
