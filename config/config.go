package config

import (
	"cmp"
	"net"
	"net/netip"
	"regexp"
	"strings"
)

// Config is a whole configuration. As [Load] returns it, every default is
// filled in and every reference resolved; it is not changed afterwards.
type Config struct {
	Gateway     Gateway      `toml:"gateway" doc:"The process: its name, its limits, its patience."`
	Log         Log          `toml:"log" doc:"What is written to standard error."`
	HTTP        HTTP         `toml:"http" doc:"Health, version, statistics and metrics."`
	SIP         SIP          `toml:"sip" doc:"Where SIP is spoken, and the names of the headers that are read."`
	Media       Media        `toml:"media" doc:"Addresses and ports for RTP, towards phones and towards videobridges."`
	Deployments []Deployment `toml:"deployment" doc:"A set of shards that share one namespace of rooms. With a single shard no table is needed: the shard then carries these keys itself and makes a deployment of its own name."`
	Trunks      []Trunk      `toml:"trunk" doc:"A SIP peer and its rules. Requests from an address that no trunk matches get no service."`
	Dial        []DialRule   `toml:"dial" doc:"Where calls out of a conference may go. Without a rule nothing is dialled."`
	Shards      []Shard      `toml:"shard" doc:"One Prosody with its Jicofo and its bridges. May also stand in files of their own, shards.d/*.toml beside the configuration. A shard may carry any key of its deployment but the name, which then holds for this shard alone."`

	// Path is the file given to Load; Files are all files read, Path first.
	Path  string   `toml:"-"`
	Files []string `toml:"-"`

	docs      func() []*document `toml:"-"` // as parsed; a func, so that fmt shows no secret
	shardsDir bool               `toml:"-"` // there is a folder shards.d
}

// Gateway describes the process.
type Gateway struct {
	Name          string   `toml:"name" default:"brewline" doc:"Name of this gateway among others, as statistics show it."`
	Region        string   `toml:"region" doc:"Jitsi region of this gateway. Jicofo prefers a bridge of this region."`
	StatsID       string   `toml:"stats_id" derived:"the name" doc:"Value of stats-id in the presence of each call."`
	MaxCalls      int      `toml:"max_calls" min:"1" default:"200" unit:"calls" doc:"Calls at once. The next caller gets 503 with Retry-After."`
	HostWait      Duration `toml:"host_wait" default:"60s" doc:"How long a caller waits for the host to open the conference, before 480."`
	InviteTimeout Duration `toml:"invite_timeout" min:"100ms" default:"30s" doc:"How long Jicofo may take to offer a session while others are in the room, before 480."`
	AloneAnswer   Duration `toml:"alone_answer" default:"15s" doc:"A caller who is alone in the room hears ringing for so long, then is answered and told. 0s answers at once."`
	AloneMax      Duration `toml:"alone_max" min:"100ms" default:"10m" doc:"A caller who is still alone after so long hears why and is hung up on."`
	LobbyWait     Duration `toml:"lobby_wait" min:"100ms" default:"10m" doc:"How long a caller may wait in the lobby."`
	EmptyGrace    Duration `toml:"empty_grace" default:"5s" doc:"How long a call that was dialled from a meeting goes on after the last human has left it. After the death of its shard the meeting has a minute to come together again."`
	LocateTimeout Duration `toml:"locate_timeout" min:"10ms" default:"1s" doc:"How long shards and the balancer are asked where a room lives."`
	DrainTimeout  Duration `toml:"drain_timeout" default:"1h" doc:"After SIGTERM, how long running calls may go on before they are hung up. New calls get 503 meanwhile."`
	MaskNumbers   string   `toml:"mask_numbers" default:"last4" oneof:"none,last4,all" doc:"How much of a phone number is hidden in logs."`
}

// Log describes what is logged.
type Log struct {
	Level  string `toml:"level" default:"info" oneof:"debug,info,warn,error" doc:"Least severe level that is written."`
	Format string `toml:"format" restart:"true" default:"text" oneof:"text,json" doc:"One line of key=value pairs, or of JSON."`
}

