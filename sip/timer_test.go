package sip_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	gosip "github.com/emiago/sipgo/sip"

	"brewline/sip"
)

// shortTimers agrees to session timers of a second, and asks for one of two.
func shortTimers(p sip.Policy) func(*sip.Options) {
	return func(o *sip.Options) {
		o.MinSE = time.Second
		o.Policy = func(string) sip.Policy { return p }
	}
}

// What a call that comes in is answered about its session timer (RFC 4028 §9).
func TestSessionExpires(t *testing.T) {
	t.Parallel()
	c := newCalls()
	mine := newUA(t, c.on, shortTimers(sip.Policy{SessionTimer: 1800 * time.Second}))
	none := newUA(t, c.on)
	for _, tt := range []struct {
		name  string
		u     *sip.UA
		lines []string
		want  string // Session-Expires of the 200
		req   string // Require of it
	}{
		{"asked for nothing", mine, nil, "1800;refresher=uas", ""},
		{"knows of it", mine, []string{"Supported: timer"}, "1800;refresher=uas", "timer"},
		{"shorter", mine, []string{"Supported: timer", "Session-Expires: 600"}, "600;refresher=uas", "timer"},
		{"longer", mine, []string{"Supported: timer", "Session-Expires: 7200;refresher=uac"}, "1800;refresher=uac", "timer"},
		{"at least", mine, []string{"Supported: timer", "Min-SE: 3600", "x: 7200;refresher=uas"}, "3600;refresher=uas", "timer"},
		{"a proxy asks", none, []string{"Session-Expires: 300"}, "300;refresher=uas", ""},
		{"ours is none", none, []string{"Supported: timer", "Session-Expires: 300;refresher=uac"}, "300;refresher=uac", "timer"},
		{"nobody asks", none, []string{"Supported: timer"}, "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := newPeer(t, tt.u, "udp")
			k, ok := establish(t, c, p, tt.lines...)
			if got := value(ok, "Session-Expires"); got != tt.want || value(ok, "Require") != tt.req {
				t.Errorf("Session-Expires: %s, Require: %s", got, value(ok, "Require"))
			}
			p.send(p.request("BYE", 2, "", toLine(ok)))
			p.response(200)
			ended(t, k)
		})
	}
	p := newPeer(t, none, "udp")
	p.send(p.request("INVITE", 1, offerSDP, "Supported: timer", "Session-Expires: 60"))
	if r := p.failure(1, 422); value(r, "Min-SE") != "90" {
		t.Errorf("422 with Min-SE %q", value(r, "Min-SE"))
	}
	// Nor within the dialog, which stays as it was.
	p = newPeer(t, none, "udp")
	k, ok := establish(t, c, p)
	p.send(p.request("UPDATE", 2, "", toLine(ok), "Supported: timer", "Session-Expires: 60"))
	if r := p.response(422); value(r, "Min-SE") != "90" {
		t.Errorf("422 to UPDATE with Min-SE %q", value(r, "Min-SE"))
	}
	p.send(p.request("INVITE", 3, offerSDP, toLine(ok), "Supported: timer", "Session-Expires: 60"))
	if r := p.failure(3, 422); value(r, "Min-SE") != "90" {
		t.Errorf("422 to a re-INVITE with Min-SE %q", value(r, "Min-SE"))
	}
	p.send(p.request("BYE", 4, "", toLine(ok)))
	p.response(200)
	ended(t, k)
	if len(k.reoffer) > 0 {
		t.Error("the offer was handed on")
	}
}

