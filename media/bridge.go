package media

import (
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"brewline/media/codec"
	"brewline/media/transport"
)

// ErrClosed is returned by an attach to a closed [Bridge].
var ErrClosed = errors.New("media: bridge closed")

// BridgeOptions are the parameters of [Pacer.NewBridge].
type BridgeOptions struct {
	// OnDigit is told of each digit of the phone when it has ended: of
	// telephone-events (RFC 4733), and where PhoneLeg.Tones says so of tones. It
	// runs on a pacer's worker and must not block; it may call the Bridge.
	OnDigit func(Digit)
	// OnKey is told, in the same way, of digits that participants send as
	// telephone-events.
	OnKey func(Digit)
	// OpusComplexity is libopus' complexity, 1 to 10, default 5.
	OpusComplexity int
	Logger         *slog.Logger // default the pacer's
}

// PhoneLeg describes the stream to and from the phone. Payload types are those
// of the session descriptions.
type PhoneLeg struct {
	Conn                 transport.Conn
	Codec                string // "pcmu", "pcma", "g722", "opus"
	SendPT, RecvPT       uint8
	EventPT, RecvEventPT uint8 // telephone-event, 0 none
	EventRate            int   // clock of telephone-event, default the codec's RTP clock
	// Comfort noise (RFC 3389), 0 none. With CNPT noise is described to the
	// phone in place of silence, not with Opus, which has its own way. Payload
	// type 13 is understood in any case.
	CNPT, RecvCNPT uint8
	// Tones has digits looked for in the audio.
	Tones bool
	// Ptime is the time in a packet we send: 10 to 60 ms in steps of 10,
	// default 20 ms. Others are rounded down; Opus has no 30 and 50 ms. Received
	// packets may be of any.
	Ptime         time.Duration
	Send, Receive bool   // from our side; both false while held
	SSRC          uint32 // 0: random
	CNAME         string // RFC 3550 §6.5.1; "": random
}

// ConferenceLeg describes the stream to and from the videobridge.
type ConferenceLeg struct {
	Conn         transport.Conn
	OpusPT       uint8
	EventPT      uint8  // telephone-event of participants, 0 none
	EventRate    int    // its clock, default 8000 Hz
	AudioLevelID uint8  // header extension of RFC 6464, 0 none
	SSRC         uint32 // of our stream, as announced; 0: random
	CNAME        string // "": random
}

// A Bridge is the audio of one call. Its methods may be called from any
// goroutine; they take effect between two ticks of the pacer.
type Bridge struct {
	o      BridgeOptions
	pacer  *Pacer
	worker *worker

	mu         sync.Mutex    // held by a tick and by every method
	now        time.Duration // of the last tick
	closed     bool
	muted      bool
	phoneLeg   PhoneLeg
	codec      codec.Codec // the phone's
	phone      leg
	conference leg
	levelID    uint8
	eventPT    uint8 // of the conference
	pool       pool
	speakers   *speakers
	owners     map[uint32]string
	up         uplink
	down       downlink
	prompt     *playing
	keypad     keypad
	events     []event // to be told when the tick is over

	phoneReports      phoneReports // here, so that RTCP costs no allocation
	conferenceReports conferenceReports

	digitsHeard, digitsSent, keysHeard, slotsSkipped, framesEncoded, framesPassed, encodeErrors uint64
}

// An event is a callback that waits for the end of a tick.
type event struct {
	digit Digit
	key   bool // a participant's
	done  func()
}

const (
	// maxDigits bounds the digits of one tick; more than one is not human.
	maxDigits = 16
	// maxDrain bounds the packets of a leg that are taken in one tick.
	maxDrain = 512
	// maxOwners bounds what SetOwner remembers.
	maxOwners = 1024
)

