package siptest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"time"
)

// Generator places calls over UDP and hangs up at once, many at a time and as
// lean as can be: it must not be what is measured. Whoever is called has to
// answer by itself.
type Generator struct {
	To     netip.AddrPort
	Calls  int // how many; 0: until the context ends
	AtOnce int
	// Again is after how long without an answer a request is repeated.
	Again time.Duration
}

// Generated is what a Generator did.
type Generated struct {
	Calls    int // INVITE, 200, ACK, BYE, 200
	Repeated int // requests that had to be repeated
	Refused  int // calls that got another final answer; they are not in Calls
	Took     time.Duration
}

// slot is a call on its way.
type slot struct {
	n     int // of which call; 0: none
	bye   bool
	toTag []byte // parameters of To, ";tag=…"
	sent  time.Time
}

const generatorSDP = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio 9 RTP/AVP 0\r\na=rtpmap:0 PCMU/8000\r\na=ptime:20\r\n"

// Run places the calls. It returns early, without an error, when ctx ends.
func (g Generator) Run(ctx context.Context) (r Generated, err error) {
	conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(loopback(g.To.Addr()), 0)))
	if err != nil {
		return r, err
	}
	defer conn.Close()
	_ = conn.SetReadBuffer(4 << 20) // best effort
	me := conn.LocalAddr().String()
	slots := make([]slot, g.AtOnce)
	buf, out := make([]byte, 1<<16), make([]byte, 0, 2048)
	send := func(method string, i int) error {
		s := &slots[i]
		seq, body := 1, ""
		switch method {
		case "INVITE":
			body = generatorSDP
		case "BYE":
			seq = 2
		}
		out = fmt.Appendf(out[:0], "%s sip:load@%s SIP/2.0\r\nVia: SIP/2.0/UDP %s;branch=z9hG4bK-%s-%d-%d;rport\r\nMax-Forwards: 70\r\n"+
			"From: <sip:generator@%s>;tag=g%d\r\nTo: <sip:load@%s>%s\r\nCall-ID: %d.%d.%s\r\nCSeq: %d %s\r\nContact: <sip:generator@%s>\r\n",
			method, g.To, me, method, i, s.n, me, s.n, g.To, s.toTag, i, s.n, me, seq, method, me)
		if body != "" {
			out = append(out, "Content-Type: application/sdp\r\n"...)
		}
		out = fmt.Appendf(out, "Content-Length: %d\r\n\r\n%s", len(body), body)
		s.sent = time.Now()
		_, err := conn.WriteToUDPAddrPort(out, g.To)
		return err
	}
	began, placed := time.Now(), 0
	place := func(i int) error {
		if g.Calls > 0 && placed == g.Calls {
			slots[i] = slot{}
			return nil
		}
		placed++
		slots[i] = slot{n: placed}
		return send("INVITE", i)
	}
	for i := range slots {
		if err := place(i); err != nil {
			return r, err
		}
	}
	looked := time.Now()
	for ctx.Err() == nil && (g.Calls == 0 || r.Calls+r.Refused < g.Calls) {
		if now := time.Now(); now.Sub(looked) > g.Again/4 {
			looked = now
			for i := range slots {
				s := &slots[i]
				if s.n == 0 || now.Sub(s.sent) < g.Again {
					continue
				}
				r.Repeated++
				method := "INVITE"
				if s.bye {
					method = "BYE"
				}
				if err := send(method, i); err != nil {
					return r, err
				}
			}
		}
		_ = conn.SetReadDeadline(time.Now().Add(g.Again / 4))
		n, _, err := conn.ReadFromUDPAddrPort(buf)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			continue
		} else if err != nil {
			return r, err
		}
		code, bye, i, call, tag := readResponse(buf[:n])
		if i < 0 || i >= len(slots) || slots[i].n != call || call == 0 {
			continue
		}
		s := &slots[i]
		switch {
		case code < 200 || bye != s.bye:
			continue
		case code >= 300:
			if !bye {
				s.toTag = append(s.toTag[:0], tag...)
				_ = send("ACK", i)
			}
			r.Refused++
			err = place(i)
		case bye:
			r.Calls++
			err = place(i)
		default:
			s.toTag, s.bye = append(s.toTag[:0], tag...), true
			if err = send("ACK", i); err == nil {
				err = send("BYE", i)
			}
		}
		if err != nil {
			return r, err
		}
	}
	r.Took = time.Since(began)
	return r, nil
}

func loopback(a netip.Addr) netip.Addr {
	if a.Is4() {
		return netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	return netip.IPv6Loopback()
}

// readResponse finds what a Generator needs of a response. slot -1: it is none.
func readResponse(b []byte) (code int, bye bool, slot, call int, toTag []byte) {
	if !bytes.HasPrefix(b, []byte("SIP/2.0 ")) || len(b) < 12 {
		return 0, false, -1, 0, nil
	}
	code, _ = strconv.Atoi(string(b[8:11]))
	field := func(name string) []byte {
		_, v, ok := bytes.Cut(b, []byte(name))
		if !ok {
			return nil
		}
		v, _, _ = bytes.Cut(v, []byte("\r\n"))
		return v
	}
	id, num, ok := bytes.Cut(field("\r\nCall-ID: "), []byte("."))
	num, _, _ = bytes.Cut(num, []byte("."))
	slot, err1 := strconv.Atoi(string(id))
	call, err2 := strconv.Atoi(string(num))
	if !ok || err1 != nil || err2 != nil {
		return 0, false, -1, 0, nil
	}
	if to := field("\r\nTo: "); bytes.IndexByte(to, '>') >= 0 {
		toTag = to[bytes.IndexByte(to, '>')+1:]
	}
	return code, bytes.HasSuffix(field("\r\nCSeq: "), []byte("BYE")), slot, call, toTag
}