// The peer refreshes, by UPDATE and by re-INVITE, and then no more.
func TestSessionExpired(t *testing.T) {
	t.Parallel()
	c := newCalls()
	u := newUA(t, c.on, shortTimers(sip.Policy{}))
	p := newPeer(t, u, "udp")
	began := time.Now()
	k, ok := establish(t, c, p, "Supported: timer", "Session-Expires: 2;refresher=uac")
	p.send(p.request("UPDATE", 2, "", toLine(ok), "Supported: timer", "Session-Expires: 2;refresher=uac"))
	if r := p.response(200); value(r, "Session-Expires") != "2;refresher=uac" {
		t.Errorf("answer to UPDATE:\n%s", r)
	}
	p.send(p.request("UPDATE", 3, "", toLine(ok), "Supported: timer", "Session-Expires: 2;refresher=uac", "Require: timer"))
	bye := p.awaitRequest(gosip.BYE)
	p.reply(bye, 200, "")
	if !strings.Contains(value(bye, "Reason"), "session timer expired") {
		t.Errorf("BYE:\n%s", bye)
	}
	if err := receive(t, "loss", k.lost); !errors.Is(err, sip.ErrExpired) {
		t.Error(err)
	}
	if took := time.Since(began); took < time.Second {
		t.Errorf("given up after %v", took)
	}
}

// We refresh: by UPDATE where the peer allows it, else by a re-INVITE with the
// same description; a peer that has forgotten the call loses it.
func TestSessionRefresh(t *testing.T) {
	t.Parallel()
	for _, update := range []bool{true, false} {
		t.Run(map[bool]string{true: "UPDATE", false: "INVITE"}[update], func(t *testing.T) {
			t.Parallel()
			c := newCalls()
			u := newUA(t, c.on, shortTimers(sip.Policy{SessionTimer: time.Second}))
			p := newPeer(t, u, "udp")
			allow, method := "Allow: INVITE, BYE", gosip.INVITE
			if update {
				allow, method = "Allow: INVITE, UPDATE", gosip.UPDATE
			}
			k, _ := establish(t, c, p, "Supported: timer", allow)
			for range 2 {
				req := p.awaitRequest(method)
				if value(req, "Session-Expires") != "1;refresher=uac" || !update && string(req.Body()) != answerSDP || update && len(req.Body()) > 0 {
					t.Errorf("refresh:\n%s", req)
				}
				p.reply(req, 200, map[bool]string{false: offerSDP}[update], "Session-Expires: 1;refresher=uac", p.contact())
				if !update {
					p.awaitRequest(gosip.ACK)
				}
			}
			req := p.awaitRequest(method)
			p.reply(req, 481, "")
			p.reply(p.awaitRequest(gosip.BYE), 481, "")
			if err := receive(t, "loss", k.lost); !errors.Is(err, sip.ErrExpired) {
				t.Error(err)
			}
		})
	}
}

// Calls that we make: 422 is heeded, and who refreshes.
func TestSessionTimerAsked(t *testing.T) {
	t.Parallel()
	u := newUA(t, func(d *sip.Dialog) { _ = d.Reject(480, sip.Reason{}) }, shortTimers(sip.Policy{SessionTimer: time.Second}))
	c := callOn(t, u)
	inv := c.p.awaitRequest(gosip.INVITE)
	if value(inv, "Session-Expires") != "1" || !strings.Contains(value(inv, "Supported"), "timer") {
		t.Errorf("INVITE:\n%s", inv)
	}
	c.p.tagged(inv, 422, "callee", "", "Min-SE: 3")
	inv = c.p.awaitNext(inv)
	if value(inv, "Session-Expires") != "3" || value(inv, "Min-SE") != "3" {
		t.Errorf("INVITE after 422:\n%s", inv)
	}
	c.p.tagged(inv, 200, "callee", answerSDP, c.p.contact(), "Session-Expires: 3;refresher=uac", "Require: timer", "Allow: UPDATE")
	c.p.awaitRequest(gosip.ACK)
	out := receive(t, "the answer", c.done)
	if out.err != nil {
		t.Fatal(out.err)
	}
	up := c.p.awaitRequest(gosip.UPDATE)
	if value(up, "Session-Expires") != "3;refresher=uac" || value(up, "Min-SE") != "3" {
		t.Errorf("UPDATE:\n%s", up)
	}
	// Now it is the peer's turn, who does nothing: the session ends without a
	// refresh of ours.
	c.p.reply(up, 200, "", c.p.contact(), "Session-Expires: 1;refresher=uas")
	for {
		req, ok := c.p.read(10 * time.Second).(*gosip.Request)
		if ok && req.Method == gosip.UPDATE && req.CSeq().SeqNo == up.CSeq().SeqNo {
			continue // repeated before it was answered
		}
		if !ok || req.Method != gosip.BYE {
			t.Fatalf("instead of BYE: %v", req)
		}
		c.p.reply(req, 200, "")
		break
	}
	<-out.d.Done()
}

