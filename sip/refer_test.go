package sip_test

import (
	"strings"
	"testing"

	gosip "github.com/emiago/sipgo/sip"

	"brewline/sip"
)

func TestRefer(t *testing.T) {
	t.Parallel()
	c := newCalls()
	u := newUA(t, c.on, withPolicy(sip.Policy{Transfer: true}))
	p := newPeer(t, u, "udp")
	p.send(p.request("REFER", 1, "", "Refer-To: <sip:1@h>"))
	p.response(405) // outside of a dialog
	p.call += "x"
	k, ok := establish(t, c, p)
	in := toLine(ok)
	for i, wrong := range []string{"X: y", "Refer-To: <sip:1@h", "Refer-To: nobody", "Refer-To: <sip:1@h;method=BYE>",
		"Refer-To: <sip:1@h?Replaces=x>", "Refer-To: <sip:1@h>, <sip:2@h>"} {
		p.send(p.request("REFER", 10+i, "", in, wrong))
		p.response(400)
	}
	p.send(p.request("REFER", 20, "", in, `Refer-To: "Bob <2>, \"B\"" <sip:2@h;user=phone?Replaces=a%40b%3Bto-tag%3D1%3Bfrom-tag%3D2&X=y>`, "Referred-By: <sip:me@h>"))
	r := receive(t, "REFER", k.refer)
	if r.URI != "sip:2@h;user=phone" || r.Replaces != "a@b;to-tag=1;from-tag=2" || r.By != "<sip:me@h>" || r.Name != `Bob <2>, "B"` {
		t.Errorf("%+v", r)
	}
	if err := r.Accept(); err != nil {
		t.Fatal(err)
	}
	if err := r.Reject(603); err == nil {
		t.Error("answered twice")
	}
	p.response(202)
	r.Notify(180, "")
	r.Notify(200, "")
	r.Notify(180, "")
	last := uint32(0)
	for i, want := range []string{"SIP/2.0 100 Trying\r\n", "SIP/2.0 180 Ringing\r\n", "SIP/2.0 200 OK\r\n"} {
		n := p.awaitRequest(gosip.NOTIFY)
		for n.CSeq().SeqNo == last { // repeated
			n = p.awaitRequest(gosip.NOTIFY)
		}
		last = n.CSeq().SeqNo
		if string(n.Body()) != want || (value(n, "Subscription-State") == "terminated;reason=noresource") != (i == 2) {
			t.Errorf("want %q:\n%s", want, n)
		}
		p.reply(n, 200, "")
	}
	receive(t, "the end", r.Done())
	p.send(p.request("REFER", 30, "", in, "Refer-To: sip:3@h", "Refer-Sub: false"))
	r = receive(t, "REFER", k.refer)
	if err := r.Accept(); err != nil {
		t.Fatal(err)
	}
	if a := p.response(200); value(a, "Refer-Sub") != "false" {
		t.Errorf("answer:\n%s", a)
	}
	r.Notify(200, "")
	// One that nobody answers.
	p.send(p.request("REFER", 31, "", in, "Refer-To: sip:3@h"))
	receive(t, "REFER", k.refer)
	p.response(500)
	p.send(p.request("BYE", 40, "", in))
	p.response(200)
	ended(t, k)
}

