package transport

import (
	"context"
	"fmt"
	"log/slog"
	"strings"

	"github.com/pion/logging"
)

// pionLog passes Pion's log lines on at debug level, whatever their own: most
// of its warnings can be provoked by a stranger's packet.
type pionLog struct{ log *slog.Logger }

func (l pionLog) NewLogger(scope string) logging.LeveledLogger {
	return pionLog{l.log.With("pion", scope)}
}

func (l pionLog) line(msg string) { l.log.Debug(msg) }

func (l pionLog) linef(format string, args ...any) {
	if strings.Contains(format, "remotePwd") {
		return // secrets are not logged
	}
	if l.log.Enabled(context.Background(), slog.LevelDebug) {
		l.log.Debug(fmt.Sprintf(format, args...))
	}
}

func (l pionLog) Trace(string)                      {} // every check and record
func (l pionLog) Tracef(string, ...any)             {}
func (l pionLog) Debug(msg string)                  { l.line(msg) }
func (l pionLog) Debugf(format string, args ...any) { l.linef(format, args...) }
func (l pionLog) Info(msg string)                   { l.line(msg) }
func (l pionLog) Infof(format string, args ...any)  { l.linef(format, args...) }
func (l pionLog) Warn(msg string)                   { l.line(msg) }
func (l pionLog) Warnf(format string, args ...any)  { l.linef(format, args...) }
func (l pionLog) Error(msg string)                  { l.line(msg) }
func (l pionLog) Errorf(format string, args ...any) { l.linef(format, args...) }
