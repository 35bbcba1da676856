package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// udpDrops counts what the kernel could not queue for a process's UDP sockets,
// those of one port left out: packets that were lost on their way in, whatever
// the process itself says of it (proc(5), net/udp). sockets is how many were
// looked at.
func udpDrops(pid int, but uint16) (drops, sockets int, err error) {
	own := map[string]bool{}
	fds, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	if err != nil {
		return 0, 0, err
	}
	for _, fd := range fds {
		if to, err := os.Readlink(fd); err == nil && strings.HasPrefix(to, "socket:[") {
			own[strings.Trim(to[len("socket:"):], "[]")] = true
		}
	}
	for _, table := range []string{"udp", "udp6"} {
		raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/%s", pid, table))
		if err != nil {
			return 0, 0, err
		}
		for _, line := range strings.Split(string(raw), "\n")[1:] {
			f := strings.Fields(line)
			if len(f) < 13 || !own[f[9]] {
				continue
			}
			port, err1 := strconv.ParseUint(f[1][strings.LastIndexByte(f[1], ':')+1:], 16, 16)
			n, err2 := strconv.Atoi(f[12])
			if err1 != nil || err2 != nil {
				return 0, 0, fmt.Errorf("unexpected /proc/PID/net/%s: %q", table, line)
			}
			if uint16(port) != but {
				drops, sockets = drops+n, sockets+1
			}
			delete(own, f[9]) // a table that changes while it is read may show a socket twice
		}
	}
	return drops, sockets, nil
}
