package brewery

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"brewline/config"
	"brewline/xmpp"
)

// What [DialRequest.Ref] and [DialRequest.Refuse] return, for errors.Is.
var (
	// ErrAnswered: the request has its answer already, be it that its deadline
	// has passed.
	ErrAnswered = errors.New("dial request is answered")
	// ErrGone: the answer cannot reach Jicofo any more.
	ErrGone = errors.New("who asked to dial is gone")
)

// Names of headers of a dial request that are for the gateway.
const (
	headerRoom     = "JvbRoomName"
	headerPassword = "JvbRoomPassword"
)

// toTranscriber is the number by which meetings ask for a transcriber.
const toTranscriber = "jitsi_meet_transcribe"

// Bounds of a dial request.
const (
	maxNumber      = 512  // bytes of to and from
	maxHeaders     = 64   // beside the two that are for us
	maxHeaderName  = 128  // bytes
	maxHeaderValue = 2048 // bytes
	maxPending     = 1024 // requests without answer, of one shard
	maxRemembered  = 8192 // requests with answer, of one shard
	maxTwice       = 16   // repetitions of one stanza that wait for the answer
)

// DialRequest is a request of a shard's Jicofo to call a number and bring it
// into a room. It is answered once, by Ref or by Refuse, and is refused at its
// deadline if it was not.
type DialRequest struct {
	ID         string // of the IQ
	Shard      *Shard
	Deployment *Deployment
	From, To   string   // as asked, To not normalised
	Room       xmpp.JID // on the shard's MUC domain, without resource
	Conference Room     // the same
	Password   string
	// Headers are all but JvbRoomName and JvbRoomPassword, in order, each name
	// once.
	Headers []xmpp.Header

	deadline time.Time
	link     *link
	iq       *xmpp.IQ
	seated   bool // came while we were in the brewery, through it

	mu    sync.Mutex
	done  bool
	reply outcome
	twice []again
	timer *time.Timer // refuses at the deadline
}

// outcome is what a request was told: uri, or else an error.
type outcome struct {
	uri string
	err *xmpp.StanzaError
}

// again is a repetition of a request.
type again struct {
	l  *link
	iq *xmpp.IQ
}

func (a outcome) send(l *link, iq *xmpp.IQ) error {
	if a.err != nil {
		return l.ReplyError(iq, a.err)
	}
	return l.Reply(iq, xmpp.DialRef(a.uri))
}

// Deadline is when the request is refused unless it was answered: well before
// Jicofo asks another gateway.
func (r *DialRequest) Deadline() time.Time { return r.deadline }

// Ref accepts: occupant is where the call is in the room. After an error
// Jicofo does not know of it, and asks another gateway: the phone must not
// ring.
func (r *DialRequest) Ref(occupant xmpp.JID) error {
	err := r.settle(outcome{uri: "xmpp:" + occupant.String()})
	r.Shard.set.count.dialAnswered(err, true)
	return err
}

// Refuse declines with a defined condition of XMPP (RFC 6120 §8.3.3). Jicofo
// then asks another gateway.
func (r *DialRequest) Refuse(condition, text string) error {
	err := r.settle(outcome{err: stanzaErr(condition, text)})
	r.Shard.set.count.dialAnswered(err, false)
	return err
}

// settle gives the answer, once, to the request and its repetitions.
func (r *DialRequest) settle(a outcome) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.done {
		return ErrAnswered
	}
	r.done = true
	r.timer.Stop()
	r.Shard.dials.answered(r)
	err := r.unheard()
	if err == nil {
		err = a.send(r.link, r.iq)
	}
	if err != nil {
		err = fmt.Errorf("%w: %w", ErrGone, err)
		a = outcome{err: stanzaErr("internal-server-error", "the first answer could not be sent")}
	}
	r.reply = a
	for _, t := range r.twice {
		_ = a.send(t.l, t.iq) // lost with a session that is over
	}
	r.twice = nil
	return err
}

// unheard says why no answer would arrive.
func (r *DialRequest) unheard() error {
	if ended(r.link) {
		return fmt.Errorf("control session: %w", r.link.Err())
	}
	if r.seated && r.link.seat.Load() == nil {
		return errors.New("not in the brewery any more") // which passes answers of occupants alone
	}
	return nil
}

// repeated takes the same stanza again.
func (r *DialRequest) repeated(l *link, iq *xmpp.IQ) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.done:
		_ = r.reply.send(l, iq)
	case len(r.twice) < maxTwice:
		r.twice = append(r.twice, again{l, iq})
	}
}

// dialKey is what makes two stanzas the same request.
type dialKey struct {
	from xmpp.JID
	id   string
}

// dialBook has the requests that are waiting, and those answered lately.
type dialBook struct {
	mu      sync.Mutex
	known   map[dialKey]*DialRequest
	old     []remembered // answered, oldest first
	pending int
}

