package sip

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/emiago/sipgo/sip"
)

// stream is a connection on which Content-Length tells where a message ends
// (RFC 3261 §18.3), over TCP or TLS.
type stream struct {
	c  *conn
	nc net.Conn
	framer
}

func (s *stream) write(b []byte) error { _, err := s.nc.Write(b); return err }
func (s *stream) pong() error          { return s.write([]byte("\r\n")) }
func (s *stream) close()               { _ = s.nc.Close() }

func (s *stream) ping(context.Context) error {
	return s.c.write([]byte(headerEnd))
}

func (s *stream) read() ([]byte, error) {
	began := time.Now()
	var chunk [4096]byte
	for {
		msg, pings, err := s.next(s.c.u.o.MaxMessage)
		if pings > 0 && !s.c.dialled {
			if err := s.c.pinged(); err != nil {
				return nil, err
			}
		}
		if msg != nil || err != nil {
			return msg, err
		}
		if len(s.buf) == 0 && s.c.known() {
			began = time.Now()
		}
		_ = s.c.nc.SetReadDeadline(s.c.patience(began, len(s.buf) > 0))
		n, err := s.nc.Read(chunk[:])
		if err != nil {
			return nil, err
		}
		// While one of ours waits, an empty line is the answer.
		if s.c.pinging.Load() && len(s.buf) == 0 && chunk[0] == '\r' {
			s.c.pongs.Store(true)
		}
		s.c.alive()
		s.buf = append(s.buf, chunk[:n]...)
	}
}

var (
	errNoLength = errors.New("no Content-Length on a stream")
	errLength   = errors.New("unreadable Content-Length")
)

// framer finds messages in a stream of bytes.
type framer struct {
	buf     []byte
	scanned int // of buf, without the end of the header fields
	lines   int // empty lines since the last message
	length  int // of the message in buf, once its header fields are complete
}

// next takes the next message out of what has been read; nil: it is not
// complete. pings is how many pairs of empty lines came before it (RFC 5626
// §3.5.1). With an error the message is its header fields, or empty if these
// are not all there, and the stream has no next message.
func (f *framer) next(limit int) (msg []byte, pings int, err error) {
	if f.length == 0 {
		pings = f.skip()
		if f.length, err = f.measure(limit); err != nil {
			return f.rest(), pings, err
		}
	}
	if f.length == 0 || len(f.buf) < f.length {
		return nil, pings, nil
	}
	msg = bytes.Clone(f.buf[:f.length])
	n := copy(f.buf, f.buf[f.length:])
	if f.buf = f.buf[:n]; n == 0 && cap(f.buf) > 1<<14 {
		f.buf = nil
	}
	f.scanned, f.lines, f.length = 0, 0, 0
	return msg, pings, nil
}

// skip drops the empty lines before a message.
func (f *framer) skip() (pings int) {
	rest := bytes.TrimLeft(f.buf, "\r\n")
	if n := len(f.buf) - len(rest); n > 0 {
		before := f.lines
		f.lines += bytes.Count(f.buf[:n], []byte("\n"))
		pings = f.lines/2 - before/2
		f.scanned = 0
		f.buf = f.buf[:copy(f.buf, rest)]
	}
	return pings
}

const headerEnd = "\r\n\r\n"

// measure returns the length of the message at the start, 0 as long as it is
// not known.
func (f *framer) measure(limit int) (int, error) {
	i := bytes.Index(f.buf[f.scanned:], []byte(headerEnd))
	if i < 0 {
		if len(f.buf) > limit {
			return 0, sip.ErrMessageTooLarge
		}
		f.scanned = max(0, len(f.buf)-len(headerEnd)+1)
		return 0, nil
	}
	end := f.scanned + i + len(headerEnd)
	f.scanned = end - len(headerEnd)
	if end > limit {
		return 0, sip.ErrMessageTooLarge
	}
	n, err := contentLength(f.buf[:end])
	if err == nil && n > limit-end {
		err = sip.ErrMessageTooLarge
	}
	return end + n, err
}

// rest returns the header fields of a message that is not to be had.
func (f *framer) rest() []byte {
	if i := bytes.Index(f.buf, []byte(headerEnd)); i >= 0 {
		return bytes.Clone(f.buf[:i+len(headerEnd)])
	}
	return []byte{}
}

// contentLength reads the length of the body from a message's header fields.
// Two that differ would let somebody smuggle a message in.
func contentLength(head []byte) (int, error) {
	lines := strings.Split(string(head), "\r\n")
	length, seen := 0, false
	for i := 1; i < len(lines); i++ {
		name, value, ok := strings.Cut(lines[i], ":")
		name = strings.TrimRight(name, " \t") // one that begins with a space goes on with the line before
		if !ok || !strings.EqualFold(name, "Content-Length") && !strings.EqualFold(name, "l") {
			continue
		}
		for i+1 < len(lines) && lines[i+1] != "" && (lines[i+1][0] == ' ' || lines[i+1][0] == '\t') {
			i++
			value += " " + lines[i]
		}
		n, err := strconv.ParseUint(strings.TrimSpace(value), 10, 31)
		if err != nil || seen && int(n) != length {
			return 0, fmt.Errorf("%w %q", errLength, clean(value))
		}
		length, seen = int(n), true
	}
	if !seen {
		return 0, errNoLength
	}
	return length, nil
}
