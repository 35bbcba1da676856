package brewery

import (
	"errors"
	"strings"
	"testing"

	"brewline/config"
)

func TestResolve(t *testing.T) {
	t.Parallel()
	cfg := conf([]config.Deployment{
		{Name: "prod", Domain: "meet.example", Tenants: []string{"acme", "Globex"}},
		{Name: "lab", Domain: "lab.example", MUC: "muc.lab.example"},
		{Name: "sub", Domain: "eu.lab.example"},
		{Name: "odd", Domain: "odd.example", MUC: "rooms.other.example"},
	})
	s := must(New(cfg, Options{}))(t)
	prod := &config.Trunk{Name: "pbx", Deployment: "prod", Rooms: map[string]string{
		"100": "Sales", "101": "acme/Sales", "102": "sales@conference.meet.example"}, DefaultRoom: "lobby"}
	any := &config.Trunk{Name: "any"}
	uri := &config.Trunk{Name: "uri", Deployment: "prod", URIRooms: true, DefaultRoom: "lobby"}
	acme := &config.Trunk{Name: "acme", Deployment: "prod", Tenant: "Acme"}

	for _, c := range []struct {
		h                        Hints
		deployment, room, tenant string
	}{
		{Hints{Trunk: prod, Room: "StandUp"}, "prod", "standup", ""},
		{Hints{Trunk: prod, Room: "Réunion"}, "prod", "r%c3%a9union", ""},
		{Hints{Trunk: prod, Room: "acme/Réunion"}, "prod", "r%c3%a9union", "acme"},
		{Hints{Trunk: prod, Room: "/standup"}, "prod", "standup", ""},
		{Hints{Trunk: prod, Room: "[ACME]standup"}, "prod", "standup", "acme"},
		{Hints{Trunk: prod, Room: "standup", Tenant: "globex"}, "prod", "standup", "globex"},
		{Hints{Trunk: prod, Room: "acme/standup", Tenant: "Acme"}, "prod", "standup", "acme"},
		{Hints{Trunk: acme, Room: "standup"}, "prod", "standup", "acme"},
		{Hints{Trunk: acme, Room: "globex/standup"}, "prod", "standup", "globex"},
		{Hints{Trunk: acme, Room: "standup@conference.meet.example"}, "prod", "standup", ""},
		// What a browser drops from the name.
		{Hints{Trunk: prod, Room: "John's room!"}, "prod", "johns%20room", ""},
		{Hints{Trunk: prod, Room: "standup?jwt=x#config"}, "prod", "standup", ""},
		{Hints{Trunk: prod, Room: "a%26b"}, "prod", "a%26b", ""},
		// Full room JIDs.
		{Hints{Trunk: any, Room: "StandUp@Conference.Meet.Example"}, "prod", "standup", ""},
		{Hints{Trunk: any, Room: "standup@conference.meet.example/nick"}, "prod", "standup", ""},
		{Hints{Trunk: any, Room: "standup@muc.meet.example"}, "prod", "standup", ""},
		{Hints{Trunk: any, Room: "standup@meet.example"}, "prod", "standup", ""},
		{Hints{Trunk: any, Room: "standup@conference.acme.meet.example"}, "prod", "standup", "acme"},
		{Hints{Trunk: any, Room: "[acme]standup@conference.meet.example"}, "prod", "standup", "acme"},
		{Hints{Trunk: any, Room: "standup@muc.lab.example."}, "lab", "standup", ""},
		{Hints{Trunk: any, Room: "standup@muc.anybody.lab.example"}, "lab", "standup", "anybody"},
		{Hints{Trunk: any, Room: "standup@conference.eu.lab.example"}, "sub", "standup", ""},
		{Hints{Trunk: any, Room: "standup@conference.t.eu.lab.example"}, "sub", "standup", "t"},
		{Hints{Trunk: any, Room: "standup@rooms.other.example"}, "odd", "standup", ""},
		{Hints{Trunk: any, Room: "standup@rooms.t.other.example"}, "odd", "standup", "t"},
		{Hints{Trunk: any, Room: "r%C3%A9union@conference.odd.example"}, "odd", "r%c3%a9union", ""},
		{Hints{Trunk: any, Room: "team!@conference.odd.example"}, "odd", "team!", ""},
		// Domain header and tenant select.
		{Hints{Trunk: any, Room: "standup", Domain: "LAB.example."}, "lab", "standup", ""},
		{Hints{Trunk: any, Room: "standup", Domain: "lab.example", Tenant: "t"}, "lab", "standup", "t"},
		{Hints{Trunk: any, Room: "standup", Tenant: "globex"}, "prod", "standup", "globex"},
		{Hints{Room: "standup@conference.odd.example"}, "odd", "standup", ""},
		// The trunk's rooms.
		{Hints{Trunk: prod, User: "100"}, "prod", "sales", ""},
		{Hints{Trunk: prod, User: "101"}, "prod", "sales", "acme"},
		{Hints{Trunk: prod, User: "102"}, "prod", "sales", ""},
		{Hints{Trunk: prod, User: "999"}, "prod", "lobby", ""},
		{Hints{Trunk: prod, User: "100", Room: "standup"}, "prod", "standup", ""},
		{Hints{Trunk: prod, User: "registered", To: "100"}, "prod", "sales", ""},
		{Hints{Trunk: prod, User: "100", To: "102"}, "prod", "sales", ""},
		{Hints{Trunk: uri, User: "acme/StandUp"}, "prod", "standup", "acme"},
		{Hints{Trunk: uri, User: "standup@conference.meet.example", To: "7"}, "prod", "standup", ""},
		{Hints{Trunk: uri, To: "7"}, "prod", "lobby", ""},
	} {
		d, r, err := s.Resolve(c.h)
		if err != nil {
			t.Errorf("%+v: %v", c.h, err)
			continue
		}
		if d.Name() != c.deployment || r != (Room{c.room, c.tenant}) {
			t.Errorf("%+v: %s %+v, want %s %s %s", c.h, d.Name(), r, c.deployment, c.room, c.tenant)
		}
	}

	for _, c := range []struct {
		h    Hints
		err  error
		text string
	}{
		{Hints{}, ErrNoRoom, "the call names none"},
		{Hints{Trunk: any, Room: " "}, ErrNoRoom, "trunk any has no default_room"},
		{Hints{Trunk: &config.Trunk{Name: "x", Rooms: map[string]string{"1": "a"}}, User: "2"}, ErrNoRoom, `number "2" is not in rooms`},
		{Hints{Trunk: prod, Room: "!!!"}, ErrBadRoom, "empty"},
		{Hints{Trunk: prod, Room: "a/b/c"}, ErrBadRoom, "more than a tenant and a room"},
		{Hints{Trunk: prod, Room: "https://meet.example/standup"}, ErrBadRoom, ""},
		{Hints{Trunk: prod, Room: "acme/"}, ErrBadRoom, "empty"},
		{Hints{Trunk: prod, Room: "[acme"}, ErrBadRoom, "tenant"},
		{Hints{Trunk: prod, Room: "a.b/standup"}, ErrBadRoom, "tenant"},
		{Hints{Trunk: prod, Room: "standup", Tenant: "a/../b"}, ErrBadRoom, "tenant"},
		{Hints{Trunk: prod, Room: "standup@"}, ErrBadRoom, "room JID"},
		{Hints{Trunk: prod, Room: "@conference.meet.example"}, ErrBadRoom, "empty"},
		{Hints{Trunk: prod, Room: "a@b@c"}, ErrBadRoom, "room JID"},
		{Hints{Trunk: prod, Room: "it%27s@conference.meet.example"}, ErrBadRoom, "apostrophe"},
		{Hints{Trunk: prod, Room: strings.Repeat("x", 9000)}, ErrBadRoom, "too long"},
		{Hints{Trunk: &config.Trunk{Name: "x", Deployment: "gone"}, Room: "a"}, ErrNoDeployment, `"gone", to which trunk x leads`},
		{Hints{Trunk: prod, Room: "standup@muc.lab.example"}, ErrNoDeployment, "trunk pbx may use"},
		{Hints{Trunk: prod, Room: "standup", Domain: "lab.example"}, ErrNoDeployment, `domain "lab.example"`},
		{Hints{Trunk: any, Room: "standup@conference.nowhere.test"}, ErrNoDeployment, "nowhere.test"},
		{Hints{Trunk: any, Room: "standup@conference.a.b.meet.example"}, ErrNoDeployment, ""},
		{Hints{Trunk: any, Room: "standup", Domain: "bad domain"}, ErrNoDeployment, ""},
		{Hints{Trunk: any, Room: "standup@conference.meet.example", Domain: "lab.example"}, ErrNoDeployment, "lab.example"},
		{Hints{Trunk: prod, Room: "umbrella/standup"}, ErrNoDeployment, "tenant"},
		{Hints{Trunk: any, Room: "standup"}, ErrAmbiguous, "prod or lab or sub or odd"},
		{Hints{Trunk: prod, Room: "acme/standup", Tenant: "globex"}, ErrAmbiguous, "two tenants"},
		{Hints{Trunk: any, Room: "s@conference.acme.meet.example", Tenant: "globex"}, ErrAmbiguous, "two tenants"},
	} {
		d, r, err := s.Resolve(c.h)
		if d != nil || !errors.Is(err, c.err) || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%+v: %v %v, error %v; want %v with %q", c.h, d, r, err, c.err, c.text)
		}
	}
}

