package config

import (
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"net/url"
	"path"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// PortsPerCall is how many media ports a call takes: RTP and RTCP towards the
// phone, one towards the bridge.
const PortsPerCall = portsPhone + portsConference

const portsPhone, portsConference = 2, 1

// check looks at the values, and at how they go together.
func (l *loader) check(main place, c *Config, shardsDir bool) {
	l.checkGateway(main, c)
	l.checkMedia(main.key("media"), c)

	names := map[string]place{}
	for i := range c.Deployments {
		var at place
		if i >= len(l.deployments) {
			at = l.shards[0] // the one that its only shard makes
		} else {
			at = l.deployments[i]
			l.unique(names, at.key("name"), c.Deployments[i].Name, "deployment")
		}
		l.checkDeployment(&c.Deployments[i], func(key string) place { return at.key(key) })
	}
	l.checkShards(main, c)
	if len(c.Shards) == 0 && !shardsDir && !l.wrongAt(main.key("shard")) {
		l.add(main.key("shard"), "there is none", "write a [[shard]], or make a folder shards.d beside this file")
	}
	l.checkTrunks(main.key("trunk"), c)
	l.checkDial(main.key("dial"), c)
	if len(c.Trunks) == 0 && !l.wrongAt(main.key("trunk")) {
		l.add(main.key("trunk"), "there is none, so nobody could call", "write a [[trunk]] with name and match")
	}
}

func (l *loader) unique(seen map[string]place, at place, value, what string) {
	if value == "" {
		return
	}
	if first, ok := seen[value]; ok {
		l.add(at, fmt.Sprintf("%s %q stands already at %s:%d", what, value, first.doc.file, first.doc.lines.of(first.path)), "rename or remove one of them")
		return
	}
	seen[value] = at
}

func (l *loader) checkGateway(main place, c *Config) {
	if c.Gateway.Name == "" {
		l.add(main.key("gateway.name"), "is empty", "give the gateway a name")
	}
	if h := c.HTTP.Listen; h != "" {
		if err := hostPort(h, true); err != nil {
			l.add(main.key("http.listen"), err.Error(), "write address:port, as 127.0.0.1:8788")
		}
	}
	at := main.key("sip.listen")
	if len(c.SIP.Listen) == 0 && !l.wrongAt(at) {
		l.add(at, "is empty", "write where SIP is received, as udp://0.0.0.0:5060")
	}
	seen, secure := map[string]place{}, false
	for i, s := range c.SIP.Listen {
		if l.wrongAt(at.at(i)) {
			continue
		}
		if ln, err := ParseListener(s); err != nil {
			what, remedy, _ := cutLast(err.Error(), ": ")
			l.add(at.at(i), what, remedy)
		} else {
			secure = secure || ln.Network == "tls" || ln.Network == "wss"
			l.unique(seen, at.at(i), s, "listener")
		}
	}
	l.checkSIPTLS(main.key("sip.tls"), c.SIP.TLS, secure)
	if a := c.SIP.Advertise; a != "" && !isAdvertise(a) {
		l.add(main.key("sip.advertise"), fmt.Sprintf("%q is neither a host nor host:port", a), "write it as 198.51.100.7 or gw.example.org:5060")
	}
	if at := main.key("sip.digest"); len(c.SIP.Digest) == 0 && !l.wrongAt(at) {
		l.add(at, "is empty", "write SHA-256, MD5 or both")
	}
	for i, s := range c.SIP.Digest {
		if at := main.key("sip.digest").at(i); s != "SHA-256" && s != "MD5" && !l.wrongAt(at) {
			l.add(at, fmt.Sprintf("%q is not known", s), "write SHA-256 or MD5")
		}
	}
	for i, s := range c.SIP.Origins {
		_, bad := path.Match(s, "")
		_, host, ok := strings.Cut(s, "://")
		if !ok {
			host = s
		}
		if at := main.key("sip.origins").at(i); (bad != nil || host == "" || strings.ContainsAny(host, " /@?#")) && !l.wrongAt(at) {
			l.add(at, fmt.Sprintf("%q is not the host of a page", s), "write it as phone.example.org, *.example.org or https://phone.example.org")
		}
	}
	h := reflect.ValueOf(c.SIP.Headers)
	for key, f := range fields(h) {
		for i, name := range f.Interface().([]string) {
			if at := main.key("sip.headers").key(key).at(i); !isToken(name) && !l.wrongAt(at) {
				l.add(at, fmt.Sprintf("%q cannot be the name of a header", name), "write letters, digits and dashes")
			}
		}
	}
}

// checkSIPTLS reads the certificates, which secure listeners need.
func (l *loader) checkSIPTLS(at place, t SIPTLS, needed bool) {
	switch {
	case t.Certificate == "" && t.Key == "" && !needed:
	case t.Certificate == "":
		l.add(at.key("certificate"), "is missing", "name the file of the certificate chain in PEM, which tls and wss listeners need")
	case t.Key == "":
		l.add(at.key("key"), "is missing", "name the file of the certificate's private key in PEM")
	default:
		if _, err := tls.LoadX509KeyPair(t.Certificate, t.Key); err != nil {
			l.add(at.key("certificate"), strings.TrimPrefix(err.Error(), "tls: "), "name files with a certificate and its key in PEM that the user of the service may read")
		}
	}
	if t.ClientCA != "" {
		if _, err := (TLS{CA: t.ClientCA}).Config(); err != nil {
			l.add(at.key("client_ca"), err.Error(), "name a file with certificates in PEM that the user of the service may read")
		}
	}
}

func cutLast(s, sep string) (before, after string, ok bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return s, "", false
}

func (l *loader) checkMedia(at place, c *Config) {
	phone, conf, calls := c.Media.Phone.Ports, c.Media.Conference.Ports, c.Gateway.MaxCalls
	room := func(key string, r PortRange, each int) {
		if need := calls * each; calls > 0 && r.Len() > 0 && r.Len() < need && !l.wrongAt(at.key(key)) {
			l.add(at.key(key), fmt.Sprintf("%s has %d ports, and %d calls need %d", r, r.Len(), calls, need), "widen it, or lower gateway.max_calls")
		}
	}
	sideKey := func(side string) string { // where a side's range was written
		if _, ok := at.doc.lines["media."+side+".ports"]; ok {
			return side + ".ports"
		}
		return "ports"
	}
	switch {
	case phone == conf:
		room(sideKey("phone"), phone, PortsPerCall)
	case phone.Overlaps(conf):
		key := sideKey("conference")
		if key == "ports" {
			key = sideKey("phone")
		}
		l.add(at.key(key), fmt.Sprintf("%s for phones and %s for conferences overlap in part", phone, conf), "make them equal, or keep them apart")
	default:
		room(sideKey("phone"), phone, portsPhone)
		room(sideKey("conference"), conf, portsConference)
	}
}

// checkDeployment looks at one deployment; where tells the place of a key.
func (l *loader) checkDeployment(d *Deployment, where func(key string) place) {
	domain := func(key, value string) {
		if at := where(key); value != "" && !isDomain(value) && !l.wrongAt(at) {
			l.add(at, fmt.Sprintf("%q is no domain", value), "write a name such as meet.example.org, without scheme, port or user")
		}
	}
	domain("domain", d.Domain)
	if isDomain(d.Domain) || d.Domain == "" {
		domain("muc", d.MUC)
		domain("focus", d.Focus)
		domain("login.domain", d.Login.Domain)
	}
	for i, p := range d.MUCPrefixes {
		if at := where("muc_prefixes").at(i); !isDomain(p) && !l.wrongAt(at) {
			l.add(at, fmt.Sprintf("%q cannot begin a domain", p), "write a label such as conference")
		}
	}
	for i, t := range d.Tenants {
		if at := where("tenants").at(i); !isTenant(t) && !l.wrongAt(at) {
			l.add(at, fmt.Sprintf("%q cannot be a tenant", t), "write it as in the path of the meeting's address, without slashes")
		}
	}
	if d.FocusNick == "" {
		l.add(where("focus_nick"), "is empty", `write the nick of Jicofo's occupant, usually "focus"`)
	}
	if d.ShardHeader != "" && !isToken(d.ShardHeader) {
		l.add(where("shard_header"), fmt.Sprintf("%q cannot be the name of a header", d.ShardHeader), "write letters, digits and dashes")
	}
	if what, remedy := balancerProblem(d.Balancer); what != "" && !l.wrongAt(where("balancer")) {
		l.add(where("balancer"), what, remedy)
	}
	l.checkLogin(&d.Login, func(key string) place { return where("login." + key) })
}

func (l *loader) checkLogin(g *Login, where func(key string) place) {
	need := func(key, value string) {
		if value == "" && !l.wrongAt(where(key)) {
			l.add(where(key), "is missing for login by "+g.Kind, "write it, or choose another login.kind")
		}
	}
	switch g.Kind {
	case LoginAccount:
		need("username", g.Username)
		need("password", string(g.Password))
	case LoginSharedSecret:
		need("domain", g.Domain)
		need("password", string(g.Password))
	case LoginJWT:
		if at := where("jwt.key"); g.JWT.Key != "" && g.JWT.Algorithm == "RS256" && !isRSAKey(g.JWT.Key) {
			l.add(at, "is no RSA private key in PEM, which RS256 needs", "give it as file:/path/to/key.pem")
		}
	}
	if at := where("username"); g.Username != "" && !isLocal(g.Username) && !l.wrongAt(at) {
		l.add(at, fmt.Sprintf("%q cannot be a user", g.Username), "write what stands before the @; the rest belongs in login.domain")
	}
}

func (l *loader) checkShards(main place, c *Config) {
	names, urls, values := map[string]place{}, map[string]place{}, map[string]place{}
	for i := range c.Shards {
		s, at := &c.Shards[i], l.shards[i]
		l.unique(names, at.key("name"), s.Name, "shard")
		if l.shardURL(at.key("url"), s.URL) {
			l.unique(urls, at.key("url"), s.URL+" of "+s.Effective.Domain, "the address")
		}
		if s.Deployment != "" && !l.wrongAt(at.key("name")) {
			l.unique(values, at.key("header_value"), s.HeaderValue+" of "+s.Deployment, "the header value")
		}
		if !isDomain(s.AuthDomain) && s.AuthDomain != "" && isDomain(s.Effective.Domain) {
			l.add(at.key("auth_domain"), fmt.Sprintf("%q is no domain", s.AuthDomain), "write a name such as auth.meet.example.org")
		}
		if s.Username != "" && !isLocal(s.Username) {
			l.add(at.key("username"), fmt.Sprintf("%q cannot be a user", s.Username), "write what stands before the @; the rest belongs in auth_domain")
		}
		if (s.Username == "") != (s.Password == "") && !l.wrongAt(at.key("password")) {
			l.add(at.key("username"), "username and password go together", "write both, or neither to log in as calls do")
		}
		if s.Brewery != "" && !isBareJID(s.Brewery) && isDomain(s.Effective.Domain) && isDomain(s.AuthDomain) {
			l.add(at.key("brewery"), fmt.Sprintf("%q is no room's JID", s.Brewery), "write it as jigasibrewery@internal.auth.meet.example.org")
		}
		for j, from := range s.DialFrom {
			if here := at.key("dial_from").at(j); !isJID(from) && !l.wrongAt(here) {
				l.add(here, fmt.Sprintf("%q is no JID", from), "write user@domain, domain, or either with /resource")
			}
		}
		if _, err := s.TLS.Config(); err != nil {
			l.add(at.key("tls.ca"), err.Error(), "name a file with certificates in PEM that the user of the service may read")
		}
		if len(l.over[i]) > 0 && c.Deployment(s.Deployment) != nil {
			l.checkDeployment(&s.Effective, l.overridden(main, c, i))
		}
	}
}

// overridden tells the place of a key of a shard's deployment: in the shard
// when it stands there, else in the deployment.
func (l *loader) overridden(main place, c *Config, i int) func(string) place {
	n := slices.IndexFunc(c.Deployments, func(d Deployment) bool { return d.Name == c.Shards[i].Deployment })
	return func(key string) place {
		top, _, _ := strings.Cut(key, ".")
		if _, ok := l.over[i][top]; ok || n >= len(l.deployments) {
			return l.shards[i].key(key)
		}
		return l.deployments[n].key(key)
	}
}

// shardURL checks a shard's address and says whether it is good.
func (l *loader) shardURL(at place, s string) bool {
	if s == "" || l.wrongAt(at) {
		return false
	}
	u, err := url.Parse(s)
	bad := func(what, remedy string) bool { l.add(at, what, remedy); return false }
	switch {
	case err != nil || u.Host == "" || u.Hostname() == "" || !portOK(u.Port()):
		return bad(fmt.Sprintf("%q is no address", s), "write https://host/http-bind, wss://host/xmpp-websocket or xmpp://host:5222")
	case !slices.Contains([]string{"http", "https", "ws", "wss", "xmpp"}, u.Scheme):
		return bad(fmt.Sprintf("%q is no way to reach a shard", u.Scheme), "write https or http, wss or ws, or xmpp")
	case u.User != nil:
		return bad("has a user in it", "write username and password as keys")
	case u.Fragment != "":
		return bad("has a fragment", "leave out what follows #")
	case u.Scheme == "xmpp" && (strings.Trim(u.Path, "/") != "" || u.RawQuery != ""):
		return bad("has a path, which xmpp has not", "write xmpp://host:5222")
	case u.Scheme != "xmpp" && strings.Trim(u.Path, "/") == "":
		return bad("has no path", "write "+u.Scheme+"://"+u.Host+map[bool]string{true: "/http-bind", false: "/xmpp-websocket"}[u.Scheme[0] == 'h'])
	case u.Query().Has("room") || u.Query().Has("token"):
		return bad("has room or token in it", "leave them out: they are added for each call")
	}
	return true
}

var placeholder = regexp.MustCompile(`\{[^{}]*\}`)

func balancerProblem(s string) (what, remedy string) {
	if s == "" {
		return "", ""
	}
	known := map[string]string{"{host}": "host", "{subdomain}": "", "{roomName}": "room"}
	filled := placeholder.ReplaceAllStringFunc(s, func(p string) string {
		if v, ok := known[p]; ok {
			return v
		}
		what = fmt.Sprintf("%s is no placeholder", p)
		return ""
	})
	const form = "write it as https://{host}{subdomain}/http-bind?room={roomName}"
	if what != "" {
		return what, form
	}
	u, err := url.Parse(filled)
	switch {
	case err != nil || u.Hostname() == "" || !portOK(u.Port()) || strings.ContainsAny(filled, "{}"):
		return fmt.Sprintf("%q is no address", s), form
	case u.Scheme != "http" && u.Scheme != "https":
		return fmt.Sprintf("%q is no way to reach a balancer", u.Scheme), "write http or https"
	case strings.Trim(u.Path, "/") == "":
		return "has no path", form
	}
	return "", ""
}

// knownCodecs are the codecs that a trunk may name.
var knownCodecs = []string{"opus", "g722", "pcma", "pcmu"}

func (l *loader) checkTrunks(at place, c *Config) {
	names := map[string]place{}
	type match struct {
		prefix netip.Prefix
		trunk  string
		at     place
	}
	var matches []match
	users := map[string]place{}
	for i := range c.Trunks {
		t, at := &c.Trunks[i], at.at(i)
		l.unique(names, at.key("name"), t.Name, "trunk")
		if t.AcceptUsername != "" {
			l.unique(users, at.key("accept_username"), t.AcceptUsername, "user to be let in")
		}
		for j, p := range t.Match {
			here := at.key("match").at(j)
			if !p.IsValid() || l.wrongAt(here) {
				continue
			}
			for _, m := range matches {
				if m.prefix.Overlaps(p) {
					l.add(here, fmt.Sprintf("%s overlaps %s of trunk %q (line %d)", p, m.prefix, m.trunk, m.at.doc.lines.of(m.at.path)), "an address may belong to one trunk only: narrow one of them")
				}
			}
			matches = append(matches, match{p, t.Name, here})
		}
		l.checkTrunk(at, t, c)
	}
}

func (l *loader) checkTrunk(at place, t *Trunk, c *Config) {
	if t.Address != "" && !isSIPAddress(t.Address) && !l.wrongAt(at.key("address")) {
		l.add(at.key("address"), fmt.Sprintf("%q is no SIP address", t.Address), "write it as sip:pbx.example.org:5060;transport=udp (or tcp, tls, ws, wss)")
	}
	l.checkPeer(at, t)
	if t.Deployment != "" && c.Deployment(t.Deployment) == nil {
		l.add(at.key("deployment"), fmt.Sprintf("no deployment is named %q", t.Deployment), l.deploymentHint(c))
	}
	if t.Shard != "" {
		switch s := c.Shard(t.Shard); {
		case s == nil && l.known(c, t.Shard):
		case s == nil:
			l.add(at.key("shard"), fmt.Sprintf("no shard is named %q", t.Shard), "name one of the shards, or leave it out to have them asked")
		case t.Deployment != "" && s.Deployment != t.Deployment:
			l.add(at.key("shard"), fmt.Sprintf("shard %q belongs to deployment %q, not %q", t.Shard, s.Deployment, t.Deployment), "name a shard of the trunk's deployment")
		}
	}
	if t.Tenant != "" && !isTenant(t.Tenant) {
		l.add(at.key("tenant"), fmt.Sprintf("%q cannot be a tenant", t.Tenant), "write it as in the path of the meeting's address, without slashes")
	}
	for _, number := range slices.Sorted(maps.Keys(t.Rooms)) {
		if strings.TrimSpace(t.Rooms[number]) == "" {
			l.add(at.key("rooms").key(number), "has no room", "write the room's name")
		}
	}
	seen := map[string]place{}
	for i, name := range t.Codecs {
		here := at.key("codecs").at(i)
		if l.wrongAt(here) {
			continue
		}
		if !slices.Contains(knownCodecs, name) {
			l.add(here, fmt.Sprintf("codec %q is not known", name), "write "+strings.Join(knownCodecs, ", "))
			continue
		}
		l.unique(seen, here, name, "codec")
	}
	if len(t.Codecs) == 0 && !l.wrongAt(at.key("codecs")) {
		l.add(at.key("codecs"), "is empty", "write "+strings.Join(knownCodecs, ", ")+", or leave it out")
	}
	if t.Ptime.Duration%(10*time.Millisecond) != 0 && !l.wrongAt(at.key("ptime")) {
		l.add(at.key("ptime"), fmt.Sprintf("%s is not a multiple of 10 ms", t.Ptime), "write 10ms, 20ms, 30ms, 40ms, 50ms or 60ms")
	}
}

func isAddr(s string) bool { _, err := netip.ParseAddr(s); return err == nil }

// isDomain accepts host names, internationalised ones, and IPv4 addresses.
func isDomain(s string) bool {
	if s == "" || len(s) > 253 {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for _, r := range label {
			if r != '-' && r != '_' && !unicode.IsLetter(r) && !unicode.IsDigit(r) && !unicode.IsMark(r) {
				return false
			}
		}
	}
	return true
}

// isLocal accepts the local part of a JID (RFC 7622 §3.3.1).
func isLocal(s string) bool {
	return s != "" && len(s) <= 1023 && !strings.ContainsFunc(s, func(r rune) bool {
		return strings.ContainsRune(`"&'/:<>@`, r) || unicode.IsSpace(r) || unicode.IsControl(r)
	})
}

func isBareJID(s string) bool {
	local, domain, ok := strings.Cut(s, "@")
	return ok && isLocal(local) && isDomain(domain)
}

func isJID(s string) bool {
	bare, resource, hasResource := strings.Cut(s, "/")
	return (isBareJID(bare) || isDomain(bare)) && (resource != "" || !hasResource) && !strings.ContainsFunc(resource, unicode.IsControl)
}

// isTenant accepts one segment of a path.
func isTenant(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return strings.ContainsRune(`/?#@[]`, r) || unicode.IsSpace(r) || unicode.IsControl(r)
	})
}

