package main

import (
	"fmt"
	"slices"
	"strconv"
	"time"
)

// figure prints one measured number.
func figure(name string, value float64, unit string) {
	fmt.Printf("figure %s %s %s\n", name, number(value), unit)
}

// figureFloor prints one measured number beside what the bare minimum needs.
func figureFloor(name string, value float64, unit string, floor float64) {
	fmt.Printf("figure %s %s %s floor %s\n", name, number(value), unit, number(floor))
}

func number(v float64) string { return strconv.FormatFloat(v, 'g', 4, 64) }

// note explains the figures around it.
func note(format string, args ...any) { fmt.Printf("# "+format+"\n", args...) }

func median(v []float64) float64 { return quantile(v, 0.5) }

// quantile of v, by the nearest rank.
func quantile(v []float64, q float64) float64 {
	if len(v) == 0 {
		return 0
	}
	s := slices.Clone(v)
	slices.Sort(s)
	return s[min(len(s)-1, int(q*float64(len(s))))]
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
