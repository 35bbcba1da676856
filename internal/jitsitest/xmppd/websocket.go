package xmppd

import (
	"context"
	"net/http"
	"strings"
	"time"

	"github.com/coder/websocket"
)

// ws is a client stream over WebSocket (RFC 7395).
type ws struct {
	s    *Server
	conn *websocket.Conn
	q    *queue
	id   string
	open bool
	from string
}

func (w *ws) send(e *element) {
	if !w.q.put(e.encode("", nsClient), false) {
		_ = w.conn.CloseNow()
	}
}

func (w *ws) header() {
	w.open = true
	w.q.put(el(nsFraming, "open", "from", w.from, "id", w.id, "version", "1.0", "xml:lang", "en").encode("", nsClient), false)
}

func (w *ws) end(condition, text string) {
	if !w.open {
		w.header()
	}
	if condition != "" {
		e := el(nsStream, "error").add(el(nsStreams, condition))
		if text != "" {
			e.add(el(nsStreams, "text").add(text))
		}
		w.q.put(framed(e), false)
	}
	w.q.put(el(nsFraming, "close").encode("", nsClient), true)
}

func (w *ws) cut() { w.q.put("", true); _ = w.conn.CloseNow() }

// framed writes an element of the stream namespace alone, with its prefix.
func framed(e *element) string {
	t := e.encode(nsClient, nsClient)
	return strings.Replace(t, "<stream:"+e.Name, "<stream:"+e.Name+" xmlns:stream='"+nsStream+"' xmlns='jabber:client'", 1)
}

// serveWebSocket serves one client.
func (s *Server) serveWebSocket(n *network, w http.ResponseWriter, r *http.Request) {
	q := request(r)
	rec := s.log.add(q)
	hit := s.faults.draw(q)
	for _, f := range hit {
		switch f.Kind {
		case Status:
			s.log.update(func() { rec.Status = f.Code })
			http.Error(w, http.StatusText(f.Code), f.Code)
			return
		case Refuse:
			panic(http.ErrAbortHandler)
		}
	}
	s.stamp(w, hit)
	if r.Method == http.MethodGet && r.Header.Get("Upgrade") == "" { // how clients look whether the shard is still the same
		s.log.update(func() { rec.Status = http.StatusOK })
		w.WriteHeader(http.StatusOK)
		return
	}
	conn, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{"xmpp"}, InsecureSkipVerify: true})
	if err != nil {
		return
	}
	defer func() { _ = conn.CloseNow() }()
	conn.SetReadLimit(s.o.MaxBody)
	s.log.update(func() { rec.Status = http.StatusSwitchingProtocols })
	closer := closeNow{conn}
	if conn.Subprotocol() != "xmpp" || !n.hold(closer) {
		return
	}
	defer n.drop(closer)
	t := &ws{s: s, conn: conn, q: newQueue(), id: randomUUID()}
	x := &session{s: s, id: t.id, out: t, secure: true, web: true, token: Token{Token: q.Token, Room: q.Room, Prefix: q.Prefix}}
	s.runWebSocket(n.ctx, t, x)
}

type closeNow struct{ *websocket.Conn }

func (c closeNow) Close() error { return c.CloseNow() }

func (s *Server) runWebSocket(ctx context.Context, t *ws, x *session) {
	ctx, cancel := context.WithCancel(ctx)
	written := make(chan struct{})
	go func() {
		defer close(written)
		defer cancel()
		for {
			items, last, err := t.q.take(ctx)
			if err != nil || s.faults.quiet(ctx) != nil {
				return
			}
			for _, i := range items {
				if t.conn.Write(ctx, websocket.MessageText, []byte(i)) != nil {
					return
				}
			}
			if last {
				_ = t.conn.Close(websocket.StatusNormalClosure, "")
				return
			}
		}
	}()
	defer func() {
		s.mu.Lock()
		x.destroy("connection closed")
		t.q.put("", true)
		s.mu.Unlock()
		<-written
	}()
	deadline := time.AfterFunc(s.o.Timing.Handshake, func() { _ = t.conn.CloseNow() })
	defer deadline.Stop()
	for {
		typ, data, err := t.conn.Read(ctx)
		if err != nil {
			return
		}
		e, err := parse(strings.TrimSpace(string(data)))
		s.mu.Lock()
		switch {
		case s.down || x.closed:
		case typ != websocket.MessageText || err != nil:
			x.close("not-well-formed", "")
		case e.NS == nsFraming && e.Name == "open":
			s.openFramed(t, x, e)
		case e.NS == nsFraming && e.Name == "close":
			x.close("", "")
		case x.host == nil:
			x.close("not-authorized", "")
		default:
			x.handle(e)
		}
		if x.jid.resource != "" {
			deadline.Stop()
		}
		over := x.closed || s.down
		s.mu.Unlock()
		if over {
			return
		}
	}
}

// openFramed answers <open/>, the first one and the one after the login.
func (s *Server) openFramed(t *ws, x *session, e *element) {
	host := s.hosts[strings.ToLower(e.attr("to"))]
	if host == nil || x.host != nil && x.host != host {
		x.close("host-unknown", "This server does not serve "+e.attr("to"))
		return
	}
	x.host, t.from = host, host.Domain
	s.streams[x] = struct{}{}
	t.header()
	t.q.put(framed(x.features()), false)
}