// NewBridge returns a bridge without legs, run by p until Close.
func (p *Pacer) NewBridge(o BridgeOptions) *Bridge {
	if o.Logger == nil {
		o.Logger = p.logger
	}
	b := &Bridge{o: o, pacer: p, owners: make(map[uint32]string)}
	b.phoneReports.bridge, b.conferenceReports.bridge = b, b
	b.pool.fill()
	b.speakers = newSpeakers(&b.pool, &b.conference.stats)
	b.down.period = upPeriod
	p.add(b)
	return b
}

// AttachPhone gives the bridge its phone leg, in place of the one it had. The
// leg's Conn is used until DetachPhone has returned. A leg that follows one
// with the same SSRC goes on with its sequence numbers and timestamps.
func (b *Bridge) AttachPhone(l PhoneLeg) error {
	c, ok := codec.ByName(l.Codec)
	if !ok {
		return fmt.Errorf("media: attach phone: no codec %q", l.Codec)
	}
	if l.Conn == nil {
		return errors.New("media: attach phone: no conn")
	}
	if l.SendPT > 127 || l.RecvPT > 127 || l.EventPT > 127 || l.CNPT > 127 {
		return fmt.Errorf("media: attach phone: payload types %d, %d", l.SendPT, l.RecvPT)
	}
	if l.EventRate <= 0 {
		l.EventRate = c.Clock
	}
	if l.Ptime <= 0 {
		l.Ptime = frameTime
	}
	slots := min(max(int(l.Ptime/slotTime), 1), 6)
	if c.Name == "opus" && (slots == 3 || slots == 5) { // RFC 6716 §2.1.4 has no such frames
		slots--
	}
	dec, err := c.NewDecoder()
	if err != nil {
		return fmt.Errorf("media: attach phone: %w", err)
	}
	enc, err := c.NewEncoder(codec.OpusOptions{Complexity: b.o.OpusComplexity, Loss: expectedLoss})
	if err != nil {
		dec.Close()
		return fmt.Errorf("media: attach phone: %w", err)
	}
	if c.Name == "opus" {
		l.CNPT = 0
	}
	var tones *codec.DTMFDetector
	if l.Tones {
		if tones, err = codec.NewDTMFDetector(c.Rate); err != nil {
			dec.Close()
			enc.Close()
			return fmt.Errorf("media: attach phone: %w", err)
		}
	}
	packet := c.Rate * slots / 100

	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		dec.Close()
		enc.Close()
		if tones != nil {
			tones.Close()
		}
		return ErrClosed
	}
	b.dropPhone()
	b.phoneLeg, b.codec = l, c
	b.phone.attach(l.Conn, l.SSRC, l.SendPT, l.CNAME)
	b.phone.clock = c.Clock
	b.keypad.silence()
	b.up.tones, b.up.comfort = tones, false
	b.up.player = newPlayer(dec, c.Rate, c.Clock, &b.pool, &b.phone.stats)
	b.up.player.late = &b.up.late
	b.up.reception = reception{clock: c.Clock, gone: b.up.totalLost()}
	b.up.ssrc = 0
	b.up.event = telephoneEvent{rate: l.EventRate}
	b.up.frame.pcm = make([]int16, c.Rate/50)
	b.down = downlink{
		period: slots,
		out:    outlet{enc: enc},
		frame:  frame{pcm: make([]int16, packet)},
		mix:    make([]int32, packet),
		ticks:  uint32(c.Clock * slots / 100),
	}
	b.down.out.opus, _ = enc.(*codec.OpusEncoder)
	b.speakers.setRate(c.Rate)
	if b.prompt != nil {
		b.prompt.load(c.Rate)
	}
	return b.encodeUp()
}

// encodeUp makes the encoder towards the videobridge once both legs are here.
func (b *Bridge) encodeUp() error {
	b.stopUp()
	if b.phone.conn == nil || b.conference.conn == nil {
		return nil
	}
	e, err := codec.NewOpusEncoder(b.codec.Rate, codec.OpusOptions{
		Complexity: b.o.OpusComplexity, Loss: expectedLoss,
	})
	if err != nil {
		return fmt.Errorf("media: attach: %w", err)
	}
	b.up.out, b.up.quiet, b.up.silent = outlet{enc: e}, 0, 0
	if b.codec.Name == "opus" {
		b.up.out.opus = e
	}
	return nil
}

