package sip

import (
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/emiago/sipgo/sip"
)

// Refer is a REFER that waits for our answer: the peer asks us to call
// somebody else in its place (RFC 3515, RFC 5589). It must be accepted or
// rejected once, within 64·T1.
type Refer struct {
	// URI is whom to call, without what is said after "?": any scheme.
	URI string
	// Name is how the peer calls them, "" if it does not say.
	Name string
	// Replaces is the value of the Replaces header field that the call must
	// have (RFC 3891), "" for a transfer without consultation.
	Replaces string
	// By is the value of Referred-By (RFC 3892), "" if there was none.
	By string

	d     *Dialog
	id    uint32 // CSeq number; 0: the dialog's first
	tx    *serverTx
	req   *sip.Request
	mute  bool // Refer-Sub: false (RFC 4488)
	timer *time.Timer
	until time.Time // when the subscription ends

	mu       sync.Mutex
	answered bool
	over     bool
	notes    chan note
	done     chan struct{}
}

// note is what a NOTIFY tells.
type note struct {
	code   int
	phrase string
}

// referred takes a REFER.
func (d *Dialog) referred(tx *serverTx, req *sip.Request, respond func(int, ...Header)) {
	if !d.policy.Transfer {
		respond(405, Header{"Allow", d.policy.allow()})
		return
	}
	d.mu.Lock()
	early := d.state == early
	d.refers++
	first := d.refers == 1
	d.mu.Unlock()
	if early {
		respond(603)
		return
	}
	to := headerValues(req, "Refer-To")
	if len(to) != 1 {
		respond(400, d.u.warning(tx.f, fmt.Sprintf("%d Refer-To header fields", len(to))))
		return
	}
	r := &Refer{d: d, tx: tx, req: req, notes: make(chan note, 8), done: make(chan struct{})}
	var ok bool
	if r.Name, r.URI, r.Replaces, ok = parseReferTo(to[0]); !ok {
		respond(400, d.u.warning(tx.f, "Refer-To"))
		return
	}
	if !first {
		r.id = req.CSeq().SeqNo
	}
	if by := headerValues(req, "Referred-By"); len(by) > 0 {
		r.By = clean(by[0])
	}
	if v := headerValues(req, "Refer-Sub"); len(v) > 0 && strings.EqualFold(strings.TrimSpace(v[0]), "false") {
		r.mute = true
	}
	r.mu.Lock()
	r.timer = time.AfterFunc(64*d.u.o.T1, func() { _ = r.Reject(500) })
	r.mu.Unlock()
	if !d.post(false, func(h DialogHandler) {
		if h.Refer == nil {
			_ = r.Reject(603)
			return
		}
		h.Refer(r)
	}) {
		_ = r.Reject(603)
	}
}

// parseReferTo reads Refer-To: whom to call, by INVITE, and in whose place.
func parseReferTo(v string) (name, uri, replaces string, ok bool) {
	v = strings.TrimSpace(v)
	if i := indexUnquoted(v, '<'); i >= 0 {
		j := strings.IndexByte(v[i:], '>')
		if j < 0 || strings.Contains(v[i+j:], ",") { // more than one
			return "", "", "", false
		}
		name, v = unquote(v[:i]), v[i+1:i+j]
	} else {
		v, _, _ = strings.Cut(v, ";")
	}
	uri, headers, _ := strings.Cut(v, "?")
	if !fit(uri) || !strings.Contains(uri, ":") {
		return "", "", "", false
	}
	addr, params, _ := strings.Cut(uri, ";")
	for _, p := range strings.Split(params, ";") {
		k, m, _ := strings.Cut(p, "=")
		if strings.EqualFold(k, "method") {
			if !strings.EqualFold(m, "INVITE") {
				return "", "", "", false
			}
			continue
		}
		if p != "" {
			addr += ";" + p
		}
	}
	for _, h := range strings.Split(headers, "&") {
		k, val, _ := strings.Cut(h, "=")
		if !strings.EqualFold(k, "Replaces") {
			continue
		}
		val, err := url.PathUnescape(val)
		if err != nil || replaces != "" {
			return "", "", "", false
		}
		if _, _, ok := parseReplaces(val); !ok {
			return "", "", "", false
		}
		replaces = clean(val)
	}
	return name, addr, replaces, true
}

// answer answers the REFER once.
func (r *Refer) answer(code int, hs ...Header) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.answered {
		return ErrState
	}
	r.answered = true
	r.timer.Stop()
	return r.tx.respond(code, r.d.response(r.tx.f, r.req, reply{code: code, headers: hs}))
}

// Reject refuses the transfer.
func (r *Refer) Reject(code int, hs ...Header) error { return r.answer(code, hs...) }

// Accept answers 202 and begins to tell the peer how it goes, also when it has
// hung up: the subscription outlives the call (RFC 5057 §4.2). [Refer.Notify]
// with a final code ends that, which the owner owes, or else time: 360·T1.
func (r *Refer) Accept() error {
	if r.mute {
		close(r.done)
		return r.answer(200, Header{"Refer-Sub", "false"})
	}
	if err := r.answer(202); err != nil {
		return err
	}
	r.until = time.Now().Add(360 * r.d.u.o.T1)
	r.Notify(100, "")
	if !r.d.u.spawn(r.run) {
		return ErrEnded
	}
	return nil
}

// Notify tells the peer a response to the call that it asked for (RFC 3515
// §2.4.4). It does not wait. text "" is the usual one.
func (r *Refer) Notify(code int, text string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.mute || r.over {
		return
	}
	n := note{code, clean(text)}
	if n.phrase == "" {
		n.phrase = phrase(code)
	}
	if code < 200 && len(r.notes) >= cap(r.notes)-1 {
		return // the last place is for the final one
	}
	r.over = code >= 200
	r.notes <- n
}

// Done is closed, of a transfer that was accepted, when the peer has been told
// the end of it, or cannot be told any more.
func (r *Refer) Done() <-chan struct{} { return r.done }

// run sends the NOTIFY requests, one after another.
func (r *Refer) run() {
	defer close(r.done)
	expired := time.NewTimer(time.Until(r.until))
	defer expired.Stop()
	var last note
	for {
		select {
		case n := <-r.notes:
			last = n
			state := "active;expires=" + wholeSeconds(max(time.Until(r.until), time.Second))
			if n.code >= 200 {
				state = "terminated;reason=noresource"
			}
			if err := r.notify(n, state); err != nil || n.code >= 200 {
				return
			}
		case <-expired.C:
			_ = r.notify(last, "terminated;reason=timeout")
			return
		case <-r.d.u.ctx.Done():
			return
		}
	}
}

func (r *Refer) notify(n note, state string) error {
	d := r.d
	d.mu.Lock()
	req := d.newRequest(sip.NOTIFY)
	appendHeader(req, Header{"Contact", d.contact()})
	d.mu.Unlock()
	event := "refer"
	if r.id != 0 {
		event += ";id=" + strconv.FormatUint(uint64(r.id), 10)
	}
	for _, h := range []Header{{"Event", event}, {"Subscription-State", state}, {"Content-Type", "message/sipfrag;version=2.0"}} {
		appendHeader(req, h)
	}
	req.SetBody([]byte(fmt.Sprintf("SIP/2.0 %d %s\r\n", n.code, n.phrase)))
	res, _, err := d.send(d.u.ctx, req)
	if err != nil {
		return err
	}
	if res.StatusCode >= 300 {
		return statusError(res)
	}
	return nil
}
