// Package deploy holds what an operator copies. Its tests try it.
package deploy

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"encoding/xml"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"brewline/config"
	"brewline/internal/needtool"
)

var (
	tomlBlock  = regexp.MustCompile("(?ms)^```toml\n(.*?)^```")
	secretFile = regexp.MustCompile(`"file:[^"]*"`)
	caFile     = regexp.MustCompile(`"/etc/brewline/([\w-]*\.pem)"`)
)

// TestExamplesLoad loads every configuration that the documents show, and the
// one here. A block without a trunk stands for a file of shards.d, one without
// a shard is about trunks alone.
func TestExamplesLoad(t *testing.T) {
	examples := map[string]string{}
	for _, pattern := range []string{"../README.md", "../docs/*.md"} {
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: none (%v)", pattern, err)
		}
		for _, file := range files {
			for i, block := range tomlBlock.FindAllStringSubmatch(read(t, file), -1) {
				examples[fmt.Sprintf("%s, block %d", file, i+1)] = block[1]
			}
		}
	}
	examples["brewline.toml"] = read(t, "brewline.toml")
	main := examples["brewline.toml"]
	if len(examples) < 3 {
		t.Errorf("found only %d examples", len(examples))
	}
	for name, text := range examples {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			put(t, filepath.Join(dir, "secret"), "x")
			certificate(t, dir)
			for _, m := range caFile.FindAllStringSubmatch(text, -1) {
				if path := filepath.Join(dir, m[1]); !exists(path) {
					put(t, path, read(t, filepath.Join(dir, "ca.pem")))
				}
			}
			local := func(text string) string {
				text = secretFile.ReplaceAllString(text, `"file:`+filepath.Join(dir, "secret")+`"`)
				return strings.ReplaceAll(text, "/etc/brewline/", dir+"/")
			}
			path := filepath.Join(dir, "brewline.toml")
			switch trunk, shard := strings.Contains(text, "[[trunk]]"), strings.Contains(text, "[[shard]]"); {
			case trunk && shard:
				put(t, path, local(text))
			case trunk:
				shards := main[strings.Index(main, "[[deployment]]"):strings.Index(main, "[[trunk]]")]
				put(t, path, local(shards+text))
			default:
				put(t, path, local(main))
				put(t, filepath.Join(dir, "shards.d", "example.toml"), local(text))
			}
			if _, err := config.Load(path); err != nil {
				t.Error(err)
			}
		})
	}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// TestBalancerIsSticky runs haproxy.cfg in front of two servers.
func TestBalancerIsSticky(t *testing.T) {
	haproxy := needtool.Path(t, "haproxy")
	text := read(t, "haproxy.cfg")
	for i := range 2 {
		srv := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
		defer srv.Close()
		line := regexp.MustCompile(fmt.Sprintf(`(?m)^    server shard-%d .*$`, i+1))
		if !line.MatchString(text) {
			t.Fatalf("no server shard-%d", i+1)
		}
		text = line.ReplaceAllString(text, fmt.Sprintf("    server shard-%d %s", i+1, srv.Listener.Addr()))
	}
	// HAProxy is given the socket: no port is guessed.
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	sock, err := l.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer sock.Close()
	bind := regexp.MustCompile(`(?m)^    bind .*$`)
	path := filepath.Join(t.TempDir(), "haproxy.cfg")
	put(t, path, bind.ReplaceAllString(text, "    bind fd@3"))

	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, haproxy, "-db", "-f", path)
	cmd.ExtraFiles = []*os.File{sock}
	var said strings.Builder
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		cmd.Process.Kill()
		cmd.Wait()
		if t.Failed() {
			t.Log(said.String())
		}
	}()

	client := http.Client{Timeout: 10 * time.Second}
	shard := func(target string) string {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+l.Addr().String()+target, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp.Header.Get("X-Jitsi-Shard")
	}
	seen := map[string]int{}
	for i := range 20 {
		want := shard(fmt.Sprintf("/acme/http-bind?room=standup%d", i))
		seen[want]++
		for _, same := range []string{"/acme/http-bind?room=Standup%d&token=x", "/Acme/xmpp-websocket?room=standup%d", "/acme/conference-request/v1?room=STANDUP%d"} {
			if got := shard(fmt.Sprintf(same, i)); got != want {
				t.Errorf("%s reaches %q, the room is on %q", fmt.Sprintf(same, i), got, want)
			}
		}
		seen[shard(fmt.Sprintf("/http-bind?room=standup%d", i))]++
	}
	if len(seen) != 2 || seen["shard-1"] < 5 || seen["shard-2"] < 5 {
		t.Errorf("40 rooms spread as %v", seen)
	}
}

// TestInteropFiles compares what the document shows of other systems with the
// files here: the comment at a block's start names the file.
func TestInteropFiles(t *testing.T) {
	doc := read(t, "../docs/interop.md")
	for comment, file := range map[string]string{
		"; pjsip.conf": "asterisk/pjsip.conf", "; extensions.conf": "asterisk/extensions.conf",
		"<!-- sip_profiles/": "freeswitch/gateway.xml", "<!-- dialplan/": "freeswitch/dialplan.xml",
	} {
		if !strings.HasPrefix(read(t, file), comment) || !strings.Contains(doc, "\n"+read(t, file)+"```") {
			t.Errorf("%s is not what docs/interop.md shows", file)
		}
	}
	for _, file := range []string{"freeswitch/gateway.xml", "freeswitch/dialplan.xml"} {
		var v struct {
			XMLName xml.Name `xml:"include"`
		}
		if err := xml.Unmarshal([]byte(read(t, file)), &v); err != nil {
			t.Errorf("%s: %v", file, err)
		}
	}
}

// TestKamailio has Kamailio check kamailio.cfg, alone and with each of the
// routes that the document shows.
func TestKamailio(t *testing.T) {
	kamailio := needtool.Path(t, "kamailio")
	block := regexp.MustCompile("(?ms)^```kamailio\n(.*?)^```")
	whole := strings.ReplaceAll(read(t, "kamailio.cfg"), "/etc/kamailio/dispatcher.list", filepath.Join(t.TempDir(), "dispatcher.list"))
	configs := []string{whole}
	for _, m := range block.FindAllStringSubmatch(read(t, "../docs/interop.md"), -1) {
		configs = append(configs, whole+"\n"+m[1])
	}
	if len(configs) < 3 {
		t.Errorf("docs/interop.md has %d routes", len(configs)-1)
	}
	for i, text := range configs {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "kamailio.cfg")
			put(t, path, text)
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			if out, err := exec.CommandContext(ctx, kamailio, "-c", "-f", path).CombinedOutput(); err != nil {
				t.Errorf("%v\n%s\n%s", err, out, text)
			}
		})
	}
}

// certificate makes the files that the examples name.
func certificate(t *testing.T, dir string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"gw.example.org"}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	put(t, filepath.Join(dir, "gw.pem"), string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
	put(t, filepath.Join(dir, "ca.pem"), string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
	put(t, filepath.Join(dir, "gw.key"), string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})))
}

func read(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func put(t *testing.T, file, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
