package xmppd

import (
	"strings"
)

// route delivers a stanza whose "from" was stamped. origin is nil when the server
// itself or a component speaks.
func (s *Server) route(e *element, origin *session) {
	to, err := parseJID(e.attr("to"))
	if err != nil { // to the sender's own account
		if origin != nil {
			s.account(e, origin)
		}
		return
	}
	switch m := s.services[to.domain]; {
	case m != nil:
		m.handle(e, to)
	case s.components[to.domain] != nil:
		s.components[to.domain].send(e)
	case s.hosts[to.domain] != nil && to.local == "" && to.resource == "":
		s.hostStanza(e, to)
	case s.hosts[to.domain] != nil:
		s.user(e, to)
	case s.extra(e, to):
	case to.domain == s.o.Focus: // mod_client_proxy without its target
		s.bounce(e, "cancel", "service-unavailable", "")
	default:
		s.bounce(e, "cancel", "remote-server-not-found", "")
	}
}

// bounce answers a stanza with an error, unless it is one.
func (s *Server) bounce(e *element, typ, condition, text string) {
	s.bounceBy(e, typ, condition, text, "")
}

func (s *Server) bounceBy(e *element, typ, condition, text, by string) {
	t := e.attr("type")
	if t == "error" || t == "result" || e.attr("from") == "" || e.Name == "presence" && t == "unavailable" {
		return
	}
	s.route(errorReply(e, typ, condition, text, by), nil)
}

// reply answers an IQ with a result.
func (s *Server) reply(iq *element, kids ...any) { s.route(resultReply(iq, kids...), nil) }

// user delivers to a client session.
func (s *Server) user(e *element, to jid) {
	if to.resource != "" {
		if x := s.sessions[to.String()]; x != nil {
			x.send(e)
			return
		}
	}
	switch e.Name {
	case "presence":
		return
	case "message": // to a bare address: every session of the user
		if to.resource == "" {
			sent := false
			for _, x := range s.sessions {
				if x.jid.bare() == to {
					x.send(e)
					sent = true
				}
			}
			if sent {
				return
			}
		}
	}
	s.bounce(e, "cancel", "service-unavailable", "")
}

// account serves what a client sends without an address, to its own account.
func (s *Server) account(e *element, x *session) {
	switch e.Name {
	case "presence":
		x.send(e) // to the user's own resources, of which there is one
		if e.attr("type") == "unavailable" {
			x.sendUnavailable(e)
		}
		return
	case "message":
		return
	}
	if t := e.attr("type"); t == "result" || t == "error" {
		return
	}
	q := e.first()
	switch {
	case q.NS == nsSession && q.Name == "session", q.NS == nsPing && q.Name == "ping":
		x.send(resultReply(e))
	case q.NS == nsRoster && e.attr("type") == "get":
		x.send(resultReply(e, el(nsRoster, "query", "ver", "1")))
	case q.NS == nsDiscoInfo:
		x.send(resultReply(e, accountInfo.element(q.attr("node"))))
	default:
		x.send(errorReply(e, "cancel", "service-unavailable", "", ""))
	}
}

// hostStanza serves what is sent to a virtual host.
func (s *Server) hostStanza(e *element, to jid) {
	if e.Name != "iq" || e.attr("type") == "result" || e.attr("type") == "error" {
		return
	}
	q := e.first()
	get := e.attr("type") == "get"
	switch {
	case get && q.NS == nsPing:
		s.reply(e)
	case get && q.NS == nsDiscoInfo:
		s.reply(e, s.hostInfo(to.domain).element(q.attr("node")))
	case get && q.NS == nsDiscoItem:
		items := el(nsDiscoItem, "query")
		for _, d := range s.hostItems() {
			items.add(el(nsDiscoItem, "item", "jid", d))
		}
		s.reply(e, items)
	case get && q.NS == nsVersion:
		s.reply(e, el(nsVersion, "query").add(el(nsVersion, "name").add("Prosody"), el(nsVersion, "version").add("0.12.3")))
	case get && strings.HasPrefix(q.NS, "urn:xmpp:extdisco:") && q.Name == "services":
		s.reply(e, s.extServices(q.NS))
	default:
		s.bounce(e, "cancel", "service-unavailable", "")
	}
}
