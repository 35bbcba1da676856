package sip_test

import (
	"slices"
	"testing"

	"brewline/internal/siptest"
	"brewline/sip"
)

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
