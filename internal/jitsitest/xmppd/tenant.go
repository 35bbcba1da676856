package xmppd

import "strings"

// mod_muc_domain_mapper: clients write room@conference.tenant.domain, inside the
// room is [tenant]room@conference.domain.

// mucPrefix splits Options.MUC into the part before Options.Domain and the rest.
func (s *Server) mucPrefix() (string, bool) {
	return strings.CutSuffix(s.o.MUC, "."+s.o.Domain)
}

// inner maps an address from the client's form.
func (s *Server) inner(a string) string {
	prefix, ok := s.mucPrefix()
	if !ok {
		return a
	}
	j, err := parseJID(a)
	if err != nil {
		return a
	}
	mid, ok := strings.CutPrefix(j.domain, prefix+".")
	if !ok {
		return a
	}
	tenant, ok := strings.CutSuffix(mid, "."+s.o.Domain)
	if !ok || tenant == "" || strings.ContainsAny(tenant, ".[]") {
		return a
	}
	j.domain = s.o.MUC
	if j.local != "" {
		j.local = "[" + tenant + "]" + j.local
	}
	return j.String()
}

// outer maps an address to the client's form.
func (s *Server) outer(a string) string {
	prefix, ok := s.mucPrefix()
	if !ok || !strings.HasPrefix(a, "[") {
		return a
	}
	j, err := parseJID(a)
	if err != nil || j.domain != s.o.MUC {
		return a
	}
	tenant, node, ok := strings.Cut(j.local[1:], "]")
	if !ok || tenant == "" || node == "" {
		return a
	}
	j.local, j.domain = node, prefix+"."+tenant+"."+s.o.Domain
	return j.String()
}

// incoming maps a client's stanza in place.
func (s *Server) incoming(e *element) {
	if to := e.attr("to"); to != "" {
		e.set("to", s.inner(to))
	}
	if c := e.child(nsFocus, "conference"); c != nil {
		c.set("room", s.inner(c.attr("room")))
	}
	for _, c := range e.children() {
		if c.Name == "mute" && c.attr("jid") != "" {
			c.set("jid", s.inner(c.attr("jid")))
		}
	}
}

// outgoing maps a stanza for a client; the original stays as it is.
func (s *Server) outgoing(e *element) *element {
	from := e.attr("from")
	if o := s.outer(from); o != from {
		e = e.with("from", o)
	}
	for i, k := range e.Kids {
		c, ok := k.(*element)
		if !ok {
			continue
		}
		var n *element
		switch {
		case c.NS == nsFocus && c.Name == "conference":
			if o := s.outer(c.attr("room")); o != c.attr("room") {
				n = c.with("room", o)
			}
		case c.NS == nsConfJID && c.Name == "x":
			if o := s.outer(c.attr("jid")); o != c.attr("jid") {
				n = c.with("jid", o)
			}
		case c.NS == nsMUCUser && c.Name == "x":
			if d := c.child(nsMUCUser, "destroy"); d != nil && s.outer(d.attr("jid")) != d.attr("jid") {
				n = c.clone()
				for j, k := range n.Kids {
					if k == any(d) {
						n.Kids[j] = d.with("jid", s.outer(d.attr("jid")))
					}
				}
			}
		}
		if n != nil {
			e = e.clone()
			e.Kids[i] = n
		}
	}
	return e
}
