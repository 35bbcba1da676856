package phone

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"time"

	"brewline/media"
	"brewline/media/transport"
	"brewline/sip"
)

// ErrOffer: the phone's session description cannot be used.
var ErrOffer = errors.New("unusable session description")

// Audio is the call's side of the phone's media; media.Bridge implements it.
type Audio interface {
	AttachPhone(media.PhoneLeg) error
	UpdatePhone(send, receive bool)
	DetachPhone()
	SendDigit(digit byte, d time.Duration, tone bool) error
	Stats() media.Stats
}

// Options describe the media of a phone leg.
type Options struct {
	Codecs    []string // names as in configuration, best first
	Ptime     time.Duration
	Ports     *transport.Ports
	Bind      netip.Addr
	Advertise netip.Addr // in the SDP; zero: the address that reaches the phone
	Audio     Audio
	Logger    *slog.Logger

	SRTP   string      // "off", "optional", "required"; default off
	Keys   string      // of what we offer: "sdes", "dtls"; default sdes
	Failed func(error) // DTLS came to nothing, nil: nobody is told

	DTMF         string // how digits are sent: "auto", "rtp", "info", "inband"; default auto
	ComfortNoise bool   // RFC 3389, where the phone has it
	HoldMusic    bool   // whether what a phone sends that holds the call is heard
}

// Leg is the phone leg of one call. Answer, Reoffer and Close may be called
// from any goroutine.
type Leg struct {
	o     Options
	d     *sip.Dialog
	conn  *transport.Phone
	local sip.Local
	peer  netip.AddrPort // of SIP

	mu        sync.Mutex
	answer    []byte          // to an early offer
	last      *sip.SDP        // our last description, for late offers
	media     *sip.Media      // negotiated, nil until an offer was answered
	attached  *media.PhoneLeg // as the pacer has it, nil: it has none
	closed    bool
	live      bool          // the phone may be heard, and hear
	deaf      bool          // it only hears: it was not answered yet
	offered   bool          // in a provisional response
	reoffered bool          // before a call that we made was answered
	since     time.Duration // when media was last (re)negotiated, transport.Now

	infos infos // digits that go out by INFO
}

// Accept reads the INVITE's offer and opens the sockets. The dialog is not
// answered yet. Errors: ErrOffer, sip.ErrNoCodec, transport.ErrNoPorts.
func Accept(d *sip.Dialog, o Options) (*Leg, error) {
	advertise := o.Advertise
	if !advertise.IsValid() {
		var err error
		if advertise, err = addressTowards(d.Source(), o.Bind); err != nil {
			return nil, fmt.Errorf("local address towards %s: %w", d.Source(), err)
		}
	}
	l := newLeg(o, advertise)
	l.d, l.peer = d, d.Source()
	var offer *sip.SDP
	if raw := d.Offer(); len(raw) > 0 {
		var err error
		if offer, err = sip.ParseSDP(raw); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrOffer, err)
		}
	}
	if err := l.open(); err != nil {
		return nil, err
	}
	if offer != nil {
		if _, err := l.negotiate(offer); err != nil {
			l.conn.Close()
			return nil, err
		}
	}
	return l, nil
}

// newLeg has everything but its sockets.
func newLeg(o Options, advertise netip.Addr) *Leg {
	l := &Leg{o: o}
	l.local = sip.Local{
		Addr: advertise, SessionID: uint64(rand.Uint32()), RTCPMux: true, SRTP: srtpModes[o.SRTP], OfferDTLS: o.Keys == "dtls", DTMF: true, ComfortNoise: o.ComfortNoise, Ptime: o.Ptime, Direction: sip.SendRecv,
	}
	known := sip.KnownCodecs()
	for _, name := range o.Codecs {
		if c, ok := known[name]; ok {
			l.local.Codecs = append(l.local.Codecs, c)
		}
	}
	return l
}

