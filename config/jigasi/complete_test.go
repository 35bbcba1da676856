package jigasi

import (
	"strings"
	"testing"
)

// Properties that Jigasi reads and variables that its container does, each with
// a value that is not Jigasi's default.
const (
	everyProperty = `
G.DEFAULT_JVB_ROOM_NAME=team G.MUC_SERVICE_ADDRESS=muc.x.example G.FOCUS_RESOURCE=chair G.ALLOWED_JID=other@muc.x.example
G.BOSH_HOST_OVERRIDE=x.example=h.example G.MUC_JOIN_TIMEOUT=5 G.JVB_INVITE_TIMEOUT=5000 G.DEFAULT_CALL_EMPTY_TIMEOUT=1 G.DISABLE_ICE=true
G.ENABLE_SIP=false G.ENABLE_TRANSCRIPTION=true G.ENABLE_SIP_STARTMUTED=true G.ENABLE_SIP_VISITORS=true G.VISITOR_QUEUE_SERVICE=wss://q
G.VISITOR_QUEUE_SERVICE_PRIVATE_KEY_PATH=/k G.VISITOR_QUEUE_SERVICE_PRIVATE_KEY_ID=k G.ALLOW_ONLY_JIGASIS_IN_ROOM=false
G.USE_SIP_USER_AS_XMPP_RESOURCE=true G.NOTIFY_MAX_OCCUPANTS=false G.SIP_MEDIA_DROPPED_THRESHOLD_MS=5 G.HANGUP_SIP_ON_MEDIA_DROPPED=true
G.LOCAL_REGION=eu G.STATS_ID=s G.TRUSTED_DOMAINS=[] G.CONFERENCES_THRESHOLD=80 G.HEALTH_CHECK_SIP_URI=h G.HEALTH_CHECK_INTERVAL=5
G.HEALTH_CHECK_TIMEOUT=5 G.HEALTH_CHECK_DEBUG_ENABLED=true G.ENABLE_REST_SHUTDOWN=true G.rest.jetty.host=0.0.0.0 G.rest.jetty.port=8080
G.rest.host=0.0.0.0 G.rest.port=8080 G.rest.tls-port=8743 G.rest.jetty.tls.port=8743 G.transcription.customService=x G.BREWERY_ENABLED=true

C.PASS=pw C.USER_ID=u@guest.x.example C.ANONYMOUS_AUTH=false C.ALLOW_NON_SECURE=true C.UNIQUE_USER_ID=true C.BOSH_URL_PATTERN=https://{host}/http-bind
C.SERVER_ADDRESS=10.0.0.2 C.SERVER_PORT=6222 C.IS_SERVER_OVERRIDDEN=true C.DOMAIN_BASE=auth.x.example C.USE_TRANSLATOR_IN_CONFERENCE=true
C.KEEP_ALIVE_METHOD=NONE C.KEEP_ALIVE_INTERVAL=5 C.USE_DEFAULT_STUN_SERVER=true C.Encodings.opus/48000=5

J.ACCOUNT_UID=Jabber:a@b J.SERVER_PORT=6222 J.SERVER_PORT=none J.BOSH_URL=https://b.example/http-bind J.ALLOW_NON_SECURE=true J.AUTO_GENERATE_RESOURCE=true
J.RESOURCE=r J.RESOURCE_PRIORITY=5 J.KEEP_ALIVE_METHOD=XEP-0199 J.KEEP_ALIVE_INTERVAL=5 J.DOMAIN_BASE=auth.x.example J.MUC_DOMAIN_PREFIX=rooms
J.BOSH_URL_PATTERN=https://{host}/http-bind J.CALLING_DISABLED=true J.JINGLE_NODES_ENABLED=false J.IM_DISABLED=true J.SERVER_STORED_INFO_DISABLED=true
J.IS_FILE_TRANSFER_DISABLED=true J.USE_DEFAULT_STUN_SERVER=true J.OVERRIDE_ENCODINGS=true J.Encodings.PCMU/8000=5

S.ACCOUNT_UID=SIP:a@b S.AUTHORIZATION_NAME=auth S.DISPLAY_NAME=d S.SERVER_ADDRESS=192.0.2.8 S.SERVER_PORT=5070 S.SERVER_PORT=none S.SERVER_TRANSPORT=TCP
S.PROXY_PORT=5070 S.PROXY_PORT=none S.PROXY_AUTO_CONFIG=true S.PREFERRED_TRANSPORT=TLS S.FORCE_PROXY_BYPASS=true S.MUST_REGISTER_TO_CALL=false
S.CLIENT_TLS_CERTIFICATE=c S.KEEP_ALIVE_METHOD=NONE S.KEEP_ALIVE_INTERVAL=5 S.VOICEMAIL_ENABLED=false S.DTMF_METHOD=INBAND_DTMF
S.DTMF_MINIMAL_TONE_DURATION=5 S.ConfigHeader.1.Name=n S.ConfigHeader.1.Value=v S.ConfigHeader.1.Method=INVITE S.DEFAULT_ENCRYPTION=true
S.SAVP_OPTION=1 S.ENCRYPTION_PROTOCOL.SDES=0 S.ENCRYPTION_PROTOCOL_STATUS.SDES=true S.SDES_CIPHER_SUITES=c S.DEFAULT_SIPZRTP_ATTRIBUTE=true
S.MODE_PARANOIA=true S.Encodings.PCMU/8000=5 S.Encodings.AMR-WB/16000=5 S.DOMAIN_BASE=auth.x.example S.USE_TRANSLATOR_IN_CONFERENCE=true
S.HEARTBEAT_SECONDS=180 S.OUTBOUND_PREFIX=0 S.JITSI_MEET_ANSWER_EMPTY_INFO=true S.JITSI_MEET_ROOM_HEADER_NAME=X-1 S.JITSI_MEET_ROOM_PASS_HEADER_NAME=X-2
S.JITSI_MEET_DOMAIN_BASE_HEADER_NAME=X-3 S.JITSI_MEET_DOMAIN_TENANT_HEADER_NAME=X-4 S.JITSI_AUTH_TOKEN_HEADER_NAME=X-5 S.JITSI_AUTH_USER_ID_HEADER_NAME=X-6
S.JITSI_MEET_VISITOR_HEADER_NAME=X-7 S.BOSH_URL_PATTERN=https://{host}/http-bind S.MUC_DOMAIN_PREFIX=rooms

N.service.gui.ALWAYS_TRUST_MODE_ENABLED=true N.SIP_PREFERRED_CLEAR_PORT=5062 N.SIP_PREFERRED_SECURE_PORT=5063 N.impl.protocol.sip.REGISTRATION_EXPIRATION=600
N.impl.protocol.sip.RETRANSMITS_RINGING_INTERVAL=5 N.impl.protocol.sip.SKIP_REINVITE_ON_FOCUS_CHANGE_PROP=true N.impl.protocol.sip.FORCE_REGISTER_ON_TLS_CLOSE=true
N.impl.protocol.sip.PTIME_VALUE=40 N.impl.protocol.sip.DEFAULT_TRANSPORT=TCP N.impl.protocol.SIP_DSCP=46 N.impl.protocol.HOLE_PUNCH_PKT_COUNT=6
N.impl.protocol.SingleCallInProgressPolicy.enabled=false N.impl.protocol.jabber.FORCE_PRESENCE_ON_LEAVE=true
N.impl.neomedia.codec.audio.opus.encoder.COMPLEXITY=9 N.impl.neomedia.audioSystem.audiosilence.captureDevice_list=[]
N.plugin.reconnectplugin.ATLEAST_ONE_SUCCESSFUL_CONNECTION.x=true
org.jitsi.impl.neomedia.transform.csrc.CsrcTransformEngine.DISCARD_CONTRIBUTING_SOURCES=true
org.jitsi.service.neomedia.AudioMediaStream.DISABLE_DTMF_HANDLING=true org.jitsi.impl.neomedia.RTPConnectorInputStream.SO_RCVBUF=5`

	everyVariable = `
JIGASI_MODE=transcriber JIGASI_SIP_URI=2@192.0.2.2 JIGASI_SIP_PASSWORD=q JIGASI_SIP_SERVER=192.0.2.3 JIGASI_SIP_PORT=5070 JIGASI_SIP_TRANSPORT=TCP
JIGASI_SIP_KEEP_ALIVE_METHOD=NONE JIGASI_SIP_DEFAULT_ROOM=team JIGASI_ENABLE_SDES_SRTP=1 USE_TRANSLATOR_IN_CONFERENCE=1 JIGASI_XMPP_USER=u
JIGASI_XMPP_PASSWORD=q XMPP_SERVER=10.0.0.2:6222 XMPP_PORT=6222 XMPP_DOMAIN=x.example XMPP_AUTH_DOMAIN=auth.x.example XMPP_MUC_DOMAIN=muc.x.example
XMPP_INTERNAL_MUC_DOMAIN=i.x.example PUBLIC_URL=https://h.example JIGASI_BREWERY_MUC=b BOSH_URL_PATTERN=https://{host}/http-bind ENABLE_AUTH=1
JIGASI_JVB_TIMEOUT=5000 JIGASI_LOCAL_REGION=eu JIGASI_STATS_ID=s JIGASI_TRUSTED_DOMAINS=x JIGASI_ENABLE_REST=1 SHUTDOWN_REST_ENABLED=true
JIGASI_HEALTH_CHECK_SIP_URI=h JIGASI_HEALTH_CHECK_INTERVAL=5 JIGASI_CONFIGURATION=org.jitsi.jigasi.STATS_ID=s ENABLE_VISITORS=1
JIGASI_VISITORS_QUEUE_SERVICE_URL=wss://q JIGASI_VISITORS_QUEUE_SERVICE_PRIVATE_KEY_PATH=/k JIGASI_VISITORS_QUEUE_SERVICE_PRIVATE_KEY_ID=k
AUTOSCALER_URL=u AUTOSCALER_SIDECAR_KEY_ID=k SENTRY_DSN=d TZ=UTC JIGASI_LOG_FILE=f JIGASI_PORT_MIN=20010 JIGASI_PORT_MAX=20040
JIGASI_SIPUSER=u JIGASI_SIPPWD=p JIGASI_HOSTNAME=h JIGASI_HOST=h JAVA_SYS_PROPS=p JIGASI_MAX_MEMORY=1g
GOOGLE_APPLICATION_CREDENTIALS=c`
)

