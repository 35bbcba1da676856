package sip

import (
	"strings"
	"testing"

	"github.com/emiago/sipgo/sip"
)

// What comes of Refer-To, Replaces, RAck and Session-Expires may be sent on.
func FuzzTransfer(f *testing.F) {
	for _, s := range []string{"<sip:2@h;user=phone?Replaces=a%40b%3Bto-tag%3D1%3Bfrom-tag%3D2&X=y>", "sip:1@h;method=INVITE",
		"a@b;to-tag=1;from-tag=2;early-only", "1 2 INVITE", "1800;refresher=uac", "<sip:x?Replaces=%0d%0aVia:%20x>"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		_, uri, replaces, ok := parseReferTo(s)
		if ok && (!fit(uri) || strings.ContainsAny(replaces, "\r\n\x00")) {
			t.Errorf("%q: %q, %q", s, uri, replaces)
		}
		if id, _, ok := parseReplaces(s); ok && (id.call == "" || id.local == "" || id.remote == "") {
			t.Errorf("%q: %+v", s, id)
		}
		req := sip.NewRequest(sip.PRACK, sip.Uri{Scheme: "sip", Host: "h"})
		for _, n := range []string{"RAck", "Session-Expires", "Min-SE"} {
			req.AppendHeader(sip.NewHeader(n, s))
		}
		_, _, _ = parseRAck(req)
		if se, _ := sessionExpires(req); se < 0 || minSE(req) < 0 {
			t.Errorf("%q: negative", s)
		}
	})
}
