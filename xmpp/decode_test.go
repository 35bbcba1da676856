package xmpp

import (
	"encoding/xml"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"brewline/xmpp/bosh"
)

// recordedElements are the top-level elements of all captures.
func recordedElements(t testing.TB) []string {
	t.Helper()
	names, err := filepath.Glob("testdata/*.xml")
	if err != nil || len(names) == 0 {
		t.Fatalf("no captures: %v", err)
	}
	var out []string
	for _, n := range names {
		b, err := os.ReadFile(n)
		if err != nil {
			t.Fatal(err)
		}
		body, err := bosh.ReadBody(strings.NewReader("<body xmlns='http://jabber.org/protocol/httpbind'>"+string(b)+"</body>"), 1<<20)
		if err != nil {
			t.Fatalf("%s: %v", n, err)
		}
		for _, e := range body.Elements {
			out = append(out, string(e.Data))
		}
	}
	return out
}

func TestDecodeRecorded(t *testing.T) {
	t.Parallel()
	counts := map[string]int{}
	for _, s := range recordedElements(t) {
		name, h := readHead([]byte(s))
		v, err := decodeStanza([]byte(s))
		if err == errNotStanza {
			counts[name.Local]++
			continue
		}
		if err != nil {
			t.Errorf("%v\n%s", err, s)
			continue
		}
		var from, to JID
		switch v := v.(type) {
		case *IQ:
			counts["iq"]++
			from, to = v.From, v.To
			if (v.Type == "error") != (v.Error != nil) || (v.Type == "set" && v.Name.Local == "") {
				t.Errorf("%+v", v)
			}
		case *Message:
			counts["message"]++
			from, to = v.From, v.To
			if strings.Contains(s, "<json-message") && !strings.HasPrefix(string(v.JSON), "{") {
				t.Errorf("json %q", v.JSON)
			}
		case *Presence:
			counts["presence"]++
			from, to = v.From, v.To
			if (v.Type == "error") != (v.Error != nil) || strings.Contains(s, "muc#user") != (v.MUCUser != nil) ||
				strings.Contains(s, "/caps") != (v.Caps != nil) || strings.Contains(s, "<stats ") != (v.Stats != nil) {
				t.Errorf("%+v\n%s", v, s)
			}
		}
		if from.String() != h.From || to.String() != h.To {
			t.Errorf("from %s to %s in %s", from, to, s)
		}
	}
	if counts["iq"] < 20 || counts["message"] < 5 || counts["presence"] < 30 {
		t.Errorf("decoded %v", counts)
	}
}

func TestDecodePresence(t *testing.T) {
	t.Parallel()
	v, err := decodeStanza([]byte(`<presence xmlns='jabber:client' from='r@c/n' type='unavailable'>
<audiomuted>1</audiomuted><SourceInfo>{"n-a0":{}}</SourceInfo><jitsi_participant_raisedHand>5</jitsi_participant_raisedHand>
<jitsi_participant_region>eu</jitsi_participant_region>
<initiator xmlns='http://jitsi.org/protocol/jigasi'><header xmlns='urn:xmpp:rayo:1' name='a' value='b'/></initiator>
<x xmlns='http://jabber.org/protocol/muc#user'><item affiliation='evil'/></x>
<x xmlns='http://jabber.org/protocol/muc#user'><item affiliation='none' role='none' jid='@' nick='m'><actor jid='a@b'/><reason>why</reason></item>
<status code='110'/><status code='x'/><status code='307'/></x></presence>`))
	if err != nil {
		t.Fatal(err)
	}
	p := v.(*Presence)
	u := p.MUCUser
	if u.Affiliation != "none" || u.Nick != "m" || u.Actor != "a@b" || u.Reason != "why" || !u.JID.IsZero() || !u.Has(110) || !u.Has(307) || u.Has(0) {
		t.Errorf("%+v", u)
	}
	if p.AudioMuted == nil || !*p.AudioMuted || p.RaisedHand != "5" || p.Region != "eu" || len(p.Initiator) != 1 || p.Initiator[0] != (Header{"a", "b"}) {
		t.Errorf("%+v", p)
	}
}

// Prefixes that the stanza declares resolve in its payload.
func TestDecodePrefixed(t *testing.T) {
	t.Parallel()
	v, err := decodeStanza([]byte(`<c:iq xmlns:c='jabber:client' xmlns:p='urn:xmpp:ping' type='get' id='1'><p:ping a='b'/></c:iq>`))
	if err != nil {
		t.Fatal(err)
	}
	iq := v.(*IQ)
	var got struct {
		XMLName xml.Name
		A       string `xml:"a,attr"`
	}
	if err := iq.Decode(&got); err != nil || iq.Name != (xml.Name{Space: nsPing, Local: "ping"}) || got.XMLName != iq.Name || got.A != "b" {
		t.Errorf("%+v, %+v, %v", iq.Name, got, err)
	}
	if err := (&IQ{Raw: []byte("<ping xmlns='urn:xmpp:ping' a='c'/>")}).Decode(&got); err != nil || got.A != "c" {
		t.Errorf("%+v, %v", got, err)
	}
	if err := (&IQ{}).Decode(&got); err == nil {
		t.Error("decoded nothing")
	}
}

