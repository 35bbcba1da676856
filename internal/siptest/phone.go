package siptest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"
)

// PhoneOptions configure a phone.
type PhoneOptions struct {
	Bind      string        // local IP address, "127.0.0.1"
	Media     string        // that of RTP, as Bind
	Codec     string        // "pcmu" (default), "pcma", "g722" or "opus"
	Codecs    []string      // several, by preference; overrides Codec
	Ptime     time.Duration // of what is sent: a multiple of 20 ms, 20 ms
	MaxPtime  time.Duration // told in the place of Ptime; below 0: nothing is told
	Transport string        // "udp" (default) or "tcp"
	User      string        // user part of From, "phone"
	Display   string        // display name of From
	T1        time.Duration // SIP retransmission base, 500 ms

	NoEvents     bool // no telephone-event
	ComfortNoise bool // CN (RFC 3389) under payload type 13
	Reports      bool // sends RTCP reports, twice a second

	SRTP         string // crypto suite of RFC 4568 §6.2; "": audio in the clear
	SRTPOptional bool   // on RTP/AVP, and may be refused

	// Listen opens the phone's UDP sockets, for phones on a network of their
	// own; nil: as [net.ListenUDP] does.
	Listen func(*net.UDPAddr) (Socket, error)

	// Impairments of the RTP the phone sends, in a sequence fixed by Seed.
	Loss   float64       // share of packets, 0..1
	Jitter time.Duration // each packet is late by up to this
	Seed   uint64

	// Of calls to the phone.
	Incoming           func(*Incoming) // takes each call, in a goroutine of its own; nil: [Phone.Await] does
	Username, Password string          // what callers must prove to know (407); "": nothing
	Algorithm          string          // of that: "MD5" (default) or "SHA-256"
}

// Socket is what a phone needs of a [net.UDPConn].
type Socket interface {
	ReadFromUDPAddrPort([]byte) (int, netip.AddrPort, error)
	WriteToUDPAddrPort([]byte, netip.AddrPort) (int, error)
	LocalAddr() net.Addr
	Close() error
}

func (o PhoneOptions) listen(ip net.IP, port int) (Socket, error) {
	if o.Listen != nil {
		return o.Listen(&net.UDPAddr{IP: ip, Port: port})
	}
	return net.ListenUDP("udp", &net.UDPAddr{IP: ip, Port: port})
}

// Phone makes and takes calls. It is safe for concurrent use.
type Phone struct {
	o      PhoneOptions
	ctx    context.Context
	stop   context.CancelFunc
	udp    Socket
	ln     net.Listener // TCP
	wg     sync.WaitGroup
	mu     sync.Mutex
	closed bool
	tcp    map[string]net.Conn      // by remote address
	wait   map[string]chan *message // transactions by branch and method
	calls  map[string]*Attempt      // by Call-ID

	waiting chan *Incoming       // for Await
	in      map[string]*Incoming // by Call-ID and branch
	nonces  map[string]string    // by Call-ID
	invites int
}

// NewPhone binds a phone.
func NewPhone(o PhoneOptions) (*Phone, error) {
	if o.Bind == "" {
		o.Bind = "127.0.0.1"
	}
	if o.Media == "" {
		o.Media = o.Bind
	}
	if net.ParseIP(o.Media) == nil {
		return nil, fmt.Errorf("siptest: media address %q", o.Media)
	}
	if len(o.Codecs) == 0 {
		if o.Codec == "" {
			o.Codec = "pcmu"
		}
		o.Codecs = []string{o.Codec}
	}
	for _, c := range o.Codecs {
		if _, ok := formats[c]; !ok {
			return nil, fmt.Errorf("siptest: unknown codec %q", c)
		}
	}
	if _, ok := suites[o.SRTP]; !ok && o.SRTP != "" {
		return nil, fmt.Errorf("siptest: unknown SRTP suite %q", o.SRTP)
	}
	if o.Ptime == 0 {
		o.Ptime = frameTime
	}
	if o.Ptime%frameTime != 0 || o.Ptime < 0 || o.Ptime > 3*frameTime {
		return nil, fmt.Errorf("siptest: ptime %v is not 20, 40 or 60 ms", o.Ptime)
	}
	if o.Transport == "" {
		o.Transport = "udp"
	}
	if o.User == "" {
		o.User = "phone"
	}
	if o.T1 == 0 {
		o.T1 = 500 * time.Millisecond
	}
	if o.Algorithm == "" {
		o.Algorithm = "MD5"
	}
	if digests[o.Algorithm] == nil {
		return nil, fmt.Errorf("siptest: unknown algorithm %q", o.Algorithm)
	}
	p := &Phone{o: o, tcp: map[string]net.Conn{}, wait: map[string]chan *message{}, calls: map[string]*Attempt{},
		waiting: make(chan *Incoming, maxWaiting), in: map[string]*Incoming{}, nonces: map[string]string{}}
	p.ctx, p.stop = context.WithCancel(context.Background())
	ip := net.ParseIP(o.Bind)
	if ip == nil {
		return nil, fmt.Errorf("siptest: bind address %q", o.Bind)
	}
	switch o.Transport {
	case "udp":
		c, err := o.listen(ip, 0)
		if err != nil {
			return nil, fmt.Errorf("siptest: %w", err)
		}
		p.udp = c
		p.wg.Go(p.readUDP)
	case "tcp":
		l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: ip})
		if err != nil {
			return nil, fmt.Errorf("siptest: %w", err)
		}
		p.ln = l
		p.wg.Go(p.accept)
	default:
		return nil, fmt.Errorf("siptest: transport %q", o.Transport)
	}
	return p, nil
}

