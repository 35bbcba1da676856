package api

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"runtime"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"brewline/brewery"
	"brewline/config"
	"brewline/gateway/call"
	"brewline/gateway/trunk"
	"brewline/sip"
)

// Source is the gateway as seen from here.
type Source interface {
	Snapshot() Snapshot
	Shutdown() error // drains; an error says that it is not allowed

	// ListShards names the shards that have a brewery.
	ListShards() []string
	// AddShard takes a shard with a brewery, described by the properties of
	// Jigasi's accounts. It stays until RemoveShard or the end of the process.
	AddShard(id string, properties map[string]string) error
	// RemoveShard takes a shard away; its calls go on. ErrNoSuchShard if
	// there is none of that name.
	RemoveShard(id string) error
}

// Snapshot is the gateway's state at one moment, and what it has counted since
// its start.
type Snapshot struct {
	Version       string
	Draining      bool
	MaxCalls      int
	Trunks        []trunk.Status
	SIP           sip.Stats
	Calls         []call.Info
	Shards        []brewery.ShardStatus
	Locate        brewery.Stats
	Invites       uint64
	Answered      uint64
	TalkedSeconds uint64
	Moves         uint64 // callers who were alone and taken to another shard
	Rejoins       uint64 // conferences lost and looked for again
	PortsInUse    int
	Ended         map[string]uint64 // calls by end
	Quality       Quality
}

// Server serves HTTP until Close.
type Server struct {
	src Source
	cfg config.HTTP
	log *slog.Logger
	l   net.Listener
	srv *http.Server
}

// Listen binds cfg.Listen and serves.
func Listen(cfg config.HTTP, src Source, log *slog.Logger) (*Server, error) {
	l, err := net.Listen("tcp", cfg.Listen)
	if err != nil {
		return nil, err
	}
	s := &Server{src: src, cfg: cfg, log: log, l: l}
	s.srv = &http.Server{
		Handler: s.handler(), ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second,
		WriteTimeout: 30 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10,
	}
	go func() {
		if err := s.srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			log.Error("HTTP server stopped", "err", err)
		}
	}()
	log.Info("listening for HTTP", "address", l.Addr().String())
	return s, nil
}

// Addr is the address that was bound.
func (s *Server) Addr() string { return s.l.Addr().String() }

// Close ends the server, after running requests, one second at most.
func (s *Server) Close() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if s.srv.Shutdown(ctx) != nil {
		s.srv.Close()
	}
}

func (s *Server) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /about/health", s.health)
	mux.HandleFunc("GET /about/version", s.version)
	mux.HandleFunc("GET /about/stats", s.stats)
	mux.HandleFunc("POST /about/shutdown", s.shutdown)
	mux.HandleFunc("GET /configure/call-control-muc/list", s.listMUCs)
	mux.HandleFunc("POST /configure/call-control-muc/add", s.addMUC)
	mux.HandleFunc("POST /configure/call-control-muc/remove", s.removeMUC)
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry(s.src), promhttp.HandlerOpts{EnableOpenMetrics: true}))
	return mux
}

// health is 200 while at least one shard can be asked and used and at least one
// trunk is not known to be down, else 503 with the reason. A trunk that only
// takes calls is never down.
func (s *Server) health(w http.ResponseWriter, _ *http.Request) {
	snap := s.src.Snapshot()
	switch {
	case len(snap.Shards) == 0:
		fail(w, http.StatusServiceUnavailable, "no shard is configured")
	case up(snap.Shards) == 0:
		fail(w, http.StatusServiceUnavailable, "no shard is up: "+snap.Shards[0].Shard+": "+errText(snap.Shards[0].Err))
	case len(snap.Trunks) == 0:
		fail(w, http.StatusServiceUnavailable, "no trunk is configured")
	case !slices.ContainsFunc(snap.Trunks, func(t trunk.Status) bool { return !t.State.Down() }):
		fail(w, http.StatusServiceUnavailable, "no trunk works: "+snap.Trunks[0].Trunk+": "+snap.Trunks[0].Reason)
	default:
		reply(w, http.StatusOK, struct{}{})
	}
}

func errText(err error) string {
	if err == nil {
		return "connecting"
	}
	return err.Error()
}

func up(shards []brewery.ShardStatus) (n int) {
	for _, s := range shards {
		if s.State == brewery.Up {
			n++
		}
	}
	return n
}

func (s *Server) version(w http.ResponseWriter, _ *http.Request) {
	reply(w, http.StatusOK, map[string]string{
		"name": "Brewline", "version": s.src.Snapshot().Version, "os": runtime.GOOS,
	})
}

func (s *Server) stats(w http.ResponseWriter, _ *http.Request) {
	reply(w, http.StatusOK, jigasiStats(s.src.Snapshot(), time.Now()))
}

// shutdown drains, as Jigasi's does. Only loopback or the bearer of the token
// may ask.
func (s *Server) shutdown(w http.ResponseWriter, r *http.Request) {
	if !s.allowed(w, r) {
		return
	}
	if err := s.src.Shutdown(); err != nil {
		fail(w, http.StatusServiceUnavailable, err.Error())
		return
	}
	s.log.Info("drain asked for over HTTP", "from", r.RemoteAddr)
	reply(w, http.StatusOK, struct{}{})
}

func reply(w http.ResponseWriter, code int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	json.NewEncoder(w).Encode(v) // the client may have gone
}
