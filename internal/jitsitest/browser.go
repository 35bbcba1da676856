package jitsitest

import (
	"context"
	"crypto/sha1"
	"encoding/base64"
	"encoding/hex"
	"encoding/xml"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"brewline/internal/jitsitest/client"
)

// BrowserOptions of JoinBrowser.
type BrowserOptions struct {
	URL       string // BOSH
	Domain    string // XMPP domain, default "meet.example"
	MUC       string // default "conference."+Domain
	Focus     string // default "focus."+Domain
	Room      string // node
	Nick      string // default: first 8 characters of the JID's user
	Name      string // display name
	Password  string
	Token     string
	Username  string        // log in with an account: PLAIN instead of ANONYMOUS
	Secret    string        // its password
	Tone      int           // Hz that it says continuously; 0 is silence
	PCM       []int16       // 48 kHz mono, said in a loop instead of Tone
	Deaf      bool          // counts what arrives and decodes nothing
	JSON      bool          // advertise json-encoded-sources
	Features  []string      // further disco features
	Uninvited bool          // join without asking the focus for the conference
	Timeout   time.Duration // of the join, default 15 s
	// ICETimeout without an answer from the bridge makes the browser ask Jicofo
	// for a new session, default 5 s.
	ICETimeout time.Duration
	Keep       time.Duration // how much of what it hears is kept, default 2 min
	Logger     *slog.Logger
}

// ErrJoin is what JoinBrowser's error wraps when the room refused; its text has
// the condition.
var ErrJoin = errors.New("join refused")

// Browser is a participant.
type Browser struct {
	o    BrowserOptions
	c    *client.Client
	room string // bare JID
	nick string
	log  *slog.Logger
	rec  *recorder

	voice atomic.Pointer[sound]
	muted atomic.Bool

	self    chan error    // first answer to the join
	gone    chan struct{} // closed when it was removed from the room, or its session ended
	work    chan func()   // done in order by one goroutine
	workers sync.WaitGroup

	mu      sync.Mutex
	others  map[string]string // nick to last presence
	said    []Status
	leg     *leg
	invites int
	why     error // of gone
	closed  bool
}

// JoinBrowser joins a room and returns when the participant is in it; media
// follows when Jicofo invites.
func JoinBrowser(ctx context.Context, o BrowserOptions) (*Browser, error) {
	def := func(p *string, v string) {
		if *p == "" {
			*p = v
		}
	}
	def(&o.Domain, "meet.example")
	def(&o.MUC, "conference."+o.Domain)
	def(&o.Focus, "focus."+o.Domain)
	if o.Timeout == 0 {
		o.Timeout = 15 * time.Second
	}
	if o.ICETimeout == 0 {
		o.ICETimeout = 5 * time.Second
	}
	if o.Keep == 0 {
		o.Keep = 2 * time.Minute
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	ctx, cancel := context.WithTimeout(ctx, o.Timeout)
	defer cancel()
	b := &Browser{o: o, room: o.Room + "@" + o.MUC, log: o.Logger.With("room", o.Room), rec: newRecorder(o.Deaf, o.Keep),
		self: make(chan error, 1), gone: make(chan struct{}), work: make(chan func(), 1024), others: map[string]string{}}
	v, err := toneOrPCM(o.Tone, o.PCM)
	if err != nil {
		return nil, err
	}
	b.voice.Store(&v)
	b.workers.Add(1)
	go func() {
		defer b.workers.Done()
		for f := range b.work {
			f()
		}
	}()
	b.c, err = client.Dial(ctx, client.Options{URL: o.URL, Room: o.Room, Token: o.Token, Domain: o.Domain,
		Username: o.Username, Password: o.Secret, Handler: func(s client.Stanza) { b.do(func() { b.handle(s) }) }})
	if err != nil {
		b.finish()
		return nil, err
	}
	b.workers.Add(1)
	go func() {
		defer b.workers.Done()
		<-b.c.Done()
		b.leave(b.c.Err())
	}()
	b.nick = o.Nick
	if b.nick == "" {
		b.nick, _, _ = strings.Cut(b.c.JID(), "@")
		b.nick = strings.ReplaceAll(b.nick[:min(8, len(b.nick))], "-", "")
	}
	b.log = b.log.With("nick", b.nick)
	if err := b.join(ctx); err != nil {
		_ = b.Close()
		return nil, fmt.Errorf("%s: %w", b.room, err)
	}
	return b, nil
}

func toneOrPCM(freq int, pcm []int16) (sound, error) {
	switch {
	case len(pcm) > 0:
		return encode(pcm)
	case freq > 0:
		return toneSound(freq)
	}
	return nil, nil
}

// do has something done by the worker; what comes after the end, or too much at
// once, is dropped.
func (b *Browser) do(f func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return
	}
	select {
	case b.work <- f:
	default:
		b.log.Error("too much work, dropped some")
	}
}