type remembered struct {
	key dialKey
	at  time.Time
}

var errTooMany = errors.New("too many dial requests wait for an answer")

// enter returns the request of that key if there is one, else takes in r.
func (b *dialBook) enter(r *DialRequest, keep time.Duration) (known *DialRequest, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	drop := 0
	for drop < len(b.old) && (now.Sub(b.old[drop].at) > keep || len(b.old)-drop > maxRemembered) {
		delete(b.known, b.old[drop].key)
		drop++
	}
	b.old = slices.Delete(b.old, 0, drop)
	key := dialKey{r.iq.From, r.iq.ID}
	if known = b.known[key]; known != nil {
		return known, nil
	}
	if b.pending >= maxPending {
		return nil, errTooMany
	}
	if b.known == nil {
		b.known = map[dialKey]*DialRequest{}
	}
	b.known[key] = r
	b.pending++
	return nil, nil
}

func (b *dialBook) answered(r *DialRequest) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.pending--
	b.old = append(b.old, remembered{dialKey{r.iq.From, r.iq.ID}, time.Now()})
}

// abandon refuses what still waits on a link that ends.
func (b *dialBook) abandon(l *link) {
	b.mu.Lock()
	var waiting []*DialRequest
	for _, r := range b.known {
		if r.link == l {
			waiting = append(waiting, r)
		}
	}
	b.mu.Unlock()
	for _, r := range waiting {
		_ = r.settle(outcome{err: stanzaErr("service-unavailable", "the gateway leaves")})
	}
}

// dial takes a request to dial, on the reader's goroutine.
func (l *link) dial(iq *xmpp.IQ, d xmpp.RayoDial) {
	sh := l.sh
	set := sh.set
	refuse := func(condition, text string) { _ = l.ReplyError(iq, stanzaErr(condition, text)) }
	c := sh.Config()
	if !mayDial(c, iq.From) {
		set.count.dialsForbidden.Add(1)
		if l.stranger.CompareAndSwap(false, true) {
			sh.log.Warn("dial request refused: it is not from the brewery's focus; further ones are only counted", "from", shown(iq.From.String()))
		}
		refuse("forbidden", "")
		return
	}
	dep := set.Deployment(c.Deployment)
	switch {
	case set.o.OnDial == nil || d.To == toTranscriber:
		refuse("feature-not-implemented", "")
		return
	case dep == nil: // just removed
		refuse("service-unavailable", "")
		return
	}
	r := &DialRequest{
		ID: iq.ID, Shard: sh, Deployment: dep, From: d.From, To: d.To,
		link: l, iq: iq, seated: iq.From.Bare() == breweryOf(c) && l.seat.Load() != nil,
		deadline: time.Now().Add(set.o.Timers.Dial),
	}
	if condition, err := r.read(&c.Effective, d); err != nil {
		set.count.dialsBad.Add(1)
		sh.log.Warn("dial request not understood", "err", err)
		refuse(condition, err.Error())
		return
	}
	r.mu.Lock() // before anybody can settle it
	known, err := sh.dials.enter(r, set.o.Timers.Remember)
	if known == nil && err == nil {
		r.timer = time.AfterFunc(set.o.Timers.Dial, func() {
			if r.settle(outcome{err: stanzaErr("remote-server-timeout", "not in the room in time")}) == nil {
				set.count.dialsExpired.Add(1)
			}
		})
	}
	r.mu.Unlock()
	switch {
	case err != nil:
		set.count.dialsBad.Add(1)
		refuse("resource-constraint", err.Error())
	case known != nil:
		set.count.dialsTwice.Add(1)
		known.repeated(l, iq)
	default:
		set.count.dials.Add(1)
		set.wg.Go(func() { set.o.OnDial(r) })
	}
}

// breweryOf is the address of a shard's brewery, zero without one.
func breweryOf(c *config.Shard) xmpp.JID {
	j, err := xmpp.ParseJID(c.Brewery)
	if err != nil || c.Username == "" {
		return xmpp.JID{}
	}
	return j
}

// mayDial says whether somebody may ask for calls: the focus of the shard's
// brewery, by its nick there, or who is configured.
func mayDial(c *config.Shard, from xmpp.JID) bool {
	if b := breweryOf(c); !b.IsZero() && from == b.WithResource(c.Effective.FocusNick) {
		return true
	}
	return slices.ContainsFunc(c.DialFrom, func(s string) bool {
		j, err := xmpp.ParseJID(s)
		return err == nil && (j == from || j.Resource == "" && j == from.Bare())
	})
}

