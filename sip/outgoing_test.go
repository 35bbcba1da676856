package sip_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	gosip "github.com/emiago/sipgo/sip"

	"brewline/internal/siptest"
	"brewline/sip"
)

// answered has the peer answer at once, and returns the INVITE, its ACK and
// the dialog.
func (c *calling) answered(lines ...string) (inv, ack *gosip.Request, d *sip.Dialog) {
	c.t.Helper()
	inv = c.p.awaitRequest(gosip.INVITE)
	c.p.tagged(inv, 200, "callee", answerSDP, lines...)
	ack = c.p.awaitRequest(gosip.ACK)
	out := receive(c.t, "the answer", c.done)
	if out.err != nil {
		c.t.Fatal(out.err)
	}
	return inv, ack, out.d
}

// within makes a request of the callee within the dialog of inv.
func (c *calling) within(inv *gosip.Request, method string, seq int, body string, lines ...string) string {
	tag, _ := inv.From().Params.Get("tag")
	return c.p.request(method, seq, body, append([]string{"Call-ID: " + inv.CallID().Value(),
		"From: <sip:030123@" + c.p.addr() + ">;tag=callee", "To: <sip:conference@127.0.0.1>;tag=" + tag}, lines...)...)
}

func (c *calling) hangUp(d *sip.Dialog) (answer func(code int, lines ...string), result <-chan error) {
	c.t.Helper()
	ended := make(chan error, 1)
	go func() { ended <- d.Bye(testCtx(c.t), sip.Reason{Cause: 16}) }()
	return func(code int, lines ...string) {
		c.t.Helper()
		c.p.reply(c.p.awaitRequest(gosip.BYE), code, "", lines...)
	}, ended
}

// A proxy forked the call and two phones answered: the second is confirmed
// and hung up on, and the first is not disturbed.
func TestInviteForked(t *testing.T) {
	t.Parallel()
	c := callPeer(t)
	inv := c.p.awaitRequest(gosip.INVITE)
	c.p.tagged(inv, 180, "one", "")
	c.p.tagged(inv, 180, "two", "")
	c.p.tagged(inv, 200, "callee", answerSDP, c.p.contact())
	c.p.awaitRequest(gosip.ACK)
	out := receive(t, "the answer", c.done)
	if out.err != nil {
		t.Fatal(out.err)
	}
	for range 2 { // also when it is repeated
		c.p.tagged(inv, 200, "two", answerSDP, strings.Replace(c.p.contact(), "callee", "second", 1))
		if ack := c.p.awaitRequest(gosip.ACK); tagOf(ack) != "two" || ack.Recipient.User != "second" {
			t.Errorf("unexpected ACK:\n%s", ack)
		}
	}
	bye := c.p.awaitRequest(gosip.BYE)
	if tagOf(bye) != "two" || bye.Recipient.User != "second" {
		t.Errorf("unexpected BYE:\n%s", bye)
	}
	c.p.reply(bye, 200, "")
	// A flood of them is not answered without end.
	for i := range 30 {
		c.p.tagged(inv, 200, fmt.Sprint("flood", i), answerSDP, c.p.contact())
	}
	seen := map[string]bool{}
	for end := time.Now().Add(20 * testT1); time.Now().Before(end); {
		if r, ok := c.p.read(time.Until(end)).(*gosip.Request); ok && r.Method == gosip.ACK {
			seen[tagOf(r)] = true
		} else if ok && r.Method == gosip.BYE {
			c.p.reply(r, 200, "")
		}
	}
	if len(seen) == 0 || len(seen) > 8 {
		t.Errorf("%d of 30 answers were confirmed", len(seen))
	}
	select {
	case <-out.d.Done():
		t.Error("the first answer's dialog has ended")
	default:
	}
	ended := make(chan error, 1)
	go func() { ended <- out.d.Bye(testCtx(t), sip.Reason{Cause: 16}) }()
	for {
		bye := c.p.awaitRequest(gosip.BYE)
		c.p.reply(bye, 200, "")
		if tagOf(bye) == "callee" {
			break
		}
	}
	if err := receive(t, "the end", ended); err != nil {
		t.Error(err)
	}
}

