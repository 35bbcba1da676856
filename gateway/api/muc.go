package api

import (
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// ErrNoSuchShard: a shard to remove is not there.
var ErrNoSuchShard = errors.New("no such control MUC")

// Bounds of what is posted.
const (
	maxBody = 64 << 10 // bytes
	maxID   = 128      // bytes of an id
)

// listMUCs gives the ids of all shards that have a brewery, as Jigasi's
// GET /configure/call-control-muc/list.
func (s *Server) listMUCs(w http.ResponseWriter, r *http.Request) {
	if !s.allowed(w, r) {
		return
	}
	ids := s.src.ListShards()
	if ids == nil {
		ids = []string{}
	}
	reply(w, http.StatusOK, ids)
}

// addMUC takes a brewery account as Jigasi's properties describe it.
func (s *Server) addMUC(w http.ResponseWriter, r *http.Request) {
	s.changeMUC(w, r, func(id string, properties map[string]string) error { return s.src.AddShard(id, properties) })
}

// removeMUC takes an id away; its calls go on.
func (s *Server) removeMUC(w http.ResponseWriter, r *http.Request) {
	s.changeMUC(w, r, func(id string, _ map[string]string) error { return s.src.RemoveShard(id) })
}

func (s *Server) changeMUC(w http.ResponseWriter, r *http.Request, change func(string, map[string]string) error) {
	if !s.allowed(w, r) {
		return
	}
	if t, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || t != "application/json" {
		fail(w, http.StatusUnsupportedMediaType, "Content-Type must be application/json")
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		fail(w, http.StatusBadRequest, err.Error())
		return
	}
	id, properties, err := parseMUC(body)
	if err == nil {
		err = change(id, properties)
	}
	if err != nil {
		s.log.Warn("control MUC not changed", "request", r.URL.Path, "from", r.RemoteAddr, "err", err)
		fail(w, http.StatusBadRequest, err.Error())
		return
	}
	reply(w, http.StatusOK, struct{}{})
}

// parseMUC reads the id and the properties of an account. As in Jigasi's own
// configuration, all properties are texts; numbers and truth values are taken
// as such.
func parseMUC(body []byte) (id string, properties map[string]string, err error) {
	var raw map[string]any
	if err := json.Unmarshal(body, &raw); err != nil {
		return "", nil, err
	}
	id, _ = raw["id"].(string)
	if id == "" || len(id) > maxID || !utf8.ValidString(id) || strings.ContainsFunc(id, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return "", nil, errors.New("id is no usable text")
	}
	properties = make(map[string]string, len(raw))
	for name, value := range raw {
		switch v := value.(type) {
		case string:
			properties[name] = v
		case bool:
			properties[name] = strconv.FormatBool(v)
		case float64:
			properties[name] = strconv.FormatFloat(v, 'f', -1, 64)
		}
	}
	delete(properties, "id")
	return id, properties, nil
}

// allowed refuses requests that may not change anything.
func (s *Server) allowed(w http.ResponseWriter, r *http.Request) bool {
	if s.trusted(r) {
		return true
	}
	fail(w, http.StatusForbidden, "ask from loopback, or with the token of http.token")
	return false
}

func fail(w http.ResponseWriter, code int, reason string) {
	reply(w, code, map[string]string{"reason": reason})
}
