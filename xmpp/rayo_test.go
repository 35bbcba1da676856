package xmpp

import (
	"encoding/xml"
	"os"
	"reflect"
	"testing"
)

func decodeIQ(t testing.TB, s string) *IQ {
	t.Helper()
	v, err := decodeStanza([]byte(s))
	if err != nil {
		t.Fatal(err)
	}
	return v.(*IQ)
}

func TestParseDial(t *testing.T) {
	t.Parallel()
	recorded, err := os.ReadFile("testdata/rayo-dial-forwarded-to-jigasi.xml")
	if err != nil {
		t.Fatal(err)
	}
	const iq = "<iq xmlns='jabber:client' type='set' id='1' from='b@i.meet.example/focus'>"
	for _, tt := range []struct {
		name, stanza string
		want         RayoDial
		ok           bool
	}{
		{"recorded", string(recorded), RayoDial{"fromnumber", "+15551234567", []Header{{"JvbRoomName", "judgeroom095c@conference.meet.shard1.test"}}}, true},
		{"headers of every namespace, in order", iq + `<dial xmlns='urn:xmpp:rayo:1' to='x'><header name='b' value='1'/><header xmlns='' name='a' value='2'/>
			<header xmlns='urn:other' name='b' value='3'/><r:header xmlns:r='urn:xmpp:rayo:1' name='c' value='&lt;&#38;'/><other name='d' value='4'/></dial></iq>`,
			RayoDial{"", "x", []Header{{"b", "1"}, {"a", "2"}, {"b", "3"}, {"c", "<&"}}}, true},
		{"prefixed", iq + `<r:dial xmlns:r='urn:xmpp:rayo:1' to='x'/></iq>`, RayoDial{To: "x"}, true},
		{"empty", iq + `<dial xmlns='urn:xmpp:rayo:1'/></iq>`, RayoDial{}, true},
		{"get", `<iq xmlns='jabber:client' type='get' id='1'><dial xmlns='urn:xmpp:rayo:1' to='x'/></iq>`, RayoDial{}, false},
		{"another namespace", iq + `<dial xmlns='urn:xmpp:rayo:2' to='x'/></iq>`, RayoDial{}, false},
		{"hangup", iq + `<hangup xmlns='urn:xmpp:rayo:1'/></iq>`, RayoDial{}, false},
	} {
		d, ok := ParseDial(decodeIQ(t, tt.stanza))
		if ok != tt.ok || !reflect.DeepEqual(d, tt.want) {
			t.Errorf("%s: %v %+v", tt.name, ok, d)
		}
	}
}

func TestParseHangup(t *testing.T) {
	t.Parallel()
	for stanza, want := range map[string]bool{
		`<iq xmlns='jabber:client' type='set' id='1'><hangup xmlns='urn:xmpp:rayo:1'/></iq>`:           true,
		`<iq xmlns='jabber:client' type='get' id='1'><hangup xmlns='urn:xmpp:rayo:1'/></iq>`:           false,
		`<iq xmlns='jabber:client' type='set' id='1'><hangup xmlns='urn:xmpp:rayo:call:1'/></iq>`:      false,
		`<iq xmlns='jabber:client' type='set' id='1'><dial xmlns='urn:xmpp:rayo:1' to='hangup'/></iq>`: false,
	} {
		if ParseHangup(decodeIQ(t, stanza)) != want {
			t.Errorf("%s: not %v", stanza, want)
		}
	}
}

func TestDialRef(t *testing.T) {
	t.Parallel()
	b, err := xml.Marshal(DialRef("xmpp:r@c.meet.example/1a2b3c4d"))
	if want := `<ref xmlns="urn:xmpp:rayo:1" uri="xmpp:r@c.meet.example/1a2b3c4d"></ref>`; err != nil || string(b) != want {
		t.Errorf("%s, %v", b, err)
	}
}

func FuzzParseDial(f *testing.F) {
	recorded, err := os.ReadFile("testdata/rayo-dial-forwarded-to-jigasi.xml")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(recorded)
	f.Add([]byte(`<iq xmlns='jabber:client' type='set' id='1'><dial xmlns='urn:xmpp:rayo:1' to='&#x0;'><header/></dial></iq>`))
	f.Add([]byte(`<iq xmlns='jabber:client' type='set' id='1'><hangup xmlns='urn:xmpp:rayo:1'/></iq>`))
	f.Fuzz(func(t *testing.T, b []byte) {
		v, err := decodeStanza(b)
		iq, ok := v.(*IQ)
		if err != nil || !ok {
			return
		}
		if d, ok := ParseDial(iq); ok && (ParseHangup(iq) || iq.Type != "set") {
			t.Errorf("%q is a dial request: %+v", b, d)
		}
	})
}
