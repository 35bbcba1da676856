package conference

import (
	"context"
	"errors"
	"fmt"
	"time"

	"brewline/media"
	"brewline/media/transport"
	"brewline/xmpp"
	"brewline/xmpp/jingle"
)

// jingleSession is one Jingle session and its transport.
type jingleSession struct {
	gen      int // tells results of an older session apart
	offer    jingle.Offer
	ssrc     uint32
	cancel   context.CancelFunc
	link     *link // once connected
	leg      media.ConferenceLeg
	attached bool
	lost     *time.Timer // transport disconnected
}

// link is one transport to a videobridge.
type link struct{ *transport.Conference }

// Results that a session's children post to the leg.
type (
	accepted struct {
		gen int
		err error
	}
	connected struct {
		gen  int
		link *link
		err  error
	}
	transportState struct {
		link  *link
		state transport.State
	}
)

// prepare opens a transport ahead of the invitation.
func (l *Leg) prepare() {
	l.wg.Go(func() {
		k, err := l.open()
		l.prepared <- preparedLink{k, err}
	})
}

func (l *Leg) open() (*link, error) {
	k := new(link)
	o := l.o.Transport
	o.Logger = l.log
	o.OnState = func(s transport.State) { l.post(transportState{k, s}) }
	conn, err := transport.OpenConference(l.ctx, o)
	k.Conference = conn
	return k, err
}

func (l *Leg) handleJingle(iq *xmpp.IQ, j *jingle.Jingle) error {
	switch j.Action {
	case "session-initiate", "transport-replace":
		return l.handleInitiate(iq, j)
	}
	if l.jingle == nil || j.SID != l.jingle.offer.SID {
		l.xs.ReplyError(iq, &xmpp.StanzaError{Type: "cancel", Condition: "item-not-found", Text: "no such Jingle session"})
		return nil
	}
	l.xs.Reply(iq, nil)
	switch j.Action {
	case "source-add", "addsource":
		l.addSources(j.Sources)
	case "source-remove", "removesource":
		for _, s := range j.Sources {
			l.removeSource(s)
		}
	case "session-terminate":
		l.terminated(j)
	case "transport-info":
		// The bridge never trickles; new credentials mean an ICE restart in
		// place, which a restarted session does as well.
		for _, c := range j.Contents {
			if c.Transport != nil && c.Transport.Ufrag != "" && c.Transport.Ufrag != l.jingle.offer.Ufrag {
				l.restart("Jicofo restarts ICE")
				break
			}
		}
	}
	return nil
}

// terminated follows a session-terminate: the transport goes, membership and
// phone stay, and another session-initiate is awaited.
func (l *Leg) terminated(j *jingle.Jingle) {
	why := j.Reason.Condition
	if j.Reason.Text != "" {
		why += ": " + j.Reason.Text
	}
	l.log.Info("Jicofo ended the Jingle session", "reason", why)
	l.dropSession(why)
	if l.room == nil {
		return
	}
	if j.Reason.Condition == "expired" || l.occupants().Others == 0 {
		return // Jicofo waits for company
	}
	l.moving.Reset(l.o.Timers.Moving)
}

func (l *Leg) handleInitiate(iq *xmpp.IQ, j *jingle.Jingle) error {
	offer, err := jingle.AudioOffer(j)
	if err != nil {
		l.log.Warn("unusable offer from the focus", "err", err)
		l.xs.ReplyError(iq, &xmpp.StanzaError{Type: "modify", Condition: "bad-request", Text: err.Error()})
		return nil
	}
	l.xs.Reply(iq, nil)
	action, ssrc := "session-accept", randomSSRC()
	if j.Action == "transport-replace" {
		// Jicofo keeps our source in this mode; repeating it is refused.
		action = "transport-accept"
		if offer.SID == l.lastSID {
			ssrc = l.lastSSRC
		}
	}
	l.lastSID, l.lastSSRC = offer.SID, ssrc
	if l.jingle != nil {
		l.dropSession("replaced by another session")
	}
	l.stopInviteTimers()
	l.gen++
	ctx, cancel := context.WithCancel(l.ctx)
	s := &jingleSession{gen: l.gen, offer: offer, ssrc: ssrc, cancel: cancel, lost: stoppedTimer()}
	l.jingle = s
	l.addSources(offer.Sources)
	l.o.On(Invited{BridgeSession: offer.BridgeSession, Region: offer.Region})
	if offer.StartMuted && !l.muted {
		l.setMuted(true, true)
	}
	answer := jingle.Answer{
		Action: action, Responder: l.xs.JID().String(), SSRC: ssrc,
		SourceName: l.nick + "-a0", MSID: fmt.Sprintf("%s-audio-0-%d %s-a0", l.nick, l.gen, l.nick),
	}
	l.wg.Go(func() { l.connect(ctx, s.gen, offer, answer) })
	return nil
}