func (b *Browser) finish() {
	b.mu.Lock()
	if b.closed {
		b.mu.Unlock()
		return
	}
	b.closed = true
	close(b.work)
	b.mu.Unlock()
	b.workers.Wait()
	if l := b.leg; l != nil {
		b.leg = nil
		l.close()
	}
}

// join asks for the conference and enters the room; when the focus has left
// between the two, again.
func (b *Browser) join(ctx context.Context) error {
	for try := 0; ; try++ {
		if !b.o.Uninvited {
			if err := b.conference(ctx); err != nil {
				return err
			}
		}
		if err := b.c.Send(b.presence(true)); err != nil {
			return err
		}
		var err error
		select {
		case err = <-b.self:
		case <-b.c.Done():
			return b.c.Err()
		case <-ctx.Done():
			return fmt.Errorf("no presence of its own: %w", ctx.Err())
		}
		if err == nil || try == 2 || !strings.Contains(err.Error(), "restricted") {
			return err
		}
		if err := pause(ctx, time.Duration(50+rand.IntN(50))*time.Millisecond); err != nil {
			return err
		}
	}
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// conference sends the conference request until the focus is ready.
func (b *Browser) conference(ctx context.Context) error {
	for wait := 50 * time.Millisecond; ; wait = min(2*wait, time.Second) {
		s, err := b.c.Request(ctx, "set", b.o.Focus,
			"<conference xmlns='http://jitsi.org/protocol/focus' room='"+b.room+"' machine-uid='"+randomHex(16)+"'><property name='rtcstatsEnabled' value='false'/></conference>")
		if err != nil {
			return fmt.Errorf("conference request: %w", err)
		}
		if s.Type == "error" {
			return fmt.Errorf("conference request: %s", condition(s.XML))
		}
		if strings.Contains(s.XML, "ready='true'") {
			return nil
		}
		if err := pause(ctx, wait); err != nil {
			return fmt.Errorf("focus not ready: %w", err)
		}
	}
}

func randomHex(n int) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rand.IntN(256))
	}
	return hex.EncodeToString(b)
}

// condition is the error condition of a stanza, with its text.
func condition(stanza string) string {
	var v struct {
		Error struct {
			Type  string `xml:"type,attr"`
			Inner []struct {
				XMLName xml.Name
				Text    string `xml:",chardata"`
			} `xml:",any"`
		} `xml:"error"`
	}
	if err := xml.Unmarshal([]byte(stanza), &v); err != nil {
		return err.Error()
	}
	out := []string{v.Error.Type}
	for _, x := range v.Error.Inner {
		if x.XMLName.Local == "text" {
			out = append(out, x.Text)
		} else {
			out = append(out, x.XMLName.Local)
		}
	}
	return strings.Join(out, " ")
}

const capsNode = "https://jitsi.org/jitsi-meet"

