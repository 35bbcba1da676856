package brewery

import (
	"crypto/rand"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"brewline/config"
	"brewline/xmpp"
)

// maxToken bounds a token from a header, in bytes: it travels in a URL, and
// servers accept some 8 KiB of those.
const maxToken = 7 << 10

// Credentials are what a call brings along for its login.
type Credentials struct {
	Token  string // JSON web token; takes the place of the configured login
	UserID string // XMPP user that goes with the token; its domain is the one to log in at
}

// SessionOptions returns what xmpp.Dial needs for a session of a call, but for
// Handler and Disco: where to connect and how to log in. Sh is the shard, nil
// while only the balancer knows; loc is what Locate returned, or the zero
// Location for a leg at a shard found otherwise. Errors are
// [ErrCredentials] or in the configured TLS files.
func (d *Deployment) SessionOptions(sh *Shard, loc Location, r Room, c Credentials) (xmpp.Options, error) {
	var o xmpp.Options
	var err error
	switch {
	case loc.through(sh):
		o, err = d.snap.Load().reach(loc.URL)
	case sh == nil:
		return o, errors.New("session options: neither shard nor balancer")
	default:
		o, err = sh.conf.Load().reach(r.Tenant)
	}
	if err != nil {
		return o, fmt.Errorf("session options: %w", err)
	}
	o.Room = r.Name
	o.Logger = d.set.log
	if err := login(&o, d.effective(sh), r, c); err != nil {
		return o, fmt.Errorf("session options for %s: %w", r, err)
	}
	return o, nil
}

// reach is how to get to the balancer. A tenant is in the URL already.
func (n *snapshot) reach(addr string) (xmpp.Options, error) {
	o, err := connection(addr)
	o.TLS = n.tls.Clone()
	o.ShardHeader, o.Connections = n.ShardHeader, n.Connections
	return o, err
}

// reach is how to get to the shard. The tenant is given as the parameter that
// nginx would make of a folder: both nginx and a bare Prosody understand it.
func (c *shardConf) reach(tenant string) (xmpp.Options, error) {
	o, err := connection(c.URL)
	if err != nil {
		return o, err
	}
	if o.TLS, err = c.tlsConfig(); err != nil {
		return o, err
	}
	if tenant != "" {
		o.Query.Set("prefix", tenant)
	}
	o.ShardHeader, o.Connections = c.Effective.ShardHeader, c.Effective.Connections
	return o, nil
}

// connection takes the parameters off a URL.
func connection(addr string) (xmpp.Options, error) {
	u, err := url.Parse(addr)
	if err != nil {
		return xmpp.Options{}, err
	}
	q := u.Query()
	q.Del("room")
	q.Del("token")
	u.RawQuery = ""
	return xmpp.Options{
		URL: u.String(), Query: q,
		// Whoever writes an address without TLS, as inside one host or one
		// docker network, trusts the way there.
		AllowPlain: u.Scheme == "http" || u.Scheme == "ws",
	}, nil
}

// login fills in who to be.
func login(o *xmpp.Options, d *config.Deployment, r Room, c Credentials) error {
	l := &d.Login
	o.Domain = l.Domain
	if o.Domain == "" {
		o.Domain = d.Domain
	}
	if c.Token != "" {
		return withToken(o, d, c)
	}
	switch l.Kind {
	case config.LoginAnonymous, config.LoginGuest, "":
	case config.LoginAccount:
		o.Username, o.Password = l.Username, l.Password.Value()
	case config.LoginSharedSecret:
		// A user of its own for every session: Jitsi's lobby lets in whoever
		// has the bare JID of somebody it let in before.
		prefix := l.Username
		if prefix == "" {
			prefix = "brewline"
		}
		o.Username, o.Password = prefix+"-"+strings.ToLower(rand.Text()), l.Password.Value()
	case config.LoginJWT:
		if err := overHTTP(o); err != nil {
			return err
		}
		if l.JWT.Key == "" {
			return fmt.Errorf("%w: the login is a token, but the call brings none and no key is configured to make one", ErrCredentials)
		}
		token, err := mintToken(l.JWT, subject(d, r), r.Name, time.Now())
		if err != nil {
			return fmt.Errorf("%w: %w", ErrCredentials, err)
		}
		o.Token = token
	default:
		return fmt.Errorf("%w: login kind %q is not known", ErrCredentials, l.Kind)
	}
	return nil
}

// withToken logs in with the call's own token: anonymously, at the domain of
// the user that goes with it, or else at the one whose tokens are checked.
func withToken(o *xmpp.Options, d *config.Deployment, c Credentials) error {
	if err := overHTTP(o); err != nil {
		return err
	}
	if len(c.Token) > maxToken || strings.ContainsFunc(c.Token, notOfToken) {
		return fmt.Errorf("%w: what the call brings is no JSON web token", ErrCredentials)
	}
	o.Token = c.Token
	if k := d.Login.Kind; k != config.LoginJWT && k != config.LoginAnonymous && k != "" {
		o.Domain = d.Domain
	}
	if _, host, ok := strings.Cut(c.UserID, "@"); ok {
		id, err := xmpp.ParseJID(host)
		if err != nil {
			return fmt.Errorf("%w: the user id that the call brings is no JID: %w", ErrCredentials, err)
		}
		o.Domain = id.Domain
	}
	return nil
}

// subject is the tenant, unless one was configured (mod_auth_token compares it
// with the room's subdomain).
func subject(d *config.Deployment, r Room) string {
	s := d.Login.JWT.Subject
	if s != "" && !strings.EqualFold(s, d.Domain) {
		return s
	}
	if r.Tenant != "" {
		return r.Tenant
	}
	return d.Domain
}

func overHTTP(o *xmpp.Options) error {
	if strings.HasPrefix(o.URL, "xmpp") {
		return fmt.Errorf("%w: a token can only be sent in a BOSH or WebSocket URL, not to %s", ErrCredentials, o.URL)
	}
	return nil
}

// notOfToken: a JWS in compact form is base64url and dots (RFC 7515 §7.1).
func notOfToken(r rune) bool {
	return !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' ||
		r == '-' || r == '_' || r == '.' || r == '=')
}
