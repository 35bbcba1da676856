package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"time"

	"brewline/media/codec"
)

// A click is clickTime of a loud tone in faint noise. Clicks come clickEvery,
// at any place within a packet.
const (
	delayCalls   = 12 // each sits at another phase of the gateway's pacer
	delaySettle  = 6 * time.Second
	delayTime    = 20 * time.Second
	clickTime    = 4 * time.Millisecond
	clickEvery   = 400 * time.Millisecond
	clickRate    = 2000 // Hz
	clickPeak    = 16000
	noisePeak    = 120 // -50 dBov: sound, not silence
	clickLoud    = 0.25
	maxDelay     = 200 * time.Millisecond
	clickSeconds = 20
)

// clicks is the sound, and where in it the clicks begin.
func clicks(rate int) (pcm []int16, at []int) {
	r := rand.New(rand.NewPCG(7, 7))
	pcm = make([]int16, rate*clickSeconds)
	for i := range pcm {
		pcm[i] = int16(r.IntN(2*noisePeak) - noisePeak)
	}
	every := int(clickEvery * time.Duration(rate) / time.Second)
	for from := every / 2; from+every < len(pcm); from += every {
		// Any place within a packet.
		begin := from + r.IntN(rate/50)
		for i := range int(clickTime * time.Duration(rate) / time.Second) {
			pcm[begin+i] = int16(clickPeak * math.Sin(2*math.Pi*clickRate*float64(i)/float64(rate)))
		}
		at = append(at, begin)
	}
	return pcm, at
}

// onsets finds where clicks begin: the first sample beyond a share of their
// peak, after at least half the time between two without one.
func onsets(pcm []int16, rate int) (at []int) {
	const level = clickLoud * clickPeak
	rest := int(clickEvery*time.Duration(rate)/time.Second) / 2
	last := -rest
	for i, v := range pcm {
		if v > level || v < -level {
			if i-last >= rest {
				at = append(at, i)
			}
			last = i
		}
	}
	return at
}

// frameOf is the frame of 20 ms that holds each of these samples.
func framesOf(at []int, rate int) map[int]bool {
	frames := map[int]bool{}
	for _, i := range at {
		frames[i/(rate/50)] = true
	}
	return frames
}

// An arrival is a packet that came out of the gateway.
type arrival struct {
	at      time.Time
	seq     uint16
	payload []byte
}

// hearing is what one call's delays are made from.
type hearing struct {
	mu               sync.Mutex
	fromPhone, toUs  []time.Time // clicks sent: by the phone, by the videobridge
	atBridge, atHome []arrival   // packets received: by the videobridge, by the phone
}

