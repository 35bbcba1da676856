package sip_test

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"brewline/sip"
)

// nameServer answers with the records of a zone file over UDP and TCP, and
// counts the questions.
type nameServer struct {
	addr string

	mu      sync.Mutex
	records []dns.RR
	asked   map[string]int
}

func newNameServer(t *testing.T) *nameServer {
	t.Helper()
	n := &nameServer{asked: map[string]int{}}
	var l net.Listener
	var pc net.PacketConn
	for range 100 { // until a port is free for both
		var err error
		if l, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			t.Fatal(err)
		}
		if pc, err = net.ListenPacket("udp", l.Addr().String()); err == nil {
			break
		}
		_ = l.Close()
	}
	if pc == nil {
		t.Fatal("no free port")
	}
	n.addr = l.Addr().String()
	for _, s := range []*dns.Server{{Listener: l, Handler: n}, {PacketConn: pc, Handler: n}} {
		up, done := make(chan struct{}), make(chan struct{})
		s.NotifyStartedFunc = func() { close(up) }
		go func() { defer close(done); _ = s.ActivateAndServe() }()
		<-up
		t.Cleanup(func() { _ = s.Shutdown(); <-done })
	}
	return n
}

// set replaces the zone.
func (n *nameServer) set(t *testing.T, zone ...string) {
	t.Helper()
	var records []dns.RR
	for _, l := range zone {
		rr, err := dns.NewRR(l)
		if err != nil {
			t.Fatalf("%s: %v", l, err)
		}
		records = append(records, rr)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.records = records
}

// ServeDNS implements dns.Handler.
func (n *nameServer) ServeDNS(w dns.ResponseWriter, q *dns.Msg) {
	n.mu.Lock()
	defer n.mu.Unlock()
	m := new(dns.Msg)
	m.SetReply(q)
	n.asked[dns.TypeToString[q.Question[0].Qtype]+" "+q.Question[0].Name]++
	known := false
	for _, rr := range n.records {
		if strings.EqualFold(rr.Header().Name, q.Question[0].Name) {
			known = true
			if rr.Header().Rrtype == q.Question[0].Qtype {
				m.Answer = append(m.Answer, rr)
			}
		}
	}
	if !known {
		m.Rcode = dns.RcodeNameError
	}
	if _, udp := w.LocalAddr().(*net.UDPAddr); udp {
		m.Truncate(512) // what does not fit is asked again over TCP
	}
	_ = w.WriteMsg(m)
}

func asking(n *nameServer) func(*sip.Options) {
	return func(o *sip.Options) {
		o.Resolver = &sip.Resolver{Servers: []string{n.addr}, Timeout: 5 * time.Second}
	}
}

// The servers of a URI (RFC 3263 §4).
func TestResolve(t *testing.T) {
	t.Parallel()
	n := newNameServer(t)
	u := newUA(t, reject, asking(n))
	hosts := []string{
		"one.example.org. 60 IN A 192.0.2.1", "two.example.org. 60 IN A 192.0.2.2", "three.example.org. 60 IN A 192.0.2.3",
		"example.org. 60 IN A 192.0.2.9",
	}
	srvs := []string{
		"_sip._udp.example.org. 60 IN SRV 20 0 5070 two.example.org.", "_sip._udp.example.org. 60 IN SRV 10 0 5060 one.example.org.",
		"_sip._tcp.example.org. 60 IN SRV 10 0 5080 three.example.org.", "_sips._tcp.example.org. 60 IN SRV 10 0 5081 three.example.org.",
	}
	var long []string
	for i := range 40 {
		long = append(long, fmt.Sprintf("example.org. 60 IN NAPTR 90 %d \"s\" \"SIP+D2U\" \"\" _sip%d._udp.a-long-name-that-fills-the-answer.example.org.", i, i))
	}
	for _, tt := range []struct {
		uri  string
		zone [][]string
		want string // "": none
	}{
		{"sip:192.0.2.7", nil, "192.0.2.7:5060"},
		{"sip:192.0.2.7:5099", nil, "192.0.2.7:5099"},
		{"sip:192.0.2.7;transport=tls", nil, "192.0.2.7:5061"},
		{"sips:192.0.2.7", nil, "192.0.2.7:5061"},
		{"sip:192.0.2.7;transport=wss", nil, "192.0.2.7:443"},
		{"sip:example.org;maddr=192.0.2.8", nil, "192.0.2.8:5060"},
		{"sip:example.org:5099", [][]string{hosts, srvs}, "192.0.2.9:5099"},
		{"sip:example.org", [][]string{hosts}, "192.0.2.9:5060"},
		{"sip:example.org;transport=ws", [][]string{hosts, srvs}, "192.0.2.9:80"},
		{"sip:example.org;transport=tcp", [][]string{hosts, srvs}, "192.0.2.3:5080"},
		{"sip:example.org;transport=tls", [][]string{hosts, srvs}, "192.0.2.3:5081"},
		{"sips:example.org", [][]string{hosts, srvs}, "192.0.2.3:5081"},
		{"sip:example.org", [][]string{hosts, srvs}, "192.0.2.1:5060 192.0.2.2:5070 192.0.2.3:5080 192.0.2.3:5081"},
		{"sip:example.org", [][]string{hosts, srvs, {
			`example.org. 60 IN NAPTR 50 50 "s" "SIP+D2T" "" _sip._tcp.example.org.`,
			`example.org. 60 IN NAPTR 40 60 "s" "SIP+D2U" "" _sip._udp.example.org.`,
			`example.org. 60 IN NAPTR 10 10 "u" "E2U+sip" "!.*!sip:x@y!" .`,
			`example.org. 60 IN NAPTR 10 20 "s" "SIP+D2S" "" _sip._sctp.example.org.`,
		}}, "192.0.2.1:5060 192.0.2.2:5070 192.0.2.3:5080"},
		{"sips:example.org", [][]string{hosts, srvs, {
			`example.org. 60 IN NAPTR 40 60 "s" "SIP+D2U" "" _sip._udp.example.org.`,
			`example.org. 60 IN NAPTR 60 60 "s" "SIPS+D2T" "" _sips._tcp.example.org.`,
		}}, "192.0.2.3:5081"},
		{"sip:example.org", [][]string{hosts, srvs, long, {`example.org. 60 IN NAPTR 10 10 "s" "SIP+D2T" "" _sip._tcp.example.org.`}}, "192.0.2.3:5080"},
		// Not to be had here (RFC 2782).
		{"sip:example.org;transport=udp", [][]string{hosts, {"_sip._udp.example.org. 60 IN SRV 0 0 0 ."}}, ""},
		{"sip:nowhere.example.org", [][]string{hosts}, ""},
		{"sip:df7jal23ls0d.invalid;transport=ws", nil, ""},
		{"sip:192.0.2.7;transport=sctp", nil, ""},
		{"sips:192.0.2.7;transport=udp", nil, ""},
		{"tel:+4930", nil, ""},
	} {
		var zone []string
		for _, z := range tt.zone {
			zone = append(zone, z...)
		}
		n.set(t, zone...)
		got, err := u.Resolve(testCtx(t), tt.uri)
		if (err != nil) != (tt.want == "") || strings.Trim(fmt.Sprint(got), "[]") != tt.want {
			t.Errorf("%s: %v, %v; want %s", tt.uri, got, err, tt.want)
		}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	for q := range n.asked {
		if strings.Contains(q, "192.0.2") || strings.Contains(q, "invalid") {
			t.Errorf("asked for %s", q)
		}
	}
}

// Of several servers the next is tried when one refuses the connection, says
// 503, or nothing at all; and what failed is not tried first again.
func TestFailover(t *testing.T) {
	t.Parallel()
	n := newNameServer(t)
	u := newUA(t, reject, asking(n), func(o *sip.Options) { o.T1, o.T2 = 20*time.Millisecond, 160*time.Millisecond })
	var busy, calls sync.Map
	count := func(m *sync.Map) (n int) { m.Range(func(any, any) bool { n++; return true }); return n }
	overloaded := newUA(t, func(d *sip.Dialog) {
		busy.Store(d, true)
		_ = d.Reject(503, sip.Reason{Cause: 42}, sip.Header{Name: "Retry-After", Value: "30"})
	}, patiently)
	good := newUA(t, func(d *sip.Dialog) { calls.Store(d, true); answering(nil)(d) }, patiently)
	silent, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	port := func(a net.Addr) int { return int(netip.MustParseAddrPort(a.String()).Port()) }
	closed, _ := strconv.Atoi(freePort(t))
	n.set(t, "here.example.org. 60 IN A 127.0.0.1",
		fmt.Sprintf("_sip._tcp.example.org. 60 IN SRV 1 0 %d here.example.org.", closed),
		fmt.Sprintf("_sip._tcp.example.org. 60 IN SRV 2 0 %d here.example.org.", port(overloaded.Addrs()[1])),
		fmt.Sprintf("_sip._tcp.example.org. 60 IN SRV 3 0 %d here.example.org.", port(good.Addrs()[1])),
		fmt.Sprintf("_sip._udp.example.org. 60 IN SRV 1 0 %d here.example.org.", port(silent.LocalAddr())),
		fmt.Sprintf("_sip._udp.example.org. 60 IN SRV 2 0 %d here.example.org.", port(good.Addrs()[0])),
	)
	for i, network := range []string{"tcp", "udp", "tcp", "udp"} {
		d, err := invite(t, u, sip.InviteOptions{URI: "sip:room@example.org;transport=" + network})
		if err != nil {
			t.Fatal(err)
		}
		if err := d.Bye(testCtx(t), sip.Reason{Cause: 16}); err != nil {
			t.Error(err)
		}
		if n := count(&calls); n != i+1 {
			t.Errorf("%d calls after %d", n, i+1)
		}
	}
	if n := count(&busy); n != 1 {
		t.Errorf("the overloaded server was asked %d times", n)
	}
	var seen string
	branches := map[string]bool{}
	b := make([]byte, 4096)
	for {
		_ = silent.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
		k, _, err := silent.ReadFrom(b)
		if err != nil {
			break
		}
		seen = string(b[:k])
		_, branch, _ := strings.Cut(seen, "branch=")
		branches[branch[:20]] = true
	}
	if len(branches) != 1 {
		t.Errorf("the silent server was tried %d times", len(branches))
	}
	// With all of them down the error says so, in time.
	n.set(t, "here.example.org. 60 IN A 127.0.0.1", fmt.Sprintf("_sip._tcp.example.org. 60 IN SRV 1 0 %d here.example.org.", closed))
	if _, err := invite(t, u, sip.InviteOptions{URI: "sip:room@example.org;transport=tcp"}); err == nil {
		t.Error("reached a closed port")
	}
	if err := u.Options(testCtx(t), sip.Target{URI: "sip:192.0.2.1;transport=udp", Route: "sip:example.org;transport=tcp"}); err == nil {
		t.Error("the proxy was not asked")
	}
}
