package sip_test

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	gosip "github.com/emiago/sipgo/sip"

	"brewline/sip"
)

// outcome is what an outgoing call came to.
type outcome struct {
	d   *sip.Dialog
	sdp []byte
	err error
}

// calling has a user agent call a scripted peer.
type calling struct {
	t      *testing.T
	u      *sip.UA
	p      *peer
	cancel context.CancelFunc
	done   chan outcome
	codes  chan int
	bye    chan sip.Reason
}

func callPeer(t *testing.T, change ...func(*sip.InviteOptions)) *calling {
	t.Helper()
	return callOn(t, newUA(t, func(d *sip.Dialog) { _ = d.Reject(480, sip.Reason{}) }), change...)
}

func callOn(t *testing.T, u *sip.UA, change ...func(*sip.InviteOptions)) *calling {
	t.Helper()
	c := &calling{
		t: t, u: u, p: newPeer(t, u, "udp"), done: make(chan outcome, 1),
		codes: make(chan int, 100), bye: make(chan sip.Reason, 1),
	}
	ctx, cancel := context.WithCancel(testCtx(t))
	c.cancel = cancel
	t.Cleanup(cancel)
	o := sip.InviteOptions{
		URI: "sip:030123@" + c.p.addr(), From: sip.Party{User: "conference", Display: "Meeting"}, SDP: []byte(offerSDP),
		Progress: func(code int, _ string, _ []byte) { c.codes <- code },
		Handler:  sip.DialogHandler{Bye: func(r sip.Reason) { c.bye <- r }},
	}
	for _, f := range change {
		f(&o)
	}
	go func() {
		d, sdp, err := u.Invite(ctx, o)
		c.done <- outcome{d, sdp, err}
	}()
	return c
}

// tagged answers with a To tag, as a callee does.
func (p *peer) tagged(req *gosip.Request, code int, tag, body string, lines ...string) {
	p.t.Helper()
	res := gosip.NewResponseFromRequest(req, code, "X", []byte(body))
	res.To().Params.Add("tag", tag)
	if body != "" {
		res.AppendHeader(gosip.NewHeader("Content-Type", "application/sdp"))
	}
	for _, l := range lines {
		n, v, _ := strings.Cut(l, ": ")
		res.AppendHeader(gosip.NewHeader(n, v))
	}
	p.send(res.String())
}

func (p *peer) contact() string {
	_, port, _ := net.SplitHostPort(p.addr())
	return "Contact: <sip:callee@127.0.0.1:" + port + ">"
}

func TestInviteAnswered(t *testing.T) {
	t.Parallel()
	c := callPeer(t, func(o *sip.InviteOptions) {
		o.Headers = []sip.Header{{Name: "X-Call", Value: "one\r\nVia: two"}, {Name: "Route", Value: "<sip:evil>"},
			{Name: "From", Value: "evil"}, {Name: "authorization", Value: "evil"}}
	})
	inv := c.p.awaitRequest(gosip.INVITE)
	if got := inv.GetHeader("X-Call").Value(); strings.ContainsAny(got, "\r\n") {
		t.Errorf("X-Call breaks the framing: %q", got)
	}
	if inv.GetHeader("Route") != nil || inv.GetHeader("Authorization") != nil || len(inv.GetHeaders("From")) != 1 {
		t.Errorf("header fields that steer the request were taken over:\n%s", inv)
	}
	if inv.Recipient.User != "030123" || inv.From().Address.User != "conference" || inv.From().DisplayName != "Meeting" ||
		string(inv.Body()) != offerSDP || inv.Contact() == nil || tagOf(inv) != "" {
		t.Errorf("unexpected INVITE:\n%s", inv)
	}
	c.p.reply(inv, 100, "")
	c.p.tagged(inv, 180, "callee", "")
	if code := receive(t, "a provisional response", c.codes); code != 180 {
		t.Errorf("told %d", code)
	}
	c.p.tagged(inv, 200, "callee", answerSDP, c.p.contact())
	ack := c.p.awaitRequest(gosip.ACK)
	if ack.Recipient.User != "callee" || tagOf(ack) != "callee" || ack.CSeq().SeqNo != inv.CSeq().SeqNo {
		t.Errorf("unexpected ACK:\n%s", ack)
	}
	out := receive(t, "the answer", c.done)
	if out.err != nil || string(out.sdp) != answerSDP {
		t.Fatalf("%q, %v", out.sdp, out.err)
	}
	// A repeated answer is confirmed again.
	c.p.tagged(inv, 200, "callee", answerSDP, c.p.contact())
	c.p.awaitRequest(gosip.ACK)
	// Ours to end.
	ended := make(chan error, 1)
	go func() { ended <- out.d.Bye(testCtx(t), sip.Reason{Cause: 16, Text: "over"}) }()
	bye := c.p.awaitRequest(gosip.BYE)
	if bye.From().Address.User != "conference" || tagOf(bye) != "callee" || bye.CSeq().SeqNo <= inv.CSeq().SeqNo ||
		bye.Recipient.User != "callee" {
		t.Errorf("unexpected BYE:\n%s", bye)
	}
	c.p.reply(bye, 200, "")
	if err := receive(t, "the end", ended); err != nil {
		t.Error(err)
	}
}

