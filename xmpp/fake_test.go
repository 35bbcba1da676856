package xmpp_test

import (
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"brewline/xmpp"
	"brewline/xmpp/bosh"
)

// capture reads a recorded file.
func capture(t testing.TB, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name+".xml"))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

var bareComment = regexp.MustCompile(`(?s)<!--.*?-->`)

// stanzas are the top-level elements of a recorded file.
func stanzas(t testing.TB, name string) []string {
	t.Helper()
	text := bareComment.ReplaceAllString(capture(t, name), "")
	body, err := bosh.ReadBody(strings.NewReader("<body xmlns='http://jabber.org/protocol/httpbind'>"+text+"</body>"), 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range body.Elements {
		out = append(out, string(e.Data))
	}
	return out
}

var boshAnswer = regexp.MustCompile(`(?s)<!-- BOSH RESP [^\n]*-->\n(<body.*?)\n\n`)

// answers are the bodies that Prosody sent in the recorded conversation.
func answers(t testing.TB) []string {
	t.Helper()
	var out []string
	for _, m := range boshAnswer.FindAllStringSubmatch(capture(t, "full-sipleg-bosh")+"\n\n", -1) {
		out = append(out, m[1])
	}
	if len(out) < 15 {
		t.Fatalf("%d answers", len(out))
	}
	return out
}

// recordedJID is who logged in in the recorded conversation.
const recordedJID = "8acd7d62-4cdb-40a8-8f7b-e3f9d7a28565@meet.shard1.test/I1eKf71ihFIg"

// fake is a connection manager that logs everybody in with the recorded
// answers; after that the test reads what the client says, and speaks.
type fake struct {
	t       *testing.T
	srv     *httptest.Server
	answers []string
	said    chan string
	queries chan string

	mu     sync.Mutex
	turn   sync.Cond
	buffer string
	held   []chan string
	rid    uint64 // of the next request
	early  string // goes before the bind result
	over   bool
}

func newFake(t *testing.T) *fake {
	f := &fake{t: t, answers: answers(t), said: make(chan string, 1000), queries: make(chan string, 1000)}
	f.turn.L = &f.mu
	f.srv = httptest.NewServer(http.HandlerFunc(f.serve))
	t.Cleanup(func() {
		f.mu.Lock()
		f.over = true
		f.turn.Broadcast()
		f.mu.Unlock()
		f.srv.CloseClientConnections()
		f.srv.Close()
	})
	return f
}

func (f *fake) serve(w http.ResponseWriter, r *http.Request) {
	b, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	select {
	case f.queries <- r.URL.RawQuery:
	default:
	}
	body, err := bosh.ReadBody(strings.NewReader(string(b)), 1<<20)
	if err != nil {
		f.t.Errorf("client sent %s: %v", b, err)
		return
	}
	ch := make(chan string, 1)
	var rid uint64
	_, _ = fmt.Sscan(attribute(string(b), "rid"), &rid)
	f.mu.Lock()
	for f.rid != 0 && rid > f.rid && !f.over { // it overtook another one
		f.turn.Wait()
	}
	f.rid = rid + 1
	f.turn.Broadcast()
	switch {
	case body.SID == "":
		ch <- f.answers[0]
	case strings.Contains(string(b), "xmpp:restart="):
		ch <- f.answers[2]
	case body.Type == "terminate":
		for _, e := range body.Elements {
			f.said <- string(e.Data)
		}
		f.over = true
		close(f.said)
		for _, h := range f.held {
			h <- "<body xmlns='http://jabber.org/protocol/httpbind' type='terminate'/>"
		}
		f.held = nil
		ch <- "<body xmlns='http://jabber.org/protocol/httpbind' type='terminate'/>"
	default:
		f.held = append(f.held, ch)
		for _, e := range body.Elements {
			f.client(string(e.Data))
		}
		f.flush()
	}
	f.mu.Unlock()
	select {
	case text := <-ch:
		_, _ = io.WriteString(w, text)
	case <-r.Context().Done():
	}
}

// client takes one element of the client's.
func (f *fake) client(el string) {
	switch {
	case strings.HasPrefix(el, "<auth "):
		f.buffer += "<success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>"
	case strings.Contains(el, "urn:ietf:params:xml:ns:xmpp-bind"):
		result := inside(f.answers[3])
		f.buffer += f.early + strings.Replace(result, "fcfb490a74", attribute(el, "id"), 1)
	default:
		f.said <- el
	}
}

// flush answers a held request with what there is to say, and keeps one.
func (f *fake) flush() {
	for len(f.held) > 0 && (f.buffer != "" || len(f.held) > 1) {
		f.held[0] <- "<body xmlns='http://jabber.org/protocol/httpbind' xmlns:stream='http://etherx.jabber.org/streams'>" + f.buffer + "</body>"
		f.held, f.buffer = f.held[1:], ""
	}
}

func (f *fake) push(xml ...string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.buffer += strings.Join(xml, "")
	f.flush()
}

// expect returns the next thing the client says.
func (f *fake) expect(what string) string {
	f.t.Helper()
	return await(f.t, f.said, what)
}

// replay sends recorded answer n, with the id of the recorded request
// replaced by that of the client's.
func (f *fake) replay(n int, recordedID, id string) {
	f.push(strings.ReplaceAll(inside(f.answers[n]), recordedID, id))
}

// inside is what a body contains.
func inside(body string) string {
	_, rest, _ := strings.Cut(body, ">")
	s, _ := strings.CutSuffix(strings.TrimSpace(rest), "</body>")
	return s
}

func attribute(el, name string) string {
	tok, err := xml.NewDecoder(strings.NewReader(el)).Token()
	if err != nil {
		return ""
	}
	start, ok := tok.(xml.StartElement)
	if !ok {
		return ""
	}
	for _, a := range start.Attr {
		if a.Name.Local == name {
			return a.Value
		}
	}
	return ""
}

func (f *fake) options() xmpp.Options {
	return xmpp.Options{URL: f.srv.URL + "/http-bind", Domain: "meet.shard1.test", Room: "judgeroom095c", PingInterval: -1}
}

func (f *fake) dial(o xmpp.Options) *xmpp.Session {
	f.t.Helper()
	return dial(f.t, o)
}

// join joins while the test answers with what the room says.
func (f *fake) join(s *xmpp.Session, o xmpp.RoomOptions, room ...string) (*xmpp.Room, error) {
	f.t.Helper()
	type result struct {
		r   *xmpp.Room
		err error
	}
	done := make(chan result, 1)
	ctx := within(f.t)
	go func() {
		r, err := s.Join(ctx, o)
		done <- result{r, err}
	}()
	f.expect("join")
	f.push(room...)
	res := await(f.t, done, "end of the join")
	return res.r, res.err
}

// selfPresence is what a room tells the one who has just joined.
func selfPresence(occupant string) string {
	return fmt.Sprintf(`<presence xmlns='jabber:client' from='%s'><x xmlns='http://jabber.org/protocol/muc#user'>`+
		`<item affiliation='none' role='participant' jid='%s'/><status code='110'/></x></presence>`, occupant, recordedJID)
}

func focusPresence(room string) string {
	return fmt.Sprintf(`<presence xmlns='jabber:client' from='%s/focus'><x xmlns='http://jabber.org/protocol/muc#user'>`+
		`<item affiliation='owner' role='moderator' jid='focus@auth.meet.shard1.test/focus'/></x></presence>`, room)
}