func (l *Leg) open() error {
	conn, err := transport.OpenPhone(transport.PhoneOptions{
		Ports: l.o.Ports, Bind: l.o.Bind, Logger: l.o.Logger, Failed: l.o.Failed,
	})
	if err != nil {
		return err
	}
	l.conn = conn
	l.local.Port, l.local.RTCPPort = conn.Port(), conn.RTCPPort()
	return nil
}

// negotiate answers an offer and keeps what was agreed; mu may be held or not
// needed yet.
func (l *Leg) negotiate(offer *sip.SDP) ([]byte, error) {
	local, err := l.localFor(offer)
	if err != nil {
		return nil, err
	}
	answer, m, err := sip.Answer(offer, local)
	if err != nil {
		if errors.Is(err, sip.ErrNoCodec) || errors.Is(err, sip.ErrSRTP) {
			return nil, err
		}
		return nil, fmt.Errorf("%w: %w", ErrOffer, err)
	}
	l.local = local
	l.local.Version++
	l.last, l.answer = answer, answer.Marshal()
	l.agree(offer, &m)
	return l.answer, nil
}

// agree keeps what an offer and an answer came to.
func (l *Leg) agree(peer *sip.SDP, m *sip.Media) {
	l.media = m
	l.local.Last, l.local.Peer, l.local.Agreed = l.last, peer, m
}

// offer makes an offer of ours.
func (l *Leg) offer() ([]byte, error) {
	if l.local.OfferDTLS {
		if err := l.certify(); err != nil {
			return nil, err
		}
	}
	l.last = sip.Offer(l.local)
	l.local.Version++
	return l.last.Marshal(), nil
}

var srtpModes = map[string]sip.SRTP{"optional": sip.SRTPOptional, "required": sip.SRTPRequired}

// certify has a certificate for DTLS.
func (l *Leg) certify() error {
	if l.local.SRTP == sip.SRTPOff || l.local.Fingerprint.Value != "" {
		return nil
	}
	sum, err := l.conn.Fingerprint()
	if err != nil {
		return fmt.Errorf("certificate for DTLS: %w", err)
	}
	l.local.Fingerprint = sip.Fingerprint{Hash: "sha-256", Value: sum}
	return nil
}

// localFor is our side of an answer: with a certificate where DTLS is offered,
// and with an address of the family that the phone has.
func (l *Leg) localFor(offer *sip.SDP) (sip.Local, error) {
	for _, m := range offer.Media {
		if m.Fingerprint.Value != "" {
			if err := l.certify(); err != nil {
				return l.local, err
			}
		}
	}
	local := l.local
	for _, m := range offer.Media {
		at := m.Addr
		if m.Type != "audio" || m.Port == 0 || !at.IsValid() || at.IsUnspecified() {
			continue
		}
		if at.Is4() != local.Addr.Is4() {
			addr, err := addressTowards(netip.AddrPortFrom(at, uint16(m.Port)), l.o.Bind)
			if err != nil || addr.Is4() != at.Is4() {
				return local, fmt.Errorf("%w: no address of the family of %s", ErrOffer, at)
			}
			local.Addr = addr
		}
		break
	}
	return local, nil
}

// Ring tells the phone that it rings. To an INVITE that has no offer and takes
// reliable responses only, ours goes with it (RFC 3262 §5).
func (l *Leg) Ring() error {
	if !l.d.OfferDue() {
		return l.d.Ringing()
	}
	l.mu.Lock()
	body, err := l.offer()
	l.offered = err == nil
	l.mu.Unlock()
	if err != nil {
		return err
	}
	return l.d.Progress(180, body)
}

// Early lets the phone hear us before it is answered, by a 183 with our answer
// to its offer, reliably if that can be. Where there was no offer, the phone is
// told that it rings, and false returned.
func (l *Leg) Early() (bool, error) {
	l.mu.Lock()
	if l.media == nil {
		l.mu.Unlock()
		return false, l.Ring()
	}
	l.live, l.deaf = true, true
	body, err := l.answer, l.attach()
	l.mu.Unlock()
	if err != nil {
		return false, err
	}
	return true, l.d.Progress(183, body)
}