func TestInviteCalleeHangsUp(t *testing.T) {
	t.Parallel()
	c := callPeer(t)
	inv := c.p.awaitRequest(gosip.INVITE)
	c.p.tagged(inv, 200, "callee", answerSDP, c.p.contact())
	out := receive(t, "the answer", c.done)
	if out.err != nil {
		t.Fatal(out.err)
	}
	tag, _ := inv.From().Params.Get("tag")
	c.p.send(c.p.request("BYE", 5, "", "Call-ID: "+inv.CallID().Value(),
		"From: <sip:030123@"+c.p.addr()+">;tag=callee", "To: <sip:conference@127.0.0.1>;tag="+tag,
		"Reason: Q.850;cause=16;text=\"bye\""))
	c.p.response(200)
	if r := receive(t, "the BYE", c.bye); r.Cause != 16 {
		t.Errorf("reason %+v", r)
	}
}

func TestInviteRefused(t *testing.T) {
	t.Parallel()
	for _, code := range []int{302, 404, 486, 500, 603} {
		c := callPeer(t)
		inv := c.p.awaitRequest(gosip.INVITE)
		c.p.tagged(inv, code, "callee", "")
		c.p.awaitRequest(gosip.ACK)
		var s *sip.StatusError
		if out := receive(t, "the refusal", c.done); !errors.As(out.err, &s) || s.Code != code {
			t.Errorf("%d: %v", code, out.err)
		}
	}
}

func TestInviteCancelled(t *testing.T) {
	t.Parallel()
	t.Run("while it rings", func(t *testing.T) {
		t.Parallel()
		c := callPeer(t)
		inv := c.p.awaitRequest(gosip.INVITE)
		c.p.tagged(inv, 180, "callee", "")
		receive(t, "ringing", c.codes)
		c.cancel()
		can := c.p.awaitRequest(gosip.CANCEL)
		c.p.reply(can, 200, "")
		c.p.tagged(inv, 487, "callee", "")
		c.p.awaitRequest(gosip.ACK)
		if out := receive(t, "the end", c.done); !errors.Is(out.err, context.Canceled) {
			t.Error(out.err)
		}
	})
	t.Run("before any sign of the peer", func(t *testing.T) {
		t.Parallel()
		c := callPeer(t)
		inv := c.p.awaitRequest(gosip.INVITE)
		c.cancel()
		// RFC 3261 §9.1: no CANCEL until a provisional response has come.
		for end := time.Now().Add(5 * testT1); time.Now().Before(end); {
			if r, ok := c.p.read(time.Until(end)).(*gosip.Request); ok && r.Method == gosip.CANCEL {
				t.Fatal("a CANCEL came too early")
			}
		}
		c.p.tagged(inv, 100, "", "")
		can := c.p.awaitRequest(gosip.CANCEL)
		c.p.reply(can, 200, "")
		c.p.tagged(inv, 487, "callee", "")
		if out := receive(t, "the end", c.done); !errors.Is(out.err, context.Canceled) {
			t.Error(out.err)
		}
	})
	t.Run("the answer crosses", func(t *testing.T) {
		t.Parallel()
		c := callPeer(t)
		inv := c.p.awaitRequest(gosip.INVITE)
		c.p.tagged(inv, 180, "callee", "")
		receive(t, "ringing", c.codes)
		c.cancel()
		c.p.reply(c.p.awaitRequest(gosip.CANCEL), 200, "")
		c.p.tagged(inv, 200, "callee", answerSDP, c.p.contact())
		c.p.awaitRequest(gosip.ACK)
		c.p.reply(c.p.awaitRequest(gosip.BYE), 200, "")
		if out := receive(t, "the end", c.done); !errors.Is(out.err, context.Canceled) {
			t.Error(out.err)
		}
	})
	t.Run("nobody answers in time", func(t *testing.T) {
		t.Parallel()
		c := callPeer(t, func(o *sip.InviteOptions) { o.Timeout = 10 * testT1 })
		inv := c.p.awaitRequest(gosip.INVITE)
		c.p.tagged(inv, 180, "callee", "")
		c.p.reply(c.p.awaitRequest(gosip.CANCEL), 200, "")
		c.p.tagged(inv, 487, "callee", "")
		var s *sip.StatusError
		if out := receive(t, "the end", c.done); !errors.As(out.err, &s) || s.Code != 408 {
			t.Error(out.err)
		}
	})
}

