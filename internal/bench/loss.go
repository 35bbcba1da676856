package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"time"

	"brewline/internal/jitsitest/jvb"
	"brewline/internal/tone"
	"brewline/media"
	"brewline/media/codec"
	"brewline/media/transport"
)

const (
	lossTraces = 8
	lossShare  = 0.10
	// lossExpected is what the participant's browser lays out its FEC for,
	// percent, as its receiver reports.
	lossExpected = 10
	listenRate   = 8000
)

// benchLoss compares what a phone hears of speech at random loss with what bare
// libopus makes of the same packets. It runs on a clock of its own.
func benchLoss(ctx context.Context) error {
	voices, err := sentences(48000)
	if err != nil {
		return err
	}
	// The first sentence is the one from which the gateway learns that packets
	// get lost; it is judged by itself.
	said := slices.Clone(voices[len(voices)-1].pcm)
	first := len(said) * 1000 / 48000
	for _, v := range voices {
		said = append(said, v.pcm...)
	}
	frames, err := opusFrames(said, lossExpected)
	if err != nil {
		return err
	}
	whole, err := bareDecode(frames, make([]bool, len(frames)))
	if err != nil {
		return err
	}
	ref := newListener(whole)
	var product, bare, behind, productAll, bareAll []float64
	for trace := range lossTraces {
		if err := ctx.Err(); err != nil {
			return err
		}
		lost := lossTrace(len(frames), uint64(trace))
		// The phase between the videobridge's packets and our ticks is chance.
		heard, err := gatewayDecode(frames, lost, time.Duration(trace)*20*time.Millisecond/lossTraces)
		if err != nil {
			return err
		}
		alone, err := bareDecode(frames, lost)
		if err != nil {
			return err
		}
		if err := keep(fmt.Sprintf("loss-%d", trace), heard, alone); err != nil {
			return err
		}
		productAll, bareAll = append(productAll, ref.score(heard, 0)), append(bareAll, ref.score(alone, 0))
		p, b := ref.score(heard, first), ref.score(alone, first)
		product, bare, behind = append(product, p), append(bare, b), append(behind, p-b)
	}
	if err := keep("loss-none", whole); err != nil {
		return err
	}
	clean, err := gatewayDecode(frames, make([]bool, len(frames)), 0)
	if err != nil {
		return err
	}
	mean, dev := spread(behind)
	note("%d traces over %d s of speech; the gateway less bare libopus: %+.4f ± %.4f", lossTraces, len(frames)/50, mean, dev/math.Sqrt(lossTraces))
	figureFloor("loss.10_percent", average(product), "NSIM", average(bare))
	figureFloor("loss.10_percent.from_the_start", average(productAll), "NSIM", average(bareAll))
	figure("loss.none", ref.score(clean, 0), "NSIM")
	return nil
}

func average(v []float64) float64 {
	mean, _ := spread(v)
	return mean
}

// soundDir is where recordings go, "" for none.
var soundDir string

// keep writes recordings to soundDir: what was heard through the gateway and,
// if there are two, from bare libopus.
func keep(name string, pcm ...[]int16) error {
	for i, suffix := range []string{"gateway", "bare"}[:len(pcm)] {
		if soundDir == "" {
			return nil
		}
		if err := tone.WriteWAV(filepath.Join(soundDir, name+"-"+suffix+".wav"), listenRate, pcm[i]); err != nil {
			return err
		}
	}
	return nil
}

// spread is mean and standard deviation.
func spread(v []float64) (mean, dev float64) {
	for _, x := range v {
		mean += x / float64(len(v))
	}
	for _, x := range v {
		dev += (x - mean) * (x - mean) / float64(len(v)-1)
	}
	return mean, math.Sqrt(dev)
}

// lossTrace tells which of n packets are lost. The first arrives.
func lossTrace(n int, seed uint64) []bool {
	r := rand.New(rand.NewPCG(seed, 42))
	lost := make([]bool, n)
	for i := 1; i < n; i++ {
		lost[i] = r.Float64() < lossShare
	}
	return lost
}

