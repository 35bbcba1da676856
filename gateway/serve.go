package gateway

import (
	"context"
	"fmt"
	"io"
	"log/slog"

	"brewline/config"
)

// Serve runs the gateway of a configuration file until drain ends: then it
// takes no new calls and returns when the running ones are over, when
// gateway.drain_timeout has passed, or when force ends. Each value from reload,
// and each change in the folder shards.d beside the file, makes it read the
// files again; what is wrong changes nothing.
func Serve(drain, force context.Context, path string, reload <-chan struct{}, logs io.Writer, o Options) error {
	shards := fingerprint(shardsDir(path))
	cfg, err := config.Load(path)
	if err != nil {
		return err
	}
	level := new(slog.LevelVar)
	o.Logger = logger(logs, cfg.Log, level)
	ctx, stop := context.WithCancel(context.Background())
	changed := watchShards(ctx, shardsDir(path), shards, watchSettle, watchPoll, o.Logger)
	defer func() {
		stop()
		for range changed { // until it is closed
		}
	}()
	g, err := Start(context.WithoutCancel(force), cfg, o)
	if err != nil {
		return err
	}
	defer g.Close()
	o.Logger.Info("brewline is up", "version", o.Version, "deployments", len(cfg.Deployments),
		"shards", len(cfg.Shards), "trunks", len(cfg.Trunks))
	for {
		select {
		case <-g.Asked():
			return finish(g, force)
		case <-drain.Done():
			return finish(g, force)
		case <-reload:
		case <-changed:
		}
		next, err := config.Load(path)
		if err == nil {
			level.UnmarshalText([]byte(next.Log.Level)) // checked by Load
			err = g.Reload(next)
		}
		if err != nil {
			o.Logger.Error("configuration not reloaded, the old one stays in force", "err", err)
		}
	}
}

// finish waits for the running calls.
func finish(g *Gateway, force context.Context) error {
	timeout := g.Config().Gateway.DrainTimeout.Duration
	ctx, cancel := context.WithTimeout(force, timeout)
	defer cancel()
	g.Drain(ctx)
	if ctx.Err() != nil && force.Err() == nil {
		g.log.Warn("calls are still running after gateway.drain_timeout, hanging up", "waited", timeout)
	}
	return nil
}

func logger(w io.Writer, c config.Log, level *slog.LevelVar) *slog.Logger {
	if err := level.UnmarshalText([]byte(c.Level)); err != nil {
		panic(fmt.Sprintf("log.level %q passed the checks", c.Level))
	}
	ho := &slog.HandlerOptions{Level: level}
	if c.Format == "json" {
		return slog.New(slog.NewJSONHandler(w, ho))
	}
	return slog.New(slog.NewTextHandler(w, ho))
}
