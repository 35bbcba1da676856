package xmppd

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"brewline/internal/jitsitest/client"
)

// What a real client said to a real server is said to this one, and what it
// answers is compared with what the real one answered, but for what differs from
// run to run.

var (
	reUser  = regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f-]{27}@([a-z0-9.]+)(/[\w-]{12})?`)
	reBotA  = regexp.MustCompile(`USER@meet.shard1.test/z-9pXm8jMd5t`)
	reFocus = regexp.MustCompile(`focus@(auth|focus)\.meet\.shard1\.test`)
	reLong  = regexp.MustCompile(`^[A-Za-z0-9+/=]{40,}$`)
	reStamp = regexp.MustCompile(`^(179\d{10}|[0-9a-f]{8}-[0-9a-f-]{27})$`)
)

func normal(s string) string {
	s = reUser.ReplaceAllString(s, "USER@$1$2")
	s = regexp.MustCompile(`(USER@[a-z0-9.]+)/[\w-]{12}`).ReplaceAllString(s, "$1/RES")
	s = reBotA.ReplaceAllString(s, "USER@meet.shard1.test/RES")
	s = reFocus.ReplaceAllString(s, "FOCUS")
	if reLong.MatchString(s) {
		s = "LONG"
	}
	if reStamp.MatchString(s) {
		s = "STAMP"
	}
	return strings.TrimSpace(s)
}

// shape writes an element so that what means the same reads the same.
func shape(e *element, depth int) string {
	pad := strings.Repeat("  ", depth)
	var as []string
	for _, a := range e.Attrs {
		switch {
		case a.Name == "sid" || a.Name == "authid" || e.NS == nsCaps && a.Name == "ver" && e.attr("node") == "http://prosody.im":
			as = append(as, a.Name)
		case a.Name == "xml:lang": // the server adds it to some
		default:
			as = append(as, a.Name+"="+normal(a.Value))
		}
	}
	slices.Sort(as)
	out := fmt.Sprintf("%s<%s %s %s> %s\n", pad, e.Name, e.NS, strings.Join(as, " "), normal(e.text()))
	var kids []string
	for _, c := range e.children() {
		if c.NS == nsTLS || strings.HasPrefix(c.NS, "urn:xmpp:sm:") {
			continue // not offered here
		}
		kids = append(kids, shape(c, depth+1))
	}
	if e.Name == "query" || e.Name == "permissions" || e.Name == "features" || e.NS == nsData && e.Name == "x" {
		slices.Sort(kids)
	}
	return out + strings.Join(kids, "")
}

// recorded reads the events of a capture: who spoke, and what.
func recorded(t *testing.T, file, mark string) (out [][2]string) {
	t.Helper()
	data, err := os.ReadFile("testdata/" + file)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(`(?s)<!-- (`+mark+`) .*? -->\n(.*?)\s*(\n<!--|\z)`).FindAllStringSubmatch(strings.ReplaceAll(string(data), "\n<!-- ", "\n\n<!--\n<!-- "), -1) {
		out = append(out, [2]string{m[1], strings.TrimSpace(m[2])})
	}
	return out
}

// recordedComments reads a capture's free comments, with what follows each.
func recordedComments(t *testing.T, file string) (out [][2]string) {
	t.Helper()
	data, err := os.ReadFile("testdata/" + file)
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range strings.Split(string(data), "<!-- ")[1:] {
		comment, rest, _ := strings.Cut(part, " -->")
		out = append(out, [2]string{comment, rest})
	}
	return out
}

// relayed makes a client's stanza of what the server relayed of it.
func relayed(e *element, drop ...string) string {
	var b strings.Builder
	for _, c := range e.children() {
		if c.NS == nsOccupant || c.NS == nsMUCUser || slices.Contains(drop, c.Name) {
			continue
		}
		b.WriteString(c.encode(nsClient, nsClient))
	}
	return b.String()
}

// script plays everybody but the recorded client.
type script struct {
	t      *testing.T
	s      *Server
	room   string
	f      *focus
	people map[string]*user // by recorded nick
}

func newScript(t *testing.T, domain, room string) *script {
	x := &script{t: t, s: start(t, Options{Domain: domain, NoJiconop: true, AnyNick: true}), room: room, people: map[string]*user{}}
	x.f = attach(t, x.s, func(f *focus, e *element) {
		if e.Name == "iq" && e.attr("type") == "set" {
			f.say(resultReply(e).encode(nsComponent, nsComponent))
		}
	})
	return x
}

func (x *script) await(what string, ok func() bool) {
	x.t.Helper()
	for deadline := time.Now().Add(5 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			x.t.Fatalf("no %s", what)
		}
	}
}

// enter puts somebody into the room as the capture shows them.
func (x *script) enter(e *element) {
	nick := e.attr("from")[len(x.room)+1:]
	if nick == "focus" {
		x.f.say("<presence from='" + x.f.jid() + "' id='" + e.attr("id") + "' to='" + x.room + "/focus'><x xmlns='" + nsMUC + "'/>" +
			strings.ReplaceAll(relayed(e), "'"+nsClient+"'", "'"+nsComponent+"'") + "</presence>")
		x.await("focus", func() bool { return len(x.s.Occupants(x.room)) > 0 })
		return
	}
	u := join(x.t, x.s, client.Options{Room: strings.SplitN(x.room, "@", 2)[0]})
	x.people[nick] = u
	if a := e.child(nsMUCUser, "x").child(nsMUCUser, "item").attr("affiliation"); a == "owner" {
		j, _ := parseJID(u.JID())
		if err := x.s.SetAffiliation(x.room, j.bare().String(), "owner"); err != nil {
			x.t.Fatal(err)
		}
	}
	u.enter(x.room, nick, relayed(e))
	u.await("own presence", isPresence(x.room+"/"+nick, ""))
}

// toSay sends a stanza of the focus to the recorded client's occupant.
func (x *script) toSay(e *element, nick, id string) {
	x.f.say("<iq type='" + e.attr("type") + "' id='" + id + "' from='" + x.f.jid() + "' to='" + x.room + "/" + nick + "'>" +
		relayed(e) + "</iq>")
}

func TestReplayBOSHConversation(t *testing.T) {
	t.Parallel()
	const room, nick = "judgeroom095c@conference.meet.shard1.test", "8acd7d62"
	x := newScript(t, "meet.shard1.test", room)
	events := recorded(t, "full-sipleg-bosh.xml", "BOSH (?:POST|RESP)")
	stanzas := func(answer string) []*element {
		e, err := parse(answer)
		if err != nil {
			t.Fatalf("%s: %v", answer, err)
		}
		return e.children()
	}
	// who is there before
	var early []*element
	for _, ev := range events {
		if ev[0] == "BOSH RESP" {
			for _, e := range stanzas(ev[1]) {
				if e.Name == "presence" && e.attr("type") == "" && e.attr("from") != room+"/"+nick && e.attr("from") != room+"/9b544bd8" {
					early = append(early, e)
				}
			}
		}
	}
	slices.SortFunc(early, func(a, b *element) int { // the focus first
		return strings.Compare(map[bool]string{true: "0", false: "1"}[strings.HasSuffix(a.attr("from"), "/focus")], map[bool]string{true: "0", false: "1"}[strings.HasSuffix(b.attr("from"), "/focus")])
	})
	for _, e := range early {
		x.enter(e)
	}
	if len(x.s.Occupants(room)) != 3 {
		t.Fatalf("occupants %v", x.s.Occupants(room))
	}
	// the focus of the helper joins by itself; here it is in the room already
	x.f.joined = true

	ctx := within(t)
	sid, ids := "", map[string]string{} // recorded id to ours
	var open []*post
	answers := 0
	for i, ev := range events {
		if ev[0] == "BOSH POST" {
			b := regexp.MustCompile(`sid='[^']+'`).ReplaceAllString(ev[1], "sid='"+sid+"'")
			for rec, our := range ids {
				b = strings.ReplaceAll(b, rec, our)
			}
			open = append(open, send(ctx, x.s.BOSHURL()+"?room=judgeroom095c", b))
			parsed, err := parseBody(b)
			if err != nil {
				t.Fatal(err)
			}
			x.await("server to take the request", func() bool {
				x.s.mu.Lock()
				defer x.s.mu.Unlock()
				bs := x.s.bosh[sid]
				return bs == nil || bs.rid >= parsed.rid
			})
			continue
		}
		want := stanzas(ev[1])
		for _, e := range want { // what others did to bring this about
			from := e.attr("from")
			switch {
			case e.Name == "iq" && from == room+"/focus" && e.attr("type") == "set":
				x.toSay(e, nick, fmt.Sprintf("F-%d", answers))
			case e.Name == "presence" && from == room+"/9b544bd8" && e.attr("type") == "":
				x.enter(e)
			case e.Name == "presence" && from == room+"/9b544bd8":
				if err := x.people["9b544bd8"].Close(); err != nil {
					t.Fatal(err)
				}
			}
		}
		got := <-open[0].answer
		open = open[1:]
		e, err := parse(got)
		if err != nil {
			t.Fatalf("event %d: %s", i, got)
		}
		if sid == "" {
			sid = e.attr("sid")
		}
		// the order of the others' presences is the server's choice
		var ws, gs []string
		for j, k := range e.children() {
			gs = append(gs, shape(k, 0))
			if k.Name == "iq" && k.attr("type") == "set" && j < len(want) {
				ids[want[j].attr("id")] = k.attr("id")
			}
		}
		for _, k := range want {
			ws = append(ws, shape(k, 0))
		}
		if n := slices.IndexFunc(want, func(k *element) bool { return k.Name == "message" }); n > 1 && len(gs) == len(ws) {
			slices.Sort(ws[:n])
			slices.Sort(gs[:n])
		}
		w, _ := parse(ev[1])
		w.Kids, e.Kids = nil, nil
		ws, gs = append(ws, shape(w, 0)), append(gs, shape(e, 0))
		if a, b := strings.Join(ws, "\n"), strings.Join(gs, "\n"); a != b {
			t.Errorf("answer %d: the real server said\n%s\nthis one\n%s", answers, a, b)
		}
		answers++
	}
	if answers != 16 || len(open) != 0 {
		t.Errorf("%d answers, %d requests left", answers, len(open))
	}
}