// bareDecode is libopus alone, which has all the time it wants: FEC where the
// next packet is there and brings it, else PLC; then G.711, as the phone hears.
func bareDecode(frames []frame, lost []bool) ([]int16, error) {
	dec, err := codec.NewOpusDecoder(listenRate)
	if err != nil {
		return nil, err
	}
	defer dec.Close()
	var pcm []int16
	for i, f := range frames {
		buf := make([]int16, listenRate/50)
		switch {
		case !lost[i]:
			if _, err := dec.Decode(buf, f.payload); err != nil {
				return nil, err
			}
		case i+1 < len(frames) && !lost[i+1] && dec.HasFEC(frames[i+1].payload):
			dec.Recover(buf, frames[i+1].payload)
		default:
			dec.Conceal(buf)
		}
		pcm = append(pcm, buf...)
	}
	return throughPCMU(pcm)
}

func throughPCMU(pcm []int16) ([]int16, error) {
	frames, err := pcmuFrames(pcm)
	if err != nil {
		return nil, err
	}
	c, _ := codec.ByName("pcmu")
	dec, err := c.NewDecoder()
	if err != nil {
		return nil, err
	}
	defer dec.Close()
	out := make([]int16, 160*len(frames))
	for i, f := range frames {
		if _, err := dec.Decode(out[160*i:], f.payload); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// wire is a leg without a network.
type wire struct {
	ring *transport.Ring
	sent [][]byte
}

func (w *wire) Ring() *transport.Ring   { return w.ring }
func (w *wire) SendRTCP(p []byte) error { return nil }
func (w *wire) SendRTP(p []byte) error {
	w.sent = append(w.sent, append([]byte(nil), p...))
	return nil
}

// gatewayDecode has a real bridge play the stream to a phone, and puts what the
// phone gets where its timestamps say.
func gatewayDecode(frames []frame, lost []bool, phase time.Duration) ([]int16, error) {
	pacer := media.NewPacer(media.PacerOptions{Workers: -1})
	defer pacer.Close()
	now := time.Second
	pacer.Tick(now)
	bridge := pacer.NewBridge(media.BridgeOptions{})
	defer bridge.Close()
	phone, conference := &wire{ring: transport.NewRing()}, &wire{ring: transport.NewRing()}
	if err := bridge.AttachPhone(media.PhoneLeg{Conn: phone, Codec: "pcmu", Send: true, Receive: true, SSRC: 1}); err != nil {
		return nil, err
	}
	if err := bridge.AttachConference(media.ConferenceLeg{Conn: conference, OpusPT: opusPT, AudioLevelID: levelID, SSRC: 2}); err != nil {
		return nil, err
	}
	s := stream{ssrc: 3, seq: 100, ts: 48000}
	next := now + 100*time.Millisecond + phase
	for tail := 25; s.pos < len(frames) || tail > 0; now += time.Millisecond {
		for ; next <= now; next += packetTime {
			if s.pos >= len(frames) {
				tail--
				continue
			}
			if f := frames[s.pos]; !lost[s.pos] {
				p := jvb.AppendRTP(nil, opusPT, s.seq, s.ts, s.ssrc, levelID, f.level)
				conference.ring.Push(append(p, f.payload...), now, false)
			}
			s.next(960)
		}
		pacer.Tick(now)
	}
	c, _ := codec.ByName("pcmu")
	dec, err := c.NewDecoder()
	if err != nil {
		return nil, err
	}
	defer dec.Close()
	var pcm []int16
	for _, p := range phone.sent {
		at := int(binary.BigEndian.Uint32(p[4:]) - binary.BigEndian.Uint32(phone.sent[0][4:]))
		if n := at + len(p) - 12; n > len(pcm) {
			if n > len(pcm)+60*listenRate {
				return nil, fmt.Errorf("timestamps towards the phone jump by %d", n-len(pcm))
			}
			pcm = append(pcm, make([]int16, n-len(pcm))...)
		}
		if _, err := dec.Decode(pcm[at:], p[12:]); err != nil {
			return nil, err
		}
	}
	return pcm, nil
}
