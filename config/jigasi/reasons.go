package jigasi

import (
	"regexp"
	"slices"
	"strings"
)

// reason says why a property is not carried over.
type reason struct {
	keys *regexp.Regexp
	kind Kind
	why  string
	// moot are values, parted by |, at which nothing changes whatever the kind.
	moot string
}

func of(pattern string) *regexp.Regexp { return regexp.MustCompile(`^(?:` + pattern + `)$`) }

const (
	jabberAccount = `net\.java\.sip\.communicator\.impl\.protocol\.jabber\.[^=]+?\.`
	sipAccount    = `net\.java\.sip\.communicator\.impl\.protocol\.sip\.[^=]+?\.`
	anyAccount    = `(?:` + jabberAccount + `|` + sipAccount + `|org\.jitsi\.jigasi\.xmpp\.acc\.)`
	jigasiKey     = `org\.jitsi\.jigasi\.`
	stackKey      = `net\.java\.sip\.communicator\.`
)

// reasons are tried in order.
var reasons = []reason{
	// Jigasi.
	{of(jigasiKey + `BREWERY_ENABLED`), Moot, "Jigasi does not read it either; a shard with a username has a brewery", ""},
	{of(jigasiKey + `BOSH_HOST_OVERRIDE`), Moot, "a call connects to the url of its shard; the public host matters to a deployment's balancer alone", ""},
	{of(jigasiKey + `ENABLE_SIP`), Changed, "this Jigasi was no SIP gateway, which is all that Brewline is", "true"},
	{of(jigasiKey + `ENABLE_TRANSCRIPTION`), Changed, "Brewline does not transcribe: keep a Jigasi for that", "false"},
	{of(jigasiKey + `transcription\..*`), Changed, "Brewline does not transcribe: keep a Jigasi for that", ""},
	{of(jigasiKey + `MUC_JOIN_TIMEOUT`), Moot, "a dial request is answered within 12 s, before Jicofo gives up", ""},
	{of(jigasiKey + `DEFAULT_CALL_EMPTY_TIMEOUT`), Moot, "is of transcribers; gateway.empty_grace is for calls", ""},
	{of(jigasiKey + `DISABLE_ICE`), Changed, "bridges are always reached with ICE", "false"},
	{of(jigasiKey + `ENABLE_SIP_STARTMUTED`), Moot, "mute from the meeting always works", ""},
	{of(jigasiKey + `ENABLE_SIP_VISITORS`), Changed, "callers do not become visitors", "false"},
	{of(jigasiKey + `VISITOR_QUEUE_SERVICE.*`), Changed, "callers do not wait in the visitors' queue", ""},
	{of(jigasiKey + `ALLOW_ONLY_JIGASIS_IN_ROOM`), Changed, "calls that a meeting dialled end gateway.empty_grace after the last human has left; callers who are alone stay for gateway.alone_max", "false"},
	{of(jigasiKey + `USE_SIP_USER_AS_XMPP_RESOURCE`), Changed, "the nick in the room is always eight hexadecimal digits, the name shown is the caller's", "false"},
	{of(jigasiKey + `NOTIFY_MAX_OCCUPANTS`), Changed, "a caller to a full room gets 486 before the call is answered", ""},
	{of(jigasiKey + `(?:SIP_MEDIA_DROPPED_THRESHOLD_MS|HANGUP_SIP_ON_MEDIA_DROPPED)`), Changed, "how long a phone may be silent is not a setting", ""},
	{of(jigasiKey + `TRUSTED_DOMAINS`), Moot, "other gateways are known by the features they announce", ""},
	{of(jigasiKey + `CONFERENCES_THRESHOLD`), Changed, "stress_level is calls / gateway.max_calls", ""},
	{of(jigasiKey + `HEALTH_CHECK_.*`), Changed, "no calls are made to check health: /about/health says whether shards and trunks can be used", ""},
	{of(jigasiKey + `rest\..*tls.*`), Changed, "HTTP is served without TLS", ""},
	{of(jigasiKey + `xmpp\.acc\.(?:ANONYMOUS_AUTH|UNIQUE_USER_ID)`), Moot, "the login of calls follows from the other properties of the account", ""},

	// SIP.
	{of(sipAccount + `(?:MUST_REGISTER_TO_CALL|FORCE_REGISTER_ON_TLS_CLOSE)`), Moot, "while a trunk is not registered nothing is dialled over it, and it tries again for ever", ""},
	{of(sipAccount + `KEEP_ALIVE_INTERVAL`), Moot, "is of trunk.probe, as far as OPTIONS kept alive", ""},
	{of(stackKey + `impl\.protocol\.sip\.(?:REGISTRATION_EXPIRATION|FORCE_REGISTER_ON_TLS_CLOSE)`), Moot, "there is no registration of this account", ""},
	{of(sipAccount + `DISPLAY_NAME`), Changed, "calls that go out show from_user and from_domain, no name", ""},
	{of(sipAccount + `(?:DEFAULT_ENCRYPTION|DEFAULT_SIPZRTP_ATTRIBUTE|MODE_PARANOIA|SDES_CIPHER_SUITES|ENCRYPTION_PROTOCOL\..*|ENCRYPTION_PROTOCOL_STATUS\..*)`), Moot, "SAVP_OPTION says whether audio is encrypted; all usual suites are offered", ""},
	{of(sipAccount + `CLIENT_TLS_CERTIFICATE`), Changed, "write sip.tls with the certificate and key in PEM", ""},
	{of(sipAccount + `(?:DTMF_.*)`), Moot, "digits are as long as they were pressed", ""},
	{of(sipAccount + `(?:ConfigHeader\..*)`), Changed, "no headers of the operator's own are added to calls that go out", ""},
	{of(sipAccount + `HEARTBEAT_SECONDS`), Changed, "no heartbeat is sent over INFO", "-1"},
	{of(sipAccount + `JITSI_MEET_ANSWER_EMPTY_INFO`), Moot, "INFO is always answered", ""},
	{of(sipAccount + `JITSI_MEET_VISITOR_HEADER_NAME`), Changed, "callers do not become visitors", ""},
	{of(sipAccount + `(?:PREVENT_AUTH_LOGIN|DOMAIN_BASE|OVERRIDE_ENCODINGS|PROXY_AUTO_CONFIG)`), Moot, "the result follows from it and other properties", ""},
	{of(sipAccount + `(?:FORCE_PROXY_BYPASS|VOICEMAIL_.*|XCAP_.*|XIVO_.*|POLLING_PERIOD|SUBSCRIPTION_EXPIRATION|IS_PRESENCE_ENABLED|PROTOCOL_NAME|ACCOUNT_UID|ACCOUNT_ICON_PATH|PROTOCOL_ICON_PATH|IS_PREFERRED_PROTOCOL|IS_ACCOUNT_DISABLED)`), Moot, "is of Jitsi's program for the desktop", ""},
	{of(stackKey + `SIP_PREFERRED_SECURE_PORT`), Changed, "to be called over TLS write a tls:// address in sip.listen, and sip.tls", ""},
	{of(stackKey + `impl\.protocol\.sip\.(?:RETRANSMITS_RINGING_INTERVAL|SKIP_REINVITE_ON_FOCUS_CHANGE_PROP)`), Moot, "Brewline does as RFC 3261 says", ""},
	{of(stackKey + `impl\.protocol\.SIP_DSCP`), Changed, "packets are not marked; let the host's firewall do it", ""},

	// Both legs, and the Java stack.
	{of(anyAccount + `USE_TRANSLATOR_IN_CONFERENCE`), Moot, "there is one mode, which has what Jigasi's two have", ""},
	{of(`(?:` + jabberAccount + `|org\.jitsi\.jigasi\.xmpp\.acc\.)(?:Encodings\..*|OVERRIDE_ENCODINGS)`), Moot, "towards bridges it is always Opus", ""},
	{of(anyAccount + `(?:KEEP_ALIVE_METHOD|KEEP_ALIVE_INTERVAL)`), Moot, "shards are always pinged", ""},
	{of(anyAccount + `ALLOW_NON_SECURE`), Moot, "TLS is used where the server offers it, and passwords travel in the clear over http:// only", ""},
	{of(anyAccount + `(?:IS_USE_ICE|IS_USE_UPNP|USE_DEFAULT_STUN_SERVER|AUTO_DISCOVER_STUN|AUTO_DISCOVER_JINGLE_NODES|JINGLE_NODES_ENABLED|DEFAULT_ENCRYPTION|ENCRYPTION_PROTOCOL\..*|ENCRYPTION_PROTOCOL_STATUS\..*|VIDEO_CALLING_DISABLED|CALLING_DISABLED|IM_DISABLED|IS_CARBON_DISABLED|SERVER_STORED_INFO_DISABLED|IS_FILE_TRANSFER_DISABLED)`), Moot, "it is always ICE and DTLS-SRTP with audio alone", ""},
	{of(anyAccount + `(?:CallStats\..*)`), Changed, "nothing is sent to callstats.io", ""},
	{of(anyAccount + `(?:ACCOUNT_UID|PROTOCOL|PROTOCOL_NAME|AUTO_GENERATE_RESOURCE|RESOURCE|RESOURCE_PRIORITY|IS_ACCOUNT_DISABLED|IS_PREFERRED_PROTOCOL|ACCOUNT_ICON_PATH|PROTOCOL_ICON_PATH|IS_SERVER_OVERRIDDEN|PREFERRED_TRANSPORT)`), Moot, "is of Jitsi's list of accounts, or its default", ""},
	{of(stackKey + `plugin\.reconnectplugin\..*`), Moot, "a lost shard is always tried again", ""},
	{of(stackKey + `impl\.protocol\.SingleCallInProgressPolicy\..*`), Moot, "calls do not know of each other", ""},
	{of(stackKey + `impl\.protocol\.HOLE_PUNCH_PKT_COUNT`), Moot, "audio is sent at once, which opens the way through a firewall", ""},
	{of(stackKey + `impl\.protocol\.jabber\.FORCE_PRESENCE_ON_LEAVE`), Moot, "how a call ended is always shown", ""},
	{of(stackKey + `packetlogging\..*`), Moot, "packets are not logged", ""},
	{of(stackKey + `impl\.neomedia\..*|` + stackKey + `media\..*|org\.jitsi\.(?:impl|service)\.neomedia\..*|org\.ice4j\..*`), Moot, "is of the Java media stack", ""},
	{of(stackKey + `util\.dns\..*|` + stackKey + `service\.(?:gui|version)\..*|net\.java\.sip\.communicator\.impl\.(?:gui|version|configuration|credentialsstorage|certificate)\..*`), Moot, "is of Jitsi's program for the desktop", ""},
	{of(`org\.jitsi\.ddclient\..*`), Changed, "statistics are at /metrics, for Prometheus", ""},
	{of(`org\.jitsi\.sip\.PARTICIPANT_INFO_CALLBACK_URL`), Changed, "who calls is not looked up; the name shown is the caller's", ""},

	// Variables that stand for no property.
	{of(`env\.AUTOSCALER_.*`), Changed, "there is no autoscaler sidecar; /about/stats has Jigasi's statistics", ""},
	{of(`env\.(?:GC_|GOOGLE_|JIGASI_TRANSCRIBER_|ENABLE_TRANSCRIPTIONS).*`), Changed, "Brewline does not transcribe: keep a Jigasi for that", ""},
	{of(`env\.(?:SENTRY_|JIGASI_SENTRY_).*`), Changed, "nothing is sent to Sentry", ""},
	{of(`env\.(?:TZ|JIGASI_LOG_.*)`), Moot, "logs go to standard error", ""},
	{of(`env\.(?:JIGASI_MAX_MEMORY|JAVA_SYS_PROPS|JIGASI_OPTS|JAVA_HOME)`), Moot, "is of Java", ""},
	{of(`env\.(?:JIGASI_SIPUSER|JIGASI_SIPPWD|JIGASI_HOST|JIGASI_HOSTNAME|JIGASI_SECRET|JIGASI_PORT|JIGASI_XMPP_PASSWORD_BASE64)`), Moot, "was read when the package was installed; sip-communicator.properties has it", ""},
	{of(`env\.JIGASI_IMAGE.*|env\.JIGASI_STATS_PORT`), Moot, "is of docker", ""},
	{of(`env\.JIGASI_.*`), Changed, "is not known to the import", ""},
}

// leftovers names all that was not carried over, with the reason.
func (im *importer) leftovers() {
	for _, key := range im.order {
		p := im.props[key]
		if p == nil || im.used[key] {
			continue
		}
		kind, why := Changed, "is not known to the import"
		for _, r := range reasons {
			if r.keys.MatchString(key) {
				kind, why = r.kind, r.why
				if slices.Contains(strings.Split(r.moot, "|"), canonical(p.value)) {
					kind, why = Moot, "is as Brewline does anyway"
				}
				break
			}
		}
		im.note(kind, key, "%s", why)
	}
}

// canonical writes a value as the table does: switches in lower case.
func canonical(value string) string {
	value = strings.TrimSpace(value)
	if strings.EqualFold(value, "true") || strings.EqualFold(value, "false") {
		return strings.ToLower(value)
	}
	return value
}
