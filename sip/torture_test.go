package sip_test

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"brewline/sip"
)

// answered is the code with which the application of the torture test answers:
// the message was understood as a call.
const answered = 603

// A response is not answered: it is of nothing of ours, or not even that.
const (
	stray  = 0
	broken = -1
)

// torture says what each message is answered with.
var torture = []struct {
	name string
	code int
	why  string
	// want are lines of the answer, or what the application saw of the call
	// as "user", "from", "display".
	want []string
}{
	// RFC 4475 §3.1.1: valid.
	{"wsinv", 481, "it has a To tag of no dialog of ours", []string{
		`From: "J Rosenberg \\\"" <sip:jdrosen@example.com>;tag=98asjd8`, "To: <sip:vivekg@chair-dnrc.example.com>;tag=1918181833n",
		"CSeq: 9 INVITE", "Via: SIP/2.0/TCP spindle.example.com;branch=z9hG4bK9ikj8", "Via: SIP/2.0/UDP 192.168.255.111;branch=z9hG4bK30239",
	}},
	{"intmeth", 501, "nobody knows this method", []string{"CSeq: 139122385 !interesting-Method0123456789_*+`.%indeed'~", "Call-ID: intmeth.word%ZK-!.*_+'@word`~)(><:\\/\"][?}{"}},
	{"esc01", answered, "escapes in the URI", []string{"user sips:user@example.com", "from I have spaces", "To: <sip:%75se%72@example.com>"}},
	{"escnull", 405, "a REGISTER, with escaped nulls", []string{"To: <sip:null-%00-null@example.com>"}},
	{"esc02", 501, "RE%47IST%45R is not REGISTER", []string{`To: "%Z%45" <sip:resource@example.com>`, "CSeq: 29344 RE%47IST%45R"}},
	{"lwsdisp", 200, "no blank after the name", []string{`From: "caller" <sip:caller@example.com>;tag=323`}},
	{"longreq", answered, "long", nil},
	{"dblreq", 405, "the first of two in a datagram is a REGISTER; the second is nothing", nil},
	{"semiuri", 200, "parameters in the user part", nil},
	{"transports", 200, "", []string{"Via: SIP/2.0/UNKNOWN t4.example.com;branch=z9hG4bKasd0f3en", "Via: SIP/2.0/TLS t3.example.com;branch=z9hG4bK2980unddj"}},
	{"mpart01", 405, "a MESSAGE", nil},
	{"unreason", stray, "a phrase in UTF-8", nil},
	{"noreason", stray, "no phrase", nil},
	// §3.1.2: invalid.
	{"badinv01", 400, "empty parameters in Via", nil},
	{"clerr", 400, "shorter than Content-Length", nil},
	{"ncl", 400, "Content-Length -999", nil},
	{"scalar02", 400, "CSeq too large", nil},
	{"scalarlg", broken, "CSeq too large", nil},
	{"quotbal", 400, "quotes do not balance", nil},
	{"ltgtruri", 400, "brackets around the Request-URI", nil},
	{"lwsruri", 400, "a blank in the Request-URI", nil},
	{"lwsstart", 400, "two blanks in the request line", nil},
	{"trws", 400, "blanks after the request line", nil},
	{"escruri", 400, "header fields in the Request-URI", nil},
	{"baddate", answered, "the zone of a Date is not GMT, which is nothing to us", nil},
	{"regbadct", 400, "a Contact that needs brackets", nil},
	{"badaspec", 400, "blanks within brackets", nil},
	{"baddn", 400, "a name that needs quotes", nil},
	{"badvers", 505, "SIP/7.0", nil},
	{"mismatch01", 400, "CSeq of another method", nil},
	{"mismatch02", 400, "CSeq of another method", nil},
	{"bigcode", broken, "4294967301", nil},
	// §3.2: transaction layer.
	{"badbranch", 200, "a branch that is none: as in RFC 2543", nil},
	// §3.3: application layer.
	{"insuf", 400, "no From, To, Call-ID", nil},
	{"unkscm", 416, "unknown scheme", nil},
	{"novelsc", 416, "unknown scheme", nil},
	{"unksm2", 405, "unknown schemes in To and From of a REGISTER", nil},
	{"bext01", 420, "", []string{"Unsupported: nothingsupportsthis, nothingsupportsthiseither"}},
	{"invut", 415, "", []string{"Accept: application/sdp"}},
	{"regaut01", 405, "a REGISTER", nil},
	{"multi01", 400, "two of what there is one of", nil},
	{"mcl01", 400, "two lengths", nil},
	{"bcast", stray, "a second Via", nil},
	{"zeromf", 200, "it has come to its end", nil},
	{"cparam01", 405, "a REGISTER", nil},
	{"cparam02", 405, "a REGISTER", nil},
	{"regescrt", 405, "a REGISTER", nil},
	{"sdp01", 406, "the answer would be of a type it does not take", nil},
	// §3.4: backward compatibility.
	{"inv2543", answered, "no tag, no branch, no Contact: RFC 2543", []string{"user UserB"}},

	// RFC 5118 §4.
	{"ipv6-good", 405, "a REGISTER", []string{"Via: SIP/2.0/UDP [2001:db8::9:1];"}},
	{"ipv6-bad", 400, "an IPv6 address without brackets", nil},
	{"port-ambiguous", 405, "the port is part of the address", nil},
	{"port-unambiguous", 405, "a REGISTER", nil},
	{"via-received-param-with-delim", 481, "a BYE of no dialog", nil},
	{"via-received-param-no-delim", 200, "", nil},
	{"ipv6-in-sdp", answered, "", []string{"user user"}},
	{"mult-ip-in-header", 481, "a BYE of no dialog", []string{"Via: SIP/2.0/UDP [2001:db8::9:1]:6050;", "Via: SIP/2.0/TCP [2001:db8::9:255];branch=z9hG4bK451jj;received=192.0.2.200"}},
	{"mult-ip-in-sdp", answered, "", nil},
	{"ipv4-mapped-ipv6", answered, "", []string{"Via: SIP/2.0/UDP [::ffff:192.0.2.10]:19823;", "Via: SIP/2.0/UDP [::ffff:192.0.2.2];branch=z9hG4bKas3-111"}},
	{"ipv6-bug-abnf-3-colons", 200, "taken for two", nil},
	{"ipv6-correct-abnf-2-colons", 200, "", nil},
}

