package xmppd

import (
	"errors"
	"strings"
)

// jid is an XMPP address (RFC 7622), prepared: local and domain part in lower case.
type jid struct{ local, domain, resource string }

var errJID = errors.New("malformed address")

func parseJID(s string) (jid, error) {
	var j jid
	rest, res, full := strings.Cut(s, "/")
	if full && res == "" || len(s) > 3071 {
		return jid{}, errJID
	}
	j.resource = res
	if l, d, ok := strings.Cut(rest, "@"); ok {
		if l == "" {
			return jid{}, errJID
		}
		j.local, rest = strings.ToLower(l), d
	}
	j.domain = strings.ToLower(strings.TrimSuffix(rest, "."))
	if j.domain == "" || len(j.domain) > 1023 || len(j.local) > 1023 || len(j.resource) > 1023 ||
		strings.ContainsAny(j.local, " \"&'/:<>@") || strings.ContainsAny(j.domain, " \"&'<>@") {
		return jid{}, errJID
	}
	return j, nil
}

func (j jid) String() string {
	s := j.domain
	if j.local != "" {
		s = j.local + "@" + s
	}
	if j.resource != "" {
		s += "/" + j.resource
	}
	return s
}

func (j jid) bare() jid           { return jid{j.local, j.domain, ""} }
func (j jid) with(res string) jid { return jid{j.local, j.domain, res} }
