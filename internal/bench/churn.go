package main

import (
	"context"
	"errors"
	"time"

	"brewline/internal/jitsitest/jvb"
)

const (
	churnCalls  = 1000
	churnAtOnce = 100
	churnRooms  = 20
	// churnSettle is how long SIP transactions may outlive their call (RFC 3261
	// §17.2: 64·T1), and a bit.
	churnSettle = 34 * time.Second
	// churnHeap is what pools and maps may have grown by, bytes.
	churnHeap = 128 << 10
)

// benchChurn sets calls up and tears them down and looks for what is left.
func benchChurn(ctx context.Context) error {
	names := rooms(churnRooms)
	w, err := newWorld(ctx, worldOptions{rooms: names})
	if err != nil {
		return err
	}
	defer w.close()
	// The Go runtime never frees what it keeps of goroutines that have ended, so
	// "before" is once as many as ever will have been there.
	if err := w.callsAtOnce(ctx, names); err != nil {
		return err
	}
	before, err := w.settled(ctx, names, nil)
	if err != nil {
		return err
	}
	before.print("churn.before")
	began := time.Now()
	for i := range churnCalls {
		if err := w.shortCall(ctx, names[i%churnRooms]); err != nil {
			return err
		}
	}
	note("what the heap gains is the room that maps of transactions and ports keep: it does not grow with further calls")
	note("%d calls one after another took %v", churnCalls, time.Since(began).Round(time.Millisecond))
	after, err := w.settled(ctx, names, before)
	if err != nil {
		return err
	}
	after.print("churn.after_1000")
	began = time.Now()
	if err := w.callsAtOnce(ctx, names); err != nil {
		return err
	}
	note("%d calls at once took %v", churnAtOnce, time.Since(began).Round(time.Millisecond))
	if after, err = w.settled(ctx, names, before); err != nil {
		return err
	}
	after.print("churn.after_100_at_once")
	return w.heapProfile("churn-heap.pprof")
}

// callsAtOnce makes short calls at the same time.
func (w *world) callsAtOnce(ctx context.Context, names []string) (err error) {
	ends := make(chan error)
	for i := range churnAtOnce {
		go func() { ends <- w.shortCall(ctx, names[i%len(names)]) }()
	}
	for range churnAtOnce {
		err = errors.Join(err, <-ends)
	}
	return err
}

// shortCall calls, says a word both ways and hangs up.
func (w *world) shortCall(ctx context.Context, room string) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	t, err := w.call(ctx, room)
	if err != nil {
		return err
	}
	defer t.party.close()
	t.party.rtp.write(append(jvb.AppendRTP(nil, 0, 1, 160, 1, 0, 0), make([]byte, 160)...))
	t.say(append(jvb.AppendRTP(nil, opusPT, 1, 960, 2, levelID, 20), 0xf8, 0xff, 0xfe))
	return t.hangup(ctx)
}

// remains is what may be left after calls.
type remains struct {
	holdings
	ports     float64
	occupants int
}

// settled waits until no more is left than there was before, or gives up
// waiting: what is left is then in the figures.
func (w *world) settled(ctx context.Context, names []string, before *remains) (*remains, error) {
	if err := w.idle(ctx); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, churnSettle)
	defer cancel()
	for {
		h, err := w.holdings()
		if err != nil {
			return nil, err
		}
		v, err := w.metrics()
		if err != nil {
			return nil, err
		}
		r := &remains{holdings: h, ports: v["brewline_media_ports_in_use"]}
		for _, room := range names {
			r.occupants += len(w.shard().XMPP.Occupants(room + "@" + w.shard().MUC()))
		}
		if before != nil && r.Goroutines <= before.Goroutines && r.files <= before.files &&
			r.occupants <= before.occupants && r.Heap <= before.Heap+churnHeap {
			return r, nil
		}
		select {
		case <-time.After(time.Second): // between two looks
		case <-ctx.Done():
			return r, nil
		}
	}
}

func (r *remains) print(name string) {
	figure(name+".goroutines", float64(r.Goroutines), "goroutines")
	figure(name+".heap", float64(r.Heap)/1024, "KiB")
	figure(name+".files", float64(r.files), "descriptors")
	figure(name+".ports", r.ports, "ports")
	figure(name+".occupants", float64(r.occupants), "occupants")
}
