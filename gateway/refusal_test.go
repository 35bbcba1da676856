package gateway_test

import (
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"brewline/internal/siptest"
)

// 503 is said when this process can take no call at all, and to OPTIONS too.
func TestNoCallAtAll(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{shards: 1, gateway: "max_calls = 1", options: quick()})
	sh := w.deps[0].Shards[0]
	_, c := w.inCall(sh, "only")
	p := w.phone(siptest.PhoneOptions{})
	unavailable := func(why string) {
		t.Helper()
		if e := w.refused(p, w.headers("only")); e.Code != 503 || e.Headers["Retry-After"] == "" {
			t.Errorf("%s: %d, Retry-After %q", why, e.Code, e.Headers["Retry-After"])
		}
		code, headers, err := p.Ping(w.ctx, w.gw.SIPAddrs()[0].String())
		if err != nil || code != 503 || headers["Retry-After"] == "" {
			t.Errorf("%s: OPTIONS is answered %d %v, %v", why, code, headers, err)
		}
	}
	unavailable("full")
	w.hangup(c)
	if code, _, err := p.Ping(w.ctx, w.gw.SIPAddrs()[0].String()); err != nil || code != 200 {
		t.Errorf("with a place free OPTIONS is answered %d, %v", code, err)
	}
	sh.Kill()
	w.await("the shard is known to be down", func() bool { return w.gw.Brewery().Up() == 0 })
	unavailable("no shard")
}

func TestRoomFull(t *testing.T) {
	t.Parallel()
	o := worldOptions{shards: 1}
	o.dep.Shard.XMPP.MaxOccupants = 1
	w := newWorld(t, o)
	w.browser(w.deps[0].Shards[0], "closet", 440)
	if e := w.refused(w.phone(siptest.PhoneOptions{}), w.headers("closet")); e.Code != 486 {
		t.Errorf("%d, Reason %q", e.Code, e.Headers["Reason"])
	}
	w.gone()
}

// Descriptions that cannot be used are refused with a reason, and leave
// nothing.
func TestUnusableOffers(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{shards: 1})
	w.browser(w.deps[0].Shards[0], "tower", 440)
	const head = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n"
	for name, tt := range map[string]struct {
		sdp  string
		code string
	}{
		"no common codec": {head + "m=audio 4000 RTP/AVP 18\r\na=rtpmap:18 G729/8000\r\n", "488"},
		"video alone":     {head + "m=video 4000 RTP/AVP 96\r\na=rtpmap:96 VP8/90000\r\n", "488"},
		"no description":  {"hello\r\n", "488"},
		"port 0":          {head + "m=audio 0 RTP/AVP 0\r\n", "488"},
	} {
		answer := w.raw(tt.sdp)
		status, _, _ := strings.Cut(answer, "\r\n")
		if !contains(status, " "+tt.code+" ") || !contains(answer, "\r\nReason: Q.850;cause=65") || !contains(answer, "\r\nWarning: ") {
			t.Errorf("%s:\n%s", name, answer)
		}
	}
	w.gone()
	w.await("all ports are back", func() bool { return w.gw.Snapshot().PortsInUse == 0 })
}

// raw sends an INVITE and returns the final response.
func (w *world) raw(sdp string) string {
	w.t.Helper()
	conn, err := net.Dial("udp", w.gw.SIPAddrs()[0].String())
	if err != nil {
		w.t.Fatal(err)
	}
	defer conn.Close()
	local := conn.LocalAddr().String()
	id := fmt.Sprint(time.Now().UnixNano())
	message := func(method, to, sdp string) {
		fmt.Fprintf(conn, "%s sip:x@127.0.0.1 SIP/2.0\r\nVia: SIP/2.0/UDP %s;branch=z9hG4bK%s;rport\r\nMax-Forwards: 70\r\n"+
			"From: <sip:raw@127.0.0.1>;tag=1\r\nTo: %s\r\nCall-ID: %s\r\nCSeq: 1 %s\r\nContact: <sip:raw@%s>\r\n"+
			"X-Room-Name: tower\r\nContent-Type: application/sdp\r\nContent-Length: %d\r\n\r\n%s",
			method, local, id, to, id, method, local, len(sdp), sdp)
	}
	message("INVITE", "<sip:x@127.0.0.1>", sdp)
	conn.SetReadDeadline(time.Now().Add(20 * time.Second))
	for buf := make([]byte, 4096); ; {
		n, err := conn.Read(buf)
		if err != nil {
			w.t.Fatal(err)
		}
		answer := string(buf[:n])
		if strings.HasPrefix(answer, "SIP/2.0 1") {
			continue
		}
		for _, line := range strings.Split(answer, "\r\n") {
			if to, ok := strings.CutPrefix(line, "To: "); ok {
				message("ACK", to, "")
			}
		}
		return answer
	}
}
