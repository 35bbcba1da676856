package jigasi

import (
	"cmp"
	"encoding/base64"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

const (
	jabber   = stack + "impl.protocol.jabber."
	sipStack = stack + "impl.protocol.sip."
	perCall  = jigasi + "xmpp.acc." // overrides for the account of a call
	trustAll = stack + "service.gui.ALWAYS_TRUST_MODE_ENABLED"
)

// shard is a brewery account, or the one server of calls.
type shard struct {
	name, domain, url    string
	user, authDomain     string
	password             string
	hasAccount           bool
	brewery              string
	pattern, patternHost string // BOSH_URL_PATTERN, and its {host}
	prefixes             string // MUC_DOMAIN_PREFIX
	key                  string // the property that stands for it in notes
}

// accounts are the names of the accounts below a prefix: X where prefix.X=X.
func (im *importer) accounts(prefix string) (names []string) {
	for _, key := range im.order {
		name, ok := strings.CutPrefix(key, prefix)
		if p := im.props[key]; ok && name != "" && p != nil && strings.TrimSpace(p.value) == name {
			im.used[key] = true
			names = append(names, name)
		}
	}
	return names
}

// shards are the accounts with a brewery. Without any there is one shard, the
// server that calls would go to.
func (im *importer) shards() (out []shard) {
	for _, name := range im.accounts(jabber) {
		acc := jabber + name + "."
		if im.take(acc+"BREWERY") == "" {
			im.note(Moot, jabber+name, "an account without BREWERY had no use")
			im.forget(acc, "the account had no use")
			continue
		}
		if im.is(acc + "IS_ACCOUNT_DISABLED") {
			im.note(Changed, acc+"IS_ACCOUNT_DISABLED", "the account was switched off, and is left out")
			im.forget(acc, "the account was switched off")
			continue
		}
		s := im.shard(name, acc)
		if i := slices.IndexFunc(out, func(o shard) bool { return o.url == s.url && o.domain == s.domain }); i >= 0 && s.url != "" {
			im.note(Changed, acc+"BREWERY", "the account %s leads to the same server: a shard has one brewery", out[i].name)
			continue
		}
		out = append(out, s)
	}
	if len(out) > 0 {
		im.unneeded()
		return out
	}
	s := shard{name: "shard-1", key: perCall + "SERVER_ADDRESS"}
	_, s.pattern = im.first(perCall+"BOSH_URL_PATTERN", im.sipAccount()+"BOSH_URL_PATTERN")
	s.domain = im.domain("", "")
	server, port := im.take(perCall+"SERVER_ADDRESS"), im.take(perCall+"SERVER_PORT")
	s.patternHost = im.host(s.domain, "")
	if u := s.patternURL(); u != "" {
		s.url = u
		im.take(hostOverride)
	} else if server = cmp.Or(server, s.domain); server != "" {
		s.url = xmppURL(server, port)
	} else {
		im.note(Missing, "", "no brewery account and no server: write a [[shard]] with name, domain and url")
		return nil
	}
	im.note(Changed, "", "there is no account with a BREWERY, so meetings cannot call phones: for that the shard needs username, password and brewery")
	return []shard{s}
}

// forget marks all of an account's properties as done with.
func (im *importer) forget(prefix, why string) {
	for _, key := range im.order {
		if strings.HasPrefix(key, prefix) && im.props[key] != nil && !im.used[key] {
			im.note(Moot, key, "%s", why)
		}
	}
}

// unneeded are properties of the account of a call that say where it connects.
func (im *importer) unneeded() {
	for _, k := range []string{"SERVER_ADDRESS", "SERVER_PORT", "IS_SERVER_OVERRIDDEN"} {
		if im.props[perCall+k] != nil {
			im.note(Moot, perCall+k, "a call connects to the shard on which its room lives")
		}
	}
}

func (im *importer) shard(name, acc string) shard {
	s := shard{name: name, key: acc + "BREWERY", hasAccount: true, brewery: strings.ToLower(im.take(acc + "BREWERY"))}
	user := im.take(acc + "USER_ID")
	s.user, s.authDomain, _ = strings.Cut(strings.TrimPrefix(user, "Jabber:"), "@")
	s.authDomain, _, _ = strings.Cut(strings.ToLower(s.authDomain), "/")
	s.password = im.password(acc+"PASSWORD", Missing)
	s.domain = im.domain(acc, s.authDomain)
	_, s.pattern = im.first(acc+"BOSH_URL_PATTERN", perCall+"BOSH_URL_PATTERN", im.sipAccount()+"BOSH_URL_PATTERN")
	s.patternHost = im.host(s.domain, im.take(acc+"DOMAIN_BASE"))
	s.prefixes = im.take(acc + "MUC_DOMAIN_PREFIX")
	im.take(acc + "IS_SERVER_OVERRIDDEN")
	im.port(acc + "SERVER_PORT")
	server, port := im.take(acc+"SERVER_ADDRESS"), im.take(acc+"SERVER_PORT")
	if bosh := im.take(acc + "BOSH_URL"); bosh != "" {
		if s.url = withoutRoom(bosh); s.url == "" {
			im.note(Changed, acc+"BOSH_URL", "is no address; SERVER_ADDRESS is used")
		}
	}
	if s.url == "" {
		if inside(server) {
			im.note(Changed, acc+"SERVER_ADDRESS", "is a name in docker's network: run Brewline in that network, or write an address in the shard's url that is reached from outside")
		}
		if server = cmp.Or(server, s.authDomain, s.domain); server != "" {
			s.url = xmppURL(server, port)
		}
	}
	return s
}

// inside says whether a host is a name that docker gives.
func inside(host string) bool {
	return host != "" && host != "localhost" && (!strings.ContainsAny(host, ".:") || strings.HasSuffix(host, ".meet.jitsi"))
}

// port names a port that is none; the usual one is used instead.
func (im *importer) port(key string) {
	if p := im.props[key]; p != nil {
		if n, err := strconv.ParseUint(strings.TrimSpace(p.value), 10, 16); err != nil || n == 0 {
			im.note(Changed, key, "is no port; the usual one is used")
		}
	}
}

// xmppURL is the address of a Prosody over TCP.
func xmppURL(host, port string) string {
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		port = "5222"
	}
	return "xmpp://" + net.JoinHostPort(strings.Trim(host, "[]"), port)
}

