package gateway_test

import (
	"strings"
	"testing"
	"time"

	"brewline/gateway"
	"brewline/gateway/call"
	"brewline/internal/jitsitest"
	"brewline/internal/siptest"
)

// thrownOut are the ways in which somebody does not get out of a lobby into
// the room, and what a caller is told of each.
var thrownOut = map[string]struct {
	do  func(sh *jitsitest.Shard, lobby, nick string) error
	why string
}{
	"kicked": {func(sh *jitsitest.Shard, lobby, nick string) error { return sh.XMPP.Kick(lobby, nick, "not you") }, "refused"},
	"banned": {func(sh *jitsitest.Shard, lobby, nick string) error {
		for _, o := range sh.XMPP.Occupants(lobby) {
			if o.Nick == nick {
				bare, _, _ := strings.Cut(o.JID, "/")
				return sh.XMPP.SetAffiliation(lobby, bare, "outcast")
			}
		}
		return nil
	}, "refused"},
	"room destroyed": {func(sh *jitsitest.Shard, lobby, _ string) error { return sh.XMPP.Destroy(lobby, "", "over") }, "over"},
}

// waits awaits that our occupant is in the lobby, and returns its nick.
func (w *world) waits(sh *jitsitest.Shard, lobby string) string {
	w.t.Helper()
	w.await("our occupant is in the lobby", func() bool { return len(sh.XMPP.Occupants(lobby)) == 1 })
	return sh.XMPP.Occupants(lobby)[0].Nick
}

// A caller who is thrown out of the lobby hears it, and is hung up on with the
// reason.
func TestLobbyThrownOut(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{shards: 1, options: gateway.Options{Call: call.Timers{Farewell: 200 * time.Millisecond}}})
	sh := w.deps[0].Shards[0]
	for name, tt := range thrownOut {
		t.Run(name, func(t *testing.T) {
			room := "quiet-" + strings.ReplaceAll(name, " ", "-")
			lobby := room + "@lobby." + sh.Domain()
			alice := w.browser(sh, room, 440)
			if err := sh.XMPP.EnableLobby(room, true); err != nil {
				t.Fatal(err)
			}
			c := w.call(w.phone(siptest.PhoneOptions{}), room, 1000)
			w.speech(c)
			if err := tt.do(sh, lobby, w.waits(sh, lobby)); err != nil {
				t.Fatal(err)
			}
			select {
			case e := <-c.Ended():
				if !e.ByPeer || !strings.Contains(e.Reason, tt.why) {
					t.Errorf("ended by %+v", e)
				}
			case <-w.ctx.Done():
				t.Fatal("the caller is not hung up on")
			}
			w.gone()
			if others := alice.Others(); len(others) != 0 || len(sh.XMPP.Occupants(lobby)) != 0 {
				t.Errorf("left behind: %v in the room, %v in the lobby", others, sh.XMPP.Occupants(lobby))
			}
			w.never("the participant", alice.Heard(), 48000, 1000)
		})
	}
	w.problems()
}

// Of a call that goes out the phone never rings.
func TestDialLobbyThrownOut(t *testing.T) {
	t.Parallel()
	o := worldOptions{shards: 1}
	o.options.Call.Invited = 2 * time.Second
	w, p := dialWorld(t, o, anyNumber)
	sh := w.deps[0].Shards[0]
	for name, tt := range thrownOut {
		t.Run(name, func(t *testing.T) {
			room := "quiet-" + strings.ReplaceAll(name, " ", "-")
			lobby := room + "@lobby." + sh.Domain()
			alice := w.browser(sh, room, 440)
			if err := sh.XMPP.EnableLobby(room, true); err != nil {
				t.Fatal(err)
			}
			w.refNick(w.ask(alice, sh, room, "112"))
			if err := tt.do(sh, lobby, w.waits(sh, lobby)); err != nil {
				t.Fatal(err)
			}
			w.alone(alice)
			if n := len(sh.XMPP.Occupants(lobby)); n != 0 {
				t.Errorf("%d left in the lobby", n)
			}
		})
	}
	silent(t, p)
}