// A peer that hangs up after its REFER is told all the same how it goes on,
// until the end of it, or of the subscription.
func TestReferHangUp(t *testing.T) {
	t.Parallel()
	for name, last := range map[string]string{"success": "SIP/2.0 200 OK", "failure": "SIP/2.0 486 Busy Here", "never": ""} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newCalls()
			u := newUA(t, c.on, withPolicy(sip.Policy{Transfer: true}))
			p := newPeer(t, u, "udp")
			k, ok := establish(t, c, p)
			p.send(p.request("REFER", 2, "", toLine(ok), "Refer-To: <sip:2@h>"))
			r := receive(t, "REFER", k.refer)
			if err := r.Accept(); err != nil {
				t.Fatal(err)
			}
			told := func(want, state string) {
				t.Helper()
				n := p.awaitRequest(gosip.NOTIFY)
				for !strings.HasPrefix(string(n.Body()), want) {
					p.reply(n, 200, "")
					n = p.awaitRequest(gosip.NOTIFY)
				}
				if got := value(n, "Subscription-State"); !strings.HasPrefix(got, state) || value(n, "Event") != "refer" || tagOf(n) != "alice" {
					t.Errorf("want %s, %s:\n%s", want, state, n)
				}
				p.reply(n, 200, "")
			}
			told("SIP/2.0 100", "active;expires=")
			p.send(p.request("BYE", 3, "", toLine(ok)))
			for a := p.response(200); a.CSeq().MethodName != gosip.BYE; a = p.response(200) {
			}
			ended(t, k)
			await(t, "the dialog is gone", func() bool { return u.Stats().Dialogs == 0 })
			r.Notify(180, "")
			told("SIP/2.0 180", "active;expires=")
			switch name {
			case "success":
				r.Notify(200, "")
				told(last, "terminated;reason=noresource")
			case "failure":
				r.Notify(486, "")
				told(last, "terminated;reason=noresource")
			default:
				told("SIP/2.0 180", "terminated;reason=timeout")
			}
			receive(t, "the end", r.Done())
		})
	}
}

// Who has forgotten the call wants to hear no more.
func TestReferForgotten(t *testing.T) {
	t.Parallel()
	c := newCalls()
	u := newUA(t, c.on, withPolicy(sip.Policy{Transfer: true}))
	p := newPeer(t, u, "udp")
	k, ok := establish(t, c, p)
	p.send(p.request("REFER", 2, "", toLine(ok), "Refer-To: <sip:2@h>"))
	r := receive(t, "REFER", k.refer)
	if err := r.Accept(); err != nil {
		t.Fatal(err)
	}
	p.send(p.request("BYE", 3, "", toLine(ok)))
	ended(t, k)
	p.reply(p.awaitRequest(gosip.NOTIFY), 481, "")
	receive(t, "the end", r.Done())
	r.Notify(200, "") // goes nowhere
}

// An INVITE that names a dialog reaches its owner, on the same trunk only.
func TestReplaces(t *testing.T) {
	t.Parallel()
	c := newCalls()
	u := newUA(t, c.on, withPolicy(sip.Policy{Transfer: true}))
	p := newPeer(t, u, "udp")
	old, ok := establish(t, c, p)
	name := p.call + ";to-tag=" + tagOf(ok) + ";from-tag=alice"
	for value, code := range map[string]int{
		"x;to-tag=1;from-tag=2": 481, p.call + ";from-tag=" + tagOf(ok) + ";to-tag=alice": 481, name + ";early-only": 486,
		p.call: 400, name + ";to-tag=x": 400, name + ", " + name: 400,
	} {
		q := newPeer(t, u, "udp")
		q.send(q.request("INVITE", 1, offerSDP, "Replaces: "+value))
		q.failure(1, code)
	}
	early := newPeer(t, u, "udp")
	early.send(early.request("INVITE", 1, offerSDP))
	k := receive(t, "call", c.c)
	if err := k.Ringing(); err != nil {
		t.Fatal(err)
	}
	tag := tagOf(early.response(180))
	q := newPeer(t, u, "udp")
	q.send(q.request("INVITE", 1, offerSDP, "Replaces: "+early.call+";to-tag="+tag+";from-tag=alice"))
	q.failure(1, 481) // it was not we who called
	if err := k.Reject(480, sip.Reason{}); err != nil {
		t.Fatal(err)
	}
	early.failure(1, 480)

	q = newPeer(t, u, "udp")
	q.send(q.request("INVITE", 1, offerSDP, "Replaces: "+name, "Require: replaces"))
	by := receive(t, "replacement", old.replaced)
	done := make(chan error, 1)
	go func() {
		_, err := by.Answer(testCtx(t), []byte(answerSDP))
		done <- err
	}()
	q.ack(q.response(200), 1)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	for d, p := range map[*sip.Dialog]*peer{old.Dialog: p, by: q} {
		go func() { _ = d.Bye(testCtx(t), sip.Reason{Cause: 16}) }()
		p.reply(p.awaitRequest(gosip.BYE), 200, "")
		receive(t, "the end", d.Done())
	}
}