// HTTP describes the listener for health, statistics and metrics.
type HTTP struct {
	Listen         string `toml:"listen" restart:"true" default:"127.0.0.1:8788" doc:"Address and port. Empty switches HTTP off."`
	Token          Secret `toml:"token" restart:"true" doc:"Bearer token that requests from elsewhere than loopback must carry. Without it such requests may only read."`
	EnableShutdown bool   `toml:"enable_shutdown" restart:"true" default:"false" doc:"Whether POST /about/shutdown drains the gateway."`
}

// SIP describes the user agent.
type SIP struct {
	Listen        []string `toml:"listen" restart:"true" default:"udp://0.0.0.0:5060,tcp://0.0.0.0:5060" doc:"Where SIP is received: udp://address:port, or tcp, tls, ws or wss in the place of udp. A listener of its own address for Contact and Via has it behind: tls://0.0.0.0:5061?advertise=gw.example.org:5061."`
	Advertise     string   `toml:"advertise" restart:"true" derived:"the local address towards the peer" doc:"Host or host:port for Contact and Via, when peers reach the gateway by another address than it has."`
	TLS           SIPTLS   `toml:"tls" doc:"Certificates for tls and wss."`
	UnknownSource string   `toml:"unknown_source" restart:"true" default:"reject" oneof:"reject,drop" doc:"A request from an address of no trunk: reject answers 403, drop keeps silent. Where a trunk has accept_username, it is challenged first."`
	Digest        []string `toml:"digest" restart:"true" default:"SHA-256,MD5" doc:"Algorithms of our digest challenges, in this order; an answer by another one is refused. Peers that read only the first challenge and know nothing of SHA-256 need MD5 first, or alone."`
	Origins       []string `toml:"origins" restart:"true" derived:"pages of the gateway's own host" doc:"Hosts whose pages may open a WebSocket, with * for a part of the name, as phone.example.org, *.example.org or https://phone.example.org. What is no browser names no page and is let in by address and digest alone."`
	BanAfter      int      `toml:"ban_after" restart:"true" min:"0" default:"20" unit:"requests" doc:"Refused requests or failed challenges of one address, within ban_time, after which nothing of it is read for ban_time. 0: nobody is banned."`
	BanTime       Duration `toml:"ban_time" restart:"true" min:"1s" default:"10m" doc:"How long a ban lasts, and how long a refusal counts. The addresses of match are never banned."`
	UserAgent     string   `toml:"user_agent" restart:"true" default:"Brewline" doc:"Value of the User-Agent and Server headers. Empty: none."`
	Headers       Headers  `toml:"headers" doc:"Names of the headers of an INVITE that are read, compared without case; the first one present counts."`
}

// SIPTLS are the certificates of SIP over TLS and secure WebSocket. Files that
// change are read again.
type SIPTLS struct {
	Certificate string `toml:"certificate" restart:"true" doc:"File of the certificate chain in PEM, which tls and wss listeners show, and calls over tls to peers that ask for one."`
	Key         string `toml:"key" restart:"true" doc:"File of its private key in PEM."`
	ClientCA    string `toml:"client_ca" restart:"true" doc:"File of certificates in PEM. With it, peers of tls listeners must show a certificate that one of these has signed."`
}

// Headers are the names under which an INVITE says where it wants to go.
type Headers struct {
	Room     []string `toml:"room" default:"Jitsi-Conference-Room,X-Room-Name" doc:"Room: a bare name or a full room JID."`
	Password []string `toml:"password" default:"Jitsi-Conference-Room-Pass,X-Room-Pass" doc:"Password of the room."`
	Domain   []string `toml:"domain" default:"Jitsi-Conference-Domain-Base,X-Domain-Base" doc:"XMPP domain, which selects the deployment."`
	Tenant   []string `toml:"tenant" default:"Jitsi-Conference-Domain-Tenant,X-Domain-Tenant" doc:"Tenant of the room."`
	Token    []string `toml:"token" default:"Jitsi-Auth-Token,X-Auth-Token" doc:"JSON web token for the login of this call."`
	UserID   []string `toml:"user_id" default:"Jitsi-User-ID-Token,X-User-ID-Token" doc:"XMPP user that goes with the token."`
	Shard    []string `toml:"shard" default:"X-Shard" doc:"Name of the shard on which the room lives; nobody is asked then."`
}

