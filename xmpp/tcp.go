package xmpp

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"strings"
	"time"

	"brewline/xmpp/internal/dial"
	"brewline/xmpp/internal/split"
)

var errStreamEnd = errors.New("server ended the stream")

// tcpWire is a stream of RFC 6120 §4.
type tcpWire struct {
	c      net.Conn
	domain string
	split  *split.Splitter
	buf    []byte
	els    []split.Element
	closed bool  // the server ended its stream
	err    error // once els are read
}

func newTCPWire(c net.Conn, o Options) *tcpWire {
	w := &tcpWire{c: c, domain: o.Domain, buf: make([]byte, 4096)}
	w.split = split.New(w, o.MaxStanza, true)
	return w
}

func (w *tcpWire) Root([]byte) error             { return nil }
func (w *tcpWire) Element(e split.Element) error { w.els = append(w.els, e); return nil }
func (w *tcpWire) End() error                    { w.closed = true; return nil }

func (w *tcpWire) read() (split.Element, error) {
	for len(w.els) == 0 {
		if w.err != nil {
			return split.Element{}, w.err
		}
		n, err := w.c.Read(w.buf)
		if w.err = w.split.Feed(w.buf[:n]); w.err == nil {
			w.err = err
		}
		switch {
		case w.closed:
			w.err = errStreamEnd
		case w.err == io.EOF:
			w.err = io.ErrUnexpectedEOF
		}
	}
	el := w.els[0]
	w.els[0] = split.Element{}
	w.els = w.els[1:]
	return el, nil
}

func (w *tcpWire) restart() { w.split.Reset() }

func (w *tcpWire) open() []byte {
	var to strings.Builder
	_ = xml.EscapeText(&to, []byte(w.domain))
	return []byte("<?xml version='1.0'?><stream:stream xmlns='" + nsClient + "' xmlns:stream='" + nsStreams +
		"' to='" + to.String() + "' version='1.0' xml:lang='en'>")
}

func (w *tcpWire) end() []byte { return []byte("</stream:stream>") }

func (w *tcpWire) write(els [][]byte, timeout time.Duration) error {
	if err := w.c.SetWriteDeadline(time.Now().Add(timeout)); err != nil {
		return err
	}
	bufs := net.Buffers(els)
	_, err := bufs.WriteTo(w.c)
	return err
}

func (w *tcpWire) shut() { _ = w.c.Close() }

// dialTCP opens a stream, and starts TLS if it is offered (RFC 6120 §5). The
// features of the resulting stream are the next element.
func dialTCP(ctx context.Context, u *url.URL, o Options) (transport, bool, error) {
	secure := u.Scheme == "xmpps"
	port := u.Port()
	if port == "" {
		port = "5222"
		if secure {
			port = "5223"
		}
	}
	c, err := dial.TCP(ctx, net.JoinHostPort(u.Hostname(), port))
	if err != nil {
		return nil, false, err
	}
	stop := context.AfterFunc(ctx, func() { _ = c.Close() })
	defer stop()
	w, secure, err := openTCP(ctx, c, secure, o)
	if err == nil && ctx.Err() != nil {
		err = ctx.Err()
	}
	if err != nil {
		_ = c.Close()
		return nil, false, err
	}
	return newStream(w, o, ""), secure, nil
}

func openTCP(ctx context.Context, c net.Conn, secure bool, o Options) (*tcpWire, bool, error) {
	if secure {
		t, err := dial.Handshake(ctx, c, o.TLS, o.Domain, "xmpp-client")
		if err != nil {
			return nil, false, err
		}
		w := newTCPWire(t, o)
		return w, true, w.write([][]byte{w.open()}, o.ConnectTimeout)
	}
	w := newTCPWire(c, o)
	if err := w.write([][]byte{w.open()}, o.ConnectTimeout); err != nil {
		return nil, false, err
	}
	el, err := w.read()
	if err != nil {
		return nil, false, err
	}
	given := false
	f, err := recvFeatures(func() (split.Element, error) {
		if !given {
			given = true
			return el, nil
		}
		el, err = w.read()
		return el, err
	})
	if err != nil {
		return nil, false, err
	}
	if f.StartTLS == nil {
		w.els = append([]split.Element{el}, w.els...)
		return w, false, nil
	}
	if err := w.write([][]byte{[]byte("<starttls xmlns='" + nsTLS + "'/>")}, o.ConnectTimeout); err != nil {
		return nil, false, err
	}
	if el, err = w.read(); err != nil {
		return nil, false, err
	}
	if n := elementName(el.Data); n.Space != nsTLS || n.Local != "proceed" {
		return nil, false, fmt.Errorf("%w: server answered starttls with %.20q", ErrTLS, n.Local)
	}
	if len(w.els) > 0 || !w.split.Between() {
		return nil, false, fmt.Errorf("%w: bytes before the handshake", ErrTLS)
	}
	t, err := dial.Handshake(ctx, c, o.TLS, o.Domain)
	if err != nil {
		return nil, false, err
	}
	w = newTCPWire(t, o)
	return w, true, w.write([][]byte{w.open()}, o.ConnectTimeout)
}