func (b *Browser) features() []string {
	f := []string{
		"http://jabber.org/protocol/caps", "http://jabber.org/protocol/disco#info", "http://jitsi.org/source-name",
		"urn:ietf:rfc:5761", "urn:ietf:rfc:5888", "urn:xmpp:jingle:1", "urn:xmpp:jingle:apps:dtls:0", "urn:xmpp:jingle:apps:rtp:1",
		"urn:xmpp:jingle:apps:rtp:audio", "urn:xmpp:jingle:transports:ice-udp:1", "urn:xmpp:ping",
	}
	if b.o.JSON {
		f = append(f, "http://jitsi.org/json-encoded-sources")
	}
	f = append(f, b.o.Features...)
	slices.Sort(f)
	return slices.Compact(f)
}

// ver is the verification string of XEP-0115 §5.1.
func (b *Browser) ver() string {
	sum := sha1.Sum([]byte("client/web//jitsi-meet<" + strings.Join(b.features(), "<") + "<"))
	return base64.StdEncoding.EncodeToString(sum[:])
}

func text(s string) string {
	var t strings.Builder
	_ = xml.EscapeText(&t, []byte(s))
	return t.String()
}

// presence is the whole presence; join adds what enters the room.
func (b *Browser) presence(join bool) string {
	var p strings.Builder
	fmt.Fprintf(&p, "<presence xmlns='jabber:client' to='%s/%s'>", b.room, b.nick)
	if join {
		p.WriteString("<x xmlns='http://jabber.org/protocol/muc'>")
		if b.o.Password != "" {
			fmt.Fprintf(&p, "<password>%s</password>", text(b.o.Password))
		}
		p.WriteString("</x>")
	}
	fmt.Fprintf(&p, "<stats-id>Test-%s</stats-id><c xmlns='http://jabber.org/protocol/caps' hash='sha-1' node='%s' ver='%s'/>", b.nick, capsNode, b.ver())
	if b.o.Name != "" {
		fmt.Fprintf(&p, "<nick xmlns='http://jabber.org/protocol/nick'>%s</nick>", text(b.o.Name))
	}
	m := b.muted.Load()
	fmt.Fprintf(&p, `<SourceInfo>{"%s-a0":{"muted":%t}}</SourceInfo><audiomuted>%t</audiomuted><videomuted>true</videomuted></presence>`, b.nick, m, m)
	return p.String()
}

// handle takes one stanza, on the worker.
func (b *Browser) handle(s client.Stanza) {
	room, who, _ := strings.Cut(s.From, "/")
	switch {
	case s.Name == "presence" && strings.EqualFold(room, b.room):
		b.handlePresence(s, who)
	case s.Name == "iq" && (s.Type == "get" || s.Type == "set"):
		b.handleIQ(s, strings.EqualFold(room, b.room) && who == "focus")
	}
}

func (b *Browser) handlePresence(s client.Stanza, who string) {
	self := who == b.nick
	switch {
	case s.Type == "error":
		select {
		case b.self <- fmt.Errorf("%w: %s", ErrJoin, condition(s.XML)):
		default:
		}
	case self && s.Type == "unavailable":
		b.leave(errors.New("removed from the room: " + s.XML))
		b.dropLeg()
	case self:
		select {
		case b.self <- nil:
		default:
		}
	case who == "focus" || who == "":
	default:
		b.mu.Lock()
		defer b.mu.Unlock()
		if s.Type == "unavailable" {
			delete(b.others, who)
		} else {
			b.others[who] = s.XML
			b.noteStatus(who, s.XML)
		}
	}
}

// leave notes why the browser is not in the room any more.
func (b *Browser) leave(why error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.why == nil {
		b.why = why
		close(b.gone)
	}
}

func (b *Browser) answer(s client.Stanza, typ, payload string) {
	_ = b.c.Send(fmt.Sprintf("<iq xmlns='jabber:client' type='%s' id='%s' to='%s'>%s</iq>", typ, text(s.ID), text(s.From), payload))
}

func (b *Browser) refuse(s client.Stanza, typ, condition string) {
	b.answer(s, "error", fmt.Sprintf("<error type='%s'><%s xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error>", typ, condition))
}

