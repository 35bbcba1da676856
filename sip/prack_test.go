package sip_test

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"testing"

	gosip "github.com/emiago/sipgo/sip"

	"brewline/sip"
)

// withPolicy lets every trunk do as p says.
func withPolicy(p sip.Policy) func(*sip.Options) {
	return func(o *sip.Options) { o.Policy = func(string) sip.Policy { return p } }
}

// rack is the RAck line for a reliable provisional response.
func rack(r *gosip.Response) string {
	return "RAck: " + value(r, "RSeq") + " " + strconv.Itoa(int(r.CSeq().SeqNo)) + " INVITE"
}

// reliable reads until a response of that code to the INVITE with another
// RSeq than before.
func (p *peer) reliable(code int, before string) *gosip.Response {
	p.t.Helper()
	for {
		r := p.response(code)
		if rseq := value(r, "RSeq"); rseq == "" || value(r, "Require") != "100rel" {
			p.t.Fatalf("not reliable:\n%s", r)
		} else if rseq != before {
			return r
		}
	}
}

// Reliable responses are repeated until their PRACK, one waits for the other,
// and the 200 waits for the one that has the answer.
func TestReliable(t *testing.T) {
	t.Parallel()
	c := newCalls()
	u := newUA(t, c.on, withPolicy(sip.Policy{Reliable: sip.ReliableSupported}))
	p := newPeer(t, u, "udp")
	p.send(p.request("INVITE", 1, offerSDP, "Supported: timer, 100rel", "Allow: INVITE, UPDATE"))
	k := receive(t, "call", c.c)
	if err := k.Ringing(); err != nil {
		t.Fatal(err)
	}
	if err := k.Progress(183, []byte(answerSDP)); err != nil {
		t.Fatal(err)
	}
	ring := p.reliable(180, "")
	if again := p.response(180); value(again, "RSeq") != value(ring, "RSeq") {
		t.Fatal("the 180 was followed, not repeated, without PRACK")
	}
	in := toLine(ring)
	for i, wrong := range []string{"RAck: 1 1 INVITE", rack(ring) + "X", "RAck: x", "RAck: " + value(ring, "RSeq") + " 2 INVITE"} {
		p.send(p.request("PRACK", 2+i, "", in, wrong))
		r := p.prackAnswer()
		if r.StatusCode != 481 && r.StatusCode != 400 {
			t.Errorf("%s: %d", wrong, r.StatusCode)
		}
	}
	p.send(p.request("PRACK", 10, "", in, rack(ring)))
	if r := p.prackAnswer(); r.StatusCode != 200 {
		t.Fatalf("PRACK: %d", r.StatusCode)
	}
	session := p.reliable(183, "")
	if n, _ := strconv.Atoi(value(ring, "RSeq")); value(session, "RSeq") != strconv.Itoa(n+1) {
		t.Errorf("RSeq %s after %d", value(session, "RSeq"), n)
	}
	done := k.answer()
	if again := p.response(183); value(again, "RSeq") != value(session, "RSeq") {
		t.Error("another 183")
	}
	p.send(p.request("PRACK", 11, "", in, rack(session)))
	ok := p.response(200)
	for ok.CSeq().MethodName != gosip.INVITE {
		ok = p.response(200)
	}
	p.ack(ok, 1)
	if err := receive(t, "answer", done); err != nil || len(ok.Body()) != 0 {
		t.Fatalf("%v\n%s", err, ok)
	}
	p.send(p.request("PRACK", 12, "", in, rack(ring))) // nothing waits for it
	p.response(481)
	p.send(p.request("BYE", 13, "", in))
	p.response(200)
	ended(t, k)
}

// prackAnswer reads until an answer to PRACK.
func (p *peer) prackAnswer() *gosip.Response {
	p.t.Helper()
	for {
		m := p.read(10e9)
		if m == nil {
			p.t.Fatal("no answer to PRACK")
		}
		if r, ok := m.(*gosip.Response); ok && r.CSeq().MethodName == gosip.PRACK {
			return r
		}
	}
}

