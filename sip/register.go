package sip

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"time"

	"github.com/emiago/sipgo/sip"
)

// RegisterOptions describe a registration (RFC 3261 §10).
type RegisterOptions struct {
	Registrar string // as sip:example.org or sip:host:port;transport=tcp
	User      string // of the address of record
	Host      string // of it; "": the registrar's
	Username  string // for digest challenges
	Password  string
	Contact   string // user part of our Contact, by which calls come; "": User
	Route     string // outbound proxy as a SIP URI, "": none
	Trunk     string // as Options.Match names it

	Expires time.Duration // that is asked for, 5 min
	// Retry and MaxRetry (2 s, 2 min) are the first and the longest pause after
	// a failure.
	Retry, MaxRetry time.Duration
	// Changed is told each outcome, on the goroutine of Register.
	Changed func(Registration)
}

// Registration is what became of the latest REGISTER.
type Registration struct {
	Until   time.Time      // when what was granted ends; zero: we are not registered
	Err     error          // why the latest attempt failed, nil if it has not
	Address netip.AddrPort // of the registrar, or of the proxy
}

const (
	maxMinExpires = 24 * time.Hour // that a registrar may ask for by 423
	maxRetryAfter = time.Hour      // that a server's Retry-After is believed
)

// Register registers at a registrar and stays registered until ctx ends: it
// refreshes in time and tries again forever, ever more slowly, where that
// fails. In the end it takes its registration back, for which it takes 16·T1
// at most.
func (u *UA) Register(ctx context.Context, o RegisterOptions) {
	r, err := u.newRegistration(o)
	if err != nil { // nothing that trying again would help
		if o.Changed != nil {
			o.Changed(Registration{Err: err})
		}
		<-ctx.Done()
		return
	}
	o = r.o
	var state Registration
	var pause, again time.Duration // after failures, after lost connections
	for {
		granted, err := r.register(ctx, r.o.Expires)
		if ctx.Err() != nil {
			break
		}
		state.Err, state.Address = err, r.at
		var wait time.Duration
		if err == nil {
			// Early enough for a second and a third attempt.
			state.Until, pause = u.now().Add(granted), 0
			wait = max(2*u.o.T1, time.Duration((0.65+0.2*rand.Float64())*float64(granted)))
		} else {
			if !u.now().Before(state.Until) {
				state.Until = time.Time{}
			}
			pause = min(max(2*pause, o.Retry), o.MaxRetry)
			wait = time.Duration((0.75 + 0.5*rand.Float64()) * float64(pause))
			var se *StatusError
			if errors.As(err, &se) {
				wait = max(wait, min(se.retryAfter(), maxRetryAfter))
			}
		}
		o.Changed(state)
		expired := func() {
			state.Until = time.Time{}
			o.Changed(state)
		}
		begun := u.now()
		ok, lost := r.sleep(ctx, wait, state.Until, expired)
		if lost {
			// Calls come over that connection: we register anew over another, soon,
			// but not at once with everybody else whose proxy has restarted, and
			// ever more slowly where connections do not last.
			lived := u.now().Sub(begun)
			if lived > o.MaxRetry {
				again = 0
			}
			again = min(max(2*again, o.Retry), o.MaxRetry)
			soon := time.Duration(rand.Float64() * float64(again))
			u.log.Info("sip: the connection of a registration is lost", "trunk", o.Trunk, "peer", r.at, "err", r.flow.conn.why(), "again", soon)
			r.flow = flow{}
			ok, _ = r.sleep(ctx, min(soon, wait-lived), state.Until, expired)
		}
		if !ok {
			break
		}
	}
	if r.bound {
		end, cancel := context.WithTimeout(u.ctx, 16*u.o.T1)
		defer cancel()
		_, _ = r.register(end, 0)
	}
}

// FetchRegistration asks a registrar for what is registered, which changes
// nothing (RFC 3261 §10.2.3): a way to see whether it would let us.
func (u *UA) FetchRegistration(ctx context.Context, o RegisterOptions) error {
	r, err := u.newRegistration(o)
	if err != nil {
		return err
	}
	_, err = r.register(ctx, -1)
	return err
}