func (b *Browser) handleIQ(s client.Stanza, focus bool) {
	var v struct {
		Inner struct {
			XMLName xml.Name
			Node    string `xml:"node,attr"`
			Text    string `xml:",chardata"`
		} `xml:",any"`
	}
	if err := xml.Unmarshal([]byte(s.XML), &v); err != nil {
		b.refuse(s, "modify", "bad-request")
		return
	}
	switch q := v.Inner.XMLName; {
	case q.Space == "urn:xmpp:ping":
		b.answer(s, "result", "")
	case q.Space == "http://jabber.org/protocol/disco#info":
		var f strings.Builder
		for _, x := range b.features() {
			f.WriteString("<feature var='" + text(x) + "'/>")
		}
		node := ""
		if v.Inner.Node != "" {
			node = " node='" + text(v.Inner.Node) + "'"
		}
		b.answer(s, "result", "<query xmlns='http://jabber.org/protocol/disco#info'"+node+"><identity category='client' type='web' name='jitsi-meet'/>"+f.String()+"</query>")
	case q.Space == "http://jitsi.org/jitmeet/audio" && q.Local == "mute" && focus:
		b.answer(s, "result", "")
		_ = b.Mute(strings.TrimSpace(v.Inner.Text) == "true")
	case q.Space == "urn:xmpp:jingle:1" && !focus: // no peer-to-peer sessions
		b.answer(s, "result", "")
		j, _ := parseJingle(s.XML)
		if j.Action == "session-initiate" {
			_ = b.c.Send(fmt.Sprintf("<iq xmlns='jabber:client' type='set' id='%s' to='%s'><jingle xmlns='urn:xmpp:jingle:1' action='session-terminate' sid='%s'><reason><decline/></reason></jingle></iq>",
				randomHex(5), text(s.From), text(j.SID)))
		}
	case q.Space == "urn:xmpp:jingle:1":
		b.handleJingle(s)
	default:
		b.refuse(s, "cancel", "service-unavailable")
	}
}

func (b *Browser) handleJingle(s client.Stanza) {
	j, err := parseJingle(s.XML)
	if err != nil {
		b.refuse(s, "modify", "bad-request")
		return
	}
	sources, err := j.audio()
	if err != nil {
		b.refuse(s, "modify", "bad-request")
		return
	}
	b.mu.Lock()
	l := b.leg
	b.mu.Unlock()
	if j.Action != "session-initiate" && (l == nil || l.o.sid != j.SID) {
		b.refuse(s, "cancel", "item-not-found")
		return
	}
	switch j.Action {
	case "session-initiate", "transport-replace", "source-add":
		for ssrc, owner := range sources {
			b.rec.own(ssrc, owner)
		}
	}
	b.answer(s, "result", "")
	switch j.Action {
	case "session-initiate", "transport-replace":
		o, err := j.offer()
		if err != nil {
			b.log.Error("offer", "err", err)
			return
		}
		ssrc := rand.Uint32N(1<<32-2) + 1
		if j.Action == "transport-replace" {
			ssrc, o.initiator = l.ssrc, l.o.initiator
		}
		b.dropLeg()
		b.accept(s.From, o, ssrc, strings.Replace(strings.Replace(j.Action, "initiate", "accept", 1), "replace", "accept", 1))
	case "session-terminate":
		b.dropLeg()
	}
}

// accept starts a leg and answers the offer; the bridge begins its checks then.
func (b *Browser) accept(focus string, o offer, ssrc uint32, action string) {
	l, err := newLeg(b, o, ssrc)
	if err != nil {
		b.log.Error("media", "err", err)
		return
	}
	b.mu.Lock()
	b.leg = l
	b.invites++
	b.mu.Unlock()
	text, err := l.acceptance(action, b.c.JID(), action == "session-accept")
	if err != nil {
		b.log.Error("accept", "err", err)
		return
	}
	l.connect()
	ctx, cancel := context.WithTimeout(l.ctx, 15*time.Second)
	l.wg.Add(1)
	go func() { // the worker must be free for a session-terminate in between
		defer l.wg.Done()
		defer cancel()
		if s, err := b.c.Request(ctx, "set", focus, text); err == nil && s.Type == "error" {
			b.log.Error("accept refused", "err", condition(s.XML))
		}
	}()
}