// tortureMessages reads the messages by name.
func tortureMessages(t testing.TB) map[string][]byte {
	files, err := filepath.Glob("testdata/torture/*/*.dat")
	if err != nil || len(files) != 49+12 {
		t.Fatal(len(files), "files", err)
	}
	all := map[string][]byte{}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if filepath.Base(filepath.Dir(f)) == "rfc5118" {
			b = onTheWire(b)
		}
		all[strings.TrimSuffix(filepath.Base(f), ".dat")] = b
	}
	return all
}

var contentLength = regexp.MustCompile(`(?m)^Content-Length: \d+`)

// onTheWire makes a message of a file of RFC 5118; see testdata/torture/README.md.
func onTheWire(b []byte) []byte {
	head, body, _ := bytes.Cut(bytes.ReplaceAll(b, []byte("\n"), []byte("\r\n")), []byte("\r\n\r\n"))
	head = contentLength.ReplaceAll(bytes.TrimRight(head, "\r\n"), fmt.Appendf(nil, "Content-Length: %d", len(body)))
	return append(append(head, "\r\n\r\n"...), body...)
}

// tortureUA is a user agent that answers calls with answered, and the calls.
func tortureUA(t *testing.T) (*sip.UA, chan *sip.Dialog) {
	calls := make(chan *sip.Dialog, 100)
	return newUA(t, func(d *sip.Dialog) {
		calls <- d
		_ = d.Reject(answered, sip.Reason{Cause: 21, Text: "tortured"})
	}), calls
}

func TestTorture(t *testing.T) {
	t.Parallel()
	messages := tortureMessages(t)
	if len(torture) != len(messages) {
		t.Errorf("%d answers to %d messages", len(torture), len(messages))
	}
	for _, tt := range torture {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			msg := messages[tt.name]
			if msg == nil {
				t.Fatal("no such message")
			}
			u, calls := tortureUA(t) // of its own, since some messages have the same branch
			c, msg := answersHere(t, msg)
			defer c.Close()
			before := u.Stats()
			if _, err := c.WriteTo(msg, u.Addrs()[0]); err != nil {
				t.Fatal(err)
			}
			want := tt.code
			if tt.code <= 0 { // the next answer is that to a request behind it
				want = 200
				ping := "OPTIONS sip:x@h SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1;rport;branch=z9hG4bK" + tt.name + "\r\nFrom: <sip:a@h>;tag=1\r\nTo: <sip:b@h>\r\nCall-ID: ping\r\nCSeq: 7 OPTIONS\r\n\r\n"
				if _, err := c.WriteTo([]byte(ping), u.Addrs()[0]); err != nil {
					t.Fatal(err)
				}
			}
			code, lines := finalAnswer(t, c)
			if code != want {
				t.Fatalf("%d, want %d, %s:\n%s", code, want, tt.why, strings.Join(lines, "\n"))
			}
			malformed := tt.code == broken || code == 400 || code == 416 || code == 505
			if n := u.Stats().Malformed - before.Malformed; malformed != (n == 1) || n > 1 {
				t.Errorf("%d counted as malformed", n)
			}
			if code == answered {
				d := receive(t, "call", calls)
				lines = append(lines, "user "+d.RequestUser(), "from "+d.From().User)
				if _, err := sip.ParseSDP(d.Offer()); err != nil {
					t.Error(err)
				}
			}
			for _, w := range tt.want {
				if !strings.Contains("\n"+strings.Join(lines, "\n")+"\n", "\n"+w) {
					t.Errorf("no line %q in\n%s", w, strings.Join(lines, "\n"))
				}
			}
			if n := len(calls); n > 0 {
				t.Errorf("%d more calls", n)
			}
		})
	}
}