// The answer is in a reliable 183: the 200 waits for its PRACK and has none.
// An offer in the PRACK, and one in an UPDATE before the 200, are answered.
func TestReliableAnswer(t *testing.T) {
	t.Parallel()
	c := newCalls()
	u := newUA(t, c.on, withPolicy(sip.Policy{Reliable: sip.ReliableSupported}))
	p := newPeer(t, u, "udp")
	p.send(p.request("INVITE", 1, offerSDP, "Require: 100rel"))
	k := receive(t, "call", c.c)
	p.send(p.request("UPDATE", 2, offerSDP)) // of no dialog
	p.response(481)
	if err := k.Progress(183, []byte(answerSDP)); err != nil {
		t.Fatal(err)
	}
	session := p.reliable(183, "")
	if string(session.Body()) != answerSDP {
		t.Errorf("183 with %q", session.Body())
	}
	in := toLine(session)
	p.send(p.request("UPDATE", 3, offerSDP, in)) // the answer is not confirmed
	p.response(491)
	done := k.answer()
	p.send(p.request("PRACK", 4, offerSDP, in, rack(session)))
	r := receive(t, "offer in PRACK", k.reoffer)
	if err := r.Answer([]byte(answerSDP)); err != nil || string(r.SDP) != offerSDP {
		t.Fatal(err)
	}
	if a := p.prackAnswer(); a.StatusCode != 200 || string(a.Body()) != answerSDP {
		t.Fatalf("answer to PRACK:\n%s", a)
	}
	var ok *gosip.Response
	for ok == nil || ok.CSeq().MethodName != gosip.INVITE {
		ok = p.response(200)
	}
	if len(ok.Body()) != 0 {
		t.Errorf("the 200 says again:\n%s", ok)
	}
	p.ack(ok, 1)
	if err := receive(t, "answer", done); err != nil {
		t.Fatal(err)
	}
	p.send(p.request("BYE", 9, "", in))
	p.response(200)
	ended(t, k)
}

// Between the PRACK of an answer and the 200 the peer may offer anew by UPDATE,
// in calls that came in and in those that we made (RFC 3311 §5).
func TestEarlyUpdate(t *testing.T) {
	t.Parallel()
	const anew = "v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio 40002 RTP/AVP 0\r\n"
	// follow has the offer answered.
	follow := func(t *testing.T, p *peer, offers <-chan *sip.Reoffer) {
		t.Helper()
		r := receive(t, "the offer", offers)
		if err := r.Answer([]byte(answerSDP)); err != nil || string(r.SDP) != anew {
			t.Fatalf("%q, %v", r.SDP, err)
		}
		a := p.response(200)
		for a.CSeq().MethodName != gosip.UPDATE {
			a = p.response(200)
		}
		if string(a.Body()) != answerSDP || a.Contact() == nil {
			t.Errorf("answer to UPDATE:\n%s", a)
		}
	}
	t.Run("came in", func(t *testing.T) {
		t.Parallel()
		c := newCalls()
		u := newUA(t, c.on, withPolicy(sip.Policy{Reliable: sip.ReliableSupported}))
		p := newPeer(t, u, "udp")
		p.send(p.request("INVITE", 1, offerSDP, "Supported: 100rel"))
		k := receive(t, "call", c.c)
		if err := k.Progress(183, []byte(answerSDP)); err != nil {
			t.Fatal(err)
		}
		session := p.reliable(183, "")
		in := toLine(session)
		p.send(p.request("PRACK", 2, "", in, rack(session)))
		if a := p.prackAnswer(); a.StatusCode != 200 {
			t.Fatalf("PRACK: %d", a.StatusCode)
		}
		p.send(p.request("UPDATE", 3, anew, in))
		follow(t, p, k.reoffer)
		done := k.answer()
		ok := p.response(200)
		for ok.CSeq().MethodName != gosip.INVITE {
			ok = p.response(200)
		}
		p.ack(ok, 1)
		if err := receive(t, "answer", done); err != nil || len(ok.Body()) != 0 {
			t.Errorf("%v\n%s", err, ok)
		}
		p.send(p.request("BYE", 4, "", in))
		ended(t, k)
	})
	t.Run("went out", func(t *testing.T) {
		t.Parallel()
		u := newUA(t, func(d *sip.Dialog) { _ = d.Reject(480, sip.Reason{}) }, withPolicy(sip.Policy{Reliable: sip.ReliableSupported}))
		offers := make(chan *sip.Reoffer, 1)
		c := callOn(t, u, func(o *sip.InviteOptions) { o.Handler.Reoffer = func(r *sip.Reoffer) { offers <- r } })
		inv := c.p.awaitRequest(gosip.INVITE)
		c.p.tagged(inv, 183, "callee", answerSDP, c.p.contact(), "Require: 100rel", "RSeq: 5")
		c.p.reply(c.p.awaitRequest(gosip.PRACK), 200, "")
		c.p.send(c.within(inv, "UPDATE", 1, anew))
		follow(t, c.p, offers)
		c.p.tagged(inv, 200, "callee", "", c.p.contact())
		c.p.awaitRequest(gosip.ACK)
		out := receive(t, "the answer", c.done)
		if out.err != nil {
			t.Fatal(out.err)
		}
		answer, result := c.hangUp(out.d)
		answer(200)
		if err := <-result; err != nil {
			t.Error(err)
		}
	})
}

