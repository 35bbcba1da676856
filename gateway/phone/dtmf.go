package phone

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"brewline/media"
)

const (
	typeRelay = "application/dtmf-relay"
	typeDTMF  = "application/dtmf"
	// maxInfo bounds the body of an INFO that is read.
	maxInfo = 512
	// maxInfos bounds the digits that wait to be sent by INFO.
	maxInfos = 32
	// infoTimeout bounds one INFO.
	infoTimeout = 10 * time.Second

	digitNames = "0123456789*#ABCD"
)

// ParseInfo reads the digit of an INFO request: application/dtmf-relay has lines
// as "Signal=5" and "Duration=160", in milliseconds, application/dtmf nothing
// but the digit. Instead of its name a digit may have the number of its
// telephone-event, 10 to 15.
func ParseInfo(contentType string, body []byte) (digit byte, d time.Duration, ok bool) {
	if len(body) > maxInfo {
		return 0, 0, false
	}
	kind, _, _ := strings.Cut(contentType, ";")
	signal := ""
	switch strings.ToLower(strings.TrimSpace(kind)) {
	case typeRelay:
		for line := range strings.Lines(string(body)) {
			name, value, _ := strings.Cut(line, "=")
			value = strings.TrimSpace(value)
			switch strings.ToLower(strings.TrimSpace(name)) {
			case "signal":
				signal = value
			case "duration":
				if ms, err := strconv.ParseUint(value, 10, 16); err == nil {
					d = time.Duration(ms) * time.Millisecond
				}
			}
		}
	case typeDTMF:
		signal = strings.TrimSpace(string(body))
		if _, value, named := strings.Cut(signal, "="); named { // some send a line of the other type
			signal = strings.TrimSpace(value)
		}
	default:
		return 0, 0, false
	}
	if n, err := strconv.ParseUint(signal, 10, 8); err == nil && n < uint64(len(digitNames)) {
		return digitNames[n], d, true
	}
	signal = strings.ToUpper(signal)
	if len(signal) != 1 || !strings.Contains(digitNames, signal) {
		return 0, 0, false
	}
	return signal[0], d, true
}

// formatInfo is the body of application/dtmf-relay.
func formatInfo(d media.Digit) []byte {
	return fmt.Appendf(nil, "Signal=%c\r\nDuration=%d\r\n", d.Key, max(d.Duration.Milliseconds(), 100))
}

// SendDigit sends the phone a digit that a participant of the meeting has
// pressed, in the way of Options.DTMF. It does not wait. Errors:
// media.ErrNoPhone, media.ErrNoEvents, media.ErrDigits.
func (l *Leg) SendDigit(d media.Digit) error {
	l.mu.Lock()
	events, dialog := l.media != nil && l.media.EventPT != 0, l.d
	l.mu.Unlock()
	switch l.o.DTMF {
	case "info":
		if dialog == nil {
			return media.ErrNoPhone
		}
		return l.infos.add(d, func(ctx context.Context, d media.Digit) {
			if err := dialog.Info(ctx, typeRelay, formatInfo(d)); err != nil && !errors.Is(err, context.Canceled) {
				l.o.Logger.Info("digit of the meeting not sent", "way", "info", "why", err)
			}
		})
	case "rtp":
		return l.o.Audio.SendDigit(d.Key, d.Duration, false)
	case "inband":
		return l.o.Audio.SendDigit(d.Key, d.Duration, true)
	}
	return l.o.Audio.SendDigit(d.Key, d.Duration, !events)
}

// infos sends digits one after another, each when the one before was answered.
// Its zero value is ready.
type infos struct {
	mu      sync.Mutex
	waiting []media.Digit
	running bool
	closed  bool
	cancel  context.CancelFunc
	wg      sync.WaitGroup
}

// add has a digit sent after those that wait.
func (q *infos) add(d media.Digit, send func(context.Context, media.Digit)) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case q.closed:
		return media.ErrNoPhone
	case len(q.waiting) >= maxInfos:
		return media.ErrDigits
	}
	q.waiting = append(q.waiting, d)
	if q.running {
		return nil
	}
	q.running = true
	ctx, cancel := context.WithCancel(context.Background())
	q.cancel = cancel
	q.wg.Go(func() {
		defer cancel()
		for {
			q.mu.Lock()
			if q.closed || len(q.waiting) == 0 {
				q.running = false
				q.mu.Unlock()
				return
			}
			d := q.waiting[0]
			q.waiting = q.waiting[1:]
			q.mu.Unlock()
			one, done := context.WithTimeout(ctx, infoTimeout)
			send(one, d)
			done()
		}
	})
	return nil
}

// close drops what waits and returns when nothing is under way any more.
func (q *infos) close() {
	q.mu.Lock()
	q.closed = true
	if q.cancel != nil {
		q.cancel()
	}
	q.mu.Unlock()
	q.wg.Wait()
}