func TestInviteUnreachable(t *testing.T) {
	t.Parallel()
	c := callPeer(t)
	c.p.awaitRequest(gosip.INVITE) // and never a word
	if out := receive(t, "the end", c.done); !errors.Is(out.err, sip.ErrUnreachable) {
		t.Error(out.err)
	}
	gone, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone.Close()
	if _, _, err := c.u.Invite(testCtx(t), sip.InviteOptions{URI: "sip:1@" + gone.Addr().String() + ";transport=tcp"}); !errors.Is(err, sip.ErrUnreachable) {
		t.Error(err)
	}
	if _, _, err := c.u.Invite(testCtx(t), sip.InviteOptions{URI: "mailto:x"}); err == nil {
		t.Error("called something that is no SIP URI")
	}
}

func TestInviteDigest(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		code           int
		ask, give, alg string
	}{
		"proxy, MD5":    {407, "Proxy-Authenticate", "Proxy-Authorization", "MD5"},
		"peer, SHA-256": {401, "WWW-Authenticate", "Authorization", "SHA-256"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := callPeer(t, func(o *sip.InviteOptions) { o.Username, o.Password = "gw", "secret" })
			inv := c.p.awaitRequest(gosip.INVITE)
			challenge := tt.ask + `: Digest realm="pbx", nonce="abc", qop="auth", algorithm=` + tt.alg
			c.p.tagged(inv, tt.code, "callee", "", challenge)
			c.p.awaitRequest(gosip.ACK)
			again := c.p.awaitNext(inv)
			auth := again.GetHeader(tt.give)
			if auth == nil || !strings.Contains(auth.Value(), `username="gw"`) || !strings.Contains(auth.Value(), `nonce="abc"`) ||
				strings.Contains(auth.Value(), "secret") || again.CSeq().SeqNo != inv.CSeq().SeqNo+1 {
				t.Fatalf("no credentials:\n%s", again)
			}
			// The same challenge again: the password is wrong, and it ends.
			c.p.tagged(again, tt.code, "callee", "", challenge)
			c.p.awaitRequest(gosip.ACK)
			var s *sip.StatusError
			if out := receive(t, "the end", c.done); !errors.As(out.err, &s) || s.Code != tt.code {
				t.Error(out.err)
			}
		})
	}
}

func TestInviteEarlyMedia(t *testing.T) {
	t.Parallel()
	early, c := make(chan []byte, 4), make(chan int, 4)
	k := callPeer(t, func(o *sip.InviteOptions) {
		o.Progress = func(code int, _ string, sdp []byte) {
			if code == 183 {
				early <- sdp
			}
			c <- code
		}
	})
	inv := k.p.awaitRequest(gosip.INVITE)
	k.p.tagged(inv, 183, "callee", answerSDP)
	receive(t, "progress", c)
	if sdp := receive(t, "early media", early); string(sdp) != answerSDP {
		t.Errorf("early media %q", sdp)
	}
	for range 40 { // a phone may ring for long
		k.p.tagged(inv, 180, "callee", "")
		receive(t, "ringing", c)
	}
	k.p.tagged(inv, 200, "callee", answerSDP, k.p.contact())
	k.p.awaitRequest(gosip.ACK)
	if out := receive(t, "the answer", k.done); out.err != nil {
		t.Error(out.err)
	}
}