// Without an offer, and where only reliable responses are taken, ours is in
// the 180 and the answer in its PRACK.
func TestReliableLateOffer(t *testing.T) {
	t.Parallel()
	c := newCalls()
	u := newUA(t, c.on, withPolicy(sip.Policy{Reliable: sip.ReliableSupported}))
	p := newPeer(t, u, "udp")
	p.send(p.request("INVITE", 1, "", "Require: 100rel"))
	k := receive(t, "call", c.c)
	if !k.OfferDue() {
		t.Error("no offer is due")
	}
	if err := k.Progress(180, []byte(offerSDP)); err != nil {
		t.Fatal(err)
	}
	ring := p.reliable(180, "")
	got := make(chan string, 1)
	go func() {
		sdp, err := k.Answer(context.Background(), nil)
		if err != nil {
			t.Error(err)
		}
		got <- string(sdp)
	}()
	p.send(p.request("PRACK", 2, answerSDP, toLine(ring), rack(ring)))
	if a := p.prackAnswer(); a.StatusCode != 200 {
		t.Fatalf("PRACK: %d", a.StatusCode)
	}
	ok := p.response(200)
	p.ack(ok, 1)
	if sdp := receive(t, "answer", got); sdp != answerSDP || len(ok.Body()) != 0 {
		t.Errorf("the answer is %q, the 200 has %q", sdp, ok.Body())
	}
	p.send(p.request("BYE", 3, "", toLine(ring)))
	p.response(200)
	ended(t, k)
}

// Who asks for reliable responses and confirms none is refused in the end.
func TestReliableUnconfirmed(t *testing.T) {
	t.Parallel()
	c := newCalls()
	u := newUA(t, c.on, withPolicy(sip.Policy{Reliable: sip.ReliableSupported}))
	p := newPeer(t, u, "udp")
	p.send(p.request("INVITE", 1, offerSDP, "Supported: 100rel"))
	k := receive(t, "call", c.c)
	if err := k.Progress(183, []byte(answerSDP)); err != nil {
		t.Fatal(err)
	}
	done := k.answer()
	p.failure(1, 504)
	if err := receive(t, "loss", k.lost); !errors.Is(err, sip.ErrNoPRACK) {
		t.Error(err)
	}
	if err := receive(t, "answer", done); !errors.Is(err, sip.ErrEnded) {
		t.Error(err)
	}
	ended(t, k)
}

// CANCEL while a reliable response waits, with what it says of the reason.
func TestReliableCancelled(t *testing.T) {
	t.Parallel()
	c := newCalls()
	u := newUA(t, c.on, withPolicy(sip.Policy{Reliable: sip.ReliableSupported}))
	p := newPeer(t, u, "udp")
	p.send(p.request("INVITE", 1, offerSDP, "Supported: 100rel"))
	k := receive(t, "call", c.c)
	if err := k.Ringing(); err != nil {
		t.Fatal(err)
	}
	ring := p.reliable(180, "")
	p.send(p.request("CANCEL", 1, "", "Via: SIP/2.0/UDP "+p.addr()+";branch=z9hG4bK"+p.call+"INVITE1;rport",
		`Reason: SIP;cause=200;text="Call completed elsewhere"`))
	p.failure(1, 487)
	if r := receive(t, "CANCEL", k.reason); r != (sip.Reason{Protocol: "SIP", Cause: 200, Text: "Call completed elsewhere"}) {
		t.Errorf("%+v", r)
	}
	p.send(p.request("PRACK", 2, "", toLine(ring), rack(ring)))
	p.response(481)
	ended(t, k)
}

