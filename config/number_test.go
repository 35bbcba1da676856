package config

import (
	"strings"
	"testing"
)

func TestRoomFor(t *testing.T) {
	t.Parallel()
	c := load(t, trunk+`
rooms = { "+49 30 1" = "written", "+49302" = "bare", "help.desk" = "help" }
[[trunk.did]]
pattern = '\+49308(\d{2})'
room    = 'room-$1'
[[trunk.did]]
pattern = '(?P<tenant>[a-z]+)-(?P<room>[a-z]+)'
room    = '${tenant}/${room}'
[[trunk.did]]
pattern = '.*99'
room    = 'last@conference.meet.example.org'
`+dialShard)
	for called, want := range map[string]string{
		"+49 30 1": "written", "+49302": "bare", "+49 (30) 2": "bare", "help.desk": "help",
		"+49-30-8.17": "room-17", "+4930817;phone-context=x": "room-17", "+493081": "", "x+4930817": "",
		"acme-standup": "acme/standup", "acme-Standup": "", "+493099": "last@conference.meet.example.org", "": "",
	} {
		if got := c.Trunks[0].RoomFor(called); got != want {
			t.Errorf("%q: %q, want %q", called, got, want)
		}
	}
}

func TestMaskNumber(t *testing.T) {
	t.Parallel()
	c := load(t, trunk+`
[[trunk.mask]]
pattern = '\+49(1\d\d)\d+(\d\d)'
show    = '+49 $1 ••• $2'
[[trunk.mask]]
pattern = '\+.*'
show    = '•••'
`+dialShard)
	for number, want := range map[string]string{
		"+491701234578": "+49 170 ••• 78", "+49 170 / 1234578": "+49 170 ••• 78", "+33612345678": "•••", "110": "", "alice": "",
	} {
		got, ok := c.Trunks[0].MaskNumber(number)
		if want == "" && (ok || got != number) || want != "" && (!ok || got != want) {
			t.Errorf("%s: %q %v", number, got, ok)
		}
	}
}

func TestNumberProblems(t *testing.T) {
	t.Parallel()
	_, err := Load(write(t, map[string]string{"brewline.toml": trunk + `
[[trunk.did]]
pattern = '(\d+'
room    = 'a'
[[trunk.did]]
pattern = '(\d+)'
room    = '$2'
[[trunk.mask]]
pattern = '\d+'
show    = '${x}'
` + dialShard}))
	if err == nil {
		t.Fatal("loaded")
	}
	for _, want := range []string{"missing closing )", `the pattern has no part "2"`, `the pattern has no part "x"`} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("no %q in\n%v", want, err)
		}
	}
}
