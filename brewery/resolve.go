package brewery

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"brewline/config"
)

// Hints are what a call says about where it wants to go.
type Hints struct {
	Trunk  *config.Trunk // nil: any deployment, no defaults
	Room   string        // header: a name, tenant/name, [tenant]name, or a full room JID
	User   string        // user part of the called URI, for the trunk's rooms when Room is empty
	To     string        // user part of To, where User is none of the trunk's numbers
	Domain string        // header: XMPP domain
	Tenant string        // header
}

// Resolve makes exactly one deployment and one room of what a call says. Only
// deployments that the trunk may use are considered; of those, the domain of a
// full room JID, the domain header and the tenant each rule out others. Errors
// are [ErrNoRoom] (also [ErrBadRoom]), [ErrNoDeployment] or [ErrAmbiguous], and
// their texts are for the operator of the telephone system.
func (s *Set) Resolve(h Hints) (*Deployment, Room, error) {
	w, err := h.read()
	if err != nil {
		return nil, Room{}, err
	}
	all := s.all()

	fits := make([]candidate, 0, len(all))
	for _, d := range all {
		if h.Trunk != nil && h.Trunk.Deployment != "" && h.Trunk.Deployment != d.name {
			continue
		}
		fits = append(fits, candidate{d: d, tenant: w.tenant})
	}
	if len(fits) == 0 {
		if h.Trunk != nil && h.Trunk.Deployment != "" {
			return nil, Room{}, fmt.Errorf("%w %q, to which trunk %s leads", ErrNoDeployment, h.Trunk.Deployment, h.Trunk.Name)
		}
		return nil, Room{}, fmt.Errorf("%w is configured", ErrNoDeployment)
	}
	within := "" // for texts
	if h.Trunk != nil && h.Trunk.Deployment != "" {
		within = fmt.Sprintf(" that trunk %s may use", h.Trunk.Name)
	}
	if w.host != "" {
		if fits, err = byHost(fits, w); err != nil {
			return nil, Room{}, err
		}
		if len(fits) == 0 {
			return nil, Room{}, fmt.Errorf("%w%s has the rooms of %s", ErrNoDeployment, within, shown(w.host))
		}
	}
	if w.domain != "" {
		fits = slices.DeleteFunc(fits, func(c candidate) bool { return !c.named(w.domain) })
		if len(fits) == 0 {
			return nil, Room{}, fmt.Errorf("%w%s has the domain %s", ErrNoDeployment, within, shown(w.domain))
		}
	}
	if h.Trunk != nil && h.Trunk.Tenant != "" {
		t, err := normalizeTenant(h.Trunk.Tenant)
		if err != nil {
			return nil, Room{}, fmt.Errorf("trunk %s: %w", h.Trunk.Name, err)
		}
		for i := range fits {
			if fits[i].tenant == "" && w.host == "" {
				fits[i].tenant = t
			}
		}
	}
	fits = slices.DeleteFunc(fits, func(c candidate) bool { return !c.serves() })
	if len(fits) == 0 {
		return nil, Room{}, fmt.Errorf("%w%s serves the tenant of this room", ErrNoDeployment, within)
	}
	// A deployment that lists the tenant comes before those that take any.
	if len(fits) > 1 {
		if listed := slices.DeleteFunc(slices.Clone(fits), func(c candidate) bool { return !c.lists() }); len(listed) > 0 {
			fits = listed
		}
	}
	if len(fits) > 1 {
		names := make([]string, len(fits))
		for i, c := range fits {
			names[i] = c.d.name
		}
		return nil, Room{}, fmt.Errorf("%w: the room could be of deployment %s: send a full room JID or a domain header, or give the trunk a deployment",
			ErrAmbiguous, strings.Join(names, " or "))
	}
	return fits[0].d, Room{Name: w.name, Tenant: fits[0].tenant}, nil
}

// wish is a Hints read.
type wish struct {
	name   string // normalised
	tenant string // by header or form of the name
	host   string // of a full room JID, lower case
	domain string // by header, lower case
}

func (h Hints) read() (wish, error) {
	var w wish
	var err error
	raw := strings.TrimSpace(h.Room)
	if raw == "" && h.Trunk != nil {
		raw = h.byNumber()
	}
	if raw == "" {
		return w, h.noRoom()
	}
	if len(raw) > maxRaw+maxHost {
		return w, fmt.Errorf("%w: %d bytes are too long", ErrBadRoom, len(raw))
	}
	if w.tenant, err = normalizeTenant(h.Tenant); err != nil {
		return w, err
	}
	if w.domain, err = host(h.Domain); err != nil {
		return w, fmt.Errorf("%w has the domain %s", ErrNoDeployment, shown(h.Domain))
	}

	name, tenant := raw, ""
	if node, at, isJID := strings.Cut(raw, "@"); isJID {
		at, _, _ = strings.Cut(at, "/") // an occupant's nick
		if w.host, err = host(at); err != nil || w.host == "" {
			return w, fmt.Errorf("%w: %s is no room JID", ErrBadRoom, shown(raw))
		}
		name = node // already as in a JID: nothing is dropped from it
	} else {
		if t, n, ok := strings.Cut(strings.TrimPrefix(raw, "/"), "/"); ok {
			tenant, name = t, n
			if tenant == "" || strings.Contains(name, "/") {
				return w, fmt.Errorf("%w: %s has more than a tenant and a room", ErrBadRoom, shown(raw))
			}
		} else {
			name = t
		}
	}
	if rest, ok := strings.CutPrefix(name, "["); ok {
		t, n, ok := strings.Cut(rest, "]")
		if !ok || t == "" || tenant != "" {
			return w, fmt.Errorf("%w: %s begins with no tenant", ErrBadRoom, shown(raw))
		}
		tenant, name = t, n
	}
	if w.host == "" {
		name = cleanRoom(name)
	}
	if w.name, err = NormalizeRoom(name); err != nil {
		return w, err
	}
	if tenant != "" {
		if tenant, err = normalizeTenant(tenant); err != nil {
			return w, err
		}
		if w.tenant != "" && w.tenant != tenant {
			return w, twoTenants(tenant, w.tenant)
		}
		w.tenant = tenant
	}
	return w, nil
}

