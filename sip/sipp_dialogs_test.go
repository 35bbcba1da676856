package sip_test

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"brewline/sip"
)

// sippCall is one call that sipp makes, or gets.
type sippCall struct {
	*testing.T
	ctx   context.Context
	calls *calls
	u     *sip.UA
	uri   string // of sipp
	told  []int  // provisional responses
}

// incoming is the call that sipp makes.
func (s *sippCall) incoming() *call {
	s.Helper()
	return receive(s.T, "call", s.calls.c)
}

// answered answers the call that sipp makes.
func (s *sippCall) answered() *call {
	s.Helper()
	k := s.incoming()
	s.ok(receive(s.T, "ACK", k.answer()))
	return k
}

// invite calls sipp.
func (s *sippCall) invite(ctx context.Context, ringing func()) (*call, string, error) {
	k := newCall()
	d, sdp, err := s.u.Invite(ctx, sip.InviteOptions{
		URI: s.uri, From: sip.Party{User: "conference"}, SDP: []byte(offerSDP), Handler: k.handler(),
		Progress: func(code int, _ string, _ []byte) {
			s.told = append(s.told, code)
			ringing()
		},
	})
	k.Dialog = d
	return k, string(sdp), err
}

// called calls sipp, which answers.
func (s *sippCall) called() *call {
	s.Helper()
	k, sdp, err := s.invite(s.ctx, func() {})
	s.ok(err)
	s.audio([]byte(sdp), nil)
	return k
}

