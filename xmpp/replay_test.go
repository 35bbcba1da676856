package xmpp_test

import (
	"strings"
	"testing"

	"brewline/xmpp"
	"brewline/xmpp/jingle"
)

// TestReplay plays the recorded server's side of a whole call against the
// client, in the recorded bytes.
func TestReplay(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	f.early = inside(f.answers[3]) // an answer to somebody else's question is no bind result
	iqs := make(chan *xmpp.IQ, 10)
	msgs := make(chan *xmpp.Message, 10)
	o := f.options()
	o.Token = "a b"
	o.Handler = xmpp.Handler{IQ: func(iq *xmpp.IQ) { iqs <- iq }, Message: func(m *xmpp.Message) { msgs <- m }}
	s := f.dial(o)
	if s.JID().String() != recordedJID {
		t.Fatalf("bound %s", s.JID())
	}
	ctx := within(t)
	room := xmpp.MustParseJID("judgeroom095c@conference.meet.shard1.test")
	focusUser := xmpp.MustParseJID("focus@auth.meet.shard1.test")

	type conf struct {
		r   *xmpp.ConferenceReply
		err error
	}
	conferences := make(chan conf, 1)
	go func() {
		r, err := s.RequestConference(ctx, xmpp.ConferenceRequest{Focus: xmpp.MustParseJID("focus.meet.shard1.test"), Room: room,
			MachineUID: "uid", Properties: map[string]string{"rtcstatsEnabled": "false"}})
		conferences <- conf{r, err}
	}()
	ask := f.expect("conference request")
	if !strings.Contains(ask, `to="focus.meet.shard1.test"`) || !strings.Contains(ask,
		`<conference xmlns="http://jitsi.org/protocol/focus" room="judgeroom095c@conference.meet.shard1.test" machine-uid="uid"><property name="rtcstatsEnabled" value="false"></property></conference>`) {
		t.Errorf("request %s", ask)
	}
	f.replay(5, "c973315a91", attribute(ask, "id"))
	got := await(t, conferences, "conference reply")
	if got.err != nil || !got.r.Ready || got.r.FocusJID != focusUser || got.r.Properties["sipGatewayEnabled"] != "true" {
		t.Fatalf("conference %+v, %v", got.r, got.err)
	}

	seen := make(events, 100)
	r, err := f.join(s, xmpp.RoomOptions{Room: room, Nick: "8acd7d62", FocusUser: got.r.FocusJID, On: seen.on}, inside(f.answers[6]))
	if err != nil {
		t.Fatal(err)
	}
	if os := r.Occupants(); len(os) != 2 || os[0].Nick != "19f5a4b1" || os[0].DisplayName != "bob" || os[1].DisplayName != "alice" ||
		os[1].Role != "moderator" || os[1].JID.Resource != "YGalsrUXE-tq" || os[1].Gateway {
		t.Errorf("occupants %+v", os)
	}
	if !r.Focus() || r.Self().JID != s.JID() || r.OccupantJID().String() != "judgeroom095c@conference.meet.shard1.test/8acd7d62" {
		t.Errorf("room %+v", r.Self())
	}
	if ev := seen.next(t, xmpp.FocusJoined); ev.Presence.ConferenceProperties["bridge-count"] != "1" || ev.Presence.ConferenceProperties["support-terminate-restart"] != "true" {
		t.Errorf("focus %+v", ev.Presence)
	}
	for {
		if md, ok := await(t, msgs, "metadata").RoomMetadata(); ok {
			if md.Room != room || md.StartAudioMuted {
				t.Errorf("metadata %+v", md)
			}
			break
		}
	}

	f.replay(7, "", "")
	iq := await(t, iqs, "session-initiate")
	j, err := jingle.Parse(iq.Raw)
	if err != nil {
		t.Fatal(err)
	}
	offer, err := jingle.AudioOffer(j)
	if err != nil || iq.From != r.FocusJID() || len(offer.Sources) != 3 {
		t.Fatalf("offer from %s: %+v, %v", iq.From, offer, err)
	}
	if err := s.Reply(iq, nil); err != nil {
		t.Fatal(err)
	}
	if ack := f.expect("acknowledgement"); attribute(ack, "type") != "result" || attribute(ack, "id") != iq.ID || attribute(ack, "to") != r.FocusJID().String() {
		t.Errorf("acknowledgement %s", ack)
	}
	accepted := make(chan error, 1)
	go func() {
		_, err := s.Request(ctx, &xmpp.IQ{Type: "set", To: r.FocusJID(), Payload: jingle.Accept(offer, jingle.Answer{
			Responder: s.JID().String(), SourceName: "8acd7d62-a0", MSID: "8acd7d62-audio-0-1 a0", SSRC: 5555555,
			Ufrag: "u", Pwd: "p", FingerprintHash: "sha-256", FingerprintValue: "AA:AA"})})
		accepted <- err
	}()
	accept := f.expect("session-accept")
	if !strings.Contains(accept, `action="session-accept" sid="6tpp9rlue4dlp"`) {
		t.Errorf("accept %s", accept)
	}
	f.replay(9, "a22c1ef1bc", attribute(accept, "id"))
	if err := await(t, accepted, "result"); err != nil {
		t.Fatal(err)
	}

	f.replay(10, "", "")
	if ev := seen.next(t, xmpp.OccupantJoined); ev.Occupant.DisplayName != "bob" && ev.Occupant.DisplayName != "alice" {
		t.Errorf("joined %+v", ev.Occupant)
	}
	for seen.next(t, xmpp.OccupantJoined).Occupant.DisplayName != "carol" {
	}
	f.replay(11, "", "")
	if j, err := jingle.Parse(await(t, iqs, "source-add").Raw); err != nil || j.Action != jingle.SourceAdd || j.Sources[0].Owner != "9b544bd8" {
		t.Errorf("source-add %+v, %v", j, err)
	}
	f.replay(12, "", "")
	if ev := seen.next(t, xmpp.OccupantLeft); ev.Occupant.Nick != "9b544bd8" {
		t.Errorf("left %+v", ev.Occupant)
	}
	f.replay(13, "", "")
	mute, ok := xmpp.ParseMute(await(t, iqs, "mute"))
	if !ok || !mute.Muted || mute.Actor.Resource != "50707b25" {
		t.Errorf("mute %+v, %t", mute, ok)
	}

	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if bye := f.expect("goodbye"); bye != `<presence xmlns="jabber:client" type="unavailable"></presence>` {
		t.Errorf("goodbye %s", bye)
	}
	for range len(f.queries) {
		if q := <-f.queries; q != "room=judgeroom095c&token=a+b" {
			t.Errorf("query %s", q)
		}
	}
	if st := s.Stats(); st != (xmpp.Stats{}) {
		t.Errorf("refused something: %+v", st)
	}
}
