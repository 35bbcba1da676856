package xmppd

import (
	"crypto/tls"
	"log/slog"
	"time"
)

// HostKind says how a virtual host authenticates.
type HostKind int

// The kinds of virtual host that Jitsi deployments have.
const (
	// Anonymous offers SASL ANONYMOUS; a token in the URL is recorded and,
	// with Options.CheckToken, verified.
	Anonymous HostKind = iota
	// Accounts offers PLAIN and SCRAM-SHA-1 for the accounts of Options.Accounts.
	Accounts
	// SharedSecret offers PLAIN and SCRAM-SHA-1: any user name with Host.Secret
	// (mod_auth_jitsi-shared-secret).
	SharedSecret
)

// Host is a further virtual host.
type Host struct {
	Domain string
	Kind   HostKind
	Secret string // SharedSecret only
	Admin  bool   // its users are owners of every room and pass lobby and password
}

// Token is what a client's URL said about who it is.
type Token struct {
	Token  string // ?token=
	Room   string // ?room=
	Prefix string // tenant
}

// Options of a Server. The zero value of every field has a working default.
type Options struct {
	Domain      string // main virtual host, default "meet.example"
	AuthDomain  string // host of accounts, default "auth."+Domain
	GuestDomain string // anonymous host for guests, default "guest."+Domain
	MUC         string // conferences, default "conference."+Domain
	InternalMUC string // breweries, default "internal.auth."+Domain
	Lobby       string // lobby rooms, default "lobby."+Domain
	Focus       string // address clients send conference requests to, default "focus."+Domain

	MainKind HostKind // how Domain authenticates, default Anonymous
	Hosts    []Host   // further virtual hosts
	// Accounts maps "user@domain" (or "user", meaning AuthDomain) to a password.
	Accounts map[string]string
	// Admins are bare JIDs or domains that own every room. The focus component
	// and its users always are.
	Admins []string
	// CheckToken judges the token of an ANONYMOUS login. Its error's text goes to
	// the client in a SASL not-allowed failure. nil accepts everything.
	CheckToken func(Token) error

	ComponentSecret string // XEP-0114 handshake secret, default "component-secret"

	Shard  string // value of X-Jitsi-Shard on every answer; "" sends none
	Region string // value of X-Jitsi-Region; "" sends none

	NoJiconop         bool     // do not push disco and TURN services before the bind result
	Services          []string // extdisco <service/> elements, as XML, in that push
	OpenRoomCreation  bool     // anybody may create a room (restrict_room_creation off)
	VisibleRooms      bool     // disco#info on a room answers non-occupants (no mod_muc_hide_all)
	AnyNick           bool     // no mod_muc_resource_validate
	MaxOccupants      int      // per room, focus and admins excluded; 0 is no limit
	LobbyDisplayName  bool     // lobby demands a display name
	WaitForHost       bool     // a new room opens its lobby, saying <waiting-for-host/>
	InternalMUCHosts  []string // domains allowed into InternalMUC, default AuthDomain and Focus
	LobbyWhitelist    []string // bare JIDs or domains that pass the lobby
	NoExternalInfo    bool     // no AV moderation, metadata and end-conference components
	C2SBytesPerSecond int      // mod_limits on client connections; 0 is off

	TLS     *tls.Config // certificate for STARTTLS on client TCP and for HTTPS; nil offers none
	HTTPS   bool        // BOSH and WebSocket are served over TLS
	Listen  string      // IP of every listener, default "127.0.0.1"
	MaxBody int64       // bytes of one HTTP body or stanza, default 1 MiB

	Timing Timing
	Seed   int64 // of faults; 0 draws one
	Logger *slog.Logger
}

// Timing holds the server's durations, so that tests can shorten them.
type Timing struct {
	MaxWait    time.Duration // cap of a BOSH client's wait, default 120 s
	Inactivity time.Duration // BOSH session without a held request, default 60 s
	Polling    time.Duration // only announced, default 5 s
	IQ         time.Duration // forgetting a relayed request that got no answer, default 60 s
	Handshake  time.Duration // a TCP or WebSocket client that does not log in, default 30 s
}

func (o *Options) fill() {
	str := func(p *string, v string) {
		if *p == "" {
			*p = v
		}
	}
	dur := func(p *time.Duration, v time.Duration) {
		if *p == 0 {
			*p = v
		}
	}
	str(&o.Domain, "meet.example")
	str(&o.AuthDomain, "auth."+o.Domain)
	str(&o.GuestDomain, "guest."+o.Domain)
	str(&o.MUC, "conference."+o.Domain)
	str(&o.InternalMUC, "internal."+o.AuthDomain)
	str(&o.Lobby, "lobby."+o.Domain)
	str(&o.Focus, "focus."+o.Domain)
	str(&o.ComponentSecret, "component-secret")
	str(&o.Listen, "127.0.0.1")
	if o.InternalMUCHosts == nil {
		o.InternalMUCHosts = []string{o.AuthDomain, o.Focus}
	}
	if o.MaxBody == 0 {
		o.MaxBody = 1 << 20
	}
	dur(&o.Timing.MaxWait, 120*time.Second)
	dur(&o.Timing.Inactivity, 60*time.Second)
	dur(&o.Timing.Polling, 5*time.Second)
	dur(&o.Timing.IQ, 60*time.Second)
	dur(&o.Timing.Handshake, 30*time.Second)
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
}
