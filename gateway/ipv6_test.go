package gateway_test

import (
	"fmt"
	"net/netip"
	"testing"

	"brewline/internal/siptest"
)

// Phones call over IPv6, also where only one of their signalling and their audio
// is on it; the bridge is of either family.
func TestIPv6(t *testing.T) {
	t.Parallel()
	const four, six = "127.0.0.1", "::1"
	for _, tt := range []struct {
		signalling, audio, bridge, network string
		phone                              siptest.PhoneOptions
		trunk                              string // keys without which the phone could not be called
	}{
		{six, six, four, "udp", siptest.PhoneOptions{Codec: "opus"}, ""},
		{six, six, six, "tcp", siptest.PhoneOptions{Codec: "g722", SRTP: "AES_CM_128_HMAC_SHA1_80", Reports: true}, "srtp = \"required\"\n"},
		{six, four, four, "udp", siptest.PhoneOptions{Codec: "pcma"}, "media_advertise = \"127.0.0.1\"\n"},
		{four, six, six, "udp", siptest.PhoneOptions{Codec: "pcmu"}, "media_advertise = \"::1\"\n"},
	} {
		name := fmt.Sprintf("SIP over %s of %s, audio of %s, bridge of %s", tt.network, tt.signalling, tt.audio, tt.bridge)
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := worldOptions{
				shards: 1, match: tt.signalling, bind: "all", media: fmt.Sprintf("[media.conference]\nbind = %q", tt.bridge),
				listen: []string{tt.network + "://" + netip.AddrPortFrom(netip.MustParseAddr(tt.signalling), 0).String()},
				trunk:  tt.trunk,
			}
			o.dep.Shard.JVB.Listen = netip.AddrPortFrom(netip.MustParseAddr(tt.bridge), 0).String()
			tt.phone.Bind, tt.phone.Media, tt.phone.Transport = tt.signalling, tt.audio, tt.network
			w, p := dialWorldTo(t, tt.phone, o, anyNumber)
			sh := w.deps[0].Shards[0]
			alice := w.browser(sh, "six", 440)
			c := w.call(p, "six", 1000)
			w.both(alice, c)
			if err := c.Hold(w.ctx); err != nil {
				t.Fatal(err)
			}
			w.still("packets to a phone that holds", func() uint64 { return c.RTP().Received })
			if err := c.Resume(w.ctx); err != nil {
				t.Fatal(err)
			}
			w.both(alice, c)
			if err := c.ReinviteLate(w.ctx); err != nil {
				t.Fatal(err)
			}
			w.both(alice, c)
			w.hangup(c)
			w.gone()

			// And the other way.
			w.refNick(w.ask(alice, sh, "six", "112"))
			out, err := w.rings(p).Answer(w.ctx, siptest.AnswerOptions{Tone: 1300})
			if err != nil {
				t.Fatal(err)
			}
			w.hear("the phone that was called", out, 440)
			w.hear("the participant", alice, 1300)
			w.hangup(out)
		})
	}
}
