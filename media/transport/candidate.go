package transport

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"github.com/pion/ice/v4"
)

// A Candidate is an ICE candidate as in XEP-0176 §5.3.
type Candidate struct {
	Foundation string
	Component  int
	Protocol   string // "udp"
	Priority   uint32
	IP         string
	Port       int
	Type       string // "host", "srflx", "prflx", "relay"
	RelAddr    string
	RelPort    int
}

const (
	maxLocalCandidates  = 8
	maxRemoteCandidates = 32
)

// hostAddresses returns the addresses of this machine that a bridge might
// reach through a socket bound to bind, the loopback ones if there are no
// others.
func hostAddresses(bind netip.Addr) ([]netip.Addr, error) {
	if bind = bind.Unmap(); bind.IsValid() && !bind.IsUnspecified() {
		return []netip.Addr{bind}, nil
	}
	all, err := net.InterfaceAddrs()
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	var addrs, loopback []netip.Addr
	for _, a := range all {
		prefix, err := netip.ParsePrefix(a.String())
		if err != nil {
			continue
		}
		addr := prefix.Addr().Unmap()
		switch {
		case bind.IsValid() && bind.Is4() != addr.Is4():
		case addr.IsLoopback():
			loopback = append(loopback, addr)
		case addr.IsGlobalUnicast() && len(addrs) < maxLocalCandidates:
			addrs = append(addrs, addr)
		}
	}
	if len(addrs) == 0 {
		addrs = loopback
	}
	return addrs, nil
}

// hostCandidates describes addrs to the bridge, the first preferred (RFC 8445
// §5.1.2.1).
func hostCandidates(addrs []netip.Addr, port int) []Candidate {
	var list []Candidate
	for i, addr := range addrs {
		list = append(list, Candidate{
			Foundation: strconv.Itoa(i + 1),
			Component:  1,
			Protocol:   "udp",
			Priority:   126<<24 | uint32(65535-i)<<8 | 255,
			IP:         addr.String(),
			Port:       port,
			Type:       "host",
		})
	}
	return list
}

// remoteCandidates returns those of list that ICE can use: component 1, UDP,
// a literal address. Names (.local among them) are not looked up.
func remoteCandidates(list []Candidate) []ice.Candidate {
	var usable []ice.Candidate
	for _, c := range list {
		if len(usable) == maxRemoteCandidates {
			break
		}
		if cand, ok := remoteCandidate(c); ok {
			usable = append(usable, cand)
		}
	}
	return usable
}

func remoteCandidate(c Candidate) (ice.Candidate, bool) {
	addr, err := netip.ParseAddr(c.IP)
	addr = addr.Unmap()
	if err != nil || addr.Zone() != "" || addr.IsUnspecified() || addr.IsMulticast() ||
		c.Port < 1 || c.Port > 65535 || c.Component != 1 || !strings.EqualFold(c.Protocol, "udp") {
		return nil, false
	}
	var cand ice.Candidate
	switch c.Type {
	case "host":
		cand, err = ice.NewCandidateHost(&ice.CandidateHostConfig{
			Network: "udp", Address: addr.String(), Port: c.Port, Component: 1,
			Priority: c.Priority, Foundation: c.Foundation,
		})
	case "srflx", "prflx", "relay":
		// Whatever lies behind it, to us it is an address to check. Pion only
		// tells them apart by the priority, which is given.
		cand, err = ice.NewCandidateServerReflexive(&ice.CandidateServerReflexiveConfig{
			Network: "udp", Address: addr.String(), Port: c.Port, Component: 1,
			Priority: c.Priority, Foundation: c.Foundation,
			RelAddr: c.RelAddr, RelPort: c.RelPort,
		})
	default:
		return nil, false
	}
	return cand, err == nil
}
