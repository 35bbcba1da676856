package sip_test

import (
	"net"
	"os"
	"slices"
	"strings"
	"testing"

	"brewline/internal/siptest"
	"brewline/sip"
)

// The same over IPv6, on a listener for both families.
func TestCallIPv6(t *testing.T) {
	t.Parallel()
	if c, err := net.ListenPacket("udp", "[::1]:0"); err != nil {
		t.Skip("no IPv6 here")
	} else {
		_ = c.Close()
	}
	c := newCalls()
	u := newUA(t, c.on, func(o *sip.Options) { o.Listen = []sip.Listener{{Network: "udp", Address: "[::]:0"}} })
	_, port, err := net.SplitHostPort(u.Addrs()[0].String())
	if err != nil {
		t.Fatal(err)
	}
	ctx := testCtx(t)
	for bind, host := range map[string]string{"::1": "[::1]", "127.0.0.1": "127.0.0.1"} {
		p := newPhone(t, func(o *siptest.PhoneOptions) { o.Bind = bind })
		a, err := p.Start(ctx, siptest.CallOptions{URI: "sip:x@" + net.JoinHostPort(strings.Trim(host, "[]"), port)})
		if err != nil {
			t.Fatal(err)
		}
		k := receive(t, "call", c.c)
		if got := k.Local().Addr().String(); got != bind {
			t.Errorf("local address %s, want %s", got, bind)
		}
		answered := k.answer()
		call, err := a.Wait(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if err := <-answered; err != nil {
			t.Error(err)
		}
		if err := k.Bye(ctx, sip.Reason{Cause: 16, Text: "over"}); err != nil {
			t.Error(err)
		}
		if end := receive(t, "end", call.Ended()); !end.ByPeer || end.Reason != `Q.850;cause=16;text="over"` {
			t.Errorf("end %+v", end)
		}
	}
}

// What the recorded phone sent to the real Jigasi, sent to us.
func TestRecordedCall(t *testing.T) {
	t.Parallel()
	b, err := os.ReadFile("testdata/captures/jigasi-sip-in.sip")
	if err != nil {
		t.Fatal(err)
	}
	c := newCalls()
	u := newUA(t, c.on)
	p := newPeer(t, u, "udp")
	var k *call
	var tag string
	for _, block := range strings.Split(string(b), "---- ")[1:] {
		head, msg, _ := strings.Cut(block, "\n")
		if !strings.HasPrefix(head, "SEND") {
			continue
		}
		msg = strings.TrimSuffix(msg, "\n") // the recorder's own
		msg = strings.NewReplacer("127.0.0.1:15070", p.addr(), "127.0.0.1:15060", p.to.String(), "tag=4a8a3241", "tag="+tag).Replace(msg)
		p.send(msg)
		switch {
		case strings.HasPrefix(msg, "INVITE"):
			k = receive(t, "call", c.c)
			if k.Header("jitsi-conference-room") != "sipin2" || k.From() != (sip.Party{Display: "caller", User: "caller", Host: "127.0.0.1", URI: "sip:caller@127.0.0.1"}) ||
				k.To().User != "jigasi" || k.RequestUser() != "jigasi" {
				t.Errorf("room %q from %+v to %+v", k.Header("Jitsi-Conference-Room"), k.From(), k.To())
			}
			offer, err := sip.ParseSDP(k.Offer())
			if err != nil {
				t.Fatal(err)
			}
			ans, m, err := sip.Answer(offer, localFor("opus pcma pcmu"))
			if err != nil || m.Codec.Name != "pcmu" || m.EventPT != 101 || m.Remote.Port() != 34111 {
				t.Errorf("%+v, %v", m, err)
			}
			go func() { _, _ = k.Answer(testCtx(t), ans.Marshal()) }()
			tag = tagOf(p.response(200))
		case strings.HasPrefix(msg, "BYE"):
			for p.response(200).CSeq().MethodName != "BYE" {
			}
			receive(t, "Bye", k.bye)
			return // what follows is an outbound call
		}
	}
	t.Error("no BYE in the recording")
}

// INVITE, 180, 200, ACK, sound both ways, BYE.
func TestCall(t *testing.T) {
	for _, tt := range []struct {
		name, transport, codec string
		late                   bool
	}{
		{"udp pcmu", "udp", "pcmu", false},
		{"udp pcma late offer", "udp", "pcma", true},
		{"tcp opus", "tcp", "opus", false},
		{"tcp g722 late offer", "tcp", "g722", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			e := newEcho(t)
			type result struct {
				d   *sip.Dialog
				m   sip.Media
				err error
			}
			got := make(chan result, 1)
			bye := make(chan sip.Reason, 1)
			u := newUA(t, func(d *sip.Dialog) {
				d.On(sip.DialogHandler{Bye: func(r sip.Reason) { bye <- r }})
				if err := d.Ringing(); err != nil {
					t.Error(err)
				}
				m, err := e.answer(d, "opus", "g722", "pcma", "pcmu")
				got <- result{d, m, err}
			})
			ctx := testCtx(t)
			p := newPhone(t, func(o *siptest.PhoneOptions) {
				o.Codec, o.Transport, o.Display = tt.codec, tt.transport, "Alice Liddell"
			})
			c, err := p.Call(ctx, siptest.CallOptions{
				URI: uri(u, tt.transport), Tone: 440, LateOffer: tt.late,
				Headers: map[string]string{"X-Room-Name": "Standup"},
			})
			if err != nil {
				t.Fatal(err)
			}
			r := <-got
			if r.err != nil {
				t.Fatal(r.err)
			}
			if r.m.Codec.Name != tt.codec || !r.m.Send || !r.m.Receive {
				t.Errorf("agreed on %+v", r.m)
			}
			if r.d.Header("x-room-name") != "Standup" || r.d.From().Display != "Alice Liddell" || r.d.From().User != "phone" ||
				r.d.RequestUser() != "phoneMeet" || r.d.Trunk() != "ipbx" {
				t.Errorf("header %q from %+v user %q trunk %q", r.d.Header("x-room-name"), r.d.From(), r.d.RequestUser(), r.d.Trunk())
			}
			if !slices.Contains(c.Provisionals(), 180) {
				t.Errorf("provisionals %v", c.Provisionals())
			}
			if err := c.Hear(ctx, 440); err != nil {
				t.Error(err)
			}
			c.Say(1000)
			if err := c.Hear(ctx, 1000); err != nil {
				t.Error(err)
			}
			if err := c.Hangup(ctx); err != nil {
				t.Error(err)
			}
			if r := <-bye; r.Cause != 16 {
				t.Errorf("BYE reason %+v", r)
			}
			<-r.d.Done()
			await(t, "transactions and dialogs gone", func() bool {
				s := u.Stats()
				return s.Dialogs == 0 && s.ServerTransactions == 0 && s.ClientTransactions == 0
			})
		})
	}
}

