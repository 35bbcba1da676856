package xmpp

import (
	"crypto/tls"
	"log/slog"
	"net/url"
	"time"
)

// Options say how to reach a server and who to be there.
type Options struct {
	// URL chooses the transport: https:// and http:// are BOSH, wss:// and
	// ws:// WebSocket, xmpp://host[:5222] TCP with STARTTLS where offered,
	// xmpps://host[:5223] TCP with TLS from the start.
	URL string
	// Room and Token become ?room= and &token= of every HTTP request: load
	// balancers and Jitsi's Prosody modules read them (the room is the node of
	// the room's JID, without tenant). Not used over TCP.
	Room, Token string
	// Query holds further parameters of every HTTP request (prefix, vnode).
	Query url.Values
	// Domain is the virtual host to log in to.
	Domain string
	// Username and Password; both empty is SASL ANONYMOUS.
	Username, Password string
	// Resource wanted in the JID; "" leaves the choice to the server.
	Resource string
	// TLS settings; nil verifies against the system's roots. ServerName
	// defaults to the host of URL over HTTP and to Domain over TCP.
	TLS *tls.Config
	// AllowPlain permits SASL PLAIN over an unencrypted transport.
	AllowPlain bool
	// ShardHeader is the HTTP response header that names the shard. Default
	// X-Jitsi-Shard.
	ShardHeader string
	// Connections is the number of HTTP connections BOSH may keep, at least
	// and by default 2: one is held by the server, one sends. With 3 or more
	// the connection that created the session is not used again, since
	// Prosody's mod_limits throttles just that one.
	Connections int

	Wait           time.Duration // BOSH: longest time an answer is held, default 60 s
	ConnectTimeout time.Duration // connect, log in and bind, default 10 s
	RequestTimeout time.Duration // deadline of an IQ whose context has none, default 15 s
	ReadyRetry     time.Duration // pause before a Jicofo that was not ready is asked again, doubling; default 1 s
	PingInterval   time.Duration // silence after which the server is pinged, default 20 s; negative: never
	PingTimeout    time.Duration // silence after a ping that ends the session, default 10 s
	CloseTimeout   time.Duration // longest time Close takes, default 2 s

	QueueSize int // stanzas not sent yet, default 256
	MaxStanza int // bytes of one incoming stanza, default 1 MiB

	// Disco is what disco#info is answered with, and what the caps hash is
	// made of. Without features it is the gateway's own: DefaultDisco.
	Disco DiscoInfo
	// CapsNode is the node of our entity capabilities. Default
	// "https://brewline.example/caps".
	CapsNode string

	Handler Handler
	// Logger defaults to discarding everything.
	Logger *slog.Logger
}

// Handler receives what the session does not deal with itself. A nil function
// ignores (for IQ: answers service-unavailable). All are called on the
// reader's goroutine and must not block or wait for a reply.
type Handler struct {
	// Presence is called for every presence, after the room it belongs to.
	Presence func(*Presence)
	// Message is called for every message, after the room it belongs to.
	Message func(*Message)
	// IQ is called for a get or set that the session did not answer by
	// itself. It answers ping and disco#info, and refuses Jingle and mute
	// requests that are not from the focus of a joined room. Whoever is given
	// an IQ must call Reply or ReplyError.
	IQ func(*IQ)
}

func (o Options) withDefaults() Options {
	def := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	def(&o.Wait, time.Minute)
	def(&o.ConnectTimeout, 10*time.Second)
	def(&o.RequestTimeout, 15*time.Second)
	def(&o.ReadyRetry, time.Second)
	def(&o.PingInterval, 20*time.Second)
	def(&o.PingTimeout, 10*time.Second)
	def(&o.CloseTimeout, 2*time.Second)
	if o.Connections < 2 {
		o.Connections = 2
	}
	if o.QueueSize <= 0 {
		o.QueueSize = 256
	}
	if o.MaxStanza <= 0 {
		o.MaxStanza = 1 << 20
	}
	if o.ShardHeader == "" {
		o.ShardHeader = "X-Jitsi-Shard"
	}
	if o.CapsNode == "" {
		o.CapsNode = "https://brewline.example/caps"
	}
	if len(o.Disco.Features) == 0 {
		o.Disco = DefaultDisco()
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o
}
