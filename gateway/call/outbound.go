package call

import (
	"context"
	"errors"
	"time"

	"brewline/brewery"
	"brewline/gateway/conference"
	"brewline/gateway/phone"
	"brewline/media/transport"
	"brewline/sip"
	"brewline/xmpp"
)

// DialRequest is what asked for the call; brewery.DialRequest implements it.
// Ref or Refuse takes effect once.
type DialRequest interface {
	Deadline() time.Time // of the answer
	Ref(occupant xmpp.JID) error
	Refuse(condition, text string) error
}

// Target is one way to reach the callee, tried in order.
type Target struct {
	Trunk string
	Name  string            // what the conference sees of the callee
	Dial  phone.DialOptions // Audio, Handler, Progress and Logger are the call's
}

// Outbound makes a call one that goes out of a conference.
type Outbound struct {
	Request DialRequest
	Shard   *brewery.Shard
	Room    xmpp.JID // as the request names it
	To      string   // normalised number, shown to the conference
	Headers []xmpp.Header
	Targets []Target
	// Redirect finds the way to where a 301 or 302 sends the call, by the URI of
	// its Contact. It may block; one is under way at a time.
	Redirect func(contact string) ([]Target, error)
	// Refused says why the number must not be dialled: the conference is told,
	// the phone never rings, and no other gateway is to be asked.
	Refused error
}

// outbound is the state of a call that goes out.
type outbound struct {
	Outbound
	reffed  bool
	target  int
	ringing bool // a 18x came: no other trunk is tried
	dialing context.CancelCauseFunc
	failed  string // status word of a call that failed

	scattered bool // the conference was lost, and no human has come back yet
}

type (
	dialedEvent struct {
		leg *phone.Leg
		err error
	}
	progressEvent   struct{ code int }
	redirectedEvent struct {
		targets []Target
		err     error // why it is not followed
		answer  error // what the callee said
	}
)

// goOut begins a call that goes out: the conference leg joins the room on the
// shard that asked, never by search.
func (c *Call) goOut() {
	c.log.Info("asked to dial", "to", c.o.Mask(c.out.To), "shard", c.out.Shard.Name())
	sh := c.out.Shard
	c.invited.Reset(time.Until(c.out.Request.Deadline()))
	c.located(locatedEvent{loc: brewery.Location{Shard: sh, How: brewery.HowTold, URL: sh.Config().URL}})
}

// outEvent follows the conference leg of a call that goes out.
func (c *Call) outEvent(l *leg, e conference.Event) {
	switch e := e.(type) {
	case conference.Waiting:
		if e.For == conference.WaitLobby {
			c.ref(e.Nick) // and no more than the lobby's own limit counts
		}
	case conference.Joined:
		c.ref(e.Nick)
		if c.out.dialing == nil && c.answer == unanswered {
			c.invited.Reset(c.t.Invited)
		}
	case conference.Invited:
		c.invited.Stop()
		if c.out.Refused == nil && c.out.dialing == nil && c.answer == unanswered {
			c.dial()
		}
	}
}

// ref tells Jicofo that the call was taken: from here on no other gateway may
// be asked, since the phone may ring.
func (c *Call) ref(nick string) {
	if c.out.reffed {
		return
	}
	c.out.reffed = true
	c.invited.Stop()
	if err := c.out.Request.Ref(c.out.Room.WithResource(nick)); err != nil {
		// Too late: Jicofo has asked another gateway.
		c.box.end(ending{end: EndDialLate, detail: err})
		return
	}
	if c.out.Refused != nil {
		c.box.end(ending{end: EndNumberRefused, detail: c.out.Refused})
	}
}

// overdue ends a call that did not get into the room while Jicofo waited, or
// whom it did not invite there.
func (c *Call) overdue() {
	if !c.out.reffed {
		c.box.end(ending{end: EndDialLate})
		return
	}
	c.box.end(ending{end: EndNeverInvited})
}

// dial calls the phone over the next trunk that may have another call.
func (c *Call) dial() {
	i := c.carry(c.side, c.out.Targets, c.out.target)
	if i == len(c.out.Targets) {
		c.out.failed = "Disconnected"
		c.box.end(ending{end: EndTrunkLimit, phoneGone: true})
		return
	}
	c.out.target = i
	t := c.out.Targets[i]
	ctx, cancel := context.WithCancelCause(c.ctx)
	c.out.dialing = cancel
	o := t.Dial
	s := c.side
	o.Audio, o.Logger = s.audio, c.log
	o.Handler = c.handler(s)
	o.Reoffer = func(l *phone.Leg, r *sip.Reoffer) { c.box.post(reofferEvent{s, l, r}) }
	o.Progress = func(code int) { c.box.post(progressEvent{code}) }
	c.log.Info("dialling", "to", c.o.Mask(c.out.To), "over", t.Trunk)
	c.cur.conf.SetStatus("Calling")
	c.answer = answering
	c.wg.Go(func() {
		leg, err := phone.Dial(ctx, o)
		c.box.post(dialedEvent{leg, err})
	})
	c.refresh()
}

func (c *Call) progress(code int) {
	if code == 180 || code == 183 {
		if !c.out.ringing && c.cur != nil {
			c.log.Info("ringing", "code", code)
			c.cur.conf.SetStatus("Ringing")
		}
		c.out.ringing = true
	}
}

