package sip_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"strings"
	"testing"
	"time"

	gosip "github.com/emiago/sipgo/sip"

	"brewline/internal/siptest"
	"brewline/sip"
)

// calls hands each dialog to the test, with its events in channels.
type calls struct {
	c chan *call
}

type call struct {
	*sip.Dialog
	cancelled chan struct{}
	bye       chan sip.Reason
	lost      chan error
	info      chan string
	reoffer   chan *sip.Reoffer
	reason    chan sip.Reason // of a CANCEL
	refer     chan *sip.Refer
	replaced  chan *sip.Dialog
}

func newCalls() *calls { return &calls{make(chan *call, 100)} }

func (c *calls) on(d *sip.Dialog) {
	k := newCall()
	k.Dialog = d
	d.On(k.handler())
	c.c <- k
}

func newCall() *call {
	return &call{nil, make(chan struct{}, 9), make(chan sip.Reason, 9), make(chan error, 9), make(chan string, 99), make(chan *sip.Reoffer, 9),
		make(chan sip.Reason, 9), make(chan *sip.Refer, 9), make(chan *sip.Dialog, 9)}
}

// handler puts what happens into the channels.
func (k *call) handler() sip.DialogHandler {
	return sip.DialogHandler{
		Cancelled: func(r sip.Reason) { k.cancelled <- struct{}{}; k.reason <- r },
		Refer:     func(r *sip.Refer) { k.refer <- r },
		Replaced:  func(d *sip.Dialog) { k.replaced <- d },
		Bye:       func(r sip.Reason) { k.bye <- r },
		Lost:      func(err error) { k.lost <- err },
		Info:      func(ct string, b []byte) { k.info <- ct + "|" + string(b) },
		Reoffer:   func(r *sip.Reoffer) { k.reoffer <- r },
	}
}

// answer answers in a goroutine; the result comes in the channel.
func (k *call) answer() <-chan error {
	done := make(chan error, 1)
	go func() {
		_, err := k.Answer(context.Background(), []byte(answerSDP))
		done <- err
	}()
	return done
}

// establish sets up a call from p; it returns the dialog and the 200.
func establish(t *testing.T, c *calls, p *peer, lines ...string) (*call, *gosip.Response) {
	t.Helper()
	p.send(p.request("INVITE", 1, offerSDP, lines...))
	k := receive(t, "call", c.c)
	done := k.answer()
	ok := p.response(200)
	p.ack(ok, 1)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	return k, ok
}

// ack sends the ACK of a 2xx.
func (p *peer) ack(ok *gosip.Response, seq int, lines ...string) {
	p.t.Helper()
	p.send(p.request("ACK", seq, "", append([]string{toLine(ok), fmt.Sprintf("Via: SIP/2.0/UDP %s;branch=z9hG4bKack%d%s;rport", p.addr(), seq, p.call)}, lines...)...))
}

// failure reads until that failure of an INVITE of the peer's and sends the ACK.
func (p *peer) failure(seq, code int) *gosip.Response {
	p.t.Helper()
	for {
		r := p.response(code)
		if int(r.CSeq().SeqNo) == seq && r.CSeq().MethodName == gosip.INVITE {
			p.send(p.request("ACK", seq, "", toLine(r), fmt.Sprintf("Via: SIP/2.0/UDP %s;branch=z9hG4bK%sINVITE%d;rport", p.addr(), p.call, seq)))
			return r
		}
	}
}

func ended(t *testing.T, k *call) {
	t.Helper()
	select {
	case <-k.Done():
	case <-time.After(10 * time.Second):
		t.Error("the dialog has not ended")
	}
}

func receive[T any](t *testing.T, what string, c <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(10 * time.Second):
		t.Fatalf("never: %s", what)
	}
	return v
}

// CANCEL before the answer: 200, and 487 with the tag of the 180 until its ACK.
func TestCancel(t *testing.T) {
	t.Parallel()
	c := newCalls()
	u := newUA(t, c.on)
	p := newPeer(t, u, "udp")
	p.send(p.request("INVITE", 1, offerSDP))
	k := receive(t, "call", c.c)
	if err := k.Ringing(); err != nil {
		t.Fatal(err)
	}
	tag := tagOf(p.response(180))
	via := fmt.Sprintf("Via: SIP/2.0/UDP %s;branch=z9hG4bK%sINVITE1;rport", p.addr(), p.call)
	p.send(p.request("CANCEL", 1, "", via))
	if got := tagOf(p.response(200)); got != tag {
		t.Errorf("tag of the CANCEL's 200 %q, of the 180 %q", got, tag)
	}
	p.response(487)
	r := p.response(487)
	if tagOf(r) != tag || r.CSeq().MethodName != gosip.INVITE || len(r.GetHeaders("Reason")) != 1 {
		t.Errorf("487 is\n%s", r)
	}
	p.send(p.request("ACK", 1, "", via, toLine(r)))
	receive(t, "Cancelled", k.cancelled)
	ended(t, k)
	if _, err := k.Answer(testCtx(t), nil); !errors.Is(err, sip.ErrEnded) {
		t.Errorf("Answer: %v", err)
	}
	if err := k.Reject(486, sip.Reason{}); !errors.Is(err, sip.ErrEnded) {
		t.Errorf("Reject: %v", err)
	}
	await(t, "nothing left", func() bool { s := u.Stats(); return s.Dialogs+s.ServerTransactions == 0 })
}