// Two deployments may have the very same names: only the trunk tells them apart.
func TestResolveEqualDomains(t *testing.T) {
	t.Parallel()
	s := must(New(conf([]config.Deployment{{Name: "a", Tenants: []string{"x"}}, {Name: "b"}}), Options{}))(t)
	if _, _, err := s.Resolve(Hints{Room: "r@conference.meet.example"}); !errors.Is(err, ErrAmbiguous) {
		t.Errorf("error %v, want ambiguous", err)
	}
	for name, h := range map[string]Hints{
		"a": {Room: "r@conference.x.meet.example"},
		"b": {Room: "y/r"},
	} {
		if d, _, err := s.Resolve(h); err != nil || d.Name() != name {
			t.Errorf("%+v: %v, want deployment %s", h, err, name)
		}
	}
	if d, _, err := s.Resolve(Hints{Trunk: &config.Trunk{Deployment: "b"}, Room: "x/r"}); err != nil || d.Name() != "b" {
		t.Errorf("the trunk's deployment was not taken: %v", err)
	}
}

func TestResolveWithoutDeployments(t *testing.T) {
	t.Parallel()
	s := must(New(conf(nil), Options{}))(t)
	if _, _, err := s.Resolve(Hints{Room: "r"}); !errors.Is(err, ErrNoDeployment) {
		t.Errorf("error %v", err)
	}
}

