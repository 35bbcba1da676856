package main

import (
	"context"
	"fmt"
	"path/filepath"
	"time"
)

const (
	cpuRuns   = 5
	cpuWarmup = 2 * time.Second // the jitter buffers settle
	cpuTime   = 6 * time.Second
)

// sample is one measured run.
type sample struct {
	millicores float64 // per call
	packets    float64 // per call and second, both ways
	others     float64 // cores used by other processes
}

// benchCPU compares the serving process with the floor, run by run.
func benchCPU(ctx context.Context) error {
	var perCall [2]float64
	for i, calls := range []int{20, 60} {
		var product, floor, ratio, packets, floorPackets []float64
		for range cpuRuns {
			p, err := productRun(ctx, calls)
			if err != nil {
				return err
			}
			f, err := floorRun(ctx, calls)
			if err != nil {
				return err
			}
			note("%d calls: %.2f millicores a call, floor %.2f; %.1f and %.1f packets a second%s", calls,
				p.millicores, f.millicores, p.packets, f.packets, disturbed(max(p.others, f.others)))
			product, floor = append(product, p.millicores), append(floor, f.millicores)
			packets, floorPackets = append(packets, p.packets), append(floorPackets, f.packets)
			ratio = append(ratio, p.millicores/f.millicores)
		}
		perCall[i] = median(product)
		name := fmt.Sprintf("cpu.%d_calls", calls)
		figureFloor(name, perCall[i], "millicores/call", median(floor))
		figure(name+".ratio", median(ratio), "product/floor")
		figureFloor(name+".packets", median(packets), "packets/s/call", median(floorPackets))
	}
	figure("cpu.60_to_20_calls", perCall[1]/perCall[0], "millicores/call ratio")
	return nil
}

// profileDir is where profiles of the serving process go, "" for none.
var profileDir string

// profile writes a processor profile of the serving process until stop.
func (w *world) profile(name string) (stop func(), err error) {
	file, err := filepath.Abs(filepath.Join(profileDir, name))
	if err != nil {
		return nil, err
	}
	var done struct{}
	if err := w.serve.ask(ask{Do: "profile", File: file}, &done); err != nil {
		return nil, err
	}
	return func() { w.serve.ask(ask{Do: "profiled"}, &done) }, nil
}

// heapProfile writes what the serving process holds.
func (w *world) heapProfile(name string) error {
	if profileDir == "" {
		return nil
	}
	file, err := filepath.Abs(filepath.Join(profileDir, name))
	if err != nil {
		return err
	}
	var done struct{}
	return w.serve.ask(ask{Do: "heap", File: file}, &done)
}

func productRun(ctx context.Context, calls int) (s sample, err error) {
	w, err := newWorld(ctx, worldOptions{rooms: rooms(calls)})
	if err != nil {
		return s, err
	}
	defer w.close()
	talks, err := w.callAll(ctx, rooms(calls))
	if err != nil {
		return s, err
	}
	load, err := newLoad(parties(talks), 1)
	if err != nil {
		return s, err
	}
	load.start()
	defer load.end()
	time.Sleep(cpuWarmup)
	if profileDir != "" {
		stop, err := w.profile(fmt.Sprintf("cpu-%d-calls.pprof", calls))
		if err != nil {
			return s, err
		}
		defer stop()
	}
	return watch(w.serve, calls, cpuTime, counter(talks, load))
}

// counter counts the packets of the gateway that the generator sees.
func counter(talks []*talk, l *load) func() uint64 {
	return func() uint64 {
		n := l.received.Load()
		for _, t := range talks {
			s := t.endpoint.Stats()
			n += s.RTPFrom + s.RTPTo + s.RTCPFrom + s.RTCPTo
		}
		return n
	}
}

func floorRun(ctx context.Context, calls int) (s sample, err error) {
	p, err := spawn(self(), "-role", "floor", "-calls", fmt.Sprint(calls))
	if err != nil {
		return s, err
	}
	defer p.stop()
	var setup floorSetup
	if err := p.hear(&setup); err != nil {
		return s, err
	}
	bridge, err := openFloorBridge()
	if err != nil {
		return s, err
	}
	defer bridge.close()
	all, err := floorParties(setup, bridge)
	defer func() {
		for _, p := range all {
			p.close()
		}
	}()
	if err != nil {
		return s, err
	}
	load, err := newLoad(all, 1)
	if err != nil {
		return s, err
	}
	load.start()
	defer load.end()
	time.Sleep(cpuWarmup)
	return watch(p, calls, cpuTime, func() uint64 {
		return load.received.Load() + bridge.received.Load() + bridge.sent.Load()
	})
}

// watch measures a process for d while the load is on it. count counts the
// packets that its parent sees; what the phones send is known.
func watch(p *process, calls int, d time.Duration, count func() uint64) (s sample, err error) {
	others, err := beginOthers(p)
	if err != nil {
		return s, err
	}
	packets := count()
	began := time.Now()
	before, err := p.cpu()
	if err != nil {
		return s, err
	}
	time.Sleep(d) // the length of the measurement
	after, err := p.cpu()
	if err != nil {
		return s, err
	}
	took := time.Since(began)
	s.millicores = 1000 * float64(after-before) / float64(took) / float64(calls)
	s.packets = float64(count()-packets)/took.Seconds()/float64(calls) + 50 + 1/phoneReport.Seconds()
	err = others.end()
	s.others = others.cores()
	return s, err
}

const (
	speakerRounds = 4
	speakerCalls  = 20
	speakerTime   = 3 * time.Second
)

// benchSpeakers measures what each further speaker of a conference costs. It
// changes their number under running calls, in rounds, so that the machine's
// moods hit all numbers alike.
func benchSpeakers(ctx context.Context) error {
	w, err := newWorld(ctx, worldOptions{rooms: rooms(speakerCalls)})
	if err != nil {
		return err
	}
	defer w.close()
	talks, err := w.callAll(ctx, rooms(speakerCalls))
	if err != nil {
		return err
	}
	load, err := newLoad(parties(talks), 1)
	if err != nil {
		return err
	}
	load.start()
	defer load.end()
	var cost [maxSpeakers + 1][]float64
	for range speakerRounds {
		for n := 1; n <= maxSpeakers; n++ {
			load.speakers.Store(int32(n))
			time.Sleep(cpuWarmup / 2)
			s, err := watch(w.serve, speakerCalls, speakerTime, counter(talks, load))
			if err != nil {
				return err
			}
			cost[n] = append(cost[n], s.millicores)
			if d := disturbed(s.others); d != "" {
				note("%d speakers%s", n, d)
			}
		}
	}
	figure("speakers.1", median(cost[1]), "millicores/call")
	for n := 2; n <= maxSpeakers; n++ {
		figure(fmt.Sprintf("speakers.%d.more", n), median(cost[n])-median(cost[n-1]), "millicores/call")
	}
	return nil
}