func (l *Leg) stopInviteTimers() {
	l.invite.Stop()
	l.inviting = false
	l.moving.Stop()
}

// connect accepts the session and connects its transport at the same time: the
// bridge begins its checks as soon as the accept reaches it.
func (l *Leg) connect(ctx context.Context, gen int, offer jingle.Offer, answer jingle.Answer) {
	ctx, cancel := context.WithTimeout(ctx, l.o.Timers.Connect)
	defer cancel()
	setup, err := transport.SetupFor(offer.Fingerprint.Setup)
	if err != nil {
		l.post(connected{gen: gen, err: err})
		return
	}
	k, err := l.takeLink(ctx)
	if err != nil {
		l.post(connected{gen: gen, err: err})
		return
	}
	local := k.Local()
	answer.Ufrag, answer.Pwd, answer.Setup = local.Ufrag, local.Pwd, setup
	answer.FingerprintHash, answer.FingerprintValue = local.FingerprintHash, local.Fingerprint
	for _, c := range local.Candidates {
		answer.Candidates = append(answer.Candidates, jingleCandidate(c))
	}
	focus, xs := l.o.Room.WithResource(l.o.FocusNick), l.xs
	l.wg.Go(func() {
		_, err := xs.Request(l.ctx, &xmpp.IQ{Type: "set", To: focus, Payload: jingle.Accept(offer, answer)})
		l.post(accepted{gen, err})
	})
	remote := transport.Remote{
		Ufrag: offer.Ufrag, Pwd: offer.Pwd, Setup: offer.Fingerprint.Setup,
		FingerprintHash: offer.Fingerprint.Hash, Fingerprint: offer.Fingerprint.Value,
	}
	for _, c := range offer.Candidates {
		remote.Candidates = append(remote.Candidates, transportCandidate(c))
	}
	if err := k.Connect(ctx, remote); err != nil {
		k.Close()
		l.post(connected{gen: gen, err: err})
		return
	}
	if !l.post(connected{gen: gen, link: k}) {
		k.Close()
	}
}

// takeLink is the transport opened ahead, or a new one.
func (l *Leg) takeLink(ctx context.Context) (*link, error) {
	if l.usedPrepared.CompareAndSwap(false, true) {
		select {
		case p := <-l.prepared:
			return p.link, p.err
		case <-ctx.Done():
			return nil, ctx.Err() // drain closes it
		}
	}
	return l.open()
}

func (l *Leg) handleAccepted(m accepted) {
	if l.jingle == nil || m.gen != l.jingle.gen || m.err == nil {
		return
	}
	// The session is over for Jicofo: gone, not active, or our source refused.
	l.log.Warn("session-accept refused", "err", m.err)
	l.dropSession("session-accept refused")
	l.moving.Reset(l.o.Timers.Moving)
}

