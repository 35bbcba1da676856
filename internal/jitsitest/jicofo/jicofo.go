package jicofo

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"brewline/internal/jitsitest/jvb"
)

// Errors of the calls that act on a room.
var (
	ErrNoRoom        = errors.New("no such room")
	ErrNoParticipant = errors.New("no such participant")
)

// Jicofo is a running focus. One goroutine reads the component connection;
// stanzas and timers are handled one at a time under mu.
type Jicofo struct {
	o      Options
	user   string // focus@focus.<domain>
	caps   map[string][]string
	log    *slog.Logger
	ctx    context.Context
	cancel context.CancelFunc
	done   sync.WaitGroup

	mu          sync.Mutex
	comp        *component // nil while disconnected
	connection  int        // counts connections: stale ones do nothing
	dead        bool       // after Kill
	closed      bool
	policy      func(ConferenceRequest) Verdict
	silent      bool
	startMuted  bool
	bridges     []*jvb.Bridge
	conferences map[string]*conference
	pending     map[string]*pending
	requests    []ConferenceRequest
	brewery     *brewery
}

// pending is an IQ of ours that waits for its reply.
type pending struct {
	from  string // who must reply
	done  func(reply *element)
	timer *time.Timer
}

// Start connects to the server and serves until Close.
func Start(ctx context.Context, o Options) (*Jicofo, error) {
	o.setDefaults()
	j := &Jicofo{
		o:           o,
		user:        "focus@" + o.Component,
		caps:        map[string][]string{},
		log:         o.Logger,
		startMuted:  o.StartMuted,
		bridges:     slices.Clone(o.Bridges),
		conferences: map[string]*conference{},
		pending:     map[string]*pending{},
	}
	j.ctx, j.cancel = context.WithCancel(context.Background())
	if err := j.connect(ctx); err != nil {
		j.cancel()
		return nil, err
	}
	return j, nil
}

func (o *Options) setDefaults() {
	o.Component = cmp.Or(o.Component, "focus."+o.Domain)
	o.MUC = cmp.Or(o.MUC, "conference."+o.Domain)
	o.Nick = cmp.Or(o.Nick, "focus")
	o.OpusPT = cmp.Or(o.OpusPT, 111)
	o.TelephoneEventPT = cmp.Or(o.TelephoneEventPT, 126)
	o.AudioLevelID = cmp.Or(o.AudioLevelID, 1)
	o.MidID = cmp.Or(o.MidID, 10)
	o.MinParticipants = cmp.Or(o.MinParticipants, 2)
	o.DiscoTimeout = cmp.Or(o.DiscoTimeout, 15*time.Second)
	o.ReplyTimeout = cmp.Or(o.ReplyTimeout, 15*time.Second)
	o.InitialTimeout = cmp.Or(o.InitialTimeout, 15*time.Second)
	o.SingleTimeout = cmp.Or(o.SingleTimeout, 20*time.Second)
	o.RestartMinInterval = cmp.Or(o.RestartMinInterval, 10*time.Second)
	o.RestartMax = cmp.Or(o.RestartMax, 3)
	o.RestartInterval = cmp.Or(o.RestartInterval, time.Minute)
	o.ReconnectInterval = cmp.Or(o.ReconnectInterval, time.Second)
	o.DialTimeout = cmp.Or(o.DialTimeout, 15*time.Second)
	o.DialRetries = cmp.Or(o.DialRetries, 2)
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
}