// A CANCEL counts from the INVITE's address or trunk alone, over whatever
// connection; who else has guessed the branch is told that there is no call.
func TestCancelSource(t *testing.T) {
	t.Parallel()
	c := newCalls()
	trunks := map[string]string{"127.0.0.1": "ipbx", "127.0.0.2": "ipbx", "127.0.0.3": "other"}
	u := newUA(t, c.on, func(o *sip.Options) {
		o.Match = func(a netip.AddrPort) (string, bool) { return trunks[a.Addr().String()], true }
	})
	for name, tt := range map[string]struct {
		network, source string
		code            int
	}{
		"another trunk over UDP":         {"udp", "127.0.0.3:0", 481},
		"another trunk over TCP":         {"tcp", "127.0.0.3:0", 481},
		"another server of the trunk":    {"udp", "127.0.0.2:0", 200},
		"another port":                   {"udp", "127.0.0.1:0", 200},
		"another connection of the peer": {"tcp", "127.0.0.1:0", 200},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPeer(t, u, tt.network)
			p.send(p.request("INVITE", 1, offerSDP))
			k := receive(t, "call", c.c)
			other := newPeer(t, u, tt.network)
			other.close()
			other.openAt(tt.network, tt.source)
			via := strings.SplitN(p.request("INVITE", 1, ""), "\r\n", 3)[1]
			other.send(p.request("CANCEL", 1, "", via))
			if r := other.response(tt.code); r.CSeq().MethodName != gosip.CANCEL {
				t.Errorf("answered with\n%s", r)
			}
			if tt.code == 200 {
				receive(t, "Cancelled", k.cancelled)
				r := p.response(487)
				p.send(p.request("ACK", 1, "", via, toLine(r)))
				return
			}
			if err := k.Reject(486, sip.Reason{}); err != nil {
				t.Errorf("the call is gone: %v", err)
			}
			p.send(p.request("ACK", 1, "", via, toLine(p.response(486))))
		})
	}
}

// CANCEL after the 200 changes nothing (RFC 3261 §9.2); nor does a late Reject.
func TestCancelTooLate(t *testing.T) {
	t.Parallel()
	c := newCalls()
	u := newUA(t, c.on)
	p := newPeer(t, u, "udp")
	p.send(p.request("INVITE", 1, offerSDP))
	k := receive(t, "call", c.c)
	done := k.answer()
	ok := p.response(200)
	p.send(p.request("CANCEL", 1, "", fmt.Sprintf("Via: SIP/2.0/UDP %s;branch=z9hG4bK%sINVITE1;rport", p.addr(), p.call)))
	for r := p.response(200); r.CSeq().MethodName != gosip.CANCEL; r = p.response(200) {
	}
	p.ack(ok, 1)
	if err := <-done; err != nil {
		t.Error(err)
	}
	if err := k.Reject(486, sip.Reason{}); !errors.Is(err, sip.ErrState) {
		t.Errorf("Reject: %v", err)
	}
	p.send(p.request("BYE", 2, "", toLine(ok)))
	receive(t, "Bye", k.bye)
	if len(k.cancelled) != 0 {
		t.Error("cancelled as well")
	}
}

// A CANCEL and an answer at the same moment: exactly one of them wins.
func TestCancelRace(t *testing.T) {
	t.Parallel()
	c := newCalls()
	u := newUA(t, c.on)
	for i := range 30 {
		p := newPeer(t, u, "udp")
		p.call += fmt.Sprint(i)
		p.send(p.request("INVITE", 1, offerSDP))
		k := receive(t, "call", c.c)
		done := k.answer()
		p.send(p.request("CANCEL", 1, "", fmt.Sprintf("Via: SIP/2.0/UDP %s;branch=z9hG4bK%sINVITE1;rport", p.addr(), p.call)))
		var final *gosip.Response
		for final == nil {
			m := p.read(10 * time.Second)
			if m == nil {
				t.Fatal("no final response")
			}
			if r := m.(*gosip.Response); r.CSeq().MethodName == gosip.INVITE && r.StatusCode >= 200 {
				final = r
			}
		}
		if final.StatusCode == 200 {
			p.ack(final, 1)
			if err := <-done; err != nil {
				t.Errorf("200 went out, yet %v", err)
			}
			p.send(p.request("BYE", 2, "", toLine(final)))
			receive(t, "Bye", k.bye)
		} else if err := <-done; !errors.Is(err, sip.ErrEnded) {
			t.Errorf("%d went out, yet %v", final.StatusCode, err)
		}
		ended(t, k)
		p.close()
	}
}