// Messages of a stream end where Content-Length says.
func TestTortureStream(t *testing.T) {
	t.Parallel()
	messages := tortureMessages(t)
	u, calls := tortureUA(t)
	for name, codes := range map[string][]int{
		"dblreq":  {405, 400}, // the INVITE has no Contact
		"longreq": {100}, "intmeth": {501}, "semiuri": {200}, "mpart01": {405}, "badinv01": {400}, "quotbal": {400},
		"mismatch02": {400}, "wsinv": {481}, "ipv6-in-sdp": {100}, "lwsdisp": {200},
	} {
		t.Run(name, func(t *testing.T) {
			c, err := net.Dial("tcp", u.Addrs()[1].String())
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			// In two pieces, and something good after it.
			msg := append(bytes.TrimRight(messages[name], "\r\n"), "\r\n\r\n"...)
			if _, body, _ := bytes.Cut(messages[name], []byte("\r\n\r\n")); len(body) > 0 {
				msg = messages[name]
			}
			cut := rand.IntN(len(msg))
			ping := "OPTIONS sip:x@h SIP/2.0\r\nVia: SIP/2.0/TCP 127.0.0.1;branch=z9hG4bKping" + name + "\r\nFrom: <sip:a@h>;tag=1\r\nTo: <sip:b@h>\r\nCall-ID: ping\r\nCSeq: 7 OPTIONS\r\nContent-Length: 0\r\n\r\n"
			if name == "dblreq" { // has octets too many, with which no message begins
				ping = ""
			}
			for _, b := range [][]byte{msg[:cut], append(bytes.Clone(msg[cut:]), ping...)} {
				if _, err := c.Write(b); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Millisecond) // so that they come apart; nothing depends on it
			}
			_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
			var got strings.Builder
			buf := make([]byte, 4096)
			for !regexp.MustCompile(`(?s)CSeq: 7 OPTIONS.*\r\n\r\n`).MatchString(got.String()) {
				n, err := c.Read(buf)
				if err == io.EOF && ping == "" {
					break
				} else if err != nil {
					t.Fatalf("%v after\n%s", err, got.String())
				}
				got.Write(buf[:n])
			}
			text := got.String()
			if ping != "" {
				codes = append(codes, 200)
			}
			for _, code := range codes {
				_, after, ok := strings.Cut(text, fmt.Sprintf("SIP/2.0 %d ", code))
				if !ok {
					t.Fatalf("no %d in\n%s", code, got.String())
				}
				text = after
				if code == 100 {
					receive(t, "call", calls)
				}
			}
		})
	}
	for _, name := range []string{"ncl", "mcl01"} { // no next message can be found
		t.Run(name, func(t *testing.T) {
			c, err := net.Dial("tcp", u.Addrs()[1].String())
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if _, err := c.Write(messages[name]); err != nil {
				t.Fatal(err)
			}
			_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
			for buf := make([]byte, 4096); ; {
				n, err := c.Read(buf)
				if ne, ok := err.(net.Error); ok && ne.Timeout() {
					t.Fatal("still open")
				} else if err != nil {
					break
				}
				if b := string(buf[:n]); !strings.HasPrefix(b, "SIP/2.0 400 ") {
					t.Errorf("answered\n%s", b)
				}
			}
		})
	}
}

var (
	topVia  = regexp.MustCompile(`(?i)\n(v|via)\s*:\s*[^\r]*`)
	viaPort = regexp.MustCompile(`^[^;]*[a-zA-Z0-9.\]]:([0-9]+)\s*(;|$)`)
)

// answersHere returns a socket that the answer to msg comes to. The answer goes
// to the port in Via, so that is bound, on some address of this machine's. Where
// it is taken everywhere, msg asks for the port that it comes from.
func answersHere(t *testing.T, msg []byte) (net.PacketConn, []byte) {
	t.Helper()
	port := 5060
	if m := viaPort.FindSubmatch(topVia.Find(msg)); m != nil {
		port, _ = strconv.Atoi(string(m[1]))
	}
	for range 20 {
		a := netip.AddrFrom4([4]byte{127, byte(1 + rand.IntN(250)), byte(rand.IntN(250)), byte(1 + rand.IntN(250))})
		if c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(a, uint16(port)))); err == nil {
			return c, msg
		}
	}
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	at := topVia.FindIndex(msg)[1]
	return c, append(append(bytes.Clone(msg[:at]), ";rport"...), msg[at:]...)
}

// finalAnswer reads until a final answer, 0 if none comes.
func finalAnswer(t *testing.T, c net.PacketConn) (code int, lines []string) {
	t.Helper()
	buf := make([]byte, 1<<16)
	patience := 10 * time.Second
	for {
		_ = c.SetReadDeadline(time.Now().Add(patience))
		n, _, err := c.ReadFrom(buf)
		if err != nil {
			return 0, nil
		}
		lines = strings.Split(string(buf[:n]), "\r\n")
		if f := strings.Fields(lines[0]); len(f) > 1 && f[0] == "SIP/2.0" {
			if code, _ = strconv.Atoi(f[1]); code >= 200 {
				return code, lines
			}
		}
	}
}