// An answer after a refusal, and after everybody gave up.
func TestInviteAnsweredLate(t *testing.T) {
	t.Parallel()
	t.Run("after a refusal", func(t *testing.T) {
		t.Parallel()
		c := callPeer(t)
		inv := c.p.awaitRequest(gosip.INVITE)
		c.p.tagged(inv, 486, "one", "")
		c.p.awaitRequest(gosip.ACK)
		receive(t, "the refusal", c.done)
		c.p.tagged(inv, 200, "two", answerSDP, c.p.contact())
		for tagOf(c.p.awaitRequest(gosip.ACK)) != "two" {
		}
		c.p.reply(c.p.awaitRequest(gosip.BYE), 200, "")
	})
	t.Run("after 64·T1", func(t *testing.T) {
		t.Parallel()
		c := callPeer(t)
		inv := c.p.awaitRequest(gosip.INVITE)
		if out := receive(t, "the end", c.done); !errors.Is(out.err, sip.ErrUnreachable) {
			t.Error(out.err)
		}
		c.p.tagged(inv, 200, "callee", answerSDP, c.p.contact())
		c.p.awaitRequest(gosip.ACK)
		c.p.reply(c.p.awaitRequest(gosip.BYE), 200, "")
		await(t, "nothing left", func() bool { return c.u.Stats().Dialogs == 0 })
	})
	t.Run("by a refusal", func(t *testing.T) {
		t.Parallel()
		c := callPeer(t)
		inv := c.p.awaitRequest(gosip.INVITE)
		receive(t, "the end", c.done)
		c.p.tagged(inv, 500, "callee", "")
		c.p.awaitRequest(gosip.ACK)
	})
}

// What a 2xx may lack or have.
func TestInviteAnswers(t *testing.T) {
	t.Parallel()
	t.Run("no Contact", func(t *testing.T) {
		t.Parallel()
		c := callPeer(t)
		if _, ack, _ := c.answered(); ack.Recipient.User != "030123" {
			t.Errorf("unexpected ACK:\n%s", ack)
		}
	})
	t.Run("no To tag", func(t *testing.T) { // RFC 2543
		t.Parallel()
		c := callPeer(t)
		inv := c.p.awaitRequest(gosip.INVITE)
		res := gosip.NewResponseFromRequest(inv, 200, "OK", []byte(answerSDP))
		res.To().Params.Remove("tag")
		res.AppendHeader(gosip.NewHeader("Content-Type", "application/sdp"))
		res.AppendHeader(gosip.NewHeader("Contact", strings.TrimPrefix(c.p.contact(), "Contact: ")))
		c.p.send(res.String())
		if ack := c.p.awaitRequest(gosip.ACK); tagOf(ack) != "" {
			t.Errorf("unexpected ACK:\n%s", ack)
		}
		out := receive(t, "the answer", c.done)
		if out.err != nil {
			t.Fatal(out.err)
		}
		c.p.send(res.String())
		c.p.awaitRequest(gosip.ACK)
		answer, result := c.hangUp(out.d)
		answer(200)
		if err := receive(t, "the end", result); err != nil {
			t.Error(err)
		}
	})
	t.Run("a Contact that cannot be reached", func(t *testing.T) {
		t.Parallel()
		for _, contact := range []string{"<sips:callee@127.0.0.1>", "<tel:+4930>", "<sip:callee@[::1]:9>", "<sip:callee@127.0.0.1:9;transport=sctp>"} {
			c := callPeer(t)
			_, _, d := c.answered("Contact: " + contact)
			answer, result := c.hangUp(d)
			answer(200)
			if err := receive(t, "the end", result); err != nil {
				t.Errorf("%s: %v", contact, err)
			}
		}
	})
	t.Run("a route set", func(t *testing.T) {
		t.Parallel()
		c := callPeer(t)
		_, ack, d := c.answered("Contact: <sip:callee@192.0.2.7>", "record-route: <sip:p3@192.0.2.3;lr>, <sip:p2@192.0.2.2;lr>",
			"Record-Route: <sip:p1@"+c.p.addr()+";lr>")
		check := func(req *gosip.Request) {
			t.Helper()
			var users []string
			for _, r := range req.GetHeaders("Route") {
				users = append(users, r.(*gosip.RouteHeader).Address.User)
			}
			if !slices.Equal(users, []string{"p1", "p2", "p3"}) || req.Recipient.Host != "192.0.2.7" {
				t.Errorf("routes %v in\n%s", users, req)
			}
		}
		check(ack)
		ended := make(chan error, 1)
		go func() { ended <- d.Bye(testCtx(t), sip.Reason{}) }()
		bye := c.p.awaitRequest(gosip.BYE)
		check(bye)
		c.p.reply(bye, 200, "")
		if err := receive(t, "the end", ended); err != nil {
			t.Error(err)
		}
	})
	t.Run("a multipart body", func(t *testing.T) {
		t.Parallel()
		c := callPeer(t)
		inv := c.p.awaitRequest(gosip.INVITE)
		body := "--b\r\nContent-Type: application/isup\r\n\r\nxx\r\n--b\r\nContent-Type: application/sdp\r\n\r\n" + answerSDP + "\r\n--b--\r\n"
		res := gosip.NewResponseFromRequest(inv, 200, "OK", []byte(body))
		res.To().Params.Add("tag", "callee")
		res.AppendHeader(gosip.NewHeader("Content-Type", "multipart/mixed;boundary=b"))
		c.p.send(res.String())
		if out := receive(t, "the answer", c.done); out.err != nil || string(out.sdp) != answerSDP {
			t.Errorf("%q, %v", out.sdp, out.err)
		}
	})
	t.Run("no body", func(t *testing.T) {
		t.Parallel()
		c := callPeer(t)
		inv := c.p.awaitRequest(gosip.INVITE)
		c.p.tagged(inv, 200, "callee", "", c.p.contact())
		if out := receive(t, "the answer", c.done); out.err != nil || out.sdp != nil {
			t.Errorf("%q, %v", out.sdp, out.err)
		}
	})
	t.Run("codes that are none", func(t *testing.T) {
		t.Parallel()
		c := callPeer(t)
		inv := c.p.awaitRequest(gosip.INVITE)
		for _, code := range []int{0, 42, 700, 999} {
			c.p.tagged(inv, code, "callee", "")
		}
		c.p.tagged(inv, 480, "callee", "")
		var se *sip.StatusError
		if out := receive(t, "the end", c.done); !errors.As(out.err, &se) || se.Code != 480 {
			t.Error(out.err)
		}
	})
}