// Media describes addresses and ports for RTP.
type Media struct {
	Ports          PortRange  `toml:"ports" restart:"true" default:"20000-29999" unit:"UDP ports" doc:"Range, both ends included. A call takes up to three: RTP and RTCP towards the phone, one towards the bridge."`
	Bind           netip.Addr `toml:"bind" derived:"all addresses" doc:"Local address for media."`
	Advertise      netip.Addr `toml:"advertise" derived:"the local address" doc:"Address given to the other side, when NAT maps it one to one."`
	Phone          MediaSide  `toml:"phone" doc:"Overrides for the side of the phones."`
	Conference     MediaSide  `toml:"conference" doc:"Overrides for the side of the videobridges."`
	OpusComplexity int        `toml:"opus_complexity" min:"0" max:"10" default:"5" unit:"0 to 10" doc:"Effort of the Opus encoder. 5 costs half of 10 and is hard to tell from it for speech."`
}

// MediaSide is one side's media addresses. After Load its empty keys have
// the values of [Media].
type MediaSide struct {
	Ports     PortRange  `toml:"ports" restart:"true" derived:"media.ports" unit:"UDP ports" doc:"Range of this side. It equals the other side's or does not overlap it."`
	Bind      netip.Addr `toml:"bind" derived:"media.bind" doc:"Local address of this side."`
	Advertise netip.Addr `toml:"advertise" derived:"media.advertise" doc:"Address given out on this side."`
}

// Deployment is what shards that share their rooms have in common.
type Deployment struct {
	Name        string   `toml:"name" required:"true" doc:"Name by which trunks and shards refer to it."`
	Domain      string   `toml:"domain" required:"true" doc:"XMPP domain, as config.hosts.domain of jitsi-meet has it."`
	MUC         string   `toml:"muc" derived:"conference.<domain>" doc:"Domain of the rooms, config.hosts.muc of jitsi-meet. docker-jitsi-meet has muc.<domain>."`
	MUCPrefixes []string `toml:"muc_prefixes" default:"conference,muc" doc:"First labels that mark the domain of a full room JID as a MUC domain."`
	Tenants     []string `toml:"tenants" doc:"Tenants whose rooms are served. Empty: any tenant."`
	Focus       string   `toml:"focus" derived:"focus.<domain>" doc:"Address to which the conference request goes."`
	FocusNick   string   `toml:"focus_nick" default:"focus" doc:"Nick of Jicofo's occupant. No other occupant is believed to be Jicofo."`
	Login       Login    `toml:"login" doc:"How the session of a call logs in."`
	Balancer    string   `toml:"balancer" doc:"URL that web users have, sticky by room, where {host} is the domain, {subdomain} is /tenant or nothing, {roomName} is the room: https://{host}{subdomain}/http-bind?room={roomName}. Decides where a room is opened that no shard has. Without it, shards share new rooms by weighted hash."`
	Connections int      `toml:"bosh_connections" default:"2" min:"2" max:"8" doc:"HTTP connections of a BOSH session. With 3 or more the session is created on one and goes on with the others, so that a limit which Prosody put on the first does not slow it."`
	ShardHeader string   `toml:"shard_header" default:"X-Jitsi-Shard" doc:"Response header in which the balancer names the shard."`
}

// Login kinds.
const (
	LoginAnonymous    = "anonymous"     // SASL ANONYMOUS at the deployment's domain
	LoginGuest        = "guest"         // SASL ANONYMOUS at the guest domain
	LoginAccount      = "account"       // one account for all calls
	LoginSharedSecret = "shared_secret" // a user of its own for each call, one password
	LoginJWT          = "jwt"           // SASL ANONYMOUS with a token in the URL
)

// Login describes how the session of a call logs in.
type Login struct {
	Kind     string `toml:"kind" default:"anonymous" oneof:"anonymous,guest,account,shared_secret,jwt" doc:"anonymous at the domain; guest, anonymous at the guest domain; account, one account for all calls; shared_secret, a user of its own for each call with one password (Prosody's jitsi-shared-secret); jwt, a token given by header or made for the room."`
	Domain   string `toml:"domain" derived:"the domain; guest.<domain> for guest, auth.<domain> for account" doc:"Virtual host to log in at."`
	Username string `toml:"username" doc:"User for account; for shared_secret the first part of each call's user."`
	Password Secret `toml:"password" doc:"Password for account and shared_secret."`
	JWT      JWT    `toml:"jwt" doc:"How tokens are made, for kind jwt. Without a key only the token given by header counts."`
}

