package client_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"brewline/internal/jitsitest/client"
	"brewline/internal/jitsitest/xmppd"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestClient(t *testing.T) {
	t.Parallel()
	s, err := xmppd.Start(xmppd.Options{Shard: "one", Seed: 3})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	heard := make(chan client.Stanza, 100)
	c, err := client.Dial(ctx, client.Options{URL: s.BOSHURL(), Room: "r", Domain: s.Domain(), Handler: func(x client.Stanza) { heard <- x }})
	if err != nil {
		t.Fatal(err)
	}
	if c.Shard() != "one" || !strings.Contains(c.JID(), "@meet.example/") {
		t.Errorf("%s on %s", c.JID(), c.Shard())
	}
	// failures on the way are repaired, and no answer is lost or doubled
	for _, k := range []xmppd.FaultKind{xmppd.Status, xmppd.Drop, xmppd.Refuse} {
		s.Faults().Add(xmppd.Fault{Kind: k, Probability: 0.1})
	}
	for range 40 {
		x, err := c.Request(ctx, "get", s.Domain(), "<ping xmlns='urn:xmpp:ping'/>")
		if err != nil {
			t.Fatal(err)
		}
		if x.Type != "result" {
			t.Errorf("%+v", x)
		}
	}
	s.Faults().Clear()
	if err := s.Inject(c.JID(), "<message from='a@b'><body>one</body></message><"); err == nil {
		t.Error("injected nonsense")
	}
	if err := s.Inject(c.JID(), "<message from='a@b' id='m'><body>&lt;one&gt;</body></message>"); err != nil {
		t.Fatal(err)
	}
	for x := range heard {
		if x.ID == "m" {
			if x.Name != "message" || x.From != "a@b" || !strings.Contains(x.XML, "&lt;one&gt;") {
				t.Errorf("%+v", x)
			}
			break
		}
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if !errors.Is(c.Err(), client.ErrClosed) || s.Sessions() != 0 {
		t.Errorf("after the end: %v, %d sessions", c.Err(), s.Sessions())
	}
	if err := c.Send("<presence xmlns='jabber:client'/>"); !errors.Is(err, client.ErrClosed) {
		t.Errorf("sent after the end: %v", err)
	}
	if _, err := client.Dial(ctx, client.Options{URL: s.BOSHURL(), Domain: "no.such"}); !errors.Is(err, client.ErrTerminated) {
		t.Errorf("unknown host: %v", err)
	}
}
