package sip_test

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	gosip "github.com/emiago/sipgo/sip"

	"brewline/sip"
)

// peer is a SIP peer that sends what a test writes.
type peer struct {
	t    *testing.T
	udp  *net.UDPConn
	tcp  net.Conn
	to   net.Addr
	buf  []byte
	call string
	sent strings.Builder
	last string // that came by UDP, as it came
}

func newPeer(t *testing.T, u *sip.UA, network string) *peer {
	t.Helper()
	p := &peer{t: t, call: strings.ReplaceAll(t.Name(), "/", ".") + strconv.FormatInt(time.Now().UnixNano(), 36)}
	for _, a := range u.Addrs() {
		if a.Network() == network {
			p.to = a
		}
	}
	p.open(network)
	return p
}

// newPeerOf is a peer of one listener.
func newPeerOf(t *testing.T, to net.Addr) *peer {
	t.Helper()
	p := &peer{t: t, call: strings.ReplaceAll(t.Name(), "/", ".") + strconv.FormatInt(time.Now().UnixNano(), 36), to: to}
	p.open(to.Network())
	return p
}

func (p *peer) open(network string) {
	p.t.Helper()
	var err error
	if network == "udp" {
		ip := net.IPv4(127, 0, 0, 1)
		if a := p.to.(*net.UDPAddr); a.IP.Equal(net.IPv6loopback) {
			ip = net.IPv6loopback
		}
		p.udp, err = net.ListenUDP("udp", &net.UDPAddr{IP: ip})
	} else {
		p.tcp, err = net.Dial("tcp", p.to.String())
	}
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(p.close)
}

// openAt is open from an address of one's choice.
func (p *peer) openAt(network, source string) {
	p.t.Helper()
	var err error
	if network == "udp" {
		p.udp, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort(source)))
	} else {
		d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.MustParseAddrPort(source))}
		p.tcp, err = d.Dial("tcp", p.to.String())
	}
	if err != nil {
		p.t.Fatal(err)
	}
}

func (p *peer) close() {
	if p.udp != nil {
		_ = p.udp.Close()
	} else {
		_ = p.tcp.Close()
	}
}

func (p *peer) addr() string {
	if p.udp != nil {
		return p.udp.LocalAddr().String()
	}
	return p.tcp.LocalAddr().String()
}

// request writes a request of the peer's call. lines replace the header
// fields of the same name, or are added; "Name:" with no value takes it out.
func (p *peer) request(method string, seq int, body string, lines ...string) string {
	transport := "UDP"
	if p.tcp != nil {
		transport = "TCP"
	}
	_, port, _ := net.SplitHostPort(p.addr())
	fields := []string{
		fmt.Sprintf("Via: SIP/2.0/%s %s;branch=z9hG4bK%s%s%d;rport", transport, p.addr(), p.call, method, seq),
		"Max-Forwards: 70",
		"From: \"Alice\" <sip:alice@127.0.0.1>;tag=alice",
		"To: <sip:room@127.0.0.1>",
		"Call-ID: " + p.call,
		fmt.Sprintf("CSeq: %d %s", seq, method),
		"Contact: <sip:alice@127.0.0.1:" + port + ">",
	}
	if body != "" {
		fields = append(fields, "Content-Type: application/sdp")
	}
	fields = append(fields, fmt.Sprintf("Content-Length: %d", len(body)))
	first := method + " sip:room@" + p.to.String() + " SIP/2.0"
	for _, l := range lines {
		name, v, ok := strings.Cut(l, ":")
		if !ok || strings.Contains(l, " SIP/") && strings.HasPrefix(l, method) {
			first = l
			continue
		}
		kept := fields[:0]
		replaced := false
		for _, f := range fields {
			if n, _, _ := strings.Cut(f, ":"); strings.EqualFold(n, name) {
				if v != "" && !replaced {
					kept = append(kept, l)
				}
				replaced = true
				continue
			}
			kept = append(kept, f)
		}
		if fields = kept; !replaced && v != "" {
			fields = append(fields, l)
		}
	}
	return first + "\r\n" + strings.Join(fields, "\r\n") + "\r\n\r\n" + body
}

func (p *peer) sendTo(to net.Addr, s string) {
	p.t.Helper()
	p.sent.WriteString(s)
	if _, err := p.udp.WriteTo([]byte(s), to); err != nil {
		p.t.Fatal(err)
	}
}

func (p *peer) send(s string) {
	p.t.Helper()
	p.sent.WriteString(s)
	var err error
	if p.udp != nil {
		_, err = p.udp.WriteTo([]byte(s), p.to)
	} else {
		_, err = p.tcp.Write([]byte(s))
	}
	if err != nil {
		p.t.Fatal(err)
	}
}