// Answer sends the 200 and waits for the ACK. Media runs from the 200 on, or,
// with a late offer, from the ACK.
func (l *Leg) Answer(ctx context.Context) error {
	l.mu.Lock()
	body, late := l.answer, l.media == nil
	l.live, l.deaf = true, false
	if late && l.offered {
		body = nil
	} else if late {
		var err error
		if body, err = l.offer(); err != nil {
			l.mu.Unlock()
			return err
		}
	} else if err := l.attach(); err != nil {
		l.mu.Unlock()
		return err
	}
	l.mu.Unlock()
	ack, err := l.d.Answer(ctx, body)
	if err != nil || !late {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.accepted(ack)
}

// accepted takes the phone's answer to our offer.
func (l *Leg) accepted(raw []byte) error {
	answer, err := sip.ParseSDP(raw)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrOffer, err)
	}
	m, err := sip.Accept(l.last, answer, l.local)
	if err != nil {
		if errors.Is(err, sip.ErrNoCodec) || errors.Is(err, sip.ErrSRTP) {
			return err
		}
		return fmt.Errorf("%w: %w", ErrOffer, err)
	}
	l.agree(answer, &m)
	return l.attach()
}

// attach gives the negotiated stream to the pacer; mu is held. When only the
// direction has changed, by hold or resume, our stream goes on as it is: a new
// one would say goodbye to the phone and start its jitter buffer anew.
func (l *Leg) attach() error {
	if l.closed {
		return net.ErrClosed
	}
	m := l.media
	if err := l.secure(m); err != nil {
		return err
	}
	remote, rtcp := m.Remote, m.RemoteRTCP
	if !remote.Addr().IsValid() { // a host name: audio will come from where SIP does, if not the first packet tells
		remote = netip.AddrPortFrom(l.peer.Addr(), remote.Port())
		rtcp = netip.AddrPort{}
	}
	l.conn.SetMux(m.RTCPMux)
	l.conn.SetRemote(remote, rtcp)
	next := media.PhoneLeg{
		Conn: l.conn, Codec: codecName(m.Codec), SendPT: m.Codec.PT, RecvPT: m.RecvPT,
		EventPT: m.EventPT, RecvEventPT: m.RecvEventPT, EventRate: m.EventRate, Ptime: l.packetTime(m),
		CNPT: m.CNPT, RecvCNPT: m.RecvCNPT, Tones: m.RecvEventPT == 0 || l.o.DTMF == "inband",
		Send: m.Send, Receive: m.Receive && (m.Send || l.o.HoldMusic) && !l.deaf,
	}
	if was := l.attached; was != nil {
		same := *was
		same.Send, same.Receive = next.Send, next.Receive
		if same == next {
			l.o.Audio.UpdatePhone(next.Send, next.Receive)
			l.attached, l.since = &next, transport.Now()
			return nil
		}
		l.o.Audio.DetachPhone()
		l.attached = nil
	}
	if err := l.o.Audio.AttachPhone(next); err != nil {
		return err
	}
	l.attached, l.since = &next, transport.Now()
	return nil
}

// packetTime is the audio in a packet to the phone: as it wishes, else as
// configured, and never more than it takes.
func (l *Leg) packetTime(m *sip.Media) time.Duration {
	d := cmp.Or(m.Ptime, l.o.Ptime)
	if m.MaxPtime > 0 {
		d = min(d, m.MaxPtime)
	}
	return d
}

// secure has the stream protected as agreed.
func (l *Leg) secure(m *sip.Media) error {
	switch {
	case m.Keys != nil:
		return l.conn.SetSDES(transport.SDES{Suite: m.Keys.Suite, Send: m.Keys.Send, Receive: m.Keys.Receive, MKI: m.Keys.MKI})
	case m.DTLS != nil:
		d := m.DTLS
		return l.conn.SetDTLS(transport.PhoneDTLS{
			Client: d.Active, FingerprintHash: d.Fingerprint.Hash, Fingerprint: d.Fingerprint.Value,
			Ufrag: d.Local.Ufrag, Pwd: d.Local.Pwd,
		})
	}
	l.conn.SetPlain()
	return nil
}