// JWT describes how a token for one room is made.
type JWT struct {
	Key       Secret   `toml:"key" doc:"Secret of HS256, or private key of RS256 in PEM."`
	KeyID     string   `toml:"key_id" doc:"Value of kid."`
	Algorithm string   `toml:"algorithm" default:"HS256" oneof:"HS256,RS256" doc:"Signature."`
	Issuer    string   `toml:"issuer" doc:"Value of iss, Prosody's app_id."`
	Audience  string   `toml:"audience" default:"jitsi" doc:"Value of aud."`
	Subject   string   `toml:"subject" derived:"the domain, or the tenant" doc:"Value of sub."`
	TTL       Duration `toml:"ttl" min:"10s" default:"5m" doc:"How long a token is valid. It is checked at login only."`
}

// Shard is one Prosody with its Jicofo and bridges.
type Shard struct {
	Name        string   `toml:"name" required:"true" doc:"Name of the shard, unique in the whole configuration."`
	Deployment  string   `toml:"deployment" derived:"the only one there is" doc:"Deployment to which it belongs."`
	URL         string   `toml:"url" required:"true" doc:"Address that always reaches this one shard, past any balancer: https://host/http-bind (or http), wss://host/xmpp-websocket (or ws), or xmpp://host:5222."`
	AuthDomain  string   `toml:"auth_domain" derived:"auth.<domain>" doc:"Virtual host of the control session's account."`
	Username    string   `toml:"username" doc:"Account of the control session. Empty: it logs in as calls do, and only asks where rooms live."`
	Password    Secret   `toml:"password" doc:"Password of that account."`
	Brewery     string   `toml:"brewery" derived:"jigasibrewery@internal.<auth_domain>, when there is a username" doc:"Room in which Jicofo looks for gateways."`
	Region      string   `toml:"region" derived:"gateway.region" doc:"Jitsi region that this shard's brewery is told. Jicofo prefers a gateway of its conference's region."`
	HeaderValue string   `toml:"header_value" derived:"the name" doc:"What the shard header says for this shard."`
	DialFrom    []string `toml:"dial_from" doc:"JIDs that may ask this gateway to dial, beside Jicofo's occupant of the brewery. One without resource stands for all of its resources."`
	Weight      int      `toml:"weight" min:"1" default:"1" doc:"Share of new rooms, when there is no balancer."`
	TLS         TLS      `toml:"tls" doc:"How the shard's certificate is checked."`

	// Effective is the shard's deployment with this shard's overrides.
	Effective Deployment `toml:"-"`
}

// TLS says how a server's certificate is checked.
type TLS struct {
	CA         string `toml:"ca" derived:"the system's" doc:"File of certificates to trust, in PEM, instead of the system's."`
	ServerName string `toml:"server_name" derived:"the host of the URL" doc:"Name that the certificate must have."`
	Insecure   bool   `toml:"insecure" default:"false" doc:"Check nothing. For trials only."`
}

