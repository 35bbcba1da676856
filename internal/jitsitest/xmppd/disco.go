package xmppd

import (
	"crypto/sha1"
	"encoding/base64"
	"slices"
	"strings"
)

// identity and info are service discovery (XEP-0030).
type identity struct{ category, typ, name string }

type info struct {
	identities []identity
	features   []string
	form       *element
}

func (i info) element(node string) *element {
	q := el(nsDiscoInfo, "query", "node", node)
	for _, d := range i.identities {
		q.add(el(nsDiscoInfo, "identity", "category", d.category, "type", d.typ, "name", d.name))
	}
	for _, f := range i.features {
		q.add(el(nsDiscoInfo, "feature", "var", f))
	}
	return q.add(i.form)
}

// capsHash is the verification string of XEP-0115 §5.1; there are no forms.
func (i info) capsHash() string {
	var ids []string
	for _, d := range i.identities {
		ids = append(ids, d.category+"/"+d.typ+"//"+d.name)
	}
	slices.Sort(ids)
	fs := slices.Sorted(slices.Values(i.features))
	sum := sha1.Sum([]byte(strings.Join(append(ids, fs...), "<") + "<"))
	return base64.StdEncoding.EncodeToString(sum[:])
}

var accountInfo = info{
	identities: []identity{{"account", "registered", ""}},
	features:   []string{nsDiscoInfo, nsDiscoItem},
}

// hostInfo is what a virtual host says of itself. The components of Jitsi appear
// as identities whose name is their address.
func (s *Server) hostInfo(domain string) info {
	i := info{identities: []identity{{"server", "im", "Prosody"}},
		features: []string{"jabber:iq:roster", nsPing, nsVersion, nsDiscoInfo, nsDiscoItem, "jabber:iq:private"}}
	if domain == s.o.AuthDomain {
		return i
	}
	i.identities = append(i.identities, identity{"component", "lobbyrooms", s.o.Lobby})
	if !s.o.NoExternalInfo {
		for _, c := range s.externals() {
			i.identities = append(i.identities, identity{"component", c.typ, c.domain})
		}
	}
	if s.o.LobbyDisplayName {
		i.features = append(i.features, "http://jitsi.org/protocol/lobbyrooms#displayname_required")
	}
	if s.o.Shard != "" {
		i.identities = append(i.identities, identity{"server", "shard", s.o.Shard})
	}
	if s.o.Region != "" {
		i.identities = append(i.identities, identity{"server", "region", s.o.Region})
	}
	return i
}

func (s *Server) hostItems() []string {
	out := []string{s.o.MUC, s.o.Lobby, s.o.Focus, s.o.AuthDomain, s.o.GuestDomain}
	if !s.o.NoExternalInfo {
		for _, c := range s.externals() {
			out = append(out, c.domain)
		}
	}
	return out
}

func (s *Server) extServices(ns string) *element {
	q := el(ns, "services")
	for _, t := range s.o.Services {
		if e, err := parse(t); err == nil {
			e.remap("", ns)
			q.add(e)
		}
	}
	return q
}

// jiconop is the message that mod_jiconop pushes before the bind result: what the
// client would otherwise ask for.
func (s *Server) jiconop(x *session) *element {
	return el(nsClient, "message", "from", x.host.Domain, "to", x.jid.String()).add(
		s.hostInfo(x.host.Domain).element(""), s.extServices(nsExtDisco))
}