// The 200 is repeated in steps of T1, doubling up to T2; without an ACK in
// 64·T1 there is a BYE and the call is lost (RFC 3261 §13.3.1.4).
func TestNoACK(t *testing.T) {
	for _, network := range []string{"udp", "tcp"} {
		t.Run(network, func(t *testing.T) {
			t.Parallel()
			c := newCalls()
			u := newUA(t, c.on)
			p := newPeer(t, u, network)
			p.send(p.request("INVITE", 1, offerSDP))
			k := receive(t, "call", c.c)
			start := time.Now()
			done := k.answer()
			p.response(200)
			var at []time.Duration // of the repetitions
			var bye *gosip.Request
			for bye == nil {
				switch m := p.read(10 * time.Second).(type) {
				case *gosip.Response:
					at = append(at, time.Since(start))
				case *gosip.Request:
					bye = m
				default:
					t.Fatal("no BYE")
				}
			}
			// After 10, 30, 70, 150, 230 … 630 ms; a busy machine is late,
			// never early.
			if len(at) < 2 || len(at) > 10 {
				t.Errorf("%d repetitions", len(at))
			}
			var due time.Duration
			for i, a := range at {
				if due += min(testT1<<i, 8*testT1); a < due {
					t.Errorf("repetition %d after %v, due at %v", i+1, a, due)
				}
			}
			if r := bye.GetHeaders("Reason"); len(r) != 1 || !strings.HasPrefix(r[0].Value(), "Q.850;cause=102") {
				t.Errorf("Reason %v", r)
			}
			p.reply(bye, 200, "")
			if err := <-done; !errors.Is(err, sip.ErrNoACK) {
				t.Errorf("Answer: %v", err)
			}
			if err := receive(t, "Lost", k.lost); !errors.Is(err, sip.ErrNoACK) {
				t.Errorf("Lost: %v", err)
			}
			ended(t, k)
		})
	}
}

// BYE before the ACK ends the call; a BYE of ours waits for the ACK (§15).
func TestByeAndACK(t *testing.T) {
	t.Parallel()
	c := newCalls()
	u := newUA(t, c.on)
	p := newPeer(t, u, "udp")
	p.send(p.request("INVITE", 1, offerSDP))
	k := receive(t, "call", c.c)
	if err := k.Bye(testCtx(t), sip.Reason{}); !errors.Is(err, sip.ErrState) {
		t.Errorf("Bye before an answer: %v", err)
	}
	done := k.answer()
	ok := p.response(200)
	p.send(p.request("BYE", 2, "", toLine(ok), `Reason: SIP;cause=200;text="x", Q.850;cause=17;text="a;b, \"c\""`))
	for p.response(200).CSeq().MethodName != gosip.BYE {
	}
	if r := receive(t, "Bye", k.bye); r != (sip.Reason{Protocol: "Q.850", Cause: 17, Text: `a;b, "c"`}) {
		t.Errorf("reason %+v", r)
	}
	if err := <-done; !errors.Is(err, sip.ErrEnded) {
		t.Errorf("Answer: %v", err)
	}

	p = newPeer(t, u, "udp")
	p.call += "second"
	p.send(p.request("INVITE", 1, offerSDP))
	k = receive(t, "call", c.c)
	k.answer()
	ok = p.response(200)
	bye := make(chan error, 1)
	go func() {
		bye <- k.Bye(context.Background(), sip.Reason{Cause: 16, Text: `it's "over"` + "\r\nX-Evil: 1"})
	}()
	for range 3 { // repeated 200s, and no BYE among them
		if m, isReq := p.read(10 * time.Second).(*gosip.Request); isReq {
			t.Fatalf("%s before the ACK", m.Method)
		}
	}
	p.ack(ok, 1)
	req := p.awaitRequest(gosip.BYE)
	if r := req.GetHeaders("Reason"); len(r) != 1 || r[0].Value() != `Q.850;cause=16;text="it's \"over\"  X-Evil: 1"` || len(req.GetHeaders("X-Evil")) != 0 {
		t.Errorf("Reason %v", r)
	}
	p.reply(req, 200, "")
	if err := <-bye; err != nil {
		t.Error(err)
	}
	if err := k.Bye(testCtx(t), sip.Reason{}); !errors.Is(err, sip.ErrEnded) {
		t.Errorf("second Bye: %v", err)
	}
	await(t, "nothing left", func() bool { s := u.Stats(); return s.Dialogs+s.ServerTransactions+s.ClientTransactions == 0 })
}

// A BYE that crosses ours is answered with 200; one nobody answers ends in time.
func TestByeCrossesAndUnanswered(t *testing.T) {
	t.Parallel()
	c := newCalls()
	u := newUA(t, c.on)
	p := newPeer(t, u, "udp")
	k, ok := establish(t, c, p)
	bye := make(chan error, 1)
	go func() { bye <- k.Bye(context.Background(), sip.Reason{Cause: 16}) }()
	p.awaitRequest(gosip.BYE)
	p.send(p.request("INFO", 2, "", toLine(ok)))
	p.response(481)
	p.send(p.request("BYE", 3, "", toLine(ok)))
	p.response(200)
	if err := receive(t, "end of Bye", bye); !errors.Is(err, sip.ErrTimeout) {
		t.Errorf("Bye: %v", err)
	}
	if len(k.bye)+len(k.lost) != 0 {
		t.Error("an event after our own BYE")
	}
	await(t, "nothing left", func() bool { return u.Stats().Dialogs == 0 })
}

