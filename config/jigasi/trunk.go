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
func (im *importer) trunk() (t *table, canDial bool) {
	acc := im.sipAccount()
	room := im.take(jigasi + "DEFAULT_JVB_ROOM_NAME")
	if acc == "" {
		im.note(Missing, "", "there is no SIP account: write a [[trunk]] with name and match")
		return nil, false
	}
	t = &table{head: "[[trunk]]"}
	t.text("name", trunkName, "")
	user, domain, _ := strings.Cut(strings.TrimPrefix(im.take(acc+"USER_ID"), "sip:"), "@")
	domain, _, _ = strings.Cut(domain, ";")
	hosts := im.sipAddresses(t, acc, domain)
	im.match(t, acc, hosts)
	t.text("default_room", room, "")
	im.codecs(t, acc)
	im.ptime(t)
	if password := im.password(acc+"PASSWORD", Changed); password != "" {
		t.text("username", cmp.Or(im.take(acc+"AUTHORIZATION_NAME"), user), "")
		t.set("password", im.secret(password, "trunk", trunkName), "")
	} else {
		im.take(acc + "AUTHORIZATION_NAME")
	}
	t.text("from_user", user, "")
	t.text("from_domain", domain, "")
	t.set("early_media", "true", "Jigasi let the meeting hear a 183")
	return t, len(hosts) > 0
}

// sipAddresses sets where calls go, and returns the hosts from which they come.
func (im *importer) sipAddresses(t *table, acc, domain string) (hosts []string) {
	proxy, proxyPort := im.take(acc+"PROXY_ADDRESS"), im.take(acc+"PROXY_PORT")
	server, serverPort := im.take(acc+"SERVER_ADDRESS"), im.take(acc+"SERVER_PORT")
	transportKey, transport := im.first(acc+"PREFERRED_TRANSPORT", acc+"SERVER_TRANSPORT", sipStack+"DEFAULT_TRANSPORT")
	if im.is(acc + "PROXY_AUTO_CONFIG") {
		proxy = ""
	}
	registrar := cmp.Or(server, domain)
	host, port := cmp.Or(proxy, registrar), proxyPort
	if proxy == "" {
		port = serverPort
	}
	host, port = splitPort(host, port)
	if host == "" {
		im.note(Changed, "", "the SIP account has neither proxy nor registrar, so the trunk has no address and calls cannot go out")
		return nil
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		port = ""
	}
	address := "sip:"
	if strings.Contains(host, ":") {
		address += "[" + host + "]"
	} else {
		address += host
	}
	switch transport = strings.ToLower(transport); transport {
	case "tls":
		im.note(Changed, transportKey, "SIP over TLS is not spoken here: the trunk is to be reached over TCP")
		transport = "tcp"
		if port == "5061" {
			port = ""
		}
	case "udp", "tcp", "":
	default:
		im.note(Changed, transportKey, "is no transport; UDP is used")
		transport = ""
	}
	if port != "" {
		address += ":" + port
	}
	if transport != "" {
		address += ";transport=" + transport
	}
	t.text("address", address, "")
	if im.props[acc+"SERVER_ADDRESS"] != nil || domain != "" {
		key := acc + "SERVER_ADDRESS"
		if im.props[key] == nil {
			key = acc + "USER_ID"
		}
		im.note(Changed, key, "Brewline does not register. Let the telephone system send calls to Brewline's address (sip.listen), as to a trunk or peer; nothing else needs to know where it is")
	}
	hosts = []string{host}
	if r, _ := splitPort(registrar, ""); r != "" && r != host {
		hosts = append(hosts, r)
	}
	return hosts
}

// splitPort parts host:port; an IPv6 address has no brackets then.
func splitPort(host, port string) (string, string) {
	if h, p, err := net.SplitHostPort(host); err == nil {
		return h, p
	}
	return strings.Trim(host, "[]"), port
}

// match sets the addresses from which the SIP server's calls come.
func (im *importer) match(t *table, acc string, hosts []string) {
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
	if len(all) == 0 {
		t.remark(`match = ["192.0.2.10"] # to be filled in`)
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
	return t
}
