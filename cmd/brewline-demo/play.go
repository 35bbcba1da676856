package main

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"brewline/internal/siptest"
	"brewline/internal/tone"
)

// play is the call.
func (s *stage) play(ctx context.Context) error {
	fmt.Println()
	s.say("the phone calls, with X-Room-Name: %s", header)
	attempt, err := s.phone.Start(ctx, siptest.CallOptions{
		URI:     "sip:conference@" + s.gateway.sip,
		Headers: map[string]string{"X-Room-Name": header},
		Tone:    callerTone,
	})
	if err != nil {
		return err
	}
	for _, step := range []struct {
		msg  string
		tell func(entry) string
	}{
		{"call received", func(e entry) string { return "call received for the room " + e.str("room") }},
		{"room located", func(e entry) string {
			return fmt.Sprintf("asked %s shards, found on %s (%s)", e.str("asked"), e.str("shard"), e.ms("took"))
		}},
		{"logged in", func(e entry) string { return "logged in at " + e.str("shard") + " (" + e.ms("took") + ")" }},
		{"joined", func(e entry) string { return "joined the room as " + e.str("nick") + " (" + e.ms("took") + ")" }},
		{"invited by Jicofo", func(e entry) string { return "invited by Jicofo (" + e.ms("took") + ")" }},
		{"media connected", func(e entry) string {
			return "ICE and DTLS connected, " + e.str("profile") + " (" + e.ms("took") + ")"
		}},
		{"answered", func(e entry) string {
			return "answered, " + e.str("codec") + " (" + e.ms("took") + " after the INVITE)"
		}},
	} {
		e, err := s.gateway.await(ctx, step.msg)
		if err != nil {
			if _, answer := attempt.Wait(ctx); answer != nil {
				err = fmt.Errorf("%w; the phone was told: %w", err, answer)
			}
			return err
		}
		s.say("brewline: %s", step.tell(e))
		if step.msg == "room located" && e.str("shard") != s.home {
			return fmt.Errorf("the room lives on %s, but the gateway went to %s", s.home, e.str("shard"))
		}
	}
	call, err := attempt.Wait(ctx)
	if err != nil {
		return err
	}
	if err := call.Hear(ctx, aliceTone); err != nil {
		return fmt.Errorf("the phone does not hear the participant: %w", err)
	}
	s.say("audio heard by the phone: %d Hz", aliceTone)
	if err := s.alice.Hear(ctx, callerTone); err != nil {
		return fmt.Errorf("the participant does not hear the phone: %w", err)
	}
	s.say("audio heard by the participant: %d Hz", callerTone)
	if err := stretch(ctx); err != nil {
		return err
	}
	s.heard = append(s.heard,
		hearing{"the phone", "phone-heard.wav", call.Heard(), call.Rate(), aliceTone, otherTone},
		hearing{"the participant", "participant-heard.wav", s.alice.Heard(), 48000, callerTone, otherTone})
	if err := call.Hangup(ctx); err != nil {
		return fmt.Errorf("hang up: %w", err)
	}
	e, err := s.gateway.await(ctx, "call ended")
	if err != nil {
		return err
	}
	s.say("brewline: call ended: %s, talked %s", strings.ReplaceAll(e.str("end"), "_", " "), e.ms("talked"))
	return nil
}

// hearing is what somebody heard, and what they should have.
type hearing struct {
	who, file   string
	pcm         []int16
	rate        int
	want, never int // Hz
}

