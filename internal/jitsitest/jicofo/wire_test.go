package jicofo

import (
	"os"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"brewline/internal/jitsitest/jvb"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// recorded reads a stanza from testdata.
func recorded(t testing.TB, name string) *element {
	t.Helper()
	b, err := os.ReadFile("testdata/" + name + ".xml")
	if err != nil {
		t.Fatal(err)
	}
	return parsed(t, string(b))
}

func parsed(t testing.TB, text string) *element {
	t.Helper()
	e, err := parseElement(strings.NewReader(text))
	if err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	return e
}

func startBridge(t testing.TB) *jvb.Bridge {
	t.Helper()
	b, err := jvb.Start(jvb.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Stop() })
	return b
}

// wired is a Jicofo without a server: what it sends is read from out.
type wired struct {
	*Jicofo
	t   testing.TB
	out chan string
}

func newWired(t testing.TB, o Options) *wired {
	t.Helper()
	o.Domain = "meet.example"
	o.setDefaults()
	w := &wired{t: t, out: make(chan string, 10000)}
	w.Jicofo = &Jicofo{
		o: o, user: "focus@" + o.Component, caps: map[string][]string{}, log: o.Logger, bridges: o.Bridges,
		startMuted: o.StartMuted, conferences: map[string]*conference{}, pending: map[string]*pending{},
		comp: &component{queue: w.out, closed: make(chan struct{})},
	}
	t.Cleanup(func() {
		w.mu.Lock()
		w.forget(true)
		w.closed = true
		w.mu.Unlock()
	})
	return w
}

// get feeds the focus with a stanza.
func (w *wired) get(e *element) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.handle(e)
}

// sent returns the next stanza that the focus sends, presence aside.
func (w *wired) sent() *element {
	w.t.Helper()
	for {
		select {
		case s := <-w.out:
			if e := parsed(w.t, s); e.Name != "presence" {
				return e
			}
		case <-time.After(5 * time.Second):
			w.t.Fatal("nothing sent")
		}
	}
}

// room makes a joined conference.
func (w *wired) room() *conference {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.join("room@conference.meet.example", func(bool) {})
	c := w.conferences["room@conference.meet.example"]
	c.joined = true
	c.meetingID = "meeting"
	return c
}

// member adds a member with features.
func (w *wired) member(c *conference, nick string, features ...string) *participant {
	w.mu.Lock()
	defer w.mu.Unlock()
	p := &participant{nick: nick, jid: nick + "@meet.example/x", role: "participant", features: features, discovered: true}
	c.members = append(c.members, p)
	return p
}

// fromMember builds an IQ of a member.
func fromMember(c *conference, nick, kind string, payload *element) *element {
	return el("", "iq", "type", kind, "id", randomID(), "from", c.occupant(nick), "to", c.focusJID()).add(payload)
}
