package main

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// busyTime reads how long all processors together have been busy.
func busyTime() time.Duration {
	raw, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0
	}
	line, _, _ := strings.Cut(string(raw), "\n")
	var busy int64
	for i, f := range strings.Fields(line) {
		// user nice system idle iowait irq softirq steal (proc(5))
		if i == 0 || i == 4 || i == 5 || i > 8 {
			continue
		}
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return 0
		}
		busy += n
	}
	return time.Duration(busy) * clockTick
}

// others watches what other processes do to the machine.
type others struct {
	p                     *process
	at                    time.Time
	busy, own, took, used time.Duration
}

func beginOthers(p *process) (*others, error) {
	mine, err := own(p)
	return &others{p: p, at: time.Now(), busy: busyTime(), own: mine}, err
}

func (o *others) end() error {
	mine, err := own(o.p)
	o.took, o.used = time.Since(o.at), (busyTime()-o.busy)-(mine-o.own)
	return err
}

// cores is how many they used.
func (o *others) cores() float64 { return max(0, float64(o.used)/float64(o.took)) }

// own is the processor time of this process and of p.
func own(p *process) (time.Duration, error) {
	mine, err := cpuOf(os.Getpid())
	if err != nil {
		return 0, err
	}
	its, err := p.cpu()
	return mine + its, err
}

// describeMachine says where the figures were taken.
func describeMachine() {
	model := "unknown processor"
	if raw, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for _, l := range strings.Split(string(raw), "\n") {
			if k, v, ok := strings.Cut(l, ":"); ok && strings.TrimSpace(k) == "model name" {
				model = strings.TrimSpace(v)
				break
			}
		}
	}
	load, _ := os.ReadFile("/proc/loadavg")
	first, _, _ := strings.Cut(string(load), " ")
	note("%d × %s, %s, load average at the start %s", runtime.NumCPU(), model, runtime.Version(), first)
}

// disturbed is a warning when others used the machine meanwhile.
func disturbed(cores float64) string {
	if cores < 0.1 {
		return ""
	}
	return fmt.Sprintf(" (other processes used %.2f cores)", cores)
}
