package conference

import (
	"context"
	"errors"
	"testing"
	"time"

	"go.uber.org/goleak"

	"brewline/media"
	"brewline/xmpp"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type noAudio struct{}

func (noAudio) Attach(media.ConferenceLeg) error { return nil }
func (noAudio) Detach(media.ConferenceLeg)       {}
func (noAudio) DropSource(uint32)                {}

// events collects what a leg says and tells its end.
func startWith(t *testing.T, dial func(context.Context, xmpp.Options) (*xmpp.Session, error)) (*Leg, chan Event) {
	t.Helper()
	events := make(chan Event, 64)
	l := Start(context.Background(), Options{
		Room: xmpp.MustParseJID("room@conference.meet.example"), Focus: xmpp.JID{Domain: "focus.meet.example"},
		Audio: noAudio{}, Dial: dial, On: func(e Event) { events <- e },
	})
	return l, events
}

func ended(t *testing.T, events chan Event) error {
	t.Helper()
	for {
		select {
		case e := <-events:
			if e, ok := e.(Ended); ok {
				return e.Err
			}
		case <-time.After(10 * time.Second):
			t.Fatal("the leg does not end")
		}
	}
}

func TestLoginErrors(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ from, to error }{
		{xmpp.ErrUnreachable, ErrUnreachable}, {xmpp.ErrTLS, ErrUnreachable}, {context.DeadlineExceeded, ErrUnreachable},
		{xmpp.ErrAuth, ErrLogin}, {xmpp.ErrDomain, ErrLogin}, {xmpp.ErrSessionLost, ErrSessionLost},
	} {
		_, events := startWith(t, func(context.Context, xmpp.Options) (*xmpp.Session, error) { return nil, tt.from })
		if err := ended(t, events); !errors.Is(err, tt.to) || !errors.Is(err, tt.from) {
			t.Errorf("%v ends the leg with %v", tt.from, err)
		}
	}
}

// Whatever a leg is waiting for, Leave ends it, with no error and nothing left.
func TestLeaveWhileLoggingIn(t *testing.T) {
	t.Parallel()
	dialling := make(chan struct{})
	l, events := startWith(t, func(ctx context.Context, _ xmpp.Options) (*xmpp.Session, error) {
		close(dialling)
		<-ctx.Done()
		return nil, ctx.Err()
	})
	<-dialling
	l.Leave()
	<-l.Done()
	if err := ended(t, events); err != nil {
		t.Errorf("ended with %v", err)
	}
}

// A leg is taken back only before it has asked Jicofo for the room.
func TestTakeBack(t *testing.T) {
	t.Parallel()
	l, events := startWith(t, func(ctx context.Context, _ xmpp.Options) (*xmpp.Session, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	})
	if !l.TakeBack() {
		t.Error("too late, though nothing was requested")
	}
	if err := ended(t, events); err != nil {
		t.Errorf("ended with %v", err)
	}
	if l.TakeBack() {
		t.Error("taken back twice")
	}
	l = &Leg{}
	l.step.Store(requestSent)
	if l.TakeBack() {
		t.Error("taken back after the conference request")
	}
}

// A flood of stanzas ends the leg instead of blocking the XMPP reader.
func TestOverflow(t *testing.T) {
	t.Parallel()
	l, events := startWith(t, func(ctx context.Context, o xmpp.Options) (*xmpp.Session, error) {
		for range 2 * inboxSize {
			o.Handler.IQ(&xmpp.IQ{Type: "set"})
		}
		<-ctx.Done()
		return nil, ctx.Err()
	})
	if err := ended(t, events); !errors.Is(err, ErrOverflow) {
		t.Errorf("ended with %v", err)
	}
	<-l.Done()
}

func TestNick(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ jid, nick string }{
		{"8acd7d62-4cdb-40a8-8f7b-e3f9d7a28565@meet.example/I1eKf71ihFIg", "8acd7d62"},
		{"gateway@auth.meet.example/x", ""},
		{"zacd7d62-4cdb-40a8-8f7b-e3f9d7a28565@meet.example/x", ""},
	} {
		nick := nickFor(xmpp.MustParseJID(tt.jid))
		if tt.nick != "" && nick != tt.nick {
			t.Errorf("%s gets the nick %s", tt.jid, nick)
		}
		if len(nick) != 8 {
			t.Errorf("%s gets the nick %q, which is no endpoint id", tt.jid, nick)
		}
	}
}