// isToken accepts the name of a header (RFC 3261 §25.1, RFC 9110 §5.6.2).
func isToken(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return r <= ' ' || r > '~' || strings.ContainsRune(`"(),/:;<=>?@[\]{}`, r)
	})
}

func portOK(s string) bool {
	if s == "" {
		return true
	}
	n, err := strconv.ParseUint(s, 10, 16)
	return err == nil && n > 0
}

func hostPort(s string, portZero bool) error {
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return fmt.Errorf("%q has no port", s)
	}
	if host != "" && !isAddr(host) && !isDomain(host) {
		return fmt.Errorf("%q has no valid host", s)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || (n == 0 && !portZero) {
		return fmt.Errorf("%q has no valid port", s)
	}
	return nil
}

// isSIPAddress accepts sip:host[:port][;transport=udp|tcp].
func isSIPAddress(s string) bool {
	rest, ok := strings.CutPrefix(strings.ToLower(s), "sip:")
	rest, params, _ := strings.Cut(rest, ";")
	if _, host, user := strings.Cut(rest, "@"); user {
		rest = host
	}
	if !ok || (!isDomain(rest) && !isAddr(strings.Trim(rest, "[]")) && hostPort(rest, false) != nil) {
		return false
	}
	transport, ok := strings.CutPrefix(params, "transport=")
	return params == "" || ok && slices.Contains([]string{"udp", "tcp", "tls", "ws", "wss"}, transport)
}