// A phone holds, resumes, and asks for our offer; then we offer anew.
func TestPhoneHold(t *testing.T) {
	t.Parallel()
	for _, transport := range []string{"udp", "tcp"} {
		e := newEcho(t)
		c := newCalls()
		u := newUA(t, c.on)
		ctx := testCtx(t)
		p := newPhone(t, func(o *siptest.PhoneOptions) { o.Codec, o.Transport = "pcma", transport })
		a, err := p.Start(ctx, siptest.CallOptions{URI: uri(u, transport), Tone: 500})
		if err != nil {
			t.Fatal(err)
		}
		k := receive(t, "call", c.c)
		answered := make(chan error, 1)
		go func() { _, err := e.answer(k.Dialog, "pcma"); answered <- err }()
		phone, err := a.Wait(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if err := receive(t, "answer", answered); err != nil {
			t.Fatal(err)
		}
		reoffer := func(change func() error, want string) {
			t.Helper()
			done := make(chan error, 1)
			go func() { done <- change() }()
			r := receive(t, "Reoffer", k.reoffer)
			l := e.local("pcma")
			l.Version = 2
			if r.SDP == nil {
				if want != "late" {
					t.Error("no offer")
				}
				if err := r.Answer(sip.Offer(l).Marshal()); err != nil {
					t.Error(err)
				}
			} else {
				offer, err := sip.ParseSDP(r.SDP)
				if err != nil {
					t.Fatal(err)
				}
				ans, m, err := sip.Answer(offer, l)
				if err != nil {
					t.Fatal(err)
				}
				if got := ans.Media[0].Direction.String(); got != want || m.Send != (want == "sendrecv") {
					t.Errorf("answered %s, %+v, want %s", got, m, want)
				}
				if err := r.Answer(ans.Marshal()); err != nil {
					t.Error(err)
				}
			}
			if err := receive(t, "end of the re-INVITE", done); err != nil {
				t.Error(err)
			}
		}
		reoffer(func() error { return phone.Hold(ctx) }, "recvonly")
		reoffer(func() error { return phone.Resume(ctx) }, "sendrecv")
		reoffer(func() error { return phone.Reinvite(ctx, "inactive") }, "inactive")
		reoffer(func() error { return phone.ReinviteLate(ctx) }, "late")
		phone.Say(900)
		if err := phone.Hear(ctx, 900); err != nil {
			t.Error(err)
		}
		b, err := k.Reinvite(ctx, sip.Offer(e.local("pcmu", "pcma")).Marshal())
		if err != nil || !strings.Contains(string(b), "RTP/AVP 8") {
			t.Errorf("our re-INVITE: %v\n%s", err, b)
		}
		if err := k.Info(ctx, "application/json", []byte(`{"t":5}`)); err != nil {
			t.Error(err)
		}
		if in := phone.Infos(); len(in) != 1 || string(in[0].Body) != `{"t":5}` {
			t.Errorf("INFO %v", in)
		}
		if err := phone.Hear(ctx, 900); err != nil {
			t.Error(err)
		}
		if err := phone.DTMF(ctx, "12*#"); err != nil {
			t.Error(err)
		}
		await(t, "digits echoed", func() bool { return phone.Digits() == "12*#" })
		if err := phone.Hangup(ctx); err != nil {
			t.Error(err)
		}
		receive(t, "Bye", k.bye)
	}
}