// Offers cross: 491 on either side, and ours is made again (RFC 3261 §14.1).
func TestUpdateGlare(t *testing.T) {
	t.Parallel()
	c := newCalls()
	u := newUA(t, c.on)
	p := newPeer(t, u, "udp")
	k, ok := establish(t, c, p, "Allow: INVITE, UPDATE")
	in := toLine(ok)
	got := make(chan string, 1)
	go func() {
		sdp, err := k.Update(testCtx(t), []byte(offerSDP))
		if err != nil {
			t.Error(err)
		}
		got <- string(sdp)
	}()
	first := p.awaitRequest(gosip.UPDATE)
	p.send(p.request("UPDATE", 2, offerSDP, in))
	p.response(491)
	p.send(p.request("INVITE", 3, offerSDP, in))
	p.failure(3, 491)
	p.reply(first, 491, "")
	again := p.awaitNext(first)
	p.reply(again, 200, answerSDP, "Contact: <sip:moved@"+p.addr()+">")
	if sdp := receive(t, "answer", got); sdp != answerSDP {
		t.Errorf("answer %q", sdp)
	}
	// Theirs: one waits for our answer, another is told to wait.
	p.send(p.request("UPDATE", 4, offerSDP, in))
	r := receive(t, "offer", k.reoffer)
	p.send(p.request("UPDATE", 5, offerSDP, in))
	if busy := p.response(500); value(busy, "Retry-After") == "" {
		t.Error("500 without Retry-After")
	}
	if err := r.Answer([]byte(answerSDP)); err != nil {
		t.Fatal(err)
	}
	if a := p.response(200); string(a.Body()) != answerSDP || value(a, "Contact") == "" {
		t.Errorf("answer to UPDATE:\n%s", a)
	}
	// A Contact in an UPDATE moves the peer.
	p.send(p.request("UPDATE", 6, "", in, "Contact: <sip:elsewhere@"+p.addr()+">"))
	p.response(200)
	go func() { _ = k.Bye(testCtx(t), sip.Reason{Cause: 16}) }()
	bye := p.awaitRequest(gosip.BYE)
	if bye.Recipient.User != "elsewhere" {
		t.Errorf("BYE to %s", bye.Recipient.String())
	}
	p.reply(bye, 200, "")
	ended(t, k)
}

// An offer of the peer's right behind its answer to ours crosses nothing, and
// where it moves the peer, that is the last word.
func TestUpdateBehindAnswer(t *testing.T) {
	t.Parallel()
	c := newCalls()
	u := newUA(t, c.on)
	p := newPeer(t, u, "udp")
	k, ok := establish(t, c, p, "Allow: INVITE, UPDATE")
	last := uint32(0)
	for i := range 20 {
		done := make(chan error, 1)
		go func() {
			_, err := k.Update(testCtx(t), []byte(offerSDP))
			done <- err
		}()
		req := p.awaitRequest(gosip.UPDATE)
		for req.CSeq().SeqNo == last { // repeated
			req = p.awaitRequest(gosip.UPDATE)
		}
		last = req.CSeq().SeqNo
		p.reply(req, 200, answerSDP, "Contact: <sip:before@"+p.addr()+">")
		p.send(p.request("UPDATE", 2+i, offerSDP, toLine(ok), fmt.Sprintf("Contact: <sip:after%d@%s>", i, p.addr())))
		if err := receive(t, "offer", k.reoffer).Answer([]byte(answerSDP)); err != nil {
			t.Fatal(err)
		}
		p.response(200)
		if err := receive(t, "the answer", done); err != nil {
			t.Fatal(err)
		}
	}
	go func() { _ = k.Bye(testCtx(t), sip.Reason{Cause: 16}) }()
	bye := p.awaitRequest(gosip.BYE)
	if bye.Recipient.User != "after19" {
		t.Errorf("BYE to %s", bye.Recipient.String())
	}
	p.reply(bye, 200, "")
	ended(t, k)
}