// Trunk is a SIP peer.
type Trunk struct {
	Name           string            `toml:"name" required:"true" doc:"Name of the trunk."`
	Match          []netip.Prefix    `toml:"match" doc:"Source addresses, as 192.0.2.10 or 192.0.2.0/24. No address may belong to two trunks."`
	Address        string            `toml:"address" doc:"The peer as sip:host:port;transport=udp (tcp, tls, ws or wss). Without a port its SRV and NAPTR records are followed (RFC 3263)."`
	Proxy          string            `toml:"proxy" doc:"Outbound proxy through which everything goes to the peer, as sip:host:port;transport=udp."`
	Probe          Duration          `toml:"probe" default:"30s" doc:"How often OPTIONS asks the peer whether it is there. While it does not answer, nothing is dialled over the trunk. 0s asks never."`
	TLS            TLS               `toml:"tls" doc:"How the peer's certificate is checked, for calls over tls and wss."`
	Advertise      string            `toml:"advertise" derived:"sip.advertise" doc:"Host or host:port for Contact and Via towards this peer."`
	Deployment     string            `toml:"deployment" doc:"Deployment of all calls of this trunk. Empty: room, domain header or tenant must select one."`
	Tenant         string            `toml:"tenant" doc:"Tenant of calls that name none."`
	Rooms          map[string]string `toml:"rooms" doc:"Room for a called number, when no header names one. The room may be a full JID."`
	DID            []DID             `toml:"did" doc:"Rooms for called numbers by pattern, tried in order after rooms."`
	URIRooms       bool              `toml:"uri_rooms" default:"false" doc:"Whether the user part of the called URI is the room, as in sip:standup@gw.example.org, when no header, rooms or did tells."`
	DefaultRoom    string            `toml:"default_room" doc:"Room when neither header nor number tells."`
	Shard          string            `toml:"shard" doc:"Shard of all calls of this trunk; nobody is asked then."`
	Trusted        bool              `toml:"trusted" default:"false" doc:"Whether P-Asserted-Identity, Remote-Party-ID and Privacy tell the caller's name and number (RFC 3325), instead of From."`
	Mask           []Mask            `toml:"mask" doc:"What the conference sees in the place of a number; the first pattern that matches counts."`
	Codecs         []string          `toml:"codecs" default:"opus,g722,pcma,pcmu" doc:"Codecs, best first: opus, g722, pcma, pcmu."`
	Ptime          Duration          `toml:"ptime" min:"10ms" max:"60ms" default:"20ms" doc:"Audio in a packet, if the peer asks for nothing else: 10 to 60 ms, in tens."`
	DTMF           string            `toml:"dtmf" default:"auto" oneof:"auto,rtp,info,inband" doc:"How keys of the meeting reach the phone: rtp, telephone-event (RFC 4733); info, SIP INFO; inband, tones; auto, rtp if agreed on, else tones. Keys of the phone are understood in all three ways."`
	ComfortNoise   bool              `toml:"comfort_noise" default:"true" doc:"Whether comfort noise (RFC 3389) is offered and accepted for G.711 and G.722."`
	HoldMusic      bool              `toml:"hold_music" default:"false" doc:"Whether the meeting hears what a phone that holds the call goes on sending, such as its music. Otherwise it hears silence."`
	SRTP           string            `toml:"srtp" default:"off" oneof:"off,optional,required" doc:"Encryption of the audio. optional: what comes encrypted is answered so, calls that go out offer it and accept a refusal; required: nothing else."`
	SRTPKeys       string            `toml:"srtp_keys" default:"sdes" oneof:"sdes,dtls" doc:"How calls that go out agree on keys: sdes in the session description (RFC 4568), for which tls should carry it; dtls with ICE (RFC 5763), as WebRTC phones need. Calls that come in may use either."`
	MediaAdvertise netip.Addr        `toml:"media_advertise" derived:"media.phone.advertise" doc:"Address for audio given to this peer."`
	Username       string            `toml:"username" doc:"User for the digest challenge of calls that go out, and for register."`
	Password       Secret            `toml:"password" doc:"Password for it."`
	Register       []string          `toml:"register" doc:"Registrars, as sip:example.org or sip:host:port;transport=tls, at each of which the trunk registers. The addresses they resolve to are let in like those of match."`
	Expires        Duration          `toml:"register_expires" min:"30s" default:"5m" doc:"For how long a registration is asked; it is refreshed in time."`
	AcceptUsername string            `toml:"accept_username" doc:"User by whose digest a peer of another address than those of match is let in. With both, those of match are challenged as well."`
	AcceptPassword Secret            `toml:"accept_password" doc:"Password for it."`
	FromUser       string            `toml:"from_user" derived:"the user, where the trunk registers" doc:"User part of From in calls that go out."`
	FromDomain     string            `toml:"from_domain" derived:"the local address; where the trunk registers, the first registrar's host" doc:"Host of From in calls that go out."`
	SessionTimer   Duration          `toml:"session_timer" default:"30m" doc:"Session-Expires that is asked for (RFC 4028): a call whose peer has vanished ends by then. At least 90s; 0s asks for none."`
	Reliable       string            `toml:"reliable" default:"supported" oneof:"off,supported,required" doc:"Reliable provisional responses (100rel, RFC 3262): off, used where the peer asks, or required of it in calls that go out."`
	Transfer       bool              `toml:"transfer" default:"false" doc:"Whether the peer may transfer the phone leg by REFER or Replaces (RFC 3515, RFC 3891). A REFER's target must be allowed by a dial rule."`
	EarlyPrompts   bool              `toml:"early_prompts" default:"false" doc:"Whether a caller who is not answered yet hears the ringing, the prompt for a host who is not there, and why the call fails, from the gateway: by a 183 with early media. Otherwise 180 lets the peer make the ringing."`
	EarlyMedia     bool              `toml:"early_media" default:"false" doc:"Whether the audio of a 183, before the answer, is heard in the room."`
	DialTimeout    Duration          `toml:"dial_timeout" min:"1s" default:"60s" doc:"How long a call that goes out may ring."`
	MaxCalls       int               `toml:"max_calls" min:"0" default:"0" unit:"calls" doc:"Calls at once; the next gets 480. 0: no limit of its own."`
}