// Reoffer follows a re-INVITE: hold, resume, a new address or codec.
func (l *Leg) Reoffer(r *sip.Reoffer) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if r.SDP == nil {
		offer, err := l.offer()
		if err != nil {
			l.o.Logger.Warn("re-INVITE refused", "err", err)
			r.Reject(500)
			return
		}
		r.ACK = func(sdp []byte) {
			l.mu.Lock()
			defer l.mu.Unlock()
			if err := l.accepted(sdp); err != nil {
				l.o.Logger.Warn("answer in the ACK of a re-INVITE is unusable", "err", err)
			}
		}
		r.Answer(offer)
		return
	}
	answer, err := l.reoffer(r.SDP)
	if err != nil {
		l.o.Logger.Warn("re-INVITE refused", "err", err)
		r.Reject(488)
		return
	}
	r.Answer(answer)
	l.o.Logger.Info("phone renegotiated", "codec", codecName(l.media.Codec),
		"sends", l.media.Receive, "receives", l.media.Send)
}

// reoffer answers an offer within the session. After an error the session is as
// it was (RFC 3261 §14.2); mu is held.
func (l *Leg) reoffer(raw []byte) ([]byte, error) {
	offer, err := sip.ParseSDP(raw)
	if err != nil {
		return nil, err
	}
	local, last, before, agreed := l.local, l.last, l.answer, l.media
	answer, err := l.negotiate(offer)
	if err != nil {
		return nil, err
	}
	if l.live {
		if err := l.attach(); err != nil {
			l.local, l.last, l.answer, l.media = local, last, before, agreed
			if agreed != nil {
				err = errors.Join(err, l.attach())
			}
			return nil, err
		}
	}
	l.reoffered = l.d == nil
	return answer, nil
}

// Refreshed takes the answer to an offer of ours that a session refresh
// repeated (RFC 4028 §7.4).
func (l *Leg) Refreshed(offer, answer []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	was, err := sip.ParseSDP(offer)
	if err == nil {
		l.last = was
		err = l.accepted(answer)
	}
	if err != nil {
		l.o.Logger.Warn("answer to a session refresh is unusable", "err", err)
	}
}

// Codec names the agreed codec.
func (l *Leg) Codec() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.media == nil {
		return ""
	}
	return codecName(l.media.Codec)
}

// comfortPatience is how much longer a phone may be silent that has described
// comfort noise: it need not do so again (RFC 3389 §4).
const comfortPatience = 10

// Silent tells for how long nothing at all has come from the phone, neither RTP
// nor RTCP. It is 0 while the phone holds the call, when it may send nothing,
// and counts slowly while the phone has us make its comfort noise.
func (l *Leg) Silent() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.media == nil || !l.media.Receive || !l.media.Send {
		return 0
	}
	s := l.o.Audio.Stats()
	silent := transport.Now() - max(s.LastFromPhone, l.since)
	if s.Comfort {
		silent /= comfortPatience
	}
	return silent
}

// Close releases the sockets. The pacer has let go of them when it returns.
func (l *Leg) Close() {
	l.infos.close()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return
	}
	l.closed = true
	if l.attached != nil {
		l.o.Audio.DetachPhone()
		l.attached = nil
	}
	l.conn.Close()
}

// addressTowards is the local address from which peer is reached.
func addressTowards(peer netip.AddrPort, bind netip.Addr) (netip.Addr, error) {
	if bind.IsValid() && !bind.IsUnspecified() {
		return bind, nil
	}
	c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(peer)) // sends nothing
	if err != nil {
		return netip.Addr{}, err
	}
	defer c.Close()
	return c.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap(), nil
}