// A phone that hangs up in the breath it answers in finds the dialog.
func TestInviteAnswerAndBye(t *testing.T) {
	t.Parallel()
	for range 20 {
		c := callPeer(t)
		inv := c.p.awaitRequest(gosip.INVITE)
		c.p.tagged(inv, 200, "callee", answerSDP, c.p.contact())
		c.p.send(c.within(inv, "BYE", 0, "")) // and counts from 0
		c.p.response(200)
		receive(t, "the BYE", c.bye)
		receive(t, "the answer", c.done)
	}
}

// The callee holds, sends a digit and asks, within the dialog that we began.
func TestInviteRequestsWithin(t *testing.T) {
	t.Parallel()
	offers, infos := make(chan string, 4), make(chan string, 4)
	c := callPeer(t, func(o *sip.InviteOptions) {
		o.Handler.Info = func(ctype string, body []byte) { infos <- ctype + " " + string(body) }
		o.Handler.Reoffer = func(r *sip.Reoffer) {
			offers <- string(r.SDP)
			_ = r.Answer([]byte(offerSDP))
		}
	})
	inv, _, d := c.answered(c.p.contact())
	if from := d.From(); from.User != "030123" || d.To().User != "conference" || d.CallID() != inv.CallID().Value() {
		t.Errorf("from %+v to %+v", from, d.To())
	}
	c.p.send(c.within(inv, "INVITE", 7, answerSDP))
	ok := c.p.response(200)
	if ok.Contact() == nil || ok.Contact().Address.User != "conference" || string(ok.Body()) != offerSDP || receive(t, "offer", offers) != answerSDP {
		t.Errorf("unexpected answer\n%s", ok)
	}
	c.p.send(c.within(inv, "ACK", 7, ""))
	c.p.send(c.within(inv, "INFO", 8, "Signal=5", "Content-Type: application/dtmf-relay"))
	c.p.response(200)
	if got := receive(t, "INFO", infos); got != "application/dtmf-relay Signal=5" {
		t.Errorf("INFO %q", got)
	}
	c.p.send(c.within(inv, "OPTIONS", 9, ""))
	c.p.response(200)
	c.p.send(c.within(inv, "MESSAGE", 10, ""))
	c.p.response(405)
	// Ours, to it.
	re := make(chan error, 1)
	go func() {
		sdp, err := d.Reinvite(testCtx(t), []byte(offerSDP))
		if err == nil && string(sdp) != answerSDP {
			err = fmt.Errorf("answer %q", sdp)
		}
		re <- err
	}()
	mine := c.p.awaitNext(inv)
	if tagOf(mine) != "callee" || mine.CSeq().SeqNo <= inv.CSeq().SeqNo {
		t.Errorf("unexpected re-INVITE\n%s", mine)
	}
	c.p.reply(mine, 200, answerSDP, c.p.contact())
	if ack := c.p.awaitRequest(gosip.ACK); ack.CSeq().SeqNo != mine.CSeq().SeqNo {
		t.Errorf("unexpected ACK\n%s", ack)
	}
	if err := receive(t, "the re-INVITE", re); err != nil {
		t.Error(err)
	}
	c.p.send(c.within(inv, "BYE", 11, "", `Reason: Q.850;cause=31`))
	c.p.response(200)
	if r := receive(t, "the BYE", c.bye); r.Cause != 31 {
		t.Errorf("reason %+v", r)
	}
}