// Requests of a dialog: tags, order, methods.
func TestInDialog(t *testing.T) {
	t.Parallel()
	c := newCalls()
	u := newUA(t, c.on)
	p := newPeer(t, u, "udp")
	k, ok := establish(t, c, p)
	in := toLine(ok)
	for i, tt := range []struct {
		method, body string
		seq          int
		lines        []string
		code         int
	}{
		{"INFO", "Signal=5\r\nDuration=160\r\n", 2, []string{"Content-Type: application/dtmf-relay"}, 200},
		{"INFO", "", 3, nil, 200},
		{"INFO", "x", 3, []string{"Via: SIP/2.0/UDP " + p.addr() + ";branch=z9hG4bKsame;rport"}, 500},
		{"INFO", "x", 1, nil, 500},
		{"INFO", "", 4, []string{"From: <sip:alice@127.0.0.1>;tag=mallory"}, 481},
		{"INFO", "", 5, []string{"To: <sip:room@127.0.0.1>;tag=guess"}, 481},
		{"OPTIONS", "", 6, nil, 200},
		{"PUBLISH", "", 7, nil, 405},
		{"XYZ", "", 8, nil, 501},
		{"INVITE", offerSDP, 9, []string{"Content-Type: text/plain"}, 415},
		{"INVITE", offerSDP, 10, []string{"Require: timer, x-nothing"}, 420},
		{"BYE", "", 11, []string{"Require: whatever"}, 200},
		{"INFO", "", 12, nil, 481},
	} {
		lines := append([]string{in}, tt.lines...)
		if len(tt.lines) == 1 && strings.HasPrefix(tt.lines[0], "To:") {
			lines = tt.lines
		}
		p.send(p.request(tt.method, tt.seq, tt.body, lines...))
		if r := p.response(tt.code); int(r.CSeq().SeqNo) != tt.seq || string(r.CSeq().MethodName) != tt.method {
			t.Errorf("step %d: %s", i, r.CSeq())
		}
	}
	if got := receive(t, "INFO", k.info); got != "application/dtmf-relay|Signal=5\r\nDuration=160\r\n" {
		t.Errorf("INFO %q", got)
	}
	if got := receive(t, "INFO", k.info); got != "|" {
		t.Errorf("INFO %q", got)
	}
	receive(t, "Bye", k.bye)
	if len(k.info)+len(k.lost)+len(k.cancelled) != 0 {
		t.Error("further events")
	}
}

// Hold and resume by re-INVITE, refusal, a re-INVITE without an offer, and
// one that comes while another waits.
func TestReinvite(t *testing.T) {
	t.Parallel()
	c := newCalls()
	u := newUA(t, c.on)
	p := newPeer(t, u, "udp")
	k, ok := establish(t, c, p)
	in := toLine(ok)

	p.send(p.request("INVITE", 2, offerSDP+"a=sendonly\r\n", in))
	r := receive(t, "Reoffer", k.reoffer)
	if !strings.Contains(string(r.SDP), "sendonly") {
		t.Errorf("offer %q", r.SDP)
	}
	p.send(p.request("INVITE", 3, offerSDP, in)) // while the first waits
	busy := p.failure(3, 500)
	if len(busy.GetHeaders("Retry-After")) != 1 {
		t.Error("no Retry-After")
	}
	if err := r.Answer([]byte(answerSDP + "a=recvonly\r\n")); err != nil {
		t.Error(err)
	}
	if err := r.Answer(nil); !errors.Is(err, sip.ErrState) {
		t.Errorf("second Answer: %v", err)
	}
	ok2 := p.response(200)
	if !strings.Contains(string(ok2.Body()), "recvonly") || ok2.CSeq().SeqNo != 2 {
		t.Errorf("answer\n%s", ok2)
	}
	p.response(200) // repeated until the ACK
	p.ack(ok2, 2)

	p.send(p.request("INVITE", 4, offerSDP, in))
	if err := receive(t, "Reoffer", k.reoffer).Reject(488); err != nil {
		t.Error(err)
	}
	p.failure(4, 488)

	p.send(p.request("INVITE", 5, "", in))
	r = receive(t, "Reoffer", k.reoffer)
	if r.SDP != nil {
		t.Errorf("offer %q", r.SDP)
	}
	acked := make(chan []byte, 1)
	r.ACK = func(b []byte) { acked <- b }
	if err := r.Answer([]byte(offerSDP)); err != nil {
		t.Error(err)
	}
	p.response(200)
	p.send(p.request("INVITE", 6, offerSDP, in)) // our offer is not answered yet
	p.failure(6, 491)
	p.send(p.request("ACK", 5, answerSDP, in))
	if b := receive(t, "answer in the ACK", acked); string(b) != answerSDP {
		t.Errorf("answer %q", b)
	}

	// Cancelled, and one that the owner never answers.
	p.send(p.request("INVITE", 7, offerSDP, in))
	r = receive(t, "Reoffer", k.reoffer)
	p.send(p.request("CANCEL", 7, "", in, fmt.Sprintf("Via: SIP/2.0/UDP %s;branch=z9hG4bK%sINVITE7;rport", p.addr(), p.call)))
	p.failure(7, 487)
	if err := r.Answer(nil); !errors.Is(err, sip.ErrState) {
		t.Errorf("Answer after CANCEL: %v", err)
	}
	p.send(p.request("INVITE", 8, offerSDP, in))
	receive(t, "Reoffer", k.reoffer)
	p.failure(8, 500)

	// A call that ends meanwhile answers what waits (§15.1.2).
	p.send(p.request("INVITE", 9, offerSDP, in))
	receive(t, "Reoffer", k.reoffer)
	p.send(p.request("BYE", 10, "", in))
	p.failure(9, 487)
	ended(t, k)
}