func (s *sippCall) ok(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

// audio fails the test unless sdp is sipp's description.
func (s *sippCall) audio(sdp []byte, err error) {
	s.Helper()
	if err != nil || !strings.Contains(string(sdp), "o=sipp ") {
		s.Fatalf("description %q, %v", sdp, err)
	}
}

// hungUp awaits the BYE of sipp.
func (s *sippCall) hungUp(k *call) {
	s.Helper()
	if r := receive(s.T, "BYE", k.bye); r != (sip.Reason{Protocol: "Q.850", Cause: 16, Text: "hung up"}) {
		s.Errorf("BYE for %+v", r)
	}
	if len(k.cancelled) != 0 {
		s.Error("cancelled as well")
	}
}

func (s *sippCall) hangUp(k *call) {
	s.Helper()
	s.ok(k.Bye(s.ctx, sip.Reason{Cause: 16, Text: "over"}))
}

// reoffered answers the offer that sipp makes by UPDATE.
func (s *sippCall) reoffered(k *call) {
	s.Helper()
	r := receive(s.T, "offer", k.reoffer)
	s.audio(r.SDP, nil)
	s.ok(r.Answer([]byte(answerSDP)))
}

// reinvited answers a re-INVITE and returns the description of its ACK.
func (s *sippCall) reinvited(k *call, offered bool) []byte {
	s.Helper()
	r, ack := receive(s.T, "re-INVITE", k.reoffer), make(chan []byte, 1)
	r.ACK = func(sdp []byte) { ack <- sdp }
	if offered != (r.SDP != nil) {
		s.Errorf("offer %q", r.SDP)
	}
	s.ok(r.Answer([]byte(answerSDP)))
	return receive(s.T, "ACK", ack)
}

func (s *sippCall) lost(k *call, want error) {
	s.Helper()
	if err := receive(s.T, "the loss", k.lost); !errors.Is(err, want) {
		s.Errorf("lost for %v, want %v", err, want)
	}
}

var dialogScenarios = []struct {
	scenario string // uas_: sipp is called
	networks string
	policy   sip.Policy
	t1       time.Duration // default 1 s
	play     func(*sippCall)
}{
	{scenario: "no-ack", networks: "udp", t1: 20 * time.Millisecond, play: func(s *sippCall) {
		k := s.incoming()
		if err := receive(s.T, "no ACK", k.answer()); !errors.Is(err, sip.ErrNoACK) {
			s.Errorf("answered: %v", err)
		}
		s.lost(k, sip.ErrNoACK)
	}},
	{scenario: "ack-late", t1: 200 * time.Millisecond, play: func(s *sippCall) { s.hungUp(s.answered()) }},
	{scenario: "cancel", play: func(s *sippCall) {
		k := s.incoming()
		s.ok(k.Ringing())
		if r := receive(s.T, "CANCEL", k.reason); r != (sip.Reason{Protocol: "SIP", Cause: 200, Text: "Call completed elsewhere"}) {
			s.Errorf("CANCEL for %+v", r)
		}
	}},
	{scenario: "cancel-crossed", play: func(s *sippCall) { s.hungUp(s.answered()) }},
	{scenario: "early", play: func(s *sippCall) {
		k := s.incoming()
		s.ok(k.Progress(183, []byte(answerSDP)))
		s.ok(receive(s.T, "ACK", k.answer()))
		s.hungUp(k)
	}},
	{scenario: "target-refresh", play: func(s *sippCall) {
		k := s.answered()
		s.reinvited(k, true)
		s.ok(k.Info(s.ctx, "x/y", nil))
		s.reoffered(k)
		s.hangUp(k)
	}},
	{scenario: "target-refreshed", play: func(s *sippCall) {
		k := s.answered()
		s.audio(k.Reinvite(s.ctx, []byte(offerSDP)))
		s.audio(k.Update(s.ctx, []byte(offerSDP)))
		s.hangUp(k)
	}},
	{scenario: "uas_target-refresh", play: func(s *sippCall) {
		k := s.called()
		s.reinvited(k, true)
		s.audio(k.Update(s.ctx, []byte(offerSDP)))
		s.reoffered(k)
		s.audio(k.Reinvite(s.ctx, []byte(offerSDP)))
		s.hangUp(k)
	}},
	{scenario: "late-reoffer", play: func(s *sippCall) {
		k := s.answered()
		s.audio(s.reinvited(k, false), nil)
		s.hangUp(k)
	}},
	// Only where nothing is repeated: sipp takes the repetition of a request for
	// another one when a message came in between.
	{scenario: "glare", networks: "tcp", t1: 200 * time.Millisecond, play: func(s *sippCall) { s.glare(s.answered()) }},
	{scenario: "uas_glare", networks: "tcp", t1: 200 * time.Millisecond, play: func(s *sippCall) { s.glare(s.called()) }},
	{scenario: "timer-ours", networks: "udp", play: func(s *sippCall) { s.hungUp(s.answered()) }},
	{scenario: "timer-expired", networks: "udp", play: func(s *sippCall) { s.lost(s.answered(), sip.ErrExpired) }},
	{scenario: "uas_timer", networks: "udp", policy: sip.Policy{SessionTimer: time.Second}, play: func(s *sippCall) {
		refreshed := make(chan []byte, 9)
		k := s.called()
		h := k.handler()
		h.Refreshed = func(_, answer []byte) { refreshed <- answer }
		k.On(h)
		s.audio(receive(s.T, "refresh", refreshed), nil)
		s.hangUp(k)
	}},
	{scenario: "uas_timer-expired", networks: "udp", play: func(s *sippCall) { s.lost(s.called(), sip.ErrExpired) }},
	{scenario: "reliable", policy: sip.Policy{Reliable: sip.ReliableSupported}, play: func(s *sippCall) {
		k := s.incoming()
		s.ok(k.Ringing())
		s.ok(k.Progress(183, []byte(answerSDP)))
		receive(s.T, "INFO after the second PRACK", k.info)
		s.ok(receive(s.T, "ACK", k.answer()))
		s.hungUp(k)
	}},
	{scenario: "reliable-required", policy: sip.Policy{Reliable: sip.ReliableSupported}, play: func(s *sippCall) {
		k := s.incoming()
		if !k.OfferDue() {
			s.Error("no offer due")
		}
		s.ok(k.Progress(180, []byte(offerSDP)))
		s.audio(k.Answer(s.ctx, nil))
		s.hungUp(k)
	}},
	{scenario: "reliable-refused", play: func(*sippCall) {}},
	{scenario: "reliable-unconfirmed", networks: "udp", t1: 20 * time.Millisecond, policy: sip.Policy{Reliable: sip.ReliableSupported}, play: func(s *sippCall) {
		k := s.incoming()
		s.ok(k.Progress(183, []byte(answerSDP)))
		s.lost(k, sip.ErrNoPRACK)
	}},
	{scenario: "uas_reliable", policy: sip.Policy{Reliable: sip.ReliableSupported}, play: (*sippCall).reliable},
	{scenario: "uas_reliable", policy: sip.Policy{Reliable: sip.ReliableRequired}, play: (*sippCall).reliable},
	{scenario: "uas_reliable-refused", policy: sip.Policy{Reliable: sip.ReliableRequired}, play: func(s *sippCall) {
		var se *sip.StatusError
		if _, _, err := s.invite(s.ctx, func() {}); !errors.As(err, &se) || se.Code != 420 || se.Header("Unsupported") != "100rel" {
			s.Errorf("the call failed for %v", err)
		}
	}},
	{scenario: "uas_forked", play: func(s *sippCall) {
		k := s.called()
		if !slices.Equal(s.told, []int{180, 183, 180}) {
			s.Errorf("told %v", s.told)
		}
		receive(s.T, "INFO of the phone that answered", k.info)
		s.hangUp(k)
	}},
	{scenario: "uas_answered-again", play: func(s *sippCall) {
		k := s.called()
		receive(s.T, "INFO", k.info)
		s.hangUp(k)
	}},
	{scenario: "uas_cancel-crossed", play: func(s *sippCall) {
		ctx, cancel := context.WithCancelCause(s.ctx)
		_, _, err := s.invite(ctx, func() {
			cancel(&sip.CancelCause{Reason: sip.Reason{Protocol: "SIP", Cause: 200, Text: "Call completed elsewhere"}})
		})
		if !errors.Is(err, context.Canceled) {
			s.Errorf("the call failed for %v", err)
		}
	}},
	{scenario: "transfer-refused", play: func(s *sippCall) { s.hungUp(s.answered()) }},
}

// glare makes offers that cross those of sipp.
func (s *sippCall) glare(k *call) {
	s.audio(k.Reinvite(s.ctx, []byte(offerSDP)))
	s.audio(k.Update(s.ctx, []byte(offerSDP)))
	if len(k.reoffer) != 0 {
		s.Error("the owner was told of an offer that got 491")
	}
	s.hangUp(k)
}

// reliable is called(), with reliable responses before.
func (s *sippCall) reliable() {
	k := s.called()
	if !slices.Equal(s.told, []int{180, 183}) {
		s.Errorf("told %v", s.told)
	}
	s.hangUp(k)
}

// TestSIPpDialogs plays the scenarios that are about one dialog, from both
// sides: sipp checks what goes over the wire, the test what the owner sees.
func TestSIPpDialogs(t *testing.T) {
	for _, tt := range dialogScenarios {
		for _, network := range strings.Fields(cmp.Or(tt.networks, "udp tcp")) {
			t.Run(tt.scenario+" "+network, func(t *testing.T) {
				t.Parallel()
				c := newCalls()
				// sipp takes a repetition for something unexpected where another
				// message came in between.
				t1 := cmp.Or(tt.t1, time.Second)
				u := newUA(t, c.on, withPolicy(tt.policy), func(o *sip.Options) {
					o.T1, o.T2, o.MinSE = t1, 4*t1, time.Second
				})
				ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
				defer cancel()
				port, to := freePort(t), u.Addrs()[0].String()
				if network == "tcp" {
					to = u.Addrs()[1].String()
				}
				if strings.HasPrefix(tt.scenario, "uas_") {
					to = ""
				}
				more := []string{"-m", "1", "-s", "phoneMeet"}
				if tt.scenario == "ack-late" || tt.scenario == "uas_answered-again" {
					more = append(more, "-nr") // else sipp passes over what comes twice
				}
				wait := startSIPp(t, tt.scenario, network, port, to, more...)
				t.Cleanup(func() {
					if t.Failed() {
						t.Log(wait())
					}
				})
				tt.play(&sippCall{T: t, ctx: ctx, calls: c, u: u, uri: "sip:030123@127.0.0.1:" + port + ";transport=" + network})
				if err := wait(); err != nil {
					t.Error(err)
				}
				await(t, "no dialog is left", func() bool { return u.Stats().Dialogs == 0 })
				if len(c.c) != 0 {
					t.Error("one call too many")
				}
			})
		}
	}
}