// connect opens the component connection and starts its reader.
func (j *Jicofo) connect(ctx context.Context) error {
	comp, err := dialComponent(ctx, j.o.ComponentAddr, j.o.Component, j.o.Secret)
	if err != nil {
		return err
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed {
		_ = comp.conn.Close()
		comp.close()
		return errors.New("closed")
	}
	j.comp, j.dead = comp, false
	j.connection++
	n := j.connection
	j.done.Add(1)
	go j.serve(comp, n)
	j.log.Info("focus attached", "component", j.o.Component)
	j.joinBrewery()
	return nil
}

// serve reads one connection and, when it is lost unintentionally, opens the
// next.
func (j *Jicofo) serve(comp *component, n int) {
	defer j.done.Done()
	for {
		e, err := comp.read()
		if err != nil {
			j.log.Debug("focus detached", "err", err)
			break
		}
		j.mu.Lock()
		if j.connection == n && j.comp == comp {
			j.handle(e)
		}
		j.mu.Unlock()
	}
	comp.close()
	_ = comp.conn.Close()
	close(comp.ended)
	j.mu.Lock()
	lost := j.connection == n && j.comp == comp && !j.closed && !j.dead
	if lost {
		j.comp = nil
		j.forget(true)
	}
	j.mu.Unlock()
	for lost {
		select {
		case <-j.ctx.Done():
			return
		case <-time.After(j.o.ReconnectInterval):
		}
		if j.connect(j.ctx) == nil {
			return
		}
	}
}

// forget drops all conferences and requests, as a process that ends does. The
// bridges go on unless expire is set.
func (j *Jicofo) forget(expire bool) {
	for _, c := range j.conferences {
		j.endConference(c, expire)
	}
	for id, p := range j.pending {
		p.timer.Stop()
		delete(j.pending, id)
	}
	j.brewery = nil
}

// Close leaves all rooms and disconnects. It is idempotent.
func (j *Jicofo) Close() error {
	j.detach(true)
	j.done.Wait()
	return nil
}

// Kill makes the focus vanish from all rooms and from the server. Media goes
// on, as the bridges know nothing of it.
func (j *Jicofo) Kill() {
	j.detach(false)
}

func (j *Jicofo) detach(forGood bool) {
	j.mu.Lock()
	comp := j.comp
	for _, c := range j.conferences {
		j.sendUnavailable(c.room, "Disconnected: Replaced by new connection")
	}
	if j.brewery != nil {
		j.sendUnavailable(j.brewery.room, "")
	}
	j.forget(forGood)
	j.comp = nil
	j.connection++
	j.dead = true
	if forGood {
		j.closed = true
		j.cancel()
	}
	j.mu.Unlock()
	if comp != nil {
		comp.close()
		<-comp.ended
	}
	j.log.Info("focus gone")
}

// Return reconnects after Kill. Rooms are joined again only when a
// conference request for them arrives.
func (j *Jicofo) Return(ctx context.Context) error {
	j.mu.Lock()
	up := j.comp != nil
	j.mu.Unlock()
	if up {
		return nil
	}
	return j.connect(ctx)
}

// SetConferencePolicy replaces what conference requests are answered; nil is
// Ready always. f must not call into Jicofo.
func (j *Jicofo) SetConferencePolicy(f func(ConferenceRequest) Verdict) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.policy = f
}

// SetSilent makes Jicofo never invite anybody, or invite again.
func (j *Jicofo) SetSilent(silent bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.silent = silent
	for _, c := range j.conferences {
		j.inviteAll(c)
	}
}

// SetStartMuted changes Options.StartMuted.
func (j *Jicofo) SetStartMuted(on bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.startMuted = on
}

// Requests returns all conference requests received.
func (j *Jicofo) Requests() []ConferenceRequest {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.Clone(j.requests)
}

// Rooms returns what Jicofo knows of its conferences.
func (j *Jicofo) Rooms() []Room {
	j.mu.Lock()
	defer j.mu.Unlock()
	var rooms []Room
	for _, k := range slices.Sorted(maps.Keys(j.conferences)) {
		rooms = append(rooms, j.conferences[k].snapshot())
	}
	return rooms
}

// Room returns one conference by bare JID or by room name.
func (j *Jicofo) Room(room string) (Room, bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	c, err := j.find(room)
	if err != nil {
		return Room{}, false
	}
	return c.snapshot(), true
}

func (j *Jicofo) find(room string) (*conference, error) {
	if !strings.Contains(room, "@") {
		room += "@" + j.o.MUC
	}
	if c := j.conferences[j.roomKey(room)]; c != nil {
		return c, nil
	}
	return nil, fmt.Errorf("%s: %w", room, ErrNoRoom)
}

func (j *Jicofo) findParticipant(room, nick string) (*conference, *participant, error) {
	c, err := j.find(room)
	if err != nil {
		return nil, nil, err
	}
	if p := c.member(nick); p != nil {
		return c, p, nil
	}
	return nil, nil, fmt.Errorf("%s/%s: %w", room, nick, ErrNoParticipant)
}

// roomKey is the room's JID in the server's own form: a tenant in the domain
// (room@conference.tenant.domain) becomes part of the node ([tenant]room).
func (j *Jicofo) roomKey(room string) string {
	room = strings.ToLower(bareOf(room))
	prefix, domain, ok := strings.Cut(j.o.MUC, ".")
	local, host, ok2 := strings.Cut(room, "@")
	if ok && ok2 && host != j.o.MUC && strings.HasPrefix(host, prefix+".") && strings.HasSuffix(host, "."+domain) {
		tenant := strings.TrimSuffix(strings.TrimPrefix(host, prefix+"."), "."+domain)
		return "[" + tenant + "]" + local + "@" + j.o.MUC
	}
	return room
}

