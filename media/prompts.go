package media

import (
	"embed"
	"encoding/binary"
	"math"
	"sync"
	"time"

	"brewline/media/codec"
)

// A Prompt is a bundled spoken announcement.
type Prompt uint8

// The prompts. Their texts are in prompts/generate.sh.
const (
	PromptAlone         Prompt = iota + 1 // you are the only one here
	PromptWaitingHost                     // the conference has not been opened by its host yet
	PromptLobby                           // waiting in the lobby to be let in
	PromptLobbyDenied                     // not let in
	PromptLobbyAdmitted                   // let in from the lobby
	PromptMuted                           // muted
	PromptUnmuted                         // no longer muted
	PromptEnded                           // the conference has ended
	PromptFull                            // the conference is full
	PromptConnecting                      // still being connected
	PromptReconnecting                    // the way to the conference was lost, trying again
	PromptWrongPassword                   // the password is wrong or missing
	PromptUnavailable                     // the conference cannot be reached
	promptCount
	// PromptRinging is no speech but the tone of ringing, to be repeated after
	// RingingPause.
	PromptRinging Prompt = 100
)

// RingingPause follows a second of tone (425 Hz, as ITU-T E.180 has it).
const RingingPause = 4 * time.Second

var promptNames = [promptCount]string{
	PromptAlone:         "alone",
	PromptWaitingHost:   "waiting-host",
	PromptLobby:         "lobby",
	PromptLobbyDenied:   "lobby-denied",
	PromptLobbyAdmitted: "lobby-admitted",
	PromptMuted:         "muted",
	PromptUnmuted:       "unmuted",
	PromptEnded:         "ended",
	PromptFull:          "full",
	PromptConnecting:    "connecting",
	PromptReconnecting:  "reconnecting",
	PromptWrongPassword: "wrong-password",
	PromptUnavailable:   "unavailable",
}

// String is the prompt's name.
func (p Prompt) String() string {
	switch {
	case p == PromptRinging:
		return "ringing"
	case p == 0 || p >= promptCount:
		return "none"
	}
	return promptNames[p]
}

//go:embed prompts/*.pkt
var promptFiles embed.FS

// promptCache holds the PCM of prompts by prompt and rate, for all calls.
var promptCache sync.Map

type promptKey struct {
	prompt Prompt
	rate   int
}

// promptPCM returns a prompt at rate, which is one of libopus', nil if there
// is no such prompt. The slice is shared.
func promptPCM(p Prompt, rate int) []int16 {
	key := promptKey{p, rate}
	if pcm, ok := promptCache.Load(key); ok {
		return pcm.([]int16)
	}
	pcm := decodePrompt(p, rate)
	if pcm != nil {
		promptCache.Store(key, pcm)
	}
	return pcm
}

// ringing is a second of 425 Hz at -15 dBFS, without clicks.
func ringing(rate int) []int16 {
	pcm := make([]int16, rate)
	edge := rate / 100
	for i := range pcm {
		gain := min(1, float64(min(i, len(pcm)-1-i))/float64(edge))
		pcm[i] = int16(gain * 8200 * math.Sin(2*math.Pi*425*float64(i)/float64(rate)))
	}
	return pcm
}

func decodePrompt(p Prompt, rate int) []int16 {
	if p == PromptRinging {
		return ringing(rate)
	}
	if p == 0 || p >= promptCount {
		return nil
	}
	file, err := promptFiles.ReadFile("prompts/" + promptNames[p] + ".pkt")
	if err != nil {
		return nil
	}
	dec, err := codec.NewOpusDecoder(rate)
	if err != nil {
		return nil
	}
	var pcm []int16
	buf := make([]int16, rate*codec.MaxPacket/1000)
	for len(file) >= 2 {
		n := int(binary.BigEndian.Uint16(file))
		if file = file[2:]; n > len(file) {
			return nil
		}
		k, err := dec.Decode(buf, file[:n])
		if err != nil {
			return nil
		}
		pcm, file = append(pcm, buf[:k]...), file[n:]
	}
	return pcm
}