// read returns the next message within d, nil if none comes or the
// connection ends.
func (p *peer) read(d time.Duration) gosip.Message {
	p.t.Helper()
	end := time.Now().Add(d)
	if p.udp != nil {
		buf := make([]byte, 1<<16)
		_ = p.udp.SetReadDeadline(end)
		n, _, err := p.udp.ReadFrom(buf)
		if err != nil {
			return nil
		}
		p.last = string(buf[:n])
		m, err := gosip.ParseMessage(buf[:n])
		if err != nil {
			p.t.Fatalf("%v in\n%s", err, buf[:n])
		}
		return m
	}
	_ = p.tcp.SetReadDeadline(end)
	for {
		p.buf = bytes.TrimLeft(p.buf, "\r\n") // pongs
		if i := bytes.Index(p.buf, []byte("\r\n\r\n")); i >= 0 {
			m, err := gosip.ParseMessage(append(p.buf[:i:i], "\r\nX-End: 1\r\n\r\n"...))
			if m == nil {
				p.t.Fatalf("%v in\n%s", err, p.buf)
			}
			n, _ := strconv.Atoi(m.GetHeaders("Content-Length")[0].Value())
			if len(p.buf) >= i+4+n {
				m, err := gosip.ParseMessage(p.buf[:i+4+n])
				if err != nil {
					p.t.Fatal(err)
				}
				p.buf = p.buf[i+4+n:]
				return m
			}
		}
		chunk := make([]byte, 4096)
		n, err := p.tcp.Read(chunk)
		if err != nil {
			return nil
		}
		p.buf = append(p.buf, chunk[:n]...)
	}
}

// response reads until a response of that code, passing over everything else.
func (p *peer) response(code int) *gosip.Response {
	p.t.Helper()
	var seen []string
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); {
		m := p.read(time.Until(end))
		if m == nil {
			break
		}
		if r, ok := m.(*gosip.Response); ok {
			if id := r.CallID(); id != nil && !p.knows(id.Value()) {
				continue // for whoever had this port before
			}
			if r.StatusCode == code {
				return r
			}
			seen = append(seen, r.StartLine())
		} else {
			seen = append(seen, m.(*gosip.Request).StartLine())
		}
	}
	p.t.Fatalf("no %d; came: %v", code, seen)
	return nil
}

// knows says whether a call is of this peer or of another one of its test.
func (p *peer) knows(call string) bool {
	test, _, _ := strings.Cut(p.t.Name(), "/")
	return strings.HasPrefix(call, test) || strings.Contains(p.sent.String(), call)
}

// awaitRequest reads until a request of that method, passing over everything else.
func (p *peer) awaitRequest(m gosip.RequestMethod) *gosip.Request {
	p.t.Helper()
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); {
		msg := p.read(time.Until(end))
		if msg == nil {
			break
		}
		if r, ok := msg.(*gosip.Request); ok && r.Method == m {
			return r
		}
	}
	p.t.Fatalf("no %s came", m)
	return nil
}

// awaitNext reads until another request of that one's method, passing over its
// repetitions.
func (p *peer) awaitNext(last *gosip.Request) *gosip.Request {
	p.t.Helper()
	for {
		if r := p.awaitRequest(last.Method); r.CSeq().SeqNo != last.CSeq().SeqNo {
			return r
		}
	}
}

// quiet fails if anything comes within d.
func (p *peer) quiet(d time.Duration) {
	p.t.Helper()
	if m := p.read(d); m != nil {
		p.t.Fatalf("unexpected:\n%s", m)
	}
}

// reply answers a request of the user agent.
func (p *peer) reply(req *gosip.Request, code int, body string, lines ...string) {
	p.t.Helper()
	res := gosip.NewResponseFromRequest(req, code, "X", []byte(body))
	if body != "" {
		res.AppendHeader(gosip.NewHeader("Content-Type", "application/sdp"))
	}
	for _, l := range lines {
		n, v, _ := strings.Cut(l, ": ")
		res.AppendHeader(gosip.NewHeader(n, v))
	}
	p.send(res.String())
}

// to returns a To line with the tag of a response.
func toLine(r *gosip.Response) string { return "To: " + r.To().Value() }

func tagOf(m gosip.Message) string {
	tag, _ := m.To().Params.Get("tag")
	return tag
}

const offerSDP = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio 40000 RTP/AVP 0\r\n"

const answerSDP = "v=0\r\no=- 7 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio 41000 RTP/AVP 0\r\n"

func mustUDP(ip string, port uint16) net.Addr {
	return &net.UDPAddr{IP: net.ParseIP(ip), Port: int(port)}
}
