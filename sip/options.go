package sip

import (
	"log/slog"
	"net/netip"
	"time"
)

// Listener is one address to serve SIP on.
type Listener struct {
	Network   string // "udp" or "tcp"
	Address   string // "ip:port"; port 0 takes a free one
	Advertise string // "host[:port]" for Via and Contact; "": the bound address, or the one that faces the peer
}

// Options configure a user agent. The zero value of every field is usable,
// except for Listen and OnInvite.
type Options struct {
	Listen []Listener

	// Match names the trunk a source belongs to. It is asked before a
	// datagram is parsed, and when a connection is accepted. nil: everyone is
	// let in, with an empty trunk name.
	Match func(source netip.AddrPort) (trunk string, ok bool)
	// UnknownSource says what a source without a trunk gets: "reject" (403
	// without a dialog, the default) or "drop" (silence).
	UnknownSource string
	// Accounts are peers that are let in by digest (RFC 3261 §22). While there
	// are some, sources without a trunk are challenged, and so are those of a
	// trunk that has an account. nil: none.
	Accounts func() []Account
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

	UserAgent string // value of User-Agent and Server; "": none

	// Timers of RFC 3261 §17, appendix A: T1 (500 ms) the round trip
	// estimate, T2 (4 s) the longest retransmission interval, T4 (5 s) the
	// life of a message in the network. Everything else is a multiple.
	T1, T2, T4 time.Duration
	// IdleTimeout closes a TCP connection nothing came in on for so long (1 h).
	IdleTimeout time.Duration

	MaxMessage     int // bytes of a message, 32768; longer: 513
	MaxDialogs     int // calls at a time, 4096; more: 503
	MaxConnections int // accepted TCP connections, 1024
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
	num := func(n *int, v int) {
		if *n <= 0 {
			*n = v
		}
	}
	num(&o.MaxMessage, 32768)
	num(&o.MaxDialogs, 4096)
	num(&o.MaxConnections, 1024)
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
	if o.Accounts == nil {
		o.Accounts = func() []Account { return nil }
	}
	if o.Ready == nil {
		o.Ready = func() (bool, time.Duration) { return true, 0 }
	}
	return o
}