// Credentials go with the ACK, and are given again where the dialog's own
// requests are challenged.
func TestInviteDigestWithin(t *testing.T) {
	t.Parallel()
	c := callPeer(t, func(o *sip.InviteOptions) { o.Username, o.Password = "gw", "secret" })
	inv := c.p.awaitRequest(gosip.INVITE)
	challenge := func(nonce string) string {
		return `Proxy-Authenticate: Digest realm="pbx", nonce="` + nonce + `", qop="auth"`
	}
	c.p.tagged(inv, 407, "callee", "", challenge("one"))
	again := c.p.awaitNext(inv)
	c.p.tagged(again, 200, "callee", answerSDP, c.p.contact())
	ack := c.p.awaitRequest(gosip.ACK)
	for ack.CSeq().SeqNo != again.CSeq().SeqNo {
		ack = c.p.awaitRequest(gosip.ACK)
	}
	if a, b := again.GetHeader("Proxy-Authorization"), ack.GetHeader("Proxy-Authorization"); a == nil || b == nil || a.Value() != b.Value() {
		t.Errorf("the ACK has other credentials than the INVITE:\n%s\n%s", again, ack)
	}
	out := receive(t, "the answer", c.done)
	if out.err != nil {
		t.Fatal(out.err)
	}
	ended := make(chan error, 1)
	go func() { ended <- out.d.Bye(testCtx(t), sip.Reason{}) }()
	bye := c.p.awaitRequest(gosip.BYE)
	c.p.reply(bye, 407, "", challenge("two"))
	bye2 := c.p.awaitNext(bye)
	if h := bye2.GetHeader("Proxy-Authorization"); h == nil || !strings.Contains(h.Value(), `nonce="two"`) || len(bye2.GetHeaders("Via")) != 1 {
		t.Errorf("no credentials:\n%s", bye2)
	}
	c.p.reply(bye2, 200, "")
	if err := receive(t, "the end", ended); err != nil {
		t.Error(err)
	}
}

