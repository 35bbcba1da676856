package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"
)

// A uac places calls and hangs up, as lean as can be: PCMU, no authentication,
// no re-INVITE.
type uac struct {
	conn    *net.UDPConn
	gateway netip.AddrPort
	done    sync.WaitGroup

	mu      sync.Mutex
	waiting map[string]chan response // by Call-ID and method
}

type response struct {
	code       int
	to, target string
	body       string
	at         time.Time
}

// A dialog is an answered call.
type dialog struct {
	u             *uac
	id, from, to  string
	target        string
	rtp, rtcp     netip.AddrPort // the gateway's
	ringing, took time.Duration  // from the INVITE to the 180 and the 200
}

func newUAC(gateway netip.AddrPort) (*uac, error) {
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: loopback[:]})
	if err != nil {
		return nil, err
	}
	conn.SetReadBuffer(4 << 20)
	u := &uac{conn: conn, gateway: gateway, waiting: map[string]chan response{}}
	u.done.Go(u.read)
	return u, nil
}

func (u *uac) close() {
	u.conn.Close()
	u.done.Wait()
}

func (u *uac) read() {
	buf := make([]byte, 1<<16)
	for {
		n, from, err := u.conn.ReadFromUDPAddrPort(buf)
		if err != nil {
			return
		}
		at := time.Now()
		head, body, _ := strings.Cut(string(buf[:n]), "\r\n\r\n")
		lines := strings.Split(head, "\r\n")
		field := func(name string) string {
			for _, l := range lines[1:] {
				if k, v, ok := strings.Cut(l, ":"); ok && strings.EqualFold(strings.TrimSpace(k), name) {
					return strings.TrimSpace(v)
				}
			}
			return ""
		}
		status, ok := strings.CutPrefix(lines[0], "SIP/2.0 ")
		if !ok { // the gateway hangs up, or asks something: fine
			if !strings.HasPrefix(lines[0], "ACK ") {
				reply := "SIP/2.0 200 OK\r\n"
				for _, l := range lines[1:] {
					switch k, _, _ := strings.Cut(l, ":"); strings.ToLower(strings.TrimSpace(k)) {
					case "via", "from", "to", "call-id", "cseq":
						reply += l + "\r\n"
					}
				}
				u.conn.WriteToUDPAddrPort([]byte(reply+"Content-Length: 0\r\n\r\n"), from)
			}
			continue
		}
		code, _ := strconv.Atoi(status[:min(3, len(status))])
		_, method, _ := strings.Cut(field("CSeq"), " ")
		r := response{code: code, to: field("To"), target: strings.Trim(strings.SplitN(field("Contact"), ";", 2)[0], "<>"), body: body, at: at}
		u.mu.Lock()
		ch := u.waiting[field("Call-ID")+" "+method]
		u.mu.Unlock()
		select {
		case ch <- r: // nil: nobody waits
		default:
		}
	}
}

// request sends a request again and again until a response comes, and returns
// the final one. provisional, if set, is told of the others.
func (u *uac) request(ctx context.Context, id, method, text string, provisional func(response)) (response, error) {
	ch := make(chan response, 16)
	u.mu.Lock()
	u.waiting[id+" "+method] = ch
	u.mu.Unlock()
	defer func() {
		u.mu.Lock()
		defer u.mu.Unlock()
		delete(u.waiting, id+" "+method)
	}()
	again := time.NewTicker(500 * time.Millisecond)
	defer again.Stop()
	heard := false
	for {
		if !heard {
			if _, err := u.conn.WriteToUDPAddrPort([]byte(text), u.gateway); err != nil {
				return response{}, err
			}
		}
		select {
		case r := <-ch:
			if r.code >= 200 {
				return r, nil
			}
			heard = true
			if provisional != nil {
				provisional(r)
			}
		case <-again.C:
		case <-ctx.Done():
			return response{}, fmt.Errorf("%s: %w", method, ctx.Err())
		}
	}
}