// Our own re-INVITE: answered, ACK repeated, glare, refused, unanswered.
func TestReinviteOurs(t *testing.T) {
	t.Parallel()
	c := newCalls()
	u := newUA(t, c.on)
	p := newPeer(t, u, "udp")
	k, ok := establish(t, c, p)
	type result struct {
		sdp []byte
		err error
	}
	reinvite := func() <-chan result {
		ch := make(chan result, 1)
		go func() {
			b, err := k.Reinvite(testCtx(t), []byte(offerSDP))
			ch <- result{b, err}
		}()
		return ch
	}

	res := reinvite()
	req := p.awaitRequest(gosip.INVITE)
	if from, _ := req.From().Params.Get("tag"); from != tagOf(ok) || tagOf(req) != "alice" || req.Contact() == nil {
		t.Errorf("re-INVITE\n%s", req)
	}
	// While ours is under way theirs gets 491.
	p.send(p.request("INVITE", 2, offerSDP, toLine(ok)))
	p.failure(2, 491)
	p.reply(req, 491, "")
	p.awaitRequest(gosip.ACK)
	req = p.awaitRequest(gosip.INVITE) // again after a pause
	// Target refresh: the ACK and what follows go to a new place.
	moved := newPeer(t, u, "udp")
	contact := "Contact: <sip:moved@" + moved.addr() + ">"
	p.reply(req, 180, "")
	p.reply(req, 200, answerSDP, contact)
	if r := receive(t, "answer", res); r.err != nil || string(r.sdp) != answerSDP {
		t.Errorf("answer %q, %v", r.sdp, r.err)
	}
	ack := moved.awaitRequest(gosip.ACK)
	p.reply(req, 200, answerSDP, contact)
	if again := moved.awaitRequest(gosip.ACK); again.String() != ack.String() || ack.CSeq().SeqNo != req.CSeq().SeqNo || ack.Recipient.User != "moved" {
		t.Errorf("ACK\n%s\nthen\n%s", ack, again)
	}

	res = reinvite()
	req = moved.awaitRequest(gosip.INVITE)
	moved.reply(req, 488, "")
	ack = moved.awaitRequest(gosip.ACK)
	if ack.Via().Value() != req.Via().Value() {
		t.Error("the ACK of a failure has another Via")
	}
	var se *sip.StatusError
	if r := receive(t, "answer", res); !errors.As(r.err, &se) || se.Code != 488 {
		t.Errorf("%v", r.err)
	}
	moved.reply(req, 488, "")
	moved.awaitRequest(gosip.ACK)

	// A peer that does not know the call any more.
	info := make(chan error, 1)
	go func() { info <- k.Info(testCtx(t), "application/json", []byte(`{"t":11}`)) }()
	req = moved.awaitRequest(gosip.INFO)
	if string(req.Body()) != `{"t":11}` || req.ContentType().Value() != "application/json" {
		t.Errorf("INFO\n%s", req)
	}
	moved.reply(req, 200, "")
	if err := <-info; err != nil {
		t.Error(err)
	}
	go func() { info <- k.Info(testCtx(t), "application/json", nil) }()
	moved.reply(moved.awaitRequest(gosip.INFO), 481, "")
	if err := <-info; !errors.As(err, &se) || se.Code != 481 {
		t.Error(err)
	}
	if err := receive(t, "Lost", k.lost); !errors.As(err, &se) {
		t.Errorf("Lost: %v", err)
	}
	ended(t, k)
}

