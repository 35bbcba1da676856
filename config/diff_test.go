package config

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestDiff(t *testing.T) {
	t.Setenv("BREWLINE_TEST_SECRET", "x")
	old := load(t, two+trunk)
	if ch := Diff(old, load(t, two+trunk)); !ch.Empty() {
		t.Errorf("the same text differs: %+v", ch)
	}
	text := strings.Replace(two, `password = "one"`, `password = "changed"`, 1)
	text = strings.Replace(text, `name = "inner"`, `name = "outer"`, 1)
	text = "[gateway]\nmax_calls = 7\n[sip]\nlisten = ['udp://127.0.0.1:0']\n[sip.headers]\nroom = ['X-R']\n[media.phone]\nports = '40000-49999'\n" + text +
		"[[shard]]\nname='z'\ndeployment='outer'\nurl='https://z.example/http-bind'\n" +
		strings.Replace(trunk, `"pbx"`, `"other"`, 1)
	want := Changes{
		ShardsAdded: []string{"z"}, ShardsChanged: []string{"a"},
		TrunksAdded: []string{"other"}, TrunksRemoved: []string{"pbx"},
		DeploymentsAdded: []string{"outer"}, DeploymentsRemoved: []string{"inner"}, DeploymentsChanged: []string{"public"},
		Live:    []string{"gateway.max_calls", "sip.headers.room"},
		Restart: []string{"media.phone.ports", "sip.listen"},
	}
	got := Diff(old, load(t, text))
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("changes (-want +got):\n%s", diff)
	}
	const words = "deployment +outer, deployment -inner, deployment ~public, shard +z, shard ~a, trunk +other, trunk -pbx, " +
		"key ~gateway.max_calls, key ~sip.headers.room, only after a restart: media.phone.ports, only after a restart: sip.listen"
	if got.String() != words {
		t.Errorf("got  %s\nwant %s", got, words)
	}
	if none := (Changes{}).String(); none != "none" {
		t.Errorf("no change reads %q", none)
	}
}
