package brewery

import (
	"errors"
	"strings"
	"testing"
	"unicode/utf8"

	"brewline/xmpp"
)

func TestNormalizeRoom(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ raw, want string }{
		{"standup", "standup"},
		{"StandUp", "standup"},
		{"Réunion", "r%c3%a9union"},
		{"re\u0301union", "r%c3%a9union"},                         // decomposed
		{"R%C3%A9union", "r%c3%a9union"},                          // encoded, upper case
		{"r%c3%a9union", "r%c3%a9union"},                          // done already
		{"r%C3%a9union", "r%c3%a9union"},                          // mixed digits
		{"Ré%20union", "r%c3%a9%20union"},                         // half encoded
		{"%C3%89COLE", "%c3%a9cole"},                              // upper case behind the encoding
		{"  daily stand up\t", "daily%20stand%20up"},              // inner space stays
		{"ﬁnance", "finance"},                                     // NFKC: ligature
		{"ｒｏｏｍ１", "room1"},                                        // NFKC: full width
		{"Ⅷ", "viii"},                                             // NFKC before lower case
		{"ΣΊΣΥΦΟΣ", "%cf%83%ce%af%cf%83%cf%85%cf%86%ce%bf%cf%82"}, // final sigma, as ECMAScript has it
		{"İzmir", "i%cc%87zmir"},                                  // one letter becomes two
		{"会议", "%e4%bc%9a%e8%ae%ae"},
		{"a+b", "a%2bb"},
		{"a&b=c", "a%26b%3dc"},
		{"Team!(1)*~_-.", "team!(1)*~_-."}, // left alone by encodeURIComponent
		{"a/b", "a%2fb"},
		{"a%2Fb", "a%2fb"},
		{"a@b", "a%40b"},
		{"<script>", "%3cscript%3e"},
		{`"quoted"`, "%22quoted%22"},
		{"nul\x00bell\x07", "nul%00bell%07"},
		{"[tenant]room", "%5btenant%5droom"},
		{"100%", "100%25"}, // no encoding at all
		{"50%zz", "50%25zz"},
		{"Caf%C3%A9%", "caf%25c3%25a9%25"}, // one bad escape spoils all, as in a browser
		{"%ff", "%25ff"},                   // not UTF-8
		{"%ED%A0%80", "%25ed%25a0%2580"},   // a surrogate
		{"%C0%AF", "%25c0%25af"},           // overlong
		{"%C3é", "%25c3%c3%a9"},            // half a character before a whole one
		{"a%2540", "a%2540"},
		{"%", "%25"},
		{strings.Repeat("x", 1023), strings.Repeat("x", 1023)},
	} {
		got, err := NormalizeRoom(c.raw)
		if err != nil || got != c.want {
			t.Errorf("NormalizeRoom(%q) = %q, %v; want %q", c.raw, got, err, c.want)
		}
	}
}

func TestNormalizeRoomRefuses(t *testing.T) {
	t.Parallel()
	for _, raw := range []string{
		"", " \t\r\n", "it's", "it%27s", "R\xe9union",
		strings.Repeat("x", 1024), strings.Repeat("é", 200), strings.Repeat("%20", 1<<20),
	} {
		got, err := NormalizeRoom(raw)
		if !errors.Is(err, ErrBadRoom) || !errors.Is(err, ErrNoRoom) || got != "" {
			t.Errorf("NormalizeRoom(%.20q) = %q, %v", raw, got, err)
		}
		if err != nil && len(err.Error()) > 500 {
			t.Errorf("NormalizeRoom(%.20q): the error has %d bytes", raw, len(err.Error()))
		}
	}
}

func TestRoomString(t *testing.T) {
	t.Parallel()
	for r, want := range map[Room]string{{Name: "a"}: "a", {Name: "a", Tenant: "t"}: "t/a"} {
		if r.String() != want {
			t.Errorf("%#v is %q, want %q", r, r, want)
		}
	}
}

func FuzzNormalizeRoom(f *testing.F) {
	for _, s := range []string{"standup", "Réunion", "%C3%A9%", "İ", "ΑΣ", "a'b", "\xff", "%00", "ﬁ%20"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		name, err := NormalizeRoom(raw)
		if err != nil {
			if !errors.Is(err, ErrBadRoom) || !utf8.ValidString(err.Error()) {
				t.Fatalf("%q: %v", raw, err)
			}
			return
		}
		j, err := xmpp.ParseJID(name + "@conference.meet.example")
		if err != nil || j.Local != name || j.Domain != "conference.meet.example" || j.Resource != "" {
			t.Fatalf("%q became %q, which is no localpart: %v", raw, name, err)
		}
		if strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r > '~' || 'A' <= r && r <= 'Z' }) {
			t.Fatalf("%q became %q", raw, name)
		}
		if _, ok := decodeURIComponent(name); !ok {
			t.Fatalf("%q became %q, which cannot be decoded", raw, name)
		}
	})
}
