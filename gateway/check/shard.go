package check

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"brewline/brewery"
	"brewline/config"
	"brewline/gateway/conference"
	"brewline/media"
	"brewline/media/transport"
	"brewline/xmpp"
	"brewline/xmpp/bosh"
)

// headerTries is how many connections must agree on the shard they reach.
const headerTries = 4

// checker goes through one shard.
type checker struct {
	ctx   context.Context
	o     Options
	cfg   *config.Config
	shard *config.Shard
	set   *brewery.Set
	ports *transport.Ports
	say   func(Result)
}

// steps in the order in which a call needs them. A step may tell further ones
// that it went through on its way.
func (c *checker) run() {
	steps := []struct {
		name string
		do   func(context.Context) Result
		need bool // nothing after it can work without it
	}{
		{"reachable", c.reachable, true},
		{"control login", c.control, false},
		{"call login", c.call, true},
		{"conference request", c.conference, true},
	}
	broken := ""
	for _, s := range steps {
		if broken != "" {
			c.tell(s.name, Result{Status: Skip, Detail: "after the failure of: " + broken})
			continue
		}
		ctx, cancel := context.WithTimeout(c.ctx, c.o.Timeout)
		began := time.Now()
		r := s.do(ctx)
		cancel()
		r.Took = time.Since(began)
		if r.Step == "" {
			r.Step = s.name
		}
		c.tell(r.Step, r)
		if r.Status == Fail && s.need {
			broken = r.Step
		}
	}
}

func (c *checker) tell(step string, r Result) {
	r.Subject, r.Step = "shard "+c.shard.Name, step
	c.say(r)
}

// reachable asks the URL several times over new connections: TLS, and that it
// is the same shard every time.
func (c *checker) reachable(ctx context.Context) Result {
	u, err := url.Parse(c.shard.URL)
	if err != nil {
		return Result{Status: Fail, Detail: err.Error(), Remedy: "correct the shard's url"}
	}
	if u.Scheme != "http" && u.Scheme != "https" {
		return Result{Status: Skip, Detail: u.Scheme + " is checked by logging in"}
	}
	tc, err := c.shard.TLS.Config()
	if err != nil {
		return Result{Status: Fail, Detail: err.Error(), Remedy: "correct the shard's tls keys"}
	}
	want, seen := c.shard.HeaderValue, map[string]bool{}
	for range headerTries {
		t := &http.Transport{TLSClientConfig: tc, DisableKeepAlives: true}
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.shard.URL, nil)
		if err != nil {
			return Result{Status: Fail, Detail: err.Error(), Remedy: "correct the shard's url"}
		}
		resp, err := t.RoundTrip(req)
		if err != nil {
			return unreachable(err)
		}
		resp.Body.Close()
		if resp.StatusCode >= 300 {
			return Result{Status: Fail, Detail: fmt.Sprintf("GET %s: %s", c.shard.URL, resp.Status),
				Remedy: "the url must be Prosody's BOSH address, usually …/http-bind"}
		}
		seen[resp.Header.Get(c.shard.Effective.ShardHeader)] = true
	}
	header := c.shard.Effective.ShardHeader
	switch {
	case len(seen) > 1:
		return Result{Status: Fail, Detail: fmt.Sprintf("%s differs from request to request: %s", header, keys(seen)),
			Remedy: "the url leads through a balancer; give the address of this one shard"}
	case seen[""]:
		return Result{Status: OK, Detail: "no " + header + " header, so that it cannot be told whether it is always this shard",
			Remedy: "with several shards, let each web server send " + header + " (docker: DEPLOYMENTINFO_SHARD)"}
	case !seen[want]:
		return Result{Status: Fail, Detail: fmt.Sprintf("%s says %s, header_value is %q", header, keys(seen), want),
			Remedy: "the url leads to another shard, or header_value must be what the shard calls itself"}
	}
	return Result{Status: OK, Detail: fmt.Sprintf("%s is %q on %d connections", header, want, headerTries)}
}

func unreachable(err error) Result {
	return Result{Status: Fail, Detail: err.Error(), Remedy: remedy(err, "shard's url", "check url (http or https?), DNS and firewall")}
}

func keys(m map[string]bool) string {
	var out []string
	for k := range m {
		out = append(out, fmt.Sprintf("%q", k))
	}
	return strings.Join(out, ", ")
}