func isRSAKey(s Secret) bool {
	block, _ := pem.Decode([]byte(s))
	if block == nil {
		return false
	}
	if _, err := x509.ParsePKCS1PrivateKey(block.Bytes); err == nil {
		return true
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	_, isRSA := key.(*rsa.PrivateKey)
	return err == nil && isRSA
}

// checkPeer looks at how a trunk is reached and let in.
func (l *loader) checkPeer(at place, t *Trunk) {
	if len(t.Match) == 0 && t.AcceptUsername == "" && len(t.Register) == 0 && t.Address == "" && !l.wrongAt(at.key("match")) && !l.isWrong(at) {
		l.add(at.key("match"), "is missing", "write the source addresses of the peer; or accept_username, register or address")
	}
	if t.Proxy != "" && !isSIPAddress(t.Proxy) && !l.wrongAt(at.key("proxy")) {
		l.add(at.key("proxy"), fmt.Sprintf("%q is no SIP address", t.Proxy), "write it as sip:proxy.example.org:5060;transport=udp")
	}
	if t.Advertise != "" && !isAdvertise(t.Advertise) {
		l.add(at.key("advertise"), fmt.Sprintf("%q is neither a host nor host:port", t.Advertise), "write it as 198.51.100.7 or gw.example.org:5060")
	}
	seen := map[string]place{}
	for i, r := range t.Register {
		here := at.key("register").at(i)
		if !isSIPAddress(r) && !l.wrongAt(here) {
			l.add(here, fmt.Sprintf("%q is no SIP address", r), "write it as sip:registrar.example.org")
		}
		l.unique(seen, here, r, "registrar")
	}
	if len(t.Register) > 0 && t.Username == "" {
		l.add(at.key("username"), "is missing", "write the user that registers")
	}
	if (t.AcceptUsername == "") != (t.AcceptPassword == "") && !l.wrongAt(at.key("accept_password")) {
		l.add(at.key("accept_username"), "accept_username and accept_password go together", "write both, or neither to let in the addresses of match alone")
	}
	if d := t.SessionTimer.Duration; d != 0 && d < 90*time.Second && !l.wrongAt(at.key("session_timer")) {
		l.add(at.key("session_timer"), fmt.Sprintf("%s is too short", t.SessionTimer), "write 90s or more (RFC 4028), or 0s for none")
	}
	if _, err := t.TLS.Config(); err != nil {
		l.add(at.key("tls.ca"), err.Error(), "name a file with certificates in PEM that the user of the service may read")
	}
	for i := range t.DID {
		d := &t.DID[i]
		d.re = l.pattern(at.key("did").at(i).key("pattern"), d.Pattern)
		l.checkReferences(at.key("did").at(i).key("room"), d.re, d.Room)
	}
	for i := range t.Mask {
		m := &t.Mask[i]
		m.re = l.pattern(at.key("mask").at(i).key("pattern"), m.Pattern)
		l.checkReferences(at.key("mask").at(i).key("show"), m.re, m.Show)
	}
}
