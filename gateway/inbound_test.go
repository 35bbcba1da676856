package gateway_test

import (
	"testing"

	"brewline/internal/siptest"
)

// The first thing the gateway must do: a call lands in the room it names, on
// the shard where that room lives, and both sides hear each other.
func TestCallLandsInItsRoom(t *testing.T) {
	bothWays(t, worldOptions{}, "phonemeet", testCallLandsInItsRoom)
}

func testCallLandsInItsRoom(t *testing.T, w *world) {
	shard := w.deps[0].Shards[1]
	alice := w.browser(shard, "phonemeet", 440)
	p := w.phone(siptest.PhoneOptions{})
	c := w.call(p, "phoneMeet", 1000)
	w.hear("the phone", c, 440)
	w.hear("the participant", alice, 1000)
	if err := c.Hangup(w.ctx); err != nil {
		t.Fatal(err)
	}
	w.gone()
	w.await("the caller left the room", func() bool { return len(alice.Others()) == 0 })
}
