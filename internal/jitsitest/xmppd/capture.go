package xmppd

import (
	"net/http"
	"strings"
	"sync"
	"time"
)

const captureMax = 20000

// capture remembers requests.
type capture struct {
	mu   sync.Mutex
	list []*Request
}

// add records a request.
func (c *capture) add(q Request) *Request {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.list) < captureMax {
		c.list = append(c.list, &q)
	}
	return &q
}

// update changes a record.
func (c *capture) update(f func()) {
	c.mu.Lock()
	f()
	c.mu.Unlock()
}

// Requests lists the HTTP requests so far (the first 20 000), oldest first.
func (s *Server) Requests() []Request {
	s.log.mu.Lock()
	defer s.log.mu.Unlock()
	out := make([]Request, len(s.log.list))
	for i, r := range s.log.list {
		out[i] = *r
	}
	return out
}

// ForgetRequests empties the list of Requests.
func (s *Server) ForgetRequests() {
	s.log.mu.Lock()
	s.log.list = nil
	s.log.mu.Unlock()
}

func request(r *http.Request) Request {
	q := r.URL.Query()
	out := Request{
		At: time.Now(), Method: r.Method, Path: r.URL.Path, Query: r.URL.RawQuery, Host: r.Host,
		Header: r.Header.Clone(), Room: q.Get("room"), Prefix: q.Get("prefix"), Token: q.Get("token"),
	}
	if tenant := tenantOf(r.URL.Path); tenant != "" {
		out.Prefix = tenant
	}
	return out
}

// tenantOf is the path segment before the service's name, "" if there is none.
func tenantOf(path string) string {
	parts := strings.Split(strings.Trim(path, "/"), "/")
	if len(parts) < 2 {
		return ""
	}
	return strings.ToLower(parts[len(parts)-2])
}