// 500 with Retry-After to an offer of ours: it is made again after that, at most
// 20·T1 later, until the owner's patience ends; without it, that is the answer.
func TestReofferLater(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		method gosip.RequestMethod
		after  string
		pause  time.Duration // at least
	}{
		"re-INVITE":         {gosip.INVITE, "0", 0},
		"UPDATE":            {gosip.UPDATE, "0", 0},
		"in an hour":        {gosip.UPDATE, "3600 (maintenance)", 20 * testT1},
		"no number":         {gosip.UPDATE, "soon", 0},
		"never":             {gosip.INVITE, "0", 0},
		"without the field": {gosip.UPDATE, "", 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newCalls()
			u := newUA(t, c.on)
			p := newPeer(t, u, "udp")
			k, _ := establish(t, c, p, "Allow: INVITE, UPDATE")
			ctx, cancel := context.WithCancel(testCtx(t))
			defer cancel()
			done := make(chan error, 1)
			go func() {
				f := k.Update
				if tt.method == gosip.INVITE {
					f = k.Reinvite
				}
				sdp, err := f(ctx, []byte(offerSDP))
				if err == nil && string(sdp) != answerSDP {
					err = fmt.Errorf("answer %q", sdp)
				}
				done <- err
			}()
			seq := uint32(0)
			offered := func() *gosip.Request {
				req := p.awaitRequest(tt.method)
				for req.CSeq().SeqNo == seq { // repeated
					req = p.awaitRequest(tt.method)
				}
				seq = req.CSeq().SeqNo
				return req
			}
			refuse := func() time.Time {
				if req := offered(); tt.after == "" {
					p.reply(req, 500, "")
				} else {
					p.reply(req, 500, "", "Retry-After: "+tt.after)
				}
				return time.Now()
			}
			switch at := refuse(); name {
			case "without the field":
				var se *sip.StatusError
				if err := receive(t, "the answer", done); !errors.As(err, &se) || se.Code != 500 {
					t.Error(err)
				}
			case "never":
				refuse()
				refuse()
				cancel()
				if err := receive(t, "the answer", done); !errors.Is(err, context.Canceled) {
					t.Error(err)
				}
			default:
				req := offered()
				if waited := time.Since(at); waited < tt.pause*9/10 {
					t.Errorf("again after %v", waited)
				}
				p.reply(req, 200, answerSDP, p.contact())
				if err := receive(t, "the answer", done); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// An in-dialog request that nobody answers loses the call, and is repeated
// over UDP until then.
func TestUnansweredRequest(t *testing.T) {
	t.Parallel()
	c := newCalls()
	u := newUA(t, c.on)
	p := newPeer(t, u, "udp")
	k, _ := establish(t, c, p)
	done := make(chan error, 1)
	go func() { done <- k.Info(context.Background(), "text/plain", []byte("x")) }()
	first := p.awaitRequest(gosip.INFO)
	if again := p.awaitRequest(gosip.INFO); again.String() != first.String() {
		t.Error("the repetition differs")
	}
	if err := receive(t, "end of INFO", done); !errors.Is(err, sip.ErrTimeout) {
		t.Errorf("INFO: %v", err)
	}
	if err := receive(t, "Lost", k.lost); !errors.Is(err, sip.ErrTimeout) {
		t.Errorf("Lost: %v", err)
	}
}

// Where our requests go: Record-Route, strict routers, and a peer behind a NAT.
func TestRequestRouting(t *testing.T) {
	t.Parallel()
	c := newCalls()
	u := newUA(t, c.on)
	for _, tt := range []struct {
		name         string
		lines        func(proxy, pbx string) []string
		viaProxy     bool
		uri, lastOne string
	}{
		{"contact", func(_, pbx string) []string { return []string{"Contact: <sip:pbx@" + pbx + ";x=1>"} }, false, "sip:pbx@%s;x=1", ""},
		{"loose route", func(proxy, _ string) []string {
			return []string{`Record-Route: "edge, one" <sip:` + proxy + `;lr;did=4.1>;nat=yes;x="a,b", <sip:192.0.2.9;lr>;y`, "Contact: <sip:pbx@192.0.2.7>"}
		}, true, "sip:pbx@192.0.2.7", "<sip:192.0.2.9;lr>"},
		{"strict route", func(proxy, _ string) []string {
			return []string{"Record-Route: <sip:" + proxy + ">", "Contact: <sip:pbx@192.0.2.7>"}
		}, true, "sip:%s", "<sip:pbx@192.0.2.7>"},
		{"nat", func(_, _ string) []string { return []string{"Contact: <sip:pbx@10.1.2.3:5060>"} }, false, "sip:pbx@10.1.2.3:5060", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p, proxy := newPeer(t, u, "udp"), newPeer(t, u, "udp")
			k, _ := establish(t, c, p, tt.lines(proxy.addr(), p.addr())...)
			var echoed []string
			for _, l := range strings.Split(p.last, "\r\n") {
				if v, is := strings.CutPrefix(l, "Record-Route: "); is {
					echoed = append(echoed, v)
				}
			}
			sent, _ := strings.CutPrefix(tt.lines(proxy.addr(), p.addr())[0], "Record-Route: ")
			if strings.HasPrefix(sent, "Contact") {
				sent = ""
			}
			if got := strings.Join(echoed, ", "); got != sent {
				t.Errorf("Record-Route %s in the 200, want %s", got, sent)
			}
			go func() { _ = k.Bye(context.Background(), sip.Reason{Cause: 16}) }()
			at := p
			if tt.viaProxy {
				at = proxy
			}
			req := at.awaitRequest(gosip.BYE)
			want := tt.uri
			if strings.Contains(want, "%s") {
				want = fmt.Sprintf(want, at.addr())
			}
			if got := req.Recipient.String(); got != want {
				t.Errorf("Request-URI %s, want %s", got, want)
			}
			routes := req.GetHeaders("Route")
			if tt.lastOne != "" && (len(routes) == 0 || routes[len(routes)-1].Value() != tt.lastOne) {
				t.Errorf("Route %v, want %s last", routes, tt.lastOne)
			}
			at.reply(req, 200, "")
		})
	}
}

// Over TCP requests come back on the connection the call came by, or on a
// new one to the Contact when that is gone.
func TestTCPReuse(t *testing.T) {
	t.Parallel()
	c := newCalls()
	u := newUA(t, c.on)
	p := newPeer(t, u, "tcp")
	k, _ := establish(t, c, p, "Contact: <sip:pbx@10.9.9.9:5060;transport=tcp>")
	go func() { _ = k.Bye(context.Background(), sip.Reason{Cause: 16}) }()
	p.reply(p.awaitRequest(gosip.BYE), 200, "")
	ended(t, k)

	pbx := newUA(t, func(*sip.Dialog) {}) // listens, and knows no such call
	addr := pbx.Addrs()[1].String()
	p = newPeer(t, u, "tcp")
	k, _ = establish(t, c, p, "Contact: <sip:pbx@"+addr+";transport=tcp>")
	p.close()
	await(t, "connection gone", func() bool { return u.Stats().Connections <= 1 })
	if err := k.Info(testCtx(t), "text/plain", []byte("x")); err == nil || !strings.Contains(err.Error(), "481") {
		t.Errorf("INFO over a new connection: %v", err)
	}
}

// 180 is repeated over UDP, since it may get lost, until the answer.
func TestRingingRepeated(t *testing.T) {
	t.Parallel()
	c := newCalls()
	u := newUA(t, c.on)
	p := newPeer(t, u, "udp")
	p.send(p.request("INVITE", 1, offerSDP, "Record-Route: <sip:127.0.0.1:9;lr>"))
	k := receive(t, "call", c.c)
	if err := k.Progress(200, nil); err == nil {
		t.Error("Progress took 200")
	}
	if err := k.Ringing(); err != nil {
		t.Fatal(err)
	}
	first := p.response(180)
	for range 3 {
		if again := p.response(180); again.String() != first.String() {
			t.Error("the repetition differs")
		}
	}
	if first.Contact() == nil || len(first.GetHeaders("Record-Route")) != 1 {
		t.Errorf("180 is\n%s", first)
	}
	if err := k.Progress(183, []byte(answerSDP)); err != nil {
		t.Fatal(err)
	}
	if r := p.response(183); string(r.Body()) != answerSDP {
		t.Errorf("183 is\n%s", r)
	}
	if err := k.Reject(999, sip.Reason{}); err == nil {
		t.Error("Reject took 999")
	}
	evil := "a\"b\\c\r\nX-Evil: 1\x00"
	if err := k.Reject(480, sip.Reason{Cause: 31, Text: evil}, sip.Header{Name: "Retry-After", Value: "5\r\nX-Evil: 2"}, sip.Header{Name: "X Evil:", Value: "3"}); err != nil {
		t.Fatal(err)
	}
	r := p.response(480)
	if strings.Contains(r.String(), "\r\nX-Evil") || strings.Contains(r.String(), "X Evil") ||
		!strings.Contains(r.String(), `text="a\"b\\c  X-Evil: 1"`) || r.GetHeaders("Warning") == nil {
		t.Errorf("480 is\n%s", r)
	}
}

// An INVITE that says how long it may wait (§13.3.1), one too many, and a
// user agent that closes.
func TestExpiresLimitClose(t *testing.T) {
	t.Parallel()
	c := newCalls()
	u := newUA(t, c.on, func(o *sip.Options) { o.MaxDialogs = 1 })
	p, q := newPeer(t, u, "udp"), newPeer(t, u, "udp")
	p.send(p.request("INVITE", 1, offerSDP, "Expires: 1"))
	k := receive(t, "call", c.c)
	q.send(q.request("INVITE", 1, offerSDP, "Call-ID: other"))
	if r := q.response(503); len(r.GetHeaders("Retry-After")) != 1 {
		t.Errorf("503 is\n%s", r)
	}
	p.response(487)
	receive(t, "Cancelled", k.cancelled)

	p = newPeer(t, u, "udp")
	p.call += "x"
	k, _ = establish(t, c, p)
	if err := u.Close(); err != nil {
		t.Error(err)
	}
	if err := receive(t, "Lost", k.lost); !errors.Is(err, sip.ErrEnded) {
		t.Errorf("Lost: %v", err)
	}
	if err := k.Bye(testCtx(t), sip.Reason{}); !errors.Is(err, sip.ErrEnded) {
		t.Errorf("Bye: %v", err)
	}
	if _, err := k.Reinvite(testCtx(t), nil); !errors.Is(err, sip.ErrEnded) {
		t.Errorf("Reinvite: %v", err)
	}
}

// Events that come before there is a handler are not lost.
func TestEventsBeforeHandler(t *testing.T) {
	t.Parallel()
	dialogs := make(chan *sip.Dialog, 1)
	u := newUA(t, func(d *sip.Dialog) { dialogs <- d })
	p := newPeer(t, u, "udp")
	p.send(p.request("INVITE", 1, offerSDP))
	d := <-dialogs
	p.send(p.request("CANCEL", 1, "", fmt.Sprintf("Via: SIP/2.0/UDP %s;branch=z9hG4bK%sINVITE1;rport", p.addr(), p.call)))
	p.response(487)
	<-d.Done()
	cancelled := make(chan struct{}, 9)
	d.On(sip.DialogHandler{Cancelled: func(sip.Reason) { cancelled <- struct{}{} }})
	receive(t, "Cancelled", cancelled)
}

// The listener's advertised address stands in Via and Contact; a bound
// 0.0.0.0 never does.
func TestAdvertised(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ advertise, want, local string }{
		{"", "<sip:room@127.0.0.1:%d>", "127.0.0.1:%d"},
		{"sip.example.com", "<sip:room@sip.example.com:%d>", "127.0.0.1:%d"},
		{"192.0.2.1:5099", "<sip:room@192.0.2.1:5099>", "192.0.2.1:5099"},
		{"[2001:db8::1]:5099", "<sip:room@[2001:db8::1]:5099>", "[2001:db8::1]:5099"},
	} {
		c := newCalls()
		u := newUA(t, c.on, func(o *sip.Options) {
			o.Listen = []sip.Listener{{Network: "udp", Address: "0.0.0.0:0", Advertise: tt.advertise}}
		})
		p := newPeer(t, u, "udp")
		port := netip.MustParseAddrPort(p.to.String()).Port()
		p.to = mustUDP("127.0.0.1", port)
		k, ok := establish(t, c, p)
		fill := func(s string) string {
			if strings.Contains(s, "%d") {
				return fmt.Sprintf(s, port)
			}
			return s
		}
		if got := ok.Contact().Value(); got != fill(tt.want) || k.Local().String() != fill(tt.local) {
			t.Errorf("%q: Contact %s, local %s; want %s and %s", tt.advertise, got, k.Local(), fill(tt.want), fill(tt.local))
		}
	}
	for _, bad := range []sip.Listener{{Network: "sctp", Address: "127.0.0.1:0"}, {Network: "udp", Address: "nowhere"}, {Network: "udp", Address: "127.0.0.1:0", Advertise: "h:port"}} {
		if _, err := sip.Listen(testCtx(t), sip.Options{Listen: []sip.Listener{bad}, OnInvite: func(*sip.Dialog) {}}); err == nil {
			t.Errorf("%+v accepted", bad)
		}
	}
}

// Two hundred calls one after another, and fifty at once, leave nothing.
func TestManyCalls(t *testing.T) {
	c := newCalls()
	failed := make(chan error, 250)
	u := newUA(t, func(d *sip.Dialog) {
		c.on(d)
		_ = d.Ringing()
		if _, err := d.Answer(context.Background(), []byte(answerSDP)); err != nil {
			failed <- err
		}
	}, func(o *sip.Options) { o.T1 = 4 * testT1 }) // patience on a busy machine
	before := runtime.NumGoroutine()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	p := newPhone(t, func(o *siptest.PhoneOptions) { o.T1 = 20 * testT1 })
	one := func(o siptest.CallOptions) error {
		o.URI = uri(u, "udp")
		k, err := p.Call(ctx, o)
		if err != nil {
			return err
		}
		return k.Hangup(ctx)
	}
	for i := range 200 {
		if err := one(siptest.CallOptions{}); err != nil {
			t.Fatalf("call %d: %v", i, err)
		}
		receive(t, "dialog", c.c)
	}
	errs := make(chan error, 50)
	for range 50 {
		go func() { errs <- one(siptest.CallOptions{}) }()
	}
	for range 50 {
		if err := <-errs; err != nil {
			t.Error(err)
		}
		receive(t, "dialog", c.c)
	}
	for len(failed) > 0 {
		t.Error(<-failed)
	}
	await(t, "nothing left", func() bool {
		s := u.Stats()
		return s.Dialogs+s.ServerTransactions+s.ClientTransactions == 0 && runtime.NumGoroutine() <= before+2 // the phone's reader
	})
}

// Who has a tel: URI is known by its number, and called by it within the dialog.
func TestTelephoneParties(t *testing.T) {
	t.Parallel()
	c := newCalls()
	u := newUA(t, c.on)
	p := newPeer(t, u, "udp")
	const from, to = "tel:+49-170-1234578;phone-context=carrier.example", "tel:8001;phone-context=+49"
	p.send(p.request("INVITE", 1, offerSDP, `From: "Alice" <`+from+">;tag=alice", "To: <"+to+">"))
	k := receive(t, "call", c.c)
	if f := k.From(); f != (sip.Party{Display: "Alice", User: "+49-170-1234578", URI: from}) || k.Identity().Party != f {
		t.Errorf("from %+v, identity %+v", f, k.Identity())
	}
	if got := k.To(); got.User != "8001" {
		t.Errorf("to %+v", got)
	}
	done := k.answer()
	ok := p.response(200)
	p.ack(ok, 1, "From: "+ok.From().Value())
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	go func() { _ = k.Bye(context.Background(), sip.Reason{}) }()
	bye := p.awaitRequest(gosip.BYE)
	if bye.To().Value() != ok.From().Value() || bye.From().Value() != ok.To().Value() {
		t.Errorf("BYE from %s to %s", bye.From().Value(), bye.To().Value())
	}
	p.reply(bye, 200, "")
	ended(t, k)
}