// Close hangs up nothing, and frees everything the phone and its calls took.
func (p *Phone) Close() error {
	p.mu.Lock()
	p.closed = true
	for _, c := range p.tcp {
		_ = c.Close()
	}
	var calls []*Attempt
	for _, a := range p.calls {
		calls = append(calls, a)
	}
	var in []*Incoming
	for _, i := range p.in {
		in = append(in, i)
	}
	p.mu.Unlock()
	p.stop()
	if p.udp != nil {
		_ = p.udp.Close()
	}
	if p.ln != nil {
		_ = p.ln.Close()
	}
	for _, i := range in {
		i.close()
	}
	for _, a := range calls {
		a.call.end(EndInfo{Err: errClosed})
	}
	p.wg.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	clear(p.calls) // what waits for the end of 64·T1 holds no recordings
	clear(p.in)
	return nil
}

var errClosed = errors.New("siptest: phone closed")

// spawn runs f in a goroutine that Close waits for.
func (p *Phone) spawn(f func()) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.closed {
		p.wg.Go(f)
	}
	return !p.closed
}

// Addr returns the address the phone is called at.
func (p *Phone) Addr() net.Addr {
	if p.udp == nil {
		return p.ln.Addr()
	}
	return p.udp.LocalAddr()
}

// URI returns the SIP URI of a user at the phone. Any user is answered.
func (p *Phone) URI(user string) string {
	uri := "sip:" + user + "@" + p.Addr().String()
	if p.udp == nil {
		uri += ";transport=tcp"
	}
	return uri
}

func (p *Phone) accept() {
	for {
		c, err := p.ln.Accept()
		if err != nil {
			return
		}
		if !p.adopt(c.RemoteAddr().String(), c) {
			return
		}
	}
}

// adopt serves a connection, unless the phone is closed.
func (p *Phone) adopt(addr string, c net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		_ = c.Close()
		return false
	}
	p.tcp[addr] = c
	p.wg.Go(func() {
		p.readTCP(c)
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.tcp[addr] == c {
			delete(p.tcp, addr)
		}
	})
	return true
}

func (p *Phone) readUDP() {
	buf := make([]byte, 1<<16)
	for {
		n, src, err := p.udp.ReadFromUDPAddrPort(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue
		}
		if m, k, err := parseMessage(buf[:n]); err == nil && k > 0 {
			p.receive(m, src.String(), func(b []byte) { _, _ = p.udp.WriteToUDPAddrPort(b, src) })
		}
	}
}

func (p *Phone) readTCP(c net.Conn) {
	defer c.Close()
	var buf []byte
	chunk := make([]byte, 4096)
	for {
		n, err := c.Read(chunk)
		if err != nil || len(buf) > 1<<17 {
			return
		}
		buf = append(buf, chunk[:n]...)
		for {
			buf = []byte(strings.TrimLeft(string(buf), "\r\n"))
			m, k, err := parseMessage(buf)
			if err != nil {
				return
			}
			if k == 0 {
				break
			}
			buf = buf[k:]
			p.receive(m, c.RemoteAddr().String(), func(b []byte) { _, _ = c.Write(b) })
		}
	}
}