func TestParseMute(t *testing.T) {
	t.Parallel()
	mute := func(typ, inner string) *IQ {
		v, err := decodeStanza([]byte(`<iq xmlns='jabber:client' type='` + typ + `' id='1'>` + inner + `</iq>`))
		if err != nil {
			t.Fatal(err)
		}
		return v.(*IQ)
	}
	for _, tc := range []struct {
		iq   *IQ
		want Mute
		ok   bool
	}{
		{mute("set", `<mute xmlns='http://jitsi.org/jitmeet/audio' actor='r@c/n'> true </mute>`), Mute{Actor: JID{"r", "c", "n"}, Muted: true}, true},
		{mute("set", `<mute xmlns='http://jitsi.org/jitmeet/audio' jid='r@c/m'>false</mute>`), Mute{JID: JID{"r", "c", "m"}}, true},
		{mute("set", `<mute xmlns='http://jitsi.org/jitmeet/audio'>maybe</mute>`), Mute{}, false},
		{mute("set", `<mute xmlns='http://jitsi.org/jitmeet/video'>true</mute>`), Mute{}, false},
		{mute("get", `<mute xmlns='http://jitsi.org/jitmeet/audio'>true</mute>`), Mute{}, false},
	} {
		if got, ok := ParseMute(tc.iq); got != tc.want || ok != tc.ok {
			t.Errorf("%s: %+v, %t", tc.iq.Raw, got, ok)
		}
	}
}

func TestJitsiMessages(t *testing.T) {
	t.Parallel()
	var enabled, approved int
	for _, s := range recordedElements(t) {
		v, err := decodeStanza([]byte(s))
		if err != nil {
			continue
		}
		m, ok := v.(*Message)
		if !ok {
			continue
		}
		if av, ok := m.AVModeration(); ok {
			if av.Room.Local != "lobbyroom73b5" {
				t.Errorf("%+v", av)
			}
			if av.Enabled != nil && *av.Enabled && av.Actor.Resource == "56b4f4e5" {
				enabled++
			}
			if av.Approved {
				approved++
			}
			m.From.Resource = "evil"
			if _, ok := m.AVModeration(); ok {
				t.Error("believed an occupant")
			}
		}
	}
	if enabled == 0 || approved == 0 {
		t.Errorf("enabled %d, approved %d", enabled, approved)
	}
	m := &Message{From: JID{Domain: "metadata.meet.test"}, JSONRoom: "r@c", JSON: []byte(`{"type":"room_metadata","metadata":{"startMuted":{"audio":true},"lobbyEnabled":true}}`)}
	if md, ok := m.RoomMetadata(); !ok || !md.StartAudioMuted || !md.LobbyEnabled || md.Room != (JID{"r", "c", ""}) {
		t.Errorf("%+v, %t", md, ok)
	}
}

func TestCheckSCRAM(t *testing.T) {
	t.Parallel()
	for in, ok := range map[string]bool{
		"r=abc,s=QSXCR+Q6sek8bf92,i=4096": true, "r=abc,s=QSXCR+Q6sek8bf92,i=4096,x=y": true,
		"": false, "r=abc": false, "x": false, "r=abc,s=,i=4096": false, "r=abc,s=QQ==,i=0": false, "r=abc,s=QQ==,i=99999999999": false,
		"r=abc,s=QQ==,i=2000000": false, "m=x,r=abc,s=QQ==,i=1": false, "r=abc,s=QQ==,i=1,": false,
	} {
		if err := checkSCRAM([]byte(in)); (err == nil) != ok {
			t.Errorf("%q: %v", in, err)
		}
	}
}

func FuzzDecodeStanza(f *testing.F) {
	for _, s := range recordedElements(f) {
		f.Add([]byte(s))
	}
	f.Add([]byte(`<c:iq xmlns:c='jabber:client' type='get' id='1'><p:ping/></c:iq>`))
	f.Fuzz(func(t *testing.T, in []byte) {
		_, _ = readHead(in)
		_ = streamError(in)
		v, err := decodeStanza(in)
		if err != nil {
			return
		}
		switch v := v.(type) {
		case *IQ:
			var q discoQuery
			if v.Decode(&q) == nil {
				_ = CapsHash(*q.info())
			}
			_, _ = ParseMute(v)
			if v.Error != nil {
				_ = focusError(v.Error)
			}
		case *Message:
			_, _ = v.AVModeration()
			_, _ = v.RoomMetadata()
		case *Presence:
			if v.Error != nil {
				_ = joinError(v).Error()
			}
			_ = departure(v)
		}
	})
}

func FuzzSASL(f *testing.F) {
	f.Add([]byte("<challenge xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>cj1hYmMscz1RUT09LGk9MQ==</challenge>"))
	f.Add([]byte("<failure xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><not-allowed/><text>no</text></failure>"))
	f.Fuzz(func(t *testing.T, in []byte) {
		if b, err := saslData(in); err == nil {
			_ = checkSCRAM(b)
		}
		_ = saslFailure(in).Error()
	})
}
