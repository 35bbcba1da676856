package webrtctest

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"brewline/config"
	"brewline/gateway"
	"brewline/internal/jitsitest"
	"brewline/internal/needtool"
	"brewline/internal/siptest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestBrowserCalls calls a room from a browser, over secure WebSocket with
// DTLS-SRTP and ICE. Both hear each other, also after hold; then the phone and
// the room hang up once each.
func TestBrowserCalls(t *testing.T) {
	needtool.NeedLong(t)
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	gw, shard := start(t, ctx, "required")
	server := gw.SIPAddrs()[1]
	alice, err := jitsitest.JoinBrowser(ctx, jitsitest.BrowserOptions{
		URL: shard.BOSHURL(), Domain: shard.Domain(), MUC: shard.MUC(), Room: "standup", Tone: 440,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer alice.Close()
	p := phone(t, ctx, fmt.Sprintf("wss://%s", server), fmt.Sprintf("sip:standup@%s", server), 1000)
	p.says("connected", 0)

	p.do("call", "")
	p.says("accepted", 0)
	heard := p.hears(440)
	if err := alice.Hear(ctx, 1000); err != nil {
		t.Fatalf("the room does not hear the browser: %v", err)
	}
	if heard.Codec != "audio/opus" || heard.DTLS != "connected" || heard.SRTP == "" {
		t.Errorf("%+v", heard)
	}
	t.Logf("the browser hears %.0f Hz at %.0f dB: %s, %s, %d packets", heard.Frequency, heard.Level, heard.Codec, heard.SRTP, heard.Packets)

	mark := p.mark()
	p.do("hold", "")
	p.says("hold", mark)
	p.do("resume", "")
	p.says("unhold", mark)
	if err := alice.SetTone(700); err != nil {
		t.Fatal(err)
	}
	p.hears(700)
	if err := alice.Hear(ctx, 1000); err != nil {
		t.Fatalf("the room does not hear the browser after hold: %v", err)
	}
	p.do("hangup", "")
	if e := p.says("ended", mark); e.Text != "local" {
		t.Errorf("ended by %s", e.Text)
	}
	gone(t, ctx, gw)

	mark = p.mark()
	p.do("call", "")
	p.says("accepted", mark)
	p.hears(700)
	if err := alice.Hear(ctx, 1000); err != nil {
		t.Fatalf("the room does not hear the browser in its second call: %v", err)
	}
	nicks := alice.Others()
	if len(nicks) != 1 {
		t.Fatalf("beside alice there are %v", nicks)
	}
	if err := shard.XMPP.Kick("standup@"+shard.MUC(), nicks[0], "enough"); err != nil {
		t.Fatal(err)
	}
	if e := p.says("ended", mark); e.Text != "remote" {
		t.Errorf("ended by %s", e.Text)
	}
	gone(t, ctx, gw)
}

// TestBrowserRefused calls from a browser over secure WebSocket where audio must
// not be encrypted: a browser knows no other, and is told so.
func TestBrowserRefused(t *testing.T) {
	needtool.NeedLong(t)
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	gw, _ := start(t, ctx, "off")
	server := gw.SIPAddrs()[1]
	p := phone(t, ctx, fmt.Sprintf("wss://%s", server), fmt.Sprintf("sip:standup@%s", server), 1000)
	p.says("connected", 0)
	p.do("call", "")
	if e := p.await("the refusal", 0, func(e event) bool { return e.What == "failed" }); e.Text != "Incompatible SDP" { // JsSIP's word for 488
		t.Errorf("refused for %s", e.Text)
	}
	gone(t, ctx, gw)
}

// TestPlainRefused calls without encryption where it is required.
func TestPlainRefused(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	gw, _ := start(t, ctx, "required")
	p, err := siptest.NewPhone(siptest.PhoneOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	_, err = p.Call(ctx, siptest.CallOptions{URI: fmt.Sprintf("sip:standup@%s", gw.SIPAddrs()[0])})
	var status *siptest.StatusError
	if !errors.As(err, &status) || status.Code != 488 {
		t.Errorf("a call in the clear: %v", err)
	}
	gone(t, ctx, gw)
}

func gone(t *testing.T, ctx context.Context, gw *gateway.Gateway) {
	t.Helper()
	await(t, ctx, "no call left", func() bool { return len(gw.Snapshot().Calls) == 0 })
}

func await(t *testing.T, ctx context.Context, what string, ok func() bool) {
	t.Helper()
	for !ok() {
		select {
		case <-time.After(5 * time.Millisecond):
		case <-ctx.Done():
			t.Fatalf("never: %s", what)
		}
	}
}

// start brings a shard up, and a gateway that WebRTC phones reach.
func start(t *testing.T, ctx context.Context, srtp string) (*gateway.Gateway, *jitsitest.Shard) {
	t.Helper()
	d, err := jitsitest.NewDeployment(1, jitsitest.DeploymentOptions{NoBalancer: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	shard := d.Shards[0]
	dir := t.TempDir()
	certificate(t, dir)
	text := strings.NewReplacer("DIR", dir, "DOMAIN", shard.Domain(), "URL", shard.BOSHURL(), "SRTP", srtp).Replace(`
[http]
listen = "127.0.0.1:0"
[sip]
listen = ["udp://127.0.0.1:0", "wss://127.0.0.1:0"]
origins = ["127.0.0.1:*"]
[sip.tls]
certificate = "DIR/cert.pem"
key = "DIR/key.pem"
[media]
bind = "127.0.0.1"
[[shard]]
name = "shard-1"
domain = "DOMAIN"
url = "URL"
[[trunk]]
name = "web"
match = ["127.0.0.1"]
srtp = "SRTP"
uri_rooms = true
`)
	path := filepath.Join(dir, "brewline.toml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, err := config.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	if testing.Verbose() {
		log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	gw, err := gateway.Start(ctx, cfg, gateway.Options{Version: "test", Logger: log})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(gw.Close)
	await(t, ctx, "the shard is up", func() bool { return gw.Brewery().Status()[0].State == "up" })
	return gw, shard
}

// certificate makes cert.pem and key.pem, which the browser is told to trust.
func certificate(t *testing.T, dir string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{
		"cert.pem": {Type: "CERTIFICATE", Bytes: der}, "key.pem": {Type: "PRIVATE KEY", Bytes: pkcs8},
	} {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}
