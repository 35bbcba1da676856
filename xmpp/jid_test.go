package xmpp

import (
	"encoding/xml"
	"strings"
	"testing"
)

func TestParseJID(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]JID{
		"meet.test":                           {Domain: "meet.test"},
		"Meet.TEST.":                          {Domain: "meet.test"},
		"a@b":                                 {Local: "a", Domain: "b"},
		"Room@Conference.meet.test/AB@12/x":   {Local: "room", Domain: "conference.meet.test", Resource: "AB@12/x"},
		"b/c@d":                               {Domain: "b", Resource: "c@d"},
		"r%c3%a9union@conference.meet.test":   {Local: "r%c3%a9union", Domain: "conference.meet.test"},
		"[tenant]room@conference.meet.test/n": {Local: "[tenant]room", Domain: "conference.meet.test", Resource: "n"},
		"Ünïcode@meet.test":                   {Local: "ünïcode", Domain: "meet.test"},
		"ﬁ@meet.test":                         {Local: "fi", Domain: "meet.test"},
		"u@[2001:db8::1]/r":                   {Local: "u", Domain: "[2001:db8::1]", Resource: "r"},
	} {
		got, err := ParseJID(in)
		if err != nil || got != want {
			t.Errorf("%s: %+v, %v", in, got, err)
		}
	}
	for _, in := range []string{"", "@", "@b", "a@", "a@b/", "/r", "a b@c", "a@b c", "a\x00@b", "a@b/\x01", "\xff@b", "a<b@c", "a@b@c",
		strings.Repeat("a", 1024) + "@b", "a@" + strings.Repeat("b", 1024), "a@b/" + strings.Repeat("c", 1024)} {
		if got, err := ParseJID(in); err == nil {
			t.Errorf("%.40q: %+v", in, got)
		}
	}
}

func TestJIDParts(t *testing.T) {
	t.Parallel()
	j := MustParseJID("a@b/c")
	if j.Bare().String() != "a@b" || j.WithResource("d").String() != "a@b/d" || j.IsZero() || !(JID{}).IsZero() || (JID{}).String() != "" {
		t.Error(j)
	}
	if n := (JID{"Room", "C", "R"}).normal(); n != (JID{"room", "c", "R"}) {
		t.Error(n)
	}
	type element struct {
		To JID `xml:"to,attr"`
	}
	for want, j := range map[string]JID{`<element to="a@b/c"></element>`: j, `<element></element>`: {}} {
		b, err := xml.Marshal(element{j})
		if err != nil || string(b) != want {
			t.Errorf("%s, %v", b, err)
		}
		var back element
		if err := xml.Unmarshal(b, &back); err != nil || back.To != j {
			t.Errorf("%+v, %v", back, err)
		}
	}
}

func FuzzParseJID(f *testing.F) {
	for _, s := range []string{"a@b/c", "b", "Ünïcode@meet.test/ﬁ", "a@b@c", "[t]r@c/\u2028", "İ@x", "ẞ@x", "℡@x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, in string) {
		j, err := ParseJID(in)
		if err != nil {
			return
		}
		again, err := ParseJID(j.String())
		if err != nil || again != j {
			t.Fatalf("%q: %+v, again %+v, %v", in, j, again, err)
		}
	})
}
