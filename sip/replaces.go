package sip

import (
	"strings"
	"time"
)

// parseReplaces reads a Replaces header field (RFC 3891 §6.1): the dialog as
// the side that it is sent to sees it.
func parseReplaces(v string) (id dialogID, earlyOnly, ok bool) {
	parts := strings.Split(v, ";")
	id.call = strings.TrimSpace(parts[0])
	to, from := false, false
	for _, p := range parts[1:] {
		k, val, _ := strings.Cut(p, "=")
		val = strings.TrimSpace(val)
		switch strings.ToLower(strings.TrimSpace(k)) {
		case "to-tag":
			if to {
				return id, false, false
			}
			id.local, to = val, true
		case "from-tag":
			if from {
				return id, false, false
			}
			id.remote, from = val, true
		case "early-only":
			earlyOnly = true
		}
	}
	return id, earlyOnly, id.call != "" && id.local != "" && id.remote != "" && !strings.Contains(v, ",")
}

// replaced finds the dialog that an INVITE wants to replace (RFC 3891 §3). A
// code other than 0 refuses it. Only calls of the same trunk are found.
func (u *UA) replaced(trunk string, values []string) (*Dialog, int) {
	if len(values) != 1 {
		return nil, 400
	}
	id, earlyOnly, ok := parseReplaces(values[0])
	if !ok {
		return nil, 400
	}
	if !u.o.Policy(trunk).Transfer {
		return nil, 603
	}
	u.mu.Lock()
	d := u.dialogs[id]
	if d == nil && id.remote == "0" { // a peer without tags (RFC 2543)
		id.remote = ""
		d = u.dialogs[id]
	}
	u.mu.Unlock()
	if d == nil || d.Trunk() != trunk {
		return nil, 481
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.state == ended || d.byeing:
		return nil, 603
	case d.state == early && !d.outgoing():
		return nil, 481
	case d.state != early && earlyOnly:
		return nil, 486
	}
	return d, 0
}

// replace tells the owner of d about a call that wants to take its place.
func (d *Dialog) replace(by *Dialog) {
	by.mu.Lock()
	if by.state == early {
		if by.expires != nil {
			by.expires.Stop()
		}
		by.expires = time.AfterFunc(64*d.u.o.T1, func() { by.cancelled(Reason{}) })
	}
	by.mu.Unlock()
	if !d.post(false, func(h DialogHandler) {
		if h.Replaced == nil {
			_ = by.Reject(603, Reason{Cause: 21})
			return
		}
		h.Replaced(by)
	}) {
		_ = by.Reject(603, Reason{Cause: 21})
	}
}
