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
		URI:     fmt.Sprintf("sip:conference@127.0.0.1:%d", s.sipPort),
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
	select { // a stretch of audio to judge
	case <-time.After(2 * time.Second):
	case <-ctx.Done():
		return ctx.Err()
	}
	s.fromCall, s.rate = call.Heard(), call.Rate()
	s.fromAlice = s.alice.Heard()
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

// judge listens to what both sides heard during the last two seconds.
func (s *stage) judge() error {
	phoneWAV, aliceWAV := filepath.Join(s.o.out, "phone-heard.wav"), filepath.Join(s.o.out, "participant-heard.wav")
	if err := tone.WriteWAV(phoneWAV, s.rate, s.fromCall); err != nil {
		return err
	}
	if err := tone.WriteWAV(aliceWAV, 48000, s.fromAlice); err != nil {
		return err
	}
	fmt.Printf("\n%-22s %-34s %s\n", "who", "heard", "kept in")
	var wrong []string
	check := func(who string, pcm []int16, rate, want, never int, wav string) {
		last := pcm[max(0, len(pcm)-3*rate/2):]
		share, stray, level := tone.Level(last, rate, want), tone.Level(last, rate, never), tone.RMS(last)
		fmt.Printf("%-22s %-34s %s\n", who, fmt.Sprintf("%d Hz: %.0f %%, %.0f dBFS; %d Hz: %.1f %%", want, 100*share, level, never, 100*stray), wav)
		switch {
		case share < 0.8:
			wrong = append(wrong, fmt.Sprintf("%s did not hear %d Hz clearly (%.0f %% of the energy)", who, want, 100*share))
		case level < -30 || level > -3:
			wrong = append(wrong, fmt.Sprintf("%s heard it at %.0f dBFS, which is not as it was said", who, level))
		}
		if stray > 0.01 {
			wrong = append(wrong, fmt.Sprintf("%s heard %d Hz, which was said in another room", who, never))
		}
	}
	check("the phone", s.fromCall, s.rate, aliceTone, otherTone, phoneWAV)
	check("the participant", s.fromAlice, 48000, callerTone, otherTone, aliceWAV)
	if wrong != nil {
		return fmt.Errorf("%s", strings.Join(wrong, "; "))
	}
	fmt.Printf("\nThe call reached the room on the shard where it lives, and both sides heard each other.\n")
	return nil
}

// remain keeps everything up for a softphone.
func (s *stage) remain(ctx context.Context) error {
	fmt.Printf("\nStill running. Call sip:phoneMeet@127.0.0.1:%d with a softphone; the participant says %d Hz. Ctrl-C ends.\n", s.sipPort, aliceTone)
	select {
	case <-ctx.Done():
		return nil
	case <-s.gateway.done:
		return fmt.Errorf("the gateway ended: %w", s.gateway.err)
	}
}
