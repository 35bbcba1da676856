package xmppd

import (
	"strings"
)

// transport carries one client stream. Its methods are called with the server's
// lock held and never block.
type transport interface {
	send(e *element)
	// end finishes the stream; condition "" is an orderly end.
	end(condition, text string)
	// cut drops the connection without a word.
	cut()
}

// session is one client stream.
type session struct {
	s        *Server
	id       string // stream id
	host     *Host
	out      transport
	token    Token
	jid      jid
	login    login
	presence *element
	directed map[jid]struct{} // full JIDs presence was sent to
	ending   bool             // the client hears nothing more
	closed   bool
	secure   bool // TLS, or a web transport (consider_bosh_secure)
	canTLS   bool // STARTTLS is possible
	web      bool // BOSH or WebSocket
}

func (x *session) send(e *element) {
	if !x.ending && !x.closed {
		x.out.send(x.s.outgoing(e))
	}
}

// close ends the stream from the server's side.
func (x *session) close(condition, text string) {
	if x.closed {
		return
	}
	x.out.end(condition, text)
	x.destroy(condition)
}

// destroy removes the session; its occupants leave their rooms.
func (x *session) destroy(reason string) {
	if x.closed {
		return
	}
	x.ending = true
	delete(x.s.streams, x)
	if x.jid.resource == "" {
		x.closed = true
		return
	}
	full := x.jid.String()
	p := el(nsClient, "presence", "type", "unavailable", "from", full)
	if reason != "" {
		p.add(el(nsClient, "status").add("Disconnected: " + reason))
	}
	x.sendUnavailable(p)
	x.closed = true
	if x.s.sessions[full] == x {
		delete(x.s.sessions, full)
	}
}

// sendUnavailable tells everybody who got directed presence.
func (x *session) sendUnavailable(p *element) {
	d := x.directed
	x.directed = nil
	for to := range d {
		x.s.route(p.with("to", to.String()), x)
	}
}

// features are the stream features for the session's present state.
func (x *session) features() *element {
	f := el(nsStream, "features")
	if x.canTLS && !x.secure {
		f.add(el(nsTLS, "starttls"))
	}
	if !x.login.done {
		m := el(nsSASL, "mechanisms")
		for _, name := range x.mechanisms() {
			m.add(el(nsSASL, "mechanism").add(name))
		}
		return f.add(m)
	}
	return f.add(
		el("urn:xmpp:features:rosterver", "ver"),
		el(nsCaps, "c", "hash", "sha-1", "node", "http://prosody.im", "ver", x.s.hostInfo(x.host.Domain).capsHash()),
		el(nsBind, "bind").add(el(nsBind, "required")),
		el(nsSession, "session").add(el(nsSession, "optional")),
		el("urn:xmpp:features:pre-approval", "sub"))
}

// handle takes one top-level element from the client. The server's lock is held.
func (x *session) handle(e *element) {
	if x.closed {
		return
	}
	switch {
	case e.NS == nsSASL:
		x.handleSASL(e)
		return
	case e.NS != nsClient:
		x.close("unsupported-stanza-type", "")
		return
	}
	switch e.Name {
	case "iq", "presence", "message":
	default:
		x.close("bad-format", "Error processing stream")
		return
	}
	if !x.login.done {
		x.close("not-authorized", "")
		return
	}
	if x.jid.resource == "" && !(e.Name == "iq" && e.child(nsBind, "bind") != nil) {
		if e.Name == "iq" && (e.attr("type") == "get" || e.attr("type") == "set") {
			x.send(errorReply(e, "auth", "not-authorized", "", ""))
		}
		return
	}
	if e.Name == "iq" {
		t, n := e.attr("type"), len(e.children())
		ok := e.attr("id") != ""
		switch t {
		case "get", "set":
			ok = ok && n == 1
		case "result", "error":
		default:
			ok = false
		}
		if !ok {
			if t != "result" && t != "error" {
				x.send(errorReply(e, "modify", "bad-request", "", ""))
			}
			return
		}
		if e.child(nsBind, "bind") != nil && e.attr("type") == "set" {
			x.bind(e)
			return
		}
	}
	if to := e.attr("to"); to != "" {
		if _, err := parseJID(to); err != nil {
			if t := e.attr("type"); t != "error" && t != "result" {
				x.send(errorReply(e, "modify", "jid-malformed", "", ""))
			}
			return
		}
	}
	e.set("from", x.jid.String())
	if e.attr("xml:lang") == "" {
		e.set("xml:lang", "en")
	}
	x.s.incoming(e)
	if e.Name == "presence" {
		x.track(e)
	}
	x.s.route(e, x)
}

// track remembers where presence went, for the end of the session.
func (x *session) track(e *element) {
	to, err := parseJID(e.attr("to"))
	if err != nil {
		if e.attr("to") == "" && e.attr("type") == "" {
			x.presence = e
		}
		return
	}
	switch e.attr("type") {
	case "":
		if x.directed == nil {
			x.directed = map[jid]struct{}{}
		}
		x.directed[to] = struct{}{}
	case "unavailable":
		delete(x.directed, to)
	}
}

func (x *session) bind(iq *element) {
	if x.jid.resource != "" {
		x.send(errorReply(iq, "cancel", "not-allowed", "", ""))
		return
	}
	res := strings.TrimSpace(iq.child(nsBind, "bind").child(nsBind, "resource").text())
	if res == "" || strings.ContainsAny(res, "\x00\n\r\t") || len(res) > 1023 {
		res = randomText(12)
	}
	j := x.jid.with(res)
	if old := x.s.sessions[j.String()]; old != nil { // RFC 6120 §7.7.2.2: the new one wins
		old.close("conflict", "Replaced by new connection")
	}
	x.jid = j
	x.s.sessions[j.String()] = x
	if !x.s.o.NoJiconop && x.web {
		x.send(x.s.jiconop(x))
	}
	x.send(el(nsClient, "iq", "type", "result", "id", iq.attr("id")).add(
		el(nsBind, "bind").add(el(nsBind, "jid").add(j.String()))))
}

// errorReply answers a stanza with an error (RFC 6120 §8.3).
func errorReply(e *element, typ, condition, text, by string) *element {
	r := el(nsClient, e.Name, "type", "error", "from", e.attr("to"), "id", e.attr("id"), "to", e.attr("from"))
	x := el(nsClient, "error", "type", typ, "by", by).add(el(nsStanzas, condition))
	if text != "" {
		x.add(el(nsStanzas, "text").add(text))
	}
	return r.add(x)
}

// resultReply answers an IQ.
func resultReply(iq *element, kids ...any) *element {
	return el(nsClient, "iq", "type", "result", "from", iq.attr("to"), "id", iq.attr("id"), "to", iq.attr("from")).add(kids...)
}
