package xmpp

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"brewline/xmpp/internal/split"
)

// outbox is a transport that keeps what was sent.
type outbox struct {
	mu   sync.Mutex
	sent [][]byte
	more chan struct{}
}

func (w *outbox) Send(el []byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.sent = append(w.sent, el)
	select {
	case w.more <- struct{}{}:
	default:
	}
	return nil
}

func (w *outbox) take() [][]byte {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := w.sent
	w.sent = nil
	return out
}

func (*outbox) Restart() error                { return nil }
func (*outbox) Established()                  {}
func (*outbox) Recv() (split.Element, error)  { return split.Element{}, errors.New("not read") }
func (*outbox) Close(context.Context, []byte) {}
func (*outbox) Abort(error)                   {}
func (*outbox) Wait()                         {}
func (*outbox) Shard() string                 { return "" }

// witness follows the events of a room and holds them against each other.
type witness struct {
	t       *testing.T
	present map[string]bool // occupants
	focus   bool
	ended   RoomEventKind
}

func (w *witness) see(e RoomEvent) {
	if w.ended != 0 {
		w.t.Fatalf("%v after %v", e.Kind, w.ended)
	}
	nick := e.Occupant.Nick
	switch e.Kind {
	case OccupantJoined, OccupantChanged, OccupantLeft:
		if w.present[nick] != (e.Kind != OccupantJoined) {
			w.t.Fatalf("%v of %q, who was there: %v", e.Kind, nick, w.present[nick])
		}
		if nick == "" || nick == "focus" {
			w.t.Fatalf("%v of %q", e.Kind, nick)
		}
		if e.Kind == OccupantLeft {
			delete(w.present, nick)
		} else {
			w.present[nick] = true
		}
	case FocusJoined, FocusChanged, FocusLeft:
		if w.focus != (e.Kind != FocusJoined) {
			w.t.Fatalf("%v, which was there: %v", e.Kind, w.focus)
		}
		w.focus = e.Kind != FocusLeft
	case Kicked, Banned, Destroyed, SelfLeft:
		w.ended = e.Kind
	}
}

