package call

import (
	"context"
	"errors"
	"time"

	"brewline/gateway/phone"
	"brewline/sip"
)

// transferLinger is how long a phone that was transferred may take to hang up
// after it has heard of the success.
const transferLinger = 2 * time.Second

// transfer is the replacement of the call's phone by another one, while the
// conference leg stays.
type transfer struct {
	refer   *sip.Refer // nil: the other phone calls us with Replaces
	targets []Target
	target  int
	release func()
	name    string // for the conference, "": the same
	ringing bool
	pickup  bool // the phone that is replaced rings still
	side    *side
}

type (
	allowedEvent struct {
		t       *transfer
		targets []Target
		release func()
		err     error
	}
	transferProgress struct {
		t    *transfer
		code int
	}
	transferredEvent struct {
		t   *transfer
		leg *phone.Leg
		err error
	}
)

// referred begins a transfer that the phone asks for (RFC 3515): blind, or
// attended if the reference names a dialog to replace (RFC 5589).
func (c *Call) referred(e referEvent) {
	if c.o.Transfer == nil || c.transfer != nil || c.answer != isAnswered || e.side != c.side {
		e.refer.Reject(603)
		return
	}
	t := &transfer{refer: e.refer}
	c.transfer = t
	shard := c.lastShard
	c.wg.Go(func() {
		targets, release, err := c.o.Transfer(shard, e.refer)
		c.box.post(allowedEvent{t, targets, release, err})
	})
}

func (c *Call) transferAllowed(e allowedEvent) {
	if e.err != nil {
		c.log.Warn("transfer refused", "why", e.err)
		c.transfer = nil
		e.t.refer.Reject(603)
		return
	}
	e.t.targets, e.t.release = e.targets, e.release
	c.side.spare.Store(true)
	if err := e.t.refer.Accept(); err != nil {
		c.notTransferred(e.t, err)
		return
	}
	c.dialTransfer(e.t)
}

// dialTransfer calls the other phone over the next trunk that may have another
// call.
func (c *Call) dialTransfer(t *transfer) {
	s := c.newSide()
	if t.side != nil {
		s.place = t.side.place
	}
	t.side = s
	if t.target = c.carry(s, t.targets, t.target); t.target == len(t.targets) {
		c.notTransferred(t, errTrunkLimit)
		return
	}
	target := t.targets[t.target]
	o := target.Dial
	t.name = target.Name
	o.Audio, o.Logger, o.EarlyMedia = s.audio, c.log, false
	o.Replaces, o.By = t.refer.Replaces, t.refer.By
	o.Handler = c.handler(s)
	o.Reoffer = func(l *phone.Leg, r *sip.Reoffer) { c.box.post(reofferEvent{s, l, r}) }
	o.Progress = func(code int) { c.box.post(transferProgress{t, code}) }
	c.log.Info("transferring", "over", target.Trunk, "attended", o.Replaces != "")
	c.wg.Go(func() {
		leg, err := phone.Dial(c.ctx, o)
		c.box.post(transferredEvent{t, leg, err})
	})
}

func (c *Call) transferProgress(e transferProgress) {
	if e.t == c.transfer {
		e.t.ringing = e.t.ringing || e.code == 180 || e.code == 183
		e.t.refer.Notify(e.code, "")
	}
}

// replaced takes another phone's call in the place of ours (RFC 3891).
func (c *Call) replaced(e replacedEvent) {
	ringing := c.out != nil && c.answer == answering
	if c.transfer != nil || e.side != c.side || !ringing && c.answer != isAnswered {
		e.by.Reject(603, sip.Reason{Cause: 21, Text: "The call cannot be replaced now"})
		return
	}
	t := &transfer{pickup: ringing, side: c.newSide()}
	t.side.trunk = c.side.trunk // which is the same
	if c.o.NameOf != nil {
		t.name = c.o.NameOf(e.by)
	}
	po := c.o.Phone
	if c.out != nil {
		po = c.out.Targets[c.out.target].Dial.Options
	}
	po.Audio, po.Logger = t.side.audio, c.log
	leg, err := phone.Accept(e.by, po)
	if err != nil {
		o := phoneEnd(err).Outcome()
		e.by.Reject(o.Code, phoneEnd(err).reason(err))
		return
	}
	c.transfer = t
	t.side.dialog, t.side.leg = e.by, leg
	c.side.spare.Store(true)
	e.by.On(c.handler(t.side))
	c.log.Info("being replaced", "from", c.o.Mask(e.by.From().User))
	if ringing {
		c.out.dialing(&sip.CancelCause{Reason: elsewhere})
	}
	c.wg.Go(func() { c.box.post(transferredEvent{t, leg, leg.Answer(c.ctx)}) })
}

