package sip

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/emiago/sipgo/sip"
)

// ErrExpired says that the session timer ran out (RFC 4028 §10).
var ErrExpired = errors.New("sip: the session was not refreshed (RFC 4028)")

// timer is a dialog's session timer (RFC 4028).
type timer struct {
	interval time.Duration // 0: the session does not expire
	min      time.Duration // the longest Min-SE that was heard of
	ours     bool          // the refreshing
	t        *time.Timer
	run      int // counts restarts
}

// sessionExpires reads Session-Expires; 0: none, or unreadable.
func sessionExpires(m message) (interval time.Duration, refresher string) {
	v := headerValues(m, "Session-Expires")
	if len(v) == 0 {
		return 0, ""
	}
	parts := splitQuoted(v[0], ';')
	for _, p := range parts[1:] {
		if k, val, _ := strings.Cut(p, "="); strings.EqualFold(strings.TrimSpace(k), "refresher") {
			refresher = strings.ToLower(strings.TrimSpace(val))
		}
	}
	return deltaSeconds(parts[0]), refresher
}

// minSE reads Min-SE.
func minSE(m message) time.Duration {
	v := headerValues(m, "Min-SE")
	if len(v) == 0 {
		return 0
	}
	s, _, _ := strings.Cut(v[0], ";")
	return deltaSeconds(s)
}

func deltaSeconds(s string) time.Duration { return seconds([]string{s}) }

// expires writes Session-Expires; a part of a second counts as a whole one.
func expires(interval time.Duration, refresher string) Header {
	s := wholeSeconds(interval)
	if refresher != "" {
		s += ";refresher=" + refresher
	}
	return Header{"Session-Expires", s}
}

func wholeSeconds(d time.Duration) string {
	return strconv.Itoa(int(math.Ceil(d.Seconds())))
}

// agreement is what a 2xx to an INVITE or UPDATE says of the session timer.
type agreement struct {
	interval time.Duration
	ours     bool
	headers  []Header
}

// tooSmall returns the answer to a request whose session interval is shorter
// than we take part in (RFC 4028 §9).
func (u *UA) tooSmall(req *sip.Request) (int, Header) {
	if se, _ := sessionExpires(req); se > 0 && se < u.o.MinSE && supports(req, "timer") {
		return 422, Header{"Min-SE", wholeSeconds(u.o.MinSE)}
	}
	return 0, Header{}
}

// agree says how long the session lives after a request of the peer's that is
// about to be accepted (RFC 4028 §9). Where nobody else does, we refresh.
// d.mu is held.
func (d *Dialog) agree(req *sip.Request) agreement {
	se, refresher := sessionExpires(req)
	d.timer.min = max(d.timer.min, minSE(req))
	want := d.wanted()
	theirs := supports(req, "timer")
	a := agreement{ours: refresher != "uac" || !theirs}
	switch {
	case se > 0 && want > 0:
		a.interval = min(se, max(want, minSE(req)))
	case se > 0:
		a.interval = se
	case want > 0:
		a.interval = want
	default:
		return agreement{}
	}
	who := "uac"
	if a.ours {
		who = "uas"
	}
	a.headers = []Header{expires(a.interval, who)}
	if theirs {
		a.headers = append(a.headers, Header{"Require", "timer"})
	}
	return a
}

// wanted is the interval that we ask for; 0: none. d.mu is held.
func (d *Dialog) wanted() time.Duration {
	if d.policy.SessionTimer <= 0 {
		return 0
	}
	return max(d.policy.SessionTimer, d.u.o.MinSE, d.timer.min)
}

// ask has a request of ours ask for a session timer. d.mu is held.
func (d *Dialog) ask(req *sip.Request) {
	if d.timer.min > 0 {
		appendHeader(req, Header{"Min-SE", wholeSeconds(d.timer.min)})
	}
	switch {
	case d.timer.interval > 0:
		who := "uas"
		if d.timer.ours {
			who = "uac"
		}
		appendHeader(req, expires(max(d.timer.interval, d.timer.min), who))
	case d.wanted() > 0:
		appendHeader(req, expires(d.wanted(), ""))
	}
}

