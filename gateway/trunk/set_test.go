package trunk

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"brewline/config"
	"brewline/sip"
)

// fakeUA answers as a test says.
type fakeUA struct {
	mu     sync.Mutex
	answer map[string]error  // of OPTIONS, by URI
	asked  map[string]int    // OPTIONS, by URI
	proxy  map[string]string // that they went through
	names  map[string][]string
	regs   map[string]*fakeRegistration
	order  []string // "+registrar", "-registrar"
}

type fakeRegistration struct {
	o    sip.RegisterOptions
	over bool
}

func newFakeUA() *fakeUA {
	return &fakeUA{answer: map[string]error{}, asked: map[string]int{}, proxy: map[string]string{}, names: map[string][]string{}, regs: map[string]*fakeRegistration{}}
}

func (u *fakeUA) Options(_ context.Context, uri, proxy, _ string) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.asked[uri]++
	u.proxy[uri] = proxy
	return u.answer[uri]
}

func (u *fakeUA) Resolve(_ context.Context, uri string) (out []netip.AddrPort, err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.names[uri] == nil {
		return nil, errors.New("no such name")
	}
	for _, a := range u.names[uri] {
		out = append(out, netip.AddrPortFrom(netip.MustParseAddr(a), 5060))
	}
	return out, nil
}

func (u *fakeUA) Register(ctx context.Context, o sip.RegisterOptions) {
	r := &fakeRegistration{o: o}
	u.mu.Lock()
	u.regs[o.Registrar] = r
	u.order = append(u.order, "+"+o.Registrar)
	u.mu.Unlock()
	<-ctx.Done()
	u.mu.Lock()
	defer u.mu.Unlock()
	r.over = true
	u.order = append(u.order, "-"+o.Registrar)
}

func (u *fakeUA) set(uri string, err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.answer[uri] = err
}

// tell tells the outcome of a registration.
func (u *fakeUA) tell(t *testing.T, registrar string, r sip.Registration) {
	t.Helper()
	var reg *fakeRegistration
	await(t, registrar+" is asked", func() bool {
		u.mu.Lock()
		defer u.mu.Unlock()
		reg = u.regs[registrar]
		return reg != nil && !reg.over
	})
	reg.o.Changed(r)
}

func await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
	}
}

func (s *Set) state(name string) State {
	for _, st := range s.Status() {
		if st.Trunk == name {
			return st.State
		}
	}
	return "gone"
}

func start(t *testing.T, u *fakeUA, changed func(), trunks ...config.Trunk) *Set {
	t.Helper()
	s := New(Options{Changed: changed, ProbeTimeout: time.Second, ProbeAgain: time.Millisecond, ProbeDown: time.Millisecond, ResolveEvery: time.Millisecond})
	s.Start(u, &config.Config{Trunks: trunks})
	t.Cleanup(s.Close)
	return s
}

var every = config.Duration{Duration: time.Millisecond}

// A peer is down when it is silent twice, at once when it says 503, and up at
// its next answer, whatever that is.
func TestProbe(t *testing.T) {
	t.Parallel()
	u := newFakeUA()
	changes := make(chan struct{}, 100)
	s := start(t, u, func() { changes <- struct{}{} },
		config.Trunk{Name: "in"},
		config.Trunk{Name: "unasked", Address: "sip:unasked"},
		config.Trunk{Name: "pbx", Address: "sip:pbx", Proxy: "sip:proxy", Probe: every})
	if got := []State{s.state("in"), s.state("unasked")}; !slices.Equal(got, []State{Receives, Unprobed}) || s.Down("in") || s.Down("nobody") {
		t.Errorf("%v", got)
	}
	for _, tt := range []struct {
		name   string
		answer error
		want   State
	}{
		{"an answer", nil, Reachable},
		{"silence", sip.ErrTimeout, Unreachable},
		{"404", &sip.StatusError{Code: 404}, Reachable},
		{"503", &sip.StatusError{Code: 503, Phrase: "Full"}, Unreachable},
		{"500", &sip.StatusError{Code: 500}, Reachable},
		{"408", &sip.StatusError{Code: 408}, Unreachable},
		{"an answer again", nil, Reachable},
	} {
		u.set("sip:pbx", tt.answer)
		await(t, tt.name+" makes it "+string(tt.want), func() bool { return s.state("pbx") == tt.want })
		if s.Down("pbx") != (tt.want == Unreachable) {
			t.Errorf("%s: down %v", tt.name, s.Down("pbx"))
		}
	}
	await(t, "six changes told", func() bool { return len(changes) == 6 })
	u.mu.Lock()
	defer u.mu.Unlock()
	if st := s.Status(); len(st) != 3 || st[2].Trunk != "pbx" || u.proxy["sip:pbx"] != "sip:proxy" || u.asked["sip:unasked"] != 0 {
		t.Errorf("%+v, %v, %v", st, u.proxy, u.asked)
	}
}

