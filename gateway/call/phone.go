package call

import (
	"errors"
	"time"

	"brewline/gateway/phone"
	"brewline/media"
	"brewline/media/transport"
	"brewline/sip"
)

// promptRepeat is the pause between two sayings of a prompt that waits.
const promptRepeat = 20 * time.Second

// promptNone is no prompt.
const promptNone media.Prompt = 0

func phoneEnd(err error) End {
	switch {
	case errors.Is(err, sip.ErrNoCodec):
		return EndNoCodec
	case errors.Is(err, sip.ErrSRTP):
		return EndSRTP
	case errors.Is(err, transport.ErrNoPorts):
		return EndNoPorts
	case errors.Is(err, phone.ErrOffer):
		return EndBadOffer
	case errors.Is(err, sip.ErrNoACK):
		return EndPhoneLost
	}
	return EndInternal
}

// ring tells the caller that the room was found.
func (c *Call) ring() {
	if c.out != nil || c.ringing || c.answer != unanswered {
		return
	}
	c.ringing = true
	var err error
	if c.o.EarlyPrompts {
		c.early, err = c.side.leg.Early()
	} else {
		err = c.side.leg.Ring()
	}
	if err != nil {
		c.log.Debug("no provisional response sent", "err", err)
	}
	c.refresh()
}

// accept answers the phone.
func (c *Call) accept() {
	if c.answer != unanswered {
		return
	}
	c.answer = answering
	c.aloneAnswer.Stop()
	c.bridge.StopPrompt() // of those before the answer
	c.prompt = promptNone
	leg := c.side.leg
	c.wg.Go(func() { c.box.post(answeredEvent{leg.Answer(c.ctx)}) })
}

func (c *Call) wasAnswered(err error) {
	if errors.Is(err, sip.ErrEnded) {
		return // the dialog tells its handler how
	}
	if err != nil {
		c.box.end(ending{end: phoneEnd(err), detail: err, phoneGone: errors.Is(err, sip.ErrNoACK)})
		return
	}
	c.answer, c.answered = isAnswered, time.Now()
	c.log.Info("answered", "codec", c.side.leg.Codec(), "took", time.Since(c.started).Round(time.Millisecond))
	if c.cur != nil {
		c.cur.conf.SetStatus("Connected")
	}
	if c.t.PhoneSilence > 0 {
		c.watch.Reset(c.t.PhoneSilence / 8)
	}
	c.watchAlone()
	if c.muted { // since the meeting starts muted
		c.announce(media.PromptMuted)
	}
	c.refresh()
	kept := c.kept
	c.kept = nil
	for _, e := range kept {
		c.handle(e)
	}
}

// refresh plays the prompt that fits the call's state, and publishes the state.
func (c *Call) refresh() {
	want, state := promptNone, "connecting"
	switch {
	case c.cur == nil:
		want, state = media.PromptConnecting, "locating"
	case c.waiting == conferenceLobby:
		want, state = media.PromptLobby, "lobby"
	case c.waiting == conferenceHost:
		want, state = media.PromptWaitingHost, "waiting for the host"
	case c.cur.joined && c.cur.occ.Others == 0:
		want, state = media.PromptAlone, "alone"
	case c.cur.media && c.answer == isAnswered:
		state = "connected"
	}
	c.publish(state)
	repeat := promptRepeat
	switch {
	case c.answer == unanswered && c.early:
		if want != media.PromptWaitingHost {
			want, repeat = media.PromptRinging, media.RingingPause
		}
	case c.answer != isAnswered:
		return
	}
	if want == c.prompt || c.announcing != promptNone {
		return
	}
	c.prompt = want
	if want == promptNone {
		c.bridge.StopPrompt()
		return
	}
	c.play(want, repeat)
}

func (c *Call) play(p media.Prompt, repeat time.Duration) {
	c.prompt = p
	c.bridge.Play(p, media.PlayOptions{Repeat: repeat, Done: func() { c.box.post(promptEvent{p}) }})
}

// announce says something once, after which the state's prompt goes on.
func (c *Call) announce(p media.Prompt) {
	c.announcing = p
	c.play(p, 0)
}

// promptOver follows the end of a prompt.
func (c *Call) promptOver(p media.Prompt) {
	if p == c.announcing {
		c.announcing, c.prompt = promptNone, promptNone
		c.refresh()
	}
}

// farewellHeard says whether the last prompt was heard to its end.
func (c *Call) farewellHeard(events []any) bool {
	for _, e := range events {
		if p, ok := e.(promptEvent); ok && p.prompt == c.finish.end.Outcome().Prompt {
			return true
		}
	}
	return false
}

// digit follows the keypad: *6 asks to be unmuted, or mutes.
func (c *Call) digit(d byte) {
	star := c.star
	c.star = d == '*'
	if star && d == '6' && c.cur != nil && c.cur.joined {
		c.cur.conf.SetMuted(!c.muted)
	}
}

// key has the phone told of a digit that a participant sent.
func (c *Call) key(d media.Digit) {
	if c.side.leg == nil || c.answer != isAnswered {
		return
	}
	if err := c.side.leg.SendDigit(d); err != nil {
		c.log.Info("digit of the meeting not sent", "why", err)
	}
}

func (c *Call) setMuted(muted bool) {
	changed := c.muted != muted
	c.muted = muted
	c.bridge.SetMuted(muted)
	if c.answer != isAnswered {
		return
	}
	p := media.PromptUnmuted
	if muted {
		p = media.PromptMuted
	}
	if changed || muted {
		c.announce(p)
	}
}