// agreed takes what a 2xx to a request of ours says (RFC 4028 §7.2). Where
// the peer knows nothing of timers, we refresh. d.mu is held.
func (d *Dialog) agreed(res *sip.Response) {
	se, refresher := sessionExpires(res)
	switch {
	case se > 0:
		d.watch(max(se, time.Second), refresher != "uas")
	case d.wanted() > 0:
		d.watch(d.wanted(), true)
	default:
		d.watch(0, false)
	}
}

// watch starts the session timer anew. d.mu is held.
func (d *Dialog) watch(interval time.Duration, ours bool) {
	if d.timer.t != nil {
		d.timer.t.Stop()
	}
	d.timer.run++
	d.timer.interval, d.timer.ours = interval, ours
	if interval <= 0 || d.state == ended {
		return
	}
	run := d.timer.run
	if ours {
		d.timer.t = time.AfterFunc(interval/2, func() { d.u.spawn(func() { d.refresh(run) }) })
	} else {
		d.timer.t = time.AfterFunc(lastRefresh(interval), func() { d.overdue(run) })
	}
}

// lastRefresh is when a session that was not refreshed is given up (RFC 4028 §10).
func lastRefresh(interval time.Duration) time.Duration {
	return interval - min(32*time.Second, interval/3)
}

func (d *Dialog) overdue(run int) {
	d.mu.Lock()
	gone := d.timer.run != run || d.state == ended
	d.mu.Unlock()
	if !gone {
		d.abandon(ErrExpired, Reason{Cause: 102, Text: "session timer expired"})
	}
}

// refresh keeps the session alive: by UPDATE if the peer allows it, else by a
// re-INVITE with the session description that is in force (RFC 4028 §7.4).
func (d *Dialog) refresh(run int) {
	d.mu.Lock()
	if d.timer.run != run || d.state == ended {
		d.mu.Unlock()
		return
	}
	interval := d.timer.interval
	d.mu.Unlock()
	ctx, cancel := context.WithTimeout(d.u.ctx, lastRefresh(interval)-interval/2)
	defer cancel()
	for {
		err := d.refreshOnce(ctx)
		var se *StatusError
		switch {
		case err == nil || errors.Is(err, ErrEnded):
			return
		case errors.Is(err, ErrTimeout) || errors.As(err, &se) && (se.Code == 481 || se.Code == 408):
			d.abandon(fmt.Errorf("%w: %w", ErrExpired, err), Reason{Cause: 102, Text: "session refresh not answered"})
			return
		}
		t := time.NewTimer(max(interval/16, 10*time.Millisecond))
		select {
		case <-t.C:
			continue
		case <-ctx.Done():
			t.Stop()
		case <-d.done:
			t.Stop()
			return
		}
		d.overdue(run)
		return
	}
}

func (d *Dialog) refreshOnce(ctx context.Context) error {
	d.mu.Lock()
	update, offer := d.updates, d.localSDP
	d.mu.Unlock()
	if update || offer == nil {
		_, err := d.again(ctx, sip.UPDATE, nil)
		var se *StatusError
		if !errors.As(err, &se) || se.Code != 405 && se.Code != 501 {
			return err
		}
		d.mu.Lock()
		d.updates = false
		d.mu.Unlock()
	}
	if offer == nil {
		return ErrState
	}
	answer, err := d.again(ctx, sip.INVITE, offer)
	if err == nil {
		d.post(false, func(h DialogHandler) {
			if h.Refreshed != nil {
				h.Refreshed(offer, answer)
			}
		})
	}
	return err
}

// raise adapts an INVITE of ours to a 422, and reports whether it may be sent
// again (RFC 4028 §7.3).
func (c *outgoing) raise(res *sip.Response) bool {
	m := minSE(res)
	if res.StatusCode != 422 || m <= c.min || m > 24*time.Hour {
		return false
	}
	c.min = m
	c.req.RemoveHeader("Session-Expires")
	c.req.RemoveHeader("Min-SE")
	appendHeader(c.req, expires(max(c.policy.SessionTimer, m), ""))
	appendHeader(c.req, Header{"Min-SE", wholeSeconds(m)})
	return true
}
