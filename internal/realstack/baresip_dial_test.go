package realstack

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"brewline/internal/jitsitest/jicofo"
)

// TestDialBaresip has a meeting call baresips that encrypt their audio in every
// way and in none, over trunks that offer them each kind of encryption. Those
// that must have it are reached over TLS, where the gateway checks their
// certificate.
func TestDialBaresip(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), setupTimeout)
	defer cancel()
	ca, cert := certificate(t)
	_, stranger := certificate(t)
	type callee struct {
		mode, keys, network string
		baresipOptions
		says string // what it says of its encryption, "": it does not answer
		end  string // then, what the gateway says of that
		b    *baresip
	}
	opus := "opus/48000/2"
	var callees []*callee
	trunks := ""
	for i, c := range []callee{
		{mode: "off", network: "udp", baresipOptions: baresipOptions{codec: "pcmu", encrypt: "srtp"}, says: inTheClear},
		{mode: "optional", keys: "sdes", network: "udp", baresipOptions: baresipOptions{codec: "g722/16000/1"}, says: inTheClear},
		{mode: "optional", keys: "sdes", network: "tcp", baresipOptions: baresipOptions{codec: "pcma", encrypt: "srtp"}, says: sdes},
		{mode: "required", keys: "sdes", network: "tls", baresipOptions: baresipOptions{codec: opus, encrypt: "srtp-mand", cert: cert}, says: sdes},
		{mode: "required", keys: "dtls", network: "tls", baresipOptions: baresipOptions{codec: "pcmu", encrypt: "dtls_srtp", cert: cert}, says: dtls},
		{mode: "required", keys: "sdes", network: "udp", baresipOptions: baresipOptions{codec: "pcmu"}, end: "488 Not Acceptable Here"},
		{mode: "required", keys: "sdes", network: "tls", baresipOptions: baresipOptions{codec: "pcmu", encrypt: "srtp-mand", cert: stranger}, end: "unknown authority"},
	} {
		c.tone, c.answers = 1000+50*i, fmt.Sprintf("10%d", i)
		c.b = startBaresip(t, ctx, c.baresipOptions)
		callees = append(callees, &c)
		trunks += fmt.Sprintf("[[trunk]]\nname = \"t%[1]d\"\nprobe = \"0s\"\naddress = \"sip:%[2]s;transport=%[3]s\"\nsrtp = %[4]q\n", i, c.b.at(ctx, c.network), c.network, c.mode)
		if c.keys != "" {
			trunks += fmt.Sprintf("srtp_keys = %q\n", c.keys)
		}
		if c.network == "tls" {
			trunks += fmt.Sprintf("[trunk.tls]\nca = %q\n", ca)
		}
		trunks += fmt.Sprintf("[[dial]]\nname = \"d%[1]d\"\npattern = '10%[1]d'\ntrunks = [\"t%[1]d\"]\n", i)
	}
	o := &worldOptions{
		trunks: trunks,
		jicofo: func(d *deployment, jo *jicofo.Options) {
			jo.Brewery = "jigasibrewery@internal.auth." + d.domain
		},
		url: func(s *shard, _ int) string {
			return fmt.Sprintf("url = %q\nusername = \"brewline\"\npassword = \"tulip\"\n", s.prosody.BOSHURL())
		},
	}
	w := build(t, layout{domains: []string{"meet.test"}, shards: 1}, o)
	w.says(0, "in the brewery")
	for i, c := range callees {
		t.Run(fmt.Sprintf("%d, %s %s over %s to %s", i, c.mode, c.keys, c.network, c.encrypt), func(t *testing.T) {
			t.Parallel()
			w := w.in(t)
			room := fmt.Sprintf("out%d", i)
			alice := w.browser(place{shard: w.deps[0].shards[0], room: room, name: room}, theirs[0])
			mark := w.gw.mark()
			jid := room + "@conference.meet.test"
			w.await("Jicofo dials", func() bool { // not while it makes alice a moderator
				reply, err := alice.Request(w.ctx, "set", jid+"/focus", fmt.Sprintf(
					"<dial xmlns='urn:xmpp:rayo:1' from='x' to='10%d'><header xmlns='urn:xmpp:rayo:1' name='JvbRoomName' value='%s'/></dial>", i, jid))
				w.must(err)
				return strings.Contains(reply, "<ref")
			})
			if c.says == "" {
				if end := w.says(mark, "call ended", "room", room).str("detail"); !strings.Contains(end, c.end) {
					t.Errorf("the call ended by %s", end)
				}
				return
			}
			c.b.established(w.ctx)
			w.hear("the participant", alice, c.tone)
			w.hear("baresip", c.b, theirs[0])
			c.b.encrypted(c.says)
			c.b.hangup(w.ctx)
			w.await("the callee has left", func() bool { return len(alice.Others()) == 0 })
		})
	}
}
