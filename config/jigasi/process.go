package jigasi

import (
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"
)

// jigasi is where the properties of Jigasi itself begin.
const (
	jigasi = "org.jitsi.jigasi."
	stack  = "net.java.sip.communicator."
)

// Brewline's defaults that the import must know.
const (
	defaultCalls    = 200
	portsPerCall    = 3
	defaultAloneMax = 10 * time.Minute
)

// ports are properties of ours for --min-port and --max-port.
const minPort, maxPort = "ports.min", "ports.max"

func (im *importer) gateway() *table {
	t := &table{head: "[gateway]"}
	t.text("region", im.take(jigasi+"LOCAL_REGION"), "")
	t.text("stats_id", im.take(jigasi+"STATS_ID"), "")
	const invite = jigasi + "JVB_INVITE_TIMEOUT"
	if v := im.take(invite); v != "" {
		switch ms, err := strconv.ParseInt(v, 10, 32); {
		case err != nil:
			im.note(Changed, invite, "is no number of milliseconds")
		case ms <= 0:
			im.note(Changed, invite, "Jigasi waited for ever; here Jicofo may take gateway.invite_timeout, and a caller may be alone for gateway.alone_max")
		default:
			d := max(time.Duration(ms)*time.Millisecond, 100*time.Millisecond)
			t.set("invite_timeout", quote(short(d)), "")
			if d > defaultAloneMax {
				t.set("alone_max", quote(short(d)), "Jigasi had one limit for both")
			}
		}
	}
	if lo, hi, ok := im.ports(); ok && (hi-lo+1)/portsPerCall < defaultCalls {
		t.set("max_calls", strconv.Itoa(max(1, (hi-lo+1)/portsPerCall)), fmt.Sprintf("the media ports suffice for no more: %d a call", portsPerCall))
	}
	return t
}

// short writes 30m0s as 30m.
func short(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	return s
}

// ports is the range of media ports that was given to Jigasi.
func (im *importer) ports() (lo, hi int, ok bool) {
	if im.props[minPort] == nil && im.props[maxPort] == nil {
		return 0, 0, false
	}
	lo, hi = 10000, 20000 // Jigasi's own
	for key, n := range map[string]*int{minPort: &lo, maxPort: &hi} {
		if v := im.take(key); v != "" {
			p, err := strconv.ParseUint(v, 10, 16)
			if err != nil || p == 0 {
				im.note(Changed, key, "is no port")
				return 0, 0, false
			}
			*n = int(p)
		}
	}
	if hi-lo+1 < portsPerCall {
		im.note(Changed, minPort, "the range has no room for a call")
		return 0, 0, false
	}
	return lo, hi, true
}

func (im *importer) media() *table {
	t := &table{head: "[media]"}
	if lo, hi, ok := im.ports(); ok {
		t.set("ports", quote(fmt.Sprintf("%d-%d", lo, hi)), "")
	} else if im.props[minPort] == nil && im.props[maxPort] == nil {
		im.note(Changed, "", "the range of media ports stands on Jigasi's command line, in JIGASI_OPTS of /etc/jitsi/jigasi/config; import that file too. Without it Brewline's range holds, 20000-29999: the firewall must let it through")
	}
	const complexity = stack + "impl.neomedia.codec.audio.opus.encoder.COMPLEXITY"
	if v := im.take(complexity); v != "" {
		if n, err := strconv.Atoi(v); err != nil || n < 0 || n > 10 {
			im.note(Changed, complexity, "is no number from 0 to 10")
		} else {
			t.set("opus_complexity", strconv.Itoa(n), "Brewline's own is 5, for half the cost of 10")
		}
	}
	return t
}

func (im *importer) http() *table {
	t := &table{head: "[http]"}
	const rest = jigasi + "rest."
	_, host := im.first(rest+"host", rest+"jetty.host")
	portKey, port := im.first(rest+"port", rest+"jetty.port")
	if n, err := strconv.Atoi(port); port != "" && (err != nil || n > 65535) {
		im.note(Changed, portKey, "is no port")
		port = ""
	} else if err == nil && n < 0 {
		host, port = "", ""
		t.set("listen", `""`, "switched off, as it was")
	}
	if host != "" || port != "" {
		if host == "" {
			host = "127.0.0.1"
		}
		if port == "" {
			port = "8788"
		}
		t.set("listen", quote(net.JoinHostPort(strings.Trim(host, "[]"), port)), "")
		if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
			t.remark("Requests from other hosts may read only, unless they carry a token: token = \"file:/etc/brewline/http.token\"")
		}
	}
	const shutdown = jigasi + "ENABLE_REST_SHUTDOWN"
	if im.props[shutdown] != nil {
		t.set("enable_shutdown", strconv.FormatBool(im.is(shutdown)), "")
	}
	return t
}

func (im *importer) sip() *table {
	t := &table{head: "[sip]"}
	const clear = stack + "SIP_PREFERRED_CLEAR_PORT"
	if v := im.take(clear); v != "" && v != "5060" {
		if n, err := strconv.ParseUint(v, 10, 16); err != nil || n == 0 {
			im.note(Changed, clear, "is no port")
		} else {
			t.set("listen", list("udp://0.0.0.0:"+v, "tcp://0.0.0.0:"+v), "")
		}
	}
	return t
}

// headers are the names of the headers of an INVITE that Jigasi was told.
func (im *importer) headers() *table {
	t := &table{head: "[sip.headers]", above: "The headers that Jigasi read."}
	acc := im.sipAccount()
	for _, h := range []struct{ property, key string }{
		{"JITSI_MEET_ROOM_HEADER_NAME", "room"},
		{"JITSI_MEET_ROOM_PASS_HEADER_NAME", "password"},
		{"JITSI_MEET_DOMAIN_BASE_HEADER_NAME", "domain"},
		{"JITSI_MEET_DOMAIN_TENANT_HEADER_NAME", "tenant"},
		{"JITSI_AUTH_TOKEN_HEADER_NAME", "token"},
		{"JITSI_AUTH_USER_ID_HEADER_NAME", "user_id"},
	} {
		if v := im.take(acc + h.property); acc != "" && v != "" {
			t.set(h.key, list(v), "")
		}
	}
	return t
}