// control logs in with the shard's account and goes on to the brewery.
func (c *checker) control(ctx context.Context) Result {
	if c.shard.Username == "" {
		return Result{Status: Skip, Detail: "no username: the control session logs in as calls do, and there is no dial-out"}
	}
	tc, err := c.shard.TLS.Config()
	if err != nil {
		return Result{Status: Fail, Detail: err.Error()}
	}
	s, err := xmpp.Dial(ctx, xmpp.Options{
		URL: c.shard.URL, Domain: c.shard.AuthDomain, Username: c.shard.Username, Password: c.shard.Password.Value(),
		TLS: tc, Logger: c.o.Logger,
	})
	if err != nil {
		return c.loginFailed(err, fmt.Sprintf("correct username and password, or create the account: prosodyctl register %s %s PASSWORD",
			c.shard.Username, c.shard.AuthDomain))
	}
	defer s.Close()
	c.tell("control login", Result{Status: OK, Detail: "as " + s.JID().Bare().String()})
	r := c.brewery(ctx, s)
	r.Step = "brewery"
	return r
}

// brewery joins the brewery MUC and looks for Jicofo in it.
func (c *checker) brewery(ctx context.Context, s *xmpp.Session) Result {
	room, err := xmpp.ParseJID(c.shard.Brewery)
	if err != nil {
		return Result{Status: Fail, Detail: err.Error(), Remedy: "correct the shard's brewery"}
	}
	r, err := s.Join(ctx, xmpp.RoomOptions{Room: room, Nick: "check" + random(4), FocusNick: c.shard.Effective.FocusNick})
	if err != nil {
		return Result{Status: Fail, Detail: fmt.Sprintf("cannot join %s: %v", room, err),
			Remedy: "the brewery must be the jicofo.jigasi.brewery-jid of this shard, and its MUC open to the auth domain"}
	}
	defer r.Leave()
	if !r.Focus() {
		return Result{Status: Warn, Detail: fmt.Sprintf("in %s, but Jicofo is not there", room),
			Remedy: "set jicofo.jigasi.brewery-jid to it in jicofo.conf; calls come in all the same"}
	}
	return Result{Status: OK, Detail: fmt.Sprintf("in %s with Jicofo", room)}
}

func (c *checker) loginFailed(err error, account string) Result {
	r := Result{Status: Fail, Detail: err.Error()}
	var status *bosh.StatusError
	switch {
	case errors.Is(err, xmpp.ErrAuth):
		r.Remedy = account
	case errors.Is(err, xmpp.ErrDomain):
		r.Remedy = "the domain is no virtual host of this Prosody: correct domain, auth_domain or login.domain"
	case errors.Is(err, xmpp.ErrTLS):
		r.Remedy = remedy(err, "shard's url", "give tls.ca or tls.server_name, or let the server have a certificate for this name")
	case errors.As(err, &status):
		r.Remedy = "the url must be Prosody's address for BOSH or WebSocket, usually …/http-bind or …/xmpp-websocket"
	default:
		r.Remedy = remedy(err, "shard's url", "check that Prosody runs and that nothing between cuts the connection")
	}
	return r
}

// session is what a call to the probe room would log in with.
func (c *checker) session(room brewery.Room) (*brewery.Deployment, *brewery.Shard, xmpp.Options, error) {
	d := c.set.Deployment(c.shard.Deployment)
	loc, err := d.Locate(c.ctx, room, c.shard.Name) // told: asks nobody
	if err != nil {
		return nil, nil, xmpp.Options{}, err
	}
	xo, err := d.SessionOptions(loc.Shard, loc, room, brewery.Credentials{})
	return d, loc.Shard, xo, err
}

func probeRoom() brewery.Room { return brewery.Room{Name: "brewline-check-" + random(4)} }

// call logs in as a call does.
func (c *checker) call(ctx context.Context) Result {
	_, _, xo, err := c.session(probeRoom())
	if err != nil {
		return Result{Status: Fail, Detail: err.Error(), Remedy: "correct the deployment's login"}
	}
	xo.Logger = c.o.Logger
	began := time.Now()
	s, err := xmpp.Dial(ctx, xo)
	if err != nil {
		return c.loginFailed(err, "correct the deployment's login: kind, domain, username and password or token")
	}
	defer s.Close()
	return Result{Status: OK, Detail: fmt.Sprintf("as %s in %s", s.JID().Bare(), time.Since(began).Round(time.Millisecond))}
}