// withoutRoom is a BOSH address without what calls add to it, "" if it is none.
func withoutRoom(s string) string {
	u, err := url.Parse(s)
	if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") || strings.ContainsAny(s, "{}") {
		return ""
	}
	q := u.Query()
	q.Del("room")
	q.Del("token")
	u.RawQuery, u.User = q.Encode(), nil
	return u.String()
}

// patternURL is the pattern as the address of a single server.
func (s *shard) patternURL() string {
	if s.pattern == "" {
		return ""
	}
	return withoutRoom(strings.NewReplacer("{host}", s.patternHost, "{subdomain}", "", "{roomName}", "room").Replace(s.pattern))
}

// domain is the XMPP domain of an account. DOMAIN_BASE may be the host of the
// meetings' address instead, so the domains of users and rooms are asked too.
func (im *importer) domain(acc, authDomain string) string {
	key, base := im.first(acc+"DOMAIN_BASE", perCall+"DOMAIN_BASE", im.sipAccount()+"DOMAIN_BASE")
	base = strings.ToLower(base)
	_, rooms, known := strings.Cut(im.roomDomain(), ".")
	if !known || !under(authDomain, rooms) {
		rooms = ""
	}
	switch {
	case under(authDomain, base) && len(base) >= len(rooms):
		return base
	case rooms != "":
		if base != "" && base != rooms {
			im.note(Changed, key, "users and rooms belong to %s, which is taken for the domain", rooms)
		}
		return rooms
	case base != "":
		return base
	}
	if authDomain == "" { // neither account nor DOMAIN_BASE
		_, rooms, _ = strings.Cut(im.roomDomain(), ".")
		return rooms
	}
	return strings.TrimPrefix(authDomain, "auth.")
}

