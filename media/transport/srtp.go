package transport

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/pion/dtls/v3"
	"github.com/pion/rtcp"
	"github.com/pion/rtp"
	"github.com/pion/srtp/v3"
)

const (
	replayWindow = 128 // packets, twice the least of RFC 3711 §3.3.2

	// maxSources bounds the SSRCs a leg keeps SRTP state for, each of some 250
	// bytes for RTP and as much for RTCP. State is only kept for sources whose
	// packets were authentic.
	maxSources = 1024
)

// srtpProfiles are offered in this order (RFC 5764 §4.1.2, RFC 7714 §14.2).
var srtpProfiles = []dtls.SRTPProtectionProfile{
	dtls.SRTP_AEAD_AES_128_GCM, dtls.SRTP_AEAD_AES_256_GCM, dtls.SRTP_AES128_CM_HMAC_SHA1_80,
}

// A verdict is what became of a received SRTP or SRTCP packet.
type verdict uint8

const (
	accepted verdict = iota
	invalid
	replayed
	unauthentic
	tooManySources
)

// inbound decrypts what arrives. It belongs to the socket's reader.
type inbound struct {
	context             *srtp.Context
	rtp                 rtp.Header
	rtcp                rtcp.Header
	sources, rtcpSource map[uint32]struct{}
	minRTP, minRTCP     int // what encryption adds
}

// outbound encrypts what is sent. It belongs to the sender.
type outbound struct {
	context *srtp.Context
	rtp     rtp.Header
	rtcp    rtcp.Header
}

// newSRTP makes the contexts from the keys of a finished handshake.
func newSRTP(conn *dtls.Conn, client bool) (in *inbound, out *outbound, profile string, err error) {
	selected, ok := conn.SelectedSRTPProtectionProfile()
	if !ok {
		return nil, nil, "", errors.New("no SRTP profile was chosen")
	}
	state, ok := conn.ConnectionState()
	if !ok {
		return nil, nil, "", errors.New("no DTLS state")
	}
	config := srtp.Config{Profile: srtp.ProtectionProfile(selected)}
	if err := config.ExtractSessionKeysFromDTLS(&state, client); err != nil {
		return nil, nil, "", fmt.Errorf("export SRTP keys: %w", err)
	}
	in, err = newInbound(config.Profile, config.Keys.RemoteMasterKey, config.Keys.RemoteMasterSalt)
	if err != nil {
		return nil, nil, "", err
	}
	out, err = newOutbound(config.Profile, config.Keys.LocalMasterKey, config.Keys.LocalMasterSalt)
	if err != nil {
		return nil, nil, "", err
	}
	return in, out, config.Profile.String(), nil
}

func newInbound(p srtp.ProtectionProfile, key, salt []byte, more ...srtp.ContextOption) (*inbound, error) {
	context, err := srtp.CreateContext(key, salt, p,
		append(more, srtp.SRTPReplayProtection(replayWindow), srtp.SRTCPReplayProtection(replayWindow))...)
	if err != nil {
		return nil, err
	}
	aead, err := p.AEADAuthTagLen()
	if err != nil {
		return nil, err
	}
	tag, err := p.AuthTagRTPLen()
	if err != nil {
		return nil, err
	}
	rtcpTag, err := p.AuthTagRTCPLen()
	if err != nil {
		return nil, err
	}
	return &inbound{
		context: context,
		sources: make(map[uint32]struct{}), rtcpSource: make(map[uint32]struct{}),
		minRTP: aead + tag, minRTCP: aead + rtcpTag + 4, // 4: E flag and index
	}, nil
}

func newOutbound(p srtp.ProtectionProfile, key, salt []byte) (*outbound, error) {
	context, err := srtp.CreateContext(key, salt, p)
	if err != nil {
		return nil, err
	}
	return &outbound{context: context}, nil
}

// decryptRTP decrypts b where it is. A nil packet goes with every verdict but
// accepted.
func (in *inbound) decryptRTP(b []byte) ([]byte, verdict) {
	header, ok := rtpPayload(b)
	if !ok || len(b) < header+in.minRTP {
		return nil, invalid
	}
	ssrc := binary.BigEndian.Uint32(b[8:])
	_, known := in.sources[ssrc]
	if !known && len(in.sources) >= maxSources {
		return nil, tooManySources
	}
	plain, err := in.context.DecryptRTP(b, b, &in.rtp)
	switch {
	case err == nil:
	case errors.Is(err, srtp.ErrFailedToVerifyAuthTag), errors.Is(err, srtp.ErrMKINotFound):
		return nil, unauthentic
	case in.malformed(b):
		return nil, invalid
	default:
		return nil, replayed
	}
	if !known {
		in.sources[ssrc] = struct{}{}
	}
	if !validRTP(plain) {
		return nil, invalid
	}
	return plain, accepted
}

// decryptRTCP is decryptRTP for SRTCP.
func (in *inbound) decryptRTCP(b []byte) ([]byte, verdict) {
	if len(b) < rtcpHeaderLen+in.minRTCP {
		return nil, invalid
	}
	ssrc := binary.BigEndian.Uint32(b[4:])
	_, known := in.rtcpSource[ssrc]
	if !known && len(in.rtcpSource) >= maxSources {
		return nil, tooManySources
	}
	plain, err := in.context.DecryptRTCP(b, b, &in.rtcp)
	switch {
	case err == nil:
	case errors.Is(err, srtp.ErrFailedToVerifyAuthTag), errors.Is(err, srtp.ErrMKINotFound):
		return nil, unauthentic
	default:
		return nil, replayed
	}
	if !known {
		in.rtcpSource[ssrc] = struct{}{}
	}
	if !validRTCP(plain) {
		return nil, invalid
	}
	return plain, accepted
}

// malformed says whether header extensions (RFC 8285), or their encryption that
// nobody negotiated (RFC 9335), were the reason to refuse a packet.
func (in *inbound) malformed(b []byte) bool {
	_, err := in.rtp.Unmarshal(b)
	profile := in.rtp.ExtensionProfile
	return err != nil || in.rtp.Extension &&
		(profile == rtp.CryptexProfileOneByte || profile == rtp.CryptexProfileTwoByte)
}

// encryptRTP encrypts b where it is; the result is longer by at most Overhead.
func (out *outbound) encryptRTP(b []byte) ([]byte, error) {
	return out.context.EncryptRTP(b, b, &out.rtp)
}

// encryptRTCP is encryptRTP for RTCP.
func (out *outbound) encryptRTCP(b []byte) ([]byte, error) {
	return out.context.EncryptRTCP(b, b, &out.rtcp)
}
