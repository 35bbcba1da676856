package main

import (
	"encoding/base64"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"brewline/config"
)

const jigasiEnv = `
JIGASI_SIP_URI=gw@192.0.2.5
JIGASI_SIP_SERVER=192.0.2.5
JIGASI_SIP_PASSWORD=sip-secret
JIGASI_XMPP_PASSWORD=xmpp-secret
XMPP_SERVER=prosody.example.org
HTTP_PORT=8000
`

func write(t *testing.T, name, text string) string {
	t.Helper()
	p := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return p
}

func TestImport(t *testing.T) {
	t.Parallel()
	env := write(t, ".env", jigasiEnv)
	props := write(t, "custom.properties", "org.jitsi.jigasi.LOCAL_REGION=moon\norg.jitsi.jigasi.SOMETHING=else\n")
	target := filepath.Join(t.TempDir(), "brewline.toml")

	// To standard output, without secrets; flags may stand behind the files.
	code, out, errOut := call("import", env, props)
	if code != exitOK || strings.Contains(out+errOut, "-secret") || !strings.Contains(out, `password    = "env:BREWLINE_ACC_0_PASSWORD"`) || !strings.Contains(out, `region    = "moon"`) ||
		!strings.Contains(errOut, "not as before: "+props+":2: org.jitsi.jigasi.SOMETHING: is not known to the import\n") || !strings.Contains(errOut, "1 more have no counterpart") {
		t.Errorf("code %d, out %s, err %s", code, out, errOut)
	}
	if code, out, _ = call("import", env, "-show-secrets"); code != exitOK || !strings.Contains(out, `"sip-secret"`) || !strings.Contains(out, `"xmpp-secret"`) {
		t.Errorf("code %d, out %s", code, out)
	}

	// To a file that is the owner's alone.
	code, out, errOut = call("import", "-o", target, env)
	if code != exitOK || out != "" || !strings.Contains(errOut, "brewline check -c "+target) || strings.Contains(errOut, "-secret") {
		t.Errorf("code %d, out %s, err %s", code, out, errOut)
	}
	if info, err := os.Stat(target); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	c, err := config.Load(target)
	if err != nil || c.Shards[0].Password.Value() != "xmpp-secret" || c.Trunks[0].Password.Value() != "sip-secret" {
		t.Errorf("%+v, %v", c, err)
	}

	// Nothing is overwritten unasked.
	before, _ := os.ReadFile(target)
	if code, _, errOut = call("import", env, props, "-o", target); code != exitFailed || !strings.Contains(errOut, "exists; -f replaces it") {
		t.Errorf("code %d, err %s", code, errOut)
	}
	if after, _ := os.ReadFile(target); string(after) != string(before) {
		t.Error("was overwritten")
	}
	if err := os.Chmod(target, 0o644); err != nil {
		t.Fatal(err)
	}
	if code, _, errOut = call("import", env, props, "-f", "-o", target); code != exitOK {
		t.Errorf("code %d, err %s", code, errOut)
	}
	if info, err := os.Stat(target); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(target), "*")); len(left) != 1 {
		t.Errorf("left behind: %v", left)
	}
}

// What has to be filled in shows in the exit code and in what the loader says.
func TestImportIncomplete(t *testing.T) {
	t.Parallel()
	const acc = "net.java.sip.communicator.impl.protocol.sip.a"
	props := write(t, "sip-communicator.properties", acc+"="+"a\n"+acc+".USER_ID=gw@192.0.2.5\n"+acc+".PASSWORD="+base64.StdEncoding.EncodeToString([]byte("s3cret"))+"\n")
	if code, out, errOut := call("import", props); code != exitFailed || !strings.HasPrefix(errOut, "fill in: no brewery account") || strings.Contains(out+errOut, "s3cret") {
		t.Errorf("code %d, out %s, err %s", code, out, errOut)
	}
	target := filepath.Join(t.TempDir(), "out.toml")
	if code, _, errOut := call("import", props, "-o", target); code != exitFailed || !strings.Contains(errOut, "out.toml: shard: there is none") {
		t.Errorf("code %d, err %s", code, errOut)
	}
}

func TestImportUsage(t *testing.T) {
	t.Parallel()
	other := write(t, "brewline.toml", "[gateway]\n")
	for _, tt := range []struct {
		args []string
		err  string
	}{
		{nil, "name a file"},
		{[]string{other}, "is neither Jigasi's"},
		{[]string{other + ".none"}, "no such file"},
		{[]string{"-x"}, "-x"},
		{[]string{filepath.Dir(other)}, "is a directory"},
		{strings.Fields(strings.Repeat(other+" ", maxImports+1)), "is not understood"},
		{[]string{write(t, "big", strings.Repeat("#", maxImport+1))}, "larger than"},
	} {
		if code, out, errOut := call(append([]string{"import"}, tt.args...)...); code != exitUsage || out != "" || !strings.Contains(errOut, tt.err) {
			t.Errorf("%v: code %d, out %s, err %s", tt.args, code, out, errOut)
		}
	}
	if code, _, errOut := call("import", write(t, ".env", jigasiEnv), "-o", filepath.Join(other, "x")); code != exitFailed || !strings.Contains(errOut, "not a directory") {
		t.Errorf("code %d, err %s", code, errOut)
	}
}
