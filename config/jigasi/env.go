package jigasi

import (
	"cmp"
	"encoding/base64"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// variables are those that Jigasi's image reads and makes one property of.
var variables = []struct{ name, property string }{
	{"JIGASI_SIP_DEFAULT_ROOM", jigasi + "DEFAULT_JVB_ROOM_NAME"},
	{"JIGASI_JVB_TIMEOUT", jigasi + "JVB_INVITE_TIMEOUT"},
	{"JIGASI_LOCAL_REGION", jigasi + "LOCAL_REGION"},
	{"JIGASI_STATS_ID", jigasi + "STATS_ID"},
	{"JIGASI_TRUSTED_DOMAINS", jigasi + "TRUSTED_DOMAINS"},
	{"JIGASI_HEALTH_CHECK_SIP_URI", jigasi + "HEALTH_CHECK_SIP_URI"},
	{"JIGASI_HEALTH_CHECK_INTERVAL", jigasi + "HEALTH_CHECK_INTERVAL"},
	{"JIGASI_VISITORS_QUEUE_SERVICE_URL", jigasi + "VISITOR_QUEUE_SERVICE"},
	{"JIGASI_VISITORS_QUEUE_SERVICE_PRIVATE_KEY_PATH", jigasi + "VISITOR_QUEUE_SERVICE_PRIVATE_KEY_PATH"},
	{"JIGASI_VISITORS_QUEUE_SERVICE_PRIVATE_KEY_ID", jigasi + "VISITOR_QUEUE_SERVICE_PRIVATE_KEY_ID"},
	{"BOSH_URL_PATTERN", perCall + "BOSH_URL_PATTERN"},
	{"JIGASI_PORT_MIN", minPort},
	{"JIGASI_PORT_MAX", maxPort},
	{"JIGASI_SIP_SERVER", dockerSIP + "SERVER_ADDRESS"},
	{"JIGASI_SIP_URI", dockerSIP + "USER_ID"},
	{"JIGASI_SIP_KEEP_ALIVE_METHOD", dockerSIP + "KEEP_ALIVE_METHOD"},
}

// dockerSIP is where the image puts the SIP account.
const dockerSIP = sipStack + "acc1."

// isVariable says whether a .env with this variable is one for Jigasi.
func isVariable(name string) bool {
	return strings.HasPrefix(name, "JIGASI_") || name == "XMPP_SERVER" || name == "XMPP_DOMAIN" || name == "XMPP_AUTH_DOMAIN"
}

// publicHost finds the host of a URL whose port may be a variable.
var publicHost = regexp.MustCompile(`^(?:https?://)?([\w.-]+)`)

var commandLinePort = regexp.MustCompile(`--(min|max)-port=(\d+)`)

// fromEnv makes of the variables the properties that docker-jitsi-meet's image
// makes of them, as far as those matter, named by the variable.
func (im *importer) fromEnv(vars []property) ([]property, error) {
	env := map[string]*property{}
	docker := false
	for i := range vars {
		p := &vars[i]
		env[p.key] = p
		docker = docker || slices.Contains([]string{"JIGASI_XMPP_PASSWORD", "JIGASI_XMPP_USER", "JIGASI_SIP_URI", "JIGASI_SIP_SERVER", "JIGASI_MODE", "XMPP_SERVER", "XMPP_DOMAIN", "XMPP_AUTH_DOMAIN"}, p.key)
	}
	e := &environment{vars: env, read: map[string]bool{}}
	if o := env["JIGASI_OPTS"]; o != nil {
		for _, m := range commandLinePort.FindAllStringSubmatch(o.value, -1) {
			e.put(map[string]string{"min": minPort, "max": maxPort}[m[1]], m[2], "JIGASI_OPTS")
		}
	}
	if docker {
		if err := e.docker(); err != nil {
			return nil, err
		}
	}
	im.others(vars, e.read)
	return e.out, nil
}

// others names what no property was made of.
func (im *importer) others(vars []property, read map[string]bool) {
	for _, p := range vars {
		key := "env." + p.key
		switch {
		case read[p.key] || strings.TrimSpace(p.value) == "":
		case slices.ContainsFunc(reasons, func(r reason) bool { return r.keys.MatchString(key) }):
			if im.props[key] == nil {
				im.order = append(im.order, key)
			}
			im.props[key] = &p
		default:
			im.say(Note{Kind: Moot, Key: p.key, Where: p.where(), Why: "is not of Jigasi's container"})
		}
	}
}

// environment is the variables of one container.
type environment struct {
	vars map[string]*property
	read map[string]bool
	out  []property
}

// get returns a variable, or its default.
func (e *environment) get(name, or string) string {
	e.read[name] = true
	if p := e.vars[name]; p != nil {
		return cmp.Or(strings.TrimSpace(p.value), or)
	}
	return or
}

// is reads a switch as the image does, with Go's strconv.ParseBool.
func (e *environment) is(name string) bool {
	on, _ := strconv.ParseBool(e.get(name, "0"))
	return on
}

// put makes a property, named by the first variable of these that is set.
func (e *environment) put(key, value string, by ...string) {
	if value == "" {
		return
	}
	p := property{key: key, value: value, name: cmp.Or(append(by, "docker-jitsi-meet")...)}
	for _, name := range by {
		e.read[name] = true
		if v := e.vars[name]; v != nil {
			p.name, p.file, p.line = name, v.file, v.line
			break
		}
	}
	e.out = append(e.out, p)
}

func (e *environment) docker() error {
	for _, v := range variables {
		e.put(v.property, e.get(v.name, ""), v.name)
	}
	if mode := e.get("JIGASI_MODE", "sip"); mode != "sip" {
		e.put(jigasi+"ENABLE_SIP", "false", "JIGASI_MODE")
		e.put(jigasi+"ENABLE_TRANSCRIPTION", "true", "JIGASI_MODE")
	}
	if e.is("ENABLE_VISITORS") {
		e.put(jigasi+"ENABLE_SIP_VISITORS", "true", "ENABLE_VISITORS")
	}
	if e.is("JIGASI_ENABLE_REST") {
		e.put(jigasi+"rest.host", "0.0.0.0", "JIGASI_ENABLE_REST")
	}
	if v := e.get("SHUTDOWN_REST_ENABLED", ""); v != "" {
		e.put(jigasi+"ENABLE_REST_SHUTDOWN", strconv.FormatBool(e.is("SHUTDOWN_REST_ENABLED")), "SHUTDOWN_REST_ENABLED")
	}
	if e.is("USE_TRANSLATOR_IN_CONFERENCE") {
		e.put(perCall+"USE_TRANSLATOR_IN_CONFERENCE", "true", "USE_TRANSLATOR_IN_CONFERENCE")
	}
	e.put(trustAll, "true")
	if e.get("JIGASI_PORT_MIN", "") == "" {
		e.put(minPort, "20000")
	}
	if e.get("JIGASI_PORT_MAX", "") == "" {
		e.put(maxPort, "20050")
	}
	e.sip()
	if err := e.xmpp(); err != nil {
		return err
	}
	return e.raw()
}

// sip makes the SIP account of the image's template.
func (e *environment) sip() {
	if e.get("JIGASI_SIP_URI", "") == "" && e.get("JIGASI_SIP_SERVER", "") == "" {
		return
	}
	e.put(strings.TrimSuffix(dockerSIP, "."), "acc1", "JIGASI_SIP_URI", "JIGASI_SIP_SERVER")
	e.put(dockerSIP+"PASSWORD", base64.StdEncoding.EncodeToString([]byte(e.get("JIGASI_SIP_PASSWORD", ""))), "JIGASI_SIP_PASSWORD")
	if server := e.get("JIGASI_SIP_SERVER", ""); server != "" {
		e.put(dockerSIP+"PROXY_ADDRESS", server, "JIGASI_SIP_SERVER")
		e.put(dockerSIP+"PROXY_PORT", e.get("JIGASI_SIP_PORT", "5060"), "JIGASI_SIP_PORT")
		e.put(dockerSIP+"PREFERRED_TRANSPORT", e.get("JIGASI_SIP_TRANSPORT", "UDP"), "JIGASI_SIP_TRANSPORT")
	}
	if e.is("JIGASI_ENABLE_SDES_SRTP") {
		e.put(dockerSIP+"SAVP_OPTION", "1", "JIGASI_ENABLE_SDES_SRTP")
	}
	e.put(dockerSIP+"DOMAIN_BASE", e.get("XMPP_DOMAIN", "meet.jitsi"), "XMPP_DOMAIN")
	e.put(dockerSIP+"JITSI_MEET_ROOM_HEADER_NAME", "X-Room-Name")
	e.put(dockerSIP+"JITSI_MEET_DOMAIN_BASE_HEADER_NAME", "X-Domain-Base")
	e.put(dockerSIP+"OVERRIDE_ENCODINGS", "true")
	for _, c := range []struct{ name, priority string }{{"opus/48000", "1000"}, {"G722/8000", "0"}, {"PCMU/8000", "650"}, {"PCMA/8000", "600"}} {
		e.put(dockerSIP+"Encodings."+c.name, c.priority)
	}
}

// xmpp makes a brewery account for each of the servers, and the login of calls.
func (e *environment) xmpp() error {
	var (
		domain   = e.get("XMPP_DOMAIN", "meet.jitsi")
		auth     = e.get("XMPP_AUTH_DOMAIN", "auth.meet.jitsi")
		guest    = e.get("XMPP_GUEST_DOMAIN", "guest.meet.jitsi")
		muc      = e.get("XMPP_MUC_DOMAIN", "muc.meet.jitsi")
		internal = e.get("XMPP_INTERNAL_MUC_DOMAIN", "internal-muc.meet.jitsi")
		user     = e.get("JIGASI_XMPP_USER", "jigasi")
		password = e.get("JIGASI_XMPP_PASSWORD", "")
		brewery  = e.get("JIGASI_BREWERY_MUC", "jigasibrewery") + "@" + internal
	)
	e.put(jigasi+"MUC_SERVICE_ADDRESS", muc, "XMPP_MUC_DOMAIN")
	e.put(jigasi+"ALLOWED_JID", brewery, "JIGASI_BREWERY_MUC", "XMPP_INTERNAL_MUC_DOMAIN")
	if m := publicHost.FindStringSubmatch(e.get("PUBLIC_URL", "")); m != nil && m[1] != domain {
		e.put(jigasi+"BOSH_HOST_OVERRIDE", domain+"="+m[1], "PUBLIC_URL")
	}
	ids := map[string]bool{}
	for i, server := range fields(e.get("XMPP_SERVER", "xmpp.meet.jitsi")) {
		parts := strings.SplitN(server, ":", 3)
		host, port, id := parts[0], e.get("XMPP_PORT", "5222"), strconv.Itoa(i)
		if len(parts) > 1 {
			port = cmp.Or(parts[1], port)
		}
		if len(parts) > 2 {
			id = cmp.Or(parts[2], id)
		}
		if ids[id] {
			return fmt.Errorf("XMPP_SERVER has two servers with the id %s", printable(id))
		}
		ids[id] = true
		name := "acc-" + id
		acc := jabber + name + "."
		e.put(jabber+name, name, "XMPP_SERVER")
		e.put(acc+"SERVER_ADDRESS", host, "XMPP_SERVER")
		e.put(acc+"SERVER_PORT", port, "XMPP_PORT", "XMPP_SERVER")
		e.put(acc+"USER_ID", user+"@"+auth, "JIGASI_XMPP_USER", "XMPP_AUTH_DOMAIN")
		e.put(acc+"PASSWORD", base64.StdEncoding.EncodeToString([]byte(password)), "JIGASI_XMPP_PASSWORD")
		e.put(acc+"DOMAIN_BASE", domain, "XMPP_DOMAIN")
		e.put(acc+"BREWERY", brewery, "JIGASI_BREWERY_MUC", "XMPP_INTERNAL_MUC_DOMAIN")
	}
	if e.is("ENABLE_AUTH") {
		if e.is("ENABLE_GUESTS") {
			e.put(perCall+"USER_ID", user+"@"+guest, "XMPP_GUEST_DOMAIN", "ENABLE_GUESTS")
			e.put(perCall+"ANONYMOUS_AUTH", "true", "ENABLE_GUESTS")
		} else {
			e.put(perCall+"USER_ID", user+"@"+auth, "JIGASI_XMPP_USER", "ENABLE_AUTH")
			e.put(perCall+"ANONYMOUS_AUTH", "false", "ENABLE_AUTH")
			e.put(perCall+"PASS", password, "JIGASI_XMPP_PASSWORD")
		}
	}
	return nil
}

// raw takes the properties in JIGASI_CONFIGURATION, which come last.
func (e *environment) raw() error {
	raw := e.get("JIGASI_CONFIGURATION", "")
	if raw == "" {
		return nil
	}
	v := e.vars["JIGASI_CONFIGURATION"]
	props, err := parseProperties(v.file, []byte(strings.ReplaceAll(raw, ",", "\n")))
	if err != nil {
		return fmt.Errorf("JIGASI_CONFIGURATION: %w", err)
	}
	for _, p := range props {
		p.line, p.name = v.line, "JIGASI_CONFIGURATION: "+p.key
		e.out = append(e.out, p)
	}
	return nil
}
