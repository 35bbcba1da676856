package media

import (
	"log/slog"
	"time"
)

// PacerOptions are the parameters of [NewPacer].
type PacerOptions struct {
	// Workers is the number of goroutines that run bridges, default
	// GOMAXPROCS. Negative: none, the owner calls Tick.
	Workers int
	Logger  *slog.Logger // default slog.Default
}

// Pacer runs bridges.
type Pacer struct {
	o PacerOptions
}

// NewPacer starts the workers of a pacer.
func NewPacer(o PacerOptions) *Pacer { return &Pacer{o: o} }

// Close stops the workers. Bridges should be closed before.
func (p *Pacer) Close() {}

// Tick runs every bridge whose time has come at now, on the clock of
// transport.Now. It is for a pacer without workers.
func (p *Pacer) Tick(now time.Duration) {}