func TestReplayJigasi(t *testing.T) {
	t.Parallel()
	const room, nick = "sipbosh@conference.meet.shard1.test", "35c70ed9"
	x := newScript(t, "meet.shard1.test", room)
	events := recorded(t, "real-jigasi-leg1.xml", "[0-9.]+ (?:C2S|S2C)")
	var list []*element
	for _, ev := range events {
		e, err := parse(ev[1])
		if err != nil {
			t.Fatalf("%s: %v", ev[1], err)
		}
		if e.NS == "" {
			e.remap("", nsClient)
		}
		list = append(list, e)
	}
	var bot *element
	for _, e := range list {
		if from := e.attr("from"); e.Name == "presence" && from == room+"/focus" && len(x.s.Occupants(room)) == 0 {
			x.enter(e)
			x.f.joined = true
		} else if e.Name == "presence" && from == room+"/z-9pXm8j" && bot == nil {
			bot = e
		}
	}
	x.enter(bot)

	u := join(t, x.s, client.Options{Room: "sipbosh"})
	ids := map[string]string{}
	seenFocus, compared := 0, 0
	for i, ev := range events {
		e := list[i]
		if i == 0 {
			continue // the bind result
		}
		if strings.HasSuffix(ev[0], "C2S") {
			if our, ok := ids[e.attr("id")]; ok {
				e = e.with("id", our)
			}
			if e.attr("to") == room+"/focus" && len(x.s.Occupants(room)) == 1 { // nobody but the focus: it has gone, too
				x.f.say("<presence type='unavailable' from='" + x.f.jid() + "' to='" + room + "/focus'/>")
				x.await("end of the room", func() bool { return len(x.s.Occupants(room)) == 0 })
			}
			u.must(e.encode(nsBOSH, nsClient))
			continue
		}
		from := e.attr("from")
		request := e.Name == "iq" && from == room+"/focus" && (e.attr("type") == "set" || e.attr("type") == "get")
		switch {
		case request:
			x.toSay(e, nick, fmt.Sprintf("F-%d", i))
		case e.Name == "presence" && from == room+"/focus":
			if seenFocus++; seenFocus > 1 {
				x.f.say("<presence from='" + x.f.jid() + "' id='" + e.attr("id") + "' to='" + room + "/focus'>" + relayed(e) + "</presence>")
			}
		case e.Name == "presence" && from == room+"/z-9pXm8j" && e.attr("type") == "unavailable":
			if err := x.people["z-9pXm8j"].Close(); err != nil {
				t.Fatal(err)
			}
		case e.Name == "presence" && e.child(nsMUCUser, "x").child(nsMUCUser, "item").child(nsMUCUser, "actor") != nil:
			j, _ := parseJID(u.JID())
			x.f.say("<iq type='set' id='own' from='" + x.f.jid() + "' to='" + room + "'><query xmlns='" + nsMUCAdmin +
				"'><item affiliation='owner' jid='" + j.bare().String() + "'/></query></iq>")
		}
		// Stanzas that cross may come in another order than recorded.
		want := shape(e, 0)
		id := ""
		u.take(want, func(g *element) bool {
			if shape(g, 0) != want {
				return false
			}
			id = g.attr("id")
			return true
		})
		if request {
			ids[e.attr("id")] = id
		}
		compared++
	}
	if compared < 25 {
		t.Errorf("only %d stanzas compared", compared)
	}
}

// take awaits a stanza and takes only it away.
func (u *user) take(want string, ok func(*element) bool) {
	u.t.Helper()
	deadline := time.After(5 * time.Second)
	for {
		u.mu.Lock()
		i := slices.IndexFunc(u.got, ok)
		if i >= 0 {
			u.got = slices.Delete(u.got, i, i+1)
		}
		var got strings.Builder
		for _, e := range u.got {
			got.WriteString(shape(e, 0) + "\n")
		}
		u.mu.Unlock()
		if i >= 0 {
			return
		}
		select {
		case <-u.news:
		case <-deadline:
			u.t.Fatalf("the real server said\n%s\nthis one\n%s", want, got.String())
		}
	}
}
