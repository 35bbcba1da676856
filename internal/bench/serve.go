package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"regexp"
	"runtime"
	"runtime/pprof"
	"strings"
	"sync"

	"brewline/gateway"
)

// serveSetup is what the serving process tells its parent when it is up.
type serveSetup struct{ SIP, HTTP string }

// ask is what the parent asks of the serving process.
type ask struct {
	Do   string // "memory", "allocations", "profile", "profiled", "heap"
	File string
}

// memory is what the serving process holds after a collection.
type memory struct {
	Goroutines  int
	Heap, Stack uint64 // bytes in use
	Mallocs     uint64
}

// allocations are the objects allocated since the process began, by where.
type allocations struct {
	Media, All int64
	Where      map[string]int64 // those of the media path by stack
}

// runServe is the gateway in a process of its own, as "brewline serve" runs
// it. It ends when standard input does. exact has every allocation counted.
func runServe(path, logs string, exact bool) error {
	if exact {
		runtime.MemProfileRate = 1
	}
	log, err := os.Create(logs)
	if err != nil {
		return err
	}
	defer log.Close()
	up := &announcer{to: log, found: map[string]string{}}
	ctx, end := context.WithCancel(context.Background())
	go func() {
		defer end()
		answer(bufio.NewScanner(os.Stdin))
	}()
	return gateway.Serve(ctx, ctx, path, nil, up, gateway.Options{Version: "bench"})
}

// answer does what the parent asks until it is gone.
func answer(in *bufio.Scanner) {
	out := json.NewEncoder(os.Stdout)
	for in.Scan() {
		var a ask
		if err := json.Unmarshal(in.Bytes(), &a); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
			continue
		}
		var reply any = struct{}{}
		switch a.Do {
		case "memory":
			reply = measureMemory()
		case "allocations":
			reply = countAllocations()
		case "profile":
			if f, err := os.Create(a.File); err != nil {
				fmt.Fprintln(os.Stderr, "bench:", err)
			} else if err := pprof.StartCPUProfile(f); err != nil {
				fmt.Fprintln(os.Stderr, "bench:", err)
			}
		case "heap":
			if f, err := os.Create(a.File); err != nil {
				fmt.Fprintln(os.Stderr, "bench:", err)
			} else {
				pprof.WriteHeapProfile(f)
				f.Close()
			}
		case "profiled":
			pprof.StopCPUProfile()
		}
		out.Encode(reply)
	}
}

func measureMemory() memory {
	runtime.GC()
	runtime.GC() // the first one finds what finalizers and pools still held
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return memory{runtime.NumGoroutine(), m.HeapAlloc, m.StackInuse, m.Mallocs}
}

// countAllocations goes through the memory profile, which is complete with a
// rate of 1 once two collections have passed.
func countAllocations() allocations {
	a := allocations{Where: map[string]int64{}}
	for range 3 {
		runtime.GC()
	}
	n, _ := runtime.MemProfile(nil, true)
	records := make([]runtime.MemProfileRecord, n+100)
	n, ok := runtime.MemProfile(records, true)
	if !ok {
		return a
	}
	for _, r := range records[:n] {
		switch stack, path := pathOf(r.Stack()); path {
		case mediaPath:
			a.Media += r.AllocObjects
			a.Where[stack] += r.AllocObjects
			fallthrough
		case otherPath:
			a.All += r.AllocObjects
		}
	}
	return a
}

type path int

const (
	otherPath path = iota
	mediaPath      // the receive path of RTP and RTCP, or a pacer's tick
	ownPath        // the measurement itself
)

// pathOf tells to which path a stack belongs, and gives it as text, innermost
// first.
func pathOf(stack []uintptr) (text string, p path) {
	var b strings.Builder
	frames := runtime.CallersFrames(stack)
	for {
		f, more := frames.Next()
		if !strings.HasPrefix(f.Function, "runtime.") {
			fmt.Fprintf(&b, " < %s:%d", f.Function[strings.LastIndexByte(f.Function, '/')+1:], f.Line)
		}
		switch f.Function {
		case "brewline/media.(*worker).loop", "brewline/media/transport.(*socket).read":
			p = mediaPath
		case "main.answer":
			p = ownPath
		case "brewline/media/transport.(*Conference).receiveSTUN", "brewline/media/transport.(*Conference).receiveDTLS":
			return "", otherPath // handed on to Pion
		}
		if !more {
			return strings.TrimPrefix(b.String(), " < "), p
		}
	}
}

// announcer passes the log on, and tells the parent the addresses in it.
type announcer struct {
	to    io.Writer
	mu    sync.Mutex
	found map[string]string
	told  bool
}

var listening = regexp.MustCompile(`msg="listening for (SIP|HTTP)".*address=(\S+)`)

func (a *announcer) Write(p []byte) (int, error) {
	a.mu.Lock()
	if !a.told && bytes.Contains(p, []byte("listening for")) {
		if m := listening.FindSubmatch(p); m != nil {
			a.found[string(m[1])] = string(m[2])
		}
		if len(a.found) == 2 {
			a.told = true
			json.NewEncoder(os.Stdout).Encode(serveSetup{SIP: a.found["SIP"], HTTP: a.found["HTTP"]})
		}
	}
	a.mu.Unlock()
	return a.to.Write(p)
}
