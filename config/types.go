package config

import (
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Duration is a time.Duration written as in Go: "20s", "1m30s", "500ms".
type Duration struct{ time.Duration }

// UnmarshalText parses a duration; it may not be negative.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	switch {
	case err != nil:
		return fmt.Errorf("%q is not a duration: write a number and a unit, as \"20s\" or \"1m30s\"", text)
	case v < 0:
		return fmt.Errorf("%s is negative: write a duration of 0s or more", text)
	}
	d.Duration = v
	return nil
}

// MarshalText writes the duration as UnmarshalText reads it.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// Secret is a password, key or token. It prints as "***"; [Secret.Value]
// tells it. In a file it may be given as "env:NAME" or "file:/path".
type Secret string

const hidden = "***"

// Value returns the secret itself.
func (s Secret) Value() string { return string(s) }

// String hides the secret.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return hidden
}

// GoString hides the secret.
func (s Secret) GoString() string { return strconv.Quote(s.String()) }

// MarshalText hides the secret.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// LogValue hides the secret.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// Mask hides as much of a phone number, or of another caller's name, as
// gateway.mask_numbers wants hidden in logs.
func (g Gateway) Mask(number string) string {
	switch g.MaskNumbers {
	case "none":
		return number
	case "last4":
		if r := []rune(number); len(r) > 4 {
			return strings.Repeat("*", len(r)-4) + string(r[len(r)-4:])
		}
	}
	return strings.Repeat("*", min(len(number), 3))
}

// PortRange is a range of ports, both ends included.
type PortRange struct{ Min, Max int }

// UnmarshalText parses "20000-29999".
func (r *PortRange) UnmarshalText(text []byte) error {
	lo, hi, ok := strings.Cut(string(text), "-")
	a, err1 := strconv.ParseUint(strings.TrimSpace(lo), 10, 16)
	b, err2 := strconv.ParseUint(strings.TrimSpace(hi), 10, 16)
	switch {
	case !ok || err1 != nil || err2 != nil:
		return fmt.Errorf("%q is not a range of ports: write it as \"20000-29999\"", text)
	case a == 0 || b < a:
		return fmt.Errorf("%q is an empty range: write the lower port first, from 1 to 65535", text)
	}
	r.Min, r.Max = int(a), int(b)
	return nil
}

// MarshalText writes the range as UnmarshalText reads it.
func (r PortRange) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// String writes the range as UnmarshalText reads it.
func (r PortRange) String() string {
	if r == (PortRange{}) {
		return ""
	}
	return fmt.Sprintf("%d-%d", r.Min, r.Max)
}

// Len returns the number of ports in the range.
func (r PortRange) Len() int {
	if r == (PortRange{}) {
		return 0
	}
	return r.Max - r.Min + 1
}

// Overlaps says whether a port is in both ranges.
func (r PortRange) Overlaps(o PortRange) bool {
	return r.Len() > 0 && o.Len() > 0 && r.Min <= o.Max && o.Min <= r.Max
}

// Listener is one entry of sip.listen.
type Listener struct {
	Network   string // udp, tcp, tls, ws or wss
	Address   string // ip:port
	Advertise string // host[:port] for Via and Contact, "": sip.advertise
}

// ParseListener reads a listener such as tls://0.0.0.0:5061?advertise=gw.example.org.
func ParseListener(s string) (Listener, error) {
	network, address, ok := strings.Cut(s, "://")
	if !ok || !slices.Contains([]string{"udp", "tcp", "tls", "ws", "wss"}, network) {
		return Listener{}, fmt.Errorf("%q is no listener: write udp://address:port, or tcp, tls, ws or wss in the place of udp", s)
	}
	address, query, _ := strings.Cut(address, "?")
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return Listener{}, fmt.Errorf("%q has no address and port: write %s://0.0.0.0:5060", s, network)
	}
	if _, err := netip.ParseAddr(host); err != nil {
		return Listener{}, fmt.Errorf("%q: %q is no IP address: write one of this host's, or 0.0.0.0 for all", s, host)
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return Listener{}, fmt.Errorf("%q: %q is no port: write a number up to 65535", s, port)
	}
	l := Listener{Network: network, Address: address}
	if query != "" {
		var key string
		if key, l.Advertise, _ = strings.Cut(query, "="); key != "advertise" || !isAdvertise(l.Advertise) {
			return Listener{}, fmt.Errorf("%q: %q is not understood: write ?advertise=host or ?advertise=host:port", s, query)
		}
	}
	return l, nil
}

// isAdvertise says whether s is a host, an address or either with a port.
func isAdvertise(s string) bool {
	return hostPort(s, false) == nil || isDomain(s) || isAddr(s)
}