func FuzzResolve(f *testing.F) {
	f.Add("standup", "meet.example", "", "")
	f.Add("[t]R@conference.meet.example/x", "", "t", "acme")
	f.Add("a/b", "x..y", "T", "")
	f.Add("é@muc.é.lab.example", "", "%", "1")
	s, err := New(conf([]config.Deployment{
		{Name: "prod", Tenants: []string{"acme"}},
		{Name: "lab", Domain: "lab.example", MUC: "muc.lab.example"},
	}, config.Shard{Name: "s"}), Options{})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, room, domain, tenant, number string) {
		for _, trunk := range []*config.Trunk{nil, {Name: "t", Deployment: "lab", Rooms: map[string]string{"1": "R"}}} {
			d, r, err := s.Resolve(Hints{Trunk: trunk, Room: room, Domain: domain, Tenant: tenant, User: number})
			if err != nil {
				if !errors.Is(err, ErrNoRoom) && !errors.Is(err, ErrNoDeployment) && !errors.Is(err, ErrAmbiguous) {
					t.Fatalf("untyped error %v", err)
				}
				if len(err.Error()) > 1000 || strings.ContainsAny(err.Error(), "\r\n\x00") {
					t.Fatalf("error is not for a header: %q", err)
				}
				continue
			}
			j := d.RoomJID(r, nil)
			// The room JID leads back to the room.
			back, again, err := s.Resolve(Hints{Room: j.String()})
			if err != nil || back != d || again != r {
				t.Fatalf("%q %q %q: %s of %s, but %s is %v of %v, %v", room, domain, tenant, r, d.Name(), j, again, back, err)
			}
		}
	})
}