// One lost probe is no news.
func TestProbeOnce(t *testing.T) {
	t.Parallel()
	u := newFakeUA()
	once := &onceUA{fakeUA: u}
	s := New(Options{ProbeAgain: time.Millisecond})
	s.Start(once, &config.Config{Trunks: []config.Trunk{{Name: "pbx", Address: "sip:pbx", Probe: every}}})
	defer s.Close()
	await(t, "many probes", func() bool {
		if s.Down("pbx") {
			t.Error("down")
		}
		u.mu.Lock()
		defer u.mu.Unlock()
		return u.asked["sip:pbx"] > 20
	})
}

// onceUA loses every second probe.
type onceUA struct {
	*fakeUA
	lost bool
}

func (u *onceUA) Options(ctx context.Context, uri, proxy, trunk string) error {
	if u.lost = !u.lost; u.lost {
		return context.DeadlineExceeded
	}
	return u.fakeUA.Options(ctx, uri, proxy, trunk)
}

// A trunk that registers works while one of its registrars has it, and what
// the registrars' names stand for is let in.
func TestRegistrations(t *testing.T) {
	t.Parallel()
	u := newFakeUA()
	u.names["sip:one"], u.names["sip:two"] = []string{"192.0.2.1", "2001:db8::1"}, []string{"192.0.2.2"}
	u.names["sip:peer"] = []string{"192.0.2.3"}
	s := start(t, u, nil, config.Trunk{
		Name: "carrier", Register: []string{"sip:one", "sip:two"}, Username: "gw", Password: "secret", Address: "sip:peer",
		FromUser: "4930123", FromDomain: "carrier.example", Expires: config.Duration{Duration: time.Hour},
	}, config.Trunk{Name: "second", Register: []string{"sip:three"}, Username: "gw2"})
	if got := s.state("carrier"); got != Trying || s.Down("carrier") {
		t.Errorf("%v", got)
	}
	u.tell(t, "sip:one", sip.Registration{Err: errors.New("403 no")})
	if got := s.state("carrier"); got != Trying {
		t.Errorf("one of two has failed: %v", got)
	}
	u.tell(t, "sip:two", sip.Registration{Err: sip.ErrTimeout})
	if st := s.Status()[0]; st.State != Unregistered || !strings.Contains(st.Reason, "sip:one: 403 no") || !strings.Contains(st.Reason, "sip:two") || !s.Down("carrier") {
		t.Errorf("both have failed: %+v", st)
	}
	until := time.Now().Add(time.Hour)
	u.tell(t, "sip:two", sip.Registration{Until: until, Address: netip.MustParseAddrPort("192.0.2.77:5060")})
	st := s.Status()[0]
	if st.State != Registered || st.Reason != "" || st.Registrars[0].Registered || st.Registrars[0].Reason != "403 no" || !st.Registrars[1].Registered {
		t.Errorf("one has it: %+v", st)
	}
	u.mu.Lock()
	o := u.regs["sip:two"].o
	u.mu.Unlock()
	if o.User != "4930123" || o.Host != "carrier.example" || o.Username != "gw" || o.Password != "secret" || o.Contact != "gw" || o.Expires != time.Hour {
		t.Errorf("%+v", o)
	}
	for _, a := range []string{"192.0.2.1", "::ffff:192.0.2.1", "2001:db8::1", "192.0.2.2", "192.0.2.3"} {
		await(t, a+" is let in", func() bool { name, ok := s.Match(netip.MustParseAddr(a)); return ok && name == "carrier" })
	}
	if _, ok := s.Match(netip.MustParseAddr("192.0.2.4")); ok {
		t.Error("a stranger is let in")
	}
	u.mu.Lock()
	u.names["sip:two"] = []string{"192.0.2.22"}
	u.mu.Unlock()
	await(t, "the name leads elsewhere", func() bool {
		_, old := s.Match(netip.MustParseAddr("192.0.2.2"))
		_, now := s.Match(netip.MustParseAddr("192.0.2.22"))
		return now && !old
	})
	u.tell(t, "sip:two", sip.Registration{Err: sip.ErrTimeout})
	if !s.Down("carrier") || s.Down("second") {
		t.Errorf("%+v", s.Status())
	}
}