// registration is one at one registrar.
type registration struct {
	u     *UA
	o     RegisterOptions
	uri   sip.Uri // Request-URI
	aor   sip.Uri
	next  sip.Uri // where it goes
	route *sip.RouteHeader
	call  sip.CallIDHeader
	tag   string
	seq   uint32
	auth  credentials
	at    netip.AddrPort
	flow  flow   // over which it was granted; the zero value: it was not
	kept  string // Contact that the registrar has
	bound bool   // the registrar may have a binding of ours
}

func (u *UA) newRegistration(o RegisterOptions) (*registration, error) {
	def := func(d *time.Duration, v time.Duration) {
		if *d <= 0 {
			*d = v
		}
	}
	def(&o.Expires, 5*time.Minute)
	def(&o.Retry, 2*time.Second)
	def(&o.MaxRetry, 2*time.Minute)
	if o.Contact == "" {
		o.Contact = o.User
	}
	if o.Changed == nil {
		o.Changed = func(Registration) {}
	}
	r := &registration{
		u: u, o: o, call: sip.CallIDHeader(token(20)), tag: token(16),
		auth: credentials{username: o.Username, password: o.Password},
	}
	var err error
	if r.uri, r.next, r.route, err = (Target{URI: o.Registrar, Route: o.Route}).route(); err != nil {
		return nil, err
	}
	r.uri = *r.uri.Clone()
	r.uri.User, r.uri.Password = "", ""
	r.aor = sip.Uri{Scheme: "sip", User: escapeUser(o.User), Host: r.uri.Host}
	if o.Host != "" {
		if r.aor.Host = o.Host; !fit(o.Host) {
			return nil, fmt.Errorf("sip: host %q", clean(o.Host))
		}
	}
	return r, nil
}

// register sends one REGISTER, again where it is challenged or must be for
// longer, and returns for how long it was granted. expires 0 takes the
// registration back, -1 only asks.
func (r *registration) register(ctx context.Context, expires time.Duration) (time.Duration, error) {
	u := r.u
	var granted time.Duration
	var refused error
	_, err := u.try(ctx, u.log.With("trunk", r.o.Trunk), flow{trunk: r.o.Trunk}, &r.next, func(h hop) (res *sip.Response, err error) {
		granted, res, refused = r.registerAt(ctx, h, expires)
		if res == nil {
			err = refused
		}
		return res, err
	})
	if err != nil {
		return 0, err
	}
	return granted, refused
}

// registerAt sends it to one server, and returns the final response if there
// is one.
func (r *registration) registerAt(ctx context.Context, h hop, expires time.Duration) (time.Duration, *sip.Response, error) {
	u := r.u
	r.at, r.flow = h.addr, flow{}
	req, contact := r.request(h, expires)
	moved := false
	r.auth.reuse(req)
	for longer := false; ; {
		r.seq++
		again(req, r.seq)
		r.bound = r.bound || expires > 0
		res, _, err := u.roundTrip(ctx, h, req)
		if err != nil {
			return 0, nil, err
		}
		if r.auth.answer(req, res) == nil {
			continue
		}
		switch {
		case res.StatusCode == 423 && expires > 0 && !longer:
			least := seconds(headerValues(res, "Min-Expires"))
			if least <= expires || least > maxMinExpires {
				return 0, res, fmt.Errorf("%w, and would have it for %s", statusError(res), least)
			}
			// What it asks for will not change soon.
			expires, r.o.Expires, longer = least, least, true
			for req.RemoveHeader("Expires") {
			}
			appendHeader(req, expiresHeader(expires))
			r.auth.reuse(req)
			continue
		case res.StatusCode >= 300:
			return 0, res, statusError(res)
		case expires <= 0:
			r.bound = r.bound && expires < 0
			return 0, res, nil
		}
		granted := r.granted(res, contact, expires)
		if granted <= 0 {
			return 0, res, errors.New("sip: the registrar has not kept the registration")
		}
		r.kept = contact
		if !moved && u.learn(h.f, res) {
			// Calls do not reach what we have registered, but where it came from.
			moved = true
			u.log.Info("sip: registering the address that the registrar sees", "trunk", r.o.Trunk, "peer", r.at)
			req, contact = r.request(h, expires)
			r.auth.reuse(req)
			continue
		}
		r.flow = h.f
		return granted, res, nil
	}
}

