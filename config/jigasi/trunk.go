package jigasi

import (
	"cmp"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

const trunkName = "sip"

// sipAccount is the prefix of the SIP account's properties, "" without one.
func (im *importer) sipAccount() string {
	if im.sipAt != nil {
		return *im.sipAt
	}
	prefix := ""
	im.sipAt = &prefix
	for i, name := range im.accounts(sipStack) {
		if i == 0 {
			prefix = sipStack + name + "."
			continue
		}
		im.note(Changed, sipStack+name, "Jigasi used one SIP account, the first; write a [[trunk]] for this one")
		im.forget(sipStack+name+".", "of a SIP account that was not used")
	}
	return prefix
}

// trunk is the SIP account; canDial says whether calls can go out over it.
func (im *importer) trunk() (tables []*table, canDial bool) {
	acc := im.sipAccount()
	room := im.take(jigasi + "DEFAULT_JVB_ROOM_NAME")
	if acc == "" {
		im.note(Missing, "", "there is no SIP account: write a [[trunk]] with name and match")
		return nil, false
	}
	t := &table{head: "[[trunk]]"}
	t.text("name", trunkName, "")
	user, domain, _ := strings.Cut(strings.TrimPrefix(im.take(acc+"USER_ID"), "sip:"), "@")
	domain, _, _ = strings.Cut(domain, ";")
	password := im.password(acc+"PASSWORD", Changed)
	login := cmp.Or(im.take(acc+"AUTHORIZATION_NAME"), user)
	p := im.sipPeer(acc, domain)
	t.text("address", p.address(), "")
	t.text("proxy", p.proxyAddress(), "")
	registers := p.registrar != "" && login != "" && password != ""
	if registers {
		t.set("register", list(p.registration()), "")
		im.registration(t)
	} else if p.registrar != "" {
		key := acc + "SERVER_ADDRESS"
		if im.props[key] == nil {
			key = acc + "USER_ID"
		}
		im.note(Changed, key, "Jigasi registered here; without user and password Brewline does not. Let the telephone system send calls to Brewline's address (sip.listen), or write trunk.username, password and register")
	}
	im.match(t, acc, p.callers(registers), registers)
	im.keepAlive(t, acc)
	t.text("default_room", room, "")
	im.codecs(t, acc)
	im.ptime(t)
	im.digits(t, acc)
	im.encryption(t, acc)
	if password != "" {
		t.text("username", login, "")
		t.set("password", im.secret(password, "trunk", trunkName), "")
	}
	t.text("from_user", user, "")
	t.text("from_domain", domain, "")
	t.set("early_media", "true", "Jigasi let the meeting hear a 183")
	t.set("transfer", "true", "Jigasi followed REFER; here only to what a dial rule allows")
	tables = []*table{t}
	if p.transport == "tls" {
		im.note(Changed, p.transportKey, "the trunk is called over TLS. To be called so as well, add tls://0.0.0.0:5061 to sip.listen and write sip.tls")
		if im.is(trustAll) {
			im.insecure = true
			tables = append(tables, &table{head: "[trunk.tls]", rows: []row{{"insecure", "true", "ALWAYS_TRUST_MODE_ENABLED; better name a CA"}}})
		}
	}
	return tables, p.registrar != "" || p.proxy != ""
}

// peer is where a SIP account is: its registrar, which is the domain of what
// is dialled as well, and the proxy in front of it, "" if it is none or the same.
type peer struct {
	registrar, registrarPort string
	proxy, proxyPort         string
	transport, transportKey  string
}

// sipPeer reads where the SIP account is.
func (im *importer) sipPeer(acc, domain string) (p peer) {
	im.port(acc + "SERVER_PORT")
	im.port(acc + "PROXY_PORT")
	p.proxy, p.proxyPort = splitPort(im.take(acc+"PROXY_ADDRESS"), im.take(acc+"PROXY_PORT"))
	server, port := im.take(acc+"SERVER_ADDRESS"), im.take(acc+"SERVER_PORT")
	p.registrar, p.registrarPort = splitPort(cmp.Or(server, domain), port)
	p.transportKey, p.transport = im.first(acc+"PREFERRED_TRANSPORT", acc+"SERVER_TRANSPORT", sipStack+"DEFAULT_TRANSPORT")
	switch p.transport = strings.ToLower(p.transport); p.transport {
	case "udp", "tcp", "tls", "":
	default:
		im.note(Changed, p.transportKey, "is no transport; UDP is used")
		p.transport = ""
	}
	if im.is(acc + "PROXY_AUTO_CONFIG") {
		p.proxy = ""
	}
	if p.proxy != "" && p.proxy == p.registrar { // how to reach it is the proxy's
		p.registrarPort = cmp.Or(p.proxyPort, p.registrarPort)
		p.proxy, p.proxyPort = "", ""
	}
	if p.registrar == "" && p.proxy == "" {
		im.note(Changed, "", "the SIP account has neither proxy nor registrar, so the trunk has no address and calls cannot go out")
	}
	return p
}

// address is where calls go: to the registrar's domain.
func (p peer) address() string {
	if p.registrar == "" {
		return sipURI(p.proxy, p.proxyPort, p.transport)
	}
	return p.registration()
}

func (p peer) registration() string { return sipURI(p.registrar, p.registrarPort, p.transport) }

func (p peer) proxyAddress() string {
	if p.registrar == "" { // the proxy is all there is
		return ""
	}
	return sipURI(p.proxy, p.proxyPort, p.transport)
}

// callers are the hosts whose calls match has to let in. Registrars are let in
// anyway.
func (p peer) callers(registers bool) (hosts []string) {
	if p.proxy != "" {
		hosts = append(hosts, p.proxy)
	}
	if p.registrar != "" && !registers {
		hosts = append(hosts, p.registrar)
	}
	return hosts
}

// sipURI writes sip:host:port;transport=…, "" without a host.
func sipURI(host, port, transport string) string {
	if host == "" {
		return ""
	}
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	if n, err := strconv.ParseUint(port, 10, 16); err == nil && n != 0 {
		host += ":" + port
	}
	if transport != "" {
		host += ";transport=" + transport
	}
	return "sip:" + host
}

// registration sets for how long it registers.
func (im *importer) registration(t *table) {
	const key = sipStack + "REGISTRATION_EXPIRATION"
	v := im.take(key)
	if v == "" {
		return
	}
	if n, err := strconv.ParseUint(v, 10, 20); err != nil || n < 30 {
		im.note(Changed, key, "is no number of seconds from 30 on; 5m is used")
	} else {
		t.set("register_expires", quote(short(time.Duration(n)*time.Second)), "")
	}
}

// keepAlive sets how the peer is asked whether it is there.
func (im *importer) keepAlive(t *table, acc string) {
	method, interval := im.take(acc+"KEEP_ALIVE_METHOD"), im.take(acc+"KEEP_ALIVE_INTERVAL")
	switch strings.ToUpper(method) {
	case "", "OPTIONS": // which is Jigasi's default
		if n, err := strconv.ParseUint(interval, 10, 16); err == nil && n > 0 {
			t.set("probe", quote(short(time.Duration(n)*time.Second)), "")
		}
	default: // its peer may not answer OPTIONS
		t.set("probe", `"0s"`, "Jigasi sent no OPTIONS; better 30s, if the peer answers them")
	}
}

// digits sets how keys of the meeting reach the phone.
func (im *importer) digits(t *table, acc string) {
	key := acc + "DTMF_METHOD"
	switch v := im.take(key); v {
	case "", "AUTO_DTMF":
	case "RTP_DTMF", "SIP_INFO_DTMF", "INBAND_DTMF":
		t.text("dtmf", map[string]string{"RTP_DTMF": "rtp", "SIP_INFO_DTMF": "info", "INBAND_DTMF": "inband"}[v], "")
	default:
		im.note(Changed, key, "is no method; auto is used")
	}
}

// encryption sets whether audio is encrypted, and how keys are agreed on.
func (im *importer) encryption(t *table, acc string) {
	key := acc + "SAVP_OPTION"
	switch v := im.take(key); v {
	case "1":
		t.text("srtp", "required", "")
	case "2":
		t.text("srtp", "optional", "")
	case "", "0":
		return
	default:
		im.note(Changed, key, "is neither 0, 1 nor 2; audio is not encrypted")
		return
	}
	order := func(protocol string) int {
		if status := im.take(acc + "ENCRYPTION_PROTOCOL_STATUS." + protocol); status != "" && !strings.EqualFold(status, "true") {
			return -1
		}
		n, err := strconv.Atoi(im.take(acc + "ENCRYPTION_PROTOCOL." + protocol))
		if err != nil {
			return -1
		}
		return n
	}
	sdes, dtls, zrtp := order("SDES"), order("DTLS-SRTP"), order("ZRTP")
	if dtls >= 0 && (sdes < 0 || dtls < sdes) {
		t.text("srtp_keys", "dtls", "")
	}
	if zrtp >= 0 && sdes < 0 && dtls < 0 {
		im.note(Changed, acc+"ENCRYPTION_PROTOCOL.ZRTP", "ZRTP is not spoken here; keys are agreed on by SDES")
	}
}

// splitPort parts host:port; an IPv6 address has no brackets then.
func splitPort(host, port string) (string, string) {
	if h, p, err := net.SplitHostPort(host); err == nil {
		return h, p
	}
	return strings.Trim(host, "[]"), port
}

// match sets the addresses from which the SIP server's calls come, beside
// those at which the trunk registers.
func (im *importer) match(t *table, acc string, hosts []string, registers bool) {
	if len(hosts) == 0 && registers {
		return
	}
	var all []string
	var named, unknown []string
	for _, host := range hosts {
		addrs := []netip.Addr{}
		if a, err := netip.ParseAddr(host); err == nil {
			addrs = append(addrs, a)
		} else if im.o.Lookup != nil {
			if addrs, err = im.o.Lookup(host); err == nil && len(addrs) > 0 {
				named = append(named, host)
			}
		}
		for _, a := range addrs {
			all = append(all, a.Unmap().WithZone("").String())
		}
		if len(addrs) == 0 {
			unknown = append(unknown, host)
		}
	}
	slices.Sort(all)
	all = slices.Compact(all)
	key := acc + "PROXY_ADDRESS"
	if im.props[key] == nil {
		key = acc + "SERVER_ADDRESS"
	}
	if len(all) == 0 && registers {
		im.note(Changed, key, "%s has no address that could be found; add to trunk.match where it calls from", strings.Join(unknown, " and "))
		return
	}
	if len(all) == 0 {
		t.set("match", `[""]`, "to be filled in") // refused by the loader, as no match at all is not
		im.note(Missing, key, "trunk.match: the addresses from which the telephone system calls are not known; requests from others get no service")
		return
	}
	comment := ""
	if len(named) > 0 {
		comment = "of " + strings.Join(named, " and ") + " at the time of the import"
		im.note(Changed, key, "a trunk is known by the addresses it calls from, not by name: %s; correct trunk.match if it calls from others too", strings.Join(all, ", "))
	}
	if len(unknown) > 0 {
		im.note(Changed, key, "%s has no address that could be found; add to trunk.match where it calls from", strings.Join(unknown, " and "))
	}
	t.set("match", list(all...), comment)
}

// codecs sets the codecs by the priorities of Encodings, 0 being off.
func (im *importer) codecs(t *table, acc string) {
	const prefix = "Encodings."
	spoken := map[string]string{"opus/48000": "opus", "g722/8000": "g722", "g722/16000": "g722", "pcma/8000": "pcma", "pcmu/8000": "pcmu"}
	type codec struct {
		name     string
		priority int
	}
	var on []codec
	off := map[string]string{}
	override := im.is(acc + "OVERRIDE_ENCODINGS")
	for _, key := range im.order {
		encoding, ok := strings.CutPrefix(key, acc+prefix)
		if !ok || im.props[key] == nil {
			continue
		}
		name := spoken[strings.ToLower(encoding)]
		n, err := strconv.Atoi(im.take(key))
		switch {
		case !override:
			im.note(Changed, key, "had no effect without OVERRIDE_ENCODINGS=true; Brewline's codecs hold: opus, g722, pcma, pcmu")
		case err != nil:
			im.note(Changed, key, "is no number")
		case strings.HasPrefix(strings.ToLower(encoding), "telephone-event/"):
			if n == 0 {
				im.note(Changed, key, "telephone-event is always offered here")
			}
		case name == "" && n == 0:
			im.note(Moot, key, "is off, and not spoken here")
		case name == "":
			im.note(Changed, key, "this codec is not spoken here; opus, g722, pcma and pcmu are")
		case n == 0:
			off[name] = key
		case !slices.ContainsFunc(on, func(c codec) bool { return c.name == name }):
			on = append(on, codec{name, n})
		}
	}
	slices.SortStableFunc(on, func(a, b codec) int {
		order := []string{"opus", "g722", "pcma", "pcmu"}
		return cmp.Or(cmp.Compare(b.priority, a.priority), cmp.Compare(slices.Index(order, a.name), slices.Index(order, b.name)))
	})
	var names []string
	for _, c := range on {
		names = append(names, c.name)
	}
	if len(names) == 0 {
		return
	}
	comment := ""
	if off["g722"] != "" && !slices.Contains(names, "g722") && len(names) > 1 {
		comment = `Jigasi's G.722 is broken; add "g722" if the phones speak it`
	}
	t.set("codecs", list(names...), comment)
}

func (im *importer) ptime(t *table) {
	const key = sipStack + "PTIME_VALUE"
	v := im.take(key)
	if v == "" {
		return
	}
	if n, err := strconv.Atoi(v); err != nil || n < 10 || n > 60 || n%10 != 0 {
		im.note(Changed, key, "is no packet time from 10 to 60 ms in tens; 20 ms is used")
	} else if n != 20 {
		t.set("ptime", quote((time.Duration(n) * time.Millisecond).String()), "")
	}
}

// dial is the rule that reproduces what Jigasi allowed.
func (im *importer) dial(shards []shard, canDial bool) *table {
	prefix := im.take(im.sipAccount() + "OUTBOUND_PREFIX")
	if !slices.ContainsFunc(shards, func(s shard) bool { return s.hasAccount }) {
		return nil
	}
	if !canDial {
		im.note(Changed, "", "there is no [[dial]] rule, since there is no trunk with an address to dial over: nothing can be dialled from a meeting")
		return nil
	}
	t := &table{
		head:  "[[dial]]",
		above: "This is what Jigasi allowed: whatever a moderator of any shard dials goes to the SIP account, also what costs money. Narrow the pattern, put rules with deny = true before it, or set max_calls and per_minute. Rules are tried in order, and what no rule matches is refused.",
	}
	t.text("name", "as-jigasi", "")
	t.set("pattern", "'.+'", "")
	if prefix != "" {
		t.set("number", quote(strings.ReplaceAll(prefix, "$", "$$")+"${0}"), "OUTBOUND_PREFIX")
	}
	t.set("trunks", list(trunkName), "")
	t.set("redirects", "5", "Jigasi followed 301 and 302")
	return t
}