func (b *Browser) dropLeg() {
	b.mu.Lock()
	l := b.leg
	b.leg = nil
	b.mu.Unlock()
	if l != nil {
		l.close()
	}
}

// lost is told when a leg's bridge does not answer any more: ask for a new
// session, as jitsi-meet does.
func (b *Browser) lost(l *leg) {
	b.do(func() {
		b.mu.Lock()
		current := b.leg == l
		b.mu.Unlock()
		if !current {
			return
		}
		b.dropLeg()
		_ = b.c.Send(fmt.Sprintf("<iq xmlns='jabber:client' type='set' id='%s' to='%s/focus'><jingle xmlns='urn:xmpp:jingle:1' action='session-terminate' sid='%s'>"+
			"<reason><connectivity-error/><text>ICE FAILED</text></reason><bridge-session xmlns='http://jitsi.org/protocol/focus' id='%s' restart='true'/></jingle></iq>",
			randomHex(5), b.room, l.o.sid, l.o.bridgeSession))
	})
}

// Close leaves the room and ends the session.
func (b *Browser) Close() error {
	b.mu.Lock()
	closed := b.closed
	b.mu.Unlock()
	if closed {
		return nil
	}
	_ = b.c.Send("<presence xmlns='jabber:client' type='unavailable' to='" + b.room + "/" + b.nick + "'/>")
	err := b.c.Close()
	b.leave(client.ErrClosed)
	b.finish()
	return err
}

// Drop vanishes without a word: no leave, no terminate, media just stops.
func (b *Browser) Drop() {
	b.c.Drop()
	b.leave(client.ErrClosed)
	b.finish()
}

// Nick is its nick in the room, which is its endpoint id.
func (b *Browser) Nick() string { return b.nick }

// JID is its real full JID.
func (b *Browser) JID() string { return b.c.JID() }

// Shard is the X-Jitsi-Shard that its session was created with.
func (b *Browser) Shard() string { return b.c.Shard() }

// Gone is closed when it was removed from the room or its session ended.
func (b *Browser) Gone() <-chan struct{} { return b.gone }

// Err says why, nil before.
func (b *Browser) Err() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.why
}

// Others are the nicks of the other occupants, the focus excluded.
func (b *Browser) Others() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Sorted(maps.Keys(b.others))
}

// PresenceOf is the last presence of another occupant, as XML; "" if it is not
// there.
func (b *Browser) PresenceOf(nick string) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.others[nick]
}

// Status is what an occupant says in its presence.
type Status struct{ Nick, Text string }

// Statuses are all that other occupants said so far, in order, each change
// once.
func (b *Browser) Statuses() []Status {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.said)
}

// noteStatus needs b.mu.
func (b *Browser) noteStatus(nick, presence string) {
	var p struct {
		Status string `xml:"jabber:client status"`
	}
	if xml.Unmarshal([]byte(presence), &p) != nil || p.Status == "" {
		return
	}
	for _, s := range slices.Backward(b.said) {
		if s.Nick == nick {
			if s.Text == p.Status {
				return
			}
			break
		}
	}
	b.said = append(b.said, Status{nick, p.Status})
}

// Invites counts the sessions that it accepted so far.
func (b *Browser) Invites() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.invites
}

// SSRC is that of what it says now, 0 without a session.
func (b *Browser) SSRC() uint32 {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.leg == nil {
		return 0
	}
	return b.leg.ssrc
}

// Connected waits until its present media transport is up.
func (b *Browser) Connected(ctx context.Context) error {
	return b.await(ctx, "media", func() bool {
		b.mu.Lock()
		l := b.leg
		b.mu.Unlock()
		if l == nil {
			return false
		}
		select {
		case <-l.ready:
			return true
		default:
			return false
		}
	})
}

