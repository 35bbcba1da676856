package sip

import (
	"strings"
	"testing"

	"github.com/emiago/sipgo/sip"
)

func TestIdentity(t *testing.T) {
	from := Party{Display: "From", User: "100", Host: "pbx.example"}
	for _, tt := range []struct {
		headers      string
		display      string
		user         string
		name, number bool // hidden
	}{
		{"", "From", "100", false, false},
		{`P-Asserted-Identity: "Alice \"A\" B" <sip:+49301@carrier.example;user=phone>`, `Alice "A" B`, "+49301", false, false},
		{`P-Asserted-Identity: <sip:+49301@carrier.example>, "Alice" <tel:+49302>`, "Alice", "+49301", false, false},
		{"P-Asserted-Identity: tel:+49301;phone-context=x", "", "+49301", false, false},
		{"P-Asserted-Identity: <tel:+49-30-1;ext=4>", "", "+49-30-1", false, false},
		{`P-Asserted-Identity: "a, b <c" <sip:7@h>`, "a, b <c", "7", false, false},
		{"P-Asserted-Identity: sip:7@h\nP-Asserted-Identity: \"B\" <tel:8>", "B", "7", false, false},
		{"p-asserted-identity: Bob <sips:%2B49301@h>", "Bob", "+49301", false, false},
		{"P-Asserted-Identity: nonsense\nRemote-Party-ID: \"R\" <sip:9@h>", "R", "9", false, false},
		{`P-Asserted-Identity: "open <sip:9@h>`, "From", "100", false, false},
		{"P-Asserted-Identity: <sip:9@h", "From", "100", false, false},
		{"P-Asserted-Identity: <http://example.org/>", "From", "100", false, false},
		{`P-Asserted-Identity: <sip:1@h>` + "\nPrivacy: id", "", "1", true, true},
		{"Privacy: header;User;critical", "From", "100", true, true},
		{"Privacy: none", "From", "100", false, false},
		{"Privacy: header", "From", "100", false, false},
		{`Remote-Party-ID: "R" <sip:9@h>;party=calling;screen=yes;privacy=full`, "R", "9", true, true},
		{`Remote-Party-ID: "R" <sip:9@h>;privacy=uri-network`, "R", "9", false, true},
		{`Remote-Party-ID: "R" <sip:9@h>;privacy="name"`, "R", "9", true, false},
		{`Remote-Party-ID: "R" <sip:9@h>;privacy=off`, "R", "9", false, false},
		{`Remote-Party-ID: "Called" <sip:5@h>;party=called, "R" <sip:9@h>;party=Calling`, "R", "9", false, false},
		{`P-Asserted-Identity: "A" <sip:1@h>` + "\n" + `Remote-Party-ID: "R" <sip:9@h>;privacy=full`, "A", "1", false, false},
	} {
		req := sip.NewRequest(sip.INVITE, sip.Uri{Scheme: "sip", Host: "h"})
		for line := range strings.SplitSeq(tt.headers, "\n") {
			if name, value, ok := strings.Cut(line, ": "); ok {
				req.AppendHeader(sip.NewHeader(name, value))
			}
		}
		id := identity(req, from)
		if id.Display != tt.display || id.User != tt.user || id.NameHidden != tt.name || id.NumberHidden != tt.number {
			t.Errorf("%s\n%+v", tt.headers, id)
		}
	}
}

// FuzzIdentity checks that what names a caller can be shown as it is.
func FuzzIdentity(f *testing.F) {
	f.Add(`"Alice" <sip:+49301@h;user=phone>;party=calling, <tel:+49302>`, "id;critical")
	f.Add(`"\`, `;;,`)
	f.Fuzz(func(t *testing.T, value, privacy string) {
		req := sip.NewRequest(sip.INVITE, sip.Uri{Scheme: "sip", Host: "h"})
		for _, name := range []string{"P-Asserted-Identity", "Remote-Party-ID"} {
			req.AppendHeader(sip.NewHeader(name, value))
		}
		req.AppendHeader(sip.NewHeader("Privacy", privacy))
		id := identity(req, Party{})
		for _, s := range []string{id.Display, id.User, id.URI} {
			if s != clean(s) {
				t.Fatalf("%+q of %+q", s, value)
			}
		}
		if len(identities(req, "Remote-Party-ID")) > maxIdentities {
			t.Fatal("no bound")
		}
	})
}