// TestNothingIsDropped: each changes the result, or is named with the reason.
func TestNothingIsDropped(t *testing.T) {
	t.Parallel()
	const sip, xmpp = sipStack + "a.", jabber + "b."
	long := strings.NewReplacer("G.", jigasi, "C.", perCall, "J.", xmpp, "S.", sip, "N.", stack)
	for base, all := range map[string]string{
		sipStack + "a=a\n" + sip + "USER_ID=1@192.0.2.1\n" + sip + "PASSWORD=cHc=\n" + sip + "PROXY_ADDRESS=192.0.2.9\n" + sip + "OVERRIDE_ENCODINGS=true\n" +
			jabber + "b=b\n" + xmpp + "BREWERY=b@internal.auth.x.example\n" + xmpp + "USER_ID=gw@auth.x.example\n" + xmpp + "PASSWORD=eA==\n" + xmpp + "SERVER_ADDRESS=10.0.0.1\n": everyProperty,
		"JIGASI_SIP_URI=1@192.0.2.1\nJIGASI_SIP_SERVER=192.0.2.1\nJIGASI_XMPP_PASSWORD=pw\nXMPP_SERVER=10.0.0.1\n": everyVariable,
	} {
		before, err := Import([]File{{"f", []byte(base)}}, Options{Secrets: true})
		if err != nil {
			t.Fatal(err)
		}
		for one := range strings.FieldsSeq(all) {
			prefix, _, _ := strings.Cut(one, ".")
			if line := one; len(prefix) == 1 {
				one = long.Replace(line[:2]) + line[2:]
			}
			after, err := Import([]File{{"f", []byte(base + one + "\n")}}, Options{Secrets: true})
			if err != nil {
				t.Errorf("%s: %v", one, err)
				continue
			}
			said := notes(after)
			if string(after.TOML) == string(before.TOML) && said == notes(before) {
				t.Errorf("%s is neither carried over nor named", one)
			}
			if strings.Contains(said, "is not known to the import") {
				t.Errorf("%s: %s", one, said)
			}
		}
	}
}