// conference opens a probe room with two participants, as Jicofo invites
// nobody who is alone, and goes on to the videobridge. Each of these steps has
// the time of one: a videobridge is slow to serve its first conference.
func (c *checker) conference(context.Context) Result {
	ctx, cancel := context.WithCancel(c.ctx)
	defer cancel()
	overdue := time.NewTimer(c.o.Timeout)
	defer overdue.Stop()
	room := probeRoom()
	d, sh, xo, err := c.session(room)
	if err != nil {
		return Result{Status: Fail, Detail: err.Error()}
	}
	eff := c.shard.Effective
	events := make(chan conference.Event, 256)
	start := func() *conference.Leg {
		return conference.Start(ctx, conference.Options{
			Session: xo, Focus: xmpp.JID{Domain: eff.Focus}, FocusNick: eff.FocusNick,
			Room: d.RoomJID(room, sh), DisplayName: "Brewline check", Audio: deaf{},
			Transport: transport.ConferenceOptions{
				Ports: c.ports, Bind: c.cfg.Media.Conference.Bind, Advertise: c.cfg.Media.Conference.Advertise,
			},
			Timers: conference.Timers{HostWait: time.Second, HostRetry: 500 * time.Millisecond},
			Logger: c.o.Logger,
			On: func(e conference.Event) {
				select {
				case events <- e:
				default: // far more than a probe has
				}
			},
		})
	}
	first := start()
	defer func() { first.Leave(); <-first.Done() }()
	var second *conference.Leg
	defer func() {
		if second != nil {
			second.Leave()
			<-second.Done()
		}
	}()
	step, moderator := "conference request", false
	for {
		select {
		case e := <-events:
			switch e := e.(type) {
			case conference.Joined:
				if second == nil {
					c.tell(step, Result{Status: OK, Detail: "Jicofo opened the probe room, and we joined it"})
					step = "invitation"
					overdue.Reset(c.o.Timeout)
					second = start()
				}
			case conference.Invited:
				if step == "invitation" {
					c.tell(step, Result{Status: OK, Detail: "Jicofo invited us with a videobridge"})
					step = "videobridge"
					overdue.Reset(c.o.Timeout)
				}
			case conference.Moderator:
				moderator = true
			case conference.MediaUp:
				c.tell("videobridge", Result{Status: OK, Detail: "ICE and DTLS connected, " + e.Profile})
				return c.moderator(moderator)
			case conference.Ended:
				return c.conferenceFailed(step, e.Err)
			}
		case <-overdue.C:
			return c.conferenceFailed(step, fmt.Errorf("nothing within %s", c.o.Timeout))
		case <-ctx.Done():
			return c.conferenceFailed(step, ctx.Err())
		}
	}
}

// moderator tells whether Jicofo trusts our callers not to be moderators.
func (c *checker) moderator(made bool) Result {
	if !made {
		return Result{Step: "moderator", Status: OK, Detail: "Jicofo leaves our caller an ordinary participant"}
	}
	return Result{Step: "moderator", Status: Warn,
		Detail: "Jicofo made our caller a moderator, as it does with whoever comes first",
		Remedy: fmt.Sprintf("give calls a virtual host of their own in Prosody, for example gateway.%s with jitsi-shared-secret, "+
			"set login.domain to it and add it to jicofo.xmpp.trusted-domains (now they log in at %s)",
			c.shard.Effective.Domain, c.shard.Effective.Login.Domain)}
}

func (c *checker) conferenceFailed(step string, err error) Result {
	r := Result{Step: step, Status: Fail, Detail: err.Error()}
	switch {
	case errors.Is(err, conference.ErrHostAbsent):
		r.Status = Warn
		r.Detail = "Jicofo opens rooms only for authenticated users: callers wait for the host"
		r.Remedy = "that is right for a secure domain; to let callers open rooms, use login.kind account or shared_secret"
	case errors.Is(err, conference.ErrNoFocus):
		r.Remedy = "Jicofo does not answer at " + c.shard.Effective.Focus + ": check that it runs, and the keys focus and muc (" + c.shard.Effective.MUC + ")"
	case errors.Is(err, conference.ErrMedia), step == "videobridge":
		r.Remedy = "no UDP way to the videobridge: open its port (10000/udp) for this host, and set media.conference.advertise if this host is behind NAT"
	case errors.Is(err, conference.ErrNotAllowed), errors.Is(err, conference.ErrRoomNotOpen):
		r.Remedy = "Prosody refuses the room: check muc, token settings and the rights of the login"
	default:
		r.Remedy = "see the shard's Jicofo log for the room brewline-check-…; without a videobridge Jicofo invites nobody"
	}
	return r
}

// deaf is the audio of a probe.
type deaf struct{}

func (deaf) Attach(media.ConferenceLeg) error { return nil }
func (deaf) Detach(media.ConferenceLeg)       {}
func (deaf) DropSource(uint32)                {}

func random(bytes int) string {
	b := make([]byte, bytes)
	rand.Read(b) // never fails (crypto/rand)
	return hex.EncodeToString(b)
}
