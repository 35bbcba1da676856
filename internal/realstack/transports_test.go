package realstack

import (
	"encoding/json"
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"brewline/internal/jitsitest"
	"brewline/internal/jitsitest/jicofo"
	"brewline/internal/prosodytest"
	"brewline/internal/siptest"
)

// TestTransports reaches the shards by WebSocket and TCP, with and without TLS,
// and logs the control sessions in with an account, by SCRAM (RFC 5802) alone.
// brewline check finds nothing wrong with them.
func TestTransports(t *testing.T) {
	inLayouts(t, func(t *testing.T, l layout) {
		urls := []func(*prosodytest.Server) string{
			(*prosodytest.Server).WebSocketURL,
			func(p *prosodytest.Server) string { return "xmpp://" + p.C2SAddr() },
			(*prosodytest.Server).SecureWebSocketURL,
			func(p *prosodytest.Server) string { return "xmpp://" + p.C2SAddr() },
		}
		secure := func(i int) bool { return i >= 2 }
		o := &worldOptions{
			header: true, rooms: []string{"standup"},
			prosody: func(i int, po *prosodytest.Options) {
				po.TLS = secure(i)
				po.Extra = "disable_sasl_mechanisms = { \"PLAIN\"; \"DIGEST-MD5\" }\n"
			},
			jicofo: func(d *deployment, jo *jicofo.Options) {
				jo.Brewery, jo.NoAutoOwner = "jigasibrewery@internal.auth."+d.domain, true
			},
			url: func(s *shard, i int) string {
				keys := fmt.Sprintf("url = %q\nusername = \"brewline\"\npassword = \"tulip\"\n", urls[i](s.prosody))
				if secure(i) {
					keys += fmt.Sprintf("[shard.tls]\nca = %q\n", s.prosody.CAFile())
				}
				return keys
			},
		}
		w := build(t, l, o)
		w.check()
		for _, d := range w.deps {
			for _, s := range d.shards {
				jid := w.says(0, "shard up", "shard", s.name).str("jid")
				if !strings.HasPrefix(jid, "brewline@auth."+d.domain+"/") {
					t.Errorf("the control session of %s is %s", s.name, jid)
				}
				// wss is of TLS anyway; xmpp makes a session secure on its way.
				if s.prosody.TLS && s != d.shards[0] && !strings.Contains(s.prosody.Log(), "Stream encrypted") {
					t.Errorf("nobody has encrypted a stream to %s", s.name)
				}
			}
		}
		// The places cover one shard of each deployment; the others get rooms
		// that a participant opens past HAProxy.
		places := o.places["standup"]
		for _, d := range w.deps {
			for _, s := range d.shards {
				if s != places[0].shard && s != places[1].shard {
					places = append(places, place{shard: s, room: "aside", name: "aside@conference." + d.domain})
				}
			}
		}
		var there []*jitsitest.Browser
		var calls []*siptest.Call
		tones := []int{440, 700, 900, 1100, 1300, 1500, 1700, 1900}
		for i, p := range places {
			there = append(there, w.joinAt(p.shard.dep, p.shard.prosody.BOSHURL(), p.room, tones[2*i]))
			mark := w.gw.mark()
			calls = append(calls, w.phone(p.name, tones[2*i+1]))
			w.says(mark, "room located", "room", p.room, "how", "asked", "shard", p.shard.name)
		}
		for i := range places {
			w.hear("the phone", calls[i], tones[2*i])
			w.hear("the participant", there[i], tones[2*i+1])
		}
		for i := range places {
			w.hangup(calls[i])
			for k := range places {
				if k != i {
					w.never("the phone", calls[i].Heard(), calls[i].Rate(), tones[2*k:2*k+2]...)
					w.never("the participant", there[i].Heard(), 48000, tones[2*k:2*k+2]...)
				}
			}
		}
	})
}

// check runs brewline check: every step but those of the trunk, which has no
// address, must be fine.
func (w *world) check() {
	w.t.Helper()
	path, err := program()
	w.must(err)
	out, err := exec.CommandContext(w.ctx, path, "check", "-c", w.path, "-json").Output()
	if err != nil {
		w.t.Errorf("brewline check: %v", err)
	}
	var verdict struct {
		OK      bool
		Results []struct{ Subject, Step, Status, Detail, Remedy string }
	}
	w.must(json.Unmarshal(out, &verdict))
	steps := 0
	for _, r := range verdict.Results {
		switch {
		case r.Subject == "trunk ipbx", r.Status == "skip":
		case r.Status != "ok":
			w.t.Errorf("brewline check: %+v", r)
		case strings.HasPrefix(r.Subject, "shard "):
			steps++
		}
	}
	if shards := len(w.deps) * w.l.shards; !verdict.OK || steps < 5*shards {
		w.t.Errorf("brewline check says ok=%v, and of %d shards %d steps are fine", verdict.OK, shards, steps)
	}
}
