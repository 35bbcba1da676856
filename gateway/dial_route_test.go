package gateway_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"brewline/internal/siptest"
	"brewline/internal/tone"
)

// A callee's 301 and 302 are followed as often as the rule says, never in a
// circle, and only to what a rule allows.
func TestDialRedirected(t *testing.T) {
	t.Parallel()
	to := func(number string) func(in *siptest.Incoming) error {
		return func(in *siptest.Incoming) error {
			code := 301 + len(number)%2
			return in.Reject(code, "Moved", "Contact: <sip:"+number+"@192.0.2.1:5099;transport=tcp>;q=0.5, <sip:900@192.0.2.1>;q=0.1")
		}
	}
	for name, tt := range map[string]struct {
		redirects int
		hops      map[string]func(in *siptest.Incoming) error // by dialled number
		dialled   []string
		word      string
	}{
		"twice":        {2, map[string]func(*siptest.Incoming) error{"0100": to("%2B4920"), "020": to("(20)-1")}, []string{"0100", "020", "0201"}, "Connected"},
		"too often":    {1, map[string]func(*siptest.Incoming) error{"0100": to("+4920"), "020": to("201")}, []string{"0100", "020"}, "Rejected"},
		"never":        {0, map[string]func(*siptest.Incoming) error{"0100": to("+4920")}, []string{"0100"}, "Rejected"},
		"in a circle":  {5, map[string]func(*siptest.Incoming) error{"0100": to("201"), "0201": to("100")}, []string{"0100", "0201"}, "Rejected"},
		"denied":       {5, map[string]func(*siptest.Incoming) error{"0100": to("0900-1")}, []string{"0100"}, "Rejected"},
		"no number":    {5, map[string]func(*siptest.Incoming) error{"0100": to("alice")}, []string{"0100"}, "Rejected"},
		"after a ring": {1, map[string]func(*siptest.Incoming) error{"0100": ringAnd(to("201"))}, []string{"0100", "0201"}, "Connected"},
		"no contact":   {5, map[string]func(*siptest.Incoming) error{"0100": func(in *siptest.Incoming) error { return in.Reject(302, "Moved") }}, []string{"0100"}, "Rejected"},
		"305":          {5, map[string]func(*siptest.Incoming) error{"0100": func(in *siptest.Incoming) error { return in.Reject(305, "Use Proxy", "Contact: <sip:201@h>") }}, []string{"0100"}, "Rejected"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rules := "[[dial]]\nname = \"premium\"\npattern = '0900.*'\ndeny = true\n" +
				fmt.Sprintf("[[dial]]\nname = \"inland\"\npattern = '(?:\\+49)?(\\d+)'\nnumber = \"0$1\"\ntrunks = [\"ipbx\"]\nmax_calls = 1\nredirects = %d\n", tt.redirects)
			w, p := dialWorld(t, worldOptions{shards: 1}, rules)
			sh := w.deps[0].Shards[0]
			b := w.browser(sh, "team", 440)
			nick := w.refNick(w.ask(b, sh, "team", "100"))
			var calls []*siptest.Call
			for _, number := range tt.dialled {
				in := w.rings(p)
				if in.RequestUser != number || !strings.HasSuffix(in.RequestURI, strings.TrimPrefix(address(p), "sip:")) {
					t.Errorf("dialled %s, want %s over the trunk", in.RequestURI, number)
				}
				if hop := tt.hops[number]; hop != nil {
					if err := hop(in); err != nil {
						t.Fatal(err)
					}
					continue
				}
				c, err := in.Answer(w.ctx, siptest.AnswerOptions{Tone: 1000})
				if err != nil {
					t.Fatal(err)
				}
				calls = append(calls, c)
			}
			w.await(tt.word, func() bool {
				s := b.Statuses()
				return len(s) > 0 && s[len(s)-1].Nick == nick && s[len(s)-1].Text == tt.word
			})
			for _, c := range calls {
				w.hear("the callee", c, 440)
				w.hear("the participant", b, 1000)
				if err := c.Hangup(w.ctx); err != nil {
					t.Error(err)
				}
			}
			w.alone(b)
			if n := p.Invites(); n != len(tt.dialled) {
				t.Errorf("the phone rang %d times", n)
			}
			// The rule's only place is free again.
			w.refNick(w.ask(b, sh, "team", "201"))
			if err := w.rings(p).Reject(486, "Busy Here"); err != nil {
				t.Fatal(err)
			}
			w.alone(b)
		})
	}
}

// ringAnd lets the phone ring before.
func ringAnd(f func(*siptest.Incoming) error) func(*siptest.Incoming) error {
	return func(in *siptest.Incoming) error {
		if err := in.Ring(context.Background()); err != nil {
			return err
		}
		return f(in)
	}
}

