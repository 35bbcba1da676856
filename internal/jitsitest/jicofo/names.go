package jicofo

// Namespaces.
const (
	nsStream      = "http://etherx.jabber.org/streams"
	nsComponent   = "jabber:component:accept"
	nsStanzas     = "urn:ietf:params:xml:ns:xmpp-stanzas"
	nsMUC         = "http://jabber.org/protocol/muc"
	nsMUCUser     = "http://jabber.org/protocol/muc#user"
	nsMUCOwner    = "http://jabber.org/protocol/muc#owner"
	nsMUCAdmin    = "http://jabber.org/protocol/muc#admin"
	nsData        = "jabber:x:data"
	nsDisco       = "http://jabber.org/protocol/disco#info"
	nsCaps        = "http://jabber.org/protocol/caps"
	nsPing        = "urn:xmpp:ping"
	nsFocus       = "http://jitsi.org/protocol/focus"
	nsJitmeet     = "http://jitsi.org/jitmeet"
	nsAudioMute   = "http://jitsi.org/jitmeet/audio"
	nsStartMuted  = "http://jitsi.org/jitmeet/start-muted"
	nsEtherpad    = "http://jitsi.org/jitmeet/etherpad"
	nsColibriWS   = "http://jitsi.org/protocol/colibri"
	nsTelemetry   = "jitsi:opentelemetry"
	nsJingle      = "urn:xmpp:jingle:1"
	nsJingleError = "urn:xmpp:jingle:errors:1"
	nsRTP         = "urn:xmpp:jingle:apps:rtp:1"
	nsHdrExt      = "urn:xmpp:jingle:apps:rtp:rtp-hdrext:0"
	nsFeedback    = "urn:xmpp:jingle:apps:rtp:rtcp-fb:0"
	nsSSMA        = "urn:xmpp:jingle:apps:rtp:ssma:0"
	nsICE         = "urn:xmpp:jingle:transports:ice-udp:1"
	nsDTLS        = "urn:xmpp:jingle:apps:dtls:0"
	nsSCTP        = "urn:xmpp:jingle:transports:dtls-sctp:1"
	nsGroup       = "urn:xmpp:jingle:apps:grouping:0"
	nsRayo        = "urn:xmpp:rayo:1"
)

// Features of a participant that Jicofo looks at.
const (
	featureAudio     = "urn:xmpp:jingle:apps:rtp:audio"
	featureVideo     = "urn:xmpp:jingle:apps:rtp:video"
	featureSCTP      = "urn:xmpp:jingle:transports:dtls-sctp:1"
	featureRTX       = "urn:ietf:rfc:4588"
	featureTCC       = "http://jitsi.org/tcc"
	featureREMB      = "http://jitsi.org/remb"
	featureRED       = "http://jitsi.org/opus-red"
	featureJSON      = "http://jitsi.org/json-encoded-sources"
	featureRewrite   = "http://jitsi.org/ssrc-rewriting-1"
	featureJigasi    = "http://jitsi.org/protocol/jigasi"
	featureAudioMute = "http://jitsi.org/protocol/audio-mute"
)

// defaultFeatures are assumed of a member that does not answer disco#info.
var defaultFeatures = []string{featureAudio, featureVideo, featureSCTP}

// ownFeatures are what the focus answers to disco#info.
var ownFeatures = []string{
	"http://jabber.org/protocol/caps", nsDisco, nsPing, nsJingle, nsRTP, featureAudio, featureVideo,
	nsICE, nsDTLS, "urn:ietf:rfc:5761", "urn:ietf:rfc:5888",
}
