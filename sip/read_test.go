package sip

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/emiago/sipgo/sip"
)

// What is taken of header fields, and what is not.
func TestFields(t *testing.T) {
	t.Parallel()
	const bad = "bad"
	for _, tt := range []struct{ name, value, want string }{
		{"Via", "SIP/2.0/UDP h", "SIP/2.0/UDP h"},
		{"Via", "SIP / 2.0 / UDP  h : 5070 ; branch = z9hG4bK1 ;rport", "SIP/2.0/UDP h:5070;branch=z9hG4bK1;rport"},
		{"Via", "SIP/2.0/UDP [::1]:9;received=[::2]", "SIP/2.0/UDP [::1]:9;received=[::2]"},
		{"Via", `SIP/2.0/UDP h;x="a;branch=evil";branch=b`, `SIP/2.0/UDP h;x="a;branch=evil";branch=b`},
		{"Via", "SIP/2.0/UDP", bad}, {"Via", "SIP/2.0 h", bad}, {"Via", "SIP/2.0/UDP ::1", bad}, {"Via", "SIP/2.0/UDP h:x", bad},
		{"Via", "SIP/2.0/UDP h:99999", bad}, {"Via", "SIP/2.0/UDP h:-1", bad}, {"Via", "SIP/2.0/UDP [::1", bad}, {"Via", "SIP/2.0/UDP h h", bad},
		{"Via", "SIP/2.0/UDP h;branch=a;branch=b", bad}, {"Via", "SIP/2.0/UDP h;;branch=a", bad}, {"Via", `SIP/2.0/UDP h;branch="a`, bad},
		{"Via", "SIP/2.0/UDP h;branch=a b", bad}, {"Via", "SIP/2.0/U P h", bad}, {"Via", "SIP/2.0/UDP h;=x", bad}, {"Via", "", bad},
		{"From", "sip:a@h", "<sip:a@h>"}, {"From", "sip:a@h ; tag = 1", "<sip:a@h>;tag=1"},
		{"From", "<sip:a@h;p>;tag=1;;", "<sip:a@h;p>;tag=1"}, // empty ones are passed over
		{"From", `"a <sip:x@y>;tag=2, \" b" <sip:a@h>;tag=1`, `"a <sip:x@y>;tag=2, \" b" <sip:a@h>;tag=1`},
		{"From", "Jörg <sip:a@h>", `"Jörg" <sip:a@h>`}, {"From", "<tel:+491>;tag=1", "<tel:+491>;tag=1"}, {"From", "<urn:x:y>", "<urn:x:y>"},
		{"From", `<sip:a@h>;p="x;tag=evil";tag=1`, `<sip:a@h>;p="x;tag=evil";tag=1`},
		{"From", `"a <sip:a@h>`, bad}, {"From", `a, b <sip:a@h>`, bad}, {"From", `a\ <sip:a@h>`, bad}, {"From", "<sip:a@h", bad},
		{"From", "<sip:a@h>;tag=1;tag=2", bad}, {"From", "<sip:a@h>;TAG=1;tag=2", bad}, {"From", "<sip:a@h>x", bad}, {"From", "<sip:a b@h>", bad},
		{"From", "sip:a@h?x=y", bad}, {"From", "<sip:>", bad}, {"From", "<sip:a@>", bad}, {"From", "<sip:a@h:x>", bad}, {"From", "<sip:a@h:70000>", bad},
		{"From", "a@h", bad}, {"From", "<>", bad}, {"From", "", bad}, {"From", "*", bad}, {"From", "<sip:a@::1>", bad}, {"From", "<sip:a@[::1%eth0]>", bad},
		{"From", "<sip:a@h/x>", bad}, {"From", "<sip:a@h>;tag=", bad}, {"From", "<sip:a@\xff>", bad},
		{"Contact", "*", "*"}, {"Contact", "<sip:a@h?x=y>;q=1", "<sip:a@h?x=y>;q=1"},
		{"Call-ID", "a@b", "a@b"}, {"Call-ID", "a b", bad}, {"Call-ID", "", bad},
		{"CSeq", "0009   INVITE", "9 INVITE"}, {"CSeq", "2147483647 X", "2147483647 X"}, {"CSeq", "2147483648 X", bad}, {"CSeq", "-1 X", bad},
		{"CSeq", "+1 X", bad}, {"CSeq", "1", bad}, {"CSeq", "1 X Y", bad}, {"CSeq", "x X", bad}, {"CSeq", "1 (", bad},
		{"Max-Forwards", "0070", "70"}, {"Max-Forwards", "256", bad}, {"Max-Forwards", "-1", bad}, {"Max-Forwards", "x", bad},
		{"Content-Length", "007", "7"}, {"Content-Length", "-7", bad}, {"Content-Length", "+7", bad}, {"Content-Length", "7 7", bad},
		{"Content-Length", "99999999999", bad}, {"Content-Length", "", bad}, {"Content-Type", "", bad},
	} {
		h, err := fields[strings.ToLower(tt.name)](nil, tt.value)
		if err != nil {
			t.Fatal(err)
		}
		got := h.Value()
		if _, unread := h.(*unread); unread {
			got = bad
		}
		if got != tt.want {
			t.Errorf("%s: %q: %q, want %q", tt.name, tt.value, got, tt.want)
		}
	}
}