// send queues a stanza, and loses it while there is no connection.
func (j *Jicofo) send(e *element) {
	if j.comp != nil {
		j.comp.send(e)
	}
}

// request sends an IQ. done gets the reply, or nil after the timeout; it runs
// under mu.
func (j *Jicofo) request(from, to, kind string, payload *element, timeout time.Duration, done func(reply *element)) {
	id := randomID()
	p := &pending{from: to, done: done}
	j.pending[id] = p
	p.timer = j.after(timeout, func() {
		if j.pending[id] == p {
			delete(j.pending, id)
			done(nil)
		}
	})
	j.send(el("", "iq", "type", kind, "id", id, "from", from, "to", to).add(payload))
}

// after runs f under mu after d, unless Jicofo has ended by then.
func (j *Jicofo) after(d time.Duration, f func()) *time.Timer {
	return time.AfterFunc(d, func() {
		j.mu.Lock()
		defer j.mu.Unlock()
		if !j.closed {
			f()
		}
	})
}

// reply answers an IQ with a result.
func (j *Jicofo) reply(iq *element, payload *element) {
	j.send(el("", "iq", "type", "result", "id", iq.attr("id"), "from", iq.attr("to"), "to", iq.attr("from")).add(payload))
}

// replyError answers an IQ with an error; the request's payload is repeated
// after it, as Jicofo does.
func (j *Jicofo) replyError(iq *element, kind, condition, text string, app ...*element) {
	err := el("", "error", "type", kind).add(el(nsStanzas, condition))
	if text != "" {
		err.add(el(nsStanzas, "text").text(text))
	}
	err.add(app...)
	r := el("", "iq", "type", "error", "id", iq.attr("id"), "from", iq.attr("to"), "to", iq.attr("from")).add(err)
	if len(iq.Kids) > 0 && iq.Kids[0].Space != nsJingle {
		r.add(el(iq.Kids[0].Space, iq.Kids[0].Name).withAttrs(iq.Kids[0].Attrs).text(iq.Kids[0].Text))
	}
	j.send(r)
}

func (e *element) withAttrs(a []attr) *element {
	e.Attrs = a
	return e
}

// handle takes one stanza.
func (j *Jicofo) handle(e *element) {
	switch e.Name {
	case "presence":
		j.handlePresence(e)
	case "message":
		j.handleMessage(e)
	case "iq":
		switch e.attr("type") {
		case "get", "set":
			j.handleIQ(e)
		default:
			j.handleReply(e)
		}
	}
}

func (j *Jicofo) handleReply(e *element) {
	p := j.pending[e.attr("id")]
	if p == nil || p.from != e.attr("from") {
		return
	}
	delete(j.pending, e.attr("id"))
	p.timer.Stop()
	p.done(e)
}

func (j *Jicofo) handleIQ(e *element) {
	if len(e.Kids) == 0 {
		j.replyError(e, "modify", "bad-request", "")
		return
	}
	payload := e.Kids[0]
	switch payload.Space + " " + payload.Name {
	case nsPing + " ping":
		j.reply(e, nil)
		return
	case nsDisco + " query":
		info := ownInfo()
		if node := payload.attr("node"); node != "" {
			info.Attrs = []attr{{"node", node}}
		}
		j.reply(e, info)
		return
	case nsFocus + " conference":
		j.handleConferenceRequest(e, payload)
		return
	case nsRayo + " dial":
		j.handleDial(e, payload)
		return
	}
	c, p := j.sender(e)
	if p == nil {
		j.replyError(e, "cancel", "service-unavailable", "")
		return
	}
	switch payload.Space + " " + payload.Name {
	case nsJingle + " jingle":
		j.handleJingle(c, p, e, payload)
	case nsAudioMute + " mute":
		j.handleMute(c, p, e, payload)
	default:
		j.replyError(e, "cancel", "service-unavailable", "")
	}
}

// sender finds the member that a stanza comes from.
func (j *Jicofo) sender(e *element) (*conference, *participant) {
	from := e.attr("from")
	c := j.conferences[j.roomKey(from)]
	if c == nil {
		return nil, nil
	}
	return c, c.member(resourceOf(from))
}

func randomID() string { return strconv.FormatUint(rand.Uint64(), 36) }

func randomUUID() string {
	a, b := rand.Uint64(), rand.Uint64()
	return fmt.Sprintf("%08x-%04x-4%03x-%04x-%012x", a>>32, a>>16&0xffff, a&0xfff, b>>48&0x3fff|0x8000, b&0xffffffffffff)
}
