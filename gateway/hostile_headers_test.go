package gateway_test

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"brewline/internal/siptest"
)

// hostile are values of header fields that would like to be something else.
var hostile = map[string]string{
	"XML":       `</nick><evil xmlns='x'/><nick>&lt;&#10;]]><![CDATA[`,
	"quotes":    `a" ' \" \\ <sip:evil@evil>;tag=1, "b`,
	"folded":    "one\r\n two\r\n\tX-Evil: three",
	"CR":        "one\rX-Evil: two",
	"LF":        "one\nX-Evil: two\n\nevil",
	"controls":  "a\x00b\x01c\x07d\x1b[31me\x7ff\u0085g\u2028h",
	"not UTF-8": "a\xff\xfe\xc3(\xed\xa0\x80b",
	"no XML":    "a\ufffe\uffffb\U0010ffffc",
	"escapes":   `%0d%0aX-Evil:%20x%00%3cevil/%3e`,
	"dial":      `sip:+49900123@evil;x=1?X-Evil=1`,
	"format":    `%s%n%!d(MISSING) level=ERROR msg="evil" ${evil}`,
	"huge":      strings.Repeat("é<&'\"\\ ", 1500),
	"nothing":   "",
}

// fields are the header fields of a phone that go further than SIP, with what
// is there before and after the value.
var fields = []struct{ name, before, after string }{
	{"From", `"`, `" <sip:phone@127.0.0.1>;tag=phone`},
	{"From", ``, ` <sip:phone@127.0.0.1>;tag=phone`},
	{"From", `<sip:`, `@127.0.0.1>;tag=phone`},
	{"X-Room-Name", ``, ``},
	{"X-Room-Pass", ``, ``},
	{"X-Domain-Base", ``, ``},
	{"X-Domain-Tenant", ``, ``},
	{"X-Auth-Token", ``, ``},
	{"X-User-ID-Token", ``, ``},
	{"X-Shard", ``, ``},
	{"P-Asserted-Identity", `"`, `" <sip:+4930@127.0.0.1>`},
	{"User-Agent", ``, ``},
	{"Subject", ``, ``},
	{"Reason", `Q.850;cause=16;text="`, `"`},
}

// shown are those that the conference sees.
var shown = map[string]bool{"From": true, "P-Asserted-Identity": true}

// What a phone writes into its header fields becomes no XML, no line of the
// log, and no header field of ours.
func TestHostileHeaders(t *testing.T) {
	t.Parallel()
	text, lines := &logged{}, &logged{}
	all := &slog.HandlerOptions{Level: slog.LevelDebug}
	o := quick()
	o.Logger = slog.New(bothLogs{slog.NewTextHandler(text, all), slog.NewJSONHandler(lines, all)})
	o.Call.AloneAnswer = time.Hour
	w := newWorld(t, worldOptions{shards: 1, options: o, trunk: "trusted = true\ndefault_room = \"hostile\"\nuri_rooms = true"})
	sh := w.deps[0].Shards[0]
	alice := w.browser(sh, "hostile", 440)
	for _, f := range fields {
		var phones []*rawPhone
		for name, v := range hostile {
			phones = append(phones, w.invite(f.name, f.before+v+f.after, f.name+" "+name))
		}
		ringing := 0
		for _, p := range phones {
			if p.rings() {
				ringing++
			}
		}
		if shown[f.name] {
			w.await(f.name+": all are in the room", func() bool {
				in := 0
				for _, c := range w.gw.Snapshot().Calls {
					if c.Nick != "" && alice.PresenceOf(c.Nick) != "" {
						in++
					}
				}
				return in == ringing
			})
			for _, nick := range alice.Others() {
				checkPresence(t, f.name, alice.PresenceOf(nick))
			}
		}
		for _, p := range phones {
			p.end()
		}
		w.gone()
	}
	w.await("nobody is left in the room", func() bool { return len(alice.Others()) == 0 })
	text.check(t, func(line string) bool {
		return strings.HasPrefix(line, "time=") && !strings.Contains(line, " level=ERROR msg=\"evil")
	})
	lines.check(t, func(line string) bool { return json.Valid([]byte(line)) })
	// Nobody was disturbed.
	c := w.call(w.phone(siptest.PhoneOptions{}), "hostile", 1000)
	w.both(alice, c)
	w.hangup(c)
	w.problems()
}

// rawPhone sends an INVITE as it stands.
type rawPhone struct {
	w    *world
	what string
	c    net.Conn
	head string // header fields
	bad  bool   // could not be read
	up   bool
	to   string // with its tag
}

func (w *world) invite(name, value, what string) *rawPhone {
	w.t.Helper()
	c, err := net.Dial("udp", w.gw.SIPAddrs()[0].String())
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { c.Close() })
	us := c.LocalAddr().String()
	from := "From: <sip:phone@127.0.0.1>;tag=phone\r\n"
	if name == "From" {
		from = ""
	}
	p := &rawPhone{w: w, what: what, c: c, head: "Via: SIP/2.0/UDP " + us + ";branch=z9hG4bK" + us + ";rport\r\nMax-Forwards: 70\r\n" +
		"To: <sip:hostile@127.0.0.1>\r\nCall-ID: " + us + "\r\nCSeq: 1 INVITE\r\nContact: <sip:phone@" + us + ">\r\n" + from + name + ": " + value + "\r\n"}
	const sdp = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio 40000 RTP/AVP 0\r\n"
	before := w.gw.Snapshot()
	fmt.Fprintf(c, "INVITE sip:hostile@127.0.0.1 SIP/2.0\r\n%sContent-Type: application/sdp\r\nContent-Length: %d\r\n\r\n%s", p.head, len(sdp), sdp)
	w.await(what+" was read", func() bool {
		now := w.gw.Snapshot()
		p.bad = now.SIP.Malformed > before.SIP.Malformed
		return p.bad || now.Invites > before.Invites
	})
	return p
}

