package gateway_test

import (
	"encoding/xml"
	"log/slog"
	"strings"
	"testing"

	"brewline/gateway"
	"brewline/internal/jitsitest"
	"brewline/internal/siptest"
)

// numbers are the rules of the trunk of the tests below.
const numbers = `
uri_rooms = true
rooms = { "+49308000" = "standup" }
[[trunk.did]]
pattern = '\+49308(\d{3})'
room    = 'standup$1'
[[trunk.did]]
pattern = 'conf-(?P<room>\w+)'
room    = '${room}'
[[trunk.mask]]
pattern = '\+49(1\d\d)\d+(\d\d)'
show    = '+49 $1 ••• $2'
`

// shownNick is the name of an occupant as a web client shows it.
func shownNick(presence string) string {
	var p struct {
		Nick string `xml:"http://jabber.org/protocol/nick nick"`
	}
	if xml.Unmarshal([]byte(presence), &p) != nil {
		return presence
	}
	return p.Nick
}

// others awaits the one other occupant that a participant sees, and returns
// its presence.
func (w *world) other(b *jitsitest.Browser) (presence string) {
	w.t.Helper()
	w.await("the participant sees the call", func() bool {
		nicks := b.Others()
		if len(nicks) != 1 {
			return false
		}
		presence = b.PresenceOf(nicks[0])
		return presence != ""
	})
	return presence
}

// A called number, or a user part, leads to the room of the participant who
// is there already, by every way in which a trunk maps it.
func TestCalledRooms(t *testing.T) {
	t.Parallel()
	bothWays(t, worldOptions{shards: 2, trunk: "deployment = \"dep1\"\n" + numbers}, "standup", func(t *testing.T, w *world) {
		for room, called := range map[string]string{
			"standup":    "+49308000",     // rooms
			"standup123": "+49-30-8.123",  // did, a capture
			"retro":      "conf-retro",    // did, a user part
			"weekly":     "Weekly",        // the URI is the room
			"r%c3%a9uni": "R%C3%A9uni%20", // escaped
		} {
			t.Run(called, func(t *testing.T) {
				w := *w
				w.t = t
				alice := w.browser(w.deps[0].Shards[1], room, 440)
				c, err := w.phone(siptest.PhoneOptions{}).Call(w.ctx, siptest.CallOptions{URI: w.uri(called), Tone: 1000})
				if err != nil {
					t.Fatal(err)
				}
				w.hear("the participant", alice, 1000)
				w.hear("the phone", c, 440)
				c.Hangup(w.ctx)
				w.gone()
			})
		}
	})
}

// A carrier that puts the user of the registration into the request URI says in
// To which number was called.
func TestCalledByTo(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{shards: 1, trunk: "deployment = \"dep1\"\n" + strings.Replace(numbers, "uri_rooms = true", "", 1)})
	for to, room := range map[string]string{
		"sip:+49-30-8.125@carrier.example;user=phone": "standup125",
		"tel:+49-30-8126;cpc=ordinary":                "standup126",
	} {
		t.Run(room, func(t *testing.T) {
			w := *w
			w.t = t
			alice := w.browser(w.deps[0].Shards[0], room, 440)
			c, err := w.phone(siptest.PhoneOptions{}).Call(w.ctx, siptest.CallOptions{URI: w.uri("registered"), To: to, Tone: 1000})
			if err != nil {
				t.Fatal(err)
			}
			w.both(alice, c)
			w.hangup(c)
			w.gone()
		})
	}
}

// Without uri_rooms a number that nobody has a room for has none.
func TestUnmappedNumber(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{shards: 1, trunk: strings.Replace(numbers, "uri_rooms = true", "", 1)})
	if e := w.refused(w.phone(siptest.PhoneOptions{}), nil); e.Code != 404 || !contains(e.Headers["Reason"], "rooms or did") {
		t.Errorf("%d, Reason %q", e.Code, e.Headers["Reason"])
	}
}