// DID maps called numbers to rooms by pattern.
type DID struct {
	Pattern string `toml:"pattern" required:"true" doc:"Regular expression (Go's) that the whole called number, or user part, must match. Separators between digits are taken off before."`
	Room    string `toml:"room" required:"true" doc:"The room; $1 or ${name} stand for parts of the pattern. It may be a full JID."`

	re *regexp.Regexp `toml:"-"`
}

// Regexp is the pattern, anchored at both ends.
func (d *DID) Regexp() *regexp.Regexp { return d.re }

// Mask hides parts of numbers from the conference.
type Mask struct {
	Pattern string `toml:"pattern" required:"true" doc:"Regular expression (Go's) that the whole number must match."`
	Show    string `toml:"show" required:"true" doc:"What is shown; $1 or ${name} stand for parts of the pattern: '$1 ••• $2'."`

	re *regexp.Regexp `toml:"-"`
}

// Regexp is the pattern, anchored at both ends.
func (m *Mask) Regexp() *regexp.Regexp { return m.re }

// Deployment returns the deployment of that name, or nil.
func (c *Config) Deployment(name string) *Deployment {
	for i := range c.Deployments {
		if c.Deployments[i].Name == name {
			return &c.Deployments[i]
		}
	}
	return nil
}

// Shard returns the shard of that name, or nil.
func (c *Config) Shard(name string) *Shard {
	for i := range c.Shards {
		if c.Shards[i].Name == name {
			return &c.Shards[i]
		}
	}
	return nil
}

// ShardsOf returns the shards of a deployment, in the order of the files.
func (c *Config) ShardsOf(deployment string) []*Shard {
	var out []*Shard
	for i := range c.Shards {
		if c.Shards[i].Deployment == deployment {
			out = append(out, &c.Shards[i])
		}
	}
	return out
}

// Trunk returns the trunk of that name, or nil.
func (c *Config) Trunk(name string) *Trunk {
	for i := range c.Trunks {
		if c.Trunks[i].Name == name {
			return &c.Trunks[i]
		}
	}
	return nil
}

// From is who calls in calls that go out over the trunk, and who registers:
// user and host, "" where the local address stands.
func (t *Trunk) From() (user, domain string) {
	user, domain = t.FromUser, t.FromDomain
	if len(t.Register) > 0 {
		user = cmp.Or(user, t.Username)
		domain = cmp.Or(domain, sipHost(t.Register[0]))
	}
	return user, domain
}

// sipHost is the host of a SIP address that isSIPAddress accepts.
func sipHost(s string) string {
	_, rest, _ := strings.Cut(s, ":")
	rest, _, _ = strings.Cut(rest, ";")
	if i := strings.LastIndexByte(rest, '@'); i >= 0 {
		rest = rest[i+1:]
	}
	if host, _, err := net.SplitHostPort(rest); err == nil {
		if strings.Contains(host, ":") {
			return "[" + host + "]"
		}
		return host
	}
	return rest
}

// TrunkFor returns the trunk to which a source address belongs, or nil.
func (c *Config) TrunkFor(src netip.Addr) *Trunk {
	src = src.Unmap().WithZone("")
	for i := range c.Trunks {
		for _, p := range c.Trunks[i].Match {
			if p.Contains(src) {
				return &c.Trunks[i]
			}
		}
	}
	return nil
}