// rings reports whether the INVITE made it to a room; others were refused, or
// dropped.
func (p *rawPhone) rings() bool {
	t := p.w.t
	t.Helper()
	for buf := make([]byte, 1<<16); ; {
		_ = p.c.SetReadDeadline(time.Now().Add(30 * time.Second))
		if p.bad { // which may be too bad for an answer
			_ = p.c.SetReadDeadline(time.Now().Add(time.Millisecond))
		}
		n, err := p.c.Read(buf)
		switch {
		case err != nil && p.bad:
			return false
		case err != nil:
			t.Fatalf("%s: no answer: %v", p.what, err)
		}
		var code int
		res := string(buf[:n])
		checkResponse(t, p.what, res)
		if _, err := fmt.Sscanf(res, "SIP/2.0 %d", &code); err != nil {
			t.Fatalf("%s: %q", p.what, res)
		}
		p.up = code < 200
		switch {
		case code >= 300: // without the To tag: the transaction does not mind
			p.send("ACK")
			return false
		case code == 180:
			_, to, _ := strings.Cut(res, "\r\nTo: ")
			p.to, _, _ = strings.Cut(to, "\r\n")
			return true
		}
	}
}

// end ends the call, be it answered meanwhile or not.
func (p *rawPhone) end() {
	if p.up {
		p.send("CANCEL")
		p.head = strings.Replace(strings.Replace(p.head, "z9hG4bK", "z9hG4bKbye", 1), "To: <sip:hostile@127.0.0.1>", "To: "+p.to, 1)
		p.head = strings.Replace(p.head, "1 INVITE", "2 INVITE", 1)
		p.send("BYE")
	}
}

func (p *rawPhone) send(method string) {
	fmt.Fprintf(p.c, "%s sip:hostile@127.0.0.1 SIP/2.0\r\n%sContent-Length: 0\r\n\r\n", method, strings.Replace(p.head, " INVITE", " "+method, 1))
}

// bothLogs writes a record to two logs.
type bothLogs struct{ a, b slog.Handler }

func (h bothLogs) Enabled(ctx context.Context, l slog.Level) bool { return true }
func (h bothLogs) Handle(ctx context.Context, r slog.Record) error {
	return errors.Join(h.a.Handle(ctx, r.Clone()), h.b.Handle(ctx, r))
}
func (h bothLogs) WithAttrs(as []slog.Attr) slog.Handler {
	return bothLogs{h.a.WithAttrs(as), h.b.WithAttrs(as)}
}
func (h bothLogs) WithGroup(name string) slog.Handler {
	return bothLogs{h.a.WithGroup(name), h.b.WithGroup(name)}
}

// checkResponse fails if a response is not made of lines of ours.
func checkResponse(t *testing.T, what, res string) {
	t.Helper()
	head, _, ok := strings.Cut(res, "\r\n\r\n")
	if !ok || strings.ContainsAny(strings.ReplaceAll(head, "\r\n", ""), "\r\n") {
		t.Errorf("%s: the response is broken: %q", what, res)
	}
	for _, line := range strings.Split(head, "\r\n")[1:] {
		name, _, _ := strings.Cut(line, ":")
		if strings.ContainsAny(name, " \t<\"") || strings.EqualFold(name, "X-Evil") || strings.HasPrefix(name, "evil") {
			t.Errorf("%s: the response has the line %q", what, line)
		}
	}
}

// checkPresence fails if a presence has elements that a presence of ours has
// not, or a nick that nobody could show.
func checkPresence(t *testing.T, what, presence string) {
	t.Helper()
	if presence == "" {
		return
	}
	d := xml.NewDecoder(strings.NewReader(presence))
	for {
		tok, err := d.Token()
		if err == io.EOF {
			return
		}
		if err != nil {
			t.Errorf("%s: %v in %q", what, err, presence)
			return
		}
		switch tok := tok.(type) {
		case xml.StartElement:
			if tok.Name.Local == "evil" {
				t.Errorf("%s: %q", what, presence)
			}
		case xml.CharData:
			if !utf8.Valid(tok) || bytes.ContainsFunc(tok, unicode.IsControl) {
				t.Errorf("%s: the presence says %q", what, tok)
			}
		}
	}
}

// logged keeps a log.
type logged struct {
	mu      sync.Mutex
	records []string // as they were written
}

func (l *logged) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.records = append(l.records, string(b))
	return len(b), nil
}

// check fails unless each record is one line, of what can be shown, and not
// much longer than it need be.
func (l *logged) check(t *testing.T, good func(line string) bool) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.records) < len(fields) {
		t.Errorf("%d records", len(l.records))
	}
	for _, r := range l.records {
		line, more, _ := strings.Cut(r, "\n")
		if more != "" || !utf8.ValidString(line) || strings.ContainsFunc(line, unicode.IsControl) || len(line) > 64<<10 || !good(line) {
			t.Errorf("the log has %.500q", r)
		}
	}
}