var errRefused = errors.New("refused")

// call calls a room. rtp and rtcp are the phone's ports.
func (u *uac) call(ctx context.Context, room string, rtp, rtcp int) (*dialog, error) {
	me := u.conn.LocalAddr().String()
	d := &dialog{u: u, id: rand.Text(), from: fmt.Sprintf("<sip:bench@%s>;tag=%s", me, rand.Text()[:8])}
	uri := fmt.Sprintf("sip:conference@%s", u.gateway)
	sdp := fmt.Sprintf("v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n"+
		"m=audio %d RTP/AVP 0\r\na=rtpmap:0 PCMU/8000\r\na=rtcp:%d\r\na=ptime:20\r\n", rtp, rtcp)
	invite := d.text("INVITE", uri, "<"+uri+">", 1, "X-Room-Name: "+room+"\r\nContent-Type: application/sdp\r\n", sdp)
	began := time.Now()
	r, err := u.request(ctx, d.id, "INVITE", invite, func(r response) {
		if r.code == 180 && d.ringing == 0 {
			d.ringing = r.at.Sub(began)
		}
	})
	if err != nil {
		return nil, err
	}
	d.to, d.target, d.took = r.to, r.target, r.at.Sub(began)
	if r.code != 200 {
		u.send(d.text("ACK", uri, d.to, 1, "", ""))
		return nil, fmt.Errorf("INVITE to %s %w: %d", room, errRefused, r.code)
	}
	u.send(d.text("ACK", d.target, d.to, 1, "", ""))
	if d.rtp, d.rtcp, err = mediaAddress(r.body); err != nil {
		return nil, err
	}
	return d, nil
}

func (u *uac) send(text string) { u.conn.WriteToUDPAddrPort([]byte(text), u.gateway) }

func (d *dialog) text(method, uri, to string, seq int, fields, body string) string {
	me := d.u.conn.LocalAddr().String()
	return fmt.Sprintf("%s %s SIP/2.0\r\nVia: SIP/2.0/UDP %s;branch=z9hG4bK%s;rport\r\nMax-Forwards: 70\r\n"+
		"From: %s\r\nTo: %s\r\nCall-ID: %s\r\nCSeq: %d %s\r\nContact: <sip:bench@%s>\r\n%sContent-Length: %d\r\n\r\n%s",
		method, uri, me, rand.Text(), d.from, to, d.id, seq, method, me, fields, len(body), body)
}

// hangup ends the call.
func (d *dialog) hangup(ctx context.Context) error {
	r, err := d.u.request(ctx, d.id, "BYE", d.text("BYE", d.target, d.to, 2, "", ""), nil)
	if err == nil && r.code != 200 {
		err = fmt.Errorf("BYE %w: %d", errRefused, r.code)
	}
	return err
}

// mediaAddress reads where a description wants its RTP and RTCP.
func mediaAddress(sdp string) (rtp, rtcp netip.AddrPort, err error) {
	var ip netip.Addr
	port, report := 0, 0
	for _, l := range strings.Split(sdp, "\r\n") {
		f := strings.Fields(l)
		switch {
		case strings.HasPrefix(l, "c=") && len(f) == 3:
			ip, err = netip.ParseAddr(f[2])
		case strings.HasPrefix(l, "m=audio") && len(f) > 1:
			port, err = strconv.Atoi(f[1])
		case strings.HasPrefix(l, "a=rtcp:"):
			report, err = strconv.Atoi(strings.TrimPrefix(f[0], "a=rtcp:"))
		}
		if err != nil {
			return rtp, rtcp, fmt.Errorf("session description: %q: %w", l, err)
		}
	}
	if report == 0 {
		report = port + 1
	}
	return netip.AddrPortFrom(ip, uint16(port)), netip.AddrPortFrom(ip, uint16(report)), nil
}