func (l *Leg) handleConnected(m connected) error {
	s := l.jingle
	if s == nil || m.gen != s.gen {
		if m.link != nil {
			m.link.Close()
		}
		return nil
	}
	if m.err != nil {
		if errors.Is(m.err, transport.ErrNoPorts) {
			return errorf(ErrNoPorts, m.err)
		}
		l.log.Warn("no media path to the videobridge", "err", m.err)
		l.mediaTries++
		if l.mediaTries >= 3 {
			return errorf(ErrMedia, m.err)
		}
		l.restart("connecting to the videobridge failed")
		return nil
	}
	l.mediaTries = 0
	s.link = m.link
	s.leg = media.ConferenceLeg{
		Conn: m.link, OpusPT: s.offer.OpusPT, EventPT: s.offer.EventPT, EventRate: s.offer.EventRate, AudioLevelID: uint8(s.offer.AudioLevelID),
		SSRC: s.ssrc, CNAME: l.nick,
	}
	if err := l.o.Audio.Attach(s.leg); err != nil {
		return errorf(ErrMedia, err)
	}
	s.attached, l.heard = true, true
	l.o.On(MediaUp{Profile: m.link.Profile()})
	return nil
}

func (l *Leg) handleTransport(m transportState) {
	s := l.jingle
	if s == nil || s.link != m.link {
		return // not connected yet, or an older session's
	}
	switch m.state {
	case transport.Connected:
		s.lost.Stop()
	case transport.Disconnected:
		s.lost.Reset(l.o.Timers.Disconnected)
	case transport.Failed:
		s.lost.Reset(l.o.Timers.Failed)
	}
}

func (l *Leg) disconnectedC() <-chan time.Time {
	if l.jingle == nil {
		return nil
	}
	return l.jingle.lost.C
}

// restart ends the session and asks Jicofo for another one.
func (l *Leg) restart(why string) {
	s := l.jingle
	if s == nil {
		return
	}
	l.log.Warn("restarting the Jingle session", "why", why)
	j := jingle.Terminate(s.offer.SID, s.offer.Initiator, "connectivity-error", why, s.offer.BridgeSession, true)
	l.dropSession(why)
	l.moving.Reset(l.o.Timers.Moving)
	focus, xs := l.o.Room.WithResource(l.o.FocusNick), l.xs
	l.wg.Go(func() {
		// A refusal (rate limit, unknown bridge session) leaves the session
		// ended all the same; the moving timer takes it from there.
		if _, err := xs.Request(l.ctx, &xmpp.IQ{Type: "set", To: focus, Payload: j}); err != nil {
			l.log.Debug("session-terminate answered with an error", "err", err)
		}
	})
}

// dropSession detaches and closes the transport and forgets the session.
func (l *Leg) dropSession(why string) {
	s := l.jingle
	if s == nil {
		return
	}
	l.jingle = nil
	s.cancel()
	s.lost.Stop()
	if s.attached {
		l.o.Audio.Detach(s.leg)
		l.o.On(MediaDown{Reason: why})
	}
	if s.link != nil {
		s.link.Close()
	}
	l.ssrcs = map[string][]uint32{}
	if l.room != nil && l.moving != nil {
		l.watchInvite(l.occupants())
	}
}

func (l *Leg) addSources(sources []jingle.Source) {
	for _, s := range sources {
		if !s.Video && len(l.ssrcs[s.Owner]) < 16 && len(l.ssrcs) < 4096 {
			l.ssrcs[s.Owner] = append(l.ssrcs[s.Owner], s.SSRC)
		}
	}
}

func (l *Leg) removeSource(gone jingle.Source) {
	for owner, ssrcs := range l.ssrcs {
		for i, ssrc := range ssrcs {
			if ssrc == gone.SSRC {
				l.ssrcs[owner] = append(ssrcs[:i:i], ssrcs[i+1:]...)
				l.o.Audio.DropSource(ssrc)
				return
			}
		}
	}
}

func jingleCandidate(c transport.Candidate) jingle.Candidate {
	return jingle.Candidate{
		Component: c.Component, Foundation: c.Foundation, ID: randomHex(8), IP: c.IP, Port: c.Port,
		Priority: c.Priority, Protocol: c.Protocol, Type: c.Type, RelAddr: c.RelAddr, RelPort: c.RelPort,
	}
}

func transportCandidate(c jingle.Candidate) transport.Candidate {
	return transport.Candidate{
		Component: c.Component, Foundation: c.Foundation, IP: c.IP, Port: c.Port,
		Priority: c.Priority, Protocol: c.Protocol, Type: c.Type, RelAddr: c.RelAddr, RelPort: c.RelPort,
	}
}