// under says whether a domain is another, or below it.
func under(domain, base string) bool {
	return base != "" && (domain == base || strings.HasSuffix(domain, "."+base))
}

// roomDomain is the domain of rooms, as far as Jigasi was told.
func (im *importer) roomDomain() string {
	if v := im.take(jigasi + "MUC_SERVICE_ADDRESS"); v != "" {
		return strings.ToLower(v)
	}
	if p := im.props[jigasi+"DEFAULT_JVB_ROOM_NAME"]; p != nil {
		_, host, _ := strings.Cut(strings.TrimSpace(p.value), "@")
		return strings.ToLower(host)
	}
	return ""
}

const hostOverride = jigasi + "BOSH_HOST_OVERRIDE"

// host is what {host} of a pattern becomes for a domain. Who fills the pattern
// in takes the property.
func (im *importer) host(domain, base string) string {
	override := ""
	if p := im.props[hostOverride]; p != nil {
		override = p.value
	}
	for pair := range strings.SplitSeq(override, ",") {
		if from, to, ok := strings.Cut(pair, "="); ok && (strings.EqualFold(strings.TrimSpace(from), domain) || strings.EqualFold(strings.TrimSpace(from), base)) {
			return strings.TrimSpace(to)
		}
	}
	return cmp.Or(strings.ToLower(base), domain)
}

// password reads a Base64 password. Kind says how bad it is if it is none.
func (im *importer) password(key string, kind Kind) string {
	v := im.take(key)
	if v == "" {
		return ""
	}
	raw, err := base64.StdEncoding.DecodeString(v)
	if err != nil {
		raw, err = base64.RawStdEncoding.DecodeString(v)
	}
	if err != nil || !utf8.Valid(raw) || len(raw) == 0 {
		im.note(kind, key, "is no Base64 of a text, as Jigasi's passwords are (perhaps encrypted with a master password): write the password")
		return ""
	}
	return string(raw)
}

// deployments are the tables [[deployment]] of the shards, one for each domain.
func (im *importer) deployments(shards []shard) (out []*table) {
	var domains []string
	for _, s := range shards {
		if !slices.Contains(domains, s.domain) {
			domains = append(domains, s.domain)
		}
	}
	defer im.roomDomain() // even without a shard it has been read
	for _, domain := range domains {
		of := slices.DeleteFunc(slices.Clone(shards), func(s shard) bool { return s.domain != domain })
		t := &table{head: "[[deployment]]"}
		t.text("name", cmp.Or(domain, "meet"), "")
		if domain == "" {
			im.note(Missing, of[0].key, "its XMPP domain is not known: neither DOMAIN_BASE nor USER_ID tells it")
			t.remark(`domain = "" # to be filled in`)
		}
		t.text("domain", domain, "")
		im.rooms(t, domain, len(domains) > 1)
		i := slices.IndexFunc(of, func(s shard) bool { return s.prefixes != "" })
		prefixes := im.take(im.sipAccount() + "MUC_DOMAIN_PREFIX")
		if i >= 0 {
			prefixes = of[i].prefixes
		}
		if p := fields(prefixes); len(p) > 0 {
			t.set("muc_prefixes", list(p...), "")
		}
		if f := im.take(jigasi + "FOCUS_RESOURCE"); f != "" && f != "focus" && domain != "" {
			t.text("focus", f+"."+domain, "")
			t.text("focus_nick", f, "")
		}
		im.balancer(t, of)
		out = append(out, t)
		if login := im.login(domain, domains); len(login.rows) > 0 {
			out = append(out, login)
		}
	}
	if len(domains) > 1 {
		im.note(Changed, im.sipAccount()+"DOMAIN_BASE", "was the domain of calls that name none. With several domains a call must name a full room JID or a domain, or its trunk one deployment")
	}
	return out
}