// callOut has a meeting dial a number.
func (s *stage) callOut(ctx context.Context) error {
	fmt.Println()
	sh := s.dep.Shards[len(s.dep.Shards)-1]
	const meeting = "planning"
	s.dep.Balancer.Stick("", meeting, sh.Name)
	host, err := s.join(ctx, meeting, hostTone)
	if err != nil {
		return err
	}
	defer host.Close()
	s.say("a host is in the room %q on %s, says %d Hz, and dials +49 30 654321", meeting, sh.Name, hostTone)
	room := meeting + "@" + sh.MUC()
	for {
		reply, err := host.Request(ctx, "set", room+"/focus", "<dial xmlns='urn:xmpp:rayo:1' from='fromnumber' to='+49 30 654321'>"+
			"<header xmlns='urn:xmpp:rayo:1' name='JvbRoomName' value='"+room+"'/></dial>")
		if err != nil {
			return fmt.Errorf("dial: %w", err)
		}
		if strings.Contains(reply, "<forbidden") && ctx.Err() == nil {
			continue // the host is made a moderator in a moment
		}
		if !strings.Contains(reply, "<ref") {
			return fmt.Errorf("the dial was refused: %s", reply)
		}
		break
	}
	for _, step := range []struct {
		msg  string
		tell func(entry) string
	}{
		{"asked to dial", func(e entry) string { return "asked to dial by the Jicofo of " + e.str("shard") }},
		{"joined", func(e entry) string { return "joined the room as " + e.str("nick") + " (" + e.ms("took") + ")" }},
		{"invited by Jicofo", func(e entry) string { return "invited by Jicofo (" + e.ms("took") + ")" }},
		{"dialling", func(e entry) string { return "dialling over the trunk " + e.str("over") }},
	} {
		e, err := s.gateway.await(ctx, step.msg)
		if err != nil {
			return err
		}
		s.say("brewline: %s", step.tell(e))
	}
	in, err := s.phone.Await(ctx)
	if err != nil {
		return err
	}
	s.say("the phone rings: %s was dialled", in.RequestUser)
	if err := in.Ring(ctx); err != nil {
		return err
	}
	call, err := in.Answer(ctx, siptest.AnswerOptions{Tone: calleeTone})
	if err != nil {
		return fmt.Errorf("answer: %w", err)
	}
	if err := call.Hear(ctx, hostTone); err != nil {
		return fmt.Errorf("the callee does not hear the host: %w", err)
	}
	s.say("audio heard by the callee: %d Hz", hostTone)
	if err := host.Hear(ctx, calleeTone); err != nil {
		return fmt.Errorf("the host does not hear the callee: %w", err)
	}
	s.say("audio heard by the host: %d Hz", calleeTone)
	if err := stretch(ctx); err != nil {
		return err
	}
	s.heard = append(s.heard,
		hearing{"the callee", "callee-heard.wav", call.Heard(), call.Rate(), hostTone, aliceTone},
		hearing{"the host", "host-heard.wav", host.Heard(), 48000, calleeTone, callerTone})
	if err := call.Hangup(ctx); err != nil {
		return fmt.Errorf("hang up: %w", err)
	}
	e, err := s.gateway.await(ctx, "call ended")
	if err != nil {
		return err
	}
	s.say("brewline: call ended: %s, talked %s", strings.ReplaceAll(e.str("end"), "_", " "), e.ms("talked"))
	return nil
}

// stretch lets a stretch of audio pass, to be judged.
func stretch(ctx context.Context) error {
	select {
	case <-time.After(2 * time.Second):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// judge listens to the last moments of what everybody heard.
func (s *stage) judge() error {
	fmt.Printf("\n%-16s %-48s %s\n", "who", "heard", "kept in")
	var wrong []string
	for _, h := range s.heard {
		path := filepath.Join(s.o.out, h.file)
		if err := tone.WriteWAV(path, h.rate, h.pcm); err != nil {
			return err
		}
		last := h.pcm[max(0, len(h.pcm)-3*h.rate/2):]
		share, stray, level := tone.Share(last, h.rate, h.want), tone.Share(last, h.rate, h.never), tone.RMS(last)
		fmt.Printf("%-16s %-48s %s\n", h.who, fmt.Sprintf("%d Hz: %.0f %%, %.0f dBFS; %d Hz: %.1f %%", h.want, 100*share, level, h.never, 100*stray), path)
		switch {
		case share < 0.8:
			wrong = append(wrong, fmt.Sprintf("%s did not hear %d Hz clearly (%.0f %% of the energy)", h.who, h.want, 100*share))
		case level < -30 || level > -3:
			wrong = append(wrong, fmt.Sprintf("%s heard it at %.0f dBFS, which is not as it was said", h.who, level))
		}
		if stray > 0.01 {
			wrong = append(wrong, fmt.Sprintf("%s heard %d Hz, which was said elsewhere", h.who, h.never))
		}
	}
	if wrong != nil {
		return fmt.Errorf("%s", strings.Join(wrong, "; "))
	}
	fmt.Printf("\nThe caller reached the room on the shard where it lives, the meeting reached the phone it dialled, and everybody heard each other.\n")
	return nil
}

// remain keeps everything up for a softphone.
func (s *stage) remain(ctx context.Context) error {
	fmt.Printf("\nStill running. Call sip:phoneMeet@%s with a softphone; the participant says %d Hz. Ctrl-C ends.\n", s.gateway.sip, aliceTone)
	select {
	case <-ctx.Done():
		return nil
	case <-s.gateway.done:
		if ctx.Err() != nil { // Ctrl-C goes to both
			return nil
		}
		return fmt.Errorf("the gateway ended (%v), saying %q; its log is %s", s.gateway.cmd.ProcessState, s.gateway.last(), s.gateway.log.Name())
	}
}