// dialed follows the end of an attempt to reach the phone.
func (c *Call) dialed(e dialedEvent) {
	c.out.dialing(nil)
	if c.transfer != nil || c.answer == isAnswered { // another phone took the call
		if e.leg != nil {
			c.wg.Go(func() {
				c.letGo(e.leg.Dialog(), nil)
				e.leg.Close()
			})
		}
		return
	}
	if e.err == nil {
		c.side.leg, c.side.dialog = e.leg, e.leg.Dialog()
		c.wasAnswered(nil)
		return
	}
	c.answer = unanswered
	c.decline(c.kept)
	c.kept = nil
	trunk := c.out.Targets[c.out.target].Trunk
	c.log.Warn("not reached", "over", trunk, "err", e.err)
	if !c.out.ringing && unreachable(e.err) && c.out.target+1 < len(c.out.Targets) && c.cur != nil {
		c.out.target++
		c.dial()
		return
	}
	if contact := redirection(e.err); contact != "" && c.out.Redirect != nil {
		c.wg.Go(func() {
			targets, err := c.out.Redirect(contact)
			c.box.post(redirectedEvent{targets, err, e.err})
		})
		return
	}
	c.notReached(e.err)
}

func (c *Call) notReached(err error) {
	var end End
	end, c.out.failed = calleeEnd(err)
	c.box.end(ending{end: end, detail: err, phoneGone: true})
}

// redirection is where the callee's side sends the call instead, "" if nowhere
// (RFC 3261 §21.3).
func redirection(err error) string {
	var s *sip.StatusError
	if errors.As(err, &s) && (s.Code == 301 || s.Code == 302) {
		return s.Contact
	}
	return ""
}

// redirected goes on where the callee's side sends the call.
func (c *Call) redirected(e redirectedEvent) {
	if e.err != nil || c.cur == nil {
		c.log.Warn("redirection not followed", "why", e.err)
		c.notReached(e.answer)
		return
	}
	c.log.Info("redirected")
	c.out.Targets, c.out.target, c.out.ringing = e.targets, 0, false
	c.dial()
}

// unreachable says whether another trunk may do better: not if the callee
// itself said no.
func unreachable(err error) bool {
	var s *sip.StatusError
	if errors.As(err, &s) {
		return s.Code == 408 || s.Code >= 500 && s.Code < 600
	}
	return errors.Is(err, sip.ErrUnreachable)
}

// calleeEnd is the end and the word that web clients show for a refusal.
func calleeEnd(err error) (End, string) {
	var s *sip.StatusError
	switch {
	case errors.Is(err, transport.ErrNoPorts):
		return EndNoPorts, "Disconnected"
	case !errors.As(err, &s):
		return EndCalleeFailed, "Disconnected"
	}
	switch s.Code {
	case 486, 600:
		return EndCalleeBusy, "Busy"
	case 403, 603, 607, 608:
		return EndCalleeRejected, "Rejected"
	case 408, 480, 487:
		return EndCalleeNoAnswer, "Ignored"
	}
	return EndCalleeFailed, "Rejected"
}

// watchHumans ends a call out of a conference when the last human has left.
// After the death of a shard web clients take their time to come back.
func (c *Call) watchHumans() {
	if c.out == nil || c.cur == nil || !c.cur.joined {
		return
	}
	if c.cur.occ.Humans > 0 {
		c.empty.Stop()
		c.emptyArmed, c.out.scattered = false, false
	} else if !c.emptyArmed {
		c.emptyArmed = true
		wait := c.t.Empty
		if c.out.scattered {
			wait = max(wait, c.t.Rejoin)
		}
		c.empty.Reset(wait)
	}
}

// outEnd says the last word of a call that goes out: to Jicofo while it still
// waits for an answer, else to the conference by a status that stays a while.
func (c *Call) outEnd(e ending) (stay time.Duration) {
	if c.out.dialing != nil {
		c.out.dialing(&sip.CancelCause{Reason: e.end.reason(nil)}) // CANCEL
	}
	if !c.out.reffed {
		c.out.reffed = true
		c.out.Request.Refuse(refusal(e.end), e.end.reason(e.detail).Text)
		return 0
	}
	if e.end == EndDialLate || c.cur == nil || !c.cur.joined {
		return 0
	}
	word := c.out.failed
	switch {
	case e.end == EndNumberRefused:
		word = "Rejected"
	case e.end == EndNeverInvited || e.end == EndNoMedia:
		word = "Disconnected"
	}
	if word == "" {
		return 0
	}
	c.cur.conf.SetStatus(word)
	return c.t.StatusStays
}

// refusal is the error condition for Jicofo, which then asks another gateway.
func refusal(e End) string {
	switch e {
	case EndPassword, EndLobbyDenied, EndNotAllowed, EndLoginRefused:
		return "forbidden"
	case EndBusy, EndDraining, EndRoomFull, EndNoPorts:
		return "resource-constraint"
	}
	return "internal-server-error"
}

// dropLateAnswer hangs up on a callee whose answer crossed the end of the call.
func (c *Call) dropLateAnswer() {
	events, _ := c.box.take()
	c.decline(events)
	for _, leg := range c.late {
		if leg == nil {
			continue
		}
		ctx, cancel := context.WithTimeout(context.WithoutCancel(c.ctx), c.t.Bye)
		if err := leg.Dialog().Bye(ctx, c.finish.end.reason(nil)); errors.Is(err, sip.ErrState) {
			leg.Dialog().Reject(480, c.finish.end.reason(nil))
		}
		cancel()
		leg.Close()
	}
}