// fields are the items of a comma-separated list.
func fields(s string) []string {
	return strings.FieldsFunc(s, func(r rune) bool { return r == ',' || r == ' ' })
}

// rooms sets the domain of a deployment's rooms.
func (im *importer) rooms(t *table, domain string, several bool) {
	muc := im.roomDomain()
	label, rest, _ := strings.Cut(muc, ".")
	switch {
	case muc == "" || domain == "":
	case rest == domain || !several || under(muc, domain):
		t.text("muc", muc, "")
	default:
		t.text("muc", label+"."+domain, "taken to be like "+muc)
	}
}

// balancer sets where web users connect, if that matters.
func (im *importer) balancer(t *table, of []shard) {
	if len(of) == 1 {
		if key := strings.TrimSuffix(of[0].key, "BREWERY"); of[0].hasAccount && of[0].pattern != "" {
			for _, k := range []string{key, perCall, im.sipAccount()} {
				if im.props[k+"BOSH_URL_PATTERN"] != nil {
					im.note(Moot, k+"BOSH_URL_PATTERN", "with one shard there is nothing to balance; calls connect to its url")
				}
			}
		}
		return
	}
	i := slices.IndexFunc(of, func(s shard) bool { return s.pattern != "" })
	if i < 0 {
		im.note(Changed, "", "the shards of %s share new rooms by hash, since no BOSH_URL_PATTERN leads to their load balancer: web users must follow the same hash, so write the deployment's balancer", of[0].domain)
		return
	}
	host := of[i].patternHost
	pattern := of[i].pattern
	if host != of[i].domain {
		pattern = strings.ReplaceAll(pattern, "{host}", host)
	}
	filled := of[i].patternURL()
	if u, err := url.Parse(filled); filled == "" || err != nil || strings.Trim(u.Path, "/") == "" {
		im.note(Changed, strings.TrimSuffix(of[i].key, "BREWERY")+"BOSH_URL_PATTERN", "is no pattern of an address; write the deployment's balancer as https://{host}{subdomain}/http-bind?room={roomName}")
		return
	}
	t.text("balancer", pattern, "")
	im.take(hostOverride)
	for _, s := range of {
		if s.pattern != "" && s.pattern != of[i].pattern {
			im.note(Changed, strings.TrimSuffix(s.key, "BREWERY")+"BOSH_URL_PATTERN", "differs from that of another shard of %s; a deployment has one balancer", s.domain)
		}
	}
}

// login is how a call of this domain logs in.
func (im *importer) login(domain string, domains []string) *table {
	t := &table{head: "[deployment.login]"}
	id := strings.ToLower(im.take(perCall + "USER_ID"))
	user, host, _ := strings.Cut(id, "@")
	im.take(perCall + "PASS")
	pass := ""
	if p := im.props[perCall+"PASS"]; p != nil {
		pass = p.value
	}
	if id == "" || domain == "" {
		if pass != "" {
			im.note(Changed, perCall+"PASS", "without USER_ID it had no use")
		}
		return t
	}
	if prevent := im.sipAccount() + "PREVENT_AUTH_LOGIN"; im.is(prevent) {
		im.note(Moot, perCall+"USER_ID", "PREVENT_AUTH_LOGIN kept calls from using it")
		return t
	}
	if !under(host, domain) && slices.ContainsFunc(domains, func(d string) bool { return under(host, d) }) {
		im.note(Changed, perCall+"USER_ID", "Jigasi logged in as this user at every server; here only calls of the domain it belongs to do, others log in anonymously")
		return t
	}
	switch {
	case !strings.EqualFold(im.take(perCall+"ANONYMOUS_AUTH"), "false"):
		if host != domain {
			t.text("kind", "guest", "")
			t.text("domain", host, "")
		}
		if pass != "" {
			im.note(Moot, perCall+"PASS", "an anonymous login has no password")
		}
		return t
	case im.is(perCall + "UNIQUE_USER_ID"):
		t.text("kind", "shared_secret", "a user of its own for each call")
	default:
		t.text("kind", "account", "")
	}
	t.text("domain", host, "")
	t.text("username", user, "")
	if pass != "" {
		t.set("password", im.secret(pass, domain, "login"), "")
	} else {
		t.remark(`password = "" # to be filled in`)
		im.note(Missing, perCall+"USER_ID", "has no password (org.jitsi.jigasi.xmpp.acc.PASS): write deployment.login.password")
	}
	return t
}

