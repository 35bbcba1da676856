package xmppd

import (
	"context"
	"io"
	"net"
	"net/http"
	"path"
	"sync"
	"time"
)

// handler serves what nginx and Prosody serve together: BOSH and WebSocket, also
// below a tenant's path, and a health check.
func (s *Server) handler(n *network) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !n.enter() {
			panic(http.ErrAbortHandler)
		}
		defer n.wg.Done()
		switch path.Base(r.URL.Path) {
		case "http-bind":
			s.serveBOSH(n, w, r)
		case "xmpp-websocket":
			s.serveWebSocket(n, w, r)
		case "health":
			s.stamp(w, nil)
			_, _ = io.WriteString(w, "OK")
		default:
			http.NotFound(w, r)
		}
	})
}

// stamp writes the headers that nginx adds; it does so on success only, since
// add_header without "always" leaves errors alone.
func (s *Server) stamp(w http.ResponseWriter, hit []*rule) {
	h := w.Header()
	shard := s.o.Shard
	for _, r := range hit {
		if r.Kind == Shard {
			shard = r.Value
		}
	}
	if shard != "" {
		h.Set("X-Jitsi-Shard", shard)
	}
	if s.o.Region != "" {
		h.Set("X-Jitsi-Region", s.o.Region)
	}
	h.Set("Access-Control-Allow-Origin", "*")
	h.Set("Access-Control-Allow-Methods", "GET, OPTIONS, POST")
	h.Set("Access-Control-Allow-Headers", "Content-Type")
	h.Set("Access-Control-Max-Age", "7200")
}

// serveBOSH is one HTTP exchange of the BOSH service.
func (s *Server) serveBOSH(n *network, w http.ResponseWriter, r *http.Request) {
	q := request(r)
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, s.o.MaxBody))
	if err != nil {
		http.Error(w, "Request Entity Too Large", http.StatusRequestEntityTooLarge)
		return
	}
	q.Body = string(body)
	b, perr := parseBody(q.Body)
	q.SID, q.RID = b.sid, b.rid
	rec := s.log.add(q)
	status := func(code int, answer string) {
		s.log.update(func() { rec.Status, rec.Answer = code, answer })
	}

	hit := s.faults.draw(q)
	for _, f := range hit {
		switch f.Kind {
		case Status:
			status(f.Code, "")
			http.Error(w, http.StatusText(f.Code), f.Code)
			return
		case Refuse:
			panic(http.ErrAbortHandler)
		}
	}
	lim, _ := r.Context().Value(limitKey{}).(*limiter)
	if err := lim.wait(r.Context(), len(q.Body)+500, s.o.C2SBytesPerSecond); err != nil {
		return
	}

	switch r.Method {
	case http.MethodPost:
	case http.MethodGet:
		s.stamp(w, hit)
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		status(http.StatusOK, "")
		_, _ = io.WriteString(w, "<p>It works! Now point your BOSH client to this URL to connect to Prosody.</p>")
		return
	case http.MethodOptions:
		s.stamp(w, hit)
		status(http.StatusOK, "")
		return
	default:
		http.Error(w, "Method Not Allowed", http.StatusMethodNotAllowed)
		return
	}

	answer, ok := s.bindRequest(r.Context(), n, b, perr, q, lim)
	if !ok { // the client, or the server, is gone
		panic(http.ErrAbortHandler)
	}
	for _, f := range hit {
		switch f.Kind {
		case Drop:
			panic(http.ErrAbortHandler)
		case Late:
			if !sleep(r.Context(), f.Delay) {
				return
			}
		case Stall:
			select {
			case <-f.cleared:
			case <-r.Context().Done():
				return
			}
		}
	}
	if s.faults.quiet(r.Context()) != nil {
		return
	}
	s.stamp(w, hit)
	w.Header().Set("Content-Type", "text/xml; charset=utf-8")
	status(http.StatusOK, answer)
	_, _ = io.WriteString(w, answer)
}

func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// limiter imitates mod_limits: an HTTP connection on which a BOSH session was
// created counts as a client's and is not read for bytes/rate seconds after each
// read.
type limiter struct {
	mu      sync.Mutex
	limited bool
	until   time.Time
}

type limitKey struct{}

func limitContext(ctx context.Context, _ net.Conn) context.Context {
	return context.WithValue(ctx, limitKey{}, &limiter{})
}

func (l *limiter) wait(ctx context.Context, bytes, rate int) error {
	if l == nil || rate <= 0 {
		return nil
	}
	l.mu.Lock()
	d := time.Until(l.until)
	if l.limited {
		l.until = time.Now().Add(max(d, 0) + time.Duration(bytes)*time.Second/time.Duration(rate))
	}
	l.mu.Unlock()
	if d > 0 && !sleep(ctx, d) {
		return ctx.Err()
	}
	return nil
}

// limit marks the connection as a client's.
func (l *limiter) limit() {
	if l != nil {
		l.mu.Lock()
		l.limited = true
		l.mu.Unlock()
	}
}