// Two proxies and the peer ask, one of them twice with a stale nonce.
func TestInviteDigestRealms(t *testing.T) {
	t.Parallel()
	c := callPeer(t, func(o *sip.InviteOptions) { o.Username, o.Password = "gw", "secret" })
	next := func(seq uint32) *gosip.Request {
		for {
			if inv := c.p.awaitRequest(gosip.INVITE); inv.CSeq().SeqNo == seq {
				return inv
			}
		}
	}
	inv := next(1)
	c.p.tagged(inv, 407, "a", "", `Proxy-Authenticate: Digest realm="p1", nonce="n1"`, `Proxy-Authenticate: Digest realm="p2", nonce="n2"`)
	inv = next(2)
	if n := len(inv.GetHeaders("Proxy-Authorization")); n != 2 {
		t.Errorf("%d credentials", n)
	}
	c.p.tagged(inv, 407, "b", "", `Proxy-Authenticate: Digest realm="p1", nonce="n3", stale=TRUE`)
	inv = next(3)
	c.p.tagged(inv, 401, "c", "", `WWW-Authenticate: Digest realm="p1", nonce="n4", algorithm=AKAv1-MD5`, `WWW-Authenticate: digest Realm="p1" , Nonce="n4",algorithm=sha-256,qop="auth-int, auth"`)
	inv = next(4)
	var got []string
	for _, n := range []string{"Proxy-Authorization", "Authorization"} {
		for _, h := range inv.GetHeaders(n) {
			_, rest, _ := strings.Cut(h.Value(), `nonce="`)
			nonce, _, _ := strings.Cut(rest, `"`)
			got = append(got, nonce)
		}
	}
	if !slices.Equal(got, []string{"n3", "n2", "n4"}) {
		t.Errorf("nonces %v in\n%s", got, inv)
	}
	// Enough is enough.
	c.p.tagged(inv, 401, "d", "", `WWW-Authenticate: Digest realm="p9", nonce="n5"`)
	var se *sip.StatusError
	if out := receive(t, "the end", c.done); !errors.As(out.err, &se) || se.Code != 401 {
		t.Error(out.err)
	}
}

// Challenges that cannot be answered end the call with what they are.
func TestInviteDigestUnknown(t *testing.T) {
	t.Parallel()
	for _, challenge := range []string{"", "WWW-Authenticate: Basic realm=x", `WWW-Authenticate: Digest realm="x"`,
		`WWW-Authenticate: Digest realm="x", nonce="n", algorithm=MD6`, `WWW-Authenticate: Digest realm="x", nonce="n", qop="none"`} {
		c := callPeer(t, func(o *sip.InviteOptions) { o.Username = "gw" })
		inv := c.p.awaitRequest(gosip.INVITE)
		if challenge == "" {
			c.p.tagged(inv, 401, "callee", "")
		} else {
			c.p.tagged(inv, 401, "callee", "", challenge)
		}
		var se *sip.StatusError
		if out := receive(t, "the end", c.done); !errors.As(out.err, &se) || se.Code != 401 {
			t.Errorf("%s: %v", challenge, out.err)
		}
	}
}

// What must not ring anybody's phone.
func TestInviteNothingSent(t *testing.T) {
	t.Parallel()
	u := newUA(t, func(d *sip.Dialog) { _ = d.Reject(480, sip.Reason{}) })
	p := newPeer(t, u, "udp")
	gone, cancel := context.WithCancel(testCtx(t))
	cancel()
	at := "@" + p.addr()
	for name, tt := range map[string]struct {
		ctx context.Context
		o   sip.InviteOptions
	}{
		"cancelled before":     {gone, sip.InviteOptions{URI: "sip:1" + at}},
		"line break in URI":    {testCtx(t), sip.InviteOptions{URI: "sip:1\r\nX-Evil: 1" + at}},
		"space in URI":         {testCtx(t), sip.InviteOptions{URI: "sip:1 2" + at}},
		"control character":    {testCtx(t), sip.InviteOptions{URI: "sip:1\x00" + at}},
		"sips":                 {testCtx(t), sip.InviteOptions{URI: "sips:1" + at}},
		"tel":                  {testCtx(t), sip.InviteOptions{URI: "tel:+4930"}},
		"no host":              {testCtx(t), sip.InviteOptions{URI: "sip:"}},
		"wildcard":             {testCtx(t), sip.InviteOptions{URI: "*"}},
		"line break in From":   {testCtx(t), sip.InviteOptions{URI: "sip:1" + at, From: sip.Party{URI: "sip:a@b\r\nX: y"}}},
		"bracket in From host": {testCtx(t), sip.InviteOptions{URI: "sip:1" + at, From: sip.Party{Host: "b>;tag=x"}}},
		"line break in To":     {testCtx(t), sip.InviteOptions{URI: "sip:1" + at, To: sip.Party{URI: "sip:a@b\nX: y"}}},
		"proxy":                {testCtx(t), sip.InviteOptions{URI: "sip:1" + at, Route: "http://x"}},
		"no such transport":    {testCtx(t), sip.InviteOptions{URI: "sip:1" + at + ";transport=tls"}},
	} {
		tt.o.SDP = []byte(offerSDP)
		if _, _, err := u.Invite(tt.ctx, tt.o); err == nil {
			t.Errorf("%s: no error", name)
		} else if tt.ctx == gone && !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", name, err)
		}
	}
	p.quiet(5 * testT1)
}

