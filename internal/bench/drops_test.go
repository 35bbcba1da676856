package main

import (
	"net"
	"os"
	"testing"
)

// A socket that nobody reads from overflows, which the kernel counts; that of
// the port to be left out is not.
func TestUDPDrops(t *testing.T) {
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.SetReadBuffer(4096); err != nil {
		t.Fatal(err)
	}
	const packets = 200
	for range packets {
		if _, err := c.WriteToUDP(make([]byte, 1000), c.LocalAddr().(*net.UDPAddr)); err != nil {
			t.Fatal(err)
		}
	}
	drops, sockets, err := udpDrops(os.Getpid(), 0)
	if err != nil || sockets != 1 || drops == 0 || drops >= packets {
		t.Errorf("%d drops at %d sockets, %v", drops, sockets, err)
	}
	drops, sockets, err = udpDrops(os.Getpid(), uint16(c.LocalAddr().(*net.UDPAddr).Port))
	if err != nil || sockets != 0 || drops != 0 {
		t.Errorf("without it: %d drops at %d sockets, %v", drops, sockets, err)
	}
}