// shardTables are the tables [[shard]].
func (im *importer) shardTables(shards []shard) (out []*table) {
	several := map[string]int{}
	for _, s := range shards {
		several[s.domain]++
	}
	allowed := strings.ToLower(im.take(jigasi + "ALLOWED_JID"))
	if allowed == "" && len(shards) > 0 && shards[0].hasAccount {
		im.note(Changed, "", "without ALLOWED_JID Jigasi dialled for anybody; Brewline does only for Jicofo in the shard's brewery, and for the shard's dial_from")
	}
	foreign := allowed != "" && !slices.ContainsFunc(shards, func(s shard) bool { return s.brewery == allowed })
	if !foreign && slices.ContainsFunc(shards, func(s shard) bool { return allowed != "" && s.brewery != allowed }) {
		im.note(Changed, jigasi+"ALLOWED_JID", "Jigasi dialled for this one brewery; Brewline does for Jicofo in the brewery of every shard")
	}
	for i := range shards {
		s := &shards[i]
		t := &table{head: "[[shard]]"}
		t.text("name", s.name, "")
		t.text("deployment", cmp.Or(s.domain, "meet"), "")
		t.text("url", s.url, "")
		if s.url == "" {
			im.note(Missing, s.key, "has no server: write the url of shard %s", s.name)
			t.remark(`url = "" # to be filled in`)
		}
		if s.hasAccount {
			im.account(t, s)
		}
		if foreign && s.hasAccount {
			t.set("dial_from", list(allowed), "ALLOWED_JID; Jicofo in the brewery may dial too")
		}
		if id := strings.TrimPrefix(strings.TrimPrefix(s.name, "acc"), "-"); several[s.domain] > 1 && id != s.name && id != "" {
			t.text("header_value", id, "what X-Jitsi-Shard says for it")
		}
		out = append(out, t)
		if im.is(trustAll) && !strings.HasPrefix(s.url, "http:") {
			im.insecure = true
			out = append(out, &table{head: "[shard.tls]", rows: []row{{"insecure", "true", "ALWAYS_TRUST_MODE_ENABLED; better name a CA"}}})
		}
	}
	if key := im.sipAccount() + "JITSI_AUTH_TOKEN_HEADER_NAME"; im.props[key] != nil && slices.ContainsFunc(shards, func(s shard) bool { return strings.HasPrefix(s.url, "xmpp:") }) {
		im.note(Changed, key, "a call that brings a token logs in over BOSH, and the shards are reached over TCP here, as Jigasi's accounts were: write the BOSH address of each in its url, such as http://10.0.0.1:5280/http-bind")
	}
	if im.insecure {
		im.note(Changed, trustAll, "Jigasi took any certificate, and so does tls.insecure. Name the certificates in tls.ca instead")
	} else {
		im.take(trustAll)
	}
	return out
}

// account sets what the control session of a shard needs.
func (im *importer) account(t *table, s *shard) {
	acc := strings.TrimSuffix(s.key, "BREWERY")
	if s.user == "" {
		im.note(Changed, s.key, "has no USER_ID: without username and password the shard has no brewery")
		t.remark(`username = "" # to be filled in`)
		return
	}
	t.text("auth_domain", s.authDomain, "")
	t.text("username", s.user, "")
	if s.password == "" {
		t.remark(`password = "" # to be filled in`)
		if im.props[acc+"PASSWORD"] == nil {
			im.note(Missing, acc+"USER_ID", "has no password")
		}
	} else {
		t.set("password", im.secret(s.password, s.name), "")
	}
	t.text("brewery", s.brewery, "")
}