// stopUp drops the encoder towards the videobridge.
func (b *Bridge) stopUp() {
	b.framesEncoded += b.up.out.encoded
	b.framesPassed += b.up.out.passed
	b.up.out = outlet{}
}

// stopDown drops the encoder towards the phone.
func (b *Bridge) stopDown() {
	if b.down.out.enc != nil {
		b.down.out.enc.Close()
	}
	b.framesPassed += b.down.out.passed
	b.down.out = outlet{}
}

// UpdatePhone changes the direction of the phone leg: hold and resume.
func (b *Bridge) UpdatePhone(send, receive bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.phoneLeg.Send, b.phoneLeg.Receive = send, receive
}

// DetachPhone takes the phone leg away. When it returns the leg's Conn is not
// touched any more.
func (b *Bridge) DetachPhone() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.dropPhone()
}

func (b *Bridge) dropPhone() {
	b.phone.detach()
	if b.up.player != nil {
		b.up.player.close()
		b.up.player = nil
	}
	if b.up.tones != nil {
		b.up.tones.Close()
		b.up.tones = nil
	}
	b.stopDown()
	b.stopUp()
	b.speakers.releaseAll(0)
}

// AttachConference gives the bridge its conference leg, in place of the one it
// had. The leg's Conn is used until DetachConference has returned.
func (b *Bridge) AttachConference(l ConferenceLeg) error {
	if l.Conn == nil {
		return errors.New("media: attach conference: no conn")
	}
	if l.OpusPT > 127 || l.EventPT > 127 || l.AudioLevelID > 14 { // RFC 8285 §4.2
		return fmt.Errorf("media: attach conference: payload type %d, audio level %d", l.OpusPT, l.AudioLevelID)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return ErrClosed
	}
	b.dropConference()
	b.conference.attach(l.Conn, l.SSRC, l.OpusPT, l.CNAME)
	b.conference.clock = opusClock
	b.levelID, b.eventPT = l.AudioLevelID, l.EventPT
	b.speakers.eventRate = l.EventRate
	if l.EventRate <= 0 {
		b.speakers.eventRate = 8000
	}
	return b.encodeUp()
}

// DetachConference takes the conference leg away. When it returns the leg's
// Conn is not touched any more.
func (b *Bridge) DetachConference() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.dropConference()
}

func (b *Bridge) dropConference() {
	b.conference.detach()
	b.speakers.clear()
	b.stopUp()
}

// SetMuted stops (or resumes) sending the phone's voice to the bridge. Digits
// are still reported.
func (b *Bridge) SetMuted(muted bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.muted = muted
}

// SetOwner tells whose source ssrc is. It is only used to name speakers in
// Stats; unknown sources are heard just the same.
func (b *Bridge) SetOwner(ssrc uint32, owner string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.owners) < maxOwners || b.owners[ssrc] != "" {
		b.owners[ssrc] = owner
	}
}

// RemoveSource forgets a source that has been taken away. Should it go on
// sending it is heard again.
func (b *Bridge) RemoveSource(ssrc uint32) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.owners, ssrc)
	if s := b.speakers.bySSRC[ssrc]; s != nil {
		b.speakers.remove(s)
	}
}

// Close detaches both legs and ends a prompt. When it returns nothing of the
// bridge is touched any more.
func (b *Bridge) Close() {
	b.mu.Lock()
	b.closed = true
	b.dropPhone()
	b.dropConference()
	b.stopPrompt()
	b.unlock()
}