// elsewhere is what a phone hears that another one has taken the call of.
var elsewhere = sip.Reason{Protocol: "SIP", Cause: 200, Text: "Call completed elsewhere"}

// transferred follows the end of an attempt to put another phone in.
func (c *Call) transferred(e transferredEvent) {
	t := e.t
	if e.err == nil {
		c.takeOver(t, e.leg)
		return
	}
	if e.leg != nil { // one that called us
		e.leg.Close()
		c.notTransferred(t, e.err)
		return
	}
	c.log.Warn("not reached", "over", t.targets[t.target].Trunk, "err", e.err)
	if !t.ringing && unreachable(e.err) && t.target+1 < len(t.targets) {
		t.target++
		c.dialTransfer(t)
		return
	}
	c.notTransferred(t, e.err)
}

// notTransferred goes on with the phone as it was, if that is still there.
func (c *Call) notTransferred(t *transfer, err error) {
	code, text := 503, ""
	var s *sip.StatusError
	if errors.As(err, &s) {
		code, text = s.Code, s.Phrase
	}
	if t.refer != nil {
		t.refer.Notify(code, text)
	}
	t.drop()
	c.transfer = nil
	c.log.Warn("not transferred", "err", err)
	switch {
	case t.pickup:
		c.notReached(err)
	case c.side.gone:
		c.box.end(ending{end: EndCallerHungUp, detail: err, phoneGone: true})
	default:
		c.side.spare.Store(false)
	}
}

// errTrunkLimit says that no trunk could take the call to the other phone.
var errTrunkLimit = &sip.StatusError{Code: 480, Phrase: EndTrunkLimit.Outcome().Text}

// drop gives back the places, under the dial rule and on the trunk, of a
// transfer that failed.
func (t *transfer) drop() {
	if t.release != nil {
		t.release()
	}
	if t.side != nil {
		t.side.leave()
	}
}

// takeOver puts another phone in the place of the one before.
func (c *Call) takeOver(t *transfer, leg *phone.Leg) {
	old, next := c.side, t.side
	c.transfer = nil
	next.leg, next.dialog = leg, leg.Dialog()
	if t.release != nil {
		c.releases = append(c.releases, t.release)
	}
	if next.free == nil { // on the same trunk
		next.free, old.free = old.free, nil
	}
	err := next.audio.promote()
	c.side = next
	next.spare.Store(false)
	if old.leg != nil {
		old.leg.Close()
	}
	c.log.Info("phone replaced", "codec", leg.Codec())
	if t.refer != nil {
		t.refer.Notify(200, "")
	}
	if old.dialog != nil && !old.gone {
		place := old.place
		c.wg.Go(func() {
			c.letGo(old.dialog, t.refer)
			place.leave()
		})
	} else {
		old.leave()
	}
	if t.name != "" {
		c.rename(t.name)
	}
	switch {
	case err != nil:
		c.box.end(ending{end: phoneEnd(err), detail: err})
	case next.gone:
		c.box.end(ending{end: EndCallerHungUp, phoneGone: true})
	case c.answer != isAnswered:
		c.wasAnswered(nil)
	default:
		c.refresh()
	}
}

// rename has the conference see another name.
func (c *Call) rename(name string) {
	c.o.DisplayName = name
	for _, l := range c.legs {
		l.conf.SetName(name)
	}
}

// letGo ends the dialog of a phone that was replaced; one that asked for it
// may hang up by itself when it has heard of the success (RFC 5589 §6.1).
func (c *Call) letGo(d *sip.Dialog, refer *sip.Refer) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(c.ctx), c.t.Bye)
	defer cancel()
	if refer != nil {
		linger := time.NewTimer(transferLinger)
		defer linger.Stop()
		select {
		case <-refer.Done():
		case <-d.Done():
		case <-linger.C:
		case <-c.ctx.Done():
		}
	}
	d.Bye(ctx, elsewhere)
}

// sideGone follows the end of a phone that the call does not end with.
func (c *Call) sideGone(s *side) {
	s.gone = true
	if s == c.side && c.transfer == nil {
		c.box.end(ending{end: EndCallerHungUp, phoneGone: true})
	}
}