// connect returns what writes to addr, and our own address and Via transport.
func (p *Phone) connect(ctx context.Context, addr string) (send func([]byte) error, local string, err error) {
	if p.udp != nil {
		to, err := net.ResolveUDPAddr("udp", addr)
		if err != nil {
			return nil, "", err
		}
		return func(b []byte) error { _, err := p.udp.WriteToUDPAddrPort(b, to.AddrPort()); return err }, p.udp.LocalAddr().String(), nil
	}
	p.mu.Lock()
	c := p.tcp[addr]
	p.mu.Unlock()
	if c == nil {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(p.o.Bind)}}
		if c, err = d.DialContext(ctx, "tcp", addr); err != nil {
			return nil, "", err
		}
		if !p.adopt(addr, c) {
			return nil, "", errClosed
		}
	}
	return func(b []byte) error { _, err := c.Write(b); return err }, c.LocalAddr().String(), nil
}

// receive takes a message from the network.
func (p *Phone) receive(m *message, src string, reply func([]byte)) {
	p.mu.Lock()
	a := p.calls[m.get("Call-ID")]
	w := p.wait[branchOf(m)+" "+m.method()]
	in := p.in[inviteKey(m)]
	p.mu.Unlock()
	switch {
	case m.status() != 0:
		if a != nil && m.method() == "INVITE" && m.status() >= 200 {
			a.call.finalAgain(m)
		}
		if w != nil {
			select {
			case w <- m:
			default:
			}
		}
	case m.method() == "INVITE" && tagOf(m.get("To")) == "":
		p.invited(m, src, reply)
	case m.method() == "CANCEL" && in != nil:
		in.cancel(m, reply)
	case m.method() == "ACK" && in != nil:
		in.confirm(m)
	case a != nil:
		a.call.request(m, reply)
	case m.method() == "OPTIONS":
		reply(m.respond(200, "OK", tag()).bytes())
	case m.method() != "ACK":
		reply(m.respond(481, "Call/Transaction Does Not Exist", tag()).bytes())
	}
}

func branchOf(m *message) string {
	for _, prm := range strings.Split(m.get("Via"), ";")[1:] {
		if k, v, _ := strings.Cut(prm, "="); strings.EqualFold(strings.TrimSpace(k), "branch") {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

var errTimeout = errors.New("siptest: no answer")

// roundTrip sends req with a Via of the given branch and returns the final
// response; provisional ones go to each.
func (p *Phone) roundTrip(ctx context.Context, addr string, req *message, branch string, each func(*message)) (*message, error) {
	send, local, err := p.connect(ctx, addr)
	if err != nil {
		return nil, err
	}
	req.fields = append([]field{{"Via", p.via(local, branch)}}, req.fields...)
	b := req.bytes()
	key := branch + " " + req.method()
	ch := make(chan *message, 64)
	p.mu.Lock()
	p.wait[key] = ch
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.wait, key)
	}()
	if err := send(b); err != nil {
		return nil, err
	}
	interval := p.o.T1
	resend, limit := time.NewTimer(interval), time.NewTimer(64*p.o.T1)
	defer resend.Stop()
	defer limit.Stop()
	if p.udp == nil {
		resend.Stop()
	}
	for {
		select {
		case <-resend.C:
			if err := send(b); err != nil {
				return nil, err
			}
			interval = min(2*interval, 8*p.o.T1)
			resend.Reset(interval)
		case m := <-ch:
			if m.status() >= 200 {
				return m, nil
			}
			if each != nil {
				each(m)
			}
			if req.method() == "INVITE" {
				resend.Stop()
				limit.Stop()
			}
		case <-limit.C:
			return nil, errTimeout
		case <-p.ctx.Done():
			return nil, errClosed
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (p *Phone) via(local, branch string) string {
	return fmt.Sprintf("SIP/2.0/%s %s;branch=%s;rport", strings.ToUpper(p.o.Transport), local, branch)
}

// Ping sends OPTIONS to "host:port" and returns the code and header fields of
// the answer.
func (p *Phone) Ping(ctx context.Context, addr string) (int, map[string]string, error) {
	req := &message{start: "OPTIONS sip:" + addr + " SIP/2.0"}
	req.add("Max-Forwards", "70")
	req.add("From", fmt.Sprintf("<sip:%s@%s>;tag=%s", p.o.User, p.Addr(), tag()))
	req.add("To", "<sip:"+addr+">")
	req.add("Call-ID", rand.Text())
	req.add("CSeq", "1 OPTIONS")
	m, err := p.roundTrip(ctx, addr, req, newBranch(), nil)
	if err != nil {
		return 0, nil, err
	}
	return m.status(), m.headers(), nil
}

// headers returns the first value of every header field.
func (m *message) headers() map[string]string {
	out := map[string]string{}
	for _, f := range m.fields {
		if _, dup := out[f.name]; !dup {
			out[f.name] = f.value
		}
	}
	return out
}

func newBranch() string { return "z9hG4bK" + rand.Text() }
func tag() string       { return rand.Text()[:10] }