// tick runs one direction at now, late slots after it was due, and returns
// after how many slots it is due next, counted from now's; 0 when closed.
func (b *Bridge) tick(d direction, now time.Duration, late int64) (next int64) {
	b.mu.Lock()
	if b.closed {
		b.mu.Unlock()
		return 0
	}
	b.now = now
	b.drain()
	period, shift := int64(upPeriod), 0
	if d == down {
		period = int64(b.down.period)
	}
	missed := late / period
	b.slotsSkipped += uint64(missed)
	if d == up {
		shift = b.tickUp(now, int(missed))
	} else {
		shift = b.tickDown(now, int(missed))
	}
	b.unlock()
	return max(period+int64(shift)-late%period, 1)
}

// unlock ends a tick or a method, then tells what there is to tell.
func (b *Bridge) unlock() {
	if len(b.events) == 0 {
		b.mu.Unlock()
		return
	}
	events := b.events
	b.events = nil
	b.mu.Unlock()
	for _, e := range events {
		switch {
		case e.done != nil:
			e.done()
		case e.key && b.o.OnKey != nil:
			b.o.OnKey(e.digit)
		case !e.key && b.o.OnDigit != nil:
			b.o.OnDigit(e.digit)
		}
	}
}

// digit has OnDigit told of a digit, if it is one.
func (b *Bridge) digit(digit byte, d time.Duration) {
	if digit != 0 {
		b.told(Digit{Key: digit, Duration: d})
	}
}

// told has OnDigit told.
func (b *Bridge) told(d Digit) {
	b.digitsHeard++
	if len(b.events) < maxDigits {
		b.events = append(b.events, event{digit: d})
	}
}

// key has OnKey told of a participant's digit, if it is one.
func (b *Bridge) key(digit byte, d time.Duration) {
	if digit == 0 {
		return
	}
	b.keysHeard++
	if len(b.events) < maxDigits {
		b.events = append(b.events, event{digit: Digit{Key: digit, Duration: d}, key: true})
	}
}

// drain takes what has come on both legs.
func (b *Bridge) drain() {
	if c := b.phone.conn; c != nil {
		ring := c.Ring()
		for range maxDrain {
			p, ok := ring.Peek()
			if !ok {
				break
			}
			b.phonePackets(p)
			ring.Release()
		}
	}
	if c := b.conference.conn; c != nil {
		ring := c.Ring()
		for range maxDrain {
			p, ok := ring.Peek()
			if !ok {
				break
			}
			b.conferencePackets(p)
			ring.Release()
		}
	}
}

func (b *Bridge) phonePackets(p *transport.Packet) {
	b.phone.last = p.At
	if p.RTCP {
		b.phone.stats.RTCPIn++
		b.phoneReports.at = p.At
		if !parseRTCP(p.Data, &b.phoneReports) {
			b.refuse(&b.phone, "phone", "RTCP", p.Data)
		}
		return
	}
	b.phone.lastRTP = p.At
	if r, ok := parseRTP(p.Data); ok {
		b.phonePacket(&r, p.At)
	} else {
		b.refuse(&b.phone, "phone", "RTP", p.Data)
	}
}

func (b *Bridge) conferencePackets(p *transport.Packet) {
	b.conference.last = p.At
	if p.RTCP {
		b.conference.stats.RTCPIn++
		b.conferenceReports.at = p.At
		if !parseRTCP(p.Data, &b.conferenceReports) {
			b.refuse(&b.conference, "conference", "RTCP", p.Data)
		}
		return
	}
	b.conference.lastRTP = p.At
	if r, ok := parseRTP(p.Data); ok {
		b.conferencePacket(&r, p.At)
	} else {
		b.refuse(&b.conference, "conference", "RTP", p.Data)
	}
}

// refuse counts a packet that cannot be used, and logs the first of each leg
// once the tick is over.
func (b *Bridge) refuse(l *leg, name, why string, packet []byte) {
	l.stats.Invalid++
	if l.refused {
		return
	}
	l.refused = true
	size, start := len(packet), hex.EncodeToString(packet[:min(len(packet), rtpHeaderLen)])
	b.events = append(b.events, event{done: func() {
		b.o.Logger.Warn("media packet refused, further ones are only counted",
			"leg", name, "reason", why, "bytes", size, "start", start)
	}})
}
