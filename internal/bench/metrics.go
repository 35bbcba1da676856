package main

import (
	"bufio"
	"io"
	"strconv"
	"strings"
)

// parseMetrics reads Prometheus' text format and adds up the values of each
// name.
func parseMetrics(r io.Reader) (map[string]float64, error) {
	all := map[string]float64{}
	in := bufio.NewScanner(r)
	for in.Scan() {
		line := in.Text()
		i := strings.LastIndexByte(line, ' ')
		if i < 0 || line[0] == '#' {
			continue
		}
		v, err := strconv.ParseFloat(line[i+1:], 64)
		if err != nil {
			continue
		}
		name, _, _ := strings.Cut(line[:i], "{")
		all[name] += v
	}
	return all, in.Err()
}