// byNumber is the room that the trunk has for what was called: by rooms, by
// did, by the URI itself, else its default.
//
// The called number is the user part of the request URI. Where that is none of
// the trunk's, as with a carrier that puts the user of our registration there,
// To names it.
func (h Hints) byNumber() string {
	for _, called := range []string{h.User, h.To} {
		if room := h.Trunk.RoomFor(called); room != "" {
			return room
		}
	}
	if user := strings.TrimSpace(h.User); h.Trunk.URIRooms && user != "" {
		return user
	}
	return strings.TrimSpace(h.Trunk.DefaultRoom)
}

func (h Hints) noRoom() error {
	switch {
	case h.Trunk == nil:
		return fmt.Errorf("%w: the call names none", ErrNoRoom)
	case len(h.Trunk.Rooms)+len(h.Trunk.DID) > 0 && h.User != "":
		return fmt.Errorf("%w: the call has no room header, number %s is not in rooms or did of trunk %s, which has no default_room",
			ErrNoRoom, shown(h.User), h.Trunk.Name)
	}
	return fmt.Errorf("%w: the call has no room header, and trunk %s has no default_room", ErrNoRoom, h.Trunk.Name)
}

func twoTenants(a, b string) error {
	return fmt.Errorf("%w: the call names two tenants, %s and %s", ErrAmbiguous, a, b)
}

var errHost = errors.New("not a domain name")

// host checks and lowers a domain name; empty stays empty.
func host(raw string) (string, error) {
	h := strings.TrimSuffix(strings.ToLower(strings.TrimSpace(raw)), ".")
	if len(h) > maxHost || strings.HasPrefix(h, ".") || strings.Contains(h, "..") {
		return "", errHost
	}
	for _, r := range h {
		// Names beyond ASCII may be configured; what no name has may not.
		if r <= ' ' || r == 0x7f || r == 0xfffd || strings.ContainsRune(`"&'<>@/\[]%:`, r) {
			return "", errHost
		}
	}
	return h, nil
}

// candidate is a deployment that may be meant, with the tenant if it is.
type candidate struct {
	d      *Deployment
	tenant string
	length int // of the domain that matched
}

// byHost keeps the deployments that have the domain of a full room JID. The
// closest wins: for rooms of conference.meet.example, deployment meet.example
// comes before tenant meet of deployment example.
func byHost(fits []candidate, w wish) ([]candidate, error) {
	var out []candidate
	var conflict error
	for _, c := range fits {
		tenant, length, ok := c.d.snap.Load().hasHost(w.host)
		if !ok {
			continue
		}
		if tenant != "" {
			if w.tenant != "" && w.tenant != tenant {
				conflict = twoTenants(tenant, w.tenant)
				continue
			}
			c.tenant = tenant
		}
		c.length = length
		out = append(out, c)
	}
	if len(out) == 0 {
		return nil, conflict
	}
	best := out[0]
	for _, c := range out {
		if c.length > best.length {
			best = c
		}
	}
	return slices.DeleteFunc(out, func(c candidate) bool { return c.length < best.length }), nil
}

// hasHost says whether the host of a room JID is the deployment's: its MUC
// domain, with or without a tenant, or one of the same with another of the
// usual first labels, or just its domain. Length is that of the host without
// the tenant.
func (n *snapshot) hasHost(host string) (tenant string, length int, ok bool) {
	domain, muc := strings.ToLower(n.Domain), strings.ToLower(n.MUC)
	if host == muc || host == domain {
		return "", len(host), true
	}
	first, base, _ := strings.Cut(muc, ".")
	for _, prefix := range append([]string{first}, n.MUCPrefixes...) {
		rest, cut := strings.CutPrefix(host, strings.ToLower(prefix)+".")
		if !cut {
			continue
		}
		for _, b := range []string{domain, base} {
			if b == "" {
				continue
			}
			if rest == b {
				return "", len(host), true
			}
			t, cut := strings.CutSuffix(rest, "."+b)
			if !cut {
				continue
			}
			if t, err := normalizeTenant(t); err == nil && t != "" {
				return t, len(host) - len(t) - 1, true
			}
		}
	}
	return "", 0, false
}

// named says whether the domain header means the deployment.
func (c candidate) named(domain string) bool {
	return strings.EqualFold(c.d.Config().Domain, domain)
}

// lists says whether the deployment is configured with just this tenant.
func (c candidate) lists() bool {
	return c.tenant != "" && slices.ContainsFunc(c.d.Config().Tenants, func(t string) bool { return strings.EqualFold(t, c.tenant) })
}

// serves says whether the deployment takes the tenant.
func (c candidate) serves() bool {
	return c.tenant == "" || len(c.d.Config().Tenants) == 0 || c.lists()
}
