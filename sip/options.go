package sip

import (
	"crypto/tls"
	"log/slog"
	"net/netip"
	"time"
)

// Listener is one address to serve SIP on.
type Listener struct {
	Network   string      // "udp", "tcp", "tls", "ws" or "wss"
	Address   string      // "ip:port"; port 0 takes a free one
	Advertise string      // "host[:port]" for Via and Contact; "": the bound address, or the one that faces the peer
	TLS       *tls.Config // for tls and wss, at least a certificate: see [Certificates]
}

// Options configure a user agent. The zero value of every field is usable,
// except for Listen and OnInvite.
type Options struct {
	Listen []Listener

	// Match names the trunk a source belongs to. It is asked before a
	// datagram is parsed, and when a connection is accepted. nil: everyone is
	// let in, with an empty trunk name.
	Match func(source netip.AddrPort) (trunk string, ok bool)
	// Called names the trunk of a request that begins something, of several
	// behind one source address: by the user part of its Request-URI, which is
	// that of the Contact a trunk has registered. It is given the trunk of Match,
	// and may return that. nil: always that.
	Called func(source netip.AddrPort, trunk, user string) string
	// ClientTLS returns the settings of connections of ours over tls and wss,
	// for the peers of a trunk; it is asked for each. Where they name no server,
	// that of the URI counts. nil: what the system trusts.
	ClientTLS func(trunk string) (*tls.Config, error)
	// AdvertiseFor returns "host[:port]" for Via and Contact towards the peers
	// of a trunk; "": the listener's. nil: always that.
	AdvertiseFor func(trunk string) string
	// Resolver finds servers by name. nil: with the name servers of the system.
	Resolver *Resolver
	// UnknownSource says what a source without a trunk gets: "reject" (403
	// without a dialog, the default) or "drop" (silence).
	UnknownSource string
	// Accounts are peers that are let in by digest (RFC 3261 §22). While there
	// are some, sources without a trunk are challenged, and so are those of a
	// trunk that has an account. nil: none.
	Accounts func() []Account
	// Algorithms are those of our challenges, best first: SHA-256, MD5. No other
	// ones are accepted.
	Algorithms []string
	// Origins are patterns of the hosts, or scheme://host, whose pages may open a
	// WebSocket (RFC 6455 §10.2), besides those of the host that they connect to.
	// A client that sends no Origin is no browser and needs none.
	Origins []string
	// After BanAfter requests of an address without a trunk that were refused
	// or challenged in vain within BanTime (10 min), nothing of it is read for
	// BanTime. An IPv6 address stands for its /64. 0: nobody is banned.
	BanAfter int
	BanTime  time.Duration

	// Ready decides the answer to OPTIONS: 200, or 503 with Retry-After.
	Ready func() (ok bool, retryAfter time.Duration)
	// OnInvite is called in a goroutine of its own for each new call, after
	// 100 Trying has gone out. It must answer or reject the dialog.
	OnInvite func(*Dialog)

	// Policy tells what a trunk may do and is asked for, in calls of its. nil:
	// the zero Policy for all.
	Policy func(trunk string) Policy

	UserAgent string // value of User-Agent and Server; "": none

	// Timers of RFC 3261 §17, appendix A: T1 (500 ms) the round trip
	// estimate, T2 (4 s) the longest retransmission interval, T4 (5 s) the
	// life of a message in the network. Everything else is a multiple.
	T1, T2, T4 time.Duration
	// MinSE is the shortest session timer that is agreed to (RFC 4028 §5, 90 s).
	MinSE time.Duration
	// IdleTimeout closes a connection nothing came in on for so long (1 h).
	IdleTimeout time.Duration
	// HandshakeTimeout bounds connecting, and the handshakes of TLS and
	// WebSocket (10 s).
	HandshakeTimeout time.Duration
	// KeepAlive is how often connections that we opened are pinged (RFC 5626
	// §4.4.1, 90 s).
	KeepAlive time.Duration
	// DownTime is how long a server that failed is tried after the others of
	// its name (1 min).
	DownTime time.Duration

	MaxMessage     int // bytes of a message, 32768; longer: 513
	MaxDialogs     int // calls at a time, 4096; more: 503
	MaxConnections int // accepted connections, 1024, of which strangers get an eighth
	MaxPerSource   int // those of one address, 256; of a stranger an eighth
	// MaxTransactions bounds the server transactions, most of which only wait
	// for retransmissions (131072). Over UDP a request stays for 64·T1. Beyond
	// it requests are dropped; the peer repeats them.
	MaxTransactions int

	// Rate and Burst bound the messages a second taken from one address of a
	// trunk (2000, 4000); UnknownRate and UnknownBurst those of an address
	// without one (5, 10), UnknownTotal those of all such addresses together
	// (500). What is over is dropped unread.
	Rate, UnknownRate   float64
	UnknownTotal        float64
	Burst, UnknownBurst int

	Logger *slog.Logger
}

func (o Options) withDefaults() Options {
	def := func(d *time.Duration, v time.Duration) {
		if *d <= 0 {
			*d = v
		}
	}
	def(&o.T1, 500*time.Millisecond)
	def(&o.T2, 4*time.Second)
	def(&o.T4, 5*time.Second)
	def(&o.IdleTimeout, time.Hour)
	def(&o.MinSE, 90*time.Second)
	def(&o.HandshakeTimeout, 10*time.Second)
	def(&o.KeepAlive, 90*time.Second)
	def(&o.DownTime, time.Minute)
	num := func(n *int, v int) {
		if *n <= 0 {
			*n = v
		}
	}
	num(&o.MaxMessage, 32768)
	num(&o.MaxDialogs, 4096)
	num(&o.MaxConnections, 1024)
	num(&o.MaxPerSource, 256)
	num(&o.MaxTransactions, 1<<17)
	num(&o.Burst, 4000)
	num(&o.UnknownBurst, 10)
	if o.Rate <= 0 {
		o.Rate = 2000
	}
	if o.UnknownRate <= 0 {
		o.UnknownRate = 5
	}
	if o.UnknownTotal <= 0 {
		o.UnknownTotal = 500
	}
	def(&o.BanTime, 10*time.Minute)
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Match == nil {
		o.Match = func(netip.AddrPort) (string, bool) { return "", true }
	}
	if o.Called == nil {
		o.Called = func(_ netip.AddrPort, trunk, _ string) string { return trunk }
	}
	if o.AdvertiseFor == nil {
		o.AdvertiseFor = func(string) string { return "" }
	}
	if o.Resolver == nil {
		o.Resolver = &Resolver{}
	}
	if len(o.Algorithms) == 0 {
		o.Algorithms = []string{"SHA-256", "MD5"} // RFC 8760 §2.4
	}
	if o.Accounts == nil {
		o.Accounts = func() []Account { return nil }
	}
	if o.Policy == nil {
		o.Policy = func(string) Policy { return Policy{} }
	}
	if o.Ready == nil {
		o.Ready = func() (bool, time.Duration) { return true, 0 }
	}
	return o
}
