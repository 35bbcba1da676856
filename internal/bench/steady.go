package main

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

const (
	steadyCalls = 20
	steadyTime  = 15 * time.Second
	// steadyWarmup is until every phone has sent RTCP, too.
	steadyWarmup = phoneReport + cpuWarmup
)

// benchSteady measures what calls hold and allocate while nothing but talking
// happens.
func benchSteady(ctx context.Context) error {
	if err := steadyHoldings(ctx); err != nil {
		return err
	}
	return steadyAllocations(ctx)
}

// steadyHoldings compares the serving process with calls to itself without.
func steadyHoldings(ctx context.Context) error {
	return withCalls(ctx, false, func(w *world, before holdings, load *load, _ []*talk) error {
		after, err := w.holdings()
		if err != nil {
			return err
		}
		const kib = 1024 * steadyCalls
		figure("steady.goroutines", float64(after.Goroutines-before.Goroutines)/steadyCalls, "goroutines/call")
		figure("steady.memory", float64(after.Heap+after.Stack-before.Heap-before.Stack)/kib, "KiB/call")
		figure("steady.memory.heap", float64(after.Heap-before.Heap)/kib, "KiB/call")
		figure("steady.memory.stack", float64(after.Stack-before.Stack)/kib, "KiB/call")
		figure("steady.memory.resident", float64(after.resident-before.resident)/kib, "KiB/call")
		figure("steady.files", float64(after.files-before.files)/steadyCalls, "descriptors/call")
		return nil
	})
}

// steadyAllocations counts every allocation of the serving process, and tells
// apart those of the media path: from a socket's read to its ring, and the
// pacer's ticks.
func steadyAllocations(ctx context.Context) error {
	return withCalls(ctx, true, func(w *world, _ holdings, load *load, talks []*talk) error {
		count := counter(talks, load)
		var before, after allocations
		if err := w.serve.ask(ask{Do: "allocations"}, &before); err != nil {
			return err
		}
		packets := count()
		time.Sleep(steadyTime)
		packets = count() - packets + steadyCalls*50*uint64(steadyTime/time.Second)
		if err := w.serve.ask(ask{Do: "allocations"}, &after); err != nil {
			return err
		}
		figure("steady.allocations", float64(after.Media-before.Media)/float64(packets), "objects/packet")
		figure("steady.allocations.everything", float64(after.All-before.All)/float64(packets), "objects/packet")
		note("%d packets; everything is also ICE keepalives and BOSH", packets)
		for stack, n := range after.Where {
			if n -= before.Where[stack]; n > 0 {
				note("%d times on the media path: %s", n, stack)
			}
		}
		return nil
	})
}

// holdings is what the serving process holds.
type holdings struct {
	memory
	files    int
	resident int64 // bytes
}

func (w *world) holdings() (h holdings, err error) {
	if err = w.serve.ask(ask{Do: "memory"}, &h.memory); err != nil {
		return h, err
	}
	dir := fmt.Sprintf("/proc/%d/", w.serve.cmd.Process.Pid)
	files, err := os.ReadDir(dir + "fd")
	if err != nil {
		return h, err
	}
	h.files = len(files)
	raw, err := os.ReadFile(dir + "statm")
	if err != nil {
		return h, err
	}
	pages, err := strconv.ParseInt(strings.Fields(string(raw))[1], 10, 64)
	h.resident = pages * int64(os.Getpagesize())
	return h, err
}

// withCalls has talking going on in steadyCalls rooms while f runs. Before is
// what was held after a first call had come and gone.
func withCalls(ctx context.Context, exact bool, f func(*world, holdings, *load, []*talk) error) error {
	names := rooms(steadyCalls)
	w, err := newWorld(ctx, worldOptions{rooms: names, exact: exact})
	if err != nil {
		return err
	}
	defer w.close()
	first, err := w.call(ctx, names[0])
	if err != nil {
		return err
	}
	if err := first.hangup(ctx); err != nil {
		return err
	}
	first.party.close()
	if err := w.idle(ctx); err != nil {
		return err
	}
	before, err := w.holdings()
	if err != nil {
		return err
	}
	talks, err := w.callAll(ctx, names)
	if err != nil {
		return err
	}
	load, err := newLoad(parties(talks), 1)
	if err != nil {
		return err
	}
	load.start()
	defer load.end()
	time.Sleep(steadyWarmup) // until it is steady
	return f(w, before, load, talks)
}

// idle awaits that no call and no port is left.
func (w *world) idle(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	return await(ctx, "no call left", func() bool {
		v, err := w.metrics()
		return err == nil && v["brewline_calls"] == 0 && v["brewline_media_ports_in_use"] == 0
	})
}