// Lines are brought into a form with one header field each; the body stays.
func TestPlain(t *testing.T) {
	t.Parallel()
	const end = "\r\n\r\nbody, with: this\r\n and that\r\n\r\n"
	for in, want := range map[string]string{
		"A: 1\r\nB: 2":                         "A: 1\r\nB: 2",
		"A:\r\n 1 \r\n\t 2\r\nB :3":            "A: 1 2\r\nB: 3",
		"v: a, b ,c\r\nX: a, b":                "v: a\r\nv: b\r\nv: c\r\nX: a, b",
		`Contact: "a, b" <sip:a,b@h>, <sip:c>`: "Contact: \"a, b\" <sip:a,b@h>\r\nContact: <sip:c>",
	} {
		got, err := plain([]byte(in + end))
		if err != nil || string(got) != want+end {
			t.Errorf("%q: %q, %v", in, got, err)
		}
	}
	for _, in := range []string{"no colon" + end, " folded first: 1" + end, "A B: 1" + end, "A: 1\nB: 2" + end, "A: 1\rB: 2" + end, ": 1" + end, "A: 1\r\n", "\r\nbody", ""} {
		if got, err := plain([]byte(in)); err == nil {
			t.Errorf("%q taken for %q", in, got)
		}
	}
}

func TestStartLine(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]string{
		"INVITE sip:a@h SIP/2.0": "", "invite sip:a@h sip/2.0": "", "SIP/2.0 200 ": "", "SIP/2.0 200": "",
		"INVITE sip:a@h SIP/3.0": "505", "INVITE mailto:a@h SIP/2.0": "416", "INVITE sip:a@h:0x5 SIP/2.0": "400",
		"INVITE sip:a@h SIP/2.0 ": "400", "INVITE a SIP/2.0": "400", "INVITE * SIP/2.0": "400", "INVITE sip:a@h\x00 SIP/2.0": "400",
		"GET / HTTP/1.1": "none", "SIP/2.0 99 x": "none", "SIP/2.0 700 x": "none", "SIP/2.0 +20 x": "none", "SIP/1.0 200 OK": "none", "": "none",
		"INV(ITE sip:a@h SIP/2.0": "none",
		"INVITE tel:1 SIP/2.0":    "", "INVITE tel:+ SIP/2.0": "400", "INVITE tel:;x=1 SIP/2.0": "400", "INVITE tel:1@h SIP/2.0": "400", "INVITE tel:1+ SIP/2.0": "400",
	} {
		first, _, err := startLine(line)
		got := ""
		if first == "" {
			got = "none"
		} else if err != nil {
			got = fmt.Sprint(codeOf(err))
		}
		if got != want {
			t.Errorf("%q: %q, want %q", line, got, want)
		}
	}
}

// A number is called by tel: as it is by sip:.
func TestTelephoneURI(t *testing.T) {
	t.Parallel()
	u := fuzzUA(t)
	for uri, want := range map[string]string{
		"tel:8001": "8001", "TEL:+49-30-(123).45": "+493012345", "tel:8001;phone-context=+49;isub=1": "8001", "tel:*21#": "*21#",
	} {
		msg, err := readMessage(u.parser, []byte("INVITE "+uri+" SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1:9;branch=z9hG4bK1\r\n"+
			"From: <tel:1>;tag=a\r\nTo: <"+uri+">\r\nCall-ID: c\r\nCSeq: 1 INVITE\r\nContent-Length: 0\r\n\r\n"))
		if err != nil {
			t.Errorf("%s: %v", uri, err)
			continue
		}
		req := msg.(*sip.Request)
		if code, err := invalid(req); code != 0 {
			t.Errorf("%s: %d %v", uri, code, err)
		}
		if got := unescapeUser(req.Recipient.User); got != want {
			t.Errorf("%s calls %q, want %q", uri, got, want)
		}
	}
}

// FuzzRead reads anything, and answers it: the answer has lines of its own only.
func FuzzRead(f *testing.F) {
	for _, m := range messages() {
		f.Add([]byte(m))
	}
	files, _ := filepath.Glob("testdata/torture/*/*.dat")
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
		f.Add(bytes.ReplaceAll(b, []byte("\n"), crlf))
	}
	u := fuzzUA(f)
	fl := flow{ln: u.listeners[0], peer: netip.MustParseAddrPort("127.0.0.1:9")}
	f.Fuzz(func(t *testing.T, b []byte) {
		msg, err := readMessage(u.parser, bytes.Clone(b))
		req, ok := msg.(*sip.Request)
		if !ok || req.Via() == nil {
			return
		}
		_ = responseAddr(fl, req)
		out := u.response(fl, req, reply{code: 400, tag: "ours", headers: []Header{u.warning(fl, fmt.Sprint(err))}})
		head, rest, ok := strings.Cut(string(out), "\r\n\r\n")
		if !ok || rest != "" {
			t.Fatalf("%q goes on after the end", out)
		}
		for _, line := range strings.Split(head, "\r\n")[1:] {
			if name, _, ok := strings.Cut(line, ":"); !ok || !isToken(name) || strings.ContainsAny(line, "\r\n") {
				t.Fatalf("line %q in %q", line, out)
			}
		}
		if err != nil {
			return
		}
		// What was read is read again as the same.
		if again, err := readMessage(u.parser, []byte(req.String())); err != nil {
			t.Fatalf("%v: %q", err, req.String())
		} else if r := again.(*sip.Request); r.Method != req.Method || r.String() != req.String() {
			t.Fatalf("%q\nis read as\n%q", req.String(), r.String())
		}
	})
}