// await polls until ok, the context ends, or the browser is not in the room any
// more.
func (b *Browser) await(ctx context.Context, what string, ok func() bool) error {
	t := time.NewTicker(5 * time.Millisecond)
	defer t.Stop()
	for !ok() {
		select {
		case <-t.C:
		case <-b.gone:
			return fmt.Errorf("%s: no %s: %w", b.nick, what, b.Err())
		case <-ctx.Done():
			return fmt.Errorf("%s: no %s: %w", b.nick, what, ctx.Err())
		}
	}
	return nil
}

func everybody(uint32, string) bool { return true }

// Hear waits for a tone in audio that arrives from now on.
func (b *Browser) Hear(ctx context.Context, freq int) error { return b.hear(ctx, freq, everybody) }

// HearFrom waits for a tone said by the occupant of that nick.
func (b *Browser) HearFrom(ctx context.Context, nick string, freq int) error {
	return b.hear(ctx, freq, ownedBy(nick))
}

func ownedBy(nick string) func(uint32, string) bool {
	return func(_ uint32, owner string) bool { return strings.EqualFold(owner, nick) }
}

func (b *Browser) hear(ctx context.Context, freq int, pick func(uint32, string) bool) error {
	marks := b.rec.ends()
	return b.await(ctx, fmt.Sprintf("%d Hz", freq), func() bool { return b.rec.hears(freq, marks, pick) })
}

// Heard is everything it heard, 48 kHz mono, mixed, beginning with the first
// audio that came (the last BrowserOptions.Keep of it).
func (b *Browser) Heard() []int16 { return b.rec.mix(everybody) }

// HeardSince is when the first sample of Heard came, zero if none has.
func (b *Browser) HeardSince() time.Time { return b.rec.since() }

// HeardFrom is what it heard from the occupant of that nick.
func (b *Browser) HeardFrom(nick string) []int16 { return b.rec.mix(ownedBy(nick)) }

// HeardSSRC is what it heard of one source.
func (b *Browser) HeardSSRC(ssrc uint32) []int16 {
	return b.rec.mix(func(s uint32, _ string) bool { return s == ssrc })
}

// Sources are the SSRCs that it heard, with the nick of the owner in lower case,
// "" where nobody told.
func (b *Browser) Sources() map[uint32]string {
	b.rec.mu.Lock()
	defer b.rec.mu.Unlock()
	out := map[uint32]string{}
	for s := range b.rec.tracks {
		out[s] = b.rec.owners[s]
	}
	return out
}

// Received counts RTP packets, and those of them that could not be read.
func (b *Browser) Received() (packets, bad uint64) {
	b.rec.mu.Lock()
	defer b.rec.mu.Unlock()
	return b.rec.packets, b.rec.bad
}

// SetTone changes what it says to a tone; 0 is silence.
func (b *Browser) SetTone(freq int) error { return b.say(toneOrPCM(freq, nil)) }

// SetPCM changes what it says to 48 kHz mono audio, said in a loop.
func (b *Browser) SetPCM(pcm []int16) error { return b.say(toneOrPCM(0, pcm)) }

func (b *Browser) say(v sound, err error) error {
	if err == nil {
		b.voice.Store(&v)
	}
	return err
}

// Mute mutes or unmutes it, and says so in its presence.
func (b *Browser) Mute(on bool) error {
	b.muted.Store(on)
	return b.c.Send(b.presence(false))
}

// Send sends a stanza of its own, given as XML with xmlns='jabber:client'.
func (b *Browser) Send(stanza string) error { return b.c.Send(stanza) }

// Request sends an IQ of its own and returns the answer as XML.
func (b *Browser) Request(ctx context.Context, typ, to, payload string) (string, error) {
	s, err := b.c.Request(ctx, typ, to, payload)
	return s.XML, err
}
