package gateway_test

import (
	"encoding/json"
	"encoding/xml"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"brewline/internal/siptest"
)

// hostileCallee is a phone that answers a call to 112 with a 302, every other
// with 486, and puts a value of the test's wherever one may stand.
type hostileCallee struct {
	value   atomic.Value // string
	contact atomic.Value // string: with %s for the value

	mu   sync.Mutex
	seen []string // what is wrong with INVITEs that came
	all  int
}

func (h *hostileCallee) called(in *siptest.Incoming) {
	v := h.value.Load().(string)
	h.mu.Lock()
	h.all++
	for _, name := range []string{"X-Evil", "X-Evil:"} {
		if got := in.Header(name); got != "" {
			h.seen = append(h.seen, fmt.Sprintf("%q: the INVITE has %s: %q", v, name, got))
		}
	}
	for _, name := range []string{"To", "From", "Referred-By", "Replaces", "X-Ticket", "Contact"} {
		if got := in.Header(name); strings.ContainsFunc(got, func(r rune) bool { return r < ' ' || r == 0x7f }) {
			h.seen = append(h.seen, fmt.Sprintf("%q: the INVITE has %s: %q", v, name, got))
		}
	}
	if u := in.RequestUser; strings.Trim(u, "0123456789+") != "" {
		h.seen = append(h.seen, fmt.Sprintf("%q: %q was dialled", v, u))
	}
	h.mu.Unlock()
	if in.RequestUser == "112" {
		contact := "Contact: " + fmt.Sprintf(h.contact.Load().(string), v)
		if len(v) > 4096 { // once is enough for a datagram
			v = ""
		}
		_ = in.Reject(302, "Moved"+v, contact, "Reason: Q.850;cause=1;text=\""+v+"\"")
		return
	}
	_ = in.Reject(486, "Busy "+v, "Reason: Q.850;cause=17;text=\""+v+"\"", "Warning: 399 h \""+v+"\"", "X-Evil: "+v)
}

// What a called phone answers, what asks for a transfer or sends digits, and
// what a meeting asks to dial, becomes no XML, no line of the log, no header
// field, and no number.
func TestHostileCallees(t *testing.T) {
	t.Parallel()
	text, lines := &logged{}, &logged{}
	all := &slog.HandlerOptions{Level: slog.LevelDebug}
	callee := &hostileCallee{}
	o := worldOptions{shards: 1, limit: 3 * time.Minute, trunk: "transfer = true\n"}
	o.options.Logger = slog.New(bothLogs{slog.NewTextHandler(text, all), slog.NewJSONHandler(lines, all)})
	o.options.Call.StatusStays = 20 * time.Millisecond
	o.options.SIP.T1, o.options.SIP.T2 = 20*time.Millisecond, 160*time.Millisecond // of answers that cannot be read
	w, _ := dialWorldTo(t, siptest.PhoneOptions{Incoming: callee.called}, o, anyNumber+"redirects = 2\n")
	sh := w.deps[0].Shards[0]
	team := w.browser(sh, "team", 0)
	here := w.browser(sh, "here", 620)
	callee.value.Store("")
	c := w.call(w.phone(siptest.PhoneOptions{T1: 100 * time.Millisecond}), "here", 440)
	w.hear("the room", here, 440)

	for name, v := range hostile {
		callee.value.Store(v)
		over := func() {
			w.await(name+": the call is over", func() bool {
				for _, nick := range team.Others() {
					checkPresence(t, name, team.PresenceOf(nick))
				}
				return len(team.Others()) == 0 && len(w.gw.Snapshot().Calls) == 1
			})
		}
		var inXML strings.Builder
		_ = xml.EscapeText(&inXML, []byte(v))
		callee.contact.Store("%s")
		w.askWith(team, sh, "team", "112", "X-Ticket", inXML.String()) // which may be refused
		over()
		contacts := []string{`"%s" <sip:113@127.0.0.1>;x="y"`, `<sip:%s@127.0.0.1>`, `<sip:114@%s>`, `<sip:115@h;%s>`, `<sip:116@h?%s>`}
		if strings.ContainsAny(v, "\r\n\x00") { // the whole response, which then never came
			contacts = contacts[:1]
		}
		for _, contact := range contacts {
			callee.contact.Store(contact)
			w.ask(team, sh, "team", "112")
			over()
		}
		for _, number := range []string{v, "sip:" + v + "@127.0.0.1"} {
			inXML.Reset()
			_ = xml.EscapeText(&inXML, []byte(number))
			w.ask(team, sh, "team", inXML.String())
			over()
		}
		callee.value.Store(strings.NewReplacer("\r", "", "\n", "", "\x00", "").Replace(v))
		for _, to := range []string{`"` + v + `" <sip:120@h>`, v + ` <sip:121@h>`, `<sip:` + v + `@h>`, `<sip:122@h?Replaces=` + v + `>`, `<sip:123@h;` + v + `>`, `<tel:` + v + `>`} {
			before := len(c.Notified())
			if err := c.Refer(w.ctx, to); err != nil {
				continue
			}
			// Until the transfer is over; where the last NOTIFY got lost, the next
			// one is merely refused.
			for end := time.Now().Add(3 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
				if told := c.Notified(); len(told) > before && !strings.HasPrefix(told[len(told)-1], "SIP/2.0 1") {
					break
				}
			}
		}
		for _, info := range []string{"Signal=" + v, "Signal=5\r\nDuration=" + v, v} {
			_ = c.Info(w.ctx, "application/dtmf-relay", []byte(info))
			_ = c.Info(w.ctx, "application/dtmf-relay;"+strings.NewReplacer("\r", "", "\n", "").Replace(v), []byte(info))
		}
		for _, nick := range here.Others() {
			checkPresence(t, name, here.PresenceOf(nick))
		}
	}
	callee.mu.Lock()
	for _, s := range callee.seen {
		t.Error(s)
	}
	if callee.all < 2*len(hostile) {
		t.Errorf("the phone was called %d times only", callee.all)
	}
	callee.mu.Unlock()
	text.check(t, func(line string) bool {
		return strings.HasPrefix(line, "time=") && !strings.Contains(line, " level=ERROR msg=\"evil")
	})
	lines.check(t, func(line string) bool { return json.Valid([]byte(line)) })
	w.hear("the room", here, 440) // nobody was disturbed
	w.hear("the phone", c, 620)
	w.hangup(c)
	w.problems()
}
