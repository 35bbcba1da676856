package xmpp

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/coder/websocket"

	"brewline/xmpp/bosh"
	"brewline/xmpp/internal/dial"
	"brewline/xmpp/internal/split"
)

const nsFraming = "urn:ietf:params:xml:ns:xmpp-framing"

// wsWire carries one element per message (RFC 7395).
type wsWire struct {
	c      *websocket.Conn
	tr     *http.Transport
	domain string
	max    int
	ctx    context.Context
	cancel context.CancelFunc
}

func dialWebSocket(ctx context.Context, url string, o Options) (transport, error) {
	w := &wsWire{domain: o.Domain, max: o.MaxStanza}
	w.ctx, w.cancel = context.WithCancel(context.Background())
	w.tr = &http.Transport{
		DialContext: func(ctx context.Context, _, addr string) (net.Conn, error) { return dial.TCP(ctx, addr) },
		DialTLSContext: func(ctx context.Context, _, addr string) (net.Conn, error) {
			return dial.TLS(ctx, addr, o.TLS, "http/1.1")
		},
		DisableKeepAlives: true,
	}
	c, res, err := websocket.Dial(ctx, url, &websocket.DialOptions{
		HTTPClient: &http.Client{
			Transport:     w.tr,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		Subprotocols: []string{"xmpp"},
	})
	if err != nil {
		w.cancel()
		w.tr.CloseIdleConnections()
		if res != nil && res.StatusCode != http.StatusSwitchingProtocols {
			return nil, &bosh.StatusError{Code: res.StatusCode, Location: res.Header.Get("Location")}
		}
		return nil, fmt.Errorf("websocket: %w", dial.WithoutURL(err))
	}
	w.c = c
	c.SetReadLimit(-1) // read keeps to max by itself, without ending the stream
	s := newStream(w, o, res.Header.Get(o.ShardHeader))
	if c.Subprotocol() != "xmpp" {
		err = errors.New("server does not speak the xmpp subprotocol")
	} else {
		err = s.Send(w.open())
	}
	if err != nil {
		s.Abort(err)
		s.Wait()
		return nil, err
	}
	return s, nil
}

func (w *wsWire) framing(name string) []byte {
	var to strings.Builder
	_ = xml.EscapeText(&to, []byte(w.domain))
	return []byte("<" + name + " xmlns='" + nsFraming + "' to='" + to.String() + "' version='1.0'/>")
}

func (w *wsWire) open() []byte { return w.framing("open") }
func (w *wsWire) end() []byte  { return []byte("<close xmlns='" + nsFraming + "'/>") }
func (w *wsWire) restart()     {}

func (w *wsWire) read() (split.Element, error) {
	for {
		typ, r, err := w.c.Reader(w.ctx)
		if err != nil {
			return split.Element{}, err
		}
		el, ok, err := w.message(r)
		if err != nil {
			return split.Element{}, err
		}
		if typ != websocket.MessageText || !ok {
			continue
		}
		switch elementName(el.Data) {
		case xml.Name{Space: nsFraming, Local: "open"}:
			continue
		case xml.Name{Space: nsFraming, Local: "close"}:
			return split.Element{}, errStreamEnd
		}
		return el, nil
	}
}

// one takes the first element of a message.
type one struct {
	el  split.Element
	got bool
}

func (o *one) Root([]byte) error { return nil }
func (o *one) End() error        { return nil }
func (o *one) Element(e split.Element) error {
	if !o.got {
		o.el, o.got = e, true
	}
	return nil
}

// message reads one message; what is wrong with it is not to spoil the ones
// after it.
func (w *wsWire) message(r io.Reader) (el split.Element, ok bool, err error) {
	var o one
	s := split.New(&o, w.max, false)
	buf := make([]byte, 4096)
	for broken := false; ; {
		n, err := r.Read(buf)
		if !broken && s.Feed(buf[:n]) != nil {
			broken = true
			if !o.got {
				o = one{el: split.Element{Bad: true}, got: true}
			}
		}
		if err == io.EOF {
			return o.el, o.got, nil
		}
		if err != nil {
			return el, false, err
		}
	}
}

func (w *wsWire) write(els [][]byte, timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(w.ctx, timeout)
	defer cancel()
	for _, el := range els {
		if err := w.c.Write(ctx, websocket.MessageText, el); err != nil {
			return err
		}
	}
	return nil
}

func (w *wsWire) shut() {
	w.cancel()
	_ = w.c.CloseNow()
	w.tr.CloseIdleConnections()
}