// read takes what is asked for out of the stanza. With an error comes the
// condition to refuse it with.
func (r *DialRequest) read(c *config.Deployment, d xmpp.RayoDial) (condition string, err error) {
	const bad = "bad-request"
	switch {
	case strings.TrimSpace(d.To) == "":
		return bad, errors.New("no number to call: to is missing")
	case len(d.To) > maxNumber || len(d.From) > maxNumber:
		return bad, errors.New("the number is too long")
	case notText(d.To) || notText(d.From):
		return bad, errors.New("the number has characters that no number has")
	}
	room, hasRoom, hasPassword := "", false, false
	for _, h := range d.Headers {
		if len(h.Name) > maxHeaderName || len(h.Value) > maxHeaderValue {
			return bad, fmt.Errorf("header %s is too long", shown(h.Name))
		}
		if !isToken(h.Name) || notText(h.Value) {
			return bad, fmt.Errorf("header %s cannot be a header of a call", shown(h.Name))
		}
		switch h.Name {
		case headerRoom:
			// Whoever checked the request before may have looked at the other.
			if hasRoom && h.Value != room {
				return bad, errors.New("two rooms are named")
			}
			room, hasRoom = h.Value, true
		case headerPassword:
			if !hasPassword {
				r.Password, hasPassword = h.Value, true
			}
		default:
			if slices.ContainsFunc(r.Headers, func(o xmpp.Header) bool { return strings.EqualFold(o.Name, h.Name) }) {
				continue
			}
			if len(r.Headers) == maxHeaders {
				return bad, fmt.Errorf("more than %d headers", maxHeaders)
			}
			r.Headers = append(r.Headers, h)
		}
	}
	if !hasRoom {
		return bad, errors.New("no room: header " + headerRoom + " is missing")
	}
	if r.Conference, err = roomAt(c, room); err != nil {
		return bad, err
	}
	r.Room = roomJID(c, r.Conference)
	return "", nil
}

// roomAt reads the JID of a room at a shard: name@muc, name@muc with a tenant
// in it, or [tenant]name@muc, as rooms are named behind Prosody's
// mod_muc_domain_mapper.
func roomAt(c *config.Deployment, text string) (Room, error) {
	j, err := xmpp.ParseJID(text)
	if err != nil || j.Local == "" || j.Resource != "" {
		return Room{}, fmt.Errorf("%w: %s is no room JID", ErrBadRoom, shown(text))
	}
	r := Room{Name: j.Local}
	tenant, muc := "", strings.ToLower(c.MUC)
	if j.Domain == muc {
		if rest, ok := strings.CutPrefix(j.Local, "["); ok {
			tenant, r.Name, _ = strings.Cut(rest, "]")
			if tenant == "" || r.Name == "" {
				return Room{}, fmt.Errorf("%w: %s begins with no tenant", ErrBadRoom, shown(text))
			}
		}
	} else {
		prefix, base, _ := strings.Cut(muc, ".")
		rest, atMUC := strings.CutPrefix(j.Domain, prefix+".")
		var ours bool
		if tenant, ours = strings.CutSuffix(rest, "."+base); !atMUC || !ours || tenant == "" {
			return Room{}, fmt.Errorf("%w: %s is not at %s", ErrBadRoom, shown(text), muc)
		}
	}
	if tenant != "" {
		if r.Tenant, err = normalizeTenant(tenant); err != nil {
			return Room{}, err
		}
		if len(c.Tenants) > 0 && !slices.ContainsFunc(c.Tenants, func(t string) bool { return strings.EqualFold(t, tenant) }) {
			return Room{}, fmt.Errorf("%w: tenant %s is not served", ErrBadRoom, shown(tenant))
		}
	}
	return r, nil
}

// notText: a header of SIP and an attribute of XML take anything else.
func notText(s string) bool {
	return !utf8.ValidString(s) || strings.ContainsFunc(s, unicode.IsControl)
}

// isToken accepts the name of a header (RFC 3261 §25.1).
func isToken(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || strings.ContainsRune("-.!%*_+`'~", r))
	})
}

// stanzaErr makes the error of a condition, of the type it usually has
// (RFC 6120 §8.3.3).
func stanzaErr(condition, text string) *xmpp.StanzaError {
	typ := "cancel"
	switch condition {
	case "forbidden", "not-authorized", "registration-required", "subscription-required":
		typ = "auth"
	case "bad-request", "jid-malformed", "not-acceptable", "policy-violation", "redirect", "unexpected-request":
		typ = "modify"
	case "recipient-unavailable", "remote-server-timeout", "resource-constraint":
		typ = "wait"
	}
	return &xmpp.StanzaError{Type: typ, Condition: condition, Text: text}
}

// dialAnswered counts an answer that was given.
func (c *counters) dialAnswered(err error, accepted bool) {
	switch {
	case err != nil:
		c.dialsUnheard.Add(1)
	case accepted:
		c.dialsAccepted.Add(1)
	default:
		c.dialsRefused.Add(1)
	}
}
