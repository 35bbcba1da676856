package sip

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"
	"unicode/utf8"

	"github.com/coder/websocket"
)

// subprotocol is SIP's name among those of WebSocket (RFC 7118 §4.1).
const subprotocol = "sip"

// maxUpgrade bounds the HTTP request that opens a WebSocket.
const maxUpgrade = 16 << 10

var errSubprotocol = errors.New(`WebSocket: the peer does not speak the subprotocol "sip"`)

// webSocket carries a message in each message of WebSocket (RFC 7118 §5.1).
type webSocket struct {
	c     *conn
	ws    *websocket.Conn
	began time.Time // when the message before had been read
}

// acceptWS answers the HTTP request of a WebSocket client. nc has a deadline.
func acceptWS(c *conn, nc net.Conn) (*webSocket, error) {
	in := &io.LimitedReader{R: nc, N: maxUpgrade}
	r := bufio.NewReader(in)
	req, err := http.ReadRequest(r)
	if err != nil {
		return nil, fmt.Errorf("WebSocket: %w", err)
	}
	if req.ContentLength != 0 { // a body would be taken for frames
		return nil, errors.New("WebSocket: the request has a body")
	}
	in.N = 1 << 62
	w := &webSocket{c: c, began: time.Now()}
	up := &upgrade{nc: nc, r: r, header: http.Header{}}
	if !offers(req, subprotocol) { // RFC 7118 §4.1
		http.Error(up, errSubprotocol.Error(), http.StatusBadRequest)
		return nil, errSubprotocol
	}
	// A browser within the allow-list must not lend its address to any page.
	w.ws, err = websocket.Accept(up, req, &websocket.AcceptOptions{
		Subprotocols: []string{subprotocol}, OriginPatterns: c.u.o.Origins,
		OnPingReceived: w.pinged, OnPongReceived: w.ponged,
	})
	if err != nil {
		return nil, err
	}
	w.ws.SetReadLimit(int64(c.u.o.MaxMessage))
	return w, nil
}

func offers(req *http.Request, protocol string) bool {
	for _, t := range tokens(req.Header.Values("Sec-WebSocket-Protocol")) {
		if t == protocol {
			return true
		}
	}
	return false
}

// upgrade is the response to the request that opens a WebSocket.
type upgrade struct {
	nc     net.Conn
	r      *bufio.Reader
	header http.Header
	begun  bool
}

// Header implements http.ResponseWriter.
func (u *upgrade) Header() http.Header { return u.header }

// WriteHeader implements http.ResponseWriter.
func (u *upgrade) WriteHeader(code int) {
	if u.begun {
		return
	}
	u.begun = true
	if code != http.StatusSwitchingProtocols {
		u.header.Set("Connection", "close")
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "HTTP/1.1 %d %s\r\n", code, http.StatusText(code))
	_ = u.header.Write(&b)
	b.WriteString("\r\n")
	_, _ = u.nc.Write(b.Bytes())
}

// Write implements http.ResponseWriter.
func (u *upgrade) Write(b []byte) (int, error) {
	u.WriteHeader(http.StatusOK)
	return u.nc.Write(b)
}

// Hijack implements http.Hijacker.
func (u *upgrade) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return u.nc, bufio.NewReadWriter(u.r, bufio.NewWriter(u.nc)), nil
}

// dialWS opens a WebSocket over a connection.
func dialWS(ctx context.Context, c *conn, nc net.Conn) (*webSocket, error) {
	given := false
	tr := &http.Transport{DisableKeepAlives: true, DialContext: func(context.Context, string, string) (net.Conn, error) {
		if given {
			return nil, errors.New("WebSocket: a second connection") // it redirects us
		}
		given = true
		return nc, nil
	}}
	defer tr.CloseIdleConnections()
	w := &webSocket{c: c, began: time.Now()}
	host := c.key.name
	if host == "" {
		host = c.key.addr.Addr().String()
	}
	var err error
	w.ws, _, err = websocket.Dial(ctx, "ws://"+hostPort(host, int(c.key.addr.Port()))+"/", &websocket.DialOptions{
		HTTPClient:   &http.Client{Transport: tr, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }},
		Subprotocols: []string{subprotocol}, OnPingReceived: w.pinged, OnPongReceived: w.ponged,
	})
	if err != nil {
		return nil, fmt.Errorf("WebSocket: %w", err)
	}
	if w.ws.Subprotocol() != subprotocol {
		_ = w.ws.CloseNow()
		return nil, errSubprotocol
	}
	w.ws.SetReadLimit(int64(c.u.o.MaxMessage))
	return w, nil
}

// pinged and ponged run while a message is read.
func (w *webSocket) pinged(context.Context, []byte) bool {
	w.c.alive()
	_ = w.c.nc.SetReadDeadline(w.c.patience(w.began, false))
	return true
}

func (w *webSocket) ponged(context.Context, []byte) {
	w.c.alive()
	w.c.pongs.Store(true)
}

func (w *webSocket) read() ([]byte, error) {
	for {
		_ = w.c.nc.SetReadDeadline(w.c.patience(w.began, false))
		_, r, err := w.ws.Reader(context.Background())
		if err != nil {
			return nil, err
		}
		_ = w.c.nc.SetReadDeadline(w.c.patience(time.Now(), true))
		b, err := io.ReadAll(r)
		if err != nil {
			return nil, err
		}
		w.c.alive()
		// Some clients keep alive as over TCP.
		if len(bytes.TrimLeft(b, "\r\n")) > 0 {
			w.began = time.Now()
			return b, nil
		}
		if len(b) >= 4 {
			if err := w.c.pinged(); err != nil {
				return nil, err
			}
		}
	}
}

func (w *webSocket) write(b []byte) error {
	kind := websocket.MessageText
	if !utf8.Valid(b) {
		kind = websocket.MessageBinary
	}
	return w.ws.Write(context.Background(), kind, b)
}

// ping returns when the peer has answered.
func (w *webSocket) ping(ctx context.Context) error { return w.ws.Ping(ctx) }

func (w *webSocket) pong() error { return w.write([]byte("\r\n")) }
func (w *webSocket) close()      { _ = w.ws.CloseNow() }