// Trunks that register at one address are told apart by what they register.
func TestCalled(t *testing.T) {
	t.Parallel()
	u := newFakeUA()
	u.names["sip:one"], u.names["sip:two"], u.names["sip:three"] = []string{"192.0.2.1"}, []string{"192.0.2.1"}, []string{"192.0.2.3"}
	s := start(t, u, nil,
		config.Trunk{Name: "one", Register: []string{"sip:one"}, Username: "4930100"},
		config.Trunk{Name: "two", Register: []string{"sip:two"}, Username: "4930200"},
		config.Trunk{Name: "three", Register: []string{"sip:three"}, FromUser: "4930300"},
		config.Trunk{Name: "four", Register: []string{"sip:three"}, Username: "4930300"})
	for _, tt := range []struct{ addr, user, want string }{
		{"192.0.2.1", "4930100", "one"}, {"::ffff:192.0.2.1", "4930200", "two"}, {"192.0.2.3", "4930300", "three"},
		{"192.0.2.3", "4930200", ""}, {"192.0.2.1", "4930300", ""}, {"192.0.2.1", "", ""}, {"192.0.2.9", "4930100", ""},
	} {
		await(t, tt.user+" at "+tt.addr+" is for "+tt.want, func() bool {
			name, ok := s.Called(netip.MustParseAddr(tt.addr), tt.user)
			return name == tt.want && ok == (tt.want != "")
		})
	}
	if name, ok := s.Match(netip.MustParseAddr("192.0.2.1")); !ok || name != "one" {
		t.Errorf("others are for %q", name)
	}
	s.Apply(&config.Config{Trunks: []config.Trunk{{Name: "one", Register: []string{"sip:one"}, Username: "4930100"}}})
	if name, ok := s.Called(netip.MustParseAddr("192.0.2.1"), "4930200"); ok {
		t.Errorf("a trunk that is gone: %q", name)
	}
}

// A reload leaves alone what has not changed, and takes back what has before
// it registers anew.
func TestApply(t *testing.T) {
	t.Parallel()
	u := newFakeUA()
	u.names["sip:one"] = []string{"192.0.2.1"}
	one := config.Trunk{Name: "one", Register: []string{"sip:one"}, Username: "gw", Password: "secret"}
	two := config.Trunk{Name: "two", Register: []string{"sip:two"}, Username: "gw"}
	s := start(t, u, nil, one, two)
	u.tell(t, "sip:one", sip.Registration{Until: time.Now().Add(time.Hour)})
	u.tell(t, "sip:two", sip.Registration{Until: time.Now().Add(time.Hour)})
	await(t, "the registrar is let in", func() bool { _, ok := s.Match(netip.MustParseAddr("192.0.2.1")); return ok })
	one.Codecs = []string{"pcma"} // has nothing to do with it
	s.Apply(&config.Config{Trunks: []config.Trunk{two, one}})
	if st := s.Status(); len(st) != 2 || st[0].Trunk != "two" || st[1].State != Registered {
		t.Errorf("%+v", st)
	}
	one.Password = "other"
	s.Apply(&config.Config{Trunks: []config.Trunk{one}})
	if _, ok := s.Match(netip.MustParseAddr("192.0.2.1")); !ok {
		t.Error("the registrar is not let in while the trunk registers anew")
	}
	await(t, "it registers anew", func() bool {
		u.mu.Lock()
		defer u.mu.Unlock()
		return u.regs["sip:one"].o.Password == "other"
	})
	u.tell(t, "sip:one", sip.Registration{Until: time.Now().Add(time.Hour)})
	if s.state("one") != Registered || s.state("two") != "gone" {
		t.Errorf("%+v", s.Status())
	}
	s.Apply(&config.Config{})
	await(t, "all is taken back", func() bool {
		u.mu.Lock()
		defer u.mu.Unlock()
		return len(u.order) == 6
	})
	if _, ok := s.Match(netip.MustParseAddr("192.0.2.1")); ok {
		t.Error("the registrar of a trunk that is gone is let in")
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	ones := slices.DeleteFunc(slices.Clone(u.order), func(s string) bool { return s[1:] != "sip:one" })
	if !slices.Equal(ones, []string{"+sip:one", "-sip:one", "+sip:one", "-sip:one"}) {
		t.Errorf("%v", u.order)
	}
}

func TestUnregister(t *testing.T) {
	t.Parallel()
	u := newFakeUA()
	u.names["sip:one"] = []string{"192.0.2.1"}
	s := start(t, u, nil, config.Trunk{Name: "one", Register: []string{"sip:one"}, Username: "gw"})
	u.tell(t, "sip:one", sip.Registration{Until: time.Now().Add(time.Hour)})
	await(t, "the registrar is let in", func() bool { _, ok := s.Match(netip.MustParseAddr("192.0.2.1")); return ok })
	s.Unregister()
	s.Apply(&config.Config{}) // too late
	s.Close()
	if st := s.Status(); len(st) != 1 || st[0].Registrars[0].Registered {
		t.Errorf("%+v", st)
	}
	if _, ok := s.Match(netip.MustParseAddr("192.0.2.1")); !ok {
		t.Error("calls that go on are not heard any more")
	}
}