// Names that need escapes do not break out of their header field.
func TestInviteNames(t *testing.T) {
	t.Parallel()
	c := callPeer(t, func(o *sip.InviteOptions) {
		o.From = sip.Party{Display: `A "B" <sip:x@y>;tag=1\` + "\r\nX-Evil: 1", User: "room one@example.org", Host: "example.net"}
		o.To = sip.Party{Display: "Jürgen", URI: "sip:030@example.com;user=phone?Subject=x"}
	})
	inv := c.p.awaitRequest(gosip.INVITE)
	if f := inv.From(); f.Address.User != "room%20one%40example.org" || f.Address.Host != "example.net" || f.DisplayName != `A \"B\" <sip:x@y>;tag=1\\  X-Evil: 1` {
		t.Errorf("From %+v in\n%s", f, inv)
	}
	if to := inv.To(); to.DisplayName != "Jürgen" || to.Address.User != "030" || len(to.Address.Headers) != 0 || tagOf(inv) != "" {
		t.Errorf("To %+v", to)
	}
	if inv.GetHeader("X-Evil") != nil {
		t.Errorf("a display name became a header field:\n%s", inv)
	}
}

// The way out is a listener of the address family that reaches the peer.
func TestInviteListener(t *testing.T) {
	t.Parallel()
	if c, err := net.ListenPacket("udp", "[::1]:0"); err != nil {
		t.Skip("no IPv6 here")
	} else {
		_ = c.Close()
	}
	u := newUA(t, func(d *sip.Dialog) { _ = d.Reject(480, sip.Reason{}) }, func(o *sip.Options) {
		o.Listen = []sip.Listener{{Network: "udp", Address: "[::1]:0"}, {Network: "udp", Address: "127.0.0.1:0"},
			{Network: "tcp", Address: "127.0.0.1:0"}, {Network: "tcp", Address: "[::1]:0"}}
	})
	for _, tt := range []struct{ bind, transport string }{{"127.0.0.1", "udp"}, {"::1", "udp"}, {"127.0.0.1", "tcp"}, {"::1", "tcp"}} {
		p := newPhone(t, func(o *siptest.PhoneOptions) { o.Bind, o.Transport = tt.bind, tt.transport })
		w := dial(t, u, p, "+4930")
		in, err := p.Await(testCtx(t))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := in.Answer(testCtx(t), siptest.AnswerOptions{}); err != nil {
			t.Errorf("%v: %v", tt, err)
		}
		out := receive(t, "the answer", w)
		if out.err != nil {
			t.Fatalf("%v: %v", tt, out.err)
		}
		if got := out.d.Local().Addr().String(); got != tt.bind {
			t.Errorf("local address %s for %s", got, tt.bind)
		}
		if err := out.d.Bye(testCtx(t), sip.Reason{}); err != nil {
			t.Errorf("%v: %v", tt, err)
		}
	}
}

// dial calls a phone, with an offer of PCMU.
func dial(t *testing.T, u *sip.UA, p *siptest.Phone, user string, change ...func(*sip.InviteOptions)) <-chan outcome {
	t.Helper()
	o := sip.InviteOptions{URI: p.URI(user), From: sip.Party{User: "conference"}, SDP: []byte(offerSDP)}
	for _, f := range change {
		f(&o)
	}
	done := make(chan outcome, 1)
	ctx := testCtx(t)
	go func() {
		d, sdp, err := u.Invite(ctx, o)
		done <- outcome{d, sdp, err}
	}()
	return done
}

// Calls to a phone on every transport, with sound both ways, hung up by
// either side, and with either password.
func TestInvitePhone(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		transport, algorithm string
		byPhone              bool
	}{{"udp", "", true}, {"tcp", "", false}, {"udp", "MD5", false}, {"tcp", "SHA-256", true}} {
		t.Run(tt.transport+" "+tt.algorithm, func(t *testing.T) {
			t.Parallel()
			ctx := testCtx(t)
			e := newEcho(t)
			u := newUA(t, func(d *sip.Dialog) { _ = d.Reject(480, sip.Reason{}) })
			p := newPhone(t, func(o *siptest.PhoneOptions) {
				o.Transport = tt.transport
				if tt.algorithm != "" {
					o.Username, o.Password, o.Algorithm = "gw", "secret", tt.algorithm
				}
			})
			bye := make(chan sip.Reason, 1)
			call := func(password string) <-chan outcome {
				return dial(t, u, p, "030123", func(o *sip.InviteOptions) {
					o.SDP = sip.Offer(e.local("pcma", "pcmu")).Marshal()
					o.Username, o.Password = "gw", password
					o.Handler.Bye = func(r sip.Reason) { bye <- r }
				})
			}
			if tt.algorithm != "" {
				var se *sip.StatusError
				if out := receive(t, "a refusal", call("wrong")); !errors.As(out.err, &se) || se.Code != 407 || p.Invites() != 0 {
					t.Errorf("wrong password: %v, rang %d times", out.err, p.Invites())
				}
			}
			done := call("secret")
			in, err := p.Await(ctx)
			if err != nil {
				t.Fatal(err)
			}
			if in.RequestUser != "030123" || in.From.User != "conference" {
				t.Errorf("call %+v", in)
			}
			if err := in.Ring(ctx); err != nil {
				t.Error(err)
			}
			k, err := in.Answer(ctx, siptest.AnswerOptions{Tone: 700})
			if err != nil {
				t.Fatal(err)
			}
			out := receive(t, "the answer", done)
			if out.err != nil {
				t.Fatal(out.err)
			}
			if err := k.Hear(ctx, 700); err != nil { // its own, echoed
				t.Error(err)
			}
			if tt.byPhone {
				if err := k.Hangup(ctx); err != nil {
					t.Error(err)
				}
				if r := receive(t, "BYE", bye); r.Cause != 16 {
					t.Errorf("reason %+v", r)
				}
			} else {
				if err := out.d.Bye(ctx, sip.Reason{Cause: 16}); err != nil {
					t.Error(err)
				}
				if end := receive(t, "the end", k.Ended()); !end.ByPeer {
					t.Errorf("end %+v", end)
				}
			}
			await(t, "nothing left", func() bool { return u.Stats().Dialogs == 0 })
		})
	}
}

// The phone's connection breaks while it rings: the CANCEL takes another.
func TestInviteConnectionLost(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	u := newUA(t, func(d *sip.Dialog) { _ = d.Reject(480, sip.Reason{}) })
	ctx, cancel := context.WithCancel(testCtx(t))
	defer cancel()
	rings, done := make(chan int, 1), make(chan error, 1)
	go func() {
		_, _, err := u.Invite(ctx, sip.InviteOptions{URI: "sip:1@" + l.Addr().String() + ";transport=tcp", SDP: []byte(offerSDP),
			Progress: func(code int, _ string, _ []byte) { rings <- code }})
		done <- err
	}()
	accept := func() *peer {
		t.Helper()
		_ = l.(*net.TCPListener).SetDeadline(time.Now().Add(10 * time.Second))
		c, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		p := &peer{t: t, tcp: c}
		t.Cleanup(p.close)
		return p
	}
	first := accept()
	inv := first.awaitRequest(gosip.INVITE)
	first.tagged(inv, 180, "callee", "")
	receive(t, "ringing", rings)
	first.close()
	await(t, "the connection is gone", func() bool { return u.Stats().Connections == 0 })
	cancel()
	second := accept()
	can := second.awaitRequest(gosip.CANCEL)
	second.reply(can, 200, "")
	second.tagged(inv, 487, "callee", "")
	if ack := second.awaitRequest(gosip.ACK); tagOf(ack) != "callee" {
		t.Errorf("unexpected ACK\n%s", ack)
	}
	if err := receive(t, "the end", done); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// Many calls at once to one peer share a connection, and each finds its own.
func TestInviteMany(t *testing.T) {
	t.Parallel()
	for _, transport := range []string{"udp", "tcp"} {
		t.Run(transport, func(t *testing.T) {
			t.Parallel()
			u := newUA(t, func(d *sip.Dialog) { _ = d.Reject(480, sip.Reason{}) }, func(o *sip.Options) { o.T1, o.T2 = 10*testT1, 40*testT1 })
			p := newPhone(t, func(o *siptest.PhoneOptions) {
				o.Transport, o.T1 = transport, 10*testT1
				o.Incoming = func(in *siptest.Incoming) {
					if strings.HasSuffix(in.RequestUser, "0") {
						_ = in.Reject(486, "Busy Here")
						return
					}
					_, _ = in.Answer(context.Background(), siptest.AnswerOptions{})
				}
			})
			const n = 50
			results := make([]<-chan outcome, n)
			for i := range results {
				results[i] = dial(t, u, p, fmt.Sprint(i))
			}
			for i, r := range results {
				out := receive(t, "a call", r)
				var se *sip.StatusError
				if busy := i%10 == 0; busy != errors.As(out.err, &se) || !busy && out.err != nil {
					t.Errorf("%d: %v", i, out.err)
				} else if !busy && out.d.From().User != fmt.Sprint(i) {
					t.Errorf("%d: answered by %+v", i, out.d.From())
				}
			}
			if s := u.Stats(); transport == "tcp" && s.Connections != 1 || p.Invites() != n || s.Dialogs != n-n/10 {
				t.Errorf("%+v, %d calls", s, p.Invites())
			}
		})
	}
}

// A peer without a trunk is heard as far as our call to it goes.
func TestInviteStranger(t *testing.T) {
	t.Parallel()
	u := newUA(t, func(*sip.Dialog) { t.Error("a stranger's call came through") }, func(o *sip.Options) {
		o.Match = func(netip.AddrPort) (string, bool) { return "", false }
		o.UnknownSource, o.UnknownRate, o.UnknownBurst = "drop", 0.001, 1
	})
	c := callOn(t, u)
	inv := c.p.awaitRequest(gosip.INVITE)
	for range 20 {
		c.p.tagged(inv, 180, "callee", "")
		receive(t, "ringing", c.codes)
	}
	c.p.tagged(inv, 200, "callee", answerSDP, c.p.contact())
	c.p.awaitRequest(gosip.ACK)
	if out := receive(t, "the answer", c.done); out.err != nil {
		t.Fatal(out.err)
	}
	c.p.send(c.p.request("INVITE", 1, offerSDP))
	c.p.response(403)
	c.p.send(c.within(inv, "INFO", 1, "x"))
	c.p.response(200)
	c.p.send(c.within(inv, "BYE", 2, ""))
	c.p.response(200)
	receive(t, "the BYE", c.bye)
}

// No phone rings for a call there is no room for.
func TestInviteTooMany(t *testing.T) {
	t.Parallel()
	u := newUA(t, func(d *sip.Dialog) { _ = d.Reject(480, sip.Reason{}) }, func(o *sip.Options) { o.MaxDialogs = 1 })
	p := newPhone(t)
	first := dial(t, u, p, "1")
	in, err := p.Await(testCtx(t))
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // while it rings, and while it is answered
		if out := receive(t, "a refusal", dial(t, u, p, "2")); out.err == nil {
			t.Error("one call too many")
		}
		if _, err := in.Answer(testCtx(t), siptest.AnswerOptions{}); err == nil {
			if out := receive(t, "the answer", first); out.err != nil {
				t.Error(out.err)
			}
		}
	}
	if p.Invites() != 1 {
		t.Errorf("%d calls came", p.Invites())
	}
}

// Close while it rings ends the waiting.
func TestInviteClose(t *testing.T) {
	t.Parallel()
	u := newUA(t, func(d *sip.Dialog) { _ = d.Reject(480, sip.Reason{}) })
	c := callOn(t, u)
	inv := c.p.awaitRequest(gosip.INVITE)
	c.p.tagged(inv, 180, "callee", "")
	receive(t, "ringing", c.codes)
	_ = u.Close()
	if out := receive(t, "the end", c.done); !errors.Is(out.err, sip.ErrEnded) || errors.Is(out.err, sip.ErrUnreachable) {
		t.Error(out.err)
	}
	if _, _, err := u.Invite(testCtx(t), sip.InviteOptions{URI: "sip:1@" + c.p.addr()}); !errors.Is(err, sip.ErrEnded) {
		t.Error(err)
	}
}