// The conference sees the caller as the trunk may tell it, and nothing that
// the caller or the trunk's masks hide.
func TestCallerName(t *testing.T) {
	t.Parallel()
	const number, masked = "+491701234578", "+49 170 ••• 78"
	asserted := `"Alice Ä" <sip:` + number + `@carrier.example;user=phone>`
	for _, tt := range []struct {
		name, user, display string
		trusted             bool
		headers             map[string]string
		want                string
	}{
		{name: "a name", user: number, display: "Bob", want: "Bob"},
		{name: "a number", user: number, want: masked},
		{name: "a number as name", user: number, display: "0170 1234578", want: masked},
		{name: "a number without mask", user: "200", want: "200"},
		{name: "not trusted", user: "200", display: "Bob", want: "Bob",
			headers: map[string]string{"P-Asserted-Identity": asserted, "Privacy": "id"}},
		{name: "asserted", user: "200", display: "Bob", trusted: true, want: "Alice Ä",
			headers: map[string]string{"P-Asserted-Identity": asserted}},
		{name: "asserted number", user: "200", display: "Bob", trusted: true, want: masked,
			headers: map[string]string{"P-Asserted-Identity": "<tel:+49-170-1234578>"}},
		{name: "remote party", user: "200", trusted: true, want: "Carol",
			headers: map[string]string{"Remote-Party-ID": `"Carol" <sip:` + number + `@h>;party=calling;privacy=off`}},
		{name: "privacy id", user: number, display: "Bob", trusted: true, want: "Anonymous",
			headers: map[string]string{"P-Asserted-Identity": asserted, "Privacy": "id"}},
		{name: "privacy user", user: number, display: number, trusted: true, want: "Anonymous",
			headers: map[string]string{"Privacy": "user;critical"}},
		{name: "private number", user: "200", trusted: true, want: "Carol",
			headers: map[string]string{"Remote-Party-ID": `"Carol" <sip:` + number + `@h>;privacy=uri`}},
		{name: "private remote party", user: number, trusted: true, want: "Anonymous",
			headers: map[string]string{"Remote-Party-ID": `"Carol" <sip:` + number + `@h>;privacy=full`}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			log := &buffer{}
			trunk := numbers
			if tt.trusted {
				trunk = "trusted = true\n" + trunk
			}
			w := newWorld(t, worldOptions{shards: 1, trunk: trunk, options: gateway.Options{
				Logger: slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug})),
			}})
			sh := w.deps[0].Shards[0]
			alice := w.browser(sh, "standup", 440)
			p := w.phone(siptest.PhoneOptions{User: tt.user, Display: tt.display})
			c, err := p.Call(w.ctx, siptest.CallOptions{URI: w.uri("standup"), Headers: tt.headers})
			if err != nil {
				t.Fatal(err)
			}
			presence := w.other(alice)
			if got := shownNick(presence); got != tt.want {
				t.Errorf("shown as %q, want %q", got, tt.want)
			}
			c.Hangup(w.ctx)
			w.gone()
			for _, secret := range []string{number, number[1:], "1234578"} {
				if strings.Contains(presence, secret) {
					t.Errorf("the conference saw %s:\n%s", secret, presence)
				}
				if log.count(secret) > 0 {
					t.Errorf("logged %s", secret)
				}
			}
		})
	}
}

// A number that a meeting dials is shown as the trunk's masks show it, and so
// is one that no rule allows.
func TestCalleeName(t *testing.T) {
	t.Parallel()
	w, p := dialWorld(t, worldOptions{shards: 1, trunk: numbers},
		"[[dial]]\nname = \"none\"\npattern = '\\+49171\\d+'\ndeny = true\n"+anyNumber)
	sh := w.deps[0].Shards[0]
	alice := w.browser(sh, "standup", 440)
	w.ask(alice, sh, "standup", "+49 170 1234578")
	in := w.rings(p)
	if in.RequestUser != "+491701234578" {
		t.Errorf("dialled %s", in.RequestUser)
	}
	c, err := in.Answer(w.ctx, siptest.AnswerOptions{Tone: 1000})
	if err != nil {
		t.Fatal(err)
	}
	w.hear("the participant", alice, 1000)
	if got := shownNick(w.other(alice)); got != "+49 170 ••• 78" {
		t.Errorf("shown as %q", got)
	}
	c.Hangup(w.ctx)
	w.alone(alice)
	w.ask(alice, sh, "standup", "+491711234578")
	w.status(alice, "Rejected")
	if got := shownNick(w.other(alice)); got != "+49 171 ••• 78" {
		t.Errorf("a refused number is shown as %q", got)
	}
	w.alone(alice)
}
