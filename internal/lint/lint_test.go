package main

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestImports(t *testing.T) {
	t.Parallel()
	pkgs := []pkg{
		{ImportPath: "brewline/xmpp", Imports: []string{"fmt", "brewline/xmpp/bosh", "brewline/media"}},
		{ImportPath: "brewline/xmpp/bosh", TestImports: []string{"brewline/internal/jitsitest/xmppd"}, XTestImports: []string{"brewline/config", "brewline/config"}},
		{ImportPath: "brewline/media", Imports: []string{"brewline/media/transport", "brewline/media/codec"}},
		{ImportPath: "brewline/media/transport", Imports: []string{"brewline/media"}},
		{ImportPath: "brewline/gateway/call", Imports: []string{"brewline/config", "brewline/sip", "brewline/internal/tone"}},
		{ImportPath: "brewline/cmd/brewline", Imports: []string{"brewline/gateway", "brewline/internal/siptest"}},
		{ImportPath: "brewline/cmd/brewline-demo", Imports: []string{"brewline/internal/jitsitest", "brewline/config"}},
		{ImportPath: "brewline/internal/jitsitest", Imports: []string{"brewline/internal/jitsitest/jvb"}, TestImports: []string{"brewline/xmpp"}},
		{ImportPath: "brewline/internal/jitsitest/jvb", Imports: []string{"brewline/internal/jitsitest/lb"}, TestImports: []string{"brewline/internal/jitsitest"}},
		{ImportPath: "brewline/internal/bench", Imports: []string{"brewline/gateway", "brewline/internal/siptest"}},
		{ImportPath: "brewline/extra"},
	}
	want := []string{
		"xmpp: may not import media",
		"xmpp/bosh: its tests may not import config",
		"media/transport: may not import media",
		"gateway/call: may not import internal/tone",
		"cmd/brewline: may not import internal/siptest",
		"cmd/brewline-demo: may not import config",
		"internal/jitsitest: its tests may not import xmpp",
		"internal/jitsitest/jvb: may not import internal/jitsitest/lb",
		"extra: has no line in the table of allowed imports",
	}
	if diff := cmp.Diff(want, imports(pkgs)); diff != "" {
		t.Errorf("offences (-want +got):\n%s", diff)
	}
}

func TestWording(t *testing.T) {
	t.Parallel()
	docs := map[string]bool{"README.md": true, "operator.md": true}
	for line, want := range map[string]string{
		"see docs/operator.md":                     "",
		"see ../notes." + "md §3":                  "f:1: names ../notes." + "md, which is not part of the repository",
		"https://example.org/a/b.md":               "",
		"cd " + "/ho" + "me/me/src":                "f:1: names a path of one machine",
		"file:/etc/brewline/key /var/lib/brewline": "",
		"https://example.org/" + "work/x":          "",
		"from proxy." + "golang.org":               "f:1: names the host of a registry",
		"a proxy for golang":                       "",
	} {
		if got := strings.Join(inspect("f", line+"\n", docs), "\n"); got != want {
			t.Errorf("%q: got %q, want %q", line, got, want)
		}
	}
}
