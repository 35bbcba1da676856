package main

import (
	"fmt"
	"slices"
	"strings"
)

const module = "brewline"

// pkg is what go list says of a package.
type pkg struct {
	ImportPath                         string
	Imports, TestImports, XTestImports []string
}

// rule says which folders of ours a folder may import. "x" is the package
// itself, "x/..." also those below it, "..." all.
type rule struct {
	folder string
	may    []string
}

// rules is the table of allowed imports; the first folder that fits counts.
// Arrows point down, and never sideways among xmpp, sip, media and config. A
// package may always import those of its own rule.
var rules = []rule{
	{"cmd/brewline", []string{"gateway/...", "brewery/...", "xmpp/...", "sip/...", "media/...", "config/..."}},
	{"cmd/brewline-demo", []string{"internal/..."}},
	{"gateway/...", []string{"brewery/...", "xmpp/...", "sip/...", "media/...", "config"}},
	{"brewery/...", []string{"xmpp/...", "config"}},
	{"xmpp/...", nil},
	{"sip/...", nil},
	{"media/transport", nil},
	{"media/codec", nil},
	{"media/...", nil},
	{"config/jigasi", []string{"config"}},
	{"config", nil},

	// The simulated world knows nothing of the product. Its Jicofo tells its
	// bridge what to do; the package above joins all four.
	{"internal/jitsitest/xmppd", []string{"internal/jitsitest/internal/..."}},
	{"internal/jitsitest/lb", []string{"internal/jitsitest/internal/..."}},
	{"internal/jitsitest/jicofo", []string{"internal/jitsitest/jvb", "internal/jitsitest/internal/..."}},
	{"internal/jitsitest/jvb", []string{"internal/jitsitest/internal/...", "internal/tone"}},
	{"internal/jitsitest/internal/...", nil},
	{"internal/jitsitest/client", nil},
	{"internal/jitsitest", []string{"internal/jitsitest/...", "internal/tone"}},
	{"internal/siptest/...", []string{"internal/tone"}},
	{"internal/prosodytest/...", []string{"internal/needtool"}},
	{"internal/tone", nil},
	{"internal/needtool", nil},
	{"internal/lint", nil},
	// Measurements and tests of the whole.
	{"deploy", []string{"config"}},
	{"internal/bench/...", []string{"..."}},
	{"internal/realstack", nil},
	{"internal/nattest", []string{"..."}},
	{"internal/webrtctest", []string{"..."}},
}

// imports returns a line for every import that the table does not allow. Tests
// may also import what is below internal; since the simulated world has no line
// that names the product, it cannot import it in its tests either.
func imports(pkgs []pkg) (offences []string) {
	for _, p := range pkgs {
		folder := strings.TrimPrefix(strings.TrimPrefix(p.ImportPath, module), "/")
		r := ruleOf(folder)
		if r == nil {
			offences = append(offences, folder+": has no line in the table of allowed imports")
			continue
		}
		for _, imp := range ours(p.Imports) {
			if !r.allows(imp) {
				offences = append(offences, fmt.Sprintf("%s: may not import %s", folder, imp))
			}
		}
		for _, imp := range ours(append(slices.Clone(p.TestImports), p.XTestImports...)) {
			if !r.allows(imp) && !within(imp, "internal/...") {
				offences = append(offences, fmt.Sprintf("%s: its tests may not import %s", folder, imp))
			}
		}
	}
	return offences
}

func ruleOf(folder string) *rule {
	for i := range rules {
		if within(folder, rules[i].folder) {
			return &rules[i]
		}
	}
	return nil
}

func (r *rule) allows(imp string) bool {
	return within(imp, r.folder) ||
		slices.ContainsFunc(r.may, func(m string) bool { return within(imp, m) })
}

// within says whether a folder is, or is below, what a pattern names.
func within(folder, pattern string) bool {
	base, below := strings.CutSuffix(pattern, "...")
	base = strings.TrimSuffix(base, "/")
	return folder == base || below && (base == "" || strings.HasPrefix(folder, base+"/"))
}

// ours returns the imports of this module, as folders, each once.
func ours(imports []string) (folders []string) {
	for _, imp := range imports {
		if f, ok := strings.CutPrefix(imp, module+"/"); ok && !slices.Contains(folders, f) {
			folders = append(folders, f)
		}
	}
	return folders
}
