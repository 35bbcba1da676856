package gateway

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"

	"brewline/config"
)

// CheckMedia says what is wrong with the local addresses for media: without
// them every call would fail.
func CheckMedia(m config.Media) error {
	if m.Phone.Bind == m.Conference.Bind {
		return canBind("media.bind", m.Phone.Bind)
	}
	return errors.Join(canBind("media.phone.bind", m.Phone.Bind), canBind("media.conference.bind", m.Conference.Bind))
}

func canBind(key string, addr netip.Addr) error {
	if !addr.IsValid() {
		return nil // all addresses
	}
	c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(addr, 0)))
	if err == nil {
		return c.Close()
	}
	if op := (*net.OpError)(nil); errors.As(err, &op) {
		err = op.Err // the rest says the address again
	}
	return fmt.Errorf("%s: %s: %w%s", key, addr, err, bindHelp(err))
}

// bindHelp is what helps where an address could not be bound.
func bindHelp(err error) string {
	switch {
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return ": write an address of this host"
	case errors.Is(err, syscall.EADDRINUSE):
		return ": another program has the port, perhaps a second brewline"
	case errors.Is(err, syscall.EACCES):
		return ": ports below 1024 need the capability CAP_NET_BIND_SERVICE"
	}
	return ""
}