// benchDelay measures the added one-way delay by clicks.
func benchDelay(ctx context.Context) error {
	phonePCM, phoneAt := clicks(8000)
	pcmu, err := pcmuFrames(phonePCM)
	if err != nil {
		return err
	}
	voicePCM, _ := clicks(48000)
	voice, err := opusFrames(voicePCM, 5)
	if err != nil {
		return err
	}
	// The packet that carries a click is the one in which it decodes, without
	// a gateway, at the phone's rate.
	plain, err := decodeAll(voice, 8000)
	if err != nil {
		return err
	}
	inPhone, inVoice := framesOf(phoneAt, 8000), framesOf(onsets(plain, 8000), 8000)

	names := rooms(delayCalls)
	w, err := newWorld(ctx, worldOptions{rooms: names})
	if err != nil {
		return err
	}
	defer w.close()
	talks, err := w.callAll(ctx, names)
	if err != nil {
		return err
	}
	load, err := newLoad(parties(talks), 1)
	if err != nil {
		return err
	}
	load.pcmu, load.opus = pcmu, voice
	heard := make([]hearing, len(talks))
	began := time.Now()
	settled := func() bool { return time.Since(began) > delaySettle }
	for i, t := range talks {
		h := &heard[i]
		if err := t.party.rtp.stamp(); err != nil {
			return fmt.Errorf("timestamps of the kernel: %w", err)
		}
		t.party.sent = func(phone bool, pos int) {
			h.mu.Lock()
			defer h.mu.Unlock()
			switch {
			case !settled():
			case phone && inPhone[pos%len(pcmu)]:
				h.fromPhone = append(h.fromPhone, time.Now())
			case !phone && inVoice[pos%len(voice)]:
				h.toUs = append(h.toUs, time.Now())
			}
		}
		t.party.take = func(p []byte, at time.Time) { h.atHome = appendArrival(h.atHome, p, at) }
		t.endpoint.Tap(func(p []byte, at time.Time) {
			h.mu.Lock()
			defer h.mu.Unlock()
			h.atBridge = appendArrival(h.atBridge, p, at)
		})
	}
	load.start()
	others, err := beginOthers(w.serve)
	if err != nil {
		return err
	}
	time.Sleep(delaySettle + delayTime) // the length of the measurement
	if err := others.end(); err != nil {
		return err
	}
	load.end()
	var up, down []float64
	for i := range heard {
		h := &heard[i]
		talks[i].endpoint.Tap(nil)
		u, err := delays(h.fromPhone, h.atBridge, "opus")
		if err != nil {
			return err
		}
		d, err := delays(h.toUs, h.atHome, "pcmu")
		if err != nil {
			return err
		}
		up, down = append(up, u...), append(down, d...)
	}
	note("from sending the packet that holds a click to the arrival of the packet in which it decodes;")
	note("clicks lie anywhere in a packet, so codec and packetisation are in it; what the gateway did not cause is the loopback's")
	note("the generator's packets were late by %.1f ms in the median, %.1f ms at p99: that is jitter to the gateway%s",
		median(load.late), quantile(load.late, 0.99), disturbed(others.cores()))
	for _, d := range []struct {
		name string
		ms   []float64
	}{{"delay.phone_to_bridge", up}, {"delay.bridge_to_phone", down}} {
		note("%s: %d clicks, least %.1f, most %.1f ms", d.name, len(d.ms), quantile(d.ms, 0), quantile(d.ms, 1))
		figure(d.name, median(d.ms), "ms")
		figure(d.name+".p95", quantile(d.ms, 0.95), "ms")
	}
	return nil
}

// decodeAll decodes a stream without loss.
func decodeAll(frames []frame, rate int) ([]int16, error) {
	dec, err := codec.NewOpusDecoder(rate)
	if err != nil {
		return nil, err
	}
	defer dec.Close()
	var pcm []int16
	buf := make([]int16, rate/50)
	for _, f := range frames {
		n, err := dec.Decode(buf, f.payload)
		if err != nil {
			return nil, err
		}
		pcm = append(pcm, buf[:n]...)
	}
	return pcm, nil
}

func appendArrival(all []arrival, p []byte, at time.Time) []arrival {
	h := 12
	if len(p) >= 16 && p[0]&0x10 != 0 {
		h += 4 + 4*int(binary.BigEndian.Uint16(p[14:]))
	}
	if len(p) <= h {
		return all
	}
	return append(all, arrival{at, binary.BigEndian.Uint16(p[2:]), append([]byte(nil), p[h:]...)})
}

// delays decodes what arrived and finds for each click how long it took, in
// milliseconds. Clicks that are not found are an error if there are many.
func delays(sent []time.Time, got []arrival, name string) ([]float64, error) {
	c, _ := codec.ByName(name)
	dec, err := c.NewDecoder()
	if err != nil {
		return nil, err
	}
	defer dec.Close()
	var pcm []int16
	var ends []int // of each arrival, in pcm
	buf := make([]int16, c.Rate*codec.MaxPacket/1000)
	for _, a := range got {
		n, err := dec.Decode(buf, a.payload)
		if err != nil {
			return nil, fmt.Errorf("what the gateway sent does not decode: %w", err)
		}
		pcm = append(pcm, buf[:n]...)
		ends = append(ends, len(pcm))
	}
	var heard []time.Time
	packet := 0
	for _, i := range onsets(pcm, c.Rate) {
		for ends[packet] <= i {
			packet++
		}
		heard = append(heard, got[packet].at)
	}
	var out []float64
	next := 0
	for _, s := range sent {
		for next < len(heard) && heard[next].Before(s) {
			next++
		}
		if next < len(heard) && heard[next].Sub(s) < maxDelay {
			out = append(out, ms(heard[next].Sub(s)))
		}
	}
	if len(out) < len(sent)*8/10 {
		return nil, fmt.Errorf("of %d clicks %d were found", len(sent), len(out))
	}
	return out, nil
}
