package config

import (
	"strings"
	"testing"
)

const dialShard = `
[[shard]]
name   = "meet"
domain = "meet.example.org"
url    = "https://meet.example.org/http-bind"
`

func TestDialRules(t *testing.T) {
	t.Parallel()
	c := load(t, strings.Replace(trunk, `name = "pbx"`, "name = \"pbx\"\naddress = \"sip:192.0.2.10:5060\"", 1)+dialShard+`
[[dial]]
name    = "premium"
pattern = '\+49900\d+'
deny    = true

[[dial]]
name       = "inland"
shards     = ["meet"]
pattern    = '\+49(?P<rest>\d+)|112'
number     = "$$1${rest}$0"
trunks     = ["pbx"]
max_calls  = 10
per_minute = 5
`)
	if len(c.Dial) != 2 || !c.Dial[0].Deny || c.Dial[1].MaxCalls != 10 || c.Dial[1].PerMinute != 5 {
		t.Fatalf("%+v", c.Dial)
	}
	for number, want := range map[string]bool{"+4930123": true, "112": true, "1123": false, "x112": false, "+4930123@x": false} {
		if got := c.Dial[1].Regexp().MatchString(number); got != want {
			t.Errorf("%s: %v", number, got)
		}
	}
}

func TestDialProblems(t *testing.T) {
	t.Parallel()
	_, err := Load(write(t, map[string]string{"brewline.toml": trunk + dialShard + `
[[dial]]
name    = "a"
pattern = '+49('
trunks  = ["pbx"]

[[dial]]
name    = "a"
shards  = ["moon"]
pattern = '\+49(\d+)'
number  = "0$2"
trunks  = ["sun"]

[[dial]]
name       = "c"
pattern    = '\d+'
max_calls  = -1
per_minute = -2
`}))
	if err == nil {
		t.Fatal("no problem was found")
	}
	for _, want := range []string{"dial[0].pattern: missing argument to repetition operator", `dial[0].trunks[0]: trunk "pbx" has no address`,
		`dial[1].name: dial rule "a" stands already`, `dial[1].shards[0]: no shard is named "moon"`,
		`dial[1].trunks[0]: no trunk is named "sun"`, `dial[1].number: the pattern has no part "2"`, "dial[2].trunks: is empty",
		"dial[2].max_calls: -1 is too little", "dial[2].per_minute: -2 is too little",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("no word of %q in\n%v", want, err)
		}
	}
}