// FuzzSequence sends a room's stanzas in any order, two bytes each. Whatever
// comes: events make sense one after another, only the focus is obeyed, and
// each request is answered once.
func FuzzSequence(f *testing.F) {
	const room = "r@c"
	nicks := []string{"", "me", "focus", "a", "b", "me2"}
	users := []string{"", "jid='focus@auth/f' ", "jid='x@evil/y' "}
	statuses := []string{"", "<status code='110'/>", "<status code='307'/>", "<status code='301'/>",
		"<status code='303'/>", "<status code='110'/><status code='307'/>", "<status code='104'/>", "<destroy jid='s@c'><reason>over</reason></destroy>"}
	types := []string{"", " type='unavailable'", " type='error'"}
	problems := []string{"", "<error type='auth'><not-authorized xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error>",
		"<error type='cancel'><not-acceptable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error>", "<error/>"}
	payloads := []string{"<jingle xmlns='urn:xmpp:jingle:1' action='session-initiate' sid='s'/>", "<jingle xmlns='urn:xmpp:jingle:1' action='source-add' sid='s'/>",
		"<jingle xmlns='urn:xmpp:jingle:1'/>", "<mute xmlns='http://jitsi.org/jitmeet/audio'>true</mute>", "<ping xmlns='urn:xmpp:ping'/>",
		"<query xmlns='http://jabber.org/protocol/disco#info'/>", "<x xmlns='y'/>", ""}
	pick := func(of []string, n byte) string { return of[int(n)%len(of)] }
	// stanza makes one of two bytes.
	stanza := func(id int, a, b byte) string {
		from := room
		if nick := pick(nicks, a>>3); nick != "" {
			from += "/" + nick
		}
		switch a & 7 {
		case 0, 1, 2: // of the room as it goes about its business
			return fmt.Sprintf("<presence from='%s'%s><x xmlns='http://jabber.org/protocol/muc#user'><item %srole='participant' nick='me2'/>%s</x></presence>",
				from, pick(types[:2], b), pick(users, b>>1), pick(statuses, b>>3))
		case 3:
			return fmt.Sprintf("<presence from='%s'%s>%s</presence>", from, pick(types, b), pick(problems, b>>3))
		case 4:
			return fmt.Sprintf("<message from='%s'%s><body>hm</body><x xmlns='http://jabber.org/protocol/muc#user'>%s</x></message>", from, pick(types, b), pick(statuses, b>>3))
		case 5, 6:
			return fmt.Sprintf("<iq from='%s' id='q%d' type='%s'>%s</iq>", from, id, pick([]string{"set", "get"}, b), pick(payloads, b>>1))
		default:
			return fmt.Sprintf("<iq from='%s' id='q%d' type='%s'>%s</iq>", from, id, pick([]string{"result", "error"}, b), pick(problems, b>>3))
		}
	}
	f.Add([]byte{2 << 3, 2, 3 << 3, 0, 1 << 3, 1 << 3, 5 + 2<<3, 0, 5 + 3<<3, 0, 1 << 3, 1 | 2<<3})         // a stay that ends with a kick
	f.Add([]byte{3 + 1<<3, 2 | 1<<3, 1 << 3, 1 << 3})                                                       // refused
	f.Add([]byte{1 << 3, 1 << 3, 2 << 3, 4, 5 + 2<<3, 0, 6 + 2<<3, 6, 2 << 3, 1, 2 << 3, 2, 0, 7 << 3})     // an impostor, then the focus
	f.Add([]byte{1 << 3, 1 << 3, 1 << 3, 1 | 4<<3, 5 << 3, 1 << 3, 3 << 3, 0, 3 << 3, 1, 1 << 3, 1 | 7<<3}) // renamed
	f.Fuzz(func(t *testing.T, in []byte) {
		w := &outbox{more: make(chan struct{}, 1)}
		seen := &witness{t: t, present: map[string]bool{}}
		s := &Session{o: Options{RequestTimeout: time.Minute}, log: slog.New(slog.DiscardHandler), t: w, jid: JID{Local: "u", Domain: "d", Resource: "r"},
			done: make(chan struct{}), pending: map[string]*pendingIQ{}, rooms: map[JID]*Room{}, lobbies: map[JID]*Lobby{}}
		var r *Room
		s.o.Handler.IQ = func(iq *IQ) {
			if (iq.Name.Local == "jingle" || iq.Name.Local == "mute") && !r.isFocus(iq.From) {
				t.Fatalf("%s of %s was let in", iq.Name.Local, iq.From)
			}
			_ = s.Reply(iq, nil)
		}
		entered := make(chan error, 1)
		jid := JID{Local: "r", Domain: "c"}
		go func() {
			_, err := s.Join(t.Context(), RoomOptions{Room: jid, Nick: "me", FocusUser: JID{Local: "focus", Domain: "auth"}, On: seen.see})
			entered <- err
		}()
		<-w.more // its presence
		s.mu.Lock()
		r = s.rooms[jid]
		s.mu.Unlock()
		w.take()
		for i := 0; i+1 < len(in) && i < 200; i += 2 {
			el := stanza(i, in[i], in[i+1])
			s.dispatch(split.Element{Data: []byte(el)})
			answers := 0
			for _, b := range w.take() {
				v, err := decodeStanza(b)
				if err != nil {
					t.Fatalf("sent %s: %v", b, err)
				}
				if iq, ok := v.(*IQ); ok && iq.ID == fmt.Sprintf("q%d", i) && (iq.Type == "result" || iq.Type == "error") {
					answers++
				}
			}
			if asked := in[i]&7 == 5 || in[i]&7 == 6; asked != (answers == 1) || answers > 1 {
				t.Fatalf("%d answers to %s", answers, el)
			}
			var there []string
			for _, o := range r.Occupants() {
				there = append(there, o.Nick)
			}
			var told []string
			for n := range seen.present {
				told = append(told, n)
			}
			if slices.Sort(told); seen.ended == 0 && (!slices.Equal(there, told) || r.Focus() != seen.focus) {
				t.Fatalf("in the room %q, focus %v; told of %q, %v", there, r.Focus(), told, seen.focus)
			}
			if r.isFocus(r.FocusJID()) && r.Focus() && !r.focusUser.IsZero() && r.focusUser.String() != "focus@auth" {
				t.Fatalf("%s is obeyed", r.focusUser)
			}
		}
		s.fail(ErrClosed)
		if err := <-entered; err != nil && s.rooms[jid] != nil {
			t.Fatalf("not joined (%v), not forgotten", err)
		}
	})
}