// The next trunk is tried where nobody is reached, and never once a phone may
// have rung.
func TestDialFailover(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		first func(in *siptest.Incoming) error
		next  bool
		word  string // where there is no next
	}{
		"408":           {func(in *siptest.Incoming) error { return in.Reject(408, "Request Timeout") }, true, ""},
		"500":           {func(in *siptest.Incoming) error { return in.Reject(500, "Server Internal Error") }, true, ""},
		"503":           {func(in *siptest.Incoming) error { return in.Reject(503, "Service Unavailable", "Retry-After: 10") }, true, ""},
		"503 after 100": {func(in *siptest.Incoming) error { _ = in.Trying(); return in.Reject(503, "Service Unavailable") }, true, ""},
		"silence":       {func(in *siptest.Incoming) error { in.Ignore(); return nil }, true, ""},
		"404":           {func(in *siptest.Incoming) error { return in.Reject(404, "Not Found") }, false, "Rejected"},
		"486":           {func(in *siptest.Incoming) error { return in.Reject(486, "Busy Here") }, false, "Busy"},
		"600":           {func(in *siptest.Incoming) error { return in.Reject(600, "Busy Everywhere") }, false, "Busy"},
		"603":           {func(in *siptest.Incoming) error { return in.Reject(603, "Decline") }, false, "Rejected"},
		"503 after 180": {ringAnd(func(in *siptest.Incoming) error { return in.Reject(503, "Service Unavailable") }), false, "Rejected"},
		"408 after 180": {ringAnd(func(in *siptest.Incoming) error { return in.Reject(408, "Request Timeout") }), false, "Ignored"},
		"503 after 183": {func(in *siptest.Incoming) error {
			if err := in.Early(context.Background(), 0); err != nil {
				return err
			}
			return in.Reject(503, "Service Unavailable")
		}, false, "Rejected"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			first, err := siptest.NewPhone(siptest.PhoneOptions{Codec: "pcma"})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = first.Close() })
			o := worldOptions{shards: 1}
			o.options.SIP.T1, o.options.SIP.T2 = 20*time.Millisecond, 160*time.Millisecond
			w, p := dialWorld(t, o, fmt.Sprintf("[[trunk]]\nname = \"first\"\naddress = %q\nprobe = \"0s\"\n", address(first))+
				"[[dial]]\nname = \"any\"\npattern = '\\d+'\ntrunks = [\"first\", \"ipbx\"]\n")
			sh := w.deps[0].Shards[0]
			b := w.browser(sh, "team", 440)
			nick := w.refNick(w.ask(b, sh, "team", "112"))
			if err := tt.first(w.rings(first)); err != nil {
				t.Fatal(err)
			}
			if !tt.next {
				w.status(b, tt.word)
				w.alone(b)
				silent(t, p)
				return
			}
			c, err := w.rings(p).Answer(w.ctx, siptest.AnswerOptions{Tone: 1000})
			if err != nil {
				t.Fatal(err)
			}
			w.hear("the callee", c, 440)
			w.hear("the participant", b, 1000)
			if err := c.Hangup(w.ctx); err != nil {
				t.Error(err)
			}
			w.alone(b)
			w.statuses(b, nick, "Initializing Call", "Calling", "Connected")
			if n := first.Invites(); n != 1 {
				t.Errorf("the first trunk was called %d times", n)
			}
		})
	}
}

// What a phone says before it answers is heard in the room where the trunk
// says so.
func TestDialEarlyMedia(t *testing.T) {
	t.Parallel()
	for name, heard := range map[string]bool{"early_media = true": true, "early_media = false": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, p := dialWorld(t, worldOptions{shards: 1, trunk: name}, anyNumber)
			sh := w.deps[0].Shards[0]
			b := w.browser(sh, "team", 440)
			nick := w.refNick(w.ask(b, sh, "team", "112"))
			in := w.rings(p)
			if err := in.Early(w.ctx, 700); err != nil {
				t.Fatal(err)
			}
			w.status(b, "Ringing")
			if heard {
				w.hear("the participant", b, 700)
				w.statuses(b, nick, "Initializing Call", "Calling", "Ringing")
			} else {
				w.await("early media have come", func() bool { return in.RTP().Sent > 25 })
			}
			c, err := in.Answer(w.ctx, siptest.AnswerOptions{Tone: 1000})
			if err != nil {
				t.Fatal(err)
			}
			w.hear("the participant", b, 1000)
			w.hear("the callee", c, 440)
			// What was on its way while the callee answered may still be heard.
			if share := tone.Level(b.Heard(), 48000, 700); !heard && share > 0.1 {
				t.Errorf("the participant heard what the callee said before, %.1f %% of the energy", 100*share)
			}
			if err := c.Hangup(w.ctx); err != nil {
				t.Error(err)
			}
			w.alone(b)
			w.statuses(b, nick, "Initializing Call", "Calling", "Ringing", "Connected")
		})
	}
}

// What participants and Jicofo see of the occupant of a call on a shard with a
// region of its own.
func TestDialRegion(t *testing.T) {
	t.Parallel()
	o := worldOptions{shards: 1, gateway: `region = "everywhere"`, shard: `region = "eu-1"`}
	w, p := dialWorld(t, o, anyNumber)
	sh := w.deps[0].Shards[0]
	b := w.browser(sh, "team", 0)
	nick := w.refNick(w.ask(b, sh, "team", "112"))
	in := w.rings(p)
	w.await("the presence", func() bool { return b.PresenceOf(nick) != "" })
	presence := strings.ReplaceAll(b.PresenceOf(nick), "'", `"`)
	for _, want := range []string{">eu-1<", `name="JigasiCallDirection" value="out"`, "X-Ticket", "4711", "http://jitsi.org/protocol/jigasi"} {
		if !contains(presence, want) {
			t.Errorf("no %s in %s", want, presence)
		}
	}
	if err := in.Reject(486, "Busy Here"); err != nil {
		t.Fatal(err)
	}
	w.alone(b)
}