func (r *registration) request(h hop, expires time.Duration) (req *sip.Request, contact string) {
	req = sip.NewRequest(sip.REGISTER, *r.uri.Clone())
	if r.route != nil {
		req.AppendHeader(r.route)
	}
	mf := sip.MaxForwardsHeader(70)
	req.AppendHeader(&mf)
	from := sip.FromHeader{Address: *r.aor.Clone()}
	from.Params.Add("tag", r.tag)
	req.AppendHeader(&from)
	req.AppendHeader(&sip.ToHeader{Address: *r.aor.Clone()})
	req.AppendHeader(&r.call)
	req.AppendHeader(&sip.CSeqHeader{MethodName: sip.REGISTER})
	if expires >= 0 {
		contact = h.f.contact(escapeUser(r.o.Contact))
		appendHeader(req, Header{"Contact", contact})
		if r.kept != "" && r.kept != contact { // in its place
			appendHeader(req, Header{"Contact", r.kept + ";expires=0"})
		}
		appendHeader(req, expiresHeader(expires))
	}
	appendHeader(req, Header{"Allow", r.u.o.Policy(h.f.trunk).allow()})
	if r.u.o.UserAgent != "" {
		appendHeader(req, Header{"User-Agent", r.u.o.UserAgent})
	}
	req.SetBody(nil)
	return req, contact
}

func expiresHeader(d time.Duration) Header {
	return Header{"Expires", fmt.Sprint(int((d + time.Second - 1) / time.Second))}
}

// granted is for how long a registrar has taken our contact (RFC 3261
// §10.2.4): its list tells that of every contact there is.
func (r *registration) granted(res *sip.Response, contact string, asked time.Duration) time.Duration {
	var ours sip.Uri
	_ = sip.ParseUri(strings.Trim(contact, "<>"), &ours)
	for _, h := range res.Headers() {
		c, ok := h.(*sip.ContactHeader)
		if !ok || c.Address.User != ours.User || !strings.EqualFold(c.Address.Host, ours.Host) || c.Address.Port != ours.Port {
			continue
		}
		if v, ok := paramOK(c.Params, "expires"); ok {
			return seconds([]string{v})
		}
	}
	if v := headerValues(res, "Expires"); len(v) > 0 {
		return seconds(v)
	}
	return asked
}

// maxSilence is what a NAT keeps a binding for over UDP (RFC 5626 §4.4.2).
const maxSilence = 29 * time.Second

// sleep waits, and calls expired when a registration ends meanwhile. It
// reports whether ctx has not ended, and whether the connection is lost that
// calls would come over. Over UDP it keeps the way open for them.
func (r *registration) sleep(ctx context.Context, d time.Duration, until time.Time, expired func()) (ok, lost bool) {
	wake := time.NewTimer(d)
	defer wake.Stop()
	var broken <-chan struct{}
	var ping <-chan time.Time
	switch {
	case r.flow.conn != nil:
		broken = r.flow.conn.done
	case r.flow.ln != nil:
		t := time.NewTicker(time.Duration((0.8 + 0.2*rand.Float64()) * float64(min(r.u.o.KeepAlive, maxSilence))))
		defer t.Stop()
		ping = t.C
	}
	var end <-chan time.Time
	if left := until.Sub(r.u.now()); !until.IsZero() && left < d {
		t := time.NewTimer(left)
		defer t.Stop()
		end = t.C
	}
	for {
		select {
		case <-wake.C:
			return true, false
		case <-broken:
			return true, true
		case <-ping:
			_ = r.flow.send([]byte("\r\n\r\n"), r.at)
		case <-end:
			end = nil
			expired()
		case <-ctx.Done():
			return false, false
		case <-r.u.ctx.Done():
			return false, false
		}
	}
}

// retryAfter is the response's Retry-After, 0 if there is none.
func (e *StatusError) retryAfter() time.Duration {
	v, _, _ := strings.Cut(e.Header("Retry-After"), ";")
	v, _, _ = strings.Cut(v, "(")
	return seconds([]string{v})
}