// As the caller: each reliable response is confirmed once, in order; what
// comes twice or too early is not told.
func TestPRACK(t *testing.T) {
	t.Parallel()
	u := newUA(t, func(d *sip.Dialog) { _ = d.Reject(480, sip.Reason{}) }, withPolicy(sip.Policy{Reliable: sip.ReliableRequired}))
	c := callOn(t, u)
	inv := c.p.awaitRequest(gosip.INVITE)
	if value(inv, "Require") != "100rel" || !strings.Contains(value(inv, "Allow"), "PRACK") || !strings.Contains(value(inv, "Supported"), "100rel") {
		t.Errorf("the INVITE:\n%s", inv)
	}
	c.p.tagged(inv, 180, "callee", "", c.p.contact(), "Require: 100rel", "RSeq: 7")
	prack := c.p.awaitRequest(gosip.PRACK)
	if got := value(prack, "RAck"); got != "7 1 INVITE" {
		t.Errorf("RAck: %s", got)
	}
	c.p.reply(prack, 200, "")
	c.p.tagged(inv, 183, "callee", answerSDP, c.p.contact(), "Require: 100rel", "RSeq: 9") // 8 got lost
	c.p.tagged(inv, 180, "callee", "", c.p.contact(), "Require: 100rel", "RSeq: 7")
	c.p.send(c.within(inv, "UPDATE", 1, offerSDP)) // our offer is not answered
	c.p.response(491)
	c.p.tagged(inv, 183, "callee", answerSDP, c.p.contact(), "Require: 100rel", "RSeq: 8")
	for prack = c.p.awaitRequest(gosip.PRACK); value(prack, "RAck") == "7 1 INVITE"; prack = c.p.awaitRequest(gosip.PRACK) {
	}
	if got := value(prack, "RAck"); got != "8 1 INVITE" {
		t.Errorf("RAck: %s", got)
	}
	c.p.reply(prack, 200, "")
	c.p.tagged(inv, 200, "callee", "", c.p.contact())
	c.p.awaitRequest(gosip.ACK)
	out := receive(t, "the answer", c.done)
	if out.err != nil || string(out.sdp) != answerSDP {
		t.Fatalf("%q, %v", out.sdp, out.err)
	}
	if a, b := <-c.codes, <-c.codes; a != 180 || b != 183 || len(c.codes) > 0 {
		t.Errorf("told %d, %d and %d more", a, b, len(c.codes))
	}
	answer, result := c.hangUp(out.d)
	answer(200)
	if err := <-result; err != nil {
		t.Error(err)
	}
}

// The early dialogs of a forked call that were not answered are forgotten.
func TestEarlyDialogs(t *testing.T) {
	t.Parallel()
	u := newUA(t, func(d *sip.Dialog) { _ = d.Reject(480, sip.Reason{}) }, withPolicy(sip.Policy{Reliable: sip.ReliableSupported}))
	c := callOn(t, u)
	inv := c.p.awaitRequest(gosip.INVITE)
	for i, tag := range []string{"one", "two", "three"} {
		c.p.tagged(inv, 183, tag, answerSDP, c.p.contact(), "Require: 100rel", "RSeq: "+strconv.Itoa(10*i+1))
		prack := c.p.awaitRequest(gosip.PRACK)
		for tagOf(prack) != tag {
			prack = c.p.awaitRequest(gosip.PRACK)
		}
		c.p.reply(prack, 200, "")
	}
	if n := u.Stats().Dialogs; n != 3 {
		t.Errorf("%d early dialogs", n)
	}
	c.p.tagged(inv, 200, "two", answerSDP, c.p.contact())
	c.p.awaitRequest(gosip.ACK)
	out := receive(t, "the answer", c.done)
	if out.err != nil {
		t.Fatal(out.err)
	}
	if n := u.Stats().Dialogs; n != 1 {
		t.Errorf("%d dialogs after the answer", n)
	}
	answer, result := c.hangUp(out.d)
	answer(200)
	if err := <-result; err != nil {
		t.Error(err)
	}
}

// Why we cancel is said.
func TestCancelReason(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{"timeout": "Q.850;cause=19", "cause": `SIP;cause=200;text="Call completed elsewhere"`} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			u := newUA(t, func(d *sip.Dialog) { _ = d.Reject(480, sip.Reason{}) })
			p := newPeer(t, u, "udp")
			ctx, cancel := context.WithCancelCause(testCtx(t))
			defer cancel(nil)
			o := sip.InviteOptions{URI: "sip:1@" + p.addr(), SDP: []byte(offerSDP)}
			if name == "timeout" {
				o.Timeout = 20 * testT1
			}
			done := make(chan error, 1)
			go func() {
				_, _, err := u.Invite(ctx, o)
				done <- err
			}()
			inv := p.awaitRequest(gosip.INVITE)
			p.tagged(inv, 180, "callee", "", p.contact())
			if name == "cause" {
				cancel(&sip.CancelCause{Reason: sip.Reason{Protocol: "SIP", Cause: 200, Text: "Call completed elsewhere"}})
			}
			cn := p.awaitRequest(gosip.CANCEL)
			if got := value(cn, "Reason"); !strings.HasPrefix(got, want) {
				t.Errorf("Reason: %s", got)
			}
			p.reply(cn, 200, "")
			p.tagged(inv, 487, "callee", "")
			p.awaitRequest(gosip.ACK)
			if err := <-done; err == nil {
				t.Error("answered")
			}
		})
	}
}
