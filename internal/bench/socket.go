package main

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"syscall"
	"time"
)

// A socket is a UDP socket on loopback outside Go's poller: nobody is woken by
// what arrives, it is looked at when there is time.
type socket struct {
	fd   int
	port int
	buf  [2048]byte
}

var loopback = [4]byte{127, 0, 0, 1}

func openSocket() (*socket, error) {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_DGRAM|syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("socket: %w", err)
	}
	s := &socket{fd: fd}
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: loopback}); err != nil {
		s.close()
		return nil, fmt.Errorf("bind: %w", err)
	}
	name, err := syscall.Getsockname(fd)
	if err != nil {
		s.close()
		return nil, fmt.Errorf("getsockname: %w", err)
	}
	s.port = name.(*syscall.SockaddrInet4).Port
	return s, nil
}

// connect says where write sends to.
func (s *socket) connect(to netip.AddrPort) error {
	return syscall.Connect(s.fd, &syscall.SockaddrInet4{Addr: to.Addr().Unmap().As4(), Port: int(to.Port())})
}

// write sends a datagram; what the other side refuses is lost.
func (s *socket) write(p []byte) { syscall.Write(s.fd, p) }

// read returns a datagram that is waiting, nil if there is none. It is valid
// until the next read.
func (s *socket) read() []byte {
	for {
		n, err := syscall.Read(s.fd, s.buf[:])
		switch err {
		case nil:
			return s.buf[:n]
		case syscall.EINTR, syscall.ECONNREFUSED:
		default:
			return nil
		}
	}
}

// stamp has the kernel note when datagrams arrive.
func (s *socket) stamp() error {
	return syscall.SetsockoptInt(s.fd, syscall.SOL_SOCKET, syscall.SO_TIMESTAMPNS, 1)
}

// readStamped is read after stamp, with the time of arrival.
func (s *socket) readStamped() ([]byte, time.Time) {
	var control [64]byte
	n, m, _, _, err := syscall.Recvmsg(s.fd, s.buf[:], control[:], 0)
	if err != nil {
		return nil, time.Time{}
	}
	messages, err := syscall.ParseSocketControlMessage(control[:m])
	if err != nil || len(messages) == 0 || len(messages[0].Data) < 16 {
		return nil, time.Time{}
	}
	d := messages[0].Data // struct timespec
	return s.buf[:n], time.Unix(int64(binary.NativeEndian.Uint64(d)), int64(binary.NativeEndian.Uint64(d[8:])))
}

// drain throws away what has arrived and counts it.
func (s *socket) drain() (n uint64) {
	for s.read() != nil {
		n++
	}
	return n
}

func (s *socket) close() { syscall.Close(s.fd) }
