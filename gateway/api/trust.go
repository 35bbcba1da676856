package api

import (
	"crypto/subtle"
	"net/http"
	"net/netip"
	"strings"
)

// trusted says whether a request may change something: it comes from loopback
// or carries the token.
func (s *Server) trusted(r *http.Request) bool {
	if want := s.cfg.Token.Value(); want != "" {
		got, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		if ok && subtle.ConstantTimeCompare([]byte(got), []byte(want)) == 1 {
			return true
		}
	}
	from, err := netip.ParseAddrPort(r.RemoteAddr)
	return err == nil && from.Addr().Unmap().IsLoopback()
}
